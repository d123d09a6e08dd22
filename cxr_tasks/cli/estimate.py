"""``cxr estimate``: how long a run will take on this machine, before it runs."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict

import psutil

from cxr_tasks.cli.options import (
    DEFAULT_HOME,
    DEFAULT_PROFILE,
    HomeOption,
    JsonOption,
    OwnSourceArgument,
    ProfileOption,
    SetOption,
    set_overrides,
)
from cxr_tasks.cli.terminal import Display, open_console, print_json
from cxr_tasks.config import resolve
from cxr_tasks.data.phantoms import PHANTOM_COUNTS
from cxr_tasks.durations import time_taken
from cxr_tasks.estimate.ask import count_source, measured_forecast
from cxr_tasks.estimate.rates import machine
from cxr_tasks.estimate.work import ImageCounts
from cxr_tasks.local import absolute_source


def estimate_command(
    source: OwnSourceArgument = "",
    profile: ProfileOption = DEFAULT_PROFILE,
    changes: SetOption = None,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Say how long a run will take on this machine, what it needs, and which steps take most.

    Measures, for seconds to minutes, what a step of each network costs, and keeps that for the next time. Without a
    source, the run is one of the generated phantoms. Early stopping makes a run shorter. What the store has from before
    is not made again, which makes it shorter too.

    Exit status: 0 whatever the estimate is, 2 it could not be made.
    """
    settings = resolve(profile, set_overrides(changes))
    if source or settings.data.sources:
        images = count_source(absolute_source(source) if source else "", settings)
    else:
        images = ImageCounts.expected(
            settings, {label: PHANTOM_COUNTS.get(label, 0) for label in settings.data.classes}
        )
    with Display() as display:
        display.began("measure")
        told = measured_forecast(settings, images)
    home = home.expanduser().absolute()
    place = next(folder for folder in (home, *home.parents) if folder.is_dir())
    lacking = told.lacking(psutil.virtual_memory().available, shutil.disk_usage(place).free)
    if as_json:
        print_json(
            json.dumps({**asdict(told), "sentence": told.sentence, "lacking": lacking, "machine": machine()}, indent=2)
        )
        return
    from rich.table import Table

    console, total = open_console(), sum(told.by_step.values())
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("step")
    for title in ("tasks", "time", "share"):
        table.add_column(title, justify="right")
    for step, seconds in told.by_step.items():
        table.add_row(step, str(told.tasks[step]), time_taken(seconds), f"{seconds / total:.0%}")
    console.print(table)
    console.print(f"\n{told.sentence}", style="yellow" if told.is_long else "", markup=False)
    for fault in lacking:
        console.print(fault, style="yellow", markup=False)
