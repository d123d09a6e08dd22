"""The step ``train_gan``: train CovidGAN on the training split, from its last checkpoint on."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxr_tasks import progress, tracking
from cxr_tasks.artifacts import Artifact, Dataset, Gan, RunContext
from cxr_tasks.config import Settings
from cxr_tasks.pipeline import Made, Postponed, load_settings, perform
from cxr_tasks.precision import gan_in_bfloat16
from cxr_tasks.steps.common import MANNER, log_images, tell_setbacks, training_run
from cxr_tasks.steps.unfinished import Unfinished, asked_by, needs_of
from cxr_tasks.store import artifact_ref, open_store

if TYPE_CHECKING:
    from cxr_tasks.data.dataset import Images
    from cxr_tasks.gan.training import FittedGan

# The step under which the store shows the state that a finished training ended with.
GAN_STATE = "gan_state"


def train_gan(run: RunContext, dataset: Dataset) -> Gan:
    """Train CovidGAN on the training split.

    A retry, or a run after the hours were used up, goes on from the last checkpoint.
    """
    settings = load_settings(run)
    made_with = {**settings.gan.model_dump(mode="json", exclude=MANNER), "seed": settings.seeds.gan}
    made_with["mixed_precision"] = gan_in_bfloat16(settings.gan.mixed_precision)
    inputs: dict[str, Artifact | str] = {"dataset": dataset}
    lineage = _Lineage(made_with, dataset)
    unfinished = Unfinished(
        lineage.unfinished, "the training of the GAN", asked_by(run, Gan, inputs), needs_of(run, inputs)
    )

    def fill(folder: Path) -> Made[Gan]:
        from cxr_tasks.classifiers.training import weights_digest
        from cxr_tasks.data.dataset import check_gan_input

        classes = list(settings.data.classes)
        images = dataset.images("train", settings.gan.image_size, classes)
        check_gan_input(images)
        log_images(images.rows, "training images: real", "gan training")
        checkpoints = unfinished.folder()
        if not unfinished.anew:
            lineage.take_state(checkpoints, settings.gan.epochs)
        trained = _fit(settings, images, checkpoints, unfinished)
        gan = Gan(
            finished=trained.finished,
            steps=trained.steps,
            epochs=settings.gan.epochs,
            images=len(images),
            resumed_from=trained.resumed_from,
            hours=round(trained.hours, 3),
            notes=trained.setbacks,
        )
        tell_setbacks(trained.setbacks)
        if not trained.finished:
            state = (
                f"The GAN's training stands at step {trained.steps:,} of {trained.total_steps:,} after "
                f"{trained.hours:.1f} hours: the next run goes on from there."
            )
            raise Postponed(gan.model_copy(update={"state": state}), state)
        _save_gan(trained, classes, folder)
        digests = [weights_digest(network) for network in (trained.generator, trained.gan.discriminator)]
        gan = gan.model_copy(update={"weights_digest": "-".join(digests)})
        if trained.checkpoints is not None:
            lineage.keep_state(trained.checkpoints, settings.gan.epochs, anew=unfinished.anew)
        unfinished.end(trained.checkpoints)
        metrics = {
            "gan_steps": trained.steps,
            "resumed_from_step": trained.resumed_from,
            "gan_hours": trained.hours,
        }
        return Made(gan, metrics, trained.history.drop(columns="epoch").to_dict("records"))

    return perform(
        unfinished.forced(run, Gan.step),
        Gan,
        fill,
        version=2,
        settings=made_with,
        inputs=inputs,
        training=training_run(run, dataset, "GAN"),
        around=unfinished.alone,
        answered=unfinished.answered,
    )


class _Lineage:
    """All trainings that differ only in how many epochs they have: a longer one goes on from a shorter one's state.

    Attributes:
        unfinished: Names their progress.
        state: Reference of the state that the longest finished one of them ended with.
    """

    def __init__(self, made_with: dict[str, Any], dataset: Dataset) -> None:
        """Note what the trainings have in common."""
        shared = {name: value for name, value in made_with.items() if name != "epochs"}
        self._record = {"step": GAN_STATE, "settings": shared, "inputs": {"dataset": dataset.ref}}
        self.unfinished = artifact_ref(Gan.step, 1, shared, {"dataset": dataset.ref})
        self.state = artifact_ref(GAN_STATE, 1, shared, {"dataset": dataset.ref})

    def take_state(self, checkpoints: Path, epochs: int) -> None:
        """Put the state of a finished training into ``checkpoints``, if it is further and at most at ``epochs``."""
        from cxr_tasks.checkpoints import checkpoint_numbers, files_of_checkpoint

        there = open_store().take(self.state)
        newest = max(checkpoint_numbers(checkpoints), default=0)
        if there is None or there["epochs"] > epochs or there["number"] <= newest:
            return
        files = files_of_checkpoint(open_store().fetch(self.state), there["number"])
        # Without a list of checkpoints each counts that has an index: that one goes last.
        (checkpoints / "checkpoint").unlink(missing_ok=True)
        for path in sorted(files, key=lambda path: path.suffix == ".index"):
            aside = checkpoints / f"aside-{path.name}"
            shutil.copyfile(path, aside)
            os.replace(aside, checkpoints / path.name)

    def keep_state(self, checkpoints: Path, epochs: int, *, anew: bool) -> None:
        """Publish the newest checkpoint in the place of that of a shorter training; ``anew``: of any."""
        from cxr_tasks.checkpoints import checkpoint_numbers, files_of_checkpoint

        store, number = open_store(), max(checkpoint_numbers(checkpoints), default=0)
        there = store.take(self.state)
        if not number or (there is not None and there["epochs"] >= epochs and not anew):
            return
        record = {**self._record, "epochs": epochs, "number": number}
        with store.publish(self.state, record, replace=True) as folder:
            for path in files_of_checkpoint(checkpoints, number):
                shutil.copyfile(path, folder / path.name)


def _fit(settings: Settings, images: Images, checkpoints: Path, unfinished: Unfinished) -> FittedGan:
    """Train from the last checkpoint on, with pictures and curves in MLflow."""
    from cxr_tasks.gan.extractor import Extractor
    from cxr_tasks.gan.training import fit_gan

    classes = list(settings.data.classes)
    if settings.judge.weights != "random":
        # Weights that cannot be had are to be known before days of training and not after.
        Extractor(settings.judge, images.pixels, settings.seeds.judge, settings.data.resize)

    def on_epoch(step: int, metrics: dict[str, float]) -> None:
        tracking.log_metrics(metrics, step)

    def on_grid(step: int, grid: Any) -> None:
        tracking.log_figure(_plot(step, grid, classes), f"{Gan.GRIDS}/step-{step:06d}.png")

    trained = fit_gan(
        images.pixels,
        images.labels,
        len(classes),
        settings.gan,
        settings.seeds.gan,
        checkpoints,
        on_checkpoint=unfinished.save,
        on_epoch=on_epoch,
        on_grid=on_grid,
        on_steps=lambda done, total: progress.advance("GAN training", done, total),
    )
    if not trained.finished:
        unfinished.catch_up()
    return trained


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
