"""Settings of how image files become pixels: windows, DICOM, and how images are resized."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from cxr_tasks.strict import Strict

ResizeName = Literal["nearest", "bilinear", "area", "lanczos"]
# What was done before there was a choice.
FIRST_RESIZE: ResizeName = "bilinear"
Upper = Annotated[str, AfterValidator(str.upper)]


class WindowSettings(Strict):
    """Which gray values of an image of more than 8 bits become black and white; what lies between is spread evenly.

    ``percentiles``: ``low`` and ``high`` are percentages of the image's own pixels. The smallest value that ``low`` %
    of them do not exceed is black, the one for ``high`` is white. ``fixed``: they are gray values, the same for every
    image. A window that a DICOM file brings counts before this.
    """

    rule: Literal["percentiles", "fixed"]
    low: float = Field(allow_inf_nan=False)
    high: float = Field(allow_inf_nan=False)

    @model_validator(mode="after")
    def _ascending(self) -> WindowSettings:
        if self.low >= self.high:
            raise ValueError("low must be below high")
        if self.rule == "percentiles" and not (self.low >= 0 and self.high <= 100):
            raise ValueError("low and high are percentages, from 0 to 100, where rule is percentiles")
        return self

    @property
    def words(self) -> str:
        """The rule as a manifest says it."""
        return f"{self.rule} {self.low:g}–{self.high:g}"


class DicomSettings(Strict):
    """Which DICOM files are used. A file that does not say what a switch asks for is used, and counted.

    Attributes:
        modalities: Values of ``Modality`` that are used; all where it is empty, as in the other lists.
        views: Views that are used, from ``ViewPosition``: PA, AP, AP SUPINE, LATERAL, and others as they are written.
        body_parts: Values of ``BodyPartExamined`` that are used.
        secondary_captures: Whether files are used that are secondary captures. Many collections are stored as such.
    """

    modalities: tuple[Upper, ...]
    views: tuple[Upper, ...]
    body_parts: tuple[Upper, ...]
    secondary_captures: bool
