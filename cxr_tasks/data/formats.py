"""What a file is, by its first bytes: an image of a format that is read, or something else, called by its name."""

from __future__ import annotations

import os
import re

from cxr_tasks.data.sources.archive_names import advice, is_archive_name, is_part_name


class Unusable(Exception):
    """Why one file cannot be used, in words for the rejects table."""


class TooManyPixelsError(Unusable):
    """Why one image is not decoded: it has more pixels than are allowed."""


class NotAsked(Unusable):
    """Why a file is in order and yet not used: a switch of the settings leaves it out."""


EXPORT = "export the image as PNG or JPEG"
# Of a web page or a text this much is looked at.
_HEAD = 4096

_IMAGES: tuple[tuple[str, re.Pattern[bytes]], ...] = tuple(
    (format, re.compile(start, re.DOTALL))
    for format, start in (
        ("PNG", rb"\x89PNG\r\n\x1a\n"),
        ("JPEG", rb"\xff\xd8\xff"),
        ("WebP", rb"RIFF....WEBP"),
        ("JPEG 2000", rb"\x00\x00\x00\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51"),
        ("GIF", rb"GIF8[79]a"),
        # Two letters alone may begin any text: the length of the header behind them is one of few.
        ("BMP", rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\x00\x00\x00"),
        ("TIFF", rb"II\*\x00|MM\x00\*|II\+\x00|MM\x00\+"),
    )
)
DICOM = "DICOM"
# Files without a preamble begin with group 2 or 8: an element's number, and its length or its kind.
_DICOM = re.compile(
    rb".{128}DICM|(\x02\x00[\x00-\x16]|\x08\x00[\x00-\x18])\x00(UL|UI|CS|SH|LO|[\x02-\x40]\x00\x00\x00)", re.DOTALL
)
_UNPACK = "unpack it"
_AGAIN = "download the image again"
_OTHERS: tuple[tuple[re.Pattern[bytes], str, str], ...] = tuple(
    (re.compile(start, re.DOTALL), what, do)
    for start, what, do in (
        (rb"%PDF", "PDF", EXPORT),
        (rb"8BPS", "a Photoshop picture", EXPORT),
        (rb"....ftyp(heic|heix|hevc|heim|heis|mif1|msf1)", "HEIC", EXPORT),
        (rb"....ftypavi[fs]", "AVIF", EXPORT),
        (rb"....ftyp|\x1aE\xdf\xa3|RIFF....AVI ", "a film", EXPORT),
        (rb"\xff\x0a|\x00\x00\x00\x0cJXL ", "JPEG XL", EXPORT),
        (rb"P[1-7]\s", "PNM", EXPORT),
        (rb"\x00\x00\x01\x00[^\x00]\x00", "an icon", EXPORT),
        (rb"%!PS|\xc5\xd0\xd3\xc6", "PostScript", EXPORT),
        (rb".{344}(n\+1|ni1)\x00", "NIfTI", EXPORT),
        (rb"NRRD\d", "NRRD", EXPORT),
        (rb"\x89HDF\r\n", "HDF5", EXPORT),
        (rb"\x93NUMPY", "a NumPy array", EXPORT),
        (rb"MATLAB 5", "a MATLAB file", EXPORT),
        (rb"\xd0\xcf\x11\xe0", "an Office document or a list of thumbnails", "take it away"),
        (rb"\x00\x05\x16\x07|\x00\x05\x16\x00", "what macOS notes beside a file", "take it away"),
        (rb"PK(\x03\x04|\x05\x06|\x07\x08)", "a zip archive", _UNPACK),
        (rb"Rar!\x1a\x07", "a RAR archive", _UNPACK),
        (rb"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
        (rb".{257}ustar", "a tar archive", _UNPACK),
        (rb"\x1f\x8b", "what gzip has packed", _UNPACK),
        (rb"BZh[1-9]", "what bzip2 has packed", _UNPACK),
        (rb"\xfd7zXZ\x00", "what xz has packed", _UNPACK),
        (rb"\x28\xb5\x2f\xfd", "what zstd has packed", _UNPACK),
        (rb"L\x00\x00\x00\x01\x14\x02\x00", "a shortcut", "copy the file itself"),
        (rb"\[InternetShortcut\]|book\x00\x00\x00\x00mark", "a shortcut", "copy the file itself"),
        (rb"bplist00", "a placeholder of a cloud drive", "make the file available offline"),
        (rb"\{\s*\"[^}]*docs\.google\.com", "a placeholder of Google Drive", _AGAIN),
    )
)
# What stands in the place of a file that is somewhere else.
_POINTERS: tuple[tuple[re.Pattern[bytes], str, str], ...] = (
    (re.compile(rb"version https://(git-lfs\.github\.com|hawser)"), "Git LFS", "run git lfs pull"),
    (re.compile(rb"[./]*(\.git)?/annex/objects/"), "git-annex", "run git annex get"),
    (re.compile(rb"(outs|md5):\s"), "DVC", "run dvc pull"),
)
_WEB_PAGE = re.compile(rb"<!doctype html|<html|<head|<body|<script|<meta ", re.IGNORECASE)
_DRIVES = (
    ("Google Drive", re.compile(rb"drive\.google\.com|google drive", re.IGNORECASE)),
    ("OneDrive", re.compile(rb"onedrive|sharepoint|1drv\.ms", re.IGNORECASE)),
    ("Dropbox", re.compile(rb"dropbox", re.IGNORECASE)),
)
_PLACEHOLDERS = {".icloud": "iCloud", ".nextcloud": "Nextcloud", ".owncloud": "ownCloud", ".cloudf": "a cloud drive"}
_PLACEHOLDERS |= dict.fromkeys((".gdoc", ".gsheet", ".gslides", ".gdraw", ".gform", ".gmap"), "Google Drive")
_UNFINISHED = {".part", ".partial", ".crdownload", ".download", ".filepart", ".opdownload", ".aria2", ".tmp", ".!ut"}
_OLD = {".bak", ".old", ".orig"}


def check_ending(name: str) -> None:
    """Refuse a file whose name says that the image is not here, not whole or not meant.

    Raises:
        Unusable: With what to do.
    """
    suffix = os.path.splitext(name)[1].lower()
    if suffix in _PLACEHOLDERS:
        raise Unusable(f"the file is a placeholder of {_PLACEHOLDERS[suffix]}: make the image available offline")
    if suffix in _UNFINISHED:
        raise Unusable(f"files that end in {suffix} are unfinished: {_AGAIN}, or rename the file if it is whole")
    if suffix in _OLD:
        raise Unusable(f"files that end in {suffix} are old versions: rename the file if it is meant")


def is_dicom(head: bytes) -> bool:
    """Whether a file that begins with ``head`` is DICOM: it says so behind its preamble, or begins with an element."""
    return _DICOM.match(head) is not None


def format_of(content: bytes, name: str) -> str:
    """The format of the image in a file. The name counts only where the content says nothing.

    Args:
        content: All bytes of the file.
        name: Last part of its path.

    Raises:
        Unusable: There is no image that is read. The text says what there is, and what to do.
    """
    for format, start in _IMAGES:
        if start.match(content):
            return format
    if is_dicom(content):
        return DICOM
    if not content:
        raise Unusable("the file is empty (0 bytes): copy it again")
    for start, what, do in _OTHERS:
        if start.match(content):
            raise Unusable(f"the file holds {what}: {do}")
    _refuse_text(content[:_HEAD])
    if is_archive_name(name):
        raise Unusable(advice(name) if is_part_name(name) else f"the file is named as an archive: {_UNPACK}")
    if not content.strip(b"\0"):
        raise Unusable("all bytes of the file are zero, as a cloud drive or a broken copy leaves them: copy it again")
    raise Unusable("the file is not an image")


def _refuse_text(head: bytes) -> None:
    """Name a text that stands where an image should be."""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    for start, owner, do in _POINTERS:
        if start.match(text):
            raise Unusable(f"the file is a pointer of {owner} and not the image itself: {do}")
    if not text.startswith(b"<"):
        return
    if re.search(rb"<svg", text, re.IGNORECASE):
        raise Unusable(f"the file holds SVG: {EXPORT}")
    if _WEB_PAGE.search(text):
        drive = next((f" of {owner}" for owner, word in _DRIVES if word.search(text)), "")
        raise Unusable(f"the file holds a web page{drive} and no image, as where a login is missing: {_AGAIN}")
    raise Unusable(f"the file holds XML and no image, as where a download is refused: {_AGAIN}")
