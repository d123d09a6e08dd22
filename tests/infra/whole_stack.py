"""The stack of docker-compose.yaml with all that both DAGs need: Celery's stack, MLflow with passwords, and S3."""

from __future__ import annotations

from pathlib import Path

from tests.infra.celery_stack import CeleryStack
from tests.infra.compose import ROOT, environment


class WholeStack(CeleryStack):
    """The stack with MLflow and S3.

    Attributes:
        s3: The address of the S3 server.
    """

    def __init__(self, folder: Path, s3: str, dags: Path = ROOT / "dags", **variables: str) -> None:
        """Nothing is started yet. ``s3``: the address of the server. ``variables``: of every Airflow process."""
        self.s3 = s3
        given = {"CXR_PROFILE": "quick", "CXR_GPU_QUEUE": "gpu", "CXR_NOTIFY": ""}
        # Runs are only triggered.
        given |= {name: "" for name in environment("airflow-init") if name.endswith("_SCHEDULE")}
        super().__init__(folder, dags, **{**given, "AWS_ENDPOINT_URL_S3": s3, **variables})

    def start_others(self) -> None:
        """Start MLflow, and make the bucket."""
        self._once("bucket", ["python", str(ROOT / "infra/s3/create_bucket.py"), "cxr"], self.variables)
        self.start_mlflow()

    def start_mlflow(self) -> None:
        """Start MLflow, with what it holds."""
        self.serve_mlflow("s3://cxr/mlflow", MLFLOW_S3_ENDPOINT_URL=self.s3, AWS_ENDPOINT_URL_S3=self.s3)

    def variables_of_a_reader(self, cache: Path) -> dict[str, str]:
        """The variables by which a test itself reads the store and MLflow. ``cache``: of its own."""
        account = environment("mlflow")
        named = ("CXR_STORE", "AWS_ENDPOINT_URL_S3", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION")
        return {
            **{name: self.variables[name] for name in named},
            "CXR_CACHE": str(cache),
            "MLFLOW_TRACKING_URI": self.mlflow,
            "MLFLOW_TRACKING_USERNAME": account["MLFLOW_AUTH_ADMIN_USERNAME"],
            "MLFLOW_TRACKING_PASSWORD": account["MLFLOW_AUTH_ADMIN_PASSWORD"],
        }
