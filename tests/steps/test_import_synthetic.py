"""Synthetic images that others have made: read like real ones, judged, and no copy of a held-out image in a set."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxr_tasks import steps
from cxr_tasks.artifacts import ImportedImages, Judgement, RunContext, SyntheticSet
from cxr_tasks.config import merge
from cxr_tasks.errors import DataError, SettingsError
from cxr_tasks.gan import judging
from cxr_tasks.gan.filtering import NEAR_COPY
from cxr_tasks.gan.imported import HELD_OUT_COPY
from tests.gan.test_judging import Pixels
from tests.steps import handles

pytestmark = pytest.mark.usefixtures("untracked")

SIDE = 64
COUNTS = {"COVID": 8, "Viral Pneumonia": 5}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve images of each class that are asked for, and of no other, like those of the dataset and new."""
    fresh = handles.dataset(seed=5)
    place = tmp_path / "synthetic"
    for label in COUNTS:
        write(place / label, pictures(fresh, "train", label) + pictures(fresh, "validation", label))
    return place


def pictures(dataset, split: str, label: str) -> list[np.ndarray]:
    """Images of the dataset, larger."""
    images = dataset.images(split, handles.SIZE, handles.CLASSES)
    chosen = images.pixels[images.labels == handles.CLASSES.index(label)]
    return [np.asarray(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.NEAREST)) for image in chosen]


def write(folder: Path, images: list[np.ndarray], name: str = "made") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{name}-{number:02d}.png")


@pytest.fixture
def begin(folder: Path) -> Callable[..., RunContext]:
    """Begins runs with the images of the folder."""
    imported = {
        "synthetic": {"source": str(folder), "counts": COUNTS},
        "judge": {"images_per_class": 10, "max_memorised": None},
    }
    return lambda overrides=None: handles.begin(merge(imported, overrides or {}))


def read(run: RunContext) -> ImportedImages:
    return steps.import_synthetic(run, handles.dataset())


def test_images_are_read_as_real_ones_are(begin, folder):
    masks = folder / "COVID" / "masks"
    write(masks, [np.full((SIDE, SIDE), 255, np.uint8)], "made")
    (folder / "COVID" / "broken.png").write_bytes(b"no image")
    write(folder / "COVID", [np.zeros((SIDE, SIDE), np.uint8)], "blank")
    colourful = np.zeros((SIDE, SIDE, 3), np.uint8)
    colourful[..., 0] = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE))
    write(folder / "COVID", [colourful], "colour")
    shutil.copyfile(folder / "COVID" / "made-00.png", folder / "COVID" / "twice.png")

    made = read(begin())

    assert made.images == {"COVID": 12, "Normal": 0, "Viral Pneumonia": 12} and made.rejected == 4
    assert made.origin == f"images from {folder}"
    assert any(warning.startswith("4 of 28 files are set aside, such as COVID/") for warning in made.warnings)
    table = made.table()
    images = made.of(table, handles.SIZE, handles.CLASSES)
    assert images.pixels.shape == (24, handles.SIZE, handles.SIZE) and images.rows["provenance"].eq("synthetic").all()
    assert len(set(images.ids)) == 24 and images.rows["source"].eq(made.ref).all()
    again = read(begin())
    assert again.ref == made.ref and again.reused


def test_what_counts_is_what_the_files_hold(begin, folder, tmp_path):
    first = read(begin())
    moved = shutil.copytree(folder, tmp_path / "elsewhere")

    elsewhere = read(begin({"synthetic": {"source": str(moved)}}))
    write(folder / "COVID", pictures(handles.dataset(seed=9), "test", "COVID")[:1], "made")
    changed = read(begin())

    assert elsewhere.ref == first.ref and elsewhere.reused and elsewhere.source == str(moved)
    assert changed.ref != first.ref and not changed.reused
    assert set(changed.table()["image_id"]) != set(first.table()["image_id"])


def test_a_class_that_is_asked_for_and_has_no_folder_is_named(begin):
    with pytest.raises(DataError, match=r"Class 'Normal' has no image: in .* Put its images into the folder 'Normal'"):
        read(begin({"synthetic": {"counts": {"Normal": 3}}}))


def test_a_class_with_too_few_images_for_the_judge_is_named(begin, folder):
    for path in sorted((folder / "COVID").iterdir())[:4]:
        path.write_bytes(b"no image")

    with pytest.raises(
        DataError,
        match=r"Class 'COVID': 8 of 12 synthetic images in .* can be used \(COVID/made-00.png, say: .*\), "
        r"and the judge needs at least 10: give more, or ask for none of this class",
    ):
        read(begin())


def test_a_class_that_is_not_asked_for_may_have_few_images(begin, folder):
    write(folder / "Normal", pictures(handles.dataset(seed=5), "test", "Normal")[:3])

    assert read(begin()).images["Normal"] == 3


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"source": "s3://key:secret@bucket/images"}, "credentials, which the settings would show"),
        ({"source": "s3://bucket/a?X-Amz-Signature=1"}, "credentials, which the settings would show"),
        ({"source": " "}, "synthetic.source: it is empty: give the address of images"),
        ({"min_class_probability": 0.5}, "there is none where source is an address: set it to 0"),
    ],
)
def test_settings_that_cannot_be_are_refused_in_a_sentence_without_the_secret(begin, change, sentence):
    with pytest.raises(SettingsError, match=sentence) as error:
        begin({"synthetic": change})

    told = [str(each) for each in (error.value, error.value.__cause__)]
    assert not any("secret" in each for each in told)


class TestJudged:
    """What the judge says, with pixels for features, and the set that is drawn."""

    @pytest.fixture(autouse=True)
    def pixels_for_features(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(judging, "Extractor", Pixels)

    @pytest.fixture
    def judged(self, begin) -> Callable[..., tuple[RunContext, ImportedImages, Judgement]]:
        def judge(overrides=None):
            run = begin(overrides)
            imported = read(run)
            return run, imported, steps.judge(run, handles.dataset(), None, imported)

        return judge

    @staticmethod
    def drawn(run: RunContext, imported: ImportedImages, judgement: Judgement) -> SyntheticSet:
        return steps.synthesize(run, handles.dataset(), None, imported, judgement)

    def test_new_images_are_measured_by_the_same_figures(self, judged):
        run, imported, said = judged()

        quality = said.quality()
        assert [row.synthetic for row in quality.classes] == [10, 0, 10] and said.copies == {}
        assert quality.overall.kid.value is not None and quality.overall.kid_ratio.value is not None
        assert quality.overall.memorised.value is not None and quality.overall.coverage_floor.value is not None
        assert said.kind != "memorised" and said.file(Judgement.COPIES) is not None
        made = self.drawn(run, imported, said)
        assert made.counts == {"COVID": 8, "Normal": 0, "Viral Pneumonia": 5} and made.notes == ()
        assert made.origin == imported.origin
        images = made.images(handles.CLASSES)
        assert images.pixels.shape[1:] == (handles.SIZE, handles.SIZE)
        assert images.rows["provenance"].eq("synthetic").all() and images.rows["source"].eq(imported.ref).all()
        assert made.extra(handles.CLASSES, handles.SIZE, "bilinear").content["images"] == made.images_digest

    def test_a_folder_of_real_training_images_is_judged_as_copies(self, judged, folder):
        shutil.rmtree(folder)
        real = handles.dataset(per_class={"train": 12, "validation": 6, "test": 8})
        for label in COUNTS:
            write(folder / label, pictures(real, "train", label))
        run = handles.begin({"synthetic": {"source": str(folder), "counts": COUNTS}, "judge": {"images_per_class": 10}})
        imported = steps.import_synthetic(run, real)

        said = steps.judge(run, real, None, imported)

        assert (said.passed, said.kind) == (False, "memorised")
        # Of noise the hash does not know every copy again; the features do.
        assert said.copies.keys() == {"train"} and said.copies["train"] >= 22
        assert said.sentence.startswith("The generated images copy real ones: over all classes: 100 % copy a training")
        assert said.quality().overall.memorised.value == 1
        assert not steps.may_train_with(run, said)

    def test_a_near_copy_of_a_test_image_is_left_out_counted_and_named(self, judged, folder):
        (of_test, *_), (of_training, *_) = (pictures(handles.dataset(), split, "COVID") for split in ("test", "train"))
        lighter = np.clip(of_test.astype(int) + 9, 0, 255).astype(np.uint8)
        write(folder / "COVID", [lighter], "leaked")
        write(folder / "COVID", [of_training], "known")

        run, imported, said = judged()

        assert said.copies == {"test": 1, "train": 1} and said.kind != "memorised"
        leaked, known = said.warnings
        assert leaked.startswith("1 of 26 synthetic images copy real test images, for example COVID/leaked-00.png (a ")
        assert "may be too good" in leaked and "COVID/known-00.png" in known
        assert said.copied()["path"].tolist() == ["COVID/known-00.png", "COVID/leaked-00.png"]
        made = self.drawn(run, imported, said)
        everything = {"synthetic": {"counts": {"COVID": 50, "Viral Pneumonia": 50}}}
        most = self.drawn(*judged(everything))
        assert made.counts["COVID"] == 8 and made.dropped == {HELD_OUT_COPY: 1, NEAR_COPY: 1}
        assert most.counts == {"COVID": 12, "Normal": 0, "Viral Pneumonia": 12}
        assert not set(most.images(handles.CLASSES).rows["path"]) & set(said.copied()["path"])
        assert "COVID: 50 synthetic images are asked for, and 12 of 14 are added" in most.notes
        kept = self.drawn(*judged(merge(everything, {"synthetic": {"drop_near_copies": False}})))
        assert kept.counts["COVID"] == 13 and kept.dropped == {HELD_OUT_COPY: 1, NEAR_COPY: 0}

    def test_images_that_all_copy_held_out_ones_are_no_images_to_train_with(self, judged, folder):
        shutil.rmtree(folder / "COVID")
        held_out = [*pictures(handles.dataset(), "test", "COVID"), *pictures(handles.dataset(), "validation", "COVID")]
        write(folder / "COVID", held_out)

        *_, said = judged()

        assert (said.passed, said.kind) == (False, "memorised")
        # Of noise the hash does not know every copy again.
        assert sum(said.copies.values()) >= 12 and said.copies.keys() == {"test", "validation"}
        assert f"COVID: {sum(said.copies.values())} of 14 copy validation or test images" in said.sentence

    def test_another_seed_draws_others_and_the_same_seed_the_same(self, judged):
        few = {"synthetic": {"counts": {"COVID": 4, "Viral Pneumonia": 4}}}
        first, again, other = (self.drawn(*judged(merge(few, {"seeds": {"synthetic": seed}}))) for seed in (0, 0, 1))

        assert first.images_digest == again.images_digest != other.images_digest
