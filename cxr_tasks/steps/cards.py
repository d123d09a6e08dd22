"""The cards of registered versions: written when a version is registered, and kept true with each decision."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from cxr_tasks import tracking
from cxr_tasks.artifacts import Dataset, ExternalResults, RunContext, TrainedArm
from cxr_tasks.classifiers.registry import CLASSIFIERS
from cxr_tasks.config import Settings
from cxr_tasks.errors import DataError
from cxr_tasks.registry.champions import TAG_DECISION, TAG_TEST_MACRO_F1, Candidate
from cxr_tasks.steps.external_tests import figures_of

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

log = logging.getLogger(__name__)


def tell(version: ModelVersion, words: str, tags: Mapping[str, str], stale: tuple[str, ...] = ()) -> None:
    """Note on ``version`` what was decided, in its tags and on its card.

    Args:
        version: The registered version.
        words: The decision.
        tags: Further tags.
        stale: How tags begin that are taken away, unless they are in ``tags``.
    """
    from cxr_tasks.registry.card import with_decision

    tracking.tag_version(version, {TAG_DECISION: words, **tags}, stale)
    if version.description:
        tracking.describe_version(version, with_decision(version.description, words))


def write_card(
    version: ModelVersion,
    words: str,
    run: RunContext,
    settings: Settings,
    dataset: Dataset,
    arm: TrainedArm,
    candidate: Candidate,
    external: Sequence[ExternalResults],
) -> None:
    """Describe ``version`` by its card.

    Args:
        version: The registered version.
        words: Why it is, or is not, champion.
        run: The DAG run.
        settings: Its settings.
        dataset: What the arm was trained on.
        arm: The trained arm.
        candidate: The same, as it was registered.
        external: The tests of the run on external sets.
    """
    from cxr_tasks.registry.card import CardFacts, model_card

    predictions = arm.model.predictions()
    try:
        test = figures_of(predictions[predictions["split"] == "test"], None, settings.data.classes, settings)
    except DataError as error:
        # A model whose figures have no interval is registered all the same.
        log.warning("%s version %s gets no card: %s", version.name, version.version, error)
        return
    tests = [(each.external.name, test) for each in external for test in each.tests if test.training == arm.training]
    facts = CardFacts(
        network=getattr(CLASSIFIERS.get(candidate.classifier), "display", candidate.classifier),
        candidate=candidate,
        classes=settings.data.classes,
        counts=dataset.counts,
        dataset=dataset.version,
        warnings=dataset.warnings,
        findings=arm.findings(),
        test=test,
        external={name: each.findings() for name, each in tests},
        pages={
            "The training in MLflow": arm.model.url,
            "The run that decided": run.url,
            "Data Docs": dataset.data_docs,
        },
    )
    tracking.describe_version(version, model_card(facts, words))
    tracking.tag_version(version, {TAG_TEST_MACRO_F1: test.macro_f1.percent})
