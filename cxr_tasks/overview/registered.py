"""The registered models: which version is champion, since when, how it came to that, and what was before."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from cxr_tasks.classifiers.registry import CLASSIFIERS
from cxr_tasks.overview.mlflow_api import MlflowApi, tags_of
from cxr_tasks.registry.champions import (
    CHAMPION,
    OVERALL_MODEL,
    TAG_CONDITION,
    TAG_DECISION,
    TAG_REPLY,
    TAG_ROLLED_BACK,
    TAG_SINCE,
    TAG_TEST_MACRO_F1,
    TAG_VALIDATION,
    model_name,
)
from cxr_tasks.strict import Strict
from cxr_tasks.tracking import version_url

# How many versions are shown that are or were champion, and of those that were registered last: of all models
# together. MLflow has all.
MOST_CHAMPIONS, NEWEST = 24, 24
MOST_MODELS = 100
NUMBER = r"\d+(?:\.\d+)?"
OF_PROJECT = f"name LIKE '{model_name('')}%'"


class Figure(Strict):
    """A figure in percent, with the interval that it is known to."""

    value: float
    low: float
    high: float


class KnownVersion(Strict):
    """A version of a registered model.

    Attributes:
        number: The version.
        trained: What was trained, in words.
        test: Macro F1 on the test images; ``None`` for a version of before this was kept.
        validation: Macro F1 on the validation images, which chose it, in percent.
        since: Since when it is, or was, champion, as ISO 8601; empty where it never was.
        decision: Why it is, or is not, champion.
        reply: What a person said of it.
        conditions: What the gate said of each condition.
        rolled_back: When, by whom and why it was rolled back.
        dataset: Reference of its dataset.
        url: Its page in MLflow.
    """

    number: str
    trained: str = ""
    test: Figure | None = None
    validation: float | None = None
    since: str = ""
    decision: str = ""
    reply: str = ""
    conditions: tuple[str, ...] = ()
    rolled_back: str = ""
    dataset: str = ""
    url: str = ""


class KnownModel(Strict):
    """A registered model.

    Attributes:
        name: In the registry, such as ``cxr-vgg16``.
        display: For people.
        champion: The champion; ``None`` where there is none.
        newest: The newest version, where that is not the champion.
        versions: The newest ones, and all that are or were champion; the newest first.
        back_to: The numbers that a rollback can name, the last champion first.
    """

    name: str
    display: str
    champion: KnownVersion | None
    newest: KnownVersion | None
    versions: tuple[KnownVersion, ...]
    back_to: tuple[str, ...]


def registered_models(mlflow: MlflowApi) -> list[KnownModel]:
    """The registered models of the project: the best of all first, then those of each classifier.

    Raises:
        MlflowAwayError: There is no answer.
    """
    was_champion = f"{OF_PROJECT} AND tags.`{TAG_SINCE}` LIKE '%'"
    told = [*_versions(mlflow, was_champion, MOST_CHAMPIONS), *_versions(mlflow, OF_PROJECT, NEWEST)]
    models = mlflow.get("registered-models/search", filter=OF_PROJECT, max_results=MOST_MODELS)
    named = [model["name"] for model in models.get("registered_models", []) if model.get("latest_versions")]
    found = [_known_model(mlflow, name, told) for name in named]
    return sorted(found, key=lambda model: (model.name != OVERALL_MODEL, model.display.casefold()))


def _versions(mlflow: MlflowApi, condition: str, most: int) -> list[dict[str, Any]]:
    """The newest versions that meet a condition, of all models."""
    asked = {"filter": condition, "max_results": most, "order_by": "creation_timestamp DESC"}
    return mlflow.get("model-versions/search", **asked).get("model_versions", [])


def _known_model(mlflow: MlflowApi, name: str, told: Sequence[Mapping[str, Any]]) -> KnownModel:
    # Asked for by itself: somebody may have given the alias by hand, to any version.
    by_alias = mlflow.get("registered-models/alias", name=name, alias=CHAMPION).get("model_version")
    known = [*told, by_alias] if by_alias else told
    of_model = {str(each["version"]): each for each in known if each["name"] == name}
    versions = [_known_version(of_model[number]) for number in sorted(of_model, key=int, reverse=True)]
    champion = next((each for each in versions if by_alias and each.number == str(by_alias["version"])), None)
    before = sorted((each for each in versions if each.since and each is not champion), key=lambda each: each.since)
    return KnownModel(
        name=name,
        display=_display(name),
        champion=champion,
        newest=None if versions[0] is champion else versions[0],
        versions=tuple(versions),
        back_to=tuple(each.number for each in reversed(before)),
    )


def _known_version(told: Mapping[str, Any]) -> KnownVersion:
    tags, number = tags_of(told), str(told["version"])
    arm, seed = tags.get("cxr.arm", ""), tags.get("cxr.seed", "")
    validation = tags.get(TAG_VALIDATION, "")
    return KnownVersion(
        number=number,
        trained=f"arm {arm}, seed {seed}" if arm else "",
        test=read_figure(tags.get(TAG_TEST_MACRO_F1, "")),
        validation=100 * float(validation) if re.fullmatch(NUMBER, validation) else None,
        since=tags.get(TAG_SINCE, ""),
        decision=tags.get(TAG_DECISION, ""),
        reply=tags.get(TAG_REPLY, ""),
        conditions=tuple(words for tag, words in sorted(tags.items()) if tag.startswith(TAG_CONDITION)),
        rolled_back=tags.get(TAG_ROLLED_BACK, ""),
        dataset=tags.get("cxr.dataset_ref", ""),
        url=version_url(told["name"], number),
    )


def read_figure(text: str) -> Figure | None:
    """What ``94.1 (90.0 to 97.2)`` says; ``None`` of any other text."""
    found = re.fullmatch(rf"({NUMBER}) \(({NUMBER}) to ({NUMBER})\)", text)
    return Figure(value=float(found[1]), low=float(found[2]), high=float(found[3])) if found else None


def _display(name: str) -> str:
    """A registered model for people."""
    if name == OVERALL_MODEL:
        return "Best of all"
    classifier = CLASSIFIERS.get(name.removeprefix(model_name("")))
    return classifier.display if classifier else name
