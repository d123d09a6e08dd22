"""Laws of the distances, shares and scores, against closed forms and brute force, and the verdict on toy features."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm

from cxr_tasks.config import JudgeSettings, resolve
from cxr_tasks.gan.distances import (
    Sample,
    density_and_coverage,
    frechet_distance,
    kernel_distance,
    nearness,
    recalls,
)
from cxr_tasks.gan.measuring import measure
from cxr_tasks.gan.quality import GanQuality
from cxr_tasks.gan.verdict import gan_verdict

REPOSITORY = Path(__file__).resolve().parents[2]
CLASSES = ["COVID", "Normal", "Viral Pneumonia"]
D = 12


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


seeds = st.integers(0, 2**31 - 1)


# KID


def test_kid_of_two_halves_is_near_zero_and_grows_with_the_shift() -> None:
    x, y = rng().normal(size=(2, 300, D))

    shifted = [kernel_distance(x, y + shift) for shift in (0, 0.2, 0.5, 1, 2)]

    assert abs(shifted[0]) < 0.03
    assert shifted == sorted(shifted)
    assert shifted[-1] > 5


def test_kid_is_unbiased_for_few_images() -> None:
    random = rng(1)
    draws = [kernel_distance(*random.normal(size=(2, 8, 4))) for _ in range(1500)]

    error = np.std(draws) / np.sqrt(len(draws))

    assert abs(np.mean(draws)) < 4 * error
    # The biased estimator would be above zero every time.
    assert 0.2 < np.mean(np.array(draws) < 0) < 0.8


def test_kid_is_the_sum_over_pairs_that_its_paper_gives() -> None:
    x, y = rng(2).normal(size=(5, 3)), rng(3).normal(size=(4, 3))

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return (a @ b / 3 + 1) ** 3

    within = [np.mean([kernel(a, b) for i, a in enumerate(z) for j, b in enumerate(z) if i != j]) for z in (x, y)]
    expected = sum(within) - 2 * np.mean([kernel(a, b) for a in x for b in y])

    assert kernel_distance(x, y) == pytest.approx(expected)


# FID


def exact_moments(random: np.random.Generator, n: int, mean: np.ndarray, root: np.ndarray) -> np.ndarray:
    """(n, d) whose sample mean and covariance are exactly ``mean`` and root·rootᵀ."""
    z = random.normal(size=(n, len(mean)))
    z -= z.mean(axis=0)
    whitened = z @ np.linalg.inv(np.linalg.cholesky(np.cov(z.T))).T
    return whitened @ root.T + mean


@given(seeds)
@settings(max_examples=20)
def test_fid_is_the_closed_form_of_two_gaussians(seed: int) -> None:
    random = rng(seed)
    means, roots = random.normal(size=(2, 4)), random.normal(size=(2, 4, 4))
    x, y = (exact_moments(random, 40, mean, root) for mean, root in zip(means, roots, strict=True))

    first, second = (root @ root.T for root in roots)
    expected = ((means[0] - means[1]) ** 2).sum() + np.trace(first + second - 2 * np.real(sqrtm(first @ second)))

    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_fid_of_commuting_covariances_is_that_of_the_standard_deviations() -> None:
    x = exact_moments(rng(), 50, np.zeros(3), np.diag([1.0, 2, 3]))
    y = exact_moments(rng(1), 60, np.array([1.0, 0, 0]), np.diag([2.0, 2, 5]))

    assert frechet_distance(x, y) == pytest.approx(1 + 1 + 0 + 4)


@given(seeds, st.integers(2, 12), st.integers(2, 12))
@settings(max_examples=25)
def test_fid_is_a_distance_for_any_number_of_images(seed: int, n: int, m: int) -> None:
    random = rng(seed)
    x, y, shift = random.normal(size=(n, 6)), random.normal(size=(m, 6)), random.normal(size=6)

    distance = frechet_distance(x, y)

    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)
    assert distance == pytest.approx(frechet_distance(y, x))
    # Only the places of two clouds relative to each other matter, and the order of images does not.
    assert distance == pytest.approx(frechet_distance(x + shift, y + shift))
    assert distance == pytest.approx(frechet_distance(random.permutation(x), y))
    assert distance >= ((x.mean(axis=0) - y.mean(axis=0)) ** 2).sum() - 1e-9


def test_fid_takes_images_that_are_all_alike() -> None:
    assert frechet_distance(np.zeros((4, 3)), np.ones((5, 3))) == pytest.approx(3)


# Density and coverage


@given(seeds, st.integers(1, 3))
@settings(max_examples=20)
def test_density_and_coverage_are_what_counting_gives(seed: int, k: int) -> None:
    random = rng(seed)
    real, fake = random.normal(size=(9, 3)), random.normal(size=(7, 3)) * 1.5

    radii = [sorted(np.linalg.norm(real - one, axis=1))[k] for one in real]
    inside = [
        [np.linalg.norm(one - other) <= radius for other in fake] for one, radius in zip(real, radii, strict=True)
    ]

    assert density_and_coverage(real, fake, k) == pytest.approx(
        (np.sum(inside) / (k * 7), np.mean(np.any(inside, axis=1)))
    )


def test_density_and_coverage_have_the_expectations_of_their_paper() -> None:
    random, n, k = rng(), 60, 5
    figures = np.array([density_and_coverage(*random.normal(size=(2, n, 8)), k) for _ in range(60)])

    expected = 1 - np.prod([(n - i) / (2 * n - i) for i in range(1, k + 1)])

    assert figures[:, 0].mean() == pytest.approx(1, abs=0.06)
    assert figures[:, 1].mean() == pytest.approx(expected, abs=0.02)


def test_coverage_of_itself_is_whole_and_far_away_it_is_none() -> None:
    real = rng().normal(size=(50, 8))

    assert density_and_coverage(real, real)[1] == 1
    assert density_and_coverage(real, real + 100) == (0, 0)
    # One picture repeated covers only what lies around it.
    assert density_and_coverage(real, np.repeat(real[:1], 50, axis=0))[1] < 0.5


# Copies


def test_nearness_of_copies_is_near_zero_and_of_fresh_images_near_one() -> None:
    training, fresh = rng().normal(size=(300, D)), rng(1).normal(size=(100, D))

    assert nearness(training[:20], training) == pytest.approx(0, abs=1e-6)
    assert nearness(training[:20] + 0.01, training).max() < 0.05
    assert 0.6 < np.median(nearness(fresh, training)) < 1
    # Blurred images are near to everything, and copies of nothing.
    assert nearness(np.zeros((1, D)), training)[0] > 0.6


@pytest.mark.parametrize("at_once", [256, 512])
def test_nearness_in_parts_has_the_same_bits(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    random = rng(3)
    images, training = (random.normal(size=(count, D)).astype(np.float32) for count in (300, 700))
    whole = nearness(images, training)

    monkeypatch.setattr("cxr_tasks.gan.distances.COMPARED_AT_ONCE", at_once)

    np.testing.assert_array_equal(nearness(images, training), whole)


@given(seeds, st.floats(0.1, 10))
@settings(max_examples=15)
def test_nearness_does_not_depend_on_place_scale_and_order(seed: int, scale: float) -> None:
    random = rng(seed)
    images, training, shift = random.normal(size=(6, 4)), random.normal(size=(12, 4)), random.normal(size=4)

    again = nearness(images * scale + shift, random.permutation(training * scale + shift))

    assert again == pytest.approx(nearness(images, training), rel=1e-5)


def test_an_image_equal_to_all_its_neighbours_is_a_copy() -> None:
    assert nearness(np.zeros((2, 3)), np.zeros((30, 3))).tolist() == [0, 0]


# The whole table


def made(seed: int, per_class: tuple[int, ...] = (100, 100, 100), apart: float = 1.2, shift: float = 0) -> Sample:
    """Gaussian classes whose centres are ``apart``."""
    labels = np.repeat(np.arange(len(per_class)), per_class)
    values = rng(seed).normal(size=(len(labels), D)) + shift
    values[np.arange(len(labels)), labels] += apart
    return Sample(values, labels)


def jittered(sample: Sample) -> Sample:
    return Sample(sample.values + rng(9).normal(size=sample.values.shape) * 0.01, sample.labels)


def quality(synthetic: Sample, **changes: Sample | None) -> GanQuality:
    samples: dict = {"training": made(0), "held_out": made(1, (60, 40, 12)), "untrained": made(2, shift=4)}
    samples |= changes
    return measure(synthetic, classes=CLASSES, extractor="toy", seed=0, **samples)


@pytest.fixture(scope="module")
def fresh() -> GanQuality:
    return quality(made(5))


def test_fresh_draws_are_as_good_as_the_floor(fresh: GanQuality) -> None:
    for row in (fresh.overall, *fresh.classes):
        assert abs(row.kid.value) < 0.1
        assert abs(row.kid_ratio.value) < 0.05
        assert row.fid.value == pytest.approx(row.fid_floor.value, rel=0.5)
        assert row.coverage.value > 0.8
        assert row.density.value == pytest.approx(1, abs=0.35)
        assert row.memorised.value < 0.2
    assert fresh.overall.memorised.value == pytest.approx(fresh.overall.memorised_held_out.value, abs=0.08)
    assert fresh.overall.memorised_held_out.value == pytest.approx(0.05, abs=0.01)
    assert fresh.overall.accuracy_score.value == pytest.approx(fresh.overall.accuracy_score_real.value, abs=0.1)


def test_sizes_are_told_and_every_distance_of_a_row_has_the_same(fresh: GanQuality) -> None:
    assert [row.drawn for row in (fresh.overall, *fresh.classes)] == [36, 60, 40, 12]
    assert [row.held_out for row in fresh.classes] == [60, 40, 12]
    assert fresh.dimensions == D


def test_over_all_a_perfect_generator_is_not_blamed_for_making_as_many_of_each_class() -> None:
    real = {"training": made(0, (40, 200, 20), apart=6), "held_out": made(1, (30, 150, 15), apart=6)}

    row = quality(made(5, apart=6), **real, untrained=made(2, apart=6, shift=4)).overall

    # The training images' mixture, as far as the fewest of a class reach: 100 of the generator's for 200.
    assert row.drawn == 20 + 100 + 10
    assert row.kid.value == pytest.approx(row.kid_floor.value, abs=0.02 * row.kid_untrained.value)
    assert row.fid.value == pytest.approx(row.fid_floor.value, rel=0.3)
    assert row.coverage.value == pytest.approx(row.coverage_floor.value, abs=0.1)


def test_a_class_that_one_sample_lacks_is_compared_in_none() -> None:
    row = quality(made(5, (100, 100, 0)), held_out=made(1, (60, 60, 60))).overall

    assert row.drawn == 120 and abs(row.kid_ratio.value) < 0.05


def test_copies_are_all_memorised_and_otherwise_perfect() -> None:
    row = quality(jittered(made(0))).overall

    assert row.memorised.value == 1
    assert row.kid.value < 0.05
    assert row.coverage.value > 0.9


def test_the_accuracy_score_of_shuffled_labels_is_chance() -> None:
    good, held_out = made(5, apart=3), made(1, apart=3)
    random = rng(4)
    scores = [recalls(Sample(good.values, random.permutation(good.labels)), held_out, 3).mean() for _ in range(12)]

    assert recalls(good, held_out, 3).mean() > 0.9
    assert np.mean(scores) == pytest.approx(1 / 3, abs=0.12)


def test_tiny_and_missing_classes_give_reasons_and_no_failure() -> None:
    tiny = quality(made(5, (100, 4, 0)), held_out=made(1, (60, 5, 0)), untrained=None)
    covid, normal, viral = tiny.classes

    assert covid.coverage.value is not None
    assert normal.kid == normal.kid.model_copy(update={"value": None})
    assert normal.fid.reason == "4 synthetic images: at least 10 are needed"
    assert normal.kid_floor.reason == "5 held-out images: at least 10 are needed"
    assert viral.memorised.reason == "there are no synthetic images"
    # Of two classes in the training's proportions, the fewest of one leave four of each.
    assert tiny.overall.fid.reason == "8 comparable images: at least 10 are needed"
    assert tiny.overall.kid_ratio.reason == tiny.overall.kid.reason
    assert tiny.overall.accuracy_score.reason == "Normal: 4 synthetic images: at least 10 are needed"
    assert tiny.overall.repeated.reason == "it was not looked for"


@pytest.mark.parametrize("size", [0, 1, 9, 10])
def test_any_number_of_held_out_images_is_taken(size: int) -> None:
    row = quality(made(5), held_out=made(1, (size, 0, 0))).overall

    assert (row.fid_floor.value is None) == (size < 10)
    assert (row.memorised.value is None) == (size < 10)
    assert row.kid.value is not None


def test_ten_held_out_images_are_enough_to_see_copies() -> None:
    few = made(1, (4, 3, 3))

    assert quality(jittered(made(0)), held_out=few).overall.memorised.value == 1
    # One of ten is the smallest, and a fresh draw is below it as often.
    assert quality(made(5), held_out=few).overall.memorised.value < 0.3


def test_no_synthetic_images_at_all_are_taken() -> None:
    row = quality(made(5, (0, 0, 0))).overall

    assert row.kid.value is row.memorised.value is row.accuracy_score.value is None


def test_it_survives_json_and_the_order_of_runs(fresh: GanQuality) -> None:
    assert GanQuality.model_validate_json(fresh.model_dump_json()) == fresh
    assert GanQuality.model_validate(fresh.model_dump(mode="json")) == fresh
    assert quality(made(5)) == fresh


def test_the_frame_has_a_row_a_class_and_numbers_where_there_are_any(fresh: GanQuality) -> None:
    frame = fresh.to_frame()

    assert frame["class"].tolist() == ["all", *CLASSES]
    assert set(frame["extractor"]) == {"toy"}
    assert frame["kid_sd"].dtype == frame["repeated"].dtype == float
    assert frame["repeated"].isna().all()
    metrics = fresh.metrics()
    assert metrics["gan_kid"] == frame["kid"][0]
    assert metrics["gan_coverage_Viral_Pneumonia"] == frame["coverage"][3]
    assert "gan_repeated" not in metrics


def test_features_of_different_extractors_are_refused() -> None:
    with pytest.raises(ValueError, match=r"features differ in length: \[12, 12, 12, 5\]"):
        quality(made(5), untrained=Sample(np.zeros((30, 5)), np.zeros(30, int)))


def test_no_network_library_is_loaded() -> None:
    modules = "cxr_tasks.gan.verdict, cxr_tasks.gan.measuring"
    code = f"import sys, {modules}; print({{'keras', 'tensorflow'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert done.stdout.strip() == "set()"


# The verdict


@pytest.fixture
def judge() -> JudgeSettings:
    asked = {"max_kid_ratio": 0.5, "min_coverage": 0.1, "max_memorised": 0.25, "max_repeated": 0.5}
    return resolve("quick", {"judge": {**asked, "min_accuracy_score": 0.4}}).judge


@pytest.fixture(scope="module")
def untrained() -> GanQuality:
    return quality(with_repeated(made(6, shift=4), 1.0))


def with_repeated(sample: Sample, share: float) -> Sample:
    return Sample(sample.values, sample.labels, np.arange(len(sample)) % 100 < share * 100)


def test_the_verdict_tells_good_copied_untrained_and_repeated_images_apart(
    judge: JudgeSettings, untrained: GanQuality
) -> None:
    measured = {
        "good enough": quality(with_repeated(made(5), 0.0)),
        "memorised": quality(with_repeated(jittered(made(0)), 1.0)),
        "not good enough": untrained,
        "repetitive": quality(with_repeated(made(5), 1.0)),
    }
    kinds = {kind: gan_verdict(one, judge) for kind, one in measured.items()}

    assert {kind: one.kind for kind, one in kinds.items()} == {kind: kind for kind in kinds}
    assert [one.passed for one in kinds.values()] == [True, False, False, False]
    assert kinds["good enough"].reasons == []
    assert kinds["good enough"].sentence == "The generated images are good enough to train with (features of toy)."
    assert (
        kinds["repetitive"].reasons[1]
        == "COVID: 100 % show the same picture as another one; at most 0.5 is asked (max_repeated)."
    )
    assert kinds["memorised"].sentence.startswith("The generated images copy real ones: over all classes: 100 %")


def test_what_is_not_asked_is_not_judged(judge: JudgeSettings, untrained: GanQuality) -> None:
    nothing = dict.fromkeys(
        ["max_kid_ratio", "min_coverage", "max_memorised", "max_repeated", "min_accuracy_score"], None
    )

    assert gan_verdict(untrained, judge.model_copy(update=nothing)).passed


def test_what_could_not_be_measured_over_all_images_does_not_pass(judge: JudgeSettings, fresh: GanQuality) -> None:
    # Repeated images were not looked for.
    judged = gan_verdict(fresh, judge)

    assert (judged.passed, judged.kind, judged.reasons) == (False, "not judged", [])
    assert judged.not_judged[0] == "Over all classes: repeated could not be measured (it was not looked for)."


def test_a_class_that_could_not_be_measured_fails_nothing(judge: JudgeSettings) -> None:
    few = quality(with_repeated(made(5, (100, 100, 9)), 0.0))

    judged = gan_verdict(few, judge.model_copy(update={"min_accuracy_score": None}))

    assert judged.passed
    assert len(judged.not_judged) == 2
    assert all(sentence.startswith("Viral Pneumonia: ") for sentence in judged.not_judged)


def test_a_class_that_nobody_gave_images_of_is_held_to_nothing(judge: JudgeSettings) -> None:
    lacking = quality(with_repeated(made(5, (100, 100, 0)), 0.0))

    judged = gan_verdict(lacking, judge)

    assert judged.passed and judged.not_judged == []
    # Real images of that class are lent to both models.
    assert lacking.overall.accuracy_score.value is not None and lacking.classes[2].synthetic == 0
