"""Registers what the project adds to Airflow's pages. Parsed by every Airflow process, so it imports no ML."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin

from cxr_steps import MlflowRunLink, ReportLink


class CxrPlugin(AirflowPlugin):
    """Links from tasks to MLflow runs and reports."""

    name = "cxr"
    operator_extra_links = (MlflowRunLink(), ReportLink())
