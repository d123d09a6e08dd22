"""The step ``scan``: what is read of a source, and when it is read again."""

import os

import pytest

from cxr_tasks import steps
from cxr_tasks.errors import SettingsError
from tests.steps.reading import prepare, rows_of


def test_a_touched_file_is_hashed_again_and_changes_nothing(begin, source):
    before = prepare(begin(), source)
    os.utime(source / "COVID/images/COVID-1.png", (1, 1))

    again = prepare(begin("two"), source)

    assert not again.scanned.reused
    assert again.divided.reused and again.divided.ref == before.divided.ref


def test_a_scan_with_unreadable_files_is_made_anew(begin, source):
    (source / "COVID/images/link.png").symlink_to("nowhere.png")

    assert not steps.scan(begin(), str(source)).reused
    assert not steps.scan(begin("two"), str(source)).reused


def test_files_of_no_class_are_not_read_and_masks_are_no_images(begin, source):
    prepared = prepare(begin(), source)

    rows = rows_of(prepared.divided)
    assert not rows.index.str.contains("masks|Lung_Opacity").any() and len(rows) == 136
    assert rows["mask"].all()
    assert prepared.scanned.files == {"COVID": 40, "Normal": 60, "Viral Pneumonia": 36}
    assert steps.shards(begin(), prepared.scanned) == [0, 1, 2, 3]


def test_what_a_scan_found_is_read_from_its_table(begin, source):
    scanned = steps.scan(begin(), str(source))

    table = scanned.table()
    assert len(table) == sum(scanned.files.values()) and table["shard"].nunique() == scanned.shards
    assert scanned.source == str(source)


def test_no_source_says_where_to_name_one(begin):
    with pytest.raises(SettingsError, match="No data source is given: name one in the field source, or set CXR_SOURCE"):
        steps.scan(begin(), "")
