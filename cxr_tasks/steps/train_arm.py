"""The step ``train_arm``: train one arm of a classifier with one seed, and evaluate it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxr_tasks import tracking
from cxr_tasks.arms import ARMS, Extra, is_control, needs_synthetic
from cxr_tasks.artifacts import (
    Artifact,
    Dataset,
    Features,
    RunContext,
    SyntheticSet,
    TrainedArm,
    TrainedModel,
    Training,
    write_json,
)
from cxr_tasks.config import Settings
from cxr_tasks.errors import SettingsError
from cxr_tasks.outages import patience
from cxr_tasks.pipeline import Made, load_settings, perform
from cxr_tasks.steps.common import (
    REAL,
    Mapped,
    added_by_controls,
    arm_run,
    backbone_identity,
    curves_of,
    epoch_reporter,
    how_trained,
    log_images,
    of_backbone,
    tell_setbacks,
)
from cxr_tasks.steps.served_facts import log_trained, save_facts
from cxr_tasks.steps.told_subgroups import subgroup_metrics, subgroup_table
from cxr_tasks.steps.unfinished import Unfinished

if TYPE_CHECKING:
    import pandas as pd

    from cxr_tasks.classifiers.features import ArmFeatures
    from cxr_tasks.classifiers.networks import Network
    from cxr_tasks.classifiers.training import FittedClassifier
    from cxr_tasks.classifiers.training_set import ExtraImages
    from cxr_tasks.data.dataset import Images

MODEL_VERSION = 4


def train_arm(
    run: RunContext,
    dataset: Dataset,
    arm: Training,
    synthetic: SyntheticSet | None = None,
    features: Mapped[Features] | None = None,
) -> TrainedArm:
    """Train one arm of a classifier with a seed, and keep its model, its predictions and what they say.

    Args:
        run: The DAG run.
        dataset: What it is trained and tested on.
        arm: One of :func:`cxr_tasks.steps.plan.arms`.
        synthetic: The synthetic set, for arms that train with one. A control adds as many images of each class as are
            in the set; without a set, as many as the settings ask for.
        features: Handles of the steps that ran frozen backbones, the arm's own among them.
    """
    settings = load_settings(run)
    counts = added_by_controls(settings, dataset, synthetic) if is_control(arm.arm) else None
    if not needs_synthetic(arm.arm):
        synthetic = None
    elif synthetic is None:
        raise SettingsError(f"The arm {arm.arm!r} trains on synthetic images but was given none.")
    identity = backbone_identity(settings, dataset, arm.classifier)
    inputs: dict[str, Artifact | str] = {"dataset": dataset}
    if synthetic is not None:
        inputs |= {"synthetic": synthetic, **synthetic.content}
    made_with = {
        **how_trained(settings),
        **identity,
        **_extra_settings(settings, counts),
        **arm.model_dump(),
        "augmentation": settings.augmentation.model_dump(mode="json") if ARMS[arm.arm].classical else "none",
        "shortcuts": settings.evaluation.shortcuts,
    }
    after = of_backbone(features, arm.classifier)
    unfinished = Unfinished.of(
        run, TrainedModel, MODEL_VERSION, made_with, inputs, f"the training of {arm.label}", after
    )
    model = perform(
        unfinished.forced(run, TrainedModel.step),
        TrainedModel,
        lambda folder: _train_model(settings, dataset, arm, synthetic, counts, identity, folder, unfinished),
        version=MODEL_VERSION,
        settings=made_with,
        inputs=inputs,
        after=after,
        around=unfinished.alone,
        answered=unfinished.answered,
        label=arm.label,
        training=arm_run(run, dataset, arm, "" if synthetic is None else synthetic.origin),
    )
    return evaluate_arm(run, dataset, model)


def evaluate_arm(run: RunContext, dataset: Dataset, model: TrainedModel) -> TrainedArm:
    """What predictions say of a trained model: metrics, calibration, operating points, shortcuts, subgroups.

    The model is logged to MLflow here, with its operating points and the limits of what is usual: these are settings
    that no training depends on.

    Args:
        run: The DAG run.
        dataset: What it was trained and tested on.
        model: The model.
    """
    settings = load_settings(run)
    classes = list(settings.data.classes)

    def fill(folder: Path) -> Made[TrainedArm]:
        from cxr_tasks.data.subgroups import OF_SUBGROUPS, subgroups_by_image
        from cxr_tasks.evaluation.findings import arm_findings
        from cxr_tasks.evaluation.metrics import per_class_table

        predictions = model.predictions()
        told = dataset.manifest(OF_SUBGROUPS, split="test")
        found = arm_findings(
            model.training.arm,
            predictions,
            model.blanked(),
            subgroups_by_image(told, settings.evaluation.subgroups),
            classes,
            settings.evaluation,
            settings.seeds.bootstrap,
        )
        write_json(folder / TrainedArm.FINDINGS, found)
        tracking.log_file(folder / TrainedArm.FINDINGS)
        tracking.log_table(predictions.drop(columns=["group", "source"]), "predictions.json")
        test = predictions[predictions["split"] == "test"]
        tracking.log_table(per_class_table(test, classes).reset_index(names="class"), "test-per-class.json")
        by_split = {"validation": found.validation, "test": found.test}
        save_facts(settings, dataset, found.thresholds, folder)
        with patience():
            model_uri = log_trained(model.folder(), folder)
        arm = TrainedArm(
            model=model,
            model_uri=model_uri,
            validation_macro_f1=found.validation["macro_f1"],
            test_macro_f1=found.test["macro_f1"],
            test_accuracy=found.test["accuracy"],
        )
        metrics = {f"{split}_{name}": value for split, of in by_split.items() for name, value in of.items()}
        if found.subgroups is not None:
            tracking.log_table(subgroup_table(found.subgroups), "subgroups.json")
            metrics |= subgroup_metrics(found.subgroups)
        return Made(arm, metrics)

    measured = settings.evaluation.model_dump(mode="json", exclude={"gallery", "reproduce_leak", "shortcuts"})
    arm = perform(
        run,
        TrainedArm,
        fill,
        version=3,
        settings={
            **measured,
            "seed": settings.seeds.bootstrap,
            "classes": classes,
            "serving": settings.serving.model_dump(mode="json"),
        },
        # By its weights too: a model that was trained anew has the same reference.
        inputs={"model": model, "weights": model.weights_digest, "dataset": dataset},
        label=model.training.label,
        training=arm_run(run, dataset, model.training, model.synthetic),
        within=model,
    )
    # As this run has it: an artifact that was made before holds the handle of the run that made it.
    shown = {"mlflow_run_id": arm.mlflow_run_id, "url": arm.url, "shown_here": arm.shown_here}
    model = model.model_copy(update=shown)
    return arm.model_copy(update={"model": model, "reused": arm.reused and model.reused, "notes": model.notes})


@dataclass(frozen=True)
class _ArmImages:
    """All images of one training. ``blanked``: the test images of the probes. ``gray``: what they are painted with."""

    real: Images
    extra: ExtraImages | None
    train: Images
    held_out: dict[str, Images]
    blanked: dict[str, Images]
    gray: int


def _train_model(
    settings: Settings,
    dataset: Dataset,
    arm: Training,
    synthetic: SyntheticSet | None,
    counts: dict[str, int] | None,
    identity: dict[str, Any],
    folder: Path,
    unfinished: Unfinished,
) -> Made[TrainedModel]:
    """Fill the artifact of a trained model."""
    from cxr_tasks.classifiers.networks import build_network
    from cxr_tasks.classifiers.training import fit_classifier, steps_an_epoch, weights_digest

    classes = list(settings.data.classes)
    images = _load(settings, dataset, arm, synthetic, counts)
    _log_images(settings, arm, images)
    network = build_network(arm.classifier, settings, images.real.pixels, arm.seed)
    features = _features(settings, dataset, arm, network, identity, images)
    fitted = fit_classifier(
        network,
        features,
        images.train,
        images.held_out,
        classes,
        settings.classifiers,
        seed=arm.seed,
        added=len(images.train) - len(images.real),
        steps=steps_an_epoch(settings.classifiers, images.real.labels, arm.seed),
        on_epoch=epoch_reporter(f"{arm.classifier} {arm.arm}", settings.classifiers.epochs),
        checkpoints=unfinished.folder(),
        on_checkpoint=unfinished.save,
    )
    unfinished.end()
    tell_setbacks(fitted.setbacks)
    _save_model(network, fitted, _predict_blanked(network, features, images, classes), folder)
    model = TrainedModel(
        training=arm,
        epochs=len(fitted.history),
        steps=fitted.steps,
        train_images=fitted.train_size,
        weights_digest=weights_digest(network.full),
        resize=dataset.resize,
        synthetic="" if synthetic is None else synthetic.origin,
        notes=fitted.setbacks,
    )
    metrics = {
        "best_epoch": fitted.best_epoch,
        "train_images": fitted.train_size,
        "optimiser_steps": fitted.steps,
    }
    return Made(model, metrics, curves_of(fitted.history))


# What an arm's training images are called, by what the arm adds.
TRAINING_IMAGES: dict[Extra | None, str] = {
    None: "training images: real",
    "synthetic": "training images: real and synthetic",
    "oversample": "training images: real, some over again",
    "real_resized": "training images: real, some again at the GAN's resolution",
}


def _log_images(settings: Settings, arm: Training, images: _ArmImages) -> None:
    """Record the images of each split. Arms that train on the same images record the same training images."""
    import numpy as np

    from cxr_tasks.classifiers.training import trained_on

    for split, shown in images.held_out.items():
        log_images(shown.rows, f"{split} images", split)
    extra, real = ARMS[arm.arm].extra, len(images.real)
    added = len(images.train) - real
    chosen = trained_on(settings.classifiers, images.train.labels, added, arm.seed)
    origins = np.repeat([REAL, extra or REAL], [real, added])[chosen]
    log_images(
        images.train.rows.iloc[chosen],
        TRAINING_IMAGES[extra] + (", undersampled" if settings.classifiers.undersample else ""),
        "training",
        origins.tolist(),
        {} if images.extra is None else images.extra.content,
    )


def _load(
    settings: Settings,
    dataset: Dataset,
    arm: Training,
    synthetic: SyntheticSet | None,
    counts: dict[str, int] | None,
) -> _ArmImages:
    from cxr_tasks.classifiers.blanking import blanked_images, mean_gray
    from cxr_tasks.classifiers.training_set import extra_images

    classes, size = list(settings.data.classes), settings.classifiers.image_size
    held_out = {split: dataset.images(split, size, classes) for split in ("validation", "test")}
    real = dataset.images("train", size, classes)
    made = synthetic.extra(classes, size, dataset.resize) if synthetic is not None else None
    extra = extra_images(ARMS[arm.arm], settings, real, dataset.content, made, counts, dataset.resize)
    gray, blanked = mean_gray(real.pixels), {}
    if settings.evaluation.shortcuts:
        blanked = blanked_images(held_out["test"], dataset.masks("test", size), gray)
    train = real if extra is None else real.followed_by(extra.images)
    return _ArmImages(real, extra, train, held_out, blanked, gray)


def _features(
    settings: Settings,
    dataset: Dataset,
    arm: Training,
    network: Network,
    identity: dict[str, Any],
    images: _ArmImages,
) -> ArmFeatures:
    """What the head of ``network`` sees of the images."""
    from cxr_tasks.classifiers.blanking import blanked_content
    from cxr_tasks.classifiers.feature_store import FeatureCache, StoredFeatures
    from cxr_tasks.classifiers.features import ArmFeatures, FrozenTrunk

    augmentation = settings.augmentation if ARMS[arm.arm].classical else None
    sets = {**images.held_out, **images.blanked}
    if network.trunk is None:
        return ArmFeatures(FrozenTrunk(None), images.train, sets, augmentation, arm.seed)
    return StoredFeatures(
        FeatureCache(FrozenTrunk(network.fast_trunk), identity),
        dataset.shards,
        dataset.content,
        images.real,
        images.extra,
        images.train,
        sets,
        augmentation,
        arm.seed,
        {name: blanked_content(name, images.gray) for name in images.blanked},
    )


def _predict_blanked(
    network: Network, features: ArmFeatures, images: _ArmImages, classes: list[str]
) -> pd.DataFrame | None:
    """The prediction tables of the blanked test images in one, or ``None`` where they were not asked for."""
    import pandas as pd

    from cxr_tasks.classifiers.predicting import predict_stack
    from cxr_tasks.classifiers.training import prediction_table

    tables = []
    for name, blanked in images.blanked.items():
        probabilities = predict_stack(network.head, features.held_out(name))
        tables.append(prediction_table(blanked, "test", probabilities, classes).assign(blanked=name))
    return pd.concat(tables, ignore_index=True) if tables else None


def _save_model(network: Network, fitted: FittedClassifier, blanked: pd.DataFrame | None, folder: Path) -> None:
    network.full.save(folder / TrainedModel.MODEL)
    fitted.predictions.to_parquet(folder / TrainedModel.PREDICTIONS, index=False)
    fitted.history.to_parquet(folder / TrainedModel.HISTORY, index=False)
    if blanked is not None:
        blanked.to_parquet(folder / TrainedModel.BLANKED, index=False)


def _extra_settings(settings: Settings, counts: dict[str, int] | None) -> dict[str, Any]:
    """What the images of a control depend on, which adds ``counts``; nothing for other arms."""
    if counts is None:
        return {}
    return {"counts": counts, "extra_seed": settings.seeds.synthetic, "gan_size": settings.gan.image_size}
