"""Laws of sameness: all pairs are found, only pairs that show one picture, and groups are what pairs connect."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from cxr_tasks.config import resolve
from cxr_tasks.data.decode import decode
from cxr_tasks.data.duplicates import (
    AT_ONCE,
    CLASH,
    _mean_and_spread,
    _within,
    components,
    encoded_again,
    group_names,
    identical,
    near_duplicates,
    same_patient,
)
from tests.data.bad_files import encoded, ribs

Pairs = list[tuple[int, int]]
NEAR = resolve("quick").data.near_duplicates


def array(pairs: Pairs) -> np.ndarray:
    return np.array(pairs, np.int64).reshape(-1, 2)


@st.composite
def hashes(draw: st.DrawFn) -> np.ndarray:
    """Some families of hashes: a few centres, and around each some that differ in up to eight bits."""
    centres = draw(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=3))
    flips = st.lists(st.integers(0, 63), max_size=8, unique=True)
    members = draw(st.lists(st.tuples(st.sampled_from(centres), flips), max_size=16))
    return np.array([centre ^ sum(1 << bit for bit in bits) for centre, bits in members], np.uint64)


@given(hashes(), st.integers(0, 4))
def test_all_pairs_within_so_many_bits_are_found_once(dhash: np.ndarray, bits: int) -> None:
    found = np.concatenate([np.empty((0, 2), np.int64), *_within(dhash, bits)])

    every = [
        (a, b) for a, b in combinations(range(len(dhash)), 2) if (int(dhash[a]) ^ int(dhash[b])).bit_count() <= bits
    ]
    assert found.shape == (len(every), 2)
    assert sorted(map(tuple, found.tolist())) == every


@pytest.mark.parametrize("bits", [0, 3, 8])
def test_many_equal_hashes_give_every_pair(bits: int) -> None:
    assert sum(map(len, _within(np.full(60, 2**64 - 1, np.uint64), bits))) == 60 * 59 / 2


@pytest.mark.parametrize("count", [1, 300, AT_ONCE, 2 * AT_ONCE + 1])
def test_points_are_described_to_the_bit_as_if_they_were_in_memory(count: int) -> None:
    points = np.random.default_rng(count).gamma(2, 3, (count, 23)).astype(np.float32)

    mean, spread = _mean_and_spread(points)

    np.testing.assert_array_equal(mean, points.mean(axis=0))
    np.testing.assert_array_equal(spread, points.std(axis=0))


def noise(seed: int, broad: float, count: int = 12) -> np.ndarray:
    """(count, 32, 32) uint8 of unrelated pictures; ``broad``: the size of their features in pixels."""
    rng = np.random.default_rng(seed)
    fields = ndimage.gaussian_filter(rng.normal(size=(count, 32, 32)), (0, broad, broad))
    fields -= fields.min(axis=(1, 2), keepdims=True)
    return (255 * fields / fields.max(axis=(1, 2), keepdims=True)).astype(np.uint8)


@given(st.integers(0, 10**6), st.sampled_from([0.0, 1.0, 2.0]))
def test_unrelated_pictures_are_not_one_even_where_their_hashes_agree(seed: int, broad: float) -> None:
    thumbnails = noise(seed, broad)
    # The broad shape that all chests share, which a hash mostly sees.
    shape = np.outer(np.hanning(32), np.hanning(32))
    alike = (0.75 * 255 * shape + 0.25 * thumbnails).astype(np.uint8)

    for pictures in (thumbnails, alike):
        assert len(near_duplicates(np.zeros(len(pictures), np.uint64), pictures, NEAR)) == 0


@given(st.integers(0, 10**6), st.integers(-30, 30), st.floats(0.8, 1.2))
def test_a_brighter_or_flatter_copy_is_the_same_picture(seed: int, brighter: int, steeper: float) -> None:
    thumbnails = 60 + noise(seed, 1.0) // 2
    copy = (thumbnails[3].astype(float) * steeper + brighter).clip(0, 255).astype(np.uint8)

    pairs = near_duplicates(np.zeros(13, np.uint64), np.concatenate([thumbnails, copy[None]]), NEAR)

    assert pairs.tolist() == [[3, 12]]


def test_hashes_propose_and_only_what_they_propose_is_compared() -> None:
    thumbnails = np.repeat(noise(0, 1.0, count=1), 3, axis=0)

    assert encoded_again(np.array([0, 0b111, 0b1111], np.uint64), thumbnails, NEAR).tolist() == [[0, 1], [1, 2]]


def test_pairs_are_compared_in_pieces_without_losing_any(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cxr_tasks.data.duplicates.AT_ONCE", 7)
    pictures = noise(0, 1.0, count=10)
    twice = np.concatenate([pictures, pictures])

    pairs = near_duplicates(np.zeros(20, np.uint64), twice, NEAR)

    assert pairs.tolist() == [[n, n + 10] for n in range(10)]


def test_blank_pictures_and_no_pictures_give_no_pairs() -> None:
    assert near_duplicates(np.zeros(4, np.uint64), np.full((4, 32, 32), 9, np.uint8), NEAR).shape == (0, 2)
    assert near_duplicates(np.empty(0, np.uint64), np.empty((0, 32, 32), np.uint8), NEAR).shape == (0, 2)


def test_copies_encoded_again_are_found_among_other_pictures() -> None:
    images = [ribs((299, 299), seed) for seed in range(8)]
    contents = [(encoded(image), "a.png") for image in images]
    contents += [(encoded(image, "JPEG", quality=85), "a.jpg") for image in images]
    contents += [(encoded(image.resize((512, 512), Image.Resampling.BICUBIC)), "a.png") for image in images]
    decoded = [decode(content, name, ()) for content, name in contents]

    pairs = encoded_again(
        np.array([one.dhash for one in decoded], np.uint64), np.stack([one.thumbnail for one in decoded]), NEAR
    )

    # Every picture is three times there, and each is found to be itself and no other.
    assert all((a - b) % 8 == 0 for a, b in pairs.tolist())
    assert pd.Series(components(24, pairs)).nunique() == 8


def frame(rows: list[tuple[str, str]]) -> pd.DataFrame:
    images = pd.DataFrame(rows, columns=["image_id", "label"], dtype=str)
    return images.assign(path=[f"{label}/{n}.png" for n, label in enumerate(images["label"])])


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from(["COVID", "Normal"])), max_size=12))
def test_of_identical_files_one_stays_unless_their_classes_differ(rows: list[tuple[str, str]]) -> None:
    images = frame(rows)

    reasons = identical(images)

    assert reasons.index.equals(images.index)
    stay = images[reasons == ""]
    assert stay["image_id"].is_unique
    for image_id, same in images.groupby("image_id"):
        if same["label"].nunique() == 1:
            assert stay.index[stay["image_id"] == image_id].tolist() == [same.index[0]]
            assert set(reasons[same.index[1:]]) <= {f"identical to {same['path'].iloc[0]}"}
        else:
            assert image_id not in set(stay["image_id"])
            assert set(reasons[same.index]) == {f"{CLASH}: {', '.join(same['path'])}"}


@st.composite
def graphs(draw: st.DrawFn) -> tuple[pd.DataFrame, Pairs]:
    """Images of known and unknown patients, and pairs among them."""
    patients = draw(st.lists(st.sampled_from(["", "", "", "P1", "P2", "P3", "zz"]), min_size=1, max_size=14))
    ids = draw(st.permutations([f"i{n:02}" for n in range(len(patients))]))
    every = list(combinations(range(len(patients)), 2))
    pairs = draw(st.lists(st.sampled_from(every), max_size=8)) if every else []
    return pd.DataFrame({"image_id": ids, "patient": patients}), pairs


def connected(images: pd.DataFrame, pairs: Pairs) -> list[set[int]]:
    """For each image, all that it is tied to by pairs and patients, however far."""
    patients = images["patient"].tolist()
    shared = [(a, b) for a, b in combinations(range(len(images)), 2) if patients[a] and patients[a] == patients[b]]
    ties = [*pairs, *shared]
    groups = [{n} for n in range(len(images))]
    for a, b in ties:
        whole = groups[a] | groups[b]
        for n in whole:
            groups[n] = whole
    return groups


@given(graphs())
def test_images_share_a_group_if_and_only_if_patients_and_pairs_connect_them(graph: tuple[pd.DataFrame, Pairs]) -> None:
    images, pairs = graph

    names = group_names(images, array(pairs)).tolist()
    numbers = components(len(images), np.concatenate([array(pairs), same_patient(images["patient"])])).tolist()

    for n, group in enumerate(connected(images, pairs)):
        assert {m for m in range(len(images)) if names[m] == names[n]} == group
        assert {m for m in range(len(images)) if numbers[m] == numbers[n]} == group
        known = {images["patient"][m] for m in group} - {""}
        assert names[n] == min(known or {images["image_id"][m] for m in group})


@given(graphs(), st.randoms(use_true_random=False))
def test_the_order_of_rows_and_pairs_changes_no_name(graph: tuple[pd.DataFrame, Pairs], random: object) -> None:
    images, pairs = graph
    order = list(range(len(images)))
    random.shuffle(order)  # type: ignore[attr-defined]
    turned = images.iloc[order]
    turned_pairs = [(order.index(b), order.index(a)) for a, b in reversed(pairs)]

    names = group_names(images, array(pairs))
    again = group_names(turned, array(turned_pairs))

    assert again.index.equals(turned.index)
    assert again.sort_index().equals(names)


def test_no_images_have_no_groups() -> None:
    assert group_names(pd.DataFrame({"image_id": [], "patient": []}, dtype=str), array([])).empty
    assert same_patient(pd.Series(["", "", ""])).shape == (0, 2)
