"""What is seen of a GAN: its animation, how varied its images are, and a warning when they are not."""

import io

import numpy as np
import pytest
from PIL import Image

from cxr_tasks.gan.watch import (
    GRID_PER_CLASS,
    MOST_GRIDS,
    animation,
    diversity,
    real_spreads,
    spread,
    thin_out,
)
from tests.gan.gan_helpers import noise


def grid(value=None):
    rng = np.random.default_rng(1)
    return (rng.integers(0, 256, (18, 32, 32)) if value is None else np.full((18, 32, 32), value)).astype("uint8")


def test_the_spread_is_the_mean_root_mean_square_distance_of_pairs():
    images = np.stack([np.full((4, 4), value, np.uint8) for value in (0, 10, 40)])

    assert spread(images) == pytest.approx((10 + 30 + 40) / 3, rel=1e-4)
    assert np.isnan(spread(images[:1]))


def test_varied_images_have_a_diversity_of_one_and_equal_ones_of_nothing():
    real = real_spreads(*noise(60), 3, seed=0)
    collapsed = grid()
    collapsed[GRID_PER_CLASS : 2 * GRID_PER_CLASS] = collapsed[GRID_PER_CLASS]

    np.testing.assert_allclose(diversity(grid(), real), 1, atol=0.05)
    np.testing.assert_allclose(diversity(collapsed, real), [1, 0, 1], atol=0.05)


def test_a_class_without_two_real_images_has_no_diversity():
    pixels, _ = noise(4)

    real = real_spreads(pixels, np.array([0, 0, 0, 1]), 3, seed=0)

    assert np.isfinite(diversity(grid(), real)).tolist() == [True, False, False]


def test_the_animation_shows_the_grids_in_the_order_of_their_steps():
    picture = Image.open(io.BytesIO(animation({5: grid(200), 1: grid(50)})))

    assert picture.n_frames == 2
    levels = []
    for frame in range(2):
        picture.seek(frame)
        levels.append(np.asarray(picture.convert("L"))[20:].mean())
    assert levels == pytest.approx([50, 200], abs=3)
    assert picture.size[0] == 6 * 32


def test_a_long_animation_has_forty_frames():
    assert Image.open(io.BytesIO(animation({step: grid() for step in range(0, 900, 10)}))).n_frames == 40


def test_grids_that_were_asked_for_and_the_newest_are_kept():
    grids = {step: grid(0) for step in range(1, MOST_GRIDS + 4)}
    newest = max(grids)

    thin_out(grids, asked=(2, 5))

    assert {2, 5, newest} <= set(grids) and len(grids) < MOST_GRIDS * 0.6
