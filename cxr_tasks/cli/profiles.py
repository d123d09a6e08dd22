"""``cxr profiles``: which profiles and layouts there are, and what a profile says in full."""

from __future__ import annotations

from typing import Annotated

import typer

from cxr_tasks.cli.options import SetOption, set_overrides
from cxr_tasks.cli.terminal import open_console
from cxr_tasks.config import profile_names, resolve
from cxr_tasks.layouts import layout_names, read_layout


def profiles_command(
    name: Annotated[
        str, typer.Argument(metavar="[NAME|FILE]", help="A profile, to be printed in full.", show_default=False)
    ] = "",
    changes: SetOption = None,
) -> None:
    """List the profiles and the layouts of public data sets, or print a profile with every value resolved, as YAML.

    The YAML is a profile itself: write it to a file, change it, and give the file's path as --profile.
    """
    if name:
        typer.echo(resolve(name, set_overrides(changes)).to_yaml(), nl=False)
        return
    from rich.table import Table

    console = open_console()
    layouts = {each: read_layout(each)["description"] for each in layout_names()}
    for title, told in (
        ("Profiles", {each: resolve(each).description for each in profile_names()}),
        ("\nLayouts of public data sets, for --set data.layout=NAME", layouts),
    ):
        console.print(f"[bold]{title}[/]")
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        for each, description in told.items():
            table.add_row(f"[bold]{each}[/]", description)
        console.print(table)
