"""Writes the objects of a bucket to standard output as a tar archive, or reads them back: ``objects.py save cxr``.

It speaks S3, so that nothing has to stand still, and a backup fits another server, or another version of this one.
Endpoint and keys come from AWS_*.
"""

from __future__ import annotations

import sys
import tarfile
from collections.abc import Iterator
from typing import IO, Any, BinaryIO

import boto3
from botocore.config import Config

# Records and pointers are read first and files after them, because they are written after the files that they name.
TELLS = ".json"
# Who holds what now means nothing later.
NOT_KEPT = "store/leases/"


class Forward:
    """A file that can only be read on: asked whether it can do more, a member of a streamed archive raises."""

    def __init__(self, file: IO[bytes]) -> None:
        """``file`` is what is read."""
        self.read = file.read


def s3_client() -> Any:
    """A client that asks a server again which has just been started."""
    return boto3.client("s3", config=Config(retries={"max_attempts": 10, "mode": "standard"}))


def keys(s3: Any, bucket: str) -> Iterator[str]:
    """The keys of all objects that are worth keeping."""
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        yield from (item["Key"] for item in page.get("Contents", []) if not item["Key"].startswith(NOT_KEPT))


def save(bucket: str, out: BinaryIO) -> int:
    """Write every object to ``out``; returns how many there were. Objects that go meanwhile are left out."""
    s3, count = s3_client(), 0
    with tarfile.open(fileobj=out, mode="w|") as archive:
        for told in (True, False):
            for key in [key for key in keys(s3, bucket) if key.endswith(TELLS) is told]:
                try:
                    answer = s3.get_object(Bucket=bucket, Key=key)
                except s3.exceptions.NoSuchKey:
                    continue
                entry = tarfile.TarInfo(key)
                entry.size, entry.mtime = answer["ContentLength"], int(answer["LastModified"].timestamp())
                archive.addfile(entry, answer["Body"])
                count += 1
    return count


def load(bucket: str, source: BinaryIO) -> int:
    """Write every object of the archive into the bucket; returns how many there were.

    What tells of files is written after them, as whoever made it did.
    """
    s3, told = s3_client(), dict[str, bytes]()
    count = 0
    with tarfile.open(fileobj=source, mode="r|") as archive:
        for entry in archive:
            body = archive.extractfile(entry)
            assert body is not None, f"{entry.name} is no file"
            count += 1
            if entry.name.endswith(TELLS):
                told[entry.name] = body.read()
            else:
                s3.upload_fileobj(Forward(body), bucket, entry.name)
    for key, content in told.items():
        s3.put_object(Bucket=bucket, Key=key, Body=content)
    return count


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["save", bucket]:
            print(f"{save(bucket, sys.stdout.buffer)} objects saved.", file=sys.stderr)
        case ["load", bucket]:
            print(f"{load(bucket, sys.stdin.buffer)} objects loaded.", file=sys.stderr)
        case _:
            sys.exit("Give `save` or `load`, and the name of one bucket.")
