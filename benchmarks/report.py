"""Measures how long the step ``write_report`` takes, part by part, and how large its files are.

    python -m benchmarks.report [--seeds 5] [--test-images 1500]

Three classifiers are trained with so many seeds, so that five seeds make 15 pairs. Nothing is trained: predictions are
drawn at random, and the artifacts are those that the tests use. Each pair has its curves, its reliability diagram and a
gallery of noise.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from typing import Any

import numpy as np

from cxr_tasks import steps
from cxr_tasks.artifacts import Gallery, Pair, SyntheticSet
from tests.steps import handles

CLASSIFIERS = ["vgg16", "resnet50", "cnn"]
# As many pixels, and about as many bytes, as a gallery of six images of 224 pixels.
GALLERY = (1900, 1000)


def noise() -> bytes:
    """A picture as large as a gallery."""
    import io

    from PIL import Image

    rng = np.random.default_rng(0)
    low = rng.integers(0, 256, (GALLERY[0] // 20, GALLERY[1] // 20, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(low).resize(GALLERY[::-1], Image.Resampling.BICUBIC).save(buffer, "PNG")
    return buffer.getvalue()


def run_of(seeds: int, test_images: int) -> dict[str, Any]:
    """What the step is given: every part of a run, with ``seeds`` times three pairs."""
    chosen = {"classifiers": {"names": CLASSIFIERS}, "seeds": {"classifiers": list(range(seeds))}}
    run = handles.begin(chosen | {"arms": {"baseline": "none", "compared": ["synthetic"]}})
    dataset = handles.dataset(per_class={"train": 6, "validation": 60, "test": test_images // 3})
    compared, galleries, picture = [], [], noise()
    for seed in range(seeds):
        for name in CLASSIFIERS:
            pair = Pair(classifier=name, arm="synthetic", seed=seed, against="none")
            arms = [handles.trained_arm(run, dataset, name, arm, seed) for arm in ("none", "synthetic")]
            compared.append(steps.compare(run, dataset, pair, [arms]))
            shown = Gallery(comparison=compared[-1].ref, shown=6)
            galleries.append(handles.keep(shown, lambda into: (into / Gallery.PICTURE).write_bytes(picture)))
    grid = handles.keep(
        SyntheticSet(counts=dict.fromkeys(handles.CLASSES, 50), dropped={}),
        lambda into: (into / SyntheticSet.GRID).write_bytes(picture),
    )
    parts = {"gan": None, "judgement": None, "synthetic": grid, "leaks": [], "features": [], "ruled": None}
    return {"run": run, "dataset": dataset, "comparisons": compared, "galleries": galleries, **parts}


def main(seeds: int, test_images: int) -> None:
    """Measure, print a table, and end with one JSON object."""
    with tempfile.TemporaryDirectory() as place:
        os.environ |= {"CXR_STORE": place, "CXR_MLFLOW": "off"}
        given = run_of(seeds, test_images)
        started, busy = time.perf_counter(), time.process_time()
        report = steps.write_report(**given)
        seconds, processor = time.perf_counter() - started, time.process_time() - busy
        data = [path.stat().st_size for path in (report.folder() / report.DATA).iterdir()]
        files = {path.name: path.stat().st_size for path in sorted(report.folder().iterdir()) if path.is_file()}
        files[f"{report.DATA}, {len(data)} files"] = sum(data)
    pairs = len(report.pairs)
    print(f"{pairs} pairs, {test_images:,} test images: {seconds:.1f} s, of which {processor:.1f} s of a processor")
    for name, size in files.items():
        print(f"  {name:<40}{size / 1e6:>8.2f} MB")
    told = {"pairs": pairs, "test_images": test_images, "seconds": round(seconds, 2)}
    told |= {"processor_seconds": round(processor, 2), "files": files}
    print(json.dumps({"benchmark": "report", **told}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--test-images", type=int, default=1500)
    asked = parser.parse_args()
    main(asked.seeds, asked.test_images)
