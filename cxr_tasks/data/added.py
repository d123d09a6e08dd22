"""How many images are added to each class."""

from __future__ import annotations

from collections.abc import Mapping

from cxr_tasks.config import SyntheticSettings


def counts_to_add(settings: SyntheticSettings, real: Mapping[str, int]) -> dict[str, int]:
    """Images to add to each class, in the order of ``real``, which has the training images of each class."""
    if settings.counts == "balance":
        largest = max(real.values())
        return {label: largest - count for label, count in real.items()}
    if isinstance(settings.counts, int):
        return dict.fromkeys(real, settings.counts)
    return {label: settings.counts.get(label, 0) for label in real}
