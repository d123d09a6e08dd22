"""The fields of the trigger form. To add one, add an entry to ``FIELDS``: the DAGs, and the settings, read it here.

What a field may hold is taken from the schema of the setting that it stands for.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from cxr_tasks.arms import ARMS
from cxr_tasks.artifacts import STEPS
from cxr_tasks.classifiers.registry import CLASSIFIERS
from cxr_tasks.config import Settings, merge, profile_names, resolve
from cxr_tasks.data.sources import GIVE
from cxr_tasks.errors import SettingsError, nearest
from cxr_tasks.registry.champions import OVERALL_MODEL

ARM_WORDS = {name: f"{name}: {arm.meaning}" for name, arm in ARMS.items()}
CLASSIFIER_WORDS = {name: classifier.display for name, classifier in CLASSIFIERS.items()}


@dataclass(frozen=True)
class Field:
    """One field of the form.

    Attributes:
        title: What people call it.
        description: What it does, in a sentence or two.
        setting: The setting that it stands for, such as ``gan.epochs``; empty for fields that are no setting.
        words: What its values are called.
        schema: JSON schema, where it is not that of the setting, or the setting takes several types.
        default: What it holds at first; ``None`` leaves the profile's value.
    """

    title: str
    description: str
    setting: str = ""
    words: Mapping[str, str] = field(default_factory=dict)
    schema: Mapping[str, Any] = field(default_factory=dict)
    default: Any = None

    def json_schema(self) -> dict[str, Any]:
        """What the field may hold, as JSON schema with hints for Airflow's form."""
        told: dict[str, Any] = {"title": self.title, "description": self.description}
        if self.words:
            told["values_display"] = dict(self.words)
        return {**(self.schema or _schema_of(self.setting)), **told}


SOURCE_FIELD = Field(
    "Data source",
    f"Where the workers read the X-rays: {GIVE.removeprefix('give ')}. Empty where data.sources lists several.",
    schema={"type": ["null", "string"]},
    default=os.environ.get("CXR_SOURCE", ""),
)
DATASET_FIELD = Field(
    "Dataset",
    "A version that cxr_data has published. Empty: the newest of the profile's data settings.",
    schema={"type": ["null", "string"]},
)
# The fields of a rollback.
ROLLBACK_FIELDS = {
    "model": Field("Model", "The registered model.", schema={"type": "string", "minLength": 1}, default=OVERALL_MODEL),
    "version": Field(
        "Version",
        "What is to be champion. Empty: the version that was champion before.",
        schema={"type": ["null", "string"], "pattern": "^[0-9]*$"},
    ),
    "reason": Field(
        "Reason",
        "What is wrong with the present champion. It stays with the version.",
        schema={"type": "string", "minLength": 3},
        default="",
    ),
}
# The fields of a cleanup.
CLEANUP_FIELDS = {
    "unused_days": Field(
        "Unused for days",
        "What was used within so many days stays. Give more than a run takes.",
        schema={"type": "number", "minimum": 1},
        default=30,
    ),
    "keep_runs": Field(
        "Runs to keep",
        "So many runs of each DAG stay, however old, with all that they made or took.",
        schema={"type": "integer", "minimum": 1},
        default=20,
    ),
    "only_list": Field(
        "Only list", "Say what would go, and remove nothing.", schema={"type": "boolean"}, default=False
    ),
}
# The fields that both DAGs have.
FIELDS: dict[str, Field] = {
    "profile": Field(
        "Profile",
        "Where every number comes from: paper, quick, or the path of a YAML file.",
        schema={"type": "string", "examples": profile_names()},
        default=os.environ.get("CXR_PROFILE", "quick"),
    ),
    "classifiers": Field("Classifiers", "Empty: those of the profile.", "classifiers.names", CLASSIFIER_WORDS),
    "baseline": Field(
        "Baseline arm",
        "What the other arms are compared with. Empty: as the profile says.",
        "arms.baseline",
        ARM_WORDS,
    ),
    "arms": Field(
        "Arms", "What is compared with the baseline. Empty: as the profile says.", "arms.compared", ARM_WORDS
    ),
    "seeds": Field(
        "Seeds",
        "Each arm is trained with each seed, such as [0, 1, 2]. Empty: those of the profile.",
        "seeds.classifiers",
    ),
    "gan_epochs": Field("GAN epochs", "Empty: as the profile says.", "gan.epochs"),
    "synthetic_source": Field(
        "Synthetic images from",
        "gan, or the address of images by class that others have made: a folder, an archive or a bucket. Empty: as "
        "the profile says.",
        "synthetic.source",
        schema={"type": ["null", "string"]},
    ),
    "synthetic_per_class": Field(
        "Synthetic images per class",
        "So many of every class. Empty: as the profile says.",
        "synthetic.counts",
        schema={"type": ["null", "integer"], "minimum": 0},
    ),
    "approval": Field(
        "Ask before a champion changes",
        "A person approves each new champion on the page of required actions. Empty: as the profile says.",
        "gate.approval",
    ),
    "reproduce_leak": Field(
        "Reproduce the leak",
        "Also repeat the source report's protocol, with synthetic images in the test set, to see what that does to "
        "the figures. Marked in red wherever it appears, and never compared or promoted.",
        "evaluation.reproduce_leak",
    ),
    "settings": Field(
        "Other settings",
        'Laid over the profile, such as {"classifiers": {"weights": {"vgg16": "/models/vgg16.h5"}}}.',
        schema={"type": "object"},
        default={},
    ),
    "force": Field(
        "Make anew",
        "Steps that are run although their artifact exists, with all that follows from them.",
        schema={"type": "array", "items": {"type": "string", "enum": list(STEPS)}, "examples": list(STEPS)},
        default=[],
    ),
}


# The fields of one DAG alone.
OWN_FIELDS: dict[str, dict[str, Field]] = {
    "cxr_data": {"source": SOURCE_FIELD},
    "cxr_monitor": {"dataset": DATASET_FIELD},
    "cxr_training": {"dataset": DATASET_FIELD},
}


def read_form(dag: str, form: Any) -> dict[str, Any]:
    """A value for each field that both DAGs have, and for those of the DAG; empty fields have what they hold at first.

    Airflow's own page and its API check a form before a run begins. An event of the asset can hold anything.

    Args:
        dag: The DAG's name.
        form: What was filled in.

    Raises:
        SettingsError: There is no such field, or it holds what it cannot hold. Fields that stand for a setting are
            checked with the settings.
    """
    if not isinstance(form, Mapping):
        raise SettingsError(f'The form is to be an object, such as {{"profile": "quick"}}, and not {_shown(form)}.')
    fields = {**OWN_FIELDS.get(dag, {}), **FIELDS}
    for name in form:
        if name not in fields:
            raise SettingsError(f"The form has no field {name!r}: {nearest(str(name), fields)}")
    filled = {name: each.default for name, each in fields.items()}
    filled |= {name: value for name, value in form.items() if value is not None}
    for name in {"profile", "source", "dataset"} & filled.keys():
        if not isinstance(filled[name], str | None):
            raise SettingsError(f"The field {name!r} of the form is to be a text, and not {_shown(filled[name])}.")
    return {**filled, "settings": _read_settings(filled["settings"]), "force": _read_force(filled["force"])}


def _read_settings(given: Any) -> dict[str, Any]:
    """The field ``settings``: an object, or the JSON text of one."""
    read = given
    if isinstance(given, str):
        try:
            read = json.loads(given or "{}")
        except ValueError:
            read = None
    if not isinstance(read, Mapping):
        raise SettingsError(
            'The field \'settings\' of the form is to be an object, such as {"gan": {"epochs": 10}}, and not '
            f"{_shown(given)}."
        )
    return dict(read)


def _read_force(given: Any) -> list[str]:
    """The field ``force``: a list of steps."""
    if not isinstance(given, list | tuple):
        raise SettingsError(
            f"The field 'force' of the form is to be a list of steps, such as [\"train_arm\"], and not {_shown(given)}."
        )
    for step in given:
        if step not in STEPS:
            raise SettingsError(
                f"The field 'force' of the form names {_shown(step)}, which is no step: {nearest(str(step), STEPS)}"
            )
    return list(given)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


def form_overrides(form: Mapping[str, Any]) -> dict[str, Any]:
    """Settings from the fields that were filled in; the field ``settings`` has the last word."""
    overrides: dict[str, Any] = {}
    for name, each in FIELDS.items():
        if each.setting and form.get(name) not in (None, []):
            section, key = each.setting.split(".")
            overrides = merge(overrides, {section: {key: form[name]}})
    return merge(overrides, form.get("settings") or {})


def check_for_a_run(overrides: Mapping[str, Any]) -> None:
    """Look whether settings that are laid over a profile are for one run.

    Raises:
        SettingsError: They say where tasks run, which is fixed before there is a run.
    """
    if "gpu" in overrides:
        raise SettingsError(
            "The section gpu is not for one run, since Airflow places tasks when it reads the DAGs: write it into the "
            "profile of the stack (CXR_PROFILE, or PROFILE=/path/to/mine.yaml)."
        )


@cache
def gpu_steps() -> tuple[str, ...]:
    """The steps whose tasks go to a GPU: those that the profile of the stack names, which the form holds at first.

    Not those of a run's profile. Airflow makes the tasks of a run that an asset's event starts before the run has the
    event, so that no cluster policy can know there which settings the event asks for.

    Raises:
        SettingsError: There is no such profile, or it is wrong.
    """
    return resolve(FIELDS["profile"].default).gpu.steps


def _schema_of(setting: str) -> dict[str, Any]:
    """The JSON schema of a setting, with ``null`` for the value of the profile."""
    whole = Settings.model_json_schema()
    section, key = setting.split(".")
    reference = whole["properties"][section]["$ref"].rpartition("/")[2]
    schema = {k: v for k, v in whole["$defs"][reference]["properties"][key].items() if k != "title"}
    if schema["type"] == "array":
        items = {k: v for k, v in schema["items"].items() if k != "title"}
        # Airflow's form makes a list of choices of the examples.
        choices = {"examples": items["enum"]} if "enum" in items else {}
        return {"type": ["null", "array"], "items": items, **choices}
    if "enum" in schema:
        schema["enum"] = [None, *schema["enum"]]
    return {**schema, "type": ["null", schema["type"]]}
