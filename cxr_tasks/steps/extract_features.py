"""The step ``extract_features``: run a frozen backbone before the arms ask for what comes out."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxr_tasks import progress
from cxr_tasks.arms import ARMS, needs_synthetic
from cxr_tasks.artifacts import Artifact, Dataset, Features, RunContext, SyntheticSet
from cxr_tasks.classifiers.registry import CLASSIFIERS
from cxr_tasks.config import Settings
from cxr_tasks.pipeline import Made, is_forced, load_settings, perform
from cxr_tasks.steps.common import LOGGED, added_by_controls, backbone_identity, log_images

if TYPE_CHECKING:
    from cxr_tasks.classifiers.feature_store import FeatureCache
    from cxr_tasks.data.stacks import Rows


def extract_features(
    run: RunContext, dataset: Dataset, backbone: str, synthetic: SyntheticSet | None = None
) -> Features:
    """Run a frozen backbone once over what the arms show it unaugmented: the dataset, or the synthetic set.

    What the store has from an earlier run, or of shards that have not changed, is not run again.
    """
    settings = load_settings(run)
    identity = backbone_identity(settings, dataset, backbone)
    inputs: dict[str, Artifact | str] = {"dataset": dataset}
    what = {**identity, "arms": list(settings.arms.names), "shortcuts": settings.evaluation.shortcuts}
    if synthetic is not None:
        inputs |= {"synthetic": synthetic, **synthetic.content}
    what |= {"counts": added_by_controls(settings, dataset, synthetic), "seed": settings.seeds.synthetic}

    def fill(folder: Path) -> Made[Features]:
        cache = _extract(settings, dataset, synthetic, backbone, identity, is_forced(run, Features.step, inputs))
        words = f"{cache.computed:,} images run, {cache.found:,} known from before"
        features = Features(
            backbone=backbone,
            computed=cache.computed,
            found=cache.found,
            notes=(f"{CLASSIFIERS[backbone].display}: {words}",),
        )
        return Made(features, {"images_run": cache.computed, "images_known": cache.found})

    return perform(
        run,
        Features,
        fill,
        settings={**what, "gan_size": settings.gan.image_size},
        inputs=inputs,
        label=backbone if synthetic is None else f"{backbone} synthetic",
    )


def _extract(
    settings: Settings,
    dataset: Dataset,
    synthetic: SyntheticSet | None,
    backbone: str,
    identity: dict[str, Any],
    anew: bool,
) -> FeatureCache:
    """Fill the feature store; returns the cache, which has counted what was computed and what was found."""
    from cxr_tasks.classifiers.feature_store import FeatureCache, shard_features
    from cxr_tasks.classifiers.features import FrozenTrunk
    from cxr_tasks.classifiers.networks import build_network

    classes, size = list(settings.data.classes), settings.classifiers.image_size
    # The pixels alone: while the networks run, a million rows of tables are of no use.
    pixels = dataset.images("train", size, classes).pixels
    network = build_network(backbone, settings, pixels, settings.seeds.backbones)
    cache = FeatureCache(FrozenTrunk(network.fast_trunk), identity, anew=anew)
    if synthetic is not None:
        extra = synthetic.extra(classes, size, dataset.resize)
        log_images(extra.images.rows, "synthetic images", "features", ["synthetic"] * len(extra.images), extra.content)
        cache(extra.content, lambda: extra.images.pixels)
        _extract_controls(settings, dataset, synthetic, cache)
        return cache
    _log_dataset(dataset)
    for done, shard in enumerate(dataset.shards, start=1):
        shard_features(cache, shard, size)
        progress.advance(f"features of {CLASSIFIERS[backbone].display}", done, len(dataset.shards))
    if not any(map(needs_synthetic, settings.arms.names)):
        _extract_controls(settings, dataset, None, cache)
    _extract_blanked(settings, dataset, pixels, cache)
    return cache


def _log_dataset(dataset: Dataset) -> None:
    manifest = dataset.manifest(LOGGED)
    log_images(manifest[manifest["split"] != ""], "images of all splits", "features")


def _extract_controls(
    settings: Settings, dataset: Dataset, synthetic: SyntheticSet | None, cache: FeatureCache
) -> None:
    """The images of controls that are not pixel by pixel those of the dataset: as many as the synthetic set has."""
    from cxr_tasks.classifiers.training_set import extra_images
    from cxr_tasks.data.stacks import as_stack

    resized_arms = [ARMS[name] for name in settings.arms.names if ARMS[name].extra == "real_resized"]
    if not resized_arms:
        return
    counts = added_by_controls(settings, dataset, synthetic)
    train = dataset.images("train", settings.classifiers.image_size, list(settings.data.classes))
    for arm in resized_arms:
        resized = extra_images(arm, settings, train, dataset.content, None, counts, dataset.resize)
        assert resized is not None  # such an arm adds something
        cache(resized.content, partial(as_stack, resized.images.pixels))


def _extract_blanked(settings: Settings, dataset: Dataset, train: Rows, cache: FeatureCache) -> None:
    """The test images of the probes, painted over with the mean gray of ``train``."""
    from cxr_tasks.classifiers.blanking import blanked_content, blanked_images, mean_gray
    from cxr_tasks.data.stacks import as_stack

    if settings.evaluation.shortcuts:
        size, gray = settings.classifiers.image_size, mean_gray(train)
        test = dataset.images("test", size, list(settings.data.classes))
        for name, altered in blanked_images(test, dataset.masks("test", size), gray).items():
            cache({**dataset.content, **blanked_content(name, gray)}, partial(as_stack, altered.pixels))
