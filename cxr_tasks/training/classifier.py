"""Trains one arm: a classifier on one training set, with early stopping on the real validation images.

What the trained layers see of an image is computed as seldom as possible: a frozen trunk runs once on each
image that does not change, and once on each augmented view.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
import pandas as pd

from cxr_tasks.config import AugmentationSettings, ClassifierSettings
from cxr_tasks.data.dataset import Images, check_real
from cxr_tasks.networks.builders import build_classifier
from cxr_tasks.training.augment import augment
from cxr_tasks.training.randomness import keyed

FEATURE_BATCH = 64


@dataclass(frozen=True)
class TrainedArm:
    """``model``: pixels (n, S, S, 1) 0–255 → probabilities. ``predictions``: the prediction table of
    validation and test. ``history``: a row an epoch. ``train_size``: images that were trained on."""

    model: keras.Model
    predictions: pd.DataFrame
    history: pd.DataFrame
    best_epoch: int
    train_size: int


def train_arm(
    name: str,
    train: Images,
    held_out: dict[str, Images],
    classes: list[str],
    settings: ClassifierSettings,
    augmentation: AugmentationSettings | None,
    *,
    seed: int,
    weights_seed: int,
    on_epoch: Callable[[int, dict[str, float]], None] = lambda epoch, logs: None,
) -> TrainedArm:
    """Train classifier ``name``.

    Args:
        train: real, or real and synthetic, training images.
        held_out: ``validation`` and ``test``, real images only.
        augmentation: classical augmentation of the training images, or ``None``.
        seed: of initial weights, dropout, batch order and augmentation.
        weights_seed: of a random backbone, the same for both arms of a pair and every seed.
        on_epoch: called with the epoch's number from 1 and its losses and accuracies.

    Raises:
        DataError: a synthetic image is held out.
    """
    for split, images in held_out.items():
        check_real(images.rows, split)
    chosen = undersampled(train.labels, seed) if settings.undersample else np.arange(len(train))
    pixels, ids, labels = train.pixels[chosen], train.ids[chosen], train.labels[chosen]

    # Random weights are scaled on real images in a fixed order, so both arms get the same backbone.
    real = train.pixels[np.flatnonzero(train.rows["provenance"] == "real")]
    sample = real[keyed(weights_seed, "weight scaling").permutation(len(real))[:64]]
    network = build_classifier(name, len(classes), settings, sample, seed=seed, weights_seed=weights_seed)

    features = FeatureMaker(network.trunk)
    batches = EpochBatches(
        lambda epoch: features(_view(pixels, ids, augmentation, epoch, seed)),
        keras.utils.to_categorical(labels, len(classes)),
        settings.batch_size,
        seed,
        views=1 if augmentation is None else augmentation.views,
    )
    validation = held_out["validation"]
    stop = keras.callbacks.EarlyStopping("val_loss", patience=settings.patience, restore_best_weights=True)
    report = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: on_epoch(epoch + 1, {k: float(v) for k, v in logs.items()})
    )
    held_out_features = {split: features(images.pixels) for split, images in held_out.items()}
    network.head.compile(
        keras.optimizers.Adam(settings.learning_rate), loss="categorical_crossentropy", metrics=["accuracy"]
    )
    fitted = network.head.fit(
        batches,
        epochs=settings.epochs,
        validation_data=(
            held_out_features["validation"],
            keras.utils.to_categorical(validation.labels, len(classes)),
        ),
        validation_batch_size=FEATURE_BATCH,
        class_weight=balanced_weights(labels) if settings.class_weights else None,
        callbacks=[stop, report],
        shuffle=False,
        verbose=0,
    )
    tables = [
        prediction_table(images, split, network.head.predict(held_out_features[split], verbose=0), classes)
        for split, images in held_out.items()
    ]
    history = pd.DataFrame({"epoch": np.add(fitted.epoch, 1), **fitted.history})
    best = int(history["epoch"][history["val_loss"].idxmin()])
    return TrainedArm(network.full, pd.concat(tables, ignore_index=True), history, best, len(pixels))


class FeatureMaker:
    """What the head sees: the trunk's features, or the pixels themselves where nothing is frozen."""

    def __init__(self, trunk: keras.Model | None) -> None:
        self.trunk = trunk

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """(n, S, S) uint8 → (n, …) features, float32; or (n, S, S, 1) uint8 without a trunk."""
        if self.trunk is None:
            return pixels[..., None]
        return self.trunk.predict(pixels[..., None], batch_size=FEATURE_BATCH, verbose=0)


class EpochBatches(keras.utils.PyDataset):
    """Batches of an epoch in an order keyed by (seed, epoch), over the features of that epoch's view."""

    def __init__(
        self,
        features_of: Callable[[int], np.ndarray],
        targets: np.ndarray,
        batch_size: int,
        seed: int,
        views: int | None,
    ) -> None:
        super().__init__()
        self.features_of, self.targets, self.batch_size, self.seed, self.views = (
            features_of,
            targets,
            batch_size,
            seed,
            views,
        )
        self.made: dict[int, np.ndarray] = {}
        self.epoch = -1
        self.on_epoch_end()

    def __len__(self) -> int:
        return -(-len(self.targets) // self.batch_size)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        rows = self.order[index * self.batch_size : (index + 1) * self.batch_size]
        return self.features()[rows], self.targets[rows]

    def on_epoch_end(self) -> None:
        """Move to the next epoch, with an order of its own."""
        self.epoch += 1
        self.order = keyed(self.seed, "batch order", self.epoch).permutation(len(self.targets))

    def features(self) -> np.ndarray:
        """The features of this epoch's view, made when first asked for: Keras also ends epochs it never begins."""
        view = self.epoch if self.views is None else self.epoch % self.views
        if view not in self.made:
            if self.views is None:
                self.made.clear()
            self.made[view] = self.features_of(view)
        return self.made[view]


def _view(
    pixels: np.ndarray, ids: np.ndarray, augmentation: AugmentationSettings | None, view: int, seed: int
) -> np.ndarray:
    return pixels if augmentation is None else augment(pixels, ids, augmentation, view, seed)


def undersampled(labels: np.ndarray, seed: int) -> np.ndarray:
    """Positions of as many images of every class as the smallest class has, in ascending order."""
    counts = np.bincount(labels)
    smallest = counts[counts > 0].min()
    rng = keyed(seed, "undersampling")
    kept = [rng.choice(np.flatnonzero(labels == k), smallest, replace=False) for k in np.unique(labels)]
    return np.sort(np.concatenate(kept))


def balanced_weights(labels: np.ndarray) -> dict[int, float]:
    """Class weights n / (classes · count), scikit-learn's ``balanced``."""
    from sklearn.utils.class_weight import compute_class_weight

    present = np.unique(labels)
    return dict(zip(present.tolist(), compute_class_weight("balanced", classes=present, y=labels), strict=True))


def prediction_table(images: Images, split: str, probabilities: np.ndarray, classes: list[str]) -> pd.DataFrame:
    """The table that every comparison works from: id, split, group, label, and a probability per class."""
    table = images.rows[["image_id", "group", "label"]].copy()
    table.insert(1, "split", split)
    table[list(classes)] = probabilities
    return table
