"""Turns the bytes of one PNG or JPEG file into gray pixels and facts, or says why they cannot be used.

Touches no disk and nothing shared, so any number of threads may decode at once.
"""

from __future__ import annotations

import math
import os
import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from operator import mul

import numpy as np
from PIL import ExifTags, Image, ImageChops, JpegImagePlugin, PngImagePlugin

NOT_UTF8 = "the file name is not UTF-8: rename the file"
LONGEST_NAME = 200
SMALLEST_SIDE = 32
# More than twice what detectors and film scanners give. A colour image of this size takes 200 MB to decode.
MOST_PIXELS = 50_000_000
THUMBNAIL_SIDE = 32

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
_SIGNATURES: dict[str, tuple[bytes, ...]] = {
    "PNG": (b"\x89PNG\r\n\x1a\n",),
    "JPEG": (b"\xff\xd8\xff",),
    "GIF": (b"GIF8",),
    "BMP": (b"BM",),
    "TIFF": (b"II*\0", b"MM\0*"),
    "PDF": (b"%PDF",),
}
_MODES = {
    "1": "1 bit a pixel, black or white: export the image as 8-bit gray",
    "P": "the pixels are numbers of a colour palette: save the image as 8-bit gray",
    "CMYK": "the colours are CMYK, made for printing: save the image as 8-bit gray",
}
_DAMAGED = "the image is damaged ({}): copy or export it again"
_CUT = "the file is cut off before its end: copy it again"
_BITS = "{} bits a pixel and no display window is known: export the image with 8 bits"

# A marker follows any number of fill bytes. A scan ends with any marker but a stuffed 0xFF and restarts.
_MARKER = re.compile(rb"\xff+([^\xff])", re.DOTALL)
_SCAN_END = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_START_OF_FRAME = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_SEGMENTS = {*range(0xC0, 0xD0), 0xDA, 0xDB, 0xDC, 0xDD, *range(0xE0, 0xF0), 0xFE}
# Each scan of a progressive JPEG costs a pass over all pixels. Encoders write about ten.
_MOST_SCANS = 100

# An image is in colour if channels lie more than 32 levels apart in over 5 % of the pixels. JPEG's own errors stay
# below 32 levels, and a gray image may have a small coloured mark.
_COLOUR_LEVELS, _COLOUR_SHARE, _COLOUR_SIDE = 32, 0.05, 64
_LEVELS = range(256)
_SQUARES = [level * level for level in _LEVELS]


class Unusable(Exception):
    """Why one file cannot be used, in words for the rejects table."""


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """What one usable file holds. The arrays are read-only.

    Attributes:
        width: Pixels of the file as stored.
        height: Pixels of the file as stored.
        mode: Pillow's name of the pixel format as stored: L, LA, RGB or RGBA.
        mean: Of the gray values, 0–255.
        contrast: Standard deviation of the gray values, 0–255.
        dhash: 64 bits: row by row of a 9×8 image, whether a pixel is brighter than its right neighbour. Copies that
            were encoded again or resized differ in few bits.
        thumbnail: (32, 32) uint8, the image made small with averaging.
        images: (S, S) uint8 for each requested side S, resized from the full gray image.
    """

    width: int
    height: int
    mode: str
    mean: float
    contrast: float
    dhash: int
    thumbnail: np.ndarray
    images: tuple[np.ndarray, ...]


def decode(content: bytes, name: str, sizes: Sequence[int]) -> Decoded:
    """Decode a whole file once.

    Args:
        content: All bytes of the file.
        name: Name or path of the file, as ``os.fsdecode`` gives it. The last part counts.
        sizes: Sides in pixels of the square images wanted.

    Raises:
        Unusable: The file cannot be used. The text says why and, where a person can mend the file, how.
    """
    with opened(content, name) as image:
        _check_header(image)
        image.load()
        _check_pixels(image)
        gray = image if image.mode == "L" else image.convert("L")
        return _describe(image, gray, sizes)


@contextmanager
def opened(content: bytes, name: str) -> Iterator[Image.Image]:
    """The image in a file that is whole, before its pixels are read.

    Args:
        content: All bytes of the file.
        name: Name or path of the file.

    Raises:
        Unusable: There is no image, or anything goes wrong inside the block.
    """
    format = _check_name(name)
    _check_signature(content, format)
    try:
        # Image.open would judge the size with a warning. Filters of warnings belong to the whole process, and other
        # threads change them. The formats' own classes do not warn.
        if format == "PNG":
            _check_png(content)
            image: Image.Image = PngImagePlugin.PngImageFile(BytesIO(content))
        else:
            _check_jpeg(content)
            image = JpegImagePlugin.jpeg_factory(BytesIO(content))
        with image:
            yield image
    except Unusable:
        raise
    except Exception as error:
        if "MAX_TEXT" in str(error):
            raise Unusable("too much text or too large a colour profile: save the image without metadata") from error
        raise Unusable(_DAMAGED.format(str(error) or type(error).__name__)) from error


def _check_name(name: str) -> str:
    """The format that the name claims."""
    name = name.rpartition("/")[2]
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        raise Unusable(NOT_UTF8) from None
    if length > LONGEST_NAME:
        raise Unusable(f"the file name has {length} bytes: at most {LONGEST_NAME} are possible, rename the file")
    suffix = os.path.splitext(name)[1].lower()
    if suffix not in FORMATS:
        what = f"of type {suffix}" if suffix else "without a type in their name"
        raise Unusable(f"files {what} are not read: export the image as PNG or JPEG")
    return FORMATS[suffix]


def _check_signature(content: bytes, format: str) -> None:
    if not content:
        raise Unusable("the file is empty (0 bytes): copy it again")
    found = next((name for name, start in _SIGNATURES.items() if content.startswith(start)), "")
    if found == format:
        return
    if content[128:132] == b"DICM":
        found = "DICOM"
    if not found:
        raise Unusable("the file is not an image")
    advice = "give it the right ending" if found in FORMATS.values() else "export the image as PNG or JPEG"
    raise Unusable(f"the file is named {format} but holds {found}: {advice}")


def _check_png(content: bytes) -> None:
    """Check that all chunks are whole: Pillow does not compare the checksums of the pixels."""
    view, position = memoryview(content), 8
    kind = b""
    while kind != b"IEND":
        if position + 12 > len(content):
            raise Unusable(_CUT)
        length, kind = struct.unpack_from(">I4s", content, position)
        end = position + 8 + length
        if end + 4 > len(content):
            raise Unusable(_CUT)
        if zlib.crc32(view[position + 4 : end]) != int.from_bytes(view[end : end + 4]):
            raise Unusable(
                _DAMAGED.format(f"the checksum of its {kind.decode('ascii', 'backslashreplace')} chunk is wrong")
            )
        # Pillow would silently keep the upper halves of 16-bit RGB.
        if kind == b"IHDR" and content[position + 16] == 16:
            raise Unusable(_BITS.format(16))
        position = end + 4


def _check_jpeg(content: bytes) -> None:
    """Check that segments follow one another to the end: libjpeg paints the rest gray where they do not."""
    position, scans = 2, 0
    while match := _MARKER.match(content, position):
        marker, start = match[1][0], match.end()
        if marker == _END_OF_IMAGE:
            return
        if marker not in _SEGMENTS:
            raise Unusable(_DAMAGED.format(f"there is no JPEG marker 0x{marker:02x}"))
        position = start + max(2, int.from_bytes(content[start : start + 2]))
        if marker in _START_OF_FRAME and content[start + 2 : start + 3] in (b"\x0c", b"\x10"):
            raise Unusable(_BITS.format(content[start + 2]))
        if marker == _START_OF_SCAN:
            scans += 1
            if scans > _MOST_SCANS:
                raise Unusable(f"more than {_MOST_SCANS} passes over the pixels: save the image again as PNG or JPEG")
            found = _SCAN_END.search(content, position)
            position = found.start() if found else len(content)
    if position >= len(content) - 1:
        raise Unusable(_CUT)
    raise Unusable(_DAMAGED.format("something else stands where a JPEG segment should begin"))


def check_area(image: Image.Image) -> None:
    """Raise :class:`Unusable` for more pixels than are decoded, before memory is taken for them."""
    width, height = image.size
    if width * height > MOST_PIXELS:
        raise Unusable(f"{width}×{height} pixels: at most {MOST_PIXELS:,} in all are decoded, make the image smaller")


def _check_header(image: Image.Image) -> None:
    """What can be said before the pixels are read."""
    check_area(image)
    width, height = image.size
    if min(width, height) < SMALLEST_SIDE:
        raise Unusable(f"{width}×{height} pixels: at least {SMALLEST_SIDE} a side are needed")
    if (frames := getattr(image, "n_frames", 1)) > 1:
        raise Unusable(f"the file holds {frames} images: save the one that is meant")
    if image.mode not in {"L", "LA", "RGB", "RGBA"}:
        fallback = f"the pixel format {image.mode} is not read: save the image as 8-bit gray"
        raise Unusable(_MODES.get(image.mode, fallback))


def _check_pixels(image: Image.Image) -> None:
    """What shows only once the pixels and everything behind them are read."""
    if image.info and (orientation := _orientation(image)) in range(2, 9):
        raise Unusable(f"the file says it is rotated (EXIF orientation {orientation}): save it upright")
    if image.has_transparency_data:
        alpha = image if "A" in image.mode else image.convert(f"{image.mode}A")
        if alpha.getchannel("A").getextrema()[0] != 255:
            raise Unusable("parts of the image are transparent: save it without transparency")
    if image.mode.startswith("RGB"):
        sample = image.resize((_COLOUR_SIDE, _COLOUR_SIDE), Image.Resampling.NEAREST)
        red, green, blue = sample.split()[:3]
        apart = ImageChops.lighter(ImageChops.difference(red, green), ImageChops.difference(green, blue))
        if sum(apart.histogram()[_COLOUR_LEVELS + 1 :]) > _COLOUR_SHARE * _COLOUR_SIDE**2:
            raise Unusable("the image is in colour and not a gray X-ray")


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception as error:
        raise Unusable("its EXIF data is damaged and may say that it is rotated: save it without EXIF") from error


def _describe(image: Image.Image, gray: Image.Image, sizes: Sequence[int]) -> Decoded:
    mean, contrast = _moments(gray)
    if contrast < 1:
        raise Unusable("the image is all one colour")
    # The thumbnail depends on the image alone and not on ``sizes``, so that hashes can be compared across runs.
    thumbnail = gray.resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BILINEAR, reducing_gap=2.0)
    return Decoded(
        width=image.width,
        height=image.height,
        mode=image.mode,
        mean=mean,
        contrast=contrast,
        dhash=difference_hash(thumbnail),
        thumbnail=_array(thumbnail),
        images=tuple(_array(gray.resize((size, size), Image.Resampling.BILINEAR)) for size in sizes),
    )


# The functions below compute with plain Python: between two decodings numpy's calls are cold and cost several times as
# much on so few numbers.


def _moments(gray: Image.Image) -> tuple[float, float]:
    """Mean and standard deviation of the gray values. The sums are whole numbers, so nothing cancels."""
    counts = gray.histogram()
    total = gray.width * gray.height
    first = sum(map(mul, counts, _LEVELS))
    second = sum(map(mul, counts, _SQUARES))
    return first / total, math.sqrt(total * second - first * first) / total


def difference_hash(thumbnail: Image.Image) -> int:
    """The ``dhash`` of :class:`Decoded`, from its thumbnail."""
    values = thumbnail.resize((9, 8), Image.Resampling.LANCZOS).tobytes()
    bits = 0
    for row in range(0, 72, 9):
        for place in range(row, row + 8):
            bits = bits << 1 | (values[place] > values[place + 1])
    return bits


def _array(gray: Image.Image) -> np.ndarray:
    return np.frombuffer(gray.tobytes(), np.uint8).reshape(gray.height, gray.width)
