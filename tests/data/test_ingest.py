"""Bad files are set aside with a reason and stop nothing; the manifest leads to the pixels of the good ones."""

import errno
import hashlib
import os
import shutil
import tempfile
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cxr_tasks.config import DataSettings
from cxr_tasks.data.decode import LARGEST_FILE, decode
from cxr_tasks.data.duplicates import CLASH
from cxr_tasks.data.formats import Unusable
from cxr_tasks.data.ingest import (
    CHANGED,
    MANIFEST,
    MANIFEST_COLUMNS,
    NEAR,
    REJECTED_FILES,
    REJECTS,
    ROWS,
    SET_ASIDE,
    USED,
    FilesChanged,
    pixels_file,
    read_shard,
)
from cxr_tasks.data.scan import VANISHED
from tests.data.bad_files import ribs, write_bad_files
from tests.data.reading import Reading, data_settings, read_folder, scan_folder, split

# All drawings of ``ribs`` have the same fine stripes, so they may count as altered copies of each other.
TWO = data_settings(classes=["COVID", "Normal"], near_duplicates={"neighbours": 0})
SIZES = (48, 32)


def reasons(reading: Reading) -> dict[str, str]:
    """Why files were set aside, by path; also that rejects and manifest agree."""
    aside = reading.manifest[reading.manifest["status"] == SET_ASIDE]
    rejects = pd.read_parquet(reading.folder / REJECTS)
    assert rejects.to_dict("list") == aside[["path", "label", "reason"]].to_dict("list")
    assert (reading.manifest["reason"] == "").equals(reading.manifest["status"] == USED)
    return dict(zip(aside["path"], aside["reason"], strict=True))


def groups(reading: Reading) -> dict[str, str]:
    return dict(zip(reading.manifest["path"], reading.manifest["group"], strict=True))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Three different images of each of two classes."""
    folder = tmp_path / "source"
    for k, label in enumerate(TWO.classes):
        (folder / label / "images").mkdir(parents=True)
        for n in range(3):
            ribs(seed=10 * k + n).save(folder / label / "images" / f"{label}-{n}.png")
    return folder


class TestPhantomsAmongBadFiles:
    """Phantoms of three classes, read in several shards, with every kind of bad file among them."""

    settings: DataSettings = data_settings(shard_images=60)

    @pytest.fixture(scope="class")
    def mixed(self, phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
        """The source, and the kinds of its bad files by name."""
        folder = tmp_path_factory.mktemp("mixed") / "source"
        shutil.copytree(phantoms, folder)
        return folder, write_bad_files(folder / "COVID" / "images")

    @pytest.fixture(scope="class")
    def reading(self, mixed: tuple[Path, dict[str, str]], tmp_path_factory: pytest.TempPathFactory) -> Reading:
        return read_folder(mixed[0], tmp_path_factory.mktemp("work"), self.settings, SIZES)

    def test_each_bad_file_is_set_aside_with_its_reason_and_nothing_else(
        self, mixed: tuple[Path, dict[str, str]], reading: Reading
    ) -> None:
        folder, kinds = mixed
        expected = {}
        for name in kinds:
            path = f"COVID/images/{name}"
            printable = path.encode(errors="surrogateescape").decode(errors="backslashreplace")
            with pytest.raises(Unusable) as unusable:
                decode((folder / path).read_bytes(), name, SIZES)
            expected[printable] = str(unusable.value)

        assert reasons(reading) == expected
        assert reading.manifest["status"].value_counts().to_dict() == {USED: 40 + 60 + 36, SET_ASIDE: len(kinds)}

    def test_rejects_are_copied_as_far_as_they_can_be_opened(
        self, mixed: tuple[Path, dict[str, str]], reading: Reading
    ) -> None:
        folder = reading.folder / REJECTED_FILES
        copies = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

        # DICOM files may name patients and are not copied.
        openable = [path for path in reasons(reading) if "\\x" not in path and "DICOM" not in path]
        assert len(openable) == len(mixed[1]) - 3
        assert copies == {path: (mixed[0] / path).read_bytes() for path in openable}

    def test_manifest_leads_to_the_pixels_that_pillow_gives(
        self, mixed: tuple[Path, dict[str, str]], reading: Reading
    ) -> None:
        used = reading.manifest[reading.manifest["status"] == USED]
        assert len(reading.shards) == 4
        assert set(used["shard"]) == {0, 1, 2, 3}
        for size in SIZES:
            packed = [np.load(shard / pixels_file(size)) for shard in reading.shards]
            assert {(pixels.dtype, pixels.shape[1:]) for pixels in packed} == {(np.dtype(np.uint8), (size, size))}
            for row in used.itertuples():
                with Image.open(mixed[0] / row.path) as image:
                    plain = image.convert("L").resize((size, size), Image.Resampling.BILINEAR)
                np.testing.assert_array_equal(packed[row.shard][row.row], np.asarray(plain))

    def test_rows_say_what_the_files_are(self, mixed: tuple[Path, dict[str, str]], reading: Reading) -> None:
        manifest = reading.manifest

        assert manifest.columns.tolist() == MANIFEST_COLUMNS
        assert manifest[["label", "path"]].apply(tuple, axis=1).is_monotonic_increasing
        for row in manifest[manifest["status"] == USED].itertuples():
            content = (mixed[0] / row.path).read_bytes()
            gray = np.asarray(Image.open(mixed[0] / row.path).convert("L"))
            assert row.image_id == hashlib.sha256(content).hexdigest()
            assert row.path.startswith(f"{row.label}/images/")
            assert (row.width, row.height, row.mode) == (64, 64, "L")
            assert (row.mean, row.contrast) == (pytest.approx(gray.mean()), pytest.approx(gray.std()))
            assert (row.provenance, row.split, row.group) == ("real", "", row.patient)
            assert row.source.startswith("phantom-collection-")

    def test_what_is_written_is_what_is_returned(self, reading: Reading) -> None:
        pd.testing.assert_frame_equal(pd.read_parquet(reading.folder / MANIFEST), reading.manifest)
        pd.testing.assert_frame_equal(pd.read_parquet(reading.folder / NEAR), reading.near)

    def test_phantoms_of_different_patients_are_never_one_picture(self, reading: Reading) -> None:
        patients = reading.manifest.set_index("image_id")["patient"]

        assert (patients[reading.near["first"]].to_numpy() == patients[reading.near["second"]].to_numpy()).all()

    def test_the_number_of_shards_changes_nothing_but_where_pixels_are(
        self, mixed: tuple[Path, dict[str, str]], reading: Reading, tmp_path: Path
    ) -> None:
        whole = read_folder(mixed[0], tmp_path, data_settings(shard_images=10_000), SIZES)

        assert len(whole.shards) == 1
        place = ["shard", "row"]
        pd.testing.assert_frame_equal(whole.manifest.drop(columns=place), reading.manifest.drop(columns=place))
        pd.testing.assert_frame_equal(whole.near, reading.near)


def test_of_identical_files_of_a_class_the_first_stays(source: Path, tmp_path: Path) -> None:
    for name in ("copy-1.png", "copy-2.png"):
        shutil.copyfile(source / "COVID/images/COVID-0.png", source / "COVID/images" / name)

    reading = read_folder(source, tmp_path / "work", TWO)

    same = "identical to COVID/images/COVID-0.png"
    assert reasons(reading) == {"COVID/images/copy-1.png": same, "COVID/images/copy-2.png": same}


def test_of_identical_files_of_two_classes_none_stays(source: Path, tmp_path: Path) -> None:
    for copy in ("COVID/images/copy.png", "Normal/images/copy.png"):
        shutil.copyfile(source / "COVID/images/COVID-0.png", source / copy)

    reading = read_folder(source, tmp_path / "work", TWO)

    involved = ["COVID/images/COVID-0.png", "COVID/images/copy.png", "Normal/images/copy.png"]
    assert reasons(reading) == dict.fromkeys(involved, f"{CLASH}: {', '.join(involved)}")
    assert (reading.manifest["status"] == USED).sum() == 5


@pytest.mark.parametrize("label", TWO.classes)
def test_a_copy_that_was_encoded_again_shares_the_group_of_its_original(
    source: Path, tmp_path: Path, label: str
) -> None:
    with Image.open(source / "COVID/images/COVID-1.png") as image:
        image.save(source / label / "images" / "again.jpg", quality=90)

    reading = read_folder(source, tmp_path / "work", TWO)

    assert reasons(reading) == {}
    ids = reading.manifest.set_index("path")["image_id"]
    both = [ids["COVID/images/COVID-1.png"], ids[f"{label}/images/again.jpg"]]
    assert sorted(reading.near.iloc[0]) == sorted(both)
    assert len(reading.near) == 1
    of = groups(reading)
    assert of["COVID/images/COVID-1.png"] == of[f"{label}/images/again.jpg"] == min(both)
    assert len(set(of.values())) == 6


def test_group_is_the_patient_or_the_image_itself(source: Path, tmp_path: Path) -> None:
    (source / "COVID.metadata.csv").write_text("FILE NAME,URL,PATIENT\nCOVID-0,x,P1\nCOVID-1,x,P1\nCOVID-2,x,\n")

    manifest = read_folder(source, tmp_path / "work", TWO).manifest

    covid = manifest[manifest["label"] == "COVID"]
    assert covid["group"].tolist() == ["P1", "P1", covid["image_id"].iloc[2]]
    assert covid["patient"].tolist() == ["P1", "P1", ""]


def test_only_bad_files_give_a_manifest_without_images(source: Path, tmp_path: Path) -> None:
    for path in source.rglob("*.png"):
        path.write_bytes(path.name.encode())

    reading = read_folder(source, tmp_path / "work", data_settings(classes=TWO.classes, shard_images=2))

    assert set(reasons(reading).values()) == {"the file is not an image"}
    assert len(reading.manifest) == 6
    assert reading.near.empty


@given(st.lists(st.booleans(), min_size=1, max_size=5), st.lists(st.booleans(), min_size=1, max_size=5))
@settings(max_examples=15, deadline=None)
def test_any_mixture_of_good_and_bad_files_gives_a_manifest(first: list[bool], second: list[bool]) -> None:
    """Among them shards without a file, shards of rejects alone, classes without an image, and one image in all."""
    with tempfile.TemporaryDirectory() as scratch:
        for label, files in zip(TWO.classes, (first, second), strict=True):
            (Path(scratch) / "source" / label).mkdir(parents=True)
            for number, good in enumerate(files):
                path = Path(scratch) / "source" / label / f"{number}.png"
                ribs(seed=number + 50 * (label == "COVID")).save(path) if good else path.write_bytes(b"bad")

        data = data_settings(classes=TWO.classes, shard_images=1)
        reading = read_folder(Path(scratch) / "source", Path(scratch), data, (32,))
        divided = split(reading, data)

    assert (reading.manifest["status"] == USED).sum() == sum(first) + sum(second)
    assert (divided["split"] != "").sum() <= sum(first) + sum(second)


def test_a_shard_may_be_empty(source: Path, tmp_path: Path) -> None:
    rows = read_shard(source, scan_folder(source, TWO).iloc[:0], SIZES, tmp_path)

    assert rows.empty
    assert np.load(tmp_path / pixels_file(48)).shape == (0, 48, 48)


def test_files_that_changed_after_the_scan_are_named_and_nothing_is_kept(source: Path, tmp_path: Path) -> None:
    files = scan_folder(source, TWO)
    shutil.copyfile(source / "Normal/images/Normal-0.png", source / "COVID/images/COVID-0.png")
    (source / "COVID/images/COVID-1.png").write_bytes(b"no image any more")
    (source / "Normal/images/Normal-2.png").unlink()
    os.utime(source / "Normal/images/Normal-1.png", (0, 0))

    with pytest.raises(FilesChanged) as raised:
        read_shard(source, files, SIZES, tmp_path)

    assert raised.value.faults == {
        "COVID/images/COVID-0.png": CHANGED,
        "COVID/images/COVID-1.png": CHANGED,
        "Normal/images/Normal-2.png": VANISHED,
    }
    assert not (tmp_path / ROWS).exists()
    assert not (tmp_path / REJECTED_FILES).exists()


def test_with_the_faults_of_changed_files_the_rest_can_be_read(source: Path, tmp_path: Path) -> None:
    files = scan_folder(source, TWO)
    (source / "Normal/images/Normal-2.png").unlink()
    with pytest.raises(FilesChanged) as raised:
        read_shard(source, files, SIZES, tmp_path)
    files["fault"] = files["path"].map(raised.value.faults).fillna(files["fault"])

    rows = read_shard(source, files, SIZES, tmp_path).set_index("path")

    assert rows.loc["Normal/images/Normal-2.png", ["status", "reason"]].tolist() == [SET_ASIDE, VANISHED]
    assert (rows["status"] == USED).sum() == 5


def test_what_is_no_plain_file_is_set_aside_and_not_copied(source: Path, tmp_path: Path) -> None:
    # To copy a device to its end would fill the disk, and a pipe has no end.
    (source / "COVID/images/device.png").symlink_to("/dev/null")
    (source / "COVID/images/nowhere.png").symlink_to("nothing")
    os.mkfifo(source / "COVID/images/pipe.png")

    reading = read_folder(source, tmp_path / "work", TWO)

    assert reasons(reading) == {
        "COVID/images/device.png": "it is not a regular file",
        "COVID/images/nowhere.png": "the symbolic link leads nowhere",
        "COVID/images/pipe.png": "it is not a regular file",
    }
    assert not [path for path in (tmp_path / "work").rglob("*") if path.name in {"device.png", "pipe.png"}]


def test_a_file_may_be_named_as_another_is_shown(source: Path, tmp_path: Path) -> None:
    (source / "COVID/images" / os.fsdecode(b"R\xf6ntgen.png")).write_bytes(b"not UTF-8")
    ribs(seed=99).save(source / "COVID/images" / r"R\xf6ntgen.png")

    reading = read_folder(source, tmp_path / "work", TWO)

    assert reasons(reading) == {r"COVID/images/R\xf6ntgen.png": "the file name is not UTF-8: rename the file"}
    assert (reading.manifest["status"] == USED).sum() == 7


def test_a_shard_does_not_hold_all_files_in_memory(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1})
    for n in range(30):
        with (source / "COVID/images" / f"large-{n}.png").open("wb") as file:
            file.truncate(2_000_000 + n)
    files = scan_folder(source, TWO)

    tracemalloc.start()
    try:
        rows = read_shard(source, files, SIZES, tmp_path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert (rows["status"] == SET_ASIDE).sum() == 30
    assert peak < 20_000_000


def test_a_file_that_cannot_be_read_for_the_moment_is_not_remembered_as_bad(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = scan_folder(source, TWO)

    def fails(path: str, *arguments: Any, **more: Any) -> Any:
        if path.endswith(files["path"].iloc[0]):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return open(path, *arguments, **more)

    # A disk that fails on demand is not to be had.
    monkeypatch.setattr("cxr_tasks.data.ingest.open", fails, raising=False)
    with pytest.raises(FilesChanged) as caught:
        read_shard(source, files, [32], tmp_path)

    assert caught.value.faults == {files["path"].iloc[0]: "the file cannot be read (Input/output error)"}


def test_a_huge_file_is_neither_read_nor_copied(source: Path, tmp_path: Path) -> None:
    with (source / "COVID/images/volume.png").open("wb") as stream:
        stream.truncate(LARGEST_FILE + 1)

    reading = read_folder(source, tmp_path / "work", TWO)

    assert reasons(reading) == {"COVID/images/volume.png": "the file has 256 MiB: at most 256 are read"}
    assert not list((tmp_path / "work").rglob("volume.png"))
