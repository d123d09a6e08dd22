"""Who is registered, and who becomes champion: validation images decide, and of equals the simpler training stays."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr_tasks.registry.champions import (
    CHALLENGER,
    CHAMPION,
    OVERALL_MODEL,
    TAG_CLASSES,
    TAG_DATASET,
    Candidate,
    Standing,
    best,
    chosen_for,
    decide,
    model_name,
)


def candidate(f1: float, artifact: str = "train_arm/a", **changes: Any) -> Candidate:
    values = {
        "classifier": "cnn",
        "role": "baseline",
        "arm": "classical",
        "seed": 0,
        "validation_macro_f1": f1,
        "artifact": artifact,
        "weights_digest": f"weights of {artifact}",
        "dataset": "split/a",
        "classes": "COVID|Normal|Viral Pneumonia",
        "model_uri": "",
    }
    return Candidate.model_validate(values | changes)


def test_best_has_the_highest_validation_figure_and_of_equals_is_the_first() -> None:
    baseline, augmented = candidate(0.9, "b"), candidate(0.9, "a", role="augmented")

    assert best([baseline, augmented]).role == "baseline"
    assert best([candidate(0.8), augmented, baseline]) == augmented


trained = st.lists(st.tuples(st.sampled_from(["cnn", "vgg16", "resnet50"]), st.floats(0, 1)), max_size=8)


@given(trained)
def test_each_classifier_has_its_best_and_all_together_the_best_of_these(arms: list[tuple[str, float]]) -> None:
    candidates = [candidate(f1, f"train_arm/{i}", classifier=name) for i, (name, f1) in enumerate(arms)]

    chosen = chosen_for(candidates)

    assert chosen.keys() == ({model_name(name) for name, _ in arms} | {OVERALL_MODEL} if arms else set())
    for name, one in chosen.items():
        rivals = [each for each in candidates if name in (OVERALL_MODEL, model_name(each.classifier))]
        assert one in rivals and one.validation_macro_f1 == max(each.validation_macro_f1 for each in rivals)
        assert one == next(each for each in rivals if each.validation_macro_f1 == one.validation_macro_f1)


def test_where_there_is_no_champion_the_first_is_one() -> None:
    assert decide(candidate(0.1), "", None) == (CHAMPION, "first champion: there was none to beat")


@pytest.mark.parametrize("f1", [0.4, 0.6])
def test_one_that_does_not_beat_the_champion_is_challenger(f1: float) -> None:
    alias, words = decide(candidate(f1), "1", Standing(score=0.6))

    assert alias == CHALLENGER
    assert words == f"{f1:.3f} does not beat champion 1 (0.600 on the same validation images)"


def test_a_better_one_is_champion() -> None:
    assert decide(candidate(0.61), "7", Standing(score=0.6)) == (
        CHAMPION,
        "0.610 beats champion 7 (0.600 on the same validation images)",
    )


def test_a_champion_that_cannot_be_compared_stays() -> None:
    alias, words = decide(candidate(0.99), "1", Standing(remark="was trained on some of these images"))

    assert alias == CHALLENGER
    assert words == "champion 1 was trained on some of these images: not compared, champion 1 stays"


@pytest.mark.parametrize(
    ("f1", "alias", "end"), [(0.61, CHAMPION, "even so"), (0.6, CHALLENGER, "until a person decides")]
)
def test_a_figure_that_is_not_clean_is_the_best_that_the_champion_can_have(f1: float, alias: str, end: str) -> None:
    became, words = decide(candidate(f1), "1", Standing(score=0.6, is_clean=False, remark="perhaps seen"))

    assert became == alias and "perhaps seen" in words and words.endswith(end)


standings = st.builds(
    Standing,
    score=st.none() | st.floats(0, 1),
    is_clean=st.booleans(),
    is_lost=st.booleans(),
    recorded=st.none() | st.floats(0, 1),
    remark=st.just("broken"),
)


@given(st.floats(0, 1), standings)
def test_no_champion_gives_way_to_a_candidate_of_a_lower_figure(f1: float, standing: Standing) -> None:
    alias, words = decide(candidate(f1), "1", standing)

    known = standing.recorded if standing.is_lost else standing.score
    if alias == CHAMPION:
        assert known is None or f1 >= known
    assert "champion 1" in words


@given(st.floats(0, 1), st.none() | st.floats(0, 1))
def test_a_champion_that_cannot_be_loaded_never_stays_or_goes_without_a_word(f1: float, recorded: float | None) -> None:
    alias, words = decide(candidate(f1), "1", Standing(is_lost=True, recorded=recorded, remark="its files are gone"))

    assert "could not be scored: its files are gone" in words
    assert ("it is replaced" in words) == (alias == CHAMPION)
    assert ("give the alias champion" in words) == (alias == CHALLENGER)


def test_a_version_keeps_what_it_was_and_what_it_was_chosen_by() -> None:
    tags = candidate(0.5).tags("cxr.artifact")

    assert tags["cxr.artifact"] == "train_arm/a" and tags["cxr.validation_macro_f1"] == "0.500000"
    assert (tags[TAG_DATASET], tags[TAG_CLASSES]) == ("split/a", "COVID|Normal|Viral Pneumonia")
    assert candidate(0.5).words == "cnn baseline (classical), seed 0"
