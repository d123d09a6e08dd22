"""The step ``promote``: register the best arms as challengers, and make champion what passes the gate."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cxr_tasks import tracking
from cxr_tasks.artifacts import (
    Artifact,
    Comparison,
    Dataset,
    Decision,
    ExternalResults,
    Promotion,
    RunContext,
    TrainedArm,
    TrainedModel,
    Training,
)
from cxr_tasks.config import Settings
from cxr_tasks.names import slug
from cxr_tasks.pipeline import Made, load_settings, perform
from cxr_tasks.registry.champions import (
    CHALLENGER,
    CHAMPION,
    TAG_CONDITION,
    TAG_DECIDED_BY,
    TAG_DECISION,
    TAG_DIGEST,
    TAG_REPLACED,
    TAG_ROLLED_BACK,
    TAG_SINCE,
    Candidate,
    Standing,
    best,
    rivals,
)
from cxr_tasks.steps.common import Mapped, flat
from cxr_tasks.steps.served_facts import log_trained
from cxr_tasks.steps.standing import champion_score
from cxr_tasks.store import open_store

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.entities.model_registry import ModelVersion

    from cxr_tasks.registry.gate import Evidence, Gate

log = logging.getLogger(__name__)


def promote(
    run: RunContext,
    dataset: Dataset,
    comparisons: list[Comparison | None] | None,
    trained: Mapped[TrainedArm] | None = None,
    external: Mapped[ExternalResults] | None = None,
) -> Promotion:
    """Register, for each classifier and over all, the arm with the best validation macro F1; see ``registry.gate``.

    A promotion is an act at a moment. Whoever asks for it again gets it decided anew, against the champion of now.

    Args:
        run: The DAG run.
        dataset: What the arms were trained and validated on.
        comparisons: Of the run. Their arms are candidates.
        trained: Further candidates: arms whose comparison failed, say.
        external: How the arms do on the external sets, which may hold a challenger back.
    """
    settings = load_settings(run)

    compared, arms, tested = list(flat([comparisons])), list(flat(trained or [])), list(flat(external or []))

    def fill(folder: Path) -> Made[Promotion]:
        from cxr_tasks.registry.gate import Gate

        of_model = _arms_once(settings, compared, arms)
        candidates = [_candidate(settings, dataset, arm) for arm in of_model.values()]
        gate, standing = Gate.of(settings), _Standings(dataset, list(settings.data.classes))
        decisions = []
        for name, among in rivals(candidates).items():
            chosen = best(among)
            evidence = partial(_evidence, settings, of_model[chosen.artifact], len(among), tested)
            decisions.append(_register_alone(name, chosen, evidence, gate, standing, run.dag_run))
        for decision in decisions:
            log.info("%s version %s is %s: %s", decision.name, decision.version, decision.alias, decision.decision)
        told = json.dumps([decision.model_dump() for decision in decisions], indent=2)
        (folder / Promotion.DECISIONS).write_text(told, encoding="utf-8")
        promoted = sum(decision.is_new for decision in decisions)
        return Made(Promotion(decisions=tuple(decisions)), {"candidates": len(candidates), "promoted": promoted})

    # What becomes of a candidate depends on the registry as it is now, so this is never taken from the store.
    anew = run.model_copy(update={"force": (*run.force, Promotion.step)})
    inputs: dict[str, Artifact | str] = {"dag_run": run.dag_run, "work": run.mlflow_run_id}
    inputs |= {f"comparison {i}": comparison for i, comparison in enumerate(compared)}
    return perform(anew, Promotion, fill, settings={}, inputs=inputs)


def register_candidate(
    name: str,
    candidate: Candidate,
    evidence: Callable[[], Evidence],
    gate: Gate,
    champion_standing: Callable[[ModelVersion], Standing],
    dag_run: str = "",
) -> Decision:
    """Register ``candidate`` as challenger, and make it champion if it passes the gate.

    Args:
        name: The registered model.
        candidate: What is registered.
        evidence: What it has to show.
        gate: The gate.
        champion_standing: How the present champion does on the candidate's validation images.
        dag_run: Who decides. Another try of it says again what an earlier try decided and carried out.
    """
    champion = tracking.version_by_alias(name, CHAMPION)
    if champion is not None and champion.tags.get(TAG_DIGEST) == candidate.weights_digest:
        tracking.set_alias(name, CHALLENGER, champion.version)
        again = bool(dag_run) and champion.tags.get(TAG_DECIDED_BY) == dag_run
        words = champion.tags.get(TAG_DECISION, "") if again else "The same model is champion already."
        return _decision(candidate, champion, CHAMPION, words, is_new=again)
    challenger = tracking.version_with_tag(name, TAG_DIGEST, candidate.weights_digest)
    if challenger is None:
        challenger = tracking.register(candidate.model_uri, name, candidate.tags(tracking.TAG_ARTIFACT))
    tracking.set_alias(name, CHALLENGER, challenger.version)
    standing = champion_standing(champion) if champion is not None else None
    replaced = str(champion.version) if champion is not None else ""
    shown = replace(evidence(), rolled_back=challenger.tags.get(TAG_ROLLED_BACK, ""))
    ruling = gate.rule(candidate, shown, replaced, standing)
    promoted = ruling.alias == CHAMPION
    # First the reason and then the act: an alias that was moved can always be explained.
    told = {TAG_CONDITION + slug(each.about): each.told for each in ruling.conditions}
    told |= {TAG_DECISION: ruling.words, TAG_DECIDED_BY: dag_run if promoted else ""}
    if promoted:
        told |= {TAG_SINCE: datetime.now(UTC).isoformat(timespec="seconds"), TAG_REPLACED: replaced}
    tracking.tag_version(challenger, told, TAG_CONDITION)
    if promoted:
        tracking.set_alias(name, CHAMPION, challenger.version)
    decision = _decision(candidate, challenger, ruling.alias, ruling.words, is_new=promoted)
    return decision.model_copy(update={"conditions": ruling.conditions})


def _register_alone(
    name: str,
    candidate: Candidate,
    evidence: Callable[[], Evidence],
    gate: Gate,
    standing: Callable[[ModelVersion], Standing],
    dag_run: str,
) -> Decision:
    """Register while no other run does so under this name: each is to beat the champion that the other made."""
    with open_store().lease(f"champion/{name}", f"the promotion of {name}") as lease:

        def standing_meanwhile(version: ModelVersion) -> Standing:
            found = standing(version)
            # Scoring a champion takes a while, and what it finds is worth nothing where another run has gone on.
            lease.check()
            return found

        return register_candidate(name, candidate, evidence, gate, standing_meanwhile, dag_run)


class _Standings:
    """How registered models do on the validation images of a dataset, each computed once."""

    def __init__(self, dataset: Dataset, classes: list[str]) -> None:
        self.dataset, self.classes = dataset, classes
        self._known: dict[str, Standing] = {}

    def __call__(self, version: ModelVersion) -> Standing:
        model = version.tags.get(TAG_DIGEST) or f"{version.name}/{version.version}"
        if model not in self._known:
            self._known[model] = champion_score(version, self.dataset, self.classes)
        return self._known[model]


def _arms_once(settings: Settings, compared: list[Comparison], trained: list[TrainedArm]) -> dict[str, TrainedArm]:
    """Each trained arm once by its model, baselines first: one that several are compared with is one candidate."""
    by_role = [each.arms[role] for role in ("baseline", "augmented") for each in compared if role in each.arms]
    others = sorted(trained, key=lambda arm: arm.training.arm != settings.arms.baseline)
    arms: dict[str, TrainedArm] = {}
    for arm in (*by_role, *others):
        arms.setdefault(arm.model.ref, arm)
    return arms


def _candidate(settings: Settings, dataset: Dataset, arm: TrainedArm) -> Candidate:
    return Candidate(
        classifier=arm.training.classifier,
        role="baseline" if arm.training.arm == settings.arms.baseline else "augmented",
        arm=arm.training.arm,
        seed=arm.training.seed,
        validation_macro_f1=arm.validation_macro_f1,
        artifact=arm.model.ref,
        weights_digest=arm.model.weights_digest,
        dataset=dataset.ref,
        classes="|".join(settings.data.classes),
        model_uri=_model_uri(arm),
        resize=arm.model.resize,
        synthetic=arm.model.synthetic,
    )


def _evidence(settings: Settings, arm: TrainedArm, picked_from: int, external: list[ExternalResults]) -> Evidence:
    """What an arm has to show at the gate. What no limit is set for is not measured."""
    import numpy as np

    from cxr_tasks.registry.gate import Evidence, latency_ms

    predictions = arm.model.predictions()
    validation = predictions[predictions["split"] == "validation"]
    size = latency = None
    if settings.gate.max_size_mb is not None:
        size = (arm.model.folder() / TrainedModel.MODEL).stat().st_size / 1e6
    if settings.gate.max_latency_ms is not None:
        model = arm.model.load()
        image = np.zeros((1, *model.input_shape[1:]), np.float32)
        latency = latency_ms(lambda pixels: model.predict_on_batch(pixels), image)
    drops = {}
    if settings.gate.max_external_drop is not None:
        drops = {each.name: _drop(settings, arm, validation, each.name, external) for each in settings.data.external}
    return Evidence(validation, picked_from, size, latency, external_drops=drops)


def _drop(
    settings: Settings, arm: TrainedArm, validation: pd.DataFrame, name: str, external: list[ExternalResults]
) -> float | None:
    """How much lower macro F1 of ``arm`` is on the external set ``name`` than on validation images of its classes.

    The drop that is reported is from the test images, and these choose nothing.
    """
    from cxr_tasks.evaluation.external import external_findings

    for test in (test for each in external if each.external.name == name for test in each.tests):
        if test.training == arm.training:
            found = external_findings(
                test.predictions(),
                validation,
                list(settings.data.classes),
                bootstrap_samples=settings.evaluation.bootstrap_samples,
                confidence=settings.evaluation.confidence,
                seed=settings.seeds.bootstrap,
            )
            return None if found.macro_f1_drop is None else found.macro_f1_drop.value
    return None


def _model_uri(arm: TrainedArm) -> str:
    """Where MLflow has the arm's model. Logged again from the artifact if MLflow lost it, or never had it."""
    return tracking.logged_model(arm.model.model_uri, lambda: log_trained(arm.model.folder()))


def _decision(candidate: Candidate, version: ModelVersion, alias: str, words: str, *, is_new: bool) -> Decision:
    return Decision(
        name=version.name,
        version=str(version.version),
        alias=alias,
        arm=candidate.words,
        validation_macro_f1=candidate.validation_macro_f1,
        decision=words,
        is_new=is_new,
        training=Training(classifier=candidate.classifier, arm=candidate.arm, seed=candidate.seed),
    )
