"""How a model is asked through MLflow: signature, input example, requirements, and what a call may look like."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from importlib import metadata
from io import BytesIO, StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from PIL import Image

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

COLUMN = "image"
MODEL_CODE = Path(__file__).with_name("model_code.py")
# What reading a file and running a network takes. Their versions are those that the model was trained with.
REQUIRED = (
    "tensorflow",
    "keras",
    "numpy",
    "pandas",
    "pillow",
    "pydicom",
    "imagecodecs",
    "pydantic",
    "pyyaml",
    "scikit-learn",
    "scipy",
    "pyarrow",
)
# The forms of MLflow's protocol: lists of images or of rows, and tables.
LIST_FORMS, RECORDS_FORM, SPLIT_FORM = ("inputs", "instances"), "dataframe_records", "dataframe_split"
FORMS = (*LIST_FORMS, RECORDS_FORM, SPLIT_FORM)
ONE_FORM = f"give an object with one of {', '.join(FORMS)}"
# Lists, objects and texts of one call. Each takes many times the memory of its two or three bytes.
MOST_PARTS = 2_000_000


class CallError(ValueError):
    """What is wrong with a call, in a sentence for whoever made it."""


def pinned_requirements() -> list[str]:
    """The packages that a model needs beside ``cxr_tasks``, with the versions that are installed."""
    return [f"{name}=={metadata.version(name)}" for name in REQUIRED]


def signature() -> ModelSignature:
    """One column of images in, one row an image out."""
    from mlflow.models import ModelSignature
    from mlflow.types.schema import AnyType, Array, ColSpec, DataType, Map, Schema

    text, texts = DataType.string, Array(DataType.string)
    answer = [
        ColSpec(text, "decision"),
        ColSpec(Map(DataType.double), "probabilities"),
        ColSpec(texts, "reached"),
        ColSpec(texts, "warnings"),
        ColSpec(text, "error"),
        ColSpec(text, "model"),
        ColSpec(text, "version"),
    ]
    # Bytes, base64 and arrays: MLflow knows no type that is one of several. Without a name, a list will do for a table.
    return ModelSignature(Schema([ColSpec(AnyType())]), Schema(answer))


def input_example() -> pd.DataFrame:
    """A ramp of grays as PNG in base64: the format is shown without keeping a patient's image."""
    ramp = np.linspace(20, 220, 64 * 64).astype(np.uint8).reshape(64, 64)
    stream = BytesIO()
    Image.fromarray(ramp).save(stream, "PNG")
    return pd.DataFrame({COLUMN: [base64.b64encode(stream.getvalue()).decode()]})


def images_of_json(body: bytes) -> list[Any]:
    """The images of a call in MLflow's protocol, as JSON.

    Raises:
        CallError: It is no such call.
    """
    if sum(body.count(mark) for mark in (b"[", b"{", b'"')) > MOST_PARTS:
        raise CallError(f"The call has more than {MOST_PARTS:,} lists, objects and texts: send images as files.")
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        raise CallError(f"The call is not JSON: {ONE_FORM}.") from None
    if not isinstance(told, dict):
        raise CallError(f"The call is no JSON object: {ONE_FORM}.")
    if unknown := sorted(set(told) - {*FORMS, "params"}):
        raise CallError(f"The call has the unknown field {_quoted(unknown[0])}: {ONE_FORM}.")
    forms = [form for form in FORMS if form in told]
    if len(forms) != 1:
        raise CallError(f"The call has {' and '.join(forms) or 'no images'}: {ONE_FORM}.")
    if told.get("params"):
        raise CallError("The model knows no params: leave them out.")
    form, given = forms[0], told[forms[0]]
    return _of_split(given) if form == SPLIT_FORM else _of_list(form, given)


def images_of_csv(body: bytes) -> list[Any]:
    """The images of a call as CSV: a column of base64.

    Raises:
        CallError: It is no such table.
    """
    try:
        table = pd.read_csv(StringIO(body.decode()), dtype=str, keep_default_na=False)
    except ValueError:
        raise CallError(f"The call is no table in CSV and UTF-8: give one with the column {COLUMN}.") from None
    return list(table[_only_column(table.columns.tolist())])


def images_of(model_input: Any) -> list[Any]:
    """The images of what MLflow hands to a model: a table, a list, or lists by the names of columns.

    Raises:
        CallError: There is more than one column.
    """
    if isinstance(model_input, pd.DataFrame):
        cells: Any = model_input[_only_column(model_input.columns.tolist())]
    elif isinstance(model_input, Mapping):
        cells = (
            model_input[_only_column(list(model_input))] if set(model_input) != {"pixels", "range"} else [model_input]
        )
    else:
        cells = [model_input] if isinstance(model_input, str | bytes) else model_input
    found: list[Any] = []
    for cell in cells:
        # MLflow puts a list that is named `inputs` into one cell.
        several = isinstance(cell, list) or (isinstance(cell, np.ndarray) and cell.dtype.kind in "OUS")
        found += [_of_row(each) for each in (cell if several else [cell])]
    return found


def _of_row(row: Any) -> Any:
    """The image of a row: the row itself, or its field ``image``."""
    if not isinstance(row, dict) or set(row) == {"pixels", "range"}:
        return row
    return row[_only_column(list(row))]


def _of_list(form: str, given: Any) -> list[Any]:
    """The images of a list, of one image alone, or of a list that is the column ``image``."""
    if form in LIST_FORMS and isinstance(given, dict) and set(given) != {"pixels", "range"}:
        given = given[_only_column(list(given))]
    if form in LIST_FORMS and isinstance(given, str | dict):
        return [given]
    if not isinstance(given, list):
        raise CallError(f"{form} is {_json_kind(given)}: give a list with an entry for each image.")
    if form == RECORDS_FORM and (wrong := [row for row in given if not isinstance(row, dict)]):
        raise CallError(f"{RECORDS_FORM} holds {_json_kind(wrong[0])}: give objects with the field {COLUMN}.")
    return [_of_row(row) for row in given]


def _of_split(told: Any) -> list[Any]:
    if not isinstance(told, dict) or not {"data"} <= set(told) <= {"columns", "data", "index"}:
        raise CallError(f'{SPLIT_FORM} is not understood: give {{"columns": ["{COLUMN}"], "data": [[…], […]]}}.')
    _only_column(told.get("columns", [COLUMN]))
    rows = told["data"]
    if not isinstance(rows, list) or any(not isinstance(row, list) or len(row) != 1 for row in rows):
        raise CallError(f"The data of {SPLIT_FORM} are no rows of one image each: give [[…], […]].")
    return [row[0] for row in rows]


def _only_column(columns: Any) -> Any:
    """The one column, whose name is ``image``, or a number where the table names none."""
    if not isinstance(columns, list) or len(columns) != 1 or not (columns[0] == COLUMN or isinstance(columns[0], int)):
        found = ", ".join(map(_quoted, columns[:5])) if isinstance(columns, list) else _quoted(columns)
        raise CallError(f"A row has the fields {found or 'of none'}: give the field {COLUMN} alone.")
    return columns[0]


def _quoted(text: Any) -> str:
    """A part of a call, short and on one line."""
    shown = ascii(text)
    return shown if len(shown) <= 40 else f"{shown[:40]}…"


def _json_kind(value: Any) -> str:
    return {str: "a text", list: "a list", dict: "an object", bool: "a truth value", type(None): "null"}.get(
        type(value), "a number"
    )
