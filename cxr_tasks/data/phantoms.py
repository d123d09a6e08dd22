"""Generated chest phantoms in the layout of the COVID-19 Radiography Database.

Demos and tests then need no patient data. Phantoms carry class signs of varying strength. Nothing medical may be
concluded from them.
"""

from __future__ import annotations

import csv
import os
import tempfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

Plane = NDArray[np.float32]

PHANTOM_COUNTS: Mapping[str, int] = {"COVID": 160, "Normal": 320, "Viral Pneumonia": 120, "Lung_Opacity": 40}
MASK_SIZE = 256
MIN_IMAGE_SIZE = 32
# A class keeps its index, and so its random streams, whatever other classes are asked for.
_CLASSES = tuple(PHANTOM_COUNTS)
# Anatomy is drawn on ±_EXTENT, so that a turned or shifted frame (±1) never looks past the edge.
_EXTENT = 1.3
_HILUM = (0.20, -0.10)
_POLAR = (96, 768)
_GLYPHS = {"L": (16, 16, 16, 16, 16, 16, 31), "R": (30, 17, 17, 30, 20, 18, 17)}


class _Grid(NamedTuple):
    """Patient coordinates on a square canvas, in half image sides. Image right is the patient's left.

    Attributes:
        x: (1, size).
        y: (size, 1).
        ax: (1, size), the absolute value of ``x``.
        left: (1, size), whether this is the patient's left half.
        r: (size, size), distance to the hilum of that side.
        polar: (size, size), index into a flattened table of ``_POLAR`` around that hilum.
    """

    x: Plane
    y: Plane
    ax: Plane
    left: NDArray[np.bool_]
    r: Plane
    polar: NDArray[np.intp]


@lru_cache(maxsize=4)
def _grid(size: int) -> _Grid:
    line: Plane = (((np.arange(size) + 0.5) / size * 2 - 1) * _EXTENT).astype(np.float32)
    x, y = line[None, :], line[:, None]
    dx, dy = np.abs(x) - _HILUM[0], y - _HILUM[1]
    r, turn = np.hypot(dx, dy), np.arctan2(dy, dx) / (4 * np.pi) + 0.25
    turn = (turn + 0.012 * np.sin(17 * x + 11 * y) * np.minimum(3 * r, 1)) % 0.5  # bends the branches
    rows = np.clip(r * 90, 0, _POLAR[0] - 1).astype(np.intp)
    columns = ((turn + 0.5 * (x > 0)) * (_POLAR[1] - 1)).astype(np.intp)
    return _Grid(x, y, np.abs(x), x > 0, r, rows * _POLAR[1] + columns)


def _step(distance: Any, softness: float) -> Plane:
    """Smooth edge: 0 well below zero, 1 well above. A cubic: a logistic costs several times as much."""
    q: Plane = distance * np.float32(0.2 / softness)
    q += np.float32(0.5)
    np.clip(q, 0, 1, out=q)
    return q * q * (3 - 2 * q)


def _bump(grid: _Grid, x: Any, y: Any, sx: Any, sy: Any) -> Plane:
    """Sum of axis-parallel Gaussians, (size, size): a matrix product, because each Gaussian is separable."""
    x, y, sx, sy = np.broadcast_arrays(*(np.atleast_1d(np.float32(v)) for v in (x, y, sx, sy)))
    across, down = np.exp(-(((grid.x.T - x) / sx) ** 2)), np.exp(-(((grid.y - y) / sy) ** 2))
    return (down @ across.T).astype(np.float32)


def _clouds(rng: np.random.Generator, cells: int, size: int) -> Plane:
    """Smooth noise (size, size) of unit scale with about ``cells`` features across."""
    coarse = rng.standard_normal((cells, cells), dtype=np.float32)
    return np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC))


def _streaks(rng: np.random.Generator, grid: _Grid, width: int) -> Plane:
    """Branches that run out from both hila, (size, size), at least 0; ``width`` in table columns."""
    coarse = rng.standard_normal((_POLAR[0] // 16, _POLAR[1] // width), dtype=np.float32)
    table = np.asarray(Image.fromarray(coarse).resize(_POLAR[::-1], Image.Resampling.BICUBIC))
    return np.clip(table - np.float32(0.35), 0, 2).ravel()[grid.polar]


def _ribs(phase: Any, fill: float) -> Plane:
    """Rib bands with brighter cortex where ``phase`` passes whole numbers."""
    band = _step(np.cos(phase * np.float32(2 * np.pi)) - np.float32(fill), 0.13)
    return band * (1.5 - 0.9 * band)


def _signs(name: str, rng: np.random.Generator, grid: _Grid, outer: Plane, severity: float) -> Plane:
    """Attenuation that the class adds inside the lungs, (size, size)."""
    size = grid.r.shape[0]
    if name == "COVID":
        count = 2 + rng.poisson(1.5 + 4 * severity)
        y = rng.normal(0.14, 0.20, count).clip(-0.45, 0.45)
        # Both sides are touched, and the patches hang on the pleura.
        side = np.where(np.arange(count) % 2 == 0, 1, -1)
        edge = np.interp(y, grid.y[:, 0], outer[:, 0])
        x = side * (edge - rng.uniform(0.05, 0.24, count))
        patches = _bump(grid, x, y, rng.uniform(0.09, 0.20, count), rng.uniform(0.09, 0.20, count))
        ragged = _step(patches + 0.10 * _clouds(rng, 33, size) + 0.12 * _clouds(rng, 11, size) - 0.6, 0.22)
        return ragged * (0.85 + 0.12 * _clouds(rng, 90, size)) * np.float32(0.02 + 0.27 * severity)
    if name == "Viral Pneumonia":
        haze = np.exp(-((grid.r / np.float32(0.34)) ** 2)) * np.float32(0.04 + 0.14 * severity)
        net = np.clip(0.75 - np.abs(_clouds(rng, 60, size)), 0, 1) * (0.7 + 0.5 * _clouds(rng, 9, size))
        streaks = _streaks(rng, grid, 9) * np.float32(0.02 + 0.05 * severity)
        return haze + streaks + net * np.float32(0.03 + 0.09 * severity)
    if name == "Lung_Opacity":
        across, down = float(rng.choice([-1, 1])) * rng.uniform(0.30, 0.55), rng.uniform(-0.4, 0.35)
        wide, high = rng.uniform(0.12, 0.22), rng.uniform(0.12, 0.2)
        focus = _bump(grid, [across, across + 0.08], [down, down + 0.09], wide, high)
        ragged = _step(focus + 0.08 * _clouds(rng, 30, size) + 0.16 * _clouds(rng, 11, size) - 0.65, 0.2)
        return ragged * np.float32(0.13 + 0.3 * severity)
    return np.zeros_like(grid.r)


def _patient(name: str, rng: np.random.Generator, size: int) -> tuple[Plane, Plane, bool]:
    """One patient's attenuation and lungs, both (size, size) on the canvas, and whether it is a child."""
    g, u = _grid(size), rng.uniform

    def sides(right: Any, left: Any) -> Plane:
        return np.where(g.left, left, right).astype(np.float32)

    # Normal comes from both ages and the others from one, as in the real set: age is a shortcut, not a sign.
    child = name == "Viral Pneumonia" or (name == "Normal" and u() < 0.25)
    build, breath, age = u(0.93, 1.2), u(-0.10, 0.05), 1.1 if child else 1.0
    apex, wide = u(-0.84, -0.76), u(0.72, 0.82) * (0.93 if child else 1.0)

    rows = [-1.3, -1.05, -0.92, -0.72, -0.4, 0.0, 0.5, 1.3]
    widths = np.interp(g.y[:, 0], rows, [0.22, 0.27, 0.55, 1.08, 1.04, 0.92, 0.90, 0.95]) * build
    torso = ndimage.gaussian_filter1d(widths, size * 0.035)[:, None].astype(np.float32)
    body = np.sqrt(np.sqrt(np.clip(1 - (g.ax / torso) ** 2, 0, 1)))
    reach = u(1.0, 1.15) * build + 0.08 * g.y
    arm = np.sqrt(np.clip(1 - ((g.ax - reach) / 0.16) ** 2, 0, 1)) * _step(g.y + 0.5, 0.05)
    t = np.maximum(0.62 * body, arm * u(0.3, 0.5))

    # Lungs lie between a superellipse outside, great vessels and heart inside, and the domes below.
    h = np.clip(np.abs((g.y - 0.40) / (0.40 - apex)), 0, 1)
    outer = wide * (1 - h ** u(2.1, 2.6)) ** u(0.55, 0.7)
    top = 0.115 + 0.13 * np.exp(-np.clip(g.y - apex, 0, 9) / 0.11)
    swell = np.sin(np.clip((g.y + 0.26) / (0.95 + breath), 0, 1) * (np.pi / 2)) ** u(1.6, 2.2)
    knob = u(0.02, 0.07) * np.exp(-(((g.y + 0.37) / 0.08) ** 2))
    atrium = u(0.04, 0.10) * age * np.exp(-(((g.y - 0.24) / 0.26) ** 2))
    inner = np.where(g.left, top + knob + u(0.28, 0.40) * age * swell, top + atrium).astype(np.float32)
    floor = sides(0.50 - u(0.02, 0.09), 0.50) + breath
    dome = floor + u(0.16, 0.26) * np.abs((g.ax - u(0.26, 0.34)) / 0.45) ** 2.4
    below = _step(g.y - dome, 0.010)
    lung = _step(outer - g.ax, 0.008) * _step(g.ax - inner, 0.014) * (1 - below)
    core = _step(inner - g.ax, 0.02) * (1 - 0.8 * below)  # the shadow of heart and great vessels

    # Posterior ribs fall sideways and anterior ones fall towards the middle; cortex is brighter than marrow.
    cage = _step(outer + 0.035 - g.ax, 0.008) * _step(g.y - apex + 0.02, 0.02) * (1 - 0.8 * below)
    gap, lag, drop = u(0.135, 0.16), sides(0, u(-0.1, 0.1)), u(0.55, 0.9) * (0.75 if child else 1.0)
    back = (g.y - 0.06 * g.y**2 - drop * np.clip(g.ax - 0.2, -0.1, 2) ** 2 * (0.7 + g.ax)) / gap + lag
    front = (g.y + (0.55 - g.ax) * u(0.55, 0.85)) / (gap * 1.12) + lag + u()
    bones = _ribs(back, 0.45) * _step(g.ax - 0.08, 0.02)
    bones += 0.55 * _ribs(front, 0.5) * (_step(g.ax - 0.36, 0.04) * _step(g.y + 0.5, 0.08))
    rim = _step(0.03 - np.abs(g.ax - outer - 0.012), 0.01) * (_step(g.y - apex, 0.04) * (1 - 0.6 * below))
    slope, rise = u(0.1, 0.35), sides(u(0.50, 0.59), u(0.50, 0.59))
    collar = np.abs(g.y + (rise + slope * (g.ax - 0.1) - 0.04 * np.sin(6 * g.ax)))
    clavicle = _step(0.036 - collar, 0.008) * (1.2 - 15 * collar.clip(0.012, 0.03))
    clavicle *= _step(g.ax - 0.08, 0.015) * _step(0.85 - g.ax, 0.03)
    shoulder = _bump(g, [-0.93, 0.93], -0.62, 0.12, 0.15)
    blade = _step(0.03 - np.abs(g.ax - 0.82 - 0.16 * g.y), 0.012) * np.exp(-(((g.y + 0.35) / 0.28) ** 2))

    spine = _step(0.085 - g.ax, 0.012) * (0.8 + 0.2 * np.cos(g.y * np.float32(2 * np.pi / 0.14)))
    airway = _step(0.035 - np.abs(g.x + 0.012), 0.01) * _step(-0.22 - g.y, 0.05)
    near = np.exp(g.r * np.float32(-1 / 0.2))
    air = u(0.30, 0.38) - (0.07 + 0.10 * _streaks(rng, g, 12)) * near
    t -= lung * (air - _signs(name, rng, g, outer, rng.beta(2.0, 1.2)))
    t += body * (u(0.08, 0.16) * below + 0.08 * spine + 0.07 * rim + 0.10 * shoulder - 0.10 * airway)
    t += core * (u(0.06, 0.12) + 0.06 * _step(g.y - 0.1, 0.1)) + 0.08 * np.exp(-((g.ax / 0.2) ** 2))
    t += u(0.05, 0.11) * cage * bones + 0.10 * clavicle + 0.05 * blade
    if not child and u() < 0.5:  # breast shadows: a lower-zone haze that is no disease
        t += u(0.03, 0.12) * _bump(g, [-0.46, 0.46], u(0.28, 0.42), u(0.22, 0.32), u(0.15, 0.24))
    if u() < 0.4:  # gas under the left dome
        t -= u(0.08, 0.2) * below * _bump(g, u(0.25, 0.45), u(0.68, 0.8), u(0.06, 0.14), u(0.05, 0.09))
    return t, lung, child


def _expose(field: Plane, lung: Plane, child: bool, size: int, rng: np.random.Generator) -> tuple[Any, Any]:
    """Position, film curve, noise and marker: the image (size, size) and mask (256, 256), both uint8."""
    u = rng.uniform
    turn, scale = np.deg2rad(rng.normal(0, 2.0)), u(0.93, 1.08) * (0.94 if child else 1.0)
    cos, sin = np.cos(turn) / scale, np.sin(turn) / scale
    shift = rng.normal(0, 0.03, 2).clip(-0.06, 0.06)

    def place(array: Any, side: int, how: Image.Resampling) -> Any:
        k, n = 1 / _EXTENT, array.shape[0]
        c = (k * (-cos - sin - cos * shift[0] - sin * shift[1]) + 1) * n / 2
        f = (k * (sin - cos + sin * shift[0] - cos * shift[1]) + 1) * n / 2
        matrix = (k * cos * n / side, k * sin * n / side, c, -k * sin * n / side, k * cos * n / side, f)
        return np.asarray(Image.fromarray(array).transform((side, side), Image.Transform.AFFINE, matrix, how))

    t = place(field, size, Image.Resampling.BILINEAR)
    mask = place(np.where(lung > 0.5, 255, 0).astype(np.uint8), MASK_SIZE, Image.Resampling.NEAREST)
    # Most machines flatten the large-scale contrast; how much is a matter of the maker.
    broad = Image.fromarray(t).resize((12, 12), Image.Resampling.BOX)
    t = t - u(0.0, 0.35) * np.asarray(broad.resize((size, size), Image.Resampling.BICUBIC))
    ramp = np.linspace(-1, 1, size, dtype=np.float32)
    t = t + rng.normal(0, 0.02) * ramp[None, :] + rng.normal(0, 0.02) * ramp[:, None]
    image = _step(t - u(0.40, 0.52), u(0.17, 0.24))
    white = rng.standard_normal((size + 1, size + 1), dtype=np.float32)
    grain = white[1:, 1:] + white[:-1, 1:] + white[1:, :-1] + white[:-1, :-1]  # neighbours share quanta
    image = image * u(0.88, 1.0) + u(0.003, 0.009) * grain * np.sqrt(image + 0.05)
    if u() < (0.8 if child else 0.45):
        letter = "R" if child or u() < 0.5 else "L"
        bits = np.array([[row >> b & 1 for b in range(4, -1, -1)] for row in _GLYPHS[letter]], np.float32)
        dot = max(1, round(size * u(0.05, 0.09) / 7))
        bits = bits.repeat(dot, axis=0).repeat(dot, axis=1)
        top, side = round(size * u(0.04, 0.25)), round(size * u(0.02, 0.1))
        column = side if letter == "R" else size - side - bits.shape[1]
        patch = image[top : top + bits.shape[0], column : column + bits.shape[1]]
        np.maximum(patch, 0.95 * bits, out=patch)
    return np.clip(image * 255, 0, 255).astype(np.uint8), mask


def _first_images(class_index: int, count: int, seed: int) -> list[int]:
    """For images 1 … count, the number of the first image of the same patient."""
    rng = np.random.default_rng([seed, class_index, 0])
    first: list[int] = []
    while len(first) < count:
        first += [len(first) + 1] * int(rng.choice([1, 2, 3], p=[0.8, 0.14, 0.06]))
    return first[:count]


def write_phantoms(folder: Path, counts: Mapping[str, int], *, image_size: int = 299, seed: int = 0) -> None:
    """Write a phantom data set: images, lung masks and one metadata table per class.

    Images are 8-bit gray PNG of ``image_size``² pixels in ``<Class>/images/``. Masks are 8-bit gray PNG of 256² pixels
    in ``<Class>/masks/``: 255 in the lungs, 0 elsewhere. ``<Class>.metadata.csv`` has the columns FILE NAME, FORMAT,
    SIZE, URL and PATIENT. A patient's images share anatomy and disease. The same arguments give the same bytes, and
    larger counts leave the earlier images as they were. The folder appears whole or not at all.

    Args:
        folder: Where to write. It must not exist; its parents are made.
        counts: Images per class, for any of the classes in ``PHANTOM_COUNTS``.
        image_size: Side of the images in pixels, at least 32.
        seed: Of all draws, at least 0.

    Raises:
        FileExistsError: ``folder`` is there already.
        ValueError: A class is unknown, a count or the seed is negative, or ``image_size`` is too small.
    """
    folder = Path(folder)
    if folder.exists():
        raise FileExistsError(f"{folder} exists already; phantoms are only written into a new folder.")
    if unknown := set(counts) - set(_CLASSES):
        raise ValueError(f"No phantoms for {sorted(unknown)}; the classes are {list(_CLASSES)}.")
    if image_size < MIN_IMAGE_SIZE or seed < 0 or min(counts.values(), default=0) < 0:
        raise ValueError(f"image_size must be at least {MIN_IMAGE_SIZE}, and seed and counts at least 0.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as aside:
        whole = Path(aside, "whole")
        whole.mkdir()
        for name, count in counts.items():
            _write_class(whole, name, count, image_size, seed)
        os.replace(whole, folder)


def _write_class(root: Path, name: str, count: int, size: int, seed: int) -> None:
    index = _CLASSES.index(name)
    for kind in ("images", "masks"):
        (root / name / kind).mkdir(parents=True)
    rows = []
    anatomy: tuple[int, tuple[Plane, Plane, bool]] | None = None
    for n, first in enumerate(_first_images(index, count, seed), start=1):
        if anatomy is None or anatomy[0] != first:
            anatomy = first, _patient(name, np.random.default_rng([seed, index, first, 1]), size)
        field, lung, child = anatomy[1]
        image, mask = _expose(field, lung, child, size, np.random.default_rng([seed, index, n]))
        Image.fromarray(image).save(root / name / "images" / f"{name}-{n}.png", compress_level=1)
        Image.fromarray(mask).save(root / name / "masks" / f"{name}-{n}.png")
        collection = "b" if child else "a" if name == "Normal" else "c"
        source, patient = f"phantom-collection-{collection}", f"{name}-P{first:05d}"
        rows.append([f"{name}-{n}", "PNG", f"{size}*{size}", source, patient])
    with open(root / f"{name}.metadata.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["FILE NAME", "FORMAT", "SIZE", "URL", "PATIENT"])
        table.writerows(rows)
