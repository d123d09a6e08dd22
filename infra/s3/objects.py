"""Writes the objects of a bucket to standard output as a tar archive, or reads them back: ``objects.py save cxr``.

It speaks S3, so that nothing has to stand still, and a backup fits another server, or another version of this one.
Endpoint and keys come from AWS_*.

Trainings may run meanwhile. What names something is read before what it names, so that a backup fits together.
``save-state`` reads the pointers, which say how far work has come. Then ``infra/containers.py`` saves the databases.
``save`` reads the rest: the versions of datasets, then the records of artifacts, then files. It writes them the
other way round, so that a restore, like whoever made them, writes first what is named.
"""

from __future__ import annotations

import io
import json
import re
import sys
import tarfile
from collections.abc import Iterable
from typing import IO, Any, BinaryIO

import boto3
from botocore.config import Config

ALL_POINTERS = "store/pointers/"
# A pointer that is older than the databases lets work be asked for again. A newer one would call work begun that they
# do not know. Only the versions of datasets never change, and the databases may name the newest.
DATASET_VERSIONS = f"{ALL_POINTERS}dataset-versions/"
RECORDS = re.compile(r"store/(?!pointers/|unfinished/)[^/]+/[^/]+/artifact\.json")
# Checkpoints are replaced while a training runs, so they are read as soon as they are listed.
CHECKPOINTS = "store/unfinished/"
# Who holds what now means nothing later. TensorFlow's list of checkpoints may be older or newer than they are when they
# are read, and names some that are not saved then. Without a list those count that are there.
NOT_KEPT = re.compile(r"store/leases/.*|store/unfinished/(.*/)?checkpoint")


class Forward:
    """A file that can only be read on: asked whether it can do more, a member of a streamed archive raises."""

    def __init__(self, file: IO[bytes]) -> None:
        """``file`` is what is read."""
        self.read = file.read


def s3_client() -> Any:
    """A client that asks a server again which has just been started."""
    return boto3.client("s3", config=Config(retries={"max_attempts": 10, "mode": "standard"}))


def keys(s3: Any, bucket: str, below: str = "") -> list[str]:
    """The keys of all objects that are there now, and worth keeping."""
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=below)
    found = [item["Key"] for page in pages for item in page.get("Contents", [])]
    return [key for key in found if not NOT_KEPT.fullmatch(key)]


def save_state(bucket: str, out: BinaryIO) -> int:
    """Write the pointers to ``out``; returns how many there were."""
    s3, count = s3_client(), 0
    with tarfile.open(fileobj=out, mode="w|") as archive:
        for key in keys(s3, bucket, ALL_POINTERS):
            if not key.startswith(DATASET_VERSIONS) and (answer := _get(s3, bucket, key)) is not None:
                _add(archive, key, answer, answer["Body"])
                count += 1
    return count


def save(bucket: str, out: BinaryIO) -> int:
    """Write every other object to ``out``; returns how many there were.

    Objects that go meanwhile are left out, and with a file the record that names it: the artifact is made anew.
    """
    s3, saved = s3_client(), set[str]()
    with tarfile.open(fileobj=out, mode="w|") as archive:
        versions = _read_whole(s3, bucket, keys(s3, bucket, DATASET_VERSIONS))
        records = _read_whole(s3, bucket, filter(RECORDS.fullmatch, keys(s3, bucket)))
        for below in (CHECKPOINTS, ""):
            for key in keys(s3, bucket, below):
                if key in saved or key.startswith(ALL_POINTERS) or RECORDS.fullmatch(key):
                    continue
                if (answer := _get(s3, bucket, key)) is not None:
                    _add(archive, key, answer, answer["Body"])
                    saved.add(key)
        for key, (answer, content) in records.items():
            if named_by(key, content) <= saved:
                _add(archive, key, answer, io.BytesIO(content))
                saved.add(key)
        for key, (answer, content) in versions.items():
            _add(archive, key, answer, io.BytesIO(content))
            saved.add(key)
    return len(saved)


def named_by(key: str, record: bytes) -> set[str]:
    """The keys of the files that a record names; none where it names none, or cannot be read."""
    try:
        told = json.loads(record)
        return {f"{key.rpartition('/')[0]}/{told['objects']}/{name}" for name in told["files"]}
    except (ValueError, TypeError, KeyError):
        return set()


def _read_whole(s3: Any, bucket: str, small: Iterable[str]) -> dict[str, tuple[dict[str, Any], bytes]]:
    """What S3 answers for each of these objects that is still there, with its content."""
    answers = ((key, _get(s3, bucket, key)) for key in small)
    return {key: (answer, answer["Body"].read()) for key, answer in answers if answer is not None}


def _get(s3: Any, bucket: str, key: str) -> dict[str, Any] | None:
    """What S3 answers; ``None`` where the object has gone."""
    try:
        answer: dict[str, Any] = s3.get_object(Bucket=bucket, Key=key)
    except s3.exceptions.NoSuchKey:
        return None
    return answer


def _add(archive: tarfile.TarFile, key: str, answer: dict[str, Any], body: IO[bytes]) -> None:
    entry = tarfile.TarInfo(key)
    entry.size, entry.mtime = answer["ContentLength"], int(answer["LastModified"].timestamp())
    archive.addfile(entry, body)


def load(bucket: str, source: BinaryIO) -> int:
    """Write every object of the archive into the bucket, in its order; returns how many there were."""
    s3, count = s3_client(), 0
    with tarfile.open(fileobj=source, mode="r|") as archive:
        for entry in archive:
            body = archive.extractfile(entry)
            assert body is not None, f"{entry.name} is no file"
            s3.upload_fileobj(Forward(body), bucket, entry.name)
            count += 1
    return count


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["save", bucket]:
            print(f"{save(bucket, sys.stdout.buffer)} objects saved.", file=sys.stderr)
        case ["save-state", bucket]:
            print(f"{save_state(bucket, sys.stdout.buffer)} pointers saved.", file=sys.stderr)
        case ["load", bucket]:
            print(f"{load(bucket, sys.stdin.buffer)} objects loaded.", file=sys.stderr)
        case _:
            sys.exit("Give `save-state`, `save` or `load`, and the name of one bucket.")
