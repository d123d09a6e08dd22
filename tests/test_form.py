"""The trigger form: its fields say what the settings allow, and what is filled in is what is run."""

from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, ValidationError

from cxr_tasks.arms import ARMS
from cxr_tasks.artifacts import STEPS
from cxr_tasks.classifiers.registry import CLASSIFIERS
from cxr_tasks.config import Settings, profile_names, resolve
from cxr_tasks.data.added import counts_to_add
from cxr_tasks.form import FIELDS, form_overrides

EMPTY = {name: each.default for name, each in FIELDS.items()} | {"profile": "quick"}
FILLED: dict[str, Any] = {
    "approval": True,
    "synthetic_source": "/images",
    "synthetic_per_class": 3,
    "classifiers": ["cnn", "resnet50"],
    "baseline": "classical",
    "arms": ["both", "oversample"],
    "seeds": [1, 2],
    "gan_epochs": 7,
    "reproduce_leak": True,
}


def value_of(settings: Settings, dotted: str) -> Any:
    section, key = dotted.split(".")
    return settings.model_dump(mode="json")[section][key]


def added(settings: Settings) -> dict[str, int]:
    """Images that are added to each class of the run."""
    return counts_to_add(settings.synthetic, dict.fromkeys(settings.data.classes, 100))


def test_the_form_overrides_the_profile_and_settings_have_the_last_word() -> None:
    form = {**EMPTY, **FILLED, "classifiers": ["cnn"], "synthetic_per_class": 0, "settings": {"gan": {"epochs": 9}}}

    settings = resolve("quick", form_overrides(form))

    assert settings.classifiers.names == ("cnn",) and settings.seeds.classifiers == (1, 2)
    assert added(settings) == {"COVID": 0, "Normal": 0, "Viral Pneumonia": 0}
    assert settings.arms.names == ("classical", "both", "oversample") and settings.evaluation.reproduce_leak
    assert settings.gan.epochs == 9


@pytest.mark.parametrize("profile", profile_names())
def test_an_empty_form_changes_nothing(profile: str) -> None:
    assert form_overrides({**EMPTY, "profile": profile}) == {}
    assert form_overrides({"profile": profile}) == {}
    assert form_overrides({**EMPTY, "profile": profile, "classifiers": [], "seeds": [], "arms": []}) == {}


def test_every_field_that_stands_for_a_setting_is_filled_here() -> None:
    assert set(FILLED) == {name for name, each in FIELDS.items() if each.setting}


@pytest.mark.parametrize("name", FILLED)
def test_a_field_changes_its_setting_and_no_other(name: str) -> None:
    before, after = resolve("quick").flat(), resolve("quick", form_overrides({**EMPTY, name: FILLED[name]}))

    assert value_of(after, FIELDS[name].setting) == FILLED[name]
    assert {each for each, value in after.flat().items() if before.get(each) != value} == {FIELDS[name].setting}


@given(st.integers(0, 10_000), st.permutations(["COVID", "Normal", "Viral Pneumonia", "Lung_Opacity"]))
def test_so_many_of_every_class_are_those_of_the_run(number: int, classes: list[str]) -> None:
    form = {**EMPTY, "synthetic_per_class": number, "settings": {"data": {"classes": classes}}}

    settings = resolve("quick", form_overrides(form))

    assert added(settings) == dict.fromkeys(classes, number)


def test_so_many_of_every_class_where_the_run_has_fewer_classes_than_the_profile() -> None:
    form = {**EMPTY, "synthetic_per_class": 5, "settings": {"data": {"classes": ["COVID", "Normal"]}}}

    assert added(resolve("quick", form_overrides(form))) == {"COVID": 5, "Normal": 5}


@pytest.mark.parametrize("name", FIELDS)
def test_a_field_says_what_it_is_and_takes_what_it_holds_at_first(name: str) -> None:
    schema = FIELDS[name].json_schema()

    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(FIELDS[name].default)
    assert schema["title"] == FIELDS[name].title and schema["description"].endswith(".")


@pytest.mark.parametrize(("name", "value"), FILLED.items())
def test_a_field_takes_what_its_setting_takes_and_nothing_else(name: str, value: Any) -> None:
    validator = Draft202012Validator(FIELDS[name].json_schema())

    validator.validate(value)
    wrong: list[Any] = [{"no": "setting"}, ["no classifier"] if isinstance(value, list) else ["a list"]]
    for each in wrong:
        with pytest.raises(ValidationError):
            validator.validate(each)


def test_choices_are_those_of_the_registries() -> None:
    schemas = {name: each.json_schema() for name, each in FIELDS.items()}

    assert schemas["classifiers"]["items"]["enum"] == schemas["classifiers"]["examples"] == list(CLASSIFIERS)
    assert schemas["classifiers"]["values_display"] == {name: each.display for name, each in CLASSIFIERS.items()}
    assert schemas["arms"]["items"]["enum"] == list(ARMS) == list(schemas["arms"]["values_display"])
    assert schemas["baseline"]["enum"] == [None, *ARMS]
    assert schemas["force"]["items"]["enum"] == schemas["force"]["examples"] == list(STEPS)
    assert schemas["profile"]["examples"] == profile_names()


def test_the_limits_of_a_field_are_those_of_its_setting() -> None:
    assert FIELDS["gan_epochs"].json_schema()["exclusiveMinimum"] == 0
    seeds = FIELDS["seeds"].json_schema()["items"]
    assert (seeds["minimum"], seeds["exclusiveMaximum"]) == (0, 2**31)


def test_every_kind_of_extra_images_is_one_of_some_arm() -> None:
    from cxr_tasks.arms import Extra

    assert {arm.extra for arm in ARMS.values()} == {None, *get_args(Extra)}
