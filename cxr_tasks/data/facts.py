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
_PER_YEAR = {"y": 1.0, "m": 12.0, "w": 365.25 / 7, "d": 365.25}


def normal_view(text: str) -> str:
    """The view in upper case: PA, AP, AP SUPINE and LATERAL whatever their spelling, others as they are."""
    return _VIEW_OF.get(normal_form(text), composed(text).strip().upper())


def age_in_years(text: str) -> float:
    """The age that ``57``, ``57.0``, ``057Y`` or ``006M`` says, in years; NaN where it is none a patient can have."""
    found = _AGE.fullmatch(text.strip())
    if not found:
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
