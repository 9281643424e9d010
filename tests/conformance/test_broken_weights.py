"""The contract of stored weights fails where it should: here it is broken in each way that it is there for."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from contracts import failures

from deepjudge_core.testing import check_weights, weights_checks
from deepjudge_core.testing.weights import ArrayWeights
from deepjudge_core.weights.values import NeuronLayer, Roles, TensorSpec, View

VIEW = View("a", (0, 1), "inputs")
LAYER = NeuronLayer("hidden", 0, "dense", 7, (VIEW,))


def healthy(kind: type[ArrayWeights] = ArrayWeights, **changes: Any) -> ArrayWeights:
    rng = np.random.default_rng(0)
    arrays = {"a": rng.normal(size=(7, 3)), "b": rng.normal(size=6), "c": np.float64(2)}
    roles = Roles("graph", (LAYER, NeuronLayer("next", 1, "dense", 3, (View("a", (1, 0), "hidden"),))))
    made = kind({name: np.asarray(array, np.float32) for name, array in arrays.items()}, roles=roles)
    made.vocabulary = ["x", ""]
    for name, value in changes.items():
        setattr(made, name, value)
    return made


class Reading(ArrayWeights):
    def change(self, values: Any, rows: slice | None) -> Any:
        raise NotImplementedError

    def read(self, tensor: str, rows: slice | None = None) -> Any:
        return self.change(super().read(tensor, rows if self.arrays[tensor].ndim else None), rows)


class Double(Reading):
    def change(self, values: Any, rows: slice | None) -> Any:
        return values.astype(np.float64)


class NotFinite(Reading):
    def change(self, values: Any, rows: slice | None) -> Any:
        return values * np.float32("inf")


class Flat(Reading):
    def change(self, values: Any, rows: slice | None) -> Any:
        return values.ravel()


class AlwaysFirst(Reading):
    def change(self, values: Any, rows: slice | None) -> Any:
        return values if rows is None or not values.size else np.broadcast_to(values[:1], values.shape).copy()


class ReadOnly(Reading):
    def change(self, values: Any, rows: slice | None) -> Any:
        values.flags.writeable = False
        return values


class Shared(ArrayWeights):
    def read(self, tensor: str, rows: slice | None = None) -> Any:
        whole = self.arrays[tensor]
        return whole[rows] if rows is not None and whole.ndim else whole


def viewed(**changes: Any) -> ArrayWeights:
    return healthy(roles=Roles("graph", (replace(LAYER, views=(replace(VIEW, **changes),)),)))


BROKEN: dict[str, tuple[Callable[[], ArrayWeights], str, str]] = {
    "no name": (lambda: healthy(name=""), "description", "name: expected a text"),
    "no format": (lambda: healthy(format=None), "description", "format: expected a text"),
    "no tensors": (lambda: healthy(tensors={}), "description", "expected one at least"),
    "a shape alone": (lambda: healthy(tensors={"a": (7, 3)}), "description", "expected a TensorSpec"),
    "a list as shape": (lambda: healthy(tensors={"a": TensorSpec([7, 3], "F32")}), "description", "expected a shape"),
    "no configuration": (lambda: healthy(config=None), "description", "expected a mapping"),
    "another shape": (lambda: healthy(tensors={"a": TensorSpec((3, 7), "F32")}), "numbers", "expected shape (3, 7)"),
    "double": (lambda: healthy(Double), "numbers", "expected float32"),
    "not finite": (lambda: healthy(NotFinite), "numbers", "NaN or infinity"),
    "flat": (lambda: healthy(Flat), "numbers", "expected shape (7, 3)"),
    "always the first row": (lambda: healthy(AlwaysFirst), "rows", "other numbers than in the whole tensor"),
    "read only": (lambda: healthy(ReadOnly), "copies", "read only"),
    "shared": (lambda: healthy(Shared), "copies", "changes the weights"),
    "tokens in a list": (lambda: healthy(tokens=lambda: ["a"]), "tokens", "expected a tuple"),
    "tokens that are bytes": (lambda: healthy(tokens=lambda: (b"a",)), "tokens", "expected texts"),
    "roles of another kind": (lambda: healthy(roles="llama"), "roles", "expected Roles or None"),
    "a tensor that is not there": (lambda: viewed(tensor="z"), "roles", "found 'z'"),
    "another number of numbers": (lambda: viewed(shape=(7, 4)), "roles", "expected as many numbers"),
    "an axis twice": (lambda: viewed(axes=(0, 0)), "roles", "expected each axis"),
    "rows outside": (lambda: viewed(rows=(1, 8)), "roles", "expected rows of"),
    "too few rows": (lambda: viewed(rows=(1, 7)), "roles", "expected 7 rows, found 6"),
    "an unknown basis": (lambda: viewed(basis="later"), "roles", "found 'later'"),
}


def test_healthy_weights_pass() -> None:
    check_weights(healthy())
    check_weights(healthy(roles=None, vocabulary=None))


@pytest.mark.parametrize("name", BROKEN)
def test_the_contract_says_what_is_broken(name: str) -> None:
    make, check, text = BROKEN[name]
    found = failures(weights_checks(make()))
    assert text in found.get(check, ""), found
