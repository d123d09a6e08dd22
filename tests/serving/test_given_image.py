"""What may be given as an image, and the sentences for all else."""

import base64
from typing import Any

import numpy as np
import pytest

from cxr_tasks.data.formats import Unusable
from cxr_tasks.serving.given_image import content_of

BYTES = b"\x89PNG"
GRAYS = np.arange(12, dtype=np.uint8).reshape(3, 4)


@pytest.mark.parametrize("given", [BYTES, bytearray(BYTES), memoryview(BYTES), "iVBORw==", "iVBO\nRw==\n"])
def test_bytes_and_base64_are_the_bytes_of_a_file(given: Any) -> None:
    assert content_of(given) == BYTES


def test_a_data_url_is_read() -> None:
    assert content_of("data:image/png;base64," + base64.b64encode(b"file").decode()) == b"file"


@pytest.mark.parametrize(
    "given",
    [
        GRAYS,
        GRAYS[..., None],
        {"pixels": GRAYS, "range": [0, 255]},
        {"pixels": (GRAYS / 255).tolist(), "range": (0, 1)},
        {"pixels": GRAYS.astype(float) / 127.5 - 1, "range": (-1.0, 1.0)},
    ],
)
def test_an_array_is_grays_in_its_range(given: Any) -> None:
    np.testing.assert_array_equal(content_of(given), GRAYS)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("not base64!", "the text is not base64"),
        ("ä", "the text is not base64"),
        (GRAYS.astype(float), "does not say its range"),
        ({"pixels": [[0, 300]], "range": [0, 255]}, "outside its range"),
        ({"pixels": [[0, float("nan")]], "range": [0, 255]}, "outside its range"),
        ({"pixels": [["a"]], "range": [0, 255]}, "holds no numbers"),
        ({"pixels": [[0, 1], [1]], "range": [0, 255]}, "holds no numbers"),
        ({"pixels": [[0, 1]], "range": 255}, "holds no numbers"),
        ({"pixels": [[0, 1]], "range": [1, 1]}, "the second is larger"),
        ({"pixels": np.zeros((4, 4, 3)), "range": [0, 1]}, "is no gray image"),
        ({"pixels": []}, "what was given is no image"),
        (None, "what was given is no image"),
        (3.5, "what was given is no image"),
    ],
)
def test_all_else_is_refused_in_a_sentence(given: Any, why: str) -> None:
    with pytest.raises(Unusable, match=why) as refused:
        content_of(given)

    assert "\n" not in str(refused.value)
