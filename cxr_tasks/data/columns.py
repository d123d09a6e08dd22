"""Finds the columns that settings name in a table, and puts texts together of them."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pandas as pd

from cxr_tasks.errors import SettingsError, shown
from cxr_tasks.names import composed, normal_form

# A column in braces, with a regular expression after a colon, as in {Path:patient[0-9]+}.
_IN_BRACES = re.compile(r"\{([^{}:]+)(?::([^{}]+))?\}")


class Columns:
    """The columns of a table by their names.

    Attributes:
        name: What messages call the table.
        table: Its rows, all cells text.
        listed: The names of columns that messages show.
    """

    def __init__(self, name: str, table: pd.DataFrame, listed: Sequence[str] = ()) -> None:
        """The ``table``, which messages call ``name``; with columns of tables that join it, if ``listed`` has them."""
        self.name = name
        self.table = table
        self.listed = list(listed) or [str(column) for column in table.columns]
        self._spelt: dict[str, str] = {}
        for column in reversed(table.columns):
            self._spelt[normal_form(column, zeros=True)] = column

    def find(self, column: str) -> str | None:
        """The table's own name of ``column``; case, blanks and punctuation do not count."""
        column = composed(column).strip()
        return column if column in self.table.columns else self._spelt.get(normal_form(column, zeros=True))

    def get(self, column: str, setting: str) -> pd.Series:
        """The cells of ``column``.

        Raises:
            SettingsError: There is no such column; ``setting`` is what names it.
        """
        if (found := self.find(column)) is None:
            raise self._missing(column, setting)
        return self.table[found]

    def say(self, said: str | Sequence[str], setting: str) -> pd.Series:
        """What a column, a text of columns, or the first of several that says something says of each row.

        Raises:
            SettingsError: A column is not there; of several, none is.
        """
        if isinstance(said, str):
            return self._text(said, setting)
        there = [one for one in said if all(self.find(name) for name in columns_of(one))]
        if not there:
            raise self._missing(columns_of(said[0])[0], setting)
        result = self._text(there[0], setting)
        for one in there[1:]:
            result = result.where(result != "", self._text(one, setting))
        return result

    def _text(self, said: str, setting: str) -> pd.Series:
        if "{" not in said:
            return self.get(said, setting)
        result = pd.Series("", index=self.table.index)
        empty = pd.Series(False, index=self.table.index)
        end = 0
        for part in _IN_BRACES.finditer(said):
            cells = self.get(part[1], setting)
            if part[2]:
                try:
                    pattern = re.compile(f"({part[2]})")
                except re.error as error:
                    raise SettingsError(f"{setting}: {part[2]!r} is no regular expression ({error}).") from error
                cells = cells.str.extract(pattern, expand=True)[0].fillna("")
            empty |= cells == ""
            result = result + said[end : part.start()] + cells
            end = part.end()
        # A text with a gap in it would be taken for something else.
        return (result + said[end:]).mask(empty, "")

    def _missing(self, column: str, setting: str) -> SettingsError:
        return SettingsError(
            f"The table {shown(self.name)} has no column {column!r}, which {setting} names: it has "
            f"{', '.join(map(repr, self.listed))}."
        )


def columns_of(said: str) -> list[str]:
    """The columns that a text names: those in braces, or else itself."""
    return [part[1] for part in _IN_BRACES.finditer(said)] if "{" in said else [said]
