"""The file of a network, and how it is read: by Keras alone, which refuses code that came with the file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras

NETWORK_FILE = "model.keras"


def read_network(path: Path) -> keras.Model:
    """The network of a file, for predictions.

    Raises:
        Exception: Whatever Keras finds wrong with it.
    """
    import keras

    return keras.models.load_model(path, compile=False)
