"""Small artifacts in the store, and the handles that name them: what steps are given, with no server and no training.

The functions need ``CXR_STORE`` and ``CXR_MLFLOW=off``; the fixture ``untracked`` of the conftest sets both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pandas as pd

from cxr_tasks import steps
from cxr_tasks.artifacts import (
    Artifact,
    Dataset,
    Features,
    Gan,
    Judgement,
    LeakedModel,
    Manifest,
    RunContext,
    Scan,
    Shard,
    Split,
    SyntheticSet,
    TrainedArm,
    TrainedModel,
    Training,
    Validation,
    write_json,
)
from cxr_tasks.config import merge
from cxr_tasks.data.ingest import MANIFEST, THUMBNAILS, USED, pixels_file
from cxr_tasks.data.masks import masks_file
from cxr_tasks.data.resizing import resize_stack
from cxr_tasks.gan.filtering import fingerprints
from cxr_tasks.pipeline import Made, perform
from cxr_tasks.steps.train_arm import evaluate_arm

Kind = TypeVar("Kind", bound=Artifact)

CLASSES = ["COVID", "Normal", "Viral Pneumonia"]
SIZE = 32
# Images of each class.
PER_CLASS = {"train": 6, "validation": 6, "test": 8}
SMALL: dict[str, Any] = {
    "classifiers": {"names": ["vgg16", "cnn"], "image_size": SIZE, "epochs": 2},
    "gan": {"image_size": SIZE, "width": 0.05},
    "evaluation": {"bootstrap_samples": 200, "gallery": 3},
}


def begin(overrides: Mapping[str, Any] | None = None, **form: Any) -> RunContext:
    """A run with profile quick at 32 pixels; ``overrides`` are laid over that, ``form`` over the form."""
    filled = {"profile": "quick", "settings": merge(SMALL, overrides or {})}
    return steps.configure("cxr_training", "one", filled | form)


def keep(artifact: Kind, write: Callable[[Path], object] = lambda folder: None, *, name: str = "") -> Kind:
    """Publish ``artifact`` as its step would; ``name`` tells apart what the handles alone would not."""

    def fill(folder: Path) -> Made[Kind]:
        write(folder)
        return Made(artifact)

    run = RunContext(dag_run="handles", settings="")
    content = {"name": name, **artifact.model_dump(mode="json")}
    return perform(run, type(artifact), fill, settings=content, inputs={})


class Prepared(NamedTuple):
    """What the steps of ``cxr_data`` hand on."""

    scanned: Scan
    joined: Manifest
    validated: Validation
    divided: Split

    def dataset(self) -> Dataset:
        """The dataset that would be published."""
        return steps.dataset_of(*self)


def prepared(
    *,
    seed: int = 0,
    classes: list[str] = CLASSES,
    per_class: Mapping[str, int] = PER_CLASS,
    sizes: tuple[int, ...] = (SIZE,),
    warnings: tuple[str, ...] = (),
) -> Prepared:
    """A dataset in two shards, in which a class shows by where a bright square lies; every other image has a mask."""
    rows = manifest_rows(seed, classes, per_class)
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 90, (len(rows), SIZE, SIZE)).astype(np.uint8)
    for image, label in zip(pixels, rows["label"], strict=True):
        left = 2 + 9 * classes.index(label)
        image[4:14, left : left + 8] += 150
    hashes, thumbnails = fingerprints(pixels)
    rows = rows.assign(dhash=[f"{value:016x}" for value in hashes.tolist()])
    masks = np.zeros((SIZE, SIZE), bool)
    masks[8:24, 6:26] = True

    def write(number: int) -> Callable[[Path], None]:
        chosen = rows["shard"].to_numpy() == number

        def write_shard(folder: Path) -> None:
            np.save(folder / THUMBNAILS, thumbnails[chosen])
            for size in sizes:
                np.save(folder / pixels_file(size), resize_stack(pixels[chosen], size, "bilinear"))
                packed = np.packbits(resize_stack(masks[None].astype(np.uint8), size, "bilinear") > 0, axis=-1)
                np.save(folder / masks_file(size), np.repeat(packed, chosen.sum(), axis=0))

        return write_shard

    shards = [
        keep(
            Shard(images=int((rows["shard"] == n).sum()), rejected=0, masks=0, unusable_masks=0),
            write(n),
            name=f"{seed} {n} {sizes} {classes}",
        )
        for n in range(2)
    ]
    counts = {split: dict.fromkeys(classes, number) for split, number in per_class.items()}
    divided = keep(
        Split(version=f"{seed:02d}{len(rows):04d}{len(classes)}", counts=counts, warnings=()),
        lambda folder: rows.to_parquet(folder / MANIFEST, index=False),
        name=f"{sizes}",
    )
    joined = Manifest(
        ref=f"manifest/{seed}",
        images=dict.fromkeys(classes, sum(per_class.values())),
        rejected=0,
        near_duplicates=0,
        masks=len(rows) // 2,
        shards=tuple(shard.ref for shard in shards),
    )
    return Prepared(
        Scan(ref=f"scan/{seed}", source="/data/phantoms", shards=2, files=joined.images, warnings=()),
        joined,
        Validation(ref=f"validate/{seed}", expectations=9, warnings=warnings, data_docs=""),
        divided,
    )


def manifest_rows(seed: int, classes: list[str], per_class: Mapping[str, int]) -> pd.DataFrame:
    """The manifest of :func:`prepared`; two images of a class in one split are of one patient."""
    named = [
        (f"{seed}-{split}-{label}-{n}", f"{seed}-{split}-{label}-{n // 2}", label, split, f"hospital {n % 2}")
        for split, number in per_class.items()
        for label in classes
        for n in range(number)
    ]
    rows = pd.DataFrame(named, columns=["image_id", "group", "label", "split", "source"])
    number = np.arange(len(rows))
    return rows.assign(
        path=rows["label"] + "/images/" + rows["image_id"] + ".png",
        patient=rows["group"],
        mask=number % 2 == 0,
        mask_id=np.where(number % 2 == 0, "m", ""),
        provenance="real",
        status=USED,
        reason="",
        width=SIZE,
        height=SIZE,
        shard=number % 2,
        row=number // 2,
    )


def dataset(**options: Any) -> Dataset:
    """A published dataset; ``options`` as for :func:`prepared`."""
    return prepared(**options).dataset()


def predictions(given: Dataset, seed: int, skill: float = 1.5) -> pd.DataFrame:
    """A prediction table of the held-out images, drawn at random; ``skill`` moves the true class's score up."""
    rows = given.manifest()
    rows = rows[rows["split"] != "train"].reset_index(drop=True)
    classes = list(given.counts["train"])
    truth = np.eye(len(classes))[[classes.index(label) for label in rows["label"]]]
    scores = np.exp(np.random.default_rng(seed).normal(size=truth.shape) + skill * truth)
    table = rows[["image_id", "split", "group", "label", "source"]].copy()
    table[classes] = scores / scores.sum(axis=1, keepdims=True)
    return table


def history(epochs: int = 2) -> pd.DataFrame:
    """Losses and accuracies, a row an epoch."""
    falling = 1 / np.arange(2.0, epochs + 2)
    columns = {"loss": falling, "accuracy": 1 - falling, "val_loss": falling + 0.1, "val_accuracy": 0.9 - falling}
    return pd.DataFrame({"epoch": np.arange(1, epochs + 1), **columns})


def tiny_classifier(size: int = SIZE, seed: int = 0) -> Any:
    """A convolution and a dense layer with their first weights."""
    import keras

    keras.utils.set_random_seed(seed)
    pixels = keras.Input((size, size, 1))
    maps = keras.layers.Conv2D(4, 3, strides=4, activation="relu")(keras.layers.Rescaling(1 / 255)(pixels))
    answer = keras.layers.Dense(len(CLASSES), activation="softmax")(keras.layers.GlobalAveragePooling2D()(maps))
    return keras.Model(pixels, answer)


def trained_model(
    given: Dataset,
    classifier: str = "cnn",
    arm: str = "none",
    seed: int = 0,
    *,
    skill: float = 1.5,
    blanked: bool = True,
    with_model: bool = False,
) -> TrainedModel:
    """What training an arm would leave; its predictions are drawn at random."""
    drawn = seed + 10 * sum(f"{classifier} {arm}".encode())
    table = predictions(given, drawn, skill)

    def write(folder: Path) -> None:
        table.to_parquet(folder / TrainedModel.PREDICTIONS, index=False)
        history().to_parquet(folder / TrainedModel.HISTORY, index=False)
        if blanked:
            probes = [predictions(given, drawn + n, 0.4).assign(blanked=name) for n, name in enumerate(PROBES, start=1)]
            probed = pd.concat(probes, ignore_index=True)
            probed[probed["split"] == "test"].to_parquet(folder / TrainedModel.BLANKED, index=False)
        if with_model:
            tiny_classifier(seed=drawn).save(folder / TrainedModel.MODEL)

    training = Training(classifier=classifier, arm=arm, seed=seed)
    train_images = sum(given.counts["train"].values())
    model = TrainedModel(training=training, epochs=2, steps=4, train_images=train_images, weights_digest="")
    return keep(model, write, name=f"{given.ref} {skill} {blanked} {with_model}")


PROBES = ("lungs", "background")


def trained_arm(run: RunContext, given: Dataset, *what: Any, **options: Any) -> TrainedArm:
    """An evaluated arm; ``what`` and ``options`` as for :func:`trained_model`."""
    return evaluate_arm(run, given, trained_model(given, *what, **options))


def gan(*, finished: bool = True, networks: Any = None) -> Gan:
    """A GAN's training with its grid; its networks are there only where a ``CovidGan`` is given."""
    state = "" if finished else "The GAN's training stands at step 5 of 40: the next run goes on from there."
    training = Gan(
        finished=finished,
        steps=40 if finished else 5,
        epochs=8,
        images=18,
        resumed_from=0,
        hours=0.5,
        state=state,
    )

    def write(folder: Path) -> None:
        (folder / Gan.GRID).write_bytes(b"the GAN's grid")
        if networks is not None:
            networks.generator.save(folder / Gan.GENERATOR)
            networks.discriminator.save(folder / Gan.DISCRIMINATOR)

    return keep(training, write, name=f"{networks is not None}") if finished else training


def judgement(*, passed: bool = True) -> Judgement:
    """A judgement of :func:`gan`, with its figures."""
    reason = "Over all classes: their KID is 1.10 of an untrained generator's; at most 0.9 is asked (max_kid_ratio)."
    said = Judgement(
        passed=passed,
        kind="good enough" if passed else "not good enough",
        sentence="The generated images are good enough to train with." if passed else "They are not good enough.",
        reasons=() if passed else (reason, "COVID: they cover 5 %; at least 10 % is asked (min_coverage)."),
        not_judged=("Normal: coverage could not be measured (too few images).",),
    )
    return keep(said, lambda folder: write_json(folder / Judgement.QUALITY, quality()))


def quality() -> Any:
    """Figures of generated images that nobody measured."""
    from cxr_tasks.gan.quality import ClassQuality, GanQuality, Measurement

    def row(name: str, number: int) -> ClassQuality:
        figures = {
            name: Measurement(value=0.25, sd=0.01)
            for name, field in ClassQuality.model_fields.items()
            if field.annotation is Measurement
        }
        sizes = dict.fromkeys(("training", "held_out", "synthetic", "untrained", "drawn"), number)
        return ClassQuality(name=name, **sizes, **figures)

    rows = [row(name, 6) for name in CLASSES]
    return GanQuality(extractor="ResNet50, random", dimensions=8, seed=0, overall=row("all", 18), classes=rows)


def synthetic_set(per_class: Mapping[str, int] | None = None, *, size: int = SIZE, notes: tuple[str, ...] = ()) -> Any:
    """Generated images that are noise."""
    counts = {"COVID": 5, "Normal": 0, "Viral Pneumonia": 4} if per_class is None else dict(per_class)
    labels = [label for label, number in counts.items() for _ in range(number)]
    ids = [f"synthetic-{n:08d}" for n in range(len(labels))]
    rows = pd.DataFrame({"image_id": ids, "label": labels, "group": ids, "source": "train_gan/a"})
    rows["provenance"] = "synthetic"

    def write(folder: Path) -> None:
        pixels = np.random.default_rng(5).integers(0, 256, (len(labels), size, size)).astype(np.uint8)
        np.save(folder / SyntheticSet.PIXELS, pixels)
        rows.to_parquet(folder / SyntheticSet.MANIFEST, index=False)
        (folder / SyntheticSet.GRID).write_bytes(b"the synthetic set's grid")

    return keep(SyntheticSet(counts=counts, dropped={}, notes=notes), write, name=f"{size}")


def leaked(classifier: str = "cnn", seed: int = 0) -> LeakedModel:
    """A training by the source report's protocol."""
    return LeakedModel(
        ref=f"reproduce_leak/{classifier}{seed}",
        training=Training(classifier=classifier, arm="leaking", seed=seed),
        test_images=12,
        synthetic_test_images=4,
        leaked_test_accuracy=0.95,
        leaked_test_macro_f1=0.94,
        leaked_test_real_accuracy=0.91,
        leaked_test_real_macro_f1=0.9,
    )


def features(backbone: str = "vgg16", *, forced: bool = False) -> Features:
    """Features of a backbone that were computed before."""
    found = Features(ref=f"extract_features/{backbone}", backbone=backbone, computed=60, found=18, forced=forced)
    return found.model_copy(update={"seconds": 90.0})


class Untrained:
    """Stands for ``fit_classifier``: asks for all features, draws the predictions at random, and trains nothing.

    Attributes:
        calls: What each call was given, with the features of the training images and of the held-out ones.
    """

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    def __call__(
        self,
        network: Any,
        features: Any,
        train: Any,
        held_out: Mapping[str, Any],
        classes: list[str],
        settings: Any,
        *,
        seed: int,
        added: int = 0,
        steps: int | None = None,
        on_epoch: Callable[[int, dict[str, float]], None],
        checkpoints: Path,
        on_checkpoint: Callable[[], None],
    ) -> Any:
        from cxr_tasks.classifiers.training import FittedClassifier, prediction_table

        seen = {"training": features.training(np.arange(len(train)), 0)}
        seen |= {name: np.asarray(features.held_out(name)) for name in held_out}
        self.calls.append({"network": network, "train": train, "seed": seed, "added": added, "steps": steps, **seen})
        on_epoch(1, {"loss": 1.0, "val_loss": 1.1, "val_accuracy": 0.5})
        rng, tables = np.random.default_rng(seed), []
        for split, images in held_out.items():
            scores = np.exp(rng.normal(size=(len(images), len(classes))) + np.eye(len(classes))[images.labels])
            tables.append(prediction_table(images, split, scores / scores.sum(axis=1, keepdims=True), classes))
        return FittedClassifier(pd.concat(tables, ignore_index=True), history(), 1, len(train), 4)
