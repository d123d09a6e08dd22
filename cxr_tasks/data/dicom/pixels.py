"""The pixels of a DICOM file as 8-bit grays, black for what lets X-rays through.

The values of a modality LUT or rescale go through the file's first VOI LUT or window, or else through the window of the
settings. Every one of the 65,536 values that a pixel may have is computed once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset, FileDataset
from pydicom.pixels import apply_modality_lut, apply_windowing
from pydicom.pixels.decoders.base import get_decoder

from cxr_tasks.data.dicom.codecs import DECODED, PLUGIN
from cxr_tasks.data.dicom.header import BROKEN_DICOM, Told, check_kind, numbers_of, read_header, text_of, told_of
from cxr_tasks.data.formats import Unusable
from cxr_tasks.data.integrity import check_area
from cxr_tasks.data.windows import percentiles_of
from cxr_tasks.image_settings import DicomSettings, WindowSettings

_GRAY = {"MONOCHROME1", "MONOCHROME2"}
_COLOURS = {"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"}


@dataclass(frozen=True, slots=True)
class DicomImage:
    """An image of a DICOM file.

    Attributes:
        image: 8-bit, gray or in colours.
        mode: Photometric interpretation and bits as stored, such as ``MONOCHROME1 12``.
        window: The rule by which its values became 8 bits: ``voi 2048/4096`` (centre and width), ``voi lut``, or the
            rule of the settings; '' where there were no more bits and no window.
        told: What is kept of the header.
    """

    image: Image.Image
    mode: str
    window: str
    told: Told


def read_dicom(
    content: bytes, most_pixels: int, window: WindowSettings, settings: DicomSettings, key: bytes
) -> DicomImage:
    """The image in a DICOM file.

    Args:
        content: All bytes of the file.
        most_pixels: That are decoded.
        window: What is done with more than 8 bits where the file says nothing.
        settings: Which files are used.
        key: Makes the pseudonyms.

    Raises:
        Unusable: With what speaks against it, and no text of the header.
    """
    dataset = read_header(content)
    unsaid = check_kind(dataset, settings)
    try:
        return _read_pixels(dataset, unsaid, most_pixels, window, key)
    except Unusable:
        raise
    except Exception:  # messages of libraries quote values
        raise Unusable(BROKEN_DICOM) from None


def _read_pixels(
    dataset: FileDataset, unsaid: tuple[str, ...], most_pixels: int, window: WindowSettings, key: bytes
) -> DicomImage:
    photometric = _check_pixels(dataset, most_pixels)
    pixels = _decoded(dataset)
    told, mode = told_of(dataset, unsaid, key), f"{photometric} {dataset.BitsStored}"
    if photometric not in _GRAY:
        return DicomImage(Image.fromarray(pixels), mode, "", told)
    bits = 8 * pixels.itemsize
    numbers = pixels.view(f"uint{bits}")
    patterns = np.arange(2**bits, dtype=numbers.dtype).view(pixels.dtype)
    padding = _padding(dataset, patterns)
    levels, words = _by_voi(dataset, patterns)
    if levels is None and dataset.BitsStored > 8:
        values, words = _scaled(dataset, patterns), window.words
        counts = np.where(padding, 0, np.bincount(numbers.ravel(), minlength=2**bits))
        low, high = (window.low, window.high) if window.rule == "fixed" else percentiles_of(values, counts, window)
        levels = (values - low) * (255 / (high - low))
    elif levels is None:
        levels = patterns.astype(np.float64) * (255 / (2 ** int(dataset.BitsStored) - 1))
    grays = np.rint(levels.clip(0, 255)).astype(np.uint8)
    if photometric == "MONOCHROME1" or text_of(dataset, "PresentationLUTShape").upper() == "INVERSE":
        grays = 255 - grays
    grays[padding] = 0
    return DicomImage(Image.fromarray(grays[numbers]), mode, words, told)


def _check_pixels(dataset: FileDataset, most_pixels: int) -> str:
    """What can be said before pixels are decoded. Returns the photometric interpretation."""
    if "PixelData" not in dataset or "Rows" not in dataset or "Columns" not in dataset:
        raise Unusable("the DICOM file holds no pixels, or is cut off before them: copy or export it again")
    check_area((int(dataset.Columns), int(dataset.Rows)), most_pixels)
    if (frames := int(float(text_of(dataset, "NumberOfFrames") or 1))) > 1:
        raise Unusable(f"the file holds {frames} images: save the one that is meant")
    photometric = text_of(dataset, "PhotometricInterpretation").upper()
    if photometric not in _GRAY | _COLOURS:
        raise Unusable("the image is in colour and not a gray X-ray")
    if dataset.BitsAllocated not in (8, 16) or (photometric in _COLOURS and dataset.BitsAllocated != 8):
        raise Unusable(f"{int(dataset.BitsAllocated)} bits a pixel are not read in a DICOM file: export 8 or 16")
    return photometric


def _decoded(dataset: FileDataset) -> np.ndarray:
    """The stored pixels, (H, W) or (H, W, 3)."""
    syntax = dataset.file_meta.TransferSyntaxUID
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise Unusable("the pixels are packed in a way that is not read: save them uncompressed") from None
    try:
        pixels, _ = decoder.as_array(dataset, index=0, decoding_plugin=PLUGIN if syntax in DECODED else "")
    except (RuntimeError, ValueError):
        raise Unusable("the pixels are damaged or cut off: copy or export the file again") from None
    return np.ascontiguousarray(pixels)


def _scaled(dataset: FileDataset, values: np.ndarray) -> np.ndarray:
    """Stored values after the modality LUT or the rescale."""
    return np.asarray(apply_modality_lut(values.astype(np.int64), dataset), np.float64)


def _by_voi(dataset: FileDataset, patterns: np.ndarray) -> tuple[np.ndarray | None, str]:
    """Stored values as grays from 0 to 255 by the file's first VOI LUT or window; ``None`` where there is none."""
    if sequence := dataset.get("VOILUTSequence"):
        return _through_lut(_scaled(dataset, patterns), sequence[0]), "voi lut"
    centre, width = (numbers_of(dataset, name)[:1] for name in ("WindowCenter", "WindowWidth"))
    function = text_of(dataset, "VOILUTFunction").upper()
    function = function if function in ("LINEAR_EXACT", "SIGMOID") else "LINEAR"
    if (
        not centre
        or not width
        or not np.isfinite([*centre, *width]).all()
        or width[0] < (1 if function == "LINEAR" else 1e-6)
    ):
        return None, ""
    # Of 8 unsigned bits, so that grays come out: with a negative slope pydicom would turn them round.
    window = Dataset()
    window.BitsStored, window.PixelRepresentation = 8, 0
    window.PhotometricInterpretation = "MONOCHROME2"
    window.WindowCenter, window.WindowWidth, window.VOILUTFunction = centre[0], width[0], function
    words = f"voi {centre[0]:g}/{width[0]:g}" + ("" if function == "LINEAR" else f" {function.lower()}")
    return apply_windowing(_scaled(dataset, patterns), window), words


def _through_lut(values: np.ndarray, item: Dataset) -> np.ndarray:
    """Values through a VOI LUT. pydicom's own wraps round where 8 bits come of more than 256 values."""
    entries, first, bits = (int(number) for number in item.LUTDescriptor)
    data = item.LUTData
    table = np.frombuffer(data, "<u2") if isinstance(data, bytes) else np.asarray(data)
    places = np.rint(values - first).clip(0, min(entries or 2**16, len(table)) - 1).astype(np.int64)
    return table[places].astype(np.float64) * (255 / (2**bits - 1))


def _padding(dataset: FileDataset, patterns: np.ndarray) -> np.ndarray:
    """Which values are no pixels of the image but fill it up to a rectangle."""
    ends = [*numbers_of(dataset, "PixelPaddingValue")[:1], *numbers_of(dataset, "PixelPaddingRangeLimit")[:1]]
    if "PixelPaddingValue" not in dataset or not ends:
        return np.zeros(len(patterns), bool)
    return np.asarray((patterns >= min(ends)) & (patterns <= max(ends)))
