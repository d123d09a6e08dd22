"""Writes ``docs/reference/profile.md`` from the settings: their JSON schema, their docstrings, and both profiles.

    .venv/bin/python docs/make_reference.py

A test compares the committed page with what this script writes.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from cxr_tasks.arms import ARMS
from cxr_tasks.classifiers.registry import CLASSIFIERS
from cxr_tasks.config import Settings, profile_names, resolve

PAGE = Path(__file__).parent / "reference" / "profile.md"
HEAD = """\
<!-- Written by docs/make_reference.py from the settings. Change their docstrings, not this page. -->

# Profile

A profile is a YAML file that holds every number of a run. Each section below is a section of that file. Every setting
without a default must be there, and a name that is not on this page is an error.
[Write your own profile](../how-to/own-profile.md) says how to begin.

The tables show what a value may be, and what the profiles that ship with the project say. Profiles may leave out the
switches of the GAN that a preset sets (`gan.preset`).
"""
# Where a profile takes its name from, and what resolving adds to it.
LEFT_OUT = {"profile"}
KINDS = {
    "integer": "a whole number",
    "number": "a number",
    "string": "text",
    "boolean": "`true` or `false`",
    "null": "`null`",
}
LIMITS = {
    "exclusiveMinimum": "above {}",
    "minimum": "at least {}",
    "exclusiveMaximum": "below {}",
    "maximum": "at most {}",
    "multipleOf": "a multiple of {}",
}
# Choices of a registry are not written out, so that a new entry changes no page.
REGISTRIES = {
    tuple(CLASSIFIERS): "the name of a classifier (`cxr train-arm --help` lists them)",
    tuple(ARMS): "the name of an arm (`cxr train-arm --help` lists them)",
}
ATTRIBUTE = re.compile(r"    (\w+): (.*)")


def profile_reference() -> str:
    """The page as Markdown."""
    schema = Settings.model_json_schema()
    profiles = {name: resolve(name).model_dump(mode="json") for name in profile_names()}
    top = {name: field for name, field in schema["properties"].items() if name not in LEFT_OUT}
    plain = {name: field for name, field in top.items() if not _reference(field)}
    parts = [HEAD, _table(plain, _attributes(schema["description"])[1], {})]
    for name, field in top.items():
        if _reference(field):
            parts += _section(name, field, schema["$defs"], profiles)
    return "\n".join(parts)


def _section(
    path: str, field: Mapping[str, Any], definitions: Mapping[str, Any], profiles: Mapping[str, Any]
) -> Iterator[str]:
    """The heading, the text and the table of one section, and those of the sections inside it."""
    definition = definitions[_reference(field)]
    text, meanings = _attributes(definition["description"])
    values = {name: profile[path.split(".")[-1]] for name, profile in profiles.items()}
    # Where no profile has the section, there is nothing to show.
    values = {name: value for name, value in values.items() if isinstance(value, dict)}
    fields = definition["properties"]
    yield f"## {path}\n\n{text}\n"
    yield _table({name: inner for name, inner in fields.items() if not _reference(inner)}, meanings, values)
    for name, inner in fields.items():
        if _reference(inner):
            yield from _section(f"{path}.{name}", inner, definitions, values)


def _reference(field: Mapping[str, Any]) -> str:
    """The definition of a section, of one that may be null, or of a list of them; '' for plain settings."""
    for part in (field, *field.get("anyOf", ()), field.get("items", {})):
        if "$ref" in part:
            return str(part["$ref"]).rsplit("/", 1)[-1]
    return ""


def _attributes(docstring: str) -> tuple[str, dict[str, str]]:
    """A docstring's text without its section ``Attributes:``, and what that section says of each name."""
    text, _, section = inspect.cleandoc(docstring).partition("\nAttributes:\n")
    meanings: dict[str, str] = {}
    name = ""
    for line in section.splitlines():
        if matched := ATTRIBUTE.fullmatch(line):
            name, meanings[matched[1]] = matched[1], matched[2]
        elif name and line.strip():
            meanings[name] += f" {line.strip()}"
    return _markdown(text.strip()), {name: _markdown(meaning) for name, meaning in meanings.items()}


def _markdown(text: str) -> str:
    """Docstring markup as Markdown: literals and references become code."""
    return re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text).replace("``", "`")


def _table(fields: Mapping[str, Any], meanings: Mapping[str, str], profiles: Mapping[str, Any]) -> str:
    """One row for each setting; the column of meanings is there where a docstring fills it."""
    says = any(name in meanings for name in fields)
    heads = ["Setting", *(["Meaning"] if says else []), "Value", *(f"`{name}`" for name in profiles)]
    rows = [heads, ["---"] * len(heads)]
    for name, field in fields.items():
        meaning = [meanings.get(name, "")] if says else []
        default = "" if "default" not in field else f"; {_shown(field['default'])} where it is left out"
        shown = [_shown(values[name]) for values in profiles.values()]
        rows.append([f"`{name}`", *meaning, _described(field) + default, *shown])
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |\n" for row in rows)


def _described(field: Mapping[str, Any]) -> str:
    """What a value may be, in words."""
    if "anyOf" in field:
        return " or ".join(_described(choice) for choice in field["anyOf"])
    if words := REGISTRIES.get(tuple(field.get("enum", ()))):
        return words
    if "enum" in field or "const" in field:
        return ("one of " if "enum" in field else "") + ", ".join(map(_shown, field.get("enum", [field.get("const")])))
    kind = field["type"]
    if kind == "array":
        return f"a list, each entry {_described(field['items'])}"
    if kind == "object":
        return f"a mapping, each value {_described(field['additionalProperties'])}"
    limits = [words.format(field[limit]) for limit, words in LIMITS.items() if limit in field]
    return KINDS[kind] + (f" {' and '.join(limits)}" if limits else "")


def _shown(value: Any) -> str:
    """A value as it can stand in a profile."""
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000, allow_unicode=True)
    return f"`{text.removesuffix(chr(10)).removesuffix('...').strip()}`"


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(profile_reference(), encoding="utf-8")
