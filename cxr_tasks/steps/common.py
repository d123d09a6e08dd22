"""What several steps do alike."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxr_tasks import progress, tracking
from cxr_tasks.artifacts import Dataset, Features, Kind, RunContext, SyntheticSet, Training
from cxr_tasks.classifiers.registry import CLASSIFIERS
from cxr_tasks.config import Settings
from cxr_tasks.pipeline import ShownTraining, load_settings
from cxr_tasks.precision import backbone_precision
from cxr_tasks.store import open_store

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)

# Lines that a step may say to the person at the terminal; the rest is in its log and its artifact.
NOTES = 5
REAL = "real"
ROWS_HASHED_AT_ONCE = 2**14
# What is read of a manifest to record images by their splits.
LOGGED = ("image_id", "label", "inverted", "window", "split")
# What mapped tasks hand on: one group a task, each with one handle an instance, or nothing where all were skipped.
Mapped = list[list[Kind | None] | None]

# How a training is cut into sittings, calls and checkpoints changes nothing of what comes out, nor do the pictures that
# are drawn of it.
MANNER = {"max_hours", "steps_per_call", "checkpoint_seconds", "keep_checkpoints", "setbacks", "grid_steps"}


def pseudonym_key() -> bytes:
    """What pseudonyms are made with: ``CXR_PSEUDONYM_KEY``, or else a secret of the store."""
    given = os.environ.get("CXR_PSEUDONYM_KEY", "")
    return given.encode() if given else open_store().secret("pseudonyms")


def key_mark(key: bytes) -> str:
    """Tells keys apart without telling them: artifacts with pseudonyms of another key are other artifacts."""
    from cxr_tasks.data.patients import pseudonym

    return pseudonym(key, "key", "mark")


def log_without_patients(table: pd.DataFrame, name: str) -> None:
    """Keep a table with the active MLflow run, without what may lead to a patient: the store has it in full."""
    shown = table.drop(columns=["path", "patient", "study"], errors="ignore")
    with tempfile.TemporaryDirectory() as place:
        shown.to_parquet(Path(place, name), index=False)
        tracking.log_file(Path(place, name))


def tell_setbacks(setbacks: Sequence[str]) -> None:
    """Tag the active MLflow run with how often its training went back because numbers were not finite."""
    tracking.set_tags({"cxr.setbacks": str(len(setbacks))})


def training_run(run: RunContext, dataset: Dataset, name: str, tags: Mapping[str, str] | None = None) -> ShownTraining:
    """How MLflow shows a training on a dataset."""
    of = {"dataset": dataset.version, "profile": load_settings(run).profile}
    return ShownTraining(name, {**{f"cxr.{key}": value for key, value in of.items()}, **(tags or {})}, of)


def training_name(training: Training) -> str:
    """What people call a training in MLflow: ``VGG16 · none · seed 0``."""
    display = getattr(CLASSIFIERS.get(training.classifier), "display", training.classifier)
    return f"{display} · {training.arm} · seed {training.seed}"


def arm_run(run: RunContext, dataset: Dataset, training: Training, synthetic: str) -> ShownTraining:
    """How MLflow shows the training of an arm; ``synthetic``: what made its synthetic images, or ''."""
    role = "baseline" if training.arm == load_settings(run).arms.baseline else "augmented"
    tags = {
        "cxr.classifier": training.classifier,
        "cxr.role": role,
        "cxr.arm": training.arm,
        "cxr.seed": str(training.seed),
        **({"cxr.synthetic": synthetic} if synthetic else {}),
    }
    return training_run(run, dataset, training_name(training), tags)


def flat(groups: Mapped[Kind]) -> Iterator[Kind]:
    """The handles of mapped tasks, without those that were skipped."""
    for group in groups:
        yield from (handle for handle in group or () if handle)


def added_by_controls(settings: Settings, dataset: Dataset, synthetic: SyntheticSet | None) -> dict[str, int]:
    """How many images a control adds, by class: as many as the synthetic set has.

    Without a set, as many as the settings ask for. A control so needs no GAN that is good enough.
    """
    from cxr_tasks.data.added import counts_to_add

    classes = settings.data.classes
    if synthetic is not None:
        return {label: synthetic.counts.get(label, 0) for label in classes}
    return counts_to_add(settings.synthetic, {label: dataset.counts["train"][label] for label in classes})


def weights_identity(weights: str | None) -> str:
    """What tells backbone weights apart: the word, or the content of the file, whatever its name."""
    if weights is None or weights in ("imagenet", "random") or not Path(weights).is_file():
        return weights or "none"
    with Path(weights).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def backbone_identity(settings: Settings, dataset: Dataset, name: str) -> dict[str, Any]:
    """All that the features of an image depend on besides its pixels; nothing where no backbone is frozen.

    Random weights are scaled on the dataset, and so belong to it.
    """
    chosen = settings.classifiers
    if not CLASSIFIERS[name].has_backbone:
        return {}
    weights = weights_identity(chosen.weights_of(name))
    identity = {"backbone": name, "weights": weights, "size": chosen.image_size, "scaling": chosen.scaling}
    if weights == "random":
        identity |= {"weights_seed": settings.seeds.backbones, "scaled_on": dataset.ref}
    return {**identity, "precision": backbone_precision(chosen.precision)}


def of_backbone(features: Mapped[Features] | None, name: str) -> list[Features]:
    """The handles of the steps that ran the frozen backbone ``name``."""
    return [handle for handle in flat(features or []) if handle.backbone == name]


def how_trained(settings: Settings) -> dict[str, Any]:
    """How classifiers are trained, but for what differs from arm to arm."""
    chosen = settings.classifiers.model_dump(mode="json", exclude={"names", "weights", *MANNER})
    return {**chosen, "classes": list(settings.data.classes)}


def digest(table: pd.DataFrame, ordered_by: Sequence[str] = ()) -> str:
    """20 hexadecimal digits that tell contents of a table apart; its index does not count.

    Args:
        table: The table.
        ordered_by: Columns in whose order the rows count, of which equal ones are equal rows; as they stand where
            there are none.
    """
    import numpy as np
    import pandas as pd
    import pyarrow as pa
    import pyarrow.compute as pc

    # Some at a time, and ordered after that: both make objects of texts, which would take more memory than the table.
    starts = range(0, max(1, len(table)), ROWS_HASHED_AT_ONCE)
    parts = [table.iloc[start : start + ROWS_HASHED_AT_ONCE] for start in starts]
    hashes = np.concatenate([pd.util.hash_pandas_object(part, index=False).to_numpy() for part in parts])
    if ordered_by:
        keys = pa.Table.from_pandas(table[list(ordered_by)], preserve_index=False)
        hashes = hashes[pc.sort_indices(keys, [(name, "ascending") for name in ordered_by]).to_numpy()]
    return hashlib.sha256(hashes.tobytes()).hexdigest()[:20]


def log_images(
    rows: pd.DataFrame, name: str, context: str, origins: Sequence[str] | None = None, made: Mapping[str, Any] = {}
) -> None:
    """Record which images the active MLflow run works with, under a digest of those images and of no others.

    The same images give the same digest in any run, in any order and at any size. An image that is there twice counts
    twice.

    Args:
        rows: Of a manifest, a row an image.
        name: What the images are.
        context: What the run does with them.
        origins: (n,) what each is: ``real``, or the kind of extra images that it belongs to; see ``arms``. ``None``
            where all are real.
        made: Says which pixels the images have that no file of the source holds.
    """
    import numpy as np

    from cxr_tasks.data.inverted import CORRECTED

    table = rows[["image_id", "label"]].assign(origin=REAL if origins is None else list(origins))
    pixels = json.dumps({key: value for key, value in made.items() if key not in ("size", "resize")}, sort_keys=True)
    of_a_file = table["origin"].isin([REAL, "oversample"])
    told = table.drop(columns="origin").assign(pixels=of_a_file.map({True: "", False: pixels}))
    if "inverted" in rows:
        # The file of such an image holds other pixels.
        told["pixels"] += np.where(rows["inverted"] == CORRECTED, CORRECTED, "")
    if "window" in rows:
        told["pixels"] += rows["window"].fillna("").to_numpy()
    version = digest(told, list(told))
    counts = table["origin"].value_counts()
    tracking.log_dataset(table, name, version, context, {f"cxr.images.{kind}": str(n) for kind, n in counts.items()})


def keep_plot(folder: Path, name: str, plot: Figure) -> None:
    """Keep a plot in the artifact and with the active MLflow run."""
    from cxr_tasks.evaluation.plots import png_bytes

    (folder / name).write_bytes(png_bytes(plot))
    tracking.log_figure(plot, name)


def curves_of(history: pd.DataFrame) -> list[dict[str, float]]:
    """The history of a training as rows of metrics, each with its step."""
    return history.rename(columns={"epoch": "step"}).to_dict("records")


def epoch_reporter(who: str, epochs: int) -> Callable[[int, dict[str, float]], None]:
    """Reports each epoch of ``who``: in the log, to the active MLflow run, and to who listens to progress."""

    def report(epoch: int, logs: dict[str, float]) -> None:
        log.info(
            "%s epoch %d: loss %.3f, validation loss %.3f, validation accuracy %.3f",
            who,
            epoch,
            logs["loss"],
            logs["val_loss"],
            logs["val_accuracy"],
        )
        tracking.log_metrics(logs, epoch)
        progress.advance(f"training {who}", epoch, epochs)

    return report
