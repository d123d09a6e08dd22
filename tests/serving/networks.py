"""Small networks in folders, with what is kept beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

from cxr_tasks.artifacts import write_json
from cxr_tasks.config import resolve
from cxr_tasks.data.typical import TypicalImages
from cxr_tasks.keras_file import NETWORK_FILE
from cxr_tasks.serving.model_facts import FileReading, ModelFacts, Usual

CLASSES = ("COVID", "Normal", "Viral Pneumonia")
SIZE = 32


def small_network(seed: int = 0) -> keras.Model:
    """Two layers with random weights, large enough that two images differ."""
    keras.utils.set_random_seed(seed)
    pixels = keras.Input((SIZE, SIZE, 1))
    maps = keras.layers.Conv2D(8, 3, strides=2, activation="relu")(keras.layers.Rescaling(1 / 64)(pixels))
    answer = keras.layers.Dense(len(CLASSES), activation="softmax")(keras.layers.Flatten()(maps))
    return keras.Model(pixels, answer)


def write_model(folder: Path, thumbnails: np.ndarray, seed: int = 0, **data: Any) -> Path:
    """The files of a model whose training images are the thumbnails (n, 32, 32); ``data`` are settings of reading."""
    folder.mkdir(parents=True, exist_ok=True)
    small_network(seed).save(folder / NETWORK_FILE)
    typical = TypicalImages.of(thumbnails[::2])
    typical.save(folder / ModelFacts.TYPICAL)
    rows = pd.DataFrame({"width": 64, "height": 64}, index=range(len(thumbnails[1::2])))
    facts = ModelFacts(
        classes=CLASSES,
        image_size=SIZE,
        reading=FileReading.of(resolve("quick", {"data": data}).data),
        thresholds={"COVID": 0.3, "Normal": 0.0},
        usual=Usual.of(typical, thumbnails[1::2], rows, 0.02),
    )
    write_json(folder / ModelFacts.FILE, facts)
    return folder
