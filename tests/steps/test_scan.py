"""The step ``scan``: what is read of a source, and when it is read again."""

import os

import pytest

from cxr_tasks import steps
from cxr_tasks.artifacts import Scan
from cxr_tasks.config import merge
from cxr_tasks.errors import SettingsError
from tests.steps.reading import SETTINGS, prepare, rows_of


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
    with pytest.raises(SettingsError, match="No data source is given: name one in the field source, set CXR_SOURCE"):
        steps.scan(begin(), "")


def test_a_table_of_labels_is_read_anew_when_it_says_something_else(begin, source):
    images = [path.relative_to(source).as_posix() for path in sorted(source.glob("*/images/*.png"))]
    rows = [f"{path},{path.split('/')[0]},{number % 90}" for number, path in enumerate(images)]
    table = {"file": "labels.csv", "path": "image", "label": "finding", "age": "years"}
    settings = merge(SETTINGS, {"data": {"table": table}})

    def prepared(run, lines):
        (source / "labels.csv").write_text("\n".join(["image,finding,years", *lines]))
        return prepare(begin(run, settings=settings), source)

    first = prepared("one", rows)
    touched = prepared("two", rows)
    older = prepared("three", [f"{row}0" if row.endswith(",8") else row for row in rows])

    assert first.scanned.notes[0].startswith(f"labels.csv: {len(images)} of {len(images)} rows name an image, and 136")
    assert any("no label that is a class" in warning for warning in first.scanned.warnings)
    assert touched.scanned.reused and touched.divided.reused
    assert not older.scanned.reused and not older.divided.reused
    ages = rows_of(older.divided)["age"]
    assert ages.notna().all() and (ages == 80).sum() > (rows_of(first.divided)["age"] == 80).sum()


def test_a_scan_that_lost_its_table_is_made_anew_without_it(begin, source):
    before = steps.scan(begin(), str(source))
    (before.folder() / Scan.FILES).unlink()

    again = steps.scan(begin("two"), str(source))

    assert again.ref == before.ref and not again.reused and again.files == before.files
    assert len(again.table()) == 136
