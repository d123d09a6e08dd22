"""The files of an artifact: what its record says of them, and whether they are still so."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import Any

from cxr_tasks.errors import UserError

RECORD = "artifact.json"
# Files up to this size are hashed whenever an artifact is taken; that costs about a millisecond each.
SMALL_FILE = 2**20
Files = Mapping[str, Mapping[str, Any]]
# Files that an artifact of a step has in any case. Records of 0.1.0 name no files: these at least must be there.
ALWAYS = {
    "settings": ("settings.json",),
    "manifest": ("manifest.parquet",),
    "split": ("manifest.parquet",),
    "train_gan": ("generator.keras", "discriminator.keras"),
    "synthesize": ("pixels.npy", "manifest.parquet"),
    "backbone_features": ("features.npy",),
    "train_arm": ("model.keras", "predictions.parquet"),
}


class Care(Enum):
    """How closely files are looked at. Every degree includes those before it."""

    SIZES = 1  # names and sizes, and the hashes of files that were written since
    SMALL = 2  # and the hashes of small files
    ALL = 3  # and all hashes


class MissingArtifact(UserError, FileNotFoundError):
    """An artifact that a step works from is not in the store any more."""

    def __init__(self, ref: str, place: str) -> None:
        """``place``: the store."""
        super().__init__(f"Artifact {ref} is not in the store {place}: {make_again(ref)}")


class DamagedArtifact(UserError, FileNotFoundError):
    """An artifact that a step works from has lost files, or their content."""

    def __init__(self, ref: str, place: str, fault: str) -> None:
        """``place``: the artifact. ``fault``: what is wrong with it, as the end of a sentence."""
        super().__init__(f"Artifact {ref} in {place} is damaged, {fault}: {make_again(ref)}")
        self.fault = fault


def make_again(ref: str) -> str:
    """What a person does to have an artifact again."""
    step = ref.split("/")[0]
    if step == "settings":
        return "the settings of a run are kept when it starts, so start a new run."
    if step in ("scan", "ingest", "manifest", "validate", "split"):
        return "run cxr_data again, which makes it anew, and then start a new run of cxr_training."
    return "start a new run of cxr_training, which makes it anew."


def described(folder: Path) -> dict[str, dict[str, Any]]:
    """The files below ``folder`` but for the record: ``size`` in bytes, ``sha256``, and when it was written."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    named = {path.relative_to(folder).as_posix(): path for path in paths}
    return {
        name: {"size": path.stat().st_size, "stamp": _stamp_of(path), "sha256": _hash_of(path)}
        for name, path in named.items()
        if name != RECORD
    }


def unlisted_fault(ref: str, record: Mapping[str, Any], is_there: Callable[[str], bool]) -> str:
    """What is wrong with an artifact whose record names no files, as :func:`fault_of` says it.

    Args:
        ref: Of the artifact.
        record: Of the artifact.
        is_there: Whether the artifact has a file of this name.
    """
    if "files" in record:
        return ""
    gone = [name for name in ALWAYS.get(ref.split("/")[0], ()) if not is_there(name)]
    return f"its file {gone[0]} is gone" if gone else ""


def fault_of(folder: Path, files: Files, care: Care) -> str:
    """What is wrong with files below ``folder``, as the end of a sentence; '' where nothing is.

    Args:
        folder: Where they are.
        files: What they were when they were written.
        care: How closely they are looked at.
    """
    for name, told in files.items():
        path = folder / name
        try:
            size = path.stat().st_size
            if size != told["size"]:
                return f"its file {name} has {size:,} bytes instead of {told['size']:,}"
            written = _stamp_of(path) != told["stamp"]
            if not (written or care is Care.ALL or (care is Care.SMALL and size <= SMALL_FILE)):
                continue
            if _hash_of(path) != told["sha256"]:
                return f"its file {name} has another content than when it was written"
            if written:
                # Copied from elsewhere, say. Next time it need not be read.
                with suppress(OSError):
                    os.utime(path, ns=(path.stat().st_atime_ns, int(told["stamp"]) * 1000))
        except (FileNotFoundError, NotADirectoryError):
            return f"its file {name} is gone"
    return ""


def _stamp_of(path: Path) -> str:
    """When the file was last written, in microseconds: some disks shared between machines keep no finer time."""
    return str(path.stat().st_mtime_ns // 1000)


def _hash_of(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
