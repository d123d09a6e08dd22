"""What changed between two datasets: by content and class, wherever the files lie."""

import pandas as pd
import pytest

from cxr_tasks.data.changes import change_counts, changes, changes_in_words


def manifest(**images: str) -> pd.DataFrame:
    """``path="content label [split]"``; the split ``-`` is none."""
    rows = []
    for path, words in images.items():
        content, label, split = [*words.split(), "train"][:3]
        rows.append((path, content, label, split.strip("-")))
    return pd.DataFrame(rows, columns=["path", "image_id", "label", "split"], dtype=str)


def listed(before: pd.DataFrame, after: pd.DataFrame) -> list[tuple[str, ...]]:
    found = changes(before, after)
    assert found.columns.tolist() == ["kind", "path", "label", "label_before"]
    assert sum(change_counts(found).values()) == len(found)
    return list(found.itertuples(index=False, name=None))


BEFORE = manifest(a="1 COVID", b="2 COVID", c="3 Normal", d="4 Normal")


def test_the_same_images_are_no_change() -> None:
    assert listed(BEFORE, BEFORE.iloc[::-1]) == []
    assert changes_in_words(changes(BEFORE, BEFORE)) == "other groups, splits or masks of the same images"


def test_renamed_and_moved_images_are_no_change() -> None:
    assert listed(BEFORE, BEFORE.assign(path=["x", "c", "b", "y"])) == []


def test_other_splits_are_no_change() -> None:
    assert listed(BEFORE, BEFORE.assign(split="test")) == []


def test_added_and_removed_images() -> None:
    after = manifest(a="1 COVID", c="3 Normal", d="4 Normal", e="5 Viral", f="6 COVID")

    assert listed(BEFORE, after) == [
        ("added", "e", "Viral", ""),
        ("added", "f", "COVID", ""),
        ("removed", "b", "COVID", ""),
    ]


def test_an_image_in_another_class_is_relabelled_wherever_it_lies() -> None:
    after = manifest(a="1 COVID", moved="2 Normal", c="3 COVID", d="4 Normal")

    assert sorted(listed(BEFORE, after)) == [
        ("relabelled", "c", "COVID", "Normal"),
        ("relabelled", "moved", "Normal", "COVID"),
    ]


def test_a_file_with_another_content_is_replaced() -> None:
    after = manifest(a="7 COVID", b="2 COVID", c="8 Viral", d="4 Normal")

    assert listed(BEFORE, after) == [("replaced", "a", "COVID", "COVID"), ("replaced", "c", "Viral", "Normal")]


def test_a_file_whose_content_was_moved_is_replaced_only_in_its_place() -> None:
    after = manifest(a="7 COVID", z="1 COVID", b="2 COVID", c="3 Normal", d="4 Normal")

    assert listed(BEFORE, after) == [("added", "a", "COVID", "")]


def test_images_without_a_split_are_not_there() -> None:
    aside = manifest(a="1 COVID", b="2 COVID -", c="3 Normal", d="4 Normal", e="5 COVID -")

    assert listed(BEFORE, aside) == [("removed", "b", "COVID", "")]
    assert listed(aside, BEFORE) == [("added", "b", "COVID", "")]


@pytest.mark.parametrize("split", ["-", "train"])
def test_an_image_that_is_there_twice_counts_once(split: str) -> None:
    copies = pd.concat([BEFORE, manifest(a2=f"1 COVID {split}", e="5 Viral", e2=f"5 Viral {split}")])

    assert listed(BEFORE, copies) == [("added", "e", "Viral", "")]


def test_everything_at_once_in_words() -> None:
    after = manifest(a="9 COVID", c="3 COVID", d="4 Normal", e="5 Viral", f="6 COVID", g="7 COVID")
    found = changes(BEFORE, after)

    assert change_counts(found) == {"added": 3, "removed": 1, "relabelled": 1, "replaced": 1}
    assert changes_in_words(found) == (
        "3 added (COVID 2, Viral 1), 1 removed (COVID 1), 1 relabelled (COVID 1), 1 replaced (COVID 1)"
    )


def test_from_nothing_and_to_nothing() -> None:
    nothing = BEFORE.iloc[:0]

    assert change_counts(changes(nothing, BEFORE))["added"] == change_counts(changes(BEFORE, nothing))["removed"] == 4


def test_large_numbers_can_be_read() -> None:
    many = manifest(**{f"x{n}": f"{n} Normal" for n in range(12_000)})

    assert changes_in_words(changes(many.iloc[:0], many)) == "12,000 added (Normal 12,000)"
