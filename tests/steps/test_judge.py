"""The step ``judge`` for a GAN that is not at its end, and what a judgement allows; the figures are tested in gan/."""

import importlib

import pytest

from cxr_tasks import steps
from cxr_tasks.artifacts import Judgement
from tests.steps import handles

pytestmark = pytest.mark.usefixtures("untracked")


def test_a_gan_that_is_not_at_its_end_is_not_good_enough_and_says_where_it_stands(store):
    waiting = handles.gan(finished=False)

    said = steps.judge(handles.begin(), handles.dataset(), waiting)

    assert (said.passed, said.kind, said.ref) == (False, "unfinished", "")
    assert said.sentence == waiting.state and said.notes == (waiting.state,)
    assert not (store.root / "judge").exists()


@pytest.mark.parametrize(
    ("judged", "override", "allowed"),
    [
        (lambda: handles.judgement(passed=True), False, True),
        (lambda: handles.judgement(passed=False), False, False),
        (lambda: handles.judgement(passed=False), True, True),
        (lambda: Judgement(passed=False, kind="unfinished", sentence="It stands at step 5."), True, False),
    ],
)
def test_a_run_trains_with_images_that_are_good_enough_or_that_somebody_overrode(judged, override, allowed):
    run = handles.begin({"judge": {"override": override}})

    assert steps.may_train_with(run, judged()) == allowed


@pytest.mark.slow
def test_a_judgement_keeps_its_figures_and_its_verdict(networks):
    run = handles.begin({"judge": {"images_per_class": 6}})
    gan = handles.gan(networks=networks)

    said = steps.judge(run, handles.dataset(), gan)

    assert not said.passed and said.sentence in said.notes
    assert [row.name for row in said.quality().classes] == handles.CLASSES
    assert said.quality().overall.synthetic == 18 and said.file(Judgement.VERDICT) is not None
    run = handles.begin({"judge": {"images_per_class": 6, "override": True}})
    overridden = steps.judge(run, handles.dataset(), gan)
    assert overridden.reused and overridden.sentence == said.sentence


def test_a_gan_that_was_trained_anew_is_judged_anew(monkeypatch):
    module, asked = importlib.import_module("cxr_tasks.steps.judge"), []
    monkeypatch.setattr(module, "perform", lambda *given, **what: asked.append(what["inputs"]) or handles.judgement())
    run, dataset, gan = handles.begin(), handles.dataset(), handles.gan()

    for digest in ("", "one", "two"):
        module.judge(run, dataset, gan.model_copy(update={"weights_digest": digest}))

    assert [given.get("weights") for given in asked] == [None, "one", "two"]
