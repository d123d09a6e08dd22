"""CovidGAN's training: each optimiser moves its own network, draws cover the classes, and resume is exact."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cxr_tasks.config import resolve
from cxr_tasks.errors import UserError
from cxr_tasks.training.gan import Checkpoints, CovidGan, generate, train_gan

REPOSITORY = Path(__file__).resolve().parents[2]


def tiny(**changes):
    return resolve(
        "quick", {"gan": {"image_size": 32, "width": 0.05, "batch_size": 8, "epochs": 3, "grid_steps": [1]} | changes}
    ).gan


@pytest.fixture
def real():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (24, 32, 32)).astype("uint8"), rng.integers(0, 3, 24)


def weights(gan):
    return [variable.numpy() for variable in gan.state()]


@pytest.mark.parametrize(("frozen", "moving"), [("generator", "discriminator"), ("discriminator", "generator")])
def test_each_optimiser_moves_its_own_network_only(real, frozen, moving):
    gan = CovidGan(tiny(), 3, seed=0)
    # With a learning rate of nothing one network must stand still, whatever the other's step does.
    getattr(gan, f"{frozen[0]}_optimizer").learning_rate = 0.0
    before = {name: [w.numpy() for w in getattr(gan, name).trainable_weights] for name in (frozen, moving)}

    gan.train_step(real[0][:8], real[1][:8].astype("int32"))

    changed = {
        name: [
            not np.array_equal(a, b.numpy())
            for a, b in zip(before[name], getattr(gan, name).trainable_weights, strict=True)
        ]
        for name in (frozen, moving)
    }
    assert not any(changed[frozen])
    assert all(changed[moving])


def test_both_networks_have_weights_to_train():
    gan = CovidGan(tiny(), 3, seed=0)

    assert len(gan.discriminator.trainable_weights) == 5 * 4 + 4
    assert len(gan.g_optimizer.variables) > 2 * len(gan.generator.trainable_weights)


def test_labels_are_drawn_from_every_class_and_latents_with_the_given_spread():
    gan = CovidGan(tiny(latent_sd=0.02), 3, seed=0)

    latent, labels = gan._draw(3000, 0)

    assert np.bincount(labels.numpy()).min() > 900
    assert latent.numpy().std() == pytest.approx(0.02, rel=0.05)


def test_generated_images_are_gray_bytes_and_depend_on_seed_only(real):
    gan = CovidGan(tiny(), 3, seed=0)
    labels = np.array([0, 1, 2, 0])

    first, again, other = (generate(gan.generator, labels, tiny(), seed) for seed in (5, 5, 6))

    assert first.shape == (4, 32, 32) and first.dtype == np.uint8
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    raw = gan.generator.predict([np.zeros((1, 100)), np.zeros((1, 1))], verbose=0)
    assert np.abs(raw).max() <= 1


def test_resuming_gives_the_weights_of_an_uninterrupted_training(real, tmp_path):
    whole = train_gan(*real, 3, tiny(epochs=4), 0, tmp_path / "whole")

    train_gan(*real, 3, tiny(epochs=2), 0, tmp_path / "parts")
    resumed = train_gan(*real, 3, tiny(epochs=4), 0, tmp_path / "parts")

    assert resumed.resumed_from == 6
    assert all(np.array_equal(a, b) for a, b in zip(weights(whole.gan), weights(resumed.gan), strict=True))
    assert resumed.history.round(6).equals(whole.history.round(6))


@pytest.mark.slow
def test_a_killed_training_goes_on_from_its_checkpoint(tmp_path):
    script = f"""
import numpy as np, sys
sys.path.insert(0, {str(REPOSITORY)!r})
from pathlib import Path
from tests.training.test_gan import tiny
from cxr_tasks.training.gan import train_gan
rng = np.random.default_rng(0)
real = rng.integers(0, 256, (24, 32, 32)).astype("uint8"), rng.integers(0, 3, 24)
train_gan(*real, 3, tiny(epochs=2000, checkpoint_seconds=0.01), 0, Path({str(tmp_path / "killed")!r}),
          on_checkpoint=lambda: print("saved", flush=True))
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=os.environ, text=True)
    for _ in range(4):
        assert process.stdout.readline() == "saved\n"
    process.send_signal(signal.SIGKILL)
    process.wait()

    rng = np.random.default_rng(0)
    real = rng.integers(0, 256, (24, 32, 32)).astype("uint8"), rng.integers(0, 3, 24)
    reached = Checkpoints(CovidGan(tiny(), 3, 0), tmp_path / "killed", 3).restore()
    epochs = -(-(reached + 1) // 3) + 1
    resumed = train_gan(*real, 3, tiny(epochs=epochs), 0, tmp_path / "killed")
    whole = train_gan(*real, 3, tiny(epochs=epochs), 0, tmp_path / "whole")

    assert resumed.resumed_from == reached >= 4
    assert all(np.array_equal(a, b) for a, b in zip(weights(whole.gan), weights(resumed.gan), strict=True))


def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(real, tmp_path):
    train_gan(*real, 3, tiny(epochs=2, checkpoint_seconds=0.001), 0, tmp_path)
    newest = max(tmp_path.glob("ckpt-*.index"), key=lambda path: int(path.stem.split("-")[1]))
    data = next(tmp_path.glob(f"{newest.stem}.data*"))
    data.write_bytes(data.read_bytes()[:100])

    resumed = train_gan(*real, 3, tiny(epochs=2), 0, tmp_path)

    assert resumed.resumed_from == 5


def test_only_damaged_checkpoints_are_an_error(real, tmp_path):
    train_gan(*real, 3, tiny(epochs=1), 0, tmp_path)
    for data in tmp_path.glob("ckpt-*.data*"):
        data.write_bytes(b"")

    with pytest.raises(UserError, match=r"checkpoints in .* is usable"):
        train_gan(*real, 3, tiny(epochs=2), 0, tmp_path)


def test_grids_are_drawn_at_the_asked_steps_and_at_the_end(real, tmp_path):
    seen = []

    trained = train_gan(
        *real, 3, tiny(grid_steps=[1, 4], epochs=2), 0, tmp_path, on_grid=lambda step, grid: seen.append(step)
    )

    assert seen == [1, 4, 6] == list(trained.grids)
    assert trained.grids[6].shape == (18, 32, 32)
