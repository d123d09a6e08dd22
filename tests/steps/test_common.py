"""What tells contents apart: weights by their file, tables by their cells, backbones by what they see."""

import hashlib

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr_tasks import precision
from cxr_tasks.artifacts import Dataset
from cxr_tasks.config import merge, resolve
from cxr_tasks.steps import common
from cxr_tasks.steps.common import backbone_identity, digest, flat, of_backbone, weights_identity
from tests.steps import handles

tables = st.lists(st.tuples(st.text(max_size=3), st.integers(0, 3)), min_size=1, max_size=4)


def identity(name: str, **overrides):
    dataset = Dataset(
        ref=overrides.pop("dataset", "split/a"),
        version="a",
        counts={},
        shards=(),
        source="",
        warnings=(),
        data_docs="",
    )
    return backbone_identity(resolve("quick", merge(handles.SMALL, overrides)), dataset, name)


@pytest.mark.parametrize("here", ["float32", "bfloat16"])
def test_features_are_named_by_the_precision_that_this_machine_computes_in(monkeypatch, here):
    monkeypatch.setattr(precision, "_of_gpus", lambda otherwise: here)

    alike = [identity("vgg16", classifiers={"precision": asked}) for asked in ("auto", here)]

    assert alike[0] == alike[1] and alike[0]["precision"] == here


def test_weights_are_told_apart_by_their_content_and_not_by_their_name(tmp_path):
    first, same, other = (tmp_path / name for name in ("first.h5", "same.h5", "other.h5"))
    first.write_bytes(b"weights")
    same.write_bytes(b"weights")
    other.write_bytes(b"others")

    assert weights_identity(str(first)) == weights_identity(str(same)) != weights_identity(str(other))
    assert [weights_identity(word) for word in ("imagenet", "random", None)] == ["imagenet", "random", "none"]
    assert weights_identity("/nowhere.h5") == "/nowhere.h5"


def test_a_network_that_is_trained_whole_has_no_features():
    assert identity("cnn") == {}


@pytest.mark.parametrize(
    "change",
    [
        {"seeds": {"backbones": 1}},
        {"dataset": "split/b"},
        {"classifiers": {"image_size": 48}},
        {"classifiers": {"scaling": "imagenet"}},
        {"classifiers": {"precision": "bfloat16"}},
        {"classifiers": {"weights": {"vgg16": "imagenet"}}},
    ],
)
def test_what_changes_random_features_changes_their_name(change):
    assert identity("vgg16", **change) != identity("vgg16")


def test_pretrained_features_belong_to_no_dataset_and_no_seed():
    pretrained = {"classifiers": {"weights": {"vgg16": "imagenet"}}}

    other = identity("vgg16", **pretrained, dataset="split/b", seeds={"backbones": 1})
    assert other == identity("vgg16", **pretrained)


def test_how_long_heads_are_trained_changes_no_features():
    assert identity("vgg16", classifiers={"epochs": 9, "batch_size": 8}) == identity("vgg16")


@given(tables, tables)
def test_tables_are_told_apart_by_their_cells_and_not_by_their_index(one, other):
    first, second = (pd.DataFrame(rows, columns=["path", "number"]) for rows in (one, other))

    assert (digest(first) == digest(second)) == (one == other)
    assert digest(first.set_axis(range(5, 5 + len(first)))) == digest(first) and len(digest(first)) == 20


def test_handles_of_mapped_tasks_come_without_what_was_skipped():
    vgg16, resnet50 = handles.features("vgg16"), handles.features("resnet50")

    assert list(flat([[vgg16, None], None, [], [resnet50]])) == [vgg16, resnet50]
    assert of_backbone([[vgg16, None], [resnet50]], "resnet50") == [resnet50]


def test_the_digest_of_a_table_is_that_of_its_rows_however_many_are_hashed_at_once(monkeypatch):
    rng = np.random.default_rng(0)
    names = rng.choice(["é", "Z", "a", "Ω", "aa", ""], 500)
    table = pd.DataFrame({"name": names, "size": rng.integers(0, 3, 500), "odd": rng.choice([True, False], 500)})

    def plain(rows):
        return hashlib.sha256(pd.util.hash_pandas_object(rows, index=False).to_numpy().tobytes()).hexdigest()[:20]

    for at_once in (7, 500, 1000):
        monkeypatch.setattr(common, "ROWS_HASHED_AT_ONCE", at_once)
        assert common.digest(table) == plain(table)
        assert common.digest(table, list(table)) == plain(table.sort_values(list(table)))
        assert common.digest(table[:0], list(table)) == plain(table[:0])
