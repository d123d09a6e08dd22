"""Copies of an X-ray as they come about when people export, crop, mark and share it. The benchmarks alter with them."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from cxr_tasks.data.decode import THUMBNAIL_SIDE


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
