"""The step ``train_gan``: train CovidGAN on the training split, from its last checkpoint on."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxr_tasks import progress, tracking
from cxr_tasks.artifacts import Artifact, Dataset, Gan, RunContext
from cxr_tasks.config import Settings
from cxr_tasks.errors import in_one_line
from cxr_tasks.outages import is_passing, patience
from cxr_tasks.pipeline import Made, Postponed, is_forced, load_settings, perform
from cxr_tasks.steps.common import dataset_tags, log_images
from cxr_tasks.store import Store, artifact_ref, open_store

if TYPE_CHECKING:
    from cxr_tasks.data.dataset import Images
    from cxr_tasks.gan.training import FittedGan

log = logging.getLogger(__name__)

# In a training's folder of checkpoints: the DAG run that asked to make it anew.
ANEW = "anew.txt"
# How a training is cut into sittings, calls and checkpoints changes nothing of what comes out.
MANNER = {"max_hours", "steps_per_call", "checkpoint_seconds", "keep_checkpoints"}


def train_gan(run: RunContext, dataset: Dataset) -> Gan:
    """Train CovidGAN on the training split.

    A retry, or a run after the hours were used up, goes on from the last checkpoint.
    """
    settings = load_settings(run)
    made_with = {**settings.gan.model_dump(mode="json", exclude=MANNER), "seed": settings.seeds.gan}
    inputs: dict[str, Artifact | str] = {"dataset": dataset}
    # Progress is kept per settings and data, so a later run with the same ones goes on from it too.
    unfinished = artifact_ref(Gan.step, 1, made_with, {"dataset": dataset.ref})
    if _start_anew(unfinished, run.dag_run if is_forced(run, Gan.step, inputs) else ""):
        run = run.model_copy(update={"force": (*run.force, Gan.step)})

    def fill(folder: Path) -> Made[Gan]:
        from cxr_tasks.classifiers.training import weights_digest
        from cxr_tasks.data.dataset import check_gan_input

        classes = list(settings.data.classes)
        images = dataset.images("train", settings.gan.image_size, classes)
        check_gan_input(images)
        log_images(images.rows, "training images: real", "gan training")
        trained = _fit(settings, images, unfinished)
        gan = Gan(
            finished=trained.finished,
            steps=trained.steps,
            epochs=settings.gan.epochs,
            images=len(images),
            resumed_from=trained.resumed_from,
            hours=round(trained.hours, 3),
        )
        if not trained.finished:
            state = (
                f"The GAN's training stands at step {trained.steps:,} of {trained.total_steps:,} after "
                f"{trained.hours:.1f} hours: the next run goes on from there."
            )
            raise Postponed(gan.model_copy(update={"state": state}), state)
        _save_gan(trained, classes, folder)
        digests = [weights_digest(network) for network in (trained.generator, trained.gan.discriminator)]
        gan = gan.model_copy(update={"weights_digest": "-".join(digests)})
        metrics = {
            "gan_steps": trained.steps,
            "resumed_from_step": trained.resumed_from,
            "gan_hours": trained.hours,
        }
        return Made(gan, metrics, trained.history.drop(columns="epoch").to_dict("records"))

    gan = perform(run, Gan, fill, version=2, settings=made_with, inputs=inputs, tags=dataset_tags(run, dataset))
    if gan.finished:
        with patience():
            open_store().drop_checkpoint(unfinished)
    return gan


def _fit(settings: Settings, images: Images, unfinished: str) -> FittedGan:
    """Train from the last checkpoint on, with pictures and curves in MLflow."""
    from cxr_tasks.gan.extractor import Extractor
    from cxr_tasks.gan.training import fit_gan

    store, classes = open_store(), list(settings.data.classes)
    if settings.judge.weights != "random":
        # Weights that cannot be had are to be known before days of training and not after.
        Extractor(settings.judge, images.pixels, settings.seeds.judge)

    def on_epoch(step: int, metrics: dict[str, float]) -> None:
        tracking.log_metrics(metrics, step)

    def on_grid(step: int, grid: Any) -> None:
        tracking.log_figure(_plot(step, grid, classes), f"grids/step-{step:06d}.png")

    keeper = _CheckpointKeeper(store, unfinished)
    trained = fit_gan(
        images.pixels,
        images.labels,
        len(classes),
        settings.gan,
        settings.seeds.gan,
        store.load_checkpoint(unfinished),
        on_checkpoint=keeper,
        on_epoch=on_epoch,
        on_grid=on_grid,
        on_steps=lambda done, total: progress.advance("GAN training", done, total),
    )
    if not trained.finished:
        keeper.catch_up()
    return trained


class _CheckpointKeeper:
    """Copies each checkpoint to the store; a store that is away for a while ends no training of days."""

    def __init__(self, store: Store, unfinished: str) -> None:
        self.store, self.unfinished = store, unfinished
        self.is_behind = False

    def __call__(self) -> None:
        """Copy the checkpoints that there are now, or leave that to the next time."""
        try:
            self.store.save_checkpoint(self.unfinished)
            self.is_behind = False
        except Exception as error:
            if not is_passing(error):
                raise
            self.is_behind = True
            log.warning(
                "The checkpoint is on this machine only, and goes to the store with the next one: %s",
                in_one_line(error),
            )

    def catch_up(self) -> None:
        """Wait for the store, if the last checkpoint is not there: another machine may go on from it."""
        if self.is_behind:
            with patience():
                self.store.save_checkpoint(self.unfinished)


def _save_gan(trained: FittedGan, classes: list[str], folder: Path) -> None:
    from cxr_tasks.evaluation.plots import png_bytes
    from cxr_tasks.gan.watch import animation

    trained.generator.save(folder / Gan.GENERATOR)
    trained.gan.discriminator.save(folder / Gan.DISCRIMINATOR)
    trained.history.to_parquet(folder / Gan.HISTORY, index=False)
    step, grid = max(trained.grids.items())
    (folder / Gan.GRID).write_bytes(png_bytes(_plot(step, grid, classes)))
    (folder / Gan.ANIMATION).write_bytes(animation(trained.grids))
    tracking.log_file(folder / Gan.ANIMATION)


def _plot(step: int, grid: Any, classes: list[str]) -> Any:
    from cxr_tasks.evaluation.plots import sample_grid
    from cxr_tasks.gan.watch import GRID_PER_CLASS

    labels = [name for name in classes for _ in range(GRID_PER_CLASS)]
    return sample_grid(grid, labels, classes, f"Generated at step {step:,}")


def _start_anew(unfinished: str, asked_by: str) -> bool:
    """Whether a training is under way that does not count what was made before.

    Args:
        unfinished: Where the progress is kept.
        asked_by: The DAG run that is to make the GAN anew, or ''. Its first try gives up what progress there is; its
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
