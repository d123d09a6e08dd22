"""Which trained arms are registered as challengers. Whether they become champion is asked of the ``gate``.

Validation figures choose; the test set is never asked. MLflow's registry is changed by the step ``promote``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cxr_tasks.image_settings import FIRST_RESIZE
from cxr_tasks.strict import Strict

if TYPE_CHECKING:
    import pandas as pd

CHAMPION, CHALLENGER = "champion", "challenger"
OVERALL_MODEL = "cxr-overall"
OVERALL_CHAMPION = f"{OVERALL_MODEL}@{CHAMPION}"
TAG_DIGEST, TAG_DATASET, TAG_CLASSES = "cxr.weights_digest", "cxr.dataset_ref", "cxr.classes"
TAG_RESIZE = "cxr.resize"
TAG_VALIDATION, TAG_DECISION, TAG_DECIDED_BY = "cxr.validation_macro_f1", "cxr.decision", "cxr.decided_by"
# Of a version that is or was champion: since when, what it replaced, and why it was rolled back.
TAG_SINCE, TAG_REPLACED, TAG_ROLLED_BACK = "cxr.champion_since", "cxr.replaced_version", "cxr.rolled_back"
TAG_RESTORED_BY = "cxr.restored_by"
# On the test images, in percent, with the interval.
TAG_TEST_MACRO_F1 = "cxr.test_macro_f1"
# A person's, of a version that no cleanup may remove.
TAG_KEEP = "cxr.keep"
# Of a version that passed the gate: the champion that it was held against; empty where there was none.
TAG_AGAINST = "cxr.ruled_against"
# What a person said of making it champion.
TAG_REPLY = "cxr.approval"
# Followed by what a condition of the gate is about.
TAG_CONDITION = "cxr.gate."


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
        evaluation: Store reference of its predictions and figures, which stay as long as it does.
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
    evaluation: str = ""

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
            TAG_RESIZE: self.resize,
            **({"cxr.synthetic": self.synthetic} if self.synthetic else {}),
            **({"cxr.evaluation": self.evaluation} if self.evaluation else {}),
            TAG_VALIDATION: f"{self.validation_macro_f1:.6f}",
        }


class Condition(Strict):
    """One condition of the gate.

    Attributes:
        about: What was looked at, such as ``recall of COVID``.
        passed: Whether the challenger meets it.
        words: The figure and the limit, in a sentence.
    """

    about: str
    passed: bool
    words: str

    @property
    def told(self) -> str:
        """The outcome and the sentence."""
        return f"{'passed' if self.passed else 'refused'}: {self.words}"


@dataclass(frozen=True)
class Standing:
    """How a champion does on the validation images of a candidate.

    Attributes:
        score: Its macro F1 on them; ``None`` where it was not scored.
        predictions: What that was measured on; ``None`` where only the figure is known.
        is_clean: Whether it is known that the champion was trained on none of them.
        is_lost: Whether it cannot be loaded, and cannot be scored for this reason.
        recorded: The validation macro F1 that it was registered with, on the images of its own dataset.
        remark: What a reader of the decision must know, to stand behind ``champion 3``, or behind the figure.
    """

    score: float | None = None
    predictions: pd.DataFrame | None = field(default=None, compare=False)
    is_clean: bool = True
    is_lost: bool = False
    recorded: float | None = None
    remark: str = ""


def model_name(classifier: str) -> str:
    """The registered model of a classifier."""
    return f"cxr-{classifier}"


def stays(champion_version: str) -> str:
    """What a refusal ends with."""
    return f"Champion {champion_version} stays." if champion_version else "There is no champion yet."


def best(candidates: Sequence[Candidate]) -> Candidate:
    """The candidate with the highest validation macro F1; of equals the first, so baselines stand first."""
    return max(candidates, key=lambda candidate: candidate.validation_macro_f1)


def rivals(candidates: Sequence[Candidate]) -> dict[str, list[Candidate]]:
    """The candidates of each registered model: those of each classifier, and all of them for the best of all."""
    classifiers = dict.fromkeys(candidate.classifier for candidate in candidates)
    found = {model_name(k): [each for each in candidates if each.classifier == k] for k in classifiers}
    return {**found, OVERALL_MODEL: list(candidates)} if candidates else {}
