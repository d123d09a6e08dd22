"""Tiny GANs and images to train them on."""

from pathlib import Path

import numpy as np

from cxr_tasks.config import resolve
from cxr_tasks.gan.training import fit_gan

# Everything that is not in the report, at once.
ALL_SWITCHES = {
    "preset": "improved",
    "ema": 0.9,
    "diff_augment": True,
    "spectral_norm": True,
    "r1": 1.0,
    "projection": True,
    "d_learning_rate": 8.0e-4,
}


def tiny(**changes):
    """The recipe's GAN at 32 pixels and a twentieth of its channels, without what is not in the report."""
    small = {"preset": "paper", "ema": None, "image_size": 32, "width": 0.05, "batch_size": 8, "epochs": 3}
    return resolve("quick", {"gan": small | {"grid_steps": [1]} | changes}).gan


def noise(count=24):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, 32, 32)).astype("uint8"), rng.integers(0, 3, count)


def train_in_a_process(folder, steps_per_call, checkpoint_seconds, pipe):
    """Train with every switch on; sends ``"saved"`` after each checkpoint, and at the end what came out."""
    settings = tiny(epochs=20, steps_per_call=steps_per_call, checkpoint_seconds=checkpoint_seconds, **ALL_SWITCHES)
    trained = fit_gan(*noise(), 3, settings, 0, Path(folder), on_checkpoint=lambda: pipe.send("saved"))
    pipe.send((trained.gan.fingerprint(), trained.history.to_json(), trained.resumed_from))
