"""One arm from a dataset to its saved model: puts the training set together, trains, scores, keeps and logs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

from cxr_tasks import tracking
from cxr_tasks.arms import ARMS, ArmName
from cxr_tasks.config import Settings
from cxr_tasks.data.dataset import Images, load_images
from cxr_tasks.data.synthetic import with_extra
from cxr_tasks.evaluation.metrics import classification_metrics, per_class_table
from cxr_tasks.execution import Record, StepResult
from cxr_tasks.networks.builders import build_classifier
from cxr_tasks.networks.classifier import Network
from cxr_tasks.training.batches import batches_of
from cxr_tasks.training.blanked import blanked_images
from cxr_tasks.training.classifier import prediction_table, train_arm, undersampled
from cxr_tasks.training.extra import extra_images
from cxr_tasks.training.frozen import FeatureCache, Features, FrozenTrunk
from cxr_tasks.training.gan_device import keep_memory
from cxr_tasks.training.randomness import keyed
from cxr_tasks.training.stored_features import StoredFeatures

log = logging.getLogger(__name__)

MODEL, PREDICTIONS, HISTORY, BLANKED = "model.keras", "predictions.parquet", "history.parquet", "blanked.parquet"
SCALING_IMAGES = 64


def fit_and_save(
    settings: Settings,
    dataset: StepResult,
    synthetic: StepResult | None,
    classifier: str,
    backbone: Mapping[str, Any],
    arm: ArmName,
    seed: int,
    folder: Path,
    record: Record,
) -> None:
    """Train one arm inside the active MLflow run and fill its artifact.

    ``backbone``: all that the features of an image depend on besides its pixels. ``record`` gets the metrics
    ``validation_…`` and ``test_…``, the curves and the address of the logged model.
    """
    keep_memory()
    classes, size = list(settings.data.classes), settings.classifiers.image_size
    held_out = {name: load_images(dataset["ref"], name, size, classes) for name in ("validation", "test")}
    real = load_images(dataset["ref"], "train", size, classes)
    extra = extra_images(ARMS[arm], settings, dataset, synthetic, real)
    train = real if extra is None else with_extra(real, extra.images)
    version = dataset["summary"]["version"]
    for name, images in held_out.items():
        tracking.log_dataset(images.rows, f"{name} images", version, name)
    tracking.log_dataset(train.rows, "training images", version, "training")

    network = built(classifier, real, settings, seed)
    blanked = blanked_images(dataset, held_out["test"], real) if settings.evaluation.shortcuts else {}
    sets = {**held_out, **{name: images for name, (images, _) in blanked.items()}}
    augmentation = settings.augmentation if ARMS[arm].classical else None
    if network.trunk is None:
        features = Features(FrozenTrunk(None), train, sets, augmentation, seed)
    else:
        cache = FeatureCache(FrozenTrunk(network.fast_trunk), backbone)
        altered = {name: what for name, (_, what) in blanked.items()}
        features = StoredFeatures(cache, dataset, real, extra, train, sets, augmentation, seed, altered)

    trained = train_arm(
        network,
        features,
        train,
        held_out,
        classes,
        settings.classifiers,
        seed=seed,
        added=len(train) - len(real),
        steps=steps_an_epoch(settings, real, seed),
        on_epoch=reporter(f"{classifier} {arm}"),
    )
    network.full.save(folder / MODEL)
    trained.predictions.to_parquet(folder / PREDICTIONS, index=False)
    trained.history.to_parquet(folder / HISTORY, index=False)
    if blanked:
        tables = [
            prediction_table(
                sets[name], "test", network.head.predict(features.held_out(name), verbose=0), classes
            ).assign(blanked=name)
            for name in blanked
        ]
        pd.concat(tables, ignore_index=True).to_parquet(folder / BLANKED, index=False)

    metrics = {
        f"{split}_{name}": value
        for split, table in trained.predictions.groupby("split")
        for name, value in classification_metrics(table, classes).items()
    }
    record["metrics"] = {
        **metrics,
        "best_epoch": trained.best_epoch,
        "train_images": trained.train_size,
        "optimiser_steps": trained.steps,
    }
    record["curves"] = trained.history.rename(columns={"epoch": "step"}).to_dict("records")
    record["model_uri"] = log_model(network.full, held_out["validation"].pixels[:2])
    record["summary"] = {
        "classifier": classifier,
        "arm": arm,
        "seed": seed,
        "validation_macro_f1": metrics["validation_macro_f1"],
        "test_macro_f1": metrics["test_macro_f1"],
        "test_accuracy": metrics["test_accuracy"],
        "epochs": len(trained.history),
        "steps": trained.steps,
        "train_images": trained.train_size,
    }
    _log_tables(trained.predictions, classes)


def built(classifier: str, real: Images, settings: Settings, seed: int) -> Network:
    """The classifier with its first weights. A random backbone is the same for all arms and seeds: it is scaled on
    some of the ``real`` training images, which are the same in all of them."""
    chosen = keyed(settings.seed, "weight scaling").permutation(len(real))[:SCALING_IMAGES]
    return build_classifier(
        classifier,
        len(settings.data.classes),
        settings.classifiers,
        real.pixels[chosen],
        seed=seed,
        weights_seed=settings.seed,
    )


def steps_an_epoch(settings: Settings, real: Images, seed: int) -> int | None:
    """Optimiser steps in an epoch of every arm, or ``None`` where each passes once over its own images."""
    if settings.classifiers.budget == "epochs":
        return None
    images = len(undersampled(real.labels, seed)) if settings.classifiers.undersample else len(real)
    return batches_of(images, settings.classifiers.batch_size)


def reporter(who: str) -> Callable[[int, dict[str, float]], None]:
    """Logs each epoch of ``who``, here and to the active MLflow run."""

    def report(epoch: int, logs: dict[str, float]) -> None:
        log.info(
            "%s epoch %d: loss %.3f, validation loss %.3f, validation accuracy %.3f",
            *(who, epoch, logs["loss"], logs["val_loss"], logs["val_accuracy"]),
        )
        tracking.log_metrics(logs, epoch)

    return report


def log_model(model: keras.Model, example: np.ndarray) -> str:
    """Log ``model`` to the active run with signature and input example; returns its ``models:/`` address.

    Args:
        example: (n, S, S) uint8 real images.
    """
    import mlflow
    import tensorflow as tf
    from mlflow.models import infer_signature

    pixels = example[..., None].astype(np.float32)
    # mlflow.keras would save the same file, but fails on an input example.
    logged = mlflow.tensorflow.log_model(
        model,
        name="model",
        signature=infer_signature(pixels, model.predict(pixels, verbose=0)),
        # A mid-gray image: the model's input format is shown without keeping a patient's image.
        input_example=np.full((1, *pixels.shape[1:]), 127.0, np.float32),
        # Named here, because finding them out takes a process of its own that loads the model again.
        pip_requirements=[f"tensorflow=={tf.__version__}", f"keras=={keras.__version__}", f"numpy=={np.__version__}"],
    )
    return logged.model_uri


def _log_tables(predictions: pd.DataFrame, classes: list[str]) -> None:
    tracking.log_table(predictions.drop(columns=["group", "source"]), "predictions.json")
    test = predictions[predictions["split"] == "test"]
    tracking.log_table(per_class_table(test, classes).reset_index(names="class"), "test-per-class.json")
