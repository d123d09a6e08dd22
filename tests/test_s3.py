"""Objects go up, down and away many at once, and what S3 says becomes one sentence."""

import errno
from pathlib import Path
from typing import Any

import pytest

from cxr_tasks import s3 as storage
from cxr_tasks.errors import DataError, SettingsError
from cxr_tasks.s3 import Bucket, BucketUse
from cxr_tasks.store import open_store

USE = BucketUse("store", "used", "do everything", SettingsError)


@pytest.fixture
def bucket(s3: str) -> Bucket:
    return Bucket(s3, USE)


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_uploaded_is_listed_and_downloaded(bucket: Bucket, tmp_path: Path) -> None:
    contents = {f"a/{n}/{n}.bin": bytes([n]) * n for n in range(40)} | {"a/large.bin": bytes(range(256)) * 40_000}
    for path, content in contents.items():
        (tmp_path / "up" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "up" / path).write_bytes(content)

    bucket.upload({path: tmp_path / "up" / path for path in contents})
    bucket.put("ab.txt", b"not below a/")

    assert {found.path: found.size for found in bucket.objects("a/")} == {
        path: len(content) for path, content in contents.items()
    }
    assert bucket.download("a/", tmp_path / "down") == 41
    assert files_in(tmp_path / "down") == {path.removeprefix("a/"): content for path, content in contents.items()}
    assert bucket.download("b/", tmp_path / "nothing") == 0


def test_small_objects_are_written_and_read(bucket: Bucket) -> None:
    assert bucket.get("a.json") is None

    bucket.put("a.json", b"{}")

    assert bucket.get("a.json") == b"{}"
    assert bucket.where("a.json") == f"{bucket.address}/a.json"


def test_many_are_deleted_in_few_requests(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(7):
        bucket.put(f"{n}", b"x")
    monkeypatch.setattr(storage, "DELETED_AT_ONCE", 3)
    delete, asked = bucket.client.delete_objects, []
    monkeypatch.setattr(bucket.client, "delete_objects", lambda **request: asked.append(1) or delete(**request))

    bucket.delete(["never there", *(f"{n}" for n in range(6))])

    assert [found.path for found in bucket.objects()] == ["6"]
    assert len(asked) == 3
    bucket.delete([])
    assert len(asked) == 3


@pytest.mark.parametrize(("code", "kind"), [("AccessDenied", SettingsError), ("InternalError", ConnectionError)])
def test_an_object_that_cannot_be_deleted_is_not_passed_over(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, code: str, kind: type[Exception]
) -> None:
    answer = {"Errors": [{"Key": "cxr/a", "Code": code, "Message": "No."}]}
    monkeypatch.setattr(bucket.client, "delete_objects", lambda **_: answer)

    with pytest.raises(kind, match=f"^(The store )?{bucket.address} "):
        bucket.delete(["a"])


def test_an_object_is_fetched_only_as_it_was_listed(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put("a", b"one")
    (listed,) = bucket.objects()

    written = bucket.fetch("a", listed.stamp, tmp_path)

    assert written is not None and written.read_bytes() == b"one"
    bucket.put("a", b"two")
    assert bucket.fetch("a", listed.stamp, tmp_path) is None
    bucket.delete(["a"])
    assert bucket.fetch("a", listed.stamp, tmp_path) is None
    assert list(tmp_path.iterdir()) == [written]


def test_mistakes_are_named_for_what_the_bucket_is_used_for(s3: str, s3_server: str) -> None:
    with pytest.raises(SettingsError) as raised:
        open_store("s3://no-such-bucket/x").read_pointer("newest")
    assert str(raised.value) == (
        f"The store s3://no-such-bucket/x does not exist: there is no bucket no-such-bucket at {s3_server}."
    )
    with pytest.raises(SettingsError, match=r"^The store s3:///x names no bucket: give s3://bucket/prefix\.$"):
        open_store("s3:///x")


def test_refused_credentials_are_named(bucket: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from moto import settings

    bucket.put("a", b"x")
    monkeypatch.setattr(settings, "INITIAL_NO_AUTH_ACTION_COUNT", 0)
    sentence = (
        f"The store {bucket.address} may not be used (InvalidAccessKeyId): check AWS_ACCESS_KEY_ID and "
        "AWS_SECRET_ACCESS_KEY, and that they are allowed to do everything."
    )
    (tmp_path / "b").write_bytes(b"x")

    for ask in (
        lambda: bucket.get("a"),
        lambda: bucket.put("b", b"x"),
        lambda: bucket.upload({"b": tmp_path / "b"}),
        lambda: bucket.delete(["a"]),
        lambda: bucket.download("", tmp_path),
    ):
        with pytest.raises(SettingsError) as raised:
            ask()
        assert str(raised.value) == sentence


def test_a_server_that_is_away_is_worth_a_retry(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    away = Bucket(s3, USE)
    (tmp_path / "a").write_bytes(b"x")

    for ask in (lambda: away.get("a"), lambda: away.objects(), lambda: away.upload({"a": tmp_path / "a"})):
        with pytest.raises(ConnectionError, match=f"^{s3} cannot be reached at http://127.0.0.1:9 "):
            ask()


def test_an_impossible_endpoint_is_named(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "localhost:9000")

    with pytest.raises(SettingsError, match=r"^S3 cannot be reached \(Invalid endpoint: localhost:9000\): correct "):
        open_store(s3).read_pointer("newest")


def test_a_full_disk_is_named(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket.put("a", b"x")

    def full(**_: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(bucket.client, "get_object", full)

    with pytest.raises(DataError, match=f"^The store {bucket.address} finds no room in the cache, because the disk is"):
        bucket.download("", tmp_path)
