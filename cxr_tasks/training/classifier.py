"""Trains one arm: a classifier on one training set, with early stopping on the real validation images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import keras
import numpy as np
import pandas as pd

from cxr_tasks.config import ClassifierSettings
from cxr_tasks.data.dataset import Images
from cxr_tasks.networks.classifier import Network
from cxr_tasks.training.batches import batches_of, training_batches
from cxr_tasks.training.frozen import FEATURE_BATCH, Features
from cxr_tasks.training.randomness import keyed


@dataclass(frozen=True)
class TrainedArm:
    """``predictions``: the prediction table of validation and test. ``history``: a row an epoch. ``train_size``:
    images that were trained on. ``steps``: optimiser steps that were taken."""

    predictions: pd.DataFrame
    history: pd.DataFrame
    best_epoch: int
    train_size: int
    steps: int


def train_arm(
    network: Network,
    features: Features,
    train: Images,
    held_out: Mapping[str, Images],
    classes: list[str],
    settings: ClassifierSettings,
    *,
    seed: int,
    added: int = 0,
    steps: int | None = None,
    on_epoch: Callable[[int, dict[str, float]], None] = lambda epoch, logs: None,
) -> TrainedArm:
    """Train the head of ``network``, which is all that is not frozen, and predict the held-out images.

    Args:
        features: what the head sees of ``train`` and ``held_out``.
        train: real training images, and what was added to them.
        held_out: ``validation`` and ``test``.
        seed: of batch order and undersampling; that of weights and dropout is in the network already.
        added: how many images at the end of ``train`` were added to the real ones; undersampling leaves them alone.
        steps: optimiser steps an epoch; ``None`` for one pass over all images.
        on_epoch: called with the epoch's number from 1 and its losses and accuracies.
    """
    chosen = np.arange(len(train))
    if settings.undersample:
        real = len(train) - added
        chosen = np.concatenate([undersampled(train.labels[:real], seed), chosen[real:]])
    labels = train.labels[chosen]
    steps = steps or batches_of(len(labels), settings.batch_size)
    weights = balanced_weights(labels) if settings.class_weights else np.ones(len(labels), np.float32)
    batches = training_batches(
        lambda rows, turn: features.training(chosen[rows], turn),
        keras.utils.to_categorical(labels, len(classes)),
        weights,
        settings.batch_size,
        seed,
        ahead=max(1, features.frozen.at_once // settings.batch_size),
    )
    stop = keras.callbacks.EarlyStopping("val_loss", patience=settings.patience, restore_best_weights=True)
    report = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: on_epoch(epoch + 1, {k: float(v) for k, v in logs.items()})
    )
    seen = {split: features.held_out(split) for split in held_out}
    network.head.compile(
        keras.optimizers.Adam(settings.learning_rate), loss="categorical_crossentropy", metrics=["accuracy"]
    )
    fitted = network.head.fit(
        batches,
        steps_per_epoch=steps,
        epochs=settings.epochs,
        validation_data=(
            seen["validation"],
            keras.utils.to_categorical(held_out["validation"].labels, len(classes)),
        ),
        validation_batch_size=FEATURE_BATCH,
        callbacks=[stop, report],
        shuffle=False,
        verbose=0,
    )
    tables = [
        prediction_table(images, split, network.head.predict(seen[split], verbose=0), classes)
        for split, images in held_out.items()
    ]
    history = pd.DataFrame({"epoch": np.add(fitted.epoch, 1), **fitted.history})
    best = int(history["epoch"][history["val_loss"].idxmin()])
    return TrainedArm(pd.concat(tables, ignore_index=True), history, best, len(chosen), len(history) * steps)


def undersampled(labels: np.ndarray, seed: int) -> np.ndarray:
    """Positions of as many images of every class as the smallest class has, in ascending order."""
    counts = np.bincount(labels)
    smallest = counts[counts > 0].min()
    rng = keyed(seed, "undersampling")
    kept = [rng.choice(np.flatnonzero(labels == k), smallest, replace=False) for k in np.unique(labels)]
    return np.sort(np.concatenate(kept))


def balanced_weights(labels: np.ndarray) -> np.ndarray:
    """(n,) float32: n / (classes · count of the image's class), scikit-learn's ``balanced``."""
    from sklearn.utils.class_weight import compute_sample_weight

    return compute_sample_weight("balanced", labels).astype(np.float32)


def prediction_table(images: Images, split: str, probabilities: np.ndarray, classes: list[str]) -> pd.DataFrame:
    """The table that every comparison works from: id, split, group, label, source, and a probability per class."""
    table = images.rows.reindex(columns=["image_id", "group", "label", "source"])
    table.insert(1, "split", split)
    table[list(classes)] = probabilities
    return table
