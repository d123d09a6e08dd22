"""What serving costs beside the network alone: rates, times and CPU of ``cxr serve`` and of its peers in one run.

    python benchmarks/serving.py FOLDER [classifier] [side] [seconds]

FOLDER holds images as ``<Class>/images/*.png``. A classifier (``vgg16`` by default, with random weights, 64 pixels a
side) is registered in an MLflow server of the run's own, as this project does it and as a bare Keras model. Images of
the same files are answered by

- a bare loop of the network on pixels that are in memory, 32 at a time: the most that the network can do here,
- a loop that decodes the files in threads while the network computes: the most that any server of files can do here,
- ``cxr serve``, asked for files by 1, 8 and 64 callers,
- ``mlflow models serve`` of the bare Keras model, asked for decoded arrays by 1 and 8 callers.

The bare loop runs before and after each of the others, and each is held against the mean of the two. What counts is a
window of ``seconds`` (10 by default), and of ten times the median time of a call at least: all that is answered within
it. CPU is that of the loop or the server alone, so that its ratio holds on a machine with other work, where wall time
does not. One client of this process asks for all callers, on the same cores.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import numpy as np
import psutil

from cxr_tasks.config import resolve
from cxr_tasks.data.decode import decode

PYTHON = Path(sys.executable)
CXR = "from cxr_tasks.cli import app; app()"
FILES_ASKED, LOOP_BATCH = 64, 32
STARTING_SECONDS = 600
MEDIANS_A_WINDOW = 10
Found = dict[str, Any]


def main(folder: Path, classifier: str, side: int, seconds: float) -> None:
    """Measure, print a table, and end with one JSON object."""
    os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "TF_CPP_MIN_LOG_LEVEL": "3"}
    paths = sorted(folder.glob("*/images/*.png"))
    contents = [path.read_bytes() for path in paths[:: max(1, len(paths) // FILES_ASKED)][:FILES_ASKED]]
    decoded = [decode(content, "", [side]) for content in contents]
    found: dict[str, Found] = {}
    with tempfile.TemporaryDirectory() as place:
        model_folder, network = _model(Path(place), classifier, side, decoded)
        run = _compiled(network)
        pixels = np.stack([each.images[0] for each in decoded])[:LOOP_BATCH]
        loops = [_loop(lambda: run(pixels), seconds)]

        def between(name: str, measure: Callable[[], Found]) -> None:
            told = measure()
            loops.append(_loop(lambda: run(pixels), seconds))
            around = {key: (loops[-2][key] + loops[-1][key]) / 2 for key in ("rate", "cpu_ms")}
            found[name] = told | {
                "of_loop_wall": told["rate"] / around["rate"],
                "of_loop_cpu": around["cpu_ms"] / told["cpu_ms"],
            }

        between("loop that decodes", lambda: _loop(_decoding(run, contents, side), seconds))
        with _started(["-m", "mlflow", "server", "--workers", "1"], "/health", Path(place)) as (address, _):
            os.environ["MLFLOW_TRACKING_URI"] = address
            _register(model_folder, network)
            serve = ["-c", CXR, "serve", "cxr-overall@champion"]
            with _started(serve, "/ready", Path(place)) as (served, ours):
                ask = _files(served, contents)
                for callers in (1, 8, 64):
                    between(f"cxr serve, {callers} callers", partial(_asked, ask, callers, seconds, ours))
            bare = ["-m", "mlflow", "models", "serve", "-m", "models:/bare/1", "--env-manager", "local"]
            with _started(bare, "/ping", Path(place)) as (plain, theirs):
                ask = _arrays(plain, decoded)
                for callers in (1, 8):
                    name = f"mlflow models serve, bare, {callers} callers"
                    between(name, partial(_asked, ask, callers, seconds, theirs))
    mean = {key: float(np.mean([loop[key] for loop in loops])) for key in loops[0]}
    _print_table({f"bare loop, {LOOP_BATCH} at a time, mean of {len(loops)}": mean, **found}, classifier, side)
    told = {"classifier": classifier, "side": side, "cores": len(os.sched_getaffinity(0)), "loops": loops}
    print(json.dumps({**told, "found": found}))


def _print_table(found: dict[str, Found], classifier: str, side: int) -> None:
    print(f"{classifier} at {side}, {len(os.sched_getaffinity(0))} cores\n")
    heads = ("images/s", "of loop", "CPU ms", "of loop", "p50 ms", "p99 ms", "lost")
    print(f"{'':42}" + "".join(f"{head:>10}" for head in heads))
    for name, told in found.items():
        shown = [told["rate"], told.get("of_loop_wall", 1), told["cpu_ms"], told.get("of_loop_cpu", 1)]
        shown += [told["p50"], told["p99"]]
        cells = [f"{value:10.{digits}f}" for value, digits in zip(shown, (1, 2, 1, 2, 1, 1), strict=True)]
        print(f"{name:42}" + "".join(cells) + f"{told['lost']:10.0f}")
    print()


def _model(place: Path, classifier: str, side: int, decoded: list[Any]) -> tuple[Path, Any]:
    """The files of a model with random weights."""
    import pandas as pd

    from cxr_tasks.artifacts import write_json
    from cxr_tasks.classifiers.networks import build_network
    from cxr_tasks.data.typical import TypicalImages
    from cxr_tasks.keras_file import NETWORK_FILE
    from cxr_tasks.serving.model_facts import FileReading, ModelFacts, Usual

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
        version = tracking.register(log_trained(folder, folder), "cxr-overall", {})
        tracking.set_alias(version.name, "champion", version.version)
        bare = mlflow.tensorflow.log_model(network, name="bare", pip_requirements=["keras"])
    tracking.register(bare.model_uri, "bare", {})


@contextmanager
def _started(arguments: list[str], path: str, place: Path) -> Iterator[tuple[str, psutil.Process]]:
    """A server on a free port of loopback, once it answers at ``path``. It is ended with the block."""
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
    try:
        address, deadline = f"http://127.0.0.1:{port}", time.monotonic() + STARTING_SECONDS
        while not _answers(address + path):
            if time.monotonic() > deadline or server.poll() is not None:
                raise SystemExit((place / f"{port}.log").read_text()[-3000:])
            time.sleep(0.3)
        yield address, psutil.Process(server.pid)
    finally:
        # A server that ended by itself may have left nobody.
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)


def _answers(address: str) -> bool:
    try:
        return httpx.get(address, timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def _compiled(network: Any) -> Callable[[np.ndarray], int]:
    """Runs the network on (n, S, S) uint8, as compiled as it can be; returns n."""
    import tensorflow as tf

    run = tf.function(lambda x: network(x, training=False))
    return lambda pixels: len(run(tf.constant(pixels[..., None], tf.float32)).numpy())


def _decoding(run: Callable[[np.ndarray], int], contents: list[bytes], side: int) -> Callable[[], int]:
    """The loop that decodes: the next batch while the network computes."""
    threads = ThreadPoolExecutor(len(os.sched_getaffinity(0)))

    def begin() -> list[Any]:
        return [threads.submit(decode, content, "", [side]) for content in contents[:LOOP_BATCH]]

    ahead = begin()

    def go_on() -> int:
        nonlocal ahead
        ready, ahead = ahead, begin()
        return run(np.stack([each.result().images[0] for each in ready]))

    return go_on


def _loop(run: Callable[[], int], seconds: float) -> Found:
    """What a loop in this process does."""
    begun = time.perf_counter()
    run()
    seconds = max(seconds, MEDIANS_A_WINDOW * (time.perf_counter() - begun))
    times, images, cpu, begun = [], 0, time.process_time(), time.perf_counter()
    while time.perf_counter() < begun + seconds:
        one = time.perf_counter()
        images += run()
        times.append(time.perf_counter() - one)
    spent, cpu = time.perf_counter() - begun, time.process_time() - cpu
    return _told(images, spent, cpu, times, 0)


Ask = Callable[[aiohttp.ClientSession, int], Awaitable[bool]]


def _asked(ask: Ask, callers: int, seconds: float, server: psutil.Process) -> Found:
    """What a server answers to so many callers, each of whom asks again as soon as it is answered."""
    return asyncio.run(_ask_it(ask, callers, seconds, server))


async def _ask_it(ask: Ask, callers: int, seconds: float, server: psutil.Process) -> Found:
    answered: list[tuple[float, float, bool]] = []
    ended = asyncio.Event()

    async def call(client: aiohttp.ClientSession, number: int) -> None:
        while not ended.is_set():
            begun = time.perf_counter()
            good = await ask(client, number)
            answered.append((time.perf_counter(), time.perf_counter() - begun, good))
            number += 1

    limits = aiohttp.TCPConnector(limit=callers)
    async with aiohttp.ClientSession(connector=limits, timeout=aiohttp.ClientTimeout(600)) as client:
        calling = [asyncio.create_task(call(client, 7 * place)) for place in range(callers)]
        # All callers have been answered twice before anything counts.
        while len(answered) < 2 * callers + 3:
            await asyncio.sleep(0.05)
        seconds = max(seconds, MEDIANS_A_WINDOW * float(np.median([took for _, took, _ in answered])))
        begun, cpu = time.perf_counter(), _cpu_seconds(server)
        await asyncio.sleep(seconds)
        until, cpu = time.perf_counter(), _cpu_seconds(server) - cpu
        ended.set()
        await asyncio.gather(*calling)
    counted = [(took, good) for when, took, good in answered if begun <= when < until]
    lost = sum(not good for _, good in counted)
    return _told(len(counted), until - begun, cpu, [took for took, _ in counted], lost)


def _told(images: int, seconds: float, cpu: float, times: list[float], lost: int) -> Found:
    p50, p99 = (float(value) for value in np.percentile(times, [50, 99]) * 1000)
    told = {"rate": images / seconds, "cpu_ms": 1000 * cpu / images, "p50": p50, "p99": p99}
    return {**told, "lost": lost, "seconds": seconds, "images": images}


def _cpu_seconds(server: psutil.Process) -> float:
    """Of a process and of those that it has started."""
    used = [process.cpu_times() for process in (server, *server.children(recursive=True))]
    return sum(each.user + each.system for each in used)


def _files(address: str, contents: list[bytes]) -> Ask:
    async def ask(client: aiohttp.ClientSession, number: int) -> bool:
        async with client.post(f"{address}/image", data=contents[number % len(contents)]) as answer:
            return answer.status == 200 and not (await answer.json())["error"]

    return ask


def _arrays(address: str, decoded: list[Any]) -> Ask:
    bodies = [json.dumps({"inputs": each.images[0][None, ..., None].tolist()}).encode() for each in decoded]
    kind = {"content-type": "application/json"}

    async def ask(client: aiohttp.ClientSession, number: int) -> bool:
        body = bodies[number % len(bodies)]
        async with client.post(f"{address}/invocations", data=body, headers=kind) as answer:
            await answer.read()
            return answer.status == 200

    return ask


if __name__ == "__main__":
    given = sys.argv[1:] + ["vgg16", "64", "10"][len(sys.argv) - 2 :]
    main(Path(given[0]), given[1], int(given[2]), float(given[3]))
