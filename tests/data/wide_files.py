"""Image files of more than 8 bits a pixel, of one picture, for tests."""

from __future__ import annotations

import imagecodecs
import numpy as np
from PIL import Image

from tests.data.bad_files import encoded, ribs

# (80, 96) uint16 below 4,096, with a part that is brighter than all else.
VALUES = np.asarray(ribs()).astype(np.uint16) * 11 + 300
VALUES[:6, :6] = 4000
_IMAGE = Image.fromarray(VALUES)
WIDE_FILES: dict[str, bytes] = {
    "16-bit.png": encoded(_IMAGE),
    "16-bit.tif": encoded(_IMAGE, "TIFF"),
    "16-bit-lzw.tif": encoded(_IMAGE, "TIFF", compression="tiff_lzw"),
    "32-bit.tif": encoded(Image.fromarray(VALUES.astype(np.int32)), "TIFF"),
    "float.tif": encoded(Image.fromarray(VALUES.astype(np.float32)), "TIFF"),
    "16-bit.jp2": encoded(_IMAGE, "JPEG2000"),
    "12-bit.j2k": bytes(imagecodecs.jpeg2k_encode(VALUES, level=0, codecformat="j2k", bitspersample=12)),
    "12-bit.jpg": bytes(imagecodecs.jpeg8_encode(VALUES, level=98, bitspersample=12)),
    "12-bit-lossless.jpg": bytes(imagecodecs.jpeg8_encode(VALUES, lossless=True, bitspersample=12)),
    "16-bit-lossless.jpg": bytes(imagecodecs.jpeg8_encode(VALUES, lossless=True, bitspersample=16)),
    "jpeg-ls.jls": bytes(imagecodecs.jpegls_encode(VALUES)),
}
