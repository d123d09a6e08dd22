"""Objects that are written on a condition, so that of several writers exactly one wins."""

from __future__ import annotations

import logging
import uuid
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

from cxr_tasks.outages import patiently
from cxr_tasks.s3 import GONE, Bucket

log = logging.getLogger(__name__)

# What servers answer where the condition does not hold, and where they know no conditions.
FAILED, UNKNOWN = {"412", "PreconditionFailed"}, {"501", "NotImplemented", "InvalidArgument"}
# Another write to the object was under way.
CONFLICT = {"409", "ConditionalRequestConflict"}
CONFLICTS = 5
WITHOUT_CONDITIONS = (
    "two runs that make the same artifact at once do not wait for each other. Start one run at a time, or take a "
    "server that heeds If-None-Match and If-Match, such as SeaweedFS since 3.97."
)

# What each server said, by endpoint, bucket and prefix.
_answers: dict[tuple[str, str, str], bool] = {}


class Version(NamedTuple):
    """An object as it was read.

    Attributes:
        content: Of the object.
        tag: Changes with the content.
        age: Seconds since it was written, both by the clock of the server.
    """

    content: bytes
    tag: str
    age: float


class ConditionalBucket(Bucket):
    """A bucket whose objects can be written on the condition that they are still as they were read.

    As all methods of a bucket, these wait for a server that is away while patience lasts. The thread that renews a
    lease has no patience: it must see in time that the lease is lost.
    """

    def read(self, path: str) -> Version | None:
        """A small object, or ``None`` where there is none."""
        client = self.client

        def ask() -> tuple[Any, bytes] | None:
            with self._clear_errors():
                try:
                    answer = client.get_object(Bucket=self.name, Key=self.prefix + path)
                    return answer, answer["Body"].read()
                except client.exceptions.NoSuchKey:
                    return None

        if (found := patiently(ask, self.address)) is None:
            return None
        answer, content = found
        told = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
        now = parsedate_to_datetime(told) if told else datetime.now(UTC)
        return Version(content, answer["ETag"], (now - answer["LastModified"]).total_seconds())

    def write(self, path: str, content: bytes, before: str | None) -> str | None:
        """Write an object if nobody else wrote it meanwhile.

        A server that knows no conditions writes it in any case.

        Args:
            path: Of the object.
            content: Different from that of every other writer.
            before: The tag of the object that is replaced; ``None`` where there must be none.

        Returns:
            The tag of the object as it is now, or ``None`` where somebody else was first.
        """
        from botocore.exceptions import ClientError

        client = self.client
        condition = {"IfNoneMatch": "*"} if before is None else {"IfMatch": before}
        asked = {"Bucket": self.name, "Key": self.prefix + path, "Body": content}

        def ask() -> tuple[str, str]:
            """The tag, or what the server says against it."""
            with self._clear_errors():
                try:
                    return client.put_object(**asked, **condition)["ETag"], ""
                except ClientError as error:
                    code = error.response["Error"]["Code"]
                    if code not in FAILED | GONE | CONFLICT | UNKNOWN:
                        raise
                    return "", code

        for _ in range(CONFLICTS):
            tag, code = patiently(ask, self.address)
            if not code:
                return tag
            if code in UNKNOWN:
                condition = {}
                continue
            # A try whose answer was lost may have written the object.
            there = self.read(path)
            if there is not None and there.content == content:
                return there.tag
            if code not in CONFLICT:
                return None
        raise ConnectionError(f"{self.where(path)} is being written by others all the time.")

    def knows_conditions(self) -> bool:
        """Whether the server heeds conditions; asked once a process, with an object that is deleted again."""
        place = (self.endpoint, self.name, self.prefix)
        if place not in _answers:
            _answers[place] = self._try_conditions()
            if not _answers[place]:
                log.warning("The S3 server at %s knows no conditional writes: %s", self.endpoint, WITHOUT_CONDITIONS)
        return _answers[place]

    def _try_conditions(self) -> bool:
        path = f"leases/trial-{uuid.uuid4().hex}"
        try:
            return (
                self.write(path, b"first", None) is not None
                and self.write(path, b"second", None) is None
                and self.write(path, b"third", '"of another object"') is None
            )
        finally:
            self.delete([path])
