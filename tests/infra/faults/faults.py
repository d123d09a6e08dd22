"""The stack on which faults are tried, and the count afterwards: is anything lost, is anything doubled?"""

from __future__ import annotations

import shutil
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cxr_tasks import tracking
from cxr_tasks.store import RECORD, S3Store, open_store
from cxr_tasks.store.files import Care
from infra.embedded.airflow_api import ENDED
from tests.infra.celery_stack import CeleryStack
from tests.infra.compose import ROOT, environment
from tests.infra.faults import pieces

DAGS = Path(__file__).parent / "dags"
ENDED_WELL = ("success", 1)
# A machine that others keep busy takes minutes for what it does in seconds.
PATIENT_SECONDS = 1200.0


@dataclass(frozen=True)
class Begun:
    """A run that makes pieces.

    Attributes:
        dag: Its DAG.
        run: Airflow's id.
        name: What tells its pieces from those of others.
        pieces: How many.
        seconds: How long each takes.
        at: When it was begun, on the clock that only goes on.
    """

    dag: str
    run: str
    name: str
    pieces: int
    seconds: int
    at: float = field(default_factory=time.monotonic)

    @property
    def refs(self) -> list[str]:
        """Where its pieces are in the store."""
        return [pieces.ref_of(self.name, number, self.seconds) for number in range(self.pieces)]


class FaultyStack(CeleryStack):
    """The stack with MLflow and S3."""

    def __init__(self, folder: Path, s3: str, **variables: str) -> None:
        """Nothing is started yet. ``s3``: the address of the server. ``variables``: of every Airflow process."""
        self.marks = folder / "marks"
        self.marks.mkdir(parents=True)
        # Airflow writes compiled files beside DAGs.
        shutil.copytree(DAGS, folder / "dags", ignore=shutil.ignore_patterns("__pycache__"))
        given = {"AWS_ENDPOINT_URL_S3": s3, pieces.MARKS: str(self.marks), "CXR_GPU_QUEUE": "gpu"}
        given["PYTHONPATH"] = f"{folder / 'dags'}:{ROOT / 'dags'}:{ROOT}"
        # A test has no minute to wait for a look.
        given["AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL"] = "5"
        given["AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD"] = "12"
        given["AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL"] = "300"
        super().__init__(folder / "stack", folder / "dags", **given, **variables)

    def start_others(self) -> None:
        """Start MLflow, and make the bucket."""
        self._once("bucket", ["python", str(ROOT / "infra/s3/create_bucket.py"), "cxr"], self.variables)
        self.serve_mlflow()

    def serve_mlflow(self) -> None:
        """Start MLflow, with what it holds."""
        s3 = self.variables["AWS_ENDPOINT_URL_S3"]
        self.start_mlflow("s3://cxr/mlflow", MLFLOW_S3_ENDPOINT_URL=s3, AWS_ENDPOINT_URL_S3=s3)


class Faults:
    """What a test does to the stack, and how it counts.

    Attributes:
        stack: Everything that can break.
        api: A client of Airflow's API.
        told: What came of the faults of a test, with the seconds from the end of a fault until all was well.
    """

    def __init__(self, stack: FaultyStack) -> None:
        """Start the stack, and wait until both workers have done something."""
        self.stack, self.told = stack, list[dict[str, object]]()
        self.api = stack.start()
        fault = self.api.wait_for_dags(["pieces", "pieces_gpu", "pieces_limited"])
        assert fault is None, fault
        for begun in (self.begin(), self.begin(dag="pieces_gpu")):
            self.assert_nothing_lost_or_doubled(begun)

    def begin(self, pieces: int = 1, seconds: int = 0, *, dag: str = "pieces", name: str = "") -> Begun:
        """Begin a run; it makes what no other run makes, unless it is given a ``name``."""
        name = name or uuid.uuid4().hex[:8]
        run = self.api.trigger(dag, {"pieces": pieces, "seconds": seconds, "name": name})
        return Begun(dag, run, name, pieces, seconds)

    def until(self, is_so: Callable[[], Any], what: str, seconds: float = PATIENT_SECONDS) -> Any:
        """Wait."""
        deadline = time.monotonic() + seconds
        while not (found := is_so()):
            assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
            time.sleep(0.3)
        return found

    def marks(self, begun: Begun, what: str) -> list[str]:
        """The hosts where pieces of the run were ``begun`` or ``made``, in the order of the pieces."""
        files = [self.stack.marks / f"{begun.name}-{number}" for number in range(begun.pieces)]
        lines = [line.split() for file in files if file.is_file() for line in file.read_text().splitlines()]
        return [host for said, host, _ in lines if said == what]

    def at_work(self, begun: Begun, pieces: int = 1) -> None:
        """Wait until so many pieces of the run are begun."""
        self.until(lambda: len(self.marks(begun, "begun")) >= pieces, f"{pieces} pieces are begun")

    def ended(self, begun: Begun, seconds: float = PATIENT_SECONDS) -> str:
        """Wait for the end of a run; returns its state."""

        def state() -> str:
            told = self.api.run_state(begun.dag, begun.run)
            return told if told in ENDED else ""

        return str(self.until(state, f"{begun.run} ends", seconds))

    def tasks(self, begun: Begun, task_id: str = "make") -> list[tuple[str, int]]:
        """State and number of tries of each instance of a task."""
        found = [task for task in self.api.tasks(begun.dag, begun.run) if task["task_id"] == task_id]
        return [(task["state"], task["try_number"]) for task in found]

    def new_name(self, word: str) -> str:
        """A name of pieces that no other run has."""
        return f"{word}-{uuid.uuid4().hex[:8]}"

    def hosts(self, begun: Begun) -> list[str]:
        """Where pieces of the run were begun, each host once."""
        return sorted(set(self.marks(begun, "begun")))

    def handed_out(self, begun: Begun) -> int:
        """How often a worker was given a task ``make`` of the run."""
        given = f"run_id={begun.run}/task_id=make"
        lines = [line for text in self.stack.said().values() for line in text.splitlines()]
        return sum("Executing workload in Celery" in line and given in line for line in lines)

    def requeued(self, begun: Begun) -> int:
        """How often the task of the run that waited longest was handed out again because it had waited for long."""
        asked = {"dag_id": begun.dag, "run_id": begun.run, "event": "stuck in queued reschedule"}
        events = self.api.get("/eventLogs", limit=1000, **asked)["event_logs"]
        return max(Counter(each["map_index"] for each in events).values(), default=0)

    def sentence(self, begun: Begun) -> str:
        """What the first task ``make`` of the run has on record."""
        path = f"/dags/{begun.dag}/dagRuns/{begun.run}/taskInstances/make/xcomEntries/record"
        return str(self.api.get(path, map_index=0, deserialize=True)["value"]["sentence"])

    def kept(self, begun: Begun) -> list[str]:
        """The objects of the store that belong to pieces of the run."""
        store = open_store()
        assert isinstance(store, S3Store)
        return [found.path for found in store.bucket.objects() if any(ref in found.path for ref in begun.refs)]

    def mlflow_runs(self, begun: Begun) -> list[Any]:
        """The runs that MLflow has of a run: its own, and one of each piece."""
        experiment = tracking.experiment_id(pieces.EXPERIMENT)
        named = f"tags.`{tracking.TAG_DAG_RUN}` = '{begun.run}'"
        return list(tracking.client().search_runs([experiment], named, max_results=1000))

    def why_not(self, begun: Begun) -> dict[str, str]:
        """What the tasks say that have not succeeded."""
        found = [task for task in self.api.tasks(begun.dag, begun.run) if task["state"] != "success"]
        return {
            f"{task['task_id']} {task['map_index']} {task['state']}": self.api.error(begun.dag, begun.run, task)
            for task in found
        }

    def assert_nothing_lost_or_doubled(self, begun: Begun, *, twice: bool = False) -> None:
        """The run is green; each piece was made once, is in the store whole and once, and MLflow has one run of it.

        Args:
            begun: The run.
            twice: Whether a piece may have been begun anew, so that MLflow was told twice of its seconds.
        """
        assert self.ended(begun) == "success", self.why_not(begun)
        made = len(self.marks(begun, "made"))
        assert made >= begun.pieces if twice else made == begun.pieces
        store, expected = open_store(), set()
        for number, ref in enumerate(begun.refs):
            record = store.record(ref)
            assert record is not None and store.fault(ref, record, Care.ALL) == ""
            assert (store.fetch(ref) / "content.txt").read_bytes() == pieces.content_of(number)
            expected |= {f"{ref}/{RECORD}", *(f"{ref}/{record['objects']}/{file}" for file in record["files"])}
        assert set(self.kept(begun)) == expected
        self._assert_mlflow_knows(begun, twice=twice)

    def assert_done_at_the_first_try(self, ended: Begun, works: Begun, fault: str) -> None:
        """A fault has ended now: nothing is lost or doubled, and no task was tried again.

        Args:
            ended: A run that had nothing left to do but to end. From now on to its end it is called recovery.
            works: A run that was at work.
            fault: What it was.
        """
        back = time.monotonic()
        self.ended(ended)
        self.recovered(fault, back)
        for begun in (ended, works):
            self.assert_nothing_lost_or_doubled(begun)
            assert set(self.tasks(begun)) == {ENDED_WELL}

    def _assert_mlflow_knows(self, begun: Begun, *, twice: bool) -> None:
        found = self.mlflow_runs(begun)
        of_pieces = [run for run in found if tracking.TAG_ARTIFACT in run.data.tags]
        assert sorted(run.data.tags[tracking.TAG_ARTIFACT] for run in of_pieces) == sorted(begun.refs)
        assert len(found) == begun.pieces + 1 and {run.info.status for run in found} == {"FINISHED"}
        for run in of_pieces:
            if begun.seconds and run.data.tags["cxr.reused"] == "false":
                history = tracking.client().get_metric_history(run.info.run_id, "second")
                points = [(each.step, each.value) for each in history]
                assert sorted(set(points) if twice else points) == [(at, float(at)) for at in range(begun.seconds)]

    @contextmanager
    def suspended(self, service: str) -> Iterator[None]:
        """Keep a service from doing anything: it accepts connections and never answers."""
        processes = self.stack.processes(service)
        for process in processes:
            process.suspend()
        try:
            yield
        finally:
            for process in processes:
                process.resume()

    @contextmanager
    def gone(self, service: str) -> Iterator[None]:
        """Let nobody listen in the place of a service."""
        served = self.stack.services[service]
        kept = served.command
        try:
            served.command = ["sleep", "infinity"]
            self._start_again(service)
            yield
        finally:
            served.command = kept
            self._start_again(service)

    @contextmanager
    def another_worker(self, like: str, variables: Mapping[str, str] | None = None) -> Iterator[None]:
        """Let there be one more worker of a kind."""
        name = f"another-{like}"
        self.stack.start_worker(name, like, **variables or {})
        log = self.stack.services[name].log
        try:
            self.until(lambda: f"celery@{name} ready" in log.read_text(errors="replace"), f"{name} is ready")
            yield
        finally:
            self.stack.kill(name)

    @contextmanager
    def one_slot(self, worker: str) -> Iterator[None]:
        """Let a worker do one task at a time."""
        served = self.stack.services[worker]
        kept = served.command
        assert kept[-2] == "--concurrency"
        try:
            served.command = [*kept[:-1], "1"]
            self._start_again(worker)
            yield
        finally:
            served.command = kept
            self._start_again(worker)

    @contextmanager
    def settings(self, service: str, variables: Mapping[str, str]) -> Iterator[None]:
        """Run a service with other variables. It is ended for that, and started again by what watches it."""
        served = self.stack.services[service]
        kept = served.environment
        try:
            served.environment = {**kept, **variables}
            self._start_again(service)
            yield
        finally:
            served.environment = kept
            self._start_again(service)

    def _start_again(self, service: str) -> None:
        served, before = self.stack.services[service], self.stack.services[service].process.pid
        self.stack.kill(service)
        self.until(lambda: served.process.pid != before, f"{service} is started again")

    def recovered(self, fault: str, since: float, **more: object) -> None:
        """Note how long it took until all was well; ``since``: when the fault ended."""
        self.told.append({"fault": fault, "seconds": round(time.monotonic() - since), **more})

    def healthy(self) -> None:
        """Wait until the API server answers."""
        self.until(self.stack._api_answers, "the API server answers")


def environment_of_tests(stack: FaultyStack, cache: Path) -> dict[str, str]:
    """The variables by which a test itself reads the store and MLflow."""
    account = environment("mlflow")
    named = ("CXR_STORE", "AWS_ENDPOINT_URL_S3", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION")
    return {
        **{name: stack.variables[name] for name in named if name in stack.variables},
        "CXR_CACHE": str(cache),
        "MLFLOW_TRACKING_URI": stack.mlflow,
        "MLFLOW_TRACKING_USERNAME": account["MLFLOW_AUTH_ADMIN_USERNAME"],
        "MLFLOW_TRACKING_PASSWORD": account["MLFLOW_AUTH_ADMIN_PASSWORD"],
    }
