"""Reading DICOM files against a bare loop of pydicom and Pillow on the same cores.

    python benchmarks/dicom.py [images] [side]

Generates X-rays of 12 bits with a window (40 of 1,024 pixels a side by default), uncompressed and as lossless JPEG.
Reads each kind as a shard of ``cxr_data`` does, and with a bare loop in a thread a core: read and hash the file, then
pydicom's ``pixel_array``, ``apply_modality_lut`` and ``apply_voi_lut``, then 8 bits, and Pillow to the same sides. The
bare loop keeps nothing. It decodes lossless JPEG with the same library, for which pydicom has no plugin of its own.

The shares are rates of the shard over rates of the loop. Rounds of both alternate; the medians count.
"""

from __future__ import annotations

import hashlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import imagecodecs
import numpy as np
import pandas as pd
import pydicom
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_modality_lut, apply_voi_lut

from cxr_tasks.config import resolve
from cxr_tasks.data.decode import HowToRead
from cxr_tasks.data.ingest import USED, read_shard
from cxr_tasks.data.phantoms import write_phantoms

SETTINGS = resolve("paper")
SIZES = SETTINGS.image_sizes
CORES = len(os.sched_getaffinity(0))
ROUNDS = 5
SYNTAXES = {"uncompressed": uid.ExplicitVRLittleEndian, "lossless JPEG": uid.JPEGLosslessSV1}


def generate(folder: Path, images: int, side: int, syntax: uid.UID) -> pd.DataFrame:
    """Write the files. Returns them as rows of a scan."""
    write_phantoms(folder / "phantoms", {"Normal": images})
    rng, rows = np.random.default_rng(0), []
    for number, path in enumerate(sorted((folder / "phantoms").rglob("images/*.png"))):
        gray = Image.open(path).convert("L").resize((side, side), Image.Resampling.BICUBIC)
        values = np.asarray(gray).astype(np.uint16) * 15 + rng.integers(0, 16, (side, side), np.uint16)
        (folder / f"{number}.dcm").write_bytes(dicom(values, syntax, number))
        rows.append({"path": f"{number}.dcm", "label": "Normal", "fault": "", "mask": "", "mask_sha256": ""})
    files = pd.DataFrame(rows)
    return files.assign(sha256=[hashlib.sha256((folder / path).read_bytes()).hexdigest() for path in files["path"]])


def dicom(values: np.ndarray, syntax: uid.UID, number: int) -> bytes:
    """One file of 12 bits."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = uid.DigitalXRayImageStorageForPresentation
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid.generate_uid()
    dataset.Modality, dataset.BodyPartExamined, dataset.ViewPosition = "DX", "CHEST", "PA"
    dataset.PatientID = f"patient {number}"
    dataset.Rows, dataset.Columns = values.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PixelRepresentation = 1, "MONOCHROME2", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, 0
    dataset.WindowCenter, dataset.WindowWidth = 2048, 4096
    dataset.PixelData = values.tobytes()
    if syntax.is_encapsulated:
        dataset.PixelData = encapsulate([imagecodecs.jpeg8_encode(values, lossless=True, bitspersample=12)])
    dataset["PixelData"].VR = "OB" if syntax.is_encapsulated else "OW"
    stream = BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def bare(folder: Path, files: pd.DataFrame) -> None:
    """The named peer."""

    def one(path: str) -> int:
        content = (folder / path).read_bytes()
        hashlib.sha256(content).hexdigest()
        dataset = pydicom.dcmread(BytesIO(content))
        values = apply_voi_lut(apply_modality_lut(dataset.pixel_array, dataset), dataset)
        gray = Image.fromarray((values * (255 / 4095)).astype(np.uint8))
        return sum(np.asarray(gray.resize((size, size), Image.Resampling.BILINEAR)).nbytes for size in SIZES)

    with ThreadPoolExecutor(CORES) as threads:
        list(threads.map(one, files["path"]))


def shard(folder: Path, files: pd.DataFrame) -> None:
    """What the task ``ingest`` does."""
    with tempfile.TemporaryDirectory() as place:
        rows = read_shard(folder, files, SIZES, Path(place), HowToRead.of(SETTINGS.data))
    assert (rows["status"] == USED).all(), rows["reason"].unique()


def seconds(work: Callable[[Path, pd.DataFrame], None], folder: Path, files: pd.DataFrame) -> float:
    """What one round takes."""
    started = time.perf_counter()
    work(folder, files)
    return time.perf_counter() - started


def main() -> None:
    """Measure both kinds, print a table, and end with one JSON object."""
    images, side = (int(given) for given in (sys.argv[1:] + ["40", "1024"][len(sys.argv) - 1 :])[:2])
    found = {}
    for name, syntax in SYNTAXES.items():
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            files = generate(folder, images, side, syntax)
            for work in (bare, shard):
                work(folder, files.head(4))
            rounds = [(seconds(shard, folder, files), seconds(bare, folder, files)) for _ in range(ROUNDS)]
        mine, peer = (images / statistics.median(taken) for taken in zip(*rounds, strict=True))
        found[name] = {"images_per_second": mine, "bare_per_second": peer, "share": mine / peer}
    print(f"{'':<28}{'images/s':>10}{'bare loop':>11}{'share':>8}")
    for name, figures in found.items():
        print(
            f"{name:<28}{figures['images_per_second']:>10.1f}{figures['bare_per_second']:>11.1f}{figures['share']:>8.2f}"
        )
    print(json.dumps({"benchmark": "dicom", "images": images, "side": side, "cores": CORES, **found}))


if __name__ == "__main__":
    main()
