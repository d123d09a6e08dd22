"""Everything that the page shows, asked of MLflow several things at a time and handed on part by part, as it comes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

from cxr_tasks.overview.mlflow_api import MlflowApi, MlflowAwayError
from cxr_tasks.overview.published import newest_data
from cxr_tasks.overview.registered import registered_models
from cxr_tasks.overview.samples import gan_samples
from cxr_tasks.overview.trainings import find_training, training_runs, what_it_found
from cxr_tasks.overview.under_way import AirflowFacts, work_under_way

Fact = TypeVar("Fact")
# The experiments of the runs of cxr_training, and of cxr_data.
TRAININGS, DATA_RUNS = ("cxr_training",), ("cxr_data",)
# Requests of all visitors together. A server with one process answers no sooner where more are asked of it.
REQUESTS_AT_ONCE = 8


class PagePart(NamedTuple):
    """A part of the page. ``name``: of its template. ``facts``: what the part shows, by the template's names."""

    name: str
    facts: Mapping[str, Any]


class Gathering:
    """Asks MLflow for what the page shows.

    Attributes:
        mlflow: The server.
    """

    def __init__(
        self, mlflow: MlflowApi, trainings: Sequence[str] = TRAININGS, data_runs: Sequence[str] = DATA_RUNS
    ) -> None:
        """Nothing is asked yet.

        Args:
            mlflow: The server.
            trainings: Names of the experiments that trainings are in.
            data_runs: Names of the experiments that the runs of ``cxr_data`` are in.
        """
        self.mlflow, self._trainings, self._data_runs = mlflow, trainings, data_runs
        self._threads = ThreadPoolExecutor(REQUESTS_AT_ONCE, thread_name_prefix="overview")

    def visit(self, airflow: AirflowFacts, run_id: str = "") -> Iterator[PagePart]:
        """The page in its parts: what Airflow knows at once, and then what MLflow knows.

        Args:
            airflow: What only Airflow knows.
            run_id: The MLflow run of the training to show; empty for the newest with an answer.
        """
        yield PagePart("top", {"airflow": airflow, "work": ()})
        try:
            yield from self._of_mlflow(airflow, run_id)
        except MlflowAwayError as error:
            yield PagePart("away", {"why": str(error), "is_fault": False})
        yield PagePart("bottom", {})

    def under_way(self, airflow: AirflowFacts) -> PagePart:
        """What runs now, and how far it is; where MLflow is away, without that."""
        try:
            ids = self.mlflow.experiments([*self._trainings, *self._data_runs]) if airflow.runs else {}
            work = work_under_way(self.mlflow, [*ids.values()])
        except MlflowAwayError:
            work = []
        return PagePart("under_way", {"airflow": airflow, "work": work})

    def _of_mlflow(self, airflow: AirflowFacts, run_id: str) -> Iterator[PagePart]:
        models = self._begin(registered_models, self.mlflow)
        ids = self.mlflow.experiments([*self._trainings, *self._data_runs])
        trainings, data_runs = ([ids[name] for name in of if name in ids] for of in (self._trainings, self._data_runs))
        runs = self._begin(training_runs, self.mlflow, trainings)
        data = self._begin(newest_data, self.mlflow, data_runs)
        yield PagePart("champions", {"airflow": airflow, "models": models.result()})
        training = find_training(self.mlflow, run_id, runs.result())
        samples = self._begin(gan_samples, self.mlflow, trainings, training) if training else None
        found = what_it_found(self.mlflow, training) if training else None
        asked = {"runs": runs.result(), "found": found, "is_missing": bool(run_id) and training is None}
        yield PagePart("comparison", {"airflow": airflow, **asked})
        yield PagePart("samples", {"samples": samples.result() if samples else None, "training": training})
        yield PagePart("data", {"data": data.result(), "training": training})

    def _begin(self, ask: Callable[..., Fact], *given: object) -> Future[Fact]:
        return self._threads.submit(ask, *given)
