"""An image as the network sees it, and where the network looks, as pictures for a page."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from cxr_tasks.pictures import data_url
from cxr_tasks.serving.predictor import Predictor, SeenImage

# Orange on gray: it can be told from gray by those who see no red or no green.
COLOUR, MOST_OPAQUE = (255, 120, 0), 190


def pictures_of(predictor: Predictor, seen: SeenImage, decision: str) -> dict[str, Any]:
    """Data URLs: ``seen``, what the network sees, and ``heat``, a layer over it that shows where it saw the class.

    A network without a map of features has no ``heat``.
    """
    from cxr_tasks.classifiers.grad_cam import grad_cam

    found = {"seen": _as_url(Image.fromarray(seen.pixels))}
    try:
        index = np.array([predictor.facts.classes.index(decision)])
        heat = grad_cam(predictor.network, seen.pixels[None], index)[0]
    except ValueError:
        return found
    layer = np.empty((*heat.shape, 4), np.uint8)
    layer[..., :3] = COLOUR
    layer[..., 3] = np.rint(heat * MOST_OPAQUE)
    return {**found, "heat": _as_url(Image.fromarray(layer))}


def _as_url(image: Image.Image) -> str:
    stream = BytesIO()
    image.save(stream, "PNG", compress_level=1)
    return data_url(stream.getvalue())
