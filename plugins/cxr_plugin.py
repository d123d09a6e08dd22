"""What the project adds to Airflow's pages. Read by every Airflow process, so it imports no ML library."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from airflow.plugins_manager import AirflowPlugin

_GIVEN = urlsplit(os.environ.get("CXR_MLFLOW_UI") or os.environ.get("MLFLOW_TRACKING_URI", ""))
# Everybody sees the address: a password in it is left out.
MLFLOW = _GIVEN._replace(netloc=_GIVEN.netloc.rpartition("@")[2]).geturl()


class CxrPlugin(AirflowPlugin):
    """A way from Airflow's menu to MLflow, where MLflow has pages."""

    name = "cxr"
    external_views = [{"name": "MLflow", "href": MLFLOW, "destination": "nav"}] if MLFLOW.startswith("http") else []
