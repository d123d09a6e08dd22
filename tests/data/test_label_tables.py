"""A table of labels says the class of each image and more; what it does not say, or says twice, is counted."""

import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr_tasks.config import resolve
from cxr_tasks.data.label_rules import LabelRules, Reading, split_labels
from cxr_tasks.data.scan import listing_key
from cxr_tasks.errors import DataError, SettingsError
from tests.data.labelled import classes_in, layout_in, scanned, table_settings, write

FILES = ["images/1.png", "images/2.png", "images/3.png"]
LABELS = "file,label\n1.png,COVID\n2.png,Normal\n3.png,Normal\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path, FILES, {"labels.csv": LABELS})


def test_rows_say_the_classes_of_images_and_folders_do_not(folder: Path) -> None:
    write(folder, ["Normal/4.png"])
    found = layout_in(folder, table_settings())

    assert [(label, entry.path) for label, entry in found.images] == [
        ("COVID", "images/1.png"),
        ("Normal", "images/2.png"),
        ("Normal", "images/3.png"),
    ]
    assert found.told == ("labels.csv: 3 of 3 rows name an image, and 3 images have a class",)
    assert found.notes == ("labels.csv: 1 images are in no row of it and are not used, such as 'Normal/4.png'",)


@pytest.mark.parametrize("name", ["labels.tsv", "labels.csv.gz", "labels.parquet", "labels.xlsx", "deep/er/labels.csv"])
def test_any_kind_of_file_is_read(folder: Path, name: str) -> None:
    (folder / "labels.csv").unlink()
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame(
        {"file": ["1.png", "2.png", "3.png"], "label": ["COVID", "Normal", "Normal"], "age": [1, 2, 3]}
    )
    if name.endswith(".parquet"):
        table.to_parquet(folder / name)
    elif name.endswith(".xlsx"):
        table.to_excel(folder / name, index=False)
    else:
        table.to_csv(folder / name, index=False, sep="\t" if name.endswith(".tsv") else ",")

    rows = scanned(folder, table_settings(file="labels.*", age="age"))

    assert rows["label"].to_dict() == dict(zip(FILES, ["COVID", "Normal", "Normal"], strict=True))
    assert rows["age"].tolist() == [1.0, 2.0, 3.0]


def test_facts_come_with_the_image_in_one_spelling(folder: Path) -> None:
    text = "file,label,who,View,when,how old,gender,from\n"
    text += "1.png,COVID,P1,L,S1,057Y,Female,https://github.com/a/b/1.png\n"
    text += "2.png,Normal,unknown,AP_horizontal,,411,M,ward 3\n3.png,Normal,P2,pa,S3,006M,?,\n"
    write(folder, tables={"labels.csv": text})
    facts = {"patient": "who", "study": "when", "view": "view", "age": "How Old", "sex": "gender", "source": "from"}

    rows = scanned(folder, table_settings(**facts))

    assert rows["patient"].tolist() == ["P1", "", "P2"]
    assert rows["study"].tolist() == ["S1", "", "S3"]
    assert rows["view"].tolist() == ["LATERAL", "AP SUPINE", "PA"]
    assert rows["sex"].tolist() == ["F", "M", ""]
    assert rows["source"].tolist() == ["github.com/a/b", "ward 3", ""]
    assert rows["age"].tolist()[::2] == [57.0, 0.5] and pd.isna(rows["age"].iloc[1])


def test_a_text_puts_columns_together_and_takes_parts_of_them(tmp_path: Path) -> None:
    files = ["files/p10/p100/s5/a.jpg", "files/p11/p110/s6/a.jpg"]
    write(tmp_path, files, {"labels.csv": "subject,study,id,label,side\n100,5,a,COVID,\n110,6,a,Normal,LL\n"})
    settings = table_settings(
        path="files/p{subject:^..}/p{subject}/s{study}/{id}.jpg", view=["nothing", "side", "id"], patient="p{subject}"
    )

    rows = scanned(tmp_path, settings)

    assert rows.index.tolist() == files
    assert rows["view"].tolist() == ["A", "LATERAL"] and rows["patient"].tolist() == ["p100", "p110"]


def test_a_folder_that_all_names_begin_with_may_be_missing(tmp_path: Path) -> None:
    write(tmp_path, ["train/p1/view1.jpg", "train/p2/view1.jpg"])
    write(
        tmp_path,
        tables={"labels.csv": "file,label\nSet-v1/train/p1/view1.jpg,COVID\nSet-v1/train/p2/view1.jpg,Normal\n"},
    )

    assert classes_in(tmp_path, table_settings()) == {"train/p1/view1.jpg": "COVID", "train/p2/view1.jpg": "Normal"}


@pytest.mark.parametrize(
    ("rule", "used"),
    [
        ("exclusive", {"a": "COVID", "f": "Normal"}),
        ("set_aside", {"a": "COVID", "b": "COVID", "f": "Normal"}),
        ("first", {"a": "COVID", "b": "COVID", "c": "COVID", "f": "Normal"}),
    ],
)
@pytest.mark.parametrize("form", ["separator", "list", "findings"])
def test_rows_of_several_labels_follow_the_rule(tmp_path: Path, rule: str, used: dict[str, str], form: str) -> None:
    said = {"a": "COVID", "b": "COVID|Mass", "c": "Normal|COVID", "d": "Mass", "e": "", "f": "Normal|Tube"}
    write(tmp_path, [f"{name}.png" for name in said])
    columns = ["COVID", "Normal", "Mass"]
    if form == "findings":
        rows = [[name, *(str(float(one in text.split("|"))) for one in columns)] for name, text in said.items()]
        table = pd.DataFrame(rows, columns=["file", *columns])
        settings = table_settings(findings=columns, rule=rule)
    else:
        texts = [text if form == "separator" else repr(text.split("|")) for text in said.values()]
        table = pd.DataFrame({"file": list(said), "label": texts})
        settings = table_settings(rule=rule, separator="|", ignore=["tube"])
    table.to_csv(tmp_path / "labels.csv", index=False)

    found = layout_in(tmp_path, settings)

    assert {entry.path[0]: label for label, entry in found.images} == used
    assert any(f"{2:,} images have no label that is a class" in note for note in found.notes)
    assert any("'d.png': none (1), 'Mass' (1)" in note for note in found.notes)


def test_the_empty_label_and_others_may_be_mapped(folder: Path) -> None:
    write(folder, tables={"labels.csv": "file,label\n1.png,1.0\n2.png,\n3.png,0\n"})

    found = classes_in(folder, table_settings(labels={1: "COVID", 0: "Normal", "": "Normal"}))

    assert list(found.values()) == ["COVID", "Normal", "Normal"]


@pytest.mark.parametrize(
    ("uncertain_is", "used"),
    [
        ("absent", {"a": "COVID", "d": "Normal"}),
        ("present", {"b": "COVID", "d": "Normal"}),
        ("set_aside", {"d": "Normal"}),
    ],
)
def test_uncertain_findings_are_absent_present_or_set_aside(
    tmp_path: Path, uncertain_is: str, used: dict[str, str]
) -> None:
    text = "file,COVID,Normal,Mass\na,1.0,,-1.0\nb,-1,0,\nc,0,0,-1\nd,,1,\n"
    write(tmp_path, [f"{name}.png" for name in "abcd"], {"labels.csv": text})
    classes = {"present": ["COVID", "Normal"]}.get(uncertain_is, ["COVID", "Normal"])
    settings = table_settings(classes, findings=["COVID", "Normal", "Mass"], uncertain_is=uncertain_is)
    if uncertain_is == "set_aside":
        with pytest.raises(
            DataError, match=r"Class 'COVID' has no image .* 2 images have a finding that nobody is sure"
        ):
            layout_in(tmp_path, settings)
        return

    assert {path[0]: label for path, label in classes_in(tmp_path, settings).items()} == used


@pytest.mark.parametrize(
    ("rows", "used"),
    [("agree", {"b": "Normal"}), ("majority", {"a": "COVID", "b": "Normal"}), ("any", {"b": "Normal"})],
)
def test_several_rows_for_one_image_are_put_together(tmp_path: Path, rows: str, used: dict[str, str]) -> None:
    text = "file,label\na,COVID\nb,Normal\na,COVID\na.png,Normal\nb,Normal\nc,COVID\n"
    write(tmp_path, ["a.png", "b.png", "c.png"], {"labels.csv": text})

    found = layout_in(tmp_path, table_settings(rows=rows))

    assert {entry.path[0]: label for label, entry in found.images} == {**used, "c": "COVID"}
    assert any("1 images have several rows that say different things" in note for note in found.notes) == (
        rows == "agree"
    )


def test_views_and_rows_that_are_not_wanted_are_left_out_and_counted(folder: Path) -> None:
    write(folder, ["images/4.png", "images/5.png"])
    text = (
        "file,label,view,kind\n1,COVID,PA,X-ray\n2,Normal,ap,X-ray\n3,Normal,L,X-ray\n4,Normal,PA,CT\n5,Normal,,X-ray\n"
    )
    write(folder, tables={"labels.csv": text})

    found = layout_in(folder, table_settings(view="view", views=["PA", "AP"], keep={"kind": ["x-ray"]}))

    assert [entry.path for _, entry in found.images] == FILES[:2]
    assert "labels.csv: 2 images have a view that is not among data.table.views and are not used, such as "
    assert any(note.endswith("such as 'images/3.png': 'LATERAL' (1), none (1)") for note in found.notes)
    assert any("1 images are left out by data.table.keep" in note for note in found.notes)


def test_tables_are_joined_by_their_keys(folder: Path) -> None:
    write(folder, tables={"labels.csv": "file,study\n1,7\n2,8\n3,9\n"})
    write(folder, tables={"said.csv": "Study,label,box\n7.0,COVID,1\n7,COVID,2\n8,Normal,1\n"})

    found = layout_in(folder, table_settings(joins=[{"file": "said.csv", "by": ["study"]}], labels={"": "Normal"}))

    assert [label for label, _ in found.images] == ["COVID", "Normal", "Normal"]
    assert found.told[0].startswith("labels.csv: 3 of 3 rows")


def test_keys_are_joined_digit_by_digit(folder: Path) -> None:
    keys = ["20536686640136348236148679891455886468", "20536686640136348236148679891455886469", "007"]
    rows = [f"{number},{key}" for number, key in enumerate(keys, 1)]
    write(folder, tables={"labels.csv": "\n".join(["file,study", *rows])})
    write(folder, tables={"said.csv": f"study,label\n{keys[0]},COVID\n{keys[1]},Normal\n7,COVID\n"})

    found = layout_in(folder, table_settings(joins=[{"file": "said.csv", "by": ["study"]}]))

    assert [(entry.path, label) for label, entry in found.images] == [(FILES[0], "COVID"), (FILES[1], "Normal")]


@pytest.mark.parametrize("kind", ["zip", "gztar"])
def test_table_and_images_may_lie_in_an_archive(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, kind: str
) -> None:
    archive = shutil.make_archive(str(tmp_path_factory.mktemp("packed") / "xrays"), kind, folder)

    rows = scanned(Path(archive), table_settings())

    assert rows["label"].to_dict() == dict(zip(FILES, ["COVID", "Normal", "Normal"], strict=True))


@pytest.mark.parametrize("way", ["column", "files", "lists", "folders"])
def test_given_splits_come_from_a_column_the_file_lists_or_folders(tmp_path: Path, way: str) -> None:
    place = {"1": "train/1.png", "2": "valid/2.png", "3": "test/3.png"}
    files = list(place.values()) if way == "folders" else [f"{name}.png" for name in place]
    write(tmp_path, files)
    rows = {"1": "1,COVID,train", "2": "2,Normal,validate", "3": "3,Normal,TEST"}
    settings = {
        "column": {"split": "split"},
        "files": {"file": {"train": "a.csv", "validation": "b.csv", "test": "c.csv"}},
        "lists": {"split": {"train": "train_list.txt", "validation": "valid_list.txt", "test": "test_list.txt"}},
        "folders": {},
    }[way]
    if way == "files":
        for name, row in zip("abc", rows.values(), strict=True):
            write(tmp_path, tables={f"{name}.csv": f"file,label,split\n{row}\n"})
    else:
        write(tmp_path, tables={"labels.csv": "\n".join(["file,label,split", *rows.values()])})
    if way == "lists":
        # An image of two lists is kept from training.
        lists = {"train_list.txt": "1.png\n3.png\n", "valid_list.txt": "2.png\n", "test_list.txt": "3.png\n"}
        write(tmp_path, tables=lists)

    given_to = layout_in(tmp_path, table_settings(**settings)).given

    assert given_to == dict(zip(files, ["train", "validation", "test"], strict=True))


def test_masks_are_no_images_and_belong_to_theirs(folder: Path) -> None:
    write(folder, ["infection masks/1.png", "masks/1.png", "images/2_mask.png"])

    found = layout_in(folder, table_settings())

    assert {path: mask.path for path, mask in found.masks.items()} == {
        "images/1.png": "masks/1.png",
        "images/2.png": "images/2_mask.png",
    }
    assert len(found.images) == 3


def test_what_the_table_says_changes_the_listing(folder: Path) -> None:
    settings = table_settings(patient="who")
    write(folder, tables={"labels.csv": "file,label,who\n1,COVID,A\n2,Normal,B\n"})
    before = listing_key(layout_in(folder, settings))
    write(folder, tables={"labels.csv": "file,label,who\n1,COVID,A\n2,Normal,C\n"})

    assert listing_key(layout_in(folder, settings)) != before


def table(text: str) -> Callable[[Path], Path]:
    return lambda folder: write(folder, tables={"labels.csv": text})


@pytest.mark.parametrize(
    ("change", "settings", "sentence"),
    [
        (
            None,
            {"file": "other*.csv"},
            "holds no file 'other*.csv', which data.table.file names: its tables are 'labels.csv'",
        ),
        (
            None,
            {"path": "name"},
            "The table labels.csv has no column 'name', which data.table.path names: it has 'file', 'label'",
        ),
        (None, {"label": "finding"}, "has no column 'finding', which data.table.label names"),
        (None, {"findings": ["COVID"]}, "has no column 'COVID', which data.table.findings names"),
        (None, {"patient": ["who", "whom"]}, "has no column 'who', which data.table.patient names"),
        (None, {"view": "{file:(}"}, "data.table.view: '(' is no regular expression"),
        (
            None,
            {"joins": [{"file": "labels.csv", "by": ["study"]}]},
            "has no column 'study', which data.table.joins names",
        ),
        (
            table("file,label\na,COVID\nb,Normal\n"),
            {},
            "does not match the images: 0 of its 2 rows name one of the 3 images",
        ),
        (table("file,label\n"), {}, "names no image. It has no row"),
        (
            table("file,label\n1,covid?\n2,Normal\n"),
            {},
            "Class 'COVID' has no image in the table labels.csv, whose labels are",
        ),
        (table(LABELS), {"split": {"test": "test.txt"}}, "holds no file 'test.txt', which data.table.split.test names"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(
    folder: Path, change: Callable[[Path], Path] | None, settings: dict[str, object], sentence: str
) -> None:
    if change is not None:
        change(folder)
    with pytest.raises((DataError, SettingsError), match=re.escape(sentence)) as told:
        layout_in(folder, table_settings(**settings))
    assert "\n" not in str(told.value)


def test_a_file_that_is_no_table_is_said_to_be_none(folder: Path) -> None:
    (folder / "labels.xlsx").write_bytes(b"no table")
    with pytest.raises(DataError, match=r"The table labels.xlsx cannot be read"):
        layout_in(folder, table_settings(file="labels.xlsx"))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"label": ""}, "name either the column of labels in label, or a column for each finding"),
        ({"views": ["PA"]}, "views needs view"),
        ({"rule": "best"}, "data.table.rule"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict[str, object], sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence):
        table_settings(**settings)


def test_lists_in_cells_are_read_even_with_gaps() -> None:
    assert split_labels("['pneumonia', ' mass']", "") == ["pneumonia", "mass"]
    assert split_labels("['pneumonia', , 'mass'", "|") == ["['pneumonia', , 'mass'"]
    assert split_labels("['pneumonia', , mass]", "") == ["pneumonia", "mass"]
    assert split_labels("[]", "|") == []


labels = st.frozensets(st.sampled_from(["COVID", "Normal", "Mass", "Tube"]), max_size=3)
readings = st.lists(st.builds(Reading, labels, labels), min_size=1, max_size=5)


@given(readings, st.sampled_from(["exclusive", "set_aside", "first"]), st.sampled_from(["agree", "majority", "any"]))
def test_an_image_has_one_class_or_one_reason_and_the_order_of_rows_does_not_count(
    said: list[Reading], rule: str, rows: str
) -> None:
    settings = table_settings(rule=rule, rows=rows, ignore=["Tube"]).table
    assert settings is not None
    rules = LabelRules(settings, ["COVID", "Normal"])

    label, reason = rules.decide(said)

    assert bool(label) != bool(reason)
    assert not label or any(label in reading.labels for reading in said)
    assert rules.decide(said[::-1]) == (label, reason)


def test_the_order_of_rows_and_files_does_not_count(tmp_path: Path) -> None:
    names = [f"{number}.png" for number in range(40)]
    write(tmp_path, names)
    chance = random.Random(0)
    rows = [
        f"{name},{chance.choice(['COVID', 'Normal', 'COVID|Normal', 'Mass'])},{chance.choice('AB')}"
        for name in names * 2
    ]
    found = []
    for _ in range(3):
        chance.shuffle(rows)
        write(tmp_path, tables={"labels.csv": "\n".join(["file,label,patient", *rows])})
        scan = scanned(tmp_path, table_settings(separator="|", patient="patient", rows="any", rule="first"))
        found.append(scan[["label", "patient"]])

    assert found[0].equals(found[1]) and found[0].equals(found[2])
    assert found[0].index.is_unique


def test_a_layout_that_does_not_exist_is_said_to_be_none() -> None:
    with pytest.raises(SettingsError, match=r"data.layout: there is no layout 'nihh', did you mean 'nih'"):
        resolve("quick", {"data": {"layout": "nihh"}})
