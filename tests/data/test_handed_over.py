"""Sets as hospitals hand them over are read whole, with every planted value in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from cxr_tasks.config import resolve
from cxr_tasks.data.ingest import USED
from tests.data.dicom_files import SECRETS
from tests.data.handed_over import main
from tests.data.test_dicom_sources import read_all
from tests.privacy import contents_below, leaks

COUNTS = {"COVID": 12, "Normal": 12, "Viral Pneumonia": 20}


@pytest.mark.parametrize("kind", ["dicom", "table"])
def test_a_set_is_read_and_holds_what_must_not_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setenv("CXR_CACHE", str(tmp_path / "cache"))

    main(kind, str(tmp_path / "set"), COUNTS)

    profile = "quick" if kind == "dicom" else str(tmp_path / "set.yaml")
    rows, contradictions = read_all(tmp_path / "set", tmp_path / "work", resolve(profile).data)
    used = rows[rows["status"] == USED]
    assert used["label"].value_counts().to_dict() == COUNTS and contradictions == []
    assert set(used["view"]) == {"PA"} and set(used["age"]) == {57} and (used["patient"] != "").all()
    assert {name.split()[0] for name, _, _ in leaks(contents_below(tmp_path / "set"))} == set(SECRETS)
    assert leaks(contents_below(tmp_path / "work")) == []
