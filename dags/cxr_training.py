"""### Training: does synthetic augmentation help on this dataset?

Trains CovidGAN on the training split, judges it, makes a synthetic set with it, and trains each classifier several
times on the same split: the **baseline** arm and the arms that are compared with it, for each seed. Where
`synthetic.source` is an address, no GAN is trained: the images there are judged, and the set is drawn from them.
Frozen backbones run once over each image (**features**); what needs no synthetic images trains at once, beside the
GAN. Images that are not good enough skip the arms with them. Controls wait to hear how many images the set
has. Each arm is compared with its baseline, and with its control, on the same real test images; the better one by
*validation* macro F1 becomes `challenger`, and `champion` if it passes the gate: the floors of the profile, and an
interval that says that it beats the present one. The report answers the question and says how sure the answer is.

Each set of `data.external` is read at once, without images that leak from training or validation. Every arm and the
champion are tested on it. Nothing is chosen by that, but a drop beyond the profile's limit keeps an arm from becoming
champion.

Where a part fails the rest goes on, and the report says what is missing and why. The last task, **finish**, then
fails the run, so that it does not pass for a complete one.

Starts when **cxr_data** publishes a dataset, on the schedule of `CXR_TRAINING_SCHEDULE`, or by hand. What was
made before from the same data and settings is taken as it is.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import AssetOrTimeSchedule, dag, task_group
from cxr_announced import announced_training
from cxr_gate import decide
from cxr_pages import LABEL
from cxr_wiring import (
    DATASET,
    OF_ALL,
    TRAINING_FORM,
    TRAINING_SCHEDULE,
    cron,
    finish,
    going_on,
    heavy,
    if_generated,
    if_good,
    if_imported,
    if_wanted,
    step,
)

from cxr_tasks import steps


@step(multiple_outputs=True)
def configure() -> dict[str, Any]:
    """Resolve settings once and find the dataset."""
    return announced_training()


@task_group
def gan(common: dict[str, Any]) -> dict[str, Any]:
    """Train the GAN or read what others have made, judge the images, and draw a synthetic set from them."""
    trained = if_generated(heavy(steps.train_gan, "gan", execution_timeout=timedelta(days=7)))(**common)
    read = if_imported(heavy(steps.import_synthetic, "reading"))(**common)
    made = {"gan": trained, "imported": read}
    made["judgement"] = if_wanted(heavy(steps.judge, "gan"))(**common, **made)
    return {**made, "synthetic": if_good(heavy(steps.synthesize, "gan"))(**common, **made)}


@task_group(group_id="features")
def extract_all(common: dict[str, Any], synthetic: Any) -> tuple[Any, ...]:
    """Run each frozen backbone once, over the dataset and over the synthetic set."""
    extract = heavy(steps.extract_features, "features", map_index_template=LABEL)
    backbones = step(steps.backbones)(common["run"])
    of_dataset = extract.override(task_id="of_dataset").partial(**common)
    of_synthetic = extract.override(task_id="of_synthetic").partial(**common, synthetic=synthetic)
    return of_dataset.expand(backbone=backbones), of_synthetic.expand(backbone=backbones)


@task_group(group_id="arms")
def train_all(common: dict[str, Any], synthetic: Any, features: tuple[Any, ...]) -> tuple[Any, ...]:
    """Train each classifier on each arm with each seed; what needs no synthetic images does not wait for them."""
    run, waiting = common["run"], {**common, "synthetic": synthetic, "features": list(features)}
    train = going_on(heavy(steps.train_arm, "arms", map_index_template=LABEL))
    leak = going_on(heavy(steps.reproduce_leak, "arms", map_index_template=LABEL))
    real = step(steps.arms, task_id="real")(run, False)
    with_real = train.override(task_id="train").partial(**common, features=[features[0]]).expand(arm=real)
    augmented = step(steps.arms, task_id="synthetic")(run, True)
    with_synthetic = train.override(task_id="train_with_synthetic").partial(**waiting).expand(arm=augmented)
    return with_real, with_synthetic, leak.partial(**waiting).expand(arm=step(steps.leaks)(run))


@task_group
def verdict(common: dict[str, Any], trained: list[Any], sets: Any, **made: Any) -> Any:
    """Compare each arm with baseline and control, show what they look at, promote the best, and write the report."""
    compare = going_on(step(steps.compare, map_index_template=LABEL))
    comparisons = compare.partial(**common, trained=trained).expand(pair=step(steps.pairs)(common["run"]))
    explain = going_on(heavy(steps.explain, "last", map_index_template=LABEL))
    compared = {**common, "comparisons": comparisons, "trained": trained}
    galleries = explain.partial(**common).expand(comparison=comparisons)
    # One at a time: each logs to the runs of the same arms.
    test = going_on(heavy(steps.evaluate_external, "last", map_index_template=LABEL, max_active_tis_per_dagrun=1))
    external = test.partial(**common, trained=trained).expand(external=sets)
    write_report = going_on(step(steps.write_report, told_failures=True))
    told = {**compared, "galleries": galleries, "external": external, **made}
    return write_report(**told, ruled=decide({**compared, "external": [external]}, write_report, told))


@dag(
    schedule=AssetOrTimeSchedule(timetable=cron(TRAINING_SCHEDULE), assets=[DATASET]) if TRAINING_SCHEDULE else DATASET,
    params=TRAINING_FORM,
    doc_md=__doc__,
    **OF_ALL,
)
def cxr_training() -> None:
    """Wire the groups."""
    plan = configure()
    common = {"run": plan["run"], "dataset": plan["dataset"]}
    # At once: a set that cannot be read is known before hours of training, and costs its own branch alone.
    read = heavy(steps.read_external, "reading", map_index_template=LABEL)
    sets = read.partial(**common).expand(name=step(steps.external_sets)(plan["run"]))
    made = gan(common)
    extracted = extract_all(common, made["synthetic"])
    *trained, leaks = train_all(common, made["synthetic"], extracted)
    verdict(common, trained, sets, features=list(extracted), leaks=leaks, **made) >> finish()


cxr_training()
