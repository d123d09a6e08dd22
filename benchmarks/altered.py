"""Copies of an X-ray as they come about when people export, crop, mark and share it: which are tied to their original?

    python benchmarks/altered.py FOLDER [rows]

FOLDER holds X-rays as ``<Class>/images/*.png``. Every sixth is altered in each way. All originals and the copies of
one kind are then searched for near-duplicates with the profile ``paper``. The peer is the search by hash and plain
correlation alone. With ``rows``, the search for neighbours is timed among that many points. They are drawn with the
covariance of the spectra of FOLDER, and the originals lie among them.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from cxr_tasks.config import resolve
from cxr_tasks.data.decode import THUMBNAIL_SIDE
from cxr_tasks.data.duplicates import altered, encoded_again, near_duplicates, search_points
from cxr_tasks.data.neighbours import nearest_points
from cxr_tasks.gan.filtering import fingerprints

EVERY = 6
NEAR = resolve("paper").data.near_duplicates


def read_gray(folder: Path) -> tuple[list[Image.Image], np.ndarray, list[str]]:
    """The images of ``<Class>/images``, their classes (n,) and their names, sorted by path."""
    paths = sorted(folder.glob("*/images/*.png"))
    images = [Image.open(path).convert("L") for path in paths]
    return images, np.array([path.parent.parent.name for path in paths]), [path.stem for path in paths]


def thumbnail_of(image: Image.Image) -> np.ndarray:
    """(32, 32) uint8, as ``cxr_tasks.data.decode`` makes it small."""
    side = (THUMBNAIL_SIDE, THUMBNAIL_SIDE)
    return np.asarray(image.resize(side, Image.Resampling.BILINEAR, reducing_gap=2.0))


def thumbnails_of(images: list[Image.Image]) -> np.ndarray:
    """(n, 32, 32) uint8."""
    return np.stack([thumbnail_of(image) for image in images])


def encoded_as_jpeg(image: Image.Image, quality: int) -> Image.Image:
    """``image`` after a JPEG file."""
    with BytesIO() as file:
        image.save(file, "JPEG", quality=quality)
        return Image.open(file).convert("L")


def cropped(image: Image.Image, left: float, top: float, right: float, bottom: float) -> Image.Image:
    """``image`` without these shares of its sides."""
    wide, high = image.size
    return image.crop((int(wide * left), int(high * top), wide - int(wide * right), high - int(high * bottom)))


def barred(image: Image.Image, gray: int, across: float, down: float = 0.0) -> Image.Image:
    """``image`` between bars of one gray value, shares of its sides wide."""
    wide, high = int(image.width * across), int(image.height * down)
    framed = Image.new("L", (image.width + 2 * wide, image.height + 2 * high), gray)
    framed.paste(image, (wide, high))
    return framed


def marked(image: Image.Image) -> Image.Image:
    """``image`` with text burnt into a corner."""
    copy, unit = image.copy(), image.width / 299
    draw = ImageDraw.Draw(copy)
    draw.rectangle((10 * unit, 10 * unit, 90 * unit, 40 * unit), fill=0)
    draw.text((15 * unit, 15 * unit), "PORTABLE AP", fill=255)
    return copy


def with_gamma(image: Image.Image, gamma: float) -> Image.Image:
    """``image`` with another gradation."""
    return image.point([round(255 * (value / 255) ** gamma) for value in range(256)])


ALTERATIONS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG quality 60": lambda image: encoded_as_jpeg(image, 60),
    "resized to 1024": lambda image: image.resize((1024, 1024), Image.Resampling.BICUBIC),
    "resized to 128": lambda image: image.resize((128, 128), Image.Resampling.BICUBIC),
    "brighter by 30": lambda image: image.point([min(255, value + 30) for value in range(256)]),
    "contrast × 1.6": lambda image: ImageEnhance.Contrast(image).enhance(1.6),
    "gamma 0.5": lambda image: with_gamma(image, 0.5),
    "gamma 2": lambda image: with_gamma(image, 2.0),
    "histogram equalised": ImageOps.equalize,
    "autocontrast 2 %": lambda image: ImageOps.autocontrast(image, cutoff=2),
    "inverted": ImageOps.invert,
    "flipped left-right": ImageOps.mirror,
    "flipped and inverted": lambda image: ImageOps.invert(ImageOps.mirror(image)),
    "rotated by 2°": lambda image: image.rotate(2, Image.Resampling.BILINEAR),
    "rotated by 5°": lambda image: image.rotate(5, Image.Resampling.BILINEAR),
    "cropped 2 % a side": lambda image: cropped(image, 0.02, 0.02, 0.02, 0.02),
    "cropped 5 % a side": lambda image: cropped(image, 0.05, 0.05, 0.05, 0.05),
    "cropped 5 % at the left": lambda image: cropped(image, 0.05, 0, 0, 0),
    "cropped 10 % a side": lambda image: cropped(image, 0.1, 0.1, 0.1, 0.1),
    "black bars 10 %": lambda image: barred(image, 0, 0.1),
    "white bars 10 %": lambda image: barred(image, 255, 0.1),
    "black frame 5 %": lambda image: barred(image, 0, 0.05, 0.05),
    "burnt-in text": marked,
    "cropped 2 %, flipped, JPEG": lambda image: encoded_as_jpeg(
        ImageOps.mirror(cropped(image, 0.02, 0.02, 0.02, 0.02)), 60
    ),
}


def tied(pairs: np.ndarray, originals: np.ndarray, count: int) -> tuple[int, list[list[int]]]:
    """How many of the copies, which follow ``count`` images, are tied to their originals; and the other new pairs."""
    new = pairs[pairs[:, 1] >= count]
    right = new[:, 0] == originals[new[:, 1] - count]
    return int(right.sum()), new[~right].tolist()


def search(known: np.ndarray, copies: dict[str, np.ndarray], originals: np.ndarray, rows: int) -> dict[str, Any]:
    """Search ``rows`` points for neighbours: seconds, memory, the share of copies with their original among them."""
    points, altered_points = search_points(known, np.concatenate(list(copies.values())))
    spread = np.linalg.cholesky(np.cov(points.T) + 1e-6 * np.eye(points.shape[1])).astype(np.float32)
    rng = np.random.default_rng(0)
    many = rng.standard_normal((rows, points.shape[1]), dtype=np.float32) @ spread.T
    many /= np.linalg.norm(many, axis=1, keepdims=True)
    many[: len(points)] = points
    found = nearest_points(altered_points, many, NEAR.neighbours)
    right = found[found[:, 1] == np.tile(originals, len(copies))[found[:, 0]], 0]
    hit = np.isin(np.arange(len(altered_points)), right).reshape(len(copies), -1).mean(axis=1)
    started, used = time.perf_counter(), time.process_time()
    nearest_points(many, many, NEAR.neighbours + 1)
    return {
        "rows": rows,
        "seconds": round(time.perf_counter() - started, 1),
        "cpu_seconds": round(time.process_time() - used, 1),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "proposed": {name: round(float(share), 3) for name, share in zip(copies, hit, strict=True)},
    }


def main(folder: Path, rows: int) -> None:
    """Measure, print a table, and end with one JSON object."""
    images, _, names = read_gray(folder)
    originals = np.arange(0, len(images), EVERY)
    known = thumbnails_of(images)
    hashes, _ = fingerprints(known)
    started, used = time.perf_counter(), time.process_time()
    real = altered(known, NEAR)
    seconds, cpu = time.perf_counter() - started, time.process_time() - used
    real = np.concatenate([real, encoded_again(hashes, known, NEAR)])
    print(f"{len(images):,} images, {len(images) * (len(images) - 1) // 2:,} pairs, of which are tied:")
    for one, other in real:
        print(f"    {names[one]} and {names[other]}")
    print(f"{cpu / len(images) * 1e6:.0f} µs of a core an image\n{'':<28}{'tied':>6}{'before':>8}   other pairs")
    figures, copies = {}, {}
    for name, alter in ALTERATIONS.items():
        copies[name] = thumbnails_of([alter(images[n]) for n in originals])
        both = np.concatenate([known, copies[name]])
        all_hashes = np.concatenate([hashes, fingerprints(copies[name])[0]])
        own, other = tied(near_duplicates(all_hashes, both, NEAR), originals, len(known))
        before, _ = tied(encoded_again(all_hashes, both, NEAR), originals, len(known))
        others = [f"{names[a]} and {names[originals[b - len(known)]]}" for a, b in other if a < len(known)]
        figures[name] = {"tied": own, "before": before, "of": len(originals), "others": others}
        print(f"{name:<28}{own:>6}{before:>8}   {', '.join(others)}", flush=True)
    told = {"benchmark": "altered", "images": len(images), "seconds": round(seconds, 2), "figures": figures}
    told |= {
        "real_pairs": [[names[one], names[other]] for one, other in real],
        "us_an_image": round(cpu / len(images) * 1e6),
    }
    if rows:
        told["search"] = search(known, copies, originals, rows)
        for name, share in told["search"]["proposed"].items():
            print(f"{name:<28}{share:>6.1%} find their original among {rows:,}")
        print({name: value for name, value in told["search"].items() if name != "proposed"})
    print(json.dumps(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
