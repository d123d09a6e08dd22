"""One function a DAG task: what earlier steps made goes in by reference, a :class:`StepResult` comes out.

The only module that DAGs call. Heavy libraries are imported inside the functions, so that loading a DAG file
costs nothing; see :mod:`cxr_tasks.execution` for what a result holds and when a step is skipped.
"""

from cxr_tasks.steps.arms import arms, leaks, pairs, reproduce_leak, train_arm, wants_synthetic
from cxr_tasks.steps.comparison import compare, explain, promote, report
from cxr_tasks.steps.configure import configure, form_overrides
from cxr_tasks.steps.data import find_dataset, ingest, manifest, publish, scan, shards, split, validate
from cxr_tasks.steps.features import backbones, extract_features
from cxr_tasks.steps.synthetic import judge, synthesize, train_gan

__all__ = [
    "arms",
    "backbones",
    "compare",
    "configure",
    "explain",
    "extract_features",
    "find_dataset",
    "form_overrides",
    "ingest",
    "judge",
    "leaks",
    "manifest",
    "pairs",
    "promote",
    "publish",
    "report",
    "reproduce_leak",
    "scan",
    "shards",
    "split",
    "synthesize",
    "train_arm",
    "train_gan",
    "validate",
    "wants_synthetic",
]
