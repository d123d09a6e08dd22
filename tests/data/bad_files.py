"""Every kind of image file that an ingest must set aside: one small file of each, for tests and tables."""

from __future__ import annotations

import gzip
import os
import struct
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

PNG_START = b"\x89PNG\r\n\x1a\n"


def write_bad_files(folder: Path) -> dict[str, str]:
    """Write the files to the existing ``folder``.

    Returns:
        The kind of each file by its name, which may hold surrogates (the name that is not UTF-8).
    """
    kinds = {}
    for kind, (name, content) in bad_files().items():
        (folder / name).write_bytes(content)
        kinds[name] = kind
    return kinds


def bad_files() -> dict[str, tuple[str, bytes]]:
    """Name and content of the files by their kind."""
    gray = ribs()
    png, jpeg = encoded(gray), encoded(gray, "JPEG", quality=90)
    mask = lungs()
    by_suffix = {
        "zero bytes": (".png", b""),
        "truncated PNG": (".png", png[: len(png) // 2]),
        "truncated JPEG": (".jpg", jpeg[: len(jpeg) // 2]),
        "PNG cut in its header": (".png", png[:20]),
        "not an image": (".png", b"This is not an image."),
        "DICOM named PNG": (".png", bytes(128) + b"DICM" + bytes(200)),
        "DICOM": (".dcm", bytes(128) + b"DICM" + bytes(200)),
        "HTML": (".png", b"\xef\xbb\xbf\r\n<!DOCTYPE HTML><html>Access denied</html>"),
        "HTML of a drive": (".jpg", b"<html><title>Google Drive - Quota exceeded</title></html>"),
        "XML": (".png", b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>'),
        "pointer of Git LFS": (".png", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n"),
        "pointer of git-annex": (".png", b"/annex/objects/SHA256E-s1--00.png\n"),
        "placeholder of iCloud": (".icloud", b"bplist00"),
        "placeholder of Google Drive": (".png", b'{"url": "https://docs.google.com/open?id=1"}'),
        "zeros": (".png", bytes(5000)),
        "unfinished": (".crdownload", png),
        "old version": (".bak", png),
        "zip": (".zip", b"PK\x03\x04" + noise(100)),
        "RAR": (".rar", b"Rar!\x1a\x07\x00" + noise(100)),
        "7z": (".png", b"7z\xbc\xaf\x27\x1c" + noise(100)),
        "tar": (".png", bytes(257) + b"ustar" + bytes(300)),
        "packed PNG": (".png.gz", gzip.compress(png)),
        "part of an archive": (".zip.002", b"\x00" + noise(100)),
        "PDF": (".png", b"%PDF-1.7"),
        "AVIF": (".png", encoded(gray, "AVIF")),
        "HEIC": (".jpg", b"\0\0\0\x18ftypheic" + noise(100)),
        "rotated TIFF": (".tif", encoded(gray, "TIFF", tiffinfo={0x0112: 6})),
        "pages of a TIFF": (".tif", encoded(gray, "TIFF", save_all=True, append_images=[gray.rotate(90)])),
        "cut TIFF": (".tif", cut_tiff(encoded(gray, "TIFF", compression="tiff_lzw"))),
        "animated GIF": (".gif", encoded(gray, "GIF", save_all=True, append_images=[gray.rotate(90)])),
        "animated WebP": (".webp", encoded(gray, "WEBP", save_all=True, append_images=[gray.rotate(90)])),
        "transparent WebP": (".webp", encoded(with_hole(gray, "RGBA"), "WEBP")),
        "cut WebP": (".webp", encoded(gray, "WEBP")[:-100]),
        "WebP bomb": (".webp", webp_that_claims(16_384, 16_384)),
        "cut JPEG 2000": (".jp2", encoded(gray, "JPEG2000")[:-500]),
        "JPEG-LS": (".jpg", b"\xff\xd8\xff\xf7" + bytes(100)),
        "two levels": (".png", encoded(mask)),
        "levels 0 and 1": (".png", encoded(mask.point(lambda v: v // 255))),
        "two levels as JPEG": (".jpg", encoded(mask, "JPEG", quality=40)),
        "two levels made small": (".jpg", encoded(mask.resize((64, 64)), "JPEG", quality=75)),
        "few levels": (".png", encoded(gray.point(lambda v: v // 64 * 50))),
        "PNG bomb": (".png", png_that_claims(50_000, 50_000)),
        "JPEG bomb": (".jpg", jpeg_that_claims(jpeg, 50_000, 50_000)),
        "JPEG of many scans": (".jpg", jpeg_of_many_scans(gray)),
        "16-bit colour": (".png", png_of_16_bit_colour(gray)),
        "JPEG of arithmetic coding": (".jpg", jpeg.replace(b"\xff\xc0", b"\xff\xc9", 1)),
        "colour palette": (".png", encoded(Image.merge("RGB", (gray, gray.rotate(180), gray)).quantize(200))),
        "black and white": (".png", encoded(gray.convert("1"))),
        "CMYK": (".jpg", encoded(gray.convert("CMYK"), "JPEG")),
        "transparent RGBA": (".png", encoded(with_hole(gray, "RGBA"))),
        "transparent LA": (".png", encoded(with_hole(gray, "LA"))),
        "transparent level": (".png", encoded(gray, transparency=gray.getpixel((0, 0)))),
        "colour photo": (".png", encoded(Image.merge("RGB", (gray, gray.point(lambda v: v // 2), gray.rotate(180))))),
        "rotated by EXIF, JPEG": (".jpg", encoded(gray, "JPEG", exif=orientation(6))),
        "rotated by EXIF, PNG": (".png", encoded(gray, exif=orientation(3))),
        "damaged EXIF": (".png", encoded(gray, exif=b"Exif\0\0" + b"nonsense")),
        "animated PNG": (".png", encoded(gray, save_all=True, append_images=[gray.rotate(90)])),
        "several images in a JPEG": (".jpg", encoded(gray, "MPO", save_all=True, append_images=[gray.rotate(90)])),
        "1×1": (".png", encoded(gray.resize((1, 1)))),
        "too narrow": (".png", encoded(gray.resize((31, 500)))),
        "all one colour": (".png", encoded(Image.new("L", (64, 64), 77))),
        "corrupt header": (".png", png.replace(b"IHDR\0\0", b"IHDR\0\1", 1)),
        "corrupt pixels": (".png", changed(png, len(png) - 60)),
        "enormous text": (".png", with_chunk(png, b"zTXt", b"Comment\0\0" + zlib.compress(bytes(5_000_000)))),
        "enormous profile": (".png", with_chunk(png, b"iCCP", b"icc\0\0" + zlib.compress(bytes(5_000_000)))),
        "garbage behind a JPEG header": (".jpg", jpeg[: jpeg.index(b"\xff\xda") + 20] + noise(4000) + b"\xff\xd9"),
        "garbage in a JPEG header": (".jpg", jpeg[:20] + noise(4000)),
    }
    files = {kind: (kind.replace(" ", "-") + suffix, content) for kind, (suffix, content) in by_suffix.items()}
    files["long name"] = ("ä" * 123 + "x.png", png)
    files["name that is not UTF-8"] = (os.fsdecode(b"R\xf6ntgen.png"), png)
    return files


def ribs(size: tuple[int, int] = (96, 80), seed: int = 0) -> Image.Image:
    """A gray image with some structure, a little noise, and no symmetry."""
    x, y = np.linspace(0, 1, size[0]), np.linspace(0, 1, size[1])[:, None]
    rng = np.random.default_rng(seed)
    a, b, c, d = rng.uniform(2, 9, 4)
    waves = np.sin(a * x + b * y * y) + np.cos(c * x * y + d) + 0.3 * np.sin(40 * y + 5 * x)
    values = 128 + 45 * waves + rng.normal(0, 2, waves.shape)
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


def encoded(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    stream = BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def lungs(size: tuple[int, int] = (96, 80)) -> Image.Image:
    """A mask: two ellipses in white on black."""
    mask = Image.new("L", (384, 320))
    for left in (40, 216):
        ImageDraw.Draw(mask).ellipse((left, 30, left + 128, 290), fill=255)
    return mask.resize(size, Image.Resampling.NEAREST)


def webp_that_claims(width: int, height: int) -> bytes:
    """A small file whose decoder would take memory for its pixels as soon as it is made."""
    sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    chunks = b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + sides
    return b"RIFF" + struct.pack("<I", len(chunks)) + chunks


def cut_tiff(content: bytes) -> bytes:
    """A TIFF whose directory is whole and whose pixels reach beyond the end of the file."""
    (directory,) = struct.unpack_from("<I", content, 4)
    (entries,) = struct.unpack_from("<H", content, directory)
    for place in range(directory + 2, directory + 2 + 12 * entries, 12):
        (tag,) = struct.unpack_from("<H", content, place)
        if tag == 279:  # the lengths of the strips
            return content[: place + 8] + struct.pack("<I", len(content)) + content[place + 12 :]
    raise AssertionError("no lengths of strips")


def noise(length: int) -> bytes:
    return np.random.default_rng(0).bytes(length)


def changed(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :]


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def with_chunk(png: bytes, kind: bytes, content: bytes) -> bytes:
    """``png`` with one more chunk behind its header."""
    return png[:33] + chunk(kind, content) + png[33:]


def png_that_claims(width: int, height: int) -> bytes:
    """A small file whose pixels would fill the memory."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return PNG_START + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")


def png_of_16_bit_colour(gray: Image.Image) -> bytes:
    header = struct.pack(">IIBBBBB", *gray.size, 16, 2, 0, 0, 0)
    pixels = np.asarray(gray).repeat(6, axis=1)
    rows = np.insert(pixels, 0, 0, axis=1).tobytes()
    return PNG_START + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def jpeg_that_claims(jpeg: bytes, width: int, height: int) -> bytes:
    frame = jpeg.index(b"\xff\xc0")
    return jpeg[: frame + 5] + struct.pack(">HH", height, width) + jpeg[frame + 9 :]


def jpeg_of_many_scans(gray: Image.Image) -> bytes:
    """A progressive file that repeats its last pass, each of which costs a decoder a walk over all pixels."""
    jpeg = encoded(gray, "JPEG", progressive=True)
    last = jpeg.rindex(b"\xff\xda")
    return jpeg[:last] + jpeg[last:-2] * 2000 + jpeg[-2:]


def with_hole(gray: Image.Image, mode: str) -> Image.Image:
    image = gray.convert(mode)
    alpha = Image.new("L", gray.size, 255)
    alpha.putpixel((5, 5), 0)
    image.putalpha(alpha)
    return image


def orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif
