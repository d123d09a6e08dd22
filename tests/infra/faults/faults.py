"""The stack on which faults are tried, and the count afterwards: is anything lost, is anything doubled?"""

from __future__ import annotations

import shutil
import subprocess
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cxr_tasks import tracking
from cxr_tasks.store import RECORD, S3Store, open_store
from cxr_tasks.store.files import Care
from infra.embedded.airflow_api import ENDED
from tests.infra.celery_stack import SOON, until
from tests.infra.compose import ROOT, SignedInApi
from tests.infra.faults import pieces
from tests.infra.faults.cut import cut_off, in_group
from tests.infra.whole_stack import WholeStack

DAGS = Path(__file__).parent / "dags"
PIECES_DAGS = ("pieces", "pieces_gpu", "pieces_limited")
ENDED_WELL = ("success", 1)
# A machine that others keep busy takes minutes for what it does in seconds.
RUN_SECONDS = 1200.0
# So many seconds of a piece may be told to MLflow twice where a try was cut off before its checkpoint was saved.
TOLD_TWICE = 3


@dataclass(frozen=True)
class Begun:
    """A run that makes pieces.

    Attributes:
        dag: Its DAG.
        run: Airflow's id.
        name: What tells its pieces from those of others.
        pieces: How many.
        seconds: How long each takes.
    """

    dag: str
    run: str
    name: str
    pieces: int
    seconds: int

    @property
    def refs(self) -> list[str]:
        """Where its pieces are in the store."""
        return [pieces.ref_of(self.name, number, self.seconds) for number in range(self.pieces)]


class FaultyStack(WholeStack):
    """The stack with the DAGs that make pieces, and a worker that can be cut off."""

    def __init__(self, folder: Path, s3: str) -> None:
        """Nothing is started yet. ``s3``: the address of the server."""
        self.marks = folder / "marks"
        self.marks.mkdir(parents=True)
        # Airflow writes compiled files beside DAGs.
        shutil.copytree(DAGS, folder / "dags", ignore=shutil.ignore_patterns("__pycache__"))
        given = {
            **SOON,
            pieces.MARKS: str(self.marks),
            "PYTHONPATH": f"{folder / 'dags'}:{ROOT / 'dags'}:{ROOT}",
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "300",
        }
        super().__init__(folder / "stack", s3, folder / "dags", **given)

    def _serve(self, name: str, served: list[str], variables: dict[str, str] | None = None) -> None:
        super()._serve(name, in_group(served) if name == "worker-gpu" else served, variables)


class Faults:
    """What a test does to the stack, and how it counts.

    Attributes:
        stack: Everything that can break.
        api: A client of Airflow's API.
        told: What came of the faults of a test.
    """

    def __init__(self, stack: FaultyStack, api: SignedInApi) -> None:
        """``stack`` is at work, and ``api`` its client."""
        self.stack, self.api, self.told = stack, api, list[dict[str, object]]()
        self._fault_ended = time.monotonic()

    def see_both_workers(self) -> None:
        """Wait until both workers have done something."""
        for dag in PIECES_DAGS[:2]:
            begun = self.begin(dag=dag)
            assert self.ended(begun) == "success", self.why_not(begun)

    # --- Runs -------------------------------------------------------------------------------------------------

    def begin(self, pieces: int = 1, seconds: int = 0, *, dag: str = "pieces", name: str = "") -> Begun:
        """Begin a run; it makes what no other run makes, unless it is given a ``name``."""
        name = name or uuid.uuid4().hex[:8]
        run = self.api.trigger(dag, {"pieces": pieces, "seconds": seconds, "name": name})
        return Begun(dag, run, name, pieces, seconds)

    def marks(self, begun: Begun, what: str) -> list[tuple[str, int]]:
        """Hosts and seconds at which pieces of the run were ``begun`` or ``made``, in the order of the pieces."""
        files = [self.stack.marks / f"{begun.name}-{number}" for number in range(begun.pieces)]
        lines = [line.split() for file in files if file.is_file() for line in file.read_text().splitlines()]
        return [(host, int(second)) for said, host, second in lines if said == what]

    def at_work(self, begun: Begun, pieces: int = 1, saved: int = 0) -> None:
        """Wait until so many pieces of the run are begun, and ``saved`` seconds of them are in the store."""
        until(lambda: len(self.marks(begun, "begun")) >= pieces, f"{pieces} pieces are begun", RUN_SECONDS)
        if saved:
            until(lambda: self.saved_seconds(begun) >= saved, f"{saved} s of a piece are saved", RUN_SECONDS)

    def saved_seconds(self, begun: Begun) -> int:
        """How far the newest checkpoint in the store is, of the piece that is furthest."""
        store = open_store()
        assert isinstance(store, S3Store)
        found = [store.bucket.get(f"unfinished/{ref}/{pieces.PROGRESS}") for ref in begun.refs]
        return max((int(content) for content in found if content), default=0)

    def ended(self, begun: Begun, seconds: float = RUN_SECONDS) -> str:
        """Wait for the end of a run; returns its state."""

        def state() -> str:
            told = self.api.run_state(begun.dag, begun.run)
            return told if told in ENDED else ""

        return str(until(state, f"{begun.run} ends", seconds))

    def tasks(self, begun: Begun) -> list[tuple[str, int]]:
        """State and number of tries of each task that makes a piece."""
        found = [task for task in self.api.tasks(begun.dag, begun.run) if task["task_id"] == "make"]
        return [(task["state"], task["try_number"]) for task in found]

    def requeued(self, begun: Begun) -> int:
        """How often the task of the run that waited longest was handed out again because it had waited for long."""
        asked = {"dag_id": begun.dag, "run_id": begun.run, "event": "stuck in queued reschedule"}
        events = self.api.get("/eventLogs", limit=1000, **asked)["event_logs"]
        return max(Counter(each["map_index"] for each in events).values(), default=0)

    def sentence(self, begun: Begun) -> str:
        """What the first task that makes a piece has on record."""
        path = f"/dags/{begun.dag}/dagRuns/{begun.run}/taskInstances/make/xcomEntries/record"
        return str(self.api.get(path, map_index=0, deserialize=True)["value"]["sentence"])

    def clear(self, begun: Begun, **which: object) -> None:
        """Let tasks of a run begin anew; ``which``: all unless the API is told otherwise."""
        asked = {"dry_run": False, "only_failed": False, "dag_run_id": begun.run, "reset_dag_runs": True, **which}
        self.api.http.post(f"/dags/{begun.dag}/clearTaskInstances", json=asked).raise_for_status()

    def why_not(self, begun: Begun) -> dict[str, str]:
        """What the tasks say that have not succeeded."""
        found = [task for task in self.api.tasks(begun.dag, begun.run) if task["state"] != "success"]
        return {
            f"{task['task_id']} {task['map_index']} {task['state']}": self.api.error(begun.dag, begun.run, task)
            for task in found
        }

    # --- The count --------------------------------------------------------------------------------------------

    def assert_recovered(self, fault: str, *runs: Begun, at_the_first_try: bool = False) -> None:
        """All runs that a fault met become green, with nothing lost and nothing doubled.

        The time from the end of the fault until the last of them is green is noted as its recovery.

        Args:
            fault: What it was.
            *runs: That it met.
            at_the_first_try: Whether no task was tried again.
        """
        for begun in runs:
            assert self.ended(begun) == "success", self.why_not(begun)
        seconds = round(time.monotonic() - self._fault_ended)
        tries = max(number for begun in runs for _, number in self.tasks(begun))
        self.told.append({"fault": fault, "recovery": seconds, "tries": tries})
        for begun in runs:
            self.assert_nothing_lost_or_doubled(begun, told_twice=0 if at_the_first_try else TOLD_TWICE)
            assert not at_the_first_try or set(self.tasks(begun)) == {ENDED_WELL}

    def assert_nothing_lost_or_doubled(self, begun: Begun, told_twice: int = 0) -> None:
        """The run is green; each piece was made once, is in the store whole and once, and MLflow has one run of it.

        Args:
            begun: The run.
            told_twice: So many points of a curve MLflow may have twice.
        """
        assert self.ended(begun) == "success", self.why_not(begun)
        assert len(self.marks(begun, "made")) == begun.pieces
        store, expected = open_store(), set()
        for number, ref in enumerate(begun.refs):
            record = store.record(ref)
            assert record is not None and store.fault(ref, record, Care.ALL) == ""
            assert (store.fetch(ref) / "content.txt").read_bytes() == pieces.content_of(number)
            expected |= {f"{ref}/{RECORD}", *(f"{ref}/{record['objects']}/{file}" for file in record["files"])}
        assert set(self._kept(begun)) == expected
        self._assert_mlflow_knows(begun, told_twice)

    def _kept(self, begun: Begun) -> list[str]:
        """The objects of the store that belong to pieces of the run, checkpoints and leases too."""
        store = open_store()
        assert isinstance(store, S3Store)
        return [found.path for found in store.bucket.objects() if any(ref in found.path for ref in begun.refs)]

    def mlflow_runs(self, begun: Begun) -> list[Any]:
        """The runs that MLflow has of a run: its own, and one of each piece."""
        experiment = tracking.experiment_id(pieces.EXPERIMENT)
        named = f"tags.`{tracking.TAG_DAG_RUN}` = '{begun.run}'"
        return list(tracking.client().search_runs([experiment], named, max_results=1000))

    def _assert_mlflow_knows(self, begun: Begun, told_twice: int) -> None:
        found = self.mlflow_runs(begun)
        of_pieces = [run for run in found if tracking.TAG_ARTIFACT in run.data.tags]
        assert sorted(run.data.tags[tracking.TAG_ARTIFACT] for run in of_pieces) == sorted(begun.refs)
        assert len(found) == begun.pieces + 1 and {run.info.status for run in found} == {"FINISHED"}
        for run in of_pieces:
            if begun.seconds and run.data.tags["cxr.reused"] == "false":
                history = tracking.client().get_metric_history(run.info.run_id, "second")
                points = [(each.step, each.value) for each in history]
                assert sorted(set(points)) == [(at, float(at)) for at in range(begun.seconds)]
                assert len(points) - len(set(points)) <= told_twice

    # --- Faults -----------------------------------------------------------------------------------------------

    def _ends_now(self) -> None:
        """A fault has an end: what was taken away is given back from now on."""
        self._fault_ended = time.monotonic()

    def kill(self, service: str) -> None:
        """Kill a service that is started again at once, as its container would be."""
        self.stack.kill(service)
        self._ends_now()

    def terminate(self, service: str) -> subprocess.Popen[bytes]:
        """Tell a service to end, as Docker does at first. It is started again when it has ended."""
        process = self.stack.services[service].process
        process.terminate()
        self._ends_now()
        return process

    @contextmanager
    def ending(self) -> Iterator[None]:
        """Whatever fault the block makes ends with the block."""
        try:
            yield
        finally:
            self._ends_now()

    @contextmanager
    def suspended(self, service: str) -> Iterator[None]:
        """Keep a service from doing anything: it accepts connections and never answers."""
        with self.stack.suspended(service), self.ending():
            yield

    @contextmanager
    def gone(self, service: str) -> Iterator[None]:
        """Kill a service, and let nobody listen in its place until the block ends."""
        watched = service in self.stack.kept_up
        away = self._changed(service, command=["sleep", "infinity"]) if watched else self.stack.gone(service)
        with away, self.ending():
            yield

    @contextmanager
    def one_slot(self, worker: str) -> Iterator[None]:
        """Let a worker do one task at a time."""
        command = self.stack.services[worker].command
        assert command[-2] == "--concurrency"
        with self._changed(worker, command=[*command[:-1], "1"]):
            yield

    @contextmanager
    def settings(self, service: str, variables: Mapping[str, str]) -> Iterator[None]:
        """Run a service with other variables. It is ended for that, and started again by what watches it."""
        with self._changed(service, environment={**self.stack.services[service].environment, **variables}):
            yield

    @contextmanager
    def cut_off(self) -> Iterator[None]:
        """Let no packet reach the GPU's worker, and none leave it."""
        with cut_off(), self.ending():
            yield

    @contextmanager
    def _changed(self, service: str, **attributes: object) -> Iterator[None]:
        served = self.stack.services[service]
        kept = {name: getattr(served, name) for name in attributes}
        try:
            vars(served).update(attributes)
            self._start_again(service)
            yield
        finally:
            self._ends_now()
            vars(served).update(kept)
            self._start_again(service)

    def _start_again(self, service: str) -> None:
        served, before = self.stack.services[service], self.stack.services[service].process.pid
        self.stack.kill(service)
        until(lambda: served.process.pid != before, f"{service} is started again")
