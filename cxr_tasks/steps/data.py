"""Steps from a source of X-rays to a published dataset."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxr_tasks import tracking
from cxr_tasks.config import Settings
from cxr_tasks.errors import DataError, SettingsError
from cxr_tasks.execution import Record, RunContext, StepResult, load_settings, perform
from cxr_tasks.steps.shared import log_files
from cxr_tasks.store import artifact_ref, open_store

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

# Lines that a step may say to the person at the terminal; the rest is in its log and its artifact.
NOTES = 5


def scan(run: RunContext, source: str) -> StepResult:
    """List the source: every file of every class, its content hash, and what the class tables say."""
    import pandas as pd

    from cxr_tasks.data import scan as scanning
    from cxr_tasks.data.layout import lay_out
    from cxr_tasks.data.sources import open_source

    settings, store = load_settings(run).data, open_store()
    if not source:
        raise SettingsError("No data source is given: name one in the field source, or set CXR_SOURCE.")
    opened = open_source(source)
    layout = lay_out(opened.entries(), settings.classes, settings.folders, source)
    last_name = artifact_ref("scans", 2, {"source": source}, {})

    def make(folder: Path, record: Record) -> None:
        last = store.read_pointer(last_name)
        known: dict[tuple[str, str], str] = {}
        if last and store.record(last):
            known = scanning.known_hashes(pd.read_parquet(store.fetch(last) / scanning.FILES))
        files = scanning.scan(opened, layout, known)
        files["shard"] = scanning.shard_numbers(files, settings.shard_images)
        files.to_parquet(folder / scanning.FILES, index=False)
        # A file that could not be read today may be read tomorrow without looking any different.
        unread = (files["fault"] != "") | ((files["mask"] != "") & (files["mask_sha256"] == ""))
        record["volatile"] = bool(unread.any())
        record["summary"] = {
            "files": len(files),
            "shards": int(files["shard"].max()) + 1,
            **{f"files {label}": int((files["label"] == label).sum()) for label in settings.classes},
        }
        record["metrics"] = {"files": len(files)}

    result = perform(
        run,
        "scan",
        make,
        version=2,
        settings={"classes": list(settings.classes), "shard_images": settings.shard_images},
        inputs={"listing": scanning.listing_key(layout)},
    )
    result["summary"]["source"] = source
    store.write_pointer(last_name, result["ref"])
    return result


def shards(run: RunContext, scanned: StepResult) -> list[int]:
    """The numbers of the shards that the files are read in; the DAG maps over them."""
    return list(range(scanned["summary"]["shards"]))


def ingest(run: RunContext, scanned: StepResult, shard: int) -> StepResult:
    """Read the files of one shard: a row and packed pixels for each, or the reason why it cannot be used."""
    import pandas as pd

    from cxr_tasks.data.ingest import SET_ASIDE, FilesChanged, read_shard
    from cxr_tasks.data.scan import FILES, entries_of
    from cxr_tasks.data.sources import open_source

    settings, store = load_settings(run), open_store()
    sizes = settings.image_sizes
    files = pd.read_parquet(store.fetch(scanned["ref"]) / FILES)
    files = files[files["shard"] == shard].reset_index(drop=True)

    def make(folder: Path, record: Record) -> None:
        root = open_source(scanned["summary"]["source"]).fetch(entries_of(files))
        rows = read_shard(root, files, sizes, folder)
        aside = rows[rows["status"] == SET_ASIDE]
        for row in aside.itertuples():
            log.warning("set aside %s: %s", row.path, row.reason)
        unusable = rows[rows["mask_fault"] != ""]
        for row in unusable.itertuples():
            log.warning("the mask of %s is not used: %s", row.path, row.mask_fault)
        record["summary"] = {
            "images": len(rows) - len(aside),
            "rejected": len(aside),
            "masks": int(rows["mask"].sum()),
            "unusable_masks": len(unusable),
        }
        record["metrics"] = dict(record["summary"])

    for _ in range(2 * len(files) + 1):
        content = files[["path", "label", "sha256", "fault", "mask_sha256"]]
        try:
            return perform(
                run,
                "ingest",
                make,
                version=2,
                settings={"sizes": sizes},
                inputs={"files": _digest(content)},
                after=[scanned],
                label=f"shard {shard + 1} of {scanned['summary']['shards']}",
            )
        except FilesChanged as error:
            # What such a file was is gone: the image is set aside, the mask left out, under a key that says so.
            files["fault"] = files["path"].map(error.faults).fillna(files["fault"])
            files.loc[files["mask"].isin(error.faults), "mask_sha256"] = ""
            log.warning("%s: reading the shard again without them", error)
    raise AssertionError("each turn leaves out at least one file")


def manifest(run: RunContext, scanned: StepResult, ingested: Sequence[StepResult]) -> StepResult:
    """Join the shards into the manifest: duplicates set aside, near-duplicates grouped, rejects listed."""
    import pandas as pd

    from cxr_tasks.data.ingest import MANIFEST, NEAR, REJECTS, SET_ASIDE, join_shards
    from cxr_tasks.data.scan import FILES

    settings, store = load_settings(run).data, open_store()
    files = pd.read_parquet(store.fetch(scanned["ref"]) / FILES)

    def make(folder: Path, record: Record) -> None:
        folders = [store.fetch(result["ref"]) for result in ingested]
        table, pairs = join_shards(folders, files, settings.near_duplicates, folder)
        aside = table[table["status"] == SET_ASIDE]
        notes = [f"set aside {row.path}: {row.reason}" for row in aside.head(NOTES).itertuples()]
        if len(aside) > NOTES:
            notes.append(f"and {len(aside) - NOTES:,} more, listed in {REJECTS}")
        used = table.loc[table["status"] != SET_ASIDE, "label"].value_counts()
        record["summary"] = {
            "images": len(table) - len(aside),
            "rejected": len(aside),
            "near_duplicates": len(pairs),
            "masks": int(table.loc[table["status"] != SET_ASIDE, "mask"].sum()),
            "shards": [result["ref"] for result in ingested],
            "notes": notes,
            **{f"images {label}": int(used.get(label, 0)) for label in settings.classes},
        }
        counted = ("images", "rejected", "near_duplicates", "masks")
        record["metrics"] = {name: record["summary"][name] for name in counted}
        log_files(folder, [MANIFEST, REJECTS, NEAR])

    result = perform(
        run,
        "manifest",
        make,
        version=2,
        settings=settings.near_duplicates.model_dump(mode="json"),
        inputs={
            "metadata": _digest(files[["path", "source", "patient"]]),
            **{f"shard {i + 1}": given for i, given in enumerate(ingested)},
        },
        after=[scanned],
    )
    result["summary"]["source"] = scanned["summary"]["source"]
    return result


def validate(run: RunContext, joined: StepResult) -> StepResult:
    """Hold the manifest against the expectations; critical ones stop the run.

    Raises:
        DataError: with every critical expectation that was not met.
    """
    import pandas as pd

    from cxr_tasks.data import expectations
    from cxr_tasks.data.ingest import MANIFEST, REJECTED_FILES, REJECTS

    settings, store = load_settings(run), open_store()

    def make(folder: Path, record: Record) -> None:
        import mlflow

        table = pd.read_parquet(store.fetch(joined["ref"]) / MANIFEST)
        outcome = expectations.validate(table, settings.data, folder)
        # Kept with the run before anything is raised: the page is most wanted when validation fails.
        mlflow.log_artifacts(str(folder / "data-docs"), "data-docs")
        docs = tracking.artifact_url(run["experiment_id"], mlflow.active_run().info.run_id, expectations.DOCS_PAGE)
        for warning in outcome.warnings:
            log.warning("Expectation not met (warning): %s", warning)
        if outcome.failures:
            place = store.where(joined["ref"])
            raise DataError(
                f"The data do not pass validation: {'; '.join(outcome.failures)}. The rejected files are in "
                f"{place}/{REJECTED_FILES}, their reasons in {place}/{REJECTS}" + (f"; page: {docs}." if docs else ".")
            )
        record["summary"] = {
            "expectations": outcome.expectations,
            "warnings": outcome.warnings,
            "notes": [f"warning: {warning}" for warning in outcome.warnings],
            "data_docs": docs,
            "report": docs,
        }
        record["metrics"] = {"expectations": outcome.expectations, "expectation_warnings": len(outcome.warnings)}

    checked = settings.data.model_dump(mode="json", exclude={"split", "shard_images", "near_duplicates", "folders"})
    return perform(run, "validate", make, settings=checked, inputs={"manifest": joined})


def split(run: RunContext, joined: StepResult, validated: StepResult) -> StepResult:
    """Give every image its split; the result is the dataset that training works from."""
    import pandas as pd

    from cxr_tasks.data.ingest import MANIFEST, NEAR, SET_ASIDE, USED
    from cxr_tasks.data.split import SPLITS, assign

    settings, store = load_settings(run), open_store()
    how = {**settings.data.split.model_dump(mode="json"), "seed": settings.seed}
    ledger_name = artifact_ref("splits", 1, how, {})
    ledger: dict[str, str] = store.read_pointer(ledger_name) or {}
    read = store.fetch(joined["ref"])
    table, near = pd.read_parquet(read / MANIFEST), pd.read_parquet(read / NEAR)
    used = table.index[table["status"] == USED]
    given = assign(table.loc[used], settings.data.split, settings.seed, ledger, near)
    for column in ("split", "group"):
        table.loc[used, column] = given[column]
    left_out = given.index[given["reason"] != ""]
    table.loc[left_out, "status"] = SET_ASIDE
    table.loc[left_out, "reason"] = given.loc[left_out, "reason"]
    dealt = table[table["split"] != ""]
    version = _digest(dealt[["image_id", "label", "group", "split", "mask_id"]].sort_values("image_id"))

    def make(folder: Path, record: Record) -> None:
        table.to_parquet(folder / MANIFEST, index=False)
        counts = dealt.groupby(["split", "label"]).size().unstack(fill_value=0)
        counts = counts.reindex(index=SPLITS, columns=settings.data.classes, fill_value=0)
        record["summary"] = {
            "version": version,
            "source": joined["summary"]["source"],
            "shards": joined["summary"]["shards"],
            "counts": {name: {label: int(n) for label, n in row.items()} for name, row in counts.iterrows()},
            "notes": [f"left out {table.at[i, 'path']}: {given.at[i, 'reason']}" for i in left_out[:NOTES]],
        }
        record["metrics"] = {f"{name}_images": int(row.sum()) for name, row in counts.iterrows()}
        log_files(folder, [MANIFEST])

    # The assignment is cheap to make and depends on what was assigned before, so it is itself the key:
    # the same images in the same splits are the same dataset.
    result = perform(run, "split", make, settings=how, inputs={"manifest": joined, "assignment": version})
    # Of this run's validation: the split does not depend on it.
    result["summary"] |= {key: validated["summary"][key] for key in ("warnings", "data_docs")}
    assigned = dict(zip(dealt["image_id"], dealt["split"], strict=True))
    if settings.data.split.method == "stable" and not assigned.items() <= ledger.items():
        store.write_pointer(ledger_name, ledger | assigned)
    return result


def publish(run: RunContext, dataset: StepResult) -> StepResult | None:
    """Make ``dataset`` the newest one of these settings, and say what changed; ``None`` if it is that already."""
    store, name = open_store(), _newest(load_settings(run))
    before = store.read_pointer(name)
    # A try of this very run that was killed before Airflow heard of it has announced nothing.
    if before and _version(before["dataset"]) == _version(dataset) and before["dag_run"] != run["dag_run"]:
        tracking.end_run(run["mlflow_run_id"])
        return None
    # Made anew or not, to a later run it is a dataset like any other.
    published = StepResult(**{**dataset, "forced": False})
    # Of the dataset before it, not of itself, if this is another try.
    base = before["base"] if before and before["dag_run"] == run["dag_run"] else before and before["dataset"]["ref"]
    news = f"dataset {_version(dataset)}: " + _log_changes(run, base, dataset)
    store.write_pointer(f"versions/{_version(dataset)}", published)
    store.write_pointer(name, {"dataset": published, "dag_run": run["dag_run"], "base": base})
    tracking.end_run(run["mlflow_run_id"])
    return StepResult(**{**published, "summary": {**published["summary"], "notes": [news]}})


def find_dataset(run: RunContext, version: str = "") -> StepResult:
    """The dataset of that version, or the one published last for these settings.

    Raises:
        DataError: there is none.
    """
    settings, store = load_settings(run), open_store()
    if version:
        found = store.read_pointer(f"versions/{version}") if version.isalnum() else None
        if found is None:
            raise DataError(
                f"Dataset {version!r} does not exist: take a version that cxr_data has published "
                "(tag cxr.dataset of its MLflow runs), or leave the field empty for the newest."
            )
        there, asked = sorted(found["summary"]["counts"]["train"]), sorted(settings.data.classes)
        if there != asked:
            raise DataError(
                f"Dataset {version!r} has the classes {', '.join(there)}, and the settings {', '.join(asked)}: set "
                "data.classes to those of the dataset, or leave the field empty for the newest."
            )
        return found
    newest = store.read_pointer(_newest(settings))
    if newest is None:
        raise DataError(
            f"No dataset has been prepared with the data settings of profile {settings.profile!r}: "
            "run cxr_data with this profile first."
        )
    return newest["dataset"]


def _log_changes(run: RunContext, base: str | None, dataset: StepResult) -> str:
    """Keep with the DAG run what is different from the dataset ``base``; returns it in a sentence."""
    import pandas as pd

    from cxr_tasks.data.changes import changes, counts, sentence
    from cxr_tasks.data.ingest import MANIFEST

    store, server = open_store(), tracking.client()
    server.set_tag(run["mlflow_run_id"], "cxr.dataset", _version(dataset))
    images = sum(n for split in dataset["summary"]["counts"].values() for n in split.values())
    if base is None or store.record(base) is None:
        words = f"the first of these settings, {images:,} images"
    else:
        found = changes(*(pd.read_parquet(store.fetch(ref) / MANIFEST) for ref in (base, dataset["ref"])))
        words = sentence(found)
        server.log_text(run["mlflow_run_id"], found.to_csv(index=False), "changes.csv")
        for kind, number in counts(found).items():
            server.log_metric(run["mlflow_run_id"], f"images_{kind}", number)
    server.set_tag(run["mlflow_run_id"], "cxr.changes", words)
    return words


def _version(dataset: StepResult) -> Any:
    return dataset["summary"]["version"]


def _digest(table: pd.DataFrame) -> str:
    """20 hexadecimal digits that tell contents of a table apart; its index does not count."""
    import pandas as pd

    hashes = pd.util.hash_pandas_object(table, index=False).to_numpy()
    return hashlib.sha256(hashes.tobytes()).hexdigest()[:20]


def _newest(settings: Settings) -> str:
    data = settings.data.model_dump(mode="json", exclude={"shard_images"})
    return artifact_ref("datasets", 1, {**data, "sizes": settings.image_sizes, "seed": settings.seed}, {})
