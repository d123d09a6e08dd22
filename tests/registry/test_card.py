"""The card of a registered model: what it tells, that no name is markup in it, and how decisions take turns."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from cxr_tasks.config import resolve
from cxr_tasks.evaluation.external import external_findings
from cxr_tasks.evaluation.findings import ArmFindings, arm_findings
from cxr_tasks.registry.card import DECISION, CardFacts, model_card, with_decision
from cxr_tasks.registry.champions import Candidate
from tests.hostile import MARKUP

CLASSES = ["COVID", "Normal", f"{MARKUP[0]}|[a](javascript:alert(1))"]
SETTINGS = resolve("quick").evaluation


def predicted(images: int, right: float, seed: int = 0) -> pd.DataFrame:
    """Prediction rows, of which the share ``right`` is right; half of the images are of children."""
    rng = np.random.default_rng(seed)
    truth = np.arange(images) % 3
    answer = np.where(rng.random(images) < right, truth, (truth + 1) % 3)
    table = pd.DataFrame(0.8 * np.eye(3)[answer] + 0.2 / 3, columns=CLASSES)
    names = [f"i{n}" for n in range(images)]
    labels = [CLASSES[k] for k in truth]
    return table.assign(image_id=names, group=names, label=labels, split=["test", "validation"] * (images // 2))


@pytest.fixture(scope="module")
def findings() -> ArmFindings:
    table = predicted(600, 0.9)
    groups = pd.DataFrame(
        {"age": ["under 18", "18 to 39"] * 300}, index=table["image_id"].sample(frac=1, random_state=0)
    )
    return arm_findings("both", table, {}, groups, CLASSES, SETTINGS, seed=0)


def facts(findings: ArmFindings, **changes: object) -> CardFacts:
    def measured(images: int, seed: int) -> object:
        table = predicted(images, 0.8, seed)
        return external_findings(table, None, CLASSES, bootstrap_samples=100, confidence=0.95, seed=0)

    candidate = Candidate(
        classifier="vgg16",
        role="augmented",
        arm="both",
        seed=3,
        validation_macro_f1=0.912,
        artifact="train_arm/a",
        weights_digest="a",
        dataset="split/a",
        classes="|".join(CLASSES[:2]),
        model_uri="",
        synthetic="CovidGAN, 300 epochs",
    )
    given = {
        "network": "VGG16",
        "candidate": candidate,
        "classes": CLASSES,
        "counts": {"train": {"COVID": 1200, "Normal": 5}},
        "dataset": "0a1b",
        "warnings": ["few images of COVID"],
        "findings": findings,
        "test": measured(600, 1),
        "external": {"b": measured(90, 2)},
        "pages": {"The run": "http://mlflow/run", "Data Docs": ""},
    }
    return CardFacts(**(given | changes))


def test_a_card_says_what_it_is_for_whose_images_and_how_sure_its_figures_are(findings: ArmFindings) -> None:
    card = model_card(facts(findings), "It is better. Champion 2 was replaced.")

    assert card.startswith("**For research only.") and "no diagnosis may rest on it" in card
    assert "VGG16, trained on the arm `both` with seed 3" in card and "Synthetic images: CovidGAN, 300 epochs." in card
    assert "| train | 1,200 | 5 | 0 |" in card and "- few images of COVID" in card and "Dataset `0a1b`" in card
    shown = re.search(r"\| test images \| 600 \| ([\d.]+) \\\(([\d.]+) to ([\d.]+)", card)
    assert shown and float(shown[2]) < float(shown[1]) < float(shown[3])
    assert "| external set b | 90 |" in card and "By age, balanced accuracy is lowest for" in card
    assert "- [The run](http://mlflow/run)" in card and "Data Docs" not in card
    assert card.endswith(f"{DECISION}\n\nIt is better. Champion 2 was replaced.")


def test_an_arm_without_synthetic_images_says_so(findings: ArmFindings) -> None:
    plain = facts(findings).candidate.model_copy(update={"synthetic": ""})
    card = model_card(facts(findings, candidate=plain), "No.")

    assert "Synthetic images: none: every training image is real." in card
    assert "](javascript" not in card and re.search(r"(?<!\\)<img", card) is None


def test_a_decision_takes_the_place_of_the_one_before(findings: ArmFindings) -> None:
    card = model_card(facts(findings), "It waits.")

    later = with_decision(with_decision(card, "It is champion."), "Rolled back: misses *children*")

    assert later.count(DECISION) == 1 and later.endswith("Rolled back: misses \\*children\\*")
    assert later.partition(DECISION)[0] == card.partition(DECISION)[0]
    assert with_decision("", "It is champion.") == ""
