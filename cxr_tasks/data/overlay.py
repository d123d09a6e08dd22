"""Whether one image, moved, turned, mirrored, cropped or inverted, shows the same picture as another.

Works on thumbnails without their bars. A spectrum says which images may be one picture. To tell whether two are, one is
laid over the other as well as possible, and their details are correlated.
"""

from __future__ import annotations

import numpy as np
from scipy import fft, ndimage

from cxr_tasks.data.thumbnails import without_bars

SURROUNDINGS = 5  # pixels of a thumbnail
NOISE = 2.0  # gray levels: weaker details than these are not raised to the strength of others
FREQUENCIES = 8  # cycles in a thumbnail, at most: cropping and turning move higher ones too far
FARTHEST = 5  # pixels of a thumbnail that one picture may be moved against the other
FITTING_STEPS = 6
LARGEST = np.array([2, 2, 0.1, 0.1, 0.1], np.float32)  # a step: pixels, stretches and radians
LEAST_SHARED = 0.6  # of the area, where two pictures lie over each other
DISTURBED = 0.1  # share of the shared area that text or a mark may cover


def details(thumbnails: np.ndarray) -> np.ndarray:
    """(n, S, S) uint8 → (n, S, S) float32: what stands out from its surroundings, everywhere equally strong.

    Gradation and brightness leave little in it, and a burnt-in mark weighs no more than what it covers.
    """
    return _normalised(without_bars(thumbnails).astype(np.float32))


def _normalised(grays: np.ndarray) -> np.ndarray:
    grays = grays - ndimage.uniform_filter(grays, (0, SURROUNDINGS, SURROUNDINGS))
    wide = (0, 2 * SURROUNDINGS + 1, 2 * SURROUNDINGS + 1)
    # The filter adds up as it goes, so that zeros may come out a little below zero.
    strength = np.sqrt(ndimage.uniform_filter(grays**2, wide).clip(0))
    return grays / (strength + np.float32(NOISE))


def spectra(thumbnails: np.ndarray) -> np.ndarray:
    """(n, S, S) uint8 → (n, F) float32: how strong the low frequencies of an image's details are.

    The same for a picture, its inverse and its mirror image, and nearly the same where it was moved, cropped or turned
    a little, or marked. The two directions of a diagonal wave change places in a mirror, so their sum and their
    difference without its sign are kept.
    """
    side = thumbnails.shape[1]
    amplitudes = np.sqrt(np.abs(_transformed(details(thumbnails))))
    down, across = np.meshgrid(np.arange(side // 2), np.arange(side // 2), indexing="ij")
    low = (np.hypot(down, across) <= FREQUENCIES) & (down + across > 0)
    one, other = amplitudes[:, down[low], across[low]], amplitudes[:, -down[low], across[low]]
    slanted = (down * across > 0)[low]
    return np.concatenate([one + other, np.abs(one - other)[:, slanted]], axis=1)


def _window(side: int) -> np.ndarray:
    """(S, S) float32 that fades towards the edges, where what is seen differs after a crop."""
    fade = np.hanning(side + 2)[1:-1]
    return np.outer(fade, fade).astype(np.float32)


def _transformed(pictures: np.ndarray) -> np.ndarray:
    """(n, S, S) → (n, S, S / 2 + 1) complex64, of windowed pictures of length one."""
    faded = pictures - pictures.mean(axis=(1, 2), keepdims=True)
    faded = faded * _window(pictures.shape[1])
    return fft.rfft2(faded / np.maximum(np.linalg.norm(faded, axis=(1, 2), keepdims=True), 1e-6))


def overlaid(ones: np.ndarray, others: np.ndarray, least: float) -> np.ndarray:
    """How well the details of two pictures agree once one is laid over the other.

    First the second picture is moved and mirrored, and inverted where black and white agree better so. Where the two
    then correlate well enough, each is stretched and turned over the other in small steps, by the inverse compositional
    algorithm of Lucas and Kanade (Baker and Matthews, International Journal of Computer Vision 56, 2004).

    Args:
        ones: (m, S, S) uint8 thumbnails.
        others: (m, S, S) uint8, those to lay over them.
        least: Correlation that must be reached by moving and mirroring alone.

    Returns:
        (m,) float32 correlations, 0 where ``least`` is not reached or too little lies over each other.
    """
    one, other = without_bars(ones).astype(np.float32), without_bars(others).astype(np.float32)
    other, shifts, reached = _shifted(one, other)
    found = np.zeros(len(one), np.float32)
    close = reached >= least
    if close.any():
        one, other, shifts = one[close], other[close], shifts[close]
        # A crop is better laid over the whole than the whole over a crop, and nobody knows which is which.
        found[close] = np.maximum(_fitted(one, other, shifts), _fitted(other, one, -shifts))
    return found


def _shifted(fixed: np.ndarray, moved: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mirror, invert and move (m, S, S) float32 ``moved``, as it correlates best with ``fixed``.

    Returns:
        The second pictures, mirrored and inverted where that is better; (m, 2) float32 pixels to the right and down
        from a place in the first to that in the second; and the (m,) correlations.
    """
    side, rows = fixed.shape[1], np.arange(len(fixed))
    one, other = _normalised(fixed), _normalised(moved)
    waves = np.conj(_transformed(one))
    correlations = np.stack(
        [fft.irfft2(waves * _transformed(turned), s=(side, side)) for turned in (other, other[:, :, ::-1])], axis=1
    )
    correlations[:, :, FARTHEST + 1 : -FARTHEST] = 0
    correlations[:, :, :, FARTHEST + 1 : -FARTHEST] = 0
    flat = correlations.reshape(len(fixed), 2 * side**2)
    best = np.abs(flat).argmax(axis=1)
    reached = flat[rows, best]
    mirrored, down, across = np.unravel_index(best, (2, side, side))
    moved = np.where((mirrored == 1)[:, None, None], moved[:, :, ::-1], moved)
    moved = np.where((reached < 0)[:, None, None], 255 - moved, moved)
    # Movements beyond half the side are those to the other direction.
    shifts = (np.stack([across, down], axis=1) + side // 2) % side - side // 2
    return moved, shifts.astype(np.float32), np.abs(reached)


def _fitted(fixed: np.ndarray, moved: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    """(m,) correlations of (m, S, S) pictures, after (m, 2) ``shifts`` became maps that fit, in small steps.

    A map, (2, 3), leads from a place around the middle of the first picture to that in the second.
    """
    target, source = _normalised(fixed), _normalised(moved)
    slopes = _slopes(target)
    squares = slopes @ slopes.transpose(0, 2, 1)
    # Keeps the step finite where a picture has slopes in one direction only.
    squares += 1e-3 * np.trace(squares, axis1=1, axis2=2)[:, None, None] / 5 * np.eye(5, dtype=np.float32)
    inverse = np.linalg.inv(squares)
    maps = np.concatenate([np.tile(np.eye(2, dtype=np.float32), (len(fixed), 1, 1)), shifts[:, :, None]], axis=2)
    for _ in range(FITTING_STEPS):
        seen, shared = _looked_up(source, maps)
        difference = _standardised(seen, shared) - _standardised(target, shared)
        difference *= np.sqrt(np.mean(target**2, axis=(1, 2), keepdims=True))
        step = (inverse @ (slopes @ difference.reshape(len(fixed), -1, 1)))[:, :, 0]
        maps = _composed(maps, step.clip(-LARGEST, LARGEST))
    seen, shared = _looked_up(moved, maps)
    # What is outside the second picture must not disturb the surroundings of what is inside.
    seen = np.where(shared, seen, fixed)
    shared = ndimage.binary_erosion(shared, np.ones((1, 3, 3)), border_value=1)
    found = _correlation(target, _normalised(seen), shared)
    found[shared.mean(axis=(1, 2)) < LEAST_SHARED] = 0
    return found


def _places(side: int) -> tuple[np.ndarray, np.ndarray]:
    """How far each pixel lies to the right of the middle and below it: two (S, S) float32."""
    middle = (side - 1) / 2
    down, across = np.mgrid[:side, :side].astype(np.float32) - np.float32(middle)
    return across, down


def _slopes(pictures: np.ndarray) -> np.ndarray:
    """(m, S, S) → (m, 5, S²): how grays change by moving right and down, stretching along both, and turning."""
    across, down = _places(pictures.shape[1])
    below, right = np.gradient(pictures, axis=(1, 2))
    changes = [right, below, right * across, below * down, below * across - right * down]
    return np.stack(changes, axis=1).reshape(len(pictures), 5, -1)


def _composed(maps: np.ndarray, step: np.ndarray) -> np.ndarray:
    """(m, 2, 3) ``maps`` after the inverse of (m, 5) steps."""
    right, below, wide, high, turn = step.T
    stepped = np.stack([np.stack([1 + wide, -turn, right], axis=1), np.stack([turn, 1 + high, below], axis=1)], axis=1)
    linear = maps[:, :, :2] @ np.linalg.inv(stepped[:, :, :2])
    return np.concatenate([linear, maps[:, :, 2:] - linear @ stepped[:, :, 2:]], axis=2)


def _looked_up(pictures: np.ndarray, maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(m, S, S) float32 of what ``pictures`` show at the mapped places, and bool where these are inside."""
    count, side = pictures.shape[:2]
    across, down = _places(side)
    maps = maps[:, :, :, None, None]
    x, y = (maps[:, n, 0] * across + maps[:, n, 1] * down + maps[:, n, 2] + np.float32((side - 1) / 2) for n in (0, 1))
    shared = (x >= 0) & (x <= side - 1) & (y >= 0) & (y <= side - 1)
    left, top = (np.floor(places).clip(0, side - 2) for places in (x, y))
    right, below = (x - left).clip(0, 1), (y - top).clip(0, 1)
    corner = (top * side + left).astype(np.int64) + np.arange(count)[:, None, None] * side**2
    flat = pictures.ravel()
    upper = flat[corner] * (1 - right) + flat[corner + 1] * right
    lower = flat[corner + side] * (1 - right) + flat[corner + side + 1] * right
    return upper * (1 - below) + lower * below, shared


def _standardised(pictures: np.ndarray, shared: np.ndarray) -> np.ndarray:
    """(m, S, S) float32 of mean 0 and variance 1 where ``shared``, and 0 elsewhere."""
    number = np.maximum(shared.sum(axis=(1, 2), keepdims=True), 1).astype(np.float32)
    centred = (pictures - (pictures * shared).sum(axis=(1, 2), keepdims=True) / number) * shared
    spread = np.sqrt((centred**2).sum(axis=(1, 2), keepdims=True) / number)
    return centred / np.maximum(spread, 1e-6)


def _correlation(one: np.ndarray, other: np.ndarray, shared: np.ndarray) -> np.ndarray:
    """(m,) float32 of (m, S, S) pictures where ``shared``, without the places where they differ most."""
    apart = (_standardised(one, shared) - _standardised(other, shared)) ** 2
    apart = ndimage.uniform_filter(apart, (0, SURROUNDINGS, SURROUNDINGS))
    shared = shared & (apart <= np.quantile(apart, 1 - DISTURBED, axis=(1, 2), keepdims=True))
    product = _standardised(one, shared) * _standardised(other, shared)
    return product.sum(axis=(1, 2)) / np.maximum(shared.sum(axis=(1, 2)), 1)
