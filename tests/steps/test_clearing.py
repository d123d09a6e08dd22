"""After a store was cleared up, a run makes anew what it needs, and takes the rest: real steps on phantoms."""

from datetime import UTC, datetime, timedelta

import pytest

from cxr_tasks import steps
from cxr_tasks.errors import DataError
from cxr_tasks.retention.clearing import old_artifacts, remove_artifacts
from cxr_tasks.retention.inventory import stored_artifacts
from cxr_tasks.retention.leftovers import leftovers
from cxr_tasks.store import open_store
from tests.ages import make_old
from tests.steps.reading import prepare, read

LONG_AGO, BEFORE = (datetime.now(UTC) - timedelta(days=days) for days in (60, 30))


def clear(store):
    """Clear up a store in which nothing was used for long; returns the steps of what went."""
    for stored in stored_artifacts(store):
        make_old(store, stored.ref, LONG_AGO)
    old = old_artifacts(store, stored_artifacts(store), BEFORE, [], leftovers(store, BEFORE))
    return sorted({stored.step for stored in remove_artifacts(store, old)})


def test_the_newest_dataset_stays_whole_and_the_next_run_takes_it(begin, source):
    store, first = open_store(), begin("one")
    published = steps.publish(first, *prepare(first, source))

    # What the settings of a run were, no dataset needs.
    assert "split" not in (gone := clear(store)) and "settings" in gone

    second = begin("two")
    again = prepare(second, source)
    assert again.divided.reused and steps.find_dataset(second).ref == published.ref
    assert len(published.images("train", 32, list(published.counts["train"]))) > 0


def test_of_an_old_dataset_all_goes_and_the_next_run_makes_the_same_again(begin, source):
    store, first = open_store(), begin("one")
    before = prepare(first, source)
    store.write_pointer(f"dataset-versions/{before.divided.version}", before.dataset().model_dump(mode="json"))

    # What was listed last in a source stays: the next scan of it reads changed files alone.
    assert clear(store) == ["ingest", "manifest", "settings", "split", "validate"]

    assert [stored.step for stored in stored_artifacts(store)] == ["scan"]
    second = begin("two")
    with pytest.raises(DataError, match="does not exist: take a version that cxr_data has published"):
        steps.find_dataset(second, before.divided.version)
    again = prepare(second, source)
    assert not again.divided.reused and again.divided.version == before.divided.version
    assert all(shard.reused for shard in read(begin("three"), source)[1])
