"""Artifacts appear whole or not at all, in a folder and in S3, whatever raises, races or is killed."""

import itertools
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr_tasks.errors import SettingsError, UserError
from cxr_tasks.outages import patience
from cxr_tasks.s3 import S3Object
from cxr_tasks.store import FolderStore, S3Store, Store, artifact_ref, folder, open_store, staging
from tests.servers import BusyS3

REF = "step/0123456789"
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=5), below, max_size=3),
    max_leaves=6,
)


@pytest.fixture(params=["folder", "s3"])
def any_store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    address = str(tmp_path / "store") if request.param == "folder" else request.getfixturevalue("s3")
    monkeypatch.setenv("CXR_STORE", address)
    return open_store()


@pytest.fixture
def s3_store(s3: str) -> S3Store:
    opened = open_store(s3)
    assert isinstance(opened, S3Store)
    return opened


def publish(store: Store, text: str, ref: str = REF, **kwargs: Any) -> None:
    with store.publish(ref, {"made_by": text}, **kwargs) as folder:
        for name in ("top.txt", "a/b/deep.txt"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)


def texts(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "artifact.json"]
    return {path.relative_to(folder).as_posix(): path.read_text() for path in files}


def whole(text: str) -> dict[str, str]:
    return {"top.txt": text, "a/b/deep.txt": text}


def local_folder(store: Store) -> Path:
    return store.cache.root if isinstance(store, S3Store) else store.root  # type: ignore[attr-defined]


def test_published_files_and_record_come_back(any_store: Store) -> None:
    publish(any_store, "one")

    assert texts(any_store.fetch(REF)) == whole("one")
    record = any_store.record(REF)
    assert record is not None
    assert (record["made_by"], record["ref"]) == ("one", REF)


def test_another_process_sees_what_was_published(any_store: Store) -> None:
    publish(any_store, "one")
    code = "import sys; from cxr_tasks.store import open_store; print(open_store().fetch(sys.argv[1]) / 'top.txt')"

    found = subprocess.run([sys.executable, "-c", code, REF], check=True, capture_output=True, text=True)

    assert Path(found.stdout.strip()).read_text() == "one"


def test_record_may_grow_inside_the_block(any_store: Store) -> None:
    record: dict[str, Any] = {}
    with any_store.publish(REF, record):
        record["metrics"] = {"loss": 0.5}

    published = any_store.record(REF)
    assert published is not None
    assert published["metrics"] == {"loss": 0.5}


def test_block_that_raises_leaves_nothing(any_store: Store) -> None:
    with pytest.raises(ZeroDivisionError), any_store.publish(REF, {}) as folder:
        (folder / "half.txt").write_text("half")
        raise ZeroDivisionError

    assert any_store.record(REF) is None
    assert not [path for path in local_folder(any_store).rglob("*") if path.is_file()]
    assert not list((local_folder(any_store) / "staging").iterdir())


def test_missing_artifact_is_named(any_store: Store) -> None:
    assert any_store.record(REF) is None
    with pytest.raises(FileNotFoundError, match=REF):
        any_store.fetch(REF)


def test_second_publication_keeps_the_first(any_store: Store) -> None:
    publish(any_store, "one")
    publish(any_store, "two")

    assert texts(any_store.fetch(REF)) == whole("one")
    assert any_store.record(REF)["made_by"] == "one"  # type: ignore[index]


def test_replace_replaces_whole_even_where_it_was_cached(any_store: Store) -> None:
    with any_store.publish(REF, {}) as folder:
        (folder / "old.txt").write_text("old")
    assert texts(any_store.fetch(REF)) == {"old.txt": "old"}

    publish(any_store, "two", replace=True)

    assert texts(any_store.fetch(REF)) == whole("two")
    assert any_store.record(REF)["made_by"] == "two"  # type: ignore[index]


def test_replacing_nothing_publishes(any_store: Store) -> None:
    publish(any_store, "one", replace=True)

    assert texts(any_store.fetch(REF)) == whole("one")


@pytest.mark.parametrize("replace", [False, True])
def test_publishers_at_once_leave_one_whole_artifact(any_store: Store, replace: bool) -> None:
    at_once = threading.Barrier(6)
    for number in range(5):
        ref = f"step/{number}"

        def run(text: str, ref: str = ref) -> None:
            own = open_store()
            with own.publish(ref, {"made_by": text}, replace=replace) as folder:
                for name in whole(text):
                    (folder / name).parent.mkdir(parents=True, exist_ok=True)
                    (folder / name).write_text(text)
                at_once.wait(timeout=30)

        with ThreadPoolExecutor(6) as threads:
            list(threads.map(run, "abcdef"))

        assert texts(any_store.fetch(ref)) == whole(any_store.record(ref)["made_by"])  # type: ignore[index]


def test_readers_at_once_all_see_whole_files(any_store: Store) -> None:
    at_once = threading.Barrier(8)
    for number in range(5):
        ref = f"step/{number}"
        publish(any_store, str(number), ref=ref)

        def read(_: int, ref: str = ref) -> dict[str, str]:
            own = open_store()
            at_once.wait(timeout=30)
            return texts(own.fetch(ref))

        with ThreadPoolExecutor(8) as threads:
            assert list(threads.map(read, range(8))) == [whole(str(number))] * 8


def test_reader_keeps_its_files_while_others_fetch(s3_store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(s3_store, "one")
    first = s3_store.fetch(REF)

    # What a second task on this machine finds while the first is reading.
    second = S3Store(s3_store.bucket.address, s3_store.cache.root)
    monkeypatch.setattr(second.bucket, "download", lambda *_: pytest.fail("what is cached was fetched again"))

    assert second.fetch(REF) == first
    assert texts(first) == whole("one")


def test_artifact_replaced_while_it_is_fetched_is_the_new_one(
    s3_store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(s3_store, "one")
    download = s3_store.bucket.download

    def replaced_before(below: str, folder: Path) -> int:
        if s3_store.record(REF)["made_by"] == "one":  # type: ignore[index]
            publish(s3_store, "two", replace=True)
        return download(below, folder)

    monkeypatch.setattr(s3_store.bucket, "download", replaced_before)

    # The publication before is there for a while: whoever has begun to read it reads it to its end.
    assert texts(s3_store.fetch(REF)) == whole("one")
    assert texts(s3_store.fetch(REF)) == whole("two")


def test_artifact_replaced_after_it_was_listed_is_the_new_one(
    s3_store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(s3_store, "one")
    objects = s3_store.bucket.objects

    def replaced_after(below: str) -> list[S3Object]:
        listed = objects(below)
        if s3_store.record(REF)["made_by"] == "one":  # type: ignore[index]
            publish(open_store(s3_store.bucket.address), "two", replace=True)
        return listed

    monkeypatch.setattr(s3_store.bucket, "objects", replaced_after)

    assert texts(s3_store.fetch(REF)) == whole("one")
    assert texts(s3_store.fetch(REF)) == whole("two")


def test_artifact_replaced_and_swept_while_it_is_fetched_is_the_new_one(
    s3_store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(s3_store, "one")
    download = s3_store.bucket.download

    def replaced_before(below: str, folder: Path) -> int:
        if s3_store.record(REF)["made_by"] == "one":  # type: ignore[index]
            publish(s3_store, "two", replace=True)
            s3_store.bucket.delete(found.path for found in s3_store.bucket.objects(below))
        return download(below, folder)

    monkeypatch.setattr(s3_store.bucket, "download", replaced_before)

    assert texts(s3_store.fetch(REF)) == whole("two")


def test_lost_object_of_an_artifact_is_not_passed_over(s3_store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(s3_store, "one")
    record = s3_store.record(REF)
    assert record is not None
    listed = s3_store.bucket.objects(f"{REF}/{record['objects']}/")
    s3_store.bucket.delete(found.path for found in listed if found.path.endswith("deep.txt"))
    # As if it were deleted between the listing and the download.
    monkeypatch.setattr(s3_store.bucket, "objects", lambda _: listed)

    with pytest.raises(FileNotFoundError, match="is damaged, one of its files is gone: start a new run"):
        s3_store.fetch(REF)
    assert not list(s3_store.cache.root.rglob("deep.txt"))


def test_failed_upload_leaves_no_artifact(s3_store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    upload, sent = s3_store.bucket.client.put_object, threading.Event()
    asked = itertools.count()  # by several threads

    def fails_at_second(**request: Any) -> Any:
        if next(asked):
            assert sent.wait(timeout=30)
            raise ConnectionError
        answer = upload(**request)
        sent.set()
        return answer

    with monkeypatch.context() as broken, pytest.raises(ConnectionError):
        broken.setattr(s3_store.bucket.client, "put_object", fails_at_second)
        publish(s3_store, "one")
    assert sent.is_set()
    assert s3_store.record(REF) is None

    publish(s3_store, "two")
    assert texts(s3_store.fetch(REF)) == whole("two")


def test_what_was_uploaded_of_an_artifact_is_removed_where_the_server_refuses_the_rest(
    s3: str, s3_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    busy = BusyS3(s3_server)

    def publish_many(store: Store) -> None:
        with store.publish(REF, {}) as folder:
            for number in range(20):
                (folder / str(number)).write_text("x")
            busy.each = 7

    with busy.listening() as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", address)
        store = open_store(s3)
        assert isinstance(store, S3Store)
        with patience(0.0), pytest.raises(ConnectionError, match="cannot be used for now"):
            publish_many(store)

        busy.each = 0
        assert busy.refused and store.bucket.objects() == []
        publish(store, "one")
        assert texts(store.fetch(REF)) == whole("one")


def test_what_was_uploaded_is_removed_where_a_file_of_it_is_missing(
    s3_store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = s3_store.bucket.upload

    def without_one(files: dict[str, Path]) -> None:
        upload(dict(list(files.items())[1:]))

    with monkeypatch.context() as broken, pytest.raises(ConnectionError, match="Not all files of"):
        broken.setattr(s3_store.bucket, "upload", without_one)
        publish(s3_store, "one")

    assert s3_store.bucket.objects() == []


def test_an_artifact_whose_record_is_there_keeps_its_files_though_its_writer_is_ended(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = os.replace

    def then_ended(*given: Any) -> None:
        replace(*given)
        raise KeyboardInterrupt

    with monkeypatch.context() as ended, pytest.raises(KeyboardInterrupt):
        ended.setattr(os, "replace", then_ended)
        publish(store, "one")

    assert texts(store.fetch(REF)) == whole("one")


def test_killed_publisher_leaves_no_artifact(any_store: Store) -> None:
    code = (
        "import sys, time; from cxr_tasks.store import open_store\n"
        "with open_store().publish(sys.argv[1], {}) as folder:\n"
        "    (folder / 'half.txt').write_text('half'); print('writing', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, REF], stdout=subprocess.PIPE, text=True) as publisher:
        assert publisher.stdout is not None
        assert publisher.stdout.readline() == "writing\n"
        os.kill(publisher.pid, signal.SIGKILL)

    assert any_store.record(REF) is None
    with pytest.raises(FileNotFoundError):
        any_store.fetch(REF)
    publish(any_store, "after")
    assert texts(any_store.fetch(REF)) == whole("after")


def test_lost_cache_is_filled_again(s3_store: S3Store) -> None:
    publish(s3_store, "one")
    s3_store.fetch(REF)
    shutil.rmtree(s3_store.cache.root)

    assert texts(s3_store.fetch(REF)) == whole("one")


def test_pointer_holds_the_value_last_written(any_store: Store) -> None:
    assert any_store.read_pointer("datasets/newest") is None

    any_store.write_pointer("datasets/newest", {"ref": "a"})
    any_store.write_pointer("datasets/newest", {"ref": "b"})

    assert any_store.read_pointer("datasets/newest") == {"ref": "b"}
    assert any_store.read_pointer("datasets/other") is None


def test_a_secret_is_drawn_once_whoever_asks_first(any_store: Store) -> None:
    with ThreadPoolExecutor(4) as threads:
        drawn = set(threads.map(lambda _: any_store.secret("key"), range(8)))

    assert len(drawn) == 1 and drawn == {open_store().secret("key")}
    assert len(drawn.pop()) == 32 and any_store.secret("another") not in drawn
    assert not any_store.pointers()


def test_checkpoint_begins_empty_and_keeps_what_was_saved(any_store: Store) -> None:
    folder = any_store.load_checkpoint(REF)
    assert not list(folder.iterdir())

    (folder / "weights").mkdir()
    (folder / "weights" / "1.bin").write_text("one")
    any_store.save_checkpoint(REF)

    assert texts(open_store().load_checkpoint(REF)) == {"weights/1.bin": "one"}
    assert any_store.record(REF) is None


def test_dropped_checkpoint_is_gone_for_good(any_store: Store) -> None:
    (any_store.load_checkpoint(REF) / "1.bin").write_text("one")
    any_store.save_checkpoint(REF)

    any_store.drop_checkpoint(REF)

    assert texts(any_store.load_checkpoint(REF)) == {}


def test_checkpoint_survives_the_loss_of_the_machine(s3_store: S3Store) -> None:
    folder = s3_store.load_checkpoint(REF)
    (folder / "1.bin").write_text("one")
    s3_store.save_checkpoint(REF)
    (folder / "1.bin").unlink()
    (folder / "2.bin").write_text("two")
    s3_store.save_checkpoint(REF)
    shutil.rmtree(s3_store.cache.root)

    assert texts(s3_store.load_checkpoint(REF)) == {"2.bin": "two"}


def test_only_what_is_new_of_a_checkpoint_is_uploaded(s3_store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, put, sent = s3_store.load_checkpoint(REF), S3Store._upload, []

    def counted(self: S3Store, source: Path, below: str, but: Any = ()) -> None:
        sent.append({path.name for path in source.iterdir()} - {path.removeprefix(below) for path in but})
        put(self, source, below, but)

    monkeypatch.setattr(S3Store, "_upload", counted)
    (folder / "1.bin").write_text("one")
    S3Store(s3_store.bucket.address, s3_store.cache.root).save_checkpoint(REF)
    (folder / "2.bin").write_text("two")
    S3Store(s3_store.bucket.address, s3_store.cache.root).save_checkpoint(REF)
    # As long as before: what counts is when it was written.
    os.utime(folder / "1.bin", ns=(0, (folder / "1.bin").stat().st_mtime_ns + 1))
    S3Store(s3_store.bucket.address, s3_store.cache.root).save_checkpoint(REF)
    # Somebody else wrote the object, or it is gone.
    s3_store.bucket.put(f"unfinished/{REF}/2.bin", b"another")
    s3_store.bucket.delete([f"unfinished/{REF}/1.bin"])
    S3Store(s3_store.bucket.address, s3_store.cache.root).save_checkpoint(REF)

    assert sent == [{"1.bin"}, {"2.bin"}, {"1.bin"}, {"1.bin", "2.bin"}]
    shutil.rmtree(s3_store.cache.root)
    assert texts(s3_store.load_checkpoint(REF)) == {"1.bin": "one", "2.bin": "two"}


def test_half_fetched_checkpoint_is_fetched_again(s3_store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = s3_store.load_checkpoint(REF)
    for name in ("1.bin", "2.bin"):
        (folder / name).write_text(name)
    s3_store.save_checkpoint(REF)
    shutil.rmtree(s3_store.cache.root)
    download, fetched = s3_store.bucket.client.get_object, threading.Event()
    asked = itertools.count()  # by several threads

    def fails_at_second(**request: Any) -> Any:
        if next(asked):
            assert fetched.wait(timeout=30)
            raise ConnectionError
        answer = download(**request)
        fetched.set()
        return answer

    with monkeypatch.context() as broken, pytest.raises(ConnectionError):
        broken.setattr(s3_store.bucket.client, "get_object", fails_at_second)
        s3_store.load_checkpoint(REF)

    assert fetched.is_set()
    assert texts(s3_store.load_checkpoint(REF)) == {"1.bin": "1.bin", "2.bin": "2.bin"}


def test_prefixes_keep_two_stores_of_one_bucket_apart(s3_store: S3Store) -> None:
    other = S3Store(f"s3://{s3_store.bucket.name}/other", s3_store.cache.root.with_name("other-cache"))
    publish(s3_store, "one")

    assert other.record(REF) is None
    assert s3_store.bucket.prefix == "cxr/"


def test_address_decides_the_kind_of_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXR_STORE", str(tmp_path))
    opened = open_store()
    assert isinstance(opened, FolderStore)
    assert opened.root == tmp_path

    monkeypatch.delenv("CXR_STORE")
    with pytest.raises(SettingsError, match="CXR_STORE is not set: give it a folder or s3://bucket/prefix"):
        open_store()


@given(st.dictionaries(st.text(max_size=5), json_values, max_size=4), st.dictionaries(st.text(max_size=5), st.text()))
def test_reference_does_not_depend_on_order(settings: dict[str, Any], inputs: dict[str, Any]) -> None:
    def turned(value: Any) -> Any:
        return {k: turned(value[k]) for k in reversed(list(value))} if isinstance(value, dict) else value

    assert artifact_ref("step", 1, turned(settings), turned(inputs)) == artifact_ref("step", 1, settings, inputs)


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s | {"step": "other"},
        lambda s: s | {"version": 2},
        lambda s: s | {"settings": {"a": 2}},
        lambda s: s | {"settings": {"b": 1}},
        lambda s: s | {"inputs": {"dataset": "split/y"}},
        lambda s: s | {"inputs": {"other": "split/x"}},
        # Moved from one place to another, the same value is not the same content.
        lambda s: s | {"settings": s["inputs"], "inputs": s["settings"]},
    ],
)
def test_reference_changes_with_each_ingredient(change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    content = {"step": "step", "version": 1, "settings": {"a": 1}, "inputs": {"dataset": "split/x"}}

    assert artifact_ref(**change(content)) != artifact_ref(**content)  # type: ignore[arg-type]


def test_what_a_killed_publisher_left_is_swept_and_what_is_in_use_stays(
    any_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging, "SETTLED_SECONDS", -1.0)
    code = (
        "import sys, time; from cxr_tasks.store import open_store\n"
        "with open_store().publish(sys.argv[1], {}) as folder:\n"
        "    (folder / 'half.txt').write_text('half'); print('writing', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, REF], stdout=subprocess.PIPE, text=True) as publisher:
        assert publisher.stdout is not None and publisher.stdout.readline() == "writing\n"
        any_store.sweep()
        assert len(list(local_folder(any_store).rglob("half.txt"))) == 1
        os.kill(publisher.pid, signal.SIGKILL)

    any_store.sweep()
    assert not list((local_folder(any_store) / "staging").iterdir())


def test_a_replaced_publication_is_readable_for_a_day_and_then_swept(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(store, "one")
    read = store.fetch(REF)
    publish(store, "two", replace=True)

    store.sweep()
    assert texts(read) == whole("one")
    monkeypatch.setattr(folder, "REPLACED_SECONDS", -1.0)
    store.sweep()
    assert not read.exists() and texts(store.fetch(REF)) == whole("two")


def test_readers_see_one_publication_or_another_while_it_is_replaced_again_and_again(any_store: Store) -> None:
    publish(any_store, "0")
    # A machine with much else to do takes longer for a few.
    done, latest = threading.Event(), time.monotonic() + 60

    def read(_: int) -> set[str]:
        own, seen = open_store(), set()
        while not done.is_set() and time.monotonic() < latest:
            found = own.fetch(REF)
            time.sleep(0.002)
            text = (found / "top.txt").read_text()
            assert texts(found) == whole(text)
            seen.add(text)
            if len(seen) > 5:
                done.set()
        return seen

    def replace(number: int) -> set[str]:
        own, count = open_store(), itertools.count()
        while not done.is_set() and time.monotonic() < latest:
            publish(own, f"{number}-{next(count)}", replace=True)
        return set()

    with ThreadPoolExecutor(5) as threads:
        reading = [threads.submit(read, number) for number in range(3)]
        replacing = [threads.submit(replace, number) for number in range(2)]
        seen = set().union(*(each.result() for each in (*reading, *replacing)))
    assert len(seen) > 5


def test_a_copy_that_was_damaged_on_this_machine_is_fetched_again(
    s3_store: S3Store, caplog: pytest.LogCaptureFixture
) -> None:
    publish(s3_store, "one")
    (s3_store.fetch(REF) / "top.txt").unlink()

    assert texts(s3_store.fetch(REF)) == whole("one")
    assert "is damaged, its file top.txt is gone: it is fetched again" in caplog.text


@pytest.mark.parametrize(("step", "advice"), [("settings", "start a new run"), ("ingest", "run cxr_data again")])
def test_what_is_missing_or_damaged_is_told_with_what_to_do(any_store: Store, step: str, advice: str) -> None:
    with pytest.raises(UserError, match=f"Artifact {step}/a is not in the store .*: .*{advice}"):
        any_store.fetch(f"{step}/a")
    publish(any_store, "one", ref=f"{step}/a")
    if isinstance(any_store, S3Store):
        any_store.bucket.delete([found.path for found in any_store.bucket.objects(f"{step}/a/") if "top" in found.path])
    else:
        (any_store.fetch(f"{step}/a") / "top.txt").unlink()
    with pytest.raises(UserError, match=f"is damaged, its file top.txt is gone: .*{advice}"):
        any_store.fetch(f"{step}/a")
