"""What an archive becomes in the cache, and that no archive writes, reads or fills what it should not."""

from __future__ import annotations

import io
import os
import shutil
import stat
import tarfile
import tempfile
import threading
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cxr_tasks.data.sources import open_source, unpacking
from cxr_tasks.errors import DataError

FILES = {
    "set/COVID/images/1.png": b"one",
    "set/COVID/images/2.png": b"two",
    "set/COVID/masks/1.png": b"mask",
    "set/COVID.metadata.csv": b"FILE NAME\n1\n",
    "set/.hidden": b"hidden",
    "__MACOSX/set/COVID/images/._1.png": b"fork",
}
KEPT = ["set/COVID.metadata.csv", "set/COVID/images/1.png", "set/COVID/images/2.png", "set/COVID/masks/1.png"]

Members = Iterable[tuple[tarfile.TarInfo, bytes]]


def write_zip(path: Path, files: dict[str, bytes] = FILES) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return path


def write_tar(path: Path, members: Members | None = None) -> Path:
    if members is None:
        members = [member(name, content) for name, content in FILES.items()]
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return path


def member(name: str, content: bytes = b"", **attributes: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    info.mtime = 1_700_000_000
    for attribute, value in attributes.items():
        setattr(info, attribute, value)
    return info, content


def symlink(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, type=tarfile.SYMTYPE, linkname=target)


def hard_link(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, type=tarfile.LNKTYPE, linkname=target)


def write(path: Path) -> Path:
    return write_zip(path) if path.suffix == ".zip" else write_tar(path)


def content(path: Path) -> dict[str, bytes]:
    """What can be read from the source, by path."""
    source = open_source(str(path))
    entries = source.entries()
    folder = source.fetch(entries)
    return {entry.path: (folder / entry.path).read_bytes() for entry in entries if not entry.fault}


def faults(path: Path) -> dict[str, str]:
    return {entry.path: entry.fault for entry in open_source(str(path)).entries() if entry.fault}


def stamps(path: Path) -> dict[str, str]:
    return {entry.path: entry.stamp for entry in open_source(str(path)).entries()}


def refusal(path: Path) -> str:
    """What is said of an archive that is not taken; nothing of it is left."""
    with pytest.raises(DataError) as raised:
        open_source(str(path)).entries()
    assert {found.name for found in Path(os.environ["CXR_CACHE"]).glob("sources/archives/*/*")} == {"lock"}
    start = f"The archive {path} is "
    said = str(raised.value)
    assert said.startswith(start)
    assert "\n" not in said
    return said.removeprefix(start)


ARCHIVES = ["a.zip", "a.tar", "a.tar.gz", "a.tgz"]


@pytest.mark.parametrize("name", ARCHIVES)
def test_archive_is_read_as_a_folder(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name)

    assert content(path) == {kept: FILES[kept] for kept in KEPT}
    assert list(stamps(path)) == KEPT


@pytest.mark.parametrize("name", ARCHIVES)
def test_hidden_files_take_no_room(tmp_path: Path, cache: Path, name: str) -> None:
    content(write(tmp_path / name))

    assert {path.name for path in cache.rglob("*") if path.is_file()} == {
        *(Path(kept).name for kept in KEPT),
        "lock",
        "record.json",
    }


@pytest.mark.parametrize("name", ARCHIVES)
def test_stamps_are_the_same_wherever_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    before = stamps(write(tmp_path / name))

    monkeypatch.setenv("CXR_CACHE", str(tmp_path / "other"))
    (tmp_path / "moved").mkdir()

    assert stamps(Path(shutil.copy(tmp_path / name, tmp_path / "moved"))) == before


def test_stamps_change_with_the_member(tmp_path: Path) -> None:
    before = stamps(write_zip(tmp_path / "a.zip"))
    after = stamps(write_zip(tmp_path / "a.zip", FILES | {KEPT[1]: b"eno"}))
    assert [path for path in after if after[path] != before[path]] == [KEPT[1]]

    before = stamps(write_tar(tmp_path / "a.tar", [member("1.png", b"one"), member("2.png", b"two")]))
    after = stamps(write_tar(tmp_path / "a.tar", [member("1.png", b"eno"), member("2.png", b"two", mtime=1)]))
    assert [path for path in after if after[path] != before[path]] == ["1.png"]


@pytest.mark.parametrize("name", ["a.zip", "a.tar"])
def test_an_archive_of_the_same_size_and_time_is_unpacked_anew(tmp_path: Path, name: str) -> None:
    path = write_stored(tmp_path / name, b"one")
    status = path.stat()
    assert content(path) == {"1.png": b"one"}

    write_stored(tmp_path / "new" / name, b"eno").replace(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    assert (path.stat().st_size, path.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    assert content(path) == {"1.png": b"eno"}


def write_stored(path: Path, content: bytes) -> Path:
    """An archive of one file that is not compressed, whose size does not depend on the content."""
    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".tar":
        return write_tar(path, [member("1.png", content)])
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(zipfile.ZipInfo("1.png"), content)
    return path


def test_archive_is_unpacked_once(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip")
    folder = open_source(str(path)).fetch([])
    before = folder.stat()

    source = open_source(str(path))

    assert source.fetch(source.entries()).stat() == before


def test_changed_archive_is_unpacked_anew_and_the_older_unpacking_removed(tmp_path: Path, cache: Path) -> None:
    path = write_zip(tmp_path / "a.zip")
    other = write_zip(tmp_path / "b.zip")
    before = [open_source(str(archive)).fetch([]) for archive in (path, other)]

    write_zip(path, {"new.png": b"new"})

    assert content(path) == {"new.png": b"new"}
    assert [folder.exists() for folder in before] == [False, True]
    assert content(other)
    assert len([home for home in cache.glob("archives/*/*") if home.is_dir()]) == 2


def test_unpacking_that_lost_a_file_is_made_again(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip")
    (open_source(str(path)).fetch([]) / KEPT[1]).unlink()

    assert content(path) == {kept: FILES[kept] for kept in KEPT}


@pytest.mark.parametrize("name", ["a.zip", "a.tgz"])
def test_killed_unpacking_passes_for_nothing(
    tmp_path: Path, cache: Path, name: str, kill_reading: Callable[[str, Callable[[], bool]], None]
) -> None:
    files = {f"{n}.png": b"x" * 100 for n in range(2500)}
    path = tmp_path / name
    if path.suffix == ".zip":
        write_zip(path, files)
    else:
        write_tar(path, [member(inside, data) for inside, data in files.items()])

    kill_reading(str(path), lambda: any(cache.glob("archives/*/*/files/*")))
    unpacked = len(list(cache.glob("archives/*/*/files/*")))

    assert 0 < unpacked < 2500
    assert not list(cache.glob("archives/*/*/record.json"))
    assert content(path) == files
    assert len(list(cache.glob("archives/*/*"))) == 2


def test_two_that_read_at_once_share_one_unpacking(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {f"{n}.png": b"x" for n in range(300)})
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(content(path))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(found) == 4
    assert all(len(files) == 300 for files in found)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.xz", "a.tar.bz2"])
def test_an_archive_is_known_by_its_content(tmp_path: Path, name: str) -> None:
    as_zip = write_zip(tmp_path / "b.zip").rename(tmp_path / name)
    assert content(as_zip) == {kept: FILES[kept] for kept in KEPT}

    as_tar = write_tar(tmp_path / "b.tgz").rename(tmp_path / name)
    assert content(as_tar) == {kept: FILES[kept] for kept in KEPT}


@pytest.mark.parametrize(
    ("start", "what"),
    [
        (b"Rar!\x1a\x07\0", "it holds a RAR archive"),
        (b"7z\xbc\xaf\x27\x1c", "it holds a 7z archive"),
        (b"<!DOCTYPE html>", "it holds a web page"),
        (b"version https://git-lfs.github.com/spec/v1", "it holds a pointer of Git LFS"),
    ],
)
@pytest.mark.parametrize("name", ARCHIVES)
def test_what_is_named_as_an_archive_and_is_none_is_called_by_its_name(
    tmp_path: Path, name: str, start: bytes, what: str
) -> None:
    (tmp_path / name).write_bytes(start)

    assert refusal(tmp_path / name).startswith(f"refused: {what}")


def test_the_last_part_of_a_split_zip_is_named(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip")
    whole = path.read_bytes()
    end = whole.rindex(b"PK\x05\x06")
    path.write_bytes(whole[: end + 4] + b"\x02\0\x02\0" + whole[end + 8 :])

    assert refusal(path).startswith("refused: it is the last part of a split archive; put the parts together")


# What lands elsewhere.


PARTS = st.lists(
    st.text("abc .:é~\\", min_size=1, max_size=4).filter(lambda part: part[0] != "."), min_size=1, max_size=4
)


def put(parts: list[str], where: int, part: str) -> list[str]:
    where %= len(parts) + 1
    return [*parts[:where], part, *parts[where:]]


@pytest.mark.parametrize("kind", ["zip", "tar"])
@given(parts=PARTS, where=st.integers(0, 4), separator=st.sampled_from("/\\"))
@example(parts=["a"], where=0, separator="/")
def test_no_member_climbs_out(kind: str, parts: list[str], where: int, separator: str) -> None:
    name = separator.join(put(parts, where, ".."))
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("CXR_CACHE", f"{folder}/cache")
        path = Path(folder) / f"a.{kind}"
        write_zip(path, {name: b"x"}) if kind == "zip" else write_tar(path, [member(name, b"x")])

        assert "would be written outside the folder it is unpacked to" in refusal(path)
        assert sorted(os.listdir(folder)) == [path.name, "cache"]


@settings(max_examples=25)
@given(
    st.dictionaries(
        st.lists(st.text("abc é~", min_size=1, max_size=4), min_size=1, max_size=3).map("/".join).map("{}.png".format),
        st.binary(max_size=20),
        max_size=6,
    )
)
def test_what_does_not_climb_out_comes_as_it_was_packed(files: dict[str, bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("CXR_CACHE", f"{folder}/cache")

        assert content(write_zip(Path(folder) / "a.zip", files)) == files
        assert content(write_tar(Path(folder) / "a.tgz", [member(*file) for file in files.items()])) == files


@pytest.mark.parametrize("name", ["/etc/passwd", "//x", "\\x", "C:\\x", "c:/x"])
def test_absolute_members_are_refused(tmp_path: Path, name: str) -> None:
    said = f"refused: its member {name!r} would be written outside the folder it is unpacked to."

    assert refusal(write_zip(tmp_path / "a.zip", {"ok.png": b"x", name: b"x"})) == said
    assert refusal(write_tar(tmp_path / "a.zip.tar", [member("ok.png"), member(name, b"x")])) == said


def test_hidden_members_may_not_climb_out_either(tmp_path: Path) -> None:
    assert "would be written outside" in refusal(write_zip(tmp_path / "a.zip", {"masks/../../x": b"x"}))


# Links.


def zip_link(path: Path, links: dict[str, str], files: dict[str, bytes] = FILES) -> Path:
    write_zip(path, files)
    with zipfile.ZipFile(path, "a") as archive:
        for name, target in links.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(info, target)
    return path


LINKS = {
    "flat/1.png": "../set/COVID/images/1.png",
    "flat/all": "../set/COVID",
    "flat/again.png": "1.png",
    "flat/hidden.png": "../set/.hidden",
    "flat/gone.png": "nothing",
    "flat/empty": "",
    "flat/self": "self",
    "flat/up": "..",
    "flat/long": "x/" * 3000,
}


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_links_within_are_followed_and_others_are_faults(tmp_path: Path, kind: str) -> None:
    if kind == "zip":
        path = zip_link(tmp_path / "a.zip", LINKS)
    else:
        files = [member(name, data) for name, data in FILES.items()]
        path = write_tar(tmp_path / "a.tar", [*(symlink(*link) for link in LINKS.items()), *files])

    read, stamped = content(path), stamps(path)

    assert read == {kept: FILES[kept] for kept in KEPT} | {
        "flat/1.png": b"one",
        "flat/again.png": b"one",
        "flat/all/images/1.png": b"one",
        "flat/all/images/2.png": b"two",
        "flat/all/masks/1.png": b"mask",
    }
    assert faults(path) == {
        "flat/empty": "the symbolic link leads nowhere",
        "flat/gone.png": "the symbolic link leads nowhere",
        "flat/long": "the symbolic link leads nowhere",
        "flat/hidden.png": "the symbolic link leads nowhere",
        "flat/self": "the symbolic link leads in a circle",
        "flat/up": "the symbolic link leads in a circle",
    }
    assert stamped["flat/1.png"] == stamped["flat/all/images/1.png"] == stamped["set/COVID/images/1.png"]


def test_hard_links_are_files_of_their_own(tmp_path: Path) -> None:
    members = [member("a/1.png", b"one"), hard_link("b/1.png", "a/1.png"), hard_link("a/1.png", "a/1.png")]
    members += [hard_link("c.png", "nothing"), member(".hidden", b"h"), hard_link("h.png", ".hidden")]
    path = write_tar(tmp_path / "a.tar", members)

    assert content(path) == {"a/1.png": b"one", "b/1.png": b"one"}
    assert faults(path) == dict.fromkeys(["c.png", "h.png"], "the hard link leads nowhere")


@pytest.mark.parametrize("target", ["/etc/passwd", "../etc", "../../etc", "b/../../..", "..\\..\\.."])
def test_links_that_lead_out_are_refused(tmp_path: Path, target: str) -> None:
    if "\\" in target:
        # Nothing but an odd name here, which is not there.
        assert faults(zip_link(tmp_path / "a.zip", {"x": target})) == {"x": "the symbolic link leads nowhere"}
        return
    assert "leads out of the archive" in refusal(zip_link(tmp_path / "a.zip", {"x": target}))
    assert refusal(write_tar(tmp_path / "a.tar", [symlink("x", target)])).startswith("refused: ")
    assert refusal(write_tar(tmp_path / "b.tar", [hard_link("x", target)])).startswith("refused: ")


def test_links_that_lead_out_together_are_refused(tmp_path: Path) -> None:
    # By its text each stays inside; but through the first the second climbs one folder too many.
    links = [symlink("a/b/up", "../.."), symlink("out", "a/b/up/../..")]
    (tmp_path / "secret").write_text("secret")

    assert "leads out of the archive" in refusal(write_tar(tmp_path / "a.tar", [member("a/b/x", b"x"), *links]))
    assert "leads out of the archive" in refusal(
        zip_link(tmp_path / "a.zip", {info.name: info.linkname for info, _ in links}, {"a/b/x": b"x"})
    )


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    assert "its member 'd' is in the way of another" in refusal(
        write_tar(tmp_path / "a.tar", [member("a/x", b"x"), symlink("d", "a"), member("d/x", b"y")])
    )
    assert "lies below another link" in refusal(
        write_tar(tmp_path / "b.tar", [member("a/x", b"x"), symlink("d", "a"), symlink("d/y", "x")])
    )


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_devices_and_pipes_are_refused(tmp_path: Path, kind: bytes) -> None:
    assert refusal(write_tar(tmp_path / "a.tar", [member("dev", type=kind)])).startswith("refused: 'dev' is a ")


# Room.


def test_archive_that_grows_too_much_is_refused(tmp_path: Path) -> None:
    said = "refused: unpacked it would be more than 100 times as large as it is"
    zeros = bytes(101 * 2**20)

    assert refusal(write_zip(tmp_path / "a.zip", {"zeros.png": zeros})).startswith(said)
    assert refusal(write_tar(tmp_path / "a.tgz", [member("zeros.png", zeros)])).startswith(said)


def test_small_archive_may_grow(tmp_path: Path) -> None:
    assert len(content(write_zip(tmp_path / "a.zip", {"zeros.png": bytes(2**21)}))["zeros.png"]) == 2**21


def test_what_is_really_written_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacking, "ALWAYS_ALLOWED", 2**20)
    # Hard links declare no size at all.
    members = [member("a", bytes(10_000)), *(hard_link(f"{n}", "a") for n in range(200))]

    assert refusal(write_tar(tmp_path / "a.tgz", members)).startswith("refused: unpacked it would be more than 100")


def test_what_follows_the_last_member_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gzip

    monkeypatch.setattr(unpacking, "ALWAYS_ALLOWED", 2**20)
    path = write_tar(tmp_path / "a.tgz", [member("a", b"x")])
    path.write_bytes(path.read_bytes() + gzip.compress(bytes(20 * 2**20)))

    assert refusal(path).startswith("refused: unpacked it would be more than 100")


def test_archive_that_does_not_fit_the_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacking, "ALWAYS_ALLOWED", 2**60)
    info, _ = member("huge.png")
    info.size = 2**55
    path = tmp_path / "a.tar"
    path.write_bytes(info.tobuf())

    said = refusal(path)

    assert said.startswith("refused: unpacked it needs more than the ")
    assert said.endswith(" are free in the cache; free some, or set CXR_CACHE to a folder on a larger disk.")


def test_overlapping_members_are_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"one.png": b"x", "two.png": b"x"})
    raw = bytearray(path.read_bytes())
    second = raw.rindex(b"PK\x01\x02")
    # The second entry of the directory points at the first one's bytes.
    raw[second + 42 : second + 46] = bytes(4)
    path.write_bytes(raw)

    assert refusal(path).startswith("refused: its member 'two.png' overlaps another")


def test_archive_with_too_many_members_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacking, "MAX_FILES", 3)

    assert refusal(write_zip(tmp_path / "a.zip")) == "refused: it has more than 3 members."
    assert refusal(write_tar(tmp_path / "a.tar")) == "refused: it has more than 3 members."


# What cannot be read.


def test_encrypted_zip_is_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"1.png": b"x"})
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"PK\x03\x04") + 6] |= 1
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(raw)

    assert refusal(path) == "refused: its member '1.png' is encrypted; pack it again without a password."


def test_unknown_compression_is_named(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"1.png": b"x"})
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"PK\x03\x04") + 8] = raw[raw.index(b"PK\x01\x02") + 10] = 9
    path.write_bytes(raw)

    assert refusal(path).startswith("packed in a way that cannot be read (")


@pytest.mark.parametrize("name", ARCHIVES)
@pytest.mark.parametrize("share", [0, 0.02, 0.3, 0.5, 0.9])
def test_archive_that_was_cut_off_is_damaged(tmp_path: Path, name: str, share: float) -> None:
    path = write(tmp_path / name)
    # Tar fills up its end with zeros; what counts ends before.
    raw = path.read_bytes()
    raw = raw.rstrip(b"\0") if name == "a.tar" else raw
    path.write_bytes(raw[: int(len(raw) * share)])

    assert refusal(path).startswith("damaged (")


def test_tar_that_ends_between_two_members_is_damaged(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", [member("1", b"x" * 512), member("2", b"x" * 512)])
    path.write_bytes(path.read_bytes()[:1024])

    assert refusal(path).startswith("damaged (")


def test_tar_with_a_damaged_header_does_not_end_there(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", [member("1", b"x" * 512), member("2", b"x" * 512)])
    raw = bytearray(path.read_bytes())
    raw[1024 + 5] ^= 1
    path.write_bytes(raw)

    assert refusal(path).startswith("damaged (")


@pytest.mark.parametrize("size", [-512, 2**40])
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_header_with_an_impossible_size_is_refused(tmp_path: Path, size: int, kind: bytes) -> None:
    info, _ = member("x", type=kind)
    info.size = size
    path = tmp_path / "a.tar"
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(4096))

    assert refusal(path).startswith(("damaged (", "refused: "))


@pytest.mark.parametrize("size", ["-1024", "-512"])
def test_negative_size_in_an_extended_header_does_not_run_for_ever(tmp_path: Path, size: str) -> None:
    info, _ = member("x")
    info.pax_headers = {"size": size}
    path = tmp_path / "a.tar"
    path.write_bytes(info.tobuf(tarfile.PAX_FORMAT) + bytes(4096))

    assert refusal(path).startswith(("damaged (", "refused: "))


@pytest.mark.parametrize("name", ARCHIVES)
def test_what_is_no_archive_is_damaged(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"no archive at all" * 100)

    assert refusal(tmp_path / name).startswith("damaged (")


def test_damaged_content_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("1.png", b"content")
    path.write_bytes(path.read_bytes().replace(b"content", b"CONTENT"))

    assert refusal(path).startswith("damaged (Bad CRC-32 for file '1.png')")


def test_archive_that_may_not_be_read_is_named(
    open_folder: Path, as_nobody: Callable[[], AbstractContextManager[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    (open_folder / "cache").mkdir()
    (open_folder / "cache").chmod(0o777)
    monkeypatch.setenv("CXR_CACHE", str(open_folder / "cache"))
    write_zip(open_folder / "a.zip").chmod(0o600)

    with as_nobody(), pytest.raises(DataError, match=r"a\.zip cannot be read \(permission denied\): allow this user"):
        open_source(f"{open_folder}/a.zip").entries()


SMALL = {"a/1.png": b"one" * 30, "b": b"", "é.png": b"two"}


@pytest.mark.parametrize("kind", ["zip", "tar", "tgz"])
@settings(max_examples=25)
@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_whatever_bit_is_damaged_it_is_said_in_one_sentence(kind: str, where: float, bit: int) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("CXR_CACHE", f"{folder}/cache")
        path = Path(folder) / f"a.{kind}"
        links = [symlink("l", "b"), hard_link("h", "b")]
        if kind == "zip":
            zip_link(path, {"l": "b"}, SMALL)
        else:
            write_tar(path, [*(member(*file) for file in SMALL.items()), *links])
        raw = bytearray(path.read_bytes())
        raw[int(where * len(raw))] ^= 1 << bit
        path.write_bytes(raw)

        try:
            content(path)
        except DataError as error:
            assert str(error).startswith(f"The archive {path} is ")


# Names.


def test_name_that_is_too_long_is_a_fault(tmp_path: Path) -> None:
    long = "é" * 128 + ".png"
    files = {"ok.png": b"x", f"a/{long}": b"y", f"{'d' * 256}/x.png": b"z", "/".join(["e" * 200] * 25): b"w"}
    said = {
        f"a/{long}": "the file name is too long (260 bytes)",
        f"{'d' * 256}/x.png": "the file name is too long (256 bytes)",
    }

    for path in (
        write_zip(tmp_path / "a.zip", files),
        write_tar(tmp_path / "a.tar", [member(*file) for file in files.items()]),
    ):
        for _ in range(2):
            found = faults(path)
            assert found.pop("/".join(["e" * 200] * 25)).startswith("the path is too long (5")
            assert found == said
        assert content(path) == {"ok.png": b"x"}
        assert [entry.size for entry in open_source(str(path)).entries() if entry.fault] == [1, 1, 1]


def test_names_that_are_not_utf8_come_as_they_are(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    assert content(write_tar(tmp_path / "a.tar", [member(name, b"x")])) == {name: b"x"}
    assert stamps(tmp_path / "a.tar")[name] == f"{zlib.crc32(b'x'):08x}-1"

    path = write_zip(tmp_path / "a.zip", {"cafe.png": b"x"})
    path.write_bytes(path.read_bytes().replace(b"cafe", b"caf\x82"))
    assert content(path) == {"café.png": b"x"}


def test_folders_written_on_windows_are_folders(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("COVID\\", "COVID\\images\\1.png", "COVID\\.cache\\1.png"):
            info = zipfile.ZipInfo(name)
            info.create_system = 0
            archive.writestr(info, b"x" if name.endswith("png") else b"")

    assert content(tmp_path / "a.zip") == {"COVID/images/1.png": b"x"}


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_of_two_members_of_one_name_the_later_counts(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name, data in (("1.png", b"first"), ("./1.png", b"later"), ("2.png", b"x")):
            archive.writestr(name, data)
    assert content(tmp_path / "a.zip") == {"1.png": b"later", "2.png": b"x"}

    first, later = member("1.png", b"first"), member("./1.png", b"later")
    assert content(write_tar(tmp_path / "a.tar", [first, later])) == {"1.png": b"later"}
    assert content(write_tar(tmp_path / "b.tar", [symlink("1.png", "2.png"), later])) == {"1.png": b"later"}
    replaced = [first, member("2.png", b"x"), symlink("1.png", "2.png")]
    assert content(write_tar(tmp_path / "c.tar", replaced)) == {"1.png": b"x", "2.png": b"x"}
    mended = [member("2.png", b"x"), hard_link("1.png", "nothing"), later]
    assert content(write_tar(tmp_path / "d.tar", mended)) == {"1.png": b"later", "2.png": b"x"}
    assert faults(tmp_path / "d.tar") == {}


def test_file_and_folder_of_one_name_are_refused(tmp_path: Path) -> None:
    for files in ({"a": b"x", "a/b": b"x"}, {"a/b": b"x", "a": b"x"}, {"a": b"x", "a/b/c/d": b"x"}):
        said = f"refused: its member {list(files)[1]!r} is in the way of another, as a file is of a folder."
        assert refusal(write_zip(tmp_path / "a.zip", files)) == said
        assert refusal(write_tar(tmp_path / "a.tar", [member(*file) for file in files.items()])) == said


class Unflagged(zipfile.ZipInfo):
    """A member whose name is UTF-8 and does not say so, as Finder writes it."""

    def _encodeFilenameFlags(self) -> tuple[bytes, int]:
        return self.filename.encode("utf-8"), self.flag_bits


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_names_in_utf8_that_do_not_say_so_are_read(tmp_path: Path, form: str) -> None:
    name = unicodedata.normalize(form, "Größe/été.png")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(Unflagged(name), b"one")
        archive.writestr(Unflagged("COVID/1.png"), b"two")

    assert content(tmp_path / "a.zip") == {name: b"one", "COVID/1.png": b"two"}
