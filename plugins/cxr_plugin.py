"""What the project adds to Airflow's pages. Read by every Airflow process, so it imports no ML library."""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import urlsplit

from airflow.plugins_manager import AirflowPlugin

_GIVEN = urlsplit(os.environ.get("CXR_MLFLOW_UI") or os.environ.get("MLFLOW_TRACKING_URI", ""))
# Everybody sees the address: a password in it is left out.
MLFLOW = _GIVEN._replace(netloc=_GIVEN.netloc.rpartition("@")[2]).geturl()
# In the mode for trainings: by itself MLflow opens in that for language models.
MLFLOW_LIST = f"{MLFLOW.rstrip('/')}/#/experiments?workflowType=machine_learning"
# Below Airflow's own address, whatever that is.
PAGE_PATH = "cxr"


class CxrPlugin(AirflowPlugin):
    """The page "Chest X-rays" in Airflow's menu, and a way to MLflow, where MLflow has pages."""

    name = "cxr"
    external_views = [  # noqa: RUF012
        {
            "name": "Chest X-rays",
            "href": f"{PAGE_PATH}/",
            "url_route": "chest-x-rays",
            "destination": "nav",
            "nav_top_level": True,
            "icon": f"{PAGE_PATH}/static/icon.svg",
        },
        *([{"name": "MLflow", "href": MLFLOW_LIST, "destination": "nav"}] if MLFLOW.startswith("http") else []),
    ]

    @property
    def fastapi_apps(self) -> list[dict[str, Any]]:
        """The page. Only the API server asks for it, and only there is it imported."""
        from cxr_page import page_app

        return [{"app": page_app(), "url_prefix": f"/{PAGE_PATH}", "name": "Chest X-rays"}]
