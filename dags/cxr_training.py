"""
### Training: does synthetic augmentation help on this dataset?

Trains CovidGAN on the training split, judges it, makes a synthetic set with it, and trains each classifier several
times on the same split: the **baseline** arm and the arms that are compared with it, for each seed. Frozen
backbones run once over each image (**features**); what needs no synthetic images trains at once, beside the GAN,
and a GAN that is not good enough skips the rest. Each arm is compared with its baseline on the same real test
images; the better one by *validation* macro F1 becomes `challenger`, and `champion` if it beats the present one. The
report answers the question and says how sure the answer is.

Starts when **cxr_data** publishes a dataset, on the schedule of `CXR_TRAINING_SCHEDULE`, or by hand. What was
made before from the same data and settings is taken as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import wraps
from typing import Any

from airflow.sdk import AssetOrTimeSchedule, Param, dag, get_current_context
from airflow.sdk.exceptions import AirflowSkipException

from cxr_steps import step
from cxr_tasks import steps
from dags.cxr_common import DATASET, DEFAULT_ARGS, FORM, TRAINING_SCHEDULE, cron

ON_GPU = {"executor": "gpu", "queue": "gpu", "pool": "gpu"}
# Where the GAN is not wanted or not good enough its arms are skipped, and the rest goes on.
WITHOUT_SKIPPED = "none_failed"
ARM_NAME = "{{ task.op_kwargs.arm.classifier }} {{ task.op_kwargs.arm.arm }} seed {{ task.op_kwargs.arm.seed }}"
PAIR_NAME = ARM_NAME.replace("kwargs.arm", "kwargs.pair")
BACKBONE = "{{ task.op_kwargs.backbone }}"
DAYS = timedelta(days=2)
COMPARED = "{{ task.op_kwargs.comparison.summary.name }}"
VERSION = Param(
    None,
    type=["null", "string"],
    title="Dataset",
    description="A version that cxr_data has published. Empty: the newest of the profile's data settings.",
)


@step(multiple_outputs=True)
def configure() -> dict:
    """Resolve settings once and find the dataset."""
    context = get_current_context()
    form, dataset = dict(context["params"]), None
    events = context["triggering_asset_events"].get(DATASET) or []
    # An event that somebody made by hand says nothing: then it is the newest dataset, as without an event.
    if told := [event for event in events if "dataset" in event.extra]:
        newest = max(told, key=lambda event: event.timestamp).extra
        form, dataset = {**form, **newest["form"]}, newest["dataset"]
    run = steps.configure("cxr_training", context["run_id"], form)
    return {"run": run, "dataset": dataset or steps.find_dataset(run, form.get("dataset") or "")}


@step(**ON_GPU, execution_timeout=timedelta(days=7))
def train_gan(run: dict, dataset: dict) -> dict:
    """Train CovidGAN, unless no arm of the run asks for synthetic images."""
    if not steps.wants_synthetic(run):
        raise AirflowSkipException("No arm of this run trains with synthetic images.")
    return steps.train_gan(run, dataset)


@step(**ON_GPU)
def synthesize(run: dict, dataset: dict, gan: dict, judged: dict) -> dict:
    """Generate the synthetic set, unless the GAN was judged not good enough."""
    if not judged["summary"]["passed"]:
        raise AirflowSkipException(judged["summary"]["sentence"])
    return steps.synthesize(run, dataset, gan)


def if_synthetic(function: Callable) -> Callable:
    """A step that trains with synthetic images, skipped where there are none."""

    @wraps(function)
    def task(run: dict, dataset: dict, arm: dict, synthetic: dict | None, features: list) -> dict:
        if synthetic is None:
            raise AirflowSkipException("There is no synthetic set to train with; the task judge says why.")
        return function(run, dataset, arm, synthetic, features)

    return task


@dag(
    dag_id="cxr_training",
    schedule=AssetOrTimeSchedule(timetable=cron(TRAINING_SCHEDULE), assets=[DATASET]) if TRAINING_SCHEDULE else DATASET,
    catchup=False,
    is_paused_upon_creation=False,
    params={"dataset": VERSION, **FORM},
    default_args=DEFAULT_ARGS,
    doc_md=__doc__,
    tags=["cxr"],
)
def cxr_training() -> None:
    """Wire the steps."""
    plan = configure()
    run, dataset = plan["run"], plan["dataset"]
    common = {"run": run, "dataset": dataset}

    def training(task_id: str, function: Callable, name: str, **given: object) -> Any:
        kind = {"pool": "training", "execution_timeout": DAYS, "trigger_rule": WITHOUT_SKIPPED}
        return step(task_id=task_id, map_index_template=name, **kind)(function).partial(**common, **given)

    gan = train_gan(run, dataset)
    judged = step(**ON_GPU)(steps.judge)(run, dataset, gan)
    synthetic = synthesize(run, dataset, gan, judged)

    backbones = step(steps.backbones)(run)
    extract = step(pool="training", map_index_template=BACKBONE, execution_timeout=DAYS)(steps.extract_features)
    features = extract.override(task_id="features").partial(**common).expand(backbone=backbones)
    of_synthetic = extract.override(task_id="synthetic_features").partial(**common, synthetic=synthetic)
    of_synthetic = of_synthetic.expand(backbone=backbones)

    waiting, arms = {"synthetic": synthetic, "features": [features, of_synthetic]}, step(steps.arms)
    with_real = training("train", steps.train_arm, ARM_NAME, features=[features]).expand(arm=arms(run, False))
    with_synthetic = training("train_with_synthetic", if_synthetic(steps.train_arm), ARM_NAME, **waiting)
    with_synthetic = with_synthetic.expand(arm=arms.override(task_id="synthetic_arms")(run, True))
    leaking = training("reproduce_leak", if_synthetic(steps.reproduce_leak), ARM_NAME, **waiting).expand(
        arm=step(steps.leaks)(run)
    )

    compare = step(trigger_rule=WITHOUT_SKIPPED, map_index_template=PAIR_NAME)(steps.compare)
    trained = [with_real, with_synthetic]
    comparisons = compare.partial(**common, trained=trained).expand(pair=step(steps.pairs)(run))
    galleries = training("explain", steps.explain, COMPARED).expand(comparison=comparisons)
    # One at a time, or two runs could each find the other's champion absent.
    promoted = step(max_active_tis_per_dag=1)(steps.promote)(run, dataset, comparisons)
    write = step(trigger_rule=WITHOUT_SKIPPED)(steps.report)
    made = {**waiting, "gan": gan, "judged": judged, "comparisons": comparisons}
    write(**common, **made, galleries=galleries, leaks=leaking, promoted=promoted)


cxr_training()
