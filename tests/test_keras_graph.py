"""What is known of Keras' inner graph holds for the installed Keras, and looking at a model does not change it."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from cxr_tasks.keras_graph import WRITTEN_FOR, nodes_in_order, run_with

PIXELS = np.random.default_rng(0).uniform(0, 1, (5, 8, 8, 1)).astype("float32")


def test_keras_is_the_version_that_this_was_written_for() -> None:
    installed = ".".join(keras.__version__.split(".")[:2])

    assert installed == WRITTEN_FOR, (
        f"cxr_tasks/keras_graph.py was written for Keras {WRITTEN_FOR}, and Keras {installed} is installed: check that "
        "the other tests of this file pass, and name the new version in WRITTEN_FOR."
    )


@pytest.fixture
def model() -> keras.Model:
    """A functional model with operations that are no layers, constants, and a branch that joins again."""
    keras.utils.set_random_seed(0)
    pixels = keras.Input((8, 8, 1))
    x = layers.Conv2D(3, 3, padding="same", name="first")(pixels)
    gate = ops.relu(x + 3.0) * (1.0 / 6.0)
    joined = layers.Concatenate(name="joined")([x * gate, ops.maximum(x, 0.5)])
    added = layers.Add(name="added")([joined, 2.0 * joined])
    flat = layers.GlobalAveragePooling2D(name="flat")(added)
    return keras.Model(pixels, layers.Dense(2, name="last")(layers.Dropout(0.5)(flat)))


def nested(model: keras.Model) -> keras.Model:
    """``model`` as one layer of another."""
    pixels = keras.Input((8, 8, 1))
    return keras.Model(pixels, layers.Activation("softmax", name="outside")(model(layers.Rescaling(0.5)(pixels))))


def state(model: keras.Model) -> tuple[object, ...]:
    """All of a model's graph and configuration that looking at it might change."""
    nodes = [(op.name, len(op._inbound_nodes), len(op._outbound_nodes)) for op in model.operations]
    return model.get_config(), nodes, [id(op) for op in model.operations]


def test_calls_come_after_what_they_are_called_with_and_without_the_inputs(model: keras.Model) -> None:
    nodes = nodes_in_order(model)

    assert [node.operation for node in nodes] == model.operations[1:]
    known = {id(model.input)}
    for node in nodes:
        assert node.inputs and {id(tensor) for tensor in node.inputs} <= known
        known.add(id(node.operation.output))
    assert id(model.output) in known
    assert {"first", "joined", "added", "flat", "last"} < {node.operation.name for node in nodes}


def test_calls_one_after_the_other_are_the_model_with_its_constants(model: keras.Model) -> None:
    values = {id(model.input): ops.convert_to_tensor(PIXELS)}

    for node in nodes_in_order(model):
        args, kwargs = node.arguments(values)
        values[id(node.operation.output)] = node.operation(*args, **kwargs)

    np.testing.assert_allclose(values[id(model.output)], model(PIXELS, training=False), rtol=1e-6)


def test_arguments_follow_the_values_that_are_given(model: keras.Model) -> None:
    first = nodes_in_order(model)[0]

    args, kwargs = first.arguments({id(model.input): ops.zeros((2, 8, 8, 1))})

    assert [tuple(value.shape) for value in args] == [(2, 8, 8, 1)] and kwargs == {}


def test_a_model_runs_with_an_operation_called_instead_of_another(model: keras.Model) -> None:
    seen = []

    def instead_of(operation):
        if operation.name != "last":
            return operation

        def doubled(x):
            seen.append(tuple(x.shape))
            return 2 * operation(x)

        return doubled

    out = run_with(model, ops.convert_to_tensor(PIXELS), instead_of)

    assert seen == [(5, 6)]
    np.testing.assert_allclose(out, 2 * np.asarray(model(PIXELS, training=False)), rtol=1e-6)


def test_a_nested_model_runs_through_its_inner_layers(model: keras.Model) -> None:
    outer, seen = nested(model), []

    def instead_of(operation):
        if isinstance(operation, keras.Model):
            return lambda x, **_: run_with(operation, x, instead_of)
        seen.append(operation.name)
        return operation

    out = run_with(outer, ops.convert_to_tensor(PIXELS), instead_of)

    assert {"first", "joined", "last", "outside"} <= set(seen)
    np.testing.assert_allclose(out, outer(PIXELS, training=False), rtol=1e-6)


def test_the_model_is_not_changed(model: keras.Model) -> None:
    outer = nested(model)
    before = [state(model), state(outer)]
    weights, answer = model.get_weights(), model.predict(PIXELS, verbose=0)

    values = {id(model.input): ops.convert_to_tensor(PIXELS)}
    for node in nodes_in_order(model):
        args, kwargs = node.arguments(values)
        values[id(node.operation.output)] = node.operation(*args, **kwargs)
    for each in (model, outer):
        run_with(each, ops.convert_to_tensor(PIXELS), lambda operation: operation)

    assert [state(model), state(outer)] == before
    assert all(np.array_equal(a, b) for a, b in zip(weights, model.get_weights(), strict=True))
    np.testing.assert_array_equal(model.predict(PIXELS, verbose=0), answer)
