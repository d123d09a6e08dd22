"""Does the judge tell an untrained generator, a briefly trained one and one that copies apart, on real X-rays?

    python benchmarks/gan_verdict.py /path/to/dataset [--epochs 8] [--generator generator.keras]

Works at the size and with the thresholds of profile ``quick``. The copier returns training images with a little
noise. A saved generator may take the place of the brief training; it must have the profile's GAN settings.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pandas as pd

from cxr_tasks.config import resolve
from cxr_tasks.data.dataset import Images, select
from cxr_tasks.data.ingest import USED, join_shards, read_shard
from cxr_tasks.data.layout import lay_out
from cxr_tasks.data.scan import entries_of, scan_files
from cxr_tasks.data.sources import open_source
from cxr_tasks.data.split import assign_splits
from cxr_tasks.gan.filtering import copies
from cxr_tasks.gan.judging import Judge
from cxr_tasks.gan.sampling import sample_images
from cxr_tasks.gan.step import CovidGan
from cxr_tasks.gan.training import fit_gan

JITTER_SD = 2  # gray levels
COLUMNS = (
    "kid",
    "kid_sd",
    "kid_floor",
    "kid_untrained",
    "kid_ratio",
    "fid",
    "fid_floor",
    "density",
    "density_floor",
    "coverage",
    "coverage_floor",
    "memorised",
    "memorised_held_out",
    "repeated",
    "repeated_training",
    "accuracy_score",
    "accuracy_score_real",
)


def main(source: str, epochs: int | None, generator: str | None) -> None:
    """Measure three generators, print a table and a verdict for each, and end with one JSON object."""
    settings = resolve("quick", {"gan": {"epochs": epochs}} if epochs else {})
    classes, seed = list(settings.data.classes), settings.seeds.judge
    train, validation = read(source, settings.gan.image_size)
    print(f"{len(train)} training and {len(validation)} validation images at {settings.gan.image_size} px")

    labels = Judge.labels(settings)
    untrained = CovidGan(settings.gan, len(classes), settings.seeds.gan).generator
    made = {"untrained": sample_images(untrained, labels, settings.gan, seed, "judged")}
    started = time.perf_counter()
    if generator:
        trained, how = keras.models.load_model(generator, compile=False), Path(generator).name
    else:
        with tempfile.TemporaryDirectory() as scratch:
            trained = fit_gan(
                train.pixels, train.labels, len(classes), settings.gan, settings.seeds.gan, Path(scratch)
            ).generator
        how = f"{settings.gan.epochs} epochs in {time.perf_counter() - started:.0f} s"
    made["brief"] = sample_images(trained, labels, settings.gan, seed, "judged")
    made["copier"] = copied(train, labels, seed)

    judge = Judge(
        settings, train, validation, sample_images(untrained, labels, settings.gan, seed, "untrained reference")
    )
    figures = {}
    verdicts = {}
    pd.set_option("display.width", 200)
    for name, pixels in made.items():
        started = time.perf_counter()
        quality, verdicts[name] = judge.judge(pixels)
        frame = quality.to_frame().set_index("class")
        title = f"{name} ({how})" if name == "brief" else name
        print(f"\n{title}: {judge.extractor.name}; {time.perf_counter() - started:.0f} s")
        sizes = ["training", "held_out", "synthetic", "untrained", "drawn"]
        print(pd.concat([frame[sizes].T, frame[list(COLUMNS)].T.round(3).astype(object)]).to_string())
        near_copies = float(copies(pixels, train.pixels, settings.data.near_duplicates).mean())
        print(f"near-copies that the filter would drop: {near_copies:.1%}")
        figures[name] = {**quality.metrics(), "near_copies": near_copies}

    print()
    for name, judged in verdicts.items():
        print(f"{name}: {judged.kind}. {judged.sentence}")
        for reason in (*judged.reasons, *judged.not_judged):
            print(f"  - {reason}")
    print(
        json.dumps(
            {
                "benchmark": "gan_verdict",
                "cores": os.cpu_count(),
                "extractor": judge.extractor.name,
                "images": {"training": len(train), "validation": len(validation), "synthetic": len(labels)},
                "brief": how,
                "verdicts": {name: judged.kind for name, judged in verdicts.items()},
                "figures": {
                    name: {key: round(value, 4) for key, value in one.items()} for name, one in figures.items()
                },
            }
        )
    )


def read(source: str, size: int) -> tuple[Images, Images]:
    """The training and the validation images of a folder."""
    settings = resolve("quick")
    classes = list(settings.data.classes)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        opened = open_source(source)
        files = scan_files(opened, lay_out(opened.entries(), classes, settings.data.folders, source), {})
        read_shard(opened.fetch(entries_of(files)), files, [size], folder)
        manifest, near = join_shards([folder], files, settings.data.near_duplicates, folder)
        manifest = manifest[manifest["status"] == USED].reset_index(drop=True)
        manifest["split"] = assign_splits(manifest, settings.data.split, settings.seeds.split, near=near)["split"]
        train, validation = (select(manifest, [folder], name, size, classes) for name in ("train", "validation"))
    return train, validation


def copied(train: Images, labels: np.ndarray, seed: int) -> np.ndarray:
    """(n, S, S) uint8: for each of ``labels`` a training image of that class with a little noise, drawn at random."""
    rng = np.random.default_rng(seed)
    chosen = [rng.choice(np.flatnonzero(train.labels == label)) for label in labels]
    noise = rng.normal(0, JITTER_SD, (len(labels), *train.pixels.shape[1:]))
    return np.clip(np.rint(train.pixels[chosen] + noise), 0, 255).astype(np.uint8)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("--epochs", type=int, help="of the brief training; the profile's where not given")
    parser.add_argument("--generator", help="a saved generator (.keras) to judge instead")
    chosen = parser.parse_args()
    main(chosen.source, chosen.epochs, chosen.generator)
