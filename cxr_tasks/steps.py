"""One function for each task of the DAGs: results of earlier steps in, one result out.

The only module that DAGs call. Heavy libraries are imported inside the functions, so that importing this
file costs nothing; see :mod:`cxr_tasks.execution` for what a result holds and when a step is skipped.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cxr_tasks import tracking
from cxr_tasks.config import DISPLAY_NAMES, Settings, merge, resolve
from cxr_tasks.errors import DataError, SettingsError
from cxr_tasks.execution import Record, RunContext, StepResult, is_forced, load_settings, perform
from cxr_tasks.store import artifact_ref, open_store

log = logging.getLogger(__name__)

# Lines that a step may say to the person at the terminal; the rest is in its log and its artifact.
NOTES = 5


def form_overrides(form: Mapping[str, Any]) -> dict[str, Any]:
    """Settings from the fields of the trigger form that were filled in; its ``settings`` field has the last word."""
    overrides: dict[str, Any] = {}
    if form.get("classifiers"):
        overrides = merge(overrides, {"classifiers": {"names": form["classifiers"]}})
    if form.get("seeds"):
        overrides = merge(overrides, {"classifiers": {"seeds": form["seeds"]}})
    if form.get("gan_epochs"):
        overrides = merge(overrides, {"gan": {"epochs": form["gan_epochs"]}})
    if form.get("synthetic_per_class") is not None:
        classes = resolve(form["profile"]).data.classes
        counts = dict.fromkeys(classes, form["synthetic_per_class"])
        overrides = merge(overrides, {"synthetic": {"counts": counts}})
    return merge(overrides, form.get("settings") or {})


def configure(dag: str, dag_run: str, form: Mapping[str, Any]) -> RunContext:
    """Resolve the settings once, keep them, and open the MLflow run that holds the DAG run's steps.

    Raises:
        SettingsError: the profile or an override is wrong.
    """
    settings = resolve(form["profile"], form_overrides(form))
    values = settings.model_dump(mode="json")
    store = open_store()
    ref = artifact_ref("settings", 1, values, {})
    if store.record(ref) is None:
        with store.publish(ref, {"step": "settings"}) as folder:
            (folder / "settings.json").write_text(json.dumps(values), encoding="utf-8")

    experiment = tracking.experiment_id(dag)
    parent = tracking.find_or_create(
        experiment,
        dag_run,
        {tracking.TAG_DAG_RUN: dag_run, tracking.TAG_WORK: "dag run", tracking.TAG_ARTIFACT: ref},
        {"cxr.profile": settings.profile},
    )
    server = tracking.client()
    for name, value in settings.flat().items():
        if value not in (None, ""):
            server.log_param(parent.info.run_id, name, value)
    server.log_text(parent.info.run_id, settings.to_yaml(), "settings.yaml")
    return RunContext(
        dag_run=dag_run,
        settings=ref,
        force=list(form.get("force") or []),
        experiment_id=experiment,
        mlflow_run_id=parent.info.run_id,
        url=tracking.run_url(experiment, parent.info.run_id),
    )


# --- data -------------------------------------------------------------------------------------------------


def ingest(run: RunContext, source: str) -> StepResult:
    """Read the source: manifest, packed pixels, rejects."""
    from cxr_tasks.data.ingest import ingest as ingest_images
    from cxr_tasks.data.sources import list_folder

    settings = load_settings(run)
    if not source:
        raise SettingsError("No data source is given: name a folder in the field source, or set CXR_SOURCE.")
    listing = list_folder(source, settings.data.classes)
    fingerprint = listing.fingerprint()
    sizes = sorted({settings.classifiers.image_size, settings.gan.image_size})

    def make(folder: Path, record: Record) -> None:
        manifest, rejects = ingest_images(listing, sizes, folder)
        aside = [f"set aside {row.path}: {row.reason}" for row in rejects.itertuples()]
        for line in aside:
            log.warning(line)
        record["summary"] = {
            "source": str(listing.root),
            "fingerprint": fingerprint,
            "images": len(manifest),
            "rejected": len(rejects),
            "notes": aside[:NOTES]
            + [f"and {len(aside) - NOTES} more, listed in rejects.parquet"] * (len(aside) > NOTES),
            **{f"images {label}": int((manifest["label"] == label).sum()) for label in settings.data.classes},
        }
        record["metrics"] = {"images": len(manifest), "rejected": len(rejects)}
        _log_files(folder, ["manifest.parquet", "rejects.parquet"])

    return perform(
        run,
        "ingest",
        make,
        settings={"classes": list(settings.data.classes), "sizes": sizes},
        inputs={"source": fingerprint},
    )


def validate(run: RunContext, ingested: StepResult) -> StepResult:
    """Hold the manifest against the expectations; critical ones stop the run.

    Raises:
        DataError: with every critical expectation that was not met.
    """
    import pandas as pd

    from cxr_tasks.data import expectations

    settings = load_settings(run)
    data = settings.data.model_dump(mode="json", exclude={"split"})

    def make(folder: Path, record: Record) -> None:
        import mlflow

        read = open_store().fetch(ingested["ref"])
        manifest, rejects = (pd.read_parquet(read / name) for name in ("manifest.parquet", "rejects.parquet"))
        outcome = expectations.validate(manifest, rejects, settings.data, folder)
        # Kept with the run before anything is raised: the page is most wanted when validation fails.
        mlflow.log_artifacts(str(folder / "data-docs"), "data-docs")
        docs = tracking.artifact_url(run["experiment_id"], mlflow.active_run().info.run_id, expectations.DOCS_PAGE)
        for warning in outcome.warnings:
            log.warning("Expectation not met (warning): %s", warning)
        if outcome.failures:
            raise DataError(
                f"The data do not pass validation: {'; '.join(outcome.failures)}. "
                f"Rejected files and their reasons: {read / 'rejects'}, {read / 'rejects.parquet'}."
            )
        record["summary"] = {
            "expectations": outcome.expectations,
            "warnings": outcome.warnings,
            "notes": [f"warning: {warning}" for warning in outcome.warnings],
            "data_docs": docs,
            "report": docs,
        }
        record["metrics"] = {"expectations": outcome.expectations, "expectation_warnings": len(outcome.warnings)}

    return perform(run, "validate", make, settings=data, inputs={"ingest": ingested})


def split(run: RunContext, ingested: StepResult, validated: StepResult) -> StepResult:
    """Give every image its split; the result is the dataset that training works from."""
    import pandas as pd

    from cxr_tasks.data.split import assign

    settings, store = load_settings(run), open_store()
    how = {**settings.data.split.model_dump(mode="json"), "seed": settings.seed}
    ledger_name = artifact_ref("splits", 1, how, {})
    ledger: dict[str, str] = store.read_pointer(ledger_name) or {}
    manifest = pd.read_parquet(store.fetch(ingested["ref"]) / "manifest.parquet")
    manifest["split"] = assign(manifest, settings.data.split, settings.seed, ledger)
    assignment = dict(zip(manifest["image_id"], manifest["split"], strict=True))

    def make(folder: Path, record: Record) -> None:
        manifest.to_parquet(folder / "manifest.parquet", index=False)
        table = manifest.groupby(["split", "label"]).size().unstack(fill_value=0)
        record["summary"] = {
            "version": artifact_ref("dataset", 1, assignment, {}).split("/")[1],
            "source": ingested["summary"]["source"],
            "counts": {
                name: {label: int(table.at[name, label]) for label in settings.data.classes}
                for name in ("train", "validation", "test")
            },
        }
        record["metrics"] = {f"{name}_images": int(table.loc[name].sum()) for name in table.index}
        _log_files(folder, ["manifest.parquet"])

    # The assignment is cheap to make and depends on what was assigned before, so it is itself the key:
    # the same images in the same splits are the same dataset.
    result = perform(run, "split", make, settings=how, inputs={"ingest": ingested, "assignment": _digest(assignment)})
    # Of this run's validation: the split does not depend on it.
    result["summary"] |= {key: validated["summary"][key] for key in ("warnings", "data_docs")}
    if settings.data.split.method == "stable" and not assignment.items() <= ledger.items():
        store.write_pointer(ledger_name, ledger | assignment)
    return result


def publish(run: RunContext, dataset: StepResult) -> StepResult | None:
    """Make ``dataset`` the newest one of these settings; ``None`` if it is that already."""
    store, name = open_store(), _dataset_pointer(load_settings(run))
    tracking.end_run(run["mlflow_run_id"])
    before = store.read_pointer(name)
    # A try of this very run that was killed before Airflow heard of it has announced nothing.
    if before and before["dataset"]["ref"] == dataset["ref"] and before["dag_run"] != run["dag_run"]:
        return None
    # Made anew or not, to a later run it is a dataset like any other.
    published = StepResult(**{**dataset, "forced": False})
    store.write_pointer(name, {"dataset": published, "dag_run": run["dag_run"]})
    return published


def newest_dataset(run: RunContext) -> StepResult:
    """The dataset that was published last for these settings.

    Raises:
        DataError: there is none yet.
    """
    settings = load_settings(run)
    found = open_store().read_pointer(_dataset_pointer(settings))
    if found is None:
        raise DataError(
            f"No dataset has been prepared with the data settings of profile {settings.profile!r}: "
            "run cxr_data with this profile first."
        )
    return found["dataset"]


def pairs(run: RunContext) -> list[dict[str, Any]]:
    """One entry for each classifier and seed; the DAG maps over them."""
    chosen = load_settings(run).classifiers
    return [{"classifier": name, "seed": seed} for seed in chosen.seeds for name in chosen.names]


# --- synthetic images -------------------------------------------------------------------------------------


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
        from cxr_tasks.data.dataset import load_images
        from cxr_tasks.evaluation import figures
        from cxr_tasks.training.gan import GRID_PER_CLASS
        from cxr_tasks.training.gan import train_gan as train

        classes, store = list(settings.data.classes), open_store()
        images = load_images(dataset["ref"], "train", settings.gan.image_size, classes)
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
        run, "train_gan", make, settings={**gan, "seed": settings.seed}, inputs=inputs, tags=_tags(run, dataset)
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
        _log_files(folder, ["manifest.parquet"])

    return perform(
        run,
        "synthesize",
        make,
        settings={"counts": counts, "seed": settings.seed},
        inputs={"gan": gan},
        tags=_tags(run, dataset),
    )


# --- classifiers ------------------------------------------------------------------------------------------


def train_arm(
    run: RunContext, dataset: StepResult, pair: Mapping[str, Any], role: str, synthetic: StepResult | None = None
) -> StepResult:
    """Train one arm of a pair and keep its model, its predictions and its curves.

    Args:
        role: ``baseline`` or ``augmented``; the settings say which augmentation that is.
        synthetic: the synthetic set, for arms that train with one.
    """
    settings = load_settings(run)
    arm = getattr(settings.pair, role)
    name, seed = pair["classifier"], pair["seed"]
    classical, needs_synthetic = arm in ("classical", "both"), arm in ("synthetic", "both")
    if needs_synthetic and synthetic is None:
        raise SettingsError(f"The {role} arm trains on synthetic images ({arm}) but was given none.")
    chosen = settings.classifiers.model_dump(mode="json", exclude={"names", "seeds", "weights"})
    inputs: dict[str, StepResult | str] = {"dataset": dataset}
    if not needs_synthetic:
        synthetic = None
    elif synthetic is not None:
        inputs["synthetic"] = synthetic

    def make(folder: Path, record: Record) -> None:
        from cxr_tasks.training.arm import fit_and_save

        fit_and_save(settings, dataset, synthetic, name, role, arm, seed, folder, record)

    result = perform(
        run,
        "train_arm",
        make,
        settings={
            "classifier": name,
            "arm": arm,
            "seed": seed,
            "weights": weights_identity(settings.classifiers.weights.get(name)),
            "weights_seed": settings.seed,
            **chosen,
            "augmentation": settings.augmentation.model_dump(mode="json") if classical else "none",
        },
        inputs=inputs,
        label=f"{name} {role} seed {seed}",
        tags=_tags(run, dataset) | {"cxr.classifier": name, "cxr.role": role, "cxr.arm": arm, "cxr.seed": str(seed)},
    )
    result["summary"]["role"] = role
    return result


def weights_identity(weights: str | None) -> str:
    """What tells backbone weights apart: the word, or the content of the file, whatever its name."""
    if weights is None or weights in ("imagenet", "random") or not Path(weights).is_file():
        return weights or "none"
    with Path(weights).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def compare(
    run: RunContext, dataset: StepResult, pair: Mapping[str, Any], baseline: StepResult, augmented: StepResult
) -> StepResult:
    """Compare the two arms of a pair on the same real test images, from their saved predictions."""
    settings = load_settings(run)
    name, seed = pair["classifier"], pair["seed"]
    label = DISPLAY_NAMES[name] + (f", seed {seed}" if len(settings.classifiers.seeds) > 1 else "")

    def make(folder: Path, record: Record) -> None:
        import mlflow
        import numpy as np
        import pandas as pd

        from cxr_tasks.evaluation import comparison, figures, metrics

        store, classes = open_store(), list(settings.data.classes)
        folders = {"baseline": store.fetch(baseline["ref"]), "augmented": store.fetch(augmented["ref"])}
        tables = {role: pd.read_parquet(path / "predictions.parquet") for role, path in folders.items()}
        histories = {role: pd.read_parquet(path / "history.parquet") for role, path in folders.items()}
        result = comparison.compare(
            tables["baseline"],
            tables["augmented"],
            classes,
            name=label,
            bootstrap_samples=settings.evaluation.bootstrap_samples,
            confidence=settings.evaluation.confidence,
            seed=settings.seed,
        )
        log.info(result.sentence)
        curves = figures.learning_curves(histories, f"{label}: training")
        (folder / "comparison.json").write_text(result.model_dump_json(indent=2), encoding="utf-8")
        (folder / "curves.png").write_bytes(figures.png_bytes(curves))
        tracking.log_figure(curves, "curves.png")
        tracking.log_figure(
            figures.confusion_matrices(
                np.array(result.baseline_confusion),
                np.array(result.augmented_confusion),
                classes,
                f"{label}: test images",
            ),
            "confusion.png",
        )
        for role, table in tables.items():
            per_class = metrics.per_class_table(table[table["split"] == "test"], classes)
            tracking.log_table(per_class.reset_index(names="class"), f"{role}-per-class.json")
        mlflow.log_dict(result.to_dict(), "comparison.json")
        record["metrics"] = {
            "macro_f1_difference": result.macro_f1_difference,
            "macro_f1_difference_low": result.macro_f1_low,
            "macro_f1_difference_high": result.macro_f1_high,
            "accuracy_difference": result.accuracy_difference,
            "mcnemar_p": result.mcnemar_p,
        }
        record["summary"] = {"verdict": result.verdict, "notes": [result.sentence]}

    result = perform(
        run,
        "compare",
        make,
        settings={**settings.evaluation.model_dump(mode="json"), "seed": settings.seed, "name": label},
        inputs={"baseline": baseline, "augmented": augmented},
        label=f"{name} seed {seed}",
        tags=_tags(run, dataset) | {"cxr.classifier": name, "cxr.seed": str(seed)},
    )
    result["summary"] |= {"pair": dict(pair), "baseline": baseline, "augmented": augmented}
    return result


def promote(run: RunContext, dataset: StepResult, comparisons: Sequence[StepResult]) -> StepResult:
    """Register the better arm of each classifier, and of all, by validation macro F1."""
    from cxr_tasks.registry import promote_best

    return promote_best(run, dataset, list(comparisons), load_settings(run).data.classes)


def report(
    run: RunContext,
    dataset: StepResult,
    gan: StepResult,
    synthetic: StepResult,
    comparisons: Sequence[StepResult],
    promoted: StepResult,
) -> StepResult:
    """Write the run's report and keep it with the run in MLflow."""
    from cxr_tasks.reporting import write_report

    return write_report(run, dataset, gan, synthetic, list(comparisons), promoted)


# --- shared -----------------------------------------------------------------------------------------------


def _tags(run: RunContext, dataset: StepResult) -> dict[str, str]:
    return {"cxr.dataset": dataset["summary"]["version"], "cxr.profile": load_settings(run).profile}


def _digest(assignment: Mapping[str, str]) -> str:
    return artifact_ref("assignment", 1, assignment, {})


def _dataset_pointer(settings: Settings) -> str:
    sizes = sorted({settings.classifiers.image_size, settings.gan.image_size})
    data = settings.data.model_dump(mode="json")
    return artifact_ref("datasets", 1, {**data, "sizes": sizes, "seed": settings.seed}, {})


def _log_files(folder: Path, names: Sequence[str]) -> None:
    import mlflow

    for name in names:
        mlflow.log_artifact(str(folder / name))
