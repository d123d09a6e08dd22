"""Pictures in pages that load nothing from elsewhere."""

from __future__ import annotations

import base64


def data_url(png: bytes) -> str:
    """A PNG as an address that holds the picture."""
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"
