"""The judge, with pixels for features: its seed is its own, and its figures do not depend on any other."""

import numpy as np
import pandas as pd
import pytest

from cxr_tasks.config import Settings, resolve
from cxr_tasks.data.dataset import Images
from cxr_tasks.data.stacks import Rows
from cxr_tasks.gan import judging
from cxr_tasks.gan.judging import Judge
from cxr_tasks.gan.quality import GanQuality
from cxr_tasks.gan.verdict import GanVerdict


class Pixels:
    """Takes the place of the extractor: the features of an image are its pixels."""

    def __init__(self, settings: object, training: np.ndarray, seed: int, resize: str = "bilinear") -> None:
        self.name = f"pixels ({seed})"

    def extract(self, pixels: Rows) -> np.ndarray:
        return pixels[:].reshape(len(pixels), -1).astype(np.float32)


def settings_of(**seeds: int) -> Settings:
    return resolve("quick", {"judge": {"images_per_class": 12}, "seeds": seeds})


def noise_images(seed: int, per_class: int) -> Images:
    labels = np.repeat([0, 1, 2], per_class)
    pixels = np.random.default_rng(seed).integers(0, 256, (len(labels), 32, 32)).astype(np.uint8)
    return Images(pixels, labels, np.arange(len(labels)).astype(str), pd.DataFrame(index=range(len(labels))))


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(judging, "Extractor", Pixels)

    def judge(settings: Settings) -> tuple[GanQuality, GanVerdict]:
        untrained, made = noise_images(3, 12).pixels, noise_images(4, 12).pixels
        return Judge(settings, noise_images(1, 20), noise_images(2, 15), untrained, "bilinear").judge(made)

    return judge


def test_the_judge_has_a_seed_of_its_own(judged) -> None:
    quality, verdict = judged(settings_of(judge=5))

    assert quality.seed == 5 and quality.extractor == "pixels (5)"
    assert "features of pixels (5)" in verdict.sentence
    assert judged(settings_of(judge=5, gan=9, split=9))[0] == quality
    assert judged(settings_of(judge=6))[0].overall.kid != quality.overall.kid


def test_no_more_images_of_a_class_are_searched_for_repeats_than_are_generated(judged, monkeypatch) -> None:
    counts = []

    def nothing_repeated(pixels: np.ndarray, labels: np.ndarray, near: object) -> np.ndarray:
        counts.append(np.bincount(labels).tolist())
        return np.zeros(len(labels), bool)

    monkeypatch.setattr(judging, "repeated", nothing_repeated)
    quality, _ = judged(settings_of())

    assert counts == [[12, 12, 12], [12, 12, 12]]
    assert quality.overall.repeated.value == quality.overall.repeated_training.value == 0
