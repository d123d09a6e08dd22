"""One arm from a dataset to its saved model: puts the training set together, trains, scores, keeps and logs."""

from __future__ import annotations

import logging
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from cxr_tasks import tracking
from cxr_tasks.config import Settings
from cxr_tasks.data.dataset import Images, load_images
from cxr_tasks.data.synthetic import with_synthetic
from cxr_tasks.evaluation.metrics import classification_metrics, per_class_table
from cxr_tasks.execution import Record, StepResult
from cxr_tasks.store import open_store
from cxr_tasks.training.classifier import train_arm

log = logging.getLogger(__name__)

MODEL, PREDICTIONS, HISTORY = "model.keras", "predictions.parquet", "history.parquet"


def fit_and_save(
    settings: Settings,
    dataset: StepResult,
    synthetic: StepResult | None,
    classifier: str,
    role: str,
    arm: str,
    seed: int,
    folder: Path,
    record: Record,
) -> None:
    """Train one arm inside the active MLflow run and fill its artifact.

    ``record`` gets the metrics ``validation_…`` and ``test_…``, the curves and the address of the logged model.
    """
    classes, size = list(settings.data.classes), settings.classifiers.image_size
    splits = {name: load_images(dataset["ref"], name, size, classes) for name in ("train", "validation", "test")}
    train, version = splits.pop("train"), dataset["summary"]["version"]
    if synthetic is not None:
        train = with_synthetic(train, _load_synthetic(synthetic, classes))
    for name, images in splits.items():
        tracking.log_dataset(images.rows, f"{name} images", version, name)
    tracking.log_dataset(train.rows, "training images", version, "training")

    def report(epoch: int, logs: dict[str, float]) -> None:
        log.info(
            "%s %s epoch %d: loss %.3f, validation loss %.3f, validation accuracy %.3f",
            *(classifier, role, epoch, logs["loss"], logs["val_loss"], logs["val_accuracy"]),
        )
        tracking.log_metrics(logs, epoch)

    trained = train_arm(
        classifier,
        train,
        splits,
        classes,
        settings.classifiers,
        settings.augmentation if arm in ("classical", "both") else None,
        seed=seed,
        weights_seed=settings.seed,
        on_epoch=report,
    )
    trained.model.save(folder / MODEL)
    trained.predictions.to_parquet(folder / PREDICTIONS, index=False)
    trained.history.to_parquet(folder / HISTORY, index=False)

    metrics = {
        f"{split}_{name}": value
        for split, table in trained.predictions.groupby("split")
        for name, value in classification_metrics(table, classes).items()
    }
    record["metrics"] = {**metrics, "best_epoch": trained.best_epoch, "train_images": trained.train_size}
    record["curves"] = trained.history.rename(columns={"epoch": "step"}).to_dict("records")
    record["model_uri"] = log_model(trained.model, splits["validation"].pixels[:2])
    record["summary"] = {
        "classifier": classifier,
        "arm": arm,
        "seed": seed,
        "validation_macro_f1": metrics["validation_macro_f1"],
        "test_macro_f1": metrics["test_macro_f1"],
        "test_accuracy": metrics["test_accuracy"],
        "epochs": len(trained.history),
        "train_images": trained.train_size,
    }
    _log_tables(trained.predictions, classes)


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


def _load_synthetic(synthetic: StepResult, classes: list[str]) -> Images:
    folder = open_store().fetch(synthetic["ref"])
    rows = pd.read_parquet(folder / "manifest.parquet")
    labels = rows["label"].map({name: i for i, name in enumerate(classes)}).to_numpy(np.int64)
    return Images(np.load(folder / "pixels.npy"), labels, rows["image_id"].to_numpy(str), rows)


def _log_tables(predictions: pd.DataFrame, classes: list[str]) -> None:
    tracking.log_table(predictions.drop(columns="group"), "predictions.json")
    test = predictions[predictions["split"] == "test"]
    tracking.log_table(per_class_table(test, classes).reset_index(names="class"), "test-per-class.json")
