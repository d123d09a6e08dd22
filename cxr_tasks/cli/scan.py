"""``cxr scan``: look at data before anything is trained on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from cxr_tasks.cli.options import (
    DEFAULT_PROFILE,
    JsonOption,
    OwnSourceArgument,
    ProfileOption,
    SetOption,
    set_overrides,
)
from cxr_tasks.cli.terminal import Display, open_console, print_json
from cxr_tasks.config import resolve
from cxr_tasks.errors import UserError, shown
from cxr_tasks.local import absolute_source

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from cxr_tasks.data.survey import SourceCounts, Survey

NOT_VALID = 1


def scan_command(
    source: OwnSourceArgument = "",
    profile: ProfileOption = DEFAULT_PROFILE,
    changes: SetOption = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Write the manifest there: a Parquet file with a row an image."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Look at data before a run: what would be used, what would be set aside and why. Trains nothing.

    Reads every image once, checks the data as a run would, and says how a run would split them. Keeps nothing.

    Exit status: 0 the data pass validation, 1 they do not, 2 they cannot be read.
    """
    settings = resolve(profile, set_overrides(changes))
    address = absolute_source(source) if source else settings.data.one_source("")
    if out is not None and not out.parent.is_dir():
        raise UserError(f"The folder {out.parent.absolute()} does not exist: make it, or give --out another path.")
    from cxr_tasks.data.survey import survey

    with Display():
        found, manifest = survey(address, settings)
    if out is not None:
        manifest.to_parquet(out, index=False)
    if as_json:
        print_json(found.model_dump_json(indent=2))
    else:
        show_survey(found)
        if out is not None:
            typer.echo(f"\nManifest  {out.absolute()}")
    if not found.passed:
        raise typer.Exit(NOT_VALID)


def show_survey(found: Survey) -> None:
    """Print a survey for people."""
    from rich.text import Text

    console = open_console()
    console.print(Text.assemble((found.source, "bold"), f" as profile {found.profile} sees it\n"))
    console.print(_class_table(found, found.largest_groups))
    for source in found.sources:
        console.print(f"\n[bold]{escape(source.name)}[/]")
        console.print(_class_table(source))
    if found.shared:
        console.print()
        console.print(_shared_table(found))
    console.print()
    for line in _sentences(found):
        console.print(shown(line), markup=False)
    if found.set_aside:
        console.print()
        console.print(_set_aside_table(found))
    _print_list(console, "Classes that are told by something else than the disease", "yellow", found.coincidences)
    _print_list(console, "Warnings", "yellow", found.warnings)
    _print_list(console, "What keeps the data from being trained on", "red", found.failures)
    verdict = ("The data pass validation.", "green") if found.passed else ("The data do not pass validation.", "red")
    console.print()
    console.print(Text.assemble(verdict))


def _class_table(found: Survey | SourceCounts, largest_groups: Mapping[str, int] | None = None) -> Table:
    """Files, images and splits of each class, and their sums."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold", show_footer=True)
    columns: dict[str, Mapping[str, int]] = {"files": found.files, "used": found.images, **found.splits}
    table.add_column("class", footer="all")
    for name, counts in columns.items():
        table.add_column(name, justify="right", footer=f"{sum(counts.values()):,}")
    if largest_groups is not None:
        columns["largest group"] = largest_groups
        table.add_column("largest group", justify="right")
    for label in found.files:
        table.add_row(label, *(f"{counts.get(label, 0):,}" for counts in columns.values()))
    return table


def _shared_table(found: Survey) -> Table:
    """What each two sources share."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    table.add_column("in both")
    for name in ("same files", "same pictures", "same patients"):
        table.add_column(name, justify="right")
    for pair in found.shared:
        numbers = (f"{number:,}" for number in (pair.files, pair.pictures, pair.patients))
        table.add_row(escape(f"{pair.first} and {pair.second}"), *numbers)
    return table


def _set_aside_table(found: Survey) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    table.add_column("set aside", justify="right")
    for name in ("class", "reason", "for example"):
        table.add_column(name, overflow="fold")
    for some in found.set_aside:
        told = (some.label, some.reason, some.examples[0])
        table.add_row(f"{some.files:,}", *(escape(shown(text)) for text in told))
    return table


def _sentences(found: Survey) -> list[str]:
    """What the survey found besides the counts of each class."""
    images = sum(found.images.values())
    told = [
        f"Patients: {found.known_patients:,} of {images:,} images name theirs, {found.patients:,} patients in all.",
        f"Groups: {found.groups:,} sets of images that no split divides "
        f"({found.near_duplicates:,} pairs of images show one picture).",
        f"Masks: {found.masks:,} images have a lung mask, and {found.unusable_masks:,} masks cannot be used.",
    ]
    if any(found.inverted.values()) or found.unsure_inverted:
        told.append(
            f"Inverted: {sum(found.inverted.values()):,} images have black and white exchanged, "
            f"and of {found.unsure_inverted:,} more nobody can tell."
        )
    told += [f"Table {sentence}." for sentence in found.labels]
    for table in found.tables:
        told.append(f"Table {table.path}: {table.matched:,} of {table.rows:,} rows name an image of {table.label}.")
    return told


def _print_list(console: Console, title: str, colour: str, lines: Sequence[str]) -> None:
    if lines:
        console.print(f"\n[bold {colour}]{title}[/]")
    for line in lines:
        console.print(f"- {shown(line)}", markup=False)
