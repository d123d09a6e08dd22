"""Tables of what a run found, for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cxr_tasks.registry.champions import TAG_DECISION, TAG_ROLLED_BACK, TAG_SINCE, TAG_VALIDATION

if TYPE_CHECKING:
    from rich.table import Table

    from cxr_tasks.report.render import Table as ReportTable
    from cxr_tasks.tracking import RegisteredVersion


def claims_table(claims: Sequence[Mapping[str, Any]]) -> Table:
    """What a run may claim.

    Args:
        claims: The fields of :class:`cxr_tasks.artifacts.ClaimRow`.
    """
    from rich.table import Table

    number = claims[0]["claims"] if claims else 0
    title = f"What the run may claim: change of macro F1 in points, corrected for {number} comparisons"
    table = Table(title=title, title_justify="left")
    table.add_column("classifier")
    table.add_column("arm")
    for name in ("from the baseline (joint interval)", "from the control (joint interval)", "p, corrected"):
        table.add_column(name, justify="right")
    table.add_column("verdict")
    for row in claims:
        beyond = tuple(row[f"beyond_control{end}"] for end in ("", "_low", "_high"))
        table.add_row(
            row["classifier"],
            f"{row['arm']} against {row['baseline_arm']}",
            _points(row["difference"], row["low"], row["high"]),
            "–" if beyond[0] is None else f"{_points(*beyond)} {row['control']}",
            f"{row['p_value']:.3f}",
            row["verdict"],
        )
    return table


def _points(difference: float, low: float, high: float) -> str:
    return f"{100 * difference:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def pairs_table(pairs: Sequence[Mapping[str, Any]]) -> Table:
    """The comparisons of a run, each by itself.

    Args:
        pairs: The fields of :class:`cxr_tasks.artifacts.PairRow`.
    """
    from rich.table import Table

    table = Table(title="Macro F1 on the real test images, each comparison by itself", title_justify="left")
    table.add_column("classifier")
    table.add_column("seed", justify="right")
    table.add_column("arm")
    for name in ("baseline", "with it", "difference (interval)", "p", "sign test p"):
        table.add_column(name, justify="right")
    table.add_column("verdict by itself")
    for row in pairs:
        table.add_row(
            row["classifier"],
            str(row["seed"]),
            f"{row['arm']} against {row['baseline_arm']}",
            f"{row['baseline_macro_f1']:.3f}",
            f"{row['augmented_macro_f1']:.3f}",
            f"{_points(row['difference'], row['low'], row['high'])} points",
            f"{row['p_value']:.3f}",
            f"{row['sign_p']:.3f}",
            row["verdict"],
        )
    return table


def external_results_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Every model on every external set.

    Args:
        rows: The fields of :class:`cxr_tasks.artifacts.ExternalRow`.
    """
    from rich.table import Table

    table = Table(title="Macro F1 on external sets, which trained and chose nothing", title_justify="left")
    table.add_column("external set")
    table.add_column("model")
    for name in ("images", "macro F1 (interval)", "drop from the internal test (interval)"):
        table.add_column(name, justify="right")
    for row in rows:
        drop = tuple(row[f"drop{end}"] for end in ("", "_low", "_high"))
        table.add_row(
            row["external"],
            row["model"] + (" (champion)" if row["is_champion"] else ""),
            f"{row['images']:,}",
            f"{row['macro_f1']:.3f} ({row['macro_f1_low']:.3f} to {row['macro_f1_high']:.3f})",
            "not known" if drop[0] is None else f"{_points(*drop)} points",
        )
    return table


def report_table(shown: ReportTable) -> Table:
    """A table of the report, turned round: a row a figure, and a column for all images and for each class."""
    from rich.table import Table

    first, *figures = shown.columns
    table = Table(title=shown.title, title_justify="left")
    table.add_column(first.lower())
    for row in shown.rows:
        table.add_column(row[0], justify="right")
    for place, figure in enumerate(figures, start=1):
        table.add_row(figure, *(row[place] for row in shown.rows))
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


def champions_table(versions: Sequence[RegisteredVersion]) -> Table:
    """Versions that are or were champion."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(title="Champions", title_justify="left")
    for name in ("model", "version", "since (UTC)", "now", "trained on", "validation macro F1", "why"):
        table.add_column(name)
    for version in versions:
        tags = version.tags
        now = ", ".join(version.aliases) or ("rolled back" if TAG_ROLLED_BACK in tags else "")
        since = tags[TAG_SINCE].removesuffix("+00:00").replace("T", " ")
        figure = tags.get(TAG_VALIDATION, "")[:5]
        why = tags.get(TAG_ROLLED_BACK) or tags.get(TAG_DECISION, "")
        told = (version.name, version.version, since, now, tags.get("cxr.arm", ""), figure, why)
        table.add_row(*map(escape, told))
    return table
