"""A name in a table finds its file however people wrote it, and never one of two files."""

import time
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr_tasks.data.matching import match_names, match_paths

FILES = [f"COVID/images/COVID-{n}.png" for n in range(1, 13)]


@pytest.mark.parametrize(
    "spelling",
    [
        "COVID-{n}",
        "COVID-{n}.png",
        "COVID-{n}.dcm",
        "COVID-{n}.tiff",
        "images/COVID-{n}.png",
        "C:\\data\\COVID\\COVID-{n}.png",
        "./COVID/images/COVID-{n}",
        "/mnt/x/COVID-{n}.JPG",
        "COVID ({n})",
        "COVID({n}).jpeg",
        "covid_{n}",
        "COVID{n}",
        "  COVID - {n}  ",
        "COVID-{n:04d}",
        "COVID-\N{FULLWIDTH DIGIT ONE}",
    ],
)
def test_every_spelling_of_a_name_finds_its_file(spelling: str) -> None:
    numbers = [1] if "{" not in spelling else range(1, 13)

    assert match_names([spelling.format(n=n) for n in numbers], FILES) == [n - 1 for n in numbers]


@pytest.mark.parametrize(
    ("names", "paths"),
    [
        (["COVID 12"], ["COVID/COVID-12.png", "COVID/COVID_12.png"]),
        (["1"], ["COVID/a/1.png", "COVID/b/1.png"]),
        (["COVID-12"], ["COVID/COVID-12.png", "COVID/COVID-12.jpg"]),
        (["COVID (12)", "COVID_12"], ["COVID/COVID-12.png"]),
        (["COVID (7)"], ["COVID/COVID-07.png", "COVID/COVID-007.png"]),
        (["a/1", "b/1"], ["COVID/c/1.png"]),
        (["COVID-1"], ["COVID/COVID-1 (2).png"]),
        (["COVID-121"], ["COVID/COVID-12-1.png"]),
        (["1.2.840.113"], ["COVID/1.2.840.114.png"]),
        (["?"], ["COVID/!.png"]),
    ],
)
def test_nothing_is_guessed(names: list[str], paths: list[str]) -> None:
    assert match_names(names, paths) == [-1] * len(names)


def test_the_nearest_spelling_decides() -> None:
    paths = ["COVID/COVID-12.png", "COVID/COVID_12.png", "COVID/COVID-012.png", "COVID/COVID-12.jpg"]

    assert match_names(["covid_12", "COVID-012", "COVID-12.jpg", "COVID-12.png"], paths) == [1, 2, 3, 0]


def test_folders_tell_files_of_one_name_apart() -> None:
    paths = ["COVID/train/1.png", "COVID/test/1.png"]

    assert match_names(["test/1.png", "train/1", "1"], paths) == [1, 0, -1]


def test_a_name_twice_finds_its_file_twice() -> None:
    assert match_names(["COVID-3", "covid-3.PNG", "COVID-3"], FILES) == [2, 2, 2]


texts = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=12).filter(lambda t: "/" not in t)


@given(st.lists(texts, unique_by=lambda t: unicodedata.normalize("NFKC", t).casefold(), max_size=8), st.data())
def test_a_file_is_found_under_its_own_name_or_not_at_all_in_every_unicode_form(
    stems: list[str], data: st.DataObject
) -> None:
    paths = [f"COVID/{stem}.png" for stem in stems]
    forms = st.sampled_from(["NFC", "NFD"])
    names = [unicodedata.normalize(data.draw(forms), f"{stem}.png") for stem in stems]

    assert match_names(names, paths) == list(range(len(stems)))


DEEP = [f"train/p{p}/s{s}/view{v}.jpg" for p in range(3) for s in range(2) for v in (1, 2)]


@pytest.mark.parametrize(
    "spelling", ["{}", "Set-v1/{}", "a/b/{}", "./{}", "TRAIN{}", "{}.png", "\\data\\{}", "s/{}.dicom", "{} "]
)
def test_paths_find_their_files_whatever_folders_all_of_them_begin_with(spelling: str) -> None:
    def spell(path: str) -> str:
        path = path.removesuffix(".jpg") if spelling.endswith((".png", ".dicom")) else path
        return spelling.format(path.removeprefix("train") if spelling.startswith("TRAIN") else path)

    assert match_paths([spell(path) for path in DEEP], DEEP).tolist() == list(range(len(DEEP)))


def test_a_path_that_fits_two_files_or_none_finds_none() -> None:
    names = ["view1.jpg", "s0/view1.jpg", "p0/s0/view1.jpg", "p9/s0/view1.jpg", "", "p0/s0/view1.jpg"]

    assert match_paths(names, DEEP).tolist() == [-1, -1, 0, -1, -1, 0]
    assert match_paths([], DEEP).tolist() == [] and match_paths(["a.png"], []).tolist() == [-1]


def test_what_is_left_over_is_matched_as_people_write_it() -> None:
    assert match_paths(["a.png", "COVID (2)", "c"], ["x/a.png", "x/covid-2.png", "x/d.png"]).tolist() == [0, 1, -1]


@given(st.permutations(range(len(DEEP))))
def test_the_order_of_names_does_not_count(order: list[int]) -> None:
    found = match_paths([DEEP[place] for place in order], DEEP)

    assert found.tolist() == list(order)


def test_a_hundred_thousand_paths_of_one_file_name_are_matched_in_seconds() -> None:
    paths = [f"train/patient{n:06d}/study1/view1_frontal.jpg" for n in range(100_000)]
    start = time.process_time()

    found = match_paths([f"CheXpert-v1.0/{path}" for path in paths], paths)

    # Each with each would be 10,000 million comparisons.
    assert time.process_time() - start < 30
    assert np.array_equal(found, np.arange(len(paths)))
