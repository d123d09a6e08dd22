"""``cxr scan``: what it prints, and its exit statuses."""

import json
import shutil

import pandas as pd
import pytest

from cxr_tasks.data.survey import Survey
from tests.hostile import CODES, TEMPLATES, obeyed


@pytest.fixture
def spoilt(phantoms, tmp_path):
    """Phantoms with a damaged file and a copy."""
    folder = shutil.copytree(phantoms, tmp_path / "spoilt")
    (folder / "COVID/images/COVID-1.png").write_bytes(b"no picture")
    shutil.copy(folder / "Normal/images/Normal-2.png", folder / "Normal/images/again.png")
    return folder


def test_good_data_pass_and_are_counted(cxr, phantoms):
    done = cxr("scan", phantoms)

    assert done.exit_code == 0, done.output
    for words in ("COVID                40     40", "all                 136    136", "pass validation"):
        assert words in done.stdout
    assert "All 40 images of COVID are of source phantom-collection-c" in done.stdout
    assert "136 images have a lung mask" in done.stdout and "40 of 40 rows name an image of COVID" in done.stdout


def test_what_is_set_aside_is_said_with_its_reason(cxr, spoilt):
    done = cxr("scan", spoilt)

    assert "COVID/images/COVID-1.png" in done.stdout and "identical to another image of the class" in done.stdout


def test_data_that_do_not_pass_end_with_1_and_say_why(cxr, phantoms):
    done = cxr("scan", phantoms, "--set", "data.min_images_per_class=50")

    assert done.exit_code == 1
    assert "images of COVID: expected at least 50, found 40" in done.stdout
    assert "do not pass validation" in done.stdout


@pytest.mark.parametrize("what", ["missing", "empty"])
def test_data_that_cannot_be_read_end_with_2_and_one_sentence(script, tmp_path, what):
    (tmp_path / "empty").mkdir()
    done = script("scan", tmp_path / what)

    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("Error: ") and done.stderr.count("\n") == 1


def test_for_programs_there_is_json_and_nothing_else(script, spoilt, tmp_path):
    done = script("scan", spoilt, "--json", "--out", tmp_path / "manifest.parquet")
    found = Survey.model_validate(json.loads(done.stdout))

    assert done.returncode == 0, done.stderr
    assert found.passed and found.files == {"COVID": 40, "Normal": 61, "Viral Pneumonia": 36}
    assert sum(some.files for some in found.set_aside) == 2
    assert len(pd.read_parquet(tmp_path / "manifest.parquet")) == 137


def test_a_folder_for_the_manifest_must_be_there_before_anything_is_read(cxr, phantoms, tmp_path):
    done = cxr("scan", phantoms, "--out", tmp_path / "nowhere" / "manifest.parquet")

    assert done.exit_code == 2 and "nowhere does not exist" in done.stderr


def test_a_table_of_labels_is_read_in_the_place_of_folders(cxr, phantoms, tmp_path):
    folder = tmp_path / "flat"
    (folder / "images").mkdir(parents=True)
    rows = ["image,finding,who,how old"]
    images = (path for label in ("COVID", "Normal", "Viral Pneumonia") for path in phantoms.glob(f"{label}/images/*"))
    for number, path in enumerate(sorted(images)):
        shutil.copy(path, folder / "images" / path.name)
        rows.append(f"{path.stem},{path.name.rsplit('-', 1)[0]},P{number},{number % 90}Y")
    rows += [f"{rows[1].split(',')[0]},COVID|Mass,P0,1Y", "gone,COVID,P1,1Y"]
    (folder / "labels.csv").write_text("\n".join(rows))
    table = "data.table={file: labels.csv, path: image, label: finding, separator: '|', patient: who, age: how old}"

    done = cxr("scan", folder, "--set", table, "--out", tmp_path / "manifest.parquet")

    assert done.exit_code == 0, done.output
    said = " ".join(done.stdout.split())
    assert "Table labels.csv: 137 of 138 rows name an image, and 135 images have a class." in said
    assert "1 of 138 rows name no image, such as 'gone'" in said
    assert "1 images have several rows that say different things" in said
    manifest = pd.read_parquet(tmp_path / "manifest.parquet")
    assert manifest["label"].value_counts().to_dict() == {"COVID": 39, "Normal": 60, "Viral Pneumonia": 36}
    assert manifest["patient"].nunique() == 135 and manifest["age"].between(0, 89).all()


def test_a_column_that_is_not_there_ends_with_2_and_one_sentence(script, phantoms):
    done = script("scan", phantoms, "--set", "data.table={file: COVID.metadata.csv, path: image, label: finding}")

    assert done.returncode == 2 and done.stdout == ""
    assert "has no column 'image', which data.table.path names: it has 'FILE NAME'" in done.stderr
    assert done.stderr.count("\n") == 1


def test_each_of_several_sources_has_its_table_and_pairs_of_them_what_they_share(cxr, phantoms, tmp_path):
    half = shutil.copytree(phantoms, tmp_path / "half", ignore=shutil.ignore_patterns("*metadata*"))
    other = shutil.copytree(phantoms, tmp_path / "other", ignore=shutil.ignore_patterns("masks", "*-[2-9]*.png"))
    sources = f"data.sources=[{{name: half, source: {half}}}, {{name: other, source: {other}}}]"
    split = "data.split={method: leave-source-out, test_sources: [other]}"

    told = cxr("scan", "--set", sources, "--set", split, "--set", "data.min_images_per_class=5")

    assert told.exit_code == 0, told.output
    lines = [" ".join(line.split()) for line in told.stdout.splitlines()]
    assert lines[0] == "half, other as profile quick sees it"
    assert [line for line in lines if line.startswith("all ")] == [
        "all 169 132 89 10 33",
        "all 136 99 89 10 0",
        "all 33 33 0 0 33",
    ]
    assert lines.index("half") < lines.index("other") < lines.index("half and other 33 0 0")
    assert "- 33 files are in half and other: each is used once" in lines


def test_a_source_beside_a_list_of_sources_and_no_source_at_all_are_refused(cxr, phantoms):
    both = cxr("scan", phantoms, "--set", f"data.sources=[{{name: a, source: {phantoms}}}]")
    none = cxr("scan")

    assert (both.exit_code, none.exit_code) == (2, 2)
    assert "and data.sources lists a: name no source beside the list" in both.stderr
    assert "No data source is given: " in none.stderr


def test_what_a_terminal_obeys_is_written_out(cxr, phantoms, tmp_path):
    folder = shutil.copytree(phantoms, tmp_path / "codes")
    for text in (*CODES, *TEMPLATES):
        (folder / "COVID" / "images" / f"{text}.png".replace("/", "")).write_bytes(b"no picture" + text.encode())

    told = cxr("scan", folder, "--set", "data.max_rejected_fraction=1")
    as_json = cxr("scan", folder, "--set", "data.max_rejected_fraction=1", "--json")

    assert told.exit_code == as_json.exit_code == 0, told.output
    assert obeyed(told.output) == obeyed(as_json.output) == set()
    assert not [line for line in told.output.splitlines() if line.startswith("Error")]
    assert sum(some.files for some in Survey.model_validate(json.loads(as_json.stdout)).set_aside) == 12


def test_an_address_that_a_terminal_obeys_is_written_out(cxr):
    for text in CODES:
        done = cxr("scan", f"/nowhere/{text}")
        assert done.exit_code == 2 and obeyed(done.output) == set() and done.stderr.count("\n") == 1, text
