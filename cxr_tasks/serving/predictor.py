"""A network with what is known of it: image files in, answers out."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from pydantic import Field

from cxr_tasks.data.decode import LARGEST_FILE, Decoded, decode, from_grays, too_large_a_file
from cxr_tasks.data.formats import TooManyPixelsError, Unusable
from cxr_tasks.data.inverted import YES, is_inverted
from cxr_tasks.data.typical import TypicalImages, gray_levels
from cxr_tasks.keras_file import NETWORK_FILE, read_network
from cxr_tasks.serving.given_image import content_of
from cxr_tasks.serving.model_facts import ModelFacts
from cxr_tasks.strict import Strict

if TYPE_CHECKING:
    import keras

# Images that the network is given at once, at most.
LARGEST_BATCH = 32
# Sizes of batches that are tried before callers are answered. Other sizes are computed as they are: to fill up 5 images
# to 8 costs half as much again.
TRIED_BATCHES = (1, 2, 4, 8, 16, LARGEST_BATCH)
# Beyond one of these an image is large. A large image takes hundreds of megabytes while it is decoded.
LARGE_PIXELS, LARGE_BYTES = 8_000_000, 16 * 2**20
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
        warnings: What is unusual about the image, in sentences.
    """

    pixels: np.ndarray
    decoded: Decoded
    thumbnail: np.ndarray
    is_inverted: bool
    is_corrected: bool
    warnings: tuple[str, ...]


class Grays(NamedTuple):
    """What is measured of an image's thumbnail: see ``data.typical``."""

    distance: float
    mean: float
    contrast: float


class Answered(NamedTuple):
    """An image as the network saw it, and what the network says."""

    seen: SeenImage
    answer: ImageAnswer


class Predictor:
    """A classifier that takes image files. Any number of threads may ask it.

    Attributes:
        network: Pixels (n, S, S, 1) 0–255 → probabilities.
        facts: What is known of the network.
        model: What answers say that they are from.
        version: Of the registered model.
        readers: Threads that decode images, one a core.
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
        self.readers = ThreadPoolExecutor(len(os.sched_getaffinity(0)), "images")
        # One large image at a time: the same thread meets a large file, and then its many pixels.
        self._large = threading.RLock()
        shape = (None, facts.image_size, facts.image_size, 1)
        # predict() costs tens of milliseconds a call.
        self._run = tf.function(
            lambda pixels: network(pixels, training=False), input_signature=[tf.TensorSpec(shape, tf.float32)]
        )

    @classmethod
    def load(cls, folder: Path, model: str = "", version: str = "", network: Path | None = None) -> Predictor:
        """Read the network and its facts from a folder, and no code.

        Args:
            folder: With the facts of a trained model.
            model: What answers say that they are from.
            version: Of the registered model.
            network: The network's file, where it is not in the folder.

        Raises:
            Exception: Whatever Keras finds wrong with the network.
        """
        facts = ModelFacts.model_validate_json((folder / ModelFacts.FILE).read_text("utf-8"))
        typical = TypicalImages.load(folder / ModelFacts.TYPICAL) if facts.usual else None
        return cls(read_network(network or folder / NETWORK_FILE), facts, typical, model, version)

    def read(self, given: Any, most_pixels: int | None = None) -> Decoded:
        """An image at the network's side, by the way that training images took.

        Args:
            given: As for :func:`cxr_tasks.serving.given_image.content_of`, or the path of a file.
            most_pixels: That are decoded, where fewer than in training.

        Raises:
            Unusable: With the reason.
        """
        if isinstance(given, Path):
            return self._read_file(given, most_pixels)
        how = self.facts.reading.how(most_pixels)
        content = content_of(given, how.limits.most_pixels)
        try:
            return self._decoded(content, min(LARGE_PIXELS, how.limits.most_pixels))
        except TooManyPixelsError:
            if how.limits.most_pixels <= LARGE_PIXELS:
                raise
            with self._large:
                return self._decoded(content, how.limits.most_pixels)

    def try_to_read(self, given: Any, most_pixels: int | None = None) -> Decoded | Unusable:
        """What :meth:`read` returns, or the reason that it raises.

        Raises:
            MemoryError: There was none left, for which the image is not to blame.
        """
        try:
            return self.read(given, most_pixels)
        except Unusable as reason:
            if isinstance(reason.__context__, MemoryError):
                raise reason.__context__ from None
            return reason

    def _read_file(self, path: Path, most_pixels: int | None) -> Decoded:
        try:
            size = path.stat().st_size
            if size > LARGEST_FILE:
                raise Unusable(too_large_a_file(size))
            alone: AbstractContextManager[object] = self._large if size > LARGE_BYTES else nullcontext()
            with alone:
                return self.read(path.read_bytes(), most_pixels)
        except OSError as error:
            raise Unusable(f"the file cannot be read: {error.strerror or error}") from error

    def _decoded(self, content: bytes | np.ndarray, most_pixels: int) -> Decoded:
        how, sizes = self.facts.reading.how(most_pixels), [self.facts.image_size]
        return decode(content, "", sizes, how) if isinstance(content, bytes) else from_grays(content, sizes, how)

    def see(self, read: Sequence[Decoded]) -> list[SeenImage]:
        """Images as the network is shown them, with what is unusual about them.

        Many at once take little longer than one.
        """
        if not read:
            return []
        thumbnails = np.stack([each.thumbnail for each in read])
        inverted = is_inverted(thumbnails) == YES
        turned = inverted & (self.facts.reading.inverted == "correct")
        thumbnails[turned] = 255 - thumbnails[turned]
        distances = self.typical.distances(thumbnails) if self.typical is not None else np.zeros(len(read))
        means, contrasts = gray_levels(thumbnails)
        found = []
        for place, decoded in enumerate(read):
            grays = Grays(float(distances[place]), float(means[place]), float(contrasts[place]))
            is_corrected = bool(turned[place])
            warnings = self._warnings(decoded, grays, bool(inverted[place]), is_corrected)
            found.append(
                SeenImage(
                    255 - decoded.images[0] if is_corrected else decoded.images[0],
                    decoded,
                    thumbnails[place],
                    bool(inverted[place]),
                    is_corrected,
                    tuple(as_sentence(each) for each in warnings),
                )
            )
        return found

    def probabilities(self, pixels: np.ndarray) -> np.ndarray:
        """(n, classes) float32 of (n, S, S) uint8, to the last but one digit the same in any batch."""
        import tensorflow as tf

        starts = range(0, len(pixels), LARGEST_BATCH)
        shown = (pixels[start : start + LARGEST_BATCH, ..., None].astype(np.float32) for start in starts)
        found = [self._run(tf.constant(part)).numpy() for part in shown]
        return np.concatenate(found) if found else np.empty((0, len(self.facts.classes)), np.float32)

    def warm_up(self) -> None:
        """Run the network in several sizes of batches: TensorFlow prepares what the first callers would wait for."""
        side = self.facts.image_size
        for size in TRIED_BATCHES:
            self.probabilities(np.zeros((size, side, side), np.uint8))

    def answer(self, read: Sequence[Decoded]) -> list[Answered]:
        """An answer for each image."""
        seen = self.see(read)
        rows = self.probabilities(np.stack([each.pixels for each in seen])) if seen else ()
        return [Answered(each, self._answer(each, row)) for each, row in zip(seen, rows, strict=True)]

    def _answer(self, seen: SeenImage, probabilities: np.ndarray) -> ImageAnswer:
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
            warnings=seen.warnings,
            model=self.model,
            version=self.version,
        )

    def refusal(self, reason: str) -> ImageAnswer:
        """The answer for an image that cannot be used."""
        return ImageAnswer(error=as_sentence(reason), model=self.model, version=self.version)

    def predict(self, images: Iterable[Any], most_pixels: int | None = None) -> list[ImageAnswer]:
        """An answer for each image. One that cannot be used costs its own answer and no other.

        Args:
            images: As for :meth:`read`.
            most_pixels: As for :meth:`read`.
        """
        return list(self.predict_each(images, most_pixels))

    def predict_each(self, images: Iterable[Any], most_pixels: int | None = None) -> Iterator[ImageAnswer]:
        """What :meth:`predict` returns, a batch at a time: no more images than two batches are held in memory."""
        following = iter(images)

        def begin() -> list[Future[Decoded | Unusable]]:
            part = islice(following, LARGEST_BATCH)
            return [self.readers.submit(self.try_to_read, image, most_pixels) for image in part]

        begun = begin()
        while begun:
            reading, begun = begun, begin()
            found = [each.result() for each in reading]
            yield from self.with_refusals(found, self.answer(usable(found)))

    def with_refusals(self, found: Sequence[Decoded | Unusable], answered: Sequence[Answered]) -> list[ImageAnswer]:
        """An answer for each image, of those that could be read and of those that could not."""
        answers = iter(answered)
        return [self.refusal(str(each)) if isinstance(each, Unusable) else next(answers).answer for each in found]

    def _warnings(self, decoded: Decoded, grays: Grays, seems_inverted: bool, is_corrected: bool) -> list[str]:
        """What is unusual about an image."""
        told = []
        if is_corrected:
            told.append("black and white are exchanged and were turned back, as in training")
        elif seems_inverted:
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
        if grays.distance > usual.distance:
            told.append(
                "the image does not look like the X-rays that the model was trained on (distance "
                f"{grays.distance:.2f}, at most {usual.distance:.2f} is usual): it may be no chest X-ray, "
                "turned, cropped or framed"
            )
        told += _outside("mean gray", grays.mean, usual.mean, "darker", "brighter")
        told += _outside("contrast", grays.contrast, usual.contrast, "flatter", "harsher")
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


def usable(found: Sequence[Decoded | Unusable]) -> list[Decoded]:
    """Those images that could be read."""
    return [each for each in found if not isinstance(each, Unusable)]


def as_sentence(reason: str) -> str:
    """A reason as a sentence of its own."""
    return f"{reason[:1].upper()}{reason[1:].rstrip('.')}."
