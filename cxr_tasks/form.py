"""The fields of the trigger form. To add one, add an entry to ``FIELDS``: the DAGs, and the settings, read it here.

What a field may hold is taken from the schema of the setting that it stands for, and what it says of the profiles from
these. :mod:`cxr_tasks.filled_form` reads what was filled in.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from cxr_tasks.arms import ARMS
from cxr_tasks.artifacts import STEPS
from cxr_tasks.classifiers.registry import CLASSIFIERS
from cxr_tasks.config import Settings, profile_names, resolve
from cxr_tasks.data.sources import GIVE
from cxr_tasks.errors import UserError
from cxr_tasks.registry.champions import OVERALL_MODEL

ARM_WORDS = {name: f"{name}: {arm.meaning}" for name, arm in ARMS.items()}
CLASSIFIER_WORDS = {name: classifier.display for name, classifier in CLASSIFIERS.items()}
# The parts of the form that are folded at first. Fields without a section are what most people fill in.
SYNTHETIC_PART, VERDICT_PART, REST_PART = "Synthetic images", "Gate and report", "Everything else"
# What the list of a field that may stay empty calls its empty value. Airflow's form looks it up by this key.
EMPTY_KEY, AS_PROFILE = "null", "as the profile says"
# Seeds are chosen from a list, since Airflow's form would want JSON otherwise. The API takes any.
OFFERED_SEEDS = tuple(range(10))


@dataclass(frozen=True)
class Design:
    """What is compared, in one choice.

    Attributes:
        meaning: In a few words.
        fields: What it fills in. What a person fills in beside it counts more.
    """

    meaning: str
    fields: Mapping[str, Any]


DESIGNS: dict[str, Design] = {
    "first_look": Design(
        "First look: the CNN alone, with and without synthetic images",
        {"classifiers": ["cnn"], "baseline": "none", "arms": ["synthetic"], "seeds": [0]},
    ),
    "no_gan": Design(
        "No GAN: classical augmentation against none",
        {"baseline": "none", "arms": ["classical"]},
    ),
    "evidence": Design(
        "Evidence: synthetic images, their control oversample, and three seeds",
        {"baseline": "none", "arms": ["synthetic", "oversample"], "seeds": [0, 1, 2]},
    ),
    "source_report": Design(
        "The source report: synthetic images against classical augmentation, and its leak",
        {"baseline": "classical", "arms": ["synthetic", "oversample"], "reproduce_leak": True},
    ),
}


@dataclass(frozen=True)
class Field:
    """One field of the form.

    Attributes:
        title: What people call it.
        description: What it does, in a sentence or two. What the profiles say of its setting is added.
        setting: The setting that it stands for, such as ``gan.epochs``; empty for fields that are no setting.
        section: The part of the form where it is.
        words: What its values are called.
        schema: JSON schema, where it is not that of the setting, or the setting takes several types.
        default: What it holds at first; ``None`` leaves the profile's value.
    """

    title: str
    description: str
    setting: str = ""
    section: str = ""
    words: Mapping[str, str] = field(default_factory=dict)
    schema: Mapping[str, Any] = field(default_factory=dict)
    default: Any = None

    def json_schema(self) -> dict[str, Any]:
        """What the field may hold, as JSON schema with hints for Airflow's form."""
        schema = dict(self.schema or _schema_of(self.setting))
        told: dict[str, Any] = {"title": self.title, "description": self.description}
        if self.section:
            told["section"] = self.section
        words = dict(self.words)
        if self.setting:
            # A switch cannot be empty: it shows "off" until somebody touches it.
            left = "Untouched" if "boolean" in schema["type"] else "Empty"
            told["description"] += f" {left}: {AS_PROFILE} ({_said_by_profiles(self.setting, words)})."
            if None in schema.get("enum", ()):
                words[EMPTY_KEY] = AS_PROFILE
        if words:
            told["values_display"] = words
        return {**schema, **told}


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
        "Where every number comes from that this form leaves empty: "
        + " ".join(f"{name}: {resolve(name).description.partition('. ')[0].rstrip('.')}." for name in profile_names())
        + " Or the path of a YAML file.",
        schema={"type": "string", "examples": profile_names()},
        default=os.environ.get("CXR_PROFILE", "quick"),
    ),
    "design": Field(
        "Design",
        "What is compared, in one choice. What is filled in below counts more.",
        words={name: design.meaning for name, design in DESIGNS.items()}
        | {EMPTY_KEY: "none: the profile and the fields below say it"},
        schema={"type": ["null", "string"], "enum": [None, *DESIGNS]},
    ),
    "classifiers": Field("Classifiers", "What is trained.", "classifiers.names", words=CLASSIFIER_WORDS),
    "baseline": Field(
        "Baseline arm", "The training set that the other arms are compared with.", "arms.baseline", words=ARM_WORDS
    ),
    "arms": Field("Arms", "The training sets that are compared with the baseline.", "arms.compared", words=ARM_WORDS),
    "seeds": Field(
        "Seeds",
        "Each arm is trained once with each seed: several tell luck from effect.",
        "seeds.classifiers",
        schema={
            "type": ["null", "array"],
            "items": {"type": ["integer", "string"], "minimum": 0, "exclusiveMaximum": 2**31, "pattern": "^[0-9]+$"},
            "examples": list(OFFERED_SEEDS),
        },
    ),
    "gan_epochs": Field("GAN epochs", "How long the GAN trains.", "gan.epochs", SYNTHETIC_PART),
    "synthetic_source": Field(
        "Synthetic images from",
        "gan, or the address of images by class that others have made: a folder, an archive or a bucket.",
        "synthetic.source",
        SYNTHETIC_PART,
        schema={"type": ["null", "string"]},
    ),
    "synthetic_per_class": Field(
        "Synthetic images per class",
        "So many are added to every class.",
        "synthetic.counts",
        SYNTHETIC_PART,
        schema={"type": ["null", "integer"], "minimum": 0},
    ),
    "approval": Field(
        "Ask before a champion changes",
        "A person approves each new champion on the page of required actions.",
        "gate.approval",
        VERDICT_PART,
    ),
    "reproduce_leak": Field(
        "Reproduce the leak",
        "Also repeat the source report's protocol, with synthetic images in the test set, to see what that does to "
        "the figures. Marked in red wherever it appears, and never compared or promoted.",
        "evaluation.reproduce_leak",
        VERDICT_PART,
    ),
    "force": Field(
        "Make anew",
        "Steps that are run although their artifact exists, with all that follows from them.",
        section=REST_PART,
        schema={"type": ["null", "array"], "items": {"type": "string", "enum": list(STEPS)}, "examples": list(STEPS)},
        default=[],
    ),
    "settings": Field(
        "Other settings",
        'Laid over the profile and this form, such as {"classifiers": {"weights": {"vgg16": "/models/vgg16.h5"}}}.',
        section=REST_PART,
        schema={"type": ["null", "object"]},
        default={},
    ),
}


# The fields of one DAG alone.
OWN_FIELDS: dict[str, dict[str, Field]] = {
    "cxr_data": {"source": SOURCE_FIELD},
    "cxr_monitor": {"dataset": DATASET_FIELD},
    "cxr_training": {"dataset": DATASET_FIELD},
}


@cache
def gpu_steps() -> tuple[str, ...]:
    """The steps whose tasks go to a GPU: those that the profile of the stack names, which the form holds at first.

    Not those of a run's profile. Airflow makes the tasks of a run that an asset's event starts before the run has the
    event, so that no cluster policy can know there which settings the event asks for.

    Raises:
        SettingsError: There is no such profile, or it is wrong.
    """
    return resolve(FIELDS["profile"].default).gpu.steps


@cache
def _schema_of_settings() -> dict[str, Any]:
    """Made once: each task reads the DAGs, and with them the form."""
    return Settings.model_json_schema()


def _schema_of(setting: str) -> dict[str, Any]:
    """The JSON schema of a setting, with ``null`` for the value of the profile."""
    whole = _schema_of_settings()
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


def _said_by_profiles(setting: str, words: Mapping[str, str]) -> str:
    """What each profile says of a setting, the profile of the stack too: ``8 in quick, 1500 in paper``."""
    section, key = setting.split(".")
    said: dict[str, list[str]] = {}
    for name in dict.fromkeys([FIELDS["profile"].default, *profile_names()]):
        try:
            settings = _resolved(name)
        except (UserError, OSError):
            # The task configure says what is wrong with it. The pages are there meanwhile.
            continue
        value = _in_few_words(getattr(getattr(settings, section), key), words)
        said.setdefault(value, []).append(settings.profile)
    return "; ".join(f"{value} in {_enumerated(names)}" for value, names in said.items())


def _enumerated(names: Sequence[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


@cache
def _resolved(profile: str) -> Settings:
    return resolve(profile)


def _in_few_words(value: Any, words: Mapping[str, str]) -> str:
    if isinstance(value, Mapping):
        return _enumerated([f"{number} {name}" for name, number in value.items()])
    if isinstance(value, tuple):
        return _enumerated([_in_few_words(each, words) for each in value])
    if isinstance(value, bool):
        return "yes" if value else "no"
    # Only short names take the place of what settings call it: an arm's are sentences.
    word = words.get(str(value), "")
    return word if word and ":" not in word else str(value)
