"""
### Training: does synthetic augmentation help on this dataset?

Trains CovidGAN on the training split, judges it, makes a synthetic set with it, and trains each classifier twice
on the same split: the **baseline** arm and the **augmented** arm. Baselines start at once, beside the GAN; a GAN
that is not good enough skips the augmented arms. Each pair is compared on the same real test images; the better
arm by *validation* macro F1 becomes `challenger`, and `champion` if it beats the present one. The report answers
the question and says how sure the answer is.

Starts when **cxr_data** publishes a dataset, on the schedule of `CXR_TRAINING_SCHEDULE`, or by hand. What was
made before from the same data and settings is taken as it is.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import AssetOrTimeSchedule, Param, dag, get_current_context, task_group
from airflow.sdk.exceptions import AirflowSkipException

from cxr_steps import step
from cxr_tasks import steps
from dags.cxr_common import DATASET, DEFAULT_ARGS, FORM, TRAINING_SCHEDULE, cron

ON_GPU = {"executor": "gpu", "queue": "gpu", "pool": "gpu"}
# Where the GAN is not good enough the augmented arms are skipped, and the rest goes on.
WITHOUT_SKIPPED = "none_failed"
PAIR_NAME = "{{ task.op_args[2].classifier }}, seed {{ task.op_args[2].seed }}"
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


@step(**ON_GPU)
def synthesize(run: dict, dataset: dict, gan: dict, judged: dict) -> dict:
    """Generate the synthetic set, unless the GAN was judged not good enough."""
    if not judged["summary"]["passed"]:
        raise AirflowSkipException(judged["summary"]["sentence"])
    return steps.synthesize(run, dataset, gan)


def train_augmented(run: dict, dataset: dict, pair: dict, synthetic: dict | None) -> dict:
    """Train the augmented arm of a pair, unless it needs a synthetic set and there is none."""
    if synthetic is None and steps.needs_synthetic(run, "augmented"):
        raise AirflowSkipException("There is no synthetic set to train with; the task judge says why.")
    return steps.train_arm(run, dataset, pair, "augmented", synthetic)


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

    gan = step(**ON_GPU, execution_timeout=timedelta(days=7))(steps.train_gan)(run, dataset)
    judged = step(**ON_GPU)(steps.judge)(run, dataset, gan)
    synthetic = synthesize(run, dataset, gan, judged)

    training = step(pool="training", execution_timeout=timedelta(days=2), map_index_template=PAIR_NAME)

    @task_group
    def pair(pair: dict) -> dict:
        baseline = training(steps.train_arm).override(task_id="baseline")(run, dataset, pair, "baseline")
        augmented = training(train_augmented).override(task_id="augmented", trigger_rule=WITHOUT_SKIPPED)(
            run, dataset, pair, synthetic
        )
        compare = step(trigger_rule=WITHOUT_SKIPPED, map_index_template=PAIR_NAME)(steps.compare)
        return compare(run, dataset, pair, baseline, augmented)

    comparisons = pair.expand(pair=step(steps.pairs)(run))
    # One at a time, or two runs could each find the other's champion absent.
    promoted = step(max_active_tis_per_dag=1)(steps.promote)(run, dataset, comparisons)
    write = step(trigger_rule=WITHOUT_SKIPPED)(steps.report)
    write(run, dataset, gan, judged, synthetic, comparisons, promoted)


cxr_training()
