"""What both DAGs share: the trigger form, the retry policy, the asset between them, and their schedules."""

from __future__ import annotations

import os
from datetime import timedelta

from airflow.sdk import Asset, CronTriggerTimetable, ExceptionRetryPolicy, Param, RetryAction, RetryRule

from cxr_tasks.config import DISPLAY_NAMES, profile_names

DATASET = Asset(name="cxr_dataset", uri="cxr://dataset", group="cxr")

# A cron expression, or empty for runs that are only triggered.
DATA_SCHEDULE = os.environ.get("CXR_DATA_SCHEDULE", "")
TRAINING_SCHEDULE = os.environ.get("CXR_TRAINING_SCHEDULE", "")


def cron(expression: str) -> CronTriggerTimetable | None:
    """A timetable in UTC, or ``None`` for an empty expression."""
    return CronTriggerTimetable(expression, timezone="UTC") if expression else None


DEFAULT_ARGS = {
    "retries": 2,
    "retry_delay": timedelta(seconds=20),
    "execution_timeout": timedelta(hours=2),
    # The same input gives the same error: only a person can help.
    "retry_policy": ExceptionRetryPolicy(
        rules=[
            RetryRule(
                exception="cxr_tasks.errors.UserError",
                action=RetryAction.FAIL,
                reason="The data or the settings need a person's attention",
            )
        ]
    ),
}

FORM = {
    "profile": Param(
        os.environ.get("CXR_PROFILE", "quick"),
        type="string",
        examples=profile_names(),
        title="Profile",
        description="Where every number comes from: paper, quick, or the path of a YAML file.",
    ),
    "classifiers": Param(
        None,
        type=["null", "array"],
        items={"type": "string", "enum": list(DISPLAY_NAMES)},
        examples=list(DISPLAY_NAMES),
        values_display=DISPLAY_NAMES,
        title="Classifiers",
        description="Empty: those of the profile.",
    ),
    "seeds": Param(
        None,
        type=["null", "array"],
        items={"type": "integer", "minimum": 0},
        title="Seeds",
        description="A pair is trained for each seed, such as [0, 1, 2]. Empty: those of the profile.",
    ),
    "gan_epochs": Param(
        None, type=["null", "integer"], minimum=1, title="GAN epochs", description="Empty: as the profile says."
    ),
    "synthetic_per_class": Param(
        None,
        type=["null", "integer"],
        minimum=0,
        title="Synthetic images per class",
        description="So many of every class. Empty: as the profile says.",
    ),
    "settings": Param(
        {},
        type="object",
        title="Other settings",
        description='Laid over the profile, such as {"classifiers": {"weights": {"vgg16": "/models/vgg16.h5"}}}.',
    ),
    "force": Param(
        [],
        type="array",
        items={"type": "string"},
        examples=[
            *("scan", "ingest", "manifest", "validate", "split"),
            *("train_gan", "judge", "synthesize", "train_arm", "compare"),
        ],
        title="Make anew",
        description="Steps that are run although their artifact exists, with all that follows from them.",
    ),
}
