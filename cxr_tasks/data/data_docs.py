"""Great Expectations: tables held against suites, and the pages for people that come of it (Data Docs)."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from html import unescape
from pathlib import Path
from typing import Any

import pandas as pd

DOCS_FOLDER = "data-docs"
DOCS_PAGE = f"{DOCS_FOLDER}/index.html"


def validated(
    folder: Path, suites: Mapping[str, tuple[pd.DataFrame, Sequence[Any]]]
) -> list[tuple[Any, Mapping[str, Any] | None]]:
    """Hold tables against expectations, and write Data Docs.

    Great Expectations puts the names of columns, and values that were not expected, into its pages as they are: what
    people have named is to be escaped before.

    Args:
        folder: Where Data Docs are written, to ``DOCS_FOLDER``.
        suites: A table and its expectations, by the name of the suite.

    Returns:
        The configuration of each expectation with what was found; ``None`` where the expectation was met.
    """
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    # Where Airflow has set up logging before, GX would log every docstring that it decorates.
    logging.getLogger("great_expectations._docs_decorators").setLevel(logging.WARNING)
    import great_expectations as gx
    from great_expectations.checkpoint import UpdateDataDocsAction

    context = gx.get_context(mode="file", project_root_dir=folder / "gx")
    context.variables.progress_bars = {"globally": False}
    docs = {
        "class_name": "SiteBuilder",
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
        "store_backend": {
            "class_name": "TupleFilesystemStoreBackend",
            "base_directory": str((folder / DOCS_FOLDER).absolute()),
        },
    }
    context.update_data_docs_site("local_site", docs)
    found: list[tuple[Any, Mapping[str, Any] | None]] = []
    for name, (table, expectations) in suites.items():
        suite = context.suites.add_or_update(gx.ExpectationSuite(name, list(expectations)))
        asset = context.data_sources.add_or_update_pandas(name).add_dataframe_asset(name)
        batch = asset.add_batch_definition_whole_dataframe("whole")
        definition = context.validation_definitions.add_or_update(
            gx.ValidationDefinition(name=name, data=batch, suite=suite)
        )
        checkpoint = context.checkpoints.add_or_update(
            gx.Checkpoint(
                name=name,
                validation_definitions=[definition],
                actions=[UpdateDataDocsAction(name="docs", site_names=["local_site"])],
            )
        )
        outcome = checkpoint.run(batch_parameters={"dataframe": table})
        for each in next(iter(outcome.run_results.values())).results:
            found.append((each.expectation_config, None if each.success else each.result))
    return found


def expectation_in_words(config: Any, result: Mapping[str, Any]) -> str:
    """What was expected and what was found, as people wrote it: names were escaped for the pages."""
    kwargs = config.kwargs
    low, high = kwargs.get("min_value"), kwargs.get("max_value")
    if low is not None and low == high:
        wanted = _value_in_words(low)
    elif low is not None and high is not None:
        wanted = f"{_value_in_words(low)} to {_value_in_words(high)}"
    elif low is not None:
        wanted = f"at least {_value_in_words(low)}"
    elif high is not None:
        wanted = f"at most {_value_in_words(high)}"
    elif "value_set" in kwargs:
        wanted = f"one of {', '.join(str(value) or 'nothing' for value in kwargs['value_set'])}"
    else:
        wanted = "no missing value" if "not_be_null" in config.type else "no value twice"
    found = [value for value in result.get("partial_unexpected_list") or [] if not pd.isna(value)]
    shown = ", ".join(_value_in_words(value) for value in found[:3]) or "missing values"
    total = result.get("element_count", 1)
    # The table of counts has one row: "1 of 1" would say nothing.
    times = f" ({result.get('unexpected_count', len(found))} of {total})" if total > 1 else ""
    return unescape(f"{kwargs['column']}: expected {wanted}, found {shown}{times}")


def _value_in_words(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
