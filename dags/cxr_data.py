"""### Data: from a source of X-rays to a published dataset.

Reads the images of each class, sets damaged files aside, ties near-duplicates and patients together, holds the
rest against a Great Expectations suite and gives every image its split, once and for all. A dataset that
differs from the one before is published as the asset `cxr_dataset`, with what changed, and **cxr_training**
starts by itself; unchanged data publish nothing.

The source is a folder, a `.zip` or `.tar.gz`, `s3://bucket/prefix` or `kaggle://owner/name` that holds one folder for
each class, each with its images directly or under `images/`. Where `data.sources` of the settings lists several, they
make the dataset together, and the field stays empty. The fields on training are passed on.
"""

from __future__ import annotations

from airflow.sdk import dag, get_current_context
from airflow.sdk.exceptions import AirflowSkipException
from cxr_announced import announce, queue_unless_heard
from cxr_pages import LABEL
from cxr_wiring import (
    DATA_FORM,
    DATA_SCHEDULE,
    DATASET,
    OF_ALL,
    close_left_open,
    cron,
    finish,
    step,
)

from cxr_tasks import steps
from cxr_tasks.artifacts import Dataset, Manifest, RunContext, Scan, Split, Validation


@step
def configure() -> RunContext:
    """Resolve profile and form once, and open the MLflow run."""
    context = get_current_context()
    close_left_open(context)
    return steps.configure("cxr_data", context["run_id"], context["params"])


@step(outlets=[DATASET])
def publish(run: RunContext, scanned: Scan, joined: Manifest, validated: Validation, divided: Split) -> Dataset:
    """Announce the dataset, unless it is the one that was announced last."""
    dataset = steps.publish(run, scanned, joined, validated, divided)
    if dataset is None:
        raise AirflowSkipException(f"Dataset {divided.version} was published before, and its training has begun.")
    announce(dataset)
    return dataset


@step
def queue_training(run: RunContext, dataset: Dataset) -> None:
    """Queue a training where the event of the asset starts none, because cxr_training is paused."""
    queue_unless_heard(run, dataset)


@dag(
    dag_id="cxr_data",
    schedule=cron(DATA_SCHEDULE),
    params=DATA_FORM,
    doc_md=__doc__,
    **OF_ALL,
)
def cxr_data() -> None:
    """Wire the steps."""
    run = configure()
    scanned = step(steps.scan)(run, "{{ params.source or '' }}")
    read = step(steps.ingest, map_index_template=LABEL).partial(run=run, scanned=scanned)
    joined = step(steps.manifest)(run, scanned, read.expand(shard=step(steps.shards)(run, scanned)))
    validated = step(steps.validate)(run, joined)
    divided = step(steps.split)(run, joined, validated)
    queue_training(run, publish(run, scanned, joined, validated, divided)) >> finish()


cxr_data()
