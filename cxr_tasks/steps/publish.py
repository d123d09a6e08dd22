"""The step ``publish``: make a split manifest the newest dataset; and how a training finds a dataset."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

from pydantic import ValidationError

from cxr_tasks import tracking
from cxr_tasks.artifacts import Dataset, Manifest, RunContext, Scan, Split, Validation
from cxr_tasks.config import Settings
from cxr_tasks.errors import DataError
from cxr_tasks.overview.published import DATASET_FILE, PublishedData
from cxr_tasks.pipeline import load_settings
from cxr_tasks.store import Lease, artifact_ref, open_store


def dataset_of(scanned: Scan, joined: Manifest, validated: Validation, divided: Split) -> Dataset:
    """The dataset that these make together. It counts as not forced: a training need not be made anew for it."""
    return Dataset(
        ref=divided.ref,
        made_by=divided.made_by,
        seconds=divided.seconds,
        mlflow_run_id=divided.mlflow_run_id,
        url=divided.url,
        reused=divided.reused,
        version=divided.version,
        counts=divided.counts,
        shards=joined.shards,
        source=scanned.source,
        warnings=(*scanned.warnings, *joined.warnings, *validated.warnings, *divided.warnings),
        data_docs=validated.data_docs,
        resize=joined.resize,
    )


def publish(run: RunContext, scanned: Scan, joined: Manifest, validated: Validation, divided: Split) -> Dataset | None:
    """Make these the newest dataset of its settings, and say what changed.

    A training is owed for each publication until one has begun. So the same data are published again where the
    announcement was lost: the task died before Airflow heard of it, or ``cxr_training`` was paused.

    Returns:
        ``None`` where nothing changed and no training is owed.
    """
    settings, dataset = load_settings(run), dataset_of(scanned, joined, validated, divided)
    with _alone(settings) as lease:
        return _publish(run, settings, dataset, joined, lease)


def _publish(run: RunContext, settings: Settings, dataset: Dataset, joined: Manifest, lease: Lease) -> Dataset | None:
    """Make ``dataset`` the newest of its settings, unless nothing changed and no training is owed."""
    store, name = open_store(), _newest(settings)
    before = store.read_pointer(name)
    same = bool(before and before["version"] == dataset.version)
    # A try of this very run that was killed before Airflow heard of it has announced nothing.
    again = bool(before and before["dag_run"] == run.dag_run)
    if same and not again and _begun_last(settings):
        return None
    # Of the dataset before it, not of itself, if this is another try.
    base = before["base"] if again or same else before and before["dataset"]["ref"]
    words = _log_changes(run, base, dataset)
    tracking.log_text(_published_data(dataset, joined).model_dump_json(), DATASET_FILE, run.mlflow_run_id)
    published = dataset.model_dump(mode="json")
    lease.check()
    store.write_pointer(_by_version(dataset.version), published)
    newest = {"dataset": published, "version": dataset.version, "dag_run": run.dag_run, "base": base}
    # What was queued for these data before stands until another run is queued for them.
    store.write_pointer(name, {**newest, "queued": before.get("queued") if same and before else None})
    # People look for datasets by this tag: it must not name one that no pointer leads to.
    tracking.set_tags({"cxr.dataset": dataset.version, "cxr.changes": words}, run.mlflow_run_id)
    return dataset.model_copy(update={"notes": (f"dataset {dataset.version}: {words}",)})


def _published_data(dataset: Dataset, joined: Manifest) -> PublishedData:
    """What Airflow's page shows of the dataset."""
    return PublishedData(
        version=dataset.version,
        counts=dataset.counts,
        rejected=joined.rejected,
        near_duplicates=joined.near_duplicates,
        masks=joined.masks,
        warnings=dataset.warnings,
        data_docs=dataset.data_docs,
    )


def queued_training(run: RunContext, dataset: Dataset) -> Mapping[str, Any] | None:
    """What :func:`note_queued` noted last, if ``dataset`` is the newest of the run's data settings and was since."""
    newest = open_store().read_pointer(_newest(load_settings(run)))
    return newest.get("queued") if newest and newest["version"] == dataset.version else None


def note_queued(run: RunContext, dataset: Dataset, queued: Mapping[str, Any]) -> None:
    """Note the DAG run that is to train on ``dataset`` later: of several that wait, the last one does.

    Args:
        run: The DAG run that published the dataset.
        dataset: What is to be trained on. If there is a newer one by now, nothing is noted.
        queued: ``dag_run``, the id of the DAG run that waits, and ``form``, its fields of the trigger form.
    """
    settings, store = load_settings(run), open_store()
    with _alone(settings):
        newest = store.read_pointer(_newest(settings))
        if newest and newest["version"] == dataset.version:
            store.write_pointer(_newest(settings), {**newest, "queued": dict(queued)})


def is_owed(run: RunContext, dataset: Dataset) -> bool:
    """Whether a run that was queued is to train on ``dataset``.

    It is if it has begun to before. Otherwise no other run may have begun to, the dataset must be the newest of the
    run's data settings, and no run may have been queued for it later.
    """
    settings, store = load_settings(run), open_store()
    newest, begun = store.read_pointer(_newest(settings)), store.read_pointer(_begun(settings))
    if begun and (begun["dag_run"], begun["version"]) == (run.dag_run, dataset.version):
        return True
    if not newest or newest["version"] != dataset.version or _begun_last(settings):
        return False
    queued = newest.get("queued")
    return not queued or queued["dag_run"] == run.dag_run


def note_begun(run: RunContext, dataset: Dataset, *, only_if_owed: bool = False, announced: bool = False) -> bool:
    """Note that the run trains on ``dataset``, so that no training is owed for its publication any more.

    Args:
        run: The DAG run.
        dataset: What it trains on.
        only_if_owed: Note nothing where the run is not owed. Of several runs that ask at once one is.
        announced: ``cxr_data`` started the run. Note nothing where another one has begun with the same settings, for
            the dataset was announced twice, or queued too.

    Returns:
        Whether the run may go on.
    """
    settings, store = load_settings(run), open_store()
    with _alone(settings):
        if only_if_owed and not is_owed(run, dataset):
            return False
        newest, begun = store.read_pointer(_newest(settings)), _begun_last(settings)
        if not newest or newest["version"] != dataset.version:
            return True
        ours = {"dag_run": run.dag_run, "settings": run.settings, "force": list(run.force)}
        if not begun:
            publication = {"version": newest["version"], "published_by": newest["dag_run"]}
            store.write_pointer(_begun(settings), {**publication, **ours})
        elif announced and begun["dag_run"] != run.dag_run:
            return any(begun.get(name) != ours[name] for name in ("settings", "force"))
    return True


def _alone(settings: Settings) -> AbstractContextManager[Lease]:
    """Only one run at a time reads and then writes the pointers of these data settings."""
    return open_store().lease(f"pointers/{_newest(settings)}", "the publication of a dataset")


def _begun_last(settings: Settings) -> Mapping[str, Any] | None:
    """What was noted of the DAG run that has begun to train on what was published last for these data settings."""
    store = open_store()
    newest, begun = store.read_pointer(_newest(settings)), store.read_pointer(_begun(settings))
    if not newest or not begun:
        return None
    told: bool = begun["version"] == newest["version"] and begun["published_by"] == newest["dag_run"]
    return begun if told else None


def find_dataset(run: RunContext, version: str = "") -> Dataset:
    """The dataset of that version, or the one published last for these settings.

    Raises:
        DataError: There is none.
    """
    settings, store = load_settings(run), open_store()
    if version:
        found = store.read_pointer(_by_version(version)) if version.isalnum() else None
        if found is None:
            raise DataError(
                f"Dataset {version!r} does not exist: take a version that cxr_data has published "
                "(tag cxr.dataset of its MLflow runs), or leave the field empty for the newest."
            )
        dataset = read_dataset(found)
        there, asked = sorted(dataset.counts["train"]), sorted(settings.data.classes)
        if there != asked:
            raise DataError(
                f"Dataset {version!r} has the classes {', '.join(there)}, and the settings {', '.join(asked)}: set "
                "data.classes to those of the dataset, or leave the field empty for the newest."
            )
        return dataset
    newest = store.read_pointer(_newest(settings))
    if newest is None:
        raise DataError(
            f"No dataset has been prepared with the data settings of profile {settings.profile!r}: "
            "run cxr_data with this profile first."
        )
    return read_dataset(newest["dataset"])


def read_dataset(told: Any) -> Dataset:
    """The dataset that a pointer or an event tells of.

    Raises:
        DataError: It was written by another version of this program, or by hand.
    """
    try:
        return Dataset.model_validate(told)
    except ValidationError as error:
        raise DataError(
            "What was announced as the dataset is none that this version can read: run cxr_data again."
        ) from error


def _log_changes(run: RunContext, base: str | None, dataset: Dataset) -> str:
    """Keep with the DAG run what is different from the dataset ``base``; returns it in a sentence."""
    import pandas as pd

    from cxr_tasks.data.changes import change_counts, changes, changes_in_words
    from cxr_tasks.data.ingest import MANIFEST

    store = open_store()
    images = sum(n for split in dataset.counts.values() for n in split.values())
    if base is None or store.record(base) is None:
        words = f"the first of these settings, {images:,} images"
    elif store.take(base) is None:
        words = f"{images:,} images; what has changed is not known, since files of the dataset before are damaged"
    else:
        found = changes(pd.read_parquet(store.fetch(base) / MANIFEST), dataset.manifest())
        words = changes_in_words(found)
        tracking.log_text(found.drop(columns="path").to_csv(index=False), "changes.csv", run.mlflow_run_id)
        metrics = {f"images_{kind}": number for kind, number in change_counts(found).items()}
        tracking.log_metrics(metrics, run_id=run.mlflow_run_id)
    return words


def _by_version(version: str) -> str:
    """The pointer to a dataset by its version."""
    return f"dataset-versions/{version}"


def _begun(settings: Settings) -> str:
    """The pointer to the publication whose training has begun last, of these data settings."""
    return f"{_newest(settings)}-begun"


def _newest(settings: Settings) -> str:
    """The pointer to the newest dataset of these data settings."""
    data: dict[str, Any] = settings.data.model_dump(mode="json", exclude={"shard_images", "external"})
    # Wherever the sources lie. As long as there was no list of them, the pointer was named without it.
    sources = [{name: told for name, told in each.items() if name != "source"} for each in data.pop("sources")]
    data |= {"sources": sources} if sources else {}
    if not settings.data.split.by_source:
        del data["split"]["test_sources"]
    return artifact_ref("datasets", 2, {**data, "sizes": settings.image_sizes, "seed": settings.seeds.split}, {})
