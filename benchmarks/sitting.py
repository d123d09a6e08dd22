"""What a sitting measures, and what becomes of its figures: an entry in the history, a comparison, and a page."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from scipy import stats

from cxr_tasks.estimate.rates import machine

CONFIDENCE = 0.95
# Differences below this are of no interest, however sure.
LEAST = 0.02


@dataclass(frozen=True)
class Measured:
    """One script of this folder in a sitting.

    Attributes:
        script: Its name without the ending.
        small: Arguments for minutes.
        full: Arguments for the figures that the documentation quotes.
        figures: Where a figure lies in the script's JSON, as keys with ``/`` between them, by what the figure is.
        needs_images: Whether the first argument is a folder of X-rays.
        less_is_better: Whether figures are times and sizes, and not rates and shares.
    """

    script: str
    small: Sequence[str]
    full: Sequence[str]
    figures: Mapping[str, str]
    needs_images: bool = False
    less_is_better: bool = False


SCRIPTS = (
    Measured(
        "augment",
        ["--size", "64", "--images", "128"],
        [],
        {"rate of classical augmentation, of ImageDataGenerator's": "ratio"},
    ),
    Measured(
        "dicom",
        ["24", "512"],
        [],
        {
            "rate of reading DICOM, of a bare loop's": "uncompressed/share",
            "rate of reading lossless JPEG in DICOM, of a bare loop's": "lossless JPEG/share",
        },
    ),
    Measured("ingest", ["600"], [], {"rate of ingest, of a bare loop's with Pillow": "ratio"}),
    Measured("manifest", ["20000"], [], {"speed of the split, of scikit-learn's grouped shuffle": "ratio"}),
    Measured(
        "gan_step",
        ["--width", "0.25", "--size", "32", "--batch", "16", "--steps", "4"],
        [],
        {"speed of the GAN's step, of the usual wiring's": "ratio"},
    ),
    Measured(
        "pair",
        ["--size", "32", "--images", "96", "--epochs", "2"],
        [],
        {
            "speed of the exact classical arm, of a notebook's": "ratio",
            "speed of the arm without augmentation, of a notebook's": "ratio_unaugmented",
            "speed of the arm with a pool of views, of a notebook's": "ratio_views",
        },
        needs_images=True,
    ),
    Measured(
        "together",
        ["--size", "32", "--images", "48", "--epochs", "1"],
        [],
        {"speed of six trainings as the stack runs them, of one after the other": "ratio"},
        needs_images=True,
    ),
    Measured(
        "serving",
        ["vgg16", "64", "3"],
        [],
        {
            "rate of serving 8 callers, of the bare network's": "found/cxr serve, 8 callers/of_loop_cpu",
            "rate of serving 64 callers, of the bare network's": "found/cxr serve, 64 callers/of_loop_cpu",
        },
        needs_images=True,
    ),
    Measured(
        "scale",
        ["--sizes", "600", "1200", "--only", "scan", "ingest"],
        [],
        {"time of ingest for twice the images, or ten times in full": "ratios/ingest/processor"},
        less_is_better=True,
    ),
    Measured(
        "report",
        ["--seeds", "1", "--test-images", "300"],
        [],
        {"processor seconds of the report": "processor_seconds"},
        less_is_better=True,
    ),
    Measured(
        "overview",
        ["50"],
        [],
        {"milliseconds to the first byte of the page in Airflow": "milliseconds/page: first byte/median"},
        less_is_better=True,
    ),
)
# Scripts that measure no speed, or the whole stack for hours. Each is run by itself.
LEFT_OUT = {
    *(
        "altered",
        "drift",
        "gan_verdict",
        "gate",
        "inverted",
        "paper_audit",
        "resizing",
        "simulation",
        "unusual",
        "year",
    ),
    *("estimate", "kills", "one_epoch", "outage", "soak"),
}


@dataclass(frozen=True)
class Sitting:
    """An entry of the history.

    Attributes:
        date: Of the day, as ISO 8601.
        commit: What was measured.
        against: What was measured in turn with it; empty where nothing was.
        size: ``small`` or ``full``.
        machine: The processor, its cores, and its instructions for networks.
        figures: A value a round, by what the figure is.
        peers: Those of ``against``, in the same rounds.
        failures: The last line that a script said, by its name.
    """

    date: str
    commit: str
    against: str
    size: str
    machine: Mapping[str, Any]
    figures: Mapping[str, list[float]] = field(default_factory=dict)
    peers: Mapping[str, list[float]] = field(default_factory=dict)
    failures: Mapping[str, str] = field(default_factory=dict)


def this_machine() -> dict[str, Any]:
    """The processor's name, the cores, and the instructions that count for networks."""
    told = machine()
    return {name: told[name] for name in ("processor", "cores", "instructions")}


def figures_of(measured: Measured, told: Mapping[str, Any]) -> dict[str, float]:
    """The figures in what a script has told.

    Args:
        measured: The script.
        told: Its last line, decoded.

    Raises:
        KeyError: A figure is not there.
    """
    found = {}
    for name, path in measured.figures.items():
        value: Any = told
        for key in path.split("/"):
            value = value[key]
        found[name] = float(value)
    return found


def change(here: Sequence[float], there: Sequence[float], *, less_is_better: bool) -> tuple[float, float, float]:
    """By how much a figure became better, as a share, with the ends of its 95 % interval.

    A t interval of the mean of the logarithms of the paired ratios.

    Args:
        here: A value a round.
        there: The peer's in the same rounds.
        less_is_better: Whether the figure is a time or a size.
    """
    sign = -1 if less_is_better else 1
    gains = [sign * math.log(mine / peer) for mine, peer in zip(here, there, strict=True)]
    mean = statistics.fmean(gains)
    if len(gains) < 2:
        return math.expm1(mean), -math.inf, math.inf
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(gains) - 1)) * statistics.stdev(gains) / math.sqrt(len(gains))
    return math.expm1(mean), math.expm1(mean - half), math.expm1(mean + half)


def slower(sitting: Sitting) -> list[str]:
    """A sentence for each figure that became worse by more than noise."""
    lower = {name for each in SCRIPTS if each.less_is_better for name in each.figures}
    said = []
    for name, there in sitting.peers.items():
        gain, _, most = change(sitting.figures[name], there, less_is_better=name in lower)
        if most < 0 and gain < -LEAST:
            said.append(f"Worse by {-gain:.0%} than {sitting.against}: {name}.")
    return said


def read_history(path: Path) -> list[Sitting]:
    """All sittings that a file holds, one a line, the oldest first."""
    if not path.is_file():
        return []
    return [Sitting(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines() if line]


def add(path: Path, sitting: Sitting) -> None:
    """Append a sitting to the history."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as history:
        history.write(json.dumps(asdict(sitting)) + "\n")


def page(history: Sequence[Sitting]) -> str:
    """The history as Markdown, the newest sitting first."""
    parts = [
        "# Speed, sitting by sitting\n\n`make bench` writes this page. Each figure is held against a named peer in the "
        "same run. What stands in brackets is the lowest and the highest of the rounds. A change is that against "
        "another revision, which was measured in turn with this one; in brackets stands its 95 % interval.\n"
    ]
    lower = {name for each in SCRIPTS if each.less_is_better for name in each.figures}
    for sitting in reversed(history):
        on, since = sitting.machine, f" since {sitting.against}" if sitting.against else ""
        instructions = ", ".join(on["instructions"]) or "none of AVX2"
        parts += [
            f"## {sitting.date}, {sitting.commit}, {sitting.size}\n",
            f"{on['processor']}, {on['cores']} cores, {instructions}.\n",
            f"| figure | value | change{since} |\n|---|---|---|",
        ]
        for name, values in sitting.figures.items():
            changed = ""
            if name in sitting.peers:
                gain, low, high = change(values, sitting.peers[name], less_is_better=name in lower)
                changed = f"{gain:+.0%}" + (f" ({low:+.0%} to {high:+.0%})" if math.isfinite(low) else "")
            spread = f" ({min(values):.2f} to {max(values):.2f})" if len(values) > 1 else ""
            parts.append(f"| {name} | {statistics.median(values):.2f}{spread} | {changed} |")
        parts.extend(["", *slower(sitting)])
        parts.extend(f"Not measured: {script}. {why}" for script, why in sitting.failures.items())
    return "\n".join(parts).rstrip() + "\n"
