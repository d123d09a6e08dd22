"""Rows of several sources in one table: none is lost, each shard is of one, and paths lead back."""

import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from cxr_tasks.data.scan import MOST_SHARDS
from cxr_tasks.data.sites import files_of_site, join_scans, with_site

SITES = ["a", "b.c", "a-b"]


def files_of(number: int) -> pd.DataFrame:
    """A scan of so many files. Some paths look like those of another source."""
    paths = [f"{'a/' * (n % 3)}{n}.png" for n in range(number)]
    return pd.DataFrame({"path": paths, "mask": paths, "label": "COVID"})


@given(st.lists(st.integers(1, 40), min_size=1, max_size=3), st.integers(1, 8))
def test_each_shard_is_of_one_source_and_gives_its_files_back(numbers: list[int], shard_images: int) -> None:
    scanned = {site: files_of(number) for site, number in zip(SITES, numbers, strict=False)}

    files, shards = join_scans(scanned, shard_images)

    assert list(shards) == list(scanned) and set(files["shard"]) <= set(range(sum(shards.values())))
    first = 0
    for site, own in scanned.items():
        mine = files[files["shard"].between(first, first + shards[site] - 1)]
        assert set(mine["site"]) == {site} and mine["path"].tolist() == [f"{site}/{path}" for path in own["path"]]
        pd.testing.assert_frame_equal(files_of_site(mine, site)[list(own)], own)
        first += shards[site]


def test_there_are_never_more_shards_than_can_be_mapped_over() -> None:
    for several in (2, 3, 5):
        files, shards = join_scans({f"s{n}": files_of(1500) for n in range(several)}, 1)

        assert len(files) == several * 1500 and sum(shards.values()) <= 2 * MOST_SHARDS


def test_one_source_without_a_name_has_its_paths_as_they_are() -> None:
    files = files_of(4)

    assert with_site(files, "")["path"].equals(files["path"]) and files_of_site(files, "") is files
