"""Steps that make synthetic images: training the GAN, and drawing a set from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cxr_tasks import tracking
from cxr_tasks.execution import Record, RunContext, StepResult, is_forced, load_settings, perform
from cxr_tasks.steps.shared import dataset_tags, log_files
from cxr_tasks.store import artifact_ref, open_store


def train_gan(run: RunContext, dataset: StepResult) -> StepResult:
    """Train CovidGAN on the training split; a retry goes on from the last checkpoint."""
    settings = load_settings(run)
    gan = settings.gan.model_dump(mode="json")
    inputs: dict[str, StepResult | str] = {"dataset": dataset}
    # Progress is kept per settings and data, so a later run with the same ones goes on from it too.
    # Asked to be made anew, it shares no progress with anything before this run.
    anew = run["dag_run"] if is_forced(run, "train_gan", inputs) else ""
    unfinished = artifact_ref("train_gan", 1, {**gan, "seed": settings.seed}, {"dataset": dataset["ref"], "anew": anew})

    def make(folder: Path, record: Record) -> None:
        from cxr_tasks.data.dataset import check_gan_input, load_images
        from cxr_tasks.evaluation import figures
        from cxr_tasks.training.gan import GRID_PER_CLASS
        from cxr_tasks.training.gan import train_gan as train

        classes, store = list(settings.data.classes), open_store()
        images = load_images(dataset["ref"], "train", settings.gan.image_size, classes)
        check_gan_input(images)
        tracking.log_dataset(images.rows, "training images", dataset["summary"]["version"], "gan training")
        labels = [name for name in classes for _ in range(GRID_PER_CLASS)]

        def show(step: int, grid: Any) -> None:
            figure = figures.sample_grid(grid, labels, classes, f"Generated at step {step:,}")
            tracking.log_figure(figure, f"grids/step-{step:06d}.png")

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
            on_grid=tracking.forgiving(show),
        )
        trained.gan.generator.save(folder / "generator.keras")
        trained.gan.discriminator.save(folder / "discriminator.keras")
        trained.history.to_parquet(folder / "history.parquet", index=False)
        step, grid = max(trained.grids.items())
        (folder / "grid.png").write_bytes(
            figures.png_bytes(figures.sample_grid(grid, labels, classes, f"Generated at step {step:,}"))
        )
        record["curves"] = trained.history.drop(columns="epoch").to_dict("records")
        record["summary"] = {
            "steps": trained.steps,
            "epochs": settings.gan.epochs,
            "images": len(images),
            "resumed_from": trained.resumed_from,
        }
        record["metrics"] = {"gan_steps": trained.steps, "resumed_from_step": trained.resumed_from}

    result = perform(
        run, "train_gan", make, settings={**gan, "seed": settings.seed}, inputs=inputs, tags=dataset_tags(run, dataset)
    )
    open_store().drop_checkpoint(unfinished)
    return result


def synthesize(run: RunContext, dataset: StepResult, gan: StepResult) -> StepResult:
    """Generate the synthetic set: packed images, and a manifest with their provenance."""
    settings = load_settings(run)
    from cxr_tasks.data.synthetic import counts_per_class

    # In the order of the classes that the GAN was trained with, which a table of counts need not keep.
    real = {label: dataset["summary"]["counts"]["train"][label] for label in settings.data.classes}
    counts = counts_per_class(settings.synthetic, real)

    def make(folder: Path, record: Record) -> None:
        import keras
        import numpy as np

        from cxr_tasks.evaluation import figures
        from cxr_tasks.training.synthetic import synthesize as make_images

        generator = keras.models.load_model(open_store().fetch(gan["ref"]) / "generator.keras", compile=False)
        made = make_images(generator, counts, settings.gan, settings.seed, gan["ref"])
        np.save(folder / "pixels.npy", made.pixels)
        made.rows.to_parquet(folder / "manifest.parquet", index=False)
        shown = np.concatenate([np.flatnonzero(made.labels == k)[:8] for k in range(len(counts))])
        if len(shown):
            figure = figures.sample_grid(
                made.pixels[shown], made.rows["label"].iloc[shown].tolist(), list(counts), "Synthetic set, first images"
            )
            (folder / "grid.png").write_bytes(figures.png_bytes(figure))
            tracking.log_figure(figure, "synthetic-set.png")
        record["summary"] = {"counts": counts}
        record["metrics"] = {"synthetic_images": sum(counts.values())}
        log_files(folder, ["manifest.parquet"])

    return perform(
        run,
        "synthesize",
        make,
        settings={"counts": counts, "seed": settings.seed},
        inputs={"gan": gan},
        tags=dataset_tags(run, dataset),
    )
