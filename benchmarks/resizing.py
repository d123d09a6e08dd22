"""How much of a classifier's accuracy hangs on how images are resized, and how much of that is scanner and not lung.

    python benchmarks/resizing.py [--source FOLDER] [--images 600] [--size 112] [--epochs 12] [--seeds 2]

Trains the custom CNN once for each ``data.resize`` and seed, on the same images in the same splits. Two tables:

*The sample* (where ``--source`` names a folder of real X-rays): accuracy on its test images. Real collections come from
other machines for each class, and no figure of theirs tells lungs from machines.

*A generated pair of sites*: phantoms whose images go through one of two scanners, one grainy and sharp, one smooth. At
the first site 90 % of one class and 10 % of the others come from the grainy one. The second site, which is never
trained on, uses both for all classes alike. What is better inside and not outside is the scanner.

Accuracies are means over the seeds, with the lowest and the highest.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pandas as pd
from PIL import Image
from scipy import ndimage

from cxr_tasks.classifiers.features import ArmFeatures, FrozenTrunk
from cxr_tasks.classifiers.networks import build_network
from cxr_tasks.classifiers.training import fit_classifier
from cxr_tasks.config import Settings, resolve
from cxr_tasks.data.dataset import Images, select
from cxr_tasks.data.decode import HowToRead
from cxr_tasks.data.ingest import USED, join_shards, read_shard
from cxr_tasks.data.layout import lay_out
from cxr_tasks.data.phantoms import write_phantoms
from cxr_tasks.data.resizing import FILTERS
from cxr_tasks.data.scan import entries_of, scan_files
from cxr_tasks.data.sources import open_source
from cxr_tasks.data.split import assign_splits
from cxr_tasks.image_settings import ResizeName

CLASSES = ["COVID", "Normal", "Viral Pneumonia"]
GRAINY_CLASS = "COVID"


def write_site(folder: Path, images: int, seed: int, *, confounded: bool) -> None:
    """Phantoms of one site, as many of each class, each through one of its two scanners."""
    write_phantoms(folder, dict.fromkeys(CLASSES, images // len(CLASSES)), seed=seed)
    rng = np.random.default_rng(seed)
    for label in CLASSES:
        share = (0.9 if label == GRAINY_CLASS else 0.1) if confounded else 0.5
        for path in sorted((folder / label / "images").glob("*.png")):
            scanned(np.asarray(Image.open(path).convert("L")), rng, grainy=rng.random() < share).save(path)


def scanned(values: np.ndarray, rng: np.random.Generator, *, grainy: bool) -> Image.Image:
    """An X-ray as one of the scanners gives it."""
    seen = ndimage.gaussian_filter(values.astype(np.float32), 0.5 if grainy else 1.2)
    if grainy:
        seen += 0.7 * (seen - ndimage.gaussian_filter(seen, 2))
    seen += rng.normal(0, 7 if grainy else 1.5, seen.shape)
    return Image.fromarray(np.clip(seen, 0, 255).astype(np.uint8))


def read_source(source: Path, settings: Settings, resize: ResizeName, folder: Path) -> pd.DataFrame:
    """Pixels at the CNN's side in ``folder``, and the manifest with its splits."""
    data, size = settings.data, settings.classifiers.image_size
    opened = open_source(str(source))
    files = scan_files(opened, lay_out(opened.entries(), data.classes, data.folders, str(source)), {})
    how = HowToRead.of(data.model_copy(update={"resize": resize}))
    read_shard(opened.fetch(entries_of(files)), files, [size], folder, how)
    manifest, near = join_shards([folder], files, data.near_duplicates, folder)
    manifest = manifest[manifest["status"] == USED].reset_index(drop=True)
    manifest["split"] = assign_splits(manifest, data.split, settings.seeds.split, near=near)["split"]
    return manifest


def accuracies(settings: Settings, images: dict[str, Images], seed: int) -> dict[str, float]:
    """Of a CNN that is trained on ``train``, chosen on ``validation``, and tested on all others."""
    train, classes = images["train"], list(settings.data.classes)
    held_out = {name: each for name, each in images.items() if name != "train"}
    network = build_network("cnn", settings, train.pixels, seed)
    features = ArmFeatures(FrozenTrunk(None), train, held_out, None, seed)
    fit_classifier(network, features, train, held_out, classes, settings.classifiers, seed=seed)
    asked = {name: each for name, each in held_out.items() if name != "validation"}
    return {
        name: float((network.full.predict(each.pixels[..., None], verbose=0).argmax(axis=1) == each.labels).mean())
        for name, each in asked.items()
    }


def measure(settings: Settings, inside: Path, outside: Path | None, seeds: int) -> dict[str, Any]:
    """Mean, lowest and highest accuracy by filter and test set."""
    size, classes = settings.classifiers.image_size, list(settings.data.classes)
    found: dict[str, Any] = {}
    for resize in FILTERS:
        with tempfile.TemporaryDirectory() as place:
            images = {}
            folder, other = Path(place, "inside"), Path(place, "outside")
            folder.mkdir()
            manifest = read_source(inside, settings, resize, folder)
            for split in ("train", "validation", "test"):
                images["internal" if split == "test" else split] = select(manifest, [folder], split, size, classes)
            if outside is not None:
                other.mkdir()
                rows = read_source(outside, settings, resize, other).assign(split="test")
                images["external"] = select(rows, [other], "test", size, classes)
        runs = pd.DataFrame([accuracies(settings, images, seed) for seed in range(seeds)])
        found[resize] = {
            name: {"mean": runs[name].mean(), "low": runs[name].min(), "high": runs[name].max()} for name in runs
        }
    return found


def main() -> None:
    """Measure, print a table, and end with one JSON object."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--source", type=Path)
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=2)
    given = parser.parse_args()
    changed = {"image_size": given.size, "epochs": given.epochs, "names": ["cnn"]}
    settings = resolve("quick", {"classifiers": changed, "gan": {"image_size": 32}, "data": {"classes": CLASSES}})
    found: dict[str, Any] = {}
    if given.source is not None:
        found["sample"] = measure(settings, given.source, None, given.seeds)
    with tempfile.TemporaryDirectory() as place:
        inside, outside = Path(place, "first"), Path(place, "second")
        write_site(inside, given.images, 1, confounded=True)
        write_site(outside, given.images // 2, 2, confounded=False)
        found["sites"] = measure(settings, inside, outside, given.seeds)
    rows = [
        {
            "images": images,
            "resize": resize,
            "tested": tested,
            **{name: round(value, 3) for name, value in each.items()},
        }
        for images, by_filter in found.items()
        for resize, by_test in by_filter.items()
        for tested, each in by_test.items()
    ]
    print(pd.DataFrame(rows).to_string(index=False))
    print(json.dumps({**vars(given), "source": str(given.source or ""), **found}))


if __name__ == "__main__":
    main()
