"""The step ``ask_server``: what the server of the champion has answered since its start."""

from __future__ import annotations

import logging
import os
from http import HTTPStatus

from cxr_tasks import tracking
from cxr_tasks.artifacts import RunContext
from cxr_tasks.errors import SettingsError
from cxr_tasks.names import slug
from cxr_tasks.strict import Strict

log = logging.getLogger(__name__)
SECONDS_TO_ANSWER = 30
# The labels of figures that are read; see serving.call_metrics.
LABELS = {"cxr_calls_total": ("status",), "cxr_images_total": ("answer",), "cxr_model": ("model", "version")}


class ServerFigures(Strict):
    """What a server has answered since its start.

    Attributes:
        calls: Calls about images.
        failed: Those of them that were the server's fault, or that it had no room for.
        images: Images by what was said of them; ``refused`` are those that could not be used.
        warned: Images that got a warning.
        models: What answers, as ``cxr-overall version 3``.
    """

    calls: int
    failed: int
    images: dict[str, int]
    warned: int
    models: tuple[str, ...]

    @property
    def words(self) -> str:
        """The same for people."""
        total = sum(self.images.values())
        told = ", ".join(f"{number:,} {name}" for name, number in sorted(self.images.items()))
        share = f", {100 * self.warned / total:.1f} % with a warning" if total else ""
        by = f" {' and '.join(self.models)} answers." if self.models else " No model answers."
        return f"{total:,} images since the server's start{f' ({told})' if told else ''}{share}.{by}"


def ask_server(run: RunContext, address: str, token: str = "") -> ServerFigures:
    """Ask the server for its figures, and keep them with the run in MLflow.

    Args:
        run: The DAG run.
        address: Of ``cxr serve``, such as ``http://127.0.0.1:8088``.
        token: What callers must name; empty where everybody may ask.

    Raises:
        SettingsError: The server wants another token, or is none of ``cxr serve``.
        ConnectionError: It does not answer.
    """
    found = _read_metrics(_metrics_text(address, token), address)
    metrics = {"served_calls": found.calls, "served_calls_failed": found.failed, "served_warned": found.warned}
    metrics |= {f"served_{slug(name)}": number for name, number in found.images.items()}
    tracking.log_metrics({name: float(number) for name, number in metrics.items()}, run_id=run.mlflow_run_id)
    tracking.set_tags({"cxr.served": found.words}, run.mlflow_run_id)
    log.info("%s", found.words)
    return found


def server_to_ask() -> tuple[str, str]:
    """The address of the server that is watched (``CXR_SERVING``) and its token; empty where there is none."""
    return os.environ.get("CXR_SERVING", ""), os.environ.get("SERVING_TOKEN", "")


def _metrics_text(address: str, token: str) -> str:
    import httpx

    # Files of secrets often end with a line break. What httpx says of such a header would quote it.
    token = token.strip()
    if not (token.isascii() and token.isprintable()):
        raise SettingsError("SERVING_TOKEN has characters that no header can hold: use letters and digits.")
    try:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        answer = httpx.get(f"{address.rstrip('/')}/metrics", headers=headers, timeout=SECONDS_TO_ANSWER)
    except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
        raise SettingsError(
            f"CXR_SERVING is {address!r}: give the address of cxr serve, such as http://host:8088."
        ) from error
    except httpx.HTTPError as error:
        raise ConnectionError(f"The server at {address} (CXR_SERVING) does not answer: {error}") from error
    if answer.status_code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        raise SettingsError(f"The server at {address} (CXR_SERVING) wants another token: set SERVING_TOKEN to it.")
    if answer.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
        raise ConnectionError(f"The server at {address} (CXR_SERVING) answers {answer.status_code}.")
    return answer.text


def _read_metrics(figures: str, address: str) -> ServerFigures:
    from prometheus_client.parser import text_string_to_metric_families

    counted: dict[str, dict[tuple[str, ...], float]] = {}
    try:
        for family in text_string_to_metric_families(figures):
            for sample in family.samples:
                labels = tuple(sample.labels.get(name, "") for name in LABELS.get(sample.name, ()))
                of_name = counted.setdefault(sample.name, {})
                of_name[labels] = of_name.get(labels, 0.0) + sample.value
    except ValueError:
        counted = {}
    if "cxr_images_warned_total" not in counted:
        raise SettingsError(f"What answers at {address} (CXR_SERVING) is no cxr serve: give its address.")
    calls = counted.get("cxr_calls_total", {})
    return ServerFigures(
        calls=int(sum(calls.values())),
        failed=int(sum(number for (status,), number in calls.items() if status.startswith("5"))),
        images={answer: int(number) for (answer,), number in counted.get("cxr_images_total", {}).items()},
        warned=int(sum(counted["cxr_images_warned_total"].values())),
        models=tuple(f"{name} version {version}" for name, version in sorted(counted.get("cxr_model", {}))),
    )
