"""Whether the file of an image is whole, and says what it is, before Pillow reads its pixels.

Pillow and the libraries below it fill in what is missing, drop the lower half of 16 bits, or take memory first and look
at the size afterwards. What they would pass over silently is looked for here. What Pillow does not read, or not in
full, imagecodecs does: JPEG of 12 bits, lossless JPEG, JPEG-LS, and JPEG 2000 of more than 8 bits.
"""

from __future__ import annotations

import re
import struct
import zlib
from io import BytesIO
from typing import Any, NamedTuple

import imagecodecs
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

from cxr_tasks.data.formats import DICOM, TooManyPixelsError, Unusable
from cxr_tasks.data.windows import WIDE_MODES

BROKEN_IMAGE = "the image is damaged ({}): copy or export it again"
_CUT = "the file is cut off before its end: copy it again"
_BITS = "colours of {} bits a channel are not read: save the image as gray, or with 8 bits"
ROTATED = "the file says it is rotated (EXIF orientation {}): save it upright"

# A marker follows any number of fill bytes. A scan ends with any marker but a stuffed 0xFF and restarts.
_MARKER = re.compile(rb"\xff+([^\xff])", re.DOTALL)
_SCAN_END = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
# JPEG-LS stuffs a bit and not a byte: the byte after 0xFF is below 0x80.
_JPEG_LS_SCAN_END = re.compile(rb"\xff[\x80-\xcf\xd8-\xfe]")
_START_OF_FRAME = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_HIERARCHICAL_OR_ARITHMETIC = {*range(0xC5, 0xC8), *range(0xC9, 0xD0)} - {0xCC}
# Kinds of JPEG that come out of DICOM files.
_LOSSLESS, _JPEG_LS = 0xC3, 0xF7
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_SEGMENTS = {*range(0xC0, 0xD0), 0xDA, 0xDB, 0xDC, 0xDD, *range(0xE0, 0xF0), _JPEG_LS, 0xF8, 0xFE}
# Each scan of a progressive JPEG costs a pass over all pixels. Encoders write about ten.
_MOST_SCANS = 100
_CODESTREAM = b"\xff\x4f\xff\x51"


class JpegFrame(NamedTuple):
    """What the frame header of a JPEG says. ``marker``: the kind of frame. ``size``: width and height in pixels."""

    marker: int
    bits: int
    size: tuple[int, int]
    channels: int

    @property
    def is_rare(self) -> bool:
        """Whether Pillow does not read it."""
        return self.marker in (_LOSSLESS, _JPEG_LS) or self.bits > 8


def check_area(size: tuple[int, int], most_pixels: int) -> None:
    """Raise :class:`TooManyPixelsError` for more pixels than are decoded, before memory is taken for them."""
    width, height = size
    if width * height > most_pixels:
        raise TooManyPixelsError(
            f"{width}×{height} pixels: at most {most_pixels:,} in all are decoded, make the image smaller"
        )


def open_image(content: bytes, format: str, most_pixels: int) -> Image.Image:
    """The image in a file that is whole, before its pixels are read.

    Image.open would judge the size with a warning. Filters of warnings belong to the whole process, and other threads
    change them. The formats' own classes do not warn.

    Args:
        content: All bytes of the file.
        format: As :func:`cxr_tasks.data.formats.format_of` names it.
        most_pixels: That are decoded.

    Raises:
        Unusable: The file is cut off, damaged, too large, or holds colours of more than 8 bits.
    """
    if format == "PNG":
        _check_png(content)
        image: Image.Image = PngImagePlugin.PngImageFile(BytesIO(content))
    elif format == "JPEG":
        frame = check_jpeg(content)
        check_area(frame.size, most_pixels)
        image = _rare_jpeg(content, frame) if frame.is_rare else JpegImagePlugin.jpeg_factory(BytesIO(content))
    elif format == "WebP":
        check_area(_webp_size(content), most_pixels)
        image = WebPImagePlugin.WebPImageFile(BytesIO(content))
    elif format == "JPEG 2000":
        image = Jpeg2KImagePlugin.Jpeg2KImageFile(BytesIO(content))
        if _bits_of_jpeg_2000(content) > 8:
            # Pillow would stretch the values to 16 bits.
            check_area(image.size, most_pixels)
            image = Image.fromarray(imagecodecs.jpeg2k_decode(content))
    elif format == "TIFF":
        image = TiffImagePlugin.TiffImageFile(BytesIO(content))
        _check_tiff(image, len(content))
    elif format == DICOM:
        raise Unusable("DICOM is not read here: save it as PNG")
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
        # Pillow would silently keep the upper halves of 16-bit colours.
        if kind == b"IHDR" and content[position + 16] == 16 and content[position + 17]:
            raise Unusable(_BITS.format(16))
        position = end + 4


def check_jpeg(content: bytes) -> JpegFrame:
    """Check that segments follow one another to the end: libjpeg paints the rest gray where they do not.

    Raises:
        Unusable: They do not, or no decoder reads this kind of JPEG.
    """
    position, scans, frame = 2, 0, None
    while match := _MARKER.match(content, position):
        marker, start = match[1][0], match.end()
        if marker == _END_OF_IMAGE:
            if frame is None:
                raise Unusable(BROKEN_IMAGE.format("it says nothing of its size"))
            return frame
        if marker in _HIERARCHICAL_OR_ARITHMETIC:
            raise Unusable("a kind of JPEG that is not read (hierarchical or arithmetic): save the image as PNG")
        if marker not in _SEGMENTS:
            raise Unusable(BROKEN_IMAGE.format(f"there is no JPEG marker 0x{marker:02x}"))
        position = start + max(2, int.from_bytes(content[start : start + 2]))
        if frame is None and marker in _START_OF_FRAME | {_JPEG_LS} and start + 8 <= len(content):
            bits, height, width, channels = struct.unpack_from(">BHHB", content, start + 2)
            frame = JpegFrame(marker, bits, (width, height), channels)
        if marker == _START_OF_SCAN:
            scans += 1
            if scans > _MOST_SCANS:
                raise Unusable(f"more than {_MOST_SCANS} passes over the pixels: save the image again as PNG or JPEG")
            ends = _JPEG_LS_SCAN_END if frame and frame.marker == _JPEG_LS else _SCAN_END
            found = ends.search(content, position)
            position = found.start() if found else len(content)
    if position >= len(content) - 1:
        raise Unusable(_CUT)
    raise Unusable(BROKEN_IMAGE.format("something else stands where a JPEG segment should begin"))


def _rare_jpeg(content: bytes, frame: JpegFrame) -> Image.Image:
    """The pixels of a JPEG that Pillow does not read."""
    if frame.channels > 1:
        raise Unusable(
            _BITS.format(frame.bits)
            if frame.bits > 8
            else "lossless JPEG in colour is not read: save the image as gray"
        )
    read = imagecodecs.jpegls_decode if frame.marker == _JPEG_LS else imagecodecs.jpeg8_decode
    return Image.fromarray(read(content))


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


def _bits_of_jpeg_2000(content: bytes) -> int:
    """Bits of the gray values; 0 where the file does not say.

    Raises:
        Unusable: It is cut off, or holds colours of more than 8 bits, of which Pillow would keep the upper 8.
    """
    start = content.find(_CODESTREAM)
    header = content[start + 40 :]
    if start < 0 or len(header) < 2:
        raise Unusable(_CUT)
    depths = header[2 : 2 + 3 * int.from_bytes(header[:2]) : 3]
    bits = max((1 + (depth & 0x7F) for depth in depths), default=0)
    if bits > 8 and len(depths) > 1:
        raise Unusable(_BITS.format(bits))
    return bits


def _check_tiff(image: TiffImagePlugin.TiffImageFile, size: int) -> None:
    """Check what libtiff would make up: missing strips, the meaning of black, and lower bits."""
    tags = image.tag_v2
    if (bits := max(_numbers(tags.get(TiffImagePlugin.BITSPERSAMPLE, 1)))) > 8 and image.mode not in WIDE_MODES:
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
