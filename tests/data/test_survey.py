"""A look at data before training tells what a run would use, and what keeps it from running, all at once."""

import json
import shutil
import tempfile
from pathlib import Path

import boto3
import pandas as pd
import pytest
from PIL import Image
from pydantic import ValidationError

from cxr_tasks.config import Settings, resolve
from cxr_tasks.data import survey as surveying
from cxr_tasks.data.decode import KEY_OF_THIS_PROCESS
from cxr_tasks.data.duplicates import CLASH
from cxr_tasks.data.ingest import MANIFEST_COLUMNS, SET_ASIDE
from cxr_tasks.data.patients import with_pseudonyms
from cxr_tasks.data.scan import VANISHED
from cxr_tasks.data.survey import Survey, survey
from cxr_tasks.errors import DataError, SettingsError
from tests.data.bad_files import write_bad_files
from tests.data.reading import read_folder, split

pytestmark = pytest.mark.slow

COUNTS = {"COVID": 40, "Normal": 60, "Viral Pneumonia": 36}


@pytest.fixture(scope="module")
def quick() -> Settings:
    return resolve("quick")


@pytest.fixture(scope="module")
def same_place() -> Settings:
    """Seeks no altered copies, as which the images of one phantom patient count."""
    return resolve("quick", {"data": {"near_duplicates": {"neighbours": 0}}})


@pytest.fixture(scope="module")
def surveyed(phantoms: Path, quick: Settings) -> tuple[Survey, pd.DataFrame]:
    return survey(str(phantoms), quick)


@pytest.fixture
def source(phantoms: Path, tmp_path: Path) -> Path:
    return shutil.copytree(phantoms, tmp_path / "source")


def test_good_data_pass_with_every_figure(surveyed: tuple[Survey, pd.DataFrame], phantoms: Path) -> None:
    found, _ = surveyed
    tables = [pd.read_csv(phantoms / f"{label}.metadata.csv") for label in COUNTS]
    sizes = pd.concat(tables).groupby("PATIENT").size()

    assert (found.source, found.profile, found.passed) == (str(phantoms), "quick", True)
    assert found.files == found.images == COUNTS
    assert found.set_aside == found.warnings == found.failures == ()
    # A model can tell phantoms of COVID by the collection, as in the real set.
    assert found.coincidences[0].startswith("All 40 images of COVID are of source phantom-collection-c, and so is none")
    assert (found.known_patients, found.patients, found.groups) == (136, len(sizes), len(sizes))
    assert found.largest_groups == {
        label: table.groupby("PATIENT").size().max() for label, table in zip(COUNTS, tables, strict=True)
    }
    # The images of a phantom patient are one drawing, framed anew. That no groups were joined says that others are not.
    assert found.near_duplicates > 0
    assert (found.masks, found.unusable_masks) == (136, 0)
    assert [table.model_dump() for table in found.tables] == [
        {"path": f"{label}.metadata.csv", "label": label, "rows": count, "matched": count}
        for label, count in COUNTS.items()
    ]


def test_the_manifest_is_that_of_a_run(
    surveyed: tuple[Survey, pd.DataFrame], phantoms: Path, quick: Settings, tmp_path: Path
) -> None:
    found, manifest = surveyed

    whole = split(read_folder(phantoms, tmp_path, quick.data), quick.data, quick.seeds.split)

    named = ["patient", "study", "group"]
    hidden = with_pseudonyms(whole, KEY_OF_THIS_PROCESS)
    pd.testing.assert_frame_equal(manifest.drop(columns="group"), hidden.drop(columns=["shard", "row", "group"]))
    assert (manifest[named].nunique() == whole[named].nunique()).all()
    assert [*manifest.columns, "shard", "row"] == MANIFEST_COLUMNS
    counts = whole.groupby(["split", "label"]).size()
    assert found.splits == {
        name: {label: counts[name, label] for label in COUNTS} for name in ("train", "validation", "test")
    }


def test_it_is_json_that_reads_back_and_nothing_changes_it(surveyed: tuple[Survey, pd.DataFrame]) -> None:
    found, _ = surveyed

    assert Survey.model_validate_json(found.model_dump_json()) == found
    with pytest.raises(ValidationError, match="frozen"):
        found.passed = False  # type: ignore[misc]
    with pytest.raises(ValidationError, match="more"):
        Survey.model_validate(json.loads(found.model_dump_json()) | {"more": 1})


@pytest.mark.parametrize(("size", "reason"), [((50, 50), "at least 64 a side"), ((9000, 5000), "at most 40,000,000")])
def test_an_image_of_a_size_that_is_not_read_is_set_aside_and_the_rest_passes(
    source: Path, quick: Settings, size: tuple[int, int], reason: str
) -> None:
    with Image.open(source / "COVID/images/COVID-1.png") as image:
        image.resize(size).save(source / "COVID/images/odd.png", compress_level=1)
    (source / "more.7z").touch()

    found, _ = survey(str(source), quick)

    assert found.passed and found.failures == ()
    (aside,) = found.set_aside
    assert aside.examples == ("COVID/images/odd.png",) and reason in aside.reason
    assert found.warnings == ("'more.7z': an archive of this kind is not read inside a data source: unpack it",)


def test_bad_files_fail_the_data_and_the_rest_is_still_told(source: Path, same_place: Settings) -> None:
    bad = write_bad_files(source / "COVID" / "images")
    for copy in ("copy-1.png", "copy-2.png"):
        shutil.copyfile(source / "Normal/images/Normal-1.png", source / "Normal/images" / copy)
    shutil.copyfile(source / "Normal/images/Normal-2.png", source / "Viral Pneumonia/images/clash.png")
    with Image.open(source / "Normal/images/Normal-3.png") as image:
        image.save(source / "Normal/images/again.jpg", quality=95)

    found, manifest = survey(str(source), same_place)

    aside = manifest[manifest["status"] == SET_ASIDE]
    share = f"{len(aside) / len(manifest):.6g}"
    assert not found.passed
    assert found.failures == (
        f"rejected fraction: expected at most 0.05, found {share}",
        "images under two classes: expected at most 0, found 2",
    )
    assert found.files == {"COVID": 40 + len(bad), "Normal": 63, "Viral Pneumonia": 37}
    assert found.images == {"COVID": 40, "Normal": 60, "Viral Pneumonia": 36}
    assert sum(some.files for some in found.set_aside) == len(aside) == len(bad) + 4
    assert [some.files for some in found.set_aside] == sorted((some.files for some in found.set_aside), reverse=True)
    told = {(some.label, some.reason): some for some in found.set_aside}
    copies = told["Normal", "identical to another image of the class"]
    assert (copies.files, copies.examples) == (2, ("Normal/images/copy-1.png", "Normal/images/copy-2.png"))
    assert told["Normal", CLASH].examples == ("Normal/images/Normal-2.png",)
    assert told["Viral Pneumonia", CLASH].examples == ("Viral Pneumonia/images/clash.png",)
    assert found.near_duplicates == 1
    assert sum(found.splits["train"].values()) > 100


def test_of_many_files_with_one_reason_a_few_are_shown(source: Path, quick: Settings) -> None:
    for n in range(1, 6):
        (source / f"COVID/images/COVID-{n}.png").write_bytes(b"no image")
    (source / "Normal/masks/Normal-1.png").write_bytes(b"no mask")

    found, _ = survey(str(source), quick)

    (aside,) = found.set_aside
    assert (aside.label, aside.reason, aside.files) == ("COVID", "the file is not an image", 5)
    assert aside.examples == tuple(f"COVID/images/COVID-{n}.png" for n in range(1, 4))
    assert (found.masks, found.unusable_masks) == (136, 1)
    assert found.passed


def test_no_usable_image_at_all_is_told(source: Path, quick: Settings) -> None:
    for image in source.glob("*/images/*"):
        image.write_bytes(b"no image")

    found, _ = survey(str(source), quick)

    assert [line.rpartition(",")[0] for line in found.failures] == [
        *(f"images of {label}: expected at least 30" for label in COUNTS),
        "rejected fraction: expected at most 0.05",
    ]
    assert found.images == found.largest_groups == found.splits["train"] == dict.fromkeys(COUNTS, 0)
    assert (found.groups, found.patients) == (0, 0)


def test_a_table_that_names_some_other_files_is_a_warning(source: Path, same_place: Settings) -> None:
    (source / "COVID.metadata.csv").unlink()
    (source / "Normal.metadata.csv").write_text("FILE NAME,PATIENT\nNormal-1.png,P1\nnormal-2,P1\nscan-3,P2\n")
    (source / "Viral Pneumonia.metadata.csv").write_text("FILE NAME,PATIENT\n")

    found, _ = survey(str(source), same_place)

    assert [(table.rows, table.matched) for table in found.tables] == [(3, 2), (0, 0)]
    assert (found.known_patients, found.patients, found.groups) == (2, 1, 135)
    (warning,) = found.warnings
    assert warning.startswith("Normal.metadata.csv: 2 of its 3 rows name an image of the class 'Normal', and 58 of 60")
    assert found.passed


def test_a_table_that_names_none_of_the_files_stops(source: Path, quick: Settings) -> None:
    (source / "COVID.metadata.csv").write_text("FILE NAME,PATIENT\nscan-1,P1\nscan-2,P2\n")

    with pytest.raises(DataError, match=r"COVID\.metadata\.csv: 0 of its 2 rows name an image of the class 'COVID'"):
        survey(str(source), quick)


def test_what_makes_a_source_unreadable_is_raised_in_a_sentence(source: Path, quick: Settings) -> None:
    shutil.rmtree(source / "Normal")
    with pytest.raises(DataError, match="Class 'Normal' has no image"):
        survey(str(source), quick)
    with pytest.raises(DataError, match="nowhere does not exist: give a folder"):
        survey(f"{source}/nowhere", quick)
    with pytest.raises(SettingsError, match="No data source is given"):
        survey("", quick)


def test_a_table_that_cannot_be_read_is_told_before_the_images_are(
    source: Path, quick: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(surveying, "scan_files", lambda *_: pytest.fail("the images were read"))
    (source / "COVID.metadata.csv").write_text("name\n1\n")

    with pytest.raises(DataError, match="has no column 'FILE NAME'"):
        survey(str(source), quick)


def test_files_that_change_meanwhile_are_set_aside(
    source: Path, quick: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan_files = surveying.scan_files

    def and_then_some_vanish(*arguments: object) -> pd.DataFrame:
        files = scan_files(*arguments)  # type: ignore[arg-type]
        (source / "COVID/images/COVID-1.png").unlink()
        (source / "COVID/masks/COVID-2.png").unlink()
        return files

    monkeypatch.setattr(surveying, "scan_files", and_then_some_vanish)

    found, _ = survey(str(source), quick)

    (aside,) = found.set_aside
    assert (aside.reason, aside.examples) == (VANISHED, ("COVID/images/COVID-1.png",))
    assert found.unusable_masks == 1


def test_how_far_it_is_is_told(phantoms: Path, quick: Settings) -> None:
    told: dict[str, list[tuple[int, int]]] = {}

    survey(str(phantoms), quick, progress=lambda work, *parts: told.setdefault(work, []).append(parts))

    assert list(told) == ["list files", "hash files", "read files", "compare images", "check expectations"]
    for steps in told.values():
        assert steps == sorted(steps)
        assert steps[-1][0] == steps[-1][1]
    assert told["read files"][-1] == (136, 136)


def test_nothing_but_the_source_is_needed_and_nothing_is_left(
    source: Path, quick: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CXR_STORE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    before = sorted(source.rglob("*"))

    survey(str(source), quick)

    assert not list((tmp_path / "temporary").iterdir())
    assert sorted(source.rglob("*")) == before


def test_a_bucket_is_looked_at_as_a_folder_is(
    surveyed: tuple[Survey, pd.DataFrame], phantoms: Path, quick: Settings, s3: str
) -> None:
    client, bucket = boto3.client("s3"), s3.split("/")[2]
    for path in phantoms.rglob("*.*"):
        client.upload_file(str(path), bucket, f"cxr/{path.relative_to(phantoms)}")

    found, manifest = survey(s3, quick)

    assert found == surveyed[0].model_copy(update={"source": s3})
    pd.testing.assert_frame_equal(manifest, surveyed[1])
