"""The step ``evaluate_external``: test the arms of a run, and the champion, on an external set."""

from __future__ import annotations

import json
from pathlib import Path

from cxr_tasks import tracking
from cxr_tasks.artifacts import (
    Artifact,
    Dataset,
    ExternalResults,
    ExternalSet,
    ExternalTest,
    RunContext,
    TrainedArm,
)
from cxr_tasks.classifiers.registry import CLASSIFIERS
from cxr_tasks.config import Settings
from cxr_tasks.pipeline import Made, load_settings, perform
from cxr_tasks.registry.champions import CHAMPION, OVERALL_MODEL, TAG_DIGEST
from cxr_tasks.steps.common import Mapped, arm_run, backbone_identity, flat
from cxr_tasks.steps.external_tests import external_table, flat_findings, how_measured, keep_test
from cxr_tasks.steps.tested_models import model_of_version, tested_on


def evaluate_external(
    run: RunContext,
    dataset: Dataset,
    external: ExternalSet,
    trained: Mapped[TrainedArm] | None = None,
) -> ExternalResults:
    """Test every trained arm, and the champion, on an external set.

    Nothing is chosen by what comes out. It may hold a challenger back; see ``registry.gate``.

    Args:
        run: The DAG run.
        dataset: What the arms were trained on.
        external: The set, without what leaks from ``dataset``.
        trained: The arms.
    """
    settings = load_settings(run)
    arms: dict[str, TrainedArm] = {arm.model.ref: arm for arm in flat(trained or [])}
    tests = [_test_arm(run, settings, dataset, external, arm) for arm in arms.values()]
    champion = ""
    version = tracking.version_by_alias(OVERALL_MODEL, CHAMPION) if tracking.is_on() else None
    if version is not None:
        own = [arm for arm in arms.values() if arm.model.weights_digest == version.tags.get(TAG_DIGEST)]
        if own:
            champion = _who(own[0])
        else:
            named = next(each for each in settings.data.external if each.name == external.name)
            tests.append(tested_on(run, settings, model_of_version(version), named)[1])
            champion = tests[-1].who

    def fill(folder: Path) -> Made[ExternalResults]:
        told = [{"model": test.who, **flat_findings(test.findings())} for test in tests]
        (folder / ExternalResults.TABLE).write_text(json.dumps(told, indent=2), encoding="utf-8")
        tracking.log_file(folder / ExternalResults.TABLE)
        counts = {"images": sum(external.images.values()), "leaks": sum(external.leaks.values())}
        return Made(ExternalResults(external=external, tests=tuple(tests), champion=champion), counts)

    inputs: dict[str, Artifact | str] = {"external": external}
    inputs |= {f"test {i}": test for i, test in enumerate(tests)}
    results = perform(
        run,
        ExternalResults,
        fill,
        settings={"champion": champion},
        inputs=inputs,
        label=external.name,
    )
    # As this run has them: an artifact that was made before holds the handles of the run that made it.
    return results.model_copy(update={"external": external, "tests": tuple(tests)})


def _who(arm: TrainedArm) -> str:
    training = arm.training
    return f"{CLASSIFIERS[training.classifier].display}, {training.arm}, seed {training.seed}"


def _test_arm(
    run: RunContext, settings: Settings, dataset: Dataset, external: ExternalSet, arm: TrainedArm
) -> ExternalTest:
    classes, size = list(settings.data.classes), settings.classifiers.image_size
    classifier = arm.training.classifier
    identity = backbone_identity(settings, dataset, classifier)

    def fill(folder: Path) -> Made[ExternalTest]:
        from cxr_tasks.classifiers.predicting import predict_rows, with_stored_features

        rows, model = external.table(), arm.model.load()
        kept = with_stored_features(model, classifier, identity, external.shards, size)
        if kept is None:
            asked, of_shard = model, lambda shard: external.pixels(shard, size)[..., None]
        else:
            asked, of_shard = kept
        table = external_table(rows, predict_rows(rows, len(classes), of_shard, asked), classes)
        internal = arm.model.predictions()
        metrics = keep_test(folder, settings, external, table, internal[internal["split"] == "test"], classes)
        return Made(ExternalTest(who=_who(arm), external=external.name, training=arm.training), metrics)

    test = perform(
        run,
        ExternalTest,
        fill,
        settings={**how_measured(settings), "classes": classes, **identity},
        inputs={"model": arm.model, "weights": arm.model.weights_digest, "external": external},
        label=arm.training.label,
        training=arm_run(run, dataset, arm.training, arm.model.synthetic),
        within=arm.model,
    )
    return test.model_copy(update={"training": arm.training})
