"""DICOM files for tests, written with pydicom, with values in the header that must never be seen again."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import imagecodecs
import numpy as np
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate

from tests.data.bad_files import ribs

# (80, 96) uint16 of 12 bits.
VALUES = np.asarray(ribs()).astype(np.uint16) * 13 + 300
# One token each, which no other text holds.
SECRETS = {
    "PatientName": "QUIXANO^ALONSO",
    "PatientID": "ZZPATIENTZZ4711",
    "PatientBirthDate": "19010203",
    "OtherPatientIDs": "ZZOTHERIDZZ",
    "PatientAddress": "ZZADDRESSZZ",
    "AccessionNumber": "ZZACCESSIONZZ",
    "StudyID": "ZZSTUDYIDZZ",
    "StudyDate": "20010918",
    "StudyTime": "070819.123",
    "StudyDescription": "ZZSTUDYTEXTZZ",
    "SeriesDescription": "ZZSERIESTEXTZZ",
    "StudyInstanceUID": "1.2.826.0.1.3680043.8.498.77001",
    "SeriesInstanceUID": "1.2.826.0.1.3680043.8.498.77002",
    "SOPInstanceUID": "1.2.826.0.1.3680043.8.498.77003",
    "InstitutionName": "ZZHOSPITALZZ",
    "InstitutionAddress": "ZZSTREETZZ",
    "StationName": "ZZSTATIONZZ",
    "ReferringPhysicianName": "ZZREFERRERZZ",
    "PerformingPhysicianName": "ZZPERFORMERZZ",
    "OperatorsName": "ZZOPERATORZZ",
    "DeviceSerialNumber": "ZZSERIALZZ",
    "PatientComments": "ZZCOMMENTZZ",
    "ImageComments": "ZZREMARKZZ",
    "ProtocolName": "ZZPROTOCOLZZ",
}


def dicom(
    values: np.ndarray = VALUES, *, bits: int = 12, syntax: str = uid.ExplicitVRLittleEndian, **changed: Any
) -> bytes:
    """A chest X-ray of 12 bits, PA, with all of ``SECRETS``; ``changed`` elements replace others, ``None`` removes."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = uid.UID(syntax)
    dataset.SOPClassUID = uid.DigitalXRayImageStorageForPresentation
    for name, value in SECRETS.items():
        setattr(dataset, name, value)
    dataset.Modality, dataset.BodyPartExamined, dataset.ViewPosition = "DX", "CHEST", "PA"
    dataset.PatientAge, dataset.PatientSex = "057Y", "F"
    dataset.Manufacturer, dataset.ManufacturerModelName = "Fictional", "Ray 3"
    dataset.PixelSpacing = [0.2, 0.1]
    dataset.Rows, dataset.Columns = values.shape[:2]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8 * values.itemsize, bits, bits - 1
    dataset.PixelRepresentation = int(values.dtype.kind == "i")
    packed = _packed(values, syntax, bits)
    if syntax == uid.ExplicitVRBigEndian:
        values = values.byteswap()
    dataset.PixelData = values.tobytes() if packed is None else encapsulate([packed])
    dataset["PixelData"].VR = "OB" if packed is not None or values.itemsize == 1 else "OW"
    for name, value in changed.items():
        if value is None:
            delattr(dataset, name)
        else:
            setattr(dataset, name, value)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    if syntax == uid.RLELossless:
        dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
        dataset.compress(uid.RLELossless)
    stream = BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def _packed(values: np.ndarray, syntax: str, bits: int) -> bytes | None:
    if syntax in (uid.JPEGLossless, uid.JPEGLosslessSV1):
        return bytes(imagecodecs.jpeg8_encode(values, lossless=True, bitspersample=bits))
    if syntax == uid.JPEGExtended12Bit:
        return bytes(imagecodecs.jpeg8_encode(values, level=98, bitspersample=bits))
    if syntax == uid.JPEGLSLossless:
        return bytes(imagecodecs.jpegls_encode(values))
    if syntax == uid.JPEG2000Lossless:
        return bytes(imagecodecs.jpeg2k_encode(values, level=0, codecformat="j2k", bitspersample=bits))
    return None
