"""Options and arguments that several commands have. Their choices are those of the registries."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
import yaml

from cxr_tasks.addresses import whole_addresses
from cxr_tasks.arms import ARMS
from cxr_tasks.artifacts import STEPS
from cxr_tasks.classifiers.registry import CLASSIFIERS
from cxr_tasks.config import merge, profile_names
from cxr_tasks.data.sources import GIVE
from cxr_tasks.errors import UserError
from cxr_tasks.form import ARM_WORDS, CLASSIFIER_WORDS, FIELDS
from cxr_tasks.store import FolderStore, Store, open_store
from cxr_tasks.tracking.server import SWITCH

if TYPE_CHECKING:
    ClassifierChoice = str
    ArmChoice = str
    StepChoice = str
else:
    ClassifierChoice = Literal[tuple(CLASSIFIERS)]
    ArmChoice = Literal[tuple(ARMS)]
    StepChoice = StrEnum("StepChoice", {step: step for step in STEPS})

# A flag has no value, which the help of Typer would show as <bool>.
FLAG = ""
DEFAULT_STORE = ".cxr/store"
DEFAULT_PROFILE: str = FIELDS["profile"].default
DEFAULT_HOME = Path(".cxr")
AIRFLOW_PORT, MLFLOW_PORT = 8080, 5000


SourceArgument = Annotated[
    str, typer.Argument(metavar="SOURCE", help=f"The X-rays: {GIVE.removeprefix('give ')}.", show_default=False)
]
OwnSourceArgument = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help=f"The X-rays: {GIVE.removeprefix('give ')}. None where data.sources lists several sources.",
        show_default=False,
    ),
]
SyntheticArgument = Annotated[
    str,
    typer.Argument(
        metavar="SYNTHETIC", help="The synthetic images, by class, in the same kinds of places.", show_default=False
    ),
]
ProfileOption = Annotated[
    str,
    typer.Option(
        "--profile",
        metavar="NAME|FILE",
        envvar="CXR_PROFILE",
        help=f"Where every number comes from: {', '.join(profile_names())}, or the path of a YAML file.",
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="NAME=VALUE", help="Lay a setting over the profile, such as gan.epochs=2. Repeatable."
    ),
]
ForceOption = Annotated[
    list[StepChoice] | None,
    typer.Option(
        "--force",
        metavar="STEP",
        help="Run a step although its artifact exists, with what follows from it. Repeatable. "
        f"One of {', '.join(STEPS)}.",
    ),
]
StoreOption = Annotated[
    str,
    typer.Option(
        "--store",
        metavar="DIR|s3://…",
        envvar="CXR_STORE",
        help="Where artifacts are kept and taken from: a folder, or s3://bucket/prefix.",
    ),
]
MlflowOption = Annotated[
    str,
    typer.Option(
        "--mlflow",
        metavar="URL",
        help="Address of an MLflow server that is to keep runs and models. Without it nothing is tracked.",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", metavar=FLAG, help="Print the result as JSON, for programs.")]
ClassifierOption = Annotated[
    ClassifierChoice,
    typer.Option("--classifier", help=f"{', '.join(CLASSIFIER_WORDS.values())}.", show_default=False),
]
ArmOption = Annotated[
    ArmChoice,
    typer.Option("--arm", help=f"What it is trained on. {'; '.join(ARM_WORDS.values())}.", show_default=False),
]
SeedOption = Annotated[
    int | None,
    typer.Option("--seed", min=0, help="Seed of the training; the profile's first where none is given."),
]
HomeOption = Annotated[
    Path,
    typer.Option("--home", metavar="DIR", envvar="CXR_HOME", help="Folder of databases, logs and artifacts."),
]

AirflowPortOption = Annotated[
    int, typer.Option("--airflow-port", metavar="PORT", min=1, max=65535, help="Where Airflow's pages are.")
]
MlflowPortOption = Annotated[
    int, typer.Option("--mlflow-port", metavar="PORT", min=1, max=65535, help="Where MLflow's pages are.")
]


def set_overrides(given: Sequence[str] | None) -> dict[str, Any]:
    """Settings from texts ``NAME=VALUE``, nested as in a profile; values are YAML.

    Raises:
        UserError: One is not of this form.
    """
    nested: dict[str, Any] = {}
    for each in given or ():
        name, equals, text = each.partition("=")
        parts = name.strip().split(".")
        if not equals or not all(parts):
            raise UserError(f"--set {each} is no setting: give it a name and a value, such as --set gan.epochs=2.")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise UserError(
                f"--set {each} has no value that can be read: give it YAML, such as 2 or [0, 1]."
            ) from error
        for part in reversed(parts):
            value = {part: value}
        nested = merge(nested, value)
    return nested


def use_store(address: str) -> None:
    """Have every step work with the store at ``address``."""
    os.environ["CXR_STORE"] = address if "://" in address else str(Path(address).expanduser().absolute())


def opened_store(address: str) -> Store:
    """The store at ``address``, which every step works with from here on.

    Raises:
        UserError: There is none.
    """
    use_store(address)
    opened = open_store()
    if isinstance(opened, FolderStore) and not opened.root.is_dir():
        raise UserError(f"There is no store in {opened.root}: name one with --store, or set CXR_STORE.")
    return opened


def use_mlflow(address: str) -> None:
    """Have every step track in the MLflow server at ``address``, or nowhere.

    Raises:
        UserError: Nobody answers there.
    """
    if not address:
        os.environ[SWITCH] = "off"
        return
    if fault := mlflow_fault(address):
        raise UserError(fault)
    os.environ.pop(SWITCH, None)
    os.environ["MLFLOW_TRACKING_URI"] = address


def by_hand(
    profile: str, settings: Mapping[str, Any], store: str, mlflow: str, force: list[str] | None
) -> dict[str, Any]:
    """Use the store and MLflow that a command was given; returns the form of its run.

    Raises:
        UserError: Nobody answers at MLflow's address.
    """
    use_store(store)
    use_mlflow(mlflow)
    # What was typed counts from the folder where it was typed.
    settings = whole_addresses(settings, Path.cwd())
    return {"profile": profile, "settings": settings, "force": [str(step) for step in force or ()]}


def mlflow_fault(address: str) -> str:
    """Why the MLflow server at ``address`` cannot be used, in a sentence; empty where it can, or is no server."""
    if not address.startswith(("http://", "https://")):
        return ""
    import httpx

    try:
        # MLflow's own client would try for minutes.
        answer = httpx.get(f"{address.rstrip('/')}/health", timeout=10)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return f"MLflow does not answer at {address} ({error}): start it, or correct the address."
    if answer.status_code != 200:
        return f"What answers at {address} is no MLflow server (status {answer.status_code}): correct the address."
    return ""
