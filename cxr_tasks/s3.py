"""The one way to S3: the client, the objects below a prefix of a bucket, and what S3's errors mean.

Endpoint and credentials come from ``AWS_ENDPOINT_URL_S3``, ``AWS_ACCESS_KEY_ID`` and the like.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

from cxr_tasks.cache import disk_full, is_disk_full
from cxr_tasks.errors import UserError, in_one_line, shown
from cxr_tasks.outages import is_passing_status, patiently

# Requests under way at the same time.
CONNECTIONS = 16
CONNECT_SECONDS, ANSWER_SECONDS = 10, 60
# Times that an object is asked for. The client itself tries again until an answer begins, but not when it breaks off.
TRIES = 3
READ_CHUNK = 2**20
# The most that S3 deletes in one request.
DELETED_AT_ONCE = 1000
REFUSED = {"403", "AccessDenied", "ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch"}
GONE = {"404", "NoSuchKey"}
# What S3 servers that are busy or restarting say, also with a status below 500. A clock that is wrong is set right by
# the machine itself.
PASSING = {
    "BandwidthLimitExceeded",
    "InternalError",
    "OperationAborted",
    "PriorRequestNotComplete",
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestThrottledException",
    "RequestTimeTooSkewed",
    "RequestTimeout",
    "RequestTimeoutException",
    "ServiceUnavailable",
    "SlowDown",
    "ThrottledException",
    "Throttling",
    "ThrottlingException",
    "TokenRefreshRequired",
    "TooManyRequests",
    "TooManyRequestsException",
}
_creating_client = threading.Lock()


class S3Object(NamedTuple):
    """One object as it was listed.

    Attributes:
        path: The key without the prefix.
        size: Bytes.
        stamp: Text that changes with the content.
    """

    path: str
    size: int
    stamp: str


@dataclass(frozen=True)
class BucketUse:
    """What a bucket is to the one who opens it, for the sentences of errors.

    Attributes:
        thing: What the bucket is, such as ``data source``.
        verb: What happens to it, such as ``read``.
        rights: What the credentials must allow, such as ``list and read the bucket``.
        error: Class of the errors that only a person can mend.
    """

    thing: str
    verb: str
    rights: str
    error: type[UserError]


class Bucket:
    """The objects below ``s3://bucket/prefix``.

    Every method raises the use's own error for what only a person can mend, and :class:`ConnectionError` for what
    may pass, such as a server in trouble or a connection that broke off. Methods wait for that to pass as
    :func:`cxr_tasks.outages.patience` says.

    Attributes:
        address: As given.
        name: Of the bucket.
        prefix: What all keys begin with: '' or a text that ends in a slash.
    """

    def __init__(self, address: str, use: BucketUse) -> None:
        """Nothing is asked of the bucket yet.

        Args:
            address: ``s3://bucket`` or ``s3://bucket/prefix``.
            use: What the bucket is used for.

        Raises:
            UserError: The address names no bucket.
        """
        self.address = address
        self.use = use
        self.name, _, prefix = address.removeprefix("s3://").partition("/")
        self.prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        if not self.name:
            raise use.error(f"The {use.thing} {shown(address)} names no bucket: give s3://bucket/prefix.")

    @cached_property
    def client(self) -> Any:
        """The client, which any number of threads may use.

        Raises:
            UserError: The endpoint is no address.
        """
        import boto3
        from botocore.config import Config

        config = Config(
            max_pool_connections=CONNECTIONS,
            connect_timeout=CONNECT_SECONDS,
            read_timeout=ANSWER_SECONDS,
            retries={"mode": "standard"},
        )
        try:
            # Two threads may not make clients from boto3's one session at the same time.
            with _creating_client:
                return boto3.client("s3", config=config)
        except ValueError as error:
            raise self.use.error(f"S3 cannot be reached ({error}): correct AWS_ENDPOINT_URL_S3.") from error

    @property
    def endpoint(self) -> str:
        """The address of the server."""
        return self.client.meta.endpoint_url

    def where(self, path: str) -> str:
        """The address of the object or folder ``path``."""
        return f"s3://{self.name}/{self.prefix}{path}"

    def objects(self, below: str = "") -> list[S3Object]:
        """The objects whose path begins with ``below``, sorted by key.

        Args:
            below: The beginning of their paths, mostly a folder with its slash.
        """
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=self.prefix + below)

        def ask() -> list[dict[str, Any]]:
            with self._clear_errors():
                return [item for page in pages for item in page.get("Contents", [])]

        items = patiently(ask, self.address)
        return [S3Object(item["Key"][len(self.prefix) :], item["Size"], _stamp(item, item["Size"])) for item in items]

    def get(self, path: str) -> bytes | None:
        """The content of a small object, or ``None`` where there is none."""
        client = self.client

        def ask() -> bytes | None:
            with self._clear_errors():
                try:
                    return client.get_object(Bucket=self.name, Key=self.prefix + path)["Body"].read()
                except client.exceptions.NoSuchKey:
                    return None

        return patiently(ask, self.address)

    def put(self, path: str, content: bytes) -> None:
        """Write a small object in one request."""
        client = self.client

        def ask() -> None:
            with self._clear_errors():
                client.put_object(Bucket=self.name, Key=self.prefix + path, Body=content)

        patiently(ask, self.address)

    def fetch(self, path: str, stamp: str, folder: Path) -> Path | None:
        """Write one object to a new file of ``folder``, in one request.

        :meth:`download` makes two requests an object, so that 3,000 objects of 40 kB take twice as long.

        Args:
            path: Of the object.
            stamp: As it was listed.
            folder: Where the file is made.

        Returns:
            The file, or ``None`` where the object is gone or no longer as it was listed.
        """
        from botocore.exceptions import ClientError, HTTPClientError, IncompleteReadError

        client = self.client
        with self._clear_errors():
            for left in reversed(range(TRIES)):
                try:
                    answer = client.get_object(Bucket=self.name, Key=self.prefix + path)
                    if _stamp(answer, answer["ContentLength"]) != stamp:
                        return None
                    handle, name = tempfile.mkstemp(dir=folder)
                    with open(handle, "wb") as out:
                        for chunk in answer["Body"].iter_chunks(READ_CHUNK):
                            out.write(chunk)
                    return Path(name)
                except ClientError as error:
                    if error.response["Error"]["Code"] in GONE:
                        return None
                    raise
                except (HTTPClientError, IncompleteReadError):
                    if not left:
                        raise
        raise AssertionError("unreachable")

    def download(self, below: str, folder: Path) -> int:
        """Write all objects below ``below`` into ``folder``, several at a time and large ones in parts.

        Args:
            below: A folder with its slash.
            folder: Where the files go, under their paths below ``below``.

        Returns:
            The number of objects.

        Raises:
            FileNotFoundError: An object was deleted meanwhile.
        """
        files = {found.path: folder / found.path[len(below) :] for found in self.objects(below)}
        for target in files.values():
            target.parent.mkdir(parents=True, exist_ok=True)
        self._transfer(
            lambda transfers: [
                transfers.download(self.name, self.prefix + path, str(target)) for path, target in files.items()
            ]
        )
        return len(files)

    def upload(self, files: Mapping[str, Path]) -> None:
        """Write files, several at a time and large ones in parts.

        Args:
            files: Each file by the path of its object.
        """
        self._transfer(
            lambda transfers: [
                transfers.upload(str(file), self.name, self.prefix + path) for path, file in files.items()
            ]
        )

    def delete(self, paths: Iterable[str]) -> None:
        """Delete objects, many in one request. Objects that are not there are no error."""
        client, keys = self.client, [{"Key": self.prefix + path} for path in paths]
        for start in range(0, len(keys), DELETED_AT_ONCE):
            asked = {"Objects": keys[start : start + DELETED_AT_ONCE], "Quiet": True}
            patiently(partial(self._delete, client, asked), self.address)

    def _delete(self, client: Any, asked: dict[str, Any]) -> None:
        with self._clear_errors():
            answer = client.delete_objects(Bucket=self.name, Delete=asked)
        for failure in answer.get("Errors", []):
            code = failure.get("Code", "")
            raise self._meaning(code, 400, failure.get("Message", code))

    def _transfer(self, begin: Callable[[Any], list[Any]]) -> None:
        """Wait for the transfers that ``begin`` begins; all of them are begun again while patience lasts."""

        def attempt() -> None:
            with self._transfers() as transfers:
                for transfer in begin(transfers):
                    transfer.result()

        patiently(attempt, self.address)

    @contextmanager
    def _transfers(self) -> Iterator[Any]:
        """boto3's manager of transfers, which waits for those that were begun, or gives up the rest on an error."""
        from boto3.s3.transfer import TransferConfig, create_transfer_manager

        config = TransferConfig(max_concurrency=CONNECTIONS)
        with self._clear_errors(), create_transfer_manager(self.client, config) as transfers:
            yield transfers

    @contextmanager
    def _clear_errors(self) -> Iterator[None]:
        """Say in one sentence what is wrong."""
        from botocore import exceptions as boto
        from s3transfer.exceptions import RetriesExceededError

        broken_off = (boto.IncompleteReadError, boto.ResponseStreamingError)
        try:
            yield
        except (boto.NoCredentialsError, boto.PartialCredentialsError) as error:
            raise self.use.error(
                f"There are no credentials for {shown(self.address)}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
            ) from error
        except boto.ClientError as error:
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            raise self._meaning(error.response["Error"]["Code"], status, in_one_line(error)) from error
        except RetriesExceededError as error:
            raise self._unreached(error.last_exception) from error
        except (boto.ConnectionError, boto.HTTPClientError, *broken_off) as error:
            raise self._unreached(error) from error
        except boto.CredentialRetrievalError as error:
            raise ConnectionError(
                f"The credentials for {shown(self.address)} cannot be had now ({in_one_line(error)})."
            ) from error
        except boto.BotoCoreError as error:
            raise self._meaning("", 400, in_one_line(error)) from error
        except OSError as error:
            if is_disk_full(error):
                raise disk_full(f"The {self.use.thing} {self.address}") from error
            raise

    def _unreached(self, error: Exception) -> Exception:
        # A certificate that is not trusted is no outage.
        kind = self.use.error if "CERTIFICATE_VERIFY_FAILED" in str(error) else ConnectionError
        return kind(
            f"{shown(self.address)} cannot be reached at {self.endpoint} ({in_one_line(error)}): "
            "check AWS_ENDPOINT_URL_S3 and the network."
        )

    def _meaning(self, code: str, status: int, text: str) -> Exception:
        """What the server's answer means; ``text`` is what it says itself."""
        name, use = shown(self.address), self.use
        if code == "NoSuchBucket":
            return use.error(
                f"The {use.thing} {name} does not exist: there is no bucket {self.name} at {self.endpoint}."
            )
        if code in GONE:
            return FileNotFoundError(f"An object of {name} is gone ({text}).")
        if code in PASSING or is_passing_status(status) or (code == "ExpiredToken" and self._credentials_rotate()):
            return ConnectionError(f"{name} cannot be {use.verb} for now ({text}).")
        if code in REFUSED:
            return use.error(
                f"The {use.thing} {name} may not be {use.verb} ({code}): check AWS_ACCESS_KEY_ID and "
                f"AWS_SECRET_ACCESS_KEY, and that they are allowed to {use.rights}."
            )
        return use.error(f"The {use.thing} {name} cannot be {use.verb} ({text}).")

    def _credentials_rotate(self) -> bool:
        """Whether others come by themselves: those of a role or of a file do, those of the environment do not."""
        credentials = self.client._request_signer._credentials
        return credentials is not None and credentials.method not in ("env", "explicit")


def _stamp(answer: Mapping[str, Any], size: int) -> str:
    digest = answer["ETag"].strip('"')
    return f"{digest}-{size}"
