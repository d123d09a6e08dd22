"""What Airflow's pages say of a task in a line."""

from __future__ import annotations

import pytest

from cxr_tasks.artifacts import (
    Challenge,
    Decision,
    Features,
    Gan,
    KeptChampion,
    Manifest,
    Promotion,
    TrainedArm,
    TrainedModel,
    Training,
)
from cxr_tasks.registry.champions import Condition
from cxr_tasks.steps import RolledBack, task_label, task_result
from tests.hostile import MARKUP

ARM = Training(classifier="vgg16", arm="synthetic", seed=0)
MODEL = TrainedModel(training=ARM, epochs=1, steps=1, train_images=8, weights_digest="")
TRAINED = TrainedArm(model=MODEL, validation_macro_f1=0.93, test_macro_f1=0.944, test_accuracy=0.95)


@pytest.mark.parametrize(
    ("given", "label"),
    [
        ({"arm": ARM}, "VGG16 · synthetic · seed 0"),
        ({"arm": ARM.model_dump()}, "VGG16 · synthetic · seed 0"),
        ({"pair": {**ARM.model_dump(), "against": "none"}}, "VGG16 · synthetic against none · seed 0"),
        ({"backbone": "resnet50"}, "ResNet50"),
        ({"backbone": "mine"}, "mine"),
        ({"shard": 0}, "shard 1"),
        ({"name": MARKUP[0]}, MARKUP[0]),
        # What a task before it has not made.
        ({"comparison": None}, ""),
        ({"run": {}}, ""),
    ],
)
def test_an_instance_is_called_by_what_it_works_on(given, label):
    assert task_label(given) == label


def decision(name, *, passes=False, is_new=False, against="", alias="challenger"):
    return Decision(
        name=name, version="2", alias=alias, arm="x", validation_macro_f1=0.944, decision="It.", passes=passes,
        is_new=is_new, against=against, conditions=(Condition(about="x", passed=passes, words="x"),),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        (TRAINED, "test macro F1 0.94"),
        (TRAINED.model_copy(update={"reused": True}), "test macro F1 0.94, taken as it was"),
        (Gan(finished=False, steps=1200, epochs=9, images=4, resumed_from=0, hours=0.5), "1,200 steps in 30 min, not"),
        (
            Manifest(images={"a": 1000, "b": 1}, rejected=2, near_duplicates=0, masks=0, shards=()),
            "1,001 images, 2 set",
        ),
        (Features(backbone="x", computed=3, found=4), "3 images run, 4 known"),
        (Challenge(decisions=()), "nothing to rule on"),
        (
            Challenge(decisions=(decision("cxr-cnn", passes=True), decision("cxr-overall"))),
            "validation macro F1 0.94, 1 of 2 models pass the gate",
        ),
        (KeptChampion(decisions=(decision("cxr-overall", against="1"),)), "validation macro F1 0.94, champion stays"),
        (KeptChampion(decisions=(decision("cxr-overall"),)), "validation macro F1 0.94, no champion"),
        (
            Promotion(decisions=(decision("cxr-overall", is_new=True), decision("cxr-cnn"))),
            "validation macro F1 0.94, 1 of 2 models have a new champion",
        ),
        (
            RolledBack(name="cxr-cnn", version="1", words=f"Champion again.\n{MARKUP[0]}"),
            f"Champion again. {MARKUP[0]}",
        ),
        (["a", "list"], ""),
        ({"run": 1}, ""),
        (None, ""),
    ],
)
def test_a_result_is_a_line(returned, words):
    told = task_result(returned)

    assert told.startswith(words) and "\n" not in told and bool(told) == bool(words)


def test_a_long_result_is_cut():
    assert len(task_result(RolledBack(name="x", version="1", words="long " * 99))) <= 120
