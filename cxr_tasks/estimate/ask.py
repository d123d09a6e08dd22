"""What a run will take: from what was measured on this machine before, or after measuring what is not known."""

from __future__ import annotations

import os
from collections.abc import Mapping

from cxr_tasks.config import Settings
from cxr_tasks.estimate.forecast import Forecast, forecast
from cxr_tasks.estimate.probe import probe
from cxr_tasks.estimate.rates import keep_rates, known_rates, task_threads
from cxr_tasks.estimate.work import ImageCounts, PlannedRun


def count_source(source: str, settings: Settings) -> ImageCounts:
    """How many images a run would have, from the names of the files alone.

    Args:
        source: Address of the one source; empty where the settings list several.
        settings: Of the run.

    Raises:
        DataError: A source cannot be read, or is not laid out as the settings say.
    """
    from cxr_tasks.data.label_tables import lay_out_source
    from cxr_tasks.data.sites import source_parts
    from cxr_tasks.data.sources import open_source

    found = dict.fromkeys(settings.data.classes, 0)
    # Only names are looked at, so that no pseudonym is made.
    for part in source_parts(settings.data, source, os.urandom(32)):
        for label, _ in lay_out_source(open_source(part.address), part.settings, part.address).images:
            found[label] += 1
    return ImageCounts.expected(settings, found)


def measured_forecast(settings: Settings, images: ImageCounts) -> Forecast:
    """What a run will take, after measuring what is not known; that takes some seconds, and on a GPU's profile more."""
    run = PlannedRun(settings, images)
    needed, drawn = run.rates_needed(), run.drawn
    known = known_rates(needed, settings, drawn)
    if missing := [name for name in needed if name not in known]:
        found = probe(missing, settings, drawn)
        keep_rates(found, settings, drawn)
        known = {**found, **known}
    return forecast(settings, images, known, task_threads()[0])


def known_forecast(settings: Settings, counts: Mapping[str, Mapping[str, int]]) -> Forecast | None:
    """What a training on a dataset will take; ``None`` where its work was never measured on this machine.

    Args:
        settings: Of the run.
        counts: The dataset's images by split, then by class.
    """
    images = ImageCounts.of_splits(counts)
    run = PlannedRun(settings, images)
    needed = run.rates_needed()
    known = known_rates(needed, settings, run.drawn)
    if len(known) < len(needed):
        return None
    return forecast(settings, images, known, task_threads()[0], with_data=False)
