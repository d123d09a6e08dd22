"""The step ``split``: a split once given is kept, whatever else changes."""

import pandas as pd

from tests.steps.reading import FORM, prepare, rows_of


def test_a_few_rejects_and_late_patient_numbers_cost_those_images_alone(begin, source):
    (source / "COVID/images/COVID-1.png").write_bytes(b"no image")
    before = rows_of(prepare(begin(), source).divided)
    assert before.at["COVID/images/COVID-1.png", "reason"] == "the file is not an image"
    assert (before["split"] == "").sum() == 1

    trained, tested = (
        before.index[(before["split"] == s) & (before["label"] == "Normal")][0] for s in ("train", "test")
    )
    table = pd.read_csv(source / "Normal.metadata.csv")
    names = [path.split("/")[-1].removesuffix(".png") for path in (trained, tested)]
    table.loc[table["FILE NAME"].isin(names), "PATIENT"] = "the same"
    table.to_csv(source / "Normal.metadata.csv", index=False)
    divided = prepare(begin("two"), source).divided

    after = rows_of(divided)
    assert after.at[trained, "split"] == "train" and after.at[tested, "split"] == ""
    assert divided.notes == (f"left out {tested}: {after.at[tested, 'reason']}",)


def test_another_seed_of_the_split_deals_the_same_images_otherwise(begin, source):
    one = prepare(begin(), source)
    settings = FORM["settings"] | {"seeds": {"split": 1}}

    other = prepare(begin("two", settings=settings), source)

    assert all(handle.reused for handle in (other.scanned, other.joined, other.validated)) and not other.divided.reused
    assert other.divided.version != one.divided.version
    first, second = rows_of(one.divided), rows_of(other.divided)
    assert (first["split"] != second["split"]).any()
    pd.testing.assert_frame_equal(first.drop(columns="split"), second.drop(columns="split"))
    assert rows_of(prepare(begin("three"), source).divided)["split"].equals(first["split"])
