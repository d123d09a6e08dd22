"""Files in archives that lie inside a source, as the parts of a public data set do.

An archive is unpacked once, into the local cache, when something asks for its files. The archive stands for a folder:
its member ``images/1.png`` has the path ``images_001.tar.gz/images/1.png``.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from cxr_tasks.cache import cache_folder, locked
from cxr_tasks.data.sources.archive import ArchiveSource
from cxr_tasks.data.sources.archive_names import archive_of, without_suffix
from cxr_tasks.data.sources.base import Entry, Source


class WithArchives(Source):
    """A source whose archives can be opened. Archives in these archives are not.

    Attributes:
        outer: The source.
    """

    def __init__(self, outer: Source) -> None:
        """The files of ``outer``, and those in its archives."""
        super().__init__(outer.address)
        self.outer = outer

    def entries(self) -> list[Entry]:
        """The files of the source. Archives are files among them."""
        return self.outer.entries()

    def inside(self, archive: Entry) -> list[Entry]:
        """Every file in ``archive``, below the archive's path."""
        members = self._opened(self.outer.fetch([archive]), archive.path).entries()
        return [replace(member, path=f"{archive.path}/{member.path}") for member in members]

    def fetch(self, entries: Sequence[Entry]) -> Path:
        """The folder of the source, or one of links where some of ``entries`` lie in archives."""
        called = {archive_of(entry.path) for entry in entries} - {""}
        # A folder may be called as an archive is.
        listed = self.outer.entries() if called else []
        archives = [entry for entry in listed if entry.path in called]
        if not archives:
            return self.outer.fetch(entries)
        opened = {archive.path for archive in archives}
        root = self.outer.fetch([*archives, *(entry for entry in entries if archive_of(entry.path) not in opened)])
        # Nobody asks for the files of an archive that cannot be read.
        unpacked = {entry.path: self._opened(root, entry.path).fetch([]) for entry in archives if not entry.fault}
        return _linked(root, listed, unpacked)

    def _opened(self, root: Path, path: str) -> ArchiveSource:
        return ArchiveSource(root / path, f"{self.address.rstrip('/')}/{path}")


def _linked(root: Path, listed: Sequence[Entry], unpacked: Mapping[str, Path]) -> Path:
    """A folder of links to what lies in ``root``, with folders in the place of archives.

    Args:
        root: Where the files of the source lie.
        listed: The files of the source.
        unpacked: Where the files of an archive lie, by its path.
    """
    above = {""}
    for path in unpacked:
        while path := os.path.dirname(path):
            above.add(path)
    targets = {path: root / path for entry in listed for path in _just_below(entry.path, above)} | dict(unpacked)
    files = {entry.path for entry in listed}
    home = cache_folder("sources", "inside", hashlib.sha256(os.fsencode(root)).hexdigest()[:20])
    folder = home / "files"
    with locked(home):
        for path in sorted(above):
            if (folder / path).is_symlink():
                (folder / path).unlink()
            (folder / path).mkdir(exist_ok=True)
        for path, target in targets.items():
            # Another process may just read from an archive that nothing is asked of here.
            if path in unpacked or path not in files or not without_suffix(os.path.basename(path)):
                _link(folder / path, target)
    return folder


def _just_below(path: str, above: set[str]) -> list[str]:
    """The part of ``path`` that lies in one of the folders ``above`` and is none of them; several are impossible."""
    parts = path.split("/")
    ends = ("/".join(parts[: place + 1]) for place in range(len(parts)))
    return [end for end in ends if end not in above][:1]


def _link(place: Path, target: Path) -> None:
    """Let ``place`` lead to ``target``. Whoever reads through a link that was right before is not disturbed."""
    try:
        if os.readlink(place) == str(target):
            return
    except OSError:
        if place.is_dir():
            # Links lay in it, to what lay beside an archive that is gone.
            shutil.rmtree(place)
    new = place.with_name(".new")
    new.unlink(missing_ok=True)
    new.symlink_to(target)
    new.replace(place)
