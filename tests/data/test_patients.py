"""Words for "not known" are no patient; everything else is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr_tasks.data.duplicates import group_names
from cxr_tasks.data.patients import known_patient

WORDS = [
    *("unknown", "N/A", "-", "nan", "0", "none", "", "?", "n.a.", "not available", "null", "missing", "xxx"),
    *("unbekannt", "tbd", "anonymous", "00000", "#N/A", "#REF!", "-1", "-9", "-999.0", "0.0", "patient unknown"),
    *("Unknown patient", "PATIENT", "No patient ID", "not known", "k\u00e9ine Angabe".replace("\u00e9", "e"), "未知"),
    *("—", "...", "***", "(unknown)", "<NA>", "[none]", "undefined", "Inconnu", "desconocido", "неизвестно", "n / a"),
]
PATIENTS = [
    "0012",
    "P0",
    "7",
    "007",
    "1e5",
    "IEEE8023-2",
    "A",
    "X",
    "Smith",
    "P-001",
    "10",
    "100",
    "1.0",
    "99",
    "患者-3",
    "KA",
    "K.A.",
    "NR",
]


@pytest.mark.parametrize("word", WORDS)
def test_a_word_for_nobody_is_no_patient(word: str) -> None:
    assert known_patient(word) == ""


@pytest.mark.parametrize("written", ["k.A.", "k. A.", "n.d.", "n.d", "s/d", "n/r", "н/д"])
def test_a_short_word_for_nobody_is_known_by_its_signs(written: str) -> None:
    assert known_patient(written) == ""


@given(st.sampled_from(WORDS), st.data())
def test_case_and_blanks_do_not_make_a_patient_of_it(word: str, data: st.DataObject) -> None:
    shape = data.draw(st.sampled_from([str.upper, str.title, str.lower]))
    ends = st.text(" \t\u00a0", max_size=3)

    assert known_patient(data.draw(ends) + shape(word) + data.draw(ends)) == ""


@pytest.mark.parametrize("patient", PATIENTS)
def test_a_patient_stays_as_written(patient: str) -> None:
    assert known_patient(f" {patient} ") == patient


@given(st.integers(1, 10**6), st.sampled_from(["{}", "{:07d}", "P{}", "patient {}", "unknown-{}", "anon_{}"]))
def test_every_number_that_is_not_zero_is_a_patient(number: int, form: str) -> None:
    assert known_patient(form.format(number)) == form.format(number)


def test_images_of_nobody_stand_by_themselves() -> None:
    import numpy as np
    import pandas as pd

    images = pd.DataFrame({"image_id": ["a", "b", "c"], "patient": [known_patient("N/A")] * 3})

    assert group_names(images, np.empty((0, 2), np.int64)).tolist() == ["a", "b", "c"]
