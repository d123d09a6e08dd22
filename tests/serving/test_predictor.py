"""A prediction sees what training saw, in any batch and company, and says what is unusual."""

import base64
import hashlib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxr_tasks.config import resolve
from cxr_tasks.data.decode import LARGEST_FILE, HowToRead
from cxr_tasks.data.formats import Unusable
from cxr_tasks.data.ingest import pixels_file, read_shard
from cxr_tasks.serving.model_facts import ModelFacts
from cxr_tasks.serving.predictor import LARGEST_BATCH, UNKNOWN_USUAL, Predictor, as_sentence
from tests.data.dicom_files import dicom
from tests.serving.networks import CLASSES, SIZE, small_network, write_model


@pytest.fixture(scope="module")
def predictor(model_folder: Path) -> Predictor:
    return Predictor.load(model_folder, "cxr-overall", "7")


# More than a phantom has.
FEW_PIXELS = 10_000


def png(image: Image.Image) -> bytes:
    stream = BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize("inverted", ["report", "correct"])
def test_the_network_is_shown_the_pixels_of_training(inverted: str, xrays: list[Path], tmp_path: Path) -> None:
    settings = resolve("quick", {"data": {"inverted": inverted, "resize": "area"}})
    deep = np.asarray(Image.open(xrays[2]).resize((90, 80)), np.uint16) * 117 + 300
    made = {
        "gray.png": Image.open(xrays[0]),
        "inverted.png": Image.fromarray(255 - np.asarray(Image.open(xrays[1]))),
        "deep.png": Image.fromarray(deep),
        "colour.png": Image.open(xrays[3]).convert("RGB"),
    }
    contents = {name: png(image) for name, image in made.items()} | {"one.dcm": dicom(deep)}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    files = pd.DataFrame(
        [
            {"path": name, "label": "COVID", "sha256": hashlib.sha256(content).hexdigest(), "fault": ""}
            for name, content in contents.items()
        ]
    ).assign(mask="", mask_sha256="")
    (tmp_path / "shard").mkdir()
    rows = read_shard(
        tmp_path, files, [SIZE], tmp_path / "shard", HowToRead.of(settings.data), correct=inverted == "correct"
    )
    assert (rows["status"] == "used").all(), rows["reason"].tolist()
    thumbnails = np.load(tmp_path / "shard" / "thumbnails.npy")
    predictor = Predictor.load(write_model(tmp_path / "model", thumbnails, inverted=inverted, resize="area"))

    seen = predictor.see([predictor.read(content) for content in contents.values()])

    np.testing.assert_array_equal(
        np.stack([each.pixels for each in seen]), np.load(tmp_path / "shard" / pixels_file(SIZE))
    )
    np.testing.assert_array_equal(np.stack([each.thumbnail for each in seen]), thumbnails)
    assert [each.is_inverted for each in seen].count(True) == 1
    assert [each.is_corrected for each in seen].count(True) == (inverted == "correct")


def test_an_answer_names_classes_decision_and_version(predictor: Predictor, xrays: list[Path]) -> None:
    answer = predictor.predict([xrays[0].read_bytes()])[0]

    pixels = np.asarray(Image.open(xrays[0]).resize((SIZE, SIZE), Image.Resampling.BILINEAR), np.float32)
    expected = small_network().predict(pixels[None, ..., None], verbose=0)[0]
    np.testing.assert_allclose(list(answer.probabilities.values()), expected, atol=2e-6)
    assert list(answer.probabilities) == list(CLASSES) and answer.decision == CLASSES[int(expected.argmax())]
    assert (answer.model, answer.version, answer.error) == ("cxr-overall", "7", "")
    # COVID is reached from 0.3 on, Normal always; Viral Pneumonia has no operating point.
    assert answer.reached == (("COVID",) if expected[0] >= 0.3 else ()) + ("Normal",)


def test_neither_batch_nor_company_changes_an_answer(predictor: Predictor, xrays: list[Path]) -> None:
    given = [path.read_bytes() for path in xrays[:39]]
    alone = [predictor.predict([each])[0] for each in given[:5]]
    broken: list[object] = [*given[:3], b"no image", *given[3:], None]

    together = predictor.predict(broken)

    assert (len(alone), len(together)) == (5, 41)
    for one, other in zip(alone, [*together[:3], *together[4:6]], strict=True):
        np.testing.assert_allclose(list(one.probabilities.values()), list(other.probabilities.values()), atol=2e-6)
        assert one.warnings == other.warnings
    assert [bool(answer.error) for answer in together] == [False] * 3 + [True] + [False] * 36 + [True]
    assert together[3].error == "The file is not an image." and together[3].decision == ""


def test_base64_bytes_and_arrays_have_one_answer(predictor: Predictor, xrays: list[Path]) -> None:
    content, grays = xrays[5].read_bytes(), np.asarray(Image.open(xrays[5]))
    given = [content, base64.b64encode(content).decode(), grays, {"pixels": (grays / 255).tolist(), "range": [0, 1]}]

    answers = predictor.predict(given)

    assert answers[1:] == [answers[0]] * 3


def test_xrays_like_those_of_training_get_no_warning(predictor: Predictor, xrays: list[Path]) -> None:
    answers = predictor.predict([path.read_bytes() for path in xrays[1:100:2]])

    assert sum(bool(answer.warnings) for answer in answers) <= 8


@pytest.mark.parametrize(
    ("change", "warning"),
    [
        (lambda x: 255 - x, "Black and white seem to be exchanged"),
        (lambda x: x // 4, "The image is darker than"),
        (lambda x: x // 4, "The image is flatter than"),
        (lambda x: 170 + x // 3, "The image is brighter than"),
        (lambda x: np.rot90(x), "does not look like the X-rays"),
        (lambda x: np.random.default_rng(0).integers(0, 256, x.shape, np.uint8), "does not look like the X-rays"),
        (lambda x: x.repeat(2, axis=1), "The image is wider than"),
        (lambda x: x[::2, ::2], None),
    ],
)
def test_what_is_unusual_is_said(change, warning, predictor: Predictor, xrays: list[Path]) -> None:
    changed = png(Image.fromarray(np.ascontiguousarray(change(np.asarray(Image.open(xrays[0]))))))

    answer = predictor.predict([changed])[0]

    if warning is None:
        assert "32×32 pixels: at least 64 a side" in answer.error
    else:
        assert answer.error == "" and any(warning in each for each in answer.warnings), answer
        assert all(each.endswith(".") and "\n" not in each for each in answer.warnings)


def test_a_model_of_before_answers_and_says_what_it_cannot_know(xrays: list[Path]) -> None:
    predictor = Predictor(small_network(), ModelFacts.bare(CLASSES, SIZE, "area"), None)

    answer = predictor.predict([xrays[0].read_bytes()])[0]

    assert answer.decision in CLASSES and answer.reached == () and answer.warnings == (as_sentence(UNKNOWN_USUAL),)


def test_fewer_pixels_may_be_allowed_than_in_training(predictor: Predictor, xrays: list[Path]) -> None:
    with pytest.raises(Unusable, match="at most 1,000 in all"):
        predictor.read(xrays[0].read_bytes(), most_pixels=1000)


def test_no_more_than_two_batches_of_images_are_held(predictor: Predictor, xrays: list[Path]) -> None:
    taken: list[Path] = []

    def files() -> Iterator[Path]:
        for number in range(3 * LARGEST_BATCH + 5):
            taken.append(xrays[number % 8])
            yield xrays[number % 8]

    answers = predictor.predict_each(files())
    first = next(answers)

    assert first.error == "" and len(taken) == 2 * LARGEST_BATCH
    assert sum(answer.error == "" for answer in answers) == 3 * LARGEST_BATCH + 4


def test_large_images_are_decoded_one_at_a_time_and_others_meanwhile(
    model_folder: Path, xrays: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor, at_work, most = Predictor.load(model_folder), [], []
    predictor.readers = ThreadPoolExecutor(4)
    decode_it = predictor._decoded

    def watched(content: Any, most_pixels: int) -> Any:
        is_large = most_pixels > FEW_PIXELS
        if is_large:
            at_work.append(1)
            most.append(len(at_work))
            time.sleep(0.02)
        try:
            return decode_it(content, most_pixels)
        finally:
            if is_large:
                at_work.pop()

    small, large = xrays[0].read_bytes(), png(Image.open(xrays[0]).resize((160, 160)))
    monkeypatch.setattr("cxr_tasks.serving.predictor.LARGE_PIXELS", FEW_PIXELS)
    monkeypatch.setattr(predictor, "_decoded", watched)

    answers = predictor.predict([small, large] * 6)

    assert [answer.error for answer in answers] == [""] * 12 and most == [1] * 6


def test_a_path_is_read_and_what_cannot_be_read_is_said(
    predictor: Predictor, xrays: list[Path], tmp_path: Path
) -> None:
    huge = tmp_path / "huge.png"
    with huge.open("wb") as stream:
        stream.truncate(LARGEST_FILE + 2**20)

    answers = predictor.predict([xrays[0], tmp_path / "nothing.png", huge, tmp_path])

    assert answers[0] == predictor.predict([xrays[0].read_bytes()])[0]
    assert [answer.error for answer in answers[1:]] == [
        "The file cannot be read: No such file or directory.",
        "The file has 257 MiB: at most 256 are read.",
        "The file cannot be read: Is a directory.",
    ]


def test_an_image_is_not_to_blame_for_a_lack_of_memory(
    predictor: Predictor, xrays: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [xrays[0].read_bytes(), dicom(np.asarray(Image.open(xrays[0]), np.uint16))]
    assert [answer.error for answer in predictor.predict(files)] == ["", ""]

    def full(*_: Any, **__: Any) -> Any:
        raise MemoryError("no memory is left")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", full)
    monkeypatch.setattr("cxr_tasks.data.dicom.pixels._decoded", full)

    for file in files:
        with pytest.raises(MemoryError, match="no memory is left"):
            predictor.predict([file])
