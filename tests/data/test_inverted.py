"""Images with black and white exchanged are found, told of by class, and turned back where the settings say so."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps
from scipy import ndimage

from cxr_tasks.data.decode import decode, difference_hash
from cxr_tasks.data.expectations import check_manifest
from cxr_tasks.data.ingest import THUMBNAILS, pixels_file
from cxr_tasks.data.inverted import (
    CORRECTED,
    NO,
    UNSURE,
    YES,
    count_inverted,
    inverted_in_words,
    is_inverted,
    log_odds,
)
from cxr_tasks.data.phantoms import write_phantoms
from cxr_tasks.data.survey import survey
from cxr_tasks.data.thumbnails import bars, without_bars
from tests.data.reading import Reading, data_settings, read_folder, split

SAMPLE = Path(os.environ.get("CXR_SAMPLE") or Path(__file__).parents[3] / "shared" / "cxr" / "sample")
COUNTS = {"COVID": 12, "Normal": 12, "Viral Pneumonia": 12}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Phantoms, of which every fourth image of COVID is inverted."""
    folder = tmp_path_factory.mktemp("inverted") / "data"
    write_phantoms(folder, COUNTS, image_size=96)
    for path in sorted((folder / "COVID" / "images").glob("*.png"))[::4]:
        ImageOps.invert(Image.open(path)).save(path)
    return folder


@pytest.fixture(scope="module")
def reported(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Reading:
    return read_folder(folder, tmp_path_factory.mktemp("report"), data_settings(), (48, 32))


@pytest.fixture(scope="module")
def corrected(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Reading:
    return read_folder(folder, tmp_path_factory.mktemp("correct"), data_settings(inverted="correct"), (48, 32))


def thumbnails(folder: Path) -> np.ndarray:
    return np.stack([decode(path.read_bytes(), path.name, ()).thumbnail for path in folder.rglob("images/*.png")])


@given(st.integers(0, 10**6), st.sampled_from([0, 1, 3]))
def test_the_model_is_as_sure_of_an_image_as_of_its_inverse(seed: int, broad: int) -> None:
    pictures = np.random.default_rng(seed).integers(0, 256, (6, 32, 32)).astype(np.uint8)
    pictures = ndimage.uniform_filter(pictures, (0, 2 * broad + 1, 2 * broad + 1))

    np.testing.assert_allclose(log_odds(255 - pictures), -log_odds(pictures), atol=0.05)


def test_phantoms_are_told_from_inverted_ones(phantoms: Path) -> None:
    pictures = thumbnails(phantoms)

    assert set(is_inverted(pictures)) == {NO} and set(is_inverted(255 - pictures)) == {YES}


@pytest.mark.parametrize("gray", [0, 255])
@pytest.mark.parametrize("lines", [0, 3, 8])
def test_bars_of_any_gray_do_not_mislead(phantoms: Path, gray: int, lines: int) -> None:
    pictures = thumbnails(phantoms)[::7]
    framed = np.pad(pictures, ((0, 0), (0, 0), (lines, lines)), constant_values=gray)
    small = np.stack([np.asarray(Image.fromarray(one).resize((32, 32), Image.Resampling.BILINEAR)) for one in framed])

    assert set(is_inverted(small)) == {NO} and set(is_inverted(255 - small)) == {YES}


def test_nobody_can_tell_of_a_picture_that_shows_nothing() -> None:
    flat, ramp = np.full((32, 32), 90, np.uint8), np.tile(np.arange(0, 256, 8, dtype=np.uint8)[:, None], 32)

    assert (
        is_inverted(np.stack([flat, np.tile(np.arange(0, 256, 8, dtype=np.uint8), (32, 1))])).tolist() == [UNSURE] * 2
    )
    assert is_inverted(np.empty((0, 32, 32), np.uint8)).tolist() == []
    assert without_bars(ramp[None]).shape == (1, 32, 32)


def test_bars_are_measured_and_taken_away() -> None:
    picture = np.random.default_rng(0).integers(60, 200, (1, 32, 32)).astype(np.uint8)
    picture[:, :, 27:] = 0
    assert bars(picture).tolist() == [[0, 0, 0, 6]]
    # One bar crosses the other, and is of another gray.
    picture[:, :3] = 255

    assert without_bars(picture).min() >= 60 and without_bars(picture).max() < 200


@pytest.mark.skipif(not SAMPLE.is_dir(), reason="the sample of real X-rays is not on this machine")
def test_real_images_are_told_from_inverted_ones() -> None:
    pictures = thumbnails(SAMPLE)

    right, turned = is_inverted(pictures), is_inverted(255 - pictures)

    assert (right == YES).sum() == (turned == NO).sum() == 0
    assert (right == UNSURE).sum() <= 4 and (turned == UNSURE).sum() <= 4


def test_the_manifest_says_which_images_are_inverted(reported: Reading) -> None:
    table = reported.manifest
    names = table["path"][table["inverted"] == YES].str.split("/").str[-1].tolist()

    assert names == sorted(f"COVID-{n}.png" for n in (1, 2, 6))
    assert (table["inverted"].drop(table.index[table["inverted"] == YES]) == NO).all()
    assert count_inverted(table, list(COUNTS), YES) == {"COVID": 3, "Normal": 0, "Viral Pneumonia": 0}


def test_corrected_pixels_are_those_of_the_image_that_was_inverted(reported: Reading, corrected: Reading) -> None:
    before, after = reported.manifest, corrected.manifest
    turned = (before["inverted"] == YES).to_numpy()

    assert (after["inverted"] == CORRECTED).to_numpy().tolist() == turned.tolist()
    np.testing.assert_allclose(after["mean"][turned], 255 - before["mean"][turned])
    pd.testing.assert_frame_equal(before[~turned], after[~turned])
    for name in (pixels_file(48), pixels_file(32), THUMBNAILS):
        as_it_was, as_it_is = (np.load(reading.shards[0] / name) for reading in (reported, corrected))
        rows = before["row"].to_numpy()
        np.testing.assert_array_equal(as_it_is[rows[turned]], 255 - as_it_was[rows[turned]])
        np.testing.assert_array_equal(as_it_is[rows[~turned]], as_it_was[rows[~turned]])
    shown = np.load(corrected.shards[0] / THUMBNAILS)[after["row"].to_numpy()]
    assert after["dhash"].tolist() == [f"{difference_hash(Image.fromarray(one)):016x}" for one in shown]


def test_the_expectations_warn_with_counts_examples_and_the_shortcut(reported: Reading, tmp_path: Path) -> None:
    few = data_settings(min_images_per_class=1, max_group_fraction=1.0)
    outcome = check_manifest(reported.manifest, few, tmp_path)

    (warning,) = outcome.warnings
    assert warning.startswith("3 of 12 images of COVID are inverted") and "COVID/images/COVID-1.png" in warning
    assert "Normal 0 of 12" in warning and warning.endswith("set data.inverted to correct")
    assert outcome.failures == []
    pages = "".join(path.read_text() for path in (tmp_path / "data-docs").rglob("*.html"))
    assert "3 of 12 images of COVID are inverted" in pages


def test_corrected_images_are_still_told_of(corrected: Reading, tmp_path: Path) -> None:
    (warning,) = check_manifest(corrected.manifest, data_settings(min_images_per_class=1), tmp_path).warnings

    assert "3 of 12 images of COVID are inverted" in warning and warning.endswith("3 were turned back")


def images(**kinds: list[str]) -> pd.DataFrame:
    rows = [(label, f"{label}/{n}.png", kind) for label, some in kinds.items() for n, kind in enumerate(some)]
    return pd.DataFrame(rows, columns=["label", "path", "inverted"])


def test_a_class_is_said_to_show_only_where_it_has_most_inverted_images() -> None:
    told = inverted_in_words(images(A=[YES, NO], B=[YES, NO], C=[NO, UNSURE]), ["A", "B", "C"])
    assert set(told) == {"A", "B"} and not any("other classes" in sentence for sentence in told.values())

    told = inverted_in_words(images(A=[YES, YES, UNSURE], B=[YES, NO]), ["A", "B"])
    assert "other classes have fewer (B 1 of 2)" in told["A"] and "of 1 more nobody can tell" in told["A"]
    assert "other classes" not in told["B"]


def test_no_word_is_lost_on_right_images_or_on_a_manifest_that_does_not_say() -> None:
    assert inverted_in_words(images(A=[NO, UNSURE], B=[NO]), ["A", "B"]) == {}
    assert inverted_in_words(images(A=[YES]).drop(columns="inverted"), ["A"]) == {}


def test_a_survey_counts_inverted_images(folder: Path) -> None:
    from cxr_tasks.config import resolve

    found, manifest = survey(str(folder), resolve("quick"))

    assert found.inverted == {"COVID": 3, "Normal": 0, "Viral Pneumonia": 0} and found.unsure_inverted == 0
    assert any("images of COVID are inverted" in warning for warning in found.warnings)
    assert (manifest["inverted"] == YES).sum() == 3


def test_correction_gives_a_dataset_with_the_same_splits(reported: Reading, corrected: Reading) -> None:
    one, other = (split(reading, data_settings()) for reading in (reported, corrected))

    assert one["split"].tolist() == other["split"].tolist()
