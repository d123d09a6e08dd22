"""Steps that make synthetic images: training the GAN, judging it, and drawing a set from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cxr_tasks import tracking
from cxr_tasks.errors import DataError
from cxr_tasks.execution import Postponed, Record, RunContext, StepResult, is_forced, load_settings, perform
from cxr_tasks.steps.shared import dataset_tags, log_files, weights_identity
from cxr_tasks.store import artifact_ref, open_store

GENERATOR, DISCRIMINATOR = "generator.keras", "discriminator.keras"
# In a training's folder of checkpoints: the DAG run that asked to make it anew.
ANEW = "anew.txt"


def train_gan(run: RunContext, dataset: StepResult) -> StepResult:
    """Train CovidGAN on the training split; a retry, or a run after the hours were used up, goes on from the last
    checkpoint."""
    settings = load_settings(run)
    # How a training is cut into sittings, calls and checkpoints changes nothing of what comes out.
    manner = {"max_hours", "steps_per_call", "checkpoint_seconds", "keep_checkpoints"}
    gan = settings.gan.model_dump(mode="json", exclude=manner)
    inputs: dict[str, StepResult | str] = {"dataset": dataset}
    # Progress is kept per settings and data, so a later run with the same ones goes on from it too.
    unfinished = artifact_ref("train_gan", 1, {**gan, "seed": settings.seed}, {"dataset": dataset["ref"]})
    if _start_anew(unfinished, run["dag_run"] if is_forced(run, "train_gan", inputs) else ""):
        run = {**run, "force": [*run["force"], "train_gan"]}

    def make(folder: Path, record: Record) -> None:
        from cxr_tasks.data.dataset import check_gan_input, load_images
        from cxr_tasks.evaluation import figures
        from cxr_tasks.training.features import Extractor
        from cxr_tasks.training.gan import train_gan as train
        from cxr_tasks.training.gan_watch import GRID_PER_CLASS, animation

        classes, store = list(settings.data.classes), open_store()
        images = load_images(dataset["ref"], "train", settings.gan.image_size, classes)
        check_gan_input(images)
        tracking.log_dataset(images.rows, "training images", dataset["summary"]["version"], "gan training")
        labels = [name for name in classes for _ in range(GRID_PER_CLASS)]
        if settings.judge.weights != "random":
            # Weights that cannot be had are to be known before days of training and not after.
            Extractor(settings.judge, images.pixels, settings.seed)

        def draw(step: int, grid: Any) -> Any:
            return figures.sample_grid(grid, labels, classes, f"Generated at step {step:,}")

        trained = train(
            images.pixels,
            images.labels,
            len(classes),
            settings.gan,
            settings.seed,
            store.load_checkpoint(unfinished),
            on_checkpoint=lambda: store.save_checkpoint(unfinished),
            # A tracking server that is away for a while must not end a training of days.
            on_epoch=tracking.forgiving(lambda step, metrics: tracking.log_metrics(metrics, step)),
            on_grid=tracking.forgiving(lambda s, grid: tracking.log_figure(draw(s, grid), f"grids/step-{s:06d}.png")),
        )
        summary = {
            "steps": trained.steps,
            "epochs": settings.gan.epochs,
            "images": len(images),
            "resumed_from": trained.resumed_from,
            "hours": round(trained.hours, 3),
        }
        if not trained.finished:
            raise Postponed(
                {
                    **summary,
                    "sentence": f"The GAN's training stands at step {trained.steps:,} of {trained.total_steps:,} after "
                    f"{trained.hours:.1f} hours: the next run goes on from there.",
                }
            )
        trained.generator.save(folder / GENERATOR)
        trained.gan.discriminator.save(folder / DISCRIMINATOR)
        trained.history.to_parquet(folder / "history.parquet", index=False)
        step, grid = max(trained.grids.items())
        (folder / "grid.png").write_bytes(figures.png_bytes(draw(step, grid)))
        (folder / "training.gif").write_bytes(animation(trained.grids))
        log_files(folder, ["training.gif"])
        record["curves"] = trained.history.drop(columns="epoch").to_dict("records")
        record["summary"] = summary
        record["metrics"] = {
            "gan_steps": trained.steps,
            "resumed_from_step": trained.resumed_from,
            "gan_hours": trained.hours,
        }

    result = perform(
        run, "train_gan", make, settings={**gan, "seed": settings.seed}, inputs=inputs, tags=dataset_tags(run, dataset)
    )
    if result["ref"]:
        open_store().drop_checkpoint(unfinished)
    return result


def _start_anew(unfinished: str, asked_by: str) -> bool:
    """Whether a training is under way that does not count what was made before.

    Args:
        unfinished: where the progress is kept.
        asked_by: the DAG run that is to make the GAN anew, or ''. Its first try gives up what progress there is; its
            further tries, and later runs if its hours do not suffice, go on.
    """
    store = open_store()
    marker = store.load_checkpoint(unfinished) / ANEW
    before = marker.read_text(encoding="utf-8") if marker.exists() else ""
    if asked_by and before != asked_by:
        store.drop_checkpoint(unfinished)
        (store.load_checkpoint(unfinished) / ANEW).write_text(asked_by, encoding="utf-8")
        store.save_checkpoint(unfinished)
    return bool(asked_by or before)


def judge(run: RunContext, dataset: StepResult, gan: StepResult) -> StepResult:
    """Measure what the GAN generates, and say whether it is good enough to train with."""
    settings = load_settings(run)
    how = settings.judge
    inputs: dict[str, StepResult | str] = {"dataset": dataset, "gan": gan}

    def make(folder: Path, record: Record) -> None:
        import keras

        from cxr_tasks.data.dataset import load_images
        from cxr_tasks.training.gan_judge import Judge
        from cxr_tasks.training.gan_step import CovidGan
        from cxr_tasks.training.gan_watch import generate

        if not gan["ref"]:
            raise Postponed({"passed": False, "kind": "unfinished", "sentence": gan["summary"]["sentence"]})
        classes, labels = list(settings.data.classes), Judge.labels(settings)
        train, validation = (
            load_images(dataset["ref"], split, settings.gan.image_size, classes) for split in ("train", "validation")
        )
        trained = keras.models.load_model(open_store().fetch(gan["ref"]) / GENERATOR, compile=False)
        fresh = CovidGan(settings.gan, len(classes), settings.seed).generator
        made, untrained = (generate(net, labels, settings.gan, settings.seed, "judged") for net in (trained, fresh))
        quality, said = Judge(settings, train, validation, untrained).judge(made)
        (folder / "quality.json").write_text(quality.model_dump_json(indent=2), encoding="utf-8")
        (folder / "verdict.json").write_text(said.model_dump_json(indent=2), encoding="utf-8")
        log_files(folder, ["quality.json", "verdict.json"])
        tracking.log_table(quality.to_frame(), "quality-table.json")
        record["metrics"] = {**quality.metrics(), "gan_passed": float(said.passed)}
        notes = [said.sentence, *said.reasons[1:], *said.not_judged]
        record["summary"] = {**said.model_dump(mode="json"), "notes": notes}

    result = perform(
        run,
        "judge",
        make,
        settings={
            **how.model_dump(mode="json", exclude={"override"}),
            "weights": weights_identity(how.weights),
            "near_duplicates": settings.data.near_duplicates.model_dump(mode="json"),
            "seed": settings.seed,
        },
        inputs=inputs,
        tags=dataset_tags(run, dataset),
    )
    summary = result["summary"]
    failed = [] if summary["passed"] else [summary["sentence"], *summary.get("reasons", [])[1:]]
    summary["warnings"] = [*failed, *summary.get("not_judged", [])]
    if how.override and gan["ref"] and not summary["passed"]:
        summary["passed"] = True
        summary["warnings"].append("The augmented arms were trained all the same, because judge.override is set.")
        tracking.client().set_tag(result["mlflow_run_id"], "cxr.verdict_overridden", summary["kind"])
    return result


def synthesize(run: RunContext, dataset: StepResult, gan: StepResult) -> StepResult:
    """Generate the synthetic set: packed images, and a manifest with their provenance."""
    settings = load_settings(run)
    from cxr_tasks.data.synthetic import counts_per_class

    # In the order of the classes that the GAN was trained with, which a table of counts need not keep.
    real = {label: dataset["summary"]["counts"]["train"][label] for label in settings.data.classes}
    counts = counts_per_class(settings.synthetic, real)
    how = settings.synthetic.model_dump(mode="json", exclude={"counts"})
    near = settings.data.near_duplicates

    def make(folder: Path, record: Record) -> None:
        import keras
        import numpy as np

        from cxr_tasks.data.dataset import load_images
        from cxr_tasks.data.filtering import keep
        from cxr_tasks.evaluation import figures
        from cxr_tasks.training.synthetic import class_probabilities, write_png
        from cxr_tasks.training.synthetic import synthesize as make_images

        models, classes = open_store().fetch(gan["ref"]), list(counts)
        made = make_images(
            keras.models.load_model(models / GENERATOR, compile=False), counts, settings.gan, settings.seed, gan["ref"]
        )
        probabilities = None
        if settings.synthetic.min_class_probability > 0:
            discriminator = keras.models.load_model(models / DISCRIMINATOR, compile=False)
            probabilities = class_probabilities(discriminator, made.pixels)
        training = load_images(dataset["ref"], "train", settings.gan.image_size, classes)
        kept = keep(made.pixels, made.labels, probabilities, training.pixels, classes, settings.synthetic, near)
        if not kept.mask.any():
            why = ", ".join(f"{number:,} {reason}" for reason, number in kept.counts.drop(columns="kept").sum().items())
            raise DataError(
                f"The synthetic set is empty ({why}): lower synthetic.min_class_probability, switch "
                "synthetic.drop_near_copies off, or ask for images with synthetic.counts."
            )
        pixels, rows = made.pixels[kept.mask], made.rows[kept.mask].reset_index(drop=True)
        np.save(folder / "pixels.npy", pixels)
        rows.to_parquet(folder / "manifest.parquet", index=False)
        kept.counts.to_csv(folder / "counts.csv")
        if settings.synthetic.png:
            write_png(pixels, rows, folder / "png")
        labels = made.labels[kept.mask]
        shown = np.concatenate([np.flatnonzero(labels == k)[:8] for k in range(len(classes))])
        figure = figures.sample_grid(
            pixels[shown], rows["label"].iloc[shown].tolist(), classes, "Synthetic set, first images"
        )
        (folder / "grid.png").write_bytes(figures.png_bytes(figure))
        tracking.log_figure(figure, "synthetic-set.png")
        dropped = kept.counts.drop(columns=["made", "kept"]).sum()
        notes = [f"dropped {number:,} synthetic images: {reason}" for reason, number in dropped.items() if number]
        record["summary"] = {
            "counts": {label: int(number) for label, number in kept.counts["kept"].items()},
            "dropped": {reason: int(number) for reason, number in dropped.items()},
            "notes": notes,
        }
        record["metrics"] = {"synthetic_images": len(pixels), "synthetic_dropped": int((~kept.mask).sum())}
        log_files(folder, ["manifest.parquet", "counts.csv"])

    return perform(
        run,
        "synthesize",
        make,
        settings={"counts": counts, "seed": settings.seed, **how, "near_duplicates": near.model_dump(mode="json")},
        inputs={"gan": gan},
        tags=dataset_tags(run, dataset),
    )
