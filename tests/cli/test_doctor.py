"""``cxr doctor``: what it finds, and that it shows no secret and leaves nothing behind."""

import json
import os
import socket
from importlib import metadata
from types import SimpleNamespace

import boto3
import pytest

from cxr_tasks.cli import checks
from cxr_tasks.config import resolve
from cxr_tasks.store import conditional


@pytest.fixture
def look(cxr, monkeypatch, tmp_path):
    """What the command finds, by name; no credentials are there but those that a test gives."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))

    def call(*arguments):
        done = cxr("doctor", "--json", *arguments)
        return done.exit_code, {check["name"]: check for check in json.loads(done.stdout)}

    return call


def test_a_machine_that_has_all_is_well(look, cxr, tmp_path):
    status, found = look("--store", tmp_path / "store")

    assert status == 0 and not [check for check in found.values() if check["state"] == "fail"]
    assert "made by the first run" in found["Store"]["found"] and not (tmp_path / "store").exists()
    shown = cxr("doctor").stdout
    assert all(name in shown for name in found)


def test_a_store_that_can_be_written_holds_nothing_afterwards(look, tmp_path):
    (tmp_path / "store").mkdir()
    status, found = look("--store", tmp_path / "store")

    assert status == 0 and "can be read and written" in found["Store"]["found"]
    assert not [path for path in (tmp_path / "store").rglob("*") if path.is_file()]


def test_a_store_that_cannot_be_reached_fails(look, monkeypatch, s3):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-the-store")
    assert look("--store", s3)[1]["Store"]["state"] == "ok"

    status, found = look("--store", "s3://there-is-none/prefix")
    assert status == 1 and found["Store"]["state"] == "fail" and "does not exist" in found["Store"]["found"]


def test_a_taken_port_is_a_warning_with_a_way_out(look):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        status, found = look("--airflow-port", port)

    assert status == 0 and found["Airflow's port"]["state"] == "warn"
    assert found["Airflow's port"]["advice"] == f"Start with cxr run --airflow-port {port + 1}."


def test_credentials_are_found_and_never_shown(cxr, look, monkeypatch, tmp_path):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "the-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "the-secret")
    (tmp_path / ".kaggle").mkdir()
    (tmp_path / ".kaggle/kaggle.json").write_text('{"key": "the-token"}')
    done = cxr("doctor")

    assert "in the environment" in done.stdout and "kaggle.json" in done.stdout
    assert not any(secret in done.stdout for secret in ("the-key", "the-secret", "the-token"))


def test_weights_that_a_profile_asks_for_are_looked_for(look, tmp_path):
    assert look("--profile", "quick")[1]["ImageNet weights"]["found"] == "profile quick asks for none"
    folder = tmp_path / "keras" / "models"
    folder.mkdir(parents=True)
    (folder / "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5").touch()
    (folder / "resnet50v2_weights_tf_dim_ordering_tf_kernels_notop.h5").touch()

    missing = look("--profile", "paper")[1]["ImageNet weights"]
    assert missing["state"] == "warn" and missing["found"].endswith(": ResNet50")
    (folder / "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5").touch()
    assert look("--profile", "paper")[1]["ImageNet weights"]["state"] == "ok"


def test_weights_from_a_file_that_is_not_there_fail(look, tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text(resolve("quick", {"classifiers": {"weights": {"vgg16": str(tmp_path / "vgg16.h5")}}}).to_yaml())

    status, found = look("--profile", mine)
    assert status == 1 and f"{tmp_path}/vgg16.h5 is named by profile mine" in found["ImageNet weights"]["found"]
    (tmp_path / "vgg16.h5").touch()
    assert look("--profile", mine)[0] == 0


def test_packages_are_held_against_the_lock_file(monkeypatch, tmp_path):
    monkeypatch.setattr(checks, "REPOSITORY", tmp_path)
    assert checks.check_packages().state == "ok"
    lock, version = tmp_path / "requirements.lock", metadata.version("httpx")
    for text, state, words in (
        (f"httpx=={version} \\\n    --hash=sha256:0\n", "ok", "all 1 as in"),
        (f"HTTPX[http2]=={version} ; python_version > '3'\n", "ok", "all 1 as in"),
        ("httpx==0.0.1\n", "warn", f"1 of 1 have another version than requirements.lock, such as httpx {version}"),
        (f"httpx=={version}\nno-such-package==1\n", "fail", "1 of 2 are missing, such as no-such-package"),
    ):
        lock.write_text(text)
        found = checks.check_packages()
        assert found.state == state and words in found.found


def test_the_driver_is_asked_for_gpus_without_loading_tensorflow(monkeypatch, tmp_path):
    program = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    for script, words in (
        ("echo 'NVIDIA H200, 570.86.10, 143771 MiB'", "NVIDIA H200, driver 570.86.10, 143771 MiB. Whether TensorFlow"),
        ("echo 'No devices were found'; exit 6", "none that NVIDIA's driver lists"),
        ("echo nonsense", "none that NVIDIA's driver lists"),
    ):
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        assert words in checks.check_gpu(asked=False).found


def test_a_cache_in_memory_or_without_room_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("CXR_CACHE", str(tmp_path / "cache"))
    assert checks.check_cache().state == "ok"
    mount = next(str(each) for each in (tmp_path, *tmp_path.parents) if each.is_mount())
    memory = [SimpleNamespace(mountpoint=mount, fstype="tmpfs")]
    monkeypatch.setattr(checks.psutil, "disk_partitions", lambda **_: memory)
    assert "It lies in memory" in checks.check_cache().advice
    monkeypatch.setattr(checks.psutil, "disk_partitions", lambda **_: [])
    monkeypatch.setattr(checks.shutil, "disk_usage", lambda folder: SimpleNamespace(free=2**20))
    assert "set CXR_CACHE to a larger disk" in checks.check_cache().advice


def test_the_last_line_counts_what_was_found(cxr, monkeypatch):
    assert "How long a run takes here: cxr estimate." in cxr("doctor").stdout
    monkeypatch.setenv("CXR_NOTIFY", "team mail:failures")

    assert "0 of 15 fail, 1 may hold up some runs. How long" in cxr("doctor").stdout


def test_too_little_of_anything_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr(checks.psutil, "virtual_memory", lambda: SimpleNamespace(available=2**30, total=2**31))
    monkeypatch.setattr(checks.shutil, "disk_usage", lambda folder: SimpleNamespace(free=2**20))
    monkeypatch.setattr(checks.os, "sched_getaffinity", lambda process: {0})
    monkeypatch.setattr(checks.sys, "version_info", (3, 9, 0))

    found = [
        checks.check_memory(),
        checks.check_disk(tmp_path / "a" / "b"),
        checks.check_cores(),
        checks.check_python(),
    ]

    assert [check.state for check in found] == ["warn", "fail", "warn", "fail"]
    assert all(check.advice for check in found)


def test_a_named_mlflow_server_must_answer(look):
    status, found = look("--mlflow", "http://127.0.0.1:9")

    assert status == 1 and "does not answer" in found["MLflow"]["found"]


def test_a_server_without_conditional_writes_is_told_of(cxr, monkeypatch, s3):
    def strip(params, **_):
        for name in ("If-None-Match", "If-Match"):
            params["headers"].pop(name, None)

    session = boto3.Session()
    session._session.register("before-call.s3.PutObject", strip)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", session)
    monkeypatch.setattr(conditional, "_answers", {})

    done = cxr("doctor", "--json", "--store", s3)

    found = {check["name"]: check for check in json.loads(done.stdout)}["Store"]
    assert (done.exit_code, found["state"]) == (0, "warn") and "no conditional writes" in found["found"]
    assert "SeaweedFS since 3.97" in found["advice"]


def test_a_server_with_conditional_writes_is_well(cxr, monkeypatch, s3):
    monkeypatch.setattr(conditional, "_answers", {})

    found = {check["name"]: check for check in json.loads(cxr("doctor", "--json", "--store", s3).stdout)}["Store"]

    assert found["state"] == "ok"


def test_whom_nobody_could_tell_is_said(look, monkeypatch):
    assert look()[1]["Notices"]["found"] == "in the logs of tasks alone"
    monkeypatch.setenv("CXR_NOTIFY", "team mail:failures")

    found = look()[1]["Notices"]

    assert found["state"] == "warn" and "CXR_NOTIFY has no kind 'failures'" in found["advice"]
