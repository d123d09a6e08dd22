"""What an image holds, as a software bill of materials (CycloneDX 1.5): its base image and its locked packages.

``python infra/sbom.py FOLDER`` writes a file for each image. The same lock files give the same bytes. The packages of
Debian in the base image are not listed: that image's makers say what they are.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
# Each image with its Dockerfile and the lock files that are installed into it.
BUILT_IMAGES = {
    "cxr-mlflow": ("mlflow/Dockerfile", ("requirements.lock",)),
    "cxr-airflow": ("infra/images/airflow.Dockerfile", ("requirements.lock",)),
    "cxr-airflow-gpu": ("infra/images/airflow.Dockerfile", ("requirements.lock", "requirements-gpu.lock")),
}


def bill_of(image: str) -> dict[str, Any]:
    """The bill of materials of one of ``BUILT_IMAGES``, as CycloneDX's JSON has it."""
    dockerfile, locks = BUILT_IMAGES[image]
    own = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = re.search(r"^FROM (\S+):(\S+)", (ROOT / dockerfile).read_text(encoding="utf-8"), re.MULTILINE)
    if found is None:
        raise ValueError(f"{dockerfile} names no base image with a tag: write FROM name:tag.")
    base, tag = found.groups()
    components = [_component("container", base, tag, "docker"), *locked_packages(locks, tag.split("-")[0])]
    if image != "cxr-mlflow":
        components.append(_component("application", own["name"], own["version"], "pypi"))
    bill = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": _component("container", image, own["version"], "docker")},
        "components": components,
    }
    # A number that follows from the content, because a bill that changes tells of an image that changes.
    number = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(bill, sort_keys=True))
    return {**bill, "serialNumber": f"urn:uuid:{number}"}


def locked_packages(locks: Sequence[str], python: str) -> Iterator[dict[str, Any]]:
    """The packages that the lock files name for Linux on x86-64 and this version of Python, such as ``3.12.1``."""
    host = {
        "python_version": ".".join(python.split(".")[:2]),
        "python_full_version": python,
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
        "os_name": "posix",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }
    for lock in locks:
        for line in (ROOT / lock).read_text(encoding="utf-8").splitlines():
            if re.match(r"[a-zA-Z0-9]", line):
                package = Requirement(line.removesuffix("\\").strip())
                if package.marker is None or package.marker.evaluate(host):
                    yield _component("library", package.name, str(package.specifier).removeprefix("=="), "pypi")


def _component(kind: str, name: str, version: str, registry: str) -> dict[str, Any]:
    address = f"pkg:{registry}/{name}@{version}"
    return {"type": kind, "bom-ref": address, "name": name, "version": version, "purl": address}


def write_bills(folder: str) -> None:
    """Write the bills of all images into ``folder``."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    for image in BUILT_IMAGES:
        text = json.dumps(bill_of(image), indent=2)
        (Path(folder) / f"{image}.cdx.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    write_bills(*sys.argv[1:])
