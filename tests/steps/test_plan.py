"""What a run trains and compares: every classifier, arm and seed once, synthetic images only where they are used."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr_tasks import steps
from cxr_tasks.arms import ARMS, needs_synthetic
from cxr_tasks.artifacts import Pair, RunContext
from cxr_tasks.classifiers.registry import CLASSIFIERS
from cxr_tasks.config import Settings, resolve
from cxr_tasks.steps import plan


def run_with(monkeypatch: pytest.MonkeyPatch, overrides: dict[str, Any]) -> RunContext:
    settings = resolve("quick", overrides)
    monkeypatch.setattr(plan, "load_settings", lambda run: settings)
    return RunContext(dag_run="one", settings="")


def test_arms_wait_for_a_synthetic_set_or_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_with(
        monkeypatch,
        {
            "classifiers": {"names": ["vgg16", "cnn"]},
            "arms": {"baseline": "none", "compared": ["both", "oversample"]},
            "seeds": {"classifiers": [3, 1]},
        },
    )

    labels = {synthetic: [training.label for training in steps.arms(run, synthetic)] for synthetic in (False, True)}

    assert labels[False] == ["vgg16 none seed 3", "cnn none seed 3", "vgg16 none seed 1", "cnn none seed 1"]
    # The controls wait too, to hear how many images are in the set.
    assert labels[True] == [
        "vgg16 both seed 3",
        "cnn both seed 3",
        "vgg16 oversample seed 3",
        "cnn oversample seed 3",
        "vgg16 both seed 1",
        "cnn both seed 1",
        "vgg16 oversample seed 1",
        "cnn oversample seed 1",
    ]
    assert [steps.does_without(each) for each in steps.arms(run, True)] == [False, False, True, True] * 2
    assert len(steps.pairs(run)) == 8 and steps.pairs(run)[0].label == "vgg16 both against none seed 3"
    assert steps.backbones(run) == ["vgg16"]
    assert steps.leaks(run) == [] and steps.wants_synthetic(run)


def test_an_arm_is_compared_with_its_control_where_that_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"classifiers": {"names": ["cnn"]}}
    arms = {"baseline": "none", "compared": ["synthetic", "both", "oversample"]}
    alone = {"baseline": "none", "compared": ["synthetic"]}

    with_control, without = (
        [pair.label for pair in steps.pairs(run_with(monkeypatch, names | {"arms": each}))] for each in (arms, alone)
    )

    # ``both`` is augmented classically, and ``oversample`` is not: they differ in two things.
    assert with_control == [
        "cnn synthetic against none seed 0",
        "cnn both against none seed 0",
        "cnn oversample against none seed 0",
        "cnn synthetic against oversample seed 0",
    ]
    assert without == ["cnn synthetic against none seed 0"]


def test_a_control_of_nothing_waits_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_with(monkeypatch, {"classifiers": {"names": ["cnn"]}, "arms": {"compared": ["oversample"]}})

    assert steps.arms(run, True) == [] and len(steps.arms(run, False)) == 2
    assert [pair.label for pair in steps.pairs(run)] == ["cnn oversample against none seed 0"]


@pytest.mark.parametrize("leak", [True, False])
def test_the_leak_is_reproduced_only_where_that_was_asked_for_and_needs_a_synthetic_set(
    monkeypatch: pytest.MonkeyPatch, leak: bool
) -> None:
    run = run_with(
        monkeypatch,
        {
            "classifiers": {"names": ["cnn"]},
            "arms": {"baseline": "none", "compared": ["oversample"]},
            "seeds": {"classifiers": [0, 1]},
            "evaluation": {"reproduce_leak": leak},
        },
    )

    assert [each.label for each in steps.leaks(run)] == ["cnn leaking seed 0", "cnn leaking seed 1"] * leak
    assert steps.wants_synthetic(run) == leak


runs = st.fixed_dictionaries(
    {
        "names": st.lists(st.sampled_from(list(CLASSIFIERS)), min_size=1, unique=True),
        "arms": st.lists(st.sampled_from(list(ARMS)), min_size=2, unique=True),
        "seeds": st.lists(st.integers(0, 5), min_size=1, max_size=3, unique=True),
    }
)


@given(runs)
def test_every_training_is_planned_once_and_every_pair_has_its_arms_among_them(chosen: dict[str, list[Any]]) -> None:
    overrides = {
        "classifiers": {"names": chosen["names"], "image_size": 96},
        "arms": {"baseline": chosen["arms"][0], "compared": chosen["arms"][1:]},
        "seeds": {"classifiers": chosen["seeds"]},
    }
    with pytest.MonkeyPatch.context() as patch:
        run = run_with(patch, overrides)
        trainings = [*steps.arms(run, False), *steps.arms(run, True)]
        pairs: list[Pair] = steps.pairs(run)
        settings: Settings = plan.load_settings(run)
        wanted, frozen = steps.wants_synthetic(run), steps.backbones(run)

    expected = {(name, arm, seed) for name in chosen["names"] for arm in chosen["arms"] for seed in chosen["seeds"]}
    assert len(trainings) == len(expected)
    assert {(each.classifier, each.arm, each.seed) for each in trainings} == expected
    trained = {(each.classifier, each.arm, each.seed) for each in trainings}
    assert len(set(pairs)) == len(pairs)
    for pair in pairs:
        assert {(each.classifier, each.arm, each.seed) for each in pair.trainings} <= trained
    against = {(pair.classifier, pair.arm, pair.seed): pair for pair in pairs if pair.against == settings.arms.baseline}
    assert set(against) == {each for each in trained if each[1] != settings.arms.baseline}
    for pair in set(pairs) - set(against.values()):
        assert ARMS[pair.arm].extra == "synthetic" and ARMS[pair.against].extra == "oversample"
        assert ARMS[pair.arm].classical == ARMS[pair.against].classical
    assert wanted == any(needs_synthetic(arm) for arm in chosen["arms"])
    assert set(frozen) == set(chosen["names"]) - {"cnn"}
