"""Features of frozen backbones, kept in the store: each image is run once for all arms, seeds and runs.

Beside the handles this is the one module below ``steps`` that knows the store: whether an image has to be run depends
on what the store holds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from cxr_tasks.classifiers.features import ArmFeatures, FrozenTrunk
from cxr_tasks.classifiers.training_set import ExtraImages
from cxr_tasks.config import AugmentationSettings
from cxr_tasks.data.dataset import Images
from cxr_tasks.data.ingest import pixels_file
from cxr_tasks.data.stacks import Rows, as_stack, in_parts, joined, mapped, packed, save_parts
from cxr_tasks.store import artifact_ref, open_store

STEP, FILE = "backbone_features", "features.npy"


class FeatureCache:
    """Features of one backbone with its weights, in the store: computed once for each content, whoever asks.

    Attributes:
        computed: How many images were run.
        found: How many images' features were in the store.
    """

    def __init__(self, frozen: FrozenTrunk, identity: Mapping[str, Any], *, anew: bool = False) -> None:
        """Note whose features are asked for.

        Args:
            frozen: Makes the features.
            identity: All that the features of an image depend on besides its pixels.
            anew: Make all of them again.
        """
        self.frozen, self.identity, self.anew = frozen, identity, anew
        self.computed = self.found = 0

    def __call__(self, content: Mapping[str, Any], pixels: Callable[[], Rows]) -> np.ndarray:
        """Features (n, …) float16 of the images that ``content`` names, mapped into memory.

        Args:
            content: Says which pixels these are, for ever.
            pixels: Gives (n, S, S) uint8; called only where needed. They are run some at a time.
        """
        store, ref = open_store(), artifact_ref(STEP, 2, self.identity, content)
        missing = (self.anew or store.take(ref) is None) and self._make(ref, content, pixels)
        features = mapped(store.fetch(ref) / FILE)
        if missing:
            self.computed += len(features)
        else:
            self.found += len(features)
        return features

    def _make(self, ref: str, content: Mapping[str, Any], pixels: Callable[[], Rows]) -> bool:
        """Make features while nobody else does; returns whether that was left to do."""
        store = open_store()
        before = store.entry(ref)
        with store.lease(f"artifact/{ref}", f"the features {ref}"):
            if not before.is_still(store.entry(ref)) and store.take(ref) is not None:
                return False
            record = {"step": STEP, "settings": dict(self.identity), "inputs": dict(content)}
            with store.publish(ref, record, replace=True) as folder:
                images = pixels()
                save_parts(folder / FILE, map(self.frozen, in_parts(images)), len(images))
        return True


class StoredFeatures(ArmFeatures):
    """:class:`ArmFeatures` of which all but views that never come again are kept in the store."""

    def __init__(
        self,
        cache: FeatureCache,
        shards: Sequence[str],
        content: Mapping[str, Any],
        real: Images,
        extra: ExtraImages | None,
        train: Images,
        held_out: Mapping[str, Images],
        augmentation: AugmentationSettings | None,
        seed: int,
        altered: Mapping[str, Mapping[str, Any]],
    ) -> None:
        """Note what features are asked of.

        Args:
            cache: Makes the features, or finds them.
            shards: References of the dataset's shards.
            content: Names the dataset.
            real: Training images of the dataset.
            extra: What follows them in ``train``.
            train: The training images.
            held_out: Splits of the dataset, and sets whose names are in ``altered``.
            augmentation: Of the training images, or ``None``.
            seed: Of the draws of ``augmentation``.
            altered: What was done to the pixels of which split, by the set's name.
        """
        super().__init__(cache.frozen, train, held_out, augmentation, seed)
        self.cache, self.shards, self.content = cache, shards, content
        self.real, self.extra, self.altered = real, extra, altered

    def held_out(self, name: str) -> Rows:
        """(n, …) float16 of all images of a held-out set."""
        images = self._held_out[name]
        if name in self.altered:
            return self.cache({**self.content, **self.altered[name]}, lambda: images.pixels)
        return self._packed(images)

    def _make_view(self, view: int | None) -> Rows:
        real = self._packed(self.real) if view is None else self._augmented(self.real, self._of_dataset(), view)
        if self.extra is None:
            return real
        return joined([real, self._of_extra(self.extra, real, view)])

    def _of_extra(self, extra: ExtraImages, real: Rows, view: int | None) -> Rows:
        if extra.positions is not None:
            return as_stack(real).chosen(extra.positions)
        if view is None:
            return self.cache(extra.content, lambda: extra.images.pixels)
        return self._augmented(extra.images, extra.content, view)

    def _augmented(self, images: Images, content: Mapping[str, Any], view: int) -> np.ndarray:
        assert self.augmentation is not None
        drawn = {**self.augmentation.model_dump(mode="json", exclude={"views"}), "view": view, "seed": self.seed}
        return self.cache({**content, "drawn": drawn}, lambda: self._drawn(images, view))

    def _of_dataset(self) -> dict[str, Any]:
        return {**self.content, "split": "train", "size": self.real.pixels.shape[1]}

    def _packed(self, images: Images) -> Rows:
        """Features of images of the dataset, from those of the shards that they lie in."""
        size = images.pixels.shape[1]
        return packed_features(self.cache, self.shards, images.rows["shard"], images.rows["row"], size)


def packed_features(cache: FeatureCache, refs: Sequence[str], shards: Any, rows: Any, size: int) -> Rows:
    """Features (n, …) of images that lie in shards, which are read when they are asked for.

    Args:
        cache: Makes the features, or finds them.
        refs: References of the dataset's shards.
        shards: (n,) number of each image's shard.
        rows: (n,) row of each image in its shard.
        size: Side in pixels.
    """
    shards, rows = np.asarray(shards, np.int32), np.asarray(rows, np.int32)
    there = {int(number): shard_features(cache, refs[number], size) for number in np.unique(shards)}
    return packed([there.get(number, np.empty(0)) for number in range(len(refs))], shards, rows)


def shard_features(cache: FeatureCache, shard: str, size: int) -> np.ndarray:
    """Features of all images of a shard: by shard, so that of data that have grown only the new ones are run."""
    return cache({"shard": shard, "size": size}, lambda: mapped(open_store().fetch(shard) / pixels_file(size)))
