"""Every kind of image file that an ingest must set aside: one small file of each, for tests and tables."""

from __future__ import annotations

import os
import struct
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

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
    by_suffix = {
        "zero bytes": (".png", b""),
        "truncated PNG": (".png", png[: len(png) // 2]),
        "truncated JPEG": (".jpg", jpeg[: len(jpeg) // 2]),
        "PNG cut in its header": (".png", png[:20]),
        "not an image": (".png", b"This is not an image."),
        "JPEG named PNG": (".png", jpeg),
        "PNG named JPEG": (".jpg", png),
        "GIF named PNG": (".png", encoded(gray, "GIF")),
        "DICOM named PNG": (".png", bytes(128) + b"DICM" + bytes(200)),
        "DICOM": (".dcm", bytes(128) + b"DICM" + bytes(200)),
        "TIFF": (".tif", encoded(gray, "TIFF")),
        "BMP": (".bmp", encoded(gray, "BMP")),
        "GIF": (".gif", encoded(gray, "GIF")),
        "no suffix": ("", png),
        "PNG bomb": (".png", png_that_claims(50_000, 50_000)),
        "JPEG bomb": (".jpg", jpeg_that_claims(jpeg, 50_000, 50_000)),
        "JPEG of many scans": (".jpg", jpeg_of_many_scans(gray)),
        "16-bit gray": (".png", encoded(Image.fromarray(np.asarray(gray).astype(np.uint16) * 257))),
        "16-bit colour": (".png", png_of_16_bit_colour(gray)),
        "12-bit JPEG": (".jpg", jpeg_of_12_bits(jpeg)),
        "palette": (".png", encoded(gray.convert("P"))),
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


def jpeg_of_12_bits(jpeg: bytes) -> bytes:
    frame = jpeg.index(b"\xff\xc0")
    return jpeg[: frame + 4] + b"\x0c" + jpeg[frame + 5 :]


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
