"""Looks at a source before anything is trained on it: which images would be used, set aside, grouped and split.

Needs no store, no MLflow and no Airflow, and keeps nothing.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cxr_tasks.config import DataSettings, Settings
from cxr_tasks.data.coincidences import coincidences, coincidences_told
from cxr_tasks.data.contradictions import tell_contradictions
from cxr_tasks.data.decode import KEY_OF_THIS_PROCESS, HowToRead
from cxr_tasks.data.duplicates import CLASH, IDENTICAL
from cxr_tasks.data.expectations import check_manifest
from cxr_tasks.data.given import kept_splits
from cxr_tasks.data.ingest import USED, FilesChanged, join_shards, read_shard, without_changed
from cxr_tasks.data.inverted import CORRECTED, UNSURE, YES, count_inverted
from cxr_tasks.data.label_tables import lay_out_source
from cxr_tasks.data.leaks import tell_given
from cxr_tasks.data.leave_source_out import tell_left_out
from cxr_tasks.data.patients import with_pseudonyms
from cxr_tasks.data.scan import entries_of, read_tables, scan_files
from cxr_tasks.data.shared import SharedBySources, shared_by_sources, tell_sources
from cxr_tasks.data.shares import split_faults
from cxr_tasks.data.sites import SourcePart, source_error, source_parts, with_site
from cxr_tasks.data.sources import Source, open_source
from cxr_tasks.data.split import count_splits, split_manifest
from cxr_tasks.errors import UserError
from cxr_tasks.progress import Listener, advance, listening
from cxr_tasks.strict import Strict

# Paths that are told for each reason.
EXAMPLES = 3


class SetAside(Strict):
    """Files of one class that are set aside for one reason.

    Attributes:
        label: The class.
        reason: In words.
        files: How many.
        examples: Paths of the first few.
    """

    label: str
    reason: str
    files: int
    examples: tuple[str, ...]


class TableMatch(Strict):
    """A class table.

    Attributes:
        path: Of its file.
        label: The class.
        rows: How many there are.
        matched: Rows that name an image of the class.
    """

    path: str
    label: str
    rows: int
    matched: int


class SourceCounts(Strict):
    """What one of several sources holds.

    Attributes:
        name: Of the source.
        files: Image files by class.
        images: Images that would be used, by class.
        splits: Images by split, then by class.
    """

    name: str
    files: dict[str, int]
    images: dict[str, int]
    splits: dict[str, dict[str, int]]


class Survey(Strict):
    """What a source holds, as a training run would see it.

    Attributes:
        source: The address; of several sources their names.
        profile: Name of the profile that the source was held against.
        files: Image files by class.
        images: Images that would be used, by class.
        set_aside: Files that would not be used, most frequent reason first.
        known_patients: Images whose patient is known.
        patients: How many patients are known.
        groups: Sets of images that no split divides, each of one patient or one picture; single images included.
        largest_groups: Images of each class in the group that has most of them.
        near_duplicates: Pairs of images that show one picture.
        masks: Images with a lung mask beside them.
        unusable_masks: Masks of used images that cannot be used.
        inverted: Images by class whose grays are turned round.
        unsure_inverted: Images of which nobody can tell whether they are inverted.
        tables: The class tables.
        labels: Sentences on what a table of labels says.
        splits: Images by split, then by class.
        sources: Of a dataset of several sources, what each holds.
        shared: What each two of them share, if anything.
        coincidences: Sentences on classes that the age, the site, … of an image give away.
        warnings: Sentences on what is odd.
        failures: Sentences on what keeps the data from being trained on.
        passed: Whether there is no failure.
    """

    source: str
    profile: str
    files: dict[str, int]
    images: dict[str, int]
    set_aside: tuple[SetAside, ...]
    known_patients: int
    patients: int
    groups: int
    largest_groups: dict[str, int]
    near_duplicates: int
    masks: int
    unusable_masks: int
    inverted: dict[str, int]
    unsure_inverted: int
    tables: tuple[TableMatch, ...]
    labels: tuple[str, ...]
    splits: dict[str, dict[str, int]]
    sources: tuple[SourceCounts, ...]
    shared: tuple[SharedBySources, ...]
    coincidences: tuple[str, ...]
    warnings: tuple[str, ...]
    failures: tuple[str, ...]
    passed: bool


def _ignore(work: str, done: int, total: int) -> None:
    """Nobody watches."""


def survey(source: str, settings: Settings, *, progress: Listener = _ignore) -> tuple[Survey, pd.DataFrame]:
    """Read everything that ``source`` holds once, and tell what a training run would make of it.

    Every file is decoded in full, as in a training run, but no pixels are packed.

    Args:
        source: Address of the one source; empty where the settings list several.
        settings: What is read, what is acceptable, and how images are split.
        progress: Called with a name of the work, the parts that are done, and how many there are.

    Returns:
        The survey, and the manifest: a row a file with ``MANIFEST_COLUMNS``, but without ``shard`` and ``row``.

    Raises:
        DataError: The source cannot be read, or is not laid out by class.
        ConnectionError: The connection to the source broke off.
    """
    data = settings.data
    with listening(progress), tempfile.TemporaryDirectory(prefix="cxr-survey-") as scratch:
        joined = Path(scratch, "manifest")
        joined.mkdir()
        parts = source_parts(data, data.one_source(source), KEY_OF_THIS_PROCESS)
        read = [_read_part(part, data, Path(scratch, f"shard-{n}")) for n, part in enumerate(parts)]
        files = pd.concat([with_site(each.files, each.site) for each in read], ignore_index=True)
        sites = [each.site for each in read]
        with _one_part("compare images"):
            manifest, near = join_shards([each.shard for each in read], files, data.near_duplicates, joined, sites)
        with _one_part("check expectations"):
            check = check_manifest(manifest, data, joined)
            coinciding = coincidences_told(coincidences(manifest, data.classes, settings.evaluation.subgroups))
    told_of_given = [*tell_given(manifest, data.split), *tell_sources(manifest, near)]
    shared = tuple(shared_by_sources(manifest, near)) if data.sources else ()
    given = kept_splits(data.split, set(manifest["given"]))
    manifest = split_manifest(manifest, data.split, settings.seeds.split, near=near).drop(columns=["shard", "row"])
    told_of_split = [*told_of_given, *tell_left_out(manifest, data.split)]
    splits = count_splits(manifest, data.classes)
    # A run stops before its split where the data do not pass.
    failures = tuple(check.failures or split_faults(splits, manifest, data, given))
    used = manifest[manifest["status"] == USED]
    told = Survey(
        source=source or ", ".join(sites),
        profile=settings.profile,
        files=_count_by_class(manifest, data.classes),
        images=_count_by_class(used, data.classes),
        set_aside=_set_aside(manifest),
        known_patients=int((used["patient"] != "").sum()),
        patients=used.loc[used["patient"] != "", "patient"].nunique(),
        groups=used["group"].nunique(),
        largest_groups=_largest_groups(used, data.classes),
        near_duplicates=len(near),
        masks=sum(each.masks for each in read),
        unusable_masks=sum(each.unusable_masks for each in read),
        inverted=count_inverted(used, data.classes, YES, CORRECTED),
        unsure_inverted=sum(count_inverted(used, data.classes, UNSURE).values()),
        tables=tuple(table for each in read for table in each.tables),
        labels=tuple(said for each in read for said in each.labels),
        splits=splits,
        sources=_count_by_source(manifest, data),
        shared=shared,
        coincidences=tuple(coinciding),
        warnings=(*(said for each in read for said in each.warnings), *check.warnings, *told_of_split),
        failures=failures,
        passed=not failures,
    )
    return told, manifest


@contextmanager
def _one_part(work: str) -> Iterator[None]:
    advance(work, 0, 1)
    yield
    advance(work, 1, 1)


@dataclass(frozen=True)
class _Read:
    """What one source holds.

    Attributes:
        site: Its name.
        files: The rows of its scan.
        shard: The folder of its one shard.
        masks: Images with a mask.
        unusable_masks: Masks that cannot be used.
        tables: Its class tables.
        labels: What a table of labels says.
        warnings: What is not used.
    """

    site: str
    files: pd.DataFrame
    shard: Path
    masks: int
    unusable_masks: int
    tables: tuple[TableMatch, ...]
    labels: tuple[str, ...]
    warnings: tuple[str, ...]


def _read_part(part: SourcePart, data: DataSettings, shard: Path) -> _Read:
    """Read all files of a source."""
    shard.mkdir()
    try:
        with _one_part("list files"):
            opened = open_source(part.address)
            layout = lay_out_source(opened, part.settings, part.address)
            tables = read_tables(opened, layout, data.min_table_match)
    except UserError as error:
        if not part.site:
            raise
        raise source_error(part.site, error) from error
    files = with_pseudonyms(scan_files(opened, layout, {}, tables), part.key)
    how = HowToRead.of(data, part.key)
    rows = _read_rows(opened, files, shard, how, correct=data.inverted == "correct")
    named = f"{part.site}: " if part.site else ""
    return _Read(
        part.site,
        files,
        shard,
        masks=len(layout.masks),
        unusable_masks=int((rows["mask_fault"] != "").sum()),
        tables=tuple(
            TableMatch(
                path=f"{part.site}/{table.path}" if part.site else table.path,
                label=table.label,
                rows=len(table.rows),
                matched=table.matched(files),
            )
            for table in tables.read
        ),
        labels=tuple(f"{named}{said}" for said in layout.told),
        warnings=tuple(f"{named}{said}" for said in (*tables.warnings, *tell_contradictions(rows, files))),
    )


def _read_rows(opened: Source, files: pd.DataFrame, folder: Path, how: HowToRead, *, correct: bool) -> pd.DataFrame:
    """Read all files as one shard without pixels; files that change meanwhile are set aside."""
    for _ in range(2 * len(files) + 1):
        try:
            return read_shard(opened.fetch(entries_of(files)), files, (), folder, how, correct=correct)
        except FilesChanged as error:
            files = without_changed(files, error.faults)
    raise AssertionError("each turn leaves out at least one file")


def _count_by_class(rows: pd.DataFrame, classes: Sequence[str]) -> dict[str, int]:
    counts = rows["label"].value_counts()
    return {label: int(counts.get(label, 0)) for label in classes}


def _count_by_source(manifest: pd.DataFrame, data: DataSettings) -> tuple[SourceCounts, ...]:
    found = []
    for source in data.sources:
        rows = manifest[manifest["site"] == source.name]
        files, images = (_count_by_class(some, data.classes) for some in (rows, rows[rows["status"] == USED]))
        splits = count_splits(rows, data.classes)
        found.append(SourceCounts(name=source.name, files=files, images=images, splits=splits))
    return tuple(found)


def _set_aside(manifest: pd.DataFrame) -> tuple[SetAside, ...]:
    aside = manifest[manifest["status"] != USED]
    found = [
        SetAside(label=label, reason=reason, files=len(rows), examples=tuple(rows["path"].head(EXAMPLES)))
        for (label, reason), rows in aside.groupby(["label", aside["reason"].map(_without_paths)])
    ]
    return tuple(sorted(found, key=lambda some: (-some.files, some.label, some.reason)))


def _without_paths(reason: str) -> str:
    """The reason without other files' paths, which would make every file a case of its own."""
    if reason.startswith(CLASH):
        return CLASH
    return f"{IDENTICAL} another image of the class" if reason.startswith(IDENTICAL) else reason


def _largest_groups(used: pd.DataFrame, classes: Sequence[str]) -> dict[str, int]:
    sizes = used.groupby(["label", "group"]).size().groupby("label").max()
    return {label: int(sizes.get(label, 0)) for label in classes}
