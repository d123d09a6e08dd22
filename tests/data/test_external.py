"""Which images of an external set leak: copies of what was trained on, its patients, and what is tied to those."""

import numpy as np
import pytest

from cxr_tasks.config import resolve
from cxr_tasks.data.copies import ALTERED, NEAR_DUPLICATE, SAME_FILE
from cxr_tasks.data.external import (
    LEAK_COLUMNS,
    SAME_PATIENT,
    TIED_TO_LEAK,
    find_leaks,
    leaks_in_words,
    seen_in_training,
)
from tests.data.test_copies import as_jpeg, listed, pictures

LIMITS = resolve("quick").data.near_duplicates
SEEN_PIXELS = pictures(0, 12)
SEEN, SEEN_THUMBNAILS = listed(SEEN_PIXELS, "seen")
SEEN = SEEN.assign(split=["train", "validation"] * 6, patient=[f"p{n}" if n < 6 else "" for n in range(12)])


def external(pixels, **columns):
    rows, thumbnails = listed(pixels, "new")
    return rows.assign(patient="", group=rows["image_id"]).assign(**columns), thumbnails


def leaks(pixels, own_patients=False, **columns):
    return find_leaks(*external(pixels, **columns), SEEN, SEEN_THUMBNAILS, LIMITS, own_patients=own_patients)


def test_unrelated_images_of_other_patients_do_not_leak():
    found = leaks(pictures(1, 6), patient=["q1", "q2", "", "", "", ""])

    assert found.empty and list(found.columns) == LEAK_COLUMNS and leaks_in_words(found, 6, "b") == []


def test_each_image_that_shows_a_seen_picture_or_patient_leaks_once_by_the_surest_evidence():
    pixels = np.concatenate([pictures(1, 3), SEEN_PIXELS[:1], as_jpeg(SEEN_PIXELS[1])[None], SEEN_PIXELS[2:3, :, ::-1]])
    ids = ["a", "b", "c", "seen-0", "again", "flipped"]

    found = leaks(pixels, image_id=ids, group=ids, patient=["", "p4", "", "p0", "", ""])

    how = dict(zip(found["image_id"], found["leak"], strict=True))
    assert how == {"seen-0": SAME_FILE, "again": NEAR_DUPLICATE, "flipped": ALTERED, "b": SAME_PATIENT}
    assert dict(zip(found["image_id"], found["split"], strict=True))["again"] == "validation"
    assert set(found["known_path"]) == {"seen-0.png", "seen-1.png", "seen-2.png", "seen-4.png"}


def test_where_a_set_numbers_its_patients_on_its_own_the_same_number_is_another_person():
    pixels = np.concatenate([pictures(1, 2), SEEN_PIXELS[:1]])

    found = leaks(pixels, own_patients=True, patient=["p4", "p0", "p9"])

    assert dict(zip(found["image_id"], found["leak"], strict=True)) == {"new-2": NEAR_DUPLICATE}


def test_other_images_of_the_patient_of_a_copy_leak_too():
    pixels = np.concatenate([pictures(1, 3), SEEN_PIXELS[7:8]])

    found = leaks(pixels, group=["one", "two", "three", "two"])

    assert dict(zip(found["image_id"], found["leak"], strict=True)) == {"new-3": NEAR_DUPLICATE, "new-1": TIED_TO_LEAK}


def test_test_images_are_not_what_a_training_has_seen():
    rows = SEEN.assign(split=["train", "test", "validation", ""] * 3)

    assert set(seen_in_training(rows)["split"]) == {"train", "validation"}


@pytest.mark.parametrize("number", [1, 5])
def test_the_sentence_says_how_many_and_names_some(number):
    (told,) = leaks_in_words(leaks(SEEN_PIXELS[:number]), 9, "hospital-b")

    assert told.startswith(f"{number} of 9 images of the external set hospital-b are left out") and "seen-0.png" in told
