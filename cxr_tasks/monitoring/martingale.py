"""A test that may be looked at after every image, for years, and whose false alarms are bounded all the same.

Each new score gets its conformal p-value: its rank among the reference and the new scores before it. While all of them
are exchangeable, these are independent and uniform (Vovk, Gammerman and Shafer 2022, Algorithmic Learning in a Random
World, chapter 8). A martingale bets against that: it begins at 1 and grows where p-values cease to be uniform. That it
ever reaches ``1 / alpha`` has a probability of at most ``alpha``, however often somebody looks (Ville's inequality).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# Of the Simple Jumper (Vovk, Petej, Nouretdinov et al. 2021, Retrain or not retrain: conformal test martingales for
# change-point detection): what it bets on, and the share that changes sides at each step.
BETS, JUMPING = np.array([-1.0, 0.0, 1.0]), 0.01


def conformal_p_values(
    reference: NDArray[np.float64], scores: NDArray[np.float64], ties: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The rank of each score among the reference and the scores before it.

    Args:
        reference: (m,) scores of images of before.
        scores: (n,) scores in the order in which the images came.
        ties: (n,) uniform draws between 0 and 1, which say where among equal scores a score stands.

    Returns:
        (n,) between 0 and 1; small where a score is large.
    """
    known = sorted(reference.tolist())
    found = np.empty(len(scores))
    for place, (score, tie) in enumerate(zip(scores.tolist(), ties.tolist(), strict=True)):
        low, high = bisect_left(known, score), bisect_right(known, score)
        found[place] = (len(known) - high + tie * (high - low + 1)) / (len(known) + 1)
        insort(known, score)
    return found


def simple_jumper(p_values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The Simple Jumper martingale.

    Args:
        p_values: (n,) in the order in which the images came.

    Returns:
        (n + 1,) its capital: 1, and then after each image.
    """
    capital = np.full(len(BETS), 1 / len(BETS))
    path = [1.0]
    for p_value in p_values.tolist():
        capital = (1 - JUMPING) * capital + JUMPING * capital.sum() / len(BETS)
        # Bets of at most 1 on |p - 1/2| ≤ 1/2 lose at most half of what was put on them.
        capital = capital * (1 + BETS * (p_value - 0.5))
        path.append(float(capital.sum()))
    return np.array(path)


def mean_capital(paths: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """The mean of martingales on the same images, which is one too: several may be watched at the price of one."""
    return np.mean(np.stack(paths), axis=0)
