"""Classical augmentation: one composed warp of a gray batch, against Keras' ImageDataGenerator on the same images.

    python benchmarks/augment.py [--size 224] [--images 256]

Both make the augmented images of whole batches on one core, from images that are in memory already: gray bytes here,
three float channels there, as a notebook would have them. Ranges are those of profile paper. Each is measured several
times in turn, and the fastest counts.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image
from tensorflow.keras.preprocessing.image import ImageDataGenerator

from cxr_tasks.classifiers.augmentation import augment
from cxr_tasks.config import resolve
from cxr_tasks.data.phantoms import write_phantoms

REPEATS = 5
BATCH = 32


def main(size: int, count: int) -> None:
    """Measure, print a table, and end with one JSON object."""
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {0})
    how = resolve("paper").augmentation
    with tempfile.TemporaryDirectory() as scratch:
        write_phantoms(Path(scratch, "phantoms"), {"Normal": count}, image_size=size)
        pixels = np.stack([np.asarray(Image.open(path)) for path in sorted(Path(scratch).rglob("images/*.png"))])
    ids = [f"{i:064x}" for i in range(count)]
    channels = np.repeat(pixels[..., None], 3, axis=-1).astype(np.float32)
    generator = ImageDataGenerator(
        rotation_range=how.rotation,
        shear_range=math.degrees(math.atan(how.shear)),
        zoom_range=how.zoom,
        horizontal_flip=how.horizontal_flip,
        width_shift_range=how.width_shift,
        height_shift_range=how.height_shift,
        fill_mode="nearest",
        rescale=1 / 255,
    )
    flow = generator.flow(channels, batch_size=BATCH, shuffle=False)

    def ours() -> None:
        for view, start in enumerate(range(0, count, BATCH)):
            augment(pixels[start : start + BATCH], ids[start : start + BATCH], how, view, seed=0)

    def theirs() -> None:
        for index in range(len(flow)):
            flow[index]

    ways: dict[str, Callable[[], None]] = {"ImageDataGenerator": theirs, "one composed warp": ours}
    seconds = {name: math.inf for name in ways}
    for _ in range(REPEATS):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            seconds[name] = min(seconds[name], time.perf_counter() - started)
    rates = {name: count / taken for name, taken in seconds.items()}
    ratio = rates["one composed warp"] / rates["ImageDataGenerator"]

    print(f"{count} images at {size} px on one core, batches of {BATCH}, fastest of {REPEATS}")
    print(f"{'':<22}{'images/s':>10}{'ms an image':>13}{'ratio':>8}")
    for name, rate in rates.items():
        print(f"{name:<22}{rate:>10.0f}{1000 / rate:>13.2f}{rate / rates['ImageDataGenerator']:>8.1f}")
    figures = {name: round(rate, 1) for name, rate in rates.items()}
    print(json.dumps({"benchmark": "augment", "size": size, "images_per_second": figures, "ratio": round(ratio, 2)}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--images", type=int, default=256)
    options = parser.parse_args()
    main(options.size, options.images)
