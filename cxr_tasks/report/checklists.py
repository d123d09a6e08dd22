"""Two reporting checklists, filled in from what a report says and from nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from cxr_tasks.report.checklist_items import CLAIM_2024, TRIPOD_AI, ChecklistItem
from cxr_tasks.report.data_files import DataFile
from cxr_tasks.strict import Strict

REPORTED, IN_PART, NOTHING_KNOWN = "reported", "in part", "not known to this run"


class Place(Strict):
    """A part of the report: its anchor and its title."""

    anchor: str
    title: str


class ChecklistRow(Strict):
    """An item as it is filled in.

    Attributes:
        places: Where the report says something of the item.
        state: What a person must state; empty where the report says all.
    """

    number: str
    asks: str
    status: str
    places: list[Place]
    state: str


class Checklist(Strict):
    """A checklist as it is filled in."""

    stem: str
    name: str
    source: str
    rows: list[ChecklistRow]

    @property
    def counts(self) -> dict[str, int]:
        """How many items have each status."""
        return {status: sum(row.status == status for row in self.rows) for status in (REPORTED, IN_PART, NOTHING_KNOWN)}

    def file(self) -> DataFile:
        """The checklist as a file to fill in further."""
        return DataFile(
            stem=self.stem,
            columns=["item", "asks_for", "status", "where", "you_need_to_state"],
            rows=[
                [row.number, row.asks, row.status, "; ".join(place.title for place in row.places), row.state]
                for row in self.rows
            ],
        )


def checklists(places: dict[str, Place]) -> list[Checklist]:
    """Both checklists.

    Args:
        places: The parts that this report has, by the names that items know them by.
    """
    return [
        Checklist(
            stem="checklist-tripod-ai",
            name="TRIPOD+AI",
            source=(
                "Collins GS, Moons KGM, Dhiman P, et al. TRIPOD+AI statement: updated guidance for reporting clinical "
                "prediction models that use regression or machine learning methods. BMJ 2024;385:e078378."
            ),
            rows=_rows_of(TRIPOD_AI, places),
        ),
        Checklist(
            stem="checklist-claim-2024",
            name="CLAIM, 2024 update",
            source=(
                "Tejani AS, Klontzas ME, Gatti AA, et al. Checklist for Artificial Intelligence in Medical Imaging "
                "(CLAIM): 2024 update. Radiology: Artificial Intelligence 2024;6(4):e240300."
            ),
            rows=_rows_of(CLAIM_2024, places),
        ),
    ]


def _rows_of(items: Sequence[ChecklistItem], places: dict[str, Place]) -> list[ChecklistRow]:
    rows = []
    for item in items:
        found = [places[name] for name in item.places if name in places]
        status = NOTHING_KNOWN if not found else REPORTED if item.whole else IN_PART
        state = "" if status == REPORTED else item.state
        rows.append(ChecklistRow(number=item.number, asks=item.asks, status=status, places=found, state=state))
    return rows
