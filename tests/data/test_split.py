"""Laws of the split: every image once, groups whole, quotas kept, and nothing moves when data grow."""

from collections import Counter

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr_tasks.config import SplitSettings
from cxr_tasks.data.split import SPLITS, assign

CLASSES = ("COVID", "Normal", "Viral Pneumonia")
STABLE = SplitSettings(method="stable", validation=0.1, test=0.1)

fractions = st.sampled_from([0.05, 0.1, 0.15, 0.25, 0.4])
stable = st.builds(lambda v, t: SplitSettings(method="stable", validation=v, test=t), fractions, fractions)
seeds = st.integers(0, 5)
# The sizes of the groups of each class.
sizes = st.dictionaries(st.sampled_from(CLASSES), st.lists(st.integers(1, 6), min_size=1, max_size=25), min_size=1)


def manifest_of(groups: dict[str, list[int]]) -> pd.DataFrame:
    rows = [
        (f"{label}-{g}-{n}", label, f"{label}-P{g}")
        for label, of_class in groups.items()
        for g, size in enumerate(of_class)
        for n in range(size)
    ]
    return pd.DataFrame(rows, columns=["image_id", "label", "group"])


def by_image(manifest: pd.DataFrame, splits: pd.Series) -> dict[str, str]:
    return dict(zip(manifest["image_id"], splits, strict=True))


@st.composite
def mixed_manifests(draw: st.DrawFn) -> pd.DataFrame:
    """Groups may hold images of several classes, as a patient does who was X-rayed well and ill."""
    rows = draw(st.lists(st.tuples(st.sampled_from(CLASSES), st.integers(0, 12)), min_size=1, max_size=60))
    return pd.DataFrame([(f"i{n}", label, f"P{g}") for n, (label, g) in enumerate(rows)]).set_axis(
        ["image_id", "label", "group"], axis=1
    )


@given(mixed_manifests(), stable, seeds)
def test_every_image_gets_one_split_and_groups_stay_whole(
    manifest: pd.DataFrame, settings: SplitSettings, seed: int
) -> None:
    splits = assign(manifest, settings, seed)

    assert splits.index.equals(manifest.index)
    assert splits.isin(SPLITS).all()
    assert (splits.groupby(manifest["group"]).nunique() == 1).all()


@given(sizes, stable, seeds)
def test_quotas_are_kept_and_filled_as_far_as_groups_fit(
    groups: dict[str, list[int]], settings: SplitSettings, seed: int
) -> None:
    manifest = manifest_of(groups)
    counts = Counter(zip(assign(manifest, settings, seed), manifest["label"], strict=True))

    for label, of_class in groups.items():
        for name, fraction in (("test", settings.test), ("validation", settings.validation)):
            quota = round(fraction * sum(of_class))
            assert quota - max(of_class) < counts[name, label] <= quota


@given(st.dictionaries(st.sampled_from(CLASSES), st.integers(1, 120), min_size=1), stable, seeds)
def test_single_images_fill_their_quotas_exactly(images: dict[str, int], settings: SplitSettings, seed: int) -> None:
    manifest = manifest_of({label: [1] * count for label, count in images.items()})
    counts = Counter(zip(assign(manifest, settings, seed), manifest["label"], strict=True))

    for label, total in images.items():
        test = round(settings.test * total)
        assert counts["test", label] == test
        assert counts["validation", label] == min(round(settings.validation * total), total - test)


@given(mixed_manifests(), stable, seeds, st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_nothing(
    manifest: pd.DataFrame, settings: SplitSettings, seed: int, random: object
) -> None:
    order = list(manifest.index)
    random.shuffle(order)  # type: ignore[attr-defined]
    turned = manifest.loc[order]

    assert by_image(turned, assign(turned, settings, seed)) == by_image(manifest, assign(manifest, settings, seed))


@given(mixed_manifests(), mixed_manifests(), stable, seeds)
def test_kept_images_never_move_when_data_grow(
    first: pd.DataFrame, more: pd.DataFrame, settings: SplitSettings, seed: int
) -> None:
    before = by_image(first, assign(first, settings, seed))
    grown = pd.concat([more.assign(image_id="new-" + more["image_id"]), first], ignore_index=True)

    splits = assign(grown, settings, seed, kept=before)
    after = by_image(grown, splits)

    assert before.items() <= after.items()
    assert (splits.groupby(grown["group"]).nunique() == 1).all()


@given(sizes, sizes, seeds)
def test_new_groups_do_not_overfill_a_quota(first: dict[str, list[int]], more: dict[str, list[int]], seed: int) -> None:
    start = manifest_of(first)
    kept = by_image(start, assign(start, STABLE, seed))
    new = manifest_of(more).assign(image_id=lambda t: "new-" + t["image_id"], group=lambda t: "new-" + t["group"])
    grown = pd.concat([start, new], ignore_index=True)

    counts = Counter(zip(assign(grown, STABLE, seed, kept), grown["label"], strict=True))

    for label, total in grown["label"].value_counts().items():
        assert counts["test", label] <= round(0.1 * total)
        assert counts["validation", label] <= round(0.1 * total)


def test_removed_images_leave_the_others_where_they_were() -> None:
    whole = manifest_of({"COVID": [1] * 100})
    before = by_image(whole, assign(whole, STABLE, 0))
    rest = whole.iloc[::3]

    after = by_image(rest, assign(rest, STABLE, 0, kept=before))

    assert after.items() <= before.items()


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0]])
def test_group_that_was_divided_before_trains(order: list[int]) -> None:
    # Patient numbers arrived later: what some model has trained on may not test another one.
    manifest = pd.DataFrame(
        {"image_id": ["a", "b", "c"], "label": "COVID", "group": ["P1", "P1", "P1"]}, index=[0, 1, 2]
    ).loc[order]

    splits = assign(manifest, STABLE, 0, kept={"a": "test", "b": "train", "c": "validation"})

    assert set(splits) == {"train"}


def test_seeds_give_different_splits() -> None:
    manifest = manifest_of({"COVID": [1] * 60})

    assert not assign(manifest, STABLE, 0).equals(assign(manifest, STABLE, 1))


def test_method_paper_gives_the_numbers_of_the_report() -> None:
    settings = SplitSettings(method="paper", validation=0.1, test=0.1)
    manifest = manifest_of({"COVID": [1] * 3616, "Normal": [1] * 10192, "Viral Pneumonia": [1] * 1345})

    splits = assign(manifest, settings, 0)

    assert splits.value_counts().to_dict() == {"train": 12122, "validation": 1515, "test": 1516}
    assert splits.equals(assign(manifest, settings, 0))
    assert not splits.equals(assign(manifest, settings, 1))
