"""What is found in a folder, and what is said of files that cannot be read."""

import os
import shutil
import socket
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from cxr_tasks.data.sources import folder as folder_module
from cxr_tasks.data.sources.folder import FolderSource
from cxr_tasks.errors import DataError

AsNobody = Callable[[], AbstractContextManager[None]]


def write(root: Path, *paths: str) -> Path:
    """Files whose content is their path."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(path)
    return root


def paths(root: Path) -> list[str]:
    return [entry.path for entry in FolderSource(root).entries()]


def faults(root: Path) -> dict[str, str]:
    return {entry.path: entry.fault for entry in FolderSource(root).entries() if entry.fault}


def test_files_are_listed_by_path_with_their_sizes(tmp_path: Path) -> None:
    write(tmp_path, "b/2.png", "b/10.png", "a.csv", "B/deep/er/1.png")

    entries = FolderSource(tmp_path).entries()

    assert [(entry.path, entry.size, entry.fault) for entry in entries] == [
        ("B/deep/er/1.png", 15, ""),
        ("a.csv", 5, ""),
        ("b/10.png", 8, ""),
        ("b/2.png", 7, ""),
    ]
    assert (FolderSource(tmp_path).fetch(entries) / "b/2.png").read_text() == "b/2.png"


def test_hidden_files_are_left_out(tmp_path: Path) -> None:
    write(tmp_path, ".git/x", "a/.DS_Store", "__MACOSX/a.png", "a/Thumbs.db", "a/desktop.ini", "a/masks/1.png")

    assert paths(tmp_path) == ["a/masks/1.png"]


def test_phantoms_are_found(phantoms: Path) -> None:
    found = paths(phantoms)

    for kind in ("images", "masks"):
        assert len([path for path in found if f"/{kind}/" in path and path.endswith(".png")]) == 141


def test_links_to_files_and_folders_are_followed(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere", "1.png", "inner/2.png")
    root = write(tmp_path / "root", "a/0.png")
    (root / "b").symlink_to(tmp_path / "elsewhere")
    (root / "c").symlink_to(tmp_path / "elsewhere")
    (root / "a" / "3.png").symlink_to("0.png")

    assert paths(root) == ["a/0.png", "a/3.png", "b/1.png", "b/inner/2.png", "c/1.png", "c/inner/2.png"]
    assert faults(root) == {}


def test_links_that_lead_nowhere_or_in_a_circle_are_faults(tmp_path: Path) -> None:
    root = write(tmp_path / "root", "a/0.png")
    (root / "a" / "up").symlink_to("..")
    (root / "a" / "self").symlink_to("self")
    (root / "a" / "above").symlink_to(tmp_path)
    (root / "a" / "gone.png").symlink_to("nothing.png")
    (root / "a" / "through.png").symlink_to("0.png/x.png")
    (root / "b").symlink_to("c")
    (root / "c").symlink_to("b")

    assert faults(root) == {
        "a/above": "the symbolic link leads in a circle",
        "a/gone.png": "the symbolic link leads nowhere",
        "a/self": "the symbolic link leads in a circle",
        "a/through.png": "the symbolic link leads nowhere",
        "a/up": "the symbolic link leads in a circle",
        "b": "the symbolic link leads in a circle",
        "c": "the symbolic link leads in a circle",
    }
    assert len(paths(root)) == 8


def test_links_that_multiply_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_module, "MAX_FILES", 1000)
    for level in range(30):
        write(tmp_path, f"{level}/x.png")
        for name in "ab":
            (tmp_path / str(level) / name).symlink_to(f"../{level + 1}")

    with pytest.raises(DataError, match="holds more than 1,000 files: give a smaller folder"):
        FolderSource(tmp_path).entries()


def test_what_is_no_file_is_a_fault(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s.png"))

        assert faults(tmp_path) == {name: "it is not a regular file" for name in ("pipe.png", "s.png")}


def test_name_that_is_not_utf8_is_kept(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.png")).write_text("x")

    (entry,) = FolderSource(tmp_path).entries()

    assert os.fsencode(entry.path) == b"caf\xe9.png"
    assert (FolderSource(tmp_path).fetch([entry]) / entry.path).read_text() == "x"


def overwrite(path: Path) -> None:
    path.write_text("b/2.PNG")


def overwrite_and_keep_the_time(path: Path) -> None:
    before = path.stat()
    path.write_text("b/2.PNG")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace(path: Path) -> None:
    other = path.with_name("other")
    shutil.copy2(path, other)
    os.replace(other, path)


@pytest.mark.parametrize("change", [overwrite, overwrite_and_keep_the_time, replace])
def test_stamp_changes_with_the_file(tmp_path: Path, change: Callable[[Path], None]) -> None:
    write(tmp_path, "b/1.png", "b/2.png")
    before = FolderSource(tmp_path).entries()

    assert FolderSource(tmp_path).entries() == before
    change(tmp_path / "b" / "2.png")

    after = FolderSource(tmp_path).entries()
    assert after[0] == before[0]
    assert after[1].stamp != before[1].stamp


def test_file_and_folder_that_may_not_be_read_are_faults(open_folder: Path, as_nobody: AsNobody) -> None:
    write(open_folder, "closed/1.png", "listed/2.png", "open/3.png")
    (open_folder / "closed").chmod(0o700)
    # Its names may be read, but nothing about them.
    (open_folder / "listed").chmod(0o744)

    with as_nobody():
        entries = FolderSource(open_folder).entries()

    assert [(entry.path, entry.fault) for entry in entries] == [
        ("closed", "the folder cannot be read (permission denied)"),
        ("listed/2.png", "the file cannot be read (permission denied)"),
        ("open/3.png", ""),
    ]


def test_root_that_may_not_be_read_is_named(open_folder: Path, as_nobody: AsNobody) -> None:
    open_folder.chmod(0o711)

    with as_nobody(), pytest.raises(DataError) as raised:
        FolderSource(open_folder).entries()

    assert str(raised.value) == (
        f"The data source {open_folder} cannot be read (permission denied): give a folder that this user can read."
    )


def test_files_may_come_and_go_while_they_are_listed(tmp_path: Path) -> None:
    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            write(tmp_path, *(f"a/{n}/x.png" for n in range(20)))
            shutil.rmtree(tmp_path / "a")

    write(tmp_path, "b.png")
    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for _ in range(100):
            entries = FolderSource(tmp_path).entries()
            assert entries[-1].path == "b.png"
            assert not [entry for entry in entries if entry.fault]
    finally:
        stop.set()
        thread.join()
