"""Features in the store: each image is run once, whoever asks, and they are what would have been computed."""

import keras
import numpy as np
import pandas as pd
import pytest

from cxr_tasks.classifiers.feature_store import FeatureCache, StoredFeatures
from cxr_tasks.classifiers.features import FEATURE_BATCH, ArmFeatures, FrozenTrunk
from cxr_tasks.classifiers.training_set import ExtraImages
from cxr_tasks.config import resolve
from cxr_tasks.data.dataset import Images
from cxr_tasks.data.ingest import pixels_file
from cxr_tasks.data.stacks import ROWS_AT_ONCE
from cxr_tasks.store import open_store

SIZE = 32
SHARDS, DATASET = ("ingest/0", "ingest/1"), {"dataset": "split/a"}
AUGMENTATION = resolve("quick").augmentation


@pytest.fixture
def trunk():
    keras.utils.set_random_seed(0)
    pixels = keras.Input((SIZE, SIZE, 1))
    x = keras.layers.Conv2D(3, 3, strides=4, activation="relu")(keras.layers.Rescaling(1 / 255)(pixels))
    return keras.Model(pixels, x, name="vgg16_trunk")


class Counting(FrozenTrunk):
    """Counts the images that it is run on."""

    def __init__(self, trunk) -> None:
        super().__init__(trunk)
        self.seen = 0

    def __call__(self, pixels):
        self.seen += len(pixels)
        return super().__call__(pixels)


def shard(number: int, count: int) -> np.ndarray:
    pixels = np.random.default_rng(number).integers(0, 256, (count, SIZE, SIZE)).astype("uint8")
    with open_store().publish(f"ingest/{number}", {}) as folder:
        np.save(folder / pixels_file(SIZE), pixels)
    return pixels


@pytest.fixture
def data(tmp_path, monkeypatch):
    """The splits of a dataset of two shards."""
    monkeypatch.setenv("CXR_STORE", str(tmp_path))
    packed = [shard(0, 7), shard(1, 5)]
    splits = {"train": [(1, 4), (0, 2), (0, 6), (1, 0)], "validation": [(0, 0), (1, 1)], "test": [(1, 3)]}

    def images(places) -> Images:
        rows = pd.DataFrame(places, columns=["shard", "row"]).assign(provenance="real")
        ids = np.array([f"{s}{r:063x}" for s, r in places])
        pixels = np.stack([packed[s][r] for s, r in places])
        return Images(pixels, np.zeros(len(places), np.int64), ids, rows)

    return {name: images(places) for name, places in splits.items()}


def stored(trunk, data, *, extra=None, augmentation=None, seed=0, altered=None, shards=SHARDS):
    train = data["train"] if extra is None else data["train"].followed_by(extra.images)
    held_out = {name: images for name, images in data.items() if name != "train"}
    cache = FeatureCache(Counting(trunk), {"backbone": "vgg16"})
    features = StoredFeatures(
        cache, shards, DATASET, data["train"], extra, train, held_out, augmentation, seed, altered or {}
    )
    return features, ArmFeatures(FrozenTrunk(trunk), train, held_out, augmentation, seed)


def test_stored_features_are_those_that_would_be_computed(trunk, data):
    features, computed = stored(trunk, data)
    rows = np.array([3, 0, 2])

    np.testing.assert_allclose(features.training(rows, 0), computed.training(rows, 0), rtol=2e-3)
    for name in ("validation", "test"):
        np.testing.assert_allclose(features.held_out(name), computed.held_out(name), rtol=2e-3)
    assert features.held_out("test").dtype == np.float16


def test_features_that_are_made_in_parts_have_the_same_bits(trunk, data, monkeypatch):
    assert ROWS_AT_ONCE % FEATURE_BATCH == 0
    pixels = np.random.default_rng(5).integers(0, 256, (2 * FEATURE_BATCH + 3, SIZE, SIZE)).astype("uint8")
    whole = FrozenTrunk(trunk)(pixels)

    monkeypatch.setattr("cxr_tasks.data.stacks.in_parts.__defaults__", (FEATURE_BATCH,))
    counting = Counting(trunk)
    stored = FeatureCache(counting, {})({"shard": "parts"}, lambda: pixels)

    np.testing.assert_array_equal(stored, whole)
    assert counting.seen == len(pixels)


def test_any_number_of_images_is_run_in_batches_of_four_sizes(trunk):
    frozen, sizes = FrozenTrunk(trunk), set()
    run = frozen._run
    frozen._run = lambda batch: (sizes.add(len(batch)), run(batch))[1]
    pixels = np.random.default_rng(6).integers(0, 256, (3 * FEATURE_BATCH, SIZE, SIZE)).astype("uint8")
    one_by_one = np.concatenate([frozen(pixels[n : n + 1]) for n in range(FEATURE_BATCH + 1)])

    for count in range(FEATURE_BATCH + 1):
        features = frozen(pixels[:count])
        assert len(features) == count
        np.testing.assert_allclose(features, one_by_one[:count], rtol=2e-3)
    frozen(pixels)

    assert sizes == {16, 32, 48, 64}


def test_the_second_arm_runs_nothing(trunk, data):
    first, second = stored(trunk, data)[0], stored(trunk, data)[0]
    for features in (first, second):
        features.training(np.arange(4), 0)
        features.held_out("validation")

    assert first.frozen.seen == 12 and second.frozen.seen == 0


def test_of_data_that_have_grown_only_the_new_shard_is_run(trunk, data):
    stored(trunk, data)[0].held_out("validation")
    shard(2, 3)
    grown, train = stored(trunk, data, shards=(*SHARDS, "ingest/2"))[0], data["train"]
    rows = train.rows.assign(shard=[0, 1, 2, 2], row=[1, 1, 0, 2])
    grown.real = Images(train.pixels, train.labels, train.ids, rows)

    grown.training(np.arange(4), 0)

    assert grown.frozen.seen == 3


def test_another_backbone_shares_nothing(trunk, data):
    stored(trunk, data)[0].held_out("test")
    other = FeatureCache(Counting(trunk), {"backbone": "vgg16", "weights": "file"})

    other({"shard": "ingest/0", "size": SIZE}, lambda: data["train"].pixels)

    assert (other.computed, other.found) == (4, 0)


def test_what_is_made_anew_replaces_what_was_there(trunk, data):
    content, pixels = {"shard": "ingest/0", "size": SIZE}, data["train"].pixels
    FeatureCache(FrozenTrunk(trunk), {})(content, lambda: pixels)

    anew = FeatureCache(FrozenTrunk(trunk), {}, anew=True)(content, lambda: pixels[:2])
    later = FeatureCache(FrozenTrunk(trunk), {})
    assert len(anew) == len(later(content, lambda: pixels)) == 2 and later.found == 2


@pytest.mark.parametrize("positions", [None, np.array([1, 1, 3])])
@pytest.mark.parametrize("views", [None, 2])
def test_extra_images_follow_the_real_ones_in_every_view(trunk, data, positions, views):
    train = data["train"]
    images = train.take(np.array([1, 1, 3]) if positions is not None else np.array([0, 2]))
    extra = ExtraImages(images, {"synthetic": "synthesize/a"}, positions)
    how = AUGMENTATION.model_copy(update={"views": views}) if views else None
    features, computed = stored(trunk, data, extra=extra, augmentation=how)
    rows = np.arange(4 + len(images))

    for turn in range(3):
        np.testing.assert_allclose(features.training(rows, turn), computed.training(rows, turn), rtol=2e-3, atol=1e-3)


def test_views_of_a_pool_are_kept_by_seed(trunk, data):
    how = AUGMENTATION.model_copy(update={"views": 2})
    seen = []
    for seed in (0, 0, 1):
        features, _ = stored(trunk, data, augmentation=how, seed=seed)
        for turn in range(4):
            features.training(np.arange(4), turn)
        seen.append(features.frozen.seen)

    assert seen == [8, 0, 8]


def test_what_was_altered_is_not_taken_for_what_it_was_made_of(trunk, data):
    plain, blanked = stored(trunk, data)[0], stored(trunk, data, altered={"test": {"blanked": "lungs"}})[0]
    blanked._held_out = {"test": Images(np.zeros((1, SIZE, SIZE), np.uint8), *[None] * 3)}

    assert not np.array_equal(plain.held_out("test"), blanked.held_out("test"))
