"""Settings of how images are read, for :class:`cxr_tasks.config.DataSettings`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from cxr_tasks.strict import Strict

ResizeName = Literal["nearest", "bilinear", "area", "lanczos"]
# What was done before there was a choice.
FIRST_RESIZE: ResizeName = "bilinear"


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
