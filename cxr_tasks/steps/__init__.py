"""One file a task: handles of earlier steps go in, a handle comes out. The only module that DAGs call.

Each step reads its handles, calls a pure function, writes files, and returns a handle. Heavy libraries are imported
inside the functions, so that loading a DAG file costs nothing. :mod:`cxr_tasks.pipeline` says when a step is skipped.
"""

from cxr_tasks.steps.approve import approve
from cxr_tasks.steps.ask_server import ServerFigures, ask_server, server_to_ask
from cxr_tasks.steps.begin_training import begin_training
from cxr_tasks.steps.challenge import asks_a_person, challenge, passes_gate
from cxr_tasks.steps.clean_up import CleanedUp, clean_up
from cxr_tasks.steps.compare import compare
from cxr_tasks.steps.configure import configure
from cxr_tasks.steps.evaluate_external import evaluate_external
from cxr_tasks.steps.explain import explain
from cxr_tasks.steps.extract_features import extract_features
from cxr_tasks.steps.finish import close_run, finish, open_runs, sentence_of
from cxr_tasks.steps.import_synthetic import import_synthetic
from cxr_tasks.steps.ingest import ingest
from cxr_tasks.steps.judge import judge, may_train_with
from cxr_tasks.steps.keep_champion import keep_champion
from cxr_tasks.steps.manifest import manifest
from cxr_tasks.steps.notices import (
    TOLD_OF,
    Notice,
    listeners,
    notice_of,
    notice_of_failure,
    notice_of_question,
)
from cxr_tasks.steps.plan import (
    arms,
    backbones,
    does_without,
    imports_synthetic,
    lacks_features,
    leaks,
    pairs,
    wants_synthetic,
)
from cxr_tasks.steps.promote import promote
from cxr_tasks.steps.publish import dataset_of, find_dataset, note_queued, publish, queued_training
from cxr_tasks.steps.question import Question, question, read_reply
from cxr_tasks.steps.read_external import external_sets, read_external
from cxr_tasks.steps.reproduce_leak import reproduce_leak
from cxr_tasks.steps.roll_back import RolledBack, roll_back
from cxr_tasks.steps.scan import scan, shards
from cxr_tasks.steps.split import split
from cxr_tasks.steps.synthesize import synthesize
from cxr_tasks.steps.tested_models import find_model, tested_on
from cxr_tasks.steps.told_in_airflow import page_of_docs, page_of_run, task_label, task_result
from cxr_tasks.steps.train_arm import train_arm
from cxr_tasks.steps.train_gan import train_gan
from cxr_tasks.steps.validate import validate
from cxr_tasks.steps.watch import reason_to_train, watch
from cxr_tasks.steps.write_report import write_report

__all__ = [
    "TOLD_OF",
    "CleanedUp",
    "Notice",
    "Question",
    "RolledBack",
    "ServerFigures",
    "approve",
    "arms",
    "ask_server",
    "asks_a_person",
    "backbones",
    "begin_training",
    "challenge",
    "clean_up",
    "close_run",
    "compare",
    "configure",
    "dataset_of",
    "does_without",
    "evaluate_external",
    "explain",
    "external_sets",
    "extract_features",
    "find_dataset",
    "find_model",
    "finish",
    "import_synthetic",
    "imports_synthetic",
    "ingest",
    "judge",
    "keep_champion",
    "lacks_features",
    "leaks",
    "listeners",
    "manifest",
    "may_train_with",
    "note_queued",
    "notice_of",
    "notice_of_failure",
    "notice_of_question",
    "open_runs",
    "page_of_docs",
    "page_of_run",
    "pairs",
    "passes_gate",
    "promote",
    "publish",
    "question",
    "queued_training",
    "read_external",
    "read_reply",
    "reason_to_train",
    "reproduce_leak",
    "roll_back",
    "scan",
    "sentence_of",
    "server_to_ask",
    "shards",
    "split",
    "synthesize",
    "task_label",
    "task_result",
    "tested_on",
    "train_arm",
    "train_gan",
    "validate",
    "wants_synthetic",
    "watch",
    "write_report",
]
