"""One seed is changed at a time: what it is for moves, and everything else stands still; nothing is trained."""

from collections.abc import Iterator
from importlib import import_module
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cxr_tasks import steps
from cxr_tasks.artifacts import Artifact, Comparison, RunContext, SyntheticSet, TrainedArm, TrainedModel, Training
from cxr_tasks.classifiers.networks import build_network
from cxr_tasks.classifiers.training_set import chosen_again
from cxr_tasks.config import SeedSettings, Settings, merge, resolve
from cxr_tasks.data.split import assign_splits
from cxr_tasks.evaluation.comparison import compare_predictions
from cxr_tasks.gan.sampling import build_synthetic_set
from cxr_tasks.gan.step import CovidGan
from cxr_tasks.pipeline import is_forced
from cxr_tasks.randomness import keyed
from cxr_tasks.steps.publish import _newest
from cxr_tasks.store import artifact_ref
from tests.steps import handles

RUN_OF: dict[str, Any] = {
    "classifiers": {"names": ["vgg16", "cnn"], "image_size": 48},
    "arms": {"baseline": "none", "compared": ["synthetic", "both", "oversample"]},
}
ONE_SEED = [name for name in SeedSettings.model_fields if name != "classifiers"]
SYNTHETIC, CONTROL = ("synthetic", "both"), ("oversample",)
HELD = [(arm, "none") for arm in (*SYNTHETIC, *CONTROL)] + [("synthetic", "oversample")]


class Keys:
    """Stands for ``perform``: notes the key of each artifact by the step's label, and makes nothing."""

    def __init__(self) -> None:
        self.found: dict[str, str] = {}

    def __call__(
        self, run: RunContext, kind: type[Artifact], fill: Any, *, settings: Any, inputs: Any, **how: Any
    ) -> Artifact:
        refs = {name: given if isinstance(given, str) else given.ref for name, given in inputs.items()}
        ref = artifact_ref(kind.step, how.get("version", 1), settings, refs)
        assert not is_forced(run, kind.step, inputs)
        trained = next((given for given in inputs.values() if isinstance(given, TrainedModel)), None)
        self.found[f"{kind.step} {how.get('label') or (trained.training.label if trained else '')}".strip()] = ref
        told = self._told(kind, settings, trained)
        made = {"finished": True, "epochs": 8, "passed": True, "forced": False, "reused": False, "weights_digest": ref}
        made["images_digest"] = ref
        return kind.model_construct(ref=ref, **made, **told)

    @staticmethod
    def _told(kind: type[Artifact], settings: Any, trained: TrainedModel | None) -> dict[str, Any]:
        """The fields that the next step reads."""
        if kind is TrainedArm:
            return {"model": trained}
        if kind is Comparison:
            return {"pair": None, "name": settings["name"]}
        if kind is TrainedModel:
            return {"training": Training(**{name: settings[name] for name in ("classifier", "arm", "seed")})}
        return {"counts": {}} if kind is SyntheticSet else {}


MODULES = ("train_gan", "judge", "synthesize", "extract_features", "train_arm", "reproduce_leak", "compare")


@pytest.fixture
def keys_of(untracked, monkeypatch: pytest.MonkeyPatch):
    """The keys of a whole training with these overrides, by what each step is called."""
    dataset = handles.dataset(sizes=(32, 48))

    def keys(overrides: dict[str, Any]) -> dict[str, str]:
        run, noted = handles.begin(merge(RUN_OF, overrides)), Keys()
        for name in MODULES:
            # The package has the step's function under the name of its module.
            monkeypatch.setattr(import_module(f"cxr_tasks.steps.{name}"), "perform", noted)
        gan = steps.train_gan(run, dataset)
        steps.judge(run, dataset, gan)
        made = steps.synthesize(run, dataset, gan)
        for name in steps.backbones(run):
            for synthetic in (None, made):
                steps.extract_features(run, dataset, name, synthetic)
        arms = [steps.train_arm(run, dataset, arm, made) for waits in (False, True) for arm in steps.arms(run, waits)]
        for pair in steps.pairs(run):
            steps.compare(run, dataset, pair, [arms])
        for leak in steps.leaks(run):
            steps.reproduce_leak(run, dataset, leak, made)
        return noted.found

    return keys


def moved(before: dict[str, str], after: dict[str, str]) -> set[str]:
    assert before.keys() == after.keys()
    return {name for name in before if before[name] != after[name]}


def of_arms(classifiers: tuple[str, ...], arms: tuple[str, ...], *, trained: bool = True) -> set[str]:
    """The steps that train and evaluate these arms, and compare what depends on them."""
    labels = {f"{name} {arm} seed 0" for name in classifiers for arm in arms}
    compared = {
        f"{name} {arm} against {against} seed 0"
        for name in classifiers
        for arm, against in HELD
        if {arm, against} & set(arms)
    }
    made = {f"train_arm {label}" for label in labels} if trained else set()
    return made | {f"evaluate_arm {label}" for label in labels} | {f"compare {label}" for label in compared}


BOTH, ALL = ("vgg16", "cnn"), ("none", *SYNTHETIC, *CONTROL)
LEAKS = {"reproduce_leak vgg16 seed 0 LEAKING", "reproduce_leak cnn seed 0 LEAKING"}
FEATURES = {"extract_features vgg16", "extract_features vgg16 synthetic"}
MOVED: dict[str, set[str]] = {
    "split": set(),
    "gan": {"train_gan", "judge", "synthesize", "extract_features vgg16 synthetic"} | of_arms(BOTH, SYNTHETIC) | LEAKS,
    "judge": {"judge"},
    "synthetic": {"synthesize"} | FEATURES | of_arms(BOTH, (*SYNTHETIC, *CONTROL)) | LEAKS,
    "backbones": FEATURES | of_arms(("vgg16",), ALL) | {"reproduce_leak vgg16 seed 0 LEAKING"},
    "bootstrap": of_arms(BOTH, ALL, trained=False),
}
LEAKING = {"evaluation": {"reproduce_leak": True}}


class TestKeys:
    def test_every_seed_is_here(self) -> None:
        assert list(MOVED) == ONE_SEED

    @pytest.mark.parametrize("seed", ONE_SEED)
    def test_a_seed_moves_what_it_is_for_and_what_follows_and_nothing_else(self, keys_of: Any, seed: str) -> None:
        before, after = (keys_of(LEAKING | {"seeds": {seed: number}}) for number in (0, 1))

        assert moved(before, after) == MOVED[seed]

    def test_another_seed_of_the_classifiers_is_further_trainings_beside_the_old_ones(self, keys_of: Any) -> None:
        before, after = (keys_of(LEAKING | {"seeds": {"classifiers": seeds}}) for seeds in ([0], [0, 1]))

        # A pair is named after its seed where there are several, and the name is on its plots.
        same = {name for name in before if not name.startswith("compare")}
        assert {name for name in same if before[name] != after[name]} == set()
        new = after.keys() - before.keys()
        assert len(new) == 2 * (4 + 4 + 4) + 2 and all("seed 1" in name for name in new)
        assert not {after[name] for name in new} & set(before.values())

    def test_only_the_seed_of_the_split_makes_another_dataset(self) -> None:
        names = {seed: _newest(chosen({"seeds": {seed: 1}})) for seed in ONE_SEED}

        assert {seed for seed, name in names.items() if name != _newest(chosen({}))} == {"split"}


def chosen(overrides: dict[str, Any]) -> Settings:
    return resolve("quick", merge(handles.SMALL, overrides))


@pytest.fixture(scope="module")
def pixels() -> Iterator[np.ndarray]:
    yield np.random.default_rng(0).integers(0, 256, (70, 32, 32)).astype(np.uint8)


class TestArrays:
    def test_the_split_deals_the_same_groups_otherwise(self) -> None:
        rows = handles.manifest_rows(0, handles.CLASSES, {"train": 60})
        settings = chosen({}).data.split

        one, again, other = (assign_splits(rows, settings, seed) for seed in (0, 0, 1))

        pd.testing.assert_frame_equal(one, again)
        pd.testing.assert_frame_equal(one.drop(columns="split"), other.drop(columns="split"))
        assert (one["split"] != other["split"]).any()
        counts = [each.groupby(["split", rows["label"]]).size() for each in (one, other)]
        assert counts[0].equals(counts[1])

    def test_the_synthetic_set_is_other_images_of_the_same_generator(self, networks: Any) -> None:
        settings, generator = chosen({}).gan, networks.generator
        counts = {"COVID": 4, "Normal": 0, "Viral Pneumonia": 3}
        before = generator.get_weights()

        one, again, other = (
            build_synthetic_set(generator, counts, settings, seed, "train_gan/a") for seed in (0, 0, 1)
        )

        np.testing.assert_array_equal(one.pixels, again.pixels)
        assert not (one.pixels == other.pixels).all(axis=(1, 2)).any()
        np.testing.assert_array_equal(one.labels, other.labels)
        assert one.ids.tolist() == again.ids.tolist() and not set(one.ids) & set(other.ids)
        assert all(np.array_equal(a, b) for a, b in zip(before, generator.get_weights(), strict=True))

    def test_the_control_arms_show_other_images_again_and_as_many(self, untracked: Any) -> None:
        train = handles.dataset().images("train", 32, handles.CLASSES)
        counts = {"COVID": 3, "Normal": 0, "Viral Pneumonia": 8}

        one, again, other = (chosen_again(train, counts, seed) for seed in (0, 0, 1))

        np.testing.assert_array_equal(one, again)
        assert one.tolist() != other.tolist()
        np.testing.assert_array_equal(train.labels[one], train.labels[other])

    def test_the_gan_begins_with_other_weights(self, networks: Any) -> None:
        again, other = (CovidGan(chosen({}).gan, 3, seed) for seed in (0, 1))

        for name in ("generator", "discriminator"):
            first, same, moved = (getattr(gan, name).get_weights() for gan in (networks, again, other))
            assert all(np.array_equal(a, b) for a, b in zip(first, same, strict=True))
            assert not all(np.array_equal(a, b) for a, b in zip(first, moved, strict=True))

    def test_the_bootstrap_gives_another_interval_of_the_same_difference(self, untracked: Any) -> None:
        dataset = handles.dataset()
        tables = [handles.predictions(dataset, seed) for seed in (1, 2)]

        one, again, other = (
            compare_predictions(
                *tables, handles.CLASSES, name="CNN", bootstrap_samples=200, confidence=0.95, seed=seed
            ).model_dump(exclude={"seed", "sentence"})
            for seed in (0, 0, 1)
        )

        assert one == again
        of_the_resamples = {
            "macro_f1_low",
            "macro_f1_high",
            "accuracy_low",
            "accuracy_high",
            "standard_error",
            "p_value",
            "detectable",
        }
        assert {name for name in one if one[name] != other[name]} == of_the_resamples

    @pytest.mark.usefixtures("small_vgg16")
    def test_a_classifiers_seed_gives_other_layers_on_the_same_features(self, pixels: np.ndarray) -> None:
        one, again, other = (build_network("vgg16", chosen({}), pixels, seed) for seed in (0, 0, 1))

        features = [network.trunk.predict(pixels[:5, ..., None], verbose=0) for network in (one, again, other)]
        np.testing.assert_array_equal(features[0], features[1])
        np.testing.assert_array_equal(features[0], features[2])
        heads = [network.head.get_weights() for network in (one, again, other)]
        assert all(np.array_equal(a, b) for a, b in zip(heads[0], heads[1], strict=True))
        assert not any(np.array_equal(a, b) for a, b in zip(heads[0][::2], heads[2][::2], strict=True))

    @pytest.mark.usefixtures("small_vgg16")
    def test_the_backbones_seed_gives_other_features_under_the_same_layers(self, pixels: np.ndarray) -> None:
        one, again, other = (
            build_network("vgg16", chosen({"seeds": {"backbones": seed}}), pixels, 0) for seed in (0, 0, 1)
        )

        features = [network.trunk.predict(pixels[:5, ..., None], verbose=0) for network in (one, again, other)]
        np.testing.assert_array_equal(features[0], features[1])
        assert not np.isclose(features[0], features[2]).all(axis=(1, 2, 3)).any()
        for same, head in zip(one.head.get_weights(), other.head.get_weights(), strict=True):
            np.testing.assert_array_equal(same, head)

    @pytest.mark.parametrize("seed", ["split", "gan", "judge", "synthetic", "backbones", "bootstrap"])
    def test_a_network_trained_whole_begins_alike_whatever_the_other_seeds(self, pixels: np.ndarray, seed: str) -> None:
        plain, other = (build_network("cnn", chosen({"seeds": {seed: number}}), pixels, 3) for number in (0, 1))

        for one, same in zip(plain.full.get_weights(), other.full.get_weights(), strict=True):
            np.testing.assert_array_equal(one, same)

    def test_two_purposes_of_one_seed_share_no_draws(self) -> None:
        purposes = ("batch order", "undersampling", "shown again", "synthetic set", "weight scaling", "leaking split")

        drawn = {purpose: tuple(keyed(0, purpose).integers(0, 2**31, 4)) for purpose in purposes}

        assert len(set(drawn.values())) == len(purposes)
