"""A network with what is known of it: image files in, answers out."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from cxr_tasks.data.decode import Decoded, decode, from_grays
from cxr_tasks.data.formats import Unusable
from cxr_tasks.data.inverted import YES, is_inverted
from cxr_tasks.serving.given_image import content_of
from cxr_tasks.serving.model_facts import ModelFacts
from cxr_tasks.serving.typical import TypicalImages, gray_levels
from cxr_tasks.strict import Strict

if TYPE_CHECKING:
    import keras

NETWORK_FILE = "model.keras"
# Images that the network is given at once. TensorFlow keeps a graph and memory for every number that it has met, so a
# batch is filled up to the next of these.
BATCHES = (1, 2, 4, 8, 16, 32)
UNKNOWN_USUAL = "nothing is known of what this version was trained on, so unusual images are not noticed"


class ImageAnswer(Strict):
    """What a model says of one image.

    Attributes:
        decision: The most probable class; empty where the image cannot be used.
        probabilities: Of each class.
        reached: The classes whose operating point the image reaches. A class's point is the largest probability
            that, on validation images, finds the share of its images that the profile asks for.
        warnings: What speaks against trusting the answer, in sentences.
        error: Why there is no answer, in a sentence; empty where there is one.
        model: The registered model, or the training.
        version: Of the registered model; empty where it is none.
    """

    decision: str = ""
    probabilities: dict[str, float] = Field(default_factory=dict)
    reached: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    error: str = ""
    model: str
    version: str


@dataclass(frozen=True, eq=False)
class SeenImage:
    """An image as the network sees it.

    Attributes:
        pixels: (S, S) uint8.
        decoded: What the file holds.
        thumbnail: (32, 32) uint8, of the same grays as ``pixels``.
        is_inverted: Whether the file's black and white are exchanged.
        is_corrected: Whether that was turned back, as in training.
    """

    pixels: np.ndarray
    decoded: Decoded
    thumbnail: np.ndarray
    is_inverted: bool
    is_corrected: bool


class Predictor:
    """A classifier that takes image files. Any number of threads may ask it.

    Attributes:
        facts: What is known of the network.
        model: What answers say that they are from.
        version: Of the registered model.
    """

    def __init__(
        self,
        network: keras.Model,
        facts: ModelFacts,
        typical: TypicalImages | None,
        model: str = "",
        version: str = "",
    ) -> None:
        """Join a network with its facts.

        Args:
            network: Pixels (n, S, S, 1) 0–255 → probabilities.
            facts: Of the network.
            typical: What its training images look like, where anybody knows.
            model: What answers say that they are from.
            version: Of the registered model.
        """
        import tensorflow as tf

        self.network, self.facts, self.typical = network, facts, typical
        self.model, self.version = model, version
        # A large image takes hundreds of megabytes while it is decoded, and cores are not there for more at once.
        self._decoding = threading.Semaphore(len(os.sched_getaffinity(0)))
        shape = (None, facts.image_size, facts.image_size, 1)
        # predict() costs tens of milliseconds a call.
        self._run = tf.function(
            lambda pixels: network(pixels, training=False), input_signature=[tf.TensorSpec(shape, tf.float32)]
        )

    @classmethod
    def load(cls, folder: Path, model: str = "", version: str = "") -> Predictor:
        """Read the network and its facts from a folder, and no code.

        Args:
            folder: With the files of a trained model.
            model: What answers say that they are from.
            version: Of the registered model.

        Raises:
            Exception: Whatever Keras finds wrong with the network.
        """
        import keras

        facts = ModelFacts.model_validate_json((folder / ModelFacts.FILE).read_text("utf-8"))
        typical = TypicalImages.load(folder / ModelFacts.TYPICAL) if facts.usual else None
        return cls(keras.models.load_model(folder / NETWORK_FILE, compile=False), facts, typical, model, version)

    def see(self, given: Any, most_pixels: int | None = None) -> SeenImage:
        """An image as the network is shown it, by the way that training images took.

        Args:
            given: As for :func:`cxr_tasks.serving.given_image.content_of`.
            most_pixels: That are decoded, where fewer than in training.

        Raises:
            Unusable: With the reason.
        """
        content, how = content_of(given), self.facts.reading.how(most_pixels)
        sizes = [self.facts.image_size]
        with self._decoding:
            found = decode(content, "", sizes, how) if isinstance(content, bytes) else from_grays(content, sizes, how)
        inverted = bool(is_inverted(found.thumbnail[None])[0] == YES)
        turned = inverted and self.facts.reading.inverted == "correct"
        pixels, thumbnail = found.images[0], found.thumbnail
        if turned:
            pixels, thumbnail = 255 - pixels, 255 - thumbnail
        return SeenImage(pixels, found, thumbnail, inverted, turned)

    def probabilities(self, pixels: np.ndarray) -> np.ndarray:
        """(n, classes) float32 of (n, S, S) uint8, to the last but one digit the same in any batch."""
        import tensorflow as tf

        found = []
        for start in range(0, len(pixels), BATCHES[-1]):
            part = pixels[start : start + BATCHES[-1]]
            filled = next(size for size in BATCHES if size >= len(part))
            shown = np.zeros((filled, *part.shape[1:], 1), np.float32)
            shown[: len(part)] = part[..., None]
            found.append(self._run(tf.constant(shown)).numpy()[: len(part)])
        return np.concatenate(found) if found else np.empty((0, len(self.facts.classes)), np.float32)

    def warm_up(self) -> None:
        """Have TensorFlow make its graph for every size of a batch, which the first callers would wait for."""
        side = self.facts.image_size
        for size in BATCHES:
            self.probabilities(np.zeros((size, side, side), np.uint8))

    def answer(self, seen: SeenImage, probabilities: np.ndarray) -> ImageAnswer:
        """What the probabilities (classes,) of an image say."""
        named = dict(zip(self.facts.classes, (round(float(p), 6) for p in probabilities), strict=True))
        thresholds = self.facts.thresholds
        return ImageAnswer(
            decision=self.facts.classes[int(probabilities.argmax())],
            probabilities=named,
            reached=tuple(
                name
                for name, p in zip(self.facts.classes, probabilities, strict=True)
                if name in thresholds and p >= thresholds[name]
            ),
            warnings=tuple(as_sentence(each) for each in self.warnings_of(seen)),
            model=self.model,
            version=self.version,
        )

    def refusal(self, reason: str) -> ImageAnswer:
        """The answer for an image that cannot be used."""
        return ImageAnswer(error=as_sentence(reason), model=self.model, version=self.version)

    def predict(
        self,
        images: Sequence[Any],
        probabilities: Callable[[np.ndarray], np.ndarray] | None = None,
        most_pixels: int | None = None,
    ) -> list[ImageAnswer]:
        """An answer for each image. One that cannot be used costs its own answer and no other.

        Args:
            images: As for :meth:`see`.
            probabilities: Asks the network, where that is not :meth:`probabilities` itself.
            most_pixels: As for :meth:`see`.
        """
        seen: list[SeenImage | str] = []
        for image in images:
            try:
                seen.append(self.see(image, most_pixels))
            except Unusable as reason:
                seen.append(str(reason))
        usable = [each for each in seen if isinstance(each, SeenImage)]
        side = self.facts.image_size
        shown = np.stack([each.pixels for each in usable]) if usable else np.empty((0, side, side), np.uint8)
        found = iter((probabilities or self.probabilities)(shown))
        return [self.answer(each, next(found)) if isinstance(each, SeenImage) else self.refusal(each) for each in seen]

    def warnings_of(self, seen: SeenImage) -> list[str]:
        """What is unusual about an image."""
        decoded, told = seen.decoded, []
        if seen.is_corrected:
            told.append("black and white are exchanged and were turned back, as in training")
        elif seen.is_inverted:
            told.append("black and white seem to be exchanged: export the image anew")
        if min(decoded.width, decoded.height) < self.facts.image_size:
            told.append(
                f"the image has {decoded.width}×{decoded.height} pixels and was made larger: the network sees "
                f"{self.facts.image_size} a side"
            )
        if decoded.told is not None and decoded.told.unsaid:
            told.append(f"the DICOM file does not say its {', '.join(decoded.told.unsaid)}")
        usual = self.facts.usual
        if usual is None or self.typical is None:
            return [*told, UNKNOWN_USUAL]
        distance = float(self.typical.distances(seen.thumbnail[None])[0])
        if distance > usual.distance:
            told.append(
                f"the image does not look like the X-rays that the model was trained on (distance {distance:.2f}, at "
                f"most {usual.distance:.2f} is usual): it may be no chest X-ray, turned, cropped or framed"
            )
        mean, contrast = (float(level[0]) for level in gray_levels(seen.thumbnail[None]))
        told += _outside("mean gray", mean, usual.mean, "darker", "brighter")
        told += _outside("contrast", contrast, usual.contrast, "flatter", "harsher")
        told += _outside("width divided by height", decoded.width / decoded.height, usual.aspect, "narrower", "wider")
        return told


def _outside(what: str, value: float, limits: tuple[float, float], below: str, above: str) -> list[str]:
    low, high = limits
    if low <= value <= high:
        return []
    word, digits = below if value < low else above, 2 if high < 10 else 0
    return [
        f"the image is {word} than the X-rays that the model was trained on ({what} {value:.{digits}f}, usual is "
        f"{low:.{digits}f} to {high:.{digits}f})"
    ]


def as_sentence(reason: str) -> str:
    """A reason as a sentence of its own."""
    return f"{reason[:1].upper()}{reason[1:].rstrip('.')}."
