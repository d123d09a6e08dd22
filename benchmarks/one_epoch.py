"""One epoch of each network at the recipe's size on a folder of real X-rays, and its parameters against the recipe.

    python benchmarks/one_epoch.py /path/to/dataset

An epoch of a classifier is the classical arm's: every training image augmented, passed through the frozen
backbone, and trained on, plus the validation images. Backbones have random weights, which cost the same.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from cxr_tasks.classifiers.features import ArmFeatures, FrozenTrunk
from cxr_tasks.classifiers.networks import build_network
from cxr_tasks.classifiers.training import fit_classifier
from cxr_tasks.config import resolve
from cxr_tasks.data.dataset import select
from cxr_tasks.data.ingest import USED, join_shards, read_shard
from cxr_tasks.data.layout import lay_out
from cxr_tasks.data.scan import entries_of, scan_files
from cxr_tasks.data.sources import open_source
from cxr_tasks.data.split import assign_splits
from cxr_tasks.gan.step import CovidGan

RECIPE = {
    "vgg16": 17_926_467,
    "resnet50": 23_858_435,
    "cnn": 3_043_695,
    "generator": 22_300_508,
    "five_conv": 1_672_900,
}


def main(source: str) -> None:
    """Measure, print a table, and end with one JSON object."""
    settings = resolve("paper", {"classifiers": {"epochs": 1, "weights": {"default": "random"}}})
    classes, size = list(settings.data.classes), settings.classifiers.image_size
    figures: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        opened = open_source(source)
        files = scan_files(opened, lay_out(opened.entries(), classes, settings.data.folders, source), {})
        read_shard(opened.fetch(entries_of(files)), files, [size, settings.gan.image_size], folder)
        manifest, near = join_shards([folder], files, settings.data.near_duplicates, folder)
        manifest = manifest[manifest["status"] == USED].reset_index(drop=True)
        given = assign_splits(manifest, settings.data.split, settings.seeds.split, near=near)
        manifest["split"] = given["split"]
        images = {name: select(manifest, [folder], name, size, classes) for name in ("train", "validation")}
        small = select(manifest, [folder], "train", settings.gan.image_size, classes)

    train = images.pop("train")
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {len(train)} training images")
    print(f"{'network':<12}{'parameters':>12}{'recipe':>12}{'size':>6}{'seconds an epoch':>18}{'images/s':>10}")
    for name in settings.classifiers.names:
        started = time.perf_counter()
        network = build_network(name, settings, train.pixels, seed=0)
        parameters = network.full.count_params()
        features = ArmFeatures(FrozenTrunk(network.fast_trunk), train, images, settings.augmentation, 0)
        fit_classifier(network, features, train, images, classes, settings.classifiers, seed=0)
        report(figures, name, parameters, size, time.perf_counter() - started, len(train))

    gan = CovidGan(settings.gan, len(classes), seed=0)
    order, batch = np.random.default_rng(0).permutation(len(small)), settings.gan.batch_size
    labels = small.labels.astype(np.int32)
    gan.train_step(small.pixels[:batch], labels[:batch])  # compiles
    started = time.perf_counter()
    steps = len(small) // batch
    for step in range(steps):
        chosen = order[step * batch : (step + 1) * batch]
        gan.train_step(small.pixels[chosen], labels[chosen])
    seconds = time.perf_counter() - started
    report(figures, "generator", gan.generator.count_params(), settings.gan.image_size, seconds, steps * batch)
    report(figures, "five_conv", gan.discriminator.count_params(), settings.gan.image_size, seconds, steps * batch)
    print(json.dumps({"benchmark": "one_epoch", "cores": os.cpu_count(), "networks": figures}))


def report(figures: dict, name: str, parameters: int, size: int, seconds: float, images: int) -> None:
    """Print one row and keep it."""
    assert parameters == RECIPE[name], f"{name} has {parameters} parameters, the recipe {RECIPE[name]}"
    rate = images / seconds
    print(f"{name:<12}{parameters:>12,}{RECIPE[name]:>12,}{size:>6}{seconds:>18.1f}{rate:>10.1f}", flush=True)
    figures[name] = {"parameters": parameters, "seconds": round(seconds, 1), "images_per_second": round(rate, 1)}


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
