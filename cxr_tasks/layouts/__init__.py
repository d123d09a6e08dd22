"""Ready-made settings of public data sets: each YAML file here is a piece of a profile, which ``data.layout`` names.

Whoever names a layout lays settings over it. A profile that names one has the last word, and a setting that names one
beside a profile takes the place of what the profile says of its own data.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from cxr_tasks.errors import SettingsError, nearest

LAYOUTS = Path(__file__).parent


def layout_names() -> list[str]:
    """The layouts that ship with the project."""
    return sorted(path.stem for path in LAYOUTS.glob("*.yaml"))


def read_layout(name: str) -> dict[str, Any]:
    """The piece of a profile that is called ``name``, with a ``description``.

    Raises:
        SettingsError: There is none.
    """
    path = LAYOUTS / f"{name}.yaml"
    if name not in layout_names():
        raise SettingsError(f"data.layout: there is no layout {name!r}, {nearest(name, layout_names())}")
    piece: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return piece
