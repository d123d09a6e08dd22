"""The bills of materials name what the images hold, have the fields that CycloneDX 1.5 asks for, and never change by
themselves."""

import json
import platform
import re
import uuid
from importlib import metadata

import pytest

from infra.sbom import BUILT_IMAGES, bill_of, locked_packages, write_bills
from tests.infra.compose import ROOT, SERVICES

# https://cyclonedx.org/docs/1.5/json/: the types of a component.
TYPES = {
    *("application", "framework", "library", "container", "platform", "operating-system", "device", "device-driver"),
    *("firmware", "file", "machine-learning-model", "data"),
}


@pytest.mark.parametrize("image", BUILT_IMAGES)
def test_a_bill_has_the_fields_of_its_format(image):
    bill = bill_of(image)

    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.5") and bill["version"] >= 1
    assert re.fullmatch(r"urn:uuid:[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}", bill["serialNumber"])
    assert uuid.UUID(bill["serialNumber"].rpartition(":")[2])
    components = [bill["metadata"]["component"], *bill["components"]]
    for each in components:
        assert each["type"] in TYPES and each["name"] and each["version"]
        assert re.fullmatch(r"pkg:(pypi|docker)/[\w.-]+@[\w.+!-]+", each["purl"])
    references = [each["bom-ref"] for each in components]
    assert len(set(references)) == len(references)


def test_a_bill_names_what_is_installed():
    """This environment is installed from the same lock file."""
    named = {
        each["name"]: each["version"] for each in locked_packages(["requirements.lock"], platform.python_version())
    }

    assert len(named) > 150
    assert {name: metadata.version(name) for name in named} == named


@pytest.mark.parametrize("image", BUILT_IMAGES)
def test_a_bill_holds_the_base_image_and_every_lock_file(image):
    dockerfile, locks = BUILT_IMAGES[image]
    named = [(each["name"], each["version"]) for each in bill_of(image)["components"]]
    content = "".join((ROOT / lock).read_text(encoding="utf-8") for lock in locks)

    base = re.search(r"^FROM (\S+):(\S+)", (ROOT / dockerfile).read_text(encoding="utf-8"), re.MULTILINE)
    assert named[0] == base.groups()
    # Packages of other systems are no part of the image.
    unconditional = re.findall(r"^([a-z0-9][\w.-]*)==([^ ;\\]+) \\$", content, re.MULTILINE)
    assert len(unconditional) > 150 and set(unconditional) < set(named)
    assert ("cxr-mlops" in dict(named)) == (image != "cxr-mlflow")


def test_every_image_that_is_built_here_has_a_bill():
    built = {service["image"].split(":")[0] for service in SERVICES.values() if service["image"].startswith("cxr-")}

    assert built == set(BUILT_IMAGES)


def test_the_same_lock_files_give_the_same_bytes(tmp_path):
    for folder in ("a", "b"):
        write_bills(str(tmp_path / folder))
    written = sorted(path.name for path in (tmp_path / "a").iterdir())

    assert written == sorted(f"{image}.cdx.json" for image in BUILT_IMAGES)
    for name in written:
        content = (tmp_path / "a" / name).read_bytes()
        assert content == (tmp_path / "b" / name).read_bytes() and json.loads(content)["components"]
