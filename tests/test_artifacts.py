"""Handles are plain data that survives the way between tasks, and each loads the files of its artifact."""

import json

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from cxr_tasks import artifacts
from cxr_tasks.artifacts import STEPS, Artifact, Dataset, Ruled, RunContext, Split, Training
from cxr_tasks.data.dataset import centre_box
from cxr_tasks.data.ingest import MANIFEST
from cxr_tasks.errors import DataError
from cxr_tasks.steps import compare
from cxr_tasks.store import FolderStore
from cxr_tasks.strict import Strict
from tests.steps import handles

KINDS = [kind for kind in vars(artifacts).values() if isinstance(kind, type) and issubclass(kind, Artifact)]
PAIR = Training(classifier="cnn", arm="synthetic", seed=0)


@pytest.fixture(autouse=True)
def untracked(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> FolderStore:
    monkeypatch.setenv("CXR_MLFLOW", "off")
    return store


def test_every_handle_survives_the_way_between_tasks() -> None:
    run, given = handles.begin(force=["train_gan"]), handles.prepared()
    arms = [handles.trained_arm(run, given.dataset(), "cnn", arm) for arm in ("none", "synthetic")]
    whole = compare(run, given.dataset(), PAIR, [arms])
    half = compare(run, given.dataset(), PAIR, [arms[:1], None])
    told: list[Strict] = [run, *given, given.dataset(), *arms, whole, half, handles.gan(), handles.judgement()]

    for handle in [*told, handles.synthetic_set(), handles.leaked(), handles.features(), arms[0].model]:
        assert type(handle).model_validate(json.loads(handle.model_dump_json())) == handle
        assert type(handle).model_validate(handle.model_dump(mode="json")) == handle


def test_nothing_of_a_handle_changes_and_nothing_unknown_is_taken() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        PAIR.seed = 1
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        RunContext(dag_run="a", settings="b", colour="red")


def test_each_kind_of_artifact_but_the_abstract_ones_is_made_by_one_step() -> None:
    made = [kind for kind in KINDS if kind not in (Artifact, Dataset, Ruled)]
    steps = [kind.step for kind in made]

    assert len(set(steps)) == len(steps)
    assert set(STEPS) < set(steps) and len(set(STEPS)) == len(STEPS)
    assert set(Artifact.model_fields) > Artifact.MOMENT


def test_a_training_is_named_by_what_it_is() -> None:
    assert PAIR.label == "cnn synthetic seed 0"


class TestDataset:
    def test_a_split_comes_with_its_own_pixels_from_the_shards_that_they_lie_in(self) -> None:
        given = handles.dataset(sizes=(32, 64))

        for split, number in handles.PER_CLASS.items():
            images = given.images(split, 32, handles.CLASSES)
            assert (images.pixels.shape, images.pixels.dtype) == ((3 * number, 32, 32), np.uint8)
            assert images.rows["split"].eq(split).all()
            squares = np.stack([images.pixels[:, 4:14, 2 + 9 * k : 10 + 9 * k].mean((1, 2)) for k in range(3)])
            assert squares.argmax(0).tolist() == images.labels.tolist()
        assert given.images("test", 64, handles.CLASSES).pixels.shape == (24, 64, 64)

    def test_labels_follow_the_order_of_the_classes(self) -> None:
        given = handles.dataset()

        turned = given.images("test", 32, handles.CLASSES[::-1])

        assert turned.labels.tolist() == (2 - given.images("test", 32, handles.CLASSES).labels).tolist()

    def test_another_size_is_made_of_the_largest_where_that_is_asked_for(self) -> None:
        given = handles.dataset(sizes=(32, 64))
        with pytest.raises(FileNotFoundError):
            given.images("test", 12, handles.CLASSES)

        resized = given.images("test", 12, handles.CLASSES, resize=True)

        np.testing.assert_array_equal(
            resized.pixels, given.images("test", 64, handles.CLASSES).resized(12, "bilinear").pixels
        )

    def test_masks_come_in_the_order_of_the_images_with_a_box_where_there_is_none(self) -> None:
        given = handles.dataset()
        has_mask = given.images("test", 32, handles.CLASSES).rows["mask"].to_numpy(bool)

        masks = given.masks("test", 32)

        assert masks.shape == (24, 32, 32) and masks.dtype == bool and 0 < has_mask.sum() < 24
        assert (masks[~has_mask] == centre_box(32)).all()
        assert (masks[has_mask].mean(axis=(1, 2)) == 16 * 20 / 32**2).all()

    def test_synthetic_images_and_empty_splits_stop(self, store: FolderStore) -> None:
        given = handles.dataset()
        rows = given.manifest()
        made = rows.iloc[:3].assign(image_id=["s0", "s1", "s2"], provenance="synthetic", split="test")
        mixed = given.model_copy(
            update={
                "ref": handles.keep(
                    Split(version="mixed", counts=given.counts, warnings=()),
                    lambda folder: pd.concat([rows, made]).to_parquet(folder / MANIFEST, index=False),
                ).ref
            }
        )

        with pytest.raises(DataError, match="3 synthetic images are in the test split"):
            mixed.images("test", 32, handles.CLASSES)
        with pytest.raises(DataError, match="The nothing split is empty"):
            given.masks("nothing", 32)

    def test_its_content_is_named_by_its_artifact(self) -> None:
        given = handles.dataset()

        assert given.content == {"dataset": given.ref}


def test_a_file_that_an_artifact_does_not_have_is_none() -> None:
    made = handles.gan()

    assert made.file(made.GRID) == b"the GAN's grid" and made.file("nothing") is None


def test_an_artifact_that_is_not_there_is_an_error() -> None:
    with pytest.raises(FileNotFoundError, match="Artifact train_gan/lost is not in the store"):
        handles.gan().model_copy(update={"ref": "train_gan/lost"}).folder()


def test_blanked_predictions_come_by_what_is_blanked() -> None:
    given = handles.dataset()

    blanked, without = (handles.trained_model(given, blanked=asked).blanked() for asked in (True, False))

    assert sorted(blanked) == ["background", "lungs"] and without == {}
    for table in blanked.values():
        assert table.columns.tolist() == handles.predictions(given, 0).columns.tolist()
        assert table["split"].eq("test").all() and len(table) == 24


def test_a_trained_model_gives_its_tables_and_its_network() -> None:
    given = handles.dataset()

    model = handles.trained_model(given, with_model=True)

    assert model.predictions()["image_id"].nunique() == 42
    assert model.history()["epoch"].tolist() == [1, 2]
    answer = model.load().predict(np.zeros((2, 32, 32, 1)), verbose=0)
    np.testing.assert_allclose(answer.sum(axis=1), 1, rtol=1e-5)


def test_synthetic_images_keep_their_provenance_and_come_at_the_size_that_is_asked_for() -> None:
    made = handles.synthetic_set()

    images, extra = made.images(handles.CLASSES), made.extra(handles.CLASSES, 48, "bilinear")

    assert np.bincount(images.labels, minlength=3).tolist() == [5, 0, 4] and images.pixels.shape == (9, 32, 32)
    assert images.rows["provenance"].eq("synthetic").all()
    np.testing.assert_array_equal(extra.images.pixels, images.resized(48, "bilinear").pixels)
    assert extra.positions is None


def test_a_synthetic_set_that_was_made_anew_has_another_name() -> None:
    made = handles.synthetic_set()
    # Those of an older version tell no digest.
    changes = [{"made_by": run, "images_digest": digest} for digest in ("", "one", "two") for run in ("run", "other")]
    sets = [made.model_copy(update=change) for change in changes]

    old, other, one, again, two, _ = (each.extra(handles.CLASSES, 32, "bilinear").content for each in sets)

    assert old != other and one == again != two


def test_a_comparison_knows_its_arms_by_their_role() -> None:
    run, given = handles.begin(), handles.dataset()
    arms = {arm: handles.trained_arm(run, given, "cnn", arm) for arm in ("none", "synthetic")}

    whole, half = (compare(run, given, PAIR, [each]) for each in (arms.values(), [arms["synthetic"]]))

    assert whole.is_complete and whole.arms == {"baseline": arms["none"], "augmented": arms["synthetic"]}
    assert not half.is_complete and list(half.arms) == ["augmented"]
    assert whole.result().macro_f1_difference == pytest.approx(
        arms["synthetic"].test_macro_f1 - arms["none"].test_macro_f1
    )


def test_a_judgement_gives_its_figures() -> None:
    assert handles.judgement().quality() == handles.quality()
