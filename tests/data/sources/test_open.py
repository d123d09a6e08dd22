"""Which kind of source an address names, and what is said when it names none."""

import os
import zipfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from cxr_tasks.data.sources import open_source
from cxr_tasks.errors import DataError, SettingsError

GIVE = "give a folder, an archive (.zip, .tar.gz), s3://bucket/prefix or kaggle://owner/name."


def said(address: str) -> str:
    with pytest.raises(DataError) as raised:
        open_source(address)
    return str(raised.value)


def test_missing_source_is_named_with_what_to_give(tmp_path: Path) -> None:
    assert said(f"{tmp_path}/nowhere") == f"The data source {tmp_path}/nowhere does not exist: {GIVE}"
    assert said(f"{tmp_path}/nowhere.zip") == f"The data source {tmp_path}/nowhere.zip does not exist: {GIVE}"
    # As errors show it: what is no sign is written out.
    assert said(f"{tmp_path}/zero\0") == f"The data source {tmp_path}/zero\\x00 does not exist: {GIVE}"


def test_file_that_is_no_archive_is_named(tmp_path: Path) -> None:
    (tmp_path / "images.rar").touch()

    assert said(f"{tmp_path}/images.rar") == (
        f"The data source {tmp_path}/images.rar is a file, but not an archive that can be read "
        f"(.zip, .tar, .tar.gz, .tgz, .tar.bz2, .tbz2, .tar.xz, .txz): {GIVE}"
    )


@pytest.mark.parametrize("name", ["set.z01", "set.zip.001", "set.part1.rar", "set.7z.002", "set.tar.gz.aa", "set.r00"])
def test_part_of_a_split_archive_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()

    assert said(f"{tmp_path}/{name}").startswith(
        f"The data source {tmp_path}/{name} is one part of a split archive: put the parts together"
    )


@pytest.mark.parametrize("address", ["https://example.org/images.zip", "gs://bucket/images", "file:///data"])
def test_unknown_kind_is_named(address: str) -> None:
    assert said(address) == f"The data source {address} is of a kind that is not known: {GIVE}"


@pytest.mark.parametrize("address", ["", "  "])
def test_empty_address_is_not_the_working_folder(address: str) -> None:
    assert said(address) == f"No data source is given: {GIVE}"


@pytest.mark.parametrize("address", ["s3://", "s3:///prefix"])
def test_bucket_must_be_named(address: str) -> None:
    assert said(address) == f"The data source {address} names no bucket: give s3://bucket/prefix."


@pytest.mark.parametrize("name", ["name", "owner/name/3", "../..", "owner/name/versions/0", "owner/na me", ""])
def test_kaggle_dataset_must_be_named(name: str) -> None:
    assert said(f"kaggle://{name}").startswith(f"The data source kaggle://{name} names no Kaggle dataset: give ")


def test_folder_may_be_called_as_an_archive(tmp_path: Path) -> None:
    (tmp_path / "images.zip").mkdir()
    (tmp_path / "images.zip" / "a.png").touch()

    assert [entry.path for entry in open_source(f"{tmp_path}/images.zip").entries()] == ["a.png"]


def test_suffix_of_an_archive_is_taken_in_any_case(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "images.ZIP", "w") as archive:
        archive.writestr("a.png", "x")

    assert [entry.path for entry in open_source(f"{tmp_path}/images.ZIP").entries()] == ["a.png"]


def test_home_and_relative_addresses_are_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.png").touch()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)

    for address in ("~/data", "data", "./data/"):
        source = open_source(address)
        assert source.address == address
        assert source.fetch(source.entries()) == tmp_path / "data"


def test_folder_in_a_folder_that_may_not_be_entered_is_named(
    tmp_path: Path, as_nobody: Callable[[], AbstractContextManager[None]]
) -> None:
    (tmp_path / "data").mkdir()
    tmp_path.chmod(0o700)

    with as_nobody():
        assert said(f"{tmp_path}/data") == (
            f"The data source {tmp_path}/data cannot be read (permission denied): "
            "allow this user to read it and the folders above it."
        )


def test_cache_that_cannot_be_written_is_named(
    open_folder: Path, as_nobody: Callable[[], AbstractContextManager[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXR_CACHE", str(open_folder / "cache"))
    with zipfile.ZipFile(open_folder / "images.zip", "w") as archive:
        archive.writestr("a.png", "x")
    os.chmod(open_folder / "images.zip", 0o644)

    with as_nobody(), pytest.raises(SettingsError, match="cannot be written: set CXR_CACHE to a folder that can be"):
        open_source(f"{open_folder}/images.zip").entries()
