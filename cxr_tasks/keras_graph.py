"""The one place that knows how Keras keeps the graph of a functional model, which is not part of its public interface.

Written for Keras 3.15; a test names the version and says so when another one is installed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras

WRITTEN_FOR = "3.15"


@dataclass(frozen=True)
class Node:
    """One call of an operation in a functional model.

    Attributes:
        operation: The layer or operation.
        inputs: The symbolic tensors that it was called with.
    """

    operation: Any
    inputs: list[Any]

    def arguments(self, values: Mapping[int, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional and named arguments of the call, with ``values`` by ``id`` in the place of symbolic tensors."""
        return self.operation._inbound_nodes[0].arguments.fill_in(values)


def nodes_in_order(model: keras.Model) -> list[Node]:
    """The calls of ``model`` in the order in which they are computed, without its inputs.

    ``model.layers`` would not do: MobileNetV3 adds and multiplies without a layer, and only the call knows what an
    operation was called with, constants and all.
    """
    operations = [op for op in model.operations if not isinstance(op, keras.layers.InputLayer)]
    return [Node(op, op._inbound_nodes[0].input_tensors) for op in operations]


def run_with(model: keras.Model, inputs: Any, instead_of: Callable[[Any], Callable[..., Any]]) -> Any:
    """Run ``model`` on ``inputs``, with ``instead_of(operation)`` called in the place of each operation.

    The model's own walk over its graph: a second model would add nodes to the layers of the first.
    """
    return model._run_through_graph(inputs, instead_of)
