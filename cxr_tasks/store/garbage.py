"""Which artifacts may go: what nobody used for long, and nothing that stays refers to."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Any

Graph = Mapping[str, Set[str]]


@dataclass(frozen=True)
class Clearance:
    """What goes and what stays.

    Attributes:
        going: References of what goes. An artifact stands before those that it refers to.
        staying: References of what stays.
    """

    going: tuple[str, ...]
    staying: frozenset[str]


def references(value: Any, known: Collection[str]) -> set[str]:
    """The references among the texts of ``value``.

    Args:
        value: JSON, such as a record or the value of a pointer.
        known: All references that there are.
    """
    if isinstance(value, str):
        return {value} if value in known else set()
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return {ref for each in inner for ref in references(each, known)}


def lineage(roots: Iterable[str], graph: Graph) -> set[str]:
    """``roots`` and all that they refer to, at first or second hand."""
    found: set[str] = set()
    ahead = list(roots)
    while ahead:
        if (ref := ahead.pop()) not in found:
            found.add(ref)
            ahead += graph.get(ref, ())
    return found


def clearance(graph: Graph, roots: Iterable[str], alone: Iterable[str] = ()) -> Clearance:
    """What goes and what stays.

    Args:
        graph: What each artifact refers to, by its reference.
        roots: What stays with its lineage.
        alone: What stays without its lineage.
    """
    staying = (lineage(roots, graph) | set(alone)) & graph.keys()
    return Clearance(tuple(ref for ref in _dependents_first(graph) if ref not in staying), frozenset(staying))


def _dependents_first(graph: Graph) -> Iterator[str]:
    """Every reference before those that it refers to, where there are no circles."""
    seen: set[str] = set()
    done: list[str] = []
    for start in sorted(graph):
        ahead = [(start, False)]
        while ahead:
            ref, is_left = ahead.pop()
            if is_left:
                done.append(ref)
            elif ref not in seen and ref in graph:
                seen.add(ref)
                ahead.append((ref, True))
                ahead += [(each, False) for each in sorted(graph[ref])]
    return reversed(done)
