"""What steps decide before any work is done: the form, and whose turn it is."""

import pytest

from cxr_tasks import steps
from cxr_tasks.config import resolve
from cxr_tasks.errors import SettingsError
from cxr_tasks.execution import StepResult, is_forced
from cxr_tasks.steps.synthetic import _start_anew


def result(ref: str, forced: bool = False) -> StepResult:
    return StepResult(
        step="split", ref=ref, reused=False, forced=forced, seconds=0.0, mlflow_run_id="m", url="", summary={}
    )


@pytest.fixture
def run(store):
    settings = resolve("quick")
    with store.publish("settings/one", {}) as folder:
        (folder / "settings.json").write_text(settings.model_dump_json())

    def begin(dag_run: str = "first", force=()) -> dict:
        return {"dag_run": dag_run, "settings": "settings/one", "mlflow_run_id": "", "force": list(force)}

    return begin


def test_the_form_overrides_the_profile_and_settings_have_the_last_word():
    form = {
        "profile": "quick",
        "classifiers": ["cnn"],
        "seeds": [1, 2],
        "baseline": "classical",
        "arms": ["both", "oversample"],
        "reproduce_leak": True,
        "gan_epochs": 7,
        "synthetic_per_class": 0,
        "settings": {"gan": {"epochs": 9}},
    }

    settings = resolve("quick", steps.form_overrides(form))

    assert settings.classifiers.names == ("cnn",) and settings.classifiers.seeds == (1, 2)
    assert settings.synthetic.counts == {"COVID": 0, "Normal": 0, "Viral Pneumonia": 0}
    assert settings.arms.names == ("classical", "both", "oversample") and settings.evaluation.reproduce_leak
    assert settings.gan.epochs == 9


def test_an_empty_form_changes_nothing():
    form = {"profile": "paper", "classifiers": None, "seeds": None, "gan_epochs": None, "synthetic_per_class": None}

    assert steps.form_overrides(form) == {}


def test_a_synthetic_arm_without_a_synthetic_set_is_refused(run):
    with pytest.raises(SettingsError, match="trains on synthetic images"):
        steps.train_arm(run(), result("split/a"), {"classifier": "cnn", "arm": "both", "seed": 0})


def test_forcing_a_step_forces_what_follows(run):
    assert is_forced(run(force=["train_gan"]), "train_gan", {})
    assert is_forced(run(), "synthesize", {"gan": result("train_gan/a", forced=True)})
    assert not is_forced(run(), "synthesize", {"gan": result("train_gan/a"), "other": "text"})


def test_a_gan_that_is_made_anew_gives_up_old_progress_once_and_later_runs_go_on(store):
    ref = "train_gan/a"
    progress = store.load_checkpoint(ref) / "ckpt-1"

    def left(asked_by: str) -> tuple[bool, bool]:
        progress.touch()
        return _start_anew(ref, asked_by), progress.exists()

    assert left(asked_by="") == (False, True)
    assert left(asked_by="second") == (True, False)
    # A retry, a run after the hours were used up, and one that is to start afresh once more.
    assert left(asked_by="second") == (True, True)
    assert left(asked_by="") == (True, True)
    assert left(asked_by="third") == (True, False)
