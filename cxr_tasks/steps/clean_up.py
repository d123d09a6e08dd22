"""The step ``clean_up``: make room in the store and in MLflow, and keep what people rely on."""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cxr_tasks import tracking
from cxr_tasks.registry.champions import TAG_DIGEST, TAG_KEEP, TAG_REPLACED, TAG_SINCE
from cxr_tasks.retention.clearing import check_registry, old_artifacts, remove_artifacts
from cxr_tasks.retention.inventory import stored_artifacts
from cxr_tasks.retention.leftovers import leftovers, remove_leftover
from cxr_tasks.steps.contest import alone_with
from cxr_tasks.store import drop_uses, noted_uses, open_store
from cxr_tasks.strict import Strict

if TYPE_CHECKING:
    from cxr_tasks.retention.inventory import Stored
    from cxr_tasks.retention.leftovers import Leftover
    from cxr_tasks.store import Use
    from cxr_tasks.tracking import RegisteredVersion, TrackedDagRun

log = logging.getLogger(__name__)
# MLflow's experiments, which have the names of the DAGs.
EXPERIMENTS = ("cxr_data", "cxr_training", "cxr_monitor")


class CleanedUp(Strict):
    """What went, or would go.

    Attributes:
        artifacts: Of the store.
        leftovers: What killed tasks left in the store, and checkpoints that nobody went on with.
        size: Bytes of both.
        versions: Of registered models.
        dag_runs: In MLflow.
        only_listed: Whether all of that is still there.
    """

    artifacts: int
    leftovers: int
    size: int
    versions: int
    dag_runs: int
    only_listed: bool

    @property
    def words(self) -> str:
        """The same in a sentence."""
        what = f"{self.artifacts:,} artifacts, {self.leftovers:,} leftovers, {self.versions:,} versions of models and "
        what += f"{self.dag_runs:,} runs in MLflow"
        return f"{what} {'would go' if self.only_listed else 'are gone'}: {self.size / 2**20:,.1f} MiB of the store."


def clean_up(unused_days: float, keep_runs: int, *, only_list: bool = False) -> CleanedUp:
    """Remove what is old and belongs to nothing that people rely on.

    What stays: every version that is or was champion, has another alias, or the tag ``cxr.keep``, and every one that a
    person registered; the newest DAG runs of each DAG with all that they made or took; all that was used lately;
    trainings that go on; the newest datasets. Versions that stay for champions keep their lineage.

    Args:
        unused_days: What was used within that many days is young.
        keep_runs: So many DAG runs of each DAG stay, however old.
        only_list: Remove nothing.

    Raises:
        UserError: MLflow does not know the models that were registered from this store.
    """
    store, now = open_store(), datetime.now(UTC)
    before = now - timedelta(days=unused_days)
    found, versions = stored_artifacts(store), tracking.registered_versions()
    check_registry(found, versions)
    known = _with_uses(tracking.tracked_dag_runs(EXPERIMENTS), noted_uses(store).values())
    old = [run for runs in known.values() for run in runs[keep_runs:] if tracking.is_old(run, before)]
    kept = {ref for runs in known.values() for run in runs if run not in old for ref in run.artifacts}

    of_old = {run_id for run in old for run_id in run.runs}
    relied_on = _relied_on(versions)
    going = [
        each
        for each in versions
        if each.run_id in of_old and each not in relied_on and each.tags.get(tracking.TAG_ARTIFACT) not in kept
    ]
    if not only_list:
        # What names something goes before it.
        going = [each for each in going if _is_forgotten(each)]
    staying = [version for version in versions if version not in going]
    left = leftovers(store, before, now)
    artifacts = old_artifacts(store, found, before, staying, left, kept)
    gone, left_gone = list(artifacts.going), list(left)
    # A run that made or took nothing of what goes may be of another store on the same MLflow.
    planned = {each.ref for each in gone}
    # Without it open_store() would have refused.
    place = os.environ["CXR_STORE"]
    ours = [run for run in old if run.cleaned_from == place or run.artifacts & planned]
    if not only_list:
        for run in ours:
            tracking.mark_dag_run(run, place)
        # Checkpoints first: what they need is among the artifacts.
        left_gone = [each for each in left if remove_leftover(store, each)]
        # What a run has begun to use meanwhile stays, and so does the run that made it.
        gone = list(remove_artifacts(store, artifacts))
        drop_uses(store, of_old)
        store.sweep()
    refs_gone = {each.ref for each in gone}
    needed = {str(each.record.get("mlflow_run_id")) for each in found if each.ref not in refs_gone}
    needed |= {version.run_id for version in staying}
    # A run that stays may lead to a training that another one shows.
    needed |= {run_id for runs in known.values() for run in runs if run not in old for run_id in run.shown}
    forgotten = [run for run in ours if not needed & set(run.runs)]
    if not only_list:
        for run in forgotten:
            tracking.forget_dag_run(run)
    _say_what("would go" if only_list else "is gone", gone, left_gone, going, forgotten)
    told = CleanedUp(
        artifacts=len(gone),
        leftovers=len(left_gone),
        size=sum(each.size for each in gone) + sum(each.size for each in left_gone),
        versions=len(going),
        dag_runs=len(forgotten),
        only_listed=only_list,
    )
    log.info(told.words)
    return told


def _with_uses(known: Mapping[str, Sequence[TrackedDagRun]], uses: Iterable[Use]) -> dict[str, list[TrackedDagRun]]:
    """The DAG runs with what the store notes of them beside what MLflow does."""
    noted: dict[str, set[str]] = defaultdict(set)
    for use in uses:
        noted[use.dag_run].add(use.ref)
    return {
        name: [replace(run, artifacts=run.artifacts.union(*(noted[each] for each in run.runs))) for run in runs]
        for name, runs in known.items()
    }


def _relied_on(versions: Sequence[RegisteredVersion]) -> list[RegisteredVersion]:
    """The versions that stay whatever happens."""
    replaced = {(each.name, each.tags.get(TAG_REPLACED)) for each in versions}
    return [
        each
        for each in versions
        # Without our tag it was registered by a person.
        if each.aliases
        or {TAG_SINCE, TAG_KEEP} & set(each.tags)
        or TAG_DIGEST not in each.tags
        # Whoever made it champion by hand left no tag.
        or (each.name, each.version) in replaced
    ]


def _is_forgotten(version: RegisteredVersion) -> bool:
    """Delete a version, unless it was made champion or challenger meanwhile."""
    with alone_with(version.name, "the cleanup"):
        now = [each for each in tracking.registered_versions() if each.name == version.name]
        if version.version in {each.version for each in _relied_on(now)}:
            return False
        tracking.forget_version(version.name, version.version)
    return True


def _say_what(
    happens: str,
    artifacts: Sequence[Stored],
    left: Sequence[Leftover],
    versions: Sequence[RegisteredVersion],
    runs: Sequence[TrackedDagRun],
) -> None:
    """Name everything in the log of the task."""
    names = [f"artifact {each.ref}" for each in artifacts] + [f"{each.kind} {each.place}" for each in left]
    names += [f"{each.name} version {each.version}" for each in versions]
    names += [f"MLflow's run {each.runs[-1]} and those below it" for each in runs]
    for name in names:
        log.info("%s %s", name, happens)
