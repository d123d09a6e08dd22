"""Where copies are kept, whoever asks."""

import tempfile
from pathlib import Path

import pytest

from cxr_tasks.cache import cache_folder, cache_root
from cxr_tasks.store import S3Store, open_store


@pytest.mark.parametrize("unset", [None, ""])
def test_without_a_word_copies_are_among_the_temporary_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, unset: str | None
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    if unset is None:
        monkeypatch.delenv("CXR_CACHE", raising=False)
    else:
        monkeypatch.setenv("CXR_CACHE", unset)

    assert cache_root() == tmp_path / "cxr-cache"


def test_source_and_store_keep_their_copies_in_one_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CXR_CACHE", "copies")

    store = open_store("s3://bucket/prefix")

    assert isinstance(store, S3Store)
    assert store.cache.root == cache_root() == tmp_path / "copies"
    assert not cache_root().exists()
    assert cache_folder("sources", "s3") == tmp_path / "copies" / "sources" / "s3"
    assert cache_folder("sources", "s3").is_dir()
