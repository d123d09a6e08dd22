"""``cxr profiles``: which profiles there are, and what one of them says in full."""

from __future__ import annotations

from typing import Annotated

import typer

from cxr_tasks.cli.options import SetOption, set_overrides
from cxr_tasks.cli.terminal import open_console
from cxr_tasks.config import profile_names, resolve


def profiles_command(
    name: Annotated[
        str, typer.Argument(metavar="[NAME|FILE]", help="A profile, to be printed in full.", show_default=False)
    ] = "",
    changes: SetOption = None,
) -> None:
    """List the profiles, or print one with every value resolved, as YAML.

    The YAML is a profile itself: write it to a file, change it, and give the file's path as --profile.
    """
    if name:
        typer.echo(resolve(name, set_overrides(changes)).to_yaml(), nl=False)
        return
    from rich.table import Table

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for each in profile_names():
        table.add_row(f"[bold]{each}[/]", resolve(each).description)
    open_console().print(table)
