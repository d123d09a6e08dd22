"""The step ``judge``: say whether synthetic images are good enough to train with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cxr_tasks import tracking
from cxr_tasks.artifacts import Artifact, Dataset, Gan, ImportedImages, Judgement, RunContext, write_json
from cxr_tasks.config import Settings
from cxr_tasks.pipeline import Made, Postponed, load_settings, perform
from cxr_tasks.steps.common import MANNER, log_images, weights_identity

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from cxr_tasks.data.dataset import Images


def judge(
    run: RunContext, dataset: Dataset, gan: Gan | None = None, imported: ImportedImages | None = None
) -> Judgement:
    """Measure synthetic images, and say whether they are good enough to train with.

    Args:
        run: The DAG run.
        dataset: What they are held against.
        gan: What generates them; ``None`` where they are imported.
        imported: The images that others have made; ``None`` where a GAN makes them.
    """
    settings = load_settings(run)

    def fill(folder: Path) -> Made[Judgement]:
        if gan is not None and not gan.finished:
            unfinished = Judgement(passed=False, kind="unfinished", sentence=gan.state, notes=(gan.state,))
            raise Postponed(unfinished, gan.state)
        from cxr_tasks.data.copies import copies_in_words, count_copies
        from cxr_tasks.gan.imported import too_few_left
        from cxr_tasks.gan.judging import Judge
        from cxr_tasks.gan.sampling import sample_images
        from cxr_tasks.gan.step import CovidGan
        from cxr_tasks.gan.verdict import with_copies

        classes, labels = list(settings.data.classes), Judge.labels(settings)
        size, seed = settings.gan.image_size, settings.seeds.judge
        train, validation = (dataset.images(split, size, classes) for split in ("train", "validation"))
        log_images(train.rows, "training images: real", "judged against")
        log_images(validation.rows, "validation images", "judged against")
        fresh = CovidGan(settings.gan, len(classes), settings.seeds.gan).generator
        untrained = sample_images(fresh, labels, settings.gan, seed, "judged")
        judge = Judge(settings, train, validation, untrained, dataset.resize)
        copies: dict[str, int] = {}
        warnings: tuple[str, ...] = ()
        if imported is None:
            assert gan is not None  # the run's images come from one of the two
            quality, said = judge.judge(sample_images(gan.generator(), labels, settings.gan, seed, "judged"), labels)
        else:
            table = imported.table()
            found = _found_copies(settings, dataset, imported, table)
            found.to_parquet(folder / Judgement.COPIES, index=False)
            tracking.log_table(found, "copies.json")
            images, copied = _images_to_judge(settings, imported, table, found)
            log_images(images.rows, "synthetic images", "judged", ["synthetic"] * len(images))
            quality, said = judge.judge(images.pixels, images.labels, copied)
            said = with_copies(said, too_few_left(table, found, classes))
            copies, warnings = count_copies(found), tuple(copies_in_words(found, len(table)))
        write_json(folder / Judgement.QUALITY, quality)
        write_json(folder / Judgement.VERDICT, said)
        for name in (Judgement.QUALITY, Judgement.VERDICT):
            tracking.log_file(folder / name)
        tracking.log_table(quality.to_frame(), "quality-table.json")
        judgement = Judgement(
            passed=said.passed,
            kind=said.kind,
            sentence=said.sentence,
            reasons=tuple(said.reasons),
            not_judged=tuple(said.not_judged),
            copies=copies,
            warnings=warnings,
            notes=(said.sentence, *said.reasons[1:], *said.not_judged, *warnings),
        )
        metrics = {**quality.metrics(), "gan_passed": float(said.passed)}
        return Made(judgement, metrics | {f"copies_of_{split}_images": float(n) for split, n in copies.items()})

    # By its weights too: a GAN that was trained anew has the same reference.
    given: dict[str, Artifact | str] = {"gan": gan, **gan.content} if gan is not None else {}
    judgement = perform(
        run,
        Judgement,
        fill,
        version=3,
        settings={
            **settings.judge.model_dump(mode="json", exclude={"override"}),
            "weights": weights_identity(settings.judge.weights),
            "near_duplicates": settings.data.near_duplicates.model_dump(mode="json"),
            "seed": settings.seeds.judge,
            "gan_seed": settings.seeds.gan,
        }
        | (_untrained(settings) if imported is not None else {}),
        inputs={"dataset": dataset, **given, **({} if imported is None else {"imported": imported})},
    )
    if (gan is None or gan.finished) and settings.judge.override and not judgement.passed:
        tracking.set_tags({"cxr.verdict_overridden": judgement.kind}, judgement.mlflow_run_id)
    return judgement


def _untrained(settings: Settings) -> dict[str, object]:
    """What the untrained generator depends on that imported images are held against; a GAN's reference names it."""
    return {"untrained": settings.gan.model_dump(mode="json", exclude=MANNER | {"epochs"})}


def _found_copies(settings: Settings, dataset: Dataset, imported: ImportedImages, table: pd.DataFrame) -> pd.DataFrame:
    """Which imported images copy a real one, of any split."""
    from cxr_tasks.data.copies import copies_of_real

    manifest = dataset.manifest(["image_id", "path", "dhash", "split", "shard", "row"])
    real = manifest[manifest["split"] != ""].reset_index(drop=True)
    near = settings.data.near_duplicates
    return copies_of_real(table, imported.thumbnails(table), real, dataset.thumbnails(real), near)


def _images_to_judge(
    settings: Settings, imported: ImportedImages, table: pd.DataFrame, found: pd.DataFrame
) -> tuple[Images, np.ndarray]:
    """The images to judge, as many of each class as of a GAN's; and which of them copy a training image."""
    from cxr_tasks.data.copies import are_training
    from cxr_tasks.gan.imported import judged_rows

    rows = judged_rows(table, found, settings.judge.images_per_class, settings.seeds.judge)
    return imported.of(rows, settings.gan.image_size, list(settings.data.classes)), are_training(rows, found)


def may_train_with(run: RunContext, judgement: Judgement) -> bool:
    """Whether the run trains with the synthetic images: they are good enough, or ``judge.override`` is set."""
    overridden = load_settings(run).judge.override and judgement.kind != "unfinished"
    return judgement.passed or overridden
