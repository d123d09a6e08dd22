"""What is logged to MLflow runs: params, tags, metrics, files, and the images that a run worked with.

Nothing waits for MLflow that is logged to the active run: see :class:`cxr_tasks.tracking.outbox.Outbox`.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxr_tasks.tracking.outbox import METRICS_AT_ONCE, PARAMS_AT_ONCE, Outbox
from cxr_tasks.tracking.places import place_of
from cxr_tasks.tracking.runs import TAG_MADE_BY, TAG_PROGRESS, TAG_REUSED
from cxr_tasks.tracking.server import client, is_on, patient, reviving

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def log_params(params: Mapping[str, Any], run_id: str | None = None) -> None:
    """Log params in as few requests as there can be. A retry logs the same values again, which MLflow accepts.

    Args:
        params: Values by name; those that say nothing are left out.
        run_id: Of the run; ``None`` for the active one.
    """
    if is_on():
        _log_batch(run_id, params=[[name, str(it)] for name, it in params.items() if it is not None and it != ""])


def set_tags(tags: Mapping[str, str], run_id: str | None = None) -> None:
    """Set tags of a run, the active one unless ``run_id`` names another."""
    if is_on():
        _log_batch(run_id, tags=[[name, value] for name, value in tags.items()])


def tell_progress(told: str) -> None:
    """Keep how far the work of the active run is, if there is one; MLflow is not waited for."""
    if (place := place_of(None)) is not None:
        place.outbox.put_batch(tags=[[TAG_PROGRESS, told]])


def log_metrics(metrics: Mapping[str, float], step: int | None = None, run_id: str | None = None) -> None:
    """Log metrics to a run, the active one unless ``run_id`` names another."""
    if metrics and is_on():
        log_curves([{"step": step or 0, **metrics}], run_id)


def log_curves(rows: Sequence[Mapping[str, float]], run_id: str | None = None) -> None:
    """Log rows of metrics, each with its ``step``, in as few requests as there can be."""
    if not is_on():
        return
    place, now = place_of(run_id), int(time.time() * 1000)
    of = place.folder if place is not None else ""
    metrics = [
        [f"{of}{name}", float(value), now, int(row["step"])]
        for row in rows
        for name, value in row.items()
        if name != "step"
    ]
    _log_batch(run_id, metrics=metrics)


def set_reused(made_by: str | None) -> None:
    """Mark the active run as one that made its artifact, or that took the one that another run made."""
    set_tags({TAG_REUSED: str(made_by is not None).lower(), TAG_MADE_BY: made_by or "this run"})


def is_told() -> bool:
    """Whether the active run has been told of its artifact already, by an earlier step or try."""
    place = place_of(None)
    return place is not None and TAG_REUSED in place.tags


def log_text(text: str, path: str, run_id: str | None = None) -> None:
    """Keep a text with a run, the active one unless ``run_id`` names another."""

    def write(folder: Path) -> None:
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")

    if is_on():
        _log_files(run_id, write)


def log_file(path: Path, run_id: str | None = None) -> None:
    """Keep a file with a run, the active one unless ``run_id`` names another."""
    if is_on():
        _log_files(run_id, lambda folder: shutil.copy(path, folder / path.name))


def log_folder(folder: Path, name: str, run_id: str | None = None) -> None:
    """Keep a folder with a run, as ``name``; the active run unless ``run_id`` names another."""
    if is_on():
        _log_files(run_id, lambda into: shutil.copytree(folder, into / name))


def log_figure(figure: Figure, path: str) -> None:
    """Keep a matplotlib figure with the active run."""

    def draw(folder: Path) -> None:
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(target)

    if is_on():
        _log_files(None, draw)


def log_table(table: pd.DataFrame, path: str) -> None:
    """Keep a table with the active run, in the form MLflow's pages show. Unlike ``mlflow.log_table`` it replaces."""
    log_text(table.to_json(orient="split", index=False), path)


def log_dataset(
    table: pd.DataFrame, name: str, version: str, context: str, tags: Mapping[str, str] | None = None
) -> None:
    """Record which images the active run worked with, as an MLflow dataset input.

    Args:
        table: A row an image. MLflow keeps its number of rows and its columns, and no row.
        name: What the images are. Of one name and version MLflow keeps only the first table that it is told of.
        version: Tells the images apart from others of that name; 12 characters of it count.
        context: What the run does with the images.
        tags: Of the images in this run.
    """
    if not is_on():
        return
    import mlflow

    dataset = mlflow.data.from_pandas(table, source=f"cxr-store/{name}", name=name, digest=version[:12])
    fields = dataset.to_dict()
    kept = [["mlflow.data.context", context], *([key, value] for key, value in (tags or {}).items())]
    _active().put_inputs([{**fields, "tags": kept}])


def log_inputs_of(run_id: str) -> None:
    """Record with the active run the dataset inputs of the run that made what the active run takes as it is."""
    if not is_on():
        return
    from mlflow.exceptions import MlflowException

    try:
        inputs = patient(client().get_run)(run_id).inputs.dataset_inputs
    except MlflowException as error:
        # It may have been deleted since, or the artifact was made where nothing was tracked.
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return
    if inputs:
        _active().put_inputs(
            [{**dict(used.dataset), "tags": [[tag.key, tag.value] for tag in used.tags]} for used in inputs]
        )


def _log_batch(run_id: str | None, **given: list[list[Any]]) -> None:
    """Send metrics, params or tags; to the active run when MLflow can be reached, to another one at once."""
    if (place := place_of(run_id)) is not None:
        place.outbox.put_batch(**given)
        return
    from mlflow.entities import Metric, Param, RunTag

    to, server = _named(run_id), client()
    (kind, rows), kinds = next(iter(given.items())), {"metrics": Metric, "params": Param, "tags": RunTag}
    at_once = METRICS_AT_ONCE if kind == "metrics" else PARAMS_AT_ONCE
    for start in range(0, len(rows), at_once):
        part = {kind: [kinds[kind](*row) for row in rows[start : start + at_once]]}
        patient(lambda part=part: reviving(lambda: server.log_batch(to, **part), to))()


def _log_files(run_id: str | None, fill: Callable[[Path], Any]) -> None:
    """Send the files that ``fill`` writes; as :func:`_log_batch` does."""
    if (place := place_of(run_id)) is not None:
        place.outbox.put_files(lambda root: fill(_made(root / place.folder)))
        return
    to, server = _named(run_id), client()
    with tempfile.TemporaryDirectory() as name:
        fill(Path(name))
        patient(lambda: reviving(lambda: server.log_artifacts(to, name), to))()


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _named(run_id: str | None) -> str:
    assert run_id is not None  # steps log inside their runs
    return run_id


def _active() -> Outbox:
    """The outbox of the active run."""
    place = place_of(None)
    assert place is not None  # steps log inside their runs
    return place.outbox
