"""All commands of ``cxr``, and what they have in common: their errors, their exit statuses, the log.

Nothing here, and nothing that the modules of commands import at their top, loads a heavy library: help is to appear
at once.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from cxr_tasks.cli.champions import approve_command, champions_command, rollback_command
from cxr_tasks.cli.doctor import doctor_command
from cxr_tasks.cli.estimate import estimate_command
from cxr_tasks.cli.evaluate import evaluate_command
from cxr_tasks.cli.options import FLAG
from cxr_tasks.cli.predict import predict_command, serve_command
from cxr_tasks.cli.profiles import profiles_command
from cxr_tasks.cli.scan import scan_command
from cxr_tasks.cli.stack import run_command, status_command
from cxr_tasks.cli.store import store_app
from cxr_tasks.cli.terminal import PLAIN_ERRORS, help_of, print_error
from cxr_tasks.cli.training import compare_command, judge_command, report_command, train_arm_command, train_gan_command

WHOLE, BY_HAND, AROUND = "The whole pipeline", "One step by hand, without Airflow", "What lies around it"
CANNOT, INTERRUPTED = 2, 130
# What libraries would otherwise say or send. Whoever has set one of these keeps the value.
QUIET = {
    "TF_CPP_MIN_LOG_LEVEL": "2",
    "TF_FORCE_GPU_ALLOW_GROWTH": "true",
    "GX_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "GIT_PYTHON_REFRESH": "quiet",
}


class Commands(TyperGroup):
    """Commands whose errors are one sentence each."""

    def invoke(self, context: Any) -> Any:
        """Run the command; an error becomes a sentence on stderr and an exit status."""
        try:
            return super().invoke(context)
        except (typer.Exit, typer.Abort, typer.TyperException, BrokenPipeError):
            raise
        except PLAIN_ERRORS as error:
            _raise_if_debugging(context)
            print_error(str(error))
            raise typer.Exit(CANNOT) from error
        except KeyboardInterrupt as error:
            print_error("Interrupted. What was finished is kept: the same command goes on from there.")
            raise typer.Exit(INTERRUPTED) from error
        except Exception as error:
            _raise_if_debugging(context)
            sentence = " ".join(str(error).split()) or "no more is known"
            print_error(f"{type(error).__name__}: {sentence} (cxr --debug {context.invoked_subcommand} … shows where)")
            raise typer.Exit(CANNOT) from error


def _raise_if_debugging(context: Any) -> None:
    if context.params.get("debug"):
        raise


def _print_version(asked: bool) -> None:
    if asked:
        from importlib import metadata

        typer.echo(f"cxr {metadata.version('cxr-mlops')}")
        raise typer.Exit()


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["--help", "-h"]},
)


def cxr(
    version: Annotated[
        bool,
        typer.Option(
            "--version", metavar=FLAG, callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", metavar=FLAG, help="Show the log, and of an error where it happened.")
    ] = False,
) -> None:
    """Does synthetic augmentation help on your chest X-rays?

    Reads labelled X-rays, trains a GAN on them, trains classifiers with and without its images, and says honestly
    whether the images helped.

    Exit status: 0 all is well, 1 the data or the run are not, 2 the command could not do its work, 130 Ctrl-C.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    if debug:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    else:
        # Steps return what people are to know as notes. What else a step logs belongs to Airflow's pages.
        logging.getLogger("cxr_tasks.steps").setLevel(logging.ERROR)
        logging.getLogger("cxr_tasks.pipeline").setLevel(logging.ERROR)


app.callback(help=help_of(cxr))(cxr)


def _register(name: str, panel: str, command: Callable[..., None]) -> None:
    app.command(name, rich_help_panel=panel, help=help_of(command))(command)


_register("run", WHOLE, run_command)
_register("status", WHOLE, status_command)
_register("estimate", WHOLE, estimate_command)
_register("scan", BY_HAND, scan_command)
_register("train-gan", BY_HAND, train_gan_command)
_register("judge", BY_HAND, judge_command)
_register("train-arm", BY_HAND, train_arm_command)
_register("compare", BY_HAND, compare_command)
_register("report", BY_HAND, report_command)
_register("evaluate", BY_HAND, evaluate_command)
_register("predict", BY_HAND, predict_command)
_register("champions", BY_HAND, champions_command)
_register("approve", BY_HAND, approve_command)
_register("rollback", BY_HAND, rollback_command)
_register("serve", AROUND, serve_command)
_register("profiles", AROUND, profiles_command)
_register("doctor", AROUND, doctor_command)
app.add_typer(store_app, name="store", rich_help_panel=AROUND)
