"""Checklists name every item of their source, and say no more than the report does."""

import re

import pytest

from cxr_tasks.report.checklist_items import CLAIM_2024, TRIPOD_AI, ChecklistItem
from cxr_tasks.report.checklists import IN_PART, NOTHING_KNOWN, REPORTED, Place, checklists
from cxr_tasks.report.render import Table, places_of, render_report
from tests.report.test_render import Page, content, full, rendered

# What the source gives letters to.
LETTERS = {3: "abc", 5: "ab", 6: "abc", 8: "abc", 9: "abc", 12: "abcdefg", 18: "abcdef", 20: "abc", 23: "ab", 27: "abc"}


def test_every_item_is_there_once_and_in_order() -> None:
    tripod = [f"{number}{letter}" for number in range(1, 28) for letter in LETTERS.get(number, [""])]

    assert [item.number for item in TRIPOD_AI] == tripod and len(tripod) == 52
    assert [item.number for item in CLAIM_2024] == [str(number) for number in range(1, 45)]


@pytest.mark.parametrize("item", [*TRIPOD_AI, *CLAIM_2024], ids=lambda item: item.number)
def test_each_item_says_what_a_person_must_state(item: ChecklistItem) -> None:
    assert item.asks and item.state and not item.state.endswith(".") and (item.places or not item.whole)


def test_places_are_those_that_a_report_can_have() -> None:
    known = places_of(full()).keys() | {"seeds", "subgroups", "external", "shortcuts", "left_out"}

    assert {name for item in (*TRIPOD_AI, *CLAIM_2024) for name in item.places} <= known


def test_an_item_is_reported_only_where_the_report_has_the_place() -> None:
    bare = content()
    external = Table(title="External test: other", note="", columns=["Model"], rows=[["VGG16"]])

    def of_claim(tables: list[Table]) -> dict[str, str]:
        (_, claim) = checklists(places_of(bare.model_copy(update={"tables": tables})))
        return {row.number: row.status for row in claim.rows}

    assert of_claim([])["33"] == NOTHING_KNOWN and of_claim([external])["33"] == REPORTED
    assert of_claim([])["37"] == NOTHING_KNOWN and of_claim([])["19"] == REPORTED and of_claim([])["7"] == IN_PART
    assert checklists({})[0].counts == {REPORTED: 0, IN_PART: 0, NOTHING_KNOWN: 52}


def test_who_paid_and_who_approved_is_never_known() -> None:
    everything = {name: Place(anchor=name, title=name) for item in (*TRIPOD_AI, *CLAIM_2024) for name in item.places}

    tripod, claim = ({row.number: row for row in each.rows} for each in checklists(everything))

    for rows, numbers in ((tripod, ("5b", "8b", "8c", "17", "18a", "18b", "19")), (claim, ("5", "11", "16", "44"))):
        assert {rows[number].status for number in numbers} == {NOTHING_KNOWN}
        assert all(rows[number].state for number in numbers)


def test_the_page_shows_each_item_with_links_to_its_places() -> None:
    page = Page(rendered())
    text = " ".join(page.text.split())

    assert "52 items: " in text and "44 items: " in text and "BMJ 2024;385:e078378" in text
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    anchors = {place.anchor for each in checklists(places_of(full())) for row in each.rows for place in row.places}
    assert anchors <= ids
    tables = re.findall(r'<table class="checklist">(.*?)</table>', rendered(), re.DOTALL)
    assert [table.count('<th scope="row">') for table in tables] == [52, 44]


def test_a_report_of_nothing_has_its_checklists_too() -> None:
    assert "Not known to this run" in render_report(content())
