"""Addresses in settings mean the same from every folder, or are refused before anything is read."""

from pathlib import Path

import pytest
import yaml

from cxr_tasks import steps
from cxr_tasks.addresses import check_whole, whole_addresses
from cxr_tasks.config import merge, resolve
from cxr_tasks.errors import SettingsError

RELATIVE = {
    "data": {
        "sources": [{"name": "a", "source": "sites/a"}, {"name": "b", "source": "s3://bucket/b"}],
        "external": [{"name": "far", "source": "../far"}],
    },
    "synthetic": {"source": "drawn"},
    "classifiers": {"weights": {"default": "random", "vgg16": "weights/vgg16.h5"}},
    "judge": {"weights": "resnet50.h5"},
}


def addresses(settings):
    data = settings.data
    return [
        *(each.source for each in (*data.sources, *data.external)),
        settings.synthetic.source,
        *settings.classifiers.weights.values(),
        settings.judge.weights,
    ]


def whole(folder: Path) -> list[str]:
    below = [folder / "sites/a", "s3://bucket/b", folder.parent / "far", folder / "drawn", "random"]
    return [str(each) for each in (*below, folder / "weights/vgg16.h5", folder / "resnet50.h5")]


def test_paths_in_a_profile_count_from_its_folder(tmp_path, monkeypatch):
    place = tmp_path / "profiles"
    place.mkdir()
    shipped = yaml.safe_load(Path("cxr_tasks/profiles/quick.yaml").read_text())
    (place / "mine.yaml").write_text(yaml.safe_dump(merge(shipped, RELATIVE)))
    monkeypatch.chdir(tmp_path)

    for profile in ("profiles/mine.yaml", str(place / "mine.yaml")):
        settings = resolve(profile)
        assert addresses(settings) == whole(place)
        check_whole(settings.model_dump(mode="json"))


def test_paths_that_are_typed_count_from_a_folder_and_shipped_profiles_name_none(tmp_path):
    assert addresses(resolve("quick", whole_addresses(RELATIVE, tmp_path))) == whole(tmp_path)
    for profile in ("quick", "paper"):
        check_whole(resolve(profile).model_dump(mode="json"))


@pytest.mark.parametrize(
    ("setting", "change"),
    [
        ("The source 'a' of data.sources", {"data": {"sources": RELATIVE["data"]["sources"]}}),
        ("The source 'far' of data.external", {"data": {"external": RELATIVE["data"]["external"]}}),
        ("synthetic.source", {"synthetic": RELATIVE["synthetic"]}),
        ("classifiers.weights.vgg16", {"classifiers": RELATIVE["classifiers"]}),
        ("judge.weights", {"judge": RELATIVE["judge"]}),
    ],
)
def test_the_first_task_refuses_a_path_that_is_another_place_in_each_folder(setting, change, monkeypatch, tmp_path):
    monkeypatch.setenv("CXR_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("CXR_MLFLOW", "off")

    with pytest.raises(SettingsError, match=rf"^{setting} is '[^']+', which is another place in each folder, .*\.$"):
        steps.configure("cxr_data", "run", {"profile": "quick", "settings": change})


def test_what_is_no_address_is_left_to_the_check_of_the_settings(tmp_path):
    odd = {"data": {"sources": ["a", {"name": "b"}], "external": 3}, "judge": None, "classifiers": {"weights": []}}

    assert whole_addresses(odd, tmp_path) == odd
