"""The model that is served: found by its alias, and replaced while callers are being answered."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from cxr_tasks import tracking
from cxr_tasks.errors import in_one_line
from cxr_tasks.serving.batching import Batcher
from cxr_tasks.serving.loading import predictor_of
from cxr_tasks.serving.predictor import LARGEST_BATCH, Predictor

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Loaded:
    """A model that answers.

    Attributes:
        identity: Tells registered versions apart.
        predictor: The model.
    """

    identity: tuple[str, str, str]
    predictor: Predictor


class NotReadyError(Exception):
    """No model is loaded yet. The text says why."""


class CurrentModel:
    """Whatever a name means by now.

    Each call is answered by one model, the one that was current when the call began. A version that cannot be loaded
    does not take the place of the one that answers.

    Attributes:
        name: ``cxr-overall@champion``, or an address such as ``models:/cxr-overall/3``.
        fault: Why the newest look brought nothing, in a sentence; empty where it did.
        failures: How many looks brought an error.
        taken_up: How many models were loaded.
        batcher: Asks the network for all callers at once.
    """

    def __init__(self, name: str, on_batch: Callable[[int], None] = lambda images: None) -> None:
        """Note the name; nothing is loaded before :meth:`refresh`."""
        self.name, self.batcher = name, Batcher(LARGEST_BATCH, on_batch)
        self.fault, self.failures, self.taken_up = f"The model {name} is being loaded.", 0, 0
        self._loaded: Loaded | None = None
        self._ended = threading.Event()

    @property
    def loaded(self) -> Loaded:
        """The model that answers by now.

        Raises:
            NotReadyError: There is none yet.
        """
        if (loaded := self._loaded) is None:
            raise NotReadyError(self.fault)
        return loaded

    def refresh(self) -> bool:
        """Look what the name means, and take that up. Returns whether the model is another one now."""
        try:
            version = tracking.find_version(self.name)
            if version is None or isinstance(version, str):
                self.fault = f"MLflow has no registered model {self.name} yet."
                return False
            # A model that was deleted and registered anew may have the name and the number of before.
            identity = (version.name, str(version.version), str(version.creation_timestamp))
            before = self._loaded
            if before is not None and before.identity == identity:
                self.fault = ""
                return False
            predictor = predictor_of(version)
            predictor.warm_up()
        except Exception as error:  # a server that is away and a model that is broken both leave the present one alone
            self.failures += 1
            self.fault = f"{self.name} could not be taken up: {in_one_line(error)}."
            log.warning("%s", self.fault)
            return False
        self._loaded = Loaded(identity, predictor)
        self.fault, self.taken_up = "", self.taken_up + 1
        log.info("%s version %s answers from now on", version.name, version.version)
        return True

    def watch(self, seconds: float) -> threading.Thread:
        """Look again and again, in a thread that :meth:`end` ends."""

        def look() -> None:
            while not self._ended.is_set():
                self.refresh()
                self._ended.wait(seconds)

        thread = threading.Thread(target=look, name="current model", daemon=True)
        thread.start()
        return thread

    def end(self) -> None:
        """Look no more, and answer nobody any more."""
        self._ended.set()
        self.batcher.close()
