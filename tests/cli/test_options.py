"""Settings by hand, profiles, and the places that steps work with."""

import os

import pytest
import yaml

from cxr_tasks.cli.options import set_overrides, use_mlflow, use_store
from cxr_tasks.config import profile_names, resolve
from cxr_tasks.errors import UserError
from cxr_tasks.layouts import layout_names


def test_settings_by_hand_are_nested_and_typed():
    given = [
        "gan.epochs=2",
        "classifiers.names=[cnn, vgg16]",
        "gan.ema=null",
        "data.split.method=paper",
        "gan.xla=true",
    ]

    assert set_overrides(given) == {
        "gan": {"epochs": 2, "ema": None, "xla": True},
        "classifiers": {"names": ["cnn", "vgg16"]},
        "data": {"split": {"method": "paper"}},
    }
    assert set_overrides(None) == {}


@pytest.mark.parametrize("given", ["gan.epochs", "=2", "gan.=2", "gan.epochs=[1"])
def test_what_is_no_setting_is_named(given):
    with pytest.raises(UserError, match=r"--set .*such as"):
        set_overrides([given])


def test_profiles_are_listed_and_printed_in_full(cxr):
    listed, printed = cxr("profiles"), cxr("profiles", "quick", "--set", "gan.epochs=3")

    assert all(name in listed.stdout for name in (*profile_names(), *layout_names()))
    assert yaml.safe_load(printed.stdout) == resolve("quick", {"gan": {"epochs": 3}}).model_dump(mode="json")


def test_a_printed_profile_is_a_profile(cxr, tmp_path):
    (tmp_path / "mine.yaml").write_text(cxr("profiles", "paper").stdout)

    assert cxr("profiles", "mine.yaml").exit_code == 0


def test_a_store_is_the_same_from_every_folder(cxr, tmp_path):
    use_store("here")
    assert os.environ["CXR_STORE"] == str(tmp_path / "here")
    use_store("s3://bucket/prefix")
    assert os.environ["CXR_STORE"] == "s3://bucket/prefix"


def test_without_an_address_nothing_is_tracked(cxr):
    use_mlflow("")
    assert os.environ["CXR_MLFLOW"] == "off"
    use_mlflow("sqlite:///runs.db")
    assert "CXR_MLFLOW" not in os.environ and os.environ["MLFLOW_TRACKING_URI"] == "sqlite:///runs.db"


def test_an_mlflow_server_that_does_not_answer_is_named_at_once(cxr):
    done = cxr("train-gan", "anywhere", "--mlflow", "http://127.0.0.1:9")

    assert done.exit_code == 2
    assert done.stderr.startswith("Error: MLflow does not answer at http://127.0.0.1:9")
