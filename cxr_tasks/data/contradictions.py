"""What tables and the headers of DICOM files say of one image, and where they contradict each other."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from cxr_tasks.errors import shown

# Years between the age at a study and that of a table, which may be the age at another time.
AGES_APART = 1.0
# Supine is a way to take an AP image, and not all files say so.
_SAME_VIEW = {"AP SUPINE": "AP"}
_BY_FILE = " by file"


def tell_contradictions(rows: pd.DataFrame, scanned: pd.DataFrame) -> list[str]:
    """Sentences on images of which a table says something else than the DICOM file. The table counts.

    Args:
        rows: Of all shards: ``path``, ``reason`` and what headers say, ``facts.SAID``.
        scanned: Rows of the scan with pseudonyms: ``path`` and what tables say, ``facts.SAID``.
    """
    known = scanned.drop_duplicates("path")
    both = rows.merge(known, on="path", how="left", suffixes=(_BY_FILE, ""))
    return [*_on_facts(both), *_on_views_left_out(both), *_on_patients(both)]


def _on_facts(both: pd.DataFrame) -> Iterator[str]:
    view, view_by_file = (both[name].replace(_SAME_VIEW) for name in ("view", f"view{_BY_FILE}"))
    differ = {
        "views": _different(view, view_by_file),
        "ages": (both["age"] - both[f"age{_BY_FILE}"]).abs() > AGES_APART,
        "sexes": _different(both["sex"], both[f"sex{_BY_FILE}"]),
    }
    for what, places in differ.items():
        if number := int(places.sum()):
            yield (
                f"Of {number:,} images the table and the DICOM file say different {what}, such as "
                f"{shown(both.loc[places, 'path'].iloc[0])!r}: the table counts. Look whether its rows belong to these "
                "images"
            )


def _different(of_table: pd.Series, of_file: pd.Series) -> pd.Series:
    return (of_table != of_file) & (of_table != "") & (of_file != "")


def _on_views_left_out(both: pd.DataFrame) -> Iterator[str]:
    left = both[both["reason"].str.startswith("the view") & (both["view"] != "")]
    if len(left):
        yield (
            f"{len(left):,} DICOM files are left out for the view that they name themselves (data.dicom.views), and "
            f"the table names another, such as {left['view'].iloc[0]} for {shown(left['path'].iloc[0])!r}"
        )


def _on_patients(both: pd.DataFrame) -> Iterator[str]:
    table, file = "patient", f"patient{_BY_FILE}"
    pairs = both.loc[(both[table] != "") & (both[file] != ""), [table, file]].drop_duplicates()
    for one, other, words in (
        (file, table, "patients by their DICOM files (PatientID) are several patients in the table"),
        (table, file, "patients of the table are several patients by their DICOM files (PatientID)"),
    ):
        if several := int((pairs.groupby(one)[other].nunique() > 1).sum()):
            yield f"{several:,} {words}: the table counts, and says which images must lie in one split"
