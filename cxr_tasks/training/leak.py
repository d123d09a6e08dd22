"""The source report's own protocol, wrong as it is: synthetic images join the data before they are split.

So some are tested on, beside real images that the GAN was trained on. It is here to show what that does to the
figures on one's own data; nothing that comes out of it is compared with an honest arm, or registered.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cxr_tasks.config import Settings
from cxr_tasks.data.dataset import load_images
from cxr_tasks.data.synthetic import with_extra
from cxr_tasks.evaluation.metrics import classification_metrics
from cxr_tasks.execution import Record, StepResult
from cxr_tasks.training.arm import HISTORY, PREDICTIONS, built, reporter
from cxr_tasks.training.classifier import train_arm
from cxr_tasks.training.extra import ExtraImages, load_synthetic, synthetic_content
from cxr_tasks.training.frozen import FeatureCache, Features, FrozenTrunk
from cxr_tasks.training.gan_device import keep_memory
from cxr_tasks.training.randomness import keyed
from cxr_tasks.training.stored_features import StoredFeatures


def fit_leaking(
    settings: Settings,
    dataset: StepResult,
    synthetic: StepResult,
    classifier: str,
    backbone: Mapping[str, Any],
    seed: int,
    folder: Path,
    record: Record,
) -> None:
    """Train as the source report did, and test on what it would have tested on.

    ``backbone``: as for :func:`cxr_tasks.training.arm.fit_and_save`. ``record`` gets figures on the mixed test set
    (``leaked_test_…``) and on the real images in it (``leaked_test_real_…``).
    """
    keep_memory()
    classes, size = list(settings.data.classes), settings.classifiers.image_size
    honest = {name: load_images(dataset["ref"], name, size, classes) for name in ("train", "validation", "test")}
    real = with_extra(with_extra(honest["train"], honest["validation"]), honest["test"])
    made = load_synthetic(synthetic, classes).resized(size)
    pool = with_extra(real, made)
    rows = dealt(len(pool), settings.data.split.validation, settings.data.split.test, seed)

    network = built(classifier, honest["train"], settings, seed)
    whole = Features(FrozenTrunk(None), pool, {}, None, seed)
    if network.trunk is not None:
        cache = FeatureCache(FrozenTrunk(network.fast_trunk), backbone)
        extra = ExtraImages(made, synthetic_content(synthetic, size))
        whole = StoredFeatures(cache, dataset, real, extra, pool, {}, None, seed, {})
    parts = {name: pool.take(chosen) for name, chosen in rows.items()}
    held_out = {name: parts[name] for name in ("validation", "test")}
    trained = train_arm(
        network,
        _Parts(whole, rows),
        parts["train"],
        held_out,
        classes,
        settings.classifiers,
        seed=seed,
        on_epoch=reporter(f"{classifier} as in the source report"),
    )
    table = trained.predictions
    provenance = pd.concat([images.rows for images in held_out.values()]).set_index("image_id")["provenance"]
    table["provenance"] = provenance.loc[table["image_id"]].to_numpy()
    table.to_parquet(folder / PREDICTIONS, index=False)
    trained.history.to_parquet(folder / HISTORY, index=False)
    test = table[table["split"] == "test"]
    real_test = test[test["provenance"] == "real"]
    figures = {
        "leaked_test": classification_metrics(test, classes),
        "leaked_test_real": classification_metrics(real_test, classes),
    }
    record["metrics"] = {f"{which}_{name}": value for which, of in figures.items() for name, value in of.items()}
    record["curves"] = trained.history.rename(columns={"epoch": "step"}).to_dict("records")
    record["summary"] = {
        "classifier": classifier,
        "seed": seed,
        "test_images": len(test),
        "synthetic_test_images": len(test) - len(real_test),
        **{f"{which}_{name}": of[name] for which, of in figures.items() for name in ("accuracy", "macro_f1")},
    }


def dealt(images: int, validation: float, test: float, seed: int) -> dict[str, np.ndarray]:
    """Positions of each split, dealt at random with no regard to patients, duplicates or provenance."""
    order = keyed(seed, "leaking split").permutation(images)
    cuts = np.round(np.cumsum([1 - validation - test, validation]) * images).astype(int)
    return dict(zip(("train", "validation", "test"), np.split(order, cuts), strict=True))


class _Parts(Features):
    """Parts of a pool as training and held-out images."""

    def __init__(self, pool: Features, rows: Mapping[str, np.ndarray]) -> None:
        super().__init__(pool.frozen, pool.train, {}, None, pool.seed)
        self.pool, self.rows = pool, rows

    def held_out(self, name: str) -> np.ndarray:
        return self.pool.training(self.rows[name], 0)

    def training(self, rows: np.ndarray, turn: int) -> np.ndarray:
        return self.pool.training(self.rows["train"][rows], turn)
