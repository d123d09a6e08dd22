"""Decodes each listed image once into a manifest row and packed pixels; sets aside what cannot be used.

A bad file is never fatal by itself: it becomes a row of the rejects table with a reason. Whether the rest
is good enough is decided by the expectations.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from cxr_tasks.data.sources import Listing, SourceFile

MANIFEST = "manifest.parquet"
REJECTS = "rejects.parquet"
MODES = {"L", "LA", "RGB", "RGBA"}
REJECT_COLUMNS = ["path", "label", "reason"]


def pixels_file(size: int) -> str:
    """Name of the packed pixels at ``size``: a ``.npy`` of (n, size, size) uint8, one row a manifest row."""
    return f"pixels-{size}.npy"


def ingest(listing: Listing, sizes: Sequence[int], folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Decode ``listing`` into ``folder``: manifest, rejects, packed pixels, and the rejected files.

    Args:
        sizes: sides in pixels to pack; each image is resized from the original once for each.
        folder: an existing folder to write to.

    Returns:
        The manifest (a row per usable image; ``image_id`` is the SHA-256 of the file, ``mean`` and
        ``contrast`` are the mean and standard deviation of the gray values, 0–255) and the rejects
        (``path``, ``label``, ``reason``).
    """
    sizes = sorted(set(sizes))
    # Filters belong to the whole process and not to a thread, so they are set around all of the threads.
    with warnings.catch_warnings(), ThreadPoolExecutor() as threads:
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        read = list(threads.map(lambda file: _read(listing.root / file.path, file, sizes), listing.files))

    rejected = [(file, result) for file, result in zip(listing.files, read, strict=True) if isinstance(result, str)]
    rejected += _duplicates(listing.files, {file.path for file, _ in rejected})
    reasons = {file.path: reason for file, reason in rejected}
    rows = []
    packed: dict[int, list[np.ndarray]] = {size: [] for size in sizes}
    for file, result in zip(listing.files, read, strict=True):
        if file.path in reasons or isinstance(result, str):
            continue
        facts, images = result
        rows.append({"image_id": file.sha256, "path": file.path, "label": file.label, **facts})
        for size, image in zip(sizes, images, strict=True):
            packed[size].append(image)

    manifest = pd.DataFrame(
        rows, columns=["image_id", "path", "label", "width", "height", "mode", "mean", "contrast"]
    ).merge(listing.metadata, on="path", how="left")
    manifest["group"] = manifest["patient"].where(manifest["patient"] != "", manifest["image_id"])
    manifest["provenance"] = "real"
    manifest.to_parquet(folder / MANIFEST, index=False)
    for size, images in packed.items():
        stacked = np.stack(images) if images else np.empty((0, size, size), np.uint8)
        np.save(folder / pixels_file(size), stacked)

    rejects = pd.DataFrame([(f.path, f.label, reasons[f.path]) for f, _ in rejected], columns=REJECT_COLUMNS)
    rejects.to_parquet(folder / REJECTS, index=False)
    _set_aside(listing.root, rejects, folder / "rejects")
    return manifest, rejects


def _read(path: Path, file: SourceFile, sizes: Sequence[int]) -> tuple[dict[str, Any], list[np.ndarray]] | str:
    """Facts and resized pixels of one image, or the reason why it cannot be used."""
    if not file.sha256:
        return "the file cannot be read"
    try:
        with Image.open(path) as image:
            if image.mode not in MODES:
                return f"the pixel format {image.mode} is not supported"
            facts = {"width": image.width, "height": image.height, "mode": image.mode}
            gray = image.convert("L")
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return "the image is too large to be decoded safely"
    except Image.UnidentifiedImageError:
        return "the file is not an image"
    except (OSError, SyntaxError, ValueError) as error:
        return f"the image is damaged ({error})"
    values = np.asarray(gray)
    facts |= {"mean": float(values.mean()), "contrast": float(values.std())}
    return facts, [np.asarray(gray.resize((size, size), Image.Resampling.BILINEAR)) for size in sizes]


def _duplicates(files: Sequence[SourceFile], skip: set[str]) -> list[tuple[SourceFile, str]]:
    """Of identical files in one class the first stays; identical files in two classes all go."""
    same: dict[str, list[SourceFile]] = {}
    for file in files:
        if file.path not in skip:
            same.setdefault(file.sha256, []).append(file)
    found = []
    for first, *others in same.values():
        if any(other.label != first.label for other in others):
            names = ", ".join(file.path for file in (first, *others))
            found += [(file, f"identical images carry different classes: {names}") for file in (first, *others)]
        else:
            found += [(other, f"identical to {first.path}") for other in others]
    return found


def _set_aside(root: Path, rejects: pd.DataFrame, folder: Path) -> None:
    """Copy rejected files to ``folder`` for people to look at, as far as they can be read."""
    for path in rejects["path"]:
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(root / path, target)
        except OSError:
            continue
