"""Masks reach the packed data from every kind of source, at their own sizes, and never cost an image."""

import io
import shutil
import tarfile
import zipfile
from pathlib import Path

import boto3
import numpy as np
import pytest
from PIL import Image

from cxr_tasks.data.dataset import centre_box, select_masks
from cxr_tasks.data.formats import Unusable
from cxr_tasks.data.ingest import CHANGED, ROWS, USED, FilesChanged, read_shard
from cxr_tasks.data.masks import decode_mask, masks_file, unpack_masks
from tests.data.reading import Reading, data_settings, read_folder, scan_folder

SETTINGS = data_settings(shard_images=50)
SIZE = 36  # no multiple of 8: rows end in the middle of a byte


def png(pixels: np.ndarray, format: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format)
    return stream.getvalue()


def decoded(content: bytes, size: int, name: str = "1.png") -> np.ndarray:
    (packed,) = decode_mask(content, name, [size])
    return unpack_masks(packed[None], size)[0]


@pytest.fixture
def lungs() -> np.ndarray:
    """Two boxes, (256, 256) bool."""
    mask = np.zeros((256, 256), bool)
    mask[40:200, 30:110] = mask[40:200, 150:230] = True
    return mask


@pytest.fixture
def source(phantoms: Path, tmp_path: Path) -> Path:
    return shutil.copytree(phantoms, tmp_path / "source")


def check(reading: Reading, phantoms: Path, missing: tuple[str, ...] = ()) -> None:
    """All images of ``reading`` are used, and all but the ``missing`` have the mask that Pillow resizes."""
    manifest = reading.manifest
    assert (manifest["status"] == USED).sum() == 136
    assert not manifest["path"].str.contains("/masks/").any()
    masks, given = select_masks(manifest, reading.shards, SIZE)
    assert masks.shape == (136, SIZE, SIZE) and masks.dtype == bool and given.dtype == bool
    for row, mask, has in zip(manifest.itertuples(), masks, given, strict=True):
        assert has == row.mask == (row.mask_id != "") == (not row.path.endswith(missing or ("nothing",)))
        with Image.open(phantoms / row.path[row.path.index(row.label) :].replace("/images/", "/masks/")) as image:
            plain = np.asarray(image.resize((SIZE, SIZE), Image.Resampling.NEAREST)) == 255
        np.testing.assert_array_equal(mask, plain if has else centre_box(SIZE))


def test_masks_come_from_a_folder(phantoms: Path, tmp_path: Path) -> None:
    check(read_folder(phantoms, tmp_path, SETTINGS, (SIZE, 64)), phantoms)


@pytest.mark.parametrize("name", ["set.zip", "set.tar.gz"])
def test_masks_come_from_an_archive(phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("CXR_CACHE", str(tmp_path / "cache"))
    if name.endswith("zip"):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for path in phantoms.rglob("*.*"):
                archive.write(path, Path("set") / path.relative_to(phantoms))
    else:
        with tarfile.open(tmp_path / name, "w:gz") as archive:
            archive.add(phantoms, "set")

    check(read_folder(tmp_path / name, tmp_path / "work", SETTINGS, (SIZE,)), phantoms)


def test_masks_come_from_a_bucket(phantoms: Path, tmp_path: Path, s3: str) -> None:
    client, bucket = boto3.client("s3"), s3.split("/")[2]
    for path in phantoms.rglob("*.*"):
        client.upload_file(str(path), bucket, f"cxr/{path.relative_to(phantoms)}")

    check(read_folder(s3, tmp_path / "work", SETTINGS, (SIZE,)), phantoms)


def test_masks_that_are_missing_or_cannot_be_used_cost_no_image(source: Path, phantoms: Path, tmp_path: Path) -> None:
    bad = {
        "COVID-1.png": b"no image",
        "COVID-2.png": b"",
        "COVID-3.png": png(np.zeros((256, 256), np.uint8)),
        "COVID-4.png": png(np.full((256, 256), 255, np.uint8)),
        "COVID-5.png": (source / "COVID/masks/COVID-5.png").read_bytes()[:-30],
    }
    for name, content in bad.items():
        (source / "COVID/masks" / name).write_bytes(content)
    (source / "COVID/masks/COVID-6.png").unlink()
    (source / "COVID/masks/COVID-7.png").unlink()
    (source / "COVID/masks/COVID-7.png").symlink_to("nowhere")

    reading = read_folder(source, tmp_path / "work", SETTINGS, (SIZE,))

    check(reading, phantoms, tuple(f"/COVID-{n}.png" for n in range(1, 8)))


def test_a_source_without_masks_has_none_and_no_file_for_them(source: Path, tmp_path: Path) -> None:
    for folder in source.glob("*/masks"):
        shutil.rmtree(folder)

    reading = read_folder(source, tmp_path / "work", SETTINGS, (SIZE,))

    assert not reading.manifest["mask"].any() and (reading.manifest["mask_id"] == "").all()
    assert not list((tmp_path / "work").rglob("masks-*"))
    masks, given = select_masks(reading.manifest, reading.shards, SIZE)
    assert not given.any() and (masks == centre_box(SIZE)).all()


def test_masks_of_some_shards_only_are_found(source: Path, tmp_path: Path) -> None:
    for mask in source.glob("*/masks/*"):
        if mask.name != "Normal-5.png":
            mask.unlink()

    reading = read_folder(source, tmp_path / "work", SETTINGS, (SIZE,))

    assert len(list((tmp_path / "work").rglob(masks_file(SIZE)))) == 1
    assert reading.manifest.loc[reading.manifest["mask"], "path"].tolist() == ["Normal/images/Normal-5.png"]
    assert select_masks(reading.manifest, reading.shards, SIZE)[1].sum() == 1


@pytest.mark.parametrize("change", ["another", "gone"])
def test_a_mask_that_changed_after_the_scan_is_named(source: Path, tmp_path: Path, change: str) -> None:
    files = scan_folder(source, SETTINGS)
    mask = source / "COVID/masks/COVID-1.png"
    mask.unlink()
    if change == "another":
        shutil.copyfile(source / "COVID/masks/COVID-2.png", mask)

    with pytest.raises(FilesChanged) as raised:
        read_shard(source, files, [SIZE], tmp_path)

    assert raised.value.faults.keys() == {"COVID/masks/COVID-1.png"}
    assert (raised.value.faults["COVID/masks/COVID-1.png"] == CHANGED) == (change == "another")
    assert not (tmp_path / ROWS).exists()


@pytest.mark.parametrize("mode", ["L", "RGB", "1", "P"])
@pytest.mark.parametrize("side", [256, 299, 100])
def test_masks_of_any_mode_and_side_are_laid_over_the_image(lungs: np.ndarray, mode: str, side: int) -> None:
    image = Image.fromarray(lungs.astype(np.uint8) * 255).resize((side, side), Image.Resampling.NEAREST)
    stream = io.BytesIO()
    image.convert(mode).save(stream, "PNG")

    mask = decoded(stream.getvalue(), SIZE)

    plain = np.asarray(image.resize((SIZE, SIZE), Image.Resampling.NEAREST)) == 255
    np.testing.assert_array_equal(mask, plain)


def test_lung_is_what_is_brighter_than_half(lungs: np.ndarray) -> None:
    plain = decoded(png(lungs.astype(np.uint8) * 255), 256)

    np.testing.assert_array_equal(plain, lungs)
    np.testing.assert_array_equal(decoded(png(lungs.astype(np.uint8)), 256), lungs)
    blurred = decoded(png(lungs.astype(np.uint8) * 255, "JPEG"), 256, "1.jpg")
    assert (blurred != lungs).mean() < 0.01


@pytest.mark.parametrize(
    ("content", "name", "reason"),
    [
        (png(np.full((64, 64), 7, np.uint8)), "1.png", "the mask is all one colour"),
        (png(np.zeros((64, 64), np.uint16)), "1.png", "one gray value"),
        (b"text", "1.png", "the file is not an image"),
        (png(np.zeros((7200, 7200), bool)), "1.png", "at most 50,000,000 in all are decoded"),
    ],
)
def test_what_is_no_mask_is_told(content: bytes, name: str, reason: str) -> None:
    with pytest.raises(Unusable, match=reason):
        decode_mask(content, name, [SIZE])
