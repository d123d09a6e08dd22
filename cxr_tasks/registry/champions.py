"""Which trained arm is registered, and whether it becomes champion.

Validation figures decide; the test set is never asked. MLflow's registry is changed by the step ``promote``.
"""

from __future__ import annotations

from collections.abc import Sequence

from cxr_tasks.image_settings import FIRST_RESIZE
from cxr_tasks.strict import Strict

CHAMPION, CHALLENGER = "champion", "challenger"
OVERALL_MODEL = "cxr-overall"
TAG_DIGEST, TAG_DATASET, TAG_CLASSES = "cxr.weights_digest", "cxr.dataset_ref", "cxr.classes"
TAG_VALIDATION, TAG_DECISION, TAG_DECIDED_BY = "cxr.validation_macro_f1", "cxr.decision", "cxr.decided_by"


class Candidate(Strict):
    """One trained arm.

    Attributes:
        classifier: In the registry of classifiers.
        role: ``baseline`` or ``augmented``.
        arm: What it was trained on.
        seed: Of its training.
        validation_macro_f1: What it is chosen by.
        artifact: Store reference of its model.
        weights_digest: A hash of the model's weights. A registered version is known by it.
        dataset: Store reference of its dataset.
        classes: The classes in their order, joined by ``|``.
        model_uri: Where MLflow has the model.
        resize: How its images were brought to its side.
        synthetic: What made the synthetic images that it was trained on, in words; empty where there were none.
    """

    classifier: str
    role: str
    arm: str
    seed: int
    validation_macro_f1: float
    artifact: str
    weights_digest: str
    dataset: str
    classes: str
    model_uri: str
    resize: str = FIRST_RESIZE
    synthetic: str = ""

    @property
    def words(self) -> str:
        """What was trained, for people."""
        return f"{self.classifier} {self.role} ({self.arm}), seed {self.seed}"

    def tags(self, artifact_tag: str) -> dict[str, str]:
        """What a registered version keeps of it; ``artifact_tag`` is the tag that names the artifact."""
        return {
            artifact_tag: self.artifact,
            TAG_DIGEST: self.weights_digest,
            TAG_DATASET: self.dataset,
            TAG_CLASSES: self.classes,
            "cxr.arm": self.arm,
            "cxr.role": self.role,
            "cxr.seed": str(self.seed),
            "cxr.resize": self.resize,
            **({"cxr.synthetic": self.synthetic} if self.synthetic else {}),
            TAG_VALIDATION: f"{self.validation_macro_f1:.6f}",
        }


class Standing(Strict):
    """How a champion does on the validation images of a candidate.

    Attributes:
        score: Its macro F1 on them; ``None`` where it was not scored.
        is_clean: Whether it is known that the champion was trained on none of them.
        is_lost: Whether it cannot be loaded, and cannot be scored for this reason.
        recorded: The validation macro F1 that it was registered with, on the images of its own dataset.
        remark: What a reader of the decision must know, to stand behind ``champion 3``, or behind the figure.
    """

    score: float | None = None
    is_clean: bool = True
    is_lost: bool = False
    recorded: float | None = None
    remark: str = ""


def model_name(classifier: str) -> str:
    """The registered model of a classifier."""
    return f"cxr-{classifier}"


def best(candidates: Sequence[Candidate]) -> Candidate:
    """The candidate with the highest validation macro F1; of equals the first, so baselines stand first."""
    return max(candidates, key=lambda candidate: candidate.validation_macro_f1)


def chosen_for(candidates: Sequence[Candidate]) -> dict[str, Candidate]:
    """The candidate of each registered model: the best of each classifier, and the best of all."""
    classifiers = dict.fromkeys(candidate.classifier for candidate in candidates)
    chosen = {model_name(k): best([c for c in candidates if c.classifier == k]) for k in classifiers}
    return {**chosen, OVERALL_MODEL: best(candidates)} if candidates else {}


def decide(candidate: Candidate, champion_version: str, standing: Standing | None) -> tuple[str, str]:
    """Whether ``candidate`` becomes champion: the alias that it gets, and why in words.

    A champion whose training images are not known any more may have been trained on the images that it is scored on.
    Its figure is then the best that it can have. So a candidate that beats it takes its place, and one that does not
    leaves the question open. A champion that cannot be loaded can serve nobody. It gives way to a candidate that is
    at least as good as the figure that the champion was registered with, on whatever images that was.

    Args:
        candidate: The challenger.
        champion_version: The version that is champion; empty where there is none.
        standing: How the champion does on the candidate's validation images; ``None`` where there is no champion.
    """
    if not champion_version or standing is None:
        return CHAMPION, "first champion: there was none to beat"
    champion = f"champion {champion_version}"
    if standing.is_lost:
        return _decide_without(candidate, champion, standing)
    if standing.score is None:
        return CHALLENGER, f"{champion} {standing.remark}: not compared, {champion} stays"
    beaten = candidate.validation_macro_f1 > standing.score
    words = (
        f"{candidate.validation_macro_f1:.3f} {'beats' if beaten else 'does not beat'} {champion} "
        f"({standing.score:.3f} on the same validation images{', ' * bool(standing.remark)}{standing.remark})"
    )
    if standing.is_clean:
        return (CHAMPION if beaten else CHALLENGER), words
    if beaten:
        return CHAMPION, f"{words}: even so"
    return CHALLENGER, f"{words}: an unfair comparison that decides nothing, {champion} stays until a person decides"


def _decide_without(candidate: Candidate, champion: str, standing: Standing) -> tuple[str, str]:
    """The decision where the champion cannot be loaded and nothing is known of it on these images."""
    broken, own = f"{champion} could not be scored: {standing.remark}", f"{candidate.validation_macro_f1:.3f}"
    if standing.recorded is None:
        return CHAMPION, f"{broken}. No figure of it is known either, and it can serve nobody: it is replaced ({own})"
    then = f"{standing.recorded:.3f} on the validation images of its own dataset"
    if candidate.validation_macro_f1 >= standing.recorded:
        return CHAMPION, f"{broken}. It had {then}, and the candidate has {own} on its own: it is replaced"
    return (
        CHALLENGER,
        f"{broken}. It had {then}, and the candidate has only {own} on its own: no decision. To replace it all the "
        f"same, give the alias {CHAMPION} to this version in MLflow",
    )
