"""The tables of a report: what each says, and when it warns."""

from types import SimpleNamespace

import pytest

from cxr_tasks.artifacts import LeakedModel, Training
from cxr_tasks.evaluation.calibration import Calibration, OperatingPoint
from cxr_tasks.evaluation.findings import ArmFindings
from cxr_tasks.evaluation.shortcuts import BlankedLungs, Score
from cxr_tasks.report.arm_tables import NamedFindings, shortcuts_table, thresholds_table
from cxr_tasks.report.run_tables import leak_table


def probes(lungs: float, warning: str | None = None) -> BlankedLungs:
    score = Score(balanced_accuracy=0.9, low=0.85, high=0.95)
    left = Score(balanced_accuracy=lungs, low=lungs - 0.05, high=lungs + 0.05)
    return BlankedLungs(
        images=1234,
        groups=1000,
        chance=1 / 3,
        full=score,
        lungs_blanked=left,
        background_blanked=score,
        kept=(lungs - 1 / 3) / (0.9 - 1 / 3),
        warning=warning,
    )


def arm(name: str = "none", shortcuts: BlankedLungs | None = None) -> NamedFindings:
    calibration = Calibration(temperature=1, ece_before=0, ece_after=0, nll_before=0, nll_after=0, bins=[])
    point = OperatingPoint(
        class_name="COVID",
        threshold=0.25,
        validation_sensitivity=0.96,
        validation_positives=25,
        test_sensitivity=0.9,
        test_specificity=None,
        test_positives=10,
        test_negatives=0,
    )
    found = ArmFindings(
        arm=name,
        validation={},
        test={},
        calibration=calibration,
        thresholds=[point],
        shortcuts=shortcuts,
        subgroups=None,
    )
    return NamedFindings(network="VGG16", seed=0, found=found)


def test_thresholds_of_both_arms_stand_under_each_other():
    table = thresholds_table([arm("none").found, arm("both").found], 0.95)

    assert table.rows[0] == ["none", "COVID", "0.250", "96.0", "90.0", "–"] and table.rows[1][0] == "both"


def test_models_that_need_no_lungs_are_counted_in_a_warning():
    tables, warnings = shortcuts_table([arm(shortcuts=probes(0.4)), arm("both", probes(0.8, "It does."))])

    assert tables[0].rows[1][0] == "VGG16, both, seed 0" and tables[0].rows[1][2] == "80.0 (75.0 to 85.0)"
    assert len(warnings) == 1
    assert warnings[0].startswith("1 of 2 trained models still tells the classes apart with the lungs blanked")
    assert "accuracy 80 % where chance is 33 %" in warnings[0]


def test_no_warning_where_lungs_are_needed_and_no_table_without_probes():
    assert shortcuts_table([arm(shortcuts=probes(0.4))])[1] == []
    assert shortcuts_table([arm()]) == ([], [])


@pytest.mark.parametrize("honest", [True, False])
def test_a_reproduced_leak_says_what_it_adds(honest):
    leaked = LeakedModel(
        training=Training(classifier="cnn", arm="leaking", seed=0),
        test_images=200,
        synthetic_test_images=60,
        leaked_test_accuracy=0.95,
        leaked_test_macro_f1=0.94,
        leaked_test_real_accuracy=0.91,
        leaked_test_real_macro_f1=0.9,
    )
    pair = SimpleNamespace(baseline_test={"accuracy": 0.90}, accuracy_difference=0.005)

    table = leak_table([leaked], {("cnn", 0): pair} if honest else {})

    assert table.rows[0][:4] == ["CNN, seed 0", "60 of 200", "95.0", "91.0"]
    assert table.rows[0][4:] == (["90.0", "+5.0", "+0.5"] if honest else ["–"] * 3)
    assert ("differ by +4.5 points" in table.note) == honest
    assert leak_table([], {}) is None
