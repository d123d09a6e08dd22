"""``make run``: start the embedded stack, run cxr_data and cxr_training, show what happens and what came out.

Exits with 0 when the run succeeded, 1 when it failed, 2 when it could not start, 130 after Ctrl-C during the run.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cxr_tasks.config import resolve
from cxr_tasks.data.phantoms import PHANTOM_COUNTS, write_phantoms
from cxr_tasks.data.sources import open_source
from cxr_tasks.errors import UserError
from infra.embedded.airflow_api import ENDED, AirflowApi
from infra.embedded.stack import REPOSITORY, Stack, StackError

POLL_SECONDS = 1.5
SPOKEN_STATES = {"running", "success", "failed", "up_for_retry", "skipped", "upstream_failed"}
# The tasks that list what mapped ones work on.
ENTRIES = {
    "backbones": ["features", "synthetic_features"],
    "arms": ["train"],
    "synthetic_arms": ["train_with_synthetic"],
    "leaks": ["reproduce_leak"],
    "pairs": ["compare"],
}
MARKS = {"running": "…", "success": "✓", "failed": "✗", "up_for_retry": "↻", "skipped": "–", "upstream_failed": "✗"}

# Where nobody looks at a screen, in a log file say, nothing is cut short.
console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 200)


def main() -> int:
    """Parse the command line, run, and always leave no process behind."""
    options = parse()
    home = Path(options.home).expanduser().absolute()
    environment = {"CXR_PROFILE": options.profile}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # Started in the background by a shell, a program ignores Ctrl-C unless it says otherwise.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        try:
            resolve(options.profile)
            environment["CXR_SOURCE"] = source(options.data) or phantoms(home)
            stack = Stack(home, options.airflow_port, options.mlflow_port, environment)
            stack.check()
        except (UserError, StackError, OSError) as error:
            console.print("[bold red]Cannot start:[/]", escape(str(error)))
            return 2
        try:
            say("Starting Airflow and MLflow")
            api = stack.start()
            say(f"Airflow {stack.airflow_url}   MLflow {stack.mlflow_url}")
            succeeded = Run(stack, api, home).execute(
                environment["CXR_SOURCE"], options.profile, reproduce_leak=options.reproduce_leak
            )
            if not options.once:
                say("The pages stay up until Ctrl-C.")
                wait_for_ctrl_c(stack)
            return 0 if succeeded else 1
        except (StackError, httpx.HTTPError, ValueError) as error:
            console.print(str(error), style="bold red", markup=False)
            return 2
        finally:
            # A second Ctrl-C must not interrupt the clearing up.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            say("Ending every process that was started")
            stack.stop()
    except KeyboardInterrupt:
        return 130


def parse() -> argparse.Namespace:
    """The options that the Makefile passes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="", help="address of the X-rays; without it, phantoms are generated")
    parser.add_argument("--profile", default="quick")
    parser.add_argument("--home", default=str(REPOSITORY / ".cxr"), help="databases, logs, artifacts")
    parser.add_argument("--airflow-port", type=int, default=8080)
    parser.add_argument("--mlflow-port", type=int, default=5000)
    parser.add_argument(
        "--reproduce-leak",
        action="store_true",
        help="also repeat the source report's protocol, with synthetic images in the test set",
    )
    parser.add_argument("--once", action="store_true", help="exit after the run")
    return parser.parse_args()


def source(address: str) -> str:
    """The address as the workers can use it; '' if there is none.

    Raises:
        DataError: nothing is there.
    """
    if not address:
        return ""
    open_source(address)
    return address if "://" in address else str(Path(address).expanduser().resolve())


def phantoms(home: Path) -> str:
    """A folder of generated chest phantoms, made on first use."""
    folder = home / "phantoms"
    if not folder.is_dir():
        say("No DATA given: generating chest phantoms")
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


class Run:
    """One pass through both DAGs, with its progress and its summary."""

    def __init__(self, stack: Stack, api: AirflowApi, home: Path) -> None:
        self.stack, self.api, self.home = stack, api, home
        self.spoken: dict[tuple[str, str, int, int], str] = {}
        self.entries: dict[str, list[Any]] = {}

    def execute(self, source: str, profile: str, *, reproduce_leak: bool = False) -> bool:
        """Trigger, follow, summarise; whether all went well."""
        for pool in self._pools():
            self.api.set_pool(*pool)
        if fault := self.api.wait_for_dags(["cxr_data", "cxr_training"]):
            raise StackError(f"The DAGs cannot be loaded: {fault}")
        for dag in ("cxr_data", "cxr_training"):
            for left in self.api.end_unfinished(dag):
                say(f"Run {left} of {dag} was left unfinished when the stack was ended: it is marked as failed")
        started = time.time()
        form = {"profile": profile, **({"reproduce_leak": True} if reproduce_leak else {})}
        runs = {"cxr_data": self.api.trigger("cxr_data", {**form, "source": source})}
        state = self._follow("cxr_data", runs["cxr_data"])
        if state == "success":
            runs["cxr_training"] = self._training_run(runs["cxr_data"], form, started)
            state = self._follow("cxr_training", runs["cxr_training"])
        seconds = time.time() - started
        self._summarise(runs, state, seconds, source, profile)
        return state == "success"

    def _training_run(self, data_run: str, form: dict[str, Any], started: float) -> str:
        """The run that the published dataset started, or one triggered here because nothing was published."""
        publish = next(task for task in self.api.tasks("cxr_data", data_run) if task["task_id"] == "publish")
        if publish["state"] == "skipped":
            say("The data are those of the last run: cxr_training is triggered on the same dataset")
            return self.api.trigger("cxr_training", form)
        while True:
            run = self.api.newest_run("cxr_training")
            if run and datetime.fromisoformat(run["queued_at"]).timestamp() >= started:
                return run["dag_run_id"]
            self.stack.check_alive()
            time.sleep(POLL_SECONDS)

    def _follow(self, dag: str, run: str) -> str:
        """Say what each task does until the run has ended; returns how it ended."""
        say(f"[bold]{dag}[/] {self.stack.airflow_url}/dags/{dag}/runs/{run}")
        while True:
            self.stack.check_alive()
            self.stack.remember_members()
            state = self.api.run_state(dag, run)
            for task in sorted(self.api.tasks(dag, run), key=lambda task: task["start_date"] or ""):
                self._speak(dag, run, task)
            if state in ENDED:
                return state
            time.sleep(POLL_SECONDS)

    def _speak(self, dag: str, run: str, task: dict[str, Any]) -> None:
        key = (dag, task["task_id"], task["map_index"], task["try_number"])
        state = task["state"]
        if state not in SPOKEN_STATES or self.spoken.get(key) == state:
            return
        self.spoken[key] = state
        if task["task_id"] in ENTRIES and state == "success":
            for mapped in ENTRIES[task["task_id"]]:
                self.entries[mapped] = self.api.result(dag, run, task)
        number = task["map_index"]
        if number >= 0 and task.get("rendered_map_index") in (None, str(number)) and task["task_id"] in self.entries:
            # Airflow names a mapped task only when it has ended.
            task = {**task, "rendered_map_index": entry_name(self.entries[task["task_id"]][number])}
        line = f"  {MARKS[state]} {escape(f'{task_name(task):<36}')} {state}"
        result = as_dict(self.api.result(dag, run, task)) if state == "success" else {}
        if state == "success":
            line += f"  {task['duration'] or 0:.0f} s{' (artifact taken as it was)' * bool(result.get('reused'))}"
        say(line)
        for note in result.get("summary", {}).get("notes", []):
            console.print(f"            {note}", markup=False)
        if state in ("failed", "up_for_retry") and (error := self.api.error(dag, run, task)):
            console.print(f"            {error}", style="red", markup=False)

    def _summarise(self, runs: dict[str, str], state: str, seconds: float, source: str, profile: str) -> None:
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
                if task["task_id"] == "report":
                    outcome = result.get("summary", {})
        summary = {
            "state": state,
            "seconds": round(seconds, 1),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "source": source,
            "profile": profile,
            "runs": runs,
            "answer": outcome.get("answer"),
            "warnings": outcome.get("warnings", []),
            "comparison": outcome.get("table", []),
            "champions": outcome.get("champions", []),
            "report": outcome.get("report"),
            "tasks": tasks,
        }
        path = self.home / "last-run.json"
        aside = path.with_suffix(".tmp")
        aside.write_text(json.dumps(summary, indent=2, ensure_ascii=False), encoding="utf-8")
        os.replace(aside, path)
        show(summary, self.stack, path)

    def _pools(self) -> list[tuple[str, int, str]]:
        pools = json.loads((REPOSITORY / "infra" / "airflow" / "pools.json").read_text(encoding="utf-8"))
        return [(name, pool["slots"], pool["description"]) for name, pool in pools.items()]


def as_dict(value: Any) -> dict[str, Any]:
    """A step's result, or nothing where a task returned something else."""
    return value if isinstance(value, dict) else {}


def entry_name(entry: Any) -> str:
    """What a mapped task works on, as the DAG calls it: ``cnn classical seed 0``, ``vgg16``."""
    return f"{entry['classifier']} {entry['arm']} seed {entry['seed']}" if isinstance(entry, dict) else str(entry)


def task_name(task: dict[str, Any]) -> str:
    """``train [cnn classical seed 0]``: the task, and which of the mapped ones."""
    if task["map_index"] < 0:
        return task["task_id"]
    return f"{task['task_id']} [{task.get('rendered_map_index') or task['map_index']}]"


def show(summary: dict[str, Any], stack: Stack, path: Path) -> None:
    """Print the answer, the comparison, the promoted models and where to look further."""
    console.print()
    if summary["comparison"]:
        table = Table(title="Macro F1 on the real test images", title_justify="left")
        for name in (
            "classifier",
            "seed",
            "arm",
            "baseline",
            "with it",
            "difference (interval)",
            "McNemar p",
            "verdict",
        ):
            table.add_column(name, justify="left" if name in ("classifier", "arm", "verdict") else "right")
        for row in summary["comparison"]:
            interval = f"{100 * row['difference']:+.1f} ({100 * row['low']:+.1f} to {100 * row['high']:+.1f}) points"
            table.add_row(
                *(row["classifier"], str(row["seed"]), f"{row['arm']} against {row['baseline_arm']}"),
                *(f"{row['baseline_macro_f1']:.3f}", f"{row['augmented_macro_f1']:.3f}"),
                *(interval, f"{row['mcnemar_p']:.2f}", row["verdict"]),
            )
        console.print(table)
        models = Table(title="Registered models", title_justify="left")
        for name in ("model", "version", "alias", "trained as", "validation macro F1", "decision"):
            models.add_column(name)
        for row in summary["champions"]:
            score = f"{row['validation_macro_f1']:.3f}"
            models.add_row(row["name"], row["version"], row["alias"], row["arm"], score, row["decision"])
        console.print(models)
    if summary["answer"]:
        console.print(f"\n{summary['answer']}\n", markup=False)
    for warning in summary["warnings"]:
        console.print(f"Before you use it: {warning}", style="yellow", markup=False)
    colour = "green" if summary["state"] == "success" else "red"
    reused = sum(bool(task["reused"]) for task in summary["tasks"])
    console.print(
        f"[bold {colour}]{summary['state']}[/] in {summary['seconds']:.0f} s, "
        f"{reused} of {len(summary['tasks'])} tasks took their artifact as it was"
    )
    console.print(f"Airflow  {stack.airflow_url}\nMLflow   {stack.mlflow_url}")
    if summary["report"]:
        console.print(f"Report   {summary['report']}")
    console.print(f"Summary  {path}\n")


if __name__ == "__main__":
    sys.exit(main())
