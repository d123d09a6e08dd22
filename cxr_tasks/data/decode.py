"""Turns the bytes of one image file into gray pixels and facts, or says why they cannot be used.

Touches no disk and nothing shared, so any number of threads may decode at once.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate
from operator import mul

import numpy as np
from PIL import ExifTags, Image, ImageChops

from cxr_tasks.config import MOST_PIXELS, SMALLEST_SIDE, DataSettings
from cxr_tasks.data.dicom.header import Told
from cxr_tasks.data.dicom.pixels import read_dicom
from cxr_tasks.data.formats import DICOM, Unusable, check_ending, format_of
from cxr_tasks.data.integrity import BROKEN_IMAGE, ROTATED, check_area, open_image
from cxr_tasks.data.resizing import resize_gray
from cxr_tasks.data.windows import PLAIN_WINDOW, WIDE_MODES, narrowed
from cxr_tasks.image_settings import FIRST_RESIZE, DicomSettings, ResizeName, WindowSettings

NOT_UTF8 = "the file name is not UTF-8: rename the file"
LONGEST_NAME = 200
# Bytes. No image that can be decoded comes near.
LARGEST_FILE = 256 * 2**20
THUMBNAIL_SIDE = 32

# A pixel format that is read, after colour palettes are resolved.
_GRAY_OR_COLOUR = {"L", "LA", "RGB", "RGBA"}
_MODES = {
    "1": "1 bit a pixel, black or white: export the image as 8-bit gray",
    "CMYK": "the colours are CMYK, made for printing: save the image as 8-bit gray",
}

# An image is in colour if channels lie more than 32 levels apart in over 5 % of the pixels. JPEG's own errors stay
# below 32 levels, and a gray image may have a small coloured mark.
_COLOUR_LEVELS, _COLOUR_SHARE, _COLOUR_SIDE = 32, 0.05, 64
# A film that was scanned in colour is tinted: its channels lie apart, and follow the brightness within 12 levels.
_TINT_LEVELS, _TINT_ERROR = 96, 12
# Masks and drawings. On 1,250 X-rays the 8 most frequent levels make up at most 74 % of the pixels, and two classes of
# brightness explain at most 90 % of the variance. A mask that JPEG has blurred reaches 91 % or 98 %, most reach both.
_FEW, _FEW_SHARE = 8, 0.9
_TWO_CLASSES = 0.97
_MASK = "a few gray levels make up almost the whole image: it is a mask, a drawing or blank, and no X-ray"
_LEVELS = range(256)
_SQUARES = [level * level for level in _LEVELS]


@dataclass(frozen=True, slots=True)
class Limits:
    """Which sizes of images are decoded: the widest that a profile may set, where nothing is said.

    Attributes:
        smallest_side: Pixels of width and height, at least.
        most_pixels: In all, at most.
    """

    smallest_side: int = SMALLEST_SIDE
    most_pixels: int = MOST_PIXELS


WIDEST = Limits()
_ANY_DICOM = DicomSettings(modalities=(), views=(), body_parts=(), secondary_captures=True)
KEY_OF_THIS_PROCESS = secrets.token_bytes(32)


@dataclass(frozen=True, slots=True)
class HowToRead:
    """How files become pixels.

    Attributes:
        limits: Which sizes of images are decoded.
        resize: How images are brought to the sides wanted.
        window: How more than 8 bits become 8.
        dicom: Which DICOM files are used.
        key: Makes the pseudonyms of patients; one of this process alone where none is given.
    """

    limits: Limits = WIDEST
    resize: ResizeName = FIRST_RESIZE
    window: WindowSettings = PLAIN_WINDOW
    dicom: DicomSettings = _ANY_DICOM
    key: bytes = field(default=KEY_OF_THIS_PROCESS, repr=False)

    @classmethod
    def of(cls, data: DataSettings, key: bytes = KEY_OF_THIS_PROCESS) -> HowToRead:
        """As the settings say."""
        return cls(Limits(data.smallest_side, data.most_pixels), data.resize, data.window, data.dicom, key)


PLAINLY = HowToRead()


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """What one usable file holds. The arrays are read-only.

    Attributes:
        width: Pixels of the file as stored.
        height: Pixels of the file as stored.
        mode: Pillow's name of the pixel format as stored: L, LA, P, PA, RGB, RGBA, I;16, I or F.
            Of DICOM the photometric interpretation and the bits, such as ``MONOCHROME1 12``.
        window: The rule by which more than 8 bits became 8; '' where there were no more.
        mean: Of the gray values, 0–255.
        contrast: Standard deviation of the gray values, 0–255.
        dhash: 64 bits: row by row of a 9×8 image, whether a pixel is brighter than its right neighbour. Copies that
            were encoded again or resized differ in few bits.
        thumbnail: (32, 32) uint8, the image made small with averaging.
        images: (S, S) uint8 for each requested side S, resized from the full gray image.
        told: What is kept of a DICOM header; ``None`` for other files.
    """

    width: int
    height: int
    mode: str
    window: str
    mean: float
    contrast: float
    dhash: int
    thumbnail: np.ndarray
    images: tuple[np.ndarray, ...]
    told: Told | None = None


def decode(content: bytes, name: str, sizes: Sequence[int], how: HowToRead = PLAINLY) -> Decoded:
    """Decode a whole file once.

    Args:
        content: All bytes of the file.
        name: Name or path of the file, as ``os.fsdecode`` gives it. The last part counts.
        sizes: Sides in pixels of the square images wanted.
        how: How it becomes pixels.

    Raises:
        Unusable: The file cannot be used. The text says why and, where a person can mend the file, how.
    """
    last = _checked_name(name)
    if format_of(content, last) == DICOM:
        found = read_dicom(content, how.limits.most_pixels, how.window, how.dicom, how.key)
        _check_header(found.image, how.limits.smallest_side)
        gray = _gray(found.image, how.window)
        return _describe(gray, found.mode, found.window, sizes, how.resize, found.told)
    with opened(content, name, how.limits.most_pixels) as image:
        _check_header(image, how.limits.smallest_side)
        image.load()
        gray = _gray(image, how.window)
        words = how.window.words if image.mode in WIDE_MODES else ""
        return _describe(gray, image.mode, words, sizes, how.resize)


def from_grays(grays: np.ndarray, sizes: Sequence[int], how: HowToRead = PLAINLY) -> Decoded:
    """What :func:`decode` makes of an 8-bit gray image whose file holds ``grays``.

    Args:
        grays: (H, W) uint8.
        sizes: As for :func:`decode`.
        how: Its limits, and how the image is resized.

    Raises:
        Unusable: As for :func:`decode`.
    """
    image = Image.fromarray(grays)
    check_area(image.size, how.limits.most_pixels)
    _check_header(image, how.limits.smallest_side)
    return _describe(image, image.mode, "", sizes, how.resize)


def too_large_a_file(size: int) -> str:
    """Why a file of so many bytes, more than ``LARGEST_FILE``, is not read."""
    return f"the file has {size // 2**20:,} MiB: at most {LARGEST_FILE // 2**20} are read"


@contextmanager
def opened(content: bytes, name: str, most_pixels: int = WIDEST.most_pixels) -> Iterator[Image.Image]:
    """The image in a file that is whole, before its pixels are read.

    Args:
        content: All bytes of the file.
        name: Name or path of the file.
        most_pixels: That are decoded.

    Raises:
        Unusable: There is no image, or anything goes wrong inside the block.
    """
    name = _checked_name(name)
    try:
        with open_image(content, format_of(content, name), most_pixels) as image:
            yield image
    except Unusable:
        raise
    except Exception as error:
        if "MAX_TEXT" in str(error):
            raise Unusable("too much text or too large a colour profile: save the image without metadata") from error
        raise Unusable(BROKEN_IMAGE.format(str(error) or type(error).__name__)) from error


def _checked_name(name: str) -> str:
    """The last part of a path, which other systems can hold too."""
    name = name.rpartition("/")[2]
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        raise Unusable(NOT_UTF8) from None
    if length > LONGEST_NAME:
        raise Unusable(f"the file name has {length} bytes: at most {LONGEST_NAME} are possible, rename the file")
    check_ending(name)
    return name


def _check_header(image: Image.Image, smallest_side: int) -> None:
    """What can be said before the pixels are read."""
    width, height = image.size
    if min(width, height) < smallest_side:
        raise Unusable(f"{width}×{height} pixels: at least {smallest_side} a side are needed")
    if (frames := getattr(image, "n_frames", 1)) > 1:
        raise Unusable(f"the file holds {frames} images: save the one that is meant")
    if image.mode not in _GRAY_OR_COLOUR | WIDE_MODES | {"P", "PA"}:
        fallback = f"the pixel format {image.mode} is not read: save the image as 8-bit gray"
        raise Unusable(_MODES.get(image.mode[:4], fallback))


def _gray(image: Image.Image, window: WindowSettings) -> Image.Image:
    """The gray values of a loaded image, unless something shows only now that speaks against them."""
    if image.info and (orientation := _orientation(image)) in range(2, 9):
        raise Unusable(ROTATED.format(orientation))
    if image.mode in WIDE_MODES:
        return narrowed(image, window)
    if image.mode == "L" and not image.has_transparency_data:
        return image
    plain = image
    if image.mode in ("P", "PA"):
        plain = image.convert("RGBA" if image.has_transparency_data else "RGB")
    if plain.has_transparency_data:
        alpha = plain if "A" in plain.mode else plain.convert(f"{plain.mode}A")
        if alpha.getchannel("A").getextrema()[0] != 255:
            raise Unusable("parts of the image are transparent: save it without transparency")
    if plain.mode.startswith("RGB"):
        _check_colour(plain)
    return plain.convert("L")


def _check_colour(image: Image.Image) -> None:
    sample = image.resize((_COLOUR_SIDE, _COLOUR_SIDE), Image.Resampling.NEAREST)
    red, green, blue = sample.split()[:3]
    green_apart = ImageChops.lighter(ImageChops.difference(red, green), ImageChops.difference(green, blue))
    few = _COLOUR_SHARE * _COLOUR_SIDE**2
    if sum(green_apart.histogram()[_COLOUR_LEVELS + 1 :]) <= few:
        return
    apart = ImageChops.lighter(green_apart, ImageChops.difference(red, blue))
    if sum(apart.histogram()[_TINT_LEVELS + 1 :]) > few or not _is_tinted(sample):
        raise Unusable("the image is in colour and not a gray X-ray")


def _is_tinted(sample: Image.Image) -> bool:
    """Whether each channel is a smooth function of the brightness, as in the scan of a bluish film."""
    channels = np.asarray(sample.convert("RGB"), np.float64).reshape(-1, 3)
    bright = np.asarray(sample.convert("L"), np.float64).ravel() / 255
    terms = np.stack([np.ones_like(bright), bright, bright**2], axis=1)
    fitted = terms @ np.linalg.lstsq(terms, channels, rcond=None)[0]
    off = np.abs(channels - fitted).max(axis=1) > _TINT_ERROR
    return bool(off.mean() <= _COLOUR_SHARE)


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception as error:
        raise Unusable("its EXIF data is damaged and may say that it is rotated: save it without EXIF") from error


def _describe(
    gray: Image.Image, mode: str, window: str, sizes: Sequence[int], resize: ResizeName, told: Told | None = None
) -> Decoded:
    counts = gray.histogram()
    mean, contrast = _moments(counts)
    if contrast == 0:
        raise Unusable("the image is all one colour")
    if _is_mask(counts):
        raise Unusable(_MASK)
    # The thumbnail depends on the image alone and not on ``sizes``, so that hashes can be compared across runs.
    thumbnail = gray.resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BILINEAR, reducing_gap=2.0)
    return Decoded(
        width=gray.width,
        height=gray.height,
        mode=mode,
        window=window,
        mean=mean,
        contrast=contrast,
        dhash=difference_hash(thumbnail),
        thumbnail=_array(thumbnail),
        images=tuple(_array(resize_gray(gray, size, resize)) for size in sizes),
        told=told,
    )


# The functions below compute with plain Python: between two decodings numpy's calls are cold and cost several times as
# much on so few numbers.


def _moments(counts: Sequence[int]) -> tuple[float, float]:
    """Mean and standard deviation of the gray values. The sums are whole numbers, so nothing cancels."""
    total = sum(counts)
    first = sum(map(mul, counts, _LEVELS))
    second = sum(map(mul, counts, _SQUARES))
    return first / total, math.sqrt(total * second - first * first) / total


def _is_mask(counts: Sequence[int]) -> bool:
    """Whether a histogram is that of a mask: few levels, or two classes of brightness and little within them.

    The second is Otsu's criterion: the largest share of the variance that one threshold explains. It needs no fixed
    levels, so what JPEG and resizing add around the two levels does not hide them.
    """
    frequent = sorted(counts)[-32:]
    total = sum(counts)
    if sum(frequent[-_FEW:]) >= _FEW_SHARE * total:
        return True
    # No mask spreads this far, and most X-rays are done with here.
    if sum(frequent) < 0.6 * total:
        return False
    first = sum(map(mul, counts, _LEVELS))
    spread = total * sum(map(mul, counts, _SQUARES)) - first * first
    below, sums = accumulate(counts), accumulate(map(mul, counts, _LEVELS))
    explained = max(
        (first * number - total * part) ** 2 / (number * (total - number))
        for number, part in zip(below, sums, strict=True)
        if 0 < number < total
    )
    return explained >= _TWO_CLASSES * spread


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
