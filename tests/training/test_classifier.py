"""An arm's training on tiny images: it learns, both arms share a backbone, and the saved model is the trained one."""

import keras
import numpy as np
import pandas as pd
import pytest

from cxr_tasks.config import resolve
from cxr_tasks.data.dataset import Images
from cxr_tasks.training.classifier import EpochBatches, balanced_weights, train_arm, undersampled

CLASSES = ["a", "b", "c"]


def images(n: int, seed: int, prefix: str) -> Images:
    """Classes that differ by where a bright square lies."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    pixels = rng.integers(0, 90, (n, 32, 32)).astype("uint8")
    for pixel, label in zip(pixels, labels, strict=True):
        pixel[4:16, 2 + 10 * label : 10 + 10 * label] += 150
    ids = np.array([f"{prefix}{i:064x}" for i in range(n)])
    rows = pd.DataFrame({"image_id": ids, "group": ids, "label": [CLASSES[k] for k in labels], "provenance": "real"})
    return Images(pixels, labels.astype(np.int64), ids, rows)


@pytest.fixture(scope="module")
def data():
    return images(120, 0, "t"), {"validation": images(30, 1, "v"), "test": images(30, 2, "s")}


def fit(data, name, augmentation=None, **changes):
    settings = resolve("quick", {"classifiers": {"image_size": 32, "epochs": 8, "learning_rate": 1e-3, **changes}})
    train, held_out = data
    return train_arm(
        name,
        train,
        held_out,
        CLASSES,
        settings.classifiers,
        settings.augmentation if augmentation else None,
        seed=0,
        weights_seed=0,
    )


@pytest.mark.parametrize("name", ["cnn", "vgg16"])
def test_an_arm_learns_and_its_model_gives_its_predictions(data, tmp_path, name):
    arm = fit(data, name)
    test = arm.predictions[arm.predictions["split"] == "test"]

    arm.model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")

    assert (test[CLASSES].to_numpy().argmax(1) == data[1]["test"].labels).mean() > 0.8
    np.testing.assert_allclose(
        loaded.predict(data[1]["test"].pixels[..., None], verbose=0), test[CLASSES].to_numpy(), atol=1e-5
    )


def test_the_same_seed_gives_the_same_arm(data):
    first, again = (fit(data, "cnn", augmentation=True, epochs=2).predictions for _ in range(2))

    pd.testing.assert_frame_equal(first, again, rtol=1e-4)


def test_early_stopping_keeps_the_best_epoch(data):
    arm = fit(data, "cnn", epochs=40, patience=2, learning_rate=3e-3)
    validation = arm.predictions[arm.predictions["split"] == "validation"]
    picked = validation[CLASSES].to_numpy()[np.arange(len(validation)), data[1]["validation"].labels]

    assert arm.history["val_loss"].idxmin() + 1 == arm.best_epoch
    assert len(arm.history) <= arm.best_epoch + 2
    assert -np.log(np.clip(picked, 1e-7, 1)).mean() == pytest.approx(arm.history["val_loss"].min(), abs=1e-3)


def test_views_are_made_once_and_come_around():
    made = []

    def features(view):
        made.append(view)
        return np.full((6, 1), view)

    batches = EpochBatches(features, np.eye(6), batch_size=4, seed=0, views=2)
    seen = [float(batches[0][0][0, 0])]
    for _ in range(3):
        batches.on_epoch_end()
        seen.append(float(batches[0][0][0, 0]))

    assert seen == [0, 1, 0, 1] and made == [0, 1]


def test_an_epoch_shows_every_image_once_and_each_epoch_in_another_order():
    batches = EpochBatches(lambda view: np.arange(10)[:, None], np.eye(10), batch_size=4, seed=0, views=1)
    orders = []
    for _ in range(2):
        orders.append(np.concatenate([batches[i][0][:, 0] for i in range(len(batches))]))
        batches.on_epoch_end()

    assert sorted(orders[0]) == sorted(orders[1]) == list(range(10))
    assert list(orders[0]) != list(orders[1])


def test_undersampling_keeps_as_many_of_each_class():
    labels = np.repeat([0, 1, 2], [5, 20, 9])

    kept = undersampled(labels, seed=0)

    assert np.bincount(labels[kept]).tolist() == [5, 5, 5]


def test_balanced_weights_give_each_class_the_same_say():
    labels = np.repeat([0, 1, 2], [5, 20, 25])

    shares = [balanced_weights(labels)[k] * (labels == k).sum() for k in range(3)]

    assert np.allclose(shares, shares[0])
