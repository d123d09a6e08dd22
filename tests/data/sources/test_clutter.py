"""What systems leave behind is no image, wherever in a path it stands; what people name is kept."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr_tasks.data.sources.clutter import is_clutter, is_left_out

FOLDERS = [
    "@eaDir",
    "#recycle",
    "#snapshot",
    "@tmp",
    "@sharebin",
    "@Recycle",
    "@Recently-Snapshot",
    ".@__thumb",
    "@__thumb",
    ".Trashes",
    ".Trash-1000",
    ".AppleDouble",
    "__MACOSX",
    "$RECYCLE.BIN",
    ".thumbnails",
    ".snapshot",
    ".snapshots",
    ".zfs",
    ".sync",
    ".stversions",
    ".dropbox.cache",
    "lost+found",
    ".ipynb_checkpoints",
    "FOUND.000",
    "RECYCLER",
    "~snapshot",
    ".git",
    "__pycache__",
    ".recycle",
    "Thumbnails",
    "System Volume Information",
    "Network Trash Folder",
    "Temporary Items",
    "Recycle Bin",
]
FILES = [
    "Thumbs.db",
    "thumbs.db:encryptable",
    "ehthumbs.db",
    "ehthumbs_vista.db",
    "desktop.ini",
    "._x.png",
    "~$x.xlsx",
    ".DS_Store",
    ".directory",
    "x.png:Zone.Identifier",
    "x.png@SynoEAStream",
    "SYNOPHOTO_THUMB_XL.jpg",
    ".~lock.x.csv#",
    "x.png~",
    ".fuse_hidden01",
    ".nfs01",
    ".x.png.swp",
    "Icon\r",
]
KEPT = [
    "~",
    "a~",
    "1.png",
    "COVID-19",
    "#12",
    "a#b.png",
    "a@b.png",
    "@1.png",
    "COVID (3).png",
    "IMAGE~1.PNG",
    "$100",
    "trash-1.png",
]
names = st.text("abc 1é", min_size=1, max_size=5).map(str.strip).filter(bool)


@given(st.lists(names, max_size=3), st.sampled_from(FOLDERS), st.lists(names, max_size=2), st.sampled_from("luk"))
def test_what_lies_in_a_folder_of_a_system_is_no_image(
    above: list[str], folder: str, below: list[str], case: str
) -> None:
    folder = {"l": folder.lower(), "u": folder.upper(), "k": folder}[case]

    assert is_left_out("/".join([*above, folder, *below, "1.png"]))
    assert not is_left_out("/".join([*above, *below, "1.png"]))


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_a_system_left_is_no_image(name: str) -> None:
    assert is_left_out(f"COVID/images/{name}") and is_clutter(name.upper())


@pytest.mark.parametrize("name", KEPT)
def test_names_that_people_give_are_kept(name: str) -> None:
    assert not is_left_out(f"COVID/{name}/1.png") and not is_clutter(name)


def test_what_icloud_puts_in_the_place_of_an_image_is_seen() -> None:
    assert not is_left_out("COVID/images/.1.png.icloud") and is_left_out("COVID/.hidden/1.png.icloud")
