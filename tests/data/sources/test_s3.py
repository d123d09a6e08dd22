"""What of a bucket is fetched and when, and what is said when it cannot be."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from cxr_tasks.data.sources.base import Entry
from cxr_tasks.data.sources.s3 import S3Source
from cxr_tasks.errors import DataError

FILES = {"COVID/images/1.png": b"one", "COVID/images/2.png": b"two", "Normal/3 é.png": b"three"}


class Bucket:
    """A bucket that can be written below ``address``."""

    def __init__(self, address: str) -> None:
        import boto3

        self.address = address
        self.name, _, self.prefix = address.removeprefix("s3://").partition("/")
        self.client: Any = boto3.client("s3")

    def put(self, files: dict[str, bytes]) -> None:
        for path, content in files.items():
            self.client.put_object(Bucket=self.name, Key=f"{self.prefix}/{path}", Body=content)

    def remove(self, path: str) -> None:
        self.client.delete_object(Bucket=self.name, Key=f"{self.prefix}/{path}")


@pytest.fixture
def bucket(s3: str) -> Bucket:
    return Bucket(s3)


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def fetch(address: str) -> tuple[dict[str, bytes], int]:
    """What is there after fetching, and how many objects were fetched for it."""
    source = S3Source(address)
    return files_in(source.fetch(source.entries())), source.fetched


def said(address: str) -> str:
    with pytest.raises(DataError) as raised:
        S3Source(address).entries()
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_objects_are_listed_by_path(bucket: Bucket) -> None:
    bucket.put(FILES)

    entries = S3Source(bucket.address).entries()

    assert [(entry.path, entry.size, entry.fault) for entry in entries] == [
        (path, len(FILES[path]), "") for path in sorted(FILES)
    ]
    assert S3Source(f"{bucket.address}/").entries() == entries


def test_hidden_objects_and_folders_are_left_out(bucket: Bucket) -> None:
    bucket.put({"a/.DS_Store": b"", "a/.b/1.png": b"", "__MACOSX/1.png": b"", "a/": b"", "": b"", "a/1.png": b"x"})

    assert fetch(bucket.address) == ({"a/1.png": b"x"}, 1)


def test_prefix_is_that_of_a_folder(bucket: Bucket) -> None:
    bucket.put({"a/1.png": b"x", "ab/2.png": b"x", "a.csv": b"x"})

    assert [entry.path for entry in S3Source(f"{bucket.address}/a").entries()] == ["1.png"]
    assert [entry.path for entry in S3Source(f"s3://{bucket.name}").entries()] == [
        f"cxr/{path}" for path in ("a.csv", "a/1.png", "ab/2.png")
    ]


def test_more_objects_than_a_page_are_fetched(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "2")
    bucket.put(FILES)

    assert fetch(bucket.address) == (FILES, 3)


def test_only_new_and_changed_objects_are_fetched(bucket: Bucket) -> None:
    bucket.put(FILES)
    assert fetch(bucket.address) == (FILES, 3)
    assert fetch(bucket.address) == (FILES, 0)

    bucket.put({"COVID/images/1.png": b"eno", "new.png": b"new"})

    assert fetch(bucket.address) == (FILES | {"COVID/images/1.png": b"eno", "new.png": b"new"}, 2)
    assert fetch(bucket.address)[1] == 0


def test_stamps_change_with_the_object(bucket: Bucket) -> None:
    bucket.put(FILES)
    before = S3Source(bucket.address).entries()

    bucket.put({"COVID/images/1.png": b"eno"})

    after = S3Source(bucket.address).entries()
    assert [new.path for old, new in zip(before, after, strict=True) if old != new] == ["COVID/images/1.png"]


def test_some_entries_may_be_fetched(bucket: Bucket) -> None:
    bucket.put(FILES)
    source = S3Source(bucket.address)
    entries = source.entries()

    assert files_in(source.fetch(entries[:1])) == {"COVID/images/1.png": b"one"}
    assert files_in(source.fetch(entries)) == FILES
    assert source.fetched == 3


@pytest.mark.parametrize("spoil", [Path.unlink, Path.touch, lambda path: path.write_bytes(b"eno")])
def test_file_that_is_no_longer_as_fetched_is_fetched_again(bucket: Bucket, spoil: Callable[[Path], object]) -> None:
    bucket.put(FILES)
    source = S3Source(bucket.address)
    spoil(source.fetch(source.entries()) / "COVID/images/1.png")

    assert fetch(bucket.address) == (FILES, 1)


def test_object_that_vanished_since_is_not_there(bucket: Bucket) -> None:
    bucket.put(FILES)
    fetch(bucket.address)
    bucket.put({"COVID/images/1.png": b"changed"})
    source = S3Source(bucket.address)
    entries = source.entries()

    bucket.remove("COVID/images/1.png")
    bucket.put({"new.png": b"new"})

    assert files_in(source.fetch(entries)) == {path: FILES[path] for path in FILES if path != "COVID/images/1.png"}
    assert source.fetched == 0


def test_object_that_changed_since_does_not_pass_for_what_was_listed(bucket: Bucket) -> None:
    bucket.put(FILES)
    source = S3Source(bucket.address)
    entries = source.entries()

    bucket.put({"COVID/images/1.png": b"eno"})

    assert "COVID/images/1.png" not in files_in(source.fetch(entries))
    assert source.fetched == 2
    assert fetch(bucket.address) == (FILES | {"COVID/images/1.png": b"eno"}, 1)


def test_object_may_become_a_folder_and_back(bucket: Bucket) -> None:
    bucket.put({"a": b"x", "d/e/f": b"y"})
    fetch(bucket.address)
    bucket.remove("a")
    bucket.remove("d/e/f")
    bucket.put({"a/b/c": b"x", "d": b"y"})

    assert fetch(bucket.address)[0] == {"a/b/c": b"x", "d": b"y"}


def test_killed_fetching_leaves_nothing_half_written(
    bucket: Bucket, cache: Path, kill_reading: Callable[[str, Callable[[], bool]], None]
) -> None:
    files = {f"{n}.png": bytes([n]) * 50_000 for n in range(80)}
    bucket.put(files)

    kill_reading(bucket.address, lambda: len(list(cache.glob("s3/*/files/*"))) > 5)
    there = files_in(next(cache.glob("s3/*/files")))

    assert 5 < len(there) < 80
    assert there.items() <= files.items()
    found, fetched = fetch(bucket.address)
    assert found == files
    assert fetched == 80 - len(there)
    assert not list(cache.glob("s3/*/aside"))


def test_two_that_fetch_at_once_share_the_work(bucket: Bucket) -> None:
    files = {f"{n}.png": bytes([n]) for n in range(30)}
    bucket.put(files)
    with ThreadPoolExecutor(3) as threads:
        results = list(threads.map(fetch, [bucket.address] * 3))

    assert [found for found, _ in results] == [files] * 3
    assert sum(fetched for _, fetched in results) == 30


def test_prefixes_do_not_share_a_cache(bucket: Bucket) -> None:
    bucket.put({"a/1.png": b"a", "b/1.png": b"b"})

    assert fetch(f"{bucket.address}/a")[0] == {"1.png": b"a"}
    assert fetch(f"{bucket.address}/b")[0] == {"1.png": b"b"}


# What cannot be a file here.


def test_keys_that_no_file_can_have_are_faults(bucket: Bucket) -> None:
    long = "é" * 128 + ".png"
    bucket.put({long: b"x", "a": b"y", "a/b.png": b"z", "c//d.png": b"w"})

    faults = {entry.path: entry.fault for entry in S3Source(bucket.address).entries() if entry.fault}

    assert faults == {
        long: "the file name is too long (260 bytes)",
        "a": "a folder has the same name",
        "c//d.png": "its key has an empty part",
    }
    assert fetch(bucket.address) == ({"a/b.png": b"z"}, 1)


@pytest.mark.parametrize("key", ["../x.png", "a/../../x.png", "a/..", "/etc/passwd"])
def test_keys_that_climb_out_are_refused(bucket: Bucket, key: str) -> None:
    bucket.put({"ok.png": b"x"})
    bucket.client.put_object(Bucket=bucket.name, Key=f"{bucket.prefix}/{key}", Body=b"x")

    assert said(bucket.address) == (
        f"The data source {bucket.address} is refused: its object {key!r} would be written outside the folder it is "
        "fetched to; give it another key."
    )


# What goes wrong.


def test_prefix_without_objects_is_named(bucket: Bucket) -> None:
    bucket.put(FILES)

    assert said(f"{bucket.address}/nothing") == (
        f"The data source {bucket.address}/nothing does not exist: the bucket holds nothing below this prefix; "
        "give the prefix that the images are below."
    )


def test_missing_bucket_is_named(s3: str, s3_server: str) -> None:
    assert said("s3://no-such-bucket/x") == (
        f"The data source s3://no-such-bucket/x does not exist: there is no bucket no-such-bucket at {s3_server}."
    )


def test_impossible_bucket_is_named(s3: str) -> None:
    assert said("s3://no such bucket/x").startswith("The data source s3://no such bucket/x cannot be read (")


def test_missing_credentials_are_named(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import boto3

    # It keeps the credentials that it found first.
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")

    assert said(s3) == f"There are no credentials for {s3}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."


def test_unreachable_endpoint_is_named_and_worth_a_retry(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")

    with pytest.raises(ConnectionError) as raised:
        S3Source(s3).entries()
    message = str(raised.value)

    assert message.startswith(f"{s3} cannot be reached at http://127.0.0.1:9 (")
    assert message.endswith("): check AWS_ENDPOINT_URL_S3 and the network.")


def test_impossible_endpoint_is_named(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "localhost:9000")

    assert said(s3) == "S3 cannot be reached (Invalid endpoint: localhost:9000): correct AWS_ENDPOINT_URL_S3."


def test_refused_credentials_are_named(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    from moto import settings

    bucket.put(FILES)
    source = S3Source(bucket.address)
    entries = source.entries()
    # From now on the server asks who asks.
    monkeypatch.setattr(settings, "INITIAL_NO_AUTH_ACTION_COUNT", 0)

    message = said(bucket.address)
    with pytest.raises(DataError, match="may not be read"):
        source.fetch(entries)

    assert message.startswith(f"The data source {bucket.address} may not be read (InvalidAccessKeyId): check ")


class Answers(BaseHTTPRequestHandler):
    """Sends an object of six bytes, broken off as often as the server says, or nothing but a status, or nothing."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        server: Any = self.server
        server.asked += 1
        if not server.status:
            self.close_connection = True
            return
        if server.status != 200:
            self.send_response(server.status)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Length", "6")
        self.send_header("ETag", '"tag"')
        self.end_headers()
        self.wfile.write(b"abc" if server.asked <= server.broken else b"abcdef")
        self.close_connection = True

    def log_message(self, *args: object) -> None: ...


@pytest.fixture
def answers(s3: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.asked, server.broken, server.status = 0, 0, 200
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


ENTRY = Entry("1.png", 6, "tag-6")


def test_download_that_breaks_off_is_tried_again(answers: Any) -> None:
    answers.broken = 2
    source = S3Source("s3://bucket/x")

    assert files_in(source.fetch([ENTRY])) == {"1.png": b"abcdef"}
    assert (source.fetched, answers.asked) == (1, 3)


def test_download_that_keeps_breaking_off_leaves_nothing_and_is_worth_a_retry(answers: Any, cache: Path) -> None:
    answers.broken = 99

    with pytest.raises(ConnectionError, match=r"s3://bucket/x cannot be reached at http://127\.0\.0\.1"):
        S3Source("s3://bucket/x").fetch([ENTRY])

    assert answers.asked == 3
    assert {path.name for path in cache.glob("s3/*/*")} == {"lock", "files"}
    assert not list(cache.glob("s3/*/files/*"))


def test_server_in_trouble_is_worth_a_retry(answers: Any) -> None:
    answers.status = 503

    with pytest.raises(ConnectionError, match=r"s3://bucket/x cannot be read for now \("):
        S3Source("s3://bucket/x").entries()


def test_a_listing_that_breaks_off_is_worth_a_retry(answers: Any) -> None:
    answers.status = 0

    with pytest.raises(ConnectionError, match=r"s3://bucket/x cannot be reached at http://127\.0\.0\.1"):
        S3Source("s3://bucket/x").entries()
