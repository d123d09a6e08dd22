"""Stacks of images or of features that are not held in memory: rows are read, or made, when they are asked for.

A stack is indexed like an array, and then gives an array. Rows that lie in the ``.npy`` files of shards are mapped into
memory; what was read is let go again, so that a stack of any length costs its index.
"""

from __future__ import annotations

import math
import mmap
import os
import resource
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt

from cxr_tasks.cache import cache_folder
from cxr_tasks.errors import DataError, in_one_line

# A multiple of every batch in which networks are run, so that parts make no batches of another size.
ROWS_AT_ONCE = 1024
# Pages of mapped files that a stack touches before the process lets go of them. They may stay in the system's cache.
TOUCHED_BYTES = 32 * 2**20
# Linux maps so many bytes around a page that is touched, if they lie in its cache.
FAULT_AROUND = 64 * 2**10
# Files that are open beside those that are mapped.
OTHER_FILES = 256


class RowStack:
    """Rows that are read when they are asked for.

    Attributes:
        shape: (n, …), as of an array.
        dtype: Of the rows.
    """

    def __init__(self, read: Callable[[np.ndarray], np.ndarray], shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        """Note how rows are read.

        Args:
            read: Positions (k,) int64 → the rows (k, …), the same whichever others are asked for with them.
            shape: (n, …).
            dtype: Of the rows.
        """
        self._read, self.shape, self.dtype = read, shape, np.dtype(dtype)

    def __len__(self) -> int:
        """The number of rows."""
        return self.shape[0]

    def __getitem__(self, key: Any) -> np.ndarray:
        """The rows at ``key`` (a position, a slice, positions or flags), and of them what further indices choose."""
        chosen, *inside = key if isinstance(key, tuple) else (key,)
        if chosen is ... or chosen is None:
            return np.asarray(self[:][key])
        positions = _chosen_positions(chosen, len(self))
        rows = self._read(np.atleast_1d(positions))
        found: np.ndarray = rows[(slice(None), *inside)] if inside else rows
        return found if np.ndim(positions) else found[0]

    def __iter__(self) -> Iterator[np.ndarray]:
        """The rows one by one."""
        for part in in_parts(self):
            yield from part

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        """All rows in memory."""
        return self[:].astype(dtype or self.dtype, copy=False)

    def chosen(self, positions: np.ndarray) -> RowStack:
        """The rows at ``positions``, which may hold a position more than once."""
        return RowStack(lambda asked: self._read(positions[asked]), (len(positions), *self.shape[1:]), self.dtype)

    def each(
        self,
        work: Callable[[np.ndarray, np.ndarray], np.ndarray],
        shape: tuple[int, ...],
        dtype: npt.DTypeLike | None = None,
    ) -> RowStack:
        """What ``work`` makes of the rows, whenever they are asked for.

        Args:
            work: Rows (k, …) and their positions (k,) → (k, …), each row by itself.
            shape: Of what it makes of one row.
            dtype: Of that; ``None`` for that of the rows.
        """
        made = partial(_worked, work, self._read)
        return RowStack(made, (len(self), *shape), self.dtype if dtype is None else dtype)


# What is indexed by rows: in memory, mapped, or a stack.
Rows: TypeAlias = "np.ndarray | RowStack"


def _chosen_positions(chosen: Any, count: int) -> Any:
    """What an index of an array of ``count`` rows chooses."""
    if isinstance(chosen, slice):
        return np.arange(*chosen.indices(count))
    if isinstance(chosen, np.ndarray) and chosen.dtype.kind == "i":
        # Of a million rows a batch is asked for thousands of times.
        return np.where(chosen < 0, chosen + count, chosen)
    return np.arange(count)[chosen]


def _worked(work: Callable[..., np.ndarray], read: Callable[..., np.ndarray], positions: np.ndarray) -> np.ndarray:
    return work(read(positions), positions)


def as_stack(rows: Rows) -> RowStack:
    """``rows`` as a stack."""
    return rows if isinstance(rows, RowStack) else RowStack(rows.__getitem__, rows.shape, rows.dtype)


def in_parts(rows: Rows, at_once: int = ROWS_AT_ONCE) -> Iterator[np.ndarray]:
    """``rows`` in memory, some at a time. No rows make one empty part, which has their shape."""
    for start in range(0, max(1, len(rows)), at_once):
        yield rows[start : start + at_once]


def joined(parts: Sequence[Rows]) -> RowStack:
    """The rows of all ``parts``, which have one shape and dtype, one part after the other."""
    stacks, starts = [as_stack(part) for part in parts], np.cumsum([0, *map(len, parts)])

    def read(positions: np.ndarray) -> np.ndarray:
        found = np.empty((len(positions), *stacks[0].shape[1:]), stacks[0].dtype)
        owner = np.searchsorted(starts, positions, side="right") - 1
        for number in np.unique(owner):
            here = np.flatnonzero(owner == number)
            found[here] = stacks[number][positions[here] - starts[number]]
        return found

    return RowStack(read, (int(starts[-1]), *stacks[0].shape[1:]), stacks[0].dtype)


def packed(arrays: Sequence[np.ndarray], numbers: np.ndarray, rows: np.ndarray) -> RowStack:
    """Rows that lie in several arrays.

    Args:
        arrays: Mapped ones, as of :func:`mapped`, of one shape but for their length. Those that have no row of the
            stack may be empty.
        numbers: (n,) the array of each row of the stack.
        rows: (n,) its place there.
    """
    some = arrays[int(numbers[0])] if len(numbers) else arrays[0]
    touched = 0

    def read(positions: np.ndarray) -> np.ndarray:
        nonlocal touched
        found = np.empty((len(positions), *some.shape[1:]), some.dtype)
        asked, places = numbers[positions], rows[positions]
        order = np.argsort(asked, kind="stable")
        for here in np.split(order, np.flatnonzero(np.diff(asked[order])) + 1):
            if len(here):
                found[here] = arrays[int(asked[here[0]])][places[here]]
        touched += len(positions) * max(FAULT_AROUND, some[:1].nbytes)
        if touched > TOUCHED_BYTES:
            touched = 0
            for array in arrays:
                drop_pages(array)
        return found

    return RowStack(read, (len(numbers), *some.shape[1:]), some.dtype)


# The splits of a dataset lie in the same files, and each map costs an open file.
_maps: WeakValueDictionary[tuple[str, int, int], np.ndarray] = WeakValueDictionary()


def mapped(path: Path) -> np.ndarray:
    """The array in a ``.npy`` file, mapped into memory to be read only.

    Raises:
        DataError: It is no such file, or holds Python objects, which would run code where they are read.
    """
    status = path.stat()
    key = (str(path), status.st_ino, status.st_mtime_ns)
    array = _maps.get(key)
    if array is None:
        _make_room(len(_maps) + OTHER_FILES)
        try:
            array = _maps[key] = np.load(path, mmap_mode="r", allow_pickle=False)
        except ValueError as error:
            raise DataError(
                f"{path} cannot be read as numbers ({in_one_line(error)}): make what it belongs to anew."
            ) from error
    return array


def _make_room(files: int) -> None:
    """Let this process open so many files, as far as the system lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < files:
        most = hard if hard != resource.RLIM_INFINITY else 2 * files
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(most, 2 * files)), hard))


def drop_pages(array: np.ndarray) -> None:
    """Drop the pages of a mapped array from this process. What is read of it later is mapped again."""
    if isinstance(array.base, mmap.mmap):
        array.base.madvise(mmap.MADV_DONTNEED)


def on_disk(shape: tuple[int, ...], dtype: npt.DTypeLike) -> np.ndarray:
    """An array of zeros in a file without a name, mapped into memory: the system can take its pages back.

    The file lies in the folder of copies, see :mod:`cxr_tasks.cache`, and goes with the array. A small
    array needs none.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size <= TOUCHED_BYTES:
        return np.zeros(shape, dtype)
    with tempfile.TemporaryFile(dir=cache_folder("arrays")) as file:
        # All room at once: a process that writes to a page without room on the disk is ended without a word.
        os.posix_fallocate(file.fileno(), 0, size)
        return np.memmap(file, dtype, "w+", shape=shape)


def save_parts(path: Path, parts: Iterator[np.ndarray], rows: int) -> None:
    """Write ``parts``, which have ``rows`` rows in all, to a ``.npy`` file as ``np.save`` writes them in one."""
    with path.open("wb") as stream:
        for number, part in enumerate(parts):
            if not number:
                descr = np.lib.format.dtype_to_descr(part.dtype)
                header = {"descr": descr, "fortran_order": False, "shape": (rows, *part.shape[1:])}
                np.lib.format.write_array_header_1_0(stream, header)
            stream.write(np.ascontiguousarray(part).tobytes())
