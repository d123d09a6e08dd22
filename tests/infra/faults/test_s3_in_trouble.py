"""S3 answers with errors, late, or breaks off in the middle, to Airflow's workers and to MLflow."""

from __future__ import annotations

import pytest

from cxr_tasks.store import open_store
from tests.infra.faults.s3_in_trouble import S3InTrouble


def test_what_was_uploaded_of_an_artifact_is_removed_where_the_rest_was_not(
    s3: str, s3_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    between = S3InTrouble(s3_server)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", between.address)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    store = open_store(s3)

    def publish() -> None:
        with store.publish("step/key", {}) as folder:
            for number in range(20):
                (folder / str(number)).write_text("x")
            between.trouble, between.method, between.share = "503", "PUT", 7

    with pytest.raises(ConnectionError, match="cannot be used for now"):
        publish()

    between.trouble = ""
    assert between.spoiled["503"] and store.bucket.objects() == []
    with store.publish("step/key", {}) as folder:
        (folder / "0").write_text("x")
    assert (store.fetch("step/key") / "0").read_text() == "x"
    between.close()
