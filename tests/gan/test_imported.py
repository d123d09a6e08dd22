"""Which imported images are judged and which join a set: no copy of a held-out image, never more than there are."""

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr_tasks.config import SyntheticSettings
from cxr_tasks.gan.filtering import NEAR_COPY
from cxr_tasks.gan.imported import HELD_OUT_COPY, choose_set, drawn_rows, judged_rows, too_few_left

CLASSES = ["COVID", "Normal"]


def images(**numbers: int) -> pd.DataFrame:
    """Imported images, so many of each class."""
    named = [(f"{label}{n:060d}", label) for label, number in numbers.items() for n in range(number)]
    return pd.DataFrame(named, columns=["image_id", "label"])


def copies(table: pd.DataFrame, **splits: list[int]) -> pd.DataFrame:
    """Copies of images of each split: those at these positions of ``table``."""
    found = [(table["image_id"][at], split) for split, places in splits.items() for at in places]
    return pd.DataFrame(found, columns=["image_id", "split"])


def asked(*, near_copies: bool) -> SyntheticSettings:
    return SyntheticSettings(
        counts="balance", source="/images", min_class_probability=0, drop_near_copies=near_copies, png=False
    )


@given(
    st.fixed_dictionaries({"COVID": st.integers(0, 15), "Normal": st.integers(0, 15)}),
    st.fixed_dictionaries({"COVID": st.integers(0, 20), "Normal": st.integers(0, 20)}),
    st.data(),
)
@settings(max_examples=40, deadline=None)
def test_a_set_is_what_is_asked_for_as_far_as_there_are_images_that_copy_none(there, counts, data) -> None:
    table = images(**there)
    places = st.sets(st.integers(0, max(len(table) - 1, 0)), max_size=len(table))
    test = sorted(data.draw(places))
    train = sorted(set(data.draw(places)) - set(test))
    found, drop = copies(table, test=test, train=train), data.draw(st.booleans())

    chosen, told = choose_set(table, found, counts, asked(near_copies=drop), seed=0)

    barred = set(table["image_id"][[*test, *(train if drop else [])]])
    assert not barred & set(chosen["image_id"]) and chosen["image_id"].is_unique
    for label, number in counts.items():
        free = [each for each in table["image_id"][table["label"] == label] if each not in barred]
        assert (chosen["label"] == label).sum() == min(number, len(free)) == told.loc[label, "kept"]
    assert told["there"].to_dict() == there and told["asked"].to_dict() == counts
    assert told[HELD_OUT_COPY].sum() == len(test) and told[NEAR_COPY].sum() == (len(train) if drop else 0)


@given(st.integers(0, 5), st.integers(0, 10), st.permutations(range(12)))
@settings(max_examples=20, deadline=None)
def test_a_draw_depends_on_the_images_and_not_on_their_order(seed, number, order) -> None:
    table = images(COVID=12)

    one = drawn_rows(table, {"COVID": number}, seed, "set")

    pd.testing.assert_frame_equal(one, drawn_rows(table.iloc[order], {"COVID": number}, seed, "set"))
    # One image more joins a draw, or stays out of it, and moves no other.
    more = drawn_rows(table, {"COVID": number + 1}, seed, "set")
    assert more["image_id"].tolist()[:number] == one["image_id"].tolist()


def test_another_seed_draws_others() -> None:
    first, second = (drawn_rows(images(COVID=200), {"COVID": 20}, seed, "set")["image_id"] for seed in (0, 1))

    assert set(first) != set(second)


def test_what_is_judged_leaves_out_copies_of_held_out_images_and_classes_too_small() -> None:
    table = images(COVID=14, Normal=9)
    found = copies(table, test=[0, 1], train=[2])

    rows = judged_rows(table, found, number=13, seed=0)

    assert set(rows["label"]) == {"COVID"} and len(rows) == 12
    assert not set(table["image_id"][:2]) & set(rows["image_id"]) and table["image_id"][2] in set(rows["image_id"])


@pytest.mark.parametrize(("copied", "few"), [(0, False), (3, False), (4, True), (13, True)])
def test_a_class_is_named_of_which_too_few_are_left(copied: int, few: bool) -> None:
    table = images(COVID=13, Normal=5)

    told = too_few_left(table, copies(table, test=list(range(copied))), CLASSES)

    sentence = f"COVID: {copied} of 13 copy validation or test images; of the others at least 10 are needed."
    assert told == [sentence] * few
