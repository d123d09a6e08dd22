"""``cxr evaluate``: test a model that is there on images of another source."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

import typer

from cxr_tasks import tracking
from cxr_tasks.cli.options import (
    DEFAULT_PROFILE,
    DEFAULT_STORE,
    ForceOption,
    JsonOption,
    MlflowOption,
    ProfileOption,
    SetOption,
    SourceArgument,
    StoreOption,
    by_hand,
    set_overrides,
)
from cxr_tasks.cli.tables import report_table
from cxr_tasks.cli.terminal import Display, open_console, print_json
from cxr_tasks.config import resolve
from cxr_tasks.data_settings import ExternalSettings
from cxr_tasks.errors import UserError
from cxr_tasks.local import absolute_source, evaluate_by_hand

ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A registered model such as cxr-overall@champion, an address such as models:/cxr-overall/3, or the "
        "reference of a training's artifact.",
        show_default=False,
    ),
]
NameOption = Annotated[
    str, typer.Option("--name", metavar="NAME", help="What figures of the set are called, in MLflow too.")
]
PatientsOption = Annotated[
    Literal["shared", "own"],
    typer.Option(
        "--patients", help="own: the source numbers its patients on its own, so that none is one of training."
    ),
]


def evaluate_command(
    model: ModelArgument,
    source: SourceArgument,
    name: NameOption = "external",
    patients: PatientsOption = "shared",
    profile: ProfileOption = DEFAULT_PROFILE,
    changes: SetOption = None,
    store: StoreOption = DEFAULT_STORE,
    mlflow: MlflowOption = "",
    force: ForceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Test a model that is there on images of another source.

    Images that the model may have seen, or whose patients it has, are counted and left out. The source is read as the
    profile says: name its layout or table with --set, such as data.layout=nih.

    Exit status: 0 whatever the figures are, 2 the model could not be tested.
    """
    try:
        external = ExternalSettings(name=name, source=absolute_source(source), patients=patients)
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"--name {name} is no name of a set: give letters, digits, -, _ and . alone, and no split's name."
        ) from error
    form = by_hand(profile, set_overrides(changes), store, mlflow, force)
    with Display():
        tested, test = evaluate_by_hand(model, external, form)
    if as_json:
        divided = test.subgroups()
        told: dict[str, Any] = {"findings": test.findings().model_dump(mode="json")}
        told |= {"set": tested.model_dump(mode="json")}
        told |= {"subgroups": divided.model_dump(mode="json") if divided else None}
        print_json(json.dumps({**test.model_dump(mode="json"), **told}, indent=2))
        return
    from cxr_tasks.report.external_tables import external_table_of
    from cxr_tasks.report.subgroup_tables import tables_of_model

    console = open_console()
    table = external_table_of(tested, [(test.who, test)])
    console.print(report_table(table))
    console.print(f"\n{table.note}\n", markup=False)
    if divided := test.subgroups():
        least = resolve(profile, set_overrides(changes)).evaluation.subgroups.min_groups
        for each in tables_of_model(divided, test.who, tested.name, least):
            console.print(report_table(each))
    for warning in (*tested.warnings, *([test.remark] if test.remark else ())):
        console.print(f"Before you use it: {warning}.", style="yellow", markup=False)
    if test.url and tracking.is_on():
        console.print(f"MLflow   {test.url}", markup=False)
