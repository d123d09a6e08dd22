"""The trigger form: its fields say what the settings allow, and what is filled in is what is run."""

import re
from dataclasses import replace
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
from cxr_tasks.errors import SettingsError
from cxr_tasks.filled_form import check_form, form_overrides, read_form, settings_of
from cxr_tasks.form import DESIGNS, EMPTY_KEY, FIELDS, OFFERED_SEEDS

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


def test_a_field_says_what_it_is_where_it_stays_empty() -> None:
    told = {name: FIELDS[name].json_schema() for name in FILLED}

    assert told["gan_epochs"]["description"].endswith("Empty: as the profile says (8 in quick; 1500 in paper).")
    assert "(CNN, VGG16 and ResNet50 in quick; VGG16, ResNet50 and CNN in paper)" in told["classifiers"]["description"]
    # The list names its empty value; Airflow's form would call it null.
    assert told["baseline"]["values_display"][EMPTY_KEY] == "as the profile says"
    assert told["baseline"]["description"].endswith("Empty: as the profile says (none in quick; classical in paper).")
    assert FIELDS["design"].json_schema()["values_display"][EMPTY_KEY].startswith("none: ")


def test_a_profile_of_the_stack_that_cannot_be_read_leaves_the_form(monkeypatch, tmp_path) -> None:
    broken = tmp_path / "mine.yaml"
    broken.write_text("gan: {epochs: many}")
    monkeypatch.setitem(FIELDS, "profile", replace(FIELDS["profile"], default=str(broken)))

    assert "(1500 in paper; 8 in quick)" in FIELDS["gan_epochs"].json_schema()["description"]


def test_what_the_profile_of_the_stack_says_comes_first(monkeypatch, tmp_path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text(resolve("quick", {"gan": {"epochs": 77}}).to_yaml())
    monkeypatch.setitem(FIELDS, "profile", replace(FIELDS["profile"], default=str(mine)))

    assert "(77 in mine; 1500 in paper; 8 in quick)" in FIELDS["gan_epochs"].json_schema()["description"]


@pytest.mark.parametrize("name", DESIGNS)
@pytest.mark.parametrize("profile", profile_names())
def test_a_design_fills_in_what_is_compared_and_what_is_filled_in_counts_more(name: str, profile: str) -> None:
    fields = DESIGNS[name].fields
    for each, value in fields.items():
        Draft202012Validator(FIELDS[each].json_schema()).validate(value)

    settings = settings_of(read_form("cxr_training", {"profile": profile, "design": name}))
    other = settings_of(read_form("cxr_training", {"profile": profile, "design": name, "seeds": [5]}))

    assert settings.arms.names == (fields["baseline"], *fields["arms"]) and other.seeds.classifiers == (5,)
    assert other.arms == settings.arms


@pytest.mark.parametrize("given", [[0, 3], ["0", "3"], [0, "3"], ("0", "3")])
def test_seeds_are_read_as_chosen_in_the_form_and_as_numbers(given: Any) -> None:
    Draft202012Validator(FIELDS["seeds"].json_schema()).validate(list(given))

    assert settings_of(read_form("cxr_training", {"seeds": given})).seeds.classifiers == (0, 3)


def test_every_offered_seed_is_one() -> None:
    assert settings_of(read_form("cxr_training", {"seeds": [str(each) for each in OFFERED_SEEDS]}))


@pytest.mark.parametrize(
    ("form", "sentence"),
    [
        ({"baseline": "none", "arms": ["none"]}, "'none' is the baseline"),
        ({"arms": ["classical"], "gan_epochs": 5}, "'GAN epochs' is filled in, and no arm of none, classical trains"),
        ({"design": "no_gan", "synthetic_source": "/images"}, "'Synthetic images from' is filled in, and no arm"),
        ({"arms": ["classical"], "synthetic_per_class": 5}, "'Synthetic images per class' is filled in, and no arm"),
        ({"gan_epochs": 5, "synthetic_source": "/images"}, "come from /images, so that no GAN is trained"),
        ({"synthetic_source": "images"}, "synthetic.source is 'images', which is another place in each folder"),
        ({"design": "evidnce"}, "has no 'evidnce': did you mean 'evidence'?"),
        ({"seeds": ["1", "1"]}, "seeds: classifiers must list each seed once"),
        ({"profile": "papr"}, "Profile 'papr' does not exist"),
        # A name leads into no other folder, though there is such a file.
        ({"profile": "gan/paper"}, "Profile 'gan/paper' does not exist"),
        ({"design": ["evidence"]}, "has no ['evidence']"),
    ],
)
@pytest.mark.parametrize("dag", ["cxr_data", "cxr_training"])
def test_fields_that_contradict_each_other_are_refused_in_one_sentence(dag: str, form: Any, sentence: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(sentence)) as refused:
        check_form(dag, {"source": "/data", **form} if dag == "cxr_data" else form)
    assert "\n" not in str(refused.value)


def test_what_only_looks_like_a_contradiction_is_not_refused(tmp_path) -> None:
    check_form("cxr_training", {"arms": ["oversample"], "synthetic_per_class": 5})
    check_form("cxr_training", {"arms": ["classical"], "reproduce_leak": True, "gan_epochs": 5})
    # The workers may have it.
    check_form("cxr_training", {"profile": str(tmp_path / "elsewhere.yaml")})
    # What a file says that a person names is for the workers to tell.
    (tmp_path / "no-profile.yaml").write_text("password: hidden\n: [")
    check_form("cxr_training", {"profile": str(tmp_path / "no-profile.yaml")})


def test_a_data_run_without_a_source_is_refused_and_a_training_has_none() -> None:
    check_form("cxr_training", {})
    with pytest.raises(SettingsError, match="No data source is given"):
        check_form("cxr_data", {"source": ""})


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
