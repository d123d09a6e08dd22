"""Reading a data set of the full release's size against a bare loop of Pillow and SHA-256 on the same cores.

    python benchmarks/ingest.py [images]

Generates chest phantoms (15,153 by default) and reads them as ``cxr_data`` does: the scan, the shards, the manifest.
As many shards are read at a time as there are cores, each in a process of its own, as Airflow runs them. Then the data
are read again unchanged. All of it is done from a folder and from a moto server that speaks S3.

The bare loop reads, hashes, decodes and resizes each file to the same two sides in a thread a core, and keeps nothing.
Half of the loop runs before the shards and half after, so that both see the same machine. What each task costs in
Airflow and MLflow is not in these figures.
"""

from __future__ import annotations

import hashlib
import io
import json
import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pandas as pd
from PIL import Image

from cxr_tasks.config import resolve
from cxr_tasks.data.ingest import join_shards, read_shard
from cxr_tasks.data.layout import Layout, lay_out
from cxr_tasks.data.phantoms import write_phantoms
from cxr_tasks.data.scan import entries_of, listing_key, scan_files, shard_numbers
from cxr_tasks.data.sources import Source, open_source

FILES = "files.parquet"
IMAGES = 15_153
SHARES = {"COVID": 3616 / IMAGES, "Normal": 10_192 / IMAGES, "Viral Pneumonia": 1345 / IMAGES}
ANATOMIES = 300
SETTINGS = resolve("paper")
SIZES = SETTINGS.image_sizes
CORES = len(os.sched_getaffinity(0))


def generate(folder: Path, images: int) -> None:
    """Phantoms of a few anatomies, each image framed, turned, exposed and grained in its own way.

    Among 15,153 of these images some 38,000 pairs of hashes lie within 2 bits of each other by coincidence. Among
    15,146 images of the real release 39,603 do.
    """
    counts = {name: round(images * share) for name, share in SHARES.items()}
    counts["Normal"] += images - sum(counts.values())
    with tempfile.TemporaryDirectory() as scratch:
        write_phantoms(Path(scratch, "base"), dict.fromkeys(counts, ANATOMIES))
        with ProcessPoolExecutor(CORES) as workers:
            for name, count in counts.items():
                (folder / name / "images").mkdir(parents=True)
                base = Path(scratch, "base", name, "images")
                jobs = [(base / f"{name}-{n % ANATOMIES + 1}.png", folder / name / "images", n) for n in range(count)]
                list(workers.map(vary, jobs, chunksize=64))


def vary(job: tuple[Path, Path, int]) -> None:
    """Write one image of :func:`generate`."""
    base, folder, number = job
    rng = np.random.default_rng([number, len(folder.parent.name)])
    image = Image.open(base)
    turn, zoom = np.deg2rad(rng.uniform(-8, 8)), np.exp(rng.normal(0, 0.15, (2, 1)))
    warp = zoom * [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    centre = np.array(image.size) / 2
    offset = centre + rng.normal(0, 14, 2) - warp @ centre
    matrix = (*warp[0], offset[0], *warp[1], offset[1])
    framed = image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    values = np.asarray(framed, np.float32) * rng.uniform(0.8, 1.1) + rng.uniform(-5, 15)
    across, down = (rng.normal(0, 30) * np.linspace(-1, 1, side) for side in image.size)
    values += rng.normal(0, 2, values.shape) + across + down[:, None]
    picture = Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))
    picture.save(folder / f"{folder.parent.name}-{number + 1}.png")


def bare(paths: list[Path]) -> float:
    """Seconds of the named peer."""

    def one(path: Path) -> int:
        content = path.read_bytes()
        hashlib.sha256(content).hexdigest()
        gray = Image.open(io.BytesIO(content)).convert("L")
        return sum(np.asarray(gray.resize((s, s), Image.Resampling.BILINEAR)).nbytes for s in SIZES)

    started = time.perf_counter()
    with ThreadPoolExecutor(CORES) as threads:
        for _ in threads.map(one, paths):
            pass
    return time.perf_counter() - started


def listed(source: str) -> tuple[Source, Layout]:
    """Open ``source`` and list its files by class."""
    opened = open_source(source)
    return opened, lay_out(opened.entries(), SETTINGS.data.classes, SETTINGS.data.folders, source)


def first(source: str, folder: Path) -> dict[str, Any]:
    """Read ``source`` for the first time, as the tasks of ``cxr_data`` do one after the other."""
    started = time.perf_counter()
    opened, layout = listed(source)
    files = scan_files(opened, layout, {})
    files["shard"] = shard_numbers(files, SETTINGS.data.shard_images)
    files.to_parquet(folder / FILES, index=False)
    scanned = time.perf_counter()
    root = opened.fetch(entries_of(files))
    fetched = time.perf_counter()
    paths = [root / path for path in files["path"]]
    shards, jobs = [], []
    for number, rows in files.groupby("shard"):
        shards.append(folder / f"shard-{number}")
        shards[-1].mkdir()
        jobs.append((root, rows.reset_index(drop=True), SIZES, shards[-1]))
    with ProcessPoolExecutor(CORES, multiprocessing.get_context("spawn")) as tasks:
        list(tasks.map(abs, range(CORES)))
        peer = bare(paths[::2])
        begun = time.perf_counter()
        peaks = list(tasks.map(shard_task, jobs))
        reading = time.perf_counter() - begun
        peer += bare(paths[1::2])
    begun = time.perf_counter()
    manifest, near = join_shards(shards, files, SETTINGS.data.near_duplicates, folder)
    joining = time.perf_counter() - begun
    return {
        "seconds": fetched - started + reading + joining,
        "scan": scanned - started,
        "fetch": fetched - scanned,
        "shards": reading,
        "manifest": joining,
        "bare": peer,
        "images": int((manifest["status"] == "used").sum()),
        "rejected": int((manifest["status"] != "used").sum()),
        "near_duplicates": len(near),
        "fetched": getattr(opened, "fetched", 0),
        # As if every process had its highest memory at the same moment.
        "peak_mib": peak_mib() + CORES * max(peaks),
    }


def shard_task(job: tuple[Path, pd.DataFrame, list[int], Path]) -> float:
    """Read one shard. Returns the highest memory of its process so far."""
    read_shard(*job)
    return peak_mib()


def peak_mib() -> float:
    """The highest memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def again(source: str, folder: Path, last_key: str) -> dict[str, Any]:
    """Look at ``source`` once more; everything is as it was, so the listing decides and nothing is read."""
    started = time.perf_counter()
    opened, layout = listed(source)
    assert listing_key(layout) == last_key, "the listing changed although nothing was touched"
    pd.read_parquet(folder / FILES)
    return {"seconds": time.perf_counter() - started, "fetched": getattr(opened, "fetched", 0)}


def key_of(source: str) -> str:
    """What tells whether anything in ``source`` has changed."""
    return listing_key(listed(source)[1])


def in_process(work: Any, *arguments: Any) -> Any:
    """Do ``work`` in a process of its own, so that each part has its own memory."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as worker:
        return worker.submit(work, *arguments).result()


@contextmanager
def bucket(folder: Path, scratch: Path) -> Iterator[str]:
    """The data set in a bucket of a moto server in a process of its own."""
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(scratch / "port",), daemon=True)
    server.start()
    while not (scratch / "port").exists():
        time.sleep(0.1)
    os.environ |= {
        "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{(scratch / 'port').read_text()}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    client = boto3.client("s3")
    client.create_bucket(Bucket="xrays")
    with ThreadPoolExecutor(4) as threads:
        paths = [path for path in folder.rglob("*") if path.is_file()]
        list(
            threads.map(
                lambda path: client.put_object(
                    Bucket="xrays", Key=f"set/{path.relative_to(folder).as_posix()}", Body=path.read_bytes()
                ),
                paths,
            )
        )
    yield "s3://xrays/set"
    server.terminate()


def bare_listing() -> float:
    """Seconds that boto3 alone takes to list the bucket: a second look cannot be faster."""
    started = time.perf_counter()
    for _ in boto3.client("s3").get_paginator("list_objects_v2").paginate(Bucket="xrays"):
        pass
    return time.perf_counter() - started


def serve(port_file: Path) -> None:
    """Serve S3 until ended, and say where."""
    import logging

    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    aside = port_file.with_suffix(".new")
    aside.write_text(str(server.get_host_and_port()[1]))
    aside.rename(port_file)
    time.sleep(86_400)


def main(images: int) -> None:
    """Measure, print a table, and end with one JSON object."""
    with tempfile.TemporaryDirectory() as name:
        scratch, folder = Path(name), Path(name, "source")
        os.environ["CXR_CACHE"] = str(scratch / "cache")
        print(f"Generating {images:,} images of 299 × 299 …", flush=True)
        generate(folder, images)
        figures: dict[str, dict[str, Any]] = {}
        for place, kind in (("folder", "folder"), ("s3", "S3")):
            out = scratch / f"{place}-out"
            out.mkdir()
            if place == "folder":
                figures[place] = in_process(first, str(folder), out)
                figures[place]["again"] = in_process(again, str(folder), out, key_of(str(folder)))
            else:
                with bucket(folder, scratch) as address:
                    figures[place] = in_process(first, address, out)
                    figures[place]["again"] = in_process(again, address, out, key_of(address))
                    figures[place]["again"]["bare_listing"] = bare_listing()
            shutil.rmtree(out)
            show(kind, images, figures[place])
    own = figures["folder"]
    ratio = own["bare"] / own["seconds"]
    print(f"Bare loop    {images / own['bare']:8.0f} images/s, {own['bare']:.1f} s, {CORES} threads")
    print(f"Ratio of the rates: {ratio:.2f}")
    print(
        json.dumps(
            {
                "benchmark": "ingest",
                "images": images,
                "cores": CORES,
                "ratio": round(ratio, 3),
                "peak_mib": round(own["peak_mib"]),
                "rescan_ratio": round(own["seconds"] / own["again"]["seconds"], 1),
                "folder": own,
                "s3": figures["s3"],
            }
        )
    )


def show(kind: str, images: int, figures: dict[str, Any]) -> None:
    """Print one source's figures."""
    second = figures["again"]
    parts = ", ".join(f"{part} {figures[part]:.1f}" for part in ("scan", "fetch", "shards", "manifest"))
    print(
        f"{kind:<12} {images / figures['seconds']:8.0f} images/s, {figures['seconds']:.1f} s ({parts}), "
        f"peak {figures['peak_mib']:.0f} MiB, "
        f"{figures['near_duplicates']} near-duplicate pairs, {figures['fetched']:,} objects fetched\n"
        f"{'':<12} again: {second['seconds']:.2f} s, {figures['seconds'] / second['seconds']:.0f} times faster, "
        f"{second['fetched']:,} objects fetched"
        + (f"; boto3's bare listing takes {second['bare_listing']:.2f} s" if "bare_listing" in second else ""),
        flush=True,
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else IMAGES)
