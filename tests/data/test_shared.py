"""What sources share is counted by pair and said in a sentence, and is no fault of their files."""

import pandas as pd
import pytest

from cxr_tasks.data.duplicates import CLASH, IDENTICAL
from cxr_tasks.data.expectations import _table_of_counts
from cxr_tasks.data.ingest import SET_ASIDE, USED
from cxr_tasks.data.shared import SharedBySources, copies_of_other_sources, shared_by_sources, tell_sources
from tests.data.reading import data_settings

COLUMNS = ["image_id", "site", "label", "patient", "reason"]
NEAR = pd.DataFrame([("x", "z"), ("u", "z"), ("x", "y"), ("y", "gone")], columns=["first", "second"])


@pytest.fixture
def manifest() -> pd.DataFrame:
    rows = [
        ("x", "a", "COVID", "P1", ""),
        ("x", "b", "COVID", "P1", f"{IDENTICAL} a/x.png"),
        ("x", "a", "COVID", "P1", f"{IDENTICAL} a/x.png"),
        ("y", "a", "Normal", "P2", ""),
        ("z", "b", "Normal", "P2", ""),
        ("u", "c", "Normal", "", ""),
        ("w", "c", "Normal", "P3", f"{CLASH}: c/w.png, b/w.png"),
        ("w", "b", "COVID", "P4", f"{CLASH}: c/w.png, b/w.png"),
        ("", "b", "COVID", "", "damaged"),
        ("", "c", "COVID", "", "damaged"),
    ]
    table = pd.DataFrame(rows, columns=COLUMNS).assign(path="p.png", inverted="no", group="g")
    return table.assign(status=table["reason"].eq("").map({True: USED, False: SET_ASIDE}))


def test_what_two_sources_share_is_counted_by_pair(manifest: pd.DataFrame) -> None:
    assert shared_by_sources(manifest, NEAR) == [
        SharedBySources(first="a", second="b", files=1, pictures=1, patients=2),
        SharedBySources(first="b", second="c", files=1, pictures=1, patients=0),
    ]
    assert shared_by_sources(manifest[manifest["site"] == "a"], NEAR) == []


def test_what_must_be_known_of_several_sources_is_said(manifest: pd.DataFrame) -> None:
    told = tell_sources(manifest, NEAR)

    assert told[0] == "1 files are in a and b: each is used once"
    assert told[1] == "1 pairs of images of a and b show one picture: no split divides them"
    assert told[2].startswith("2 patient ids are in a and b, and count as one patient each: if each source numbers its")
    assert len(told) == 5
    assert tell_sources(manifest.assign(site=""), NEAR) == []


def test_a_copy_in_another_source_counts_for_no_reject(manifest: pd.DataFrame) -> None:
    assert copies_of_other_sources(manifest).nonzero()[0].tolist() == [1]

    counts = _table_of_counts(manifest, data_settings())
    assert counts.at[0, "rejected fraction"] == pytest.approx(5 / 9)
    assert counts.at[0, "images under two classes"] == 2


def test_nothing_is_shared_where_there_is_nothing(manifest: pd.DataFrame) -> None:
    assert shared_by_sources(manifest[:0], NEAR[:0]) == []
    assert not copies_of_other_sources(manifest[:0]).any()
