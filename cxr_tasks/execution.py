"""How a step runs: take the artifact if it is there, else make it, and leave one MLflow run either way.

Airflow passes the small dictionaries defined here between tasks; they are plain JSON.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from cxr_tasks import tracking
from cxr_tasks.config import Settings, flatten
from cxr_tasks.store import artifact_ref, open_store

log = logging.getLogger(__name__)


class RunContext(TypedDict):
    """What every step of one DAG run shares."""

    dag_run: str
    settings: str
    force: list[str]
    experiment_id: str
    mlflow_run_id: str
    url: str


class StepResult(TypedDict):
    """What a step hands to the next: the artifact's reference and where to see it.

    ``reused``: the artifact was taken as it was. ``forced``: it was made anew on request, and so must be
    what follows from it. ``summary``: a few figures for people and for the report; its ``notes`` are
    sentences for the person who watches the run.
    """

    step: str
    ref: str
    reused: bool
    forced: bool
    seconds: float
    mlflow_run_id: str
    url: str
    summary: dict[str, Any]


class Record(TypedDict, total=False):
    """What a step leaves in ``artifact.json`` beside its files; on reuse it is logged to MLflow again.

    ``curves``: rows of metrics, each with a ``step``. ``volatile``: made under circumstances that may pass, so
    the next run makes it anew; whatever follows from it must be keyed by its content.
    """

    metrics: dict[str, float]
    curves: list[dict[str, float]]
    summary: dict[str, Any]
    model_uri: str
    volatile: bool


Make = Callable[[Path, Record], None]


class Postponed(Exception):
    """A step has done what it could for now, and a later run goes on. ``summary``: what its result says of it."""

    def __init__(self, summary: dict[str, Any]) -> None:
        super().__init__(summary.get("sentence", ""))
        self.summary = summary


def load_settings(run: RunContext) -> Settings:
    """The settings that were resolved when the run was configured."""
    folder = open_store().fetch(run["settings"])
    return Settings.model_validate_json((folder / "settings.json").read_text(encoding="utf-8"))


def is_forced(run: RunContext, step: str, inputs: Mapping[str, StepResult | str]) -> bool:
    """Whether ``step`` is to be made anew: it was named, or something it works from was made anew."""
    return step in run["force"] or any(not isinstance(given, str) and given["forced"] for given in inputs.values())


def perform(
    run: RunContext,
    step: str,
    make: Make,
    *,
    version: int = 1,
    settings: Mapping[str, Any],
    inputs: Mapping[str, StepResult | str],
    after: Sequence[StepResult] = (),
    label: str = "",
    tags: Mapping[str, str] | None = None,
) -> StepResult:
    """Run ``step`` unless its artifact exists already.

    Args:
        make: fills the artifact's folder and its record; called inside the step's active MLflow run.
        version: raise it when the step's code makes something else of the same settings and inputs.
        settings: all that ``make`` depends on besides ``inputs``.
        inputs: results of earlier steps by their role, or references.
        after: results that it works from whose content ``inputs`` names already.
        label: tells mapped instances of the step apart, such as ``vgg16 baseline seed 0``.
        tags: further MLflow tags to find the run by.

    Returns:
        The step's result. Where ``make`` raised :class:`Postponed` there is no artifact, and ``ref`` is ''.
    """
    store = open_store()
    refs = {name: given if isinstance(given, str) else given["ref"] for name, given in inputs.items()}
    ref = artifact_ref(step, version, settings, refs)
    forced = is_forced(run, step, inputs) or any(result["forced"] for result in after)
    found = store.record(ref)
    anew = forced or bool(found and found.get("volatile"))
    record = None if anew else found
    work = f"{step} {label}".strip()
    started = time.monotonic()
    with tracking.step_run(run, work, ref, {"cxr.step": step, **(tags or {})}) as active:
        tracking.log_params(flatten(settings))
        if record is None:
            made: dict[str, Any] = {"step": step, "settings": dict(settings), "inputs": refs}
            made["mlflow_run_id"] = active.info.run_id
            try:
                with store.publish(ref, made, replace=anew) as folder:
                    make(folder, made)  # type: ignore[arg-type]
                    made["seconds"] = round(time.monotonic() - started, 1)
                # Of two runs that made it at once one was published, and both go on with that one.
                record = store.record(ref) or made
            except Postponed as postponed:
                log.warning("%s: %s", work, postponed)
                ref, record = "", {**made, "summary": postponed.summary}
        else:
            log.info("%s: artifact %s was made before and is taken as it is", work, ref)
        # A retry may find what an earlier try in the same run made: that is not another run's work.
        reused = record["mlflow_run_id"] != active.info.run_id
        if reused:
            tracking.log_curves(record.get("curves", []))
        tracking.set_reused(record["mlflow_run_id"] if reused else None)
        tracking.log_metrics(record.get("metrics", {}))
        return StepResult(
            step=step,
            ref=ref,
            reused=reused,
            forced=forced,
            seconds=round(time.monotonic() - started, 1),
            mlflow_run_id=active.info.run_id,
            url=tracking.run_url(run["experiment_id"], active.info.run_id),
            summary=record.get("summary", {}),
        )
