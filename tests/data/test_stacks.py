"""A stack is indexed like the array that it stands for, and holds none of its rows."""

import mmap
import resource
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr_tasks.data import stacks
from cxr_tasks.data.stacks import RowStack, as_stack, drop_pages, in_parts, joined, mapped, packed, save_parts

ROWS = np.arange(7 * 2 * 3, dtype=np.uint8).reshape(7, 2, 3)
INDEX = st.one_of(
    st.integers(-7, 6),
    st.slices(7),
    st.lists(st.integers(-7, 6)).map(lambda positions: np.array(positions, np.int64)),
    st.lists(st.booleans(), min_size=7, max_size=7).map(np.array),
)


def files(folder: Path, *parts: np.ndarray) -> list[Path]:
    paths = [folder / f"{number}.npy" for number in range(len(parts))]
    for path, part in zip(paths, parts, strict=True):
        np.save(path, part)
    return paths


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> RowStack:
    """``ROWS``, as they lie in three files, backwards and beside rows that nobody asks for."""
    first, second = ROWS[[4, 1, 6]], ROWS[[0, 3, 0, 2, 5]]
    paths = files(tmp_path_factory.mktemp("shards"), first, np.zeros((2, 2, 3), np.uint8), second)
    places = [(2, 0), (0, 1), (2, 3), (2, 1), (0, 0), (2, 4), (0, 2)]
    numbers, rows = np.array(places).T
    return packed([mapped(path) for path in paths], numbers, rows)


@given(index=INDEX)
def test_a_stack_is_indexed_like_an_array(stack: RowStack, index: object) -> None:
    np.testing.assert_array_equal(stack[index], ROWS[index])


def test_further_indices_choose_within_the_rows(stack: RowStack) -> None:
    np.testing.assert_array_equal(stack[:, 0, 1:], ROWS[:, 0, 1:])
    np.testing.assert_array_equal(stack[np.array([5, 2]), ..., None], ROWS[[5, 2], ..., None])
    np.testing.assert_array_equal(stack[..., None], ROWS[..., None])
    np.testing.assert_array_equal(stack[None], ROWS[None])


def test_a_stack_says_what_an_array_says(stack: RowStack) -> None:
    assert (len(stack), stack.shape, stack.dtype) == (7, (7, 2, 3), np.uint8)
    np.testing.assert_array_equal(np.asarray(stack), ROWS)
    np.testing.assert_array_equal(list(stack), ROWS)
    with pytest.raises(IndexError):
        stack[7]


@given(first=st.lists(st.integers(0, 6)), second=st.lists(st.integers(0, 6)), index=st.integers(0, 20))
def test_what_is_made_of_stacks_is_what_is_made_of_arrays(
    stack: RowStack, first: list[int], second: list[int], index: int
) -> None:
    one, other = np.array(first, np.int64), np.array(second, np.int64)
    both = joined([stack.chosen(one), ROWS[other], stack])
    expected = np.concatenate([ROWS[one], ROWS[other], ROWS])
    np.testing.assert_array_equal(both[:], expected)
    some = index % len(expected)
    np.testing.assert_array_equal(both.chosen(np.array([some]))[:], expected[[some]])


def test_work_is_done_on_the_rows_that_are_asked_for(stack: RowStack) -> None:
    seen = []

    def work(rows: np.ndarray, positions: np.ndarray) -> np.ndarray:
        seen.extend(positions.tolist())
        return rows.sum(axis=(1, 2), dtype=np.int64) + 1000 * positions

    sums = stack.each(work, (), np.int64)
    assert not seen

    chosen = sums.chosen(np.array([6, 2]))[1:]

    assert seen == [2] and chosen.tolist() == [ROWS[2].sum() + 2000]
    assert (sums.shape, sums.dtype) == ((7,), np.int64)


@pytest.mark.parametrize("at_once", [1, 3, 7, 100])
def test_parts_are_all_rows_in_order(stack: RowStack, at_once: int) -> None:
    for rows in (stack, ROWS):
        parts = list(in_parts(rows, at_once))
        assert max(map(len, parts)) <= at_once
        np.testing.assert_array_equal(np.concatenate(parts), ROWS)


def test_no_rows_make_one_empty_part() -> None:
    assert [part.shape for part in in_parts(ROWS[:0])] == [(0, 2, 3)]
    assert [part.shape for part in in_parts(as_stack(ROWS).chosen(np.empty(0, np.int64)))] == [(0, 2, 3)]


@pytest.mark.parametrize("rows", [ROWS, ROWS[:0], np.linspace(0, 1, 9, dtype=np.float16).reshape(9, 1)])
def test_what_is_saved_in_parts_has_the_bytes_of_what_is_saved_at_once(tmp_path: Path, rows: np.ndarray) -> None:
    save_parts(tmp_path / "parts.npy", in_parts(rows, 2), len(rows))
    np.save(tmp_path / "whole.npy", rows)

    assert (tmp_path / "parts.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()


def test_a_file_is_mapped_once_and_anew_once_it_is_another(tmp_path: Path) -> None:
    (path,) = files(tmp_path, ROWS)
    first = mapped(path)
    assert mapped(path) is first

    np.save(tmp_path / "new.npy", ROWS + 1)
    (tmp_path / "new.npy").rename(path)

    np.testing.assert_array_equal(mapped(path), ROWS + 1)
    # Who reads the file that was there goes on with it.
    np.testing.assert_array_equal(first, ROWS)


def resident_pages(path: Path) -> int:
    """KiB of a mapped file that lie in this process."""
    lines = Path("/proc/self/smaps").read_text().splitlines()
    start = next(n for n, line in enumerate(lines) if line.endswith(str(path)))
    return next(int(line.split()[1]) for line in lines[start:] if line.startswith("Rss:"))


def test_what_was_read_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.zeros((64, 4096), np.uint8)
    (path,) = files(tmp_path, rows)
    array = mapped(path)
    stack = packed([array], np.zeros(64, np.int32), np.arange(64, dtype=np.int32))
    stack[:]
    assert resident_pages(path) >= 200

    monkeypatch.setattr(stacks, "TOUCHED_BYTES", 2 * 64 * stacks.FAULT_AROUND - 1)
    stack[:]

    assert resident_pages(path) < 200
    np.testing.assert_array_equal(stack[:], rows)


def test_an_array_in_memory_is_left_alone() -> None:
    drop_pages(ROWS)

    assert not isinstance(ROWS.base, mmap.mmap) and ROWS[1, 0, 0] == 6


def test_a_process_may_open_a_file_for_each_shard(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (stacks.OTHER_FILES - 1, hard))
    try:
        mapped(files(tmp_path, ROWS)[0])
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > stacks.OTHER_FILES
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
