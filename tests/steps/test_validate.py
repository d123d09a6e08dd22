"""The step ``validate``: what is wrong with the data is said with its numbers and its place."""

import pytest

from cxr_tasks import steps
from cxr_tasks.errors import DataError
from tests.steps.reading import read


def test_too_many_rejects_stop_the_run_with_the_numbers_and_the_folder(begin, source, store):
    run = begin()
    for number in range(1, 16):
        (source / f"COVID/images/COVID-{number}.png").write_bytes(b"no image")
    joined = steps.manifest(run, *read(run, source))

    with pytest.raises(DataError) as caught:
        steps.validate(run, joined)

    folder = store.fetch(joined.ref) / "rejects"
    assert "rejected fraction: expected at most 0.1, found 0.110294" in str(caught.value)
    assert str(folder) in str(caught.value)
    assert len(list(folder.rglob("*.png"))) == 15
