"""What goes and what stays: in any graph of references, and in stores where a run, or death, comes in between."""

import json
import os
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr_tasks.errors import UserError
from cxr_tasks.retention.clearing import OldArtifacts, check_registry, old_artifacts, remove_artifacts
from cxr_tasks.retention.inventory import stored_artifacts
from cxr_tasks.retention.leftovers import leftovers, remove_leftover
from cxr_tasks.store import FolderStore, MissingArtifact, S3Store, Store, open_store
from cxr_tasks.store.files import Care
from cxr_tasks.store.garbage import clearance, lineage, references
from cxr_tasks.tracking import RegisteredVersion
from tests.ages import make_old

NAMES = [f"step/{n}" for n in range(9)]
refs_of = st.sets(st.sampled_from(NAMES))
graphs = st.dictionaries(st.sampled_from(NAMES), refs_of)
NOW = datetime.now(UTC)
LONG_AGO, BEFORE = NOW - timedelta(days=60), NOW - timedelta(days=30)
# What each artifact of the stores below was made from. Only the first few belong to a champion.
MADE_FROM = {
    "ingest/0": [],
    "split/0": ["ingest/0"],
    "train_gan/0": ["split/0"],
    "synthesize/0": ["train_gan/0"],
    "train_arm/0": ["split/0", "synthesize/0"],
    "ingest/1": [],
    "split/1": ["ingest/1"],
    "train_arm/1": ["split/1"],
    "evaluate_arm/1": ["train_arm/1"],
}
OF_CHAMPION = list(MADE_FROM)[:5]
CHAMPION = RegisteredVersion("cxr-cnn", "2", {"cxr.artifact": "train_arm/0", "other": "words"}, ("champion",))
OTHER = RegisteredVersion("cxr-cnn", "1", {"cxr.artifact": "train_arm/1"}, ())


@given(graphs, refs_of, refs_of)
def test_what_stays_is_closed_and_holds_every_root_and_all_else_goes(
    graph: dict[str, set[str]], roots: set[str], alone: set[str]
) -> None:
    found = clearance(graph, roots, alone)

    closed = lineage(roots, graph)
    assert roots <= closed and all(graph.get(ref, set()) <= closed for ref in closed)
    assert found.staying == (closed | alone) & graph.keys()
    assert set(found.going) == graph.keys() - closed - alone and len(set(found.going)) == len(found.going)


@given(graphs)
def test_an_artifact_goes_before_those_that_it_refers_to(graph: dict[str, set[str]]) -> None:
    # Artifacts are made from what was there before.
    graph = {ref: {other for other in others if other < ref} for ref, others in graph.items()}

    order = {ref: place for place, ref in enumerate(clearance(graph, ()).going)}

    assert all(order[ref] < order[other] for ref in order for other in graph[ref] & order.keys())


@given(st.recursive(st.sampled_from([*NAMES, "words", 1, None]), lambda below: st.lists(below) | st.tuples(below)))
def test_references_are_the_texts_that_are_known(value: Any) -> None:
    assert references(value, set(NAMES)) == {name for name in NAMES if json.dumps(name) in json.dumps(value)}
    assert references({"made": {"inner": value}}, set(NAMES)) == references(value, set(NAMES))


@pytest.fixture(params=["folder", "s3"])
def any_store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    address = str(tmp_path / "store") if request.param == "folder" else request.getfixturevalue("s3")
    monkeypatch.setenv("CXR_STORE", address)
    return open_store()


def fill(store: Store, *, old: bool = True) -> None:
    for ref, inputs in MADE_FROM.items():
        with store.publish(
            ref, {"step": ref.split("/")[0], "inputs": {str(n): each for n, each in enumerate(inputs)}}
        ) as folder:
            (folder / "file.txt").write_text(ref)
    for ref in MADE_FROM if old else ():
        make_old(store, ref, LONG_AGO)


def old(store: Store, *versions: RegisteredVersion) -> OldArtifacts:
    return old_artifacts(store, stored_artifacts(store), BEFORE, versions, leftovers(store, BEFORE))


def there(store: Store) -> list[str]:
    return [ref for ref in MADE_FROM if store.record(ref) is not None]


def clear(store: Store, *versions: RegisteredVersion) -> list[str]:
    return [each.ref for each in remove_artifacts(store, old(store, *versions))]


def test_the_lineage_of_a_champion_stays_and_of_other_versions_the_model_alone(any_store: Store) -> None:
    fill(any_store)

    gone = clear(any_store, CHAMPION, OTHER)

    assert gone == ["evaluate_arm/1", "split/1", "ingest/1"]
    assert there(any_store) == [*OF_CHAMPION, "train_arm/1"]
    for ref in there(any_store):
        assert (any_store.fetch(ref) / "file.txt").read_text() == ref
    with pytest.raises(MissingArtifact):
        any_store.fetch("split/1")


def test_what_is_young_or_newest_stays_with_its_lineage(any_store: Store) -> None:
    fill(any_store)
    any_store.take("train_arm/1")
    any_store.write_pointer("datasets/x", {"dataset": {"ref": "split/0", "shards": ["ingest/0"]}})

    clear(any_store)

    assert there(any_store) == ["ingest/0", "split/0", "ingest/1", "split/1", "train_arm/1"]


def test_the_version_of_a_dataset_is_forgotten_with_the_dataset(any_store: Store) -> None:
    fill(any_store)
    for number in range(2):
        told = {"ref": f"split/{number}", "shards": [f"ingest/{number}"]}
        any_store.write_pointer(f"dataset-versions/{number}", told)

    clear(any_store, CHAMPION)

    assert any_store.pointers() == ["dataset-versions/0"]


def test_what_a_run_takes_meanwhile_stays_with_its_lineage(any_store: Store) -> None:
    fill(any_store)
    plan = old(any_store)
    assert len(plan.going) == len(MADE_FROM)

    assert any_store.take("train_arm/1") is not None
    assert any_store.fetch("synthesize/0")
    gone = [each.ref for each in remove_artifacts(any_store, plan)]

    assert set(gone) == {"evaluate_arm/1", "train_arm/0"}
    assert there(any_store) == [ref for ref in MADE_FROM if ref not in gone]


def test_what_a_run_makes_anew_at_this_moment_stays(any_store: Store) -> None:
    fill(any_store)

    with any_store.lease("artifact/train_arm/0", "the making"):
        clear(any_store)

    assert there(any_store) == OF_CHAMPION


def test_who_began_to_remove_an_artifact_before_it_was_taken_leaves_it_alone(s3: str, tmp_path: Path) -> None:
    store = S3Store(s3, tmp_path / "cache")
    fill(store)
    ref = "train_arm/1"
    seen = store.entry(ref)

    assert store.take(ref) is not None

    assert store.bucket.write(f"{ref}/artifact.json", b"removed", seen.tag) is None
    assert seen.is_still(store.entry(ref)) and (store.fetch(ref) / "file.txt").read_text() == ref


def test_whoever_takes_an_artifact_as_it_is_removed_has_it_whole_or_makes_it_anew(any_store: Store) -> None:
    fill(any_store)
    taken: dict[str, bool] = {}

    def take() -> None:
        for ref in MADE_FROM:
            taken[ref] = any_store.take(ref) is not None

    taking = threading.Thread(target=take)
    plan = old(any_store)
    removing = remove_artifacts(any_store, plan)
    next(removing)
    taking.start()
    gone = {each.ref for each in removing} | {plan.going[0].ref}
    taking.join()

    for ref, was_taken in taken.items():
        assert not (was_taken and ref in gone), ref
        if was_taken:
            assert (any_store.fetch(ref) / "file.txt").read_text() == ref


class Died(BaseException):
    """Stands for the end of the process."""


def dying(store: Store, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """The process dies at the change of the store that comes after so many."""
    left = iter([None] * after)

    def change(*_: Any, **__: Any) -> None:
        try:
            next(left)
        except StopIteration:
            raise Died from None

    if isinstance(store, S3Store):
        for operation in ("PutObject", "DeleteObjects"):
            store.bucket.client.meta.events.register(f"before-call.s3.{operation}", change)
    else:
        for name in ("os.rename", "shutil.rmtree"):
            module, _, function = name.partition(".")
            real = getattr(__import__(module), function)

            def first(*given: Any, real: Any = real, **named: Any) -> Any:
                change()
                return real(*given, **named)

            monkeypatch.setattr(name, first)


@pytest.mark.parametrize("after", range(8))
def test_death_in_the_middle_leaves_nothing_half_usable_and_the_next_time_ends_the_work(
    any_store: Store, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    fill(any_store)
    with monkeypatch.context() as patched:
        dying(any_store, patched, after)
        with pytest.raises(Died):
            clear(any_store, CHAMPION)

    again = open_store()
    for ref in MADE_FROM:
        record = again.record(ref)
        assert record is None or again.fault(ref, record, Care.ALL) == ""
    assert set(OF_CHAMPION) <= set(there(again))
    if isinstance(again, S3Store):
        again.bucket.delete(found.path for found in again.bucket.objects("leases/"))
    clear(again, CHAMPION)
    later = NOW + timedelta(days=90)
    for left in leftovers(again, NOW, later):
        if left.kind != "copy":
            assert remove_leftover(again, left)
    assert there(again) == OF_CHAMPION
    assert {left.kind for left in leftovers(again, NOW, later)} <= {"copy"}
    if isinstance(again, S3Store):
        assert {"/".join(found.path.split("/")[:2]) for found in again.bucket.objects()} == set(OF_CHAMPION)


def test_an_artifact_made_anew_after_it_was_removed_is_whole(any_store: Store) -> None:
    fill(any_store)
    clear(any_store)
    assert there(any_store) == [] and any_store.take("split/0") is None

    fill(any_store, old=False)

    assert all((any_store.fetch(ref) / "file.txt").read_text() == ref for ref in MADE_FROM)


def test_a_training_that_goes_on_keeps_its_checkpoints_and_what_it_works_from(any_store: Store) -> None:
    fill(any_store)
    for ref in ("train_gan/a", "train_gan/b"):
        (any_store.load_checkpoint(ref) / "weights").write_text("1234")
        any_store.save_checkpoint(ref)
        make_old(any_store, f"unfinished/{ref}", LONG_AGO)
    any_store.write_pointer("unfinished/train_gan/a", ["settings", {"ref": "split/1", "shards": ["ingest/1"]}])
    any_store.write_pointer("unfinished/train_gan/b", ["settings", {"ref": "split/0"}])

    with any_store.lease("unfinished/train_gan/a", "the training"):
        for left in (found := leftovers(any_store, BEFORE)):
            assert remove_leftover(any_store, left)
        clear(any_store)

    assert {left.lease for left in found} == {"unfinished/train_gan/b"}
    assert there(any_store) == ["ingest/1", "split/1"]
    assert (any_store.load_checkpoint("train_gan/a") / "weights").read_text() == "1234"
    assert any_store.pointers() == ["unfinished/train_gan/a"]
    assert not list(any_store.load_checkpoint("train_gan/b").iterdir())


def test_a_training_that_begins_again_after_the_listing_keeps_its_checkpoints(any_store: Store) -> None:
    (any_store.load_checkpoint("train_gan/a") / "weights").write_text("1234")
    any_store.save_checkpoint("train_gan/a")
    make_old(any_store, "unfinished/train_gan/a", LONG_AGO)
    (left,) = leftovers(any_store, BEFORE)

    with any_store.lease("unfinished/train_gan/a", "the training"):
        assert not remove_leftover(any_store, left)

    assert (any_store.load_checkpoint("train_gan/a") / "weights").read_text() == "1234"


def test_a_publication_without_a_record_goes_after_a_day_unless_it_is_being_made(any_store: Store) -> None:
    ref, publication = "split/2", "0" * 32
    if isinstance(any_store, FolderStore):
        (any_store.root / ref / publication).mkdir(parents=True)
        (any_store.root / ref / publication / "file.txt").write_text("half")
    else:
        any_store.bucket.put(f"{ref}/{publication}/file.txt", b"half")  # type: ignore[attr-defined]
    make_old(any_store, f"{ref}/{publication}", NOW - timedelta(hours=25))
    fill(any_store, old=False)

    with any_store.lease(f"artifact/{ref}", "the making"):
        assert leftovers(any_store, BEFORE) == []
    (left,) = leftovers(any_store, BEFORE)
    assert left.kind == "staging" and remove_leftover(any_store, left)
    assert leftovers(any_store, NOW - timedelta(minutes=1), NOW + timedelta(minutes=30)) == []
    assert len(there(any_store)) == len(MADE_FROM)


def test_replaced_publications_go_after_a_day(any_store: Store) -> None:
    fill(any_store, old=False)
    with any_store.publish("split/0", {"step": "split"}, replace=True) as folder:
        (folder / "file.txt").write_text("split/0")

    assert [left for left in leftovers(any_store, NOW) if left.kind == "replaced"] == []
    later = datetime.now(UTC) + timedelta(days=2)
    (left,) = [left for left in leftovers(any_store, BEFORE, later) if left.kind == "replaced"]
    if isinstance(any_store, S3Store):
        assert remove_leftover(any_store, left)
        assert [left.kind for left in leftovers(any_store, BEFORE, later)] == []
    assert (any_store.fetch("split/0") / "file.txt").read_text() == "split/0"


@pytest.fixture
def s3_store(s3: str) -> Iterator[S3Store]:
    opened = open_store(s3)
    assert isinstance(opened, S3Store)
    yield opened


def test_parts_of_an_upload_that_was_killed_go(s3_store: S3Store) -> None:
    client, name = s3_store.bucket.client, s3_store.bucket.name
    begun = client.create_multipart_upload(Bucket=name, Key="cxr/split/0/file.txt")
    client.upload_part(Bucket=name, Key="cxr/split/0/file.txt", UploadId=begun["UploadId"], PartNumber=1, Body=b"1234")

    (left,) = leftovers(s3_store, BEFORE)
    since = left.changed
    assert leftovers(s3_store, since, since + timedelta(minutes=30)) == []
    assert (left.kind, left.size, left.place) == ("upload", 4, "split/0/file.txt") and remove_leftover(s3_store, left)
    assert "Uploads" not in client.list_multipart_uploads(Bucket=name)


def test_copies_of_what_is_gone_or_was_not_used_for_long_go(s3_store: S3Store) -> None:
    fill(s3_store)
    for ref in ("split/0", "split/1"):
        copy = s3_store.fetch(ref)
        for path in (*copy.iterdir(), copy):
            os.utime(path, (LONG_AGO.timestamp(), LONG_AGO.timestamp()))
    make_old(s3_store, "split/1", LONG_AGO)

    (left,) = leftovers(s3_store, BEFORE)

    assert left.kind == "copy" and "/split/1/" in left.place and remove_leftover(s3_store, left)
    assert leftovers(s3_store, BEFORE) == []
    assert (s3_store.fetch("split/1") / "file.txt").read_text() == "split/1"


def test_a_registry_of_another_server_is_refused(any_store: Store) -> None:
    fill(any_store)
    with any_store.publish("promote/0", {"step": "promote", "made": {"decisions": [{"name": "cxr-cnn"}]}}):
        pass
    found = stored_artifacts(any_store)

    with pytest.raises(UserError, match="no version of a model that was registered from this store, such as cxr-cnn"):
        check_registry(found, [])
    check_registry(found, [CHAMPION])
