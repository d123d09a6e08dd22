"""``cxr store``: what the store holds, whether it is whole, and what may go."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Annotated

import typer

from cxr_tasks.cli.options import DEFAULT_STORE, JsonOption, StoreOption, opened_store
from cxr_tasks.cli.terminal import file_size, help_of, open_console, print_json
from cxr_tasks.cli.upkeep import collect_garbage, verify_store
from cxr_tasks.durations import time_taken
from cxr_tasks.errors import UserError

store_app = typer.Typer(
    no_args_is_help=True, help="What the store holds: list it, look at one artifact, clear up, check it."
)


def list_store(
    step: Annotated[str, typer.Argument(metavar="[STEP]", help="Only artifacts of this step.")] = "",
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """List the artifacts, the newest first, with their age, their size, and the seconds that making each took."""
    from cxr_tasks.retention.inventory import stored_artifacts

    found = [stored for stored in stored_artifacts(opened_store(store)) if step in ("", stored.step)]
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
        print_json(json.dumps(rows, indent=2))
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
    from cxr_tasks.retention.inventory import files_of, stored_artifacts

    opened = opened_store(store)
    record = opened.record(ref)
    if record is None:
        matching = [stored.ref for stored in stored_artifacts(opened) if stored.ref.startswith(ref)]
        if len(matching) != 1:
            why = "no artifact" if not matching else f"{len(matching)} artifacts"
            raise UserError(f"The store has {why} whose reference begins with {ref}: cxr store ls lists all.")
        ref = matching[0]
        record = opened.record(ref)
    told = {"ref": ref, **(record or {}), "where": opened.where(ref), "files": files_of(opened, ref)}
    print_json(json.dumps(told, indent=2, ensure_ascii=False))


store_app.command("ls", help=help_of(list_store))(list_store)
store_app.command("show", help=help_of(show_artifact))(show_artifact)
store_app.command("gc", help=help_of(collect_garbage))(collect_garbage)
store_app.command("verify", help=help_of(verify_store))(verify_store)
