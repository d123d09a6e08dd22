"""What is said of a training whose numbers stopped being finite: that it went back, or that it ends.

A training that goes back changes no setting: a recipe stays what it is. Only its random draws are others from there
on, because the same draws would lead to the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

from cxr_tasks.errors import UserError


class Setback(TypedDict):
    """Optimiser steps: ``at`` this one numbers were not finite, and the training went ``back_to`` that one."""

    at: int
    back_to: int


def setback_told(who: str, setback: Setback) -> str:
    """A setback of ``who``, such as ``The GAN``, in words."""
    return (
        f"{who} had numbers that were not finite at step {setback['at']:,}. Its training went back to step "
        f"{setback['back_to']:,} and went on from there with other random draws. No setting was changed."
    )


def diverged(who: str, broken: str, place: str, setbacks: Sequence[Setback], advice: str) -> UserError:
    """The error that ends a training.

    Args:
        who: Such as ``The GAN``.
        broken: What is not finite, such as ``losses``.
        place: Where the training is, such as ``step 300``.
        setbacks: How often it went back before.
        advice: What a person may do.
    """
    tried = " and ".join(f"from step {back['at']:,} to step {back['back_to']:,}" for back in setbacks)
    went_back = f", after the training went back {tried} and drew otherwise" if tried else ""
    return UserError(f"{who}'s {broken} are no longer numbers at {place}{went_back}: {advice}")
