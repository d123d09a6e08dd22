"""A small head with dropout and batch statistics, and the trainings that are interrupted in it."""

from pathlib import Path

import keras
import numpy as np
import pandas as pd

from cxr_tasks.classifiers.features import ArmFeatures, FrozenTrunk
from cxr_tasks.classifiers.networks import Network
from cxr_tasks.classifiers.training import fit_classifier, weights_digest
from cxr_tasks.config import resolve
from cxr_tasks.data.dataset import Images

CLASSES = ["a", "b", "c"]


def noise_images(count: int, seed: int) -> Images:
    """Noise of 8 pixels a side, a little brighter for each class."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    pixels = (rng.integers(0, 200, (count, 8, 8)) + 20 * labels[:, None, None]).astype("uint8")
    ids = np.array([f"{seed}-{n}" for n in range(count)])
    rows = pd.DataFrame({"image_id": ids, "group": ids, "label": [CLASSES[k] for k in labels], "source": "s"})
    return Images(pixels, labels.astype(np.int64), ids, rows)


def small_network() -> Network:
    """Two layers with what a checkpoint has to carry besides weights: batch statistics, and the state of dropout."""
    keras.utils.set_random_seed(0)
    pixels = keras.Input((8, 8, 1))
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(pixels))
    x = keras.layers.Dropout(0.3)(keras.layers.BatchNormalization()(keras.layers.Dense(8, activation="relu")(x)))
    head = keras.Model(pixels, keras.layers.Dense(3, activation="softmax")(x))
    return Network("cnn", None, head, head)


def train(folder: Path | None = None, *, of: type[ArmFeatures] = ArmFeatures, network=None, hooks=None, **changes):
    """What a training leaves: the fitted classifier, and what tells its bits."""
    changes = {"epochs": 12, "batch_size": 7, "learning_rate": 0.02, "patience": 4, **changes}
    settings = resolve("quick", {"classifiers": changes, "augmentation": {"views": 2}})
    network, images = network or small_network(), noise_images(40, 0)
    held_out = {"validation": noise_images(12, 1), "test": noise_images(12, 2)}
    features = of(FrozenTrunk(None), images, held_out, settings.augmentation, 0)
    fitted = fit_classifier(
        network,
        features,
        images,
        held_out,
        CLASSES,
        settings.classifiers,
        seed=0,
        # Passes and epochs do not end together.
        steps=4,
        checkpoints=folder,
        **(hooks or {}),
    )
    return fitted, (weights_digest(network.full), fitted.predictions.to_json(), fitted.history.to_json())


def train_in_a_process(folder: str, checkpoint_seconds: float, pipe) -> None:
    """Train; sends ``"saved"`` after each checkpoint, and at the end what tells the bits."""
    hooks = {"on_checkpoint": lambda: pipe.send("saved")}
    pipe.send(train(Path(folder), hooks=hooks, checkpoint_seconds=checkpoint_seconds)[1])
