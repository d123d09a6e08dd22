"""What lies in the store is damaged, shards and manifests. It is never used, and made anew as it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cxr_tasks import steps
from cxr_tasks.errors import UserError
from cxr_tasks.store import FolderStore
from tests.steps.reading import FORM, prepare, rows_of


def spoil(path: Path) -> None:
    """Change one byte in the middle: neither the name nor the size tells."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


DAMAGE: dict[str, Callable[[Path], None]] = {
    "another byte": spoil,
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]) and None,
    "gone": Path.unlink,
}


@pytest.mark.slow
def test_a_damaged_manifest_or_shard_stops_what_works_from_it_and_cxr_data_makes_the_same_dataset_again(
    store: FolderStore, phantoms: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXR_MLFLOW", "off")
    run = steps.configure("cxr_data", "first", FORM)
    made = prepare(run, phantoms)
    dataset = steps.publish(run, *made)
    assert dataset is not None
    rows = rows_of(dataset)
    uses: dict[str, Callable[[], object]] = {
        dataset.shards[0]: lambda: dataset.images("train", 32, list(dataset.counts["train"])),
        dataset.ref: lambda: rows_of(dataset),
        made.joined.ref: lambda: rows_of(made.joined),
    }

    for damage, (ref, use) in zip(DAMAGE.values(), uses.items(), strict=True):
        (name,) = [name for name in store.record(ref)["files"] if name.startswith(("manifest", "pixels-32"))]
        damage(store.fetch(ref) / name)
        with pytest.raises(UserError, match=f"{ref} .* is damaged, its file {name} .*: run cxr_data again"):
            use()

    again = prepare(steps.configure("cxr_data", "next", FORM), phantoms)

    assert again.dataset().version == dataset.version and rows_of(again.divided).equals(rows)
    for use in uses.values():
        use()
