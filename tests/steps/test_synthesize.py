"""The step ``synthesize``: so many images of each class as are asked for, with their provenance; no GAN is trained."""

import numpy as np
import pytest

from cxr_tasks import steps
from cxr_tasks.artifacts import SyntheticSet, Training
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


class TestDrawnAnew:
    """A set that was drawn anew has the same reference and other images."""

    @pytest.fixture
    def draw(self, gan, monkeypatch):
        """Draws the set of one run after the other, each of the gray that is given."""

        def drawn(gray, force=()):
            pixels = np.full((8, 32, 32), gray, np.uint8)
            monkeypatch.setattr("cxr_tasks.gan.sampling.sample_images", lambda *given: pixels)
            return steps.synthesize(handles.begin(ASKED, force=list(force)), handles.dataset(), gan)

        return drawn

    def test_its_digest_tells(self, draw):
        first, again, other = draw(3), draw(3, ["synthesize"]), draw(4, ["synthesize"])

        assert first.ref == again.ref == other.ref and other.forced
        assert first.images_digest == again.images_digest != other.images_digest
        assert draw(5).images_digest == other.images_digest

    @pytest.mark.parametrize("step", ["train_arm", "reproduce_leak", "extract_features"])
    def test_what_follows_is_made_anew_although_the_run_that_drew_it_died(self, draw, untrained, small_vgg16, step):
        run, dataset = handles.begin({"data": {"split": {"validation": 0.3, "test": 0.3}}}), handles.dataset()
        arm = Training(classifier="cnn", arm="synthetic" if step == "train_arm" else "leaking", seed=0)
        asked = "vgg16" if step == "extract_features" else arm
        first = getattr(steps, step)(run, dataset, asked, synthetic=draw(3))
        draw(4, ["synthesize"])  # and nothing more: the run dies

        later = draw(5)
        second, third = (getattr(steps, step)(run, dataset, asked, synthetic=later) for _ in range(2))

        assert later.reused and not later.forced
        refs = [made.model.ref if step == "train_arm" else made.ref for made in (first, second, third)]
        assert refs[0] != refs[1] == refs[2] and not second.reused and third.reused

    def test_a_set_of_an_older_version_keeps_the_keys_of_what_follows(self, draw, untrained):
        """Its handle tells no digest: what was trained on it before is found."""
        made = draw(3)
        old = SyntheticSet.model_validate(made.model_dump(mode="json", exclude={"images_digest"}))
        asked = []
        training = Training(classifier="cnn", arm="synthetic", seed=0)
        for given in (old, made):
            steps.train_arm(handles.begin(), handles.dataset(), training, given)
            asked.append(given.content)

        assert asked == [{}, {"images": made.images_digest}] and len(untrained.calls) == 2
