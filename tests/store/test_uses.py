"""Notes of which DAG run has used which artifact."""

from cxr_tasks.store import FolderStore, Use, drop_uses, noted_uses


def test_only_uses_of_old_runs_and_of_what_is_gone_are_dropped(tmp_path):
    store = FolderStore(tmp_path)
    with store.publish("judge/there", {"step": "judge"}) as folder:
        (folder / "made.txt").write_text("made")
    for dag_run in ("old", "new"):
        for ref in ("judge/there", "judge/gone"):
            # What a new run has noted may be what it makes at this moment.
            assert not Use(dag_run, "judge", ref).begin(store)

    drop_uses(store, {"old"})

    left = {(use.dag_run, use.ref) for use in noted_uses(store).values()}
    assert left == {("old", "judge/there"), ("new", "judge/there"), ("new", "judge/gone")}
