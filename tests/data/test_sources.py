"""What is found in a source folder, what is said when something is missing, and what makes it other data."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cxr_tasks.data.sources import list_folder
from cxr_tasks.errors import DataError

CLASSES = ("COVID", "Normal", "Viral Pneumonia")


def write(root: Path, *paths: str) -> Path:
    """Files whose content is their path; listing decodes nothing, so they need not be images."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(path)
    return root


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = write(
        tmp_path / "source",
        *(f"{label}/{kind}/{label}-{n}.png" for label in CLASSES for kind in ("images", "masks") for n in (1, 2)),
    )
    for label in CLASSES:
        (root / f"{label}.metadata.csv").write_text(
            f"FILE NAME,FORMAT,SIZE,URL,PATIENT\n{label}-1,PNG,9*9,collection-a,P1\n{label}-2,PNG,9*9,collection-b,P2\n"
        )
    return root


def paths(root: Path, classes: tuple[str, ...] = CLASSES) -> list[str]:
    return [file.path for file in list_folder(str(root), classes).files]


def test_images_are_found_and_masks_are_not(source: Path) -> None:
    assert paths(source) == [f"{label}/images/{label}-{n}.png" for label in CLASSES for n in (1, 2)]


def test_masks_are_not_read_in_the_flat_layout_either(tmp_path: Path) -> None:
    write(tmp_path, *(f"{label}/{label}-1.png" for label in CLASSES), "COVID/masks/COVID-1.png")

    assert paths(tmp_path) == [f"{label}/{label}-1.png" for label in CLASSES]


def test_old_folder_names_carry_the_new_labels(tmp_path: Path) -> None:
    write(tmp_path, "COVID-19/COVID-19 (1).png", "NORMAL/NORMAL (1).png", "Viral Pneumonia/Viral Pneumonia (1).png")

    assert [file.label for file in list_folder(str(tmp_path), CLASSES).files] == list(CLASSES)


def test_other_classes_and_files_are_left_out(source: Path) -> None:
    before = paths(source)
    write(source, "Lung_Opacity/images/Lung_Opacity-1.png", "README.md.txt", "COVID/images/notes.txt")

    assert paths(source) == before
    assert paths(source, (*CLASSES, "Lung_Opacity"))[-1] == "Lung_Opacity/images/Lung_Opacity-1.png"


def test_suffixes_of_images_are_taken_in_any_case(source: Path) -> None:
    write(source, "COVID/images/a.JPG", "COVID/images/b.jpeg", "COVID/images/c.PNG")

    assert paths(source)[2:5] == ["COVID/images/a.JPG", "COVID/images/b.jpeg", "COVID/images/c.PNG"]


def test_unpacked_archive_is_looked_into(source: Path, tmp_path: Path) -> None:
    outside = tmp_path / "archive"
    outside.mkdir()
    source.rename(outside / "COVID-19_Radiography_Dataset")
    (outside / ".DS_Store").touch()

    assert len(paths(outside)) == 6


def test_phantoms_are_a_source(phantoms: Path) -> None:
    listing = list_folder(str(phantoms), CLASSES)

    assert [sum(file.label == label for file in listing.files) for label in CLASSES] == [40, 60, 36]
    assert set(listing.metadata["source"]) == {f"phantom-collection-{k}" for k in "abc"}
    assert (listing.metadata["patient"] != "").all()


def test_missing_source_is_named_with_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(DataError) as raised:
        list_folder(str(tmp_path / "nowhere"), CLASSES)

    assert str(raised.value) == (
        f"The data source {tmp_path / 'nowhere'} does not exist or is not a folder: "
        "give the folder that holds COVID, Normal, Viral Pneumonia."
    )


def test_missing_class_is_named_with_what_is_there(source: Path) -> None:
    shutil.rmtree(source / "Normal")

    with pytest.raises(DataError) as raised:
        list_folder(str(source), CLASSES)

    assert str(raised.value) == (
        f"Class 'Normal' is missing: {source} holds COVID, Viral Pneumonia. "
        "Add the folder 'Normal', or take the class out of data.classes."
    )


def test_empty_class_folder_is_named(source: Path) -> None:
    for path in (source / "Normal" / "images").iterdir():
        path.unlink()

    with pytest.raises(DataError) as raised:
        list_folder(str(source), CLASSES)

    assert str(raised.value) == (
        f"Folder {source / 'Normal' / 'images'} holds no image (.jpeg, .jpg, .png): "
        "put the class's images there, or take the class out of data.classes."
    )


def test_metadata_without_file_names_is_named(source: Path) -> None:
    (source / "Normal.metadata.csv").write_text("NAME,URL\nNormal-1,x\n")

    with pytest.raises(DataError, match=r"Normal\.metadata\.csv has no column 'FILE NAME'"):
        list_folder(str(source), CLASSES)


def test_patient_and_source_come_from_the_metadata(source: Path) -> None:
    # As in the full release: upper case and with a suffix here and there, and not every image listed.
    (source / "Normal.metadata.csv").write_text("FILE NAME,URL,PATIENT\nNORMAL-2.png,collection-z,P9\n")

    table = list_folder(str(source), CLASSES).metadata.set_index("path")

    assert table.loc["COVID/images/COVID-1.png"].tolist() == ["collection-a", "P1"]
    assert table.loc["Normal/images/Normal-1.png"].tolist() == ["", ""]
    assert table.loc["Normal/images/Normal-2.png"].tolist() == ["collection-z", "P9"]


def test_source_without_metadata_has_empty_columns(source: Path) -> None:
    for label in CLASSES:
        (source / f"{label}.metadata.csv").unlink()

    table = list_folder(str(source), CLASSES).metadata

    assert len(table) == 6
    assert (table[["source", "patient"]] == "").all(axis=None)


def change_a_byte(root: Path) -> None:
    (root / "COVID/images/COVID-1.png").write_bytes(b"COVID/images/COVID-1.pnG")


def rename(root: Path) -> None:
    (root / "COVID/images/COVID-1.png").rename(root / "COVID/images/COVID-9.png")


def swap_classes(root: Path) -> None:
    (root / "COVID/images/COVID-1.png").rename(root / "Normal/images/COVID-1.png")


def add(root: Path) -> None:
    write(root, "COVID/images/COVID-3.png")


def remove(root: Path) -> None:
    (root / "COVID/images/COVID-1.png").unlink()


def change_metadata(root: Path) -> None:
    table = root / "COVID.metadata.csv"
    table.write_text(table.read_text().replace("P1", "P3"))


@pytest.mark.parametrize("change", [change_a_byte, rename, swap_classes, add, remove, change_metadata])
def test_fingerprint_changes_with_the_data(source: Path, change: Callable[[Path], None]) -> None:
    before = list_folder(str(source), CLASSES).fingerprint()

    change(source)

    assert list_folder(str(source), CLASSES).fingerprint() != before


def test_fingerprint_knows_neither_times_nor_places_nor_what_is_left_out(source: Path) -> None:
    before = list_folder(str(source), CLASSES).fingerprint()

    write(source, "COVID/masks/COVID-3.png", "Lung_Opacity/images/Lung_Opacity-1.png")
    moved = shutil.copytree(source, source.with_name("copy"))
    for path in moved.rglob("*"):
        os.utime(path, (1, 1))

    assert list_folder(str(moved), CLASSES).fingerprint() == before
