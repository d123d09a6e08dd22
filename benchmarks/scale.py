"""Memory and time of ingest, features and trainings at several sizes: memory must stay, and time grow with the images.

    python benchmarks/scale.py [--sizes 15000 150000] [--folder FOLDER] [--only STEP …] [--picture FILE.png]

Generates chest phantoms of 64 pixels a side and takes them through the steps, without Airflow and MLflow. Each step
runs in a process of its own, so that its peaks are its own. ``ingest`` reads all shards one after the other.

Three peaks are measured. ``anonymous`` is what the process holds and nobody can take from it; ``pss`` adds its share of
mapped files that lie in memory at the moment, sampled ten times a second from ``smaps_rollup``. ``rss`` is the highest
``ru_maxrss``, which counts mapped pages that the system may drop at any time.

Steps that hold a table of all images (``scan``, ``manifest``, ``validate``, ``split``) grow with it, and the claim is
of the others. The peer of the largest size is the smallest one, in the same run. Where other programs run, the seconds
of the processor count and those on the clock do not. The picture shows these and the anonymous memory of each step at
each size, beside what grows in a straight line.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

SIDE = 64
SHARES = {"COVID": 0.24, "Normal": 0.67, "Viral Pneumonia": 0.09}
# As many images of one anatomy at any size: pairs of near-duplicates then grow with the images and not with n².
IMAGES_OF_AN_ANATOMY = 16
FORM: dict[str, Any] = {
    "profile": "quick",
    "settings": {
        "classifiers": {"names": ["cnn", "resnet50"], "image_size": 32, "epochs": 1},
        "gan": {"image_size": 32, "width": 0.1, "epochs": 1, "batch_size": 64},
        "judge": {"image_size": 32},
        "synthetic": {"counts": {"COVID": 150, "Viral Pneumonia": 150}},
        "data": {"near_duplicates": {"hash_bits": 2}},
    },
}
SECONDS_BETWEEN_SAMPLES = 0.1
TIMES, PEAKS = ("seconds", "processor"), ("anonymous", "pss", "rss")
MOST_TIME, MOST_MEMORY = 10.5, 1.2


def generate(folder: Path, images: int) -> None:
    """Write phantoms of fewer anatomies, each framed, turned, exposed and grained in its own way."""
    import numpy as np
    from PIL import Image

    from cxr_tasks.data.phantoms import write_phantoms

    counts = {name: round(images * share) for name, share in SHARES.items()}
    counts["Normal"] += images - sum(counts.values())
    whole = folder.with_name(f"{folder.name}-unfinished")
    grain = np.random.default_rng(0).normal(0, 2, 2**20).astype(np.float32)
    lines = np.linspace(-1, 1, SIDE, dtype=np.float32)
    with tempfile.TemporaryDirectory() as scratch:
        anatomies = {name: -(-count // IMAGES_OF_AN_ANATOMY) for name, count in counts.items()}
        write_phantoms(Path(scratch, "base"), anatomies, image_size=SIDE)
        for name, count in counts.items():
            drawn = Path(scratch, "base", name, "images")
            base = [Image.open(drawn / f"{name}-{n + 1}.png").convert("L") for n in range(anatomies[name])]
            (whole / name / "images").mkdir(parents=True)
            rng = np.random.default_rng(len(name))
            turns, zooms = np.deg2rad(rng.uniform(-8, 8, count)), np.exp(rng.normal(0, 0.15, (count, 2, 1)))
            warps = zooms * np.stack([[np.cos(turns), -np.sin(turns)], [np.sin(turns), np.cos(turns)]]).transpose(
                2, 0, 1
            )
            offsets = SIDE / 2 + rng.normal(0, SIDE / 20, (count, 2)) - warps.sum(axis=2) * SIDE / 2
            matrices = np.concatenate([warps, offsets[:, :, None]], axis=2).reshape(count, 6)
            gains, levels = rng.uniform(0.8, 1.1, count), rng.uniform(-5, 15, count)
            slopes, grains = rng.normal(0, 30, (count, 2)), rng.integers(0, len(grain) - SIDE**2, count)
            for number in range(count):
                framed = base[number % len(base)].transform(
                    (SIDE, SIDE), Image.Transform.AFFINE, matrices[number].tolist(), Image.Resampling.BILINEAR
                )
                grays = np.asarray(framed) * np.float32(gains[number]) + np.float32(levels[number])
                across, down = slopes[number].astype(np.float32)
                grays += grain[grains[number] : grains[number] + SIDE**2].reshape(SIDE, SIDE)
                grays += across * lines + down * lines[:, None]
                picture = Image.fromarray(grays.clip(0, 255).astype(np.uint8))
                picture.save(whole / name / "images" / f"{name}-{number + 1}.png", compress_level=0)
    whole.rename(folder)


class Run:
    """The steps of one size. What each returns lies in a file, where the processes of later steps find it."""

    def __init__(self, folder: Path, images: int) -> None:
        """Of ``images`` images, which lie below ``folder``."""
        self.source, self.handles = folder / f"images-{images}", folder / f"handles-{images}"
        self.handles.mkdir(exist_ok=True)
        os.environ |= {"CXR_STORE": str(folder / f"store-{images}"), "CXR_CACHE": str(folder / "cache")}
        os.environ["CXR_MLFLOW"] = "off"

    def context(self, step: str) -> Any:
        """What the steps of a DAG run share, with ``step`` made anew."""
        from cxr_tasks import steps

        return steps.configure("cxr_training", "scale", FORM).model_copy(update={"force": (step,)})

    def keep(self, name: str, handles: Any) -> None:
        """Keep one or more handles for later steps."""
        many = handles if isinstance(handles, list) else [handles]
        told = [handle.model_dump(mode="json", exclude={"forced"}) for handle in many]
        (self.handles / f"{name}.json").write_text(json.dumps(told))

    def kept(self, name: str, kind: Any) -> Any:
        """The handles that a step before returned."""
        return [kind.model_validate(told) for told in json.loads((self.handles / f"{name}.json").read_text())]

    def scan(self) -> None:
        """List and hash the files."""
        from cxr_tasks import steps

        self.keep("scan", steps.scan(self.context("scan"), str(self.source)))

    def ingest(self) -> None:
        """Read all shards."""
        from cxr_tasks import steps
        from cxr_tasks.artifacts import Scan

        run, (scanned,) = self.context("ingest"), self.kept("scan", Scan)
        self.keep("ingest", [steps.ingest(run, scanned, shard) for shard in steps.shards(run, scanned)])

    def manifest(self) -> None:
        """Join the shards, and look for duplicates."""
        from cxr_tasks import steps
        from cxr_tasks.artifacts import Scan, Shard

        (scanned,) = self.kept("scan", Scan)
        self.keep("manifest", steps.manifest(self.context("manifest"), scanned, self.kept("ingest", Shard)))

    def validate(self) -> None:
        """Hold the manifest against the expectations."""
        from cxr_tasks import steps
        from cxr_tasks.artifacts import Manifest

        self.keep("validate", steps.validate(self.context("validate"), *self.kept("manifest", Manifest)))

    def split(self) -> None:
        """Give every image its split."""
        from cxr_tasks import steps
        from cxr_tasks.artifacts import Manifest, Scan, Validation

        (joined,), (validated,) = self.kept("manifest", Manifest), self.kept("validate", Validation)
        divided = steps.split(self.context("split"), joined, validated)
        (scanned,) = self.kept("scan", Scan)
        self.keep("dataset", steps.dataset_of(scanned, joined, validated, divided))

    def features(self) -> None:
        """Run ResNet50 with random weights over all images."""
        from cxr_tasks import steps
        from cxr_tasks.artifacts import Dataset

        (dataset,) = self.kept("dataset", Dataset)
        self.keep("features", steps.extract_features(self.context("extract_features"), dataset, "resnet50"))

    def head(self) -> None:
        """Train the head of ResNet50 for one epoch, on its features."""
        self._train("resnet50")

    def cnn(self) -> None:
        """Train the CNN for one epoch, on pixels."""
        self._train("cnn")

    def _train(self, classifier: str) -> None:
        from cxr_tasks import steps
        from cxr_tasks.artifacts import Dataset, Features, Training

        (dataset,) = self.kept("dataset", Dataset)
        features = self.kept("features", Features) if classifier != "cnn" else []
        training = Training(classifier=classifier, arm="none", seed=0)
        self.keep(classifier, steps.train_arm(self.context("train_arm"), dataset, training, None, [features]))

    def gan(self) -> None:
        """Train a narrow GAN for one epoch."""
        from cxr_tasks import steps
        from cxr_tasks.artifacts import Dataset

        self.keep("gan", steps.train_gan(self.context("train_gan"), *self.kept("dataset", Dataset)))

    def judge(self) -> None:
        """Judge the images of the GAN."""
        from cxr_tasks import steps
        from cxr_tasks.artifacts import Dataset, Gan

        (dataset,), (gan,) = self.kept("dataset", Dataset), self.kept("gan", Gan)
        self.keep("judge", steps.judge(self.context("judge"), dataset, gan))


DATA = ("scan", "ingest", "manifest", "validate", "split")
# The last two must be asked for with --only.
STEPS = (*DATA, "features", "head", "cnn")
# Those that hold no table of all images.
CLAIMED = ("ingest", "features", "head", "cnn")
FURTHER = ("gan", "judge")


def measured(folder: Path, images: int, step: str) -> dict[str, float]:
    """Do one step. Returns its seconds on the clock and of the processor, and its peaks in MiB."""
    run, ended, peaks = Run(folder, images), threading.Event(), {"anonymous": 0.0, "pss": 0.0}

    def watch() -> None:
        while not ended.wait(SECONDS_BETWEEN_SAMPLES):
            for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
                kind = line.split(":")[0].lower()
                if kind in peaks:
                    peaks[kind] = max(peaks[kind], int(line.split()[1]) / 1024)

    watcher = threading.Thread(target=watch)
    watcher.start()
    started, worked = time.perf_counter(), time.process_time()
    try:
        getattr(run, step)()
    finally:
        seconds, processor = time.perf_counter() - started, time.process_time() - worked
        ended.set()
        watcher.join()
    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": seconds, "processor": processor, **peaks, "rss": highest}


def in_process(work: Callable[..., Any], *arguments: Any) -> Any:
    """Do ``work`` in a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as worker:
        return worker.submit(work, *arguments).result()


def draw(figures: dict[int, dict[str, dict[str, float]]], path: Path) -> None:
    """Draw time and memory against the number of images, on axes by powers of ten."""
    from matplotlib.figure import Figure

    sizes, marks = sorted(figures), "osD^vP*Xhd"
    figure = Figure(figsize=(11, 4.8), layout="constrained")
    for axes, kind, label in zip(
        figure.subplots(1, 2),
        ("processor", "anonymous"),
        ("seconds of a processor", "MiB that nobody can take"),
        strict=True,
    ):
        for number, step in enumerate(figures[sizes[0]]):
            values = [figures[size][step][kind] for size in sizes]
            axes.plot(sizes, values, marker=marks[number % len(marks)], label=step)
        first = max(figures[sizes[0]][step][kind] for step in figures[sizes[0]])
        axes.plot(sizes, [first * size / sizes[0] for size in sizes], "--", color="0.6", label="in a straight line")
        axes.set(xscale="log", yscale="log", xlabel="images", ylabel=label, xticks=sizes)
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axes.minorticks_off()
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    figure.savefig(path, dpi=140)


def main(sizes: list[int], folder: Path, only: list[str], picture: Path | None) -> None:
    """Measure, print a table, and end with one JSON object."""
    figures: dict[int, dict[str, dict[str, float]]] = {}
    heads = f"{'seconds':>9}{'processor':>11}{'anonymous':>11}{'pss':>8}{'rss':>8}"
    print(f"{'images':>9} {'step':<10}{heads}  MiB", flush=True)
    for images in sizes:
        if not (folder / f"images-{images}").is_dir():
            in_process(generate, folder / f"images-{images}", images)
        figures[images] = {}
        for step in only:
            found = in_process(measured, folder, images, step)
            figures[images][step] = found
            peaks = f"{found['anonymous']:>11.0f}{found['pss']:>8.0f}{found['rss']:>8.0f}"
            print(f"{images:>9,} {step:<10}{found['seconds']:>9.1f}{found['processor']:>11.1f}{peaks}", flush=True)
    if picture:
        draw(figures, picture)
    small, large = figures[sizes[0]], figures[sizes[-1]]
    parts = {step: [step] for step in only} | {"scan to split": [step for step in only if step in DATA]}
    ratios: dict[str, dict[str, float]] = {}
    print(f"\nRatios, {sizes[-1] / sizes[0]:.0f} times as many images:")
    for name, steps in parts.items():
        if not steps:
            continue
        ratios[name] = {
            **{kind: sum(large[s][kind] for s in steps) / sum(small[s][kind] for s in steps) for kind in TIMES},
            **{kind: max(large[s][kind] for s in steps) / max(small[s][kind] for s in steps) for kind in PEAKS},
        }
        told = ", ".join(f"{kind} {ratio:.2f}" for kind, ratio in ratios[name].items())
        print(f"{name:<14} {told}")
    claimed = [ratios[step] for step in CLAIMED if step in ratios]
    kept = all(each["processor"] <= MOST_TIME and each["anonymous"] <= MOST_MEMORY for each in claimed)
    rounded = {name: {kind: round(value, 3) for kind, value in each.items()} for name, each in ratios.items()}
    told = {
        str(images): {step: {kind: round(value, 1) for kind, value in each.items()} for step, each in of_size.items()}
        for images, of_size in figures.items()
    }
    print(json.dumps({"benchmark": "scale", "sizes": sizes, "kept": kept, "ratios": rounded, "figures": told}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[15_000, 150_000])
    parser.add_argument("--folder", type=Path, help="where images and artifacts stay; a temporary folder without it")
    parser.add_argument("--only", nargs="+", choices=[*STEPS, *FURTHER], default=list(STEPS))
    parser.add_argument("--picture", type=Path, help="a PNG of time and memory against the number of images")
    given = parser.parse_args()
    if given.folder is None:
        with tempfile.TemporaryDirectory() as name:
            main(given.sizes, Path(name), given.only, given.picture)
    else:
        given.folder.mkdir(parents=True, exist_ok=True)
        main(given.sizes, given.folder, given.only, given.picture)
    sys.stdout.flush()
