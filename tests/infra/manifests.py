"""What infra/kubernetes holds, as Kubernetes and Airflow's chart read it."""

from __future__ import annotations

import json
import re
from typing import Any

import yaml
from kubernetes import client

from tests.infra.compose import ROOT, SERVICES, example, filled, resolve

FOLDER = ROOT / "infra/kubernetes"


def parsed(name: str) -> Any:
    return yaml.safe_load((ROOT / "infra" / name).read_text(encoding="utf-8"))


VALUES, POD = parsed("kubernetes/values.yaml"), parsed("kubernetes/pod_template.yaml")
ENVIRONMENT, KUSTOMIZATION = parsed("kubernetes/environment.yaml")["data"], parsed("kustomization.yaml")
# Services of docker-compose.yaml that Kubernetes runs by manifests of ours.
OWN = {"postgres": "StatefulSet", "redis": "StatefulSet", "seaweedfs": "StatefulSet", "mlflow": "Deployment"}
# What compose says otherwise; environment.yaml tells why.
OTHERWISE = {
    "AIRFLOW__CORE__EXECUTOR": VALUES["executor"],
    "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": "http://airflow-api-server:8080/execution/",
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "3600",
    "CXR_GPU_QUEUE": "gpu",
}
CLOSED = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}


def manifests() -> list[dict[str, Any]]:
    """Every object that kustomization.yaml lists."""
    texts = [(ROOT / "infra" / name).read_text(encoding="utf-8") for name in KUSTOMIZATION["resources"]]
    return [each for text in texts for each in yaml.safe_load_all(text)]


def read_back(value: Any, kind: str) -> Any:
    """What Kubernetes' client makes of ``value``, as plain data: names that it does not know are gone."""
    answer = type("Answer", (), {"data": json.dumps(value)})
    api = client.ApiClient()
    return api.sanitize_for_serialization(api.deserialize(answer, kind))


def workload(name: str) -> dict[str, Any]:
    """The pod of a service of ours."""
    (found,) = [each for each in manifests() if each["kind"] == OWN[name] and each["metadata"]["name"] == name]
    return found["spec"]["template"]["spec"]


def containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    return [*pod.get("initContainers", []), *pod["containers"]]


def env_of(listed: list[dict[str, Any]]) -> dict[str, str]:
    """Variables as Kubernetes sets them, each secret as compose's tests fill it in."""
    found: dict[str, str] = {}
    for each in listed:
        if "value" in each:
            found[each["name"]] = re.sub(r"\$\((\w+)\)", lambda match: found[match[1]], each["value"])
        else:
            reference = each["valueFrom"]["secretKeyRef"]
            assert reference["name"] == "cxr-env"
            found[each["name"]] = filled()[reference["key"]]
    return found


def of_the_chart() -> dict[str, str]:
    """The variables of a pod of the chart."""
    secret = [
        {"name": each["envName"], "valueFrom": {"secretKeyRef": {"name": each["secretName"], "key": each["secretKey"]}}}
        for each in VALUES["secret"]
    ]
    own = {**ENVIRONMENT, **env_of([*secret, *yaml.safe_load(VALUES["extraEnv"])])}
    return {name: value for name, value in own.items() if name not in ("AIRFLOW_DB_PASSWORD", "REDIS_PASSWORD")}


def as_on_kubernetes(service: str) -> dict[str, str]:
    """The variables of a service of compose, with what Kubernetes says otherwise."""
    # What has a default in compose has it here too.
    values = {**filled(), **{name: value for name, value in example().items() if value}}
    empty = {
        "CXR_DATA_SCHEDULE": "",
        "CXR_TRAINING_SCHEDULE": "",
        "CXR_MONITOR_SCHEDULE": "",
        "CXR_CLEANUP_SCHEDULE": "",
        "CXR_NOTIFY": "",
        "CXR_SERVING": "",
        "SERVING_TOKEN": "",
    }
    given = {name: resolve(value, {**values, **empty}) for name, value in SERVICES[service]["environment"].items()}
    return {name: OTHERWISE.get(name, value) for name, value in given.items()}
