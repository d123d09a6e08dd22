"""Tables of what a run found, for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table


def pairs_table(pairs: Sequence[Mapping[str, Any]]) -> Table:
    """The comparisons of a run.

    Args:
        pairs: The fields of :class:`cxr_tasks.artifacts.PairRow`.
    """
    from rich.table import Table

    table = Table(title="Macro F1 on the real test images", title_justify="left")
    table.add_column("classifier")
    table.add_column("seed", justify="right")
    table.add_column("arm")
    for name in ("baseline", "with it", "difference (interval)", "McNemar p"):
        table.add_column(name, justify="right")
    table.add_column("verdict")
    for row in pairs:
        table.add_row(
            row["classifier"],
            str(row["seed"]),
            f"{row['arm']} against {row['baseline_arm']}",
            f"{row['baseline_macro_f1']:.3f}",
            f"{row['augmented_macro_f1']:.3f}",
            f"{100 * row['difference']:+.1f} ({100 * row['low']:+.1f} to {100 * row['high']:+.1f}) points",
            f"{row['mcnemar_p']:.2f}",
            row["verdict"],
        )
    return table


def models_table(decisions: Sequence[Mapping[str, Any]]) -> Table:
    """What was registered.

    Args:
        decisions: The fields of :class:`cxr_tasks.artifacts.Decision`.
    """
    from rich.table import Table

    table = Table(title="Registered models", title_justify="left")
    for name in ("model", "version", "alias", "trained as", "validation macro F1", "decision"):
        table.add_column(name)
    for row in decisions:
        score = f"{row['validation_macro_f1']:.3f}"
        table.add_row(row["name"], row["version"], row["alias"], row["arm"], score, row["decision"])
    return table
