"""A training step of CovidGAN at the recipe's size: the report's wiring against this project's compiled step.

    python benchmarks/gan_step.py [--steps 1] [--repeats 3] [--width 1.0] [--size 112] [--batch 64]

(a) the report's wiring: ``generator.predict`` for the fakes, ``train_on_batch`` of D on real and on fakes, then of
the stacked GAN, NumPy in between; (b) one compiled function with both optimisers; (c) the same with XLA; (d) the same
in bfloat16, with XLA where (c) beat (b). All train the same networks on batches of the same size. Each has a process
of its own; measurements are interleaved and never two at once. Each figure is the median of the repeats after a
warm-up. A way that is slower than (a) in its first measurement is not repeated. Processors without instructions for
bfloat16 take many times as long, so (d) is left out there. ``--only`` insists.

The share of the machine is FLOP/s of the recipe's step over the float32 FLOP/s of a 2048³ matrix product on it.
A step is counted by layer (a multiply and an add are two): forward ×1, gradient of the weights ×1, gradient of the
inputs ×1; G forward and backward 3, D on real and on fake 2 × 3, D forward and back to the images 2. The report's
wiring passes through G once more and gets no credit for it.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

from cxr_tasks.config import GanSettings, resolve
from cxr_tasks.gan.device import on_device
from cxr_tasks.gan.networks import build_discriminator, build_generator
from cxr_tasks.gan.step import CovidGan
from cxr_tasks.precision import AUTO, CPU_FLAGS, cpu_flags, gan_in_bfloat16

CLASSES = 3
NAMES = {
    "paper": "report's wiring",
    "fused": "one compiled step",
    "xla": "with XLA",
    "bf16": "in bfloat16",
}
# What a measuring process has built.
_prepared: list[Callable[[int], None]] = []


def main() -> None:
    """Measure, print a table, and end with one JSON object."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--steps", type=int, default=1, help="steps a measurement")
    arguments.add_argument("--repeats", type=int, default=3, help="measurements of each")
    arguments.add_argument("--width", type=float, default=1.0, help="1.0 is the recipe's networks")
    arguments.add_argument("--size", type=int, default=112, help="side of the images")
    arguments.add_argument("--batch", type=int, default=64)
    arguments.add_argument("--only", nargs="*", default=None, help=f"some of: {' '.join(NAMES)}")
    given = arguments.parse_args()
    changes = {"width": given.width, "image_size": given.size, "batch_size": given.batch, "xla": False}
    settings = resolve("paper", {"gan": changes}).gan

    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (given.batch * 2, given.size, given.size), dtype=np.uint8)
    labels = rng.integers(0, CLASSES, len(pixels))
    peak = matmul_rate()
    work = step_flops(settings) * given.batch
    print(f"{hardware()}, {os.cpu_count()} cores; float32 matrix product {peak / 1e9:.0f} GFLOP/s")
    print(f"{given.size}x{given.size}, width {given.width}, batch {given.batch}: {work / 1e9:.0f} GFLOP a step")

    seconds: dict[str, list[float]] = {}
    with ExitStack() as stack:
        processes: dict[str, ProcessPoolExecutor] = {}
        for name in given.only or [
            name for name in NAMES if name != "bf16" or gan_in_bfloat16(AUTO) or cpu_flags() & CPU_FLAGS
        ]:
            started = time.perf_counter()
            processes[name] = stack.enter_context(ProcessPoolExecutor(1, multiprocessing.get_context("spawn")))
            with_xla = name == "xla" or (name == "bf16" and seconds.get("xla", [9e9]) < seconds.get("fused", [0.0]))
            changes = {"xla": with_xla, "mixed_precision": name == "bf16"}
            processes[name].submit(prepare, name, settings.model_copy(update=changes), pixels, labels).result()
            print(f"{NAMES[name]}: ready after {time.perf_counter() - started:.0f} s", flush=True)
            seconds[name] = [processes[name].submit(measure, given.steps).result()]
        for _ in range(given.repeats - 1):
            for name, process in processes.items():
                if seconds[name][0] <= seconds[next(iter(processes))][0]:
                    seconds[name].append(process.submit(measure, given.steps).result())

    print(f"{'way':<20}{'s/step':>8}{'images/s':>10}{'of matmul':>11}{'speed-up':>10}")
    medians = {name: statistics.median(found) for name, found in seconds.items()}
    first = medians[next(iter(medians))]
    for name, median in medians.items():
        share = work / median / peak
        print(f"{NAMES[name]:<20}{median:>8.2f}{given.batch / median:>10.1f}{share:>11.0%}{first / median:>10.2f}")
    best = min(medians, key=lambda name: medians[name])
    print(
        json.dumps(
            {
                "benchmark": "gan_step",
                "ratio": round(first / medians[best], 2),
                "best": best,
                "hardware": hardware(),
                "cores": os.cpu_count(),
                "width": given.width,
                "size": given.size,
                "batch": given.batch,
                "matmul_gflops": round(peak / 1e9, 1),
                "images_per_second": {name: round(given.batch / median, 2) for name, median in medians.items()},
                "share_of_matmul": {name: round(work / median / peak, 3) for name, median in medians.items()},
            }
        )
    )


def prepare(name: str, settings: GanSettings, pixels: np.ndarray, labels: np.ndarray) -> None:
    """Build one way of training in this process, and take a step for the compilation."""
    way = paper_wiring if name == "paper" else fused
    _prepared.append(way(settings, pixels, labels))
    _prepared[0](1)


def measure(steps: int) -> float:
    """Seconds a step of what this process has prepared."""
    started = time.perf_counter()
    _prepared[0](steps)
    return (time.perf_counter() - started) / steps


def paper_wiring(settings: GanSettings, pixels: np.ndarray, labels: np.ndarray) -> Callable[[int], None]:
    """Compile D, stack G on a D that does not train, and alternate ``train_on_batch``, as notebooks do."""
    size = {"classes": CLASSES, "image_size": settings.image_size, "width": settings.width}
    generator = build_generator(**size)
    discriminator = build_discriminator(settings.discriminator, dropout=settings.dropout, **size)
    losses = ["binary_crossentropy", "sparse_categorical_crossentropy"]
    batch = settings.batch_size
    real = pixels[..., None].repeat(3, axis=-1).astype("float32") / 127.5 - 1
    ones, zeros = np.ones((batch, 1), "float32"), np.zeros((batch, 1), "float32")
    rng = np.random.default_rng(0)

    discriminator.compile(keras.optimizers.Adam(settings.learning_rate, beta_1=settings.beta_1), losses)
    # Keras 3 settles which weights train when it traces a model's training function, at the first batch. So D must see
    # a batch before D is frozen for the stacked model. In the wiring's usual order D is frozen first, never trains, and
    # only a warning says so.
    discriminator.train_on_batch(real[:batch], [ones, labels[:batch, None]])
    discriminator.trainable = False
    latent, label = keras.Input((settings.latent_dim,)), keras.Input((1,), dtype="int32")
    stacked = keras.Model([latent, label], discriminator(generator([latent, label])))
    stacked.compile(keras.optimizers.Adam(settings.learning_rate, beta_1=settings.beta_1), losses)

    def run(steps: int) -> None:
        for _ in range(steps):
            chosen = rng.integers(0, len(real), batch)
            z, y = rng.normal(0, settings.latent_sd, (batch, settings.latent_dim)), rng.integers(0, CLASSES, (batch, 1))
            fake = generator.predict([z, y], verbose=0)
            discriminator.train_on_batch(real[chosen], [ones, labels[chosen, None]])
            discriminator.train_on_batch(fake, [zeros, y])
            z, y = rng.normal(0, settings.latent_sd, (batch, settings.latent_dim)), rng.integers(0, CLASSES, (batch, 1))
            stacked.train_on_batch([z, y], [ones, y])

    before = [[w.numpy() for w in model.weights if w.path.endswith("kernel")] for model in (generator, discriminator)]
    run(1)
    after = [[w.numpy() for w in model.weights if w.path.endswith("kernel")] for model in (generator, discriminator)]
    for old, new in zip(before, after, strict=True):
        assert all(not np.array_equal(a, b) for a, b in zip(old, new, strict=True)), "a network stands still"
    return run


def fused(settings: GanSettings, pixels: np.ndarray, labels: np.ndarray) -> Callable[[int], None]:
    """The project's own step, several to a call."""
    gan = CovidGan(settings, CLASSES, seed=0)
    images = on_device(pixels, labels)
    order = tf.constant(np.random.default_rng(0).integers(0, len(pixels), (16, settings.batch_size)), tf.int32)

    def run(steps: int) -> None:
        for first in range(0, steps, len(order)):
            gan.train_steps(*images, order, 0, min(len(order), steps - first))

    return run


def step_flops(settings: GanSettings) -> float:
    """FLOPs of a step for one image, counted as the module's docstring says."""
    size = {"classes": CLASSES, "image_size": settings.image_size, "width": settings.width}
    g, d = forward_flops(build_generator(**size)), forward_flops(build_discriminator(settings.discriminator, **size))
    return 3 * g + 2 * 3 * d + 2 * d


def forward_flops(model: keras.Model) -> float:
    """FLOPs of the convolutions and dense layers for one image; all else is less than a hundredth of them."""
    found = 0.0
    for layer in model.layers:
        kernel = getattr(layer, "kernel", None)
        if kernel is None:
            continue
        # A kernel is applied at each place of the output, a transposed one at each place of the input.
        places = layer.input.shape if isinstance(layer, keras.layers.Conv2DTranspose) else layer.output.shape
        found += 2.0 * np.prod(kernel.shape) * np.prod([side for side in places[1:-1]])
    return found


def matmul_rate(side: int = 2048, repeats: int = 7) -> float:
    """Float32 FLOP/s of a square matrix product, the best of some."""
    a, b = tf.random.normal((side, side)), tf.random.normal((side, side))
    product = tf.function(lambda a, b: tf.reduce_sum(a @ b))
    product(a, b).numpy()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        product(a, b).numpy()
        times.append(time.perf_counter() - started)
    return 2 * side**3 / min(times)


def hardware() -> str:
    """The name of the GPU, or of the processor where there is none."""
    if gpus := tf.config.list_physical_devices("GPU"):
        return str(tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU"))
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "CPU")


if __name__ == "__main__":
    main()
