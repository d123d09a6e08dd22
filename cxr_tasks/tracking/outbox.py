"""What a step has to say to MLflow, kept on this machine until MLflow has it.

A thread sends in order. While MLflow is away the step goes on and what it says waits as files in the cache, also after
the process was killed: the next try of the step finds it there and sends it first. Where MLflow says that the step has
no right to, it waits too, and the step fails in the end with a word. What MLflow finds wrong in itself is dropped, for
it would be refused for ever; the step says that in the end. MLflow's own asynchronous logging would not do: what its
queue could not send is lost.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from cxr_tasks import outages
from cxr_tasks.cache import cache_folder
from cxr_tasks.errors import SettingsError, in_one_line
from cxr_tasks.tracking.server import client, reviving

log = logging.getLogger(__name__)

# MLflow takes so much in one request: 1000 in all, of these no more than 100 params.
METRICS_AT_ONCE, PARAMS_AT_ONCE, TAGS_AT_ONCE = 800, 100, 100
# What no try came back for in so many seconds is given up.
KEPT_SECONDS = 30 * 86400.0
SENDER_DIGITS = 16
LIMITS = {"metrics": METRICS_AT_ONCE, "params": PARAMS_AT_ONCE, "tags": TAGS_AT_ONCE}


class Outbox:
    """What waits to be sent to one MLflow run.

    Attributes:
        run_id: The run.
        folder: Where it waits: ``<number>.json`` for each thing said, and a folder ``<number>`` with its files.
        took_over: Whether an earlier try left anything.
        is_used: Whether there was anything to send.
        refused: What MLflow said of each thing that it refused for good.
    """

    def __init__(self, run_id: str, work: str = "") -> None:
        """Take over what an earlier try could not send.

        Args:
            run_id: The run.
            work: Who sends, where several do at once to one run.
        """
        self.run_id = run_id
        sender = hashlib.sha256(work.encode()).hexdigest()[:SENDER_DIGITS]
        self.folder = cache_folder("outbox", f"{run_id}-{sender}" if work else run_id)
        sweep(self.folder.parent)
        self.refused: list[str] = []
        self._waiting = sorted(int(path.stem) for path in self.folder.glob("*.json"))
        self.took_over = bool(self._waiting)
        # A killed try may have left files without the word that they are to be sent.
        self._next = max((int(path.stem) for path in self.folder.iterdir()), default=-1) + 1
        self._changed = threading.Condition()
        self._trouble: Exception | None = None
        self._denied = False
        self._hurried = self._closed = False
        self._joins = True
        self._sender: threading.Thread | None = None
        if self.took_over:
            log.info("%d things that an earlier try could not tell MLflow are told now", len(self._waiting))
            self._start()

    def put_batch(self, **given: list[list[Any]]) -> None:
        """Send ``metrics``, each ``[name, value, milliseconds, step]``; ``params`` or ``tags``, ``[name, value]``."""
        for kind, rows in given.items():
            for start in range(0, len(rows), LIMITS[kind]):
                part = {kind: rows[start : start + LIMITS[kind]]}
                self._put({"kind": "batch", **{each: part.get(each, []) for each in LIMITS}})

    def put_files(self, fill: Callable[[Path], None]) -> None:
        """Send the files that ``fill`` writes into the folder it is given, under their paths there."""
        with self._changed:
            number = self._take_number()
        folder = self.folder / str(number)
        folder.mkdir()
        fill(folder)
        self._put({"kind": "files"}, number)

    def put_inputs(self, inputs: list[dict[str, Any]]) -> None:
        """Send dataset inputs: MLflow's fields of each dataset, and ``tags``."""
        self._put({"kind": "inputs", "inputs": inputs})

    def drain(self, seconds: float) -> None:
        """Wait until all is sent.

        Args:
            seconds: How long.

        Raises:
            ConnectionError: MLflow did not answer in all the time. What waits is kept for the next try.
            SettingsError: MLflow says that this step has no right to. What waits is kept.
        """
        with self._changed:
            # Not at the end of a long wait between two attempts; and what was denied before may be granted now.
            self._hurried, self._denied = True, False
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._waiting or self._denied, seconds)
            waiting = len(self._waiting)
        if waiting and self._denied and self._trouble:
            raise SettingsError(
                f"MLflow denies this step its run ({in_one_line(self._trouble)}): give it the rights, or correct "
                f"MLFLOW_TRACKING_USERNAME and the like, and clear the task; {waiting} things that it has to say wait "
                f"in {self.folder}, and the next try sends them."
            ) from self._trouble
        if waiting:
            why = in_one_line(self._trouble) if self._trouble else "it has not answered yet"
            raise ConnectionError(
                f"MLflow cannot be reached ({why}): {waiting} things that this step has to say wait in {self.folder}, "
                "and the next try sends them."
            ) from self._trouble

    @property
    def is_used(self) -> bool:
        """See :class:`Outbox`."""
        return self._sender is not None

    def close(self) -> None:
        """Send nothing more. What waits stays where it is."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if not self._waiting:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _take_number(self) -> int:
        self._next += 1
        return self._next - 1

    def _put(self, entry: dict[str, Any], number: int | None = None) -> None:
        with self._changed:
            number = self._take_number() if number is None else number
            aside = self.folder / f"{number}.tmp"
            aside.write_text(json.dumps(entry), encoding="utf-8")
            aside.rename(self.folder / f"{number}.json")
            self._waiting.append(number)
            self._changed.notify_all()
        self._start()

    def _start(self) -> None:
        if self._sender is None:
            # It ends with the process: nothing is lost, for all of it lies in the folder.
            self._sender = threading.Thread(target=self._work, name=f"outbox {self.run_id}", daemon=True)
            self._sender.start()

    def _work(self) -> None:
        wait = outages.FIRST_WAIT_SECONDS
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    return
                waiting = list(self._waiting)
            numbers, entry = self._together(waiting if self._joins else waiting[:1])
            try:
                self._send(entry, numbers[0])
                self._trouble, wait, self._joins = None, outages.FIRST_WAIT_SECONDS, True
            except Exception as error:
                denied = outages.is_denied(error)
                if denied or outages.is_passing(error):
                    self._keep(error, wait, denied=denied)
                    wait = min(2 * wait, outages.LONGEST_WAIT_SECONDS)
                    continue
                if len(numbers) > 1:
                    # One of them alone is wrong, and is not to take the others with it.
                    self._joins = False
                    continue
                # It would be refused again, and what follows must not wait for it.
                log.error("MLflow refuses what was logged to run %s: %s", self.run_id, in_one_line(error))
                self.refused.append(in_one_line(error))
            self._forget(numbers)

    def _keep(self, error: Exception, wait: float, *, denied: bool) -> None:
        if self._trouble is None:
            what = "denies this step its run" if denied else "cannot be reached"
            log.warning("MLflow %s; what is logged waits, and the work goes on: %s", what, in_one_line(error))
        with self._changed:
            self._trouble, self._denied = error, denied
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._closed or self._hurried, wait)
            self._hurried = False

    def _forget(self, numbers: list[int]) -> None:
        for number in numbers:
            (self.folder / f"{number}.json").unlink(missing_ok=True)
            shutil.rmtree(self.folder / str(number), ignore_errors=True)
        with self._changed:
            self._waiting = [number for number in self._waiting if number not in set(numbers)]
            self._changed.notify_all()

    def _together(self, waiting: list[int]) -> tuple[list[int], dict[str, Any]]:
        """The first of ``waiting``, joined with those behind it that go in the same request."""
        numbers, joined = waiting[:1], self._read(waiting[0])
        for number in waiting[1:] if joined["kind"] == "batch" else ():
            entry = self._read(number)
            if entry["kind"] != "batch" or any(len(joined[k]) + len(entry[k]) > most for k, most in LIMITS.items()):
                break
            # One param with two values is refused, and must not take others with it.
            if joined["params"] and entry["params"]:
                break
            joined = {"kind": "batch", **{kind: joined[kind] + entry[kind] for kind in LIMITS}}
            numbers.append(number)
        return numbers, joined

    def _read(self, number: int) -> dict[str, Any]:
        try:
            return json.loads((self.folder / f"{number}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            # Somebody cleared the cache: there is nothing to send.
            return {"kind": "batch", "metrics": [], "params": [], "tags": []}

    def _send(self, entry: dict[str, Any], number: int) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag

        server = client()

        def batch() -> None:
            server.log_batch(
                self.run_id,
                [Metric(*metric) for metric in entry["metrics"]],
                [Param(*param) for param in entry["params"]],
                [RunTag(*tag) for tag in entry["tags"]],
            )

        def files() -> None:
            if (self.folder / str(number)).is_dir():
                server.log_artifacts(self.run_id, str(self.folder / str(number)))

        def inputs() -> None:
            told = [(dict(each), each["tags"]) for each in entry["inputs"]]
            for fields, _ in told:
                del fields["tags"]
            datasets = [DatasetInput(Dataset(**fields), [InputTag(*tag) for tag in tags]) for fields, tags in told]
            server.log_inputs(self.run_id, datasets)

        reviving({"batch": batch, "files": files, "inputs": inputs}[entry["kind"]], self.run_id)


def sweep(root: Path) -> None:
    """Give up what waits for runs that nobody has tried again for :data:`KEPT_SECONDS`, with a word.

    Args:
        root: Holds a folder for each run.
    """
    for folder in root.iterdir():
        # Several processes may sweep at once.
        with suppress(OSError):
            written = max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
            if not folder.is_dir() or time.time() - written < KEPT_SECONDS:
                continue
            if waiting := len(list(folder.glob("*.json"))):
                day = time.strftime("%Y-%m-%d", time.gmtime(written))
                log.warning(
                    "%d things that MLflow's run %s was not told by %s are given up: no try came back for them",
                    waiting,
                    folder.name,
                    day,
                )
            shutil.rmtree(folder)
