"""What several steps do alike."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from cxr_tasks.config import Settings
from cxr_tasks.execution import RunContext, StepResult, load_settings


def dataset_tags(run: RunContext, dataset: StepResult) -> dict[str, str]:
    """MLflow tags by which runs on one dataset are found."""
    return {"cxr.dataset": dataset["summary"]["version"], "cxr.profile": load_settings(run).profile}


def gathered(groups: Iterable[Iterable[StepResult] | None]) -> Iterator[StepResult]:
    """The results of mapped tasks; one whose instances were all skipped has none."""
    for group in groups:
        yield from (result for result in group or () if result)


def log_files(folder: Path, names: Sequence[str]) -> None:
    """Keep files of an artifact with the active MLflow run too."""
    import mlflow

    for name in names:
        mlflow.log_artifact(str(folder / name))


def weights_identity(weights: str | None) -> str:
    """What tells backbone weights apart: the word, or the content of the file, whatever its name."""
    if weights is None or weights in ("imagenet", "random") or not Path(weights).is_file():
        return weights or "none"
    with Path(weights).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def backbone_identity(settings: Settings, dataset: StepResult, name: str) -> dict[str, Any]:
    """All that the features of an image depend on besides its pixels; nothing where no backbone is frozen.

    Random weights are scaled on the dataset, and so belong to it.
    """
    chosen = settings.classifiers
    if name not in chosen.weights:
        return {}
    weights = weights_identity(chosen.weights[name])
    identity = {"backbone": name, "weights": weights, "size": chosen.image_size, "scaling": chosen.scaling}
    if weights == "random":
        identity |= {"weights_seed": settings.seed, "scaled_on": dataset["ref"]}
    return {**identity, "precision": chosen.precision}
