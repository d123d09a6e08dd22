"""What joins an arm's training images: the synthetic set, or the controls, in the same numbers."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr_tasks.arms import ARMS
from cxr_tasks.classifiers.leak import leaking_split
from cxr_tasks.classifiers.training_set import ExtraImages, chosen_again, extra_images, planned_counts
from cxr_tasks.config import resolve
from cxr_tasks.data.dataset import Images
from cxr_tasks.errors import SettingsError

CLASSES = ["COVID", "Normal", "Viral Pneumonia"]


def images(counts, size=64) -> Images:
    labels = np.repeat(np.arange(3), counts)
    ids = np.array([f"{i:064x}" for i in range(len(labels))])
    pixels = np.random.default_rng(0).integers(0, 256, (len(labels), size, size)).astype("uint8")
    table = {"image_id": ids, "label": [CLASSES[k] for k in labels], "provenance": "real", "split": "train"}
    return Images(pixels, labels, ids, pd.DataFrame(table))


def extra_of(arm, settings, train, synthetic=None):
    return extra_images(ARMS[arm], settings, train, {"dataset": "split/a"}, synthetic)


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

    extra = extra_of("oversample", settings, train)

    assert np.bincount(extra.images.labels, minlength=3).tolist() == [5, 0, 6]
    np.testing.assert_array_equal(train.pixels[extra.positions], extra.images.pixels)


def test_resized_images_are_the_same_ones_at_the_gans_resolution():
    settings = resolve(
        "quick", {"gan": {"image_size": 32}, "synthetic": {"counts": {"COVID": 4, "Viral Pneumonia": 0}}}
    )
    train = images([3, 8, 2])

    again, resized = (extra_of(arm, settings, train) for arm in ("oversample", "real_resized"))

    assert resized.images.ids.tolist() == again.images.ids.tolist() and resized.images.pixels.shape == (4, 64, 64)
    np.testing.assert_array_equal(
        resized.images.pixels, again.images.resized(32, "bilinear").resized(64, "bilinear").pixels
    )
    assert not np.array_equal(resized.images.pixels, again.images.pixels)


@pytest.mark.parametrize(
    "change", [{"seeds": {"synthetic": 1}}, {"gan": {"image_size": 48}}, {"synthetic": {"counts": {"COVID": 5}}}]
)
def test_other_resized_images_have_another_name(change):
    base = {"gan": {"image_size": 32}, "synthetic": {"counts": {"COVID": 4, "Viral Pneumonia": 0}}}
    train, names = images([3, 8, 2]), []
    for overrides in (base, {**base, **change}):
        names.append(extra_of("real_resized", resolve("quick", overrides), train).content)

    assert names[0] != names[1]


def test_a_control_that_would_add_nothing_is_refused():
    settings = resolve("quick", {"synthetic": {"counts": "balance"}})

    with pytest.raises(SettingsError, match="'oversample' would add nothing"):
        extra_of("oversample", settings, images([4, 4, 4]))


@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_adds_what_it_says_and_nothing_of_an_arm_changes_the_real_images(arm):
    asked = {"gan": {"image_size": 32}, "synthetic": {"counts": {"COVID": 4, "Viral Pneumonia": 2}}}
    settings = resolve("quick", asked)
    train, made = images([3, 8, 2]), ExtraImages(images([4, 0, 2]), {"synthetic": "synthesize/a"})
    before = train.pixels.copy()

    extra = extra_of(arm, settings, train, made)

    np.testing.assert_array_equal(train.pixels, before)
    if ARMS[arm].extra is None:
        assert extra is None
        return
    assert np.bincount(extra.images.labels, minlength=3).tolist() == [4, 0, 2]
    assert extra.images.pixels.shape == (6, 64, 64)
    assert (extra is made) == (ARMS[arm].extra == "synthetic")
    assert (extra.positions is not None) == (ARMS[arm].extra == "oversample")


@pytest.mark.parametrize("arm", ["synthetic", "both"])
def test_an_arm_that_trains_on_synthetic_images_needs_some(arm):
    with pytest.raises(SettingsError, match="was given none: generate them first"):
        extra_of(arm, resolve("quick"), images([3, 8, 2]))


def test_an_arm_that_adds_nothing_has_nothing_extra():
    assert extra_of("classical", resolve("quick"), images([1, 1, 1])) is None


@given(st.integers(20, 300), st.integers(0, 5))
def test_the_leaking_split_deals_every_image_to_one_split(count, seed):
    rows = leaking_split(count, 0.1, 0.1, seed)

    assert sorted(np.concatenate(list(rows.values()))) == list(range(count))
    assert abs(len(rows["test"]) - 0.1 * count) <= 1 and abs(len(rows["validation"]) - 0.1 * count) <= 1


def test_another_seed_deals_the_leaking_split_otherwise():
    one, again, other = (leaking_split(100, 0.1, 0.1, seed)["test"].tolist() for seed in (0, 0, 1))

    assert one == again != other


def test_planned_counts_are_in_the_order_of_the_classes():
    train = images([3, 0, 2])

    fixed = planned_counts(resolve("quick", {"synthetic": {"counts": {"Viral Pneumonia": 2, "COVID": 4}}}), train)
    balance = planned_counts(resolve("quick", {"synthetic": {"counts": "balance"}}), train)

    assert list(fixed.items()) == [("COVID", 4), ("Normal", 0), ("Viral Pneumonia", 2)]
    assert balance == {"COVID": 0, "Normal": 3, "Viral Pneumonia": 1}
