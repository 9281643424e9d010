"""The contract of stored weights, which an adapter's ``weights`` gives."""

from collections.abc import Mapping

import numpy as np

from deepjudge_core.testing.checks import Checks, run
from deepjudge_core.testing.expect import expect, expect_array
from deepjudge_core.weights.values import NeuronLayer, Roles, StoredWeights, TensorSpec, View

_ROWS = 5  # that are read at once


def weights_checks(weights: StoredWeights) -> Checks:
    """The checks of stored weights: names, each with a check.

    Args:
        weights: Open, small enough to be read whole.
    """
    yield "description", lambda: _check_description(weights)
    yield "numbers", lambda: _check_numbers(weights)
    yield "rows", lambda: _check_rows(weights)
    yield "copies", lambda: _check_copies(weights)
    yield "tokens", lambda: _check_tokens(weights)
    yield "roles", lambda: _check_roles(weights)


def check_weights(weights: StoredWeights) -> None:
    """Run the checks of stored weights, up to the first that fails.

    Raises:
        AssertionError: Of that one.
    """
    run(weights_checks(weights))


def _check_description(weights: StoredWeights) -> None:
    for attribute in ("name", "format"):
        value = getattr(weights, attribute)
        expect(isinstance(value, str) and value, f"{attribute}: expected a text, found {value!r}")
    expect(isinstance(weights.config, Mapping), f"config: expected a mapping, found a {type(weights.config).__name__}")
    expect(weights.tensors, "tensors: expected one at least, found none")
    for name, spec in weights.tensors.items():
        expect(isinstance(spec, TensorSpec), f"{name!r}: expected a TensorSpec, found a {type(spec).__name__}")
        whole = all(isinstance(size, int) and size >= 0 for size in spec.shape)
        expect(isinstance(spec.shape, tuple) and whole, f"{name!r}: expected a shape, found {spec.shape!r}")
        expect(isinstance(spec.dtype, str), f"{name!r}: expected the name of a type, found {spec.dtype!r}")


def _check_numbers(weights: StoredWeights) -> None:
    for name, spec in weights.tensors.items():
        expect_array(f"{name!r}", weights.read(name), spec.shape)


def _check_rows(weights: StoredWeights) -> None:
    for name, spec in weights.tensors.items():
        if not spec.shape:
            continue
        whole = weights.read(name)
        parts = [slice(at, at + _ROWS) for at in range(0, spec.shape[0] + 1, _ROWS)]  # the last one ends behind the end
        for rows in (*parts, slice(None), slice(1, None), slice(0, 0)):
            part = weights.read(name, rows)
            expect_array(f"{name!r}: {rows}", part, whole[rows].shape)
            expect(np.array_equal(part, whole[rows]), f"{name!r}: {rows} are other numbers than in the whole tensor")


def _check_copies(weights: StoredWeights) -> None:
    for name in weights.tensors:
        first = weights.read(name)
        expect(first.flags.writeable, f"{name!r}: expected an array of the reader's own, found one that is read only")
        before = first.copy()
        first.fill(1 if not before.any() else 0)
        expect(np.array_equal(weights.read(name), before), f"{name!r}: who writes to what was read changes the weights")


def _check_tokens(weights: StoredWeights) -> None:
    tokens = weights.tokens()
    if tokens is not None:
        expect(isinstance(tokens, tuple), f"tokens: expected a tuple, found a {type(tokens).__name__}")
        other = next((token for token in tokens if not isinstance(token, str)), "")
        expect(isinstance(other, str), f"tokens: expected texts, found {other!r}")


def _check_roles(weights: StoredWeights) -> None:
    roles = weights.roles
    if roles is None:
        return
    expect(isinstance(roles, Roles), f"roles: expected Roles or None, found a {type(roles).__name__}")
    known = {"inputs", "outputs", "residual", "kernel"}
    for layer in roles.layers:
        for view in layer.views:
            _check_view(weights, layer, view, known)
        known.add(layer.name)


def _check_view(weights: StoredWeights, layer: NeuronLayer, view: View, known: set[str]) -> None:
    label = f"roles: {layer.name!r}"
    expect(view.tensor in weights.tensors, f"{label}: expected one of the tensors, found {view.tensor!r}")
    stored = weights.tensors[view.tensor].shape
    shape = view.shape or stored
    expect(np.prod(shape) == np.prod(stored), f"{label}: expected as many numbers as {stored} has, found {shape}")
    axes = sorted(view.axes)
    expect(axes == list(range(len(shape))), f"{label}: expected each axis of {shape} once, found {view.axes}")
    first, last = view.rows or (0, shape[view.axes[0]])
    expect(0 <= first <= last <= shape[view.axes[0]], f"{label}: expected rows of {shape}, found {view.rows}")
    expect(last - first == layer.width, f"{label}: expected {layer.width} rows, found {last - first}")
    expect(view.basis in known, f"{label}: expected a basis that is known or a layer before it, found {view.basis!r}")
