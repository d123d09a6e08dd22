"""The steps ``ingest`` and ``manifest``: one bad file costs that file alone, and what has not changed is not read."""

import shutil

from PIL import Image

from cxr_tasks import steps
from cxr_tasks.data.ingest import CHANGED
from cxr_tasks.data.scan import VANISHED
from tests.steps.reading import prepare, read, rows_of


def test_only_the_shard_of_a_new_file_is_read_again(begin, source):
    read(begin(), source)
    Image.radial_gradient("L").save(source / "Normal/images/new.png")

    _, shards = read(begin("two"), source)

    assert sorted(shard.reused for shard in shards) == [False, True, True, True]


def test_files_that_vanish_or_change_after_the_scan_are_set_aside_and_come_back(begin, source):
    run = begin()
    whole = (source / "COVID/images/COVID-2.png").read_bytes()
    scanned = steps.scan(run, str(source))
    (source / "COVID/images/COVID-2.png").unlink()
    (source / "Normal/images/Normal-2.png").write_bytes(whole)

    shards = [steps.ingest(run, scanned, shard) for shard in steps.shards(run, scanned)]
    rows = rows_of(steps.manifest(run, scanned, shards))
    assert rows.at["COVID/images/COVID-2.png", "reason"] == VANISHED
    assert rows.at["Normal/images/Normal-2.png", "reason"] == CHANGED
    assert sum(shard.rejected for shard in shards) == 2

    (source / "COVID/images/COVID-2.png").write_bytes(whole)
    (source / "Normal/images/Normal-2.png").unlink()
    rows = rows_of(prepare(begin("two"), source).divided)
    assert rows.at["COVID/images/COVID-2.png", "status"] == "used"
    assert "Normal/images/Normal-2.png" not in rows.index


def test_a_mask_that_changes_after_the_scan_is_left_out_and_comes_back(begin, source):
    run = begin()
    scanned = steps.scan(run, str(source))
    (source / "COVID/masks/COVID-1.png").unlink()
    shutil.copyfile(source / "COVID/masks/COVID-3.png", source / "COVID/masks/COVID-2.png")

    shards = [steps.ingest(run, scanned, shard) for shard in steps.shards(run, scanned)]
    rows = rows_of(steps.manifest(run, scanned, shards))
    changed = ["COVID/images/COVID-1.png", "COVID/images/COVID-2.png"]
    assert rows.index[~rows["mask"]].tolist() == changed and (rows.loc[changed, "status"] == "used").all()
    assert sum(shard.unusable_masks for shard in shards) == 2

    assert rows_of(prepare(begin("two"), source).divided)["mask"].sum() == 135


def test_a_mask_that_cannot_be_read_is_looked_for_again(begin, source, caplog):
    (source / "COVID/masks/COVID-1.png").unlink()
    (source / "COVID/masks/COVID-1.png").symlink_to("nowhere.png")

    _, shards = read(begin(), source)

    assert "the mask of COVID/images/COVID-1.png is not used: the file cannot be read" in caplog.text
    assert sum(shard.masks for shard in shards) == 135
    assert not steps.scan(begin("two"), str(source)).reused


def test_the_first_files_that_are_set_aside_are_named_and_the_rest_counted(begin, source):
    for number in range(1, 8):
        (source / f"COVID/images/COVID-{number}.png").write_bytes(b"no image")
    run = begin()

    joined = steps.manifest(run, *read(run, source))

    assert (joined.rejected, joined.images["COVID"]) == (7, 33)
    assert len(joined.notes) == 6 and joined.notes[0].endswith(".png: the file is not an image")
    assert joined.notes[-1] == "and 2 more, listed in rejects.parquet"
    assert len(joined.table()) == 136 and joined.near().columns.tolist() == ["first", "second"]
