"""MLflow's scoring server, with what it lacks: a champion that changes, limits, figures, and a page.

``/invocations``, ``/ping``, ``/health`` and ``/version`` are MLflow's own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.pyfunc import scoring_server

from cxr_tasks.data.formats import Unusable
from cxr_tasks.serving.call_metrics import CallMetrics
from cxr_tasks.serving.current_model import CurrentModel, NotReadyError
from cxr_tasks.serving.guard import CallLimits, Guard
from cxr_tasks.serving.heat import pictures_of
from cxr_tasks.serving.protocol import images_of, signature

DROP_PAGE = Path(__file__).with_name("page.html")
# The page loads nothing from elsewhere, and is shown in no other page.
PAGE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data: blob:; "
    "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
# MLflow repeats what it was given in its errors.
LONGEST_ERROR = 300
COUNTED = ("/invocations", "/image")
OF_MLFLOW = ("/ping", "/health", "/version")


class _RefusedCallError(MlflowException):
    """A call that is not answered. MLflow writes the call itself into the message, so the sentence is kept apart."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence


class _Front:
    """What MLflow's server takes for a model: it asks whichever model is current."""

    def __init__(self, current: CurrentModel, limits: CallLimits, metrics: CallMetrics) -> None:
        self.metadata = Model(signature=signature())
        self.current, self.limits, self.metrics = current, limits, metrics

    def predict(self, data: Any, params: Any = None) -> list[dict[str, Any]]:
        images = images_of(data)
        if len(images) > self.limits.images:
            raise _RefusedCallError(f"The call has {len(images):,} images: send at most {self.limits.images} at once.")
        try:
            answers = self.current.predict(images, self.limits.pixels)
        except NotReadyError as error:
            raise _RefusedCallError(str(error)) from error
        self.metrics.count(answers)
        return [answer.model_dump(mode="json") for answer in answers]


def build_server(current: CurrentModel, limits: CallLimits, token: str, metrics: CallMetrics) -> Guard:
    """The ASGI application of the server.

    Args:
        current: The model.
        limits: What is taken at most.
        token: What callers must know; empty where everybody may ask.
        metrics: Where calls are counted.
    """
    front = _Front(current, limits, metrics)
    app = scoring_server.init(front)
    app.title = "cxr serve"
    # MLflow's own route repeats calls in errors, and takes six at a time. FastAPI's pages load scripts from elsewhere.
    app.router.routes = [route for route in app.router.routes if getattr(route, "path", "") in OF_MLFLOW]
    _count_calls(app, metrics)
    _add_questions(app, front, ThreadPoolExecutor(limits.calls, "calls"))
    _add_watching(app, current, metrics)
    return Guard(app, limits, token)


def _count_calls(app: FastAPI, metrics: CallMetrics) -> None:
    @app.middleware("http")
    async def count_call(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
        begun = time.perf_counter()
        with metrics.at_work.track_inprogress():
            response = await answer(request)
        path = request.url.path if request.url.path in COUNTED else "other"
        metrics.calls.labels(path, response.status_code).inc()
        metrics.seconds.labels(path).observe(time.perf_counter() - begun)
        return response


def _add_questions(app: FastAPI, front: _Front, threads: ThreadPoolExecutor) -> None:
    """What is asked about images, and the page that asks it."""
    schema = front.metadata.get_input_schema()

    async def in_thread(work: Callable[..., Any], *given: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(threads, work, *given)

    @app.post("/invocations")
    async def score(request: Request) -> Response:
        body, kind = await request.body(), request.headers.get("content-type", "application/json")
        try:
            done = await in_thread(scoring_server.invocations, body, kind, front, schema)
        except _RefusedCallError as refused:
            return _error(503 if isinstance(refused.__cause__, NotReadyError) else 413, refused.sentence)
        except (MlflowException, ValueError, TypeError, KeyError, AttributeError) as error:
            return _error(400, _short(error))
        return Response(done.response, done.status, media_type=done.mimetype)

    @app.post("/image")
    async def ask(request: Request, explain: bool = False) -> Response:
        try:
            return JSONResponse(await in_thread(_answer_one, front, await request.body(), explain))
        except NotReadyError as error:
            return _error(503, str(error))

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
    async def ready() -> Response:
        if (known := answering()) is None:
            return JSONResponse({"ready": False, "reason": current.fault}, 503)
        return JSONResponse({"ready": True, "model": known[0], "version": known[1], "reason": current.fault})

    @app.get("/metrics")
    async def figures() -> Response:
        metrics.taken_up.set(current.taken_up)
        metrics.failures.set(current.failures)
        metrics.version.clear()
        if (known := answering()) is not None:
            metrics.version.labels(*known).set(1)
        return Response(metrics.text(), media_type=metrics.content_type)


def _answer_one(front: _Front, content: bytes, explain: bool) -> dict[str, Any]:
    """The answer for one file, and pictures of it where they are asked for."""
    loaded = front.current.loaded
    predictor = loaded.predictor
    try:
        seen = predictor.see(content, front.limits.pixels)
    except Unusable as reason:
        answer = predictor.refusal(str(reason))
        front.metrics.count([answer])
        return answer.model_dump(mode="json")
    answer = predictor.answer(seen, loaded.batched(seen.pixels[None])[0])
    front.metrics.count([answer])
    pictures = pictures_of(predictor, seen, answer.decision) if explain else {}
    return {**answer.model_dump(mode="json"), **pictures}


def _error(status: int, sentence: str) -> Response:
    return JSONResponse({"error": sentence}, status)


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= LONGEST_ERROR else f"{text[:LONGEST_ERROR]}…"
