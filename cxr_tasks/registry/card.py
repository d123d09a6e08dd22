"""The card of a registered model: what a person must know before using it, as Markdown.

The parts follow Mitchell et al. 2019, Model Cards for Model Reporting.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cxr_tasks.evaluation.external import ExternalFindings
from cxr_tasks.evaluation.findings import ArmFindings
from cxr_tasks.markdown import in_markdown, markdown_links, markdown_list, markdown_table
from cxr_tasks.names import slug
from cxr_tasks.registry.champions import Candidate

# The last part of a card: it is written anew with each decision.
DECISION = "## Why it is, or is not, champion"
USE = (
    "**For research only. This model is no medical device, and no diagnosis may rest on it.** It names one of the "
    "classes below for every image, also for an image that is no chest X-ray, and for a disease that is none of them."
)


@dataclass(frozen=True)
class CardFacts:
    """What a card is written from.

    Attributes:
        network: The classifier for people.
        candidate: The trained arm.
        classes: The classes in their order.
        counts: Images of the dataset by split, then by class.
        dataset: The dataset's version.
        warnings: What the dataset's validation warns of.
        findings: What is known of the arm by itself.
        test: Its figures on the test images.
        external: Its figures on each external set.
        pages: Where people see more, by name.
    """

    network: str
    candidate: Candidate
    classes: Sequence[str]
    counts: Mapping[str, Mapping[str, int]]
    dataset: str
    warnings: Sequence[str]
    findings: ArmFindings
    test: ExternalFindings
    external: Mapping[str, ExternalFindings] = field(default_factory=dict)
    pages: Mapping[str, str] = field(default_factory=dict)


def model_card(facts: CardFacts, decision: str) -> str:
    """The card of one version.

    Args:
        facts: What it is written from.
        decision: Why the version is, or is not, champion.
    """
    candidate, classes = facts.candidate, facts.classes
    told = "none: every training image is real"
    parts = [
        USE,
        "## What it is",
        f"{facts.network}, trained on the arm `{candidate.arm}` with seed {candidate.seed}. "
        f"Classes: {', '.join(map(in_markdown, classes))}. Images are resized by `{candidate.resize}`.",
        f"Synthetic images: {in_markdown(candidate.synthetic) if candidate.synthetic else told}.",
        "## Data",
        f"Dataset `{facts.dataset}`. The test images are real, and they have chosen nothing.",
        markdown_table(["Split", *classes], [[split, *_counted(by, classes)] for split, by in facts.counts.items()]),
        markdown_list(facts.warnings),
        "## Figures",
        _told_figures(facts),
        _told_of_classes(facts.findings, classes),
        "## Whom it fails, and what it looks at",
        markdown_list([*_subgroups(facts.findings), *_shortcuts(facts.findings)]),
        markdown_links(facts.pages),
    ]
    return with_decision("\n\n".join(part for part in parts if part), decision)


def with_decision(card: str, decision: str) -> str:
    """``card`` with another decision; a text without a card stays what it is.

    Args:
        card: A card, or its parts but the last one.
        decision: Why the version is, or is not, champion.
    """
    before = card.partition(DECISION)[0].rstrip()
    return f"{before}\n\n{DECISION}\n\n{in_markdown(decision)}" if before else card


def _told_figures(facts: CardFacts) -> str:
    sets = {"test images": facts.test, **{f"external set {name}": found for name, found in facts.external.items()}}
    percent = f"{100 * facts.test.confidence:g} %"
    rows = [[name, f"{each.images:,}", each.macro_f1.percent, each.accuracy.percent] for name, each in sets.items()]
    table = markdown_table(["Measured on", "Images", f"Macro F1, % ({percent} interval)", "Accuracy, %"], rows)
    calibration = facts.findings.calibration
    chosen_by = (
        f"On the validation images, which chose this model, macro F1 is {facts.candidate.validation_macro_f1:.3f}."
    )
    error = f"{calibration.ece_before:.3f}, and {calibration.ece_after:.3f} with the temperature"
    return (
        f"{table}\n\nIntervals are over patients or pictures. {chosen_by} The expected calibration error on the test "
        f"images is {error} {calibration.temperature:.2f}."
    )


def _told_of_classes(findings: ArmFindings, classes: Sequence[str]) -> str:
    names = {"recall": "Sensitivity, %", "precision": "Precision, %", "f1": "F1, %"}
    rows = [[name, *(f"{100 * findings.test[f'{key}_{slug(name)}']:.1f}" for key in names)] for name in classes]
    return markdown_table(["Class (test images)", *names.values()], rows)


def _subgroups(findings: ArmFindings) -> list[str]:
    found = findings.subgroups
    if found is None:
        return ["Nothing is known by which the test images could be divided, such as age, sex or site."]
    told = []
    for attribute in found.attributes:
        if len(attribute.rows) > 1:
            worst = min(attribute.rows, key=lambda row: row.balanced_accuracy.value)
            told.append(
                f"By {attribute.attribute}, balanced accuracy is lowest for {worst.subgroup}: "
                f"{worst.balanced_accuracy.percent} % of {worst.images:,} images."
            )
    return told or ["No attribute has two subgroups of test images that are large enough to be compared."]


def _shortcuts(findings: ArmFindings) -> list[str]:
    found = findings.shortcuts
    if found is None:
        return ["Whether it looks at the lungs was not asked (`evaluation.shortcuts`)."]
    kept = "" if found.kept is None else f" That is {100 * found.kept:.0f} % of what it has above chance."
    blanked = (
        f"With the lungs blanked its balanced accuracy is {100 * found.lungs_blanked.balanced_accuracy:.1f} %, against "
        f"{100 * found.full.balanced_accuracy:.1f} % on whole images.{kept}"
    )
    return [blanked, *([found.warning] if found.warning else [])]


def _counted(by_class: Mapping[str, int], classes: Sequence[str]) -> list[str]:
    return [f"{by_class.get(name, 0):,}" for name in classes]
