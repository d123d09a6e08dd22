"""What stands for a patient: keyed hashes; and which texts say that the patient is not known."""

from __future__ import annotations

import hashlib
import hmac
import re

import pandas as pd

from cxr_tasks.names import composed, normal_form

# Without case, blanks and punctuation, in the languages that tables come in.
_WORDS = """
    unknown unknwon unkown unk unkn unknownpatient notknown notavailable notapplicable notspecified notgiven
    notprovided notrecorded notreported notstated notset nodata noid noinfo noinformation novalue noname nopatient
    nopatientid na nan nil none null void undefined undef unspecified unidentified unnamed unassigned
    unavailable missing missingvalue empty blank default dummy placeholder tbd tba tbc todo pending withheld
    redacted removed deleted hidden confidential private secret deidentified anonymous anonymised anonymized anonym
    anon johndoe janedoe nat
    notassessed pendiente
    unbekannt unbek keineangabe keineangaben nichtbekannt nichtangegeben nichtverfügbar fehlt leer anonymisiert
    inconnu inconnue anonyme nonconnu nondisponible nonrenseigné manquant desconocido desconocida anónimo anonimo
    nodisponible sindatos sindato desconhecido desconhecida anônimo nãodisponível semdados sconosciuto sconosciuta
    ignoto nonnoto nondisponibile mancante onbekend anoniem okänd ukjent ukendt tuntematon nieznany nieznana brak
    neznámý bilinmiyor bilinmeyen неизвестно неизвестный неизвестен нет невідомо
    未知 未知患者 不明 不详 不詳 暂无 暫無 无 無 匿名 未填 空
    미상 없음 알수없음 غيرمعروف مجهول अज्ञात
"""
NOT_KNOWN = frozenset(composed(word) for word in _WORDS.split())
# Words that stand around one of these and say nothing: "patient unknown", "no patient ID given".
_EMPTY_WORDS = "patient patients patientid pat id ids identifier name number is the of"
EMPTY_WORDS = frozenset(_EMPTY_WORDS.split())


def known_patient(text: str) -> str:
    """The patient that ``text`` names, without blanks at its ends; '' where the text says that nobody knows.

    Case, blanks and punctuation do not count, so ``N/A``, ``n.a.`` and ``#N/A`` are one. So are zeros alone and
    negative numbers, which tables hold where a number is missing. ``0012`` is a patient.
    """
    text = composed(text).strip()
    words = normal_form(text, zeros=True).split()
    joined = "".join(words)
    said = "".join(word for word in words if word not in EMPTY_WORDS)
    nobody = (
        joined in NOT_KNOWN
        or said in NOT_KNOWN
        or not said
        or re.fullmatch(r"0+|x{3,}", joined) is not None
        # As people write them: without the signs these would be initials.
        or re.fullmatch(r"k\.\s?A\.?|n\.\s?d\.?|n/[dkr]|s/d|н/д", text) is not None
        # Excel's errors, such as #REF! and #VALUE!.
        or re.fullmatch(r"#[A-Z/0]+[!?]", text.upper()) is not None
        or re.fullmatch(r"[-\u2212]\s*\d+([.,]0*)?", text) is not None
    )
    return "" if nobody else text


def pseudonym(key: bytes, kind: str, text: str) -> str:
    """What stands for an identifier: 16 hexadecimal digits of HMAC-SHA256, or '' for ''.

    Without the key nobody can tell whose it is, nor find out by trying all numbers of a hospital.

    Args:
        key: Secret of the store.
        kind: What is identified, such as ``patient``: a study and a patient of one number have different pseudonyms.
        text: The identifier.
    """
    if not text:
        return ""
    return hmac.new(key, f"{kind}\0{composed(text).strip()}".encode(errors="replace"), hashlib.sha256).hexdigest()[:16]


def own_key(key: bytes, source: str) -> bytes:
    """A key for the patients of one source alone, so that numbers of another source mean other people."""
    return hmac.new(key, f"patients of\0{source}".encode(), hashlib.sha256).digest()


def with_pseudonyms(files: pd.DataFrame, key: bytes) -> pd.DataFrame:
    """Rows of a scan with pseudonyms in the place of what tables say of ``patient`` and ``study``.

    They are those of DICOM headers that name the same patient or study.
    """
    hidden = {
        kind: files[kind].map({text: pseudonym(key, kind, text) for text in files[kind].unique()})
        for kind in ("patient", "study")
    }
    return files.assign(**hidden)
