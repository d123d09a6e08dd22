"""What serving costs beside the network alone: latency and throughput of ``cxr serve`` and of its peers in one run.

    python benchmarks/serving.py FOLDER [classifier] [side] [seconds]

FOLDER holds images as ``<Class>/images/*.png``. A classifier (``vgg16`` by default, with random weights, 64 pixels a
side) is registered in an MLflow server of the run's own, as this project does it and as a bare Keras model. In turn
and for ``seconds`` each (20 by default), images of the same files are answered by

- a bare loop of the network on pixels that are in memory, 32 at a time: the most that the network can do here,
- ``cxr serve``, asked for files by 1, 8 and 64 callers,
- ``mlflow models serve`` of the bare Keras model, asked for decoded arrays by 1 and 8 callers.

``cxr serve`` decodes and resizes, and the bare model is given pixels. The callers run on the same cores.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from cxr_tasks.config import resolve
from cxr_tasks.data.decode import decode

PYTHON = Path(sys.executable)
CXR = "from cxr_tasks.cli import app; app()"
FILES = 64
STARTING_SECONDS = 600


def main(folder: Path, classifier: str, side: int, seconds: float) -> None:
    """Measure, print a table, and end with one JSON object."""
    os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "TF_CPP_MIN_LOG_LEVEL": "3"}
    paths = sorted(folder.glob("*/images/*.png"))
    contents = [path.read_bytes() for path in paths[:: max(1, len(paths) // FILES)][:FILES]]
    decoded = [decode(content, "", [side]) for content in contents]
    with tempfile.TemporaryDirectory() as place:
        model_folder, network = _model(Path(place), classifier, side, decoded)
        found = {"bare loop, 32 at a time": _rate(_loop(network, decoded), 1, seconds, 32)}
        address, server = _started(["-m", "mlflow", "server", "--workers", "1"], "/health", Path(place))
        os.environ["MLFLOW_TRACKING_URI"] = address
        _register(model_folder, network)
        served, ours = _started(["-c", CXR, "serve", "cxr-overall@champion"], "/ready", Path(place))
        for callers in (1, 8, 64):
            found[f"cxr serve, {callers} callers"] = _rate(_files(served, contents), callers, seconds)
        _end(ours)
        command = ["-m", "mlflow", "models", "serve", "-m", "models:/bare/1", "--env-manager", "local"]
        plain, theirs = _started(command, "/ping", Path(place))
        for callers in (1, 8):
            found[f"mlflow models serve, bare, {callers} callers"] = _rate(_arrays(plain, decoded), callers, seconds)
        _end(theirs)
        _end(server)
    print(f"{classifier} at {side}, {len(os.sched_getaffinity(0))} cores\n")
    print(f"{'':42}{'images/s':>10}{'p50 ms':>10}{'p99 ms':>10}{'lost':>6}")
    for name, told in found.items():
        print(f"{name:42}{told['rate']:10.1f}{told['p50']:10.1f}{told['p99']:10.1f}{told['lost']:6d}")
    loop = found["bare loop, 32 at a time"]["rate"]
    print(f"\ncxr serve with 64 callers reaches {found['cxr serve, 64 callers']['rate'] / loop:.2f} of the loop")
    print(json.dumps({"classifier": classifier, "side": side, "found": found}))


def _model(place: Path, classifier: str, side: int, decoded: list[Any]) -> tuple[Path, Any]:
    """The files of a model with random weights."""
    import pandas as pd

    from cxr_tasks.artifacts import write_json
    from cxr_tasks.classifiers.networks import build_network
    from cxr_tasks.serving.model_facts import FileReading, ModelFacts, Usual
    from cxr_tasks.serving.predictor import NETWORK_FILE
    from cxr_tasks.serving.typical import TypicalImages

    settings = resolve("quick", {"classifiers": {"names": [classifier], "image_size": side}})
    network = build_network(classifier, settings, np.stack([each.images[0] for each in decoded]), 0).full
    folder, thumbnails = place / "files", np.stack([each.thumbnail for each in decoded])
    folder.mkdir()
    network.save(folder / NETWORK_FILE)
    typical = TypicalImages.of(thumbnails)
    typical.save(folder / ModelFacts.TYPICAL)
    rows = pd.DataFrame({"width": [each.width for each in decoded], "height": [each.height for each in decoded]})
    facts = ModelFacts(
        classes=tuple(settings.data.classes),
        image_size=side,
        reading=FileReading.of(settings.data),
        usual=Usual.of(typical, thumbnails, rows, 0.02),
    )
    write_json(folder / ModelFacts.FILE, facts)
    return folder, network


def _register(folder: Path, network: Any) -> None:
    import mlflow

    from cxr_tasks import tracking
    from cxr_tasks.steps.served_facts import log_trained

    with mlflow.start_run():
        version = tracking.register(log_trained(folder), "cxr-overall", {})
        tracking.set_alias(version.name, "champion", version.version)
        bare = mlflow.tensorflow.log_model(network, name="bare", pip_requirements=["keras"])
    tracking.register(bare.model_uri, "bare", {})


def _started(arguments: list[str], path: str, place: Path) -> tuple[str, subprocess.Popen[bytes]]:
    """A server on a free port of loopback, once it answers at ``path``."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [PYTHON, *arguments, "--host", "127.0.0.1", "--port", str(port)]
    if arguments[2] == "server":
        command += ["--backend-store-uri", f"sqlite:///{place}/mlflow.db", "--artifacts-destination", str(place / "a")]
    # `mlflow models serve` looks for uvicorn beside the interpreter.
    environment = {**os.environ, "PATH": f"{PYTHON.parent}{os.pathsep}{os.environ['PATH']}"}
    with (place / f"{port}.log").open("wb") as log:
        server = subprocess.Popen(command, cwd=place, env=environment, stdout=log, stderr=log, start_new_session=True)
    address, deadline = f"http://127.0.0.1:{port}", time.monotonic() + STARTING_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            if httpx.get(address + path, timeout=5).status_code == 200:
                return address, server
        except httpx.HTTPError:
            pass
        time.sleep(0.3)
    raise SystemExit((place / f"{port}.log").read_text()[-3000:])


def _end(server: subprocess.Popen[bytes]) -> None:
    os.killpg(server.pid, signal.SIGTERM)
    server.wait(timeout=60)


def _loop(network: Any, decoded: list[Any]) -> Callable[[httpx.Client, int], bool]:
    """Runs the network on 32 images, as compiled as it can be."""
    import tensorflow as tf

    pixels = tf.constant(np.stack([each.images[0] for each in decoded])[:32, ..., None], tf.float32)
    run = tf.function(lambda x: network(x, training=False))

    def ask(_: httpx.Client, number: int) -> bool:
        return len(run(pixels).numpy()) == 32

    return ask


def _files(address: str, contents: list[bytes]) -> Callable[[httpx.Client, int], bool]:
    def ask(client: httpx.Client, number: int) -> bool:
        answer = client.post(f"{address}/image", content=contents[number % len(contents)])
        return answer.status_code == 200 and not answer.json()["error"]

    return ask


def _arrays(address: str, decoded: list[Any]) -> Callable[[httpx.Client, int], bool]:
    bodies = [json.dumps({"inputs": each.images[0][None, ..., None].tolist()}) for each in decoded]
    kind = {"content-type": "application/json"}

    def ask(client: httpx.Client, number: int) -> bool:
        return (
            client.post(f"{address}/invocations", content=bodies[number % len(bodies)], headers=kind).status_code == 200
        )

    return ask


def _rate(ask: Callable[[httpx.Client, int], bool], callers: int, seconds: float, images: int = 1) -> dict[str, Any]:
    """Calls by so many callers at once, after a second that does not count."""
    times: list[float] = []
    lost, began = [0], time.monotonic() + 1
    until = began + seconds

    def call(first: int) -> None:
        with httpx.Client(timeout=120) as client:
            number = first
            while (begun := time.monotonic()) < until:
                good = ask(client, number)
                number += 1
                if begun >= began:
                    times.append(time.monotonic() - begun)
                    lost[0] += not good

    threads = [threading.Thread(target=call, args=(7 * place,)) for place in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    spent = time.monotonic() - began
    p50, p99 = np.percentile(times, [50, 99]) * 1000
    return {"rate": images * len(times) / spent, "p50": float(p50), "p99": float(p99), "lost": lost[0]}


if __name__ == "__main__":
    given = sys.argv[1:] + ["vgg16", "64", "20"][len(sys.argv) - 2 :]
    main(Path(given[0]), given[1], int(given[2]), float(given[3]))
