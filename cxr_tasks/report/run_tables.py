"""The tables of a report that are about the whole run: the GAN's quality, the cost, and the reproduced leak."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean

from cxr_tasks.artifacts import Artifact, Gan, Judgement, LeakedModel, TrainedModel
from cxr_tasks.classifiers.registry import CLASSIFIERS
from cxr_tasks.evaluation.comparison import PairComparison, points
from cxr_tasks.gan.quality import Measurement
from cxr_tasks.report.arm_tables import percent
from cxr_tasks.report.render import Table
from cxr_tasks.report.results import Results


def quality_tables(judgement: Judgement | None) -> list[Table]:
    """How good the generated images are, per class and over all, if it was measured."""
    if judgement is None or not judgement.ref:
        return []
    quality = judgement.quality()
    columns = [
        "Images",
        "Generated",
        "Training",
        "Held out",
        "KID (floor)",
        "KID to untrained",
        "FID (floor)",
        "Density (floor)",
        "Coverage (floor)",
        "Memorised (held out)",
        "Repeated (training)",
        "Accuracy score (real)",
    ]
    rows = [
        [
            row.name,
            f"{row.synthetic:,}",
            f"{row.training:,}",
            f"{row.held_out:,}",
            _beside(row.kid, row.kid_floor, 3),
            _rounded(row.kid_ratio, 2),
            _beside(row.fid, row.fid_floor, 0),
            _beside(row.density, row.density_floor, 2),
            _beside(row.coverage, row.coverage_floor, 2),
            _beside(row.memorised, row.memorised_held_out, 2),
            _beside(row.repeated, row.repeated_training, 2),
            _beside(row.accuracy_score, row.accuracy_score_real, 2),
        ]
        for row in (quality.overall, *quality.classes)
    ]
    note = (
        f"{judgement.sentence} In brackets stands what real images get in the place of the generated ones: held-out "
        "images, or at most as many training images. The distances of a row are over "
        + ", ".join(f"{row.drawn} images a side ({row.name})" for row in (quality.overall, *quality.classes))
        + f". Accuracy score: a classifier is trained on the images alone and tested on real ones. {quality.extractor}."
    )
    return [Table(title="Quality of the generated images", note=note, columns=columns, rows=rows)]


def _rounded(figure: Measurement, digits: int) -> str:
    return "–" if figure.value is None else f"{figure.value:.{digits}f}"


def _beside(figure: Measurement, reference: Measurement, digits: int) -> str:
    return f"{_rounded(figure, digits)} ({_rounded(reference, digits)})"


def cost_table(results: Results) -> Table:
    """What each part of the run costs."""
    rows = []
    gan, imported, synthetic = results.gan, results.imported, results.synthetic
    if gan is not None:
        rows.append(["Training the GAN", f"{gan.hours * 60:.1f}", _seen(gan)])
    if imported is not None:
        read = sum(imported.images.values()) + imported.rejected
        rows.append(["Reading the synthetic images", _minutes([imported]), f"{read:,}"])
    if gan is not None or imported is not None:
        made = f"{sum(synthetic.counts.values()):,}" if synthetic else "none"
        rows.append(["Making the synthetic set", _minutes([synthetic] if synthetic else []), made])
    if results.features:
        run = sum(features.computed for features in results.features)
        rows.append(["Running frozen backbones, for all arms", _minutes(results.features), f"{run:,}"])
    by_arm: dict[str, list[TrainedModel]] = {}
    for arm in results.arms:
        by_arm.setdefault(arm.training.arm, []).append(arm.model)
    rows += [[f"Classifiers, arm {arm}", _minutes(models), _trained_on(models)] for arm, models in by_arm.items()]
    note = (
        "Minutes of the tasks that made each part. The minutes of the GAN are those of its training. A part that was "
        "taken from an earlier run counts with what it cost then."
    )
    return Table(title="What it cost", note=note, columns=["Part", "Minutes", "Images"], rows=rows)


def _seen(gan: Gan) -> str:
    """The images that the GAN was trained on, and how often."""
    seen = f"{gan.images:,} × {gan.epochs:,} epochs"
    return seen if gan.finished else f"{seen}, of which {gan.steps:,} steps are done"


def _minutes(made: Sequence[Artifact]) -> str:
    return f"{sum(artifact.seconds for artifact in made) / 60:.1f}" if made else "none"


def _trained_on(models: Sequence[TrainedModel]) -> str:
    return ", ".join(
        f"{CLASSIFIERS[model.training.classifier].display} {model.train_images:,} × {model.epochs}" for model in models
    )


def leak_table(leaks: Sequence[LeakedModel], pairs: Mapping[tuple[str, int], PairComparison]) -> Table | None:
    """What the source report's protocol makes of these data, beside what was measured honestly.

    Args:
        leaks: The trainings by that protocol.
        pairs: The honest comparison with an arm that trains on synthetic images, by classifier and seed.
    """
    if not leaks:
        return None
    rows, inflated = [], []
    for leak in leaks:
        trained = leak.training
        honest = pairs.get((trained.classifier, trained.seed))
        row = [
            f"{CLASSIFIERS[trained.classifier].display}, seed {trained.seed}",
            f"{leak.synthetic_test_images:,} of {leak.test_images:,}",
            percent(leak.leaked_test_accuracy),
            percent(leak.leaked_test_real_accuracy),
        ]
        if honest is None:
            rows.append([*row, "–", "–", "–"])
            continue
        claimed = leak.leaked_test_accuracy - honest.baseline_test["accuracy"]
        inflated.append(claimed - honest.accuracy_difference)
        rows.append(
            [*row, percent(honest.baseline_test["accuracy"]), points(claimed), points(honest.accuracy_difference)]
        )
    note = (
        "Synthetic images joined the data before the split. So the test set holds some of them. It also holds real "
        "images that their maker has seen, or may have seen. Accuracy is in percent. Both gains are against the same "
        "baseline."
    )
    if inflated:
        note += f" The two gains differ by {points(mean(inflated))} points on average. This difference has no interval."
    return Table(
        title="The source report's protocol on these data: these figures are wrong",
        note=note,
        columns=[
            "Network",
            "Synthetic test images",
            "Accuracy, its test set",
            "Its real images alone",
            "Honest baseline",
            "Gain it would claim",
            "Gain on real images",
        ],
        rows=rows,
    )
