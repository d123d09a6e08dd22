"""What a unit of work costs on this machine, kept among the copies on it so that it is measured once."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from cxr_tasks.cache import cache_folder, cache_root
from cxr_tasks.config import Settings
from cxr_tasks.cores import tasks_at_once, threads_of_task
from cxr_tasks.estimate.work import (
    A_DRAW,
    A_FILE,
    A_JUDGED_IMAGE,
    A_STEP,
    A_TASK,
    ALL_DISTANCES,
    AN_AUGMENTATION,
    OF_BACKBONE,
    OF_HEAD,
    OF_WHOLE,
)

# What networks are computed with. Another version may be faster.
PACKAGES = ("tensorflow", "keras", "nvidia-cudnn-cu12")
# To be raised when what is measured changes.
MEASURED_AS = 1
RATES_FOLDER, RATES_FILE = "rates", "rates.json"
# What the cost of a step of the GAN does not depend on.
NOT_OF_A_STEP = {
    "epochs", "max_hours", "learning_rate", "d_learning_rate", "beta_1", "checkpoint_seconds", "keep_checkpoints",
    "setbacks", "grid_steps", "preset", "latent_sd", "dropout", "label_smoothing", "batch_norm_momentum",
}  # fmt: skip


@dataclass(frozen=True)
class Rate:
    """What was measured of one kind of work.

    Attributes:
        each: Seconds a unit.
        start: Seconds before the first one, such as those that compiling takes.
        memory: Bytes that the process held at most.
        size: Bytes that a unit, or the model, takes on the disk.
    """

    each: float
    start: float = 0.0
    memory: int = 0
    size: int = 0


Rates = Mapping[str, Rate]


@cache
def machine() -> dict[str, Any]:
    """What decides how fast this machine is, as far as it can be told."""
    model, flags = platform.processor(), ""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        told = dict(line.split(":", 1) for line in info.read_text("utf-8").splitlines() if ":" in line)
        facts = {name.strip(): value.strip() for name, value in told.items()}
        model, flags = facts.get("model name", model), facts.get("flags", "")
    known = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16")
    words = flags.split()
    return {
        "processor": model or platform.machine(),
        "instructions": [name for name in known if name in words],
        "cores": len(os.sched_getaffinity(0)),
        "gpu": sorted(path.name for path in Path("/dev").glob("nvidia[0-9]*")),
        "visible": os.environ.get("CUDA_VISIBLE_DEVICES", ""),
        "packages": {name: _version_of(name) for name in PACKAGES},
    }


def _version_of(package: str) -> str:
    """The version of an installed package; empty where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def task_threads() -> tuple[int, int]:
    """How many heavy tasks run at once on this machine, by the slots of their pool, and how many threads each has."""
    return min(tasks_at_once(), 2), threads_of_task()


def rate_key(name: str, settings: Settings, drawn: int) -> str:
    """Names what was measured: the same name, settings and machine cost the same."""
    kind, _, classifier = name.partition(" ")
    chosen = settings.classifiers
    gan: dict[str, Any] = settings.gan.model_dump(mode="json", exclude=NOT_OF_A_STEP)
    of_classifier: dict[str, Any] = {
        "classifier": classifier,
        "size": chosen.image_size,
        "classes": len(settings.data.classes),
        "precision": chosen.precision,
    }
    by_kind: dict[str, dict[str, Any]] = {
        A_TASK: {},
        A_FILE: {"sizes": settings.image_sizes, "resize": settings.data.resize},
        A_STEP: {"gan": gan, "classes": len(settings.data.classes)},
        A_DRAW: {"gan": gan},
        A_JUDGED_IMAGE: {"size": settings.judge.image_size},
        ALL_DISTANCES: {
            "drawn": drawn,
            "classes": len(settings.data.classes),
            "images": settings.judge.images_per_class,
        },
        OF_BACKBONE: of_classifier,
        OF_HEAD: {**of_classifier, "batch": chosen.batch_size},
        OF_WHOLE: {**of_classifier, "batch": chosen.batch_size},
        AN_AUGMENTATION: {"size": chosen.image_size},
    }
    content = json.dumps([MEASURED_AS, kind, by_kind[kind], machine(), task_threads()], sort_keys=True)
    return f"{name}/{hashlib.sha256(content.encode()).hexdigest()[:16]}"


def known_rates(names: Iterable[str], settings: Settings, drawn: int) -> dict[str, Rate]:
    """Those of ``names`` that were measured on this machine before."""
    kept = _kept_rates()
    keys = {name: rate_key(name, settings, drawn) for name in names}
    return {name: Rate(**kept[key]) for name, key in keys.items() if key in kept}


def keep_rates(found: Rates, settings: Settings, drawn: int) -> None:
    """Keep what was measured for the next estimate, also that of a task on this machine."""
    folder = cache_folder(RATES_FOLDER)
    kept = {**_kept_rates(), **{rate_key(name, settings, drawn): asdict(rate) for name, rate in found.items()}}
    aside = folder / f"{RATES_FILE}.{os.getpid()}"
    aside.write_text(json.dumps(kept, indent=1), encoding="utf-8")
    os.replace(aside, folder / RATES_FILE)


def _kept_rates() -> dict[str, dict[str, Any]]:
    try:
        kept = json.loads((cache_root() / RATES_FOLDER / RATES_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return kept if isinstance(kept, dict) else {}
