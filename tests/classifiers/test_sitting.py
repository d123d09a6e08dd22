"""A classifier's training survives: killed at any moment it ends with the same bits, and it never keeps NaN."""

import logging
import multiprocessing
import random
import signal
import time

import numpy as np
import pytest

from cxr_tasks.checkpoints import checkpoint_numbers
from cxr_tasks.classifiers.features import ArmFeatures
from cxr_tasks.errors import UserError, WeightsError
from tests.classifiers.classifier_helpers import small_network, train, train_in_a_process


class PulledPlug(BaseException):
    """Ends a training where a test wants it."""


def pull_after(saves):
    left = [saves]

    def on_checkpoint():
        left[0] -= 1
        if not left[0]:
            raise PulledPlug

    return {"on_checkpoint": on_checkpoint}


@pytest.fixture(scope="module")
def undisturbed():
    return train()


# Every checkpoint is due: after each of the four steps of an epoch. The third stands in the middle of the first epoch,
# the eighth at the end of the second, and the last ones where patience has begun to count.
@pytest.mark.parametrize("saves", [3, 8, 23])
def test_an_interrupted_training_ends_with_the_bits_of_an_undisturbed_one(undisturbed, tmp_path, saves, caplog):
    caplog.set_level(logging.INFO)
    with pytest.raises(PulledPlug):
        train(tmp_path, hooks=pull_after(saves), checkpoint_seconds=1e-9)

    _, bits = train(tmp_path, checkpoint_seconds=1000)

    assert f"goes on from its checkpoint of step {saves}" in caplog.text
    assert bits == undisturbed[1]


def test_keeping_checkpoints_changes_no_bit_and_keeps_few(undisturbed, tmp_path):
    fitted, bits = train(tmp_path, checkpoint_seconds=1e-9, keep_checkpoints=2)

    assert bits == undisturbed[1] and fitted.setbacks == ()
    assert len(checkpoint_numbers(tmp_path)) == 2
    # A training that was ended by patience, or by its last epoch, is only read again.
    assert train(tmp_path)[1] == bits


def test_a_training_that_patience_ended_is_not_trained_on(tmp_path):
    fitted, bits = train(tmp_path, checkpoint_seconds=1e-9, patience=1, learning_rate=0.3)
    told = []

    again = train(tmp_path, patience=1, learning_rate=0.3, hooks={"on_epoch": lambda *epoch: told.append(epoch)})[1]

    assert len(fitted.history) < 12 and again == bits and told == []


@pytest.mark.parametrize("damage", ["index", "data-00000-of-00001", "json", "npz", "all"])
def test_a_damaged_checkpoint_is_skipped_for_the_one_before_or_for_the_beginning(undisturbed, tmp_path, damage, caplog):
    with pytest.raises(PulledPlug):
        train(tmp_path, hooks=pull_after(6), checkpoint_seconds=1e-9)
    for path in tmp_path.glob("ckpt-*" if damage == "all" else f"ckpt-6.{damage}"):
        path.write_bytes(path.read_bytes()[:5])

    assert train(tmp_path)[1] == undisturbed[1]
    assert "is damaged" in caplog.text


@pytest.mark.slow
def test_a_training_killed_at_any_moment_ends_with_the_same_bits(tmp_path):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.classifiers.classifier_helpers"])

    def start(folder, checkpoint_seconds):
        ours, theirs = context.Pipe()
        arguments = (str(tmp_path / folder), checkpoint_seconds, theirs)
        process = context.Process(target=train_in_a_process, args=arguments, daemon=True)
        process.start()
        return process, ours

    moments = random.Random(0)
    for _ in range(3):
        process, pipe = start("killed", 1e-9)
        for _ in range(moments.randint(2, 6)):
            assert pipe.poll(240) and pipe.recv() == "saved"
        time.sleep(moments.uniform(0, 0.05))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    found = []
    for folder in ("killed", "whole"):
        process, pipe = start(folder, 1000)
        assert pipe.poll(240)
        found.append(pipe.recv())
        process.join()

    assert checkpoint_numbers(tmp_path / "killed")[-1] >= 6
    assert found[0] == found[1]


class TestNumbers:
    def break_weights(self, network, step, value=np.nan, times=1):
        """A hook that puts ``value`` into a weight when the checkpoint of ``step`` was written."""
        seen = []

        def on_checkpoint():
            at = int(network.head.optimizer.iterations)
            if at == step and len(seen) < times:
                seen.append(at)
                kernel = network.head.trainable_variables[0]
                kernel.assign(np.full(kernel.shape, value))

        return {"on_checkpoint": on_checkpoint}

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_a_training_goes_back_to_its_last_good_state_once(self, tmp_path, value, caplog):
        network = small_network()
        hooks = self.break_weights(network, 10, value)

        fitted, _ = train(tmp_path, network=network, hooks=hooks, checkpoint_seconds=1e-9)

        assert len(fitted.setbacks) == 1 and "Its training went back to step 10" in fitted.setbacks[0]
        assert fitted.setbacks[0] in caplog.text
        assert np.isfinite(fitted.predictions[["a", "b", "c"]].to_numpy()).all()
        assert list(fitted.history["epoch"]) == list(range(1, len(fitted.history) + 1))

    def test_once_too_often_ends_the_training_in_one_sentence_and_keeps_what_is_good(self, tmp_path):
        network = small_network()
        hooks = self.break_weights(network, 10)

        with pytest.raises(UserError, match=r"at step 1\d \(epoch \d\): lower classifiers.learning_rate\.") as told:
            train(tmp_path, network=network, hooks=hooks, checkpoint_seconds=1e-9, setbacks=0)

        assert checkpoint_numbers(tmp_path)[-1] == 10
        assert "\n" not in str(told.value)

    def test_a_learning_rate_that_is_far_too_large_is_one_sentence(self):
        with pytest.raises(UserError, match=r"no longer numbers at step .* after the training went back from step"):
            train(learning_rate=1e38)

    @pytest.mark.parametrize("name", ["training", "validation", "test"])
    def test_features_that_are_no_numbers_are_named_with_an_image(self, name):
        class Spoilt(ArmFeatures):
            def training(self, rows, turn):
                features = super().training(rows, turn).astype("float32")
                features[rows == 5] = np.nan if name == "training" else features[rows == 5]
                return features

            def held_out(self, split):
                features = np.asarray(super().held_out(split)).astype("float32")
                features[3] = np.inf if split == name else features[3]
                return features

        image = {"training": "0-5", "validation": "1-3", "test": "2-3"}[name]
        with pytest.raises(WeightsError, match=rf"features of 1 of .* image {image}: .* make extract_features anew"):
            train(of=Spoilt)
