"""CovidGAN's training: resuming is exact however it was interrupted, sittings end in time, and it learns."""

import logging
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from cxr_tasks.checkpoints import all_finite, checkpoint_numbers
from cxr_tasks.data.stacks import as_stack
from cxr_tasks.errors import UserError
from cxr_tasks.gan.checkpoints import Checkpoints
from cxr_tasks.gan.device import on_device, strategy_for
from cxr_tasks.gan.sampling import sample_images
from cxr_tasks.gan.step import CovidGan
from cxr_tasks.gan.training import fit_gan
from tests.gan.gan_helpers import noise, tiny, train_in_a_process

REPOSITORY = Path(__file__).resolve().parents[2]
ONE_THREAD = {"TF_NUM_INTRAOP_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(REPOSITORY)}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Four epochs of three steps, a call and a checkpoint a step; kept for the tests to compare with."""
    folder = tmp_path_factory.mktemp("whole")
    return fit_gan(*noise(), 3, tiny(epochs=4, steps_per_call=1, checkpoint_seconds=1e-6), 0, folder), folder


@pytest.fixture
def its_checkpoints(uninterrupted, tmp_path):
    """A copy of its folder."""
    return shutil.copytree(uninterrupted[1], tmp_path / "copy")


def test_sittings_and_the_steps_of_a_call_change_nothing(uninterrupted, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    whole, _ = uninterrupted

    first = fit_gan(*noise(), 3, tiny(epochs=4, steps_per_call=5, max_hours=1e-9), 0, tmp_path)
    last = fit_gan(*noise(), 3, tiny(epochs=4, steps_per_call=2, max_hours=1.0), 0, tmp_path)

    # A call ends at the grid of step 1, and this sitting with it.
    assert (first.steps, first.finished, first.resumed_from) == (1, False, 0)
    assert (last.steps, last.finished, last.resumed_from) == (12, True, 1)
    assert 0 < first.hours < last.hours
    assert "stops at the checkpoint of step 1 of 12" in caplog.text
    assert last.gan.fingerprint() == whole.gan.fingerprint()
    assert last.history.equals(whole.history)
    assert list(whole.history["epoch"]) == [1, 2, 3, 4] and list(whole.history["step"]) == [3, 6, 9, 12]
    np.testing.assert_array_equal(last.grids[12], whole.grids[12])


def test_images_that_are_sent_call_by_call_give_the_same_bits(uninterrupted, tmp_path, monkeypatch):
    monkeypatch.setattr("cxr_tasks.gan.device.MOST_ON_DEVICE", 0)
    pixels, labels = noise()

    sent = fit_gan(as_stack(pixels), labels, 3, tiny(epochs=4, steps_per_call=2), 0, tmp_path)

    assert sent.gan.fingerprint() == uninterrupted[0].gan.fingerprint()


def test_a_finished_training_is_only_read_again(uninterrupted):
    whole, folder = uninterrupted

    again = fit_gan(*noise(), 3, tiny(epochs=4), 0, folder)

    assert again.resumed_from == 12 and again.finished and again.hours == whole.hours
    assert again.gan.fingerprint() == whole.gan.fingerprint()
    assert again.generator is again.gan.generator and 12 in again.grids


@pytest.mark.slow
def test_a_training_killed_at_any_moment_ends_with_the_same_bits_with_every_switch_on(tmp_path):
    # Forks from a process that has imported TensorFlow and run nothing, which saves importing it five times.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.gan.gan_helpers"])

    def start(folder, steps_per_call, checkpoint_seconds):
        ours, theirs = context.Pipe()
        arguments = (str(tmp_path / folder), steps_per_call, checkpoint_seconds, theirs)
        process = context.Process(target=train_in_a_process, args=arguments, daemon=True)
        process.start()
        return process, ours

    moments = random.Random(0)
    for _ in range(3):
        process, pipe = start("killed", 2, 1e-6)
        for _ in range(moments.randint(1, 6)):
            assert pipe.poll(240) and pipe.recv() == "saved"
        # Somewhere in the middle of a step or of writing a checkpoint.
        time.sleep(moments.uniform(0, 0.1))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    found = []
    for folder, steps_per_call in (("killed", 3), ("whole", 1)):
        process, pipe = start(folder, steps_per_call, 1000)
        assert pipe.poll(240) and pipe.recv() == "saved"
        found.append(pipe.recv())
        process.join()

    assert found[0][2] >= 3 and found[1][2] == 0
    assert found[0][:2] == found[1][:2]


def test_losses_that_are_no_longer_numbers_end_the_training_before_they_are_kept(tmp_path):
    with pytest.raises(UserError, match=r"no longer numbers at step 3, after .* Lower gan\.learning_rate") as told:
        fit_gan(*noise(), 3, tiny(learning_rate=1e30, checkpoint_seconds=1000, grid_steps=[100]), 0, tmp_path)

    assert "went back from step 3 to step 0" in str(told.value)
    assert not list(tmp_path.glob("ckpt-*.index"))


class Breaking(CovidGan):
    """Counts steps, and puts ``value`` into a part of its state at step ``at``, on its first ``times`` visits."""

    at, times, value, part = 7, 1, np.nan, "generator"
    visits = 0

    def train_steps(self, images, labels, order, first, count):
        for _ in range(count):
            self.step_number.assign_add(1)
            self.sums.assign(self.sums + 1.0)
            if int(self.step_number) == self.at and type(self).visits < self.times:
                type(self).visits += 1
                self.break_down()
        return self.sums.numpy()

    def break_down(self):
        broken = self.sums if self.part == "losses" else getattr(self, self.part).variables[-1]
        broken.assign(tf.fill(broken.shape, tf.constant(self.value, tf.float32)))


@pytest.fixture
def breaking(monkeypatch):
    """Replaces the training's GAN by one that breaks as it is told."""

    def replace(**how):
        kind = type("Breaking", (Breaking,), how)
        monkeypatch.setattr("cxr_tasks.gan.training.CovidGan", kind)
        return kind

    return replace


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("part", ["losses", "generator", "discriminator", "g_optimizer", "averaged"])
def test_a_state_that_is_not_finite_is_never_kept_and_the_training_goes_back_once(breaking, tmp_path, part, value):
    breaking(part=part, value=value)
    settings = tiny(epochs=3, steps_per_call=1, checkpoint_seconds=1e-9, ema=0.9)

    trained = fit_gan(*noise(), 3, settings, 0, tmp_path)

    assert trained.finished and trained.steps == 9 and list(trained.history["step"]) == [3, 6, 9]
    assert len(trained.setbacks) == 1 and "at step 7. Its training went back to step 6" in trained.setbacks[0]
    assert all_finite(trained.gan.state())
    again = fit_gan(*noise(), 3, settings, 0, tmp_path)
    assert again.resumed_from == 9 and again.setbacks == trained.setbacks


def test_numbers_that_are_lost_again_end_the_training_at_every_try_and_the_last_good_state_stays(breaking, tmp_path):
    breaking(times=100)
    settings = tiny(epochs=3, steps_per_call=1, checkpoint_seconds=1e-9)

    for _ in range(2):
        with pytest.raises(UserError, match=r"at step 7, after the training went back from step 7 to step 6 and drew"):
            fit_gan(*noise(), 3, settings, 0, tmp_path)

    assert checkpoint_numbers(tmp_path)[-1] == 6
    assert Checkpoints(CovidGan(settings, 3, 0), tmp_path, 3).restore() == 6


def test_a_checkpoint_that_holds_numbers_that_are_not_finite_is_skipped(its_checkpoints):
    gan = CovidGan(tiny(), 3, 0)
    keeper = Checkpoints(gan, its_checkpoints, 3)
    keeper.restore()
    gan.discriminator.trainable_variables[0].assign(gan.discriminator.trainable_variables[0] * np.nan)
    keeper.save()

    assert Checkpoints(gan, its_checkpoints, 3).restore() == 11


def test_after_a_setback_a_training_draws_otherwise_and_settings_stay(tmp_path):
    ends = []
    for number in range(2):
        gan = CovidGan(tiny(), 3, 0)
        gan.take_detour(number)
        gan.train_step(*(each[:8] for each in noise()))
        ends.append(gan.fingerprint())

    assert ends[0] != ends[1]


def test_more_epochs_go_on_with_the_bits_of_a_training_that_was_asked_for_them_at_once(uninterrupted, tmp_path):
    fit_gan(*noise(), 3, tiny(epochs=2), 0, tmp_path)

    longer = fit_gan(*noise(), 3, tiny(epochs=4, grid_steps=[2, 11]), 0, tmp_path)

    assert longer.resumed_from == 6 and longer.finished
    assert longer.gan.fingerprint() == uninterrupted[0].gan.fingerprint()
    assert longer.history.equals(uninterrupted[0].history)


def test_fewer_epochs_leave_the_checkpoints_of_a_longer_training_alone(its_checkpoints, tmp_path):
    shorter = fit_gan(*noise(), 3, tiny(epochs=1), 0, its_checkpoints)
    asked_alone = fit_gan(*noise(), 3, tiny(epochs=1), 0, tmp_path / "alone")

    assert (shorter.resumed_from, shorter.steps) == (0, 3)
    assert shorter.gan.fingerprint() == asked_alone.gan.fingerprint()
    assert checkpoint_numbers(its_checkpoints) == [10, 11, 12]


@pytest.mark.parametrize("damage", ["index", "data-00000-of-00001", "json", "npz"])
def test_a_checkpoint_without_one_of_its_files_falls_back_to_the_one_before(its_checkpoints, damage):
    (its_checkpoints / f"ckpt-12.{damage}").unlink()

    assert Checkpoints(CovidGan(tiny(), 3, 0), its_checkpoints, 3).restore() == 11


@pytest.mark.parametrize("content", [None, b"", b"\x00 no list"])
def test_a_lost_list_of_checkpoints_does_not_lose_the_checkpoints(its_checkpoints, content):
    listing = its_checkpoints / "checkpoint"
    listing.unlink() if content is None else listing.write_bytes(content)

    assert Checkpoints(CovidGan(tiny(), 3, 0), its_checkpoints, 3).restore() == 12


def test_damaged_checkpoints_fall_back_to_the_one_before(its_checkpoints, caplog):
    assert {path.stem for path in its_checkpoints.glob("ckpt-*.index")} == {"ckpt-10", "ckpt-11", "ckpt-12"}
    (its_checkpoints / "ckpt-12.npz").write_bytes(b"PK no archive")
    data = next(its_checkpoints.glob("ckpt-11.data*"))
    data.write_bytes(data.read_bytes()[:100])

    assert Checkpoints(CovidGan(tiny(), 3, 0), its_checkpoints, 3).restore() == 10
    assert sum("is damaged" in record.message for record in caplog.records) == 2


def test_only_damaged_checkpoints_are_an_error(its_checkpoints):
    for data in its_checkpoints.glob("ckpt-*.data*"):
        data.write_bytes(b"")

    with pytest.raises(UserError, match=r"None of the 3 checkpoints in .* is usable"):
        fit_gan(*noise(), 3, tiny(epochs=4), 0, its_checkpoints)


def test_grids_metrics_progress_and_a_collapse_are_told(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    grids, metrics, saved, steps = [], [], [], []
    # A generator that stands still and makes the same image of every latent.
    settings = tiny(grid_steps=[1, 4], epochs=3, ema=0.9, learning_rate=1e-12, latent_sd=1e-6, checkpoint_seconds=3600)

    trained = fit_gan(
        *noise(),
        3,
        settings,
        0,
        tmp_path,
        on_grid=lambda step, grid: grids.append(step),
        on_epoch=lambda step, values: metrics.append((step, values)),
        on_checkpoint=lambda: saved.append(1),
        on_steps=lambda done, total: steps.append((done, total)),
    )

    assert grids == [1, 4, 9] == list(trained.grids)
    assert trained.grids[9].shape == (18, 32, 32)
    assert [step for step, _ in metrics] == [3, 6, 9, 9] and saved == [1]
    assert sorted(steps) == steps and steps[0] == (1, 9) and steps[-1] == (9, 9)
    assert {"d_loss", "g_loss", "images_per_second", "hours_left"} <= set(metrics[0][1])
    assert 0 <= metrics[3][1]["diversity"] < 0.01
    assert "GAN step 9 of 9" in caplog.text
    assert sum("may have collapsed" in record.message for record in caplog.records) == 3
    assert trained.generator is trained.gan.averaged
    made = sample_images(trained.gan.averaged, np.repeat([0, 1, 2], 6), settings, 0, "fixed grid")
    np.testing.assert_array_equal(trained.grids[9], made)


@pytest.mark.slow
def test_a_tiny_gan_learns_how_much_brighter_each_class_is_than_the_one_before(tmp_path):
    rng = np.random.default_rng(0)
    labels = np.arange(240) % 3
    y, x = np.mgrid[:32, :32]
    blob = np.exp(-((x - 16) ** 2 + (y - 16) ** 2) / 60)
    heights = np.array([40, 110, 180])[labels] + rng.normal(0, 8, 240)
    pixels = np.clip(30 + heights[:, None, None] * blob, 0, 255).astype("uint8")
    settings = tiny(
        width=0.1,
        epochs=25,
        batch_size=16,
        learning_rate=2e-3,
        latent_sd=1.0,
        ema=0.9,
        dropout=0.2,
        fake_class_loss=False,
    )

    trained = fit_gan(pixels, labels, 3, settings, 0, tmp_path)
    made = sample_images(trained.generator, np.repeat([0, 1, 2], 40), settings, 1)

    real = np.array([pixels[labels == k].mean() for k in range(3)])
    # How bright all classes are together swings for long, and rounds otherwise on each processor.
    steps = np.diff(made.reshape(3, -1).mean(axis=1)) / np.diff(real)
    assert (steps > 0.5).all() and (steps < 2).all(), steps


@pytest.mark.slow
def test_xla_gives_the_same_bits_however_steps_are_grouped():
    gan = CovidGan(tiny(xla=True, ema=0.9, diff_augment=True), 3, seed=0)
    images, order = on_device(*noise()), tf.constant(np.arange(24).reshape(3, 8), tf.int32)
    begin = [np.array(variable) for variable in gan.state()]

    for first in range(3):
        sums = gan.train_steps(*images, order, first, 1)
    ends = [gan.fingerprint()]
    for variable, value in zip(gan.state(), begin, strict=True):
        variable.assign(value)
    again = gan.train_steps(*images, order, 0, 3)
    ends.append(gan.fingerprint())

    assert ends[0] == ends[1]
    np.testing.assert_array_equal(sums, again)
    assert np.isfinite(sums).all()


TWO_DEVICES = """
import sys
import numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from pathlib import Path
from cxr_tasks.errors import UserError
from cxr_tasks.gan.training import fit_gan
from tests.gan.gan_helpers import noise, tiny
folder = Path(sys.argv[1])
try:
    fit_gan(*noise(), 3, tiny(batch_size=9), 0, folder / "nine", devices=["CPU:0", "CPU:1"])
except UserError as error:
    assert "A batch of 9 images cannot be divided among 2 devices" in str(error)
else:
    raise AssertionError("the batch was divided")
made = []
for devices in (None, ["CPU:0", "CPU:1"]):
    settings = tiny(epochs=1, dropout=0.0, ema=0.9, distribute=True, xla=True if devices else False)
    trained = fit_gan(*noise(), 3, settings, 0, folder / str(len(made)), devices=devices)
    made.append(trained)
one, two = made
assert two.gan.replicas == 2 and one.gan.replicas == 1
print(np.abs(one.history.to_numpy() - two.history.to_numpy())[:, 2:4].max())
for name in ("generator", "discriminator"):
    pairs = list(zip(*(getattr(each.gan, name).weights for each in made)))
    pairs = [(np.array(a), np.array(b)) for a, b in pairs if "kernel" in a.path or "moving" in a.path]
    print(max(float(np.abs(a - b).mean()) for a, b in pairs))
print(np.abs(one.grids[3].astype(int) - two.grids[3]).max())
"""


@pytest.mark.slow
def test_two_devices_with_half_a_batch_each_train_as_one_does(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", TWO_DEVICES, str(tmp_path)],
        capture_output=True,
        env=os.environ | ONE_THREAD,
        text=True,
        cwd=REPOSITORY,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    losses, generator, discriminator, grid = map(float, done.stdout.split())

    # Batch statistics are taken over both halves; what is left is rounding, which Adam's first steps enlarge.
    assert losses < 0.02
    assert generator < 2e-4 and discriminator < 2e-4
    assert grid <= 5


def test_without_two_gpus_distributing_is_left_out_with_a_line_in_the_log(caplog):
    caplog.set_level(logging.INFO)

    assert strategy_for(tiny(distribute=True)).num_replicas_in_sync == 1
    assert "takes two GPUs" in caplog.text
