"""Names of classes and folders become keys that MLflow takes, each its own, or are refused in the first task."""

import unicodedata
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.utils.validation import _validate_metric_name, _validate_param_name

from cxr_tasks.config import Settings, resolve
from cxr_tasks.errors import SettingsError
from cxr_tasks.evaluation.metrics import classification_metrics, slug
from cxr_tasks.evaluation.words import drawable
from cxr_tasks.names import normal_form

ODD = [
    "正常",
    "新冠肺炎",
    "Neumonía viral",
    "COVID-19 (PCR+)",
    "COVID-19 (PCR-)",
    "Normal & clear",
    "😷",
    "😀",
    "$x$",
    "निमोनिया",
]


def settings_for(classes: list[str], **data: Any) -> Settings:
    return resolve("quick", {"data": {"classes": classes, **data}, "synthetic": {"counts": "balance"}})


def metric_names(classes: list[str]) -> list[str]:
    table = pd.DataFrame({"image_id": ["a", "b"], "split": "test", "group": ["a", "b"], "label": classes[:2]})
    return list(classification_metrics(table.assign(**{name: 1 / len(classes) for name in classes}), classes))


def test_odd_names_work_and_ordinary_names_keep_their_keys() -> None:
    settings = settings_for(ODD, folders={name: ODD[0] for name in ODD}, expected_counts=dict.fromkeys(ODD, 1))

    keys = list(settings.flat())
    for key in keys:
        _validate_param_name(key)
    for key in metric_names(ODD):
        _validate_metric_name(key)
    assert len([key for key in keys if key.startswith("data.folders.") and "COVID-19_PCR" in key]) == 2
    assert slug("Viral Pneumonia") == "Viral_Pneumonia" and slug("正常") == "正常"
    assert "data.folders.Viral_Pneumonia" in resolve("quick").flat()


@given(st.lists(st.text(min_size=1, max_size=30), min_size=2, max_size=5, unique=True))
def test_any_names_give_keys_that_mlflow_takes_and_tells_apart_or_are_refused_at_once(names: list[str]) -> None:
    try:
        settings = settings_for(names, folders=dict.fromkeys(names, "x"), expected_counts=dict.fromkeys(names, 1))
    except SettingsError as error:
        assert "\n" not in str(error)
        return
    classes = list(settings.data.classes)
    assert len({slug(name) for name in classes}) == len(classes)
    for key in metric_names(classes):
        _validate_metric_name(key)
    flat = settings.flat()
    for key in flat:
        _validate_param_name(key)
    assert len([key for key in flat if key.startswith("data.expected_counts.")]) == len(classes)


@pytest.mark.parametrize(
    "classes",
    [["a/b", "c"], ["..", "c"], ["a|b", "c"], ["", "c"], [" a", "c"], ["a\nb", "c"], ["label", "c"], ["a" * 101, "c"]]
    + [[f"{sign}cmd()", "c"] for sign in "=+-@"],
)
def test_a_name_that_nothing_can_carry_is_refused_in_a_sentence(classes: list[str]) -> None:
    with pytest.raises(SettingsError, match=r"data\.classes\.0: .* is no name of a class"):
        settings_for(classes)


@pytest.mark.parametrize("profile", ["quick", "paper"])
def test_counts_of_other_classes_are_the_users_alone(profile: str) -> None:
    """``COVID`` of the profile is no class of this run, and nobody can take it out of a form."""
    counts = {"正常": 30, "COVID-19 (PCR+)": 10}
    data = {"classes": list(counts), "expected_counts": counts}

    settings = resolve(profile, {"data": data, "synthetic": {"counts": counts}})

    assert settings.data.expected_counts == settings.synthetic.counts == counts
    with pytest.raises(SettingsError, match=r"\['COVID.*give counts of these classes, or balance"):
        resolve(profile, {"data": data})
    with pytest.raises(SettingsError, match=r"synthetic.counts names \['Covid'\]"):
        resolve(profile, {"synthetic": {"counts": {"Covid": 3}}})


def test_names_that_would_share_a_key_are_refused() -> None:
    with pytest.raises(SettingsError, match="'Viral Pneumonia' and 'Viral_Pneumonia' would share the name"):
        settings_for(["Viral Pneumonia", "Viral_Pneumonia"])


def test_settings_are_one_in_every_unicode_form() -> None:
    nfc, nfd = (unicodedata.normalize(form, "Neumonía") for form in ("NFC", "NFD"))

    one, other = (settings_for([name, "c"], folders={name: name}, expected_counts={name: 3}) for name in (nfc, nfd))

    assert one == other and one.data.classes[0] == nfc
    with pytest.raises(SettingsError, match="each be listed once"):
        settings_for([nfc, nfd])


@given(st.text(max_size=20))
def test_a_normal_form_is_the_same_in_every_unicode_form_and_stays_as_it_is(name: str) -> None:
    assert normal_form(unicodedata.normalize("NFD", name)) == normal_form(unicodedata.normalize("NFC", name))
    assert normal_form(normal_form(name)) == normal_form(name)


def test_a_plot_has_no_empty_boxes_and_no_formulas() -> None:
    assert drawable(["COVID", "正常", "a $x$ b", "Neumonía", "🩻"]) == [
        "COVID",
        "class 2",
        r"a \$x\$ b",
        "Neumonía",
        "class 5",
    ]
