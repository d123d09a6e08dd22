"""Unpacks zip and tar archives that are not to be trusted.

No member lands outside the archive's folder, fills the disk, or is opened through a link that leads elsewhere.
"""

from __future__ import annotations

import errno
import lzma
import os
import re
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Self

from cxr_tasks.cache import disk_full, is_disk_full
from cxr_tasks.data.sources.base import CIRCLE, MAX_FILES, NOWHERE, Entry, name_fault
from cxr_tasks.data.sources.clutter import is_left_out
from cxr_tasks.errors import DataError, in_one_line, shown

MAX_RATIO = 100
# Small archives may grow by any factor up to this.
ALWAYS_ALLOWED = 100 * 2**20
UNPACK_CHUNK = 2**20
# A longer header is no name. tarfile would read it into memory.
MAX_HEADER = 2**20
# Bytes before the name of each member in a zip.
LOCAL_HEADER = 30
# The flag of a member whose name is UTF-8.
NAME_IS_UTF8 = 0x800
# The record at the end of a zip, with the longest comment.
LONGEST_ZIP_END = 22 + 2**16
# The last begins the first part of a split zip.
ZIP_STARTS = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")
NOT_READ = {
    b"Rar!\x1a\x07": "a RAR archive, which is not read",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive, which is not read",
    b"\x28\xb5\x2f\xfd": "what zstd has packed, which is not read",
    b"version https://git-lfs": "a pointer of Git LFS and not the archive itself (run git lfs pull)",
    b"<": "a web page, as where a login is missing",
}
LONG_HEADERS = {
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
}
DAMAGED = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, ValueError, struct.error)


@dataclass
class Unpacked:
    """What is known beside the unpacked files.

    Attributes:
        stamps: Of each member, by its path.
        faults: Entries of members that could not be unpacked, by their paths.
    """

    stamps: dict[str, str] = field(default_factory=dict)
    faults: dict[str, Entry] = field(default_factory=dict)

    def add_fault(self, path: str, size: int, fault: str) -> None:
        """Note why the member ``path`` could not be unpacked."""
        self.faults[path] = Entry(path, size, "", fault)


def unpack_archive(archive: Path, root: Path, address: str) -> Unpacked:
    """Unpack a zip or tar into a new folder, without hidden files.

    Of two members of one name the later counts. An error may leave the folder half full.

    Args:
        archive: The file.
        root: The folder, which must not exist.
        address: What messages call the archive.

    Returns:
        Stamps of the members, and faults of those that could not be unpacked.

    Raises:
        DataError: The archive is damaged or encrypted, is larger than it should be or than the disk has room for, or
            holds what would land or lead outside ``root``.
    """
    with _clear_errors(address):
        unpacking = _Unpacking(address, root, archive.stat().st_size)
        _kind(archive, unpacking)(archive, unpacking)
        unpacking.make_links()
    return unpacking.result


class _Unpacking:
    """Writes members below ``root``, and refuses the archive as soon as one of them is not to be trusted."""

    def __init__(self, address: str, root: Path, archive_size: int) -> None:
        root.mkdir()
        self.address = address
        self.root = root
        self.result = Unpacked()
        self.allowed = max(ALWAYS_ALLOWED, MAX_RATIO * archive_size)
        self.free = shutil.disk_usage(root).free
        self.members = self.declared = self.written = 0
        self.links: dict[str, str] = {}

    def refuse(self, why: str) -> DataError:
        return DataError(f"The archive {shown(self.address)} is refused: {shown(why)}.")

    def announce(self, name: str, size: int) -> str:
        """Check a member before it is read. Returns its path, or '' where it is to be left out."""
        parts = re.split(r"[/\\]", name)
        if ".." in parts or parts[0] == "" or re.match(r"[A-Za-z]:[/\\]", name):
            raise self.refuse(f"its member {name!r} would be written outside the folder it is unpacked to")
        self.members += 1
        if self.members > MAX_FILES:
            raise self.refuse(f"it has more than {MAX_FILES:,} members")
        if size < 0:
            raise self.refuse(f"its member {name!r} has a negative size")
        self.count_declared(size)
        path = str(PurePosixPath(name))
        return "" if is_left_out(path) else path

    def count_declared(self, size: int) -> None:
        self.declared += size
        self._check_total(self.declared)

    def write(self, path: str, size: int, content: IO[bytes]) -> None:
        """Write a file, whose size the archive declares to be ``size``.

        Its stamp is of its content: a member may be replaced by one of the same size and time.
        """
        if fault := name_fault(path, self.root):
            self.result.add_fault(path, size, fault)
            return
        written = checksum = 0
        with self._place(path) as target, target.open("wb") as out:
            while chunk := content.read(UNPACK_CHUNK):
                # The sizes that an archive declares may be lies.
                self.written += len(chunk)
                self._check_total(self.written)
                out.write(chunk)
                written, checksum = written + len(chunk), zlib.crc32(chunk, checksum)
        self.links.pop(path, None)
        self.result.faults.pop(path, None)
        self.result.stamps[path] = f"{checksum:08x}-{written}"

    def link(self, path: str, target: str) -> None:
        """Note a symbolic link. Links are made after all files, so that no file is written through one."""
        inside = os.path.normpath(os.path.join(os.path.dirname(path), target))
        if os.path.isabs(target) or inside == ".." or inside.startswith("../"):
            raise self.refuse(f"its link {path!r} leads out of the archive, to {target!r}")
        if fault := name_fault(path, self.root):
            self.result.add_fault(path, 0, fault)
            return
        if self.result.stamps.pop(path, None) is not None:
            (self.root / path).unlink()
        self.links[path] = target

    def make_links(self) -> None:
        """Make the links that were noted, and keep those that lead to something inside."""
        top = os.path.realpath(self.root)
        for path, target in self.links.items():
            if any(str(folder) in self.links for folder in PurePosixPath(path).parents):
                raise self.refuse(f"its link {path!r} lies below another link")
            with self._place(path) as place:
                try:
                    os.symlink(target, place)
                except FileExistsError:
                    raise
                except OSError:
                    # An empty target, or one that is too long.
                    continue
        # Where links really lead counts: several together may lead elsewhere than each by itself.
        for path, target in self.links.items():
            try:
                end = os.path.realpath(self.root / path, strict=True)
            except OSError as error:
                (self.root / path).unlink(missing_ok=True)
                self.result.add_fault(path, 0, CIRCLE if error.errno == errno.ELOOP else NOWHERE)
                continue
            if os.path.commonpath([top, end]) != top:
                raise self.refuse(f"its link {path!r} leads out of the archive, to {target!r}")

    @contextmanager
    def _place(self, path: str) -> Iterator[Path]:
        """Where ``path`` is to be written."""
        try:
            (self.root / path).parent.mkdir(parents=True, exist_ok=True)
            yield self.root / path
        except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
            raise self.refuse(f"its member {path!r} is in the way of another, as a file is of a folder") from error

    def _check_total(self, total: int) -> None:
        if total > self.allowed:
            raise self.refuse(
                f"unpacked it would be more than {MAX_RATIO} times as large as it is, as archives are that are "
                "made to fill a disk; unpack it yourself and give the folder if it is meant"
            )
        if total > self.free:
            raise self.refuse(
                f"unpacked it needs more than the {self.free / 2**30:.1f} GiB that are free in the cache; "
                "free some, or set CXR_CACHE to a folder on a larger disk"
            )


@contextmanager
def _clear_errors(address: str) -> Iterator[None]:
    """Say in one sentence what is wrong with the archive when a library or the disk finds it."""
    name = shown(address)
    try:
        yield
    except DataError:
        raise
    except tarfile.FilterError as error:
        raise DataError(f"The archive {name} is refused: {in_one_line(error)}.") from error
    except DAMAGED as error:
        raise DataError(f"The archive {name} is damaged ({in_one_line(error)}): fetch or make it again.") from error
    except NotImplementedError as error:
        raise DataError(
            f"The archive {name} is packed in a way that cannot be read ({error}): pack it with the usual deflate."
        ) from error
    except PermissionError as error:
        raise DataError(
            f"The archive {name} cannot be read (permission denied): allow this user to read it."
        ) from error
    except OSError as error:
        if is_disk_full(error):
            raise disk_full(f"The data source {name}") from error
        if error.errno is None:
            # For damaged content gzip raises an OSError as well, without a number.
            raise DataError(f"The archive {name} is damaged ({in_one_line(error)}): fetch or make it again.") from error
        raise


def _kind(path: Path, unpacking: _Unpacking) -> Callable[[Path, _Unpacking], None]:
    """What unpacks the archive. Its first bytes count, and its name only where they say nothing."""
    with path.open("rb") as stream:
        head = stream.read(max(map(len, NOT_READ)))
    for start, what in NOT_READ.items():
        if head.startswith(start):
            raise unpacking.refuse(f"it holds {what}; unpack or fetch it yourself and give the folder")
    if head.startswith(ZIP_STARTS):
        return _unpack_zip
    is_compressed = head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ"))
    return _unpack_zip if path.name.lower().endswith(".zip") and not is_compressed else _unpack_tar


def _refuse_split(path: Path, unpacking: _Unpacking) -> None:
    """Refuse the last part of a split zip: the record at its end counts the parts before it."""
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - LONGEST_ZIP_END))
        tail = stream.read()
    at = tail.rfind(b"PK\x05\x06")
    if 0 <= at <= len(tail) - 6 and tail[at + 4 : at + 6] not in (b"\0\0", b"\xff\xff"):
        raise unpacking.refuse(
            "it is the last part of a split archive; put the parts together "
            "(zip -s 0 split.zip --out whole.zip) and give the whole archive"
        )


def _unpack_zip(path: Path, unpacking: _Unpacking) -> None:
    _refuse_split(path, unpacking)
    with zipfile.ZipFile(path) as archive:
        # By path: the later of two members of one name counts.
        chosen: dict[str, zipfile.ZipInfo] = {}
        for member in archive.infolist():
            # Old archivers on Windows wrote its separator.
            name = _name_of(member)
            name = name.replace("\\", "/") if member.create_system == 0 else name
            inside = unpacking.announce(name, member.file_size)
            if inside and not name.endswith("/"):
                if member.flag_bits & 0x1:
                    raise unpacking.refuse(f"its member {inside!r} is encrypted; pack it again without a password")
                chosen[inside] = member
        _refuse_overlap(archive, unpacking)
        for inside, member in chosen.items():
            with archive.open(member) as content:
                if stat.S_ISLNK(member.external_attr >> 16):
                    unpacking.link(inside, os.fsdecode(content.read(UNPACK_CHUNK)))
                else:
                    unpacking.write(inside, member.file_size, content)


def _name_of(member: zipfile.ZipInfo) -> str:
    """The name of a member. Finder and others write UTF-8 without saying so, which Python reads as code page 437."""
    if member.flag_bits & NAME_IS_UTF8:
        return member.filename
    try:
        return member.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return member.filename


def _refuse_overlap(archive: zipfile.ZipFile, unpacking: _Unpacking) -> None:
    """Refuse members that share bytes, by which a small archive declares far more than it holds."""
    end = 0
    for member in sorted(archive.infolist(), key=lambda member: member.header_offset):
        if member.header_offset < end:
            raise unpacking.refuse(
                f"its member {member.filename!r} overlaps another, as in archives made to fill a disk"
            )
        end = member.header_offset + LOCAL_HEADER + member.compress_size


class _Header(tarfile.TarInfo):
    """A member's header. A damaged or missing one is an error, where tarfile would see the archive's end."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from error
        if header.size < 0 or (header.type in LONG_HEADERS and header.size > MAX_HEADER):
            raise tarfile.ReadError(f"a header of {header.size} bytes")
        return header


def _unpack_tar(path: Path, unpacking: _Unpacking) -> None:
    with tarfile.open(path, tarinfo=_Header) as archive:
        while (member := archive.next()) is not None:
            # tarfile would keep all of them in memory.
            archive.members.clear()  # type: ignore[attr-defined]
            inside = unpacking.announce(member.name, member.size)
            if member.isdir() or not inside:
                continue
            content = archive.extractfile(member) if member.isreg() else None
            if content is not None:
                with content:
                    unpacking.write(inside, member.size, content)
                continue
            tarfile.data_filter(member, str(unpacking.root))
            if member.issym():
                unpacking.link(inside, member.linkname)
            elif member.islnk():
                _copy_hard_link(member, inside, unpacking)
        # A compressed stream tells only at its end whether all of it was sound.
        while archive.fileobj is not None and (chunk := archive.fileobj.read(UNPACK_CHUNK)):
            unpacking.count_declared(len(chunk))


def _copy_hard_link(member: tarfile.TarInfo, inside: str, unpacking: _Unpacking) -> None:
    first = str(PurePosixPath(member.linkname))
    if first == inside:
        return
    if first not in unpacking.result.stamps:
        unpacking.result.add_fault(inside, 0, "the hard link leads nowhere")
        return
    source = unpacking.root / first
    with source.open("rb") as content:
        unpacking.write(inside, source.stat().st_size, content)
