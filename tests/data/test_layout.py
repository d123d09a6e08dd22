"""Every image of a class is found once, whatever encloses the classes, and nothing else is taken for one."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr_tasks.data.layout import Layout, lay_out
from cxr_tasks.data.sources import Entry
from cxr_tasks.errors import DataError

CLASSES = ("COVID", "Normal")
FOLDERS = {"COVID-19": "COVID", "NORMAL": "Normal", "Viral_Pneumonia": "Viral Pneumonia"}


def laid_out(*paths: str | Entry, classes: tuple[str, ...] = CLASSES, folders: dict[str, str] = FOLDERS) -> Layout:
    entries = [path if isinstance(path, Entry) else Entry(path, 1, "stamp") for path in paths]
    return lay_out(entries, classes, folders, "/data/xrays")


def images(layout: Layout) -> list[tuple[str, str]]:
    return [(label, entry.path) for label, entry in layout.images]


def metadata(layout: Layout) -> list[tuple[str, str]]:
    return [(label, entry.path) for label, entry in layout.metadata]


def sentence(*paths: str | Entry, **options: object) -> str:
    with pytest.raises(DataError) as raised:
        laid_out(*paths, **options)  # type: ignore[arg-type]
    return str(raised.value)


@pytest.mark.parametrize("below", ["", "images/"])
@pytest.mark.parametrize("above", ["", "archive/", "archive/COVID-19_Radiography_Dataset/"])
def test_both_layouts_are_read_whatever_encloses_them(above: str, below: str) -> None:
    found = laid_out(
        f"{above}Normal/{below}Normal-1.png",
        f"{above}COVID/{below}COVID-2.png",
        f"{above}COVID/{below}COVID-1.png",
        f"{above}COVID.metadata.csv",
        f"{above}Normal.metadata.xlsx",
        f"{above}README.md.txt",
    )

    assert images(found) == [
        ("COVID", f"{above}COVID/{below}COVID-1.png"),
        ("COVID", f"{above}COVID/{below}COVID-2.png"),
        ("Normal", f"{above}Normal/{below}Normal-1.png"),
    ]
    assert metadata(found) == [("COVID", f"{above}COVID.metadata.csv"), ("Normal", f"{above}Normal.metadata.xlsx")]


def test_files_beside_an_enclosing_folder_do_not_hide_the_classes() -> None:
    found = laid_out("LICENSE", "archive/COVID/1.png", "archive/Normal/1.png", "archive/COVID.metadata.csv")

    assert images(found) == [("COVID", "archive/COVID/1.png"), ("Normal", "archive/Normal/1.png")]
    assert metadata(found) == [("COVID", "archive/COVID.metadata.csv")]


def masks(layout: Layout) -> dict[str, str]:
    return {path: mask.path for path, mask in layout.masks.items()}


@pytest.mark.parametrize("above", ["", "archive/"])
@pytest.mark.parametrize(("beside", "folder"), [("images/", "masks"), ("", "masks"), ("Images/", "Masks")])
def test_a_mask_is_found_beside_the_images_by_its_name(above: str, beside: str, folder: str) -> None:
    found = laid_out(
        *(f"{above}COVID/{beside}{name}" for name in ("COVID-1.png", "COVID-2.jpg", "COVID (3).png", "COVID-4.png")),
        *(f"{above}COVID/{folder}/{name}" for name in ("COVID-1.png", "COVID-2.PNG", "COVID (3).jpeg", "COVID-4.txt")),
        f"{above}Normal/{beside}COVID-1.png",
        f"{above}Lung_Opacity/{folder}/Normal-1.png",
    )

    names = (("COVID-1.png", "COVID-1.png"), ("COVID-2.jpg", "COVID-2.PNG"), ("COVID (3).png", "COVID (3).jpeg"))
    assert masks(found) == {f"{above}COVID/{beside}{image}": f"{above}COVID/{folder}/{mask}" for image, mask in names}
    assert len(found.images) == 5


def test_of_two_masks_of_one_image_the_first_counts_and_others_belong_to_none() -> None:
    found = laid_out(
        "COVID/images/1.png",
        "Normal/1.png",
        "COVID/images/masks/1.png",
        "COVID/masks/1.jpg",
        "COVID/masks/1.png",
        "COVID/masks/deeper/1.png",
    )

    assert masks(found) == {"COVID/images/1.png": "COVID/masks/1.jpg"}


def test_a_folder_of_masks_beside_an_enclosing_folder_does_not_hide_the_classes() -> None:
    found = laid_out("archive/COVID/1.png", "archive/Normal/1.png", "masks/1.png")

    assert images(found) == [("COVID", "archive/COVID/1.png"), ("Normal", "archive/Normal/1.png")]


def test_masks_are_never_taken() -> None:
    found = laid_out(
        "COVID/images/1.png",
        "COVID/masks/1.png",
        "COVID/images/masks/1.png",
        "COVID/Masks/2.png",
        "Normal/1.png",
        "Normal/masks.png",
        "Normal/1_mask.png",
        Entry("Normal/masks", 0, "", "the folder cannot be read (permission denied)"),
    )

    assert images(found) == [("COVID", "COVID/images/1.png"), ("Normal", "Normal/1.png")]
    assert masks(found) == {"COVID/images/1.png": "COVID/masks/1.png", "Normal/1.png": "Normal/1_mask.png"}


MASK_FOLDERS = ("masks", "lung masks", "lungs mask", "infection masks", "mask png", "segmentations", "ground truth")
MASK_FOLDERS += ("lung segmentation", "manual masks", "Masken", "labels", "masks 256", "left masks", "heart masks")
IMAGE_FOLDERS = ("images", "no masks", "images without masks", "segmentation data", "masked", "more", "Damaskus")


@st.composite
def spelled(draw: st.DrawFn, names: tuple[str, ...]) -> str:
    """One of ``names`` as people write it."""
    words = draw(st.sampled_from(names)).split()
    words = [draw(st.sampled_from([word, word.lower(), word.upper(), word.capitalize()])) for word in words]
    name = draw(st.sampled_from([" ", "_", "-", ".", " - ", "__"])).join(words)
    return draw(st.sampled_from([name, f" {name}", f"{name}_", f"({name})"]))


@given(spelled(MASK_FOLDERS), st.sampled_from(["", "archive/", "Lung Segmentation/", "Masks/"]), st.booleans())
def test_a_folder_of_masks_holds_no_image_however_it_is_spelled(folder: str, above: str, outside: bool) -> None:
    """Below the class or above it; a folder that encloses everything says nothing of what is in it."""
    below = f"{folder}/COVID" if outside else f"COVID/{folder}"
    found = (
        laid_out(f"{above}images/COVID/1.png", f"{above}images/Normal/1.png", f"{above}{below}/1.png")
        if outside
        else laid_out(f"{above}COVID/images/1.png", f"{above}Normal/1.png", f"{above}{below}/1.png")
    )

    assert f"{above}{below}/1.png" not in [path for _, path in images(found)]
    assert len(found.images) == 2
    others = ("infection", "segmentations", "truth", "labels", "left", "heart")
    lungs = not any(word in folder.lower() for word in others)
    assert len(masks(found)) == lungs
    assert len(found.notes) == 1 - lungs and all("only masks of lungs are" in note for note in found.notes)


@given(spelled(IMAGE_FOLDERS))
def test_a_folder_that_does_not_hold_masks_is_read(folder: str) -> None:
    assert len(laid_out(f"COVID/{folder}/1.png", "Normal/1.png").images) == 2


@pytest.mark.parametrize(
    ("name", "of"),
    [
        ("1_mask.png", "1"),
        ("1-lung-mask.jpg", "1"),
        ("mask_1.png", "1"),
        ("b (2) MASK.png", "b (2)"),
        ("1 - masks", "1"),
    ],
)
def test_a_mask_beside_its_image_is_known_by_its_name(name: str, of: str) -> None:
    found = laid_out(f"COVID/{of}.png", f"COVID/{name}", "Normal/1.png")

    assert masks(found) == {f"COVID/{of}.png": f"COVID/{name}"}
    assert len(found.images) == 2


@pytest.mark.parametrize("name", ["1_infection_mask.png", "1_seg.png", "1_gt.png", "infection-mask.png", "1_label.png"])
def test_a_mask_of_something_else_is_neither_an_image_nor_a_mask_of_lungs(name: str) -> None:
    found = laid_out("COVID/1.png", f"COVID/{name}", "COVID/infection masks/1.png", "Normal/1.png")

    assert len(found.images) == 2 and masks(found) == {}
    assert found.notes[0].startswith("2 of 2 masks are not used, such as 'COVID/")


def test_masks_in_a_tree_of_their_own_find_their_images() -> None:
    found = laid_out(
        "set/images/COVID/1.png", "set/images/Normal/1.png", "set/masks/COVID/1.png", "set/masks/Normal/1.png"
    )

    assert masks(found) == {f"set/images/{label}/1.png": f"set/masks/{label}/1.png" for label in CLASSES}


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_masks_and_images_find_each_other_in_every_unicode_form(form: str) -> None:
    """A class, an image and folders of masks with accents, as macOS and Linux write them."""
    folder, stem, letter = (unicodedata.normalize(form, name) for name in ("Röntgen-Fälle", "Müller-1", "ä"))
    other = unicodedata.normalize("NFD" if form == "NFC" else "NFC", "Müller-1")
    pairs = {
        f"{folder}/images/{stem}.png": f"{folder}/lung masks/{other}.png",
        "Normal/images/ä.png": f"Normal/images/{letter}_mask.png",
    }

    found = laid_out(*pairs, *pairs.values(), classes=("Röntgen-Fälle", "Normal"))

    assert masks(found) == pairs and found.notes == ()


ARCHIVES = ["COVID/images.zip", "COVID.7z", "more/x.rar", "data.zip.001", "data.z01", "a.part1.rar", "COVID/1.png.gz"]


@pytest.mark.parametrize("archive", ARCHIVES)
def test_an_archive_that_is_not_read_is_told_with_its_path(archive: str) -> None:
    paths = ("COVID/1.png", "Normal/1.png", archive)

    (note,) = laid_out(*paths).notes

    assert note.startswith(f"'{archive}': ") and ("unpack it" in note or "put the parts together" in note)
    assert f"Note '{archive}'" in sentence("COVID/1.png", archive)


def test_many_archives_are_told_in_one_sentence() -> None:
    (note,) = laid_out("COVID/1.png", "Normal/1.png", *(f"Normal/{n}.png.gz" for n in range(30))).notes

    assert note.startswith("'Normal/0.png.gz' and 29 more: ")


def test_folders_of_other_classes_are_left_alone() -> None:
    paths = ["COVID/1.png", "Lung_Opacity/1.png", "Lung_Opacity.metadata.csv", "Normal/1.png", "Viral_Pneumonia/1.png"]

    assert images(laid_out(*paths)) == [("COVID", "COVID/1.png"), ("Normal", "Normal/1.png")]
    assert metadata(laid_out(*paths)) == []


def test_lung_opacity_is_read_where_it_is_a_class() -> None:
    found = laid_out(
        "COVID/1.png",
        "Lung_Opacity/1.png",
        "Lung_Opacity.metadata.csv",
        "Normal/1.png",
        classes=("Normal", "COVID", "Lung_Opacity"),
    )

    assert images(found) == [
        ("Normal", "Normal/1.png"),
        ("COVID", "COVID/1.png"),
        ("Lung_Opacity", "Lung_Opacity/1.png"),
    ]
    assert metadata(found) == [("Lung_Opacity", "Lung_Opacity.metadata.csv")]


def test_two_folders_of_one_class_are_both_read() -> None:
    found = laid_out("COVID-19/2.png", "COVID/1.png", "NORMAL/1.png", "COVID-19.metadata.csv", "COVID.metadata.xlsx")

    assert images(found) == [("COVID", "COVID-19/2.png"), ("COVID", "COVID/1.png"), ("Normal", "NORMAL/1.png")]
    assert metadata(found) == [("COVID", "COVID-19.metadata.csv"), ("COVID", "COVID.metadata.xlsx")]


def test_text_beside_images_is_left_out_and_other_files_are_kept() -> None:
    texts = ["README.md", "labels.CSV", "notes.txt", "info.json", "page.html", "paper.pdf", "table.xlsx"]
    others = ["1.dcm", "1.png", "1.tif", "noending", "png", "x.zip"]

    found = laid_out("Normal/1.png", *(f"COVID/images/{name}" for name in (*texts, *others)))

    assert [path for label, path in images(found) if label == "COVID"] == [f"COVID/images/{name}" for name in others]


def test_a_folder_of_a_class_that_cannot_be_read_is_kept_as_a_file_with_that_fault() -> None:
    denied = Entry("COVID", 0, "", "the folder cannot be read (permission denied)")

    found = laid_out(denied, "COVID-19/1.png", "Normal/1.png", "COVID.metadata.csv")

    assert found.images[0] == ("COVID", denied)
    assert images(found)[1:] == [("COVID", "COVID-19/1.png"), ("Normal", "Normal/1.png")]


def test_missing_class_says_what_is_there() -> None:
    assert sentence("COVID/1.png", "Viral Pneumonia/1.png", "normals/1.png", "a.png") == (
        "Class 'Normal' has no image: in /data/xrays there are files below 'COVID', 'Viral Pneumonia', 'normals'. "
        "Put its images into the folder 'Normal', map the folder that holds them in data.folders, or take the class "
        "out of data.classes."
    )


def test_one_class_alone_is_not_taken_for_an_enclosing_folder() -> None:
    assert sentence("COVID/images/1.png", "COVID/more/1.png").startswith(
        "Class 'Normal' has no image: in /data/xrays there are files below 'COVID'. Put"
    )


@pytest.mark.parametrize(
    ("paths", "there"),
    [
        ([], "no folder"),
        (["1.png"], "no folder"),
        (["Lung_Opacity/images/1.png"], "'Lung_Opacity'"),
        (["archive/Lung_Opacity/images/1.png", "archive/Viral/images/1.png"], "'Lung_Opacity', 'Viral'"),
        (["archive/patients/images/1.png", "archive/LICENSE"], "'archive'"),
    ],
)
def test_where_no_class_is_found_the_outermost_folders_are_named(paths: list[str], there: str) -> None:
    assert sentence(*paths).startswith(f"Class 'COVID' has no image: in /data/xrays there are files below {there}. Put")


@pytest.mark.parametrize(("path", "beside"), [("NORMAL/masks/1.png", " beside masks (1)"), ("NORMAL/README.txt", "")])
def test_folder_without_an_image_is_named(path: str, beside: str) -> None:
    assert sentence("COVID/1.png", path) == (
        f"Folder 'NORMAL' in /data/xrays holds no image{beside}: put the images of class 'Normal' there, "
        "or take the class out of data.classes."
    )


names = st.sampled_from(["1", "COVID-1", "b c", "ü", "x.1", "COVID", "Normal"])
suffixes = st.sampled_from([".png", ".JPG", ".dcm", "", ".txt", ".CSV", ".metadata.csv"])
inside = st.lists(st.sampled_from(["images", "masks", "MASKS", "more", "COVID", "Lung_Opacity"]), max_size=3)
tops = st.sampled_from([*CLASSES, *FOLDERS, "Lung_Opacity", "other"])
trees = st.lists(st.builds(lambda *parts: (*parts[:1], *parts[1], parts[2] + parts[3]), tops, inside, names, suffixes))


@given(trees, st.lists(st.sampled_from(["archive", "images", "Radiography", "a b"]), max_size=3), st.booleans())
def test_every_file_of_a_class_is_found_once_whatever_encloses_it(
    tree: list[tuple[str, ...]], above: list[str], beside: bool
) -> None:
    tree = [*tree, *((label, "first.png") for label in CLASSES)]
    label_of = {**dict(zip(CLASSES, CLASSES, strict=True)), **FOLDERS}
    meant = {
        "/".join([*above, *parts]): label_of[parts[0]]
        for parts in tree
        if label_of.get(parts[0]) in CLASSES
        and "masks" not in map(str.lower, parts)
        and not parts[-1].lower().endswith((".txt", ".csv"))
    }
    strangers = ["README.md", *("/".join([*above[:depth], "LICENSE"]) for depth in range(len(above)))] if beside else []

    found = laid_out(*sorted({"/".join([*above, *parts]) for parts in tree} | set(strangers)))

    assert images(found) == sorted(((label, path) for path, label in meant.items()), key=lambda item: item)


@pytest.mark.parametrize("name", ["labels.csv", "annotations.csv", "ground_truth.xlsx", "image_labels.csv"])
def test_a_table_in_a_class_folder_is_no_mask(name: str) -> None:
    found = laid_out("COVID/1.png", f"COVID/{name}", "Normal/1.png")

    assert [(label, entry.path) for label, entry in found.maybe] == [("COVID", f"COVID/{name}")]
    assert not found.notes


def test_a_folder_without_images_says_that_it_holds_masks() -> None:
    assert "holds no image beside masks (2): put" in sentence("COVID/1_roi.png", "COVID/2_roi.png", "Normal/1.png")


@pytest.mark.parametrize("above", ["holdout", "test_1", "eval", "Testdaten", "prueba"])
def test_class_folders_in_a_folder_that_says_nothing_are_told_of(above: str) -> None:
    found = laid_out("train/COVID/1.png", "train/Normal/1.png", f"{above}/COVID/2.png", f"{above}/Normal/2.png")

    assert any(f"2 images in the folder {above!r}" in note for note in found.notes) or len(found.images) == 4


@pytest.mark.parametrize(
    "folder",
    ["segmentation maps", "seg maps", "lung boundaries", "maschere", "masker", "маски", "掩膜", "肺部掩膜", "マスク"],
)
def test_masks_are_masks_in_further_words(folder: str) -> None:
    found = laid_out("COVID/images/1.png", f"COVID/{folder}/1.png", "Normal/1.png")

    assert images(found) == [("COVID", "COVID/images/1.png"), ("Normal", "Normal/1.png")]
