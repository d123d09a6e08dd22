"""``cxr champions``, ``cxr approve`` and ``cxr rollback``: who is champion and was, the next one, the one before."""

from __future__ import annotations

import getpass
import json
import os
from typing import Annotated

import typer

from cxr_tasks import tracking
from cxr_tasks.cli.options import DEFAULT_STORE, MLFLOW_PORT, JsonOption, StoreOption, use_mlflow, use_store
from cxr_tasks.cli.tables import champions_table
from cxr_tasks.cli.terminal import open_console, print_json
from cxr_tasks.registry.champions import TAG_SINCE

ServerOption = Annotated[
    str,
    typer.Option(
        "--mlflow", metavar="URL", envvar="MLFLOW_TRACKING_URI", help="Address of the MLflow server with the models."
    ),
]
ModelNameArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="The registered model, such as cxr-overall.", show_default=False)
]
ReasonOption = Annotated[
    str,
    typer.Option("--reason", metavar="TEXT", help="What is wrong with the present champion.", show_default=False),
]
WhyOption = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why. It stays with the version.")]
VersionOption = Annotated[
    str, typer.Option("--version", metavar="VERSION", help="What is to be champion. Without it: the challenger.")
]
ToOption = Annotated[
    str,
    typer.Option("--to", metavar="VERSION", help="What is to be champion, instead of the version before."),
]
SERVER = f"http://127.0.0.1:{MLFLOW_PORT}"


def champions_command(mlflow: ServerOption = SERVER, as_json: JsonOption = False) -> None:
    """Show every version that is or was champion, the newest first, and why.

    Exit status: 0 there is one, 1 there is none, 2 MLflow does not answer.
    """
    use_mlflow(mlflow)
    told = [version for version in tracking.registered_versions() if TAG_SINCE in version.tags]
    told.sort(key=lambda version: (version.name, version.tags[TAG_SINCE]), reverse=True)
    if as_json:
        print_json(json.dumps([version._asdict() | {"tags": dict(version.tags)} for version in told], indent=2))
    elif told:
        open_console().print(champions_table(told))
    else:
        open_console().print("No version of any model was ever champion.")
    if not told:
        raise typer.Exit(1)


def approve_command(
    model: ModelNameArgument,
    version: VersionOption = "",
    reason: WhyOption = "",
    store: StoreOption = DEFAULT_STORE,
    mlflow: ServerOption = SERVER,
) -> None:
    """Make a version champion that has passed the gate and waits for a person.

    A version that the gate has refused, or that it has held against another champion than the present one, is not
    made champion, and the sentence says what can be done.

    Exit status: 0 done, 2 it could not be done.
    """
    from cxr_tasks import steps

    use_store(store)
    use_mlflow(mlflow)
    open_console().print(steps.approve(model, _signed_in(), reason, version), markup=False)


def rollback_command(
    model: ModelNameArgument,
    reason: ReasonOption,
    to: ToOption = "",
    store: StoreOption = DEFAULT_STORE,
    mlflow: ServerOption = SERVER,
) -> None:
    """Make the version champion again that was champion before.

    The version that is rolled back keeps the reason, and no later training makes it champion again by itself. The store
    is that of the trainings: while one promotes this model, the rollback waits for it.

    Exit status: 0 done, 2 it could not be done.
    """
    from cxr_tasks import steps

    use_store(store)
    use_mlflow(mlflow)
    done = steps.roll_back(model, reason, who=_signed_in(), to=to)
    open_console().print(f"{done.name} version {done.version}. {done.words}", markup=False)


def _signed_in() -> str:
    return os.environ.get("MLFLOW_TRACKING_USERNAME") or getpass.getuser()
