"""What runs now: what Airflow knows of it, as it is handed over, and how far MLflow says that it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from cxr_tasks.how_far import HowFar, read_how_far
from cxr_tasks.overview.mlflow_api import MlflowApi, tags_of
from cxr_tasks.strict import Strict
from cxr_tasks.tracking import TAG_DAG_RUN, TAG_PROGRESS, run_url

# A run whose progress was told longer ago may have been killed.
SILENT_SECONDS = 900.0
MOST_AT_ONCE = 50


class TaskUnderWay(Strict):
    """A task that runs, waits for its turn, or waits for a person. ``seconds``: since it began, if it has."""

    name: str
    state: str
    seconds: float | None = None
    page: str = ""


class RunUnderWay(Strict):
    """A DAG run that has not ended.

    Attributes:
        dag: The id of the DAG.
        dag_run: Its id.
        seconds: Since it began; ``None`` where it waits.
        tasks: Those under way.
        done: How many tasks have ended.
        total: How many tasks there are so far: those that are mapped late are not counted before.
        failed: The names of those that have failed.
        page: Where people see it.
    """

    dag: str
    dag_run: str
    seconds: float | None
    tasks: tuple[TaskUnderWay, ...]
    done: int
    total: int
    failed: tuple[str, ...]
    page: str


class OpenQuestion(Strict):
    """A question that a person is to answer before challengers become champions.

    Attributes:
        dag_run: The id of the DAG run that asks.
        subject: The question in a line.
        models: The registered models that it is about.
        asked: When.
        page: Airflow's page with all that there is to know.
        api: Where the answer goes, an address of Airflow's API.
        yes: The option that means yes.
        no: The option that means no.
    """

    dag_run: str
    subject: str
    models: tuple[str, ...]
    asked: datetime
    page: str
    api: str
    yes: str
    no: str


class Visitor(Strict):
    """Who looks at the page: what Airflow lets that person do, beside reading."""

    may_train: bool = False
    may_roll_back: bool = False
    may_answer: bool = False


class AirflowFacts(Strict):
    """What only Airflow knows.

    Attributes:
        root: The path that Airflow is served under, with a slash at both ends.
        runs: What runs now.
        questions: Questions that wait for an answer.
        visitor: Who looks at the page.
    """

    root: str = "/"
    runs: tuple[RunUnderWay, ...] = ()
    questions: tuple[OpenQuestion, ...] = ()
    visitor: Visitor = Visitor()


class WorkUnderWay(Strict):
    """Work that a step does. ``left``: seconds, as of now; ``None`` where nothing is known of that yet."""

    told: HowFar
    dag_run: str
    left: float | None
    url: str
    run_id: str


def work_under_way(mlflow: MlflowApi, experiments: Sequence[str]) -> list[WorkUnderWay]:
    """How far the steps are that run now, those that take longest first.

    Raises:
        MlflowAwayError: There is no answer.
    """
    condition = f"attributes.status = 'RUNNING' AND tags.`{TAG_PROGRESS}` LIKE '%'"
    found = [_work(each["info"], tags_of(each)) for each in mlflow.search_runs(experiments, condition, MOST_AT_ONCE)]
    return sorted(filter(None, found), key=lambda work: -(work.left or 0.0))


def _work(info: Mapping[str, str], tags: Mapping[str, str]) -> WorkUnderWay | None:
    told = read_how_far(tags.get(TAG_PROGRESS, ""))
    if told is None or told.done >= told.total:
        return None
    ago = (datetime.now(UTC) - told.at).total_seconds()
    if ago > SILENT_SECONDS:
        return None
    left = told.seconds_left
    return WorkUnderWay(
        told=told,
        dag_run=tags.get(TAG_DAG_RUN, ""),
        left=None if left is None else max(0.0, left - ago),
        url=run_url(info["experiment_id"], info["run_id"]),
        run_id=info["run_id"],
    )
