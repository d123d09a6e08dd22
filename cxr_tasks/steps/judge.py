"""The step ``judge``: say whether the GAN's images are good enough to train with."""

from __future__ import annotations

from pathlib import Path

from cxr_tasks import tracking
from cxr_tasks.artifacts import Dataset, Gan, Judgement, RunContext, write_json
from cxr_tasks.pipeline import Made, Postponed, load_settings, perform
from cxr_tasks.steps.common import dataset_tags, log_images, weights_identity


def judge(run: RunContext, dataset: Dataset, gan: Gan) -> Judgement:
    """Measure what the GAN generates, and say whether it is good enough to train with."""
    settings = load_settings(run)

    def fill(folder: Path) -> Made[Judgement]:
        if not gan.finished:
            unfinished = Judgement(passed=False, kind="unfinished", sentence=gan.state, notes=(gan.state,))
            raise Postponed(unfinished, gan.state)
        from cxr_tasks.gan.judging import Judge
        from cxr_tasks.gan.sampling import sample_images
        from cxr_tasks.gan.step import CovidGan

        classes, labels = list(settings.data.classes), Judge.labels(settings)
        size, seed = settings.gan.image_size, settings.seeds.judge
        train, validation = (dataset.images(split, size, classes) for split in ("train", "validation"))
        log_images(train.rows, "training images: real", "judged against")
        log_images(validation.rows, "validation images", "judged against")
        fresh = CovidGan(settings.gan, len(classes), settings.seeds.gan).generator
        made, untrained = (sample_images(net, labels, settings.gan, seed, "judged") for net in (gan.generator(), fresh))
        quality, said = Judge(settings, train, validation, untrained, dataset.resize).judge(made)
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
            notes=(said.sentence, *said.reasons[1:], *said.not_judged),
        )
        return Made(judgement, {**quality.metrics(), "gan_passed": float(said.passed)})

    judgement = perform(
        run,
        Judgement,
        fill,
        version=2,
        settings={
            **settings.judge.model_dump(mode="json", exclude={"override"}),
            "weights": weights_identity(settings.judge.weights),
            "near_duplicates": settings.data.near_duplicates.model_dump(mode="json"),
            "seed": settings.seeds.judge,
            "gan_seed": settings.seeds.gan,
        },
        # By its weights too: a GAN that was trained anew has the same reference.
        inputs={"dataset": dataset, "gan": gan, **gan.content},
        tags=dataset_tags(run, dataset),
    )
    if gan.finished and settings.judge.override and not judgement.passed:
        tracking.set_tags({"cxr.verdict_overridden": judgement.kind}, judgement.mlflow_run_id)
    return judgement


def may_train_with(run: RunContext, judgement: Judgement) -> bool:
    """Whether the run trains with the GAN's images: they are good enough, or ``judge.override`` is set."""
    overridden = load_settings(run).judge.override and judgement.kind != "unfinished"
    return judgement.passed or overridden
