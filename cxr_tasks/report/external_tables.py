"""The tables of a report on external test sets, and what a reader must know of them."""

from __future__ import annotations

from collections.abc import Sequence

from cxr_tasks.artifacts import ExternalResults, ExternalRow, ExternalSet, ExternalTest, Ruled
from cxr_tasks.evaluation.comparison import join_words
from cxr_tasks.evaluation.external import SureFigure
from cxr_tasks.registry.champions import CHAMPION, OVERALL_MODEL
from cxr_tasks.report.render import Table

EXTERNAL_COLUMNS = [
    "Model",
    "Images",
    "Macro F1",
    "Internal macro F1",
    "Drop of macro F1",
    "Accuracy",
    "Internal accuracy",
    "Drop of accuracy",
]


def external_tables(results: Sequence[ExternalResults], ruled: Ruled | None) -> list[Table]:
    """A table for each external set, with a row for each model that was tested on it."""
    return [
        external_table_of(each.external, [(_row_name(test, each, ruled), test) for test in each.tests])
        for each in results
        if each.tests
    ]


def external_table_of(external: ExternalSet, tests: Sequence[tuple[str, ExternalTest]]) -> Table:
    """What models do on one external set.

    Args:
        external: The set.
        tests: What each model is called, and its test.
    """
    rows, note = [], ""
    for name, test in tests:
        found = test.findings()
        macro = (found.macro_f1, found.internal_macro_f1, found.macro_f1_drop)
        accurate = (found.accuracy, found.internal_accuracy, found.accuracy_drop)
        rows.append([name, f"{found.images:,}", *map(_percent_of, (*macro, *accurate))])
        note = (
            f"In percent, with {100 * found.confidence:g} % intervals over {found.groups:,} patients or pictures of "
            f"{external.source}. None of these images trained or chose anything. The drop says how much lower a "
            "figure is than on the model's own test images. It is certain only where its interval leaves out 0. "
            f"Macro F1 is a mean over {join_words(found.classes)}."
        )
    leaks = sum(external.leaks.values())
    note += f" Left out because they leak: {leaks:,} images."
    return Table(title=f"External test: {external.name}", note=note, columns=EXTERNAL_COLUMNS, rows=rows)


def external_rows(results: Sequence[ExternalResults], ruled: Ruled | None) -> list[ExternalRow]:
    """A line for each model on each external set, for the terminal and for programs."""
    rows = list[ExternalRow]()
    for each in results:
        for test in each.tests:
            found = test.findings()
            rows.append(
                ExternalRow(
                    external=each.external.name,
                    model=test.who,
                    is_champion=_is_champion(test, each, ruled),
                    images=found.images,
                    macro_f1=found.macro_f1.value,
                    macro_f1_low=found.macro_f1.low,
                    macro_f1_high=found.macro_f1.high,
                )
            )
            if drop := found.macro_f1_drop:
                rows[-1] = rows[-1].model_copy(
                    update={"drop": drop.value, "drop_low": drop.low, "drop_high": drop.high}
                )
    return rows


def on_external(results: Sequence[ExternalResults]) -> list[str]:
    """What a reader must know of the external sets before using their figures."""
    told = []
    for each in results:
        told += [f"{warning}." for warning in each.external.warnings]
        told += [
            f"{test.who} on the external set {each.external.name}: {test.remark}." for test in each.tests if test.remark
        ]
    return told


def _row_name(test: ExternalTest, results: ExternalResults, ruled: Ruled | None) -> str:
    return f"{test.who} (champion)" if _is_champion(test, results, ruled) else test.who


def _is_champion(test: ExternalTest, results: ExternalResults, ruled: Ruled | None) -> bool:
    """Whether a test is of the champion: of the one that the run made, or else of the one that it found."""
    for decision in ruled.decisions if ruled is not None else ():
        if decision.name == OVERALL_MODEL and decision.alias == CHAMPION and decision.training is not None:
            return test.training == decision.training
    return test.who == results.champion


def _percent_of(figure: SureFigure | None) -> str:
    if figure is None:
        return "–"
    return figure.percent
