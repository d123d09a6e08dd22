"""What a run was to make and did not, and why."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from cxr_tasks.arms import needs_synthetic
from cxr_tasks.artifacts import Failure, Missing, Pair, Training
from cxr_tasks.classifiers.registry import CLASSIFIERS
from cxr_tasks.report.results import Results

WORDLESS = "Its task has left no word. Its log may say more."


@dataclass(frozen=True)
class Planned:
    """What a run was to make.

    Attributes:
        trainings: All arms.
        pairs: What is compared.
        leaks: The trainings by the source report's protocol.
        synthetic: Whether anything trains on synthetic images.
        imported: Whether others have made these, and no GAN is trained.
        galleries: Whether each complete pair gets a gallery.
        promotion: Whether models are registered.
        external: The names of the external sets.
    """

    trainings: Sequence[Training] = ()
    pairs: Sequence[Pair] = ()
    leaks: Sequence[Training] = ()
    synthetic: bool = False
    imported: bool = False
    galleries: bool = False
    promotion: bool = False
    external: Sequence[str] = ()


def missing_parts(planned: Planned, results: Results, failures: Sequence[Failure]) -> list[Missing]:
    """Each part that is missing, with the error of its task, or with what it would have needed.

    Parts that are missing for the same reason share an entry.
    """
    search = _Search(list(failures))
    _look_for_synthetic(planned, results, search)
    for failure in search.of_step("extract_features"):
        search.found(f"Features of {failure.label or 'a backbone'}", failure)
    _look_for_trainings(planned, results, search)
    _look_for_comparisons(planned, results, search)
    if planned.promotion and results.ruled is None:
        search.look("challenge", "", "The registration of models, and the choice of champions", WORDLESS)
    for step in ("draft_report", "approve", "promote", "keep_champion"):
        for failure in search.of_step(step):
            search.found("The choice of champions", failure)
    _look_for_external(planned, results, search)
    # Whatever else has failed: a task that plans, say.
    for failure in search.left():
        search.found("What this task makes, and what follows from it", failure)
    return search.told()


@dataclass
class _Search:
    """Finds the failures of what is missing, each once."""

    failures: list[Failure]
    entries: list[Missing] = field(default_factory=list)
    used: set[int] = field(default_factory=set)
    grouped: dict[str, list[str]] = field(default_factory=dict)

    def of_step(self, step: str) -> list[Failure]:
        return [failure for failure in self.failures if failure.step == step]

    def failed(self, step: str, label: str) -> Failure | None:
        """The failure of that very task; of a task that left no label only where no other word is there."""
        return next((each for each in self.of_step(step) if each.label == label), None)

    def look(self, step: str, label: str, what: str, otherwise: str) -> None:
        """Enter ``what``, with the failure of its task, or else because of ``otherwise``."""
        if (failure := self.failed(step, label)) is not None:
            self.found(what, failure)
        else:
            self.grouped.setdefault(otherwise, []).append(what)

    def found(self, what: str, failure: Failure) -> None:
        self.used.add(self.failures.index(failure))
        self.entries.append(
            Missing(what=what, why=failure.sentence, task=failure.task or failure.step, link=failure.link)
        )

    def left(self) -> list[Failure]:
        return [failure for i, failure in enumerate(self.failures) if i not in self.used]

    def told(self) -> list[Missing]:
        return [*self.entries, *(Missing(what="; ".join(what), why=why) for why, what in self.grouped.items())]


def _look_for_synthetic(planned: Planned, results: Results, search: _Search) -> None:
    """The chain that ends with the synthetic set: the first link that is missing."""
    if not planned.synthetic or results.synthetic is not None:
        return
    if planned.imported and results.imported is None:
        search.look("import_synthetic", "", "The imported synthetic images", WORDLESS)
    elif not planned.imported and results.gan is None:
        search.look("train_gan", "", "The GAN", WORDLESS)
    elif results.judgement is None:
        search.look("judge", "", "The judgement of the synthetic images", WORDLESS)
    else:
        verdict = WORDLESS if results.judgement.passed else results.judgement.sentence
        search.look("synthesize", "", "The synthetic set", verdict)


def _look_for_trainings(planned: Planned, results: Results, search: _Search) -> None:
    trained, leaked = {arm.training for arm in results.arms}, {leak.training for leak in results.leaks}
    need = _needs(results, search)
    for training in planned.trainings:
        if training not in trained:
            search.look("train_arm", training.label, f"The training {_name(training)}", need(training))
    for training in planned.leaks:
        if training not in leaked:
            what = f"The training by the source report's protocol, {_name(training)}"
            search.look("reproduce_leak", training.label, what, need(training))


def _needs(results: Results, search: _Search) -> Callable[[Training], str]:
    """Why a training was not begun."""
    without = {failure.label for failure in search.of_step("extract_features")}

    def reason(training: Training) -> str:
        synthetic = training.arm == "leaking" or needs_synthetic(training.arm)
        if synthetic and results.synthetic is None:
            return "It needs the synthetic set, which is missing."
        labels = {training.classifier, f"{training.classifier} synthetic"} if synthetic else {training.classifier}
        if labels & without:
            return f"It needs the features of {CLASSIFIERS[training.classifier].display}, which are missing."
        return WORDLESS

    return reason


def _look_for_comparisons(planned: Planned, results: Results, search: _Search) -> None:
    trained = {arm.training for arm in results.arms}
    complete = {comparison.pair for comparison in results.complete}
    alone = {comparison.pair for comparison in results.comparisons} - complete
    for pair in planned.pairs:
        if pair not in complete:
            lacks = pair in alone or not trained.issuperset(pair.trainings)
            what = f"The comparison of {_name(pair)} with {pair.against}"
            search.look("compare", pair.label, what, "One of its arms is missing." if lacks else WORDLESS)
    if planned.galleries:
        shown = {gallery.comparison for gallery in results.galleries}
        for comparison in results.complete:
            if comparison.ref not in shown:
                search.look("explain", comparison.name, f"The gallery of {comparison.name}", WORDLESS)


def _look_for_external(planned: Planned, results: Results, search: _Search) -> None:
    """Each external set that nothing was tested on: it could not be read, or the tests failed."""
    tested = {each.external.name for each in results.external}
    for name in planned.external:
        if name not in tested:
            step = "read_external" if search.failed("read_external", name) else "evaluate_external"
            search.look(step, name, f"The tests on the external set {name}", WORDLESS)


def _name(training: Training) -> str:
    return f"{CLASSIFIERS[training.classifier].display} {training.arm}, seed {training.seed}"
