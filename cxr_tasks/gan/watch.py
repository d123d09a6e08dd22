"""What a person sees of a GAN while it trains: a grid of fixed latents, the grid's animation and its variety."""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping

import numpy as np
from PIL import Image, ImageDraw

from cxr_tasks.data.stacks import Rows
from cxr_tasks.randomness import keyed

GRID_PER_CLASS = 6
MOST_GRIDS = 60
MOST_FRAMES = 40
# A class whose generated images differ from each other less than this share of what real ones do has collapsed.
COLLAPSED = 0.25
REAL_PER_CLASS = 64
LABEL_HEIGHT = 14


def spread(images: np.ndarray) -> float:
    """Mean distance of two different images of (n, S, S) uint8: root mean square over pixels, in gray levels."""
    if len(images) < 2:
        return float("nan")
    flat = images.reshape(len(images), -1).astype(np.float32)
    squares = (flat**2).sum(axis=1)
    distances = np.maximum(squares[:, None] + squares[None] - 2 * flat @ flat.T, 0) / flat.shape[1]
    upper = np.triu_indices(len(images), 1)
    return float(np.sqrt(distances[upper]).mean())


def real_spreads(pixels: Rows, labels: np.ndarray, classes: int, seed: int) -> np.ndarray:
    """(classes,) :func:`spread` of up to 64 real images of each class; NaN for a class with fewer than two.

    Args:
        pixels: (n, S, S) uint8.
        labels: (n,) classes.
        classes: Number of classes.
        seed: Of the choice of images.
    """
    found = []
    for number in range(classes):
        members = np.flatnonzero(labels == number)
        some = keyed(seed, "real spread", number).permutation(members)[:REAL_PER_CLASS]
        found.append(spread(pixels[some]))
    return np.array(found)


def diversity(grid: np.ndarray, real: np.ndarray) -> np.ndarray:
    """(classes,) the spread of each class in a fixed grid over that of real images; 1 is as varied as real images.

    Args:
        grid: (classes · GRID_PER_CLASS, S, S) uint8, classes in order.
        real: (classes,) of :func:`real_spreads`.
    """
    made = np.array([spread(rows) for rows in np.split(grid, len(real))])
    return made / np.where(real > 0, real, np.nan)


def thin_out(grids: dict[int, np.ndarray], asked: Collection[int]) -> None:
    """Drop every second grid that nobody asked for, once there are many; the newest stays."""
    extra = sorted(set(grids) - set(asked))
    if len(extra) > MOST_GRIDS:
        for step in extra[-2::-2]:
            del grids[step]


def animation(grids: Mapping[int, np.ndarray], seconds: float = 8.0) -> bytes:
    """The grids over the training as an animated GIF, a row a class, each frame labelled with its step.

    Args:
        grids: Step → (classes · GRID_PER_CLASS, S, S) uint8, as in ``FittedGan.grids``; not empty.
        seconds: About how long the animation runs, whatever the number of frames (40 at most, evenly chosen).
    """
    steps = sorted(grids)
    chosen = sorted({steps[round(i)] for i in np.linspace(0, len(steps) - 1, min(MOST_FRAMES, len(steps)))})
    frames = [_frame(grids[step], f"step {step:,}") for step in chosen]
    durations = [max(60, round(1000 * seconds / len(frames)))] * len(frames)
    durations[-1] += 1500
    out = io.BytesIO()
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0)
    return out.getvalue()


def _frame(grid: np.ndarray, text: str) -> Image.Image:
    side = grid.shape[1]
    tiles = grid.reshape(-1, GRID_PER_CLASS, side, side).transpose(0, 2, 1, 3).reshape(-1, GRID_PER_CLASS * side)
    frame = Image.new("L", (tiles.shape[1], tiles.shape[0] + LABEL_HEIGHT))
    frame.paste(Image.fromarray(tiles), (0, LABEL_HEIGHT))
    ImageDraw.Draw(frame).text((2, 1), text, fill=255)
    return frame
