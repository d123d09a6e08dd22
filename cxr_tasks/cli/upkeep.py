"""``cxr store gc`` and ``cxr store verify``: make room in a store, and see whether it is whole."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from cxr_tasks.cli.options import DEFAULT_STORE, FLAG, JsonOption, StoreOption, opened_store, use_mlflow
from cxr_tasks.cli.terminal import file_size, open_console, print_json
from cxr_tasks.durations import time_taken
from cxr_tasks.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from cxr_tasks.retention.inventory import Stored
    from cxr_tasks.retention.leftovers import Leftover

DURATION = re.compile(r"(\d+)([mhdw])")
UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
# What to give in the place of MLflow's address where nothing is registered anywhere.
NO_MLFLOW = "none"
ONLY_LEFTOVERS = (
    "Artifacts stay, because nobody said where MLflow is: give its address with --mlflow, so that the lineage of "
    f"registered models can be told from what is old. Where no model was ever registered, give --mlflow {NO_MLFLOW}."
)
NOT_WHOLE = 1


def collect_garbage(
    older_than: Annotated[
        str,
        typer.Option(
            "--older-than",
            metavar="AGE",
            help="Only what was not used for so long, such as 12h or 2w. Give more time than a run takes.",
        ),
    ] = "30d",
    yes: Annotated[bool, typer.Option("--yes", metavar=FLAG, help="Remove it, instead of only listing it.")] = False,
    mlflow: Annotated[
        str,
        typer.Option(
            "--mlflow",
            metavar=f"URL|{NO_MLFLOW}",
            envvar="MLFLOW_TRACKING_URI",
            help="The MLflow server that has the registered models. Without it artifacts stay.",
            show_default=False,
        ),
    ] = "",
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Make room: list what is old and belongs to nothing that people rely on, and remove it with --yes.

    Every registered model that is or was champion keeps its whole lineage: its training, its data, and the synthetic
    images and the GAN that it was trained with. So do the newest datasets, all that was used lately, and
    trainings that go on. Other registered models keep their own artifact.

    What killed tasks left goes after a day. Checkpoints of trainings that nobody went on with go by their age.
    """
    from cxr_tasks import tracking
    from cxr_tasks.retention.clearing import check_registry, drop_versions, old_artifacts, remove_artifacts
    from cxr_tasks.retention.inventory import stored_artifacts
    from cxr_tasks.retention.leftovers import leftovers, remove_leftover

    opened, now, age = opened_store(store), datetime.now(UTC), age_of(older_than)
    console, before = open_console(), now - age
    left = leftovers(opened, before, now)
    old = None
    if mlflow:
        found = stored_artifacts(opened)
        versions: list[tracking.RegisteredVersion] = []
        if mlflow != NO_MLFLOW:
            use_mlflow(mlflow)
            versions = tracking.registered_versions()
            check_registry(found, versions)
        old = old_artifacts(opened, found, before, versions, left)
    artifacts: Sequence[Stored] = old.going if old else ()
    _show_artifacts(console, artifacts, now)
    _show_leftovers(console, left, now)
    if old is None:
        console.print(ONLY_LEFTOVERS)
    sizes = [each.size for each in artifacts] + [each.size for each in left]
    if not sizes:
        console.print(f"Nothing is there to remove that is older than {older_than}.")
    elif not yes:
        told = f"{len(sizes):,} to remove, {file_size(sum(sizes))}."
        console.print(f"{told} Nothing was removed: --yes removes them.")
    if not yes:
        return
    # Checkpoints first: what they need is among the artifacts.
    gone = [each.size for each in left if remove_leftover(opened, each)]
    if old:
        gone += [each.size for each in remove_artifacts(opened, old)]
    drop_versions(opened)
    opened.sweep()
    if sizes:
        console.print(f"Removed {len(gone):,}, {file_size(sum(gone))}.")
    if len(gone) < len(sizes):
        console.print(f"{len(sizes) - len(gone):,} stay: a run has begun to use them.")


def verify_store(
    step: Annotated[str, typer.Argument(metavar="[STEP]", help="Only artifacts of this step.")] = "",
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Read every file of every artifact, and say which are damaged or gone.

    A run finds by itself what has another size or another date, and makes that anew. This finds all else too. Exit
    status 1 if anything is wrong.
    """
    from cxr_tasks.retention.inspection import faults

    opened = opened_store(store)
    found, looked_at = faults(opened, step)
    if as_json:
        print_json(json.dumps([fault._asdict() for fault in found], indent=2))
    else:
        console = open_console()
        for fault in found:
            console.print(f"{fault.ref}: {fault.fault}. {fault.advice}", markup=False)
        said = f"{len(found):,} faults." if found else "All are whole."
        console.print(f"{looked_at:,} artifacts looked at. {said}")
    if found:
        raise typer.Exit(NOT_WHOLE)


def age_of(text: str) -> timedelta:
    """The time that ``30m``, ``12h``, ``7d`` or ``2w`` stands for.

    Raises:
        UserError: The text is of another form.
    """
    matched = DURATION.fullmatch(text.strip())
    try:
        if matched is not None:
            age = timedelta(**{UNITS[matched[2]]: int(matched[1])})
            datetime.now(UTC) - 2 * age
            return age
    except OverflowError:
        pass
    raise UserError(f"{text!r} is no age: give a number and a unit, such as 30m, 12h, 7d or 2w.")


def _show_artifacts(console: Console, going: Sequence[Stored], now: datetime) -> None:
    """A line for each step."""
    from rich.table import Table

    if not going:
        return
    by_step: dict[str, list[Stored]] = defaultdict(list)
    for each in going:
        by_step[each.step].append(each)
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    table.add_column("step")
    for name in ("artifacts", "size", "longest unused"):
        table.add_column(name, justify="right")
    for step, found in sorted(by_step.items()):
        oldest = time_taken((now - min(each.used for each in found)).total_seconds())
        table.add_row(step, f"{len(found):,}", file_size(sum(each.size for each in found)), oldest)
    console.print(table)


def _show_leftovers(console: Console, left: Sequence[Leftover], now: datetime) -> None:
    from rich.markup import escape

    for each in left:
        old = time_taken((now - each.changed).total_seconds())
        console.print(f"{each.kind:<11} {file_size(each.size):>10}  {old:>12} old  {escape(each.place)}")
