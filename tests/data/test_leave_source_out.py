"""Tests on whole sources: all that they have tests, and nothing that is tied to it trains."""

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr_tasks.config import SplitSettings, resolve
from cxr_tasks.data.duplicates import IDENTICAL
from cxr_tasks.data.ingest import SET_ASIDE, USED
from cxr_tasks.data.leave_source_out import TIED, TRAINED_ON, tell_left_out
from cxr_tasks.data.shares import split_faults
from cxr_tasks.data.split import assign_splits, count_splits, split_manifest
from cxr_tasks.errors import SettingsError
from tests.data.test_split import Ties, check_ties, images_of, pairs_of, seeds, tied_images, ties_of

LEAVE = SplitSettings(method="leave-source-out", validation=0.25, test=0.1, test_sources=("b", "d"))
SITES = ["a", "b", "c", "d"]


@st.composite
def tied_sources(draw: st.DrawFn) -> tuple[pd.DataFrame, Ties]:
    images, near = draw(tied_images())
    sites = st.lists(st.sampled_from(SITES), min_size=len(images), max_size=len(images))
    return images.assign(site=draw(sites)), near


def tied_to(images: pd.DataFrame, near: Ties, start: set[str]) -> set[str]:
    """``start``, and all that a chain of patients and pictures leads to from there."""
    ties, found, ahead = ties_of(images, near), set(start), list(start)
    while ahead:
        one = ahead.pop()
        new = {b for a, b in ties if a == one} - found
        found |= new
        ahead += new
    return found


@given(tied_sources(), seeds)
def test_the_test_set_is_the_sources_left_out_and_no_group_crosses(tied: tuple[pd.DataFrame, Ties], seed: int) -> None:
    images, near = tied
    tests = set(images.loc[images["site"].isin(["b", "d"]), "image_id"])

    found = assign_splits(images, LEAVE, seed, near=pairs_of(near))

    check_ties(images, near, found)
    of_split = images["image_id"].groupby(found["split"]).agg(set).to_dict()
    assert of_split.get("test", set()) == tests
    assert of_split.get("", set()) == tied_to(images, near, tests) - tests
    assert (found.loc[found["split"] == "", "reason"] == TIED).all()
    assert (found.loc[found["split"] != "", "reason"] == "").all()


@given(tied_sources(), seeds, st.data())
def test_what_trained_before_does_not_test_and_the_rest_stays(
    tied: tuple[pd.DataFrame, Ties], seed: int, data: st.DataObject
) -> None:
    images, near = tied
    first = assign_splits(images, LEAVE, seed, near=pairs_of(near))
    before = {i: s for i, s in zip(images["image_id"], first["split"], strict=True) if s}
    # Files that another source has now.
    moves = st.lists(st.sampled_from(SITES), min_size=len(images), max_size=len(images))
    moved = images.assign(site=data.draw(moves))

    found = assign_splits(moved, LEAVE, seed, before, pairs_of(near))

    check_ties(moved, near, found)
    had, splits = moved["image_id"].map(before), found["split"]
    tests = moved["site"].isin(["b", "d"])
    assert (splits[tests] == "test").equals(had[tests] != "train")
    assert (found.loc[tests & (had == "train"), "reason"] == TRAINED_ON).all()
    assert not (splits[~tests] == "test").any()
    stayed = ~tests & had.isin(["train", "validation"]) & (splits != "")
    assert (splits[stayed] == had[stayed]).all()


def test_validation_is_its_share_of_the_images_that_do_not_test() -> None:
    rows = [(f"{site}{n}", "COVID", "") for site in SITES for n in range(40)]
    images = images_of(rows).assign(site=[site for site in SITES for _ in range(40)])

    found = assign_splits(images, LEAVE, 0)

    assert found["split"].value_counts().to_dict() == {"test": 80, "train": 60, "validation": 20}


def manifest(rows: list[tuple[str, str, str, str]]) -> pd.DataFrame:
    """Rows of image, site, patient and label, in which files after the first of the same image are set aside."""
    table = pd.DataFrame(rows, columns=["image_id", "site", "patient", "label"])
    table = table.assign(path=table["site"] + "/" + table.index.astype(str) + ".png", split="", group="before")
    again = table["image_id"].duplicated()
    first = table["image_id"].map(table.drop_duplicates("image_id").set_index("image_id")["path"])
    reason = (f"{IDENTICAL} " + first).where(again, "")
    return table.assign(status=again.map({True: SET_ASIDE, False: USED}), reason=reason)


def test_of_identical_files_the_one_of_a_source_that_tests_is_used() -> None:
    both = manifest(
        [
            ("x", "a", "P1", "COVID"),
            ("x", "b", "P2", "COVID"),
            ("x", "b", "P2", "COVID"),
            ("y", "a", "P2", "COVID"),
            ("z", "a", "P1", "COVID"),
            ("z", "c", "P1", "COVID"),
        ]
    )

    table = split_manifest(both, LEAVE, 0)

    assert table["status"].tolist() == [SET_ASIDE, USED, SET_ASIDE, SET_ASIDE, USED, SET_ASIDE]
    # y is of the patient that the file in b names, and z of the one that the file in a names.
    assert table["split"].tolist() == ["", "test", "", "", "train", ""]
    identical = f"{IDENTICAL} b/1.png"
    assert table["reason"].tolist() == [identical, "", identical, TIED, "", f"{IDENTICAL} a/4.png"]
    assert table.loc[[0, 1], "group"].tolist() == ["x", "P2"]
    assert (both["group"] == "before").all(), "the manifest itself was changed"
    assert tell_left_out(table, LEAVE) == [
        "1 images of other sources are left out of training and validation (COVID 1): they are of one patient, or one "
        "picture, with images of b and d"
    ]


def test_images_that_trained_before_are_told_of() -> None:
    table = split_manifest(manifest([("x", "b", "", "COVID"), ("y", "b", "", "COVID")]), LEAVE, 0, {"x": "train"})

    (told,) = tell_left_out(table, LEAVE)
    assert told.startswith("1 images of b and d do not test (COVID 1), because a training of the same split has seen")


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ({"a": 100, "b": 1}, r"COVID: the test split has 1 of 101 images, .* ask for 10; b and d test: name another"),
        ({"b": 100}, "COVID: the train split has 0 of 100 images.*no other source has an image of it"),
        ({"a": 100, "b": 40}, ""),
        ({"a": 30, "b": 400}, ""),
    ],
)
def test_a_class_that_a_side_lacks_is_told_of_with_its_figures(counts: dict[str, int], words: str) -> None:
    images = [(f"{site}{n}", site, "", "COVID") for site, number in counts.items() for n in range(number)]
    images += [(f"n{site}{n}", site, "", "Normal") for site in ("a", "b") for n in range(40)]
    split = {"method": "leave-source-out", "test_sources": ["b", "d"]}
    sources = [{"name": name, "source": f"/{name}"} for name in SITES]
    data = {"classes": ["COVID", "Normal"], "split": split, "sources": sources, "min_split_fraction": 0.5}
    settings = resolve("quick", {"data": data, "synthetic": {"counts": 0}}).data
    table = split_manifest(manifest(images), settings.split, 0)

    faults = split_faults(count_splits(table, settings.classes), table, settings, frozenset())

    if words:
        assert pd.Series(faults).str.contains(words).any()
    else:
        assert faults == []


@pytest.mark.parametrize(
    ("sources", "split", "words"),
    [
        ("ab", {"test_sources": []}, "name the sources that test in test_sources"),
        ("ab", {"test_sources": ["b"], "method": "stable"}, "test_sources names b, and the method is stable"),
        ("", {"test_sources": ["b"]}, "there is no list of them"),
        ("ab", {"test_sources": ["bb"]}, "there is no source 'bb', did you mean 'b'"),
        ("ab", {"test_sources": ["a", "b"]}, "names every source, so that none trains"),
        ("ax", {"test_sources": ["x"]}, "no source of split.test_sources has the class 'Viral Pneumonia'"),
        ("ax", {"test_sources": ["a"]}, "only sources of split.test_sources have the class 'Viral Pneumonia'"),
        ("ab", {"test_sources": ["b"], "given": "test"}, "given must be ignore where the method is leave-source-out"),
    ],
)
def test_sources_that_cannot_test_are_refused_in_a_sentence(sources: str, split: dict[str, object], words: str) -> None:
    few = {"x": {"classes": ["COVID", "Normal"]}}
    listed = [{"name": name, "source": f"/{name}", **few.get(name, {})} for name in sources]

    with pytest.raises(SettingsError, match=words):
        resolve("quick", {"data": {"sources": listed, "split": {"method": "leave-source-out", **split}}})
