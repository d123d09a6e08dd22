"""Which files and folders systems leave behind: thumbnails, deleted files, notes of desktops, servers and clouds.

The names come from GitHub's templates for ignored files (macOS, Windows, Linux, synchronisation) and from what
Synology, QNAP, NetApp, ZFS and Samba servers put into shared folders.
"""

from __future__ import annotations

import re
from functools import lru_cache

_NAMES = frozenset(
    {
        # macOS, on disks of other systems and on servers. The icon of a folder ends in a carriage return.
        *("__macosx", "icon\r", "network trash folder", "temporary items", "thevolumesettingsfolder", ":2e_ds_store"),
        # Windows
        *("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "autorun.inf", "folder.htt", "picasa.ini"),
        *("$recycle.bin", "recycler", "recycled", "recycle bin", "recycle.bin", "system volume information"),
        *("$extend", "$sysreset", "$winreagent", "config.msi", "msocache"),
        # Linux, and the deleted files and snapshots of servers
        *("lost+found", "trash", "trashbox", "~snapshot", "#snapshot", "#recycle"),
        # Small copies beside the images
        *("thumbnails", "_thumbnails", "thumbs", "_thumbs"),
        # Programs
        *("__pycache__", "cvs", "_svn"),
    }
)
_PATTERNS = re.compile(
    "|".join(
        (
            # Hidden, but for what iCloud puts in the place of a file that it keeps: that file is missing here.
            r"\.(?!.*\.icloud$)",
            # The list of files on a DICOM disk: the files themselves are read. Its viewer is no image.
            r"dicomdir([.;]\d*)?$",
            r".*\.(exe|dll|msi|bat|cmd|inf|ini|ico|icns|jar|chm|hlp|cfg)$",
            r"~\$",
            r"\.?~lock\.",
            r"~syncthing~",
            r"@[^.]*$",
            r"#[a-z_-]+$",
            r"#.*#$",
            r"found\.\d{3}$",
            r"synophoto_(thumb|film)",
            r"thumbs\.db:",
            r".*@syno(eastream|resource)$",
            r".*[:_\uf03a]zone\.identifier$",
            r".*:(com\.dropbox\.attr\w*|afp_\w+|smartscreen)$",
            r".*\.\w+~$",
            r".*\.sw[a-p]$",
        )
    )
)


@lru_cache(maxsize=4096)
def _is_clutter_folder(name: str) -> bool:
    return is_clutter(name)


def is_clutter(name: str) -> bool:
    """Whether a file or folder of this name is hidden or left behind by a system."""
    name = name.lower()
    return name.strip(" ") in _NAMES or _PATTERNS.match(name) is not None


def is_left_out(path: str) -> bool:
    """Whether the file at ``path`` is clutter, or lies in a folder that is."""
    *folders, name = path.split("/")
    return is_clutter(name) or any(map(_is_clutter_folder, folders))
