"""The step ``synthesize``: so many images of each class as are asked for, with their provenance; no GAN is trained."""

import numpy as np
import pytest

from cxr_tasks import steps
from cxr_tasks.artifacts import SyntheticSet
from cxr_tasks.errors import DataError
from tests.steps import handles

ASKED = {"synthetic": {"counts": {"COVID": 5, "Viral Pneumonia": 3}, "drop_near_copies": False}}
SURE = {"min_class_probability": 0.5}


@pytest.fixture
def gan(untracked, networks):
    return handles.gan(networks=networks)


def test_as_many_images_of_each_class_are_drawn_as_are_asked_for(gan):
    made = steps.synthesize(handles.begin(ASKED), handles.dataset(), gan)

    assert made.counts == {"COVID": 5, "Normal": 0, "Viral Pneumonia": 3}
    images = made.images(handles.CLASSES)
    assert images.pixels.shape == (8, 32, 32) and np.bincount(images.labels, minlength=3).tolist() == [5, 0, 3]
    assert images.rows["provenance"].eq("synthetic").all() and images.rows["source"].eq(gan.ref).all()
    assert made.file(SyntheticSet.GRID) is not None and made.file(SyntheticSet.COUNTS) is not None
    assert not (made.folder() / "png").exists()


def test_balance_lifts_every_class_to_the_largest_of_the_training_split(gan):
    dataset = handles.dataset()
    uneven = dataset.model_copy(update={"counts": {"train": {"COVID": 2, "Normal": 6, "Viral Pneumonia": 5}}})
    run = handles.begin({"synthetic": {"counts": "balance", "drop_near_copies": False}})

    assert steps.synthesize(run, uneven, gan).counts == {"COVID": 4, "Normal": 0, "Viral Pneumonia": 1}


def test_images_may_be_written_as_files_too(gan):
    made = steps.synthesize(handles.begin({"synthetic": ASKED["synthetic"] | {"png": True}}), handles.dataset(), gan)

    assert len(list((made.folder() / "png").rglob("*.png"))) == 8


def test_images_that_the_discriminator_puts_elsewhere_are_dropped_with_a_note(gan, monkeypatch):
    # Untrained it is as unsure of every image: here it doubts every second one.
    doubts = np.where(np.arange(8)[:, None] % 2 == 1, 0.1, [[0.8, 0.1, 0.8]])
    monkeypatch.setattr("cxr_tasks.gan.sampling.class_probabilities", lambda discriminator, pixels: doubts)
    dataset = handles.dataset()
    every = steps.synthesize(handles.begin(ASKED), dataset, gan)

    made = steps.synthesize(handles.begin(ASKED | {"synthetic": ASKED["synthetic"] | SURE}), dataset, gan)

    assert made.counts == {"COVID": 3, "Normal": 0, "Viral Pneumonia": 1}
    assert made.images(handles.CLASSES).ids.tolist() == every.images(handles.CLASSES).ids[::2].tolist()
    assert made.notes == ("dropped 4 synthetic images: unlike its class",)


def test_a_set_without_images_says_what_to_change(gan):
    nothing = {"counts": {"COVID": 4, "Viral Pneumonia": 0}, "min_class_probability": 1.0}

    with pytest.raises(DataError, match=r"The synthetic set is empty \(4 made, .*: lower synthetic.min_class"):
        steps.synthesize(handles.begin({"synthetic": nothing}), handles.dataset(), gan)


def test_another_seed_draws_other_images_of_the_same_generator(gan):
    runs = [handles.begin(ASKED | {"seeds": {"synthetic": seed}}) for seed in (0, 1)]

    sets = [steps.synthesize(run, handles.dataset(), gan) for run in runs]

    assert sets[0].ref != sets[1].ref and sets[0].counts == sets[1].counts
    first, second = (each.images(handles.CLASSES).pixels for each in sets)
    assert not (first == second).all(axis=(1, 2)).any()
