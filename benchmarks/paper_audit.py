"""Holds the source report's claim of 5 to 6 % more performance against the report's own tables.

    python benchmarks/paper_audit.py

Every figure follows from the report's printed tables, which stand below. Nothing is trained.
``cxr_tasks.report.paper`` has the claims themselves.
"""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import hypergeom, norm

CLASSES = ("COVID", "Normal", "Viral Pneumonia")
NETWORKS = ("VGG16", "ResNet50", "CNN")

DATASET = (3616, 10192, 1345)
SPLITS = {"training": 12122, "validation": 1515, "test": 1516}
FIRST_SUPPORT = (380, 1012, 124)
SECOND_SUPPORT = (967, 1023, 136)

# Figures 7, 10 and 14: TP, TN, FP, FN of each class on the first training's test images.
FIRST_COUNTS = {
    "VGG16": ((333, 1125, 11, 47), (998, 446, 58, 14), (113, 1389, 3, 11)),
    "ResNet50": ((341, 1128, 8, 39), (999, 458, 46, 13), (117, 1387, 5, 7)),
    "CNN": ((331, 1114, 22, 49), (987, 440, 64, 25), (105, 1385, 7, 19)),
}
# Tables 2, 4 and 5: precision, recall and F1 of each class, rounded to two decimals.
FIRST_REPORT = {
    "VGG16": ((0.97, 0.88, 0.92), (0.95, 0.99, 0.97), (0.97, 0.91, 0.94)),
    "ResNet50": ((0.98, 0.90, 0.94), (0.96, 0.99, 0.97), (0.96, 0.94, 0.95)),
    "CNN": ((0.94, 0.87, 0.90), (0.94, 0.98, 0.96), (0.94, 0.85, 0.89)),
}
# Tables 6 to 8: recall of each class in the second training, rounded to two decimals, and the printed accuracy.
SECOND_RECALL = {"VGG16": (0.98, 0.97, 0.93), "ResNet50": (0.98, 0.97, 0.92), "CNN": (0.97, 0.97, 0.96)}
SECOND_ACCURACY = 0.97
# Table 9, accuracy in percent without and with synthetic images, and the validation accuracies of the running text.
TABLE_9 = {"VGG16": (93.15, 97.37), "ResNet50": (92.98, 97.07), "CNN": (89.89, 96.04)}
TEXT_VALIDATION = {"VGG16": (93.15, 97.37), "ResNet50": (92.98, 97.07), "CNN": (89.89, 96.04)}


def first_accuracy(network: str) -> float:
    """Test accuracy without synthetic images, in percent. Every image is a TP or a FN of its own class."""
    return 100 * sum(counts[0] for counts in FIRST_COUNTS[network]) / sum(FIRST_SUPPORT)


def inconsistencies(network: str) -> list[str]:
    """Contradictions between the counts, the supports and the printed ratios of the first training."""
    found, images = [], sum(FIRST_SUPPORT)
    for name, support, (tp, tn, fp, fn), printed in zip(
        CLASSES, FIRST_SUPPORT, FIRST_COUNTS[network], FIRST_REPORT[network], strict=True
    ):
        if tp + fn != support:
            found.append(f"{name}: TP + FN is {tp + fn}, the support {support}")
        if tp + tn + fp + fn != images:
            found.append(f"{name}: the counts sum to {tp + tn + fp + fn}, not {images}")
        worked_out = (tp / (tp + fp), tp / (tp + fn), 2 * tp / (2 * tp + fp + fn))
        for ratio, exact, rounded in zip(("precision", "recall", "F1"), worked_out, printed, strict=True):
            if not rounds_to(exact, rounded):
                found.append(f"{name}: {ratio} is {exact:.4f}, printed {rounded}")
    if sum(counts[2] for counts in FIRST_COUNTS[network]) != sum(counts[3] for counts in FIRST_COUNTS[network]):
        found.append("false positives and false negatives differ in number")
    return found


def rounds_to(exact: float, printed: float) -> bool:
    """Whether ``exact`` gives ``printed`` with two decimals. A half may be rounded either way."""
    return abs(exact - printed) <= 0.005 + 1e-9


def whole_number_exists(percent: float, images: int) -> bool:
    """Whether some number of ``images`` gives ``percent`` with two decimals."""
    near = round(percent / 100 * images)
    return any(abs(100 * count / images - percent) <= 0.005 + 1e-9 for count in (near - 1, near, near + 1))


def second_right(network: str) -> list[tuple[int, int]]:
    """The least and the most test images of each class that the second training's recalls allow to be right."""
    return [
        (math.ceil((recall - 0.005) * support - 1e-9), math.floor((recall + 0.005) * support + 1e-9))
        for recall, support in zip(SECOND_RECALL[network], SECOND_SUPPORT, strict=True)
    ]


def second_accuracy(network: str) -> tuple[float, float, float]:
    """Test accuracy with synthetic images, in percent.

    Returns:
        The accuracy from the printed recalls, and the least and the most that their rounding allows.
    """
    images = sum(SECOND_SUPPORT)
    bounds = second_right(network)
    # The printed accuracy of 0.97 narrows what the recalls leave open.
    least = max(sum(low for low, _ in bounds) / images, SECOND_ACCURACY - 0.005)
    most = min(sum(high for _, high in bounds) / images, SECOND_ACCURACY + 0.005)
    middle = float(np.dot(SECOND_RECALL[network], SECOND_SUPPORT)) / images
    return 100 * middle, 100 * least, 100 * most


def synthetic_test_images() -> dict[str, float]:
    """How many images were added, and how many COVID test images of the second training are synthetic.

    The report does not say how the images were split. The assumption here is that real and synthetic images were
    pooled and split at random with the same shares as before. The number of real COVID test images is then
    hypergeometric. ``synthetic_least`` and ``synthetic_most`` follow from the 95 % range of that number.
    """
    real, test = sum(DATASET), sum(SECOND_SUPPORT)
    pooled = round(test / (SPLITS["test"] / real))
    real_covid = hypergeom(pooled, DATASET[0], test)
    low, high = real_covid.ppf([0.025, 0.975])
    return {
        "pooled_images": pooled,
        "added_images": pooled - real,
        "real_covid_expected": float(real_covid.mean()),
        "synthetic_expected": SECOND_SUPPORT[0] - float(real_covid.mean()),
        "synthetic_least": SECOND_SUPPORT[0] - float(high),
        "synthetic_most": SECOND_SUPPORT[0] - float(low),
    }


def remaining_gain(network: str) -> dict[str, float]:
    """The gain in test accuracy on the second training's real test images, in points.

    Returns:
        ``as_printed`` counts all test images. ``synthetic_all_right`` supposes that every synthetic COVID test image is
        classified right, and that every error among COVID is real. This is likely, because the network was trained on
        thousands of images of the same generator. ``synthetic_as_hard`` supposes that synthetic and real COVID images
        have the same recall. ``least`` and ``most`` take every rounding and the number of synthetic images at their
        worst and best; at best, every error among COVID is synthetic. ``chance`` is half the width of the 95 % interval
        around ``synthetic_all_right`` that two test sets of these sizes leave. Both accuracies count as shares of
        independent images, in the normal approximation.
    """
    images = synthetic_test_images()
    before = first_accuracy(network)
    covid, others = SECOND_SUPPORT[0], sum(SECOND_SUPPORT[1:])
    right = np.array(SECOND_RECALL[network]) * SECOND_SUPPORT
    bounds = second_right(network)

    def gain(synthetic: float, covid_right: float, others_right: float) -> float:
        """The gain in points, given the number of synthetic images and of real images that are right."""
        return 100 * (covid_right + others_right) / (covid - synthetic + others) - before

    expected = images["synthetic_expected"]
    lows, highs = ([bound[side] for bound in bounds] for side in (0, 1))
    fewest, most = images["synthetic_least"], images["synthetic_most"]
    all_right = gain(expected, right[0] - expected, right[1:].sum())
    shares = ((before / 100, sum(FIRST_SUPPORT)), ((before + all_right) / 100, covid - expected + others))
    error = math.sqrt(sum(share * (1 - share) / size for share, size in shares))
    return {
        "as_printed": second_accuracy(network)[0] - before,
        "synthetic_all_right": all_right,
        "synthetic_as_hard": gain(expected, SECOND_RECALL[network][0] * (covid - expected), right[1:].sum()),
        "least": min(gain(s, lows[0] - s, sum(lows[1:])) for s in (fewest, most)),
        "most": max(gain(s, min(highs[0], covid - s), sum(highs[1:])) for s in (fewest, most)),
        "chance": 100 * float(norm.ppf(0.975)) * error,
    }


def audit() -> list[dict[str, Any]]:
    """All that follows from the tables, one row a network, in percent and points."""
    rows = []
    for network in NETWORKS:
        middle, least, most = second_accuracy(network)
        table_9, validation = TABLE_9[network], TEXT_VALIDATION[network]
        rows.append(
            {
                "network": network,
                "test_before": first_accuracy(network),
                "inconsistencies": inconsistencies(network),
                "table_9_before": table_9[0],
                "table_9_after": table_9[1],
                "table_9_is_validation": table_9 == validation,
                "table_9_before_is_test": abs(table_9[0] - first_accuracy(network)) <= 0.005,
                "table_9_before_countable": whole_number_exists(table_9[0], SPLITS["validation"]),
                "table_9_after_fits_test": least <= table_9[1] <= most,
                "test_after": middle,
                "test_after_least": least,
                "test_after_most": most,
                "gain": remaining_gain(network),
            }
        )
    return rows


def main() -> None:
    """Print the findings and end with one JSON object."""
    rows, images = audit(), synthetic_test_images()
    plain = pd.DataFrame(rows).drop(columns=["gain", "inconsistencies"]).set_index("network").T
    print("Accuracy in percent. Before and after: without and with synthetic images.\n")
    print(plain.map(lambda value: value if isinstance(value, bool) else f"{value:.2f}").to_string())
    for row in rows:
        print(f"{row['network']}: {'; '.join(row['inconsistencies']) or 'counts, supports and printed ratios agree'}")
    print(
        f"\n{images['added_images']:,.0f} images were added in all. Of the {SECOND_SUPPORT[0]} COVID test images of "
        f"the second training about {images['synthetic_expected']:.0f} are synthetic "
        f"({images['synthetic_least']:.0f} to {images['synthetic_most']:.0f}). A tenth of the {DATASET[0]:,} real "
        f"COVID images, {images['real_covid_expected']:.0f}, falls to the test set.\n\n"
        "Gain in test accuracy, points: as printed, and on the real test images alone\n"
    )
    print(pd.DataFrame({row["network"]: row["gain"] for row in rows}).round(2).to_string())
    print(json.dumps({"benchmark": "paper_audit", "networks": rows, "synthetic_test_images": images}))


if __name__ == "__main__":
    main()
