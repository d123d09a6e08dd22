"""What joins an arm's training images: the synthetic set, or the controls, in the same numbers."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr_tasks.arms import ARMS
from cxr_tasks.config import resolve
from cxr_tasks.data.dataset import Images
from cxr_tasks.errors import SettingsError
from cxr_tasks.training.extra import chosen_again, extra_images
from cxr_tasks.training.leak import dealt

CLASSES = ["COVID", "Normal", "Viral Pneumonia"]


def images(counts, size=64) -> Images:
    labels = np.repeat(np.arange(3), counts)
    ids = np.array([f"{i:064x}" for i in range(len(labels))])
    pixels = np.random.default_rng(0).integers(0, 256, (len(labels), size, size)).astype("uint8")
    table = {"image_id": ids, "label": [CLASSES[k] for k in labels], "provenance": "real", "split": "train"}
    return Images(pixels, labels, ids, pd.DataFrame(table))


def dataset(counts) -> dict:
    return {"ref": "split/a", "summary": {"counts": {"train": dict(zip(CLASSES, counts, strict=True))}}}


@given(st.lists(st.integers(1, 6), min_size=3, max_size=3), st.lists(st.integers(0, 20), min_size=3, max_size=3))
def test_each_image_is_shown_again_equally_often_give_or_take_one(real, wanted):
    train = images(real, size=1)

    positions = chosen_again(train, dict(zip(CLASSES, wanted, strict=True)), seed=3)

    assert np.bincount(train.labels[positions], minlength=3).tolist() == wanted
    often = np.bincount(positions, minlength=len(train))
    for k in range(3):
        assert np.ptp(often[train.labels == k]) <= 1


def test_oversampling_and_balance_lift_every_class_to_the_largest():
    settings = resolve("quick", {"synthetic": {"counts": "balance"}, "classifiers": {"image_size": 64}})
    train = images([3, 8, 2])

    extra = extra_images(ARMS["oversample"], settings, dataset([3, 8, 2]), None, train)

    assert np.bincount(extra.images.labels, minlength=3).tolist() == [5, 0, 6]
    np.testing.assert_array_equal(train.pixels[extra.positions], extra.images.pixels)


def test_resized_images_are_the_same_ones_at_the_gans_resolution():
    settings = resolve(
        "quick", {"gan": {"image_size": 32}, "synthetic": {"counts": {"COVID": 4, "Viral Pneumonia": 0}}}
    )
    train = images([3, 8, 2])

    again, resized = (
        extra_images(ARMS[arm], settings, dataset([3, 8, 2]), None, train) for arm in ("oversample", "real_resized")
    )

    assert resized.images.ids.tolist() == again.images.ids.tolist() and resized.images.pixels.shape == (4, 64, 64)
    np.testing.assert_array_equal(resized.images.pixels, again.images.resized(32).resized(64).pixels)
    assert not np.array_equal(resized.images.pixels, again.images.pixels)


@pytest.mark.parametrize("change", [{"seed": 1}, {"gan": {"image_size": 48}}, {"synthetic": {"counts": {"COVID": 5}}}])
def test_other_resized_images_have_another_name(change):
    base = {"gan": {"image_size": 32}, "synthetic": {"counts": {"COVID": 4, "Viral Pneumonia": 0}}}
    train, names = images([3, 8, 2]), []
    for overrides in (base, {**base, **change}):
        extra = extra_images(ARMS["real_resized"], resolve("quick", overrides), dataset([3, 8, 2]), None, train)
        names.append(extra.content)

    assert names[0] != names[1]


def test_a_control_that_would_add_nothing_is_refused():
    settings = resolve("quick", {"synthetic": {"counts": "balance"}})

    with pytest.raises(SettingsError, match="'oversample' would add nothing"):
        extra_images(ARMS["oversample"], settings, dataset([4, 4, 4]), None, images([4, 4, 4]))


def test_an_arm_that_adds_nothing_has_nothing_extra():
    assert extra_images(ARMS["classical"], resolve("quick"), dataset([1, 1, 1]), None, images([1, 1, 1])) is None


@given(st.integers(20, 300), st.integers(0, 5))
def test_the_leaking_split_deals_every_image_to_one_split(count, seed):
    rows = dealt(count, 0.1, 0.1, seed)

    assert sorted(np.concatenate(list(rows.values()))) == list(range(count))
    assert abs(len(rows["test"]) - 0.1 * count) <= 1 and abs(len(rows["validation"]) - 0.1 * count) <= 1
