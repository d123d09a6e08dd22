"""What is kept with a network so that image files can be given to it: how they are read, and what is usual."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from cxr_tasks.config import DataSettings
from cxr_tasks.data.decode import PLAINLY, HowToRead, Limits
from cxr_tasks.data.typical import TypicalImages, both_limits, gray_levels, upper_limit
from cxr_tasks.image_settings import FIRST_RESIZE, DicomSettings, ResizeName, WindowSettings
from cxr_tasks.strict import Strict

# Sides of training images that are as good as equal.
ASPECT_LEEWAY = 1.05


class FileReading(Strict):
    """How the files of the training images became pixels, which a prediction must repeat.

    Attributes:
        smallest_side: As in ``data`` of the settings, and so are all others.
        most_pixels: What an image has at most.
        resize: How images are brought to the network's side.
        window: How more than 8 bits become 8.
        dicom: Which DICOM files are used.
        inverted: Whether inverted images are turned back.
    """

    smallest_side: int
    most_pixels: int
    resize: ResizeName
    window: WindowSettings
    dicom: DicomSettings
    inverted: Literal["report", "correct"]

    @classmethod
    def of(cls, settings: DataSettings | Mapping[str, Any]) -> FileReading:
        """That of the settings, or of what an artifact's record keeps of them."""
        known = settings if isinstance(settings, Mapping) else settings.model_dump()
        return cls.model_validate({name: known[name] for name in cls.model_fields})

    def how(self, most_pixels: int | None = None) -> HowToRead:
        """For :func:`cxr_tasks.data.decode.decode`; ``most_pixels`` is a limit that may be lower."""
        most = min(self.most_pixels, most_pixels or self.most_pixels)
        return HowToRead(Limits(self.smallest_side, most), self.resize, self.window, self.dicom)


class Usual(Strict):
    """Limits that the validation images set. An image beyond one of them gets a warning.

    Attributes:
        false_alarms: The share of images like them that may lie beyond the limit of the distance, outside those of the
            mean, and outside those of the contrast. It holds from 1/``false_alarms`` images on for the distance, and
            from 2/``false_alarms`` on for the others.
        images: How many they are.
        distance: The largest distance from the training images; see ``data.typical``.
        mean: The lowest and the highest mean gray of a thumbnail, 0–255.
        contrast: The lowest and the highest standard deviation of a thumbnail's grays.
        aspect: The lowest width divided by height, divided by ``ASPECT_LEEWAY``, and the highest, times that. No share
            is promised.
    """

    false_alarms: float
    images: int
    distance: float
    mean: tuple[float, float]
    contrast: tuple[float, float]
    aspect: tuple[float, float]

    @classmethod
    def of(cls, typical: TypicalImages, thumbnails: np.ndarray, rows: pd.DataFrame, false_alarms: float) -> Usual:
        """The limits of validation images.

        Args:
            typical: What the training images look like.
            thumbnails: (n, 32, 32) uint8.
            rows: Their rows of the manifest, with ``width`` and ``height``.
            false_alarms: As in the settings.
        """
        means, contrasts = gray_levels(thumbnails)
        aspects = rows["width"].to_numpy(np.float64) / rows["height"].to_numpy(np.float64)
        return cls(
            false_alarms=false_alarms,
            images=len(rows),
            distance=upper_limit(typical.distances(thumbnails), false_alarms),
            mean=both_limits(means, false_alarms),
            contrast=both_limits(contrasts, false_alarms),
            aspect=(float(aspects.min()) / ASPECT_LEEWAY, float(aspects.max()) * ASPECT_LEEWAY),
        )


class ModelFacts(Strict):
    """What is known of a network besides its weights.

    Attributes:
        classes: In the order of its outputs.
        image_size: The side of its input in pixels.
        reading: How image files become its input.
        thresholds: The operating point of each class, from validation images; empty where nobody knows.
        usual: What is usual; ``None`` where nobody knows.
    """

    FILE: ClassVar[str] = "facts.json"
    TYPICAL: ClassVar[str] = "typical.npy"

    classes: tuple[str, ...]
    image_size: int
    reading: FileReading
    thresholds: dict[str, float] = Field(default_factory=dict)
    usual: Usual | None = None

    @classmethod
    def bare(cls, classes: Sequence[str], image_size: int, resize: str = FIRST_RESIZE) -> ModelFacts:
        """Those of a model that was registered before more was kept."""
        how = PLAINLY
        reading = FileReading.model_validate(
            {
                "smallest_side": how.limits.smallest_side,
                "most_pixels": how.limits.most_pixels,
                "resize": resize,
                "window": how.window,
                "dicom": how.dicom,
                "inverted": "report",
            }
        )
        return cls(classes=tuple(classes), image_size=image_size, reading=reading)
