"""Nothing that identifies somebody leaves a DICOM file: a search of the store, the logs and MLflow after a run."""

from __future__ import annotations

import base64
import io
import json
import logging
import os
import pickle
import sqlite3
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import mlflow
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from pydicom import uid

from cxr_tasks import steps
from cxr_tasks.artifacts import RunContext
from cxr_tasks.config import merge
from cxr_tasks.steps.common import pseudonym_key
from cxr_tasks.store import FolderStore
from tests.data.dicom_files import SECRETS, dicom
from tests.privacy import contents_below, leaks
from tests.steps.reading import SETTINGS, prepare, rows_of

CLASSES = ["COVID", "Normal"]
CHANGED: dict[str, Any] = {
    "data": {"classes": CLASSES, "max_rejected_fraction": 0.5, "max_group_fraction": 1.0},
    "synthetic": {"counts": "balance"},
}
FORM: dict[str, Any] = {"profile": "quick", "settings": merge(SETTINGS, CHANGED)}


def xray(path: Path, number: int, **changed: Any) -> bytes:
    """The phantom at ``path`` as DICOM of 12 bits; two images are of one patient."""
    values = np.asarray(Image.open(path)).astype(np.uint16) * 16
    ids = {name: f"{SECRETS[name]}{number // 2}" for name in ("PatientID", "StudyInstanceUID")}
    return dicom(values, **{**ids, "WindowCenter": 2048, "WindowWidth": 4096, **changed})


@pytest.fixture
def source(tmp_path: Path, phantoms: Path) -> Path:
    """Studies below class folders, among them files that must be set aside or left out, and a list of the disk."""
    folder = tmp_path / "source"
    number = 0
    for label in CLASSES:
        paths = sorted((phantoms / label / "images").glob("*.png"))
        for path in paths:
            number += 1
            study = folder / label / f"study {number // 2}" / "series"
            study.mkdir(parents=True, exist_ok=True)
            burnt_in = {"BurnedInAnnotation": "YES" if path == paths[0] else "NO"}
            (study / f"IM{number:04}").write_bytes(xray(path, number, **burnt_in))
        odd = folder / label / "odd"
        odd.mkdir()
        (odd / "lateral.dcm").write_bytes(xray(paths[0], 901, ViewPosition="LL"))
        (odd / "hand.dcm").write_bytes(xray(paths[1], 902, BodyPartExamined="HAND"))
        (odd / "unsaid.dcm").write_bytes(xray(paths[2], 903, ViewPosition="", PatientID="anonymous"))
        (odd / "cut.dcm").write_bytes(xray(paths[3], 904)[:4000])
        (odd / "wrong.dcm").write_bytes(xray(paths[4], 905, syntax=uid.JPEGLosslessSV1, Rows=99))
        (odd / "nonsense.dcm").write_bytes(xray(paths[5], 906).replace(b"057Y", b"ZZ!!"))
    (folder / "DICOMDIR").write_bytes(dicom(PixelData=None))
    return folder


def mlflow_texts(run: RunContext, downloads: Path) -> Iterator[tuple[str, bytes]]:
    """Every record of the experiment, and every file that its runs keep."""
    for found in mlflow.MlflowClient().search_runs([run.experiment_id], max_results=1000):
        yield f"run {found.info.run_id}", str(found.to_dictionary()).encode()
        place = downloads / found.info.run_id
        place.mkdir(parents=True)
        mlflow.artifacts.download_artifacts(run_id=found.info.run_id, dst_path=str(place))
        yield from contents_below(place)


@pytest.fixture
def run(new_run: Callable[..., RunContext], store: FolderStore) -> RunContext:
    tracked = new_run()
    return tracked.model_copy(update={"settings": steps.configure("cxr_data", "one", FORM).settings})


@pytest.mark.slow
def test_no_identifying_field_is_in_the_store_the_logs_or_mlflow(
    run: RunContext, store: FolderStore, source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: Any
) -> None:
    caplog.set_level(logging.DEBUG)
    caplog.handler.setLevel(logging.DEBUG)

    done = prepare(run, source)

    rows = rows_of(done.divided)
    assert rows["status"].value_counts().to_dict() == {"used": 104, "left out": 4, "set aside": 4}
    patients = rows[(rows["status"] == "used") & (rows["patient"] != "")]
    assert len(patients) == 102 and (patients.groupby("patient")["split"].nunique() == 1).all()
    assert "2 DICOM files say that text is burnt" in " ".join(done.dataset().warnings)
    out = capfd.readouterr()
    assert leaks(iter([("log", caplog.text.encode()), ("output", (out.out + out.err).encode())])) == []
    assert leaks(contents_below(store.root)) == []
    assert leaks(mlflow_texts(run, tmp_path / "downloads")) == []
    assert not {"path", "patient", "study"} & set().union(
        *(pd.read_parquet(path).columns for path in (tmp_path / "downloads").rglob("manifest.parquet"))
    )


@pytest.mark.parametrize("name", SECRETS)
def test_the_search_finds_every_field_in_every_spelling(name: str) -> None:
    secret = SECRETS[name]
    written = {
        "text": secret.encode("latin-1"),
        "UTF-16": secret.encode("utf-16"),
        "UTF-16 BE": secret.encode("utf-16-be"),
        "JSON": json.dumps({"a": secret}).encode(),
        "hexadecimal": secret.encode().hex().encode(),
        "address": urlencode({"a": secret}).encode(),
        "Base64": base64.b64encode(pickle.dumps({"a": [secret]})),
    }

    for spelling, content in written.items():
        found = leaks(iter([("here", b"before" + content + b"after")]))
        assert any(what == name and how.startswith(spelling) for what, how, _ in found), spelling
    assert leaks(iter([("here", b"what nobody is called")])) == []


def plant(folder: Path, how: str, secret: str) -> None:
    """Write a file that holds ``secret`` and does not show it."""
    rows = pd.DataFrame({"a": ["", f"so {secret}"] * 1000})
    if how == "parquet":
        rows.to_parquet(folder / "a.parquet", compression="zstd")
    elif how == "database":
        with sqlite3.connect(folder / "a.db") as database:
            database.execute("create table tags (value text)")
            # Longer than a page, which cuts it in two.
            database.executemany("insert into tags values (?)", [["x" * 4085 + secret]] * 3)
    elif how == "packed rows of a database":
        with sqlite3.connect(folder / "airflow.sqlite") as database:
            database.execute("create table xcom (value blob)")
            database.execute("insert into xcom values (?)", [zlib.compress(pickle.dumps(secret) * 20)])
    elif how == "zip in a packed tar":
        inner = io.BytesIO()
        with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as zipped:
            zipped.writestr("a.txt", secret * 20)
        with tarfile.open(folder / "a.tgz", "w:gz") as tarred:
            info = tarfile.TarInfo("a.zip")
            info.size = len(inner.getvalue())
            tarred.addfile(info, io.BytesIO(inner.getvalue()))
    elif how == "name of a file":
        (folder / f"{secret}.png").touch()
    else:
        np.savez_compressed(folder / "a.npz", names=np.array([secret] * 20))


@pytest.mark.parametrize("name", ["PatientName", "PatientBirthDate"])
@pytest.mark.parametrize(
    "how", ["parquet", "database", "packed rows of a database", "zip in a packed tar", "name of a file", "arrays"]
)
def test_the_search_finds_what_is_packed(tmp_path: Path, name: str, how: str) -> None:
    plant(tmp_path, how, SECRETS[name])

    found = leaks(contents_below(tmp_path))

    assert found and {what.split()[0] for what, _, _ in found} == {name}


def test_the_key_is_a_secret_of_the_store_that_only_its_owner_reads(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = pseudonym_key()

    assert len(key) == 32 and pseudonym_key() == key
    (path,) = [path for path in store.root.rglob("*") if path.is_file()]
    assert os.stat(path).st_mode & 0o777 == 0o600
    monkeypatch.setenv("CXR_PSEUDONYM_KEY", "of the hospital")
    assert pseudonym_key() == b"of the hospital"
