"""Laws of altered copies: a picture is found again however it was mirrored, moved, marked or inverted, and no other."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from cxr_tasks.config import resolve
from cxr_tasks.data import neighbours as cells
from cxr_tasks.data.duplicates import altered
from cxr_tasks.data.neighbours import nearest_points
from cxr_tasks.data.overlay import overlaid, spectra
from cxr_tasks.data.phantoms import write_phantoms

NEAR = resolve("quick").data.near_duplicates
COUNTS = {"COVID": 30, "Normal": 30, "Viral Pneumonia": 20}


def blobs(seed: int, count: int, side: int = 32) -> np.ndarray:
    """(count, side, side) uint8 of unrelated smooth pictures."""
    fields = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(count, side, side)), (0, 1.5, 1.5))
    return np.clip(128 + 40 * fields / fields.std(), 0, 255).astype(np.uint8)


def small(pictures: np.ndarray, box: tuple[float, float, float, float] | None = None) -> np.ndarray:
    """(n, 32, 32) uint8 of (n, S, S), or of a box in them."""
    return np.stack(
        [np.asarray(Image.fromarray(one).resize((32, 32), Image.Resampling.BOX, box=box)) for one in pictures]
    )


@pytest.fixture(scope="module")
def chests(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Image.Image], list[str]]:
    """Phantoms, and the patient of each."""
    folder = tmp_path_factory.mktemp("chests")
    write_phantoms(folder / "p", COUNTS, image_size=128)
    images, patients = [], []
    for label in COUNTS:
        table = pd.read_csv(folder / "p" / f"{label}.metadata.csv").set_index("FILE NAME")["PATIENT"]
        for path in sorted((folder / "p" / label / "images").glob("*.png")):
            with Image.open(path) as image:
                images.append(image.convert("L"))
            patients.append(f"{label} {table[path.stem]}")
    return images, patients


def thumbnails(images: list[Image.Image]) -> np.ndarray:
    return np.stack([np.asarray(one.resize((32, 32), Image.Resampling.BILINEAR, reducing_gap=2.0)) for one in images])


@given(st.integers(0, 10**6), st.booleans(), st.booleans())
@settings(max_examples=20)
def test_a_mirrored_or_inverted_picture_is_found_and_no_other(seed: int, mirrored: bool, inverted: bool) -> None:
    pictures = blobs(seed, 8)
    copy = pictures[3, :, ::-1] if mirrored else pictures[3]
    copy = 255 - copy if inverted else copy

    assert altered(np.concatenate([pictures, copy[None]]), NEAR).tolist() == [[3, 8]]


@given(st.integers(0, 10**6))
@settings(max_examples=20)
def test_it_does_not_matter_which_picture_lies_over_which(seed: int) -> None:
    wide = blobs(seed, 6, side=64)
    ones, others = small(wide), np.concatenate([small(wide[:4], (2, 2, 62, 62)), small(blobs(seed + 1, 2, side=64))])

    assert np.allclose(overlaid(ones, others, 0.3), overlaid(others, ones, 0.3), atol=1e-4)


@given(st.integers(0, 10**6))
@settings(max_examples=20)
def test_the_spectrum_of_a_picture_is_that_of_its_inverse_and_of_its_mirror_image(seed: int) -> None:
    pictures = blobs(seed, 4)
    for same in (255 - pictures, pictures[:, :, ::-1]):
        assert np.allclose(spectra(pictures), spectra(same), atol=0.02)


@pytest.mark.parametrize(
    "alter",
    [
        lambda image: image.rotate(2, Image.Resampling.BILINEAR),
        lambda image: image.crop((3, 3, 125, 125)),
        lambda image: image.crop((6, 0, 128, 128)),
        lambda image: Image.fromarray(np.pad(np.asarray(image), ((0, 0), (13, 13)), constant_values=255)),
        lambda image: Image.fromarray(np.pad(np.asarray(image), ((0, 0), (13, 13)))),
    ],
    ids=["turned", "cropped", "cropped at one side", "white bars", "black bars"],
)
def test_altered_phantoms_are_found(
    alter: Callable[[Image.Image], Image.Image], chests: tuple[list[Image.Image], list[str]]
) -> None:
    images, _ = chests
    found = altered(thumbnails([alter(image) for image in images]), NEAR, thumbnails(images))

    assert (found[:, 0] == found[:, 1]).sum() >= 0.8 * len(images)


def test_phantoms_of_different_patients_are_not_one_picture(chests: tuple[list[Image.Image], list[str]]) -> None:
    images, patients = chests

    assert all(patients[a] == patients[b] for a, b in altered(thumbnails(images), NEAR).tolist())


def test_no_neighbours_no_pictures_and_blank_ones_give_no_pairs() -> None:
    pictures = blobs(0, 3)
    twice, blank = np.concatenate([pictures, pictures]), np.full((3, 32, 32), 7, np.uint8)

    assert altered(twice, NEAR.model_copy(update={"neighbours": 0})).shape == (0, 2)
    assert altered(pictures[:0], NEAR).shape == altered(blank, NEAR).shape == (0, 2)
    assert altered(pictures[:0], NEAR, pictures).shape == altered(pictures, NEAR, pictures[:0]).shape == (0, 2)
    assert altered(twice, NEAR).tolist() == [[0, 3], [1, 4], [2, 5]]


def test_near_points_are_found_where_many_are_divided_into_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells, "CELL_POINTS", 40)
    points = np.random.default_rng(0).normal(size=(1000, 8)).astype(np.float32)
    near = points + 0.01 * np.random.default_rng(1).normal(size=points.shape).astype(np.float32)

    found = nearest_points(near, points, 1)

    assert (found[:, 0] == found[:, 1]).mean() > 0.99
    assert np.array_equal(found, nearest_points(near, points, 1))
