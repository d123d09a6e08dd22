"""Runs a frozen backbone once over all that the arms will show it unaugmented."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from cxr_tasks.arms import ARMS
from cxr_tasks.config import Settings
from cxr_tasks.data.dataset import load_images
from cxr_tasks.execution import StepResult
from cxr_tasks.training.arm import built
from cxr_tasks.training.blanked import blanked_images
from cxr_tasks.training.extra import extra_images
from cxr_tasks.training.frozen import FeatureCache, FrozenTrunk
from cxr_tasks.training.gan_device import keep_memory
from cxr_tasks.training.stored_features import shard_features


def extract(
    settings: Settings,
    dataset: StepResult,
    synthetic: StepResult | None,
    backbone: str,
    identity: Mapping[str, Any],
    *,
    anew: bool,
) -> FeatureCache:
    """Fill the store with features of ``synthetic``, or without it of the dataset and what is made of it.

    Args:
        identity: all that the features of an image depend on besides its pixels. anew: run what is there too.

    Returns:
        The cache, which has counted what was computed and what was found.
    """
    keep_memory()
    classes, size = list(settings.data.classes), settings.classifiers.image_size
    train = load_images(dataset["ref"], "train", size, classes)
    network = built(backbone, train, settings, settings.seed)
    cache = FeatureCache(FrozenTrunk(network.fast_trunk), identity, anew=anew)
    wanted = {ARMS[arm].extra: ARMS[arm] for arm in settings.arms.names}
    if synthetic is not None:
        extra = extra_images(ARMS["synthetic"], settings, dataset, synthetic, train)
        assert extra is not None  # a synthetic set is what that arm adds
        cache(extra.content, lambda: extra.images.pixels)
        return cache
    for shard in dataset["summary"]["shards"]:
        shard_features(cache, shard, size)
    if "real_resized" in wanted:
        resized = extra_images(wanted["real_resized"], settings, dataset, None, train)
        assert resized is not None
        cache(resized.content, lambda: resized.images.pixels)
    if settings.evaluation.shortcuts:
        test = load_images(dataset["ref"], "test", size, classes)
        for altered, what in blanked_images(dataset, test, train).values():
            cache({"dataset": dataset["ref"], **what}, partial(np.asarray, altered.pixels))
    return cache
