"""Several sources in one dataset: read by their own layouts, joined, told apart by ``site``, and read again."""

import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxr_tasks import steps
from cxr_tasks.artifacts import Split, Training, Validation
from cxr_tasks.config import merge, resolve
from cxr_tasks.data.leave_source_out import TIED
from cxr_tasks.data.phantoms import write_phantoms
from cxr_tasks.errors import DataError, SettingsError
from cxr_tasks.form import SOURCE_FIELD
from cxr_tasks.local import LocalRun
from cxr_tasks.steps.publish import _newest
from tests.steps import reading

COUNTS = {"COVID": 12, "Normal": 14, "Viral Pneumonia": 12}
TABLE = {"file": "labels.csv", "path": "image", "label": "finding", "labels": {"SARS-CoV-2": "COVID"}, "patient": "who"}
FINDINGS = {"COVID": "SARS-CoV-2", "Normal": "Normal", "Viral Pneumonia": "Viral Pneumonia"}


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Class folders with masks and tables of patients; and one folder of images with a table of labels."""
    place = tmp_path_factory.mktemp("hospitals")
    write_phantoms(place / "a", COUNTS, image_size=64)
    write_phantoms(place / "as folders", COUNTS, image_size=64, seed=7)
    (place / "b" / "images").mkdir(parents=True)
    rows = []
    for number, path in enumerate(sorted((place / "as folders").glob("*/images/*.png"))):
        shutil.copyfile(path, place / "b" / "images" / f"{number:03}.png")
        rows.append((f"{number:03}.png", FINDINGS[path.parts[-3]], f"B{number}"))
    pd.DataFrame(rows, columns=["image", "finding", "who"]).to_csv(place / "b" / "labels.csv", index=False)
    return {"a": place / "a", "b": place / "b"}


@pytest.fixture
def own(hospitals, tmp_path) -> dict[str, Path]:
    """The hospitals, for a test that changes them."""
    return {name: Path(shutil.copytree(folder, tmp_path / name)) for name, folder in hospitals.items()}


def settings(hospitals: dict[str, Path], **data: Any) -> dict[str, Any]:
    """Settings of a run on both hospitals; ``data`` is laid over the section."""
    sources = [
        {"name": "hospital-a", "source": str(hospitals["a"])},
        {"name": "hospital-b", "source": str(hospitals["b"]), "table": TABLE},
    ]
    return merge(reading.SETTINGS, {"data": {"sources": sources, "shard_images": 30, **data}})


def first_row(table: pd.DataFrame, **wanted: str) -> Any:
    """The first row of a manifest in which columns say what is wanted."""
    for column, value in wanted.items():
        table = table[table[column] == value]
    return table.iloc[0]


def test_two_sources_of_two_layouts_become_one_dataset(begin, hospitals):
    run = begin(settings=settings(hospitals))

    made = reading.prepare(run, "")

    table = made.dataset().manifest()
    assert table.groupby(["site", "label"]).size().to_dict() == {
        (site, label): number for site in ("hospital-a", "hospital-b") for label, number in COUNTS.items()
    }
    assert table["path"].str.partition("/")[0].equals(table["site"])
    assert made.scanned.files == {label: 2 * number for label, number in COUNTS.items()}
    assert made.scanned.source == "hospital-a, hospital-b"
    assert (table["status"] == "used").all() and (table["split"] != "").all()
    assert table.groupby("site")["mask"].all().to_dict() == {"hospital-a": True, "hospital-b": False}
    # Each shard is of one source, and its pixels are those of the file that the path names.
    assert (table.groupby("shard")["site"].nunique() == 1).all() and table["shard"].nunique() == made.scanned.shards
    dataset = made.dataset()
    paths = table.set_index("image_id")["path"]
    for split in ("train", "validation", "test"):
        images = dataset.images(split, 32, list(COUNTS))
        for place, path in enumerate(paths[images.ids[:4]]):
            site, _, below = path.partition("/")
            with Image.open(hospitals[site[-1]] / below) as image:
                asked = np.asarray(image.convert("L").resize((32, 32), Image.Resampling.BILINEAR), float)
            assert np.abs(asked - np.asarray(images.pixels[place])).mean() < 3


def test_only_what_changed_in_one_source_is_read_again(begin, own):
    run = begin(settings=settings(own))
    _, before = reading.read(run, "")
    (own["b"] / "images" / "000.png").write_bytes(b"no image")

    scanned, shards = reading.read(begin("two", settings=settings(own)), "")
    joined = steps.manifest(begin("two", settings=settings(own)), scanned, shards)

    assert not scanned.reused
    assert [shard.reused for shard in shards].count(False) == 1 and len(shards) == len(before) == 4
    (reject,) = joined.table().query("status != 'used'").itertuples()
    assert (reject.site, reject.path) == ("hospital-b", "hospital-b/images/000.png")
    assert (joined.folder() / "rejects/hospital-b/images/000.png").is_file()
    assert steps.scan(begin("three", settings=settings(own)), "").reused


def test_a_source_is_read_as_it_would_be_alone(begin, hospitals):
    plain = merge(reading.SETTINGS, {"data": {"shard_images": 30}})
    _, alone = reading.read(begin(settings=plain), hospitals["a"])

    _, shards = reading.read(begin("two", settings=settings(hospitals)), "")

    assert [shard.reused for shard in shards] == [True, True, False, False]
    assert [shard.ref for shard in shards[:2]] == [shard.ref for shard in alone]


def test_a_file_that_changes_after_the_scan_costs_that_file_alone(begin, own):
    run = begin(settings=settings(own))
    scanned = steps.scan(run, "")
    (own["b"] / "images" / "001.png").unlink()

    read = [steps.ingest(run, scanned, shard) for shard in steps.shards(run, scanned)]
    table = steps.manifest(run, scanned, read).table()

    assert table.query("status != 'used'")["path"].tolist() == ["hospital-b/images/001.png"]


def test_numbers_of_patients_are_shared_unless_they_are_a_sources_own(begin, own):
    table = pd.read_csv(own["a"] / "COVID.metadata.csv")
    labels = pd.read_csv(own["b"] / "labels.csv")
    labels.loc[0, "who"] = table.loc[0, "PATIENT"]
    labels.to_csv(own["b"] / "labels.csv", index=False)
    shared = settings(own)
    apart = merge(
        shared,
        {"data": {"sources": [shared["data"]["sources"][0], shared["data"]["sources"][1] | {"patients": "own"}]}},
    )

    one, two = (
        reading.prepare(begin(name, settings=given), "").dataset().manifest()
        for name, given in (("1", shared), ("2", apart))
    )

    of_b = "hospital-b/images/000.png"
    patient = first_row(one, path=of_b)["patient"]
    assert patient and set(one.loc[one["patient"] == patient, "site"]) == {"hospital-a", "hospital-b"}
    other = first_row(two, path=of_b)["patient"]
    assert other not in ("", patient) and set(two.loc[two["patient"] == other, "site"]) == {"hospital-b"}
    assert not set(two.loc[two["site"] == "hospital-a", "patient"]) & set(
        two.loc[two["site"] == "hospital-b", "patient"]
    )


def test_the_form_names_no_source_beside_the_list_but_what_it_holds_at_first(begin, hospitals, monkeypatch):
    run = begin(settings=settings(hospitals))

    with pytest.raises(SettingsError, match=r"The source is /data/a, and data.sources lists hospital-a, hospital-b"):
        steps.scan(run, "/data/a")

    module = sys.modules["cxr_tasks.steps.scan"]
    monkeypatch.setattr(module, "SOURCE_FIELD", replace(SOURCE_FIELD, default="/data"))
    assert steps.scan(run, "/data").source == "hospital-a, hospital-b"


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"source": "/no/such/place"}, "The source 'hospital-b' cannot be used. .*/no/such/place does not exist"),
        ({"table": None}, "'hospital-b' cannot be used. Class 'COVID' has no image.* lists them in its own classes"),
        ({"table": TABLE | {"labels": {}}}, "'hospital-b' cannot be used. Class 'COVID' has no image in the table"),
        ({"table": TABLE | {"label": "class"}}, "'hospital-b' cannot be used. .*'class'"),
    ],
)
def test_a_source_that_cannot_be_read_is_named(begin, hospitals, changed, words):
    given = settings(hospitals)
    given["data"]["sources"][1] |= changed

    with pytest.raises(DataError, match=words):
        steps.scan(begin(settings=given), "")


@pytest.mark.parametrize(
    ("sources", "words"),
    [
        ([{"name": "a", "source": "/x"}, {"name": "A", "source": "/y"}], "two sources of the name 'a'"),
        ([{"name": "a/b", "source": "/x"}], "'a/b' is no name of a source"),
        ([{"name": "train", "source": "/x"}], "'train' is no name of a source"),
        ([{"name": "a", "source": "https://me:secret@host/x"}], "the address holds credentials"),
        ([{"name": "a", "source": "/x", "classes": ["Flu"]}], r"the source 'a' names \['Flu'\]"),
        ([{"name": "a", "source": "/x", "classes": ["COVID", "Normal"]}], "no source has the class 'Viral Pneumonia'"),
        ([{"name": "a", "source": "/x", "layout": "niih"}], "no layout 'niih'"),
        ([{"name": "a", "source": "/x", "layout": "nih", "folders": {}}], "one of layout, table and folders"),
        ([{"name": "a", "source": "/x", "patients": "mine"}], "data.sources.0.patients"),
    ],
)
def test_settings_of_sources_that_cannot_be_are_refused_in_a_sentence(sources, words):
    with pytest.raises(SettingsError, match=words) as refused:
        resolve("quick", {"data": {"sources": sources}})

    assert "secret" not in str(refused.value)


def test_where_sources_lie_changes_nothing_of_where_a_dataset_is_found(hospitals):
    one, moved = (resolve("quick", settings(where)) for where in (hospitals, {"a": Path("/x"), "b": Path("/y")}))

    assert _newest(one) == _newest(moved) != _newest(resolve("quick", reading.SETTINGS))


def test_a_source_may_have_one_class(begin, own):
    for label in ("Normal", "Viral Pneumonia"):
        shutil.rmtree(own["a"] / label)
        (own["a"] / f"{label}.metadata.csv").unlink()
    given = settings(own)
    given["data"]["sources"][0] |= {"classes": ["COVID"]}

    scanned = steps.scan(begin(settings=given), "")

    assert scanned.files == COUNTS | {"COVID": 2 * COUNTS["COVID"]}


def test_a_whole_source_tests_and_each_choice_of_sources_keeps_its_own_splits(begin, own):
    table, labels = pd.read_csv(own["a"] / "COVID.metadata.csv"), pd.read_csv(own["b"] / "labels.csv")
    shutil.copyfile(own["a"] / "Normal/images/Normal-1.png", own["b"] / "images" / "copy.png")
    labels.loc[len(labels)] = ["copy.png", "Normal", "B copy"]
    labels.loc[0, "who"] = table.loc[0, "PATIENT"]
    labels.to_csv(own["b"] / "labels.csv", index=False)
    plain = settings(own)
    run = begin(settings=plain)
    joined = steps.manifest(run, *reading.read(run, ""))
    validated = Validation(expectations=0, warnings=(), data_docs="")
    assert "1 files are in hospital-a and hospital-b: each is used once" in joined.warnings
    assert any(each.startswith("1 patient ids are in hospital-a and hospital-b") for each in joined.warnings)

    def split(*tests: str) -> tuple[Split, pd.DataFrame]:
        how = {"method": "leave-source-out" if tests else "stable", "test_sources": list(tests)}
        again = begin("again", settings=merge(plain, {"data": {"split": how}}))
        divided = steps.split(again, joined, validated)
        return divided, reading.rows_of(divided)

    stable, by_stable = split()
    left, rows = split("hospital-b")
    other, by_other = split("hospital-a")

    tested = rows[rows["split"] == "test"]
    assert set(tested["site"]) == {"hospital-b"} and len(tested) == sum(COUNTS.values()) + 1
    assert rows.at["hospital-b/images/copy.png", "split"] == "test"
    assert rows.at["hospital-a/Normal/images/Normal-1.png", "reason"] == "identical to hospital-b/images/copy.png"
    tied = rows[rows["reason"] == TIED]
    assert (
        len(tied)
        and set(tied["site"]) == {"hospital-a"}
        and not set(tied["patient"]) & set(rows.loc[rows["split"].isin(["train", "validation"]), "patient"])
    )
    assert any(f"{len(tied):,} images of other sources are left out of training" in each for each in left.warnings)
    assert set(by_other.loc[by_other["split"] == "test", "site"]) == {"hospital-a"}
    assert set(rows["split"]) == set(by_other["split"]) == {"", "train", "validation", "test"}
    # None of them changed what another one keeps.
    for before, tests in ((stable, ()), (left, ("hospital-b",)), (other, ("hospital-a",))):
        assert split(*tests)[0].ref == before.ref
    assert set(by_stable.loc[by_stable["split"] == "test", "site"]) == {"hospital-a", "hospital-b"}


@pytest.mark.slow
def test_a_run_by_hand_trains_on_one_hospital_and_tests_on_the_other(untracked, hospitals):
    split = {"method": "leave-source-out", "test_sources": ["hospital-b"]}
    small = {"classifiers": {"names": ["cnn"], "epochs": 1}, "evaluation": {"bootstrap_samples": 50}}
    run = LocalRun("", {"profile": "quick", "settings": merge(settings(hospitals, split=split), small)})

    arm = run.arm(Training(classifier="cnn", arm="none", seed=0))
    run.end()

    predicted, rows = arm.model.predictions(), run.dataset.manifest()
    for split_name, site in (("test", "hospital-b"), ("validation", "hospital-a")):
        ids = predicted.loc[predicted["split"] == split_name, "image_id"]
        assert set(ids) == set(rows.loc[(rows["split"] == split_name) & (rows["site"] == site), "image_id"])
    assert run.dataset.counts["test"] == COUNTS
