"""Bad files become rejects with a reason and never stop an ingest; good ones become rows and matching pixels."""

import struct
import warnings
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxr_tasks.data.ingest import MANIFEST, REJECTS, ingest, pixels_file
from cxr_tasks.data.sources import list_folder

CLASSES = ("COVID", "Normal")
BAD = "COVID/images/bad.png"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for k, label in enumerate(CLASSES):
        (tmp_path / "source" / label / "images").mkdir(parents=True)
        for n in range(3):
            image(10 * k + n).save(tmp_path / "source" / label / "images" / f"{label}-{n}.png")
    return tmp_path / "source"


def image(seed: int, mode: str = "L", size: tuple[int, int] = (40, 30)) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (*size[::-1], 4), np.uint8), "RGBA").convert(mode)


def run(source: Path, sizes: tuple[int, ...] = (16,)) -> tuple[Path, pd.DataFrame, dict[str, str]]:
    """The artifact's folder, the manifest by path, and the reasons of the rejects by path."""
    folder = source.with_name("artifact")
    folder.mkdir()
    manifest, rejects = ingest(list_folder(str(source), CLASSES), sizes, folder)
    pd.testing.assert_frame_equal(pd.read_parquet(folder / MANIFEST), manifest)
    assert pd.read_parquet(folder / REJECTS).to_dict("list") == rejects.to_dict("list")
    return folder, manifest.set_index("path"), dict(zip(rejects["path"], rejects["reason"], strict=True))


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_of_claimed_size(width: int, height: int) -> bytes:
    """A small file whose pixels would fill the memory."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99)))


def whole_png() -> bytes:
    stream = BytesIO()
    image(7, size=(64, 64)).save(stream, "PNG")
    return stream.getvalue()


BAD_FILES = {
    "truncated": (whole_png()[:-2000], "the image is damaged (image file is truncated"),
    "cut in its header": (whole_png()[:20], "the image is damaged"),
    "text": (b"This is not an image.", "the file is not an image"),
    "empty": (b"", "the file is not an image"),
    "huge": (png_of_claimed_size(10_000, 9_500), "the image is too large to be decoded safely"),
    "enormous": (png_of_claimed_size(60_000, 60_000), "the image is too large to be decoded safely"),
}


@pytest.mark.parametrize(("content", "reason"), BAD_FILES.values(), ids=BAD_FILES)
def test_bad_file_is_set_aside_with_a_reason(source: Path, content: bytes, reason: str) -> None:
    (source / BAD).write_bytes(content)

    folder, manifest, reasons = run(source)

    assert list(reasons) == [BAD]
    assert reasons[BAD].startswith(reason)
    assert (folder / "rejects" / BAD).read_bytes() == content
    assert len(manifest) == 6
    assert BAD not in manifest.index


def test_no_cut_stops_an_ingest(source: Path) -> None:
    whole = whole_png()
    cuts = range(1, len(whole) - 16, 29)
    for cut in cuts:
        (source / f"COVID/images/bad-{cut}.png").write_bytes(whole[:cut])

    _, manifest, reasons = run(source)

    assert set(reasons) == {f"COVID/images/bad-{cut}.png" for cut in cuts}
    assert len(manifest) == 6


def test_no_damage_stops_an_ingest(source: Path) -> None:
    whole, rng = whole_png(), np.random.default_rng(0)
    for n in range(300):
        damaged = bytearray(whole)
        # Mostly in the chunks before the pixels, where a decoder trusts what it reads.
        for place in rng.integers(0, 80 if n % 2 else len(whole), 3):
            damaged[place] = rng.integers(256)
        (source / f"COVID/images/bad-{n}.png").write_bytes(damaged)

    _, manifest, reasons = run(source)

    assert len(manifest) + len(reasons) == 306
    assert len(reasons) > 100


def test_sixteen_bit_image_is_not_supported(source: Path) -> None:
    Image.fromarray(np.full((30, 40), 40_000, np.uint16)).save(source / BAD)

    _, _, reasons = run(source)

    assert reasons == {BAD: "the pixel format I;16 is not supported"}


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_gray_and_colour_images_are_accepted(source: Path, mode: str) -> None:
    image(99, mode).save(source / BAD)

    _, manifest, reasons = run(source)

    assert reasons == {}
    row = manifest.loc[BAD]
    assert (row["mode"], row["width"], row["height"]) == (mode, 40, 30)
    gray = np.asarray(Image.open(source / BAD).convert("L"))
    assert row["mean"] == pytest.approx(gray.mean())
    assert row["contrast"] == pytest.approx(gray.std())


def test_of_duplicates_within_a_class_the_first_stays(source: Path) -> None:
    original = source / "COVID/images/COVID-0.png"
    for name in ("copy-1.png", "copy-2.png"):
        (source / "COVID/images" / name).write_bytes(original.read_bytes())

    _, manifest, reasons = run(source)

    same = "identical to COVID/images/COVID-0.png"
    assert reasons == {"COVID/images/copy-1.png": same, "COVID/images/copy-2.png": same}
    assert len(manifest) == 6
    assert manifest["image_id"].is_unique


def test_of_duplicates_across_classes_none_stays(source: Path) -> None:
    for copy in ("COVID/images/copy.png", "Normal/images/copy.png"):
        (source / copy).write_bytes((source / "COVID/images/COVID-0.png").read_bytes())

    folder, manifest, reasons = run(source)

    involved = ["COVID/images/COVID-0.png", "COVID/images/copy.png", "Normal/images/copy.png"]
    assert reasons == dict.fromkeys(involved, f"identical images carry different classes: {', '.join(involved)}")
    assert len(manifest) == 5
    assert all((folder / "rejects" / path).is_file() for path in involved)


def test_pixels_are_the_rows_decoded_and_resized_once(source: Path) -> None:
    image(99, "RGB", (33, 47)).save(source / "Normal/images/colour.png")
    (source / "COVID/images/COVID-1.png").write_bytes(b"damaged")

    folder, manifest, _ = run(source, sizes=(24, 16, 24))

    assert sorted(path.name for path in folder.glob("*.npy")) == ["pixels-16.npy", "pixels-24.npy"]
    for size in (16, 24):
        packed = np.load(folder / pixels_file(size))
        assert (packed.dtype, packed.shape) == (np.uint8, (6, size, size))
        for path, pixels in zip(manifest.index, packed, strict=True):
            plain = Image.open(source / path).convert("L").resize((size, size), Image.Resampling.BILINEAR)
            np.testing.assert_array_equal(pixels, np.asarray(plain))


def test_group_is_the_patient_or_the_image_itself(source: Path) -> None:
    (source / "COVID.metadata.csv").write_text("FILE NAME,URL,PATIENT\nCOVID-0,x,P1\nCOVID-1,x,P1\nCOVID-2,x,\n")

    _, manifest, _ = run(source)

    covid = manifest[manifest["label"] == "COVID"]
    assert covid["group"].tolist() == ["P1", "P1", covid["image_id"].iloc[2]]
    assert (manifest["provenance"] == "real").all()


def test_only_bad_files_give_an_empty_manifest(source: Path) -> None:
    for path in source.rglob("*.png"):
        path.write_bytes(path.name.encode())

    folder, manifest, reasons = run(source)

    assert manifest.empty
    assert len(reasons) == 6
    assert np.load(folder / pixels_file(16)).shape == (0, 16, 16)


def test_ingest_leaves_the_warning_filters_as_they_were(source: Path) -> None:
    before = list(warnings.filters)
    for n in range(40):
        (source / f"COVID/images/more-{n}.png").write_bytes((source / "COVID/images/COVID-0.png").read_bytes())

    run(source)

    assert list(warnings.filters) == before
