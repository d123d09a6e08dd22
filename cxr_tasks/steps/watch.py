"""The step ``watch``: hold the champion against the images that came after its dataset, and say when it is time."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxr_tasks import tracking
from cxr_tasks.artifacts import Artifact, Dataset, RunContext, Watched, write_json
from cxr_tasks.config import Settings
from cxr_tasks.errors import DataError
from cxr_tasks.names import slug
from cxr_tasks.pipeline import Made, load_settings, perform
from cxr_tasks.registry.champions import CHAMPION, OVERALL_MODEL
from cxr_tasks.steps.external_tests import figures_of, flat_findings
from cxr_tasks.steps.served_facts import typical_of
from cxr_tasks.steps.tested_models import TestedModel, model_of_version
from cxr_tasks.store import open_store

if TYPE_CHECKING:
    import keras
    import pandas as pd

    from cxr_tasks.data.typical import TypicalImages

log = logging.getLogger(__name__)
OF_ROWS = ["image_id", "group", "label", "split"]
# Where a thumbnail lies.
OF_THUMBNAILS = ("provenance", "shard", "row")


def watch(run: RunContext, dataset: Dataset) -> Watched:
    """Hold ``cxr-overall``'s champion against the images of ``dataset`` that are of no patient of its own dataset.

    Images keep the order in which they were first seen, so that the evidence grows from run to run, and more images
    take no alarm back. A new champion begins anew.

    Args:
        run: The DAG run.
        dataset: The newest dataset.
    """
    settings = load_settings(run)
    version = tracking.version_by_alias(OVERALL_MODEL, CHAMPION)
    model = model_of_version(version) if version is not None else None
    before = _seen_before(model, dataset)

    def fill(folder: Path) -> Made[Watched]:
        if model is None or model.dataset is None or set(model.classes) != set(settings.data.classes):
            return Made(Watched(champion=model.who if model else "", images={}, words=_why_not(model)))
        network, classes = model.load(), list(model.classes)
        typical = typical_of(model.dataset)
        reference = _watched(model.dataset, model.dataset.manifest(OF_ROWS, "test"), network, classes, typical)
        came = _new_rows(dataset, model.dataset)
        new = _in_order(_watched(dataset, came, network, classes, typical), before)
        found = _found(folder, settings, model, reference, new)
        return replace(found, artifact=_with_files(found.artifact, folder, dataset, model.dataset, came))

    # Not as a reference: each watch would keep the one before, and that its dataset, for ever.
    seen = hashlib.sha256(before.encode()).hexdigest() if before else ""
    inputs: dict[str, Artifact | str] = {"dataset": dataset, "champion": model.digest if model else "", "seen": seen}
    how = {**settings.monitoring.model_dump(), "seed": settings.seeds.bootstrap}
    how |= settings.evaluation.model_dump(include={"bootstrap_samples", "confidence"})
    made = perform(run, Watched, fill, settings=how, inputs=inputs, version=2)
    if model is not None and made.images:
        now = {"dataset": dataset.ref, "before": before, "now": made.ref, "champion": model.who}
        open_store().write_pointer(_pointer(model), now)
    return made


def reason_to_train(run: RunContext, dataset: Dataset, watched: Watched) -> str:
    """Why the champion is to be trained anew; empty where nothing says so, or that was said of this dataset before.

    Another try of the same run says it again: nobody may have heard the first one.
    """
    if not watched.alarm:
        return ""
    store, name = open_store(), f"monitor/asked/{dataset.version}"
    asked = store.read_pointer(name)
    if asked is not None and asked["dag_run"] != run.dag_run:
        return ""
    store.write_pointer(name, {"dag_run": run.dag_run, "words": watched.words})
    return f"{watched.champion}: {watched.words}"


def _why_not(model: TestedModel | None) -> str:
    if model is None:
        return f"{OVERALL_MODEL} has no champion yet: nothing is watched."
    why = "its own dataset is not in the store" if model.dataset is None else "it tells other classes apart"
    return f"{model.who} cannot be watched, for {why}."


def _pointer(model: TestedModel) -> str:
    return f"monitor/seen/{slug(model.digest)}"


def _seen_before(model: TestedModel | None, dataset: Dataset) -> str:
    """The reference of the same champion's watch over the dataset before ``dataset``; empty where there is none."""
    known = open_store().read_pointer(_pointer(model)) if model is not None else None
    if not known:
        return ""
    # Watched over again, the same dataset gives the same artifact.
    return str(known["before"] if known["dataset"] == dataset.ref else known["now"])


def _new_rows(dataset: Dataset, old: Dataset) -> pd.DataFrame:
    """The rows of ``dataset`` of images and patients that ``old`` does not have."""
    from cxr_tasks.data.split import SPLITS

    rows, known = dataset.manifest(OF_ROWS), old.manifest(["image_id", "group"])
    seen = rows["image_id"].isin(known["image_id"]) | rows["group"].isin(known["group"])
    return rows[rows["split"].isin(SPLITS) & ~seen]


def _watched(
    dataset: Dataset, rows: pd.DataFrame, network: keras.Model, classes: list[str], typical: TypicalImages
) -> pd.DataFrame:
    """The prediction table of ``rows`` with what is watched of each image."""
    import numpy as np
    import pandas as pd

    from cxr_tasks.classifiers.features import FrozenTrunk
    from cxr_tasks.classifiers.predicting import PREDICTED_AT_ONCE, predict_stack
    from cxr_tasks.data.split import SPLITS
    from cxr_tasks.data.stacks import in_parts
    from cxr_tasks.monitoring.drift import SCORES, scores_of

    tables = [pd.DataFrame(columns=["image_id", "group", "label", "split", *classes, *SCORES])]
    for split in SPLITS:
        wanted = set(rows.loc[rows["split"] == split, "image_id"])
        if not wanted:
            continue
        images = dataset.images(split, network.input_shape[1], classes, resize=True)
        images = images.take(np.flatnonzero(pd.Series(images.ids).isin(wanted)))
        said = predict_stack(network, FrozenTrunk(None).all_of(images.pixels))
        found_in = dataset.manifest(("image_id", *OF_THUMBNAILS), split).set_index("image_id").loc[list(images.ids)]
        distances = typical.distances(dataset.thumbnails(found_in.reset_index()))
        table = pd.DataFrame({"image_id": np.asarray(images.ids), "group": images.rows["group"].to_numpy()})
        table["label"], table["split"] = [classes[k] for k in images.labels], "test"
        table[classes] = said
        done, parts = 0, []
        for part in in_parts(images.pixels, PREDICTED_AT_ONCE):
            place = slice(done, done + len(part))
            parts.append(pd.DataFrame(scores_of(np.asarray(part), distances[place], said[place], images.labels[place])))
            done += len(part)
        tables.append(pd.concat([table, pd.concat(parts, ignore_index=True)], axis=1))
    found = [table for table in tables if len(table)]
    return pd.concat(found, ignore_index=True) if found else tables[0]


def _with_files(found: Watched, folder: Path, dataset: Dataset, old: Dataset, came: pd.DataFrame) -> Watched:
    """``found`` with what the files of new images have that those of ``old`` have not."""
    from cxr_tasks.data.data_docs import DOCS_FOLDER, DOCS_PAGE
    from cxr_tasks.data.split import SPLITS
    from cxr_tasks.monitoring.expectations import LISTED, MEASURED, new_images_told

    if came.empty:
        return found
    columns = ["image_id", "split", *MEASURED, *LISTED]
    known, new = old.manifest(columns), dataset.manifest(columns)
    known, new = known[known["split"].isin(SPLITS)], new[new["image_id"].isin(came["image_id"])]
    warnings = tuple(new_images_told(known, new, folder))
    for warning in warnings:
        log.warning("New images: %s", warning)
    tracking.log_folder(folder / DOCS_FOLDER, DOCS_FOLDER)
    told = {"warnings": warnings, "data_docs": tracking.active_artifact_url(DOCS_PAGE)}
    return found.model_copy(update={**told, "notes": (*found.notes, *(f"warning: {each}" for each in warnings))})


def _in_order(new: pd.DataFrame, before: str) -> pd.DataFrame:
    """``new`` with the images that were seen before first, in the order of then."""
    import pandas as pd

    place: dict[str, int] = {}
    if before:
        seen = pd.read_parquet(open_store().fetch(before) / Watched.IMAGES, columns=["image_id"])["image_id"]
        place = {name: number for number, name in enumerate(seen)}
    order = new["image_id"].map(lambda name: place.get(name, len(place)))
    return new.assign(order=order).sort_values(["order", "image_id"]).drop(columns="order").reset_index(drop=True)


def _found(
    folder: Path, settings: Settings, model: TestedModel, reference: pd.DataFrame, new: pd.DataFrame
) -> Made[Watched]:
    """Measure the champion on the new images, and write both into ``folder``."""
    from cxr_tasks.monitoring.drift import drift_findings

    new.to_parquet(folder / Watched.IMAGES, index=False)
    drift = drift_findings(reference, new, false_alarms=settings.monitoring.false_alarms, seed=settings.seeds.bootstrap)
    write_json(folder / Watched.DRIFT, drift)
    metrics: dict[str, float] = {"new_images": len(new), "evidence": drift.highest}
    metrics |= {f"evidence_{name}": capital for name, capital in drift.capital.items()}
    words = drift.words
    try:
        figures = figures_of(new, reference, model.classes, settings)
    except DataError:
        # Too few to be measured.
        figures = None
    if figures is not None:
        write_json(folder / Watched.FIGURES, figures)
        metrics |= flat_findings(figures)
        words = f"{words} Macro F1 on them is {figures.macro_f1.percent} %."
    counts: dict[str, Any] = new["label"].value_counts().to_dict()
    images = {name: int(counts.get(name, 0)) for name in model.classes}
    found = Watched(champion=model.who, images=images, words=words, alarm=drift.after is not None, notes=(words,))
    return Made(found, metrics)
