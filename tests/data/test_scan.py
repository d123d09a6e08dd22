"""A scan says what every file is, reads none twice, and its keys change with what they stand for and nothing else."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr_tasks.data.scan import (
    SCAN_COLUMNS,
    content_key,
    entries_of,
    known_hashes,
    listing_key,
    scan_files,
    shard_numbers,
    write_by_shard,
)
from cxr_tasks.data.sources import Entry, open_source
from cxr_tasks.data.sources.folder import FolderSource
from tests.data.reading import data_settings, layout_of, scan_folder

SETTINGS = data_settings(classes=["COVID", "Normal"])


@pytest.fixture
def source() -> Iterator[Path]:
    """Two classes with two files each, whose content is their path; other users may read it."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    for path in ("COVID/images/1.png", "COVID/images/2.png", "Normal/images/1.png", "Normal/images/2.png"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(path)
    (folder / "COVID.metadata.csv").write_text("FILE NAME,URL,PATIENT\n1,here,P1\n")
    yield folder
    shutil.rmtree(folder)


def faults(files: pd.DataFrame) -> dict[str, str]:
    assert ((files["sha256"] == "") == (files["fault"] != "")).all()
    return {row.path: row.fault for row in files.itertuples() if row.fault}


def keys(source: Path) -> tuple[str, str]:
    """Of the listing and of the content."""
    return listing_key(layout_of(source, SETTINGS)), content_key(scan_folder(source, SETTINGS))


def known(files: pd.DataFrame) -> dict[tuple[str, str], str]:
    return {(row.path, row.stamp): row.sha256 for row in files.itertuples()}


def test_every_file_comes_with_class_hash_and_what_the_tables_say(source: Path) -> None:
    files = scan_folder(source, SETTINGS)

    assert files.columns.tolist() == [*SCAN_COLUMNS, "shard"]
    assert files["path"].tolist() == [f"{c}/images/{n}.png" for c in ("COVID", "Normal") for n in (1, 2)]
    assert files["label"].tolist() == ["COVID", "COVID", "Normal", "Normal"]
    assert files["sha256"].tolist() == [hashlib.sha256(path.encode()).hexdigest() for path in files["path"]]
    assert files["size"].tolist() == [len(path) for path in files["path"]]
    assert files["patient"].tolist() == ["P1", "", "", ""]
    assert files["source"].tolist() == ["here", "", "", ""]
    assert faults(files) == {}


def test_what_is_known_is_not_read_again(source: Path) -> None:
    layout = layout_of(source, SETTINGS)
    before = known(scan_folder(source, SETTINGS))
    shutil.rmtree(source / "COVID")

    files = scan_files(open_source(str(source)), layout, before)

    assert known(files) == before
    assert faults(files) == {}


def test_a_file_whose_stamp_is_new_is_read_and_no_other(source: Path) -> None:
    before = dict.fromkeys(known(scan_folder(source, SETTINGS)), "as before")
    (source / "COVID/images/2.png").write_text("something else")
    (source / "Normal/images/3.png").write_text("new")

    files = scan_folder(source, SETTINGS, before).set_index("path")["sha256"]

    assert files.to_dict() == {
        "COVID/images/1.png": "as before",
        "COVID/images/2.png": hashlib.sha256(b"something else").hexdigest(),
        "Normal/images/1.png": "as before",
        "Normal/images/2.png": "as before",
        "Normal/images/3.png": hashlib.sha256(b"new").hexdigest(),
    }


@pytest.fixture
def masked(source: Path) -> Path:
    """The source, whose first image of each class has a mask."""
    for label in SETTINGS.classes:
        (source / label / "masks").mkdir()
        (source / label / "masks" / "1.png").write_text(f"mask of {label}")
    return source


def test_the_mask_of_an_image_comes_with_it(masked: Path) -> None:
    files = scan_folder(masked, SETTINGS)

    assert files["path"].tolist() == [f"{c}/images/{n}.png" for c in ("COVID", "Normal") for n in (1, 2)]
    assert files["mask"].tolist() == ["COVID/masks/1.png", "", "Normal/masks/1.png", ""]
    hashes = [hashlib.sha256(f"mask of {label}".encode()).hexdigest() for label in SETTINGS.classes]
    assert files["mask_sha256"].tolist() == [hashes[0], "", hashes[1], ""]
    assert [entry.path for entry in entries_of(files)] == [*files["path"], "COVID/masks/1.png", "Normal/masks/1.png"]


def test_what_is_known_of_masks_is_not_read_again(masked: Path) -> None:
    files, watched = scan_folder(masked, SETTINGS), Watched(masked)

    again = scan_files(watched, layout_of(masked, SETTINGS), known_hashes(files))

    assert watched.fetched == ["COVID.metadata.csv"]
    assert again["mask_sha256"].tolist() == files["mask_sha256"].tolist()


@pytest.mark.parametrize("change", ["another", "gone", "new"])
def test_a_mask_that_changes_changes_both_keys(masked: Path, change: str) -> None:
    listing, content = keys(masked)
    mask = masked / "COVID/masks" / ("2.png" if change == "new" else "1.png")
    if change == "gone":
        mask.unlink()
    else:
        mask.write_text(change)

    changed = keys(masked)

    assert changed[0] != listing
    assert changed[1] != content


def test_a_mask_that_cannot_be_read_is_no_fault_of_its_image(masked: Path) -> None:
    (masked / "COVID/masks/1.png").unlink()
    (masked / "COVID/masks/1.png").symlink_to("nowhere.png")

    files = scan_folder(masked, SETTINGS)

    assert faults(files) == {}
    assert files["mask"].iloc[0] == "COVID/masks/1.png" and files["mask_sha256"].iloc[0] == ""
    assert "COVID/masks/1.png" not in [entry.path for entry in entries_of(files)]


def test_an_image_that_cannot_be_opened_has_no_mask(masked: Path) -> None:
    name = os.fsdecode(b"R\xf6ntgen.png")
    for kind in ("images", "masks"):
        (masked / "COVID" / kind / name).write_text("x")

    files = scan_folder(masked, SETTINGS).set_index("path")

    assert files.at["COVID/images/R\\xf6ntgen.png", "mask"] == ""


def test_a_fault_is_no_knowledge(source: Path) -> None:
    before = dict.fromkeys(known(scan_folder(source, SETTINGS)), "")

    assert faults(scan_folder(source, SETTINGS, before)) == {}


class Watched(FolderSource):
    """Remembers the paths that were fetched."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.fetched: list[str] = []

    def fetch(self, entries: Sequence[Entry]) -> Path:
        self.fetched += [entry.path for entry in entries]
        return super().fetch(entries)


def test_only_unknown_files_are_fetched(source: Path) -> None:
    first, second = Watched(source), Watched(source)

    files = scan_files(first, layout_of(source, SETTINGS), {})
    scan_files(second, layout_of(source, SETTINGS), known(files))

    assert first.fetched == [*files["path"], "COVID.metadata.csv"]
    assert second.fetched == ["COVID.metadata.csv"]


def test_vanished_files_have_a_fault(source: Path) -> None:
    layout = layout_of(source, SETTINGS)
    (source / "COVID/images/1.png").unlink()
    shutil.rmtree(source / "Normal")

    files = scan_files(open_source(str(source)), layout, {})

    vanished = ["COVID/images/1.png", "Normal/images/1.png", "Normal/images/2.png"]
    assert faults(files) == dict.fromkeys(vanished, "the file vanished while the data were read")


def test_unreadable_files_and_folders_have_a_fault(source: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can take the place of another user")
    layout = layout_of(source, SETTINGS)
    (source / "COVID/images/1.png").chmod(0o600)
    (source / "Normal/images").chmod(0o700)

    os.seteuid(65534)
    try:
        again = scan_folder(source, SETTINGS)
        files = scan_files(open_source(str(source)), layout, {})
    finally:
        os.seteuid(0)

    denied = "the file cannot be read (permission denied)"
    assert faults(files) == dict.fromkeys(["COVID/images/1.png", "Normal/images/1.png", "Normal/images/2.png"], denied)
    assert faults(again) == {
        "COVID/images/1.png": denied,
        "Normal/images": "the folder cannot be read (permission denied)",
    }


def test_what_cannot_be_opened_has_a_fault_and_does_not_block(source: Path) -> None:
    os.mkfifo(source / "COVID/images/3.png")
    (source / "COVID/images/4.png").symlink_to("nowhere.png")

    files = scan_folder(source, SETTINGS)

    assert faults(files) == {
        "COVID/images/3.png": "it is not a regular file",
        "COVID/images/4.png": "the symbolic link leads nowhere",
    }
    assert [entry.path for entry in entries_of(files)] == files.loc[files["fault"] == "", "path"].tolist()


def test_a_name_that_is_not_utf8_can_be_printed_and_is_never_opened(source: Path) -> None:
    (source / "COVID/images" / os.fsdecode(b"R\xf6ntgen.png")).write_text("x")
    watched = Watched(source)

    files = scan_files(watched, layout_of(source, SETTINGS), {})

    assert faults(files) == {"COVID/images/R\\xf6ntgen.png": "the file name is not UTF-8: rename the file"}
    assert files["path"].str.encode("utf-8").notna().all()
    assert len(watched.fetched) == 5
    assert len(entries_of(files)) == 4


def test_names_of_all_languages_are_fine(source: Path) -> None:
    (source / "COVID/images/Röntgen 胸.png").write_text("x")

    assert "COVID/images/Röntgen 胸.png" in scan_folder(source, SETTINGS)["path"].tolist()
    assert faults(scan_folder(source, SETTINGS)) == {}


def test_the_same_folder_has_the_same_keys(source: Path) -> None:
    assert keys(source) == keys(source)


def test_a_new_stamp_changes_the_listing_and_not_the_content(source: Path) -> None:
    listing, content = keys(source)
    os.utime(source / "COVID/images/1.png", (0, 0))

    changed = keys(source)

    assert changed[0] != listing
    assert changed[1] == content


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("COVID/images/1.png", "other content"),
        ("COVID/images/3.png", "one more file"),
        ("COVID.metadata.csv", "FILE NAME,URL,PATIENT\n1,here,P2\n"),
        ("COVID.metadata.csv", "FILE NAME,URL,PATIENT\n1,there,P1\n"),
        ("Normal.metadata.csv", "FILE NAME,PATIENT\n1,P1\n"),
    ],
)
def test_what_a_file_is_and_what_is_known_of_it_change_both_keys(source: Path, path: str, text: str) -> None:
    listing, content = keys(source)
    (source / path).write_text(text)

    changed = keys(source)

    assert changed[0] != listing
    assert changed[1] != content


@pytest.mark.parametrize("target", ["Normal/images/3.png", "COVID/images/3.png", "COVID/2.png"])
def test_another_class_or_name_changes_both_keys(source: Path, target: str) -> None:
    listing, content = keys(source)
    (source / "COVID/images/2.png").rename(source / target)

    changed = keys(source)

    assert changed[0] != listing
    assert changed[1] != content


def test_a_folder_that_stands_for_another_class_changes_the_content(source: Path) -> None:
    files = scan_folder(source, SETTINGS)

    assert content_key(files.assign(label="Normal")) != content_key(files)


def test_a_table_that_says_the_same_in_other_words_changes_no_content(source: Path) -> None:
    listing, content = keys(source)
    (source / "COVID.metadata.csv").write_text("Patient,url,file name,SIZE\nP1,here,1.png,5\n")

    changed = keys(source)

    assert changed[0] != listing
    assert changed[1] == content


def test_a_file_that_becomes_unreadable_changes_both_keys(source: Path) -> None:
    listing, content = keys(source)
    (source / "COVID/images/1.png").unlink()
    (source / "COVID/images/1.png").symlink_to("nowhere.png")

    changed = keys(source)

    assert changed[0] != listing
    assert changed[1] != content


def numbers(paths: list[str], shard_images: int) -> dict[str, int]:
    return dict(zip(paths, shard_numbers(pd.DataFrame({"path": paths}, dtype=str), shard_images), strict=True))


names = st.lists(st.text("abc/ü1", min_size=1, max_size=6), min_size=1, max_size=40, unique=True)


@given(names, st.text("xyz", min_size=1), st.integers(1, 10))
def test_a_new_file_disturbs_one_shard_unless_their_number_doubles(
    paths: list[str], new: str, shard_images: int
) -> None:
    before, after = numbers(paths, shard_images), numbers([*paths, new], shard_images)

    shards, now = (1 << max(0, (-(-count // shard_images) - 1).bit_length()) for count in (len(before), len(after)))
    assert all(0 <= number < now for number in after.values())
    assert now in (shards, 2 * shards)
    assert before == {path: after[path] % shards for path in paths}
    if now == shards:
        assert before.items() <= after.items()


def test_files_are_spread_evenly_over_few_enough_shards() -> None:
    paths = [f"COVID/images/COVID-{n}.png" for n in range(4000)]

    assert set(numbers(paths, 4000).values()) == {0}
    counts = pd.Series(numbers(paths, 1000)).value_counts()
    assert sorted(counts.index) == [0, 1, 2, 3]
    assert counts.between(900, 1100).all()
    # Airflow maps a task over at most 1024 things.
    assert max(numbers(paths, 1).values()) < 1024


def test_the_rows_of_a_shard_are_read_without_the_others(source: Path, tmp_path: Path) -> None:
    shards = [2, 0, 2, 0]
    files = scan_folder(source, SETTINGS).assign(shard=shards)

    write_by_shard(files, tmp_path / "files.parquet")

    written = pq.ParquetFile(tmp_path / "files.parquet")
    groups = [written.metadata.row_group(place) for place in range(written.num_row_groups)]
    column = written.schema_arrow.names.index("shard")
    bounds = [(group.column(column).statistics.min, group.column(column).statistics.max) for group in groups]
    assert bounds == [(0, 0), (2, 2)] and [group.num_rows for group in groups] == [2, 2]
    read = pd.read_parquet(tmp_path / "files.parquet")
    pd.testing.assert_frame_equal(read, files.sort_values("shard", kind="stable", ignore_index=True))
    of_one = pd.read_parquet(tmp_path / "files.parquet", filters=[("shard", "==", 2)])
    pd.testing.assert_frame_equal(of_one, files[files["shard"] == 2].reset_index(drop=True))
