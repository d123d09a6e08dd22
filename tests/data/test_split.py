"""Laws of the split: every image once, ties never cut, quotas kept, and nothing moves when data grow."""

from collections import Counter
from collections.abc import Iterable
from itertools import pairwise, permutations

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from cxr_tasks.config import SplitSettings
from cxr_tasks.data.ingest import SET_ASIDE, USED
from cxr_tasks.data.split import BETWEEN, SPLITS, assign_splits, count_splits, split_manifest

CLASSES = ("COVID", "Normal", "Viral Pneumonia")
STABLE = SplitSettings(method="stable", validation=0.1, test=0.1)
Ties = list[tuple[str, str]]

fractions = st.sampled_from([0.05, 0.1, 0.15, 0.25, 0.4])
stable = st.builds(lambda v, t: SplitSettings(method="stable", validation=v, test=t), fractions, fractions)
seeds = st.integers(0, 5)
# The sizes of the groups of each class.
sizes = st.dictionaries(st.sampled_from(CLASSES), st.lists(st.integers(1, 6), min_size=1, max_size=25), min_size=1)


def images_of(rows: Iterable[tuple[str, str, str]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["image_id", "label", "patient"], dtype=str)


def grouped(groups: dict[str, list[int]], prefix: str = "") -> pd.DataFrame:
    """Groups of images, as patients of one class each."""
    return images_of(
        (f"{prefix}{label}-{g}-{n}", label, f"{prefix}{label}-P{g}")
        for label, of_class in groups.items()
        for g, size in enumerate(of_class)
        for n in range(size)
    )


def pairs_of(ties: Ties) -> pd.DataFrame:
    return pd.DataFrame(ties, columns=["first", "second"], dtype=str)


def by_image(images: pd.DataFrame, column: pd.Series) -> dict[str, str]:
    return dict(zip(images["image_id"], column, strict=True))


def ties_of(images: pd.DataFrame, near: Ties) -> Ties:
    """Each image with each that it is tied to by a patient or a pair, both ways."""
    known = images.loc[images["patient"] != "", ["image_id", "patient"]]
    both = known.merge(known, on="patient")[["image_id_x", "image_id_y"]].itertuples(index=False, name=None)
    ids = set(images["image_id"])
    ties = {*both, *((a, b) for a, b in near if {a, b} <= ids)}
    return [(a, b) for a, b in ties | {(b, a) for a, b in ties} if a != b]


def check_ties(images: pd.DataFrame, near: Ties, given: pd.DataFrame) -> None:
    """No tie crosses splits, and what is tied and in a split is of one group."""
    splits, groups = by_image(images, given["split"]), by_image(images, given["group"])
    for a, b in ties_of(images, near):
        if splits[a] and splits[b]:
            assert splits[a] == splits[b]
            assert groups[a] == groups[b]
    dealt = given[given["split"] != ""]
    assert (dealt.groupby("group")["split"].nunique() == 1).all()


def pairs_among(images: pd.DataFrame) -> st.SearchStrategy[Ties]:
    every = list(permutations(images["image_id"], 2))
    return st.lists(st.sampled_from(every), max_size=8) if every else st.just([])


@st.composite
def tied_images(draw: st.DrawFn, prefix: str = "") -> tuple[pd.DataFrame, Ties]:
    """Patients known and unknown, with images of several classes, and near-duplicates across all of them."""
    patients = st.one_of(st.just(""), st.integers(0, 9).map(lambda p: f"P{p}"))
    rows = draw(st.lists(st.tuples(st.sampled_from(CLASSES), patients), min_size=1, max_size=25))
    images = images_of((f"{prefix}{n:02}", label, patient) for n, (label, patient) in enumerate(rows))
    near = draw(pairs_among(images))
    return images, near


@given(tied_images(), stable, seeds)
def test_every_image_gets_one_split_and_no_tie_is_cut(
    tied: tuple[pd.DataFrame, Ties], settings: SplitSettings, seed: int
) -> None:
    images, near = tied
    images.index += 100

    given = assign_splits(images, settings, seed, near=pairs_of(near))

    assert given.index.equals(images.index)
    assert given["split"].isin(SPLITS).all()
    assert (given["reason"] == "").all()
    check_ties(images, near, given)


@given(sizes, stable, seeds)
def test_quotas_are_kept_and_filled_as_far_as_groups_fit(
    groups: dict[str, list[int]], settings: SplitSettings, seed: int
) -> None:
    images = grouped(groups)
    counts = Counter(zip(assign_splits(images, settings, seed)["split"], images["label"], strict=True))

    for label, of_class in groups.items():
        for name, fraction in (("test", settings.test), ("validation", settings.validation)):
            quota = round(fraction * sum(of_class))
            assert quota - max(of_class) < counts[name, label] <= quota


@given(st.dictionaries(st.sampled_from(CLASSES), st.integers(1, 120), min_size=1), stable, seeds)
def test_images_of_unknown_patients_fill_their_quotas_exactly(
    totals: dict[str, int], settings: SplitSettings, seed: int
) -> None:
    images = grouped({label: [1] * count for label, count in totals.items()}).assign(patient="")
    counts = Counter(zip(assign_splits(images, settings, seed)["split"], images["label"], strict=True))

    for label, total in totals.items():
        test = round(settings.test * total)
        assert counts["test", label] == test
        assert counts["validation", label] == min(round(settings.validation * total), total - test)


@pytest.mark.parametrize("seed", range(5))
def test_a_group_of_several_classes_counts_for_the_one_that_most_of_it_has(seed: int) -> None:
    mixed = [(f"i{p}-{n}", label, f"P{p}") for p in range(10) for n, label in enumerate(["COVID", "COVID", "Normal"])]
    images = images_of([*mixed, *((f"single-{n}", "Normal", "") for n in range(20))])

    test = images[assign_splits(images, STABLE, seed)["split"] == "test"]

    # A tenth of 10 groups of three, and of 20 single images.
    assert test["patient"].nunique() - 1 == 1
    assert (test["patient"] == "").sum() == 2


@st.composite
def growths(draw: st.DrawFn) -> tuple[pd.DataFrame, Ties, pd.DataFrame, Ties]:
    """Images with their pairs, and the same with new images, new pairs, and patient numbers that arrived late."""
    (first, near), (more, more_near) = draw(tied_images("old-")), draw(tied_images("new-"))
    late = draw(st.lists(st.sampled_from(["", "", "P0", "P10"]), min_size=len(first), max_size=len(first)))
    told = first.assign(patient=first["patient"].where(first["patient"] != "", late))
    both = pd.concat([more, told], ignore_index=True)
    across = draw(pairs_among(both))
    return first, near, both, [*near, *more_near, *across]


@given(growths(), stable, seeds)
def test_growth_moves_nothing_and_leaves_out_only_what_would_tie_splits_together(
    growth: tuple[pd.DataFrame, Ties, pd.DataFrame, Ties], settings: SplitSettings, seed: int
) -> None:
    first, near, grown, grown_near = growth
    before = by_image(first, assign_splits(first, settings, seed, near=pairs_of(near))["split"])

    given = assign_splits(grown, settings, seed, before, pairs_of(grown_near))

    after = by_image(grown, given["split"])
    check_ties(grown, grown_near, given)
    assert all(after[image] in (split, "") for image, split in before.items())
    assert all(after[image] == "train" for image, split in before.items() if split == "train")
    assert set(given["reason"][given["split"] == ""]) <= {BETWEEN}
    assert set(given["reason"][given["split"] != ""]) <= {""}
    tied = ties_of(grown, grown_near)
    for image in grown["image_id"][given["split"] == ""]:
        around = {after[other] for one, other in tied if one == image} | {before.get(image, "")}
        assert len(around - {""}) > 1, f"{image} could have stayed"


@limits(max_examples=25)
@given(growths(), stable, seeds)
def test_what_was_left_out_stays_out_and_nothing_moves_when_nothing_changed(
    growth: tuple[pd.DataFrame, Ties, pd.DataFrame, Ties], settings: SplitSettings, seed: int
) -> None:
    first, near, grown, grown_near = growth
    ledger = by_image(first, assign_splits(first, settings, seed, near=pairs_of(near))["split"])
    given = assign_splits(grown, settings, seed, ledger, pairs_of(grown_near))
    ledger |= {image: split for image, split in by_image(grown, given["split"]).items() if split}

    again = assign_splits(grown, settings, seed, ledger, pairs_of(grown_near))

    pd.testing.assert_frame_equal(again, given)


@limits(max_examples=25)
@given(tied_images(), tied_images("new-"), stable, seeds)
def test_growth_that_is_tied_to_nothing_old_leaves_nothing_out(
    first: tuple[pd.DataFrame, Ties], more: tuple[pd.DataFrame, Ties], settings: SplitSettings, seed: int
) -> None:
    images, near = first
    before = by_image(images, assign_splits(images, settings, seed, near=pairs_of(near))["split"])
    new, new_near = more
    strangers = new.assign(patient=new["patient"].where(new["patient"] == "", "new-" + new["patient"]))

    grown = pd.concat([strangers, images], ignore_index=True)
    given = assign_splits(grown, settings, seed, before, pairs_of([*new_near, *near]))

    assert given["split"].isin(SPLITS).all()
    assert before.items() <= by_image(grown, given["split"]).items()


@limits(max_examples=25)
@given(growths(), stable, seeds, st.randoms(use_true_random=False))
def test_the_order_of_rows_and_pairs_changes_nothing(
    growth: tuple[pd.DataFrame, Ties, pd.DataFrame, Ties], settings: SplitSettings, seed: int, random: object
) -> None:
    first, near, grown, grown_near = growth
    before = by_image(first, assign_splits(first, settings, seed, near=pairs_of(near))["split"])
    order = list(grown.index)
    random.shuffle(order)  # type: ignore[attr-defined]
    turned_near = pairs_of([(b, a) for a, b in reversed(grown_near)])

    for kept in (None, before):
        given = assign_splits(grown, settings, seed, kept, pairs_of(grown_near))
        turned = assign_splits(grown.loc[order], settings, seed, kept, turned_near)

        assert turned.index.tolist() == order
        pd.testing.assert_frame_equal(turned.sort_index(), given)


@limits(max_examples=25)
@given(sizes, sizes, seeds)
def test_new_groups_do_not_overfill_a_quota(first: dict[str, list[int]], more: dict[str, list[int]], seed: int) -> None:
    start = grouped(first)
    kept = by_image(start, assign_splits(start, STABLE, seed)["split"])
    grown = pd.concat([start, grouped(more, "new-")], ignore_index=True)

    counts = Counter(zip(assign_splits(grown, STABLE, seed, kept)["split"], grown["label"], strict=True))

    for label, total in grown["label"].value_counts().items():
        assert counts["test", label] <= round(0.1 * total)
        assert counts["validation", label] <= round(0.1 * total)


def test_removed_images_leave_the_others_where_they_were() -> None:
    whole = grouped({"COVID": [1] * 100})
    before = by_image(whole, assign_splits(whole, STABLE, 0)["split"])
    rest = whole.iloc[::3]

    after = by_image(rest, assign_splits(rest, STABLE, 0, kept=before)["split"])

    assert after.items() <= before.items()


def test_a_relabelled_image_keeps_its_split() -> None:
    images = grouped({"COVID": [1] * 30, "Normal": [1] * 30})
    before = by_image(images, assign_splits(images, STABLE, 0)["split"])
    relabelled = images.assign(label=images["label"].map({"COVID": "Normal", "Normal": "COVID"}))

    assert by_image(relabelled, assign_splits(relabelled, STABLE, 0, before)["split"]) == before


def test_a_new_image_of_an_old_patient_joins_the_split_of_that_patient() -> None:
    images = images_of((f"i{n}", "COVID", f"P{n}") for n in range(3))
    kept = dict(zip(["i0", "i1", "i2"], SPLITS, strict=True))
    grown = pd.concat([images, images.assign(image_id=["n0", "n1", "n2"], label="Normal")], ignore_index=True)

    given = assign_splits(grown, STABLE, 0, kept)

    assert by_image(grown, given["split"]) == kept | dict(zip(["n0", "n1", "n2"], SPLITS, strict=True))


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0]])
@pytest.mark.parametrize("tie", ["pairs", "patients"])
def test_a_new_image_between_training_and_test_is_left_out_and_both_stay(order: list[int], tie: str) -> None:
    near: Ties = [("a", "new"), ("new", "b")] if tie == "pairs" else [("new", "b")]
    patients = ["", "", ""] if tie == "pairs" else ["P1", "", "P1"]
    images = images_of(zip(["a", "b", "new"], ["COVID"] * 3, patients, strict=True)).loc[order]

    given = assign_splits(images, STABLE, 0, {"a": "train", "b": "test"}, pairs_of(near))

    assert by_image(images, given["split"]) == {"a": "train", "b": "test", "new": ""}
    assert by_image(images, given["reason"]) == {"a": "", "b": "", "new": BETWEEN}
    assert given["group"].nunique() == 3


@limits(max_examples=25)
@given(st.permutations(["n1", "n2", "n3", "n4", "n5"]), st.permutations(range(7)))
def test_of_a_chain_of_new_images_between_training_and_test_one_is_left_out(chain: list[str], order: list[int]) -> None:
    names = ["a", *chain, "b"]
    images = images_of((name, "COVID", "") for name in names)
    near: Ties = list(pairwise(names))
    kept = {"a": "train", "b": "test"}

    given = assign_splits(images, STABLE, 0, kept, pairs_of(near))

    check_ties(images, near, given)
    assert (given["split"] == "").sum() == 1
    assert kept.items() <= by_image(images, given["split"]).items()
    turned = assign_splits(images.loc[order], STABLE, 0, kept, pairs_of(near))
    pd.testing.assert_frame_equal(turned.sort_index(), given)


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 2, 1, 0]])
def test_held_out_images_of_a_patient_who_turns_out_to_train_are_left_out(order: list[int]) -> None:
    # Patient numbers arrived later: what some model has trained on may not test another one.
    images = images_of((name, "COVID", "P1") for name in ("a", "b", "c", "new")).loc[order]

    given = assign_splits(images, STABLE, 0, kept={"a": "test", "b": "train", "c": "validation"})

    assert by_image(images, given["split"]) == {"a": "", "b": "train", "c": "", "new": "train"}
    assert by_image(images, given["reason"]) == {"a": BETWEEN, "b": "", "c": BETWEEN, "new": ""}


def test_pairs_of_images_that_are_not_there_tie_nothing() -> None:
    images = images_of([("a", "COVID", ""), ("b", "COVID", "")])
    near = pairs_of([("a", "gone"), ("gone", "b")])

    assert assign_splits(images, STABLE, 0, {"a": "train", "b": "test", "gone": "train"}, near)["split"].tolist() == [
        "train",
        "test",
    ]


def test_seeds_give_different_splits() -> None:
    images = grouped({"COVID": [1] * 60})

    assert not assign_splits(images, STABLE, 0)["split"].equals(assign_splits(images, STABLE, 1)["split"])


def test_method_paper_gives_the_numbers_of_the_report_and_asks_for_no_patients() -> None:
    settings = SplitSettings(method="paper", validation=0.1, test=0.1)
    counts = {"COVID": 3616, "Normal": 10192, "Viral Pneumonia": 1345}
    images = images_of((f"{label}-{n}", label, f"P{n // 2}") for label, count in counts.items() for n in range(count))

    given = assign_splits(images, settings, 0, kept=dict.fromkeys(images["image_id"], "test"))

    assert given["split"].value_counts().to_dict() == {"train": 12122, "validation": 1515, "test": 1516}
    assert (given["reason"] == "").all()
    assert given.equals(assign_splits(images, settings, 0))
    assert not given["split"].equals(assign_splits(images, settings, 1)["split"])


def test_a_manifest_gets_the_splits_of_its_used_images_and_says_what_was_left_out() -> None:
    images = images_of([("a", "COVID", "P1"), ("b", "COVID", "P1"), ("c", "Normal", ""), ("d", "Normal", "")])
    manifest = images.assign(split="", group="", status=[USED, USED, USED, SET_ASIDE], reason=["", "", "", "damaged"])

    split = split_manifest(manifest, STABLE, 0, {"a": "train", "b": "test"})

    assert split["split"].tolist() == ["train", "", "train", ""]
    assert split["status"].tolist() == [USED, SET_ASIDE, USED, SET_ASIDE]
    assert split["reason"].tolist() == ["", BETWEEN, "", "damaged"]
    assert split["group"].tolist() == ["P1", "b", "c", ""]
    assert (manifest["split"] == "").all(), "the manifest itself was changed"
    assert count_splits(split, ["Normal", "COVID", "Viral Pneumonia"]) == {
        "train": {"Normal": 1, "COVID": 1, "Viral Pneumonia": 0},
        "validation": {"Normal": 0, "COVID": 0, "Viral Pneumonia": 0},
        "test": {"Normal": 0, "COVID": 0, "Viral Pneumonia": 0},
    }
