"""``cxr doctor``: whether this machine has what a run needs, and what to do where it has not."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from typing import Annotated

import typer

from cxr_tasks.cli.options import (
    AIRFLOW_PORT,
    DEFAULT_HOME,
    DEFAULT_PROFILE,
    DEFAULT_STORE,
    FLAG,
    MLFLOW_PORT,
    AirflowPortOption,
    HomeOption,
    JsonOption,
    MlflowPortOption,
    ProfileOption,
    StoreOption,
    use_store,
)
from cxr_tasks.cli.terminal import open_console, print_json

NOT_WELL = 1
COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


def doctor_command(
    profile: ProfileOption = DEFAULT_PROFILE,
    home: HomeOption = DEFAULT_HOME,
    store: StoreOption = DEFAULT_STORE,
    airflow_port: AirflowPortOption = AIRFLOW_PORT,
    mlflow_port: MlflowPortOption = MLFLOW_PORT,
    mlflow: Annotated[
        str,
        typer.Option(
            "--mlflow",
            metavar="URL",
            envvar="MLFLOW_TRACKING_URI",
            help="Address of an MLflow server that is to be used.",
            show_default=False,
        ),
    ] = "",
    gpu: Annotated[
        bool, typer.Option("--gpu", metavar=FLAG, help="Also ask TensorFlow for GPUs, which takes some seconds.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Check whether this machine has what a run needs, and say what to do where it has not.

    Credentials are looked for and never shown. Nothing is changed.

    Exit status: 0 nothing fails, 1 something does.
    """
    from cxr_tasks.cli import checks

    use_store(store)
    found = [
        checks.check_python(),
        checks.check_packages(),
        checks.check_cores(),
        checks.check_memory(),
        checks.check_disk(home),
        checks.check_cache(),
        checks.check_port("Airflow", airflow_port, "--airflow-port", home),
        checks.check_port("MLflow", mlflow_port, "--mlflow-port", home),
        checks.check_gpu(asked=gpu),
        checks.check_store(),
        checks.check_mlflow(mlflow),
        checks.check_weights(profile),
        checks.check_s3_credentials(needed=store.startswith("s3://")),
        checks.check_kaggle_credentials(),
        checks.check_notices(),
    ]
    if as_json:
        print_json(json.dumps([asdict(check) for check in found], indent=2, ensure_ascii=False))
    else:
        console = open_console()
        for check in found:
            console.print(f"[{COLOURS[check.state]}]{check.state:<4}[/]", end=" ")
            console.print(f"{check.name:<20} {check.found}", markup=False)
            if check.advice:
                console.print(f"{'':<25} {check.advice}", markup=False)
        counts = Counter(check.state for check in found)
        told = f"{counts['fail']} of {len(found)} fail, {counts['warn']} may hold up some runs."
        if not counts["fail"] and not counts["warn"]:
            told = f"All {len(found)} are well."
        console.print(f"\n{told} How long a run takes here: cxr estimate.", markup=False)
    if any(check.state == "fail" for check in found):
        raise typer.Exit(NOT_WELL)
