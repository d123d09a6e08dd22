"""A Kaggle dataset, downloaded into the local cache by kagglehub."""

from __future__ import annotations

import errno
import os
import re
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from cxr_tasks.cache import cache_folder, disk_full, is_disk_full, locked
from cxr_tasks.data.sources.base import Entry, Source
from cxr_tasks.data.sources.folder import FolderSource
from cxr_tasks.errors import DataError, in_one_line, shown
from cxr_tasks.outages import is_passing_status

ADDRESS = re.compile(r"kaggle://([A-Za-z0-9_-]+)/([A-Za-z0-9_-]+)(/versions/[1-9][0-9]*)?/?")
CREDENTIALS = "set KAGGLE_API_TOKEN, or KAGGLE_USERNAME and KAGGLE_KEY, as made at https://www.kaggle.com/settings"


class KaggleSource(Source):
    """The files of ``kaggle://owner/name`` as of its newest version, or of ``kaggle://owner/name/versions/N``.

    A version is downloaded once. A version that the address names needs no network once it was downloaded. An
    instance stays with the version that it first saw.

    Attributes:
        owner: Of the dataset.
        name: Of the dataset.
        version: ``/versions/N``, or '' for the newest.
    """

    example = "kaggle://owner/name"

    def __init__(self, address: str) -> None:
        """Nothing is asked of Kaggle yet.

        Args:
            address: ``kaggle://owner/name``, or the same with ``/versions/N``.

        Raises:
            DataError: The address names no dataset.
        """
        super().__init__(address)
        matched = ADDRESS.fullmatch(address)
        if matched is None:
            raise DataError(
                f"The data source {shown(address)} names no Kaggle dataset: give kaggle://owner/name, "
                "or kaggle://owner/name/versions/3."
            )
        self.owner, self.name, self.version = matched.groups(default="")
        self._root: Path | None = None

    def entries(self) -> list[Entry]:
        """The files of the version, downloaded where they are not yet."""
        root = self._downloaded()
        # What Kaggle has published as a version never changes, and is the same on every machine.
        return [
            entry if entry.fault else replace(entry, stamp=f"{self.owner}/{self.name}/{root.name}-{entry.size}")
            for entry in FolderSource(root, self.address).entries()
        ]

    def fetch(self, entries: Sequence[Entry]) -> Path:
        """The folder of the whole version, whatever ``entries`` are asked for."""
        return self._downloaded()

    def _downloaded(self) -> Path:
        if self._root is None:
            home = cache_folder("sources", "kaggle", self.owner, self.name)
            with locked(home), _environment("KAGGLEHUB_CACHE", str(home)), self._clear_errors(home):
                self._root = self._download(home)
        return self._root

    def _download(self, home: Path) -> Path:
        import kagglehub

        handle = f"{self.owner}/{self.name}{self.version}"
        root = Path(kagglehub.dataset_download(handle))
        # What cleans up temporary folders removes single files. kagglehub does not see that.
        count, found = home / f"all-files-of-version-{root.name}", len(FolderSource(root).entries())
        if count.exists() and count.read_text() != str(found):
            count.unlink()
            return Path(kagglehub.dataset_download(handle, force_download=True))
        count.write_text(str(found))
        return root

    @contextmanager
    def _clear_errors(self, home: Path) -> Iterator[None]:
        """Say in one sentence what is wrong, and what credentials may have to do with it."""
        import requests

        name = shown(self.address)
        hint = "" if _has_credentials() else f"; there are no Kaggle credentials: {CREDENTIALS}"
        try:
            yield
        except DataError:
            raise
        except requests.HTTPError as error:
            raise self._answered(error, hint) from error
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
            raise ConnectionError(
                f"Kaggle cannot be reached for {name} ({type(error).__name__}): check the network, or give a folder "
                f"or an archive that was downloaded elsewhere{hint}."
            ) from error
        except (ValueError, zipfile.BadZipFile) as error:
            # kagglehub would take the same download for whole the next time.
            for archive in self._archives(home):
                archive.unlink()
            raise DataError(
                f"What Kaggle sent for {name} cannot be read ({in_one_line(error)}): run it again, or give a folder "
                "or an archive that was downloaded elsewhere."
            ) from error
        except OSError as error:
            if is_disk_full(error):
                raise disk_full(f"The data source {name}") from error
            if error.errno == errno.ENAMETOOLONG:
                raise DataError(
                    f"{name} holds a file whose name is too long for the cache: set CXR_CACHE to a shorter path."
                ) from error
            raise

    def _archives(self, home: Path) -> list[Path]:
        """What kagglehub has begun to download or not yet unpacked."""
        return list(home.glob(f"datasets/{self.owner}/{self.name}/*.archive"))

    def _answered(self, error: Any, hint: str) -> Exception:
        name, page = shown(self.address), f"https://www.kaggle.com/datasets/{self.owner}/{self.name}"
        status = error.response.status_code
        if status == 401 and not hint:
            return DataError(f"Kaggle does not accept the credentials it was given for {name}: {CREDENTIALS}.")
        if status in (401, 403, 404):
            # Kaggle answers the same for what is private and for what is not there.
            why = f"has no dataset {name}" if status == 404 else f"does not hand out {name}"
            return DataError(f"Kaggle {why}: check the name and that you may see {page}{hint}.")
        if is_passing_status(status):
            return ConnectionError(f"Kaggle cannot give {name} for now (status {status}).")
        return DataError(f"Kaggle does not hand out {name} ({in_one_line(error)}).")


def _has_credentials() -> bool:
    """Whether kagglehub finds any. Many public datasets need none, so to have none is no error yet.

    Raises:
        DataError: The credentials are incomplete.
    """
    from kagglehub.config import get_kaggle_credentials

    try:
        known = get_kaggle_credentials() is not None
    except ValueError as error:
        raise DataError(f"{in_one_line(error)}: make it again, or {CREDENTIALS}.") from error
    if not known and (os.environ.get("KAGGLE_USERNAME") or os.environ.get("KAGGLE_KEY")):
        raise DataError(f"Only one of KAGGLE_USERNAME and KAGGLE_KEY is set: {CREDENTIALS}.")
    return known


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
