"""Laws of dropping: what is unlike its class or a near-copy goes and nothing else, and every image is counted."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from cxr_tasks.config import SyntheticSettings, resolve
from cxr_tasks.data import duplicates
from cxr_tasks.data.decode import decode
from cxr_tasks.gan.filtering import NEAR_COPY, UNLIKELY, copies, fingerprints, keep, repeated
from tests.data.bad_files import encoded

NEAR = resolve("quick").data.near_duplicates
CLASSES = ["COVID", "Normal", "Viral Pneumonia"]


def pictures(seed: int, count: int, side: int = 64) -> np.ndarray:
    """(count, side, side) uint8 of unrelated smooth pictures."""
    fields = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(count, side, side)), (0, 3, 3))
    return np.clip(128 + 40 * fields / fields.std(), 0, 255).astype(np.uint8)


def asked(least: float = 0.0, near_copies: bool = True) -> SyntheticSettings:
    return SyntheticSettings(counts="balance", min_class_probability=least, drop_near_copies=near_copies, png=False)


def test_near_copies_of_training_images_go_and_their_kin_stay() -> None:
    training, fresh = pictures(0, 30), pictures(1, 10)
    noisy = np.clip(training[:6] + np.random.default_rng(2).normal(0, 2, (6, 64, 64)), 0, 255).astype(np.uint8)
    # Synthetic images that repeat each other are no copies of training images.
    made = np.concatenate([fresh, noisy, fresh])
    labels = np.arange(26) % 3

    kept = keep(made, labels, None, training, CLASSES, asked(), NEAR)

    assert np.flatnonzero(~kept.mask).tolist() == [10, 11, 12, 13, 14, 15]
    assert set(kept.reasons[10:16]) == {NEAR_COPY}
    assert kept.counts[NEAR_COPY].tolist() == [2, 2, 2]


def test_copies_are_found_at_another_size_and_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "IMAGES_AT_ONCE", 4)
    training = pictures(0, 12, side=96)
    smaller = np.stack([np.asarray(Image.fromarray(one).resize((64, 64))) for one in training[[3, 11, 0]]])
    made = np.concatenate([pictures(5, 5), smaller, pictures(6, 3)])

    assert np.flatnonzero(copies(made, training, NEAR)).tolist() == [5, 6, 7]


def test_a_training_image_that_comes_mirrored_inverted_or_moved_is_a_copy() -> None:
    training = pictures(0, 12)
    # However often the generator makes the same picture, the training image is still found.
    moved = np.repeat(training[5:6, 2:-2, 4:], 9, axis=0)

    assert copies(np.stack([training[3, :, ::-1], 255 - training[4]]), training, NEAR).all()
    assert copies(moved, training, NEAR).all()
    assert not copies(pictures(7, 12)[:, :, ::-1], training, NEAR).any()


@given(
    st.lists(st.tuples(st.integers(0, 2), st.floats(0, 1)), max_size=20),
    st.floats(0, 1),
    st.booleans(),
)
@settings(max_examples=30)
def test_an_image_stays_if_its_own_class_is_likely_enough(
    made: list[tuple[int, float]], least: float, near_copies: bool
) -> None:
    labels = np.array([label for label, _ in made], np.int64)
    own = np.array([probability for _, probability in made])
    probabilities = np.repeat(((1 - own) / 2)[:, None], 3, axis=1)
    probabilities[np.arange(len(made)), labels] = own

    kept = keep(
        pictures(3, len(made)) if made else np.empty((0, 64, 64), np.uint8),
        labels,
        probabilities,
        np.empty((0, 64, 64), np.uint8),
        CLASSES,
        asked(least, near_copies),
        NEAR,
    )

    assert kept.mask.tolist() == [bool(probability >= least) for _, probability in made]
    assert kept.mask.tolist() == [reason == "" for reason in kept.reasons]
    assert kept.counts["made"].tolist() == [labels.tolist().count(k) for k in range(3)]
    assert (kept.counts["made"] == kept.counts[[UNLIKELY, NEAR_COPY, "kept"]].sum(axis=1)).all()


def test_a_fault_of_both_kinds_is_counted_once() -> None:
    training = pictures(0, 4)

    kept = keep(training, np.zeros(4, int), np.full((4, 3), 1 / 3), training, CLASSES, asked(0.5), NEAR)

    assert kept.counts.loc["COVID"].to_dict() == {"made": 4, UNLIKELY: 4, NEAR_COPY: 0, "kept": 0}


def test_nothing_is_dropped_where_nothing_is_asked() -> None:
    training = pictures(0, 4)

    assert keep(training, np.zeros(4, int), None, training, CLASSES, asked(near_copies=False), NEAR).mask.all()


def test_a_probability_that_is_no_number_drops_the_image() -> None:
    kept = keep(pictures(0, 1), np.zeros(1, int), np.full((1, 3), np.nan), pictures(1, 1), CLASSES, asked(0.1), NEAR)

    assert kept.reasons.tolist() == [UNLIKELY]


@pytest.mark.parametrize("probabilities", [None, np.ones((2, 2)), np.ones((1, 3))])
def test_probabilities_must_be_there_for_every_image_and_class(probabilities: np.ndarray | None) -> None:
    with pytest.raises(ValueError, match="probabilities of 3 classes are needed for 2 images"):
        keep(pictures(0, 2), np.zeros(2, int), probabilities, pictures(1, 1), CLASSES, asked(0.5), NEAR)


def test_repeated_images_are_those_with_a_twin_in_their_class() -> None:
    fresh = pictures(0, 6)
    brighter = np.clip(fresh[:2].astype(int) + 6, 0, 255).astype(np.uint8)
    made = np.concatenate([fresh, brighter, fresh[2:4]])
    # The twins of 2 and 3 are of another class.
    labels = np.array([0, 0, 0, 0, 0, 0, 0, 0, 1, 1])

    assert np.flatnonzero(repeated(made, labels, NEAR)).tolist() == [0, 1, 6, 7]


def test_blank_images_repeat_each_other_where_they_are_equal() -> None:
    blank = np.stack([np.full((64, 64), gray, np.uint8) for gray in (9, 9, 200)])

    assert repeated(blank, np.zeros(3, int), NEAR).tolist() == [True, True, False]


def test_no_images_are_taken() -> None:
    nothing, labels = np.empty((0, 64, 64), np.uint8), np.empty(0, np.int64)

    assert repeated(nothing, labels, NEAR).shape == (0,)
    assert copies(nothing, pictures(0, 2), NEAR).shape == (0,)
    assert keep(nothing, labels, None, pictures(0, 2), CLASSES, asked(), NEAR).counts["made"].tolist() == [0, 0, 0]


def test_fingerprints_are_those_of_the_data_stage() -> None:
    image = pictures(0, 1)

    hashes, thumbnails = fingerprints(image)

    decoded = decode(encoded(Image.fromarray(image[0])), "a.png", ())
    assert int(hashes[0]) == decoded.dhash
    assert (thumbnails[0] == decoded.thumbnail).all()
