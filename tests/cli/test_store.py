"""``cxr store``: what is listed, shown and cleared up, in a folder and in S3."""

import json
import os
import time
from datetime import UTC, datetime, timedelta

import pytest

from cxr_tasks.cli.upkeep import age_of
from cxr_tasks.errors import UserError
from cxr_tasks.retention.inventory import stored_artifacts
from cxr_tasks.retention.leftovers import leftovers, remove_leftover
from cxr_tasks.store import FolderStore, open_store

LONG_AGO = time.time() - 60 * 86400


def fill(store):
    """Two artifacts and a pointer."""
    for ref, words in {"scan/aaaa": "few", "train_arm/bbbb": "some more"}.items():
        with store.publish(ref, {"step": ref.split("/")[0], "seconds": 61.0}) as folder:
            (folder / "file.txt").write_text(words)
    store.write_pointer("datasets/newest", {"ref": "scan/aaaa"})


def make_old(folder):
    for path in (*folder.rglob("*"), folder):
        os.utime(path, (LONG_AGO, LONG_AGO))


@pytest.fixture
def filled(tmp_path):
    """A store in a folder, with what a killed task and a training left there a month ago, and one of now."""
    store = FolderStore(tmp_path / "store")
    fill(store)
    killed = store.root / "staging" / "scan-cccc-1"
    killed.mkdir(parents=True)
    # As if it was killed after the record was written.
    (killed / "artifact.json").write_text("{}")
    for ref in ("train_gan/dddd", "train_gan/eeee"):
        (store.load_checkpoint(ref) / "weights").write_text("1234")
    make_old(killed)
    make_old(store.root / "unfinished/train_gan/dddd")
    return store


def test_artifacts_are_listed_the_newest_first(cxr, filled):
    done = cxr("store", "ls", "--store", filled.root, "--json")
    rows = json.loads(done.stdout)

    assert {row["ref"] for row in rows} == {"scan/aaaa", "train_arm/bbbb"}
    assert all(row["seconds"] == 61.0 and row["size"] > 100 for row in rows)
    shown = cxr("store", "ls", "train_arm", "--store", filled.root).stdout
    assert "train_arm/bbbb" in shown and "1 min 1 s" in shown and "scan/aaaa" not in shown and "1 artifacts" in shown


def test_an_artifact_is_shown_by_the_beginning_of_its_key(cxr, filled):
    shown = json.loads(cxr("store", "show", "train_arm/b", "--store", filled.root).stdout)

    assert shown["ref"] == "train_arm/bbbb" and shown["step"] == "train_arm"
    assert shown["where"] == str(filled.fetch("train_arm/bbbb")) and shown["files"]["file.txt"] == 9


def test_an_artifact_that_is_not_there_is_an_error(cxr, filled):
    done = cxr("store", "show", "nothing", "--store", filled.root)

    assert done.exit_code == 2 and "no artifact whose reference begins with nothing" in done.stderr


def test_what_is_old_and_unfinished_goes_only_when_asked(cxr, filled):
    asked = cxr("store", "gc", "--store", filled.root)
    assert "scan-cccc-1" in asked.stdout and "train_gan/dddd" in asked.stdout and "train_gan/eeee" not in asked.stdout
    assert "2 to remove" in asked.stdout and len(leftovers(filled, datetime.now(UTC))) == 3
    assert "Artifacts stay, because nobody said where MLflow is" in asked.stdout

    cxr("store", "gc", "--store", filled.root, "--yes")
    assert [left.place for left in leftovers(filled, datetime.now(UTC))] == [
        str(filled.root / "unfinished/train_gan/eeee")
    ]
    assert len(stored_artifacts(filled)) == 2 and filled.read_pointer("datasets/newest")
    assert "Nothing is there to remove" in cxr("store", "gc", "--store", filled.root).stdout


def test_old_artifacts_go_only_when_asked_and_are_shown_by_step(cxr, filled):
    os.utime(filled.root / "train_arm/bbbb/artifact.json", (LONG_AGO, LONG_AGO))
    os.utime(filled.root / "scan/aaaa/artifact.json", (LONG_AGO, LONG_AGO))

    asked = cxr("store", "gc", "--mlflow", "none", "--store", filled.root)
    (line,) = [line.split() for line in asked.stdout.splitlines() if line.startswith("train_arm")]
    assert line[:2] == ["train_arm", "1"] and line[-2:] == ["60", "d"] and "3 to remove" in asked.stdout
    # The newest dataset's pointer leads to the scan.
    assert not [line for line in asked.stdout.splitlines() if line.startswith("scan ")]
    assert len(stored_artifacts(filled)) == 2

    assert "Removed 3" in cxr("store", "gc", "--mlflow", "none", "--yes", "--store", filled.root).stdout
    assert [stored.ref for stored in stored_artifacts(filled)] == ["scan/aaaa"]
    for age in ("90d", "30d"):
        assert "Nothing" in cxr("store", "gc", "--older-than", age, "--mlflow", "none", "--store", filled.root).stdout


def test_a_whole_store_is_verified_and_a_damaged_one_is_told_of(cxr, filled):
    done = cxr("store", "verify", "--store", filled.root)
    assert done.exit_code == 0 and "2 artifacts looked at. All are whole." in done.stdout

    file = filled.fetch("train_arm/bbbb") / "file.txt"
    status = file.stat()
    file.write_text("sOme more")
    # The size and the date say nothing.
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    (filled.fetch("scan/aaaa") / "file.txt").unlink()
    filled.write_pointer("datasets/lost", {"dataset": {"ref": "split/gone", "shards": []}})

    done = cxr("store", "verify", "--store", filled.root)
    assert done.exit_code == 1
    assert "train_arm/bbbb: its file file.txt has another content than when it was written." in done.stdout
    assert "scan/aaaa: its file file.txt is gone. The next run" in done.stdout and "run cxr_data again" in done.stdout
    assert "pointers/datasets/lost: it names the artifact split/gone, which is gone. Run cxr_data" in done.stdout
    told = json.loads(cxr("store", "verify", "train_arm", "--json", "--store", filled.root).stdout)
    assert [fault["ref"] for fault in told] == ["train_arm/bbbb"]


@pytest.mark.parametrize("ref", ["settings/cccc", "backbone_features/cccc", "split/cccc"])
def test_an_artifact_of_0_1_0_that_lost_a_file_is_told_of_and_made_anew(cxr, filled, ref):
    folder = filled.root / ref
    folder.mkdir(parents=True)
    (folder / "artifact.json").write_text(json.dumps({"step": ref.split("/")[0]}))

    assert "cccc: its file" in cxr("store", "verify", "--store", filled.root).stdout
    assert filled.take(ref) is None
    with pytest.raises(UserError, match=r"is damaged, its file .* is gone: "):
        filled.fetch(ref)


def test_a_store_that_is_not_there_is_an_error(cxr, tmp_path):
    done = cxr("store", "ls", "--store", tmp_path / "nowhere")

    assert done.exit_code == 2 and "There is no store in" in done.stderr and not (tmp_path / "nowhere").exists()


def test_ages_are_numbers_with_a_unit():
    assert [age_of(text) for text in ("30m", "12h", "7d", "2w")] == [
        timedelta(minutes=30),
        timedelta(hours=12),
        timedelta(days=7),
        timedelta(weeks=2),
    ]
    with pytest.raises(UserError, match="no age"):
        age_of("soon")


def test_in_s3_the_same_is_found_and_cleared_up(s3, cxr):
    store = open_store(s3)
    fill(store)
    (store.load_checkpoint("train_gan/dddd") / "weights").write_text("1234")
    store.save_checkpoint("train_gan/dddd")
    # An upload that was killed, one beside an artifact and one of an artifact that was never published.
    for ref in ("scan/aaaa", "scan/ffff"):
        store.bucket.put(f"{ref}/{'0' * 32}/file.txt", b"half")

    assert {stored.ref for stored in stored_artifacts(store)} == {"scan/aaaa", "train_arm/bbbb"}
    shown = json.loads(cxr("store", "show", "train_arm/bbbb", "--store", s3).stdout)
    assert shown["files"] == {"file.txt": 9} and shown["where"].startswith(s3)
    later = datetime.now(UTC) + timedelta(days=2)
    assert leftovers(store, datetime.now(UTC) - timedelta(hours=1)) == []
    found = [left for left in leftovers(store, later, later) if left.kind != "copy"]
    assert sorted((left.kind, left.place) for left in found) == [
        ("replaced", f"scan/aaaa/{'0' * 32}/"),
        ("staging", f"scan/ffff/{'0' * 32}/"),
        ("unfinished", "unfinished/train_gan/dddd"),
    ]
    for left in found:
        remove_leftover(store, left)
    assert [left for left in leftovers(store, later, later) if left.kind != "copy"] == []
    assert (store.fetch("scan/aaaa") / "file.txt").read_text() == "few"
