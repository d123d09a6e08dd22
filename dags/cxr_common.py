"""What both DAGs share: the trigger form, the retry policy, the asset between them, and their schedules."""

from __future__ import annotations

import os
from datetime import timedelta

from airflow.sdk import Asset, CronTriggerTimetable, ExceptionRetryPolicy, Param, RetryAction, RetryRule

from cxr_tasks.arms import ARM_NAMES, ARMS
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

MEANINGS = {name: f"{name}: {arm.meaning}" for name, arm in ARMS.items()}

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
    "baseline": Param(
        None,
        type=["null", "string"],
        enum=[None, *ARM_NAMES],
        values_display=MEANINGS,
        title="Baseline arm",
        description="What the other arms are compared with. Empty: as the profile says.",
    ),
    "arms": Param(
        None,
        type=["null", "array"],
        items={"type": "string", "enum": list(ARM_NAMES)},
        examples=list(ARM_NAMES),
        values_display=MEANINGS,
        title="Arms",
        description="What is compared with the baseline. Empty: as the profile says.",
    ),
    "seeds": Param(
        None,
        type=["null", "array"],
        items={"type": "integer", "minimum": 0},
        title="Seeds",
        description="Each arm is trained with each seed, such as [0, 1, 2]. Empty: those of the profile.",
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
    "reproduce_leak": Param(
        None,
        type=["null", "boolean"],
        title="Reproduce the leak",
        description="Also repeat the source report's protocol, with synthetic images in the test set, to see what that "
        "does to the figures. Marked in red wherever it appears, and never compared or promoted.",
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
            *("train_gan", "judge", "synthesize", "features", "train_arm", "reproduce_leak", "compare", "explain"),
        ],
        title="Make anew",
        description="Steps that are run although their artifact exists, with all that follows from them.",
    ),
}
