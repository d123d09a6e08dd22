"""What served models warn of: how often X-rays like those of training are called unusual, and what else is noticed.

    python benchmarks/unusual.py FOLDER [splits]

FOLDER holds X-rays as ``<Class>/images/*.png``. They are split at random again and again (20 times by default): eight
tenths train, a tenth sets the limits, and a tenth is asked about, as it is and altered. Other pictures are asked about
too: textures drawn at random, cuttings of the photographs that come with scikit-learn and Matplotlib, and digits.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from scipy import ndimage

from cxr_tasks.config import resolve
from cxr_tasks.data.decode import Decoded, decode
from cxr_tasks.data.formats import Unusable
from cxr_tasks.data.inverted import YES, is_inverted
from cxr_tasks.data.typical import TypicalImages, gray_levels
from cxr_tasks.serving.model_facts import Usual

OTHERS = 300
SIDE = 299
WARNINGS = ("refused", "inverted", "distance", "grays", "any")


def turned(degrees: int) -> Callable[[Image.Image], Image.Image]:
    """Turns an image to the left."""
    return lambda image: image.rotate(degrees)


def with_grays(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Image.Image], Image.Image]:
    """Changes the grays of an image; what is beyond 0–255 is cut off."""
    return lambda image: Image.fromarray(change(np.asarray(image, np.float64)).clip(0, 255).astype(np.uint8))


def box(share: float, place: float) -> Callable[[Image.Image], Image.Image]:
    """Cuts out a share of the sides, at a place between 0 (left and top) and 1."""

    def cut(image: Image.Image) -> Image.Image:
        width, height = image.size
        left, top = place * (1 - share) * width, place * (1 - share) * height
        return image.crop((int(left), int(top), int(left + share * width), int(top + share * height)))

    return cut


def framed(image: Image.Image) -> Image.Image:
    """The image in the middle of a black one of twice its sides."""
    frame = Image.new("L", (2 * image.width, 2 * image.height))
    frame.paste(image, (image.width // 2, image.height // 2))
    return frame


def shuffled(image: Image.Image) -> Image.Image:
    """The image in 16 tiles, in a random order."""
    tiles = np.asarray(image.resize((256, 256))).reshape(4, 64, 4, 64).swapaxes(1, 2).reshape(16, 64, 64)
    tiles = tiles[np.random.default_rng(int(tiles.sum())).permutation(16)]
    return Image.fromarray(tiles.reshape(4, 4, 64, 64).swapaxes(1, 2).reshape(256, 256))


ALTERED: dict[str, Callable[[Image.Image], Image.Image]] = {
    "as they are": lambda image: image,
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "a tenth cut off": box(0.9, 0.5),
    "noise": with_grays(lambda x: x + np.random.default_rng(1).normal(0, 25, x.shape)),
    "inverted": with_grays(lambda x: 255 - x),
    "darker (0.4)": with_grays(lambda x: 0.4 * x),
    "brighter (+90)": with_grays(lambda x: x + 90),
    "turned 90°": turned(90),
    "turned 180°": turned(180),
    "a quarter of it": box(0.5, 0.0),
    "in a black frame": framed,
    "tiles shuffled": shuffled,
}


def textures() -> Iterator[Image.Image]:
    """Noise, coarse and fine."""
    for seed in range(OTHERS):
        rng = np.random.default_rng(seed)
        field = ndimage.gaussian_filter(rng.normal(size=(SIDE, SIDE)), rng.choice([0, 1, 2, 4, 8, 16, 40]))
        yield Image.fromarray((255 * (field - field.min()) / np.ptp(field)).astype(np.uint8))


def photographs(mode: str) -> Iterator[Image.Image]:
    """Squares out of photographs, in the mode ``L`` or ``RGB``."""
    from matplotlib.cbook import get_sample_data
    from sklearn.datasets import load_sample_images

    files = [*load_sample_images().filenames, get_sample_data("grace_hopper.jpg").name]
    whole = [Image.open(path).convert(mode) for path in files]
    for seed in range(OTHERS):
        rng, image = np.random.default_rng(seed), whole[seed % len(whole)]
        side = int(rng.integers(min(image.size) // 3, min(image.size)))
        left, top = (int(rng.integers(0, length - side)) for length in image.size)
        yield image.crop((left, top, left + side, top + side))


def digits() -> Iterator[Image.Image]:
    """Handwritten digits."""
    from sklearn.datasets import load_digits

    for digit in load_digits().images[:OTHERS]:
        yield Image.fromarray((digit * 15.9).astype(np.uint8)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def decoded(images: Iterator[Image.Image]) -> list[Decoded | None]:
    """What each becomes as a file; ``None`` where it is refused."""
    found: list[Decoded | None] = []
    for image in images:
        stream = BytesIO()
        image.save(stream, "PNG", compress_level=1)
        try:
            found.append(decode(stream.getvalue(), "", []))
        except Unusable:
            found.append(None)
    return found


def warned(images: list[Decoded | None], typical: TypicalImages, usual: Usual) -> dict[str, float]:
    """The share of images that are refused, and that get each warning."""
    seen = np.array([image is not None for image in images])
    told = {name: np.zeros(len(images), bool) for name in WARNINGS}
    told["refused"] = ~seen
    if seen.any():
        thumbnails = np.stack([image.thumbnail for image in images if image is not None])
        means, contrasts = gray_levels(thumbnails)
        told["inverted"][seen] = is_inverted(thumbnails) == YES
        told["distance"][seen] = typical.distances(thumbnails) > usual.distance
        beyond = [(x < low) | (x > high) for x, (low, high) in ((means, usual.mean), (contrasts, usual.contrast))]
        told["grays"][seen] = np.any(beyond, axis=0)
    told["any"] = np.any([told[name] for name in WARNINGS[:-1]], axis=0)
    return {name: float(which.mean()) for name, which in told.items()}


def main(folder: Path, splits: int) -> None:
    """Measure, print a table, and end with one JSON object."""
    paths = sorted(folder.glob("*/images/*.png"))
    originals = [Image.open(path).convert("L") for path in paths]
    altered = {name: decoded(map(change, originals)) for name, change in ALTERED.items()}
    others = {"textures": decoded(textures()), "photographs, gray": decoded(photographs("L"))}
    others |= {"photographs, colour": decoded(photographs("RGB")), "digits": decoded(digits())}
    share = resolve("quick").serving.false_alarms
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for seed in range(splits):
        places = np.random.default_rng(seed).permutation(len(paths))
        tenth = len(paths) // 10
        test, validation, train = places[:tenth], places[tenth : 2 * tenth], places[2 * tenth :]
        whole = altered["as they are"]
        typical = TypicalImages.of(np.stack([whole[place].thumbnail for place in train]))
        rows = pd.DataFrame({"width": SIDE, "height": SIDE}, index=range(tenth))
        usual = Usual.of(typical, np.stack([whole[place].thumbnail for place in validation]), rows, share)
        for name, images in altered.items():
            for warning, rate in warned([images[place] for place in test], typical, usual).items():
                found[name][warning].append(rate)
        for name, images in others.items():
            for warning, rate in warned(images, typical, usual).items():
                found[name][warning].append(rate)
    print(f"{len(paths):,} X-rays, {splits} splits, limits for {share:.0%} false alarms each; % of images\n")
    print(f"{'':22}" + "".join(f"{name:>10}" for name in WARNINGS))
    means = {name: {warning: float(np.mean(rates)) for warning, rates in of.items()} for name, of in found.items()}
    for name, of in means.items():
        print(f"{name:22}" + "".join(f"{100 * of[warning]:10.1f}" for warning in WARNINGS))
    print(json.dumps(means))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 20)
