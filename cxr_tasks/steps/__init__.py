"""One function for each task of the DAGs: results of earlier steps in, one result out.

The only module that DAGs call. Heavy libraries are imported inside the functions, so that importing this
costs nothing; see :mod:`cxr_tasks.execution` for what a result holds and when a step is skipped.
"""

from cxr_tasks.steps.classifiers import compare, needs_synthetic, pairs, promote, report, train_arm
from cxr_tasks.steps.configure import configure, form_overrides
from cxr_tasks.steps.data import find_dataset, ingest, manifest, publish, scan, shards, split, validate
from cxr_tasks.steps.synthetic import judge, synthesize, train_gan

__all__ = [
    "compare",
    "configure",
    "find_dataset",
    "form_overrides",
    "ingest",
    "judge",
    "manifest",
    "needs_synthetic",
    "pairs",
    "promote",
    "publish",
    "report",
    "scan",
    "shards",
    "split",
    "synthesize",
    "train_arm",
    "train_gan",
    "validate",
]
