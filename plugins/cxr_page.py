"""The page "Chest X-rays" as a part of Airflow's API server: who may see it, and its addresses.

Airflow asks nothing of who comes to an app of a plugin. Here everybody must be signed in to Airflow, and may see what
those may who read the runs of the DAG cxr_training. What changes something is asked of Airflow's own API by the
browser, with the rights of the person who sits there: this app only reads.
"""

from __future__ import annotations

from functools import cache

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.common.db.common import SessionDep
from airflow.api_fastapi.core_api.security import GetUserDep, requires_access_dag
from cxr_running import TRAINED_BY, airflow_facts
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, Response, StreamingResponse

from cxr_tasks.overview.gathering import Gathering
from cxr_tasks.overview.mlflow_api import MlflowApi, MlflowAwayError
from cxr_tasks.overview.render import (
    HEADERS,
    STATIC,
    render_part,
    render_parts,
    render_refusal,
    static_file,
)
from cxr_tasks.overview.samples import sample_grid_png

WHY_REFUSED = {
    401: "Sign in to Airflow, and load this page again.",
    403: f"This page is for those who may read the runs of the DAG {TRAINED_BY}. Ask an administrator of Airflow.",
}
# What never changes under its address. Only the browser of the person who may see it keeps it.
KEPT = HEADERS | {"Cache-Control": "private, max-age=86400"}


@cache
def page_app(gathering: Gathering | None = None) -> FastAPI:
    """The app. ``gathering``: asks another MLflow than the one that the environment names."""
    asks = gathering or Gathering(MlflowApi.of_environment())
    readers_only = Depends(requires_access_dag("GET", DagAccessEntity.RUN, TRAINED_BY))
    app = FastAPI(title="Chest X-rays", docs_url=None, redoc_url=None, openapi_url=None, dependencies=[readers_only])

    @app.exception_handler(HTTPException)
    def refused(_: Request, error: HTTPException) -> Response:
        sentence = WHY_REFUSED.get(error.status_code, "There is no such page.")
        return HTMLResponse(render_refusal(sentence), error.status_code, HEADERS)

    @app.get("/")
    def overview(user: GetUserDep, session: SessionDep, run: str = "") -> Response:
        # Part by part, and not packed: what Airflow knows is there at once, also where MLflow takes its time.
        parts = render_parts(asks.visit(airflow_facts(session, user), run))
        return StreamingResponse(parts, media_type="text/html", headers=HEADERS | {"Content-Encoding": "identity"})

    @app.get("/now")
    def now(user: GetUserDep, session: SessionDep) -> Response:
        return HTMLResponse(render_part(asks.under_way(airflow_facts(session, user))), headers=HEADERS)

    @app.get("/samples/{run_id}/{name}.png")
    def samples(run_id: str, name: str) -> Response:
        try:
            found = sample_grid_png(asks.mlflow, run_id, name)
        except MlflowAwayError as error:
            raise HTTPException(503) from error
        if found is None:
            raise HTTPException(404)
        return Response(found, media_type="image/png", headers=KEPT)

    @app.get("/static/{name}")
    def static(name: str) -> Response:
        found = static_file(name)
        if found is None:
            raise HTTPException(404)
        return Response(found, media_type=STATIC[name], headers=KEPT)

    return app
