"""Servers that go away end no work, and their trouble is not taken for the user's. The servers are real."""

import os
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import requests

from cxr_tasks import outages, tracking
from cxr_tasks.artifacts import RunContext
from cxr_tasks.cache import cache_folder
from cxr_tasks.errors import DataError, SettingsError, WeightsError
from cxr_tasks.outages import is_passing, patience, patiently
from cxr_tasks.s3 import Bucket, BucketUse
from cxr_tasks.store.conditional import ConditionalBucket
from cxr_tasks.tracking.outbox import KEPT_SECONDS, Outbox, sweep
from tests.servers import Proxy, answering

NewRun = Callable[..., RunContext]
USE = BucketUse("store", "used", "do everything", SettingsError)
HOW = ("refused", "silent", "slow")
PASSING, LASTING = (408, 425, 429, 500, 502, 503, 504), (400, 401, 403, 404, 409)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Everything is asked again soon."""
    monkeypatch.setattr(outages, "FIRST_WAIT_SECONDS", 0.05)
    monkeypatch.setattr(outages, "LONGEST_WAIT_SECONDS", 0.2)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    monkeypatch.setenv("CXR_CACHE", str(tmp_path / "cache"))


def raised_by(call: Callable[[], object]) -> Exception:
    with pytest.raises(Exception) as raised:
        call()
    return raised.value


def asked_of(url: str) -> list[Callable[[], object]]:
    return [
        lambda: urllib.request.urlopen(url, timeout=5),
        lambda: requests.get(url, timeout=5).raise_for_status(),
        lambda: httpx.get(url, timeout=5).raise_for_status(),
    ]


@pytest.mark.parametrize("status", PASSING + LASTING)
def test_what_a_server_answers_says_whether_to_ask_again(status: int) -> None:
    with answering(status) as url:
        for call in asked_of(url):
            assert is_passing(raised_by(call)) == (status in PASSING)


def test_no_answer_at_all_is_worth_asking_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        for call in (
            lambda: urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=0.1),
            lambda: requests.get(f"http://127.0.0.1:{port}", timeout=0.1),
            lambda: httpx.get(f"http://127.0.0.1:{port}", timeout=0.1),
        ):
            assert is_passing(raised_by(call))
    for call in (*asked_of(f"http://127.0.0.1:{port}"), *asked_of("http://nowhere.invalid")):
        assert is_passing(raised_by(call))


@pytest.mark.parametrize("error", [TypeError("a"), ValueError("a"), FileNotFoundError("a"), KeyError("a")])
def test_a_bug_does_not_pass(error: Exception) -> None:
    assert not is_passing(error)


def test_who_says_that_a_person_must_act_is_believed() -> None:
    try:
        try:
            raise ConnectionError("away")
        except ConnectionError as error:
            raise DataError("No such bucket.") from error
    except DataError as told:
        assert not is_passing(told)


def test_patience_asks_again_until_it_ends() -> None:
    asked = []

    def call() -> str:
        asked.append(time.monotonic())
        if len(asked) < 4:
            raise ConnectionError("away")
        return "there"

    with pytest.raises(ConnectionError):
        patiently(call, "it")
    with patience(5):
        assert patiently(call, "it") == "there"
    assert len(asked) == 4
    asked.clear()
    with patience(0.1), pytest.raises(ConnectionError):
        patiently(call, "it")


@pytest.mark.parametrize("status", [503, 429, 404, 403])
def test_weights_are_the_worlds_or_the_users(status: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import keras
    import numpy as np

    from cxr_tasks.classifiers.weights import backbone_with_weights

    with answering(status) as url:
        monkeypatch.setattr(
            keras.applications, "VGG16", lambda **_: keras.utils.get_file("a.h5", f"{url}/a.h5", cache_dir=tmp_path)
        )
        with pytest.raises(ConnectionError if status in PASSING else WeightsError, match="could not be downloaded"):
            backbone_with_weights("vgg16", 32, "imagenet", "paper", np.zeros((1, 32, 32), np.uint8), seed=0)


S3_ANSWERS = [
    (503, "SlowDown", ConnectionError),
    (400, "RequestTimeout", ConnectionError),
    (403, "RequestTimeTooSkewed", ConnectionError),
    (429, "TooManyRequests", ConnectionError),
    (400, "ExpiredToken", SettingsError),
    (403, "AccessDenied", SettingsError),
]


@pytest.mark.parametrize(("status", "code", "kind"), S3_ANSWERS)
def test_s3_in_trouble_is_no_error_of_the_user(
    status: int, code: str, kind: type[Exception], s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    body = f"<Error><Code>{code}</Code><Message>No.</Message></Error>".encode()
    with answering(status, body) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", url)
        bucket = Bucket(s3, USE)
        for call in (bucket.objects, lambda: bucket.get("a"), lambda: bucket.put("a", b"x")):
            assert isinstance(raised_by(call), kind)


@pytest.fixture
def bucket(s3: str, s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Bucket, Proxy]]:
    proxy = Proxy(s3_server)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.address)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr("cxr_tasks.s3.ANSWER_SECONDS", 1)
    yield Bucket(s3, USE), proxy
    proxy.close()


@pytest.mark.parametrize("how", HOW)
def test_work_that_is_done_waits_for_the_store(bucket: tuple[Bucket, Proxy], how: str, tmp_path: Path) -> None:
    place, proxy = bucket
    (tmp_path / "a").write_bytes(b"x" * 1000)
    proxy.leave(how)
    threading.Timer(1.5, proxy.come_back).start()

    with patience(30):
        place.upload({"a": tmp_path / "a"})
        place.put("b", b"y")

    assert {found.path: found.size for found in place.objects()} == {"a": 1000, "b": 1}


def test_a_checkpoint_that_the_store_cannot_take_goes_with_the_next(
    bucket: tuple[Bucket, Proxy], s3: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cxr_tasks.steps.unfinished import Unfinished
    from cxr_tasks.store import Lease, open_store

    monkeypatch.setenv("CXR_STORE", s3)
    (_, proxy), store = bucket, open_store(s3)
    folder = store.load_checkpoint("gan/a")
    keeper = Unfinished("gan/a", "the training", "")
    keeper._lease = Lease("gan/a")
    (folder / "one").write_text("1")
    proxy.leave("refused")

    keeper.save()

    assert keeper._is_behind and "on this machine only" in caplog.text
    threading.Timer(1.0, proxy.come_back).start()
    keeper.catch_up()
    (folder / "one").unlink()
    assert (store.load_checkpoint("gan/a") / "one").read_text() == "1"


@pytest.mark.parametrize("how", HOW)
def test_what_is_written_on_a_condition_waits_too(
    s3: str, s3_server: str, bucket: tuple[Bucket, Proxy], how: str
) -> None:
    place, (_, proxy) = ConditionalBucket(s3, USE), bucket
    assert place.write("a", b"first", None)
    proxy.leave(how)
    threading.Timer(1.5, proxy.come_back).start()

    with patience(30):
        # A slow server may have written the object before the connection was given up.
        assert place.write("b", b"second", None)
        there = place.read("a")
        assert place.write("a", b"lost", '"of another object"') is None

    assert there is not None and there.content == b"first"


def test_a_silent_store_holds_a_training_up_once(
    bucket: tuple[Bucket, Proxy], s3: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cxr_tasks.steps import unfinished
    from cxr_tasks.store import Lease, open_store

    monkeypatch.setenv("CXR_STORE", s3)
    monkeypatch.setattr(unfinished, "SAVE_SECONDS", 0.5)
    (_, proxy), store = bucket, open_store(s3)
    keeper, folder = unfinished.Unfinished("gan/a", "the training", ""), store.load_checkpoint("gan/a")
    keeper._lease = Lease("gan/a")
    proxy.leave("silent")
    took = []
    for number in range(4):
        (folder / "newest").write_text(str(number))
        began = time.monotonic()
        keeper.save()
        took.append(time.monotonic() - began)

    assert took[0] < 5 and max(took[1:]) < 0.4, took
    assert "the training goes on meanwhile" in caplog.text
    proxy.come_back()
    keeper.catch_up()
    (folder / "newest").unlink()
    assert (store.load_checkpoint("gan/a") / "newest").read_text() == "3"


@pytest.mark.parametrize("how", HOW)
def test_a_training_outlasts_a_store_that_is_away_for_longer_than_its_lease(
    bucket: tuple[Bucket, Proxy], s3: str, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cxr_tasks.steps import unfinished
    from cxr_tasks.store import lease, open_store

    monkeypatch.setenv("CXR_STORE", s3)
    monkeypatch.setattr(unfinished, "SAVE_SECONDS", 0.5)
    monkeypatch.setattr(lease, "LEASE_SECONDS", 1.0)
    (_, proxy), store = bucket, open_store(s3)
    keeper = unfinished.Unfinished("gan/d", "the training", "")
    with keeper.alone():
        folder = keeper.folder()
        proxy.leave(how)
        for number in range(6):
            (folder / "newest").write_text(str(number))
            keeper.save()
            time.sleep(0.5)
        threading.Timer(0.5, proxy.come_back).start()
        keeper.catch_up()

    (folder / "newest").unlink()
    assert (store.load_checkpoint("gan/d") / "newest").read_text() == "5"


def test_a_checkpoint_is_saved_as_it_was_taken(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from cxr_tasks.store import open_store

    store = open_store(s3)
    folder = store.load_checkpoint("gan/b")
    (folder / "old").write_text("old")
    save = store.checkpoint_to_save("gan/b")
    (folder / "old").rename(folder / "new")

    save()

    assert [path.name for path in store.load_checkpoint("gan/b").iterdir()] == ["old"]
    assert not list((store.cache.root / "staging").iterdir())


def test_a_store_that_refuses_a_checkpoint_ends_the_training(
    bucket: tuple[Bucket, Proxy], s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cxr_tasks.steps.unfinished import Unfinished
    from cxr_tasks.store import Lease, open_store

    monkeypatch.setenv("CXR_STORE", s3)
    folder = open_store(s3).load_checkpoint("gan/c")
    (folder / "one").write_text("1")
    keeper = Unfinished("gan/c", "the training", "")
    keeper._lease = Lease("gan/c")
    denied = b"<Error><Code>AccessDenied</Code><Message>No.</Message></Error>"
    with answering(403, denied) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", url)
        with pytest.raises(SettingsError, match="list, read, write and delete"):
            keeper.save()


@pytest.fixture
def mlflow(mlflow_uri: str, new_run: NewRun, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[RunContext, Proxy]]:
    """A DAG run on a server behind a proxy."""
    run, proxy = new_run(), Proxy(mlflow_uri)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.address)
    yield run, proxy
    proxy.close()


@pytest.mark.slow
@pytest.mark.parametrize("how", HOW)
def test_a_training_goes_on_without_mlflow_and_tells_it_after(mlflow: tuple[RunContext, Proxy], how: str) -> None:
    run, proxy = mlflow
    with tracking.step_run(run, "work", "step/a", {"cxr.step": "a"}) as run_id:
        tracking.log_metrics({"loss": 100.0}, 0)
        proxy.leave(how)
        began = time.monotonic()
        for epoch in range(1, 41):
            tracking.log_metrics({"loss": 100.0 - epoch}, epoch)
        tracking.log_params({"a": 1})
        tracking.set_tags({"cxr.b": "2"})
        tracking.log_text("hello", "deep/hello.txt")
        assert time.monotonic() - began < 1.5
        threading.Timer(1.5, proxy.come_back).start()

    found = tracking.client().get_run(run_id)
    curve = tracking.client().get_metric_history(run_id, "loss")
    assert [(point.step, point.value) for point in curve] == [(epoch, 100.0 - epoch) for epoch in range(41)]
    assert (found.info.status, found.data.params, found.data.tags["cxr.b"]) == ("FINISHED", {"a": "1"}, "2")
    assert [file.path for file in tracking.client().list_artifacts(run_id, "deep")] == ["deep/hello.txt"]


@pytest.mark.slow
def test_what_one_try_cannot_tell_the_next_one_tells(
    mlflow: tuple[RunContext, Proxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, proxy = mlflow
    monkeypatch.setattr(outages, "OUTAGE_SECONDS", 0.3)
    monkeypatch.setattr("cxr_tasks.tracking.places.FAREWELL_SECONDS", 0.2)
    with (
        pytest.raises(ConnectionError, match="and the next try sends them"),
        tracking.step_run(run, "work", "step/a", {}) as first,
    ):
        proxy.leave("refused")
        tracking.log_curves([{"step": 1, "loss": 3.0}])
        tracking.log_text("hello", "hello.txt")
    proxy.come_back()
    monkeypatch.setattr(outages, "OUTAGE_SECONDS", 20.0)

    with tracking.step_run(run, "work", "step/a", {}) as second:
        tracking.log_curves([{"step": 2, "loss": 2.0}])

    curve = tracking.client().get_metric_history(first, "loss")
    assert first == second and [point.value for point in curve] == [3.0, 2.0]
    assert [file.path for file in tracking.client().list_artifacts(first)] == ["hello.txt"]
    assert tracking.client().get_run(first).info.status == "FINISHED"


@pytest.mark.slow
def test_the_error_of_a_step_is_seen_though_mlflow_is_away(
    mlflow: tuple[RunContext, Proxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, proxy = mlflow
    monkeypatch.setattr("cxr_tasks.tracking.places.FAREWELL_SECONDS", 0.2)
    with pytest.raises(ZeroDivisionError), tracking.step_run(run, "work", "step/a", {}):
        proxy.leave("refused")
        tracking.log_metrics({"a": 1.0})
        raise ZeroDivisionError


@pytest.mark.slow
@pytest.mark.parametrize("status", [401, 403])
def test_what_a_step_has_no_right_to_say_is_kept_and_the_step_says_so(
    mlflow: tuple[RunContext, Proxy], status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, proxy = mlflow
    with answering(status, b'{"error_code": "PERMISSION_DENIED", "message": "No."}') as url:
        began = time.monotonic()
        with (
            pytest.raises(SettingsError, match=r"MLflow denies this step its run .* the next try sends them"),
            tracking.step_run(run, "work", "step/a", {}) as first,
        ):
            monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
            tracking.log_metrics({"loss": 3.0}, 1)
            tracking.log_text("hello", "hello.txt")
        assert time.monotonic() - began < 20
    monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.address)

    with tracking.step_run(run, "work", "step/a", {}) as second:
        pass

    found = tracking.client().get_run(first)
    assert first == second and found.data.metrics == {"loss": 3.0}
    assert [file.path for file in tracking.client().list_artifacts(first)] == ["hello.txt"]
    assert found.info.status == "FINISHED" and "cxr.error" not in found.data.tags


@pytest.mark.slow
def test_what_mlflow_finds_wrong_is_said_in_the_end(
    mlflow: tuple[RunContext, Proxy], caplog: pytest.LogCaptureFixture
) -> None:
    run, _ = mlflow
    with tracking.step_run(run, "work", "step/a", {}) as run_id:
        tracking.log_metrics({"a,b?": 1.0})
        tracking.log_metrics({"c": 2.0})

    found = tracking.client().get_run(run_id)
    assert found.data.metrics == {"c": 2.0} and found.info.status == "FINISHED"
    assert "are missing in this run" in found.data.tags["cxr.refused"]
    assert "are missing in this run" in caplog.text


def test_what_a_killed_try_left_half_is_in_nobodys_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # nobody listens
    folder = cache_folder("outbox", "killed")
    (folder / "5").mkdir()
    outbox = Outbox("killed")

    outbox.put_files(lambda place: (place / "a.txt").write_text("a"))

    assert not outbox.took_over and (folder / "6" / "a.txt").is_file()
    outbox.close()


@pytest.mark.slow
def test_one_thing_that_is_refused_takes_no_other_with_it(mlflow: tuple[RunContext, Proxy]) -> None:
    run, proxy = mlflow
    with tracking.step_run(run, "work", "step/a", {}) as run_id:
        proxy.leave("refused")
        for step in range(20):
            tracking.log_metrics({"loss": float(step)}, step)
            if step == 7:
                tracking.log_metrics({"a,b?": 1.0})
        proxy.come_back()

    found = tracking.client().get_run(run_id)
    assert [point.step for point in tracking.client().get_metric_history(run_id, "loss")] == list(range(20))
    assert found.data.tags["cxr.refused"].startswith("1 thing")


@pytest.mark.slow
def test_a_failed_step_has_the_sentence_of_its_error_until_a_try_succeeds(mlflow: tuple[RunContext, Proxy]) -> None:
    run, _ = mlflow
    with pytest.raises(DataError), tracking.step_run(run, "work", "step/a", {}) as run_id:
        raise DataError("Class Normal has no image: add some.")
    failed = tracking.client().get_run(run_id)
    assert failed.data.tags["cxr.error"] == "Class Normal has no image: add some."
    assert failed.info.status == "FAILED"

    with tracking.step_run(run, "work", "step/a", {}):
        pass

    assert "cxr.error" not in tracking.client().get_run(run_id).data.tags


def test_what_nobody_comes_back_for_is_given_up_with_a_word(caplog: pytest.LogCaptureFixture) -> None:
    old, young = cache_folder("outbox", "old"), cache_folder("outbox", "young")
    for folder in (old, young):
        (folder / "0.json").write_text("{}")
    long_ago = time.time() - KEPT_SECONDS - 60
    for path in (old / "0.json", old):
        os.utime(path, (long_ago, long_ago))

    sweep(old.parent)

    assert young.is_dir() and not old.exists()
    assert "1 things that MLflow's run old was not told" in caplog.text


@pytest.mark.slow
@pytest.mark.usefixtures("mlflow_uri")
class TestDeleted:
    def test_an_experiment_is_restored_with_a_word(self, new_run: NewRun, caplog: pytest.LogCaptureFixture) -> None:
        run = new_run()
        name = tracking.client().get_experiment(run.experiment_id).name
        tracking.client().delete_experiment(run.experiment_id)

        assert tracking.experiment_id(name) == run.experiment_id
        assert "was deleted: it is restored" in caplog.text

    def test_a_step_restores_the_experiment_that_it_is_to_work_in(self, new_run: NewRun) -> None:
        run = new_run()
        tracking.client().delete_experiment(run.experiment_id)

        with tracking.step_run(run, "work", "step/a", {}) as run_id:
            tracking.log_metrics({"a": 1.0})

        assert tracking.client().get_run(run_id).info.status == "FINISHED"

    @pytest.mark.parametrize("what", ["run", "experiment"])
    def test_a_training_goes_on_in_a_run_that_was_deleted_meanwhile(self, new_run: NewRun, what: str) -> None:
        run = new_run()
        with tracking.step_run(run, "work", "step/a", {}) as run_id:
            if what == "run":
                tracking.client().delete_run(run_id)
            else:
                tracking.client().delete_experiment(run.experiment_id)
            tracking.log_metrics({"a": 1.0})

        found = tracking.client().get_run(run_id)
        assert (found.info.lifecycle_stage, found.info.status, found.data.metrics) == ("active", "FINISHED", {"a": 1.0})

    def test_a_deleted_run_is_reopened(self, new_run: NewRun) -> None:
        run = new_run()
        tracking.client().delete_run(run.mlflow_run_id)

        with tracking.reopen(run.mlflow_run_id):
            tracking.log_metrics({"a": 1.0})

        assert tracking.client().get_run(run.mlflow_run_id).data.metrics == {"a": 1.0}
