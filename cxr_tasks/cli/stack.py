"""``cxr run`` and ``cxr status``: Airflow and MLflow on this machine, and what they do now."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic_core import to_jsonable_python

from cxr_tasks.cli.options import (
    AIRFLOW_PORT,
    DEFAULT_HOME,
    DEFAULT_PROFILE,
    FLAG,
    MLFLOW_PORT,
    AirflowPortOption,
    HomeOption,
    JsonOption,
    MlflowPortOption,
    ProfileOption,
    SetOption,
    set_overrides,
)
from cxr_tasks.cli.tables import claims_table, external_results_table, models_table, pairs_table
from cxr_tasks.cli.terminal import open_console, print_json, print_warnings
from cxr_tasks.durations import time_taken

if TYPE_CHECKING:
    from rich.console import Console

    from infra.embedded.status import RunNow, StackStatus

RUN_FAILED = 1


def run_command(
    data: Annotated[
        str,
        typer.Option(
            "--data",
            metavar="SOURCE",
            help="The X-rays: a folder, an archive, s3://… or kaggle://…. Without it, chest phantoms are generated.",
            show_default=False,
        ),
    ] = "",
    profile: ProfileOption = DEFAULT_PROFILE,
    settings: SetOption = None,
    home: HomeOption = DEFAULT_HOME,
    airflow_port: AirflowPortOption = AIRFLOW_PORT,
    mlflow_port: MlflowPortOption = MLFLOW_PORT,
    reproduce_leak: Annotated[
        bool,
        typer.Option(
            "--reproduce-leak",
            metavar=FLAG,
            help="Also repeat the source report's protocol, with synthetic images in the test set.",
        ),
    ] = False,
    once: Annotated[
        bool, typer.Option("--once", metavar=FLAG, help="Exit after the run, instead of keeping the pages up.")
    ] = False,
    estimate: Annotated[
        bool,
        typer.Option(
            "--estimate/--no-estimate",
            metavar=FLAG,
            help="Say first how long the run will take, which measures for seconds to minutes the first time.",
        ),
    ] = True,
) -> None:
    """Start Airflow and MLflow on this machine, and run the whole pipeline through them.

    Says what each task does, and at the end whether the synthetic images helped. The pages stay up until Ctrl-C,
    which ends every process that was started. The same command again takes what was made before as it is.

    Exit status: 0 the run succeeded, 1 it failed, 2 it could not start, 130 Ctrl-C during the run.
    """
    from infra.embedded.run import run_stack

    succeeded = run_stack(
        home=home,
        data=data,
        profile=profile,
        settings=set_overrides(settings),
        airflow_port=airflow_port,
        mlflow_port=mlflow_port,
        reproduce_leak=reproduce_leak,
        once=once,
        estimate=estimate,
        show=show_summary,
    )
    if not succeeded:
        raise typer.Exit(RUN_FAILED)


def status_command(
    home: HomeOption = DEFAULT_HOME,
    airflow: Annotated[
        str,
        typer.Option(
            "--airflow",
            metavar="URL",
            help="Ask this Airflow instead of the one in the folder; AIRFLOW_USERNAME and AIRFLOW_PASSWORD sign in.",
            show_default=False,
        ),
    ] = "",
    mlflow: Annotated[
        str,
        typer.Option("--mlflow", metavar="URL", help="Ask this MLflow for champions.", show_default=False),
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Say what the pipeline does now, how far it is, and who is champion; where nothing runs, what its last run said.

    Looks at the stack in a folder, or at the servers whose addresses are given.

    Exit status: 0 whatever runs, 2 nothing was ever run there, or nobody answers.
    """
    from infra.embedded.status import stack_status, status_of

    if airflow or mlflow:
        name = os.environ.get("AIRFLOW_USERNAME", "")
        status = status_of(airflow, mlflow, (name, os.environ.get("AIRFLOW_PASSWORD", "")) if name else None)
    else:
        status = stack_status(home)
    if as_json:
        print_json(json.dumps(to_jsonable_python(status), indent=2, ensure_ascii=False))
        return
    console = open_console()
    if status.up:
        _show_stack(console, status)
        return
    console.print(f"Nothing runs in {status.home}.", markup=False)
    if status.last_run is None:
        console.print("No run has ended there yet.")
    else:
        console.print(f"The last run ended {status.last_run['finished']}:")
        show_summary(status.last_run)


def show_summary(summary: dict[str, Any]) -> None:
    """Print what a run found, what it registered, and where to look further."""
    console = open_console()
    console.print()
    if summary["comparison"]:
        console.print(pairs_table(summary["comparison"]))
        if summary["claims"]:
            console.print(claims_table(summary["claims"]))
        if external := summary.get("external"):
            console.print(external_results_table(external))
        console.print(models_table(summary["champions"]))
    if summary["answer"]:
        console.print(f"\n{summary['answer']}\n", markup=False)
    print_warnings(console, "Before you use it:", summary["warnings"])
    colour = "green" if summary["state"] == "success" else "red"
    reused = sum(bool(task["reused"]) for task in summary["tasks"])
    console.print(
        f"[bold {colour}]{summary['state']}[/] in {summary['seconds']:.0f} s, "
        f"{reused} of {len(summary['tasks'])} tasks took their artifact as it was"
    )
    for task in summary["tasks"]:
        if task["state"] == "failed":
            console.print(f"Failed   {task['dag']}: {task['task']}", style="red", markup=False)
    for title in ("Airflow", "MLflow", "Report", "Summary"):
        if address := summary.get(title.lower()):
            console.print(f"{title:<8} {address}", markup=False)
    console.print()


def _show_stack(console: Console, status: StackStatus) -> None:
    if status.home:
        console.print(f"The stack in {status.home} is up, kept by process {status.runner}.", markup=False)
    for title, told in (
        ("Airflow", status.airflow),
        ("MLflow", status.mlflow),
        ("Champion", _told_of_champions(status)),
    ):
        if told:
            console.print(f"{title:<8} {told}", markup=False)
    if status.airflow and not status.answers:
        console.print("Airflow does not answer: it is starting, or very busy.")
    elif status.airflow and not status.runs:
        console.print("No DAG has run yet.")
    for run in status.runs:
        _show_run(console, run)
    if status.progress:
        _show_progress(console, status)


def _told_of_champions(status: StackStatus) -> str:
    if not status.mlflow:
        return ""
    if status.champions is None:
        return "not known, since MLflow does not answer: it is starting, or very busy"
    return ", ".join(f"{each.model} version {each.version}" for each in status.champions) or "none yet"


def _show_progress(console: Console, status: StackStatus) -> None:
    from infra.embedded.bars import pace_in_words

    console.print()
    for each in status.progress:
        console.print(f"  {each.told.work}: {pace_in_words(each)}", markup=False)


def _show_run(console: Console, run: RunNow) -> None:
    since = "" if run.seconds is None else f" {'for' if run.state == 'running' else 'in'} {time_taken(run.seconds)}"
    console.print(f"\n[bold]{run.dag}[/] {run.state}{since}  {run.page}")
    console.print("  tasks: " + ", ".join(f"{number} {state}" for state, number in sorted(run.tasks.items())))
    for task in run.under_way:
        since = "" if task.seconds is None else f" for {time_taken(task.seconds)}"
        console.print(f"  {task.state}{since}: {task.task}", markup=False)
    for name in run.failed:
        console.print(f"  failed: {name}", style="red", markup=False)
