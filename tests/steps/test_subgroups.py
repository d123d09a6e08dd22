"""Subgroups on their way: from the manifest to an arm's findings, to MLflow, and to the report."""

from __future__ import annotations

import json
import logging

import mlflow

from cxr_tasks import steps, tracking
from cxr_tasks.artifacts import Report, Training
from cxr_tasks.config import merge
from cxr_tasks.steps.told_subgroups import subgroup_metrics, subgroup_table
from cxr_tasks.steps.train_arm import evaluate_arm
from tests.steps import handles
from tests.steps.reading import SETTINGS, read

FIGURES = {"images", "groups", "macro_f1"} | {
    f"{name}{end}" for name in ("accuracy", "balanced_accuracy") for end in ("", "_low", "_high")
}


def test_an_arms_run_has_metrics_and_a_table_of_its_subgroups(new_run, store, monkeypatch, tmp_path) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("CXR_MLFLOW", "off")
        begun, dataset = handles.begin(), handles.dataset()
        model = handles.trained_model(dataset)
    run = new_run(settings=begun.settings)
    with tracking.step_run(run, "train_arm", model.ref, {}) as run_id:
        model = model.model_copy(update={"mlflow_run_id": run_id})

    arm = evaluate_arm(run, dataset, model)

    found = arm.findings().subgroups
    assert found is not None and [each.attribute for each in found.attributes] == ["source"]
    rows = found.attributes[0].rows
    assert [(row.subgroup, row.images, row.groups) for row in rows] == [("hospital 0", 12, 12), ("hospital 1", 12, 12)]
    metrics = tracking.client().get_run(run_id).data.metrics
    kept = {name: value for name, value in metrics.items() if name.startswith("subgroup_source_hospital_1_")}
    assert {name.removeprefix("subgroup_source_hospital_1_") for name in kept} == FIGURES
    assert kept["subgroup_source_hospital_1_balanced_accuracy"] == rows[1].balanced_accuracy.value
    assert found.gap is not None and metrics["subgroup_gap_low"] == found.gap.difference.low
    path = mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path="subgroups.json", dst_path=str(tmp_path))
    with open(path, encoding="utf-8") as file:
        table = json.load(file)
    assert [row[:2] for row in table["data"]] == [["", "all"], ["source", "hospital 0"], ["source", "hospital 1"]]


def test_names_that_mlflow_would_spell_alike_have_keys_of_their_own(untracked) -> None:
    found = handles.trained_arm(handles.begin(), handles.dataset(), "cnn", "none").findings().subgroups
    assert found is not None
    (of_source,) = found.attributes
    alike = [
        row.model_copy(update={"subgroup": name}) for row, name in zip(of_source.rows, ("a b", "a_b"), strict=True)
    ]
    found = found.model_copy(update={"attributes": [of_source.model_copy(update={"rows": alike})], "gap": None})

    assert {name for name in subgroup_metrics(found) if name.endswith("_images")} == {
        "subgroup_source_a_b_images",
        "subgroup_source_a_b__images",
    }
    assert subgroup_table(found)["subgroup"].tolist() == ["all", "a b", "a_b"]


def test_the_report_has_the_tables(untracked) -> None:
    run, dataset = handles.begin(), handles.dataset()
    arms = [handles.trained_arm(run, dataset, "cnn", arm) for arm in ("none", "synthetic")]
    compared = steps.compare(run, dataset, Training(classifier="cnn", arm="synthetic", seed=0), [arms])

    written = steps.write_report(run, dataset, None, None, None, [compared], None, None, [], None)

    page = (written.folder() / Report.PAGE).read_text(encoding="utf-8")
    for title in ("Classes by subgroup", "By source", "By subgroup: change from none", "Largest gap between subgroups"):
        assert f">{title}</h2>" in page
    assert "hospital 1" in page


def test_validation_tells_of_classes_that_come_from_a_source_of_their_own(begin, source, caplog) -> None:
    caplog.set_level(logging.WARNING)
    run = begin()

    validated = steps.validate(run, steps.manifest(run, *read(run, source)))

    told = [note for note in validated.notes if "a model can tell the class by the source" in note]
    assert told and told[0].removeprefix("warning: ") in caplog.text
    # The report of a training tells of them by its own settings.
    assert not any(note.removeprefix("warning: ") in validated.warnings for note in told)
    off = begin("two", settings=merge(SETTINGS, {"evaluation": {"subgroups": {"attributes": []}}}))
    unasked = steps.validate(off, steps.manifest(off, *read(off, source)))
    assert not any("can tell the class" in note for note in unasked.notes)
