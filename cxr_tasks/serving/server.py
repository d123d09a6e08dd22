"""The server: MLflow's scoring protocol, and a champion that changes, limits, figures, and a page.

``/invocations``, ``/ping``, ``/health`` and ``/version`` are what MLflow's own server has.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import mlflow
import numpy as np
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException

from cxr_tasks.data.formats import Unusable
from cxr_tasks.serving.call_metrics import CallMetrics
from cxr_tasks.serving.current_model import CurrentModel, NotReadyError
from cxr_tasks.serving.given_image import without_lists
from cxr_tasks.serving.guard import AGAIN, MAY_KNOW, SERVER_FAILED, CallLimits, Guard, RefusedCallError
from cxr_tasks.serving.heat import pictures_of
from cxr_tasks.serving.predictor import LARGEST_BATCH, ImageAnswer, usable
from cxr_tasks.serving.protocol import CallError, images_of_csv, images_of_json

DROP_PAGE = Path(__file__).with_name("page.html")
# The page loads nothing from elsewhere, and is shown in no other page.
PAGE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data: blob:; "
    "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
KINDS_OF_CALL = {"application/json": images_of_json, "text/csv": images_of_csv}

Done = TypeVar("Done")
log = logging.getLogger(__name__)


class _Asking:
    """Asks the current model, for callers who wait without a thread of their own."""

    def __init__(self, current: CurrentModel, limits: CallLimits, metrics: CallMetrics) -> None:
        self.current, self.limits, self.metrics = current, limits, metrics
        # One call is taken apart at a time: the lists of its JSON take many times the memory of its text.
        self._parsing = ThreadPoolExecutor(1, "calls")
        self._explaining, self._explanations = ThreadPoolExecutor(1, "explanations"), 0

    async def call(self, body: bytes, parse: Callable[[bytes], list[Any]]) -> list[ImageAnswer]:
        """The answers for the images of a call."""
        predictor, batcher = self.current.loaded.predictor, self.current.batcher
        most_pixels = predictor.facts.reading.how(self.limits.pixels).limits.most_pixels
        images = await _in(self._parsing, self._images, body, parse, most_pixels)
        reading = [
            image
            if isinstance(image, Unusable)
            else asyncio.wrap_future(predictor.readers.submit(predictor.try_to_read, image, most_pixels))
            for image in images
        ]
        del images
        answers: list[ImageAnswer] = []
        for start in range(0, len(reading), LARGEST_BATCH):
            part = reading[start : start + LARGEST_BATCH]
            found = [each if isinstance(each, Unusable) else await each for each in part]
            read = usable(found)
            answered = await asyncio.wrap_future(batcher.submit(predictor.answer, read)) if read else []
            answers += predictor.with_refusals(found, answered)
        self.metrics.count(answers)
        return answers

    def _images(
        self, body: bytes, parse: Callable[[bytes], list[Any]], most_pixels: int
    ) -> list[str | bytes | np.ndarray | Unusable]:
        """The images of a call, without the lists of its JSON."""
        images = parse(body)
        if len(images) > self.limits.images:
            told = f"The call has {len(images):,} images: send at most {self.limits.images} at once."
            raise RefusedCallError(413, told)
        for place, image in enumerate(images):
            images[place] = without_lists(image, most_pixels)
        return images

    async def file(self, content: bytes, explain: bool) -> tuple[ImageAnswer, dict[str, Any]]:
        """The answer for one file, and pictures of it where they are asked for."""
        if explain and self._explanations >= self.limits.explanations:
            raise RefusedCallError(503, f"{self._explanations} images are explained: ask again.", AGAIN)
        self._explanations += explain
        try:
            predictor, batcher = self.current.loaded.predictor, self.current.batcher
            with batcher.coming():
                found = await _in(predictor.readers, predictor.try_to_read, content, self.limits.pixels)
                if isinstance(found, Unusable):
                    answer = predictor.refusal(str(found))
                    self.metrics.count([answer])
                    return answer, {}
                asked = batcher.submit(predictor.answer, [found])
            seen, answer = (await asyncio.wrap_future(asked))[0]
            self.metrics.count([answer])
            if not explain:
                return answer, {}
            return answer, await _in(self._explaining, pictures_of, predictor, seen, answer.decision)
        finally:
            self._explanations -= explain


async def _in(threads: ThreadPoolExecutor, work: Callable[..., Done], *given: Any) -> Done:
    return await asyncio.get_running_loop().run_in_executor(threads, work, *given)


def build_server(current: CurrentModel, limits: CallLimits, token: str, metrics: CallMetrics) -> Guard:
    """The ASGI application of the server.

    Args:
        current: The model.
        limits: What is taken at most.
        token: What callers must know; empty where everybody may ask.
        metrics: Where calls are counted.
    """
    # FastAPI's pages load scripts from elsewhere.
    app = FastAPI(title="cxr serve", docs_url=None, redoc_url=None, openapi_url=None)
    _add_errors(app)
    _add_questions(app, _Asking(current, limits, metrics))
    _add_watching(app, current, metrics)
    return Guard(app, limits, token, metrics)


def _add_errors(app: FastAPI) -> None:
    """What is said of calls that get no answer. Whatever is not named here is a fault of the server."""

    def add(kind: type[Exception], told: Callable[[Any], RefusedCallError]) -> None:
        async def answer(_: Request, error: Exception) -> Response:
            refusal = told(error)
            headers = {name.decode(): value.decode() for name, value in refusal.headers}
            return JSONResponse({"error": str(refusal)}, refusal.status, headers)

        app.add_exception_handler(kind, answer)

    add(RefusedCallError, lambda error: error)
    add(NotReadyError, lambda error: RefusedCallError(503, str(error), AGAIN))
    add(CallError, lambda error: RefusedCallError(400, str(error)))
    add(RequestValidationError, lambda _: RefusedCallError(400, "explain is either true or false."))
    add(HTTPException, lambda error: RefusedCallError(error.status_code, f"{error.detail}."))
    add(Exception, _own_fault)


def _own_fault(error: Exception) -> RefusedCallError:
    log.error("A call failed.", exc_info=error)
    return RefusedCallError(500, SERVER_FAILED)


def _add_questions(app: FastAPI, asking: _Asking) -> None:
    """What is asked about images, and the page that asks it."""

    @app.post("/invocations")
    async def score(request: Request) -> Response:
        given = request.headers.get("content-type", "application/json")
        kind, _, charset = given.partition(";")
        parse = KINDS_OF_CALL.get(kind.strip().lower())
        if parse is None or charset.strip().lower() not in ("", "charset=utf-8"):
            raise RefusedCallError(415, f"Send {' or '.join(KINDS_OF_CALL)}, in UTF-8.")
        answers = await asking.call(await request.body(), parse)
        told = ",".join(answer.model_dump_json() for answer in answers)
        return Response(f'{{"predictions": [{told}]}}', media_type="application/json")

    @app.post("/image")
    async def ask(request: Request, explain: bool = False) -> Response:
        answer, pictures = await asking.file(await request.body(), explain)
        if not pictures:
            return Response(answer.model_dump_json(), media_type="application/json")
        return JSONResponse({**answer.model_dump(mode="json"), **pictures})

    @app.get("/")
    async def page() -> Response:
        headers = {"content-security-policy": PAGE_POLICY, "x-content-type-options": "nosniff"}
        return HTMLResponse(DROP_PAGE.read_text("utf-8"), headers={**headers, "referrer-policy": "no-referrer"})


def _add_watching(app: FastAPI, current: CurrentModel, metrics: CallMetrics) -> None:
    """What is asked about the server."""

    def answering() -> tuple[str, str] | None:
        try:
            predictor = current.loaded.predictor
        except NotReadyError:
            return None
        return predictor.model, predictor.version

    @app.get("/live")
    async def live() -> Response:
        return JSONResponse({"live": True})

    @app.get("/ready")
    async def ready(request: Request) -> Response:
        known = answering()
        told: dict[str, Any] = {"ready": known is not None}
        if request.scope[MAY_KNOW]:
            told |= {"reason": current.fault}
            told |= {"model": known[0], "version": known[1]} if known else {}
        return JSONResponse(told, 503 if known is None else 200)

    async def ping() -> Response:
        # MLflow's own server does not answer before its model is loaded.
        return Response("\n", 503 if answering() is None else 200, media_type="application/json")

    app.get("/ping")(ping)
    app.get("/health")(ping)

    @app.get("/version")
    async def version() -> Response:
        return Response(mlflow.__version__, media_type="text/plain")

    @app.get("/metrics")
    async def figures() -> Response:
        metrics.taken_up.set(current.taken_up)
        metrics.failures.set(current.failures)
        metrics.version.clear()
        if (known := answering()) is not None:
            metrics.version.labels(*known).set(1)
        return Response(metrics.text(), media_type=metrics.content_type)
