"""As much of Kubernetes' API as Airflow's executor asks for: a pod is a process of this machine."""

from __future__ import annotations

import json
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from copy import deepcopy
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

from tests.servers import serving

DISCOVERED = {
    "version": {"major": "1", "minor": "33", "gitVersion": "v1.33.0"},
    "api": {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []},
    "apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": []},
    "api/v1": {
        "kind": "APIResourceList",
        "groupVersion": "v1",
        "resources": [{"name": "pods", "singularName": "pod", "namespaced": True, "kind": "Pod", "verbs": ["list"]}],
    },
}
LONGEST_WATCH_SECONDS = 30.0


class Cluster:
    """Pods, and what became of them.

    Attributes:
        variables: Of the process of a pod; ``POD`` is its name.
        pods: Those that are there, by name.
        seen: Every pod that was asked for, as it was asked for.
    """

    def __init__(self, variables: Mapping[str, str], folder: Path) -> None:
        """There is no pod yet. ``folder``: where pods write what they say."""
        self.variables, self.folder = variables, folder
        self.pods: dict[str, dict[str, Any]] = {}
        self.seen: list[dict[str, Any]] = []
        self.events: list[tuple[int, str, dict[str, Any]]] = []
        self.changed = threading.Condition()

    def create(self, pod: dict[str, Any]) -> dict[str, Any]:
        self.seen.append(deepcopy(pod))
        made = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        pod["metadata"] |= {"uid": str(uuid.uuid4()), "creationTimestamp": made}
        self.pods[pod["metadata"]["name"]] = pod
        self.tell("ADDED", pod, "Pending")
        threading.Thread(target=self._run, args=(pod,), daemon=True).start()
        return pod

    def tell(self, kind: str, pod: dict[str, Any], phase: str = "") -> None:
        """Let those who watch know; ``phase``: the pod's new one."""
        with self.changed:
            if phase:
                pod["status"] = {"phase": phase}
            pod["metadata"]["resourceVersion"] = str(len(self.events) + 1)
            self.events.append((len(self.events) + 1, kind, deepcopy(pod)))
            self.changed.notify_all()

    def _run(self, pod: dict[str, Any]) -> None:
        (container,), name = pod["spec"]["containers"], pod["metadata"]["name"]
        self.tell("MODIFIED", pod, "Running")
        with (self.folder / f"{name}.log").open("wb") as log:
            variables = {**self.variables, "POD": name}
            ended = subprocess.run(container["args"], env=variables, stdout=log, stderr=log, cwd="/", check=False)
        self.tell("MODIFIED", pod, "Failed" if ended.returncode else "Succeeded")


def fits(pod: dict[str, Any], query: Mapping[str, str]) -> bool:
    """Whether a pod is among those that selectors ask for."""
    facts = {**(pod["metadata"].get("labels") or {}), "status.phase": pod["status"]["phase"]}
    for selector in (query.get("labelSelector", ""), query.get("fieldSelector", "")):
        for each in filter(None, selector.split(",")):
            name, unlike, value = each.partition("!=") if "!=" in each else each.partition("=")
            if (facts.get(name) == value) == (unlike == "!="):
                return False
    return True


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    cluster: Cluster

    def log_message(self, *_: object) -> None:
        """Nothing is said of requests."""

    def do_GET(self) -> None:
        url = urlparse(self.path)
        path, query = url.path.strip("/"), {name: values[0] for name, values in parse_qs(url.query).items()}
        if path in DISCOVERED:
            self._answer(DISCOVERED[path])
        elif query.get("watch", "").lower() == "true":
            self._watch(query)
        elif path.endswith("/pods"):
            found = [pod for pod in self.cluster.pods.values() if fits(pod, query)]
            version = {"resourceVersion": str(len(self.cluster.events))}
            self._answer({"kind": "PodList", "apiVersion": "v1", "metadata": version, "items": found})
        else:
            self._answer(self._pod() or {"kind": "Status", "status": "Failure"}, 200 if self._pod() else 404)

    def do_POST(self) -> None:
        self._answer(self.cluster.create(self._body()), 201)

    def do_PATCH(self) -> None:
        pod, change = self._pod(), self._body()
        pod["metadata"].setdefault("labels", {}).update(change["metadata"].get("labels") or {})
        self.cluster.tell("MODIFIED", pod)
        self._answer(pod)

    def do_DELETE(self) -> None:
        self._body()
        if pod := self.cluster.pods.pop(self.path.rpartition("/")[2].partition("?")[0], None):
            self.cluster.tell("DELETED", pod)
        self._answer(pod or {"kind": "Status", "status": "Success"})

    def _pod(self) -> dict[str, Any]:
        return self.cluster.pods.get(self.path.rpartition("/")[2].partition("?")[0], {})

    def _body(self) -> dict[str, Any]:
        return json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")

    def _answer(self, body: object, status: int = 200) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _watch(self, query: Mapping[str, str]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        # A client reads an answer without parts as a whole.
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        with suppress(OSError):
            for kind, pod in self._news(query):
                line = json.dumps({"type": kind, "object": pod}).encode() + b"\n"
                self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
                self.wfile.flush()
            self.wfile.write(b"0\r\n\r\n")

    def _news(self, query: Mapping[str, str]) -> Iterator[tuple[str, dict[str, Any]]]:
        told = int(query.get("resourceVersion") or 0)
        deadline = time.monotonic() + float(query.get("timeoutSeconds") or LONGEST_WATCH_SECONDS)
        while time.monotonic() < deadline:
            with self.cluster.changed:
                new = self.cluster.events[told:]
                if not new:
                    self.cluster.changed.wait(1)
            for number, kind, pod in new:
                told = number
                if fits(pod, query):
                    yield kind, pod


def served(cluster: Cluster) -> AbstractContextManager[str]:
    """Serve a cluster; gives its address."""
    return serving(type("Handler", (_Handler,), {"cluster": cluster}))
