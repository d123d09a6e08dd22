"""The step ``write_report``: whatever was skipped, a report is kept and says in short what came out."""

import pytest

from cxr_tasks import steps
from cxr_tasks.artifacts import Decision, Promotion, Report, Training
from tests.steps import handles

PAIR = Training(classifier="cnn", arm="synthetic", seed=0)
CHAMPION = Decision(
    name="cxr-cnn", version="1", alias="champion", arm="cnn", validation_macro_f1=0.8, decision="first champion"
)

pytestmark = pytest.mark.usefixtures("untracked")


@pytest.fixture
def run():
    return handles.begin()


@pytest.fixture
def compared(run):
    dataset = handles.dataset()
    return steps.compare(
        run, dataset, PAIR, [[handles.trained_arm(run, dataset, "cnn", arm) for arm in ("none", "synthetic")]]
    )


NOTHING = {
    "gan": None,
    "judgement": None,
    "synthetic": None,
    "comparisons": [],
    "galleries": None,
    "leaks": None,
    "features": [],
    "ruled": None,
}


def write(run, **given):
    handed_on = NOTHING | given
    return steps.write_report(run, handles.dataset(), **handed_on)


def test_a_report_says_in_short_what_came_out(run, compared):
    written = write(
        run,
        gan=handles.gan(),
        judgement=handles.judgement(),
        synthetic=handles.synthetic_set(),
        comparisons=[compared, None],
        galleries=[None],
        leaks=[handles.leaked()],
        features=[[handles.features(), None], None],
        ruled=[None, Promotion(decisions=(CHAMPION,))],
    )

    result = compared.result()
    (row,) = written.pairs
    assert (row.classifier, row.seed, row.baseline_arm, row.arm) == ("CNN", 0, "none", "synthetic")
    assert (row.difference, row.low, row.high) == (
        result.macro_f1_difference,
        result.macro_f1_low,
        result.macro_f1_high,
    )
    assert row.augmented_macro_f1 - row.baseline_macro_f1 == pytest.approx(row.difference)
    assert (row.verdict, row.test_images) == (result.verdict, 24)
    assert (row.p_value, row.sign_p) == (result.p_value, result.sign_p)
    (claim,) = written.claims
    assert (claim.classifier, claim.arm, claim.baseline_arm, claim.control) == (
        "CNN",
        "synthetic",
        "none",
        "oversample",
    )
    # Two classifiers and one arm that is no control; the control was not compared.
    assert claim.claims == 2 and claim.p_value == min(1.0, 2 * result.p_value)
    assert claim.low < row.low < claim.difference == row.difference < row.high < claim.high
    assert claim.beyond_control is None
    assert written.champions == (CHAMPION,) and "CNN" in written.answer
    page = (written.file(Report.PAGE) or b"").decode()
    assert page.startswith("<!DOCTYPE html>") and "first champion" in page
    assert written.warnings and all(isinstance(warning, str) for warning in written.warnings)


def test_a_run_of_which_everything_was_skipped_is_reported_too(run):
    written = write(run, galleries=[None, None], features=[None])

    assert (written.pairs, written.champions) == ((), ()) and written.file(Report.PAGE)
    assert written.answer.startswith("No arm was compared with a baseline.")


def test_what_is_not_tracked_has_no_address_and_no_links(run):
    written = write(run)

    assert (written.address, written.url) == ("", "")
    assert b"This run in MLflow" not in (written.file(Report.PAGE) or b"")


def test_no_other_runs_report_stands_in_for_it(run, compared):
    first = write(run, comparisons=[compared])

    other = write(run.model_copy(update={"dag_run": "two"}), comparisons=[compared])
    more = write(run, comparisons=[compared], ruled=[Promotion(ref="promote/a", decisions=(CHAMPION,))])

    assert len({first.ref, other.ref, more.ref}) == 3
    assert write(run, comparisons=[compared]).ref == first.ref
