"""What the project adds to Airflow's pages. Read by every Airflow process, so it imports no ML library."""

from __future__ import annotations

import os

from airflow.plugins_manager import AirflowPlugin

MLFLOW = os.environ.get("CXR_MLFLOW_UI") or os.environ.get("MLFLOW_TRACKING_URI", "")


class CxrPlugin(AirflowPlugin):
    """A way from Airflow's menu to MLflow, where MLflow has pages."""

    name = "cxr"
    external_views = [{"name": "MLflow", "href": MLFLOW, "destination": "nav"}] if MLFLOW.startswith("http") else []
