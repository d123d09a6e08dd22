"""``cxr predict`` and ``cxr serve``: ask a model about image files, here or over HTTP."""

from __future__ import annotations

import csv
import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cxr_tasks import progress
from cxr_tasks.artifacts import TrainedArm, TrainedModel
from cxr_tasks.cli.champions import SERVER, ServerOption
from cxr_tasks.cli.options import DEFAULT_STORE, JsonOption, StoreOption, use_mlflow, use_store
from cxr_tasks.cli.terminal import Display, open_console, print_json
from cxr_tasks.config import FORMULA_SIGNS
from cxr_tasks.errors import UserError, shown
from cxr_tasks.registry.champions import OVERALL_CHAMPION
from cxr_tasks.serving.guard import CallLimits
from cxr_tasks.store import open_store
from cxr_tasks.tracking.server import SWITCH

if TYPE_CHECKING:
    from cxr_tasks.serving.predictor import ImageAnswer, Predictor

SERVING_PORT = 8088
DEFAULT_LIMITS = CallLimits()
# After so many files the progress is told.
FILES_A_TELLING = 64

ImagesArgument = Annotated[
    Path, typer.Argument(metavar="IMAGE|FOLDER", help="An image file, or a folder of them.", show_default=False)
]
AskedModelOption = Annotated[
    str,
    typer.Option(
        "--model",
        metavar="MODEL",
        help="A registered model, an address such as models:/cxr-overall/3, or the reference of a training's artifact.",
    ),
]
CsvOption = Annotated[
    Path | None,
    typer.Option("--csv", metavar="FILE", help="Write a line an image to this file.", show_default=False),
]
HostOption = Annotated[str, typer.Option("--host", metavar="ADDRESS", help="Where to listen.")]
ServingPortOption = Annotated[int, typer.Option("--port", metavar="PORT", min=1, max=65535, help="Where to listen.")]
TokenOption = Annotated[
    str,
    typer.Option(
        "--token",
        metavar="TOKEN",
        envvar="SERVING_TOKEN",
        help="What callers must name. Give it in the environment: arguments are seen by everybody on the machine.",
        show_default=False,
    ),
]
RefreshOption = Annotated[
    float, typer.Option("--refresh", metavar="SECONDS", min=0.1, help="How often to look for a new champion.")
]
BodyOption = Annotated[int, typer.Option("--max-mib", metavar="MIB", min=1, help="Size of one call at most.")]
MostImagesOption = Annotated[int, typer.Option("--max-images", metavar="N", min=1, help="Images of one call at most.")]
MostPixelsOption = Annotated[int, typer.Option("--max-pixels", metavar="N", min=1, help="Pixels of one image at most.")]
MostCallsOption = Annotated[
    int, typer.Option("--max-calls", metavar="N", min=1, help="Calls that are worked on at once; more are refused.")
]


def predict_command(
    images: ImagesArgument,
    model: AskedModelOption = OVERALL_CHAMPION,
    table: CsvOption = None,
    store: StoreOption = DEFAULT_STORE,
    mlflow: ServerOption = SERVER,
    as_json: JsonOption = False,
) -> None:
    """Ask a model about an image, or about each image of a folder.

    For research, not for diagnosis. A file that cannot be used gets a line with the reason, and holds up no other.

    Exit status: 0 every image has an answer, 1 some have none, 2 the model could not be asked.
    """
    paths = _image_files(images)
    use_store(store)
    if not model.startswith(f"{TrainedModel.step}/"):
        use_mlflow(mlflow)
    from cxr_tasks.serving.loading import find_predictor

    with Display():
        predictor = find_predictor(model, _evaluation_of(model))
    refused = 0
    with ExitStack() as stack:
        stack.enter_context(Display())
        write = _writer(stack, predictor.facts.classes, table, as_json, alone=images.is_file())
        for path, answer in _answer_each(predictor, paths):
            refused += bool(answer.error)
            write(path if images.is_file() else path.relative_to(images), answer)
    if table is not None:
        open_console().print(f"{len(paths):,} images in {table}, {refused:,} of them without an answer", markup=False)
    if refused:
        raise typer.Exit(1)


def serve_command(
    model: Annotated[
        str, typer.Argument(metavar="[MODEL]", help="A registered model with an alias, or an address.")
    ] = OVERALL_CHAMPION,
    host: HostOption = "127.0.0.1",
    port: ServingPortOption = SERVING_PORT,
    mlflow: ServerOption = SERVER,
    token: TokenOption = "",
    refresh: RefreshOption = 15.0,
    most_mib: BodyOption = DEFAULT_LIMITS.body_bytes // 2**20,
    most_images: MostImagesOption = DEFAULT_LIMITS.images,
    most_pixels: MostPixelsOption = DEFAULT_LIMITS.pixels,
    most_calls: MostCallsOption = DEFAULT_LIMITS.calls,
) -> None:
    """Answer questions about images over HTTP, with MLflow's protocol and a page.

    A new champion is taken up while callers are answered. For research, not for diagnosis.

    Exit status: 0 it was ended, 2 it could not begin.
    """
    if not token and not _is_loopback(host):
        raise UserError(
            f"{host} can be reached from other machines: set SERVING_TOKEN to a word that callers must name, or listen "
            "on 127.0.0.1."
        )
    # A server waits for MLflow by looking again.
    os.environ.pop(SWITCH, None)
    os.environ["MLFLOW_TRACKING_URI"] = mlflow
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    import uvicorn

    from cxr_tasks.serving.call_metrics import CallMetrics
    from cxr_tasks.serving.current_model import CurrentModel
    from cxr_tasks.serving.server import build_server

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", stream=sys.stderr)
    logging.getLogger("cxr_tasks.serving").setLevel(logging.INFO)
    metrics = CallMetrics()
    current = CurrentModel(model, metrics.batches.observe)
    limits = CallLimits(most_mib * 2**20, most_images, most_pixels, most_calls)
    server = build_server(current, limits, token, metrics)
    current.watch(refresh)
    open_console().print(f"{model} at http://{host}:{port}/ as soon as /ready says so. Ctrl-C ends it.", markup=False)
    uvicorn.run(server, host=host, port=port, log_level="warning", access_log=False, timeout_graceful_shutdown=30)
    current.end()


def _image_files(place: Path) -> list[Path]:
    """The files at ``place``, in order.

    Raises:
        UserError: There are none.
    """
    if place.is_file():
        return [place]
    if not place.is_dir():
        raise UserError(f"There is no file or folder {place}: correct the path.")
    found = sorted(path for path in place.rglob("*") if path.is_file() and not path.name.startswith("."))
    if not found:
        raise UserError(f"The folder {place} holds no file: name another folder.")
    return found


def _answer_each(predictor: Predictor, paths: list[Path]) -> Iterator[tuple[Path, ImageAnswer]]:
    """The answer for each file. What cannot be read is refused like what is no image."""
    for done, (path, answer) in enumerate(zip(paths, predictor.predict_each(paths), strict=True), 1):
        yield path, answer
        if done % FILES_A_TELLING == 0 or done == len(paths):
            progress.advance("images", done, len(paths))


def _evaluation_of(model: str) -> str:
    """The newest artifact that knows the limits of a training in the store; empty where there is none."""
    from cxr_tasks.retention.inventory import stored_artifacts

    if not model.startswith(f"{TrainedModel.step}/"):
        return ""
    found = (stored for stored in stored_artifacts(open_store()) if stored.step == TrainedArm.step)
    return next((stored.ref for stored in found if stored.record.get("inputs", {}).get("model") == model), "")


def _writer(stack: ExitStack, classes: tuple[str, ...], table: Path | None, as_json: bool, *, alone: bool) -> Any:
    """What writes an answer: as CSV into a file or to the terminal, as JSON, or in words for one image alone."""
    if as_json:
        return lambda path, answer: print_json(json.dumps({"file": shown(str(path)), **answer.model_dump()}))
    if alone and table is None:
        return lambda path, answer: _print_answer(answer)
    stream = sys.stdout
    if table is not None:
        stream = stack.enter_context(table.open("w", newline="", encoding="utf-8"))
    lines = csv.writer(stream)
    lines.writerow(["file", "decision", *classes, "reached", "warnings", "error", "model", "version"])

    def write(path: Path, answer: ImageAnswer) -> None:
        probabilities = [answer.probabilities.get(name, "") for name in classes]
        told = ["; ".join(answer.reached), " ".join(answer.warnings), answer.error, answer.model, answer.version]
        lines.writerow([_cell(shown(str(path))), answer.decision, *probabilities, *told])
        stream.flush()

    return write


def _cell(text: str) -> str:
    """A file's name as a spreadsheet takes no formula of it."""
    return f"'{text}" if text.startswith(tuple(FORMULA_SIGNS)) else text


def _print_answer(answer: ImageAnswer) -> None:
    console = open_console()
    if answer.error:
        console.print(answer.error, style="red", markup=False)
        return
    console.print(answer.decision, style="bold", markup=False)
    for name, probability in answer.probabilities.items():
        reached = "  reaches its operating point" if name in answer.reached else ""
        console.print(f"  {probability:7.2%}  {name}{reached}", markup=False)
    for warning in answer.warnings:
        console.print(f"Before you use it: {warning}", style="yellow", markup=False)
    version = f" version {answer.version}" if answer.version else ""
    console.print(f"{answer.model}{version}. For research, not for diagnosis.", markup=False)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
