"""What may be given as an image, and the sentences for all else."""

import base64
import tracemalloc
from typing import Any

import numpy as np
import pytest

from cxr_tasks.data.formats import TooManyPixelsError, Unusable
from cxr_tasks.serving import given_image
from cxr_tasks.serving.given_image import VALUES_AT_ONCE, content_of, without_lists

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
        (GRAYS.astype(float), "an array of float64 does not say its range"),
        (GRAYS.tolist(), "a list does not say its range"),
        ({"pixels": [[0, 300]], "range": [0, 255]}, "outside its range"),
        ({"pixels": [[0, float("nan")]], "range": [0, 255]}, "outside its range"),
        ({"pixels": [["a"]], "range": [0, 255]}, "holds no numbers"),
        ({"pixels": [[0, 1], [1]], "range": [0, 255]}, "holds no numbers"),
        ({"pixels": [[0] * VALUES_AT_ONCE, [1]], "range": [0, 1]}, "holds no numbers"),
        ({"pixels": {"a": 1}, "range": [0, 1]}, "holds no numbers"),
        ({"pixels": 3, "range": [0, 1]}, "holds no numbers"),
        ({"pixels": [[10**400]], "range": [0, 1]}, "holds no numbers"),
        ({"pixels": [], "range": [0, 1]}, "is no gray image"),
        ({"pixels": [[]], "range": [0, 1]}, "is no gray image"),
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


ZEROS = [[0] * 2000] * 2000


@pytest.mark.parametrize(
    "given",
    [
        np.zeros((2000, 2000), np.uint8),
        {"pixels": ZEROS, "range": [0, 1]},
        {"pixels": np.array(ZEROS), "range": [0, 1]},
    ],
)
def test_an_array_of_too_many_pixels_is_refused_before_memory_is_taken_for_it(given: Any) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(Unusable, match="2000×2000 pixels: at most 3,999,999 in all"):
            content_of(given, 3_999_999)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_the_numbers_of_a_list_are_never_all_floating_point_at_once() -> None:
    tracemalloc.start()
    try:
        found = content_of({"pixels": ZEROS, "range": [0, 1]}, 4_000_000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert isinstance(found, np.ndarray) and found.shape == (2000, 2000)
    # One byte a pixel is the answer; as floating-point numbers they would be eight.
    assert peak < 4 * found.size


@pytest.mark.parametrize("given", [bytes(301), base64.b64encode(bytes(301)).decode(), "A" * 10_000])
def test_no_more_is_read_than_of_a_file(given: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(given_image, "LARGEST_FILE", 300)
    monkeypatch.setattr(given_image, "MOST_TEXT", 404)

    with pytest.raises(Unusable, match=r"the file has 0 MiB: at most|10,000 characters: at most 404 are read"):
        content_of(given)


def test_of_the_lists_of_a_call_nothing_is_kept_but_their_grays_or_the_reason() -> None:
    given = ["text", {"pixels": GRAYS.tolist(), "range": [0, 255]}, {"pixels": ZEROS, "range": [0, 1]}, [[0]], None]

    found = [without_lists(each, 1000) for each in given]

    assert found[0] == "text" and np.array_equal(np.asarray(found[1]), GRAYS)
    assert [type(each) for each in found[2:]] == [TooManyPixelsError, Unusable, Unusable]
