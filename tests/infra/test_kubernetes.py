"""The stack on Kubernetes, checked without a cluster: against Kubernetes' own types, Airflow's chart, and compose.

What is read by the chart is held against an excerpt of its schema. What is read by Kubernetes goes through the types of
its client, which forget what they do not know.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from infra.containers import DRAWN
from tests.infra.compose import ROOT, SERVICES, example, resolve
from tests.infra.manifests import (
    CLOSED,
    ENVIRONMENT,
    FOLDER,
    KUSTOMIZATION,
    OTHERWISE,
    OWN,
    POD,
    VALUES,
    as_on_kubernetes,
    containers,
    env_of,
    manifests,
    of_the_chart,
    read_back,
    workload,
)

TYPES = {
    "ConfigMap": "V1ConfigMap",
    "Deployment": "V1Deployment",
    "PersistentVolumeClaim": "V1PersistentVolumeClaim",
    "Pod": "V1Pod",
    "Service": "V1Service",
    "StatefulSet": "V1StatefulSet",
}


# --- Kubernetes' types ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("each", [*manifests(), POD], ids=lambda each: f"{each['kind']} {each['metadata']['name']}")
def test_kubernetes_knows_every_name_in_our_objects(each):
    assert read_back(each, TYPES[each["kind"]]) == each


def test_kubernetes_knows_what_the_chart_hands_on_to_it():
    pod = {
        "securityContext": VALUES["securityContexts"]["pod"],
        "volumes": VALUES["volumes"] + VALUES["workers"]["extraVolumes"],
        "containers": [
            {
                "name": "all",
                "securityContext": VALUES["securityContexts"]["containers"],
                "volumeMounts": VALUES["volumeMounts"] + VALUES["workers"]["extraVolumeMounts"],
                "env": [
                    *yaml.safe_load(VALUES["extraEnv"]),
                    *VALUES["migrateDatabaseJob"]["env"],
                    *VALUES["workers"]["env"],
                ],
                "envFrom": yaml.safe_load(VALUES["extraEnvFrom"]),
                "resources": VALUES[service]["resources"],
            }
            for service in ("apiServer", "scheduler", "dagProcessor", "triggerer", "workers")
        ],
    }

    assert read_back(pod, "V1PodSpec") == pod


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_kustomize_puts_everything_into_one_namespace():
    done = subprocess.run(["kubectl", "kustomize", str(ROOT / "infra")], capture_output=True, text=True, check=True)
    rendered = list(yaml.safe_load_all(done.stdout))

    assert {each["metadata"]["namespace"] for each in rendered} == {KUSTOMIZATION["namespace"]}
    assert len(rendered) == len(manifests()) + len(KUSTOMIZATION["configMapGenerator"])
    for each in rendered:
        assert read_back(each, TYPES[each["kind"]]) == each
    (scripts,) = [each for each in rendered if each["metadata"]["name"].startswith("cxr-scripts-")]
    assert scripts["data"]["s3.sh"] == (ROOT / "infra/s3/start.sh").read_text(encoding="utf-8")
    assert scripts["metadata"]["name"] in done.stdout.split("kind: Deployment")[1]


# --- The chart ------------------------------------------------------------------------------------------------


def chart_schema() -> dict[str, Any]:
    return json.loads((Path(__file__).parent / "airflow_chart.schema.json").read_text(encoding="utf-8"))


def test_the_chart_takes_our_values():
    jsonschema.Draft7Validator.check_schema(chart_schema())
    jsonschema.validate(VALUES, chart_schema(), jsonschema.Draft7Validator)


@pytest.mark.parametrize(
    "change", [{"executor": "celery"}, {"workers": {"replica": 1}}, {"extraEnv": [{"name": "A", "value": "b"}]}]
)
def test_the_chart_refuses_what_it_does_not_know(change):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**VALUES, **change}, chart_schema(), jsonschema.Draft7Validator)


def test_probes_call_a_script_that_the_image_has():
    """The probes of the chart call /entrypoint, which is only in Airflow's own images."""
    jobs = {
        "scheduler": "SchedulerJob",
        "dagProcessor": "DagProcessorJob",
        "triggerer": "TriggererJob",
        "workers": "worker",
    }
    for service, job in jobs.items():
        for probe in {"livenessProbe", "startupProbe"} & VALUES[service].keys():
            assert VALUES[service][probe]["command"] == ["python", "/opt/cxr/infra/airflow/healthy.py", job], service
        assert VALUES[service]["logGroomerSidecar"] == {"enabled": False}, service
    assert "startupProbe" in VALUES["scheduler"]
    for service in ("migrateDatabaseJob", "workers"):
        script = VALUES[service]["args"][1]
        assert (ROOT / script.removeprefix("/opt/cxr/")).is_file(), script


def test_no_file_holds_a_secret_and_the_chart_makes_none():
    referenced = set()
    for path in FOLDER.glob("*.yaml"):
        text = path.read_text(encoding="utf-8")
        assert "kind: Secret" not in text and "stringData" not in text, path
        referenced |= {name for name in DRAWN if f"key: {name}}}" in text or f"secretKey: {name}}}" in text}
    # There is no manifest of the service `serving` yet.
    assert referenced == set(DRAWN) - {"SERVING_TOKEN"}
    assert not any(VALUES["enableBuiltInSecretEnvVars"].values())
    named = [*VALUES["data"].values(), *(value for key, value in VALUES.items() if key.endswith("SecretName"))]
    assert set(named) == {"cxr-env"} and len(named) == 7
    assert not any(VALUES[service]["defaultUser"]["enabled"] for service in ("apiServer", "webserver"))
    assert not any(VALUES[part]["enabled"] for part in ("postgresql", "redis", "statsd"))


def test_the_chart_leaves_the_template_of_pods_as_it_is():
    """The chart reads it as a template of its own."""
    assert "{{" not in (FOLDER / "pod_template.yaml").read_text(encoding="utf-8")


# --- Against docker-compose.yaml ------------------------------------------------------------------------------


def test_pods_of_airflow_read_what_its_services_read():
    assert of_the_chart() == as_on_kubernetes("scheduler")
    assert set(OTHERWISE) <= set(ENVIRONMENT)


def test_the_pod_of_a_task_reads_what_a_step_reads_and_no_key_of_airflow():
    (container,) = POD["spec"]["containers"]
    assert container["envFrom"] == [{"configMapRef": {"name": "cxr-environment"}}]
    own = {**ENVIRONMENT, **env_of(container["env"])}
    threads = {"TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"}

    # The executors' names too: a DAG that names one which the pod does not know cannot be read there.
    differs = own.keys() ^ of_the_chart().keys()
    assert differs - threads == {
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN",
        "AIRFLOW__CELERY__RESULT_BACKEND",
        "AIRFLOW__CELERY__BROKER_URL",
        "AIRFLOW__CORE__FERNET_KEY",
        "AIRFLOW__API__SECRET_KEY",
        "AIRFLOW__API_AUTH__JWT_SECRET",
    }
    assert all(own[name] == value for name, value in of_the_chart().items() if name in own)


@pytest.mark.parametrize("service", OWN)
def test_our_services_read_what_those_of_compose_read(service):
    last = workload(service)["containers"][-1]
    added = {"PGDATA", "MLFLOW_DB_PASSWORD"} - SERVICES[service]["environment"].keys()

    given = {name: value for name, value in env_of(last["env"]).items() if name not in added}
    assert given == as_on_kubernetes(service)


def test_the_job_that_prepares_the_database_knows_the_administrator():
    only = {name: value for name, value in as_on_kubernetes("airflow-init").items() if "ADMIN" in name}

    assert env_of(VALUES["migrateDatabaseJob"]["env"]) == only


def test_images_commands_and_limits_are_those_of_compose():
    version = example()["CXR_VERSION"]
    for name in OWN:
        pod, service = workload(name), SERVICES[name]
        last = pod["containers"][-1]
        assert last["image"] == resolve(service["image"], example()), name
        limit = resolve(service["mem_limit"], example())
        assert last["resources"]["limits"]["memory"] == limit.upper() + "i", name
        if "user" in service:
            assert f"{pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}" == service["user"]
    assert workload("postgres")["containers"][0]["args"] == SERVICES["postgres"]["command"]
    assert VALUES["defaultAirflowRepository"] == "cxr-airflow" and VALUES["defaultAirflowTag"] == version
    mlflow = [resolve(part, example()) for part in SERVICES["mlflow"]["command"]]
    assert workload("mlflow")["containers"][0]["args"] == mlflow
    assert workload("mlflow")["initContainers"][0]["args"] == [example()["S3_BUCKET"]]
    concurrency = resolve(SERVICES["worker-cpu"]["command"][-1], example())
    assert VALUES["workers"]["args"][2:] == ["--queues", "default", "--concurrency", concurrency]


def test_nothing_runs_as_root_gains_rights_or_writes_to_its_image():
    pods = [*map(workload, OWN), POD["spec"]]
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"] is True and pod["securityContext"]["runAsUser"] > 0
        assert pod["automountServiceAccountToken"] is False and pod["enableServiceLinks"] is False
        for container in containers(pod):
            assert container["securityContext"] == CLOSED, container["name"]
            assert container["resources"]["requests"] and container["resources"]["limits"]["memory"]
            # Where programs write although the image cannot be written.
            assert "/tmp" in {mount["mountPath"] for mount in container["volumeMounts"]}
    assert VALUES["securityContexts"] == {"pod": POD["spec"]["securityContext"], "containers": CLOSED}


def test_all_services_that_stay_are_probed():
    for name in OWN:
        for container in workload(name)["containers"]:
            assert {"livenessProbe", "readinessProbe"} <= container.keys(), name
            # A server on a busy host is late.
            probes = [probe for what, probe in container.items() if what.endswith("Probe")]
            assert {probe["timeoutSeconds"] for probe in probes} == {30}, name


def test_volumes_are_claimed_and_scripts_are_there():
    claims = {each["metadata"]["name"] for each in manifests() if each["kind"] == "PersistentVolumeClaim"}
    asked = [*POD["spec"]["volumes"], *VALUES["workers"]["extraVolumes"]]
    named = {volume["persistentVolumeClaim"]["claimName"] for volume in asked if "persistentVolumeClaim" in volume}
    assert named == claims and VALUES["logs"]["persistence"]["existingClaim"] in claims

    (generated,) = KUSTOMIZATION["configMapGenerator"]
    files = dict(file.split("=") for file in generated["files"])
    for name in OWN:
        pod = workload(name)
        mounts = [mount for container in containers(pod) for mount in container["volumeMounts"]]
        assert {mount["name"] for mount in mounts} <= {volume["name"] for volume in [*pod["volumes"], {"name": "data"}]}
        assert {mount["subPath"] for mount in mounts if "subPath" in mount} <= set(files)
    assert all((ROOT / "infra" / path).is_file() for path in files.values())
