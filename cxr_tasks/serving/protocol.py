"""How a model is asked through MLflow: signature, input example, requirements, and what an input may look like."""

from __future__ import annotations

import base64
from importlib import metadata
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from PIL import Image

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

MODEL_FOLDER, COLUMN = "model", "image"
MODEL_CODE = Path(__file__).with_name("model_code.py")
# What reading a file and running a network takes. Their versions are those that the model was trained with.
REQUIRED = (
    "tensorflow",
    "keras",
    "numpy",
    "pandas",
    "pillow",
    "pydicom",
    "imagecodecs",
    "pydantic",
    "pyyaml",
    "scikit-learn",
    "scipy",
    "pyarrow",
)


def pinned_requirements() -> list[str]:
    """The packages that a model needs beside ``cxr_tasks``, with the versions that are installed."""
    return [f"{name}=={metadata.version(name)}" for name in REQUIRED]


def signature() -> ModelSignature:
    """One column of images in, one row an image out."""
    from mlflow.models import ModelSignature
    from mlflow.types.schema import AnyType, Array, ColSpec, DataType, Map, Schema

    text, texts = DataType.string, Array(DataType.string)
    answer = [
        ColSpec(text, "decision"),
        ColSpec(Map(DataType.double), "probabilities"),
        ColSpec(texts, "reached"),
        ColSpec(texts, "warnings"),
        ColSpec(text, "error"),
        ColSpec(text, "model"),
        ColSpec(text, "version"),
    ]
    # Bytes, base64 and arrays: MLflow knows no type that is one of several. Without a name, a list will do for a table.
    return ModelSignature(Schema([ColSpec(AnyType())]), Schema(answer))


def input_example() -> pd.DataFrame:
    """A ramp of grays as PNG in base64: the format is shown without keeping a patient's image."""
    ramp = np.linspace(20, 220, 64 * 64).astype(np.uint8).reshape(64, 64)
    stream = BytesIO()
    Image.fromarray(ramp).save(stream, "PNG")
    return pd.DataFrame({COLUMN: [base64.b64encode(stream.getvalue()).decode()]})


def images_of(model_input: Any) -> list[Any]:
    """The images of a table, which stand in its column ``image`` or in its first, or of a list."""
    cells = model_input
    if isinstance(model_input, pd.DataFrame):
        cells = model_input[COLUMN if COLUMN in model_input else model_input.columns[0]]
    found: list[Any] = []
    for cell in cells:
        # MLflow puts a list that is named `inputs` into one cell.
        several = isinstance(cell, list) or (isinstance(cell, np.ndarray) and cell.dtype.kind in "OUS")
        found += list(cell) if several else [cell]
    return found
