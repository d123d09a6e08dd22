"""What MLflow is told of subgroups: metrics, and a table. Subgroups of few patients are in neither."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from cxr_tasks.names import slug

if TYPE_CHECKING:
    import pandas as pd

    from cxr_tasks.evaluation.subgroups import SubgroupFindings, SubgroupRow


def subgroup_metrics(found: SubgroupFindings) -> dict[str, float]:
    """Metrics such as ``subgroup_sex_F_balanced_accuracy``, its ``_low`` and ``_high``; and the gap."""
    metrics: dict[str, float] = {}
    for of_attribute in found.attributes:
        taken: set[str] = set()
        for row in of_attribute.rows:
            key = slug(row.subgroup)
            while key in taken:
                # Two names that MLflow would spell alike.
                key += "_"
            taken.add(key)
            metrics |= {f"subgroup_{of_attribute.attribute}_{key}_{name}": value for name, value in _figures(row)}
    if found.gap is not None:
        gap = found.gap.difference
        metrics |= {"subgroup_gap": gap.value, "subgroup_gap_low": gap.low, "subgroup_gap_high": gap.high}
    return metrics


def subgroup_table(found: SubgroupFindings) -> pd.DataFrame:
    """A row for each subgroup, and one for all test images; sensitivities where a class has enough groups."""
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for attribute, row in [("", found.whole), *((of.attribute, row) for of in found.attributes for row in of.rows)]:
        told: dict[str, Any] = {"attribute": attribute, "subgroup": row.subgroup, **dict(_figures(row))}
        for label, figure in row.sensitivity.items():
            told |= {f"sensitivity {label}": figure.value}
            told |= {f"sensitivity {label} low": figure.low, f"sensitivity {label} high": figure.high}
        rows.append(told)
    return pd.DataFrame(rows)


def _figures(row: SubgroupRow) -> Iterator[tuple[str, float]]:
    yield "images", row.images
    yield "groups", row.groups
    for name in ("balanced_accuracy", "accuracy"):
        figure = getattr(row, name)
        yield name, figure.value
        yield f"{name}_low", figure.low
        yield f"{name}_high", figure.high
    yield "macro_f1", row.macro_f1
