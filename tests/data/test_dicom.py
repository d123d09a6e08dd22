from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.dataset import Dataset

from cxr_tasks.config import resolve
from cxr_tasks.data.decode import HowToRead, decode
from cxr_tasks.data.dicom.pixels import DicomImage, read_dicom
from cxr_tasks.data.formats import NotAsked, Unusable, is_dicom
from cxr_tasks.data.patients import pseudonym
from cxr_tasks.image_settings import WindowSettings
from tests.data.bad_files import ribs
from tests.data.dicom_files import SECRETS, VALUES, dicom

SETTINGS = resolve("quick").data.dicom
WINDOW = WindowSettings(rule="percentiles", low=1, high=99)
KEY = b"a key"
SYNTAXES = [
    uid.ExplicitVRLittleEndian,
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.JPEGLossless,
    uid.JPEGLosslessSV1,
    uid.JPEGLSLossless,
    uid.JPEG2000Lossless,
    uid.RLELossless,
]


def read(content: bytes) -> DicomImage:
    return read_dicom(content, 10**7, WINDOW, SETTINGS, KEY)


def grays(content: bytes) -> np.ndarray:
    return np.asarray(read(content).image).astype(float)


def linear(values: np.ndarray, centre: float, width: float) -> np.ndarray:
    """DICOM PS3.3 C.11.2.1.2.1 with outputs from 0 to 255."""
    low, high = centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2
    between = ((values - (centre - 0.5)) / (width - 1) + 0.5) * 255
    return np.where(values <= low, 0, np.where(values > high, 255, between))


def percentiles(values: np.ndarray) -> np.ndarray:
    ordered = np.sort(values.ravel())
    low, high = (ordered[int(np.ceil(share * len(ordered))) - 1] for share in (0.01, 0.99))
    return np.clip((values - low) / (high - low), 0, 1) * 255


V = VALUES.astype(float)
RESCALE = {"RescaleSlope": "2.5", "RescaleIntercept": "-1000", "RescaleType": "US"}
ONE_WINDOW = {"WindowCenter": 2000, "WindowWidth": 2500}


def lut(entries: int, first: int, bits: int) -> Dataset:
    item = Dataset()
    item.LUTDescriptor = [entries, first, bits]
    item["LUTDescriptor"].VR = "US"
    item.LUTData = (((np.arange(entries) / entries) ** 2) * (2**bits - 1)).astype(int).tolist()
    item["LUTData"].VR = "US"
    return item


def through(values: np.ndarray, item: Dataset) -> np.ndarray:
    entries, first, bits = item.LUTDescriptor
    return np.array(item.LUTData)[np.clip(values - first, 0, entries - 1).astype(int)] / (2**bits - 1) * 255


CASES: dict[str, tuple[dict[str, Any], Callable[[], np.ndarray], str]] = {
    "windowed": (ONE_WINDOW, lambda: linear(V, 2000, 2500), "voi 2000/2500"),
    "the first of two windows": (
        {"WindowCenter": [1500, 900], "WindowWidth": [800, 300]},
        lambda: linear(V, 1500, 800),
        "voi 1500/800",
    ),
    "rescaled": (ONE_WINDOW | RESCALE, lambda: linear(V * 2.5 - 1000, 2000, 2500), "voi 2000/2500"),
    "rescaled with a negative slope": (
        ONE_WINDOW | {"RescaleSlope": "-1", "RescaleIntercept": "4095"},
        lambda: linear(4095 - V, 2000, 2500),
        "voi 2000/2500",
    ),
    "exact": (
        ONE_WINDOW | {"VOILUTFunction": "LINEAR_EXACT"},
        lambda: np.clip((V - 2000) / 2500 + 0.5, 0, 1) * 255,
        "voi 2000/2500 linear_exact",
    ),
    "sigmoid": (
        ONE_WINDOW | {"VOILUTFunction": "SIGMOID"},
        lambda: 255 / (1 + np.exp(-4 * (V - 2000) / 2500)),
        "voi 2000/2500 sigmoid",
    ),
    "MONOCHROME1": (
        ONE_WINDOW | {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE"},
        lambda: 255 - linear(V, 2000, 2500),
        "voi 2000/2500",
    ),
    "inverse": (
        ONE_WINDOW | {"PresentationLUTShape": "INVERSE"},
        lambda: 255 - linear(V, 2000, 2500),
        "voi 2000/2500",
    ),
    "12 bits without a window": ({}, lambda: percentiles(V), "percentiles 1–99"),
    "MONOCHROME1 without a window": (
        {"PhotometricInterpretation": "MONOCHROME1"},
        lambda: 255 - percentiles(V),
        "percentiles 1–99",
    ),
    "a window of no width": ({"WindowCenter": 2000, "WindowWidth": 0}, lambda: percentiles(V), "percentiles 1–99"),
    "VOI LUT of 12 bits": (
        {"VOILUTSequence": [lut(4096, 0, 12)]},
        lambda: through(V, lut(4096, 0, 12)),
        "voi lut",
    ),
    "VOI LUT to 8 bits": (
        ONE_WINDOW | {"VOILUTSequence": [lut(3000, 500, 8)]},
        lambda: through(V, lut(3000, 500, 8)),
        "voi lut",
    ),
    "modality LUT": (
        ONE_WINDOW | {"ModalityLUTSequence": [lut(4096, 0, 16)]},
        lambda: linear(np.array(lut(4096, 0, 16).LUTData)[VALUES].astype(float), 2000, 2500),
        "voi 2000/2500",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_pixels_are_those_of_the_formulas(case: str) -> None:
    changed, expected, words = CASES[case]
    found = read(dicom(**changed))

    assert np.abs(np.asarray(found.image) - expected()).max() <= 1
    assert found.window == words


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.name)
def test_pixels_are_the_same_however_they_are_packed(syntax: uid.UID) -> None:
    assert np.abs(grays(dicom(syntax=syntax, **ONE_WINDOW)) - linear(V, 2000, 2500)).max() <= 1


def test_lossy_jpeg_of_12_bits_is_close() -> None:
    assert np.abs(grays(dicom(syntax=uid.JPEGExtended12Bit, **ONE_WINDOW)) - linear(V, 2000, 2500)).max() <= 2


@pytest.mark.parametrize(("bits", "kind"), [(16, np.uint16), (16, np.int16), (14, np.uint16)])
def test_signed_and_wider_values_are_read(bits: int, kind: type) -> None:
    values = VALUES.astype(kind) * (4 if kind is np.uint16 else 1) - (2000 if kind is np.int16 else 0)

    assert np.abs(grays(dicom(values, bits=bits)) - percentiles(values.astype(float))).max() <= 1


def test_8_bits_without_a_window_stay_as_they_are() -> None:
    eight = np.asarray(ribs())

    found = read(dicom(eight, bits=8))

    np.testing.assert_array_equal(np.asarray(found.image), eight)
    assert (found.window, found.mode) == ("", "MONOCHROME2 8")


def test_padding_is_black_and_does_not_count_in_percentiles() -> None:
    padded = VALUES.copy()
    padded[:30] = 4095
    image = grays(dicom(padded, PixelPaddingValue=4095))

    assert (image[:30] == 0).all()
    assert np.abs(image[30:] - percentiles(V[30:])).max() <= 1


def test_gray_in_colours_is_read_and_colour_is_not() -> None:
    gray = np.asarray(ribs())
    rgb = {"SamplesPerPixel": 3, "PlanarConfiguration": 0, "PhotometricInterpretation": "RGB"}

    assert decode(dicom(np.dstack([gray] * 3), bits=8, **rgb), "a.dcm", ()).mean == pytest.approx(gray.mean(), abs=0.1)
    with pytest.raises(Unusable, match="in colour"):
        decode(dicom(np.dstack([gray, gray // 2, gray[::-1]]), bits=8, **rgb), "a.dcm", ())


NOT_ASKED = {
    "the view LATERAL is not among data.dicom.views": {"ViewPosition": "LL"},
    "the view LLD is not among data.dicom.views": {"ViewPosition": "LLD"},
    "the view that the file names is not among data.dicom.views": {"ViewPosition": "ZZODDVIEWZZ"},
    "the modality CT is not among data.dicom.modalities": {"Modality": "CT"},
    "the modality OT is not among data.dicom.modalities": {
        "Modality": "OT",
        "SOPClassUID": uid.SecondaryCaptureImageStorage,
    },
    "the body part HAND is not among data.dicom.body_parts": {"BodyPartExamined": "HAND"},
    "the body part that the file names is not among data.dicom.body_parts": {"BodyPartExamined": "ZZODDPARTZZ"},
    "the DICOM file is of a kind that holds no radiograph": {"Modality": "", "SOPClassUID": uid.CTImageStorage},
}


@pytest.mark.parametrize("reason", NOT_ASKED)
def test_what_nobody_asked_for_is_left_out(reason: str) -> None:
    with pytest.raises(NotAsked, match=reason):
        read(dicom(**NOT_ASKED[reason]))


def test_secondary_captures_are_used_unless_a_switch_says_otherwise() -> None:
    capture = dicom(SOPClassUID=uid.SecondaryCaptureImageStorage, Modality="CR")
    read(capture)

    without = SETTINGS.model_copy(update={"secondary_captures": False})
    with pytest.raises(NotAsked, match="secondary capture"):
        read_dicom(capture, 10**7, WINDOW, without, KEY)


def test_what_the_file_does_not_say_is_used_and_told() -> None:
    told = read(dicom(ViewPosition="", Modality="", BodyPartExamined=None)).told

    assert told.unsaid == ("modality", "body part", "view") and told.view == ""


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


BROKEN: dict[str, tuple[Callable[[], bytes], str]] = {
    "multi-frame": (lambda: dicom(np.stack([VALUES, VALUES]).reshape(160, 96), Rows=80, NumberOfFrames=2), "2 images"),
    "no pixel data": (lambda: dicom(PixelData=None), "holds no pixels"),
    "truncated": (lambda: cut(dicom()), "damaged"),
    "truncated JPEG": (lambda: cut(dicom(syntax=uid.JPEGLosslessSV1)), "cut off"),
    "truncated JPEG 2000": (lambda: cut(dicom(syntax=uid.JPEG2000Lossless)), "cut off"),
    "other size": (lambda: dicom(syntax=uid.JPEGLosslessSV1, Rows=90), "damaged"),
    "enormous": (lambda: dicom(Rows=60_000, Columns=60_000), "at most 10,000,000"),
    "palette": (lambda: dicom(PhotometricInterpretation="PALETTE COLOR"), "in colour"),
    "header alone": (lambda: bytes(128) + b"DICM" + bytes(200), "holds no pixels|damaged"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_says_so(case: str) -> None:
    make, reason = BROKEN[case]
    with pytest.raises(Unusable, match=reason):
        read(make())


@pytest.mark.parametrize("name", ["a.dcm", "a.dicom", "a.ima", "IM0001", "1.2.840.113619.2.5"])
def test_a_file_is_dicom_by_its_content(name: str) -> None:
    how = HowToRead(window=WINDOW, dicom=SETTINGS, key=KEY)
    decoded = decode(dicom(**ONE_WINDOW), name, (96,), how)

    assert (decoded.mode, decoded.window) == ("MONOCHROME2 12", "voi 2000/2500")
    assert decoded.told is not None and (decoded.told.width_mm, decoded.told.height_mm) == pytest.approx((9.6, 16))


def test_a_file_without_a_preamble_is_read() -> None:
    dataset = pydicom.dcmread(BytesIO(dicom(**ONE_WINDOW)))
    stream = BytesIO()
    pydicom.dcmwrite(stream, Dataset(dataset), implicit_vr=True, little_endian=True)

    assert is_dicom(stream.getvalue()) and stream.getvalue()[128:132] != b"DICM"
    assert np.abs(grays(stream.getvalue()) - linear(V, 2000, 2500)).max() <= 1


def test_what_is_kept_of_a_header_are_facts_and_pseudonyms() -> None:
    told = read(dicom(BurnedInAnnotation="YES")).told

    assert (told.view, told.age, told.sex, told.burnt_in) == ("PA", 57, "F", True)
    assert told.patient == pseudonym(KEY, "patient", SECRETS["PatientID"]) and len(told.patient) == 16
    assert told.study == pseudonym(KEY, "study", SECRETS["StudyInstanceUID"])
    assert told.source.startswith("Fictional Ray 3, institution ")
    assert not [name for name, secret in SECRETS.items() if secret in repr(told)]
    assert read(dicom(PatientID="ANONYMOUS")).told.patient == ""


def test_values_that_are_wrong_show_nowhere(caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder) -> None:
    content = dicom().replace(b"057Y", b"ZZ!!").replace(b"Fictional", b"Fict\xff\xfeona")
    content = content.replace(b"1.2.826.0.1.3680043.8.498.77001", b"ZZNOTAUIDZZ-ZZ-ZZ-ZZ-ZZ-ZZ-ZZZZ")
    told = read(content).told

    assert np.isnan(told.age)
    with pytest.raises(Unusable) as raised:
        read(dicom(syntax=uid.JPEGLosslessSV1, BitsStored=12).replace(b"MONOCHROME2", b"ZZPHOTOZZZZ"))
    said = f"{raised.value} {caplog.text} {[str(warning.message) for warning in recwarn]}"
    assert "ZZ" not in said
