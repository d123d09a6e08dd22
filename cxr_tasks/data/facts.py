"""What is said of an image beside its class and its split, in one spelling whoever says it."""

from __future__ import annotations

import math
import re

from cxr_tasks.names import composed, normal_form

# Columns of a scan and of the manifest: texts, '' where nothing is known, but for the age, which is then missing.
SAID = ["source", "patient", "study", "view", "age", "sex"]
OLDEST = 120  # years; ChestX-ray14 has patients of 411
_VIEWS = {
    "PA": "pa|postero anterior|posteroanterior|pa erect",
    "AP": "ap|antero posterior|anteroposterior|ap erect",
    "AP SUPINE": "aps|ap supine|ap horizontal|supine",
    "LATERAL": "l|ll|rl|lat|lateral|llat|rlat|left lateral|right lateral|l lateral|r lateral",
}
_VIEW_OF = {spelt: view for view, names in _VIEWS.items() for spelt in names.split("|")}
_AGE = re.compile(r"0*(\d{1,3}(?:[.,]\d+)?)\s*(y|m|w|d)?(?:ears?|onths?|eeks?|ays?|rs?)?", re.IGNORECASE)
# What machines write that were given no age. A DICOM age of a newborn child is of one day at least.
_NO_AGE = re.compile(r"0{2,}\s*[ymwd]", re.IGNORECASE)
_PER_YEAR = {"y": 1.0, "m": 12.0, "w": 365.25 / 7, "d": 365.25}


def normal_view(text: str) -> str:
    """The view in upper case: PA, AP, AP SUPINE and LATERAL whatever their spelling, others as they are."""
    return _VIEW_OF.get(normal_form(text), composed(text).strip().upper())


def age_in_years(text: str) -> float:
    """The age that ``57``, ``57.0``, ``057Y`` or ``006M`` says, in years.

    NaN where it is none that a patient can have, or stands for an age that nobody knows, as ``000Y`` does.
    """
    found = _AGE.fullmatch(text.strip())
    if not found or _NO_AGE.fullmatch(text.strip()):
        return math.nan
    age = float(found[1].replace(",", ".")) / _PER_YEAR[(found[2] or "y").lower()]
    return age if age <= OLDEST else math.nan


def sex_letter(text: str) -> str:
    """``F``, ``M`` or ``O``; '' where nothing, or nothing known, is said."""
    word = normal_form(text)
    if word in ("f", "female", "woman", "w", "weiblich"):
        return "F"
    if word in ("m", "male", "man", "männlich"):
        return "M"
    return "O" if word in ("o", "other", "d", "divers", "diverse", "non binary") else ""
