"""One run on this machine: start the embedded stack, run both DAGs, say what happens, and keep what came out."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil
from rich.console import Console
from rich.markup import escape

from cxr_tasks.addresses import whole_addresses
from cxr_tasks.artifacts import Dataset, Report
from cxr_tasks.config import Settings, resolve
from cxr_tasks.data.phantoms import PHANTOM_COUNTS, write_phantoms
from cxr_tasks.errors import UserError
from cxr_tasks.estimate.ask import count_source, measured_forecast
from cxr_tasks.filled_form import check_for_a_run
from cxr_tasks.local import DATA, TRAINING, absolute_source
from infra.embedded.airflow_api import ENDED, AirflowApi
from infra.embedded.bars import LiveBars, far_in_mlflow
from infra.embedded.stack import REPOSITORY, Stack, StackError

POLL_SECONDS = 1.5
# A task names itself, which takes a moment after it has begun.
NAMED_AFTER_SECONDS = 15.0
# The state of a task that waits for a person.
ASKS = "awaiting_input"
MARKS = {
    "running": "…",
    "success": "✓",
    "failed": "✗",
    "up_for_retry": "↻",
    "skipped": "–",
    "upstream_failed": "✗",
    ASKS: "?",
}
# How the notes of steps begin that are warnings.
WARNING = "warning: "
# What a run leaves in the folder of its stack, for programs.
LAST_RUN = "last-run.json"

# Where nobody looks at a screen, in a log file say, nothing is cut short.
console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 200)


def run_stack(
    *,
    home: Path,
    data: str,
    profile: str,
    settings: Mapping[str, Any],
    airflow_port: int,
    mlflow_port: int,
    reproduce_leak: bool,
    once: bool,
    estimate: bool,
    show: Callable[[dict[str, Any]], None],
) -> bool:
    """Start the stack, run both DAGs, and leave no process behind, whatever happens.

    Args:
        home: Where databases, logs and artifacts live.
        data: Address of the X-rays. Where it is empty and the profile lists no sources, phantoms are generated.
        profile: Name of a profile, or path of a YAML file.
        settings: What is laid over the profile.
        airflow_port: Port on loopback.
        mlflow_port: Port on loopback.
        reproduce_leak: Whether the source report's protocol is repeated too.
        once: Whether the stack ends with the run. Otherwise it stays up until Ctrl-C.
        estimate: Whether to say first how long the run will take.
        show: Is given what came out, the content of ``last-run.json``.

    Returns:
        Whether the run succeeded.

    Raises:
        StackError: The run could not start, or the stack broke down.
        KeyboardInterrupt: The run was interrupted.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # not under nohup
        signal.signal(signal.SIGHUP, lambda *_: sys.exit(129))
    # Started in the background by a shell, a program ignores Ctrl-C unless it says otherwise.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    home = home.expanduser().absolute()
    try:
        # Tasks work in another folder than the person who typed this.
        settings = whole_addresses(settings, Path.cwd())
        check_for_a_run(settings)
        resolved = resolve(profile, settings)
        listed = resolved.data
        if profile.endswith((".yaml", ".yml")):
            profile = str(Path(profile).absolute())
        source = absolute_source(data) if data else ""
        if listed.sources:
            listed.one_source(source)
            for each in listed.sources:
                absolute_source(each.source)
        stack = Stack(home, airflow_port, mlflow_port, {"CXR_PROFILE": profile})
        stack.check()
        source = source or ("" if listed.sources else phantoms(home))
        stack.environment["CXR_SOURCE"] = source
        stack.on_restart = lambda name: say(f"{name} had ended and was started again")
        if estimate:
            say_estimate(source, resolved, home)
    except (UserError, OSError) as error:
        raise StackError(f"Cannot start: {error}") from error
    try:
        say("Starting Airflow and MLflow")
        api = stack.start()
        say(f"Airflow {stack.airflow_url}   MLflow {stack.mlflow_url}")
        form = {"settings": dict(settings), **({"reproduce_leak": True} if reproduce_leak else {})}
        succeeded = StackRun(stack, api, show).execute(source, profile, form)
        if not once:
            say("The pages stay up until Ctrl-C.")
            wait_for_ctrl_c(stack)
        return succeeded
    except (httpx.HTTPError, ValueError) as error:
        raise StackError(str(error)) from error
    finally:
        # A second Ctrl-C must not interrupt the clearing up, and neither must a terminal that is gone.
        for interruption in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(interruption, signal.SIG_IGN)
        try:
            say("Ending every process that was started")
        finally:
            stack.stop()


def say_estimate(source: str, settings: Settings, home: Path) -> None:
    """Say how long the run will take. What keeps an estimate from being made, the run itself tells in full."""
    if source.startswith("kaggle://"):
        # To know its files it would be fetched.
        return
    say("Estimating how long the run will take")
    try:
        told = measured_forecast(settings, count_source(source, settings))
    except (UserError, OSError) as error:
        console.print(f"            No estimate: {error}", style="yellow", markup=False)
        return
    console.print(f"            {told.sentence}", style="yellow" if told.is_long else "", markup=False)
    for fault in told.lacking(psutil.virtual_memory().available, shutil.disk_usage(home).free):
        console.print(f"            {fault}", style="yellow", markup=False)


def phantoms(home: Path) -> str:
    """A folder of generated chest phantoms, made on first use."""
    folder = home / "phantoms"
    if not folder.is_dir():
        say("No data are given: generating chest phantoms")
        home.mkdir(parents=True, exist_ok=True)
        write_phantoms(folder, PHANTOM_COUNTS)
    return str(folder)


def wait_for_ctrl_c(stack: Stack) -> None:
    """Keep the pages up; Ctrl-C is the ordinary way to end."""
    try:
        while True:
            time.sleep(1)
            stack.check_alive()
    except KeyboardInterrupt:
        console.print()


def say(text: str) -> None:
    """One line with the time of day."""
    console.print(f"[dim]{time.strftime('%H:%M:%S')}[/]  {text}")


class StackRun:
    """One pass through both DAGs, with its progress and its summary.

    Attributes:
        stack: The stack, which is up.
        api: Its Airflow.
        show: Is given the summary.
        spoken: The state that was last said, by DAG, task, map index and try.
        warned: The warnings of tasks, each once, in their order.
    """

    def __init__(self, stack: Stack, api: AirflowApi, show: Callable[[dict[str, Any]], None]) -> None:
        """Nothing is triggered yet.

        Args:
            stack: The stack, which is up.
            api: Its Airflow.
            show: Is given the summary.
        """
        self.stack, self.api, self.show = stack, api, show
        self.spoken: dict[tuple[str, str, int, int], str] = {}
        self.warned: dict[str, None] = {}

    def execute(self, source: str, profile: str, form: Mapping[str, Any] | None = None) -> bool:
        """Prepare, trigger, follow, summarise; whether all went well. ``form`` holds further fields."""
        self.prepare()
        started = time.time()
        with LiveBars(console, partial(far_in_mlflow, self.stack.mlflow_url)) as self.bars:
            runs, state = self.both(source, {**(form or {}), "profile": profile})
        seconds = time.time() - started
        told = told_sources(source, profile, (form or {}).get("settings", {}))
        summary = told | self._summary(runs, state, seconds, profile)
        path = self.stack.home / LAST_RUN
        aside = path.with_suffix(".tmp")
        aside.write_text(json.dumps(summary, indent=2, ensure_ascii=False), encoding="utf-8")
        os.replace(aside, path)
        self.show(summary)
        return state == "success"

    def prepare(self) -> None:
        """Make the pools, wait for the DAGs, and end what an earlier stack left unfinished.

        Raises:
            StackError: The DAGs cannot be loaded.
        """
        for pool in self._pools():
            self.api.set_pool(*pool)
        if fault := self.api.wait_for_dags([DATA, TRAINING]):
            raise StackError(f"The DAGs cannot be loaded: {fault}")
        for dag in (DATA, TRAINING):
            for left in self.api.end_unfinished(dag):
                say(f"Run {left} of {dag} was left unfinished when the stack was ended: it is marked as failed")

    def both(self, source: str, form: dict[str, Any]) -> tuple[dict[str, str], str]:
        """Run ``cxr_data`` and then ``cxr_training`` with what the form holds.

        Returns:
            The ids of the runs by DAG, and how the last one ended.
        """
        started = time.time()
        runs = {DATA: self.api.trigger(DATA, {**form, "source": source})}
        state = self._follow(DATA, runs[DATA])
        if state == "success":
            runs[TRAINING] = self._training_run(runs[DATA], form, started)
            state = self._follow(TRAINING, runs[TRAINING])
        return runs, state

    def _training_run(self, data_run: str, form: dict[str, Any], started: float) -> str:
        """The run that the published dataset started, or one triggered here because nothing was published."""
        publish = next(task for task in self.api.tasks(DATA, data_run) if is_of(task, Dataset.step))
        if publish["state"] == "skipped":
            say(f"The data are those of the last run: {TRAINING} is triggered on the same dataset")
            return self.api.trigger(TRAINING, form)
        while True:
            run = self.api.newest_run(TRAINING)
            if run and datetime.fromisoformat(run["queued_at"]).timestamp() >= started:
                return run["dag_run_id"]
            self.stack.check_alive()
            time.sleep(POLL_SECONDS)

    def _follow(self, dag: str, run: str) -> str:
        """Say what each task does until the run has ended; returns how it ended."""
        say(f"[bold]{dag}[/] {self.stack.airflow_url}/dags/{dag}/runs/{run}")
        while True:
            self.stack.check_alive()
            state = self.api.run_state(dag, run)
            for task in sorted(self.api.tasks(dag, run), key=lambda task: task["start_date"] or ""):
                self._speak(dag, run, task)
            if state in ENDED:
                return state
            self.bars.update()
            time.sleep(POLL_SECONDS)

    def _speak(self, dag: str, run: str, task: dict[str, Any]) -> None:
        key = (dag, task["task_id"], task["map_index"], task["try_number"])
        state = task["state"]
        if state not in MARKS or self.spoken.get(key) == state or is_still_unnamed(task):
            return
        self.spoken[key] = state
        line = f"  {MARKS[state]} {escape(f'{task_name(task):<56}')} {state}"
        result = as_dict(self.api.result(dag, run, task)) if state == "success" else {}
        if state == "success":
            line += f"  {task['duration'] or 0:.0f} s{' (artifact taken as it was)' * bool(result.get('reused'))}"
        say(line)
        if state == ASKS:
            page = f"{self.stack.airflow_url}/dags/{dag}/runs/{run}/tasks/{task['task_id']}/required_actions"
            console.print(f"            A person decides: {page}", markup=False)
        warnings = [note for note in result.get("notes", []) if note.startswith(WARNING)]
        for note in result.get("notes", []):
            if note not in warnings:
                console.print(f"            {note}", markup=False)
        if warnings:
            # In full they stand below the answer.
            self.warned |= dict.fromkeys(note.removeprefix(WARNING) for note in warnings)
            many = f"{len(warnings)} warnings" if len(warnings) > 1 else "1 warning"
            console.print(f"            {many}, told at the end", style="yellow")
        if state in ("failed", "up_for_retry") and (error := self.api.error(dag, run, task)):
            console.print(f"            {error}", style="red", markup=False)

    def _summary(self, runs: dict[str, str], state: str, seconds: float, profile: str) -> dict[str, Any]:
        tasks = []
        outcome: dict[str, Any] = {}
        for dag, run in runs.items():
            for task in self.api.tasks(dag, run):
                result = as_dict(self.api.result(dag, run, task))
                tasks.append(
                    {
                        "dag": dag,
                        "task": task_name(task),
                        "state": task["state"],
                        "seconds": round(task["duration"] or 0, 1),
                        "tries": task["try_number"],
                        "artifact": result.get("ref"),
                        "reused": result.get("reused"),
                        "mlflow_run_id": result.get("mlflow_run_id"),
                    }
                )
                if is_of(task, Report.step):
                    outcome = result
        return {
            "state": state,
            "seconds": round(seconds, 1),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "profile": profile,
            "runs": runs,
            "answer": outcome.get("answer"),
            "warnings": outcome.get("warnings") or list(self.warned),
            "claims": outcome.get("claims", []),
            "comparison": outcome.get("pairs", []),
            "champions": outcome.get("champions", []),
            "external": outcome.get("external", []),
            "report": outcome.get("address"),
            "tasks": tasks,
            "airflow": self.stack.airflow_url,
            "mlflow": self.stack.mlflow_url,
            "summary": str(self.stack.home / LAST_RUN),
        }

    def _pools(self) -> list[tuple[str, int, str]]:
        pools = json.loads((REPOSITORY / "infra" / "airflow" / "pools.json").read_text(encoding="utf-8"))
        return [(name, pool["slots"], pool["description"]) for name, pool in pools.items()]


def told_sources(source: str, profile: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What a summary says of where the images come from.

    Args:
        source: Address of the one source; empty where the settings list several.
        profile: Of the run.
        settings: What is laid over the profile.

    Returns:
        ``source``, of several their names, and ``sources``, the addresses by name.
    """
    sources = {each.name: each.source for each in resolve(profile, settings).data.sources}
    return {"source": source or ", ".join(sources), "sources": sources}


def as_dict(value: Any) -> dict[str, Any]:
    """A step's result, or nothing where a task returned something else."""
    return value if isinstance(value, dict) else {}


def is_of(task: dict[str, Any], step: str) -> bool:
    """Whether a task, in whichever group, is that of ``step``."""
    return task["task_id"].rpartition(".")[2] == step


def is_still_unnamed(task: dict[str, Any]) -> bool:
    """Whether a mapped task has begun so lately that Airflow may not have its name yet."""
    # Airflow gives the number in the place of a name that it does not have yet.
    is_named = task.get("rendered_map_index") not in (None, str(task["map_index"]))
    if task["state"] != "running" or task["map_index"] < 0 or is_named or not task["start_date"]:
        return False
    return (datetime.now(UTC) - datetime.fromisoformat(task["start_date"])).total_seconds() < NAMED_AFTER_SECONDS


def task_name(task: dict[str, Any]) -> str:
    """``train [cnn classical seed 0]``: the task, and which of the mapped ones."""
    if task["map_index"] < 0:
        return task["task_id"]
    return f"{task['task_id']} [{task.get('rendered_map_index') or task['map_index']}]"
