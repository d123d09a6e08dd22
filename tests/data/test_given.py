"""Splits that a source gives are found, merged or kept; a kept test set is whole, and clean."""

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cxr_tasks.config import SplitSettings
from cxr_tasks.data.duplicates import group_names
from cxr_tasks.data.given import LEAKED, MOVED, split_of_folder
from cxr_tasks.data.ingest import USED
from cxr_tasks.data.layout import lay_out
from cxr_tasks.data.leaks import tell_given
from cxr_tasks.data.sources import Entry
from cxr_tasks.data.split import SPLITS, assign_splits
from cxr_tasks.errors import DataError
from tests.data.reading import data_settings, read_folder, split

GIVEN = ("train", "validation", "test", "")


def settings(mode: str = "test") -> SplitSettings:
    return SplitSettings(method="stable", validation=0.1, test=0.1, given=mode)  # type: ignore[arg-type]


def images_of(*rows: tuple[str, str, str]) -> pd.DataFrame:
    """Rows of id, given split and patient."""
    table = pd.DataFrame(rows, columns=["image_id", "given", "patient"], dtype=str)
    return table.assign(label="COVID", path=table["image_id"] + ".png", status=USED, reason="")


def of(images: pd.DataFrame, divided: pd.DataFrame, column: str = "split") -> dict[str, str]:
    return dict(zip(images["image_id"], divided[column], strict=True))


@pytest.mark.parametrize(
    ("name", "split"),
    [
        *((name, "train") for name in ("train", "Train", "TRAINING", "training_set", "train-data")),
        *((name, "validation") for name in ("val", "valid", "Validation", "VAL", "validation_set")),
        *((name, "test") for name in ("test", "Testing", "TEST", "test set")),
        *((name, "") for name in ("COVID", "trained", "latest", "contest", "images", "Normal", "value", "")),
    ],
)
def test_folders_of_splits_are_known_by_their_names(name: str, split: str) -> None:
    assert split_of_folder(name) == split


@pytest.mark.parametrize(
    "shape",
    [
        "{split}/{label}/1.png",
        "{split}/{label}/images/1.png",
        "archive/chest/{split}/{label}/1.png",
        "{label}/{split}/1.png",
        "{label}/images/{split}/1.png",
    ],
)
@pytest.mark.parametrize("names", [("train", "val", "test"), ("Training", "Validation", "Testing")])
def test_given_splits_are_read_above_and_below_the_classes(shape: str, names: tuple[str, ...]) -> None:
    paths = [shape.format(split=name, label=label) for name in names for label in ("COVID", "Normal")]

    found = lay_out([Entry(path, 1, "") for path in sorted(paths)], ("COVID", "Normal"), {}, "x")

    assert sorted(entry.path for _, entry in found.images) == sorted(paths)
    assert Counter(found.given.values()) == {"train": 2, "validation": 2, "test": 2}
    assert found.notes == ()


def test_a_class_may_be_called_as_a_split_and_a_path_of_folders_may_be_mapped() -> None:
    entries = [Entry(path, 1, "") for path in ("a/Covid/1.png", "b/Covid/1.png", "test/1.png")]

    found = lay_out(entries, ("COVID", "test"), {"a/Covid": "COVID"}, "x")

    assert [(label, entry.path) for label, entry in found.images] == [
        ("COVID", "a/Covid/1.png"),
        ("test", "test/1.png"),
    ]
    assert found.given == {}


def test_images_of_a_split_without_a_class_are_told() -> None:
    entries = [Entry(path, 1, "") for path in ("test/1.png", "test/2.png", "train/COVID/1.png", "train/Normal/1.png")]

    (warning,) = lay_out(entries, ("COVID", "Normal"), {}, "x").notes
    assert warning == "2 images in the folder 'test' lie in the folder of no class and are not used"


@st.composite
def given_images(draw: st.DrawFn) -> tuple[pd.DataFrame, pd.DataFrame]:
    patients = st.one_of(st.just(""), st.integers(0, 9).map(str))
    rows = draw(st.lists(st.tuples(st.sampled_from(GIVEN), patients), min_size=1, max_size=25))
    images = images_of(("first", "test", ""), *((f"{n:02}", split, patient) for n, (split, patient) in enumerate(rows)))
    ids = st.sampled_from(images["image_id"].tolist())
    near = draw(st.lists(st.tuples(ids, ids), max_size=6))
    return images, pd.DataFrame(near, columns=["first", "second"], dtype=str)


@given(given_images(), st.sampled_from(["test", "all"]), st.integers(0, 3))
def test_a_kept_test_set_is_whole_and_nothing_of_it_is_anywhere_else(
    drawn: tuple[pd.DataFrame, pd.DataFrame], mode: str, seed: int
) -> None:
    images, near = drawn

    divided = assign_splits(images, settings(mode), seed, near=near)

    tests = images["given"] == "test"
    assert (divided.loc[tests, "split"] == "test").all()
    assert not (divided.loc[~tests, "split"] == "test").any()
    index = pd.Index(images["image_id"])
    pairs = np.stack([index.get_indexer(near["first"]), index.get_indexer(near["second"])], axis=1)
    whole = group_names(images, pairs)
    in_test = whole.isin(whole[tests])
    assert (divided.loc[in_test & ~tests, "split"] == "").all()
    assert (divided["split"] == "").eq(divided["reason"] != "").all()
    # Nothing else is lost in mode test, and no group is in two splits.
    if mode == "test":
        assert (divided.loc[~in_test, "split"] != "").all()
    kept = divided["split"] != ""
    assert (divided[kept].groupby(whole[kept])["split"].nunique() == 1).all()


@given(given_images(), st.integers(0, 3))
def test_where_given_splits_are_ignored_they_change_nothing(
    drawn: tuple[pd.DataFrame, pd.DataFrame], seed: int
) -> None:
    images, near = drawn

    merged = assign_splits(images, settings("ignore"), seed, near=near)

    pd.testing.assert_frame_equal(
        merged, assign_splits(images.drop(columns="given"), settings("ignore"), seed, near=near)
    )


def test_validation_is_drawn_from_the_training_images_where_it_is_not_given() -> None:
    rows = [(f"t{n}", "train", f"P{n // 2}") for n in range(80)] + [(f"x{n}", "test", "") for n in range(20)]
    images = images_of(*rows)

    for mode in ("test", "all"):
        divided = assign_splits(images, settings(mode), 0)
        assert divided["split"].value_counts().to_dict() == {"train": 70, "test": 20, "validation": 10}


def test_a_given_validation_set_is_kept_by_all_and_divided_by_test() -> None:
    rows = [(f"t{n}", "train", "") for n in range(70)] + [(f"v{n}", "validation", "") for n in range(5)]
    images = images_of(*rows, *((f"x{n}", "test", "") for n in range(25)))

    kept, drawn = (of(images, assign_splits(images, settings(mode), 0)) for mode in ("all", "test"))

    assert Counter(kept.values()) == {"train": 70, "validation": 5, "test": 25}
    assert all((split == "validation") == name.startswith("v") for name, split in kept.items())
    assert Counter(drawn.values()) == {"train": 65, "validation": 10, "test": 25}


def test_a_leak_costs_the_training_image_and_never_the_test_image() -> None:
    images = images_of(("a", "train", "P1"), ("b", "test", "P1"), ("c", "validation", "P1"), ("d", "train", ""))

    divided = assign_splits(images, settings("all"), 0)

    assert of(images, divided) == {"a": "", "b": "test", "c": "", "d": "train"}
    assert set(divided["reason"]) == {"", LEAKED.format("test")}


def test_what_has_been_trained_on_does_not_become_a_test_image() -> None:
    images = images_of(("a", "test", ""), ("b", "test", ""), ("c", "train", ""))

    divided = assign_splits(images, settings(), 0, {"a": "train", "c": "train"})

    assert of(images, divided) == {"a": "", "b": "test", "c": "train"}
    assert of(images, divided, "reason")["a"] == MOVED


def test_a_test_set_that_is_to_be_kept_and_is_not_there_stops_the_run() -> None:
    with pytest.raises(DataError, match="no image lies in a folder for the test set"):
        assign_splits(images_of(("a", "train", ""), ("b", "validation", "")), settings(), 0)


def test_leaks_are_counted_with_examples_whatever_becomes_of_them() -> None:
    rows = [("a", "train", "P1"), ("b", "test", "P1"), ("c", "train", ""), ("d", "test", ""), ("e", "train", "")]
    images = images_of(*rows, ("f", "validation", "P1"))
    images["group"] = group_names(images, np.array([[2, 3]]))

    merged, kept = (tell_given(images, settings(mode)) for mode in ("ignore", "test"))

    assert merged[0].startswith(
        "The source has folders for splits (train 3, validation 1, test 2 files). They are merged"
    )
    assert merged[1] == (
        "The split that the source gives leaks: 2 of 3 train images are also in the test set, 0 of them as the same "
        "file, others as another image of one patient or picture, for example a.png (b.png) and c.png (d.png)"
    )
    assert kept[1] == f"{merged[1]}. They are left out, and the test set is clean"
    assert [line for line in kept if "validation images are also in the test set" in line]
    by_source = SplitSettings(method="leave-source-out", validation=0.1, test=0.1, test_sources=("b",))
    assert tell_given(images, by_source)[0].endswith("They are merged and divided anew")
    assert tell_given(images.assign(given=""), settings("ignore")) == []


def test_the_test_copy_of_a_file_in_two_splits_is_the_one_that_stays(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for label in ("COVID", "Normal"):
        for place in [*(f"aaa/{label}/{n}.png" for n in range(6)), *(f"train/{label}/{n}.png" for n in range(6))]:
            (tmp_path / "data" / place).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (64, 64), np.uint8)).save(tmp_path / "data" / place)
    # A folder that sorts before the test set.
    (tmp_path / "data" / "aaa").rename(tmp_path / "data" / "test")
    for label in ("COVID", "Normal"):
        shown = tmp_path / "data/train" / label
        (shown / "0.png").write_bytes((tmp_path / "data/test" / label / "0.png").read_bytes())
        (tmp_path / "data/val" / label).mkdir(parents=True)
        (tmp_path / "data/val" / label / "1.png").write_bytes((shown / "1.png").read_bytes())
    chosen = data_settings(
        classes=["COVID", "Normal"], split={"method": "stable", "validation": 0.1, "test": 0.1, "given": "all"}
    )

    reading = read_folder(tmp_path / "data", tmp_path / "work", chosen)
    table = split(reading, chosen).set_index("path")

    assert table.at["test/COVID/0.png", "split"] == "test" and table.at["train/COVID/0.png", "split"] == ""
    assert table.at["val/COVID/1.png", "split"] == "validation" and table.at["train/COVID/1.png", "split"] == ""
    told = tell_given(reading.manifest, chosen.split)
    assert any("2 of 12 train images are also in the test set, 2 of them as the same file" in line for line in told)
    assert any("2 of 12 train images are also in the validation set" in line for line in told)
    assert set(table["split"]) == {*SPLITS, ""}
