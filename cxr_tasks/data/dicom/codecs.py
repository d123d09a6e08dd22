"""Decodes compressed pixel data with imagecodecs, as a plugin of pydicom's decoders.

pydicom's own choice for JPEG is GDCM, which takes ten times as long for lossless JPEG and holds up other threads, or a
library under the GPL. Deflated and RLE pixel data are pydicom's own.
"""

from __future__ import annotations

import struct

import imagecodecs
from pydicom import uid
from pydicom.pixels.decoders.base import DecodeRunner, get_decoder

from cxr_tasks.data.integrity import check_jpeg

PLUGIN = "imagecodecs"
_JPEG_SYNTAXES = {uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLossless, uid.JPEGLosslessSV1}
_JPEG_LS_SYNTAXES = {uid.JPEGLSLossless, uid.JPEGLSNearLossless}
_JPEG_2000_SYNTAXES = {uid.JPEG2000Lossless, uid.JPEG2000, uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K}
DECODED = _JPEG_SYNTAXES | _JPEG_LS_SYNTAXES | _JPEG_2000_SYNTAXES
# pydicom asks each plugin for this table.
DECODER_DEPENDENCIES = {syntax: (PLUGIN,) for syntax in DECODED}
_START_OF_CODESTREAM = b"\xff\x4f\xff\x51"


def is_available(syntax: str) -> bool:
    """Whether a transfer syntax is decoded here; pydicom asks each plugin."""
    return syntax in DECODED


def decode_frame(frame: bytes, runner: DecodeRunner) -> bytes:
    """The pixels of one compressed frame, row by row, as pydicom wants them of a plugin.

    Raises:
        ValueError: The frame is cut off, or has another size than the header says. pydicom makes another error of it.
    """
    frame, syntax, size = bytes(frame), runner.transfer_syntax, (runner.columns, runner.rows)
    if syntax in _JPEG_2000_SYNTAXES:
        _check_size(_size_of_jpeg_2000(frame), size)
        pixels = imagecodecs.jpeg2k_decode(frame)
    else:
        # libjpeg paints gray what is missing.
        _check_size(check_jpeg(frame).size, size)
        pixels = imagecodecs.jpegls_decode(frame) if syntax in _JPEG_LS_SYNTAXES else imagecodecs.jpeg8_decode(frame)
    runner.set_option("bits_allocated", 8 * pixels.itemsize)
    if pixels.ndim == 3:
        runner.set_option("planar_configuration", 0)
        runner.set_option("photometric_interpretation", "RGB")
    return bytes(pixels.tobytes())


def _check_size(coded: tuple[int, int], told: tuple[int, int]) -> None:
    """Decoders take memory for what the frame says, and only the header's size was looked at."""
    if coded != told:
        raise ValueError("the compressed image has another size than the file says")


def _size_of_jpeg_2000(frame: bytes) -> tuple[int, int]:
    start = frame.find(_START_OF_CODESTREAM)
    if start < 0 or start + 24 > len(frame):
        raise ValueError("the compressed image is cut off")
    right, bottom, left, top = struct.unpack_from(">IIII", frame, start + 8)
    return right - left, bottom - top


for _syntax in DECODED:
    get_decoder(_syntax).add_plugin(PLUGIN, (__name__, "decode_frame"))
