"""The data: which dataset was published last, what it holds, and what was left out of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from pydantic import ValidationError

from cxr_tasks.overview.mlflow_api import MlflowApi, tags_of
from cxr_tasks.strict import Strict
from cxr_tasks.tracking import run_url

# What a run of cxr_data keeps of the dataset that it has published, for programs.
DATASET_FILE = "dataset.json"
SPLIT_ORDER = ("train", "validation", "test")


class PublishedData(Strict):
    """A published dataset, for people.

    Attributes:
        version: Tells the content apart.
        counts: Images by split, then by class.
        rejected: Files that were set aside.
        near_duplicates: Pairs of images that are almost the same, which stay in one split.
        masks: Images with a lung mask.
        warnings: What people must know of it.
        data_docs: Where people see the page of the validation.
    """

    version: str
    counts: Mapping[str, Mapping[str, int]]
    rejected: int
    near_duplicates: int
    masks: int
    warnings: tuple[str, ...] = ()
    data_docs: str = ""

    @property
    def splits(self) -> list[str]:
        """The splits in the order in which they are used."""
        return sorted(
            self.counts, key=lambda name: SPLIT_ORDER.index(name) if name in SPLIT_ORDER else len(SPLIT_ORDER)
        )


class NewestData(Strict):
    """What was published last.

    Attributes:
        version: The version.
        at: When the run began that published it.
        changes: What is different from the dataset before, in words.
        url: Where people see the run.
        told: What it holds; ``None`` where its run has not kept that.
    """

    version: str
    at: datetime
    changes: str
    url: str
    told: PublishedData | None = None


def newest_data(mlflow: MlflowApi, experiments: Sequence[str]) -> NewestData | None:
    """The dataset that was published last; ``None`` where there is none.

    Args:
        mlflow: The server.
        experiments: Ids of the experiments that the runs of ``cxr_data`` are in.

    Raises:
        MlflowAwayError: There is no answer.
    """
    # Only a run that has published names a dataset and what has changed.
    runs = mlflow.search_runs(experiments, "tags.`cxr.changes` LIKE '%'", 1)
    if not runs:
        return None
    info, tags = runs[0]["info"], tags_of(runs[0])
    kept = mlflow.file(info["run_id"], DATASET_FILE)
    try:
        told = None if kept is None else PublishedData.model_validate_json(kept)
    except ValidationError:
        told = None
    return NewestData(
        version=tags.get("cxr.dataset", ""),
        at=datetime.fromtimestamp(int(info["start_time"]) / 1000, UTC),
        changes=tags.get("cxr.changes", ""),
        url=run_url(info["experiment_id"], info["run_id"]),
        told=told,
    )
