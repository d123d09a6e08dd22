"""Trains one arm: a classifier on one training set, with early stopping on the real validation images."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
from pandas.api.extensions import ExtensionArray

from cxr_tasks.classifiers.batches import BatchOrder, batches_of, training_batches
from cxr_tasks.classifiers.features import FEATURE_BATCH, ArmFeatures
from cxr_tasks.classifiers.networks import Network
from cxr_tasks.classifiers.predicting import predict_stack
from cxr_tasks.classifiers.sitting import Sitting
from cxr_tasks.config import ClassifierSettings
from cxr_tasks.data.dataset import Images
from cxr_tasks.data.stacks import Rows, in_parts
from cxr_tasks.errors import WeightsError
from cxr_tasks.randomness import keyed
from cxr_tasks.setbacks import setback_told


@dataclass(frozen=True)
class FittedClassifier:
    """What a training leaves.

    Attributes:
        predictions: The prediction table of validation and test.
        history: A row an epoch.
        best_epoch: The epoch of least validation loss, whose weights are kept.
        train_size: Images that were trained on.
        steps: Optimiser steps that were taken.
        setbacks: A sentence for each time that numbers were not finite and the training went back.
    """

    predictions: pd.DataFrame
    history: pd.DataFrame
    best_epoch: int
    train_size: int
    steps: int
    setbacks: tuple[str, ...] = ()


def fit_classifier(
    network: Network,
    features: ArmFeatures,
    train: Images,
    held_out: Mapping[str, Images],
    classes: list[str],
    settings: ClassifierSettings,
    *,
    seed: int,
    added: int = 0,
    steps: int | None = None,
    on_epoch: Callable[[int, dict[str, float]], None] = lambda epoch, logs: None,
    checkpoints: Path | None = None,
    on_checkpoint: Callable[[], None] = lambda: None,
) -> FittedClassifier:
    """Train the head of ``network``, which is all that is not frozen, and predict the held-out images.

    Args:
        network: The classifier, with its first weights.
        features: What the head sees of ``train`` and ``held_out``.
        train: Real training images, and what was added to them.
        held_out: ``validation`` and ``test``.
        classes: The classes in their order.
        settings: How classifiers are trained.
        seed: Of batch order and undersampling; that of weights and dropout is in the network already.
        added: How many images at the end of ``train`` were added to the real ones.
        steps: Optimiser steps an epoch; ``None`` for one pass over all images.
        on_epoch: Called with the epoch's number from 1 and its losses and accuracies.
        checkpoints: Folder of the checkpoints. The training goes on from the newest one that is usable, and ends with
            the same bits as one that was never interrupted. ``None`` keeps none.
        on_checkpoint: Called after a checkpoint is written, so that it can be copied to safety.

    Raises:
        UserError: Numbers are not finite after ``settings.setbacks`` times of going back.
        WeightsError: Features or predictions are not finite.
    """
    chosen = trained_on(settings, train.labels, added, seed)
    labels = train.labels[chosen]
    steps = steps or batches_of(len(labels), settings.batch_size)
    weights = balanced_weights(labels) if settings.class_weights else np.ones(len(labels), np.float32)
    targets = keras.utils.to_categorical(labels, len(classes))

    def shown(rows: np.ndarray, turn: int) -> np.ndarray:
        made = features.training(chosen[rows], turn)
        _check_features(made, train.ids[chosen[rows]], network.name)
        return made

    def batches(first: int, detour: int) -> Iterator[Any]:
        order = BatchOrder(len(labels), settings.batch_size, seed, detour)
        ahead = max(1, features.frozen.at_once // settings.batch_size)
        return training_batches(shown, targets, weights, order, ahead, first)

    seen = {split: features.held_out(split) for split in held_out}
    for split, images in held_out.items():
        _check_features(seen[split], images.ids, network.name)
    network.head.compile(
        keras.optimizers.Adam(settings.learning_rate), loss="categorical_crossentropy", metrics=["accuracy"]
    )
    sitting = Sitting(network.name, network.head, settings, steps, checkpoints, on_checkpoint, on_epoch)
    truth = keras.utils.to_categorical(held_out["validation"].labels, len(classes))
    sitting.train(batches, (seen["validation"], truth), FEATURE_BATCH)
    tables = []
    for split, images in held_out.items():
        probabilities = predict_stack(network.head, seen[split])
        if not (finite := _are_finite(probabilities)).all():
            raise _unusable(f"The classifier {network.name} gives", finite, images.ids, "predictions")
        tables.append(prediction_table(images, split, probabilities, classes))
    history = pd.DataFrame(sitting.rows)
    best = int(history["epoch"][history["val_loss"].idxmin()])
    told = tuple(setback_told(sitting.name, setback) for setback in sitting.setbacks)
    predictions = pd.concat(tables, ignore_index=True)
    return FittedClassifier(predictions, history, best, len(chosen), len(history) * steps, told)


def _check_features(features: Rows, ids: np.ndarray | ExtensionArray, name: str) -> None:
    """Look at the features (n, …) of the images ``ids``. The loss would not show all: ReLU makes NaN a 0.

    Raises:
        WeightsError: Some are not finite.
    """
    if features.dtype.kind == "f" and not (finite := _are_finite(features)).all():
        raise _unusable(f"The classifier {name} is shown", finite, ids, "features")


def _are_finite(values: Rows) -> np.ndarray:
    """(n,) whether all numbers of a row are finite."""
    return np.concatenate([np.isfinite(part).all(axis=tuple(range(1, part.ndim))) for part in in_parts(values)])


def _unusable(who: str, finite: np.ndarray, ids: np.ndarray | ExtensionArray, what: str) -> WeightsError:
    lost = ids[~finite]
    advice = {
        "features": "check the weights that its backbone was given, and make extract_features anew.",
        "predictions": "lower classifiers.learning_rate.",
    }
    return WeightsError(
        f"{who} {what} of {len(lost):,} of {len(ids):,} images that are no finite numbers, such as those of image "
        f"{lost[0]}: {advice[what]}"
    )


def trained_on(settings: ClassifierSettings, labels: np.ndarray, added: int, seed: int) -> np.ndarray:
    """Positions, in ascending order, of the images that a training shows: all, or those that undersampling leaves.

    Args:
        settings: How classifiers are trained.
        labels: (n,) of all images of the arm.
        added: How many images at the end were added to the real ones; undersampling leaves them alone.
        seed: Of undersampling.
    """
    chosen = np.arange(len(labels))
    if not settings.undersample:
        return chosen
    real = len(labels) - added
    return np.concatenate([undersampled(labels[:real], seed), chosen[real:]])


def steps_an_epoch(settings: ClassifierSettings, labels: np.ndarray, seed: int) -> int | None:
    """Optimiser steps in an epoch of every arm, or ``None`` where each arm passes once over its own images.

    Args:
        settings: How classifiers are trained.
        labels: (n,) of the real training images.
        seed: Of undersampling.
    """
    if settings.budget == "epochs":
        return None
    images = len(undersampled(labels, seed)) if settings.undersample else len(labels)
    return batches_of(images, settings.batch_size)


def weights_digest(model: keras.Model) -> str:
    """A hash of all weights of a model: 32 hexadecimal digits, equal where two models compute the same."""
    digest = hashlib.sha256()
    for weights in model.get_weights():
        digest.update(np.ascontiguousarray(weights).tobytes())
    return digest.hexdigest()[:32]


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
