"""Measures what units of work cost on this machine, with the project's own networks, in seconds instead of hours.

As many processes measure at once as tasks run at once, each with the threads of a task: what shares the cores of a
machine is slower than what has it alone. No weights are fetched, since random ones cost the same.

    python -m cxr_tasks.estimate.probe <request.json
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from cxr_tasks.config import Settings, merge
from cxr_tasks.errors import UserError, shown
from cxr_tasks.estimate.rates import Rate, task_threads
from cxr_tasks.estimate.work import (
    A_DRAW,
    A_FILE,
    A_JUDGED_IMAGE,
    A_STEP,
    A_TASK,
    ALL_DISTANCES,
    AN_AUGMENTATION,
    OF_BACKBONE,
    OF_HEAD,
    OF_WHOLE,
)
from cxr_tasks.progress import advance

if TYPE_CHECKING:
    import numpy as np

# How long one kind of work is repeated, and how often at most.
ENOUGH_SECONDS, MOST_ROUNDS = 0.8, 20
PROBED_IMAGES, FILES_READ = 64, 24
# Each call of Keras' fit takes a moment of its own, which a training pays once an epoch.
HEAD_IMAGES, WHOLE_BATCHES = 1024, 6
# What shares a process: the networks of the GAN and its judge, and the classifiers.
OF_THE_GAN = (A_STEP, A_DRAW, A_JUDGED_IMAGE, ALL_DISTANCES)
RANDOM_WEIGHTS = {"classifiers": {"weights": {"default": "random"}}, "judge": {"weights": "random"}}


def probe(names: Sequence[str], settings: Settings, drawn: int) -> dict[str, Rate]:
    """Measure rates in processes of their own.

    Args:
        names: Of the rates.
        settings: Of the run.
        drawn: Images a side that distances are computed on.

    Raises:
        UserError: A network of these settings cannot be run here, as where memory does not suffice.
    """
    threads = task_threads()[1]
    asked = [name for name in names if name != A_TASK]
    of_gan = [name for name in asked if name in OF_THE_GAN]
    groups = [group for group in (of_gan, [name for name in asked if name not in of_gan]) if group] or [[]]
    environment = {
        **os.environ,
        **dict.fromkeys(("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"), str(threads)),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
    }
    with ExitStack() as stack:
        running = [stack.enter_context(_process(group, settings, drawn, environment)) for group in groups]
        found: dict[str, Rate] = {}
        for number, (process, said) in enumerate(running, start=1):
            found |= _rates_of(process, said)
            advance("measure", number, len(groups))
    return found


@contextmanager
def _process(
    names: Sequence[str], settings: Settings, drawn: int, environment: Mapping[str, str]
) -> Iterator[tuple[subprocess.Popen[str], IO[bytes]]]:
    """A process that measures, with what it says on stderr; it ends with the block, as after Ctrl-C."""
    request = {
        "names": list(names),
        "settings": settings.model_dump(mode="json"),
        "drawn": drawn,
        "enough": ENOUGH_SECONDS,
    }
    pipe = subprocess.PIPE
    with tempfile.TemporaryFile() as said:
        command = [sys.executable, "-m", "cxr_tasks.estimate.probe"]
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=said, text=True, env=dict(environment))
        try:
            assert process.stdin is not None  # it is a pipe
            # One that could not even start says so on stderr.
            with suppress(BrokenPipeError), process.stdin as asked:
                json.dump(request, asked)
            yield process, said
        finally:
            process.kill()
            process.wait()


def _rates_of(process: subprocess.Popen[str], said: IO[bytes]) -> dict[str, Rate]:
    assert process.stdout is not None  # it is a pipe
    told = process.stdout.read().splitlines()
    if process.wait():
        said.seek(0)
        words = said.read().decode(errors="replace").strip().splitlines()
        why = words[-1] if words else f"it ended with status {process.returncode}"
        raise UserError(f"What a run costs on this machine could not be measured ({shown(why)}).")
    return {name: Rate(**rate) for name, rate in json.loads(told[-1]).items()}


class Stopwatch:
    """How long work takes where nothing else asks for the processor.

    Linux counts how long threads that could run had to wait for one. That is taken off, so that the figures of a busy
    machine are those of an idle one. Elsewhere nothing is taken off.
    """

    def __init__(self) -> None:
        """Start."""
        self._threads = task_threads()[1]
        self._began, self._worked, self._waited = time.perf_counter(), time.process_time(), waited_seconds()

    def seconds(self) -> float:
        """Since the start."""
        passed = time.perf_counter() - self._began
        worked = (time.process_time() - self._worked) / self._threads
        waited = (waited_seconds() - self._waited) / self._threads
        return max(passed - waited, min(passed, worked))


def waited_seconds(process: str = "self") -> float:
    """How long the threads of a process have waited for a processor, all together; 0 where nobody counts that."""
    waited = 0
    for told in Path(f"/proc/{process}/task").glob("*/schedstat"):
        # A thread may end meanwhile.
        with suppress(OSError, IndexError, ValueError):
            waited += int(told.read_text().split()[1])
    return waited / 1e9


def timed(call: Callable[[], Any], units: int, enough: float) -> Rate:
    """Call once to begin with, and then for a while.

    Args:
        call: Does so many units.
        units: How many.
        enough: Seconds of the while.
    """
    watch = Stopwatch()
    call()
    first = watch.seconds()
    watch, rounds = Stopwatch(), 0
    while rounds < MOST_ROUNDS and (rounds == 0 or watch.seconds() < enough):
        call()
        rounds += 1
    each = watch.seconds() / rounds
    return Rate(each / units, max(0.0, first - each), _held())


def _held() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class _Probe:
    """Measures one rate after another; what networks they share is built once."""

    def __init__(self, settings: Settings, drawn: int, enough: float) -> None:
        import numpy as np

        self.settings, self.drawn, self.enough = settings, drawn, enough
        self.classes = len(settings.data.classes)
        self.random = np.random.default_rng(0)
        self._gan: Any = None

    def measure(self, name: str) -> dict[str, Rate]:
        """The rate ``name``, and others that come with it."""
        kind, _, classifier = name.partition(" ")
        if kind in (OF_BACKBONE, OF_HEAD):
            return self._backbone(classifier)
        if kind == OF_WHOLE:
            return {name: self._whole(classifier)}
        measured = {
            A_STEP: self._step_of_gan,
            A_DRAW: self._draw,
            A_JUDGED_IMAGE: self._judge,
            ALL_DISTANCES: self._distances,
            AN_AUGMENTATION: self._augment,
            A_FILE: self._read,
        }
        return {name: measured[kind]()}

    def _noise(self, count: int, size: int) -> np.ndarray:
        import numpy as np

        return self.random.integers(0, 256, (count, size, size), np.uint8)

    @property
    def gan(self) -> Any:
        """Both networks."""
        if self._gan is None:
            from cxr_tasks.gan.step import CovidGan

            self._gan = CovidGan(self.settings.gan, self.classes, 0)
        return self._gan

    def _step_of_gan(self) -> Rate:
        import numpy as np

        from cxr_tasks.gan.device import on_device

        batch, size = self.settings.gan.batch_size, self.settings.gan.image_size
        watch = Stopwatch()
        gan = self.gan
        images = on_device(self._noise(batch, size), np.arange(batch) % self.classes)
        order = np.arange(batch, dtype=np.int32)[None]
        built = watch.seconds()
        rate = timed(lambda: gan.train_steps(*images, order, 0, 1), 1, self.enough)
        size = sum(int(np.prod(each.shape)) * each.dtype.size for each in gan.state())
        return Rate(rate.each, built + rate.start, rate.memory, size)

    def _draw(self) -> Rate:
        import numpy as np

        from cxr_tasks.gan.sampling import sample_images

        labels = np.arange(PROBED_IMAGES) % self.classes
        return timed(lambda: sample_images(self.gan.sampler, labels, self.settings.gan, 0), PROBED_IMAGES, self.enough)

    def _judge(self) -> Rate:
        from cxr_tasks.gan.extractor import Extractor

        noise, watch = self._noise(PROBED_IMAGES, self.settings.judge.image_size), Stopwatch()
        extractor = Extractor(self.settings.judge, noise, 0, self.settings.data.resize)
        built = watch.seconds()
        rate = timed(lambda: extractor.extract(noise), PROBED_IMAGES, self.enough)
        return Rate(rate.each, built + rate.start, rate.memory)

    def _distances(self) -> Rate:
        """All figures of the judge on features; of the many draws of each figure one is timed."""
        import numpy as np

        from cxr_tasks.gan.distances import Sample, density_and_coverage, frechet_distance, kernel_distance, recalls
        from cxr_tasks.gan.measuring import COVERAGE_DRAWS, FID_DRAWS, KID_DRAWS

        dimensions, seconds = 2048, 0.0
        for rows, number in ((1, self.drawn), (self.classes, max(10, self.drawn // self.classes))):
            x, y = (self.random.normal(0, 1, (number, dimensions)) for _ in range(2))
            for draws, measured in (
                (3 * KID_DRAWS, kernel_distance),
                (2 * FID_DRAWS, frechet_distance),
                (2 * COVERAGE_DRAWS, density_and_coverage),
            ):
                watch = Stopwatch()
                measured(x, y)  # type: ignore[operator]
                seconds += rows * draws * watch.seconds()
        labels = np.arange(self.classes * self.settings.judge.images_per_class) % self.classes
        values = self.random.normal(0, 1, (len(labels), dimensions)) + 0.1 * labels[:, None]
        sample, watch = Sample(values, labels), Stopwatch()
        recalls(sample, sample.of(0), self.classes)
        return Rate(seconds + 2 * watch.seconds(), 0.0, _held())

    def _backbone(self, name: str) -> dict[str, Rate]:
        import numpy as np

        from cxr_tasks.classifiers.features import FrozenTrunk
        from cxr_tasks.classifiers.networks import build_network

        noise, watch = self._noise(PROBED_IMAGES, self.settings.classifiers.image_size), Stopwatch()
        network = build_network(name, self.settings, noise, 0)
        built = watch.seconds()
        frozen = FrozenTrunk(network.fast_trunk)
        rate = timed(lambda: frozen(noise), PROBED_IMAGES, self.enough)
        features = frozen(noise)
        head = self._fit(network.head, np.concatenate([features] * (HEAD_IMAGES // PROBED_IMAGES)))
        weights = network.full.count_params() * 4
        return {
            f"{OF_BACKBONE} {name}": Rate(rate.each, built + rate.start, rate.memory, features[0].nbytes),
            # A training builds the whole network too, and runs the backbone over the blanked images of no other.
            f"{OF_HEAD} {name}": Rate(head.each, built + head.start, head.memory, weights),
        }

    def _whole(self, name: str) -> Rate:
        from cxr_tasks.classifiers.networks import build_network

        batch, watch = self.settings.classifiers.batch_size, Stopwatch()
        noise = self._noise(WHOLE_BATCHES * batch, self.settings.classifiers.image_size)
        network = build_network(name, self.settings, noise, 0)
        built = watch.seconds()
        rate = self._fit(network.head, noise[..., None])
        return Rate(rate.each, built + rate.start, rate.memory, network.full.count_params() * 4)

    def _fit(self, model: Any, shown: np.ndarray) -> Rate:
        import keras
        import numpy as np

        truth = keras.utils.to_categorical(np.arange(len(shown)) % self.classes, self.classes)
        model.compile(keras.optimizers.Adam(1e-4), loss="categorical_crossentropy", metrics=["accuracy"])
        batch = self.settings.classifiers.batch_size
        return timed(lambda: model.fit(shown, truth, batch_size=batch, verbose=0), len(shown), self.enough)

    def _augment(self) -> Rate:
        from cxr_tasks.classifiers.augmentation import augment

        noise = self._noise(PROBED_IMAGES, self.settings.classifiers.image_size)
        ids = [str(number) for number in range(PROBED_IMAGES)]
        return timed(lambda: augment(noise, ids, self.settings.augmentation, 0, 0), PROBED_IMAGES, self.enough)

    def _read(self) -> Rate:
        """Decode phantoms of the size of the Radiography Database. DICOM and larger images take longer."""
        from cxr_tasks.data.ingest import read_shard
        from cxr_tasks.data.layout import lay_out
        from cxr_tasks.data.phantoms import write_phantoms
        from cxr_tasks.data.scan import entries_of, scan_files
        from cxr_tasks.data.sources import open_source

        with tempfile.TemporaryDirectory(prefix="cxr-probe-") as scratch:
            images, shard = Path(scratch, "images"), Path(scratch, "shard")
            shard.mkdir()
            write_phantoms(images, {"COVID": FILES_READ // 2, "Normal": FILES_READ // 2})
            opened = open_source(str(images))
            files = scan_files(opened, lay_out(opened.entries(), ["COVID", "Normal"], {}, scratch), {})
            root = opened.fetch(entries_of(files))
            watch = Stopwatch()
            read_shard(root, files, self.settings.image_sizes, shard)
            return Rate(watch.seconds() / len(files), 0.0, _held())


def measure_on_stdin() -> None:
    """Measure what was asked for on stdin, and print it."""
    request, watch = json.load(sys.stdin), Stopwatch()
    settings = Settings.model_validate(merge(request["settings"], RANDOM_WEIGHTS))
    import keras  # noqa: F401
    import pandas  # noqa: F401
    import tensorflow  # noqa: F401

    import cxr_tasks.classifiers.training
    import cxr_tasks.data.dataset  # noqa: F401

    found = {A_TASK: Rate(watch.seconds(), 0.0, _held())}
    measured = _Probe(settings, request["drawn"], request["enough"])
    for name in request["names"]:
        if name not in found:
            found |= measured.measure(name)
    print(json.dumps({name: asdict(rate) for name, rate in found.items()}))


if __name__ == "__main__":
    measure_on_stdin()
