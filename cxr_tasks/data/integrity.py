"""Whether the file of an image is whole, and says what it is, before Pillow reads its pixels.

Pillow and the libraries below it fill in what is missing, drop the lower half of 16 bits, or take memory first and look
at the size afterwards. What they would pass over silently is looked for here.
"""

from __future__ import annotations

import re
import struct
import zlib
from io import BytesIO
from typing import Any

from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from cxr_tasks.data.formats import Unusable

BROKEN_IMAGE = "the image is damaged ({}): copy or export it again"
_CUT = "the file is cut off before its end: copy it again"
_BITS = "{} bits a pixel and no display window is known: export the image with 8 bits"
ROTATED = "the file says it is rotated (EXIF orientation {}): save it upright"

# A marker follows any number of fill bytes. A scan ends with any marker but a stuffed 0xFF and restarts.
_MARKER = re.compile(rb"\xff+([^\xff])", re.DOTALL)
_SCAN_END = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_START_OF_FRAME = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
# Lossless and arithmetic coding, and JPEG-LS: kinds of JPEG that come out of DICOM files.
_RARE_FRAMES = {0xC3, *range(0xC5, 0xC8), *range(0xC9, 0xD0), 0xF7} - {0xCC}
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_SEGMENTS = {*range(0xC0, 0xD0), 0xDA, 0xDB, 0xDC, 0xDD, *range(0xE0, 0xF0), 0xFE}
# Each scan of a progressive JPEG costs a pass over all pixels. Encoders write about ten.
_MOST_SCANS = 100
_CODESTREAM = b"\xff\x4f\xff\x51"


def check_area(size: tuple[int, int], most_pixels: int) -> None:
    """Raise :class:`Unusable` for more pixels than are decoded, before memory is taken for them."""
    width, height = size
    if width * height > most_pixels:
        raise Unusable(f"{width}×{height} pixels: at most {most_pixels:,} in all are decoded, make the image smaller")


def open_image(content: bytes, format: str, most_pixels: int) -> Image.Image:
    """The image in a file that is whole, before its pixels are read.

    Image.open would judge the size with a warning. Filters of warnings belong to the whole process, and other threads
    change them. The formats' own classes do not warn.

    Args:
        content: All bytes of the file.
        format: As :func:`cxr_tasks.data.formats.format_of` names it.
        most_pixels: That are decoded.

    Raises:
        Unusable: The file is cut off, damaged, too large, or holds more than 8 bits a pixel.
    """
    if format == "PNG":
        _check_png(content)
        image: Image.Image = PngImagePlugin.PngImageFile(BytesIO(content))
    elif format == "JPEG":
        _check_jpeg(content)
        image = JpegImagePlugin.jpeg_factory(BytesIO(content))
    elif format == "WebP":
        check_area(_webp_size(content), most_pixels)
        image = WebPImagePlugin.WebPImageFile(BytesIO(content))
    elif format == "JPEG 2000":
        _check_jpeg_2000(content)
        image = Jpeg2KImagePlugin.Jpeg2KImageFile(BytesIO(content))
    elif format == "TIFF":
        image = TiffImagePlugin.TiffImageFile(BytesIO(content))
        _check_tiff(image, len(content))
    else:
        plugin = {"GIF": GifImagePlugin.GifImageFile, "BMP": BmpImagePlugin.BmpImageFile}[format]
        image = plugin(BytesIO(content))
    check_area(image.size, most_pixels)
    return image


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
                BROKEN_IMAGE.format(f"the checksum of its {kind.decode('ascii', 'backslashreplace')} chunk is wrong")
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
        if marker in _RARE_FRAMES:
            raise Unusable("a kind of JPEG that is not read (lossless, JPEG-LS or arithmetic): save the image as PNG")
        if marker not in _SEGMENTS:
            raise Unusable(BROKEN_IMAGE.format(f"there is no JPEG marker 0x{marker:02x}"))
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
    raise Unusable(BROKEN_IMAGE.format("something else stands where a JPEG segment should begin"))


def _webp_size(content: bytes) -> tuple[int, int]:
    """Width and height that a WebP file claims. Its decoder takes memory for them before it tells."""
    if int.from_bytes(content[4:8], "little") + 8 > len(content):
        raise Unusable(_CUT)
    kind, header = content[12:16], content[20:30]
    if len(header) == 10:
        if kind == b"VP8X":
            return 1 + int.from_bytes(header[4:7], "little"), 1 + int.from_bytes(header[7:10], "little")
        if kind == b"VP8L":
            bits = int.from_bytes(header[1:5], "little")
            return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
        if kind == b"VP8 ":
            width, height = struct.unpack_from("<HH", header, 6)
            return width & 0x3FFF, height & 0x3FFF
    raise Unusable(BROKEN_IMAGE.format("there is no WebP picture behind its header"))


def _check_jpeg_2000(content: bytes) -> None:
    """Pillow would keep the upper 8 of more bits."""
    start = content.find(_CODESTREAM)
    header = content[start + 40 :]
    if start < 0 or len(header) < 2:
        raise Unusable(_CUT)
    depths = header[2 : 2 + 3 * int.from_bytes(header[:2]) : 3]
    if depths and (bits := 1 + max(depth & 0x7F for depth in depths)) > 8:
        raise Unusable(_BITS.format(bits))


def _check_tiff(image: TiffImagePlugin.TiffImageFile, size: int) -> None:
    """Check what libtiff would make up: missing strips, the meaning of black, and lower bits."""
    tags = image.tag_v2
    if (bits := max(_numbers(tags.get(TiffImagePlugin.BITSPERSAMPLE, 1)))) > 8:
        raise Unusable(_BITS.format(bits))
    if TiffImagePlugin.PHOTOMETRIC_INTERPRETATION not in tags:
        raise Unusable(BROKEN_IMAGE.format("it does not say whether black is 0"))
    if (orientation := tags.get(0x0112, 1)) in range(2, 9):
        raise Unusable(ROTATED.format(orientation))
    for at, length in (
        (TiffImagePlugin.STRIPOFFSETS, TiffImagePlugin.STRIPBYTECOUNTS),
        (TiffImagePlugin.TILEOFFSETS, TiffImagePlugin.TILEBYTECOUNTS),
    ):
        offsets, counts = _numbers(tags.get(at, ())), _numbers(tags.get(length, ()))
        if any(map(lambda offset, count: offset + count > size, offsets, counts)):
            raise Unusable(_CUT)


def _numbers(value: Any) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (value,)
