"""The step ``train_gan``: what is published when a training ends, and where it goes on when it has not; no training."""

import os
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cxr_tasks import progress, steps
from cxr_tasks.artifacts import Gan
from cxr_tasks.gan.training import FittedGan
from cxr_tasks.gan.watch import GRID_PER_CLASS
from cxr_tasks.steps.unfinished import Unfinished
from cxr_tasks.store import RECORD
from tests.steps import handles

pytestmark = pytest.mark.usefixtures("untracked")


class Fit:
    """Stands for ``fit_gan``: leaves a checkpoint, and is at its end after so many calls."""

    def __init__(self, networks, calls: int) -> None:
        self.networks, self.calls, self.seen = networks, calls, []
        self.setbacks: tuple[str, ...] = ()

    def __call__(self, pixels, labels, classes, settings, seed, checkpoints, **hooks):
        found = sorted(path.name for path in checkpoints.iterdir())
        self.seen.append({"pixels": pixels, "labels": labels, "seed": seed, "found": found})
        (checkpoints / f"ckpt-{len(self.seen)}.index").touch()
        hooks["on_checkpoint"]()
        hooks["on_epoch"](4, {"g_loss": 1.0})
        hooks["on_grid"](4, np.zeros((classes * GRID_PER_CLASS, 32, 32), np.uint8))
        hooks["on_steps"](4, 8)
        self.calls -= 1
        steps_done = 8 if not self.calls else 4
        return FittedGan(
            gan=self.networks,
            generator=self.networks.generator,
            history=pd.DataFrame({"epoch": [1, 2], "step": [4, 8], "g_loss": [2.0, 1.0]}),
            grids={1: np.zeros((classes * GRID_PER_CLASS, 32, 32), np.uint8)},
            resumed_from=0 if not found else 4,
            steps=steps_done,
            total_steps=8,
            finished=not self.calls,
            hours=1.25,
            setbacks=self.setbacks,
            checkpoints=checkpoints,
        )


@pytest.fixture
def fit(networks, monkeypatch):
    """Replaces the training by one that ends after so many sittings."""

    def replace(sittings: int) -> Fit:
        stands = Fit(networks, sittings)
        monkeypatch.setattr("cxr_tasks.gan.training.fit_gan", stands)
        return stands

    return replace


def test_a_training_that_ends_is_published_with_its_networks_and_pictures(fit, store):
    trained, heard = fit(1), []

    with progress.listening(lambda *told: heard.append(told)):
        gan = steps.train_gan(handles.begin(), handles.dataset())

    assert (gan.finished, gan.steps, gan.epochs, gan.images, gan.hours) == (True, 8, 8, 18, 1.25)
    assert gan.state == "" and heard == [("GAN training", 4, 8)]
    assert {Gan.GENERATOR, Gan.DISCRIMINATOR, Gan.HISTORY, Gan.GRID, Gan.ANIMATION} <= {
        path.name for path in gan.folder().iterdir()
    }
    assert gan.generator().output_shape == (None, 32, 32, 3) and gan.discriminator() is not None
    assert len(trained.seen[0]["pixels"]) == 18
    assert not list((store.root / "unfinished").rglob("ckpt-*"))


def test_a_training_that_has_not_ended_says_where_it_stands_and_goes_on(fit, store):
    trained, dataset = fit(2), handles.dataset()

    waiting = steps.train_gan(handles.begin(), dataset)

    assert (waiting.ref, waiting.finished, waiting.steps) == ("", False, 4)
    assert waiting.state == (
        "The GAN's training stands at step 4 of 8 after 1.2 hours: the next run goes on from there."
    )
    ended = steps.train_gan(handles.begin(), dataset)
    assert ended.finished and ended.resumed_from == 4
    assert [call["found"] for call in trained.seen] == [[], ["ckpt-1.index"]]
    assert steps.train_gan(handles.begin(), dataset).reused and len(trained.seen) == 2


def test_how_a_training_is_cut_into_sittings_makes_no_other_gan(fit):
    fit(1)
    dataset = handles.dataset()
    whole = steps.train_gan(handles.begin(), dataset)

    cut = steps.train_gan(handles.begin({"gan": {"max_hours": 1.0, "checkpoint_seconds": 5.0}}), dataset)

    assert cut.reused and cut.ref == whole.ref


def test_only_training_images_are_shown_to_the_gan(fit):
    trained, dataset = fit(1), handles.dataset()

    steps.train_gan(handles.begin(), dataset)

    np.testing.assert_array_equal(trained.seen[0]["pixels"], dataset.images("train", 32, handles.CLASSES).pixels)


def test_a_gan_that_is_made_anew_gives_up_old_progress_once_and_later_runs_go_on(store):
    def left(asked_by: str) -> tuple[bool, bool]:
        unfinished = Unfinished("train_gan/a", "the training", asked_by)
        with unfinished.alone():
            kept = unfinished.folder() / "ckpt-1.index"
            was_there = kept.exists()
            kept.touch()
        return unfinished.anew, was_there

    assert left(asked_by="") == (False, False)
    assert left(asked_by="") == (False, True)
    assert left(asked_by="second") == (True, False)
    # A retry, a run after the hours were used up, and one that is to start afresh once more.
    assert left(asked_by="second") == (True, True)
    assert left(asked_by="") == (True, True)
    assert left(asked_by="third") == (True, False)


def with_gan(**changes):
    return handles.begin({"gan": changes})


def test_more_epochs_go_on_from_a_training_that_has_ended_or_has_not(fit, store):
    dataset = handles.dataset()
    first = fit(1)
    short = steps.train_gan(with_gan(epochs=2), dataset)
    later = fit(2)

    steps.train_gan(with_gan(epochs=4), dataset)
    longer = steps.train_gan(with_gan(epochs=6), dataset)

    assert [call["found"] for call in first.seen + later.seen] == [[], ["ckpt-1.index"], ["ckpt-1.index"]]
    assert longer.finished and longer.ref != short.ref
    # One state for all lengths, and no progress, is left.
    assert len(list(store.root.glob("gan_state/*"))) == 1 and not list(store.root.glob("unfinished/*/*/ckpt-*"))


def test_fewer_epochs_do_not_begin_with_the_state_of_more(fit):
    dataset = handles.dataset()
    fit(1)
    steps.train_gan(with_gan(epochs=4), dataset)
    trained = fit(1)

    steps.train_gan(with_gan(epochs=2), dataset)
    anew = fit(1)
    steps.train_gan(with_gan(epochs=6).model_copy(update={"force": (Gan.step,)}), dataset)

    assert trained.seen[0]["found"] == [] and anew.seen[0]["found"] == []


def test_what_is_drawn_makes_no_other_gan(fit):
    trained, dataset = fit(1), handles.dataset()
    whole = steps.train_gan(with_gan(grid_steps=[1]), dataset)

    other = steps.train_gan(with_gan(grid_steps=[1, 3], setbacks=0), dataset)

    assert other.reused and other.ref == whole.ref and len(trained.seen) == 1


def test_a_second_run_waits_and_takes_what_the_first_made(fit):
    trained, dataset, made = fit(1), handles.dataset(), []
    begun, goes_on = threading.Event(), threading.Event()
    stands = trained.__call__

    def slow(*given, **hooks):
        begun.set()
        assert goes_on.wait(60)
        return stands(*given, **hooks)

    import cxr_tasks.gan.training as module

    module.fit_gan = slow
    runs = [handles.begin(), handles.begin().model_copy(update={"dag_run": "two"})]
    first, second = (
        threading.Thread(target=lambda run=run: made.append(steps.train_gan(run, dataset))) for run in runs
    )
    first.start()
    assert begun.wait(60)
    second.start()
    second.join(1)
    assert second.is_alive() and not made
    goes_on.set()
    first.join(60)
    second.join(60)

    assert len(trained.seen) == 1 and [gan.reused for gan in made].count(True) == 1


def test_a_setback_is_noted(fit):
    trained = fit(1)
    trained.setbacks = ("The GAN had numbers.",)

    assert steps.train_gan(handles.begin(), handles.dataset()).notes == trained.setbacks


def test_a_forced_training_of_several_sittings_replaces_the_gan_before_it(fit):
    dataset = handles.dataset()
    fit(1)
    old = steps.train_gan(handles.begin(), dataset)
    trained = fit(2)

    waiting = steps.train_gan(handles.begin(force=["train_gan"]), dataset)
    # A run that forces nothing goes on with the training that is under way, and does not take the old GAN.
    ended = steps.train_gan(handles.begin().model_copy(update={"dag_run": "two"}), dataset)

    assert waiting.forced and not waiting.finished
    assert ended.finished and ended.forced and ended.ref == old.ref and not ended.reused
    assert [call["found"] for call in trained.seen] == [[], ["ckpt-1.index"]]
    assert not steps.train_gan(handles.begin().model_copy(update={"dag_run": "three"}), dataset).forced


def test_a_state_that_lost_a_file_is_done_without_and_replaced(fit):
    dataset = handles.dataset()
    fit(1)
    steps.train_gan(with_gan(epochs=4), dataset)
    (record,) = Path(os.environ["CXR_STORE"]).glob(f"gan_state/*/{RECORD}")
    next(record.parent.rglob("ckpt-*")).unlink()

    trained = fit(1)
    steps.train_gan(with_gan(epochs=6), dataset)
    further = fit(1)
    steps.train_gan(with_gan(epochs=8), dataset)

    assert trained.seen[0]["found"] == [] and further.seen[0]["found"] != []


def test_a_try_after_a_forced_training_was_published_takes_that(fit, monkeypatch):
    dataset, run = handles.dataset(), handles.begin(force=["train_gan"])
    fit(1)
    steps.train_gan(handles.begin(), dataset)
    trained = fit(1)

    def broken(*_):
        raise ConnectionError

    with monkeypatch.context() as patched, pytest.raises(ConnectionError):
        # As where MLflow is away at the very end.
        patched.setattr("cxr_tasks.pipeline.tracking.set_reused", broken)
        steps.train_gan(run, dataset)
    again = steps.train_gan(run, dataset)

    assert again.finished and again.forced and len(trained.seen) == 1
    # A later run that asks anew is not answered by that.
    later = fit(1)
    assert steps.train_gan(run.model_copy(update={"dag_run": "two"}), dataset).forced and len(later.seen) == 1
    assert not steps.train_gan(handles.begin().model_copy(update={"dag_run": "three"}), dataset).forced
