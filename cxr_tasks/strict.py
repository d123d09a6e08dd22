"""The base of all plain data: settings, handles, findings, and what a report shows."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


class Strict(BaseModel):
    """Data that is checked when it is made and never changed after; an unknown field is an error with a path."""

    model_config = ConfigDict(frozen=True, extra="forbid")
