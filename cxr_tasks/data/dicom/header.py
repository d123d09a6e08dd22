"""What is read of a DICOM header, and the little of it that is kept.

Only the elements named here are parsed. Of those that identify somebody, keyed hashes are kept. Nothing of a header
goes into a message but words of fixed lists: pydicom's own messages and warnings quote values, so they are silenced.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pydicom
from pydicom import uid
from pydicom.dataset import FileDataset

from cxr_tasks.data.facts import age_in_years, normal_view, sex_letter
from cxr_tasks.data.formats import NotAsked, Unusable, is_dicom
from cxr_tasks.data.patients import known_patient, pseudonym
from cxr_tasks.image_settings import DicomSettings
from cxr_tasks.names import composed

_HEADER_OF_PIXELS = """
    Rows Columns SamplesPerPixel PhotometricInterpretation PlanarConfiguration NumberOfFrames BitsAllocated BitsStored
    HighBit PixelRepresentation PixelPaddingValue PixelPaddingRangeLimit RescaleSlope RescaleIntercept
    ModalityLUTSequence VOILUTSequence VOILUTFunction WindowCenter WindowWidth PresentationLUTShape PixelData
"""
_HEADER_OF_IMAGE = """
    SOPClassUID Modality BodyPartExamined ViewPosition PatientID StudyInstanceUID PatientAge PatientSex Manufacturer
    ManufacturerModelName InstitutionName PixelSpacing ImagerPixelSpacing BurnedInAnnotation
"""
# Classes of radiographs and of secondary captures, which many collections are stored as.
_SECONDARY = {uid.SecondaryCaptureImageStorage, "1.2.840.10008.5.1.4.1.1.7.2", "1.2.840.10008.5.1.4.1.1.7.3"}
_RADIOGRAPHS = {
    uid.ComputedRadiographyImageStorage,
    uid.DigitalXRayImageStorageForPresentation,
    uid.DigitalXRayImageStorageForProcessing,
}
# What a reason may repeat of a header.
_LISTED_MODALITIES = "CR DX RG DR CT MR US NM PT XA RF MG IO PX OT SC PR SR KO DOC ES XC SM GM SEG RTIMAGE BMD"
_LISTED_BODY_PARTS = """
    ABDOMEN ANKLE ARM BREAST CHEST CLAVICLE CSPINE ELBOW EXTREMITY FEMUR FINGER FOOT FOREARM HAND HEAD HEART HIP
    HUMERUS KNEE LEG LSPINE LUNG NECK PELVIS RIB SHOULDER SKULL SPINE STERNUM THIGH THORAX TIBIA TOE TSPINE WHOLEBODY
    WRIST
"""
_LISTED_VIEWS = {"PA", "AP", "AP SUPINE", "LATERAL", "LLD", "RLD", "LLO", "RLO", "LAO", "RAO", "LPO", "RPO"}
# pydicom says what is wrong with values, and what they are: not in logs, those of the loggers below it too, and not in
# warnings. Once for the process: filters of warnings are not for threads to change.
logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
warnings.filterwarnings("ignore", module=r"pydicom\b|cxr_tasks\.data\.dicom\b")
BROKEN_DICOM = "the DICOM file is damaged: copy or export it again"


@dataclass(frozen=True, slots=True)
class Told:
    """What is kept of a header.

    Attributes:
        patient: A pseudonym; '' where the patient is not known, as in all texts here.
        study: A pseudonym.
        view: As :func:`cxr_tasks.data.facts.normal_view` writes it.
        age: In years; NaN where it is not known.
        sex: F, M or O.
        source: Manufacturer and model, and a pseudonym of the institution.
        width_mm: Of the whole image in millimetres; NaN where the spacing of the pixels is not known.
        height_mm: Of the whole image.
        burnt_in: Whether the file says that text is burnt into the pixels.
        unsaid: What a switch asks for and the file does not say, such as ``view``.
    """

    patient: str
    study: str
    view: str
    age: float
    sex: str
    source: str
    width_mm: float
    height_mm: float
    burnt_in: bool
    unsaid: tuple[str, ...]


def read_header(content: bytes) -> FileDataset:
    """The elements of a file that are needed, pixels among them.

    Raises:
        Unusable: It cannot be read.
    """
    try:
        wanted = [*_HEADER_OF_PIXELS.split(), *_HEADER_OF_IMAGE.split()]
        dataset = pydicom.dcmread(BytesIO(content), force=True, specific_tags=wanted)
        syntax = dataset.file_meta.get("TransferSyntaxUID", uid.ImplicitVRLittleEndian)
        dataset.file_meta.TransferSyntaxUID = syntax
    except Exception:
        raise Unusable(BROKEN_DICOM) from None
    if syntax == uid.DeflatedExplicitVRLittleEndian:
        # It would be unpacked to any size before anybody can look at that.
        raise Unusable("the whole DICOM file is deflated: save it with another transfer syntax")
    return dataset


def read_element(path: Path, name: str) -> str:
    """One element of a file's header as text; '' where the file has none, is no DICOM file or cannot be read.

    The text may identify somebody: it is not to leave the process.
    """
    try:
        with path.open("rb") as stream:
            if not is_dicom(stream.read(256)):
                return ""
            stream.seek(0)
            dataset = pydicom.dcmread(stream, stop_before_pixels=True, force=True, specific_tags=[name])
    except Exception:  # whatever is wrong with a file is said where it is read
        return ""
    return text_of(dataset, name)


def check_kind(dataset: FileDataset, settings: DicomSettings) -> tuple[str, ...]:
    """Refuse what says that it is no X-ray of the kinds that are used.

    Returns:
        What the file does not say.

    Raises:
        NotAsked: With what the file says that it is.
    """
    unsaid = []
    modality, kind = text_of(dataset, "Modality").upper(), text_of(dataset, "SOPClassUID")
    if kind in _SECONDARY and not settings.secondary_captures:
        raise NotAsked("the file is a secondary capture, and data.dicom.secondary_captures is false")
    if not modality:
        if kind and kind not in _RADIOGRAPHS | _SECONDARY:
            raise NotAsked("the DICOM file is of a kind that holds no radiograph")
        unsaid.append("modality")
    elif settings.modalities and modality not in settings.modalities:
        raise NotAsked(
            f"the modality{_if_listed(modality, _LISTED_MODALITIES.split())} is not among data.dicom.modalities"
        )
    body_part = text_of(dataset, "BodyPartExamined").upper()
    if not body_part:
        unsaid.append("body part")
    elif settings.body_parts and body_part not in settings.body_parts:
        raise NotAsked(
            f"the body part{_if_listed(body_part, _LISTED_BODY_PARTS.split())} is not among data.dicom.body_parts"
        )
    view = normal_view(text_of(dataset, "ViewPosition"))
    if not view:
        unsaid.append("view")
    elif settings.views and view not in settings.views:
        raise NotAsked(f"the view{_if_listed(view, _LISTED_VIEWS)} is not among data.dicom.views")
    return tuple(unsaid)


def told_of(dataset: FileDataset, unsaid: tuple[str, ...], key: bytes) -> Told:
    """What is kept of a header; ``key`` makes the pseudonyms."""
    view = normal_view(text_of(dataset, "ViewPosition"))
    institution = pseudonym(key, "institution", text_of(dataset, "InstitutionName").casefold())[:6]
    machine = " ".join(text_of(dataset, name) for name in ("Manufacturer", "ManufacturerModelName")).strip()
    down, across = _spacing(dataset)
    return Told(
        patient=pseudonym(key, "patient", known_patient(text_of(dataset, "PatientID"))),
        study=pseudonym(key, "study", text_of(dataset, "StudyInstanceUID")),
        view=view if view in _LISTED_VIEWS else "",
        age=age_in_years(text_of(dataset, "PatientAge")),
        sex=sex_letter(text_of(dataset, "PatientSex")),
        source=", ".join(filter(None, (machine[:64], institution and f"institution {institution}"))),
        width_mm=across * int(dataset.Columns),
        height_mm=down * int(dataset.Rows),
        burnt_in=text_of(dataset, "BurnedInAnnotation").upper() == "YES",
        unsaid=unsaid,
    )


def text_of(dataset: FileDataset, name: str) -> str:
    """An element as text, the first value of several; '' where it is missing or cannot be read."""
    return next(_values(dataset, name), "")


def numbers_of(dataset: FileDataset, name: str) -> list[float]:
    """The numbers of an element; none where it is missing or cannot be read."""
    try:
        return [float(value) for value in _values(dataset, name)]
    except ValueError:
        return []


def _values(dataset: FileDataset, name: str) -> Iterator[str]:
    try:
        value = dataset.get(name)
        several = value if isinstance(value, list | pydicom.multival.MultiValue) else [value]
        yield from (composed(str(one)).strip(" \0") for one in several if one is not None)
    except Exception:  # whatever is wrong with an element, its text must not show
        return


def _spacing(dataset: FileDataset) -> tuple[float, float]:
    """Millimetres from row to row and from column to column; on the detector where nothing better is known."""
    for name in ("PixelSpacing", "ImagerPixelSpacing"):
        spacing = numbers_of(dataset, name)
        if len(spacing) == 2 and all(0 < each < math.inf for each in spacing):
            return spacing[0], spacing[1]
    return math.nan, math.nan


def _if_listed(value: str, words: Collection[str]) -> str:
    """A value of a header where it is one of ``words``: anything may stand in the others."""
    return f" {value}" if value in words else " that the file names"
