"""A year of a hospital in minutes: what is promoted, refused, alarmed and rolled back, beside what was really so.

    python -m benchmarks.year [weeks]

Every week phantoms arrive in the folder of the hospital, the steps of ``cxr_data`` read them, those of ``cxr_monitor``
hold the champion against them, and those of ``cxr_training`` train a small network twice where the dataset is new. The
gate decides. All steps are the product's, with a real MLflow; Airflow is not asked. Once a month ``cxr_cleanup`` makes
room.

What really happens is known, because this script does it: see ``EVENTS``. An alarm is true from the week on in which
new images differ, as a whole, from those of the champion's dataset. That is also so where the share of a site changes.
The champion of each week is also tested on 600 images that nobody trains on. The hospital rolls a champion back in the
week in which it finds that labels were wrong, if the champion was trained on them.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from cxr_tasks.artifacts import Decision
    from cxr_tasks.local import LocalRun

CLASSES = ("COVID", "Normal", "Viral Pneumonia")
FIRST, WEEKLY = 120, 6
# Images of each class that test what a champion really can.
TRUTH = 200
PIXELS = 64
# The weeks in which something happens, and what.
EVENTS = {
    12: "nothing new for two weeks",
    16: "a second site, whose images are darker",
    24: "a fifth of the first labels was wrong, and is corrected",
    30: "the second site is lost",
    36: "poisoned: the labels of this week's images are shuffled",
    39: "the wrong labels of week 36 are found: the images go, and a champion that knows them is rolled back",
    44: "the device is changed: inverted images for a week",
    45: "the inverted images are found, and go",
}
QUIET, SECOND_SITE, POISONED, FOUND, INVERTED = (12, 13), range(16, 30), 36, 39, 44
RELABELLED, WRONG_AT_FIRST = 24, 0.2
CLEANED_EVERY, KEPT_RUNS = 4, 6
ARMS = ("none", "classical")
SETTINGS: dict[str, Any] = {
    "data": {"min_images_per_class": 10, "split": {"validation": 0.25, "test": 0.2}},
    "classifiers": {"names": ["cnn"], "image_size": 32, "epochs": 20, "batch_size": 16},
    "arms": {"baseline": ARMS[0], "compared": [ARMS[1]]},
    "evaluation": {"bootstrap_samples": 300, "gallery": 1, "shortcuts": False},
}
FORM = {"profile": "quick", "settings": SETTINGS}


class Hospital:
    """A folder of X-rays by class, that changes as ``EVENTS`` says."""

    def __init__(self, folder: Path, weeks: int) -> None:
        """Fill the folder with the first images, some of them with a wrong label."""
        from cxr_tasks.data.phantoms import write_phantoms

        self.folder, self.rng = folder / "data", np.random.default_rng(0)
        needed = FIRST + WEEKLY * weeks
        write_phantoms(folder / "archive", dict.fromkeys(CLASSES, needed), image_size=PIXELS)
        write_phantoms(folder / "truth", dict.fromkeys(CLASSES, TRUTH), image_size=PIXELS, seed=1)
        self.archive, self.taken = folder / "archive", 0
        for name in CLASSES:
            (self.folder / name / "images").mkdir(parents=True)
        self._arrive("first", FIRST)
        self.wrong = self._swap_labels(WRONG_AT_FIRST)

    def next_week(self, week: int) -> None:
        """Let the images of a week arrive, and what else happens in it."""
        if week in QUIET:
            return
        self._arrive(f"week{week}", WEEKLY, dark=week in SECOND_SITE, inverted=week == INVERTED)
        if week == RELABELLED:
            for wrong, right in self.wrong:
                wrong.rename(right)
        if week == POISONED:
            self._shuffle_labels(f"week{week}")
        for gone in [f"week{POISONED}"] * (week == FOUND) + [f"week{INVERTED}"] * (week == INVERTED + 1):
            for path in self.folder.glob(f"*/images/{gone}-*"):
                path.unlink()

    def _arrive(self, prefix: str, count: int, *, dark: bool = False, inverted: bool = False) -> None:
        for name in CLASSES:
            for number in range(self.taken + 1, self.taken + count + 1):
                grays = np.asarray(Image.open(self.archive / name / "images" / f"{name}-{number}.png").convert("L"))
                grays = (0.5 * grays if dark else grays).astype(np.uint8)
                image = Image.fromarray(255 - grays if inverted else grays)
                image.save(self.folder / name / "images" / f"{prefix}-{name}-{number}.png")
        self.taken += count

    def _swap_labels(self, share: float) -> list[tuple[Path, Path]]:
        """Put a share of the images into the next class; returns where each is, and where it belongs."""
        moved = []
        for path in sorted(self.folder.glob("*/images/*.png")):
            if self.rng.random() < share:
                other = CLASSES[(CLASSES.index(path.parts[-3]) + 1) % len(CLASSES)]
                moved.append((self.folder / other / "images" / path.name, path))
        for wrong, right in moved:
            right.rename(wrong)
        return moved

    def _shuffle_labels(self, prefix: str) -> None:
        paths = sorted(self.folder.glob(f"*/images/{prefix}-*"))
        for path, to in zip(paths, self.rng.permutation([path.parts[-3] for path in paths]), strict=True):
            path.rename(self.folder / str(to) / "images" / path.name)


def tested(folder: Path) -> tuple[str, float | None]:
    """The champion, and its macro F1 on images that nobody trains on, as the first site makes them."""
    from sklearn.metrics import f1_score

    from cxr_tasks import tracking
    from cxr_tasks.classifiers.predicting import predict_stack
    from cxr_tasks.data.resizing import resize_stack
    from cxr_tasks.registry.champions import CHAMPION, OVERALL_MODEL
    from cxr_tasks.steps.tested_models import model_of_version

    version = tracking.version_by_alias(OVERALL_MODEL, CHAMPION)
    if version is None:
        return "", None
    model = model_of_version(version)
    network = model.load()
    paths = sorted(folder.glob("*/images/*.png"))
    pixels = np.stack([np.asarray(Image.open(path).convert("L")) for path in paths])
    pixels = resize_stack(pixels, network.input_shape[1], model.resize)[..., None]
    said = predict_stack(network, pixels).argmax(axis=1)
    truth = [model.classes.index(path.parts[-3]) for path in paths]
    return str(version.version), float(f1_score(truth, said, average="macro"))


def mib_below(*folders: Path) -> float:
    """What the files of folders take."""
    return sum(path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file()) / 2**20


def decided(run: LocalRun) -> tuple[Decision, ...]:
    """Train both arms, compare them, and let the gate decide; as ``cxr_training`` does, without pictures and report."""
    from cxr_tasks import steps
    from cxr_tasks.artifacts import Training

    pair = Training(classifier="cnn", arm="classical", seed=0)
    given = run.training, run.dataset
    compared, trained = [run.comparison(pair)], [run.arm(pair.model_copy(update={"arm": arm})) for arm in ARMS]
    challenge = steps.challenge(*given, compared, [trained])
    if not steps.passes_gate(challenge):
        return steps.keep_champion(run.training, challenge).decisions
    return steps.promote(*given, challenge, compared, [trained]).decisions


def really(week: int, known: int) -> str:
    """What is really so of images that came after the week ``known``, whose images a champion was trained on."""
    since = range(known + 1, week + 1)
    if POISONED in since and week < FOUND:
        return "wrong labels"
    if INVERTED in since and week == INVERTED:
        return "inverted"
    # A champion that knows a few images of the second site was tested on a few, and then all are of it.
    if any(came in SECOND_SITE for came in since):
        return "second site"
    # And one that knows many sees none any more.
    return "fewer sites" if known >= SECOND_SITE.start and len(since) else ""


def live(home: Path, weeks: int) -> list[dict[str, Any]]:
    """Let the weeks pass; returns what was seen in each."""
    from cxr_tasks import steps
    from cxr_tasks.local import LocalRun
    from cxr_tasks.registry.champions import OVERALL_MODEL

    hospital, rows, version, saved = Hospital(home, weeks), [], "", 0.0
    # The week of the images that each champion was trained on, by its version.
    known = {"": -1}
    for week in range(weeks):
        begun = time.perf_counter()
        hospital.next_week(week)
        run = LocalRun(str(hospital.folder), FORM)
        dataset, monitor = run.dataset, steps.configure("cxr_monitor", f"week {week}", FORM)
        watched = steps.watch(monitor, dataset)
        asked = steps.reason_to_train(monitor, dataset, watched)
        before, _ = tested(home / "truth")
        row: dict[str, Any] = {
            "week": week,
            "event": EVENTS.get(week, ""),
            "alarm": watched.alarm,
            "watch": watched.words,
        }
        row |= {"asked": bool(asked), "truth": really(week, known[before]) if before else ""}
        row["images"] = sum(n for split in dataset.counts.values() for n in split.values())
        if dataset.version != version:
            overall = next(each for each in decided(run) if each.name == OVERALL_MODEL)
            row |= {"trained": True, "promoted": overall.is_new, "decision": overall.decision}
            known |= {overall.version: week} if overall.is_new else {}
            version = dataset.version
        run.end()
        steps.close_run("cxr_monitor", monitor.dag_run, "")
        champion, _ = tested(home / "truth")
        if week == FOUND and POISONED <= known[champion] < FOUND:
            steps.roll_back(OVERALL_MODEL, "trained on the wrong labels of week 36", who="the hospital")
            row["rolled back"] = True
        row["champion"], row["true macro F1"] = tested(home / "truth")
        row["seconds"] = time.perf_counter() - begun
        if week % CLEANED_EVERY == CLEANED_EVERY - 1:
            full = mib_below(home / "store", home / "mlruns")
            # A year passes in minutes: what is old is what the newest runs do not hold.
            steps.clean_up(-1.0, KEPT_RUNS)
            saved += full - mib_below(home / "store", home / "mlruns")
        row["MiB"] = mib_below(home / "store", home / "mlruns")
        row["MiB without cleanup"] = row["MiB"] + saved
        rows.append(row)
        print(line_of(row), flush=True)
    return rows


def line_of(row: dict[str, Any]) -> str:
    """A week for people."""
    told = "asks" if row["asked"] else "yes" if row["alarm"] else ""
    done = "rolled back" if row.get("rolled back") else "promoted" if row.get("promoted") else "refused"
    true = "" if row["true macro F1"] is None else f"{row['true macro F1']:.3f}"
    return (
        f"{row['week']:4} {row['images']:6} {row['truth']:>12} {told:>5} {done if row.get('trained') else '':>11} "
        f"{row['champion']:>8} {true:>7} {row['MiB']:5.0f} {row['seconds']:4.0f}  {row['event']}"
    )


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The year in figures."""
    changed = [row["truth"] for row in rows]
    # A change that goes on counts once.
    episodes = [
        row["truth"] for row, before in zip(rows, ["", *changed], strict=False) if row["truth"] not in ("", before)
    ]
    found = {row["truth"] for row in rows if row["alarm"] and row["truth"]}
    trained = [row for row in rows if row.get("trained")]
    return {
        "weeks": len(rows),
        "trained": len(trained),
        "promoted": sum(row["promoted"] for row in trained),
        "refused": sum(not row["promoted"] for row in trained),
        "rolled back": sum(bool(row.get("rolled back")) for row in rows),
        "weeks with an alarm": sum(row["alarm"] for row in rows),
        "false alarms": sum(row["alarm"] and not row["truth"] for row in rows),
        "changes": episodes,
        "missed": sorted(set(episodes) - found),
        "asked for a training": sum(row["asked"] for row in rows),
        "largest MiB": max(row["MiB"] for row in rows),
        "MiB without cleanup": rows[-1]["MiB without cleanup"],
        "seconds of a week without news": [round(row["seconds"], 1) for row in rows if not row.get("trained")],
    }


def main(weeks: int) -> None:
    """Live a year, print it, and end with one JSON object."""
    logging.disable(logging.WARNING)
    home = Path(tempfile.mkdtemp(prefix="cxr-year-"))
    os.chdir(home)
    os.environ |= {"CXR_STORE": str(home / "store"), "MLFLOW_TRACKING_URI": f"sqlite:///{home}/mlflow.db"}
    os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "MLFLOW_DISABLE_TELEMETRY": "true", "TQDM_DISABLE": "1"}
    try:
        print("week images  really     alarm  challenger champion true F1   MiB    s", flush=True)
        rows = live(home, weeks)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    told = summary(rows)
    print()
    for name, value in told.items():
        print(f"{name}: {', '.join(map(str, value)) if isinstance(value, list) else value}")
    print(json.dumps({**told, "rows": rows}))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 52)
