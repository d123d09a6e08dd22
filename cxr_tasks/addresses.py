"""Addresses in settings that mean the same from every folder: a task does not run where its profile lies."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from cxr_tasks.errors import SettingsError, shown

# What stands in the place of an address, or of the file of weights.
WORDS = ("gan", "imagenet", "random")


def whole_addresses(settings: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Nested settings, as a profile has them, in which relative paths of sources and of weights begin with ``folder``.

    What is no address is left as it is: the settings are checked later.
    """
    return _changed(settings, lambda _, address: _from(folder, address) if _is_path(address) else address)


def check_whole(settings: Mapping[str, Any]) -> None:
    """Stop where nested settings name a source or a file of weights by a relative path.

    Raises:
        SettingsError: Naming the setting and the path.
    """

    def check(setting: str, address: str) -> str:
        if _is_path(address) and not Path(address).expanduser().is_absolute():
            raise SettingsError(
                f"{setting} is {shown(address)!r}, which is another place in each folder, and tasks run in folders of "
                "their own: give the whole path, or write it into a profile, from whose folder it then counts."
            )
        return address

    _changed(settings, check)


def _is_path(address: str) -> bool:
    return bool(address.strip()) and address not in WORDS and "://" not in address


def _from(folder: Path, address: str) -> str:
    return os.path.abspath(folder / Path(address).expanduser())


def _changed(settings: Mapping[str, Any], change: Callable[[str, str], str]) -> dict[str, Any]:
    """``settings`` with what ``change`` makes of each address, of which it is given the setting too."""
    changed: dict[str, Any] = {**settings}
    for section, name in (("data", "sources"), ("data", "external")):
        listed = _below(changed, section).get(name)
        if isinstance(listed, list | tuple):
            told = [_with_source(each, f"{section}.{name}", change) for each in listed]
            changed[section] = {**changed[section], name: told}
    for section, name in (("synthetic", "source"), ("judge", "weights")):
        if isinstance(address := _below(changed, section).get(name), str):
            changed[section] = {**changed[section], name: change(f"{section}.{name}", address)}
    if isinstance(weights := _below(changed, "classifiers").get("weights"), Mapping):
        changed["classifiers"] = {**changed["classifiers"], "weights": dict(_weights(weights, change))}
    return changed


def _below(settings: Mapping[str, Any], section: str) -> Mapping[str, Any]:
    found = settings.get(section)
    return found if isinstance(found, Mapping) else {}


def _with_source(source: Any, setting: str, change: Callable[[str, str], str]) -> Any:
    if not isinstance(source, Mapping) or not isinstance(address := source.get("source"), str):
        return source
    return {**source, "source": change(f"The source {source.get('name', '')!r} of {setting}", address)}


def _weights(weights: Mapping[str, Any], change: Callable[[str, str], str]) -> Iterator[tuple[str, Any]]:
    for name, address in weights.items():
        yield name, change(f"classifiers.weights.{name}", address) if isinstance(address, str) else address
