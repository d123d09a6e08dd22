"""Views, ages and sexes have one spelling whoever says them, and what nobody can have is not known."""

import math

import pytest

from cxr_tasks.data.facts import age_in_years, normal_view, sex_letter


@pytest.mark.parametrize(
    ("text", "view"),
    [
        *((text, "PA") for text in ("PA", "pa", " Pa ", "Postero-anterior")),
        *((text, "AP") for text in ("AP", "ap", "AP Erect")),
        *((text, "AP SUPINE") for text in ("AP_horizontal", "AP Supine", "APS")),
        *((text, "LATERAL") for text in ("L", "Lateral", "LL", "RL", "LLAT", "left lateral")),
        ("costal", "COSTAL"),
        ("", ""),
    ],
)
def test_views(text: str, view: str) -> None:
    assert normal_view(text) == view


@pytest.mark.parametrize(
    ("text", "age"),
    [
        ("57", 57),
        ("57.0", 57),
        ("058Y", 58),
        ("6 months", 0.5),
        ("026W", 0.4983),
        ("001D", 0.0027),
        ("0Y", 0),
        ("365D", 0.9993),
        ("0", 0),
        ("120", 120),
    ],
)
def test_ages(text: str, age: float) -> None:
    assert age_in_years(text) == pytest.approx(age, abs=1e-3)


@pytest.mark.parametrize(
    "text", ["", "411", "-3", "old", "57 to 60", "1929-01-01", "058X", "000Y", "000M", "000W", "000D", "00y"]
)
def test_ages_that_are_none(text: str) -> None:
    assert math.isnan(age_in_years(text))


@pytest.mark.parametrize(
    ("text", "sex"),
    [("F", "F"), ("Female", "F"), ("m", "M"), ("Male", "M"), ("other", "O"), ("Unknown", ""), ("", ""), ("1", "")],
)
def test_sexes(text: str, sex: str) -> None:
    assert sex_letter(text) == sex
