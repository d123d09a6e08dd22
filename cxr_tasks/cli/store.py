"""``cxr store``: what the store holds, and what may go."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from cxr_tasks.cli.options import DEFAULT_STORE, FLAG, JsonOption, StoreOption, use_store
from cxr_tasks.cli.terminal import file_size, help_of, open_console, time_taken
from cxr_tasks.errors import UserError
from cxr_tasks.store import FolderStore, Store, open_store

DURATION = re.compile(r"(\d+)([mhdw])")
UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}

store_app = typer.Typer(no_args_is_help=True, help="What the store holds: list it, look at one artifact, clear up.")


def list_store(
    step: Annotated[str, typer.Argument(metavar="[STEP]", help="Only artifacts of this step.")] = "",
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """List the artifacts, the newest first, with their age, their size, and the seconds that making each took."""
    from cxr_tasks.cli.inventory import stored_artifacts

    found = [stored for stored in stored_artifacts(_opened(store)) if step in ("", stored.step)]
    if as_json:
        rows = [
            {
                "step": stored.step,
                "ref": stored.ref,
                "published": stored.record.get("published"),
                "size": stored.size,
                "seconds": stored.record.get("seconds"),
            }
            for stored in found
        ]
        typer.echo(json.dumps(rows, indent=2))
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for name in ("step", "artifact"):
        table.add_column(name, overflow="fold")
    for name in ("age", "size", "made in"):
        table.add_column(name, justify="right")
    now = datetime.now(UTC)
    for stored in found:
        seconds = stored.record.get("seconds")
        table.add_row(
            stored.step,
            stored.ref,
            "?" if stored.published is None else time_taken((now - stored.published).total_seconds()),
            file_size(stored.size),
            "" if seconds is None else time_taken(seconds),
        )
    console = open_console()
    if found:
        console.print(table)
    console.print(f"{len(found):,} artifacts, {file_size(sum(stored.size for stored in found))}")


def show_artifact(
    ref: Annotated[
        str, typer.Argument(metavar="REF", help="STEP/KEY as `ls` prints it; the first digits of the key will do.")
    ],
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Print one artifact's record as JSON: what made it, from what, where its files are."""
    from cxr_tasks.cli.inventory import files_of, stored_artifacts

    opened = _opened(store)
    record = opened.record(ref)
    if record is None:
        matching = [stored.ref for stored in stored_artifacts(opened) if stored.ref.startswith(ref)]
        if len(matching) != 1:
            why = "no artifact" if not matching else f"{len(matching)} artifacts"
            raise UserError(f"The store has {why} whose reference begins with {ref}: cxr store ls lists all.")
        ref = matching[0]
        record = opened.record(ref)
    told = {"ref": ref, **(record or {}), "where": opened.where(ref), "files": files_of(opened, ref)}
    typer.echo(json.dumps(told, indent=2, ensure_ascii=False))


def collect_garbage(
    older_than: Annotated[
        str, typer.Option("--older-than", metavar="AGE", help="Only what was last written so long ago, such as 12h.")
    ] = "7d",
    yes: Annotated[bool, typer.Option("--yes", metavar=FLAG, help="Remove it, instead of only listing it.")] = False,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Clear up what killed tasks left behind, and checkpoints of trainings that nobody went on with.

    Artifacts are never removed. A training whose hours were used up is unfinished until a later run goes on with it:
    choose an age above the time between runs.
    """
    from rich.markup import escape

    from cxr_tasks.cli.inventory import leftovers, remove_leftover

    opened, now, age = _opened(store), datetime.now(UTC), age_of(older_than)
    found = leftovers(opened, now - age)
    console = open_console()
    for left in found:
        if yes:
            remove_leftover(opened, left)
        old = time_taken((now - left.changed).total_seconds())
        console.print(f"{left.kind:<11} {file_size(left.size):>10}  {old:>12} old  {escape(left.place)}")
    size = file_size(sum(left.size for left in found))
    if not found:
        console.print(f"Nothing is left over that is older than {older_than}.")
    elif yes:
        console.print(f"Removed {len(found):,}, {size}.")
    else:
        console.print(f"{len(found):,} to remove, {size}. Nothing was removed: --yes removes them.")


def age_of(text: str) -> timedelta:
    """The time that ``30m``, ``12h``, ``7d`` or ``2w`` stands for.

    Raises:
        UserError: The text is of another form.
    """
    matched = DURATION.fullmatch(text.strip())
    if matched is None:
        raise UserError(f"{text!r} is no age: give a number and a unit, such as 30m, 12h, 7d or 2w.")
    return timedelta(**{UNITS[matched[2]]: int(matched[1])})


def _opened(address: str) -> Store:
    use_store(address)
    opened = open_store()
    if isinstance(opened, FolderStore) and not opened.root.is_dir():
        raise UserError(f"There is no store in {opened.root}: name one with --store, or set CXR_STORE.")
    return opened


store_app.command("ls", help=help_of(list_store))(list_store)
store_app.command("show", help=help_of(show_artifact))(show_artifact)
store_app.command("gc", help=help_of(collect_garbage))(collect_garbage)
