"""A model on phantoms, and their files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cxr_tasks.data.decode import decode
from tests.serving.networks import write_model


@pytest.fixture(scope="session")
def model_folder(xrays: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a model."""
    thumbnails = np.stack([decode(path.read_bytes(), path.name, []).thumbnail for path in xrays])
    return write_model(tmp_path_factory.mktemp("model"), thumbnails)
