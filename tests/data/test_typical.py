"""What counts as usual: limits that keep their promise, and a distance that knows an X-ray from other pictures."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr_tasks.data.decode import decode
from cxr_tasks.data.typical import TypicalImages, both_limits, gradients, upper_limit

SHARES = st.floats(0.01, 0.4)


@given(st.integers(0, 1000), st.integers(5, 200), SHARES)
def test_a_further_value_exceeds_the_limit_as_seldom_as_promised(seed: int, number: int, share: float) -> None:
    """Of n + 1 values in any order each is the further one once: those beyond the limit of the others are few."""
    values = np.random.default_rng(seed).normal(size=number + 1)

    beyond = [values[i] > upper_limit(np.delete(values, i), share) for i in range(number + 1)]

    assert np.mean(beyond) <= max(share, 1 / (number + 1)) + 1e-9


def test_both_limits_hold_all_but_the_share() -> None:
    values = np.arange(1000.0)

    low, high = both_limits(values, 0.1)

    assert ((values < low) | (values > high)).mean() == pytest.approx(0.1, abs=0.005)


@pytest.fixture(scope="module")
def thumbnails(xrays: list[Path]) -> np.ndarray:
    return np.stack([decode(path.read_bytes(), path.name, []).thumbnail for path in xrays])


def test_other_pictures_are_further_away_than_xrays(thumbnails: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    typical = TypicalImages.of(thumbnails[::2])
    limit = upper_limit(typical.distances(thumbnails[1::2]), 0.02)

    for others in (np.rot90(thumbnails, axes=(1, 2)), 255 - thumbnails, rng.integers(0, 256, (40, 32, 32), np.uint8)):
        assert (typical.distances(others) > limit).mean() > 0.9


def test_brightness_and_contrast_do_not_move_an_image(thumbnails: np.ndarray) -> None:
    darker = (thumbnails * 0.6 + 20).astype(np.uint8)

    np.testing.assert_allclose(gradients(darker), gradients(thumbnails), atol=0.35)


def test_it_is_kept_as_it_is(thumbnails: np.ndarray, tmp_path: Path) -> None:
    typical = TypicalImages.of(thumbnails)
    typical.save(tmp_path / "typical.npy")

    np.testing.assert_array_equal(
        TypicalImages.load(tmp_path / "typical.npy").distances(thumbnails), typical.distances(thumbnails)
    )


def test_a_few_images_make_no_flat_that_holds_all_of_them(thumbnails: np.ndarray) -> None:
    few = thumbnails[:6]

    assert (TypicalImages.of(few).distances(few) > 0.5).any()
