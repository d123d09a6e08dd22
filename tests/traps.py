"""Files that run code where they are read carelessly, and a mark of whether they did."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


class Trap:
    """Whoever unpickles it makes the file ``mark``."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        return Path.touch, (self.mark,)

    @property
    def is_sprung(self) -> bool:
        return self.mark.exists()

    def pickled(self, path: Path) -> Path:
        path.write_bytes(pickle.dumps(self))
        return path

    def array(self, path: Path) -> Path:
        """A ``.npy`` file that holds an object."""
        np.save(path, np.array([self], object), allow_pickle=True)
        return path

    def table(self, path: Path) -> Path:
        """A Parquet file whose column says that its type is pickled."""
        told = {"ARROW:extension:name": "arrow.py_extension_type", "ARROW:extension:metadata": pickle.dumps(self)}
        schema = pa.schema([pa.field("image", pa.string(), metadata=told)])
        pq.write_table(pa.table([pa.array(["a.png"])], schema=schema), path)
        return path

    def network(self, path: Path, base: keras.Model | None = None) -> Path:
        """A Keras file with a lambda, after the layers of ``base``."""
        mark = str(self.mark)
        base = base or keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten()])
        run = keras.layers.Lambda(lambda x: (open(mark, "w").close(), x)[1], name="trap")
        keras.Model(base.inputs, run(base.outputs[0])).save(path)
        # Building it has run it.
        self.mark.unlink()
        return path
