"""Where a class and a subgroup coincide: found in both directions, and not where chance or frequency explain it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr_tasks.config import SubgroupSettings, resolve
from cxr_tasks.data.coincidences import association_of, coincidences, coincidences_told
from cxr_tasks.data.subgroups import members, subgroups_of

CLASSES = ["COVID", "Normal", "Viral Pneumonia"]
SETTINGS = resolve("quick").evaluation.subgroups


def manifest(counts: dict[tuple[str, object], int], attribute: str = "site") -> pd.DataFrame:
    """Images by class and by what is said of them, each of one patient."""
    named = [(label, said) for (label, said), number in counts.items() for _ in range(number)]
    rows = pd.DataFrame(named, columns=["label", attribute])
    ids = [f"{n:05}" for n in range(len(rows))]
    return rows.assign(image_id=ids, group=ids, status="used")


def told(counts: dict[tuple[str, object], int], attribute: str = "site") -> list[str]:
    return coincidences_told(coincidences(manifest(counts, attribute), CLASSES, SETTINGS))


class TestSubgroups:
    def test_ages_are_divided_by_full_years_and_unknown_ones_are_missing(self) -> None:
        rows = pd.DataFrame(
            {"age": [0.5, 17.9, 18, 39.9, 40, 80, 119, np.nan], "sex": ["F", "M", "", "F", "O", *"MMM"]}
        )

        found = subgroups_of(rows, SETTINGS)

        bands = ["under 18", "under 18", "18 to 39", "18 to 39", "40 to 59", "80 and over", "80 and over"]
        assert found["age"].tolist()[:-1] == bands and found["age"].isna().tolist() == [False] * 7 + [True]
        assert list(found["age"].cat.categories) == ["under 18", "18 to 39", "40 to 59", "80 and over"]
        assert found["sex"].isna().sum() == 1 and list(found) == ["age", "sex"]

    def test_one_bound_makes_two_bands(self) -> None:
        settings = SETTINGS.model_copy(update={"age_bands": (18,)})

        found = subgroups_of(pd.DataFrame({"age": [3.0, 18.0]}), settings)

        assert found["age"].tolist() == ["under 18", "18 and over"]

    def test_what_is_not_in_the_table_or_not_known_or_not_asked_for_is_left_out(self) -> None:
        rows = pd.DataFrame({"sex": ["F", "M"], "view": ["", ""], "source": ["a", None]})

        assert list(subgroups_of(rows, SETTINGS)) == ["sex", "source"]
        assert list(subgroups_of(rows, SETTINGS.model_copy(update={"attributes": ()}))) == []

    def test_subgroups_of_few_patients_are_not_named(self) -> None:
        rows = manifest({("COVID", "A"): 30, ("COVID", "B"): 9}).assign(group=lambda all: all["image_id"])
        rows.loc[:19, "group"] = "one patient"

        named = [name for name, _ in members(rows, subgroups_of(rows, SETTINGS)["site"], SETTINGS)]

        assert named == ["A"]


class TestCoincidences:
    def test_a_class_of_one_site_is_told_with_its_figures(self) -> None:
        sentences = told(
            {("COVID", "A"): 300, ("Normal", "A"): 12, ("Normal", "B"): 588, ("Viral Pneumonia", "B"): 300}
        )

        assert sentences == [
            "All 300 images of COVID are of site A, and so are 12 of the 900 others: a model can tell the class by the "
            "site"
        ]

    def test_a_subgroup_of_one_class_is_told_though_the_class_has_others_too(self) -> None:
        children, adults = 5.0, 50.0
        counts = {("Viral Pneumonia", children): 40, ("Viral Pneumonia", adults): 260}
        counts |= {("COVID", adults): 300, ("Normal", adults): 600}

        assert told(counts, "age") == [
            "40 of the 300 images of Viral Pneumonia are of age under 18, and so is none of the 900 others: a model "
            "can tell the class of these by the age"
        ]

    @pytest.mark.parametrize(
        ("counts", "why"),
        [
            ({(label, site): 100 for label in CLASSES for site in "AB"}, "the same shares"),
            ({("COVID", "A"): 85, ("COVID", "B"): 15, ("Normal", "A"): 30, ("Normal", "B"): 70}, "some of each"),
            ({("COVID", "A"): 9, ("Normal", "B"): 300}, "a class of few patients"),
            (
                {("COVID", "A"): 50, ("Normal", "A"): 900, ("Normal", "B"): 40},
                "so many of the frequent class are chance",
            ),
        ],
    )
    def test_nothing_is_told_of(self, counts: dict[tuple[str, object], int], why: str) -> None:
        assert told(counts) == [], why

    def test_unknown_images_are_left_out_and_said(self) -> None:
        counts = {("COVID", "A"): 50, ("COVID", ""): 30, ("Normal", "B"): 60, ("Normal", "A"): 1}

        first, second = told(counts)

        assert first.startswith(
            "All 50 images of COVID whose site is known are of site A, and so is 1 of the 61 others"
        )
        assert second.startswith("60 of the 61 images of Normal are of site B, and so is none of the 50 others")

    def test_images_that_are_not_used_do_not_count(self) -> None:
        rows = manifest({("COVID", "A"): 50, ("Normal", "B"): 60})

        assert coincidences(rows.assign(status="set aside"), CLASSES, SETTINGS) == []

    def test_many_sites_are_told_in_a_few_sentences(self) -> None:
        sentences = told({(label, f"{label} {n}"): 40 for label in CLASSES for n in range(4)})

        assert len(sentences) == 4 and sentences[-1] == "9 more classes and subgroups by site coincide"

    @given(st.integers(0, 5), st.permutations(range(90)))
    def test_the_order_of_rows_and_the_names_of_subgroups_do_not_matter(self, extra: int, order: list[int]) -> None:
        rows = manifest({("COVID", "A"): 40, ("Normal", "A"): extra, ("Normal", "B"): 50 - extra})
        mixed = rows.iloc[order].assign(site=rows["site"].map({"A": "Z", "B": "Y"}))

        found, again = (coincidences(each, CLASSES, SETTINGS) for each in (rows, mixed))

        figures = [(each.label, each.inside, each.of_class, each.others_inside, each.others) for each in found]
        assert figures == [(e.label, e.inside, e.of_class, e.others_inside, e.others) for e in again]
        assert figures[0][0] == "COVID" or extra > 4


def test_association_is_1_where_the_class_is_told_and_0_where_nothing_is() -> None:
    labels, same = pd.Series(["a", "a", "b", "b"]), pd.Series(["x", "y", "x", "y"])

    assert association_of(labels, labels) == pytest.approx(1) and association_of(same, labels) == pytest.approx(0)
    assert association_of(pd.Series(["x"] * 4), labels) is None


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"age_bands": (40, 18)}, "age_bands must rise"),
        ({"attributes": ("sex", "sex")}, "each be listed once"),
        ({"attributes": ("name",)}, "age"),
        ({"min_groups": 1}, "greater than or equal to 2"),
    ],
)
def test_settings_are_checked(changed: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        SubgroupSettings.model_validate({**SETTINGS.model_dump(), **changed})
