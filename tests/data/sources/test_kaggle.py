"""What comes of a Kaggle dataset through the real kagglehub, against a server that answers as Kaggle does."""

from __future__ import annotations

import io
import json
import socket
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from cxr_tasks.data.sources.kaggle import KaggleSource
from cxr_tasks.errors import DataError

pytest.importorskip("kagglehub", reason="kagglehub is not installed")

ADDRESS = "kaggle://someone/x-rays"
SET = "set KAGGLE_API_TOKEN, or KAGGLE_USERNAME and KAGGLE_KEY, as made at https://www.kaggle.com/settings"
PAGE = "https://www.kaggle.com/datasets/someone/x-rays"


class Kaggle(BaseHTTPRequestHandler):
    """Knows one dataset; its archive lies elsewhere, as Kaggle's do, and is sent from where it broke off."""

    protocol_version = "HTTP/1.1"
    server: Any

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.calls.append(self.path.rpartition("/")[2])
        self.server.authorization = self.headers.get("Authorization")
        if self.server.status != 200:
            return self.answer(self.server.status, b'{"message": "no"}', "application/json")
        if self.path.endswith("GetDataset"):
            newest = json.dumps({"currentVersionNumber": max(self.server.versions)})
            return self.answer(200, newest.encode(), "application/json")
        if asked["datasetVersionNumber"] not in self.server.versions:
            return self.answer(404, b'{"message": "no"}', "application/json")
        self.send_response(302)
        self.send_header("Location", f"/storage/{asked['datasetVersionNumber']}.zip")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self) -> None:
        archive = self.server.versions[int(Path(self.path).stem)]
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        self.server.starts.append(start)
        self.send_response(206 if start else 200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(archive) - start))
        self.end_headers()
        self.wfile.write(archive[start : self.server.cut_at])
        self.close_connection = True

    def answer(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None: ...


def archive(files: dict[str, str]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as writer:
        for path, content in files.items():
            writer.writestr(path, content)
    return packed.getvalue()


FILES = {"COVID/images/1.png": "one", "COVID/masks/1.png": "mask", "README.md": "text"}


def serve_at(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    from kagglesdk import kaggle_env

    monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "LOCALHOST")
    monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.LOCAL, f"http://127.0.0.1:{port}")


@pytest.fixture(autouse=True)
def no_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_KERNEL_RUN_TYPE", "KAGGLEHUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()


@pytest.fixture
def kaggle(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Kaggle)
    server.versions = {3: archive(FILES)}
    server.status, server.cut_at, server.calls, server.starts, server.authorization = 200, None, [], [], None
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    serve_at(monkeypatch, server.server_port)
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def content(address: str = ADDRESS) -> dict[str, str]:
    source = KaggleSource(address)
    entries = source.entries()
    return {entry.path: (source.fetch(entries) / entry.path).read_text() for entry in entries}


def said(address: str = ADDRESS) -> str:
    with pytest.raises(DataError) as raised:
        KaggleSource(address).entries()
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_dataset_is_downloaded_once_into_the_cache(kaggle: Any, cache: Path, tmp_path: Path) -> None:
    assert content() == FILES
    assert content() == FILES

    assert kaggle.calls == ["GetDataset", "DownloadDataset", "GetDataset"]
    assert list((tmp_path / "home").iterdir()) == []
    assert not list(cache.rglob("*.archive"))


def test_new_version_is_downloaded(kaggle: Any) -> None:
    before = {entry.path: entry.stamp for entry in KaggleSource(ADDRESS).entries()}
    kaggle.versions[4] = archive(FILES | {"COVID/images/1.png": "eno"})

    assert content() == FILES | {"COVID/images/1.png": "eno"}
    assert content(f"{ADDRESS}/versions/3") == FILES
    after = {entry.path: entry.stamp for entry in KaggleSource(ADDRESS).entries()}
    for version, stamps in ((3, before), (4, after)):
        assert stamps == {path: f"someone/x-rays/{version}-{len(text)}" for path, text in FILES.items()}


def test_version_that_was_downloaded_needs_no_network(kaggle: Any) -> None:
    content(f"{ADDRESS}/versions/3")
    kaggle.calls.clear()

    assert content(f"{ADDRESS}/versions/3") == FILES
    assert kaggle.calls == []


def test_download_that_lost_a_file_is_made_again(kaggle: Any) -> None:
    source = KaggleSource(ADDRESS)
    (source.fetch([]) / "README.md").unlink()

    assert content() == FILES


def test_download_that_broke_off_goes_on(kaggle: Any) -> None:
    kaggle.versions[3] = archive(FILES | {"large.csv": "x" * 3 * 2**20})
    kaggle.cut_at = 2_000_000
    with pytest.raises(ConnectionError, match=r"Kaggle cannot be reached for kaggle://someone/x-rays \("):
        KaggleSource(ADDRESS).entries()

    kaggle.cut_at = None

    assert content().keys() == {*FILES, "large.csv"}
    # It keeps whole blocks.
    assert kaggle.starts == [0, 0, 2**20]


@pytest.mark.parametrize(
    ("variables", "header"),
    [
        ({"KAGGLE_API_TOKEN": "KGAT_x"}, "Bearer KGAT_x"),
        ({"KAGGLE_USERNAME": "me", "KAGGLE_KEY": "key"}, "Basic bWU6a2V5"),
    ],
)
def test_credentials_come_from_the_environment(
    kaggle: Any, variables: dict[str, str], header: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert content() == FILES
    assert kaggle.authorization == header


@pytest.mark.parametrize("status", [401, 403, 404])
def test_missing_credentials_are_named_when_kaggle_refuses(kaggle: Any, status: int) -> None:
    kaggle.status = status

    assert said().endswith(f"check the name and that you may see {PAGE}; there are no Kaggle credentials: {SET}.")


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, f"Kaggle does not accept the credentials it was given for {ADDRESS}: {SET}."),
        (403, f"Kaggle does not hand out {ADDRESS}: check the name and that you may see {PAGE}."),
        (404, f"Kaggle has no dataset {ADDRESS}: check the name and that you may see {PAGE}."),
        (400, f"Kaggle does not hand out {ADDRESS} ("),
    ],
)
def test_what_kaggle_refuses_is_named(kaggle: Any, status: int, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAGGLE_API_TOKEN", "KGAT_x")
    kaggle.status = status

    assert said().startswith(message)


def test_missing_version_is_named(kaggle: Any) -> None:
    assert said(f"{ADDRESS}/versions/9").startswith(f"Kaggle has no dataset {ADDRESS}/versions/9: check the name")


def test_kaggle_in_trouble_is_worth_a_retry(kaggle: Any) -> None:
    kaggle.status = 503

    with pytest.raises(ConnectionError, match=r"Kaggle cannot give kaggle://someone/x-rays for now \(status 503\)"):
        KaggleSource(ADDRESS).entries()


def test_missing_network_is_named_and_worth_a_retry(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        serve_at(monkeypatch, closed.getsockname()[1])

        with pytest.raises(ConnectionError) as raised:
            KaggleSource(ADDRESS).entries()
        assert str(raised.value) == (
            f"Kaggle cannot be reached for {ADDRESS} (ConnectionError): check the network, or give a folder or an "
            f"archive that was downloaded elsewhere; there are no Kaggle credentials: {SET}."
        )


@pytest.mark.parametrize("name", ["KAGGLE_USERNAME", "KAGGLE_KEY"])
def test_half_of_the_credentials_is_named_without_asking(
    kaggle: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "x")

    assert said() == f"Only one of KAGGLE_USERNAME and KAGGLE_KEY is set: {SET}."
    assert kaggle.calls == []


def test_credentials_file_that_cannot_be_read_is_named(kaggle: Any, tmp_path: Path) -> None:
    import kagglehub.config

    path = Path(kagglehub.config._get_kaggle_credentials_file())
    assert path == tmp_path / "home" / "kaggle.json"
    path.write_text("{")

    assert said() == f"Invalid Kaggle credentials file at {path}: make it again, or {SET}."
    assert kaggle.calls == []


def test_what_is_no_archive_is_named_and_downloaded_again(kaggle: Any) -> None:
    kaggle.versions[3] = b"no archive"
    assert said().startswith(f"What Kaggle sent for {ADDRESS} cannot be read (Unsupported archive type): run it again")

    kaggle.versions[3] = archive(FILES)

    assert content() == FILES


def test_name_that_is_too_long_is_named(kaggle: Any) -> None:
    kaggle.versions[3] = archive({"x" * 300 + ".png": "x"})

    assert said().startswith(f"{ADDRESS} holds a file whose name is too long for the cache")
