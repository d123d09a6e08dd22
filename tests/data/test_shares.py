"""One group that holds much of a class, and a split without its share of a class, are told with the figures."""

import pandas as pd
import pytest

from cxr_tasks.config import DataSettings
from cxr_tasks.data.duplicates import group_names
from cxr_tasks.data.shares import group_faults, split_faults
from cxr_tasks.data.split import assign_splits, count_splits
from tests.data.reading import data_settings


def settings(**changed: object) -> DataSettings:
    return data_settings(classes=["COVID", "Normal"], **changed)


def images_of(groups: dict[str, list[int]], patients: bool = True) -> pd.DataFrame:
    rows = [
        (f"{label}-{g}-{n}", label, f"{label}-P{g}", f"{label}/{g}-{n}.png")
        for label, sizes in groups.items()
        for g, size in enumerate(sizes)
        for n in range(size)
    ]
    table = pd.DataFrame(rows, columns=["image_id", "label", "group", "path"])
    return table.assign(patient=table["group"] if patients else "")


def test_a_patient_of_much_of_a_class_is_named_with_the_figures() -> None:
    told = group_faults(images_of({"COVID": [9, *[1] * 31], "Normal": [4, *[2] * 18]}), settings())

    assert told == [
        "COVID: 9 of 40 images (22%) are of the patient 'COVID-P0', for example COVID/0-0.png and COVID/0-1.png, and "
        "no split may divide them; at most 20% are allowed: if that is no patient, empty those cells of the table, or "
        "raise data.max_group_fraction"
    ]


def test_a_chain_of_near_duplicates_is_named_as_one_picture() -> None:
    told = group_faults(images_of({"COVID": [9, *[1] * 31]}, patients=False), settings())

    assert "9 of 40 images (22%) count as one picture (group 'COVID-P0')" in told[0]
    assert "make data.near_duplicates stricter" in told[0]


def test_patients_tied_by_pictures_are_named_by_the_commonest() -> None:
    images = images_of({"COVID": [9, *[1] * 31]})
    images.loc[:2, "patient"] = "other"

    assert "near-duplicates and 2 patients, 6 of them by the patient 'COVID-P0'" in group_faults(images, settings())[0]


@pytest.mark.parametrize("sizes", [[1] * 3, [8, *[1] * 32], [1]])
def test_small_groups_are_no_fault(sizes: list[int]) -> None:
    assert group_faults(images_of({"COVID": sizes}), settings()) == []


def faults(images: pd.DataFrame, given: frozenset[str] = frozenset(), **changed: object) -> list[str]:
    chosen = settings(**changed)
    table = images.assign(**assign_splits(images, chosen.split, 0)[["split", "group"]])
    return split_faults(count_splits(table, chosen.classes), table, chosen, given)


def test_a_class_without_images_in_a_split_is_told_with_what_fills_it() -> None:
    told = faults(images_of({"COVID": [10] * 4, "Normal": [1] * 40}))

    assert told == [
        f"COVID: the {split} split has 0 of 40 images, and the shares in data.split ask for 4; its largest group, "
        "'COVID-P0', has 10 images and cannot be divided: add other images, or change the shares or "
        "data.min_split_fraction"
        for split in ("test", "validation")
    ]


def test_far_too_few_are_told_and_a_lower_limit_allows_them() -> None:
    # Groups of four do not fill a quota of ten more than twice; one that is given is smaller still.
    images = images_of({"COVID": [1] * 100, "Normal": [1] * 40}).assign(given="train")
    images.loc[:3, "given"] = "test"
    images.loc[100:104, "given"] = "test"
    given = {"method": "stable", "validation": 0.1, "test": 0.1, "given": "test"}

    assert faults(images, frozenset({"test"}), split=given) == [
        "COVID: the test split has 4 of 100 images, and the shares in data.split ask for 10; the source gives this "
        "set: add images to it, set data.split.given to ignore, or change the shares or data.min_split_fraction"
    ]
    assert faults(images, frozenset({"test"}), split=given, min_split_fraction=0.3) == []


def test_ordinary_data_have_no_fault() -> None:
    images = images_of({"COVID": [1, 2, 3] * 7, "Normal": [1] * 36})

    assert faults(images) == [] and group_faults(images, settings()) == []


@pytest.mark.parametrize("word", ["hospital 7", "Radiology"])
def test_one_word_for_all_patients_cannot_pass_whatever_it_is(word: str) -> None:
    images = images_of({"COVID": [1] * 40, "Normal": [1] * 40}).assign(patient=word)
    images["group"] = group_names(images, pd.DataFrame(columns=["a", "b"], dtype=int).to_numpy())

    assert [line.split(" images")[0] for line in group_faults(images, settings())] == [
        "COVID: 40 of 40",
        "Normal: 40 of 40",
    ]
    assert all(word in line for line in group_faults(images, settings()))
