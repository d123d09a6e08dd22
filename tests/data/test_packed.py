"""Archives inside a source: which are opened, what their files are called, and that each image is read once."""

from __future__ import annotations

import io
import shutil
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from cxr_tasks.data.scan import entries_of
from cxr_tasks.data.sources import open_source
from cxr_tasks.errors import DataError
from tests.data.labelled import layout_in, layout_settings, scanned, table_settings, write
from tests.data.reading import data_settings
from tests.data.test_layouts import MINIATURES, build

SETTINGS = data_settings(classes=["COVID", "Normal"], folders={})


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CXR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "sources"


def pack(path: Path, files: dict[str, str] | list[str]) -> Path:
    """An archive of ``files``, whose content is their path where none is given."""
    contents = files if isinstance(files, dict) else {name: name for name in files}
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name.endswith(".zip"):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
            for name, text in contents.items():
                zipped.writestr(name, text)
        return path
    with tarfile.open(path, "w:gz") as tarred:
        for name, text in contents.items():
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            tarred.addfile(info, io.BytesIO(text.encode()))
    return path


def contents(folder: Path, settings: Any) -> dict[str, str]:
    """What can be read of each image that has a class, by its path."""
    files = scanned(folder, settings).reset_index()
    root = open_source(str(folder)).fetch(entries_of(files))
    return {path: (root / path).read_text() for path in files["path"]}


def nih(folder: Path, unpacked: tuple[str, ...] = ()) -> Path:
    """ChestX-ray14 as it is downloaded: archives beside the table and the lists, and what somebody has unpacked."""
    build(folder, MINIATURES["nih"])
    for number in ("001", "012"):
        inside = sorted((folder / f"images_{number}" / "images").iterdir())
        names = {f"images/{path.name}": f"{number} {path.name}" for path in inside}
        pack(folder / f"images_{number}.tar.gz", names)
        shutil.rmtree(folder / f"images_{number}")
        if number in unpacked:
            write(folder, tables={f"images_{number}/{name}": text for name, text in names.items()})
    return folder


def test_images_of_a_table_come_out_of_the_archives_that_a_data_set_is_published_in(tmp_path: Path) -> None:
    folder = nih(tmp_path / "nih")

    rows = scanned(folder, layout_settings("nih"))

    wanted = {path.replace("/", ".tar.gz/", 1): row for path, row in MINIATURES["nih"].rows.items()}
    assert set(rows.index) == set(wanted) and set(rows["fault"]) == {""}
    for path, row in wanted.items():
        assert {fact: rows.at[path, fact] for fact in row} == row, path
    for path, text in contents(folder, layout_settings("nih")).items():
        assert text == f"{path[7:10]} {Path(path).name}"
    found = layout_in(folder, layout_settings("nih"))
    assert found.told[-1] == "images_001.tar.gz and 1 more: archives inside the source were unpacked, 6 files"
    assert not [note for note in found.notes if "an archive" in note]


@pytest.mark.parametrize("unpacked", [("001",), ("012",), ("001", "012")])
def test_an_image_that_somebody_has_unpacked_is_read_once(tmp_path: Path, unpacked: tuple[str, ...]) -> None:
    whole = scanned(nih(tmp_path / "whole"), layout_settings("nih"))

    rows = scanned(nih(tmp_path / "part", unpacked), layout_settings("nih"))

    assert sorted(rows["sha256"]) == sorted(whole["sha256"])
    assert {"tar.gz" in path for path in rows.index} == ({False} if len(unpacked) == 2 else {False, True})


def test_archives_without_which_nothing_is_missing_are_left_alone(tmp_path: Path, cache: Path) -> None:
    write(tmp_path / "set", ["COVID/1.png", "Normal/2.png", "old.zip", "Normal.tar.gz"])

    found = layout_in(tmp_path / "set", SETTINGS)

    assert len(found.images) == 2 and not cache.exists()
    (note,) = found.notes
    assert note.startswith("'Normal.tar.gz' and 1 more: an archive inside a data source is read where")


@pytest.mark.parametrize(
    ("plain", "archives", "read"),
    [
        (["COVID/1.png", "Normal/2.png"], {"COVID/more.zip": ["a/3.png"]}, ["COVID/more.zip/a/3.png"]),
        (["Normal/2.png"], {"COVID.zip": ["1.png"]}, ["COVID.zip/1.png"]),
        (["Normal/2.png"], {"COVID.tgz": ["COVID/1.png"]}, ["COVID.tgz/COVID/1.png"]),
        ([], {"a.zip": ["COVID/1.png"], "b.tar.gz": ["Normal/1.png"]}, ["a.zip/COVID/1.png", "b.tar.gz/Normal/1.png"]),
        ([], {"x/a.zip": ["d/COVID/1.png", "d/Normal/2.png"]}, ["x/a.zip/d/COVID/1.png", "x/a.zip/d/Normal/2.png"]),
        (
            ["train/COVID/1.png", "train/Normal/2.png"],
            {"test.zip": ["COVID/3.png", "Normal/4.png"]},
            ["test.zip/COVID/3.png", "test.zip/Normal/4.png"],
        ),
    ],
)
def test_archives_in_the_place_of_class_folders_are_opened(
    tmp_path: Path, plain: list[str], archives: dict[str, list[str]], read: list[str]
) -> None:
    write(tmp_path / "set", plain)
    for path, inside in archives.items():
        pack(tmp_path / "set" / path, inside)

    found = contents(tmp_path / "set", SETTINGS)

    assert sorted(found) == sorted([*plain, *read])
    given = scanned(tmp_path / "set", SETTINGS)["given"]
    assert {path: split for path, split in given.items() if path in read and split} == {
        path: "test" for path in read if path.startswith("test")
    }


def test_what_was_unpacked_beside_an_archive_in_a_class_folder_is_read_once(tmp_path: Path) -> None:
    for name in ("here", "there"):
        pack(tmp_path / f"set/COVID/{name}.zip", [f"{name}-1.png", f"{name}-2.png"])
    write(tmp_path / "set", ["Normal/1.png"], {"set/x": ""})
    write(tmp_path / "set", tables={"COVID/here-1.png": "here-1.png", "COVID/there/there-1.png": "there-1.png"})
    # Another image of the same name, as series of DICOM have them.
    write(tmp_path / "set", tables={"COVID/other/here-2.png": "here-2.pngx"})

    found = contents(tmp_path / "set", SETTINGS)

    assert {path for path in found if path.startswith("COVID")} == {
        "COVID/here-1.png",
        "COVID/here.zip/here-2.png",
        "COVID/other/here-2.png",
        "COVID/there/there-1.png",
        "COVID/there.zip/there-2.png",
    }


def test_masks_may_lie_in_an_archive_of_their_own(tmp_path: Path) -> None:
    pack(tmp_path / "set/COVID/images.zip", ["1.png"])
    pack(tmp_path / "set/COVID/masks.zip", ["1.png"])
    write(tmp_path / "set", ["Normal/2.png"])

    found = layout_in(tmp_path / "set", SETTINGS)

    assert {path: mask.path for path, mask in found.masks.items()} == {
        "COVID/images.zip/1.png": "COVID/masks.zip/1.png"
    }
    assert [entry.path for _, entry in found.images] == ["COVID/images.zip/1.png", "Normal/2.png"]


def test_a_table_may_lie_in_an_archive_too(tmp_path: Path) -> None:
    pack(
        tmp_path / "set/all.zip", {"1.png": "1", "2.png": "2", "labels.csv": "file,label\n1.png,COVID\n2.png,Normal\n"}
    )

    assert scanned(tmp_path / "set", table_settings())["label"].to_dict() == {
        "all.zip/1.png": "COVID",
        "all.zip/2.png": "Normal",
    }


@pytest.mark.parametrize("way", ["traversal", "link", "bomb", "damaged"])
def test_an_archive_that_is_not_to_be_trusted_is_named_in_one_sentence(tmp_path: Path, cache: Path, way: str) -> None:
    folder = nih(tmp_path / "nih")
    archive = folder / "images_012.tar.gz"
    if way == "traversal":
        pack(archive, ["../images/1.png"])
    elif way == "link":
        with tarfile.open(archive, "w:gz") as tarred:
            info = tarfile.TarInfo("images")
            info.type, info.linkname = tarfile.SYMTYPE, str(tmp_path)
            tarred.addfile(info)
    elif way == "bomb":
        with tarfile.open(archive, "w:gz") as tarred:
            info = tarfile.TarInfo("images/1.png")
            info.size = 101 * 2**20
            tarred.addfile(info, io.BytesIO(bytes(info.size)))
    else:
        archive.write_bytes(archive.read_bytes()[:100])

    with pytest.raises(DataError, match=r"^The archive .*/nih/images_012.tar.gz is (refused|damaged)") as told:
        layout_in(folder, layout_settings("nih"))
    assert "\n" not in str(told.value)
    assert not (tmp_path / "images").exists() and len(list(cache.rglob("*.png"))) == 3


def test_an_archive_is_unpacked_once_and_again_when_it_has_changed(tmp_path: Path, cache: Path) -> None:
    folder = nih(tmp_path / "nih")
    before = contents(folder, layout_settings("nih"))
    (image,) = cache.glob("archives/*/*/files/images/00000001_000.png")
    made = image.stat().st_mtime_ns

    assert contents(folder, layout_settings("nih")) == before and image.stat().st_mtime_ns == made

    listed = scanned(folder, layout_settings("nih")).reset_index()
    pack(folder / "images_001.tar.gz", {"images/00000001_000.png": "another"})
    root = open_source(str(folder)).fetch(entries_of(listed))
    assert (root / "images_001.tar.gz/images/00000001_000.png").read_text() == "another"
    assert not (root / "images_001.tar.gz/images/00000001_001.png").exists()


def test_what_lies_beside_an_archive_can_be_opened_with_its_files(tmp_path: Path) -> None:
    pack(tmp_path / "set/COVID/deep/more.zip", ["3.png"])
    write(tmp_path / "set", ["COVID/deep/1.png", "COVID/4.png", "COVID/called.zip/5.png", "Normal/a/b/2.png"])

    found = contents(tmp_path / "set", SETTINGS)

    assert found == {path: path.removeprefix("COVID/deep/more.zip/") for path in found} and len(found) == 5
    # The archive is unpacked by hand and taken away.
    (tmp_path / "set/COVID/deep/more.zip").unlink()
    pack(tmp_path / "set/COVID/next.zip", ["6.png"])
    write(tmp_path / "set", ["COVID/deep/3.png"])
    again = contents(tmp_path / "set", SETTINGS)
    assert again.keys() - found.keys() == {"COVID/deep/3.png", "COVID/next.zip/6.png"} and len(again) == 6


def test_archives_below_a_prefix_of_a_bucket_are_opened(s3: str, tmp_path: Path) -> None:
    import boto3

    bucket, _, prefix = s3.removeprefix("s3://").partition("/")
    client: Any = boto3.client("s3")
    folder = nih(tmp_path / "nih")
    for path in folder.rglob("*"):
        if path.is_file():
            client.upload_file(str(path), bucket, f"{prefix}/{path.relative_to(folder)}")
    rows = scanned(folder, layout_settings("nih")).reset_index()

    from cxr_tasks.data.label_tables import lay_out_source
    from cxr_tasks.data.scan import scan_files

    source = open_source(s3)
    there = scan_files(source, lay_out_source(source, layout_settings("nih"), s3), {})

    assert there[["path", "label", "sha256"]].equals(rows[["path", "label", "sha256"]])


def test_a_damaged_archive_in_a_class_folder_is_set_aside_like_any_file(tmp_path: Path) -> None:
    write(tmp_path / "set", ["COVID/1.png", "COVID/more.zip", "Normal/2.png"])
    pack(tmp_path / "set/COVID/sound.zip", ["3.png"])

    found = layout_in(tmp_path / "set", SETTINGS)

    paths = [entry.path for _, entry in found.images]
    assert paths == ["COVID/1.png", "COVID/more.zip", "COVID/sound.zip/3.png", "Normal/2.png"]
    assert "COVID/more.zip is damaged" in found.notes[-1] and not found.notes[-1].endswith(".")
