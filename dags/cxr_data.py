"""
### Data: from a source of X-rays to a published dataset

Reads the images of each class, sets damaged files aside, ties near-duplicates and patients together, holds the
rest against a Great Expectations suite and gives every image its split, once and for all. A dataset that
differs from the one before is published as the asset `cxr_dataset`, with what changed, and **cxr_training**
starts by itself; unchanged data publish nothing.

The source is a folder, a `.zip` or `.tar.gz`, `s3://bucket/prefix` or `kaggle://owner/name` that holds `COVID`,
`Normal` and `Viral Pneumonia`, each with its images directly or under `images/`. The fields on training are
passed on.
"""

from __future__ import annotations

import os

from airflow.sdk import Param, dag, get_current_context
from airflow.sdk.exceptions import AirflowSkipException

from cxr_steps import step
from cxr_tasks import steps
from dags.cxr_common import DATA_SCHEDULE, DATASET, DEFAULT_ARGS, FORM, cron

SOURCE = Param(
    os.environ.get("CXR_SOURCE", ""),
    type=["null", "string"],
    title="Data source",
    description="A folder or archive that the workers can read, s3://bucket/prefix, or kaggle://owner/name.",
)

SHARD_NAME = "shard {{ task.op_kwargs.shard + 1 }}"


@step
def configure() -> dict:
    """Resolve profile and form once, and open the MLflow run."""
    context = get_current_context()
    return steps.configure("cxr_data", context["run_id"], context["params"])


@step(outlets=[DATASET])
def publish(run: dict, dataset: dict) -> dict:
    """Announce the dataset, unless it is the one that was announced last."""
    published = steps.publish(run, dataset)
    if published is None:
        raise AirflowSkipException(f"Dataset {dataset['summary']['version']} was published before: nothing changed.")
    context = get_current_context()
    form = {name: value for name, value in context["params"].items() if name != "source"}
    context["outlet_events"][DATASET].extra = {"dataset": published, "form": form}
    return published


@dag(
    dag_id="cxr_data",
    schedule=cron(DATA_SCHEDULE),
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    params={"source": SOURCE, **FORM},
    default_args=DEFAULT_ARGS,
    doc_md=__doc__,
    tags=["cxr"],
)
def cxr_data() -> None:
    """Wire the steps."""
    run = configure()
    scanned = step(steps.scan)(run, "{{ params.source or '' }}")
    read = step(map_index_template=SHARD_NAME)(steps.ingest).partial(run=run, scanned=scanned)
    joined = step(steps.manifest)(run, scanned, read.expand(shard=step(steps.shards)(run, scanned)))
    validated = step(steps.validate)(run, joined)
    dataset = step(steps.split)(run, joined, validated)
    publish(run, dataset)


cxr_data()
