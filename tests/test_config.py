"""Profiles hold the recipe's numbers; what is wrong with one is said by name, and nothing changes once resolved."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cxr_tasks.arms import ARMS, control_of, is_control
from cxr_tasks.config import flatten, merge, profile_names, resolve
from cxr_tasks.errors import SettingsError

RECIPE = {
    "data.classes": ["COVID", "Normal", "Viral Pneumonia"],
    "data.expected_counts.COVID": 3616,
    "data.expected_counts.Normal": 10192,
    "data.expected_counts.Viral Pneumonia": 1345,
    "data.split.method": "stable",
    "data.split.validation": 0.1,
    "data.split.test": 0.1,
    "augmentation.rotation": 10,
    "augmentation.shear": 0.1,
    "augmentation.zoom": 0.1,
    "augmentation.horizontal_flip": True,
    "augmentation.width_shift": 0.1,
    "augmentation.height_shift": 0.1,
    "augmentation.views": None,
    "classifiers.names": ["vgg16", "resnet50", "cnn"],
    "classifiers.image_size": 224,
    "classifiers.weights": {"default": "imagenet"},
    "classifiers.scaling": "paper",
    "classifiers.learning_rate": 1e-4,
    "classifiers.batch_size": 32,
    "classifiers.epochs": 100,
    "classifiers.patience": 5,
    "classifiers.class_weights": False,
    "classifiers.undersample": False,
    "arms.baseline": "classical",
    # The report compared synthetic alone. The control beside it changes nothing of these two arms.
    "arms.compared": ["synthetic", "oversample"],
    "classifiers.budget": "epochs",
    "evaluation.reproduce_leak": False,
    "gan.image_size": 112,
    "gan.width": 1.0,
    "gan.latent_dim": 100,
    "gan.latent_sd": 0.02,
    "gan.embedding_dim": 50,
    "gan.discriminator": "five_conv",
    "gan.dropout": 0.5,
    "gan.learning_rate": 2e-4,
    "gan.beta_1": 0.5,
    "gan.batch_size": 64,
    "gan.epochs": 1500,
    "gan.grid_steps": [1, 500, 1000, 1500],
    "synthetic.counts": {"COVID": 4880},
    "evaluation.confidence": 0.95,
}

keys = st.sampled_from("abc")
values = st.integers(0, 3) | st.just("text")
trees = st.dictionaries(keys, values | st.dictionaries(keys, values | st.dictionaries(keys, values)))


def looked_up(tree: dict[str, Any], dotted: str) -> Any:
    value: Any = tree
    for name in dotted.split("."):
        value = value[name]
    return value


@pytest.mark.parametrize("profile", ["paper", "quick"])
def test_profiles_that_ship_resolve_and_know_their_name(profile: str) -> None:
    assert profile in profile_names()
    assert resolve(profile).profile == profile


@pytest.mark.parametrize(("dotted", "number"), RECIPE.items())
def test_profile_paper_is_the_recipe(dotted: str, number: object) -> None:
    paper = resolve("paper").model_dump(mode="json")

    assert looked_up(paper, dotted) == number


def test_both_profiles_set_the_same_names() -> None:
    def names(profile: str) -> set[str]:
        return {name for name in resolve(profile).flat() if not name.startswith(("data.expected", "synthetic"))}

    assert names("paper") == names("quick")


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        ({"gan": {"epoch": 3}}, "gan.epoch: "),
        ({"data": {"split": {"method": "random"}}}, "data.split.method: "),
        ({"classifiers": {"epochs": 0}}, "classifiers.epochs: "),
        (
            {"classifiers": {"names": ["vgg16", "vgg19"]}},
            "names.1: 'vgg19' is no classifier: choose one of ",
        ),
        ({"classifiers": {"names": ["cnn", "cnn"]}}, "classifier names must each be listed once"),
        ({"classifiers": {"weights": {"vgg19": "random"}}}, "vgg19"),
        ({"seeds": {"classifiers": [1, 1]}}, "seeds: classifiers must list each seed once"),
        ({"seeds": {"classifiers": []}}, "seeds.classifiers: "),
        ({"seeds": {"split": -1}}, "seeds.split: "),
        ({"seeds": {"gan": 2**31}}, "seeds.gan: "),
        ({"seed": 1}, "seed: "),
        ({"arms": {"compared": ["bothh"]}}, "'bothh' is no arm: choose one of none, classical"),
        ({"gan": {"image_size": 100}}, "gan.image_size: "),
        ({"synthetic": {"counts": {"Covid": 5}}}, "synthetic.counts names ['Covid']"),
        ({"data": {"expected_counts": {"Covid": 5}}}, "data: expected_counts names ['Covid']"),
        ({"data": {"split": {"validation": 0.6, "test": 0.5}}}, "data.split: "),
        ({"colour": "red"}, "colour: "),
        (
            {"data": {"external": [{"name": "c", "source": "/c", "patient": "own"}]}},
            "data.external.0.patient: there is no such setting, did you mean 'patients'?",
        ),
        (
            {"data": {"sources": [{"name": "c", "source": "/c", "table": {"fil": "x", "path": "p", "label": "l"}}]}},
            "data.sources.0.table.fil: there is no such setting, did you mean 'file'?",
        ),
        ({"gate": {"min_f1": 0.5}}, "gate.min_f1: there is no such setting, did you mean 'min_macro_f1'?"),
    ],
)
def test_what_is_wrong_is_said_by_name(overrides: dict[str, Any], named: str) -> None:
    with pytest.raises(SettingsError) as raised:
        resolve("quick", overrides)

    assert named in str(raised.value)


def test_missing_value_is_said_by_name(tmp_path: Path) -> None:
    profile = tmp_path / "mine.yaml"
    profile.write_text("description: nothing else\n")

    with pytest.raises(SettingsError, match=r"seeds: Field required.*gan: Field required"):
        resolve(str(profile))


def test_backbone_needs_weights(tmp_path: Path) -> None:
    text = resolve("quick").to_yaml().replace("profile: quick\n", "")
    text = text.replace("    default: random\n", "    vgg16: random\n")
    profile = tmp_path / "mine.yaml"
    profile.write_text(text)

    with pytest.raises(SettingsError, match="weights must name imagenet, random or a file for resnet50"):
        resolve(str(profile))


def test_unknown_profile_lists_the_choices() -> None:
    with pytest.raises(SettingsError) as raised:
        resolve("papre")

    assert "'papre' does not exist: choose one of paper, quick" in str(raised.value)


@pytest.mark.parametrize("text", ["- a list\n", "a: [1\n"])
def test_profile_that_is_no_mapping_names_its_file(tmp_path: Path, text: str) -> None:
    profile = tmp_path / "mine.yaml"
    profile.write_text(text)

    with pytest.raises(SettingsError, match=r"mine\.yaml is not"):
        resolve(str(profile))


def test_override_changes_its_value_and_no_other() -> None:
    before, after = resolve("paper").flat(), resolve("paper", {"gan": {"epochs": 7}}).flat()

    assert {name for name in before if before[name] != after[name]} == {"gan.epochs"}
    assert after["gan.epochs"] == 7


def test_resolved_settings_survive_their_own_text(tmp_path: Path) -> None:
    settings = resolve("paper")
    profile = tmp_path / "paper.yaml"
    profile.write_text(settings.to_yaml())

    assert resolve(str(profile)) == settings


@given(trees, trees)
def test_merge_twice_is_merge_once(base: dict[str, Any], changes: dict[str, Any]) -> None:
    once = merge(base, changes)

    assert merge(once, changes) == once
    assert merge(base, {}) == base


@given(trees, trees)
def test_merge_holds_every_changed_leaf(base: dict[str, Any], changes: dict[str, Any]) -> None:
    assert flatten(changes).items() <= flatten(merge(base, changes)).items()


@pytest.mark.parametrize("path", ["seeds", "seeds.gan", "gan.epochs", "data.split.test"])
def test_nothing_changes_once_resolved(path: str) -> None:
    settings = resolve("quick")
    *above, name = path.split(".")
    owner: Any = settings
    for step in above:
        owner = getattr(owner, step)

    with pytest.raises(ValidationError, match="frozen"):
        setattr(owner, name, getattr(owner, name))


def test_weights_of_a_backbone_are_its_own_or_the_default() -> None:
    chosen = resolve("quick", {"classifiers": {"weights": {"vgg16": "imagenet"}}}).classifiers

    assert (chosen.weights_of("vgg16"), chosen.weights_of("resnet50")) == ("imagenet", "random")


def test_flat_names_are_dotted_and_lists_are_text() -> None:
    assert flatten({"a": {"b": [1, 2], "c": {"d": None}}, "e": "f"}) == {"a.b": "1, 2", "a.c.d": None, "e": "f"}


def test_resized_images_of_the_same_size_are_refused() -> None:
    with pytest.raises(SettingsError, match="real_resized needs a gan"):
        resolve("quick", {"arms": {"compared": ["real_resized"]}})


def test_an_arm_is_not_compared_with_itself() -> None:
    with pytest.raises(SettingsError, match="each arm must be listed once, and 'none' is the baseline"):
        resolve("quick", {"arms": {"compared": ["both", "none"]}})


def test_every_profile_trains_the_control_of_each_arm_that_it_claims_something_of() -> None:
    for name in profile_names():
        arms = resolve(name).arms
        assert arms.claimed == ("synthetic",) and arms.controls == {"synthetic": "oversample"}
        assert set(arms.controls.values()) <= set(arms.names)


@pytest.mark.parametrize(
    ("baseline", "compared", "claimed", "controls"),
    [
        ("none", ["synthetic", "oversample", "real_resized"], ("synthetic",), {"synthetic": "oversample"}),
        ("none", ["classical", "both"], ("classical", "both"), {"both": "oversample_classical"}),
        # Where nothing but controls is compared, they are what was asked.
        ("none", ["oversample", "real_resized"], ("oversample", "real_resized"), {}),
        # A control that is the baseline is compared as such.
        ("oversample", ["synthetic"], ("synthetic",), {}),
    ],
)
def test_controls_are_held_against_and_claimed_nothing_of(
    baseline: str, compared: list[str], claimed: tuple[str, ...], controls: dict[str, str]
) -> None:
    arms = resolve("quick", {"arms": {"baseline": baseline, "compared": compared}, "gan": {"image_size": 32}}).arms

    assert (arms.claimed, arms.controls) == (claimed, controls)


def test_every_arm_with_synthetic_images_has_a_control_that_differs_in_nothing_else() -> None:
    for name, arm in ARMS.items():
        control = control_of(name)
        assert (control is not None) == (arm.extra == "synthetic")
        if control is not None:
            assert is_control(control) and ARMS[control].classical == arm.classical
