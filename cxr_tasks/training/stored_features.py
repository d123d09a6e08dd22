"""An arm's features out of the store: of a frozen backbone on a published dataset, each image run once for all arms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from cxr_tasks.config import AugmentationSettings
from cxr_tasks.data.dataset import Images
from cxr_tasks.data.ingest import pixels_file
from cxr_tasks.execution import StepResult
from cxr_tasks.store import open_store
from cxr_tasks.training.extra import ExtraImages
from cxr_tasks.training.frozen import FeatureCache, Features


class StoredFeatures(Features):
    """:class:`Features` of which all but views that never come again are kept in the store."""

    def __init__(
        self,
        cache: FeatureCache,
        dataset: StepResult,
        real: Images,
        extra: ExtraImages | None,
        train: Images,
        held_out: Mapping[str, Images],
        augmentation: AugmentationSettings | None,
        seed: int,
        altered: Mapping[str, Mapping[str, Any]],
    ) -> None:
        """Args:
        real: training images of the dataset. extra: what follows them in ``train``.
        held_out: splits of the dataset, and sets whose names are in ``altered``, which says what was done to
            the pixels of which split.
        """
        super().__init__(cache.frozen, train, held_out, augmentation, seed)
        self.cache, self.dataset, self.real, self.extra, self.altered = cache, dataset, real, extra, altered

    def held_out(self, name: str) -> np.ndarray:
        """(n, …) float16 of all images of a held-out set."""
        images = self._held_out[name]
        if name in self.altered:
            content = {"dataset": self.dataset["ref"], **self.altered[name]}
            return self.cache(content, lambda: images.pixels)
        return self._packed(images)

    def _make_view(self, view: int | None) -> np.ndarray:
        real = self._packed(self.real) if view is None else self._augmented(self.real, self._of_dataset(), view)
        if self.extra is None:
            return real
        return np.concatenate([real, self._of_extra(self.extra, real, view)])

    def _of_extra(self, extra: ExtraImages, real: np.ndarray, view: int | None) -> np.ndarray:
        if extra.positions is not None:
            return real[extra.positions]
        if view is None:
            return self.cache(extra.content, lambda: extra.images.pixels)
        return self._augmented(extra.images, extra.content, view)

    def _augmented(self, images: Images, content: Mapping[str, Any], view: int) -> np.ndarray:
        assert self.augmentation is not None
        drawn = {**self.augmentation.model_dump(mode="json", exclude={"views"}), "view": view, "seed": self.seed}
        return self.cache({**content, "drawn": drawn}, lambda: self._drawn(images.pixels, images.ids, view))

    def _of_dataset(self) -> dict[str, Any]:
        return {"dataset": self.dataset["ref"], "split": "train", "size": self.real.pixels.shape[1]}

    def _packed(self, images: Images) -> np.ndarray:
        """Features of images of the dataset, from those of the shards that they lie in."""
        return packed_features(
            self.cache, self.dataset, images.rows["shard"], images.rows["row"], images.pixels.shape[1]
        )


def packed_features(cache: FeatureCache, dataset: StepResult, shards: Any, rows: Any, size: int) -> np.ndarray:
    """Features (n, …) of the images at ``rows`` of ``shards``, both (n,)."""
    shards, rows = np.asarray(shards), np.asarray(rows)
    features: np.ndarray | None = None
    for number in np.unique(shards):
        packed = shard_features(cache, dataset["summary"]["shards"][number], size)
        if features is None:
            features = np.empty((len(shards), *packed.shape[1:]), packed.dtype)
        here = np.flatnonzero(shards == number)
        features[here] = packed[rows[here]]
    assert features is not None  # no split is empty
    return features


def shard_features(cache: FeatureCache, shard: str, size: int) -> np.ndarray:
    """Features of all images of a shard: by shard, so that of data that have grown only the new ones are run."""
    return cache({"shard": shard, "size": size}, lambda: np.load(open_store().fetch(shard) / pixels_file(size)))
