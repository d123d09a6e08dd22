"""The questions that people ask of the runs in MLflow, each as a view that MLflow's pages list."""

from __future__ import annotations

from cxr_tasks.arms import ARMS
from cxr_tasks.artifacts import TrainedModel
from cxr_tasks.classifiers.registry import CLASSIFIERS
from cxr_tasks.names import slug
from cxr_tasks.tracking import TAG_STEP, TAG_WORK, View

DAG_RUNS = f"tags.`{TAG_WORK}` = 'dag run'"
OF_TRAININGS = f"tags.`{TAG_STEP}` = '{TrainedModel.step}'"
NEWEST_FIRST, BEST_FIRST = "attributes.start_time", "metrics.`validation_macro_f1`"
FIGURES = ("metrics.`validation_macro_f1`", "metrics.`test_macro_f1`", "metrics.`test_accuracy`")
OF_AN_ARM = ("params.`classifier`", "params.`arm`")

ANSWERS = View(
    "answers",
    "Answers: a line a run",
    DAG_RUNS,
    NEWEST_FIRST,
    (
        "tags.`cxr.best`",
        "metrics.`best_validation_macro_f1`",
        # Those that no run has are not shown.
        *(f"metrics.`{slug(f'{each.display}_{arm}')}_macro_f1`" for each in CLASSIFIERS.values() for arm in ARMS),
        "tags.`cxr.dataset`",
        "tags.`cxr.profile`",
        "tags.`cxr.cause`",
    ),
    wide=("tags.`cxr.best`",),
)
BEST_TRAININGS = View(
    "trainings",
    "Trainings: the best first",
    OF_TRAININGS,
    BEST_FIRST,
    (*OF_AN_ARM, "params.`seed`", "params.`dataset`", "params.`profile`", *FIGURES, "attributes.`Dataset`"),
)
# MLflow loads a hundred runs at first, and takes means of those that it has loaded.
MEANS = View("arms", "Arms: means of the newest trainings", OF_TRAININGS, NEWEST_FIRST, FIGURES, ("classifier", "arm"))
IN_TIME = View("in-time", "Trainings: the newest first", OF_TRAININGS, NEWEST_FIRST, BEST_TRAININGS.columns)

VIEWS = {
    "cxr_training": (ANSWERS, BEST_TRAININGS, IN_TIME, MEANS),
    "cxr_monitor": (
        View(
            "champion",
            "The champion on new images",
            DAG_RUNS,
            NEWEST_FIRST,
            (
                "metrics.`watch/macro_f1`",
                "metrics.`watch/macro_f1_low`",
                "metrics.`watch/macro_f1_high`",
                "metrics.`watch/evidence`",
                "metrics.`watch/new_images`",
            ),
        ),
    ),
    "cxr_data": (
        View(
            "datasets",
            "Datasets",
            DAG_RUNS,
            NEWEST_FIRST,
            (
                "tags.`cxr.dataset`",
                "tags.`cxr.changes`",
                "metrics.`validate/expectation_warnings`",
                "tags.`cxr.profile`",
            ),
            wide=("tags.`cxr.changes`",),
        ),
    ),
}
