"""Whether new images, and what a champion says of them, are like the images that it was tested on."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from cxr_tasks.errors import DataError
from cxr_tasks.monitoring.martingale import conformal_p_values, mean_capital, simple_jumper
from cxr_tasks.strict import Strict

# What is watched of each image, and what people call it.
SCORES = {
    "gray": "the mean gray",
    "contrast": "the contrast",
    "distance": "how far they lie from the training images",
    "confidence": "how sure the champion is",
    "loss": "how wrong the champion is",
}
BEYOND_DOUBT = 1_000_000


class DriftFindings(Strict):
    """What was found in new images.

    Attributes:
        images: New images, one a group.
        reference: Test images that they are held against, one a group.
        capital: What each martingale has reached at most, by the score that it watches.
        highest: What the mean of the martingales has reached at most. It is 1 at the beginning.
        limit: Where it is an alarm.
        after: After how many images the limit was reached; ``None`` where it was not.
    """

    images: int
    reference: int
    capital: dict[str, float]
    highest: float
    limit: float
    after: int | None

    @property
    def words(self) -> str:
        """What was found, for people."""
        if self.after is None:
            return (
                f"{self.images:,} new images are like the {self.reference:,} test images as far as can be told "
                f"(evidence {self.highest:.1f}, an alarm from {self.limit:g} on)."
            )
        worst = max(self.capital, key=lambda name: self.capital[name])
        # What is beyond doubt needs no twenty digits.
        evidence = f"{self.highest:,.0f}" if self.highest < BEYOND_DOUBT else f"over {BEYOND_DOUBT:,}"
        return (
            f"{self.images:,} new images differ from the {self.reference:,} test images, most in {SCORES[worst]} "
            f"(evidence {evidence}, an alarm from {self.limit:g} on, reached after {self.after:,} images)."
        )


def scores_of(
    pixels: np.ndarray, distances: np.ndarray, probabilities: np.ndarray, labels: np.ndarray
) -> dict[str, np.ndarray]:
    """What is watched of images.

    Args:
        pixels: (n, S, S) gray levels, 0 to 255.
        distances: (n,) from the training images; see ``data.typical``.
        probabilities: (n, k) of the champion.
        labels: (n,) true classes, 0 to k - 1.

    Returns:
        (n,) float64 for each of ``SCORES``. The loss is the negative log likelihood in nats.
    """
    grays = pixels.reshape(len(pixels), -1).astype(np.float64)
    of_truth = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return {
        "gray": grays.mean(axis=1),
        "contrast": grays.std(axis=1),
        "distance": distances.astype(np.float64),
        "confidence": probabilities.max(axis=1).astype(np.float64),
        "loss": -np.log(np.clip(of_truth, 1e-12, None)),
    }


def drift_findings(reference: pd.DataFrame, new: pd.DataFrame, *, false_alarms: float, seed: int) -> DriftFindings:
    """Hold new images against test images.

    Args:
        reference: A row a test image, with ``group`` and the columns of ``SCORES``.
        new: The same of new images, in the order in which they came. Rows may be added later, and none may be put
            before others: then what was reached stays what it was.
        false_alarms: The probability of an alarm, ever, while nothing changes.
        seed: Keys the draws that rank equal scores.

    Raises:
        DataError: There is no test image.
    """
    # Images of one patient are alike, and the test is for independent ones.
    known, came = (table.drop_duplicates("group") for table in (reference, new))
    if known.empty:
        raise DataError("There is no test image to hold new images against.")
    paths = {name: _capital(known[name], came[name], np.random.default_rng([seed, k])) for k, name in enumerate(SCORES)}
    together, limit = mean_capital(list(paths.values())), 1 / false_alarms
    reached = np.flatnonzero(together >= limit)
    return DriftFindings(
        images=len(came),
        reference=len(known),
        capital={name: float(path.max()) for name, path in paths.items()},
        highest=float(together.max()),
        limit=limit,
        after=int(reached[0]) if reached.size else None,
    )


def _capital(reference: pd.Series, new: pd.Series, rng: np.random.Generator) -> np.ndarray:
    values: Mapping[str, np.ndarray] = {"reference": reference.to_numpy(float), "scores": new.to_numpy(float)}
    return simple_jumper(conformal_p_values(**values, ties=rng.random(len(new))))
