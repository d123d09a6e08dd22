"""The arms of a run before the gate: what they have to show, and what the gate says of the best of them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from cxr_tasks import tracking
from cxr_tasks.artifacts import (
    Artifact,
    Comparison,
    Dataset,
    Decision,
    ExternalResults,
    Reply,
    Ruled,
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
    TAG_AGAINST,
    TAG_CONDITION,
    TAG_DECIDED_BY,
    TAG_DECISION,
    TAG_DIGEST,
    TAG_REPLY,
    TAG_ROLLED_BACK,
    Candidate,
    Standing,
    best,
    rivals,
    stays,
)
from cxr_tasks.steps.cards import tell, write_card
from cxr_tasks.steps.common import Mapped, arm_run, flat
from cxr_tasks.steps.external_tests import figures_of
from cxr_tasks.steps.served_facts import log_trained
from cxr_tasks.steps.standing import champion_score
from cxr_tasks.store import Lease, open_store

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.entities.model_registry import ModelVersion

    from cxr_tasks.registry.gate import Evidence, Gate

log = logging.getLogger(__name__)
Rulings = TypeVar("Rulings", bound=Ruled)
# What a version's decision says before anybody has made it champion.
WAITS = "It passes the gate, and is not champion yet."


class Contest:
    """The arms of a run before the gate of its settings.

    Attributes:
        rivals: The candidates of each registered model.
    """

    def __init__(
        self,
        run: RunContext,
        dataset: Dataset,
        comparisons: list[Comparison | None] | None,
        trained: Mapped[TrainedArm] | None,
        external: Mapped[ExternalResults] | None,
    ) -> None:
        """Take the arms of comparisons first, and then those whose comparison failed."""
        from cxr_tasks.registry.gate import Gate

        settings = load_settings(run)
        compared, arms = list(flat([comparisons])), list(flat(trained or []))
        self._run, self._settings, self._dataset = run, settings, dataset
        self._external = list(flat(external or []))
        self._arms = _arms_once(settings, compared, arms)
        candidates = [_candidate(settings, dataset, arm, _model_uri(run, dataset, arm)) for arm in self._arms.values()]
        self._gate, self._standing = Gate.of(settings), _Standings(dataset, list(settings.data.classes))
        self.rivals = rivals(candidates)

    def challenge(self, name: str, lease: Lease) -> Decision:
        """Register the best candidate of the registered model ``name`` as challenger, and ask the gate.

        Args:
            name: The registered model.
            lease: The one of :func:`alone_with`.
        """
        among = self.rivals[name]
        chosen = best(among)
        evidence = partial(_evidence, self._settings, self._arms[chosen.artifact], len(among), self._external)

        def standing_meanwhile(version: ModelVersion) -> Standing:
            found = self._standing(version)
            # Scoring a champion takes a while, and what it finds is worth nothing where another run has gone on.
            lease.check()
            return found

        decision = register_challenger(name, chosen, evidence, self._gate, standing_meanwhile, self._run.dag_run)
        version = version_of(decision)
        if version is not None and decision.alias == CHALLENGER:
            given = self._run, self._settings, self._dataset, self._arms[chosen.artifact], chosen, self._external
            write_card(version, decision.decision, *given)
        return decision


@contextmanager
def alone_with(name: str, work: str) -> Iterator[Lease]:
    """Nobody else decides on the registered model ``name`` inside the block: each is to beat the champion of now."""
    with open_store().lease(f"champion/{name}", f"{work} of {name}") as lease:
        yield lease


def register_challenger(
    name: str,
    candidate: Candidate,
    evidence: Callable[[], Evidence],
    gate: Gate,
    champion_standing: Callable[[ModelVersion], Standing],
    dag_run: str = "",
) -> Decision:
    """Register ``candidate`` as challenger, and say whether it may become champion by the gate.

    Args:
        name: The registered model.
        candidate: What is registered.
        evidence: What it has to show.
        gate: The gate.
        champion_standing: How the present champion does on the candidate's validation images.
        dag_run: Who asks. Where it has made this very model champion before, that is said again.
    """
    champion = tracking.version_by_alias(name, CHAMPION)
    if champion is not None and champion.tags.get(TAG_DIGEST) == candidate.weights_digest:
        tracking.set_alias(name, CHALLENGER, champion.version)
        return _decision(candidate, champion, CHAMPION, *champion_already(champion, dag_run))
    challenger = tracking.version_with_tag(name, TAG_DIGEST, candidate.weights_digest)
    if challenger is None:
        challenger = tracking.register(candidate.model_uri, name, candidate.tags(tracking.TAG_ARTIFACT))
    tracking.set_alias(name, CHALLENGER, challenger.version)
    standing = champion_standing(champion) if champion is not None else None
    against = str(champion.version) if champion is not None else ""
    shown = replace(evidence(), rolled_back=challenger.tags.get(TAG_ROLLED_BACK, ""))
    ruling = gate.rule(candidate, shown, against, standing)
    told = {TAG_CONDITION + slug(each.about): each.told for each in ruling.conditions}
    words = f"{WAITS} {ruling.words}" if ruling.passed else ruling.words
    # What a person said of it before was said of another ruling.
    stale = (TAG_CONDITION, TAG_REPLY)
    tell(challenger, words, {**told, TAG_DECIDED_BY: "", TAG_AGAINST: against}, stale)
    decision = _decision(candidate, challenger, CHALLENGER, words)
    return decision.model_copy(update={"conditions": ruling.conditions, "passes": ruling.passed, "against": against})


def champion_already(champion: ModelVersion, dag_run: str) -> tuple[str, bool]:
    """What is to be said of a challenger that is champion, and whether ``dag_run`` has made it that."""
    again = bool(dag_run) and champion.tags.get(TAG_DECIDED_BY) == dag_run
    return champion.tags.get(TAG_DECISION, "") if again else "The same model is champion already.", again


def ruled(words: str) -> str:
    """What the gate said, of the decision on a challenger that waits."""
    return words.removeprefix(WAITS).strip()


def leave(decision: Decision, reply: Reply | None, otherwise: str = "") -> Decision:
    """Leave a challenger what it is. If it passed the gate, its version keeps why it is not champion.

    Args:
        decision: What the gate says.
        reply: What a person says; ``None`` where nobody was asked.
        otherwise: What is said where nobody was asked.
    """
    if not decision.passes:
        return decision
    why = reply.words(decision.name) if reply is not None else otherwise
    kept = decision.model_copy(
        update={"decision": f"It passes the gate. {ruled(decision.decision)} {why} {stays(decision.against)}"}
    )
    version = version_of(decision)
    if version is not None:
        tell(version, kept.decision, {TAG_REPLY: why} if reply else {})
    return kept


def version_of(decision: Decision) -> ModelVersion | None:
    """The registered version of a decision; ``None`` where somebody has deleted it."""
    found = tracking.find_version(f"models:/{decision.name}/{decision.version}")
    return None if isinstance(found, str) else found


def perform_now(
    run: RunContext,
    kind: type[Rulings],
    fill: Callable[[Path], Made[Rulings]],
    inputs: Mapping[str, Artifact | str],
    settings: Mapping[str, object] | None = None,
) -> Rulings:
    """Perform a step that asks the registry as it is now, so that nothing is taken from the store.

    Args:
        run: The DAG run.
        kind: What the step makes.
        fill: Fills the artifact's folder.
        inputs: Handles of earlier steps by their role.
        settings: What the step was told.
    """
    anew = run.model_copy(update={"force": (*run.force, kind.step)})
    of_run: dict[str, Artifact | str] = {"dag_run": run.dag_run, "work": run.mlflow_run_id}
    return perform(anew, kind, fill, settings=settings or {}, inputs=of_run | dict(inputs))


def write_decisions(folder: Path, decisions: Sequence[Decision]) -> None:
    """Write what was decided into an artifact of :class:`Ruled`, and to the log."""
    import json

    for each in decisions:
        log.info("%s version %s is %s: %s", each.name, each.version, each.alias, each.decision)
    told = json.dumps([each.model_dump() for each in decisions], indent=2)
    (folder / Ruled.DECISIONS).write_text(told, encoding="utf-8")


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


def _candidate(settings: Settings, dataset: Dataset, arm: TrainedArm, model_uri: str) -> Candidate:
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
        model_uri=model_uri,
        resize=arm.model.resize,
        synthetic=arm.model.synthetic,
        evaluation=arm.ref,
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
    for test in (test for each in external if each.external.name == name for test in each.tests):
        if test.training == arm.training:
            found = figures_of(test.predictions(), validation, settings.data.classes, settings)
            return None if found.macro_f1_drop is None else found.macro_f1_drop.value
    return None


def _model_uri(run: RunContext, dataset: Dataset, arm: TrainedArm) -> str:
    """Where MLflow has the arm's model. Logged again from the artifact if MLflow lost it, or never had it."""

    def log_again() -> str:
        model = arm.model
        shown = tracking.run_that_shows(model.ref, model.mlflow_run_id, run.experiment_id)
        # That of another DAG run has ended, and is not opened again.
        if shown is not None and shown.dag_run == run.dag_run:
            place = tracking.reopen(shown.run_id)
        else:
            again, work = arm_run(run, dataset, arm.training, model.synthetic), f"{model.step} {arm.training.label}"
            place = tracking.step_run(run, work, model.ref, {tracking.TAG_STEP: model.step, **again.tags}, again.name)
        with place:
            return log_trained(model.folder(), arm.folder())

    return tracking.logged_model(arm.model_uri, log_again)


def _decision(candidate: Candidate, version: ModelVersion, alias: str, words: str, is_new: bool = False) -> Decision:
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
