"""What a run's artifacts say in its report: each part is there, or the report says why not; nothing is trained."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from cxr_tasks import steps
from cxr_tasks.artifacts import Decision, Judgement, Pair, Promotion, RunContext, Training
from cxr_tasks.classifiers.registry import CLASSIFIERS
from cxr_tasks.config import Settings, merge, resolve
from cxr_tasks.evaluation.answer import NOTHING
from cxr_tasks.report.content import ONE_SEED, gather, judgement_warnings, named_findings
from cxr_tasks.report.render import Link, render_report
from cxr_tasks.report.results import Results
from cxr_tasks.setbacks import Setback, setback_told
from tests.steps import handles


@pytest.fixture(autouse=True, scope="module")
def untracked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One store for all tests, which take each other's artifacts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CXR_STORE", str(tmp_path_factory.mktemp("store")))
        patch.setenv("CXR_MLFLOW", "off")
        # Drawing takes longer than everything else. What the report itself draws is not touched.
        patch.setattr("cxr_tasks.evaluation.plots.png_bytes", lambda plot: b"a plot")
        yield


def chosen(overrides: dict[str, Any] | None = None) -> Settings:
    return resolve("quick", merge(handles.SMALL, overrides or {}))


def pairs_of(
    run: RunContext, dataset: Any, *pairs: Training, skills: tuple[float, float] = (1.5, 1.5), baseline: str = "none"
) -> list[Any]:
    """Comparisons of arms that were never trained; ``skills`` of baseline and augmented arm."""
    compared = []
    for pair in pairs:
        arms = [
            handles.trained_arm(run, dataset, pair.classifier, arm, pair.seed, skill=skill)
            for arm, skill in zip((baseline, pair.arm), skills, strict=True)
        ]
        compared.append(steps.compare(run, dataset, pair, [arms]))
    return compared


def pair(classifier: str = "cnn", arm: str = "synthetic", seed: int = 0) -> Training:
    return Training(classifier=classifier, arm=arm, seed=seed)


@pytest.fixture(scope="module")
def results(untracked: None) -> Results:
    """A run of two classifiers in which everything went well."""
    run, dataset = handles.begin(), handles.dataset(warnings=("few images of class COVID",))
    return Results(
        dataset=dataset,
        gan=handles.gan(),
        judgement=handles.judgement(),
        synthetic=handles.synthetic_set(notes=("dropped 3 synthetic images: near-copy of a training image",)),
        comparisons=pairs_of(run, dataset, pair(), pair("vgg16")),
        features=[handles.features()],
        leaks=[handles.leaked()],
        ruled=Promotion(
            decisions=(
                Decision(
                    name="cxr-cnn",
                    version="3",
                    alias="champion",
                    arm="cnn baseline (none), seed 0",
                    validation_macro_f1=0.8,
                    decision="first champion: there was none to beat",
                ),
            )
        ),
    )


def test_a_run_in_which_everything_went_well_says_everything(results: Results) -> None:
    links = [Link(label="there", url="https://mlflow/run"), Link(label="nowhere", url="")]

    content = gather(chosen(), results, links)

    assert (content.dataset_name, content.dataset_version) == ("phantoms", results.dataset.version)
    assert content.counts == results.dataset.counts and content.classes == handles.CLASSES
    assert content.synthetic_counts == {"COVID": 5, "Normal": 0, "Viral Pneumonia": 4}
    assert [(p.network, p.seed, p.baseline_arm, p.augmented_arm) for p in content.pairs] == [
        ("CNN", 0, "none", "synthetic"),
        ("VGG16", 0, "none", "synthetic"),
    ]
    for shown, compared in zip(content.pairs, results.comparisons, strict=True):
        assert shown.comparison == compared.result()
        assert shown.curves_png and shown.reliability_png and shown.gallery_png is None
        assert shown.thresholds and [row[0] for row in shown.thresholds.rows] == ["none"] * 3 + ["synthetic"] * 3
    assert [grid.png for grid in content.sample_grids] == [b"the GAN's grid", b"the synthetic set's grid"]
    assert [table.title for table in content.tables] == [
        "Shortcuts: does it look at the lungs?",
        "Classes by subgroup",
        "By source",
        "By subgroup: change from none",
        "Largest gap between subgroups",
        "Quality of the generated images",
        "What it cost",
    ]
    assert content.leak and content.leak.rows[0][0] == "CNN, seed 0" and "–" not in content.leak.rows[0]
    assert [model.name for model in content.promoted] == ["cxr-cnn"]
    assert content.summaries == [] and content.unpaired == []
    assert [link.label for link in content.links] == ["there"]
    assert "CNN" in content.answer and "VGG16" in content.answer
    assert resolve("quick", merge(handles.SMALL, {})).to_yaml() == content.settings_yaml


def test_what_a_reader_must_know_stands_in_the_warnings(results: Results) -> None:
    warnings = gather(chosen(), results, []).warnings

    assert warnings[0].startswith("Profile quick:")
    assert ONE_SEED in warnings
    # The control is among the arms of the profile: what it shows stands in the answer.
    assert not any("would show whether they do" in warning for warning in warnings)
    assert "Normal: coverage could not be measured (too few images)." in warnings
    assert "Synthetic set: dropped 3 synthetic images: near-copy of a training image." in warnings
    assert warnings[-1] == "Data: few images of class COVID"


def test_every_training_whose_numbers_were_lost_is_warned_of_in_words(results: Results) -> None:
    setback: Setback = {"at": 1200, "back_to": 900}
    of_gan, of_arm = (setback_told(who, setback) for who in ("The GAN", "The classifier cnn"))
    compared = results.comparisons[0]
    arm = compared.arms["baseline"]
    told = arm.model_copy(update={"model": arm.model.model_copy(update={"notes": (of_arm,)})})
    content = gather(
        chosen(),
        replace(
            results,
            gan=handles.gan().model_copy(update={"notes": (of_gan,)}),
            comparisons=[compared.model_copy(update={"baseline": told})],
            leaks=[handles.leaked().model_copy(update={"notes": (of_arm,)})],
        ),
        [],
    )

    words = (
        "had numbers that were not finite at step 1,200. Its training went back to step 900 and went on from there "
        "with other random draws. No setting was changed."
    )
    assert [warning for warning in content.warnings if "not finite" in warning] == [
        f"The GAN {words}",
        f"cnn none seed 0: The classifier cnn {words}",
        f"cnn leaking seed 0: The classifier cnn {words}",
    ]
    assert render_report(content).count(words) == 3


def test_the_report_of_these_artifacts_renders(results: Results) -> None:
    page = render_report(gather(chosen(), results, []))

    for words in ("VGG16", "COVID", "first champion: there was none to beat", "What it cost", "near-copy"):
        assert words in page


@pytest.mark.parametrize("part", ["gan", "judgement", "synthetic", "comparisons", "leaks", "features", "ruled"])
def test_every_part_may_be_missing(results: Results, part: str) -> None:
    without = replace(results, **{part: [] if isinstance(getattr(results, part), list) else None})

    content = gather(chosen(), without, [])

    assert render_report(content)
    shown = {
        "gan": ("GAN training", "none") in content.protocol,
        "judgement": "Quality of the generated images" not in [table.title for table in content.tables],
        "synthetic": content.synthetic_counts == {} and len(content.sample_grids) == 1,
        "comparisons": content.pairs == [] and content.answer == handles.judgement().sentence,
        "leaks": content.leak is None,
        "features": "Running frozen backbones, for all arms" not in [row[0] for row in content.tables[-1].rows],
        "ruled": content.promoted == [],
    }
    assert {name for name, is_missing in shown.items() if is_missing} == {part}


def test_a_run_that_trained_nothing_says_that_it_cannot_say_anything(results: Results) -> None:
    content = gather(chosen(), Results(dataset=results.dataset), [])

    assert content.answer == NOTHING and render_report(content)
    assert ONE_SEED not in content.warnings


def test_an_unfinished_gan_is_the_answer_and_its_grid_is_not_looked_for(results: Results) -> None:
    waiting = handles.gan(finished=False)
    said = steps.judge(handles.begin(), results.dataset, waiting)

    content = gather(chosen(), Results(dataset=results.dataset, gan=waiting, judgement=said), [])

    assert content.answer == waiting.state and waiting.state in content.warnings
    assert content.sample_grids == []
    assert [table.title for table in content.tables] == ["Classes by subgroup", "What it cost"]
    assert content.tables[1].rows[0] == ["Training the GAN", "30.0", "18 × 8 epochs, of which 5 steps are done"]


def test_an_arm_without_a_partner_stands_alone(results: Results) -> None:
    run, dataset = handles.begin(), results.dataset
    alone = steps.compare(run, dataset, pair(seed=7), [[handles.trained_arm(run, dataset, "cnn", "none", 7)]])
    nobody = steps.compare(run, dataset, pair(seed=8), [[]])

    content = gather(chosen(), replace(results, comparisons=[*results.comparisons, alone, nobody]), [])

    (unpaired,) = content.unpaired
    assert (unpaired.network, unpaired.seed, unpaired.arm) == ("CNN", 7, "none")
    assert unpaired.test == alone.arms["baseline"].findings().test
    assert len(content.pairs) == 2


def test_a_baseline_of_several_arms_is_counted_once(results: Results) -> None:
    compared = pairs_of(handles.begin(), results.dataset, pair(), pair(arm="both"), pair(arm="oversample"))

    found = named_findings(replace(results, comparisons=compared))

    assert [each.name for each in found] == [
        "CNN, none, seed 0",
        "CNN, synthetic, seed 0",
        "CNN, both, seed 0",
        "CNN, oversample, seed 0",
    ]


def test_several_seeds_are_summed_up_and_need_no_warning(results: Results) -> None:
    seeds = {"seeds": {"classifiers": [0, 1, 2]}}
    compared = pairs_of(handles.begin(seeds), results.dataset, *(pair(seed=seed) for seed in range(3)))

    content = gather(chosen(seeds), replace(results, comparisons=compared), [])

    (summary,) = content.summaries
    assert (summary.name, summary.seeds, summary.augmented_arm) == ("CNN", [0, 1, 2], "synthetic")
    mean = sum(p.comparison.macro_f1_difference for p in content.pairs) / 3
    assert summary.mean == pytest.approx(mean) and content.answer.startswith("On these test images, over 3 seeds,")
    assert ONE_SEED not in content.warnings and ("Seeds", "0, 1, 2") in content.protocol
    assert render_report(content)


def beside(classifier: str, against: str, arm: str = "synthetic") -> Pair:
    return Pair(classifier=classifier, arm=arm, against=against, seed=0)


def run_of(results: Results, skills: dict[str, float], names: tuple[str, ...] = ("cnn",)) -> tuple[Any, list[Any]]:
    """The content of a run whose arms have these skills, with its comparisons."""
    settings = chosen(
        {"classifiers": {"names": list(names)}, "arms": {"compared": [arm for arm in skills if arm != "none"]}}
    )
    run, dataset, compared = handles.begin(), results.dataset, []
    for name in names:
        arms = [handles.trained_arm(run, dataset, name, arm, skill=skill) for arm, skill in skills.items()]
        held = [beside(name, "none", arm) for arm in settings.arms.compared]
        held += [beside(name, against, arm) for arm, against in settings.arms.controls.items() if against in skills]
        compared += [steps.compare(run, dataset, each, [arms]) for each in held]
    return gather(settings, replace(results, comparisons=compared), []), compared


def test_help_is_told_beyond_the_control_by_a_comparison_with_it(results: Results) -> None:
    content, compared = run_of(results, {"none": 0.5, "synthetic": 6.0, "oversample": 0.5})

    (claim,), result = content.claims, compared[-1].result()
    assert (result.baseline_arm, result.augmented_arm) == ("oversample", "synthetic")
    assert claim.verdict == "helps" and claim.against_control is not None
    assert (claim.against_control.low, claim.against_control.high) == pytest.approx(
        (result.macro_f1_low, result.macro_f1_high)
    )
    assert "synthetic augmentation helps CNN" in content.answer and "beyond oversample +" in content.answer
    assert "One comparison was asked." in content.answer
    assert [(shown.baseline_arm, shown.augmented_arm) for shown in content.pairs] == [
        ("none", "synthetic"),
        ("none", "oversample"),
        ("oversample", "synthetic"),
    ]
    assert render_report(content)


def test_what_more_real_images_do_as_well_is_no_help_of_the_synthetic_ones(results: Results) -> None:
    content, compared = run_of(results, {"none": 0.5, "synthetic": 6.0, "oversample": 6.0})

    assert compared[0].verdict == compared[1].verdict == "helps"
    assert [claim.verdict for claim in content.claims] == ["better, not shown beyond the control"]
    assert (
        "helps" not in content.answer and "not detectably better than showing real images over again" in content.answer
    )


def test_a_run_whose_control_the_user_took_away_says_so_first_and_warns(results: Results) -> None:
    content, _ = run_of(results, {"none": 0.5, "synthetic": 6.0})

    assert "helps CNN" in content.answer and "This run did not train the control oversample." in content.answer
    (warning,) = [each for each in content.warnings if "would show whether they do" in each]
    assert "(COVID 6 to 11, Viral Pneumonia 6 to 10)" in warning
    assert warning.endswith("The arm oversample would show whether they do. This run did not train it.")


def test_an_arm_that_is_augmented_classically_needs_the_control_that_is_too(results: Results) -> None:
    content, _ = run_of(results, {"none": 0.5, "both": 6.0, "oversample": 0.5})

    assert "This run did not train the control oversample_classical." in content.answer
    assert any("The arm oversample_classical would show" in warning for warning in content.warnings)


def test_the_headline_counts_all_that_was_asked_and_uses_no_verdict_by_itself(results: Results) -> None:
    names = tuple(CLASSIFIERS)
    alone, (single, *_) = run_of(results, {"none": 1.0, "synthetic": 3.0}, names[:1])
    among, compared = run_of(results, {"none": 1.0, "synthetic": 3.0}, names)

    assert single.verdict == compared[0].verdict == "helps" and 0.05 / 6 < single.result().p_value < 0.05
    assert alone.claims[0].verdict == "helps" and "helps VGG16" in alone.answer
    by_name = {claim.name: claim for claim in among.claims}
    assert by_name["VGG16"].verdict == "no detectable difference" and "6 comparisons were asked" in among.answer
    helped = among.answer.split("makes no detectable difference")[0]
    assert "VGG16" not in helped
    # By itself it stands in the table all the same.
    assert next(shown for shown in among.pairs if shown.network == "VGG16").comparison.verdict == "helps"


def test_a_verdict_that_the_corrected_test_does_not_confirm_is_doubted(results: Results) -> None:
    (helped,) = pairs_of(handles.begin(), results.dataset, pair("vgg16"), skills=(1.0, 4.0))
    asked = {"classifiers": {"names": ["vgg16"]}, "arms": {"compared": ["synthetic"]}}
    much = {"classifiers": {"names": list(CLASSIFIERS)}, "arms": {"compared": ["synthetic", "both"]}}

    alone, among_others = (
        gather(chosen(each), replace(results, comparisons=[helped]), []).answer for each in (asked, much)
    )

    # 12 comparisons: the interval still leaves out 0, and the test by groups does not confirm.
    result = helped.result()
    assert 12 * result.p_value < 0.05 < 12 * result.sign_p and result.sign_p < 0.05
    assert "helps VGG16" in alone and "helps VGG16" in among_others
    assert "does not confirm" not in alone
    assert "does not confirm the verdict for VGG16" in among_others


def test_a_gallery_goes_to_the_pair_that_it_was_drawn_for(results: Results) -> None:
    run, dataset = handles.begin(), results.dataset
    arms = [handles.trained_arm(run, dataset, "cnn", arm, skill=0.5, with_model=True) for arm in ("none", "synthetic")]
    drawn = steps.compare(run, dataset, pair(), [arms])
    other = pairs_of(run, dataset, pair("vgg16"))[0]
    galleries = [steps.explain(run, dataset, drawn)]

    content = gather(chosen(), replace(results, comparisons=[other, drawn], galleries=galleries), [])

    assert [bool(shown.gallery_png) for shown in content.pairs] == [False, True]


@pytest.mark.parametrize(
    ("baseline", "compared", "warned"),
    [("none", ["synthetic"], 0), ("classical", ["both"], 0), ("classical", ["synthetic", "both"], 1)],
)
def test_two_changes_at_once_are_warned_of(results: Results, baseline: str, compared: list[str], warned: int) -> None:
    arms = {"arms": {"baseline": baseline, "compared": compared}}

    warnings = gather(chosen(arms), Results(dataset=results.dataset), []).warnings

    assert sum("differ in two things" in warning for warning in warnings) == warned


@pytest.mark.parametrize(
    ("judgement", "override", "expected"),
    [
        (None, True, []),
        (handles.judgement, True, ["Normal: coverage"]),
        (lambda: handles.judgement(passed=False), False, ["They are not good enough.", "COVID: they", "Normal: cov"]),
        (
            lambda: handles.judgement(passed=False),
            True,
            ["They are not good enough.", "COVID: they", "Normal: cov", "The augmented arms were trained all the same"],
        ),
        (lambda: Judgement(passed=False, kind="unfinished", sentence="Step 5."), True, ["Step 5."]),
    ],
)
def test_what_is_said_of_the_gan(judgement: Any, override: bool, expected: list[str]) -> None:
    settings = chosen({"judge": {"override": override}})

    warnings = judgement_warnings(settings, judgement() if judgement else None)

    assert len(warnings) == len(expected)
    assert all(warning.startswith(start) for warning, start in zip(warnings, expected, strict=True))


def test_the_protocol_says_how_the_arms_were_trained(results: Results) -> None:
    overrides = {
        "arms": {"baseline": "classical", "compared": ["both"]},
        "classifiers": {"budget": "steps", "precision": "bfloat16", "undersample": True, "class_weights": True},
        "augmentation": {"views": None},
    }

    plain, other = (dict(gather(chosen(each), results, []).protocol) for each in ({}, overrides))

    assert plain["Image size"] == "32 × 32" and "Classical augmentation" not in plain and "Classes" not in plain
    assert plain["GAN training"] == "8 epochs, 40 steps"
    assert other["Classical augmentation"] == "a new version of each image in every epoch"
    assert other["Frozen backbones"] == "run in bfloat16" and other["Budget"].startswith("every arm takes as many")
    assert other["Classes"] == "weighted in the loss by their rarity"


def test_costs_are_those_of_making_each_part(results: Results) -> None:
    rows = {row[0]: row[1:] for row in gather(chosen(), results, []).tables[-1].rows}

    assert rows["Training the GAN"] == ["30.0", "18 × 8 epochs"]
    assert rows["Making the synthetic set"][1] == "9"
    assert rows["Running frozen backbones, for all arms"] == ["1.5", "60"]
    assert rows["Classifiers, arm none"][1] == "CNN 18 × 2, VGG16 18 × 2"


def test_a_gallery_shows_the_largest_images_that_are_packed() -> None:
    run, dataset = handles.begin(), handles.dataset(sizes=(32, 96))

    large, small = dataset.largest_images("test", handles.CLASSES), dataset.images("test", 32, handles.CLASSES)

    assert (large.pixels.shape[1:], small.pixels.shape[1:]) == ((96, 96), (32, 32))
    assert list(large.ids) == list(small.ids)
    arms = [handles.trained_arm(run, dataset, "cnn", arm, skill=0.5, with_model=True) for arm in ("none", "synthetic")]
    assert steps.explain(run, dataset, steps.compare(run, dataset, pair(), [arms])).shown > 0
