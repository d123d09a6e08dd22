"""The step ``reproduce_leak``: train a classifier by the source report's own protocol, to show what that does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxr_tasks.artifacts import (
    Artifact,
    Dataset,
    Features,
    LeakedModel,
    RunContext,
    SyntheticSet,
    TrainedModel,
    Training,
)
from cxr_tasks.config import Settings
from cxr_tasks.pipeline import Made, load_settings, perform
from cxr_tasks.steps.common import (
    Mapped,
    backbone_identity,
    curves_of,
    epoch_reporter,
    how_trained,
    log_images,
    of_backbone,
    tell_setbacks,
)
from cxr_tasks.steps.unfinished import Unfinished

if TYPE_CHECKING:
    from cxr_tasks.classifiers.training import FittedClassifier
    from cxr_tasks.data.dataset import Images

LEAK_VERSION = 2


def reproduce_leak(
    run: RunContext,
    dataset: Dataset,
    arm: Training,
    synthetic: SyntheticSet,
    features: Mapped[Features] | None = None,
) -> LeakedModel:
    """Train a classifier with synthetic images in the test set, and say what that does to its figures.

    Args:
        run: The DAG run.
        dataset: What it is trained and tested on.
        arm: One of :func:`cxr_tasks.steps.plan.leaks`.
        synthetic: The synthetic set, which joins all real images before they are split.
        features: As for :func:`cxr_tasks.steps.train_arm.train_arm`.
    """
    settings = load_settings(run)
    identity = backbone_identity(settings, dataset, arm.classifier)

    def fill(folder: Path) -> Made[LeakedModel]:
        fitted, provenance = _train_leaking(settings, dataset, arm, synthetic, identity, unfinished)
        unfinished.end()
        tell_setbacks(fitted.setbacks)
        table = fitted.predictions.assign(provenance=provenance)
        table.to_parquet(folder / TrainedModel.PREDICTIONS, index=False)
        fitted.history.to_parquet(folder / TrainedModel.HISTORY, index=False)
        return _told(arm, table, list(settings.data.classes), curves_of(fitted.history), fitted.setbacks)

    split = settings.data.split.model_dump(mode="json", include={"validation", "test"})
    made_with = {**how_trained(settings), **identity, "classifier": arm.classifier, "seed": arm.seed, **split}
    inputs: dict[str, Artifact | str] = {"dataset": dataset, "synthetic": synthetic, **synthetic.content}
    after, label = of_backbone(features, arm.classifier), f"{arm.classifier} seed {arm.seed} LEAKING"
    unfinished = Unfinished.of(run, LeakedModel, LEAK_VERSION, made_with, inputs, f"the training of {label}", after)
    return perform(
        unfinished.forced(run, LeakedModel.step),
        LeakedModel,
        fill,
        version=LEAK_VERSION,
        settings=made_with,
        inputs=inputs,
        after=after,
        around=unfinished.alone,
        answered=unfinished.answered,
        label=label,
    )


def _train_leaking(
    settings: Settings,
    dataset: Dataset,
    arm: Training,
    synthetic: SyntheticSet,
    identity: dict[str, Any],
    unfinished: Unfinished,
) -> tuple[FittedClassifier, Any]:
    """The training, and the provenance of each predicted image."""
    import pandas as pd

    from cxr_tasks.classifiers.feature_store import FeatureCache, StoredFeatures
    from cxr_tasks.classifiers.features import ArmFeatures, FrozenTrunk
    from cxr_tasks.classifiers.leak import PartsOfPool, leaking_split
    from cxr_tasks.classifiers.networks import build_network
    from cxr_tasks.classifiers.training import fit_classifier

    classes, size = list(settings.data.classes), settings.classifiers.image_size
    train, validation, test = (dataset.images(split, size, classes) for split in ("train", "validation", "test"))
    real, made = train.followed_by(validation).followed_by(test), synthetic.extra(classes, size, dataset.resize)
    pool = real.followed_by(made.images)
    rows = leaking_split(len(pool), settings.data.split.validation, settings.data.split.test, arm.seed)
    network = build_network(arm.classifier, settings, train.pixels, arm.seed)
    whole = ArmFeatures(FrozenTrunk(None), pool, {}, None, arm.seed)
    if network.trunk is not None:
        cache = FeatureCache(FrozenTrunk(network.fast_trunk), identity)
        whole = StoredFeatures(cache, dataset.shards, dataset.content, real, made, pool, {}, None, arm.seed, {})
    parts: dict[str, Images] = {name: pool.take(chosen) for name, chosen in rows.items()}
    for name, images in parts.items():
        told = "training images" if name == "train" else f"{name} images"
        log_images(images.rows, f"{told}: real and synthetic, LEAKING", name, images.rows["provenance"], made.content)
    held_out = {name: parts[name] for name in ("validation", "test")}
    fitted = fit_classifier(
        network,
        PartsOfPool(whole, rows),
        parts["train"],
        held_out,
        classes,
        settings.classifiers,
        seed=arm.seed,
        on_epoch=epoch_reporter(f"{arm.classifier} as in the source report", settings.classifiers.epochs),
        checkpoints=unfinished.folder(),
        on_checkpoint=unfinished.save,
    )
    provenance = pd.concat([images.rows for images in held_out.values()]).set_index("image_id")["provenance"]
    return fitted, provenance.loc[fitted.predictions["image_id"]].to_numpy()


def _told(
    arm: Training, table: Any, classes: list[str], curves: list[dict[str, float]], setbacks: tuple[str, ...]
) -> Made[LeakedModel]:
    """Figures on the mixed test set (``leaked_test_…``) and on the real images in it (``leaked_test_real_…``)."""
    from cxr_tasks.evaluation.metrics import classification_metrics

    test = table[table["split"] == "test"]
    real_test = test[test["provenance"] == "real"]
    mixed, real = classification_metrics(test, classes), classification_metrics(real_test, classes)
    leaked = LeakedModel(
        training=arm,
        test_images=len(test),
        synthetic_test_images=len(test) - len(real_test),
        leaked_test_accuracy=mixed["accuracy"],
        leaked_test_macro_f1=mixed["macro_f1"],
        leaked_test_real_accuracy=real["accuracy"],
        leaked_test_real_macro_f1=real["macro_f1"],
        notes=setbacks,
    )
    metrics = {f"leaked_test_{name}": value for name, value in mixed.items()}
    metrics |= {f"leaked_test_real_{name}": value for name, value in real.items()}
    return Made(leaked, metrics, curves)
