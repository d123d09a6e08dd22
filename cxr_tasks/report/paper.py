"""The source report's claims, to put beside a run's own figures, and what is wrong with these claims.

This module holds numbers and words. ``render`` builds the table that shows them.
"""

from __future__ import annotations

from dataclasses import dataclass

CITATION = (
    "P. Calabrese and F. Marabotto, Chest X-Ray Image Classification for Covid-19 Detection Using "
    "Synthetic Data Augmentation, University of Pisa: table 9 for the validation figures, figures 7, 10 "
    "and 14 for the first training's test accuracy, tables 6 to 8 for the second's."
)

BASELINE_TEST_IMAGES = 1516
AUGMENTED_TEST_IMAGES = 2126


@dataclass(frozen=True)
class PaperArm:
    """One row of the source report, in percent.

    ``accuracy``, ``precision``, ``recall`` and ``f1`` are from the closing table, which holds validation figures.

    Attributes:
        network: The network's name.
        augmented: Whether the arm trained with synthetic images.
        test_accuracy: Worked out from the test tables. For the first training the true positives give the exact value.
            For the second training the printed recalls give the value within about half a point.
        test_accuracy_rounded: Whether ``test_accuracy`` is from rounded recalls.
        test_images: The number of test images.
    """

    network: str
    augmented: bool
    accuracy: float
    precision: float
    recall: float
    f1: float
    test_accuracy: float
    test_accuracy_rounded: bool
    test_images: int


# network; the closing table's two rows (accuracy, precision, recall, F1); test accuracy of both trainings
_ROWS = (
    ("VGG16", (93.15, 93.19, 93.02, 93.10), (97.37, 97.45, 97.33, 97.39), (95.25, 97.2)),
    ("ResNet50", (92.98, 93.06, 92.87, 92.96), (97.07, 97.10, 97.03, 97.06), (96.11, 97.1)),
    ("CNN", (89.89, 90.22, 89.21, 89.69), (96.04, 96.18, 95.86, 96.02), (93.87, 96.9)),
)

PAPER_ARMS = tuple(
    arm
    for network, first, second, test in _ROWS
    for arm in (
        PaperArm(network, False, *first, test[0], False, BASELINE_TEST_IMAGES),
        PaperArm(network, True, *second, test[1], True, AUGMENTED_TEST_IMAGES),
    )
)

CAVEATS = (
    "The report's closing table gives validation figures. Validation images also decided when training stopped, so "
    "these figures are not a test.",
    "The report's two trainings were tested on different images, 1,516 and 2,126 of them. The class sizes imply that "
    "about 605 of the 967 COVID images in the second test set were generated.",
    "The second training also left out classical augmentation. Two things changed at once, so neither can be given the "
    "credit.",
    "The report concludes that performance rose by 5 to 6 %. The report's own test tables give about +2.0, +1.0 and "
    "+3.1 points for VGG16, ResNet50 and CNN. Without the generated test images the gains may be +0.8, -0.1 and +1.8 "
    "points.",
    "Each training was run once, and the report gives no interval. A published replication of the GAN that the "
    "report uses found +0.17 ± 0.4 points over three seeds.",
)
