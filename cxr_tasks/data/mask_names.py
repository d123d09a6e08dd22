"""How people call folders and files of masks, in any spelling.

Masks are not images, whatever they show. Only masks of lungs are of use: the probes for shortcuts blank the lungs.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

# Says by itself, anywhere in a name, that masks are meant. The other languages are German, French, Spanish, Italian,
# Dutch, Russian, Chinese and Japanese.
_MASKS = {"mask", "masks", "maske", "masken", "masque", "masques", "mascara", "mascaras", "maschera", "maschere"}
_MASKS |= {"masker", "maskers", "маска", "маски", "掩膜", "掩码", "掩模", "蒙版", "マスク"}
# Says so at the end of a name only: `segmentation data` may well hold images.
_OUTLINES = {"segmentation", "segmentations", "segm", "seg", "segs", "groundtruth", "groundtruths", "gt", "gts"}
_OUTLINES |= {"truth", "truths", "annotation", "annotations", "label", "labels", "contour", "contours", "roi", "rois"}
_OUTLINES |= {"heatmap", "heatmaps", "overlay", "overlays", "boundary", "boundaries", "outline", "outlines"}
_LUNGS = {"lung", "lungs", "lunge", "lungen", "poumon", "poumons", "pulmon", "pulmones", "pulmonary"}
# Behind an outline's name these tell of the files and not of what they show.
_TRAILING = {"png", "jpg", "jpeg", "bmp", "tif", "tiff", "image", "images", "img", "imgs", "file", "files", "copy"}
_TRAILING |= {"map", "maps", "resized", "final", "new", "old", "corrected", "binary", "manual", "bw", "cropped"}
# What a mask of lungs may be called beside that.
_NEUTRAL = (
    _MASKS | _TRAILING | {"and", "of", "the", "all", "both", "auto", "automatic", "predicted", "expert", "ground"}
)
_WITHOUT = {"with", "without", "no", "non", "un", "mit", "ohne", "avec", "sans", "con", "sin"}
# A quick look that spares most names the rest.
_HINT = re.compile(
    r"mask|masq|masc|m.scara|seg|truth|gt|annotation|label|contour|roi|heatmap|overlay|boundar|outline|маск|掩|蒙版|マスク",
    re.IGNORECASE,
)
# Written without blanks.
_WITHIN = re.compile(r"(掩膜|掩码|掩模|蒙版|マスク)")
_WORD = re.compile(r"[^\W\d_]+|\d+")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_JOINED = re.compile(r"(.+?)(masks?|masken?|segmentations?)$")


@lru_cache(maxsize=4096)
def is_mask_folder(name: str) -> bool:
    """Whether a folder of this name holds masks."""
    return bool(_HINT.search(unicodedata.normalize("NFKC", name))) and _names_masks(_words(name))


@lru_cache(maxsize=4096)
def is_lung_mask_folder(name: str) -> bool:
    """Whether a folder of this name holds masks of lungs: ``masks`` and ``lung masks``, but not ``infection masks``."""
    return is_mask_folder(name) and _names_lungs(_words(name))


def is_mask_file(stem: str) -> bool:
    """Whether a file is a mask by its name without its ending, as ``COVID-1_mask`` or ``mask_1`` are."""
    if not _HINT.search(stem):
        return False
    words = _words(stem)
    return bool(words) and (words[0] in _MASKS or _ends_in_outline(words) or _ends_in_mask(words))


def image_stem(stem: str) -> tuple[str, bool]:
    """Of a mask file's name without its ending: the name of its image, and whether it may be a mask of lungs.

    ``COVID-1_lung_mask`` belongs to ``COVID-1``. A name that says nothing of masks is that of the image.
    """
    if not is_mask_file(stem):
        return stem, True
    parts = re.split(r"([\W_]+)", stem)
    said: list[str] = []
    while parts and _says_mask(parts[-1]):
        said += _words(parts.pop())
        if parts:
            parts.append(parts.pop().rstrip(" _-."))
        parts = parts[:-1] if parts and not parts[-1] else parts
    while parts and _says_mask(parts[0]):
        said += _words(parts[0])
        parts = parts[2:]
    return "".join(parts), _names_lungs(said)


def _says_mask(part: str) -> bool:
    words = _words(part)
    return bool(words) and all(word in _MASKS | _OUTLINES | _LUNGS | {"infection", "lesion"} for word in words)


def _words(name: str) -> list[str]:
    """The words of a name in lower case without accents; ``LungMasks`` and ``lungmasks`` are two words each."""
    plain = unicodedata.normalize("NFKD", _CAMEL.sub(" ", unicodedata.normalize("NFKC", name)))
    plain = "".join(sign for sign in plain if not unicodedata.combining(sign)).lower()
    words: list[str] = []
    for word in _WORD.findall(_WITHIN.sub(r" \1 ", plain)):
        joined = _JOINED.fullmatch(word)
        words += joined.groups() if joined and word not in _MASKS | _OUTLINES else (word,)
    return words


def _names_masks(words: list[str]) -> bool:
    at = next((place for place, word in enumerate(words) if word in _MASKS), None)
    if at is not None:
        return not _WITHOUT.intersection(words[:at])
    return _ends_in_outline(words)


def _names_lungs(words: list[str]) -> bool:
    """Whether masks of that name may be of lungs: nothing else is named, and an outline must name them."""
    strange = [
        word for word in words if word not in _NEUTRAL | _OUTLINES | _LUNGS and not word.isdigit() and word != "v"
    ]
    return not strange and bool(set(words) & (_MASKS | _LUNGS))


def _ends_in_outline(words: list[str]) -> bool:
    last = _without_trailing(words)
    return bool(last) and last[-1] in _OUTLINES


def _ends_in_mask(words: list[str]) -> bool:
    last = _without_trailing(words)
    return bool(last) and last[-1] in _MASKS and not _WITHOUT.intersection(words)


def _without_trailing(words: list[str]) -> list[str]:
    last = list(words)
    while last and (last[-1] in _TRAILING or last[-1].isdigit() or last[-1] == "v"):
        last.pop()
    return last
