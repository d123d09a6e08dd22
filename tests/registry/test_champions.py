"""Which trained arms are registered: the best on validation images, and of equals the simpler training."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from cxr_tasks.registry.champions import (
    OVERALL_MODEL,
    TAG_CLASSES,
    TAG_DATASET,
    Candidate,
    best,
    model_name,
    rivals,
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

    found = rivals(candidates)

    assert found.keys() == ({model_name(name) for name, _ in arms} | {OVERALL_MODEL} if arms else set())
    for name, among in found.items():
        assert among == [each for each in candidates if name in (OVERALL_MODEL, model_name(each.classifier))]
        one = best(among)
        assert one == next(each for each in among if each.validation_macro_f1 == one.validation_macro_f1)
        assert one.validation_macro_f1 == max(each.validation_macro_f1 for each in among)


def test_a_version_keeps_what_it_was_and_what_it_was_chosen_by() -> None:
    tags = candidate(0.5).tags("cxr.artifact")

    assert tags["cxr.artifact"] == "train_arm/a" and tags["cxr.validation_macro_f1"] == "0.500000"
    assert (tags[TAG_DATASET], tags[TAG_CLASSES]) == ("split/a", "COVID|Normal|Viral Pneumonia")
    assert candidate(0.5).words == "cnn baseline (classical), seed 0"
