"""What is said of files of new images that are not as those before."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cxr_tasks.data.data_docs import DOCS_PAGE
from cxr_tasks.monitoring.expectations import new_images_told
from tests.hostile import MARKUP

pytestmark = pytest.mark.slow


def rows(number: int, **changes: object) -> pd.DataFrame:
    rng = np.random.default_rng(number)
    table = pd.DataFrame({"width": rng.integers(250, 300, number), "height": rng.integers(250, 300, number)})
    table["mean"], table["contrast"] = rng.uniform(90, 160, number), rng.uniform(40, 70, number)
    return table.assign(**{"site": "", "mode": "L", **changes})


KNOWN = pd.concat([rows(400), rows(100, site="a")], ignore_index=True)


def test_of_files_as_before_nothing_is_said(tmp_path: Path) -> None:
    assert new_images_told(KNOWN, rows(60), tmp_path) == []
    assert "new images" in (tmp_path / DOCS_PAGE).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"width": 1024}, "width: expected 250 to 299, found 1024, 1024, 1024 (60 of 60)"),
        ({"mean": 12.5}, "mean: expected 90"),
        ({"mode": "RGB"}, "mode: expected one of L, found RGB, RGB, RGB (60 of 60)"),
        ({"site": "b"}, "site: expected one of nothing, a, found b, b, b (60 of 60)"),
        ({"site": MARKUP[0]}, f"site: expected one of nothing, a, found {MARKUP[0]}"),
    ],
)
def test_what_files_of_before_have_not_is_said(tmp_path: Path, changes: dict[str, object], words: str) -> None:
    (said,) = new_images_told(KNOWN, rows(60, **changes), tmp_path)

    assert said.startswith(words)
    pages = "".join(path.read_text(encoding="utf-8") for path in (tmp_path / "data-docs").rglob("*.html"))
    assert MARKUP[0] not in pages


def test_what_a_manifest_of_before_lacks_is_not_asked(tmp_path: Path) -> None:
    known = KNOWN.drop(columns=["site", "mode", "contrast"])

    assert new_images_told(known, rows(60, site="b"), tmp_path / "alike") == []
    assert [each.partition(":")[0] for each in new_images_told(known, rows(60, width=9), tmp_path / "wide")] == [
        "width"
    ]


def test_a_twentieth_may_be_otherwise(tmp_path: Path) -> None:
    new = rows(60)
    few, more = new.copy(), new.copy()
    few.loc[:2, "width"], more.loc[:3, "width"] = 1024, 1024

    assert new_images_told(KNOWN, few, tmp_path / "few") == []
    assert [each.partition(":")[0] for each in new_images_told(KNOWN, more, tmp_path / "more")] == ["width"]
