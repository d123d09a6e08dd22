"""Views of an experiment: what MLflow's page of runs lists under *Views*, each with columns, an order and groups.

MLflow keeps a view as a tag of the experiment, in the form that its pages write. Whoever may see the experiment may
open the view. What people change in an open view is theirs alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cxr_tasks.markdown import in_markdown
from cxr_tasks.tracking.pages import view_link
from cxr_tasks.tracking.runs import TAG_NOTE
from cxr_tasks.tracking.server import client, patient

TAG_VIEW = "mlflow.sharedViewState."
# The list of views is ordered by time: that of our own says in which order they stand, the first one last.
FIRST_MS = 1_767_225_600_000
COLUMN_PIXELS, WIDE_PIXELS = 130, 320


@dataclass(frozen=True)
class View:
    """A question about the runs of an experiment.

    Attributes:
        key: Names it in addresses.
        name: What people read.
        condition: Which runs, in MLflow's search language.
        order_by: Runs with most of it come first.
        columns: Such as ``params.`arm```; one that no run has is not shown.
        groups: Params by which runs are put together, with means of their metrics.
        wide: Columns that need room.
    """

    key: str
    name: str
    condition: str
    order_by: str
    columns: tuple[str, ...]
    groups: tuple[str, ...] = ()
    wide: tuple[str, ...] = ()

    def value(self, place: int) -> str:
        """The tag's value; ``place``: among the views of the experiment."""
        widths = {column: WIDE_PIXELS if column in self.wide else COLUMN_PIXELS for column in self.columns}
        state: dict[str, Any] = {
            "searchFilter": self.condition,
            "orderByKey": self.order_by,
            "orderByAsc": False,
            "startTime": "ALL",
            "lifecycleFilter": "Active",
            "datasetsFilter": [],
            "modelVersionFilter": "All Runs",
            "selectedColumns": list(self.columns),
            "columnOrder": list(self.columns),
            "columnWidths": {"attributes.`Run Name`": WIDE_PIXELS, **widths},
        }
        if self.groups:
            keys = [{"mode": "param", "groupByData": name} for name in self.groups]
            state["groupBy"] = {"aggregateFunction": "average", "groupByKeys": keys}
        made = FIRST_MS - place
        return json.dumps({"name": self.name, "createdAt": made, "updatedAt": made, "state": json.dumps(state)})


@patient
def keep_views(experiment: str, views: Sequence[View], note: str = "") -> None:
    """Let MLflow's pages list these views of an experiment, beside those of people, and say what the experiment is.

    Args:
        experiment: Its id.
        views: In the order in which they are listed.
        note: What people read above its runs, after links to the views. What people have written there stays.
    """
    server = client()
    there: Mapping[str, str] = server.get_experiment(experiment).tags
    wanted = {f"{TAG_VIEW}{view.key}": view.value(place) for place, view in enumerate(views)}
    said = there.get(TAG_NOTE, "")
    if note and said in ("", note):
        links = " · ".join(f"[{in_markdown(view.name)}]({view_link(experiment, view.key)})" for view in views)
        wanted[TAG_NOTE] = f"{links}\n\n{note}" if links else note
    for tag, value in wanted.items():
        if there.get(tag) != value:
            server.set_experiment_tag(experiment, tag, value)
