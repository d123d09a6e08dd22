"""Which trained arm is registered, and whether it becomes champion.

Validation figures decide; the test set is never asked. MLflow's registry is changed by the step ``promote``.
"""

from __future__ import annotations

from collections.abc import Sequence

from cxr_tasks.strict import Strict

CHAMPION, CHALLENGER = "champion", "challenger"
OVERALL_MODEL = "cxr-overall"
TAG_DIGEST, TAG_DATASET, TAG_CLASSES = "cxr.weights_digest", "cxr.dataset_ref", "cxr.classes"


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
            "cxr.validation_macro_f1": f"{self.validation_macro_f1:.6f}",
        }


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


def decide(candidate: Candidate, champion_version: str, standing: float | None) -> tuple[str, str]:
    """Whether ``candidate`` becomes champion: the alias that it gets, and why in words.

    Args:
        candidate: The challenger.
        champion_version: The version that is champion; empty where there is none.
        standing: The champion's macro F1 on the candidate's validation images; ``None`` if it cannot be compared.
    """
    if not champion_version:
        return CHAMPION, "first champion: there was none to beat"
    if standing is None:
        return (
            CHALLENGER,
            f"champion {champion_version} has other classes or was trained on some of these images: not compared",
        )
    beaten = candidate.validation_macro_f1 > standing
    return (
        CHAMPION if beaten else CHALLENGER,
        f"{candidate.validation_macro_f1:.3f} {'beats' if beaten else 'does not beat'} champion {champion_version} "
        f"({standing:.3f} on the same validation images)",
    )
