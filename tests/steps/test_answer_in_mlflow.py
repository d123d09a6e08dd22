"""The MLflow run of a training says what came out: by its name, its metrics and its note."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cxr_tasks import steps, tracking
from cxr_tasks.artifacts import ClaimRow, Dataset, Decision, Missing, PairRow, Report, RunContext
from cxr_tasks.config import resolve
from cxr_tasks.overview.trainings import ANSWER_FILE
from cxr_tasks.steps.answer_in_mlflow import show_answer
from cxr_tasks.store import FolderStore
from tests.hostile import MARKUP
from tests.steps import handles

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("mlflow_uri")]
CLAIM = ClaimRow(
    classifier="VGG16", seeds=2, baseline_arm="classical", arm="synthetic", difference=0.02, low=-0.01, high=0.05,
    p_value=0.2, detectable=0.04, control="", beyond_control=None, beyond_control_low=None, beyond_control_high=None,
    claims=2, verdict="no detectable difference",
)  # fmt: skip
PAIR = PairRow(
    classifier="VGG16", seed=0, baseline_arm="classical", arm="synthetic", baseline_macro_f1=0.8,
    augmented_macro_f1=0.82, difference=0.02, low=-0.01, high=0.05, detectable=0.04, p_value=0.2, sign_p=0.5,
    test_images=100, verdict="no detectable difference",
)  # fmt: skip


@pytest.fixture
def run(store: FolderStore, new_run: Callable[..., RunContext]) -> RunContext:
    with store.publish("settings/quick", {}) as folder:
        (folder / "settings.json").write_text(resolve("quick").model_dump_json())
    return new_run(settings="settings/quick")


def shown(run: RunContext, source: str, **given: Any) -> Any:
    """The MLflow run after its report was written."""
    report = {
        "answer": "No.",
        "warnings": (),
        "claims": (),
        "pairs": (),
        "champions": (),
        "address": "http://r/",
    } | given
    dataset = Dataset.model_construct(version="00ab", source=source, data_docs="http://docs/")
    show_answer(run, dataset, Report(ref="r", **report))
    return tracking.client().get_run(run.mlflow_run_id)


def test_the_run_is_named_by_the_answer_and_keeps_its_figures(run: RunContext) -> None:
    other = PAIR.model_copy(update={"seed": 1, "baseline_macro_f1": 0.9, "augmented_macro_f1": 0.84})
    champion = Decision(
        name="cxr-vgg16", version="3", alias="champion", arm="x", validation_macro_f1=0.8, decision="Better."
    )

    found = shown(
        run, "/data/hospital/", claims=(CLAIM,), pairs=(PAIR, other), champions=(champion,),
        missing=(Missing(what="the gallery", why="It was killed."),),
    )  # fmt: skip

    assert found.info.run_name == "hospital · quick · no detectable difference"
    assert found.data.metrics == pytest.approx({
        "parts_missing": 1, "VGG16_synthetic_difference": 0.02, "VGG16_synthetic_difference_low": -0.01,
        "VGG16_synthetic_difference_high": 0.05, "VGG16_synthetic_p_value": 0.2, "VGG16_classical_macro_f1": 0.85,
        "VGG16_synthetic_macro_f1": 0.83,
    })  # fmt: skip
    note = found.data.tags["mlflow.note.content"]
    assert "**No.**" in note and "| VGG16 | synthetic against classical | +2.0 \\(-1.0 to +5.0\\) | no detect" in note
    assert "- cxr-vgg16 version 3: Better." in note and "- Missing: the gallery. It was killed." in note
    assert "[The report](http://r/)" in note and found.data.tags["cxr.dataset"] == "00ab"


def test_programs_read_the_figures_in_a_file(run: RunContext) -> None:
    shown(run, "/data/a", claims=(CLAIM,), pairs=(PAIR,))

    kept = tracking.client().download_artifacts(run.mlflow_run_id, ANSWER_FILE)
    found = Report.model_validate_json(Path(kept).read_text(encoding="utf-8"))
    assert (found.claims, found.pairs, found.answer) == ((CLAIM,), (PAIR,), "No.")


@pytest.mark.parametrize(
    ("verdicts", "words"),
    [
        ([], "nothing compared"),
        (["hurts", "no detectable difference"], "synthetic hurts (VGG16)"),
        (["helps", "helps"], "synthetic helps (VGG16), synthetic helps (VGG16)"),
    ],
)
def test_what_helps_or_hurts_stands_in_the_name(run: RunContext, verdicts: list[str], words: str) -> None:
    claims = tuple(CLAIM.model_copy(update={"verdict": each}) for each in verdicts)

    assert shown(run, "s3://bucket/xrays", claims=claims).info.run_name == f"xrays · quick · {words}"


def test_names_of_people_are_text(run: RunContext) -> None:
    found = shown(run, "", answer=f"{MARKUP[0]} helps.")

    assert found.info.run_name.startswith("several sources · ")
    assert MARKUP[0] not in found.data.tags["mlflow.note.content"]


def test_a_report_that_is_written_again_replaces_the_first(run: RunContext) -> None:
    shown(run, "/data/a", answer="First.")

    assert "First" not in shown(run, "/data/a", answer="Second.").data.tags["mlflow.note.content"]


def test_the_pdf_and_the_data_lie_with_the_run_beside_the_report(
    new_run: Callable[..., RunContext], store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("CXR_MLFLOW", "off")
        begun, dataset = handles.begin(), handles.dataset()
    run = new_run(settings=begun.settings)

    written = steps.write_report(run, dataset, None, None, None, [], None, None, [], None)

    client = tracking.client()
    assert {"report.html", "report.pdf", "report-data"} <= {
        file.path for file in client.list_artifacts(run.mlflow_run_id)
    }
    data = {file.path for file in client.list_artifacts(run.mlflow_run_id, "report-data")}
    assert data == {f"report-data/{path.name}" for path in (written.folder() / Report.DATA).iterdir()}
    assert "report-data/checklist-tripod-ai.csv" in data and written.notes == ()
    # A try that was ended before MLflow had all of it: the next one finds the report, and shows it.
    for tag in ("cxr.answer", "mlflow.note.content"):
        client.delete_tag(run.mlflow_run_id, tag)
    again = steps.write_report(run, dataset, None, None, None, [], None, None, [], None)
    assert again.ref == written.ref and client.get_run(run.mlflow_run_id).data.tags["cxr.answer"] == written.answer
