"""What an adapter is told of the inputs that a model will be given."""

from collections.abc import Callable
from typing import Any

import pytest
import toys
from refusals import refused

from deepjudge_core.components.hooks import hookimpl
from deepjudge_core.components.kinds import Adapter
from deepjudge_core.components.opening import open_model
from deepjudge_core.components.registry import Registry
from deepjudge_core.errors import ModelError
from deepjudge_core.models.input_spec import InputSpec
from deepjudge_core.models.model import Model

LAST = InputSpec((4, 5, 3), layout="channels_last")


class Source:
    """What the adapter here opens."""


class Plugin:
    def __init__(self, opener: Callable[..., Model]) -> None:
        self._open = opener

    @hookimpl
    def deepjudge_adapters(self) -> list[Adapter]:
        """Give the adapter."""
        return [Adapter("here", (".here",), lambda source: isinstance(source, Source), self._open)]


def registry_of(opener: Callable[..., Model]) -> Registry:
    return toys.registry_of(here=Plugin(opener))


def test_an_adapter_is_told_what_it_asks_for() -> None:
    told: list[Any] = []

    def with_expected(source: Any, *, name: str | None = None, expected: InputSpec | None = None) -> Model:
        told.append(expected)
        return toys.make_model()

    def without(source: Any, *, name: str | None = None) -> Model:
        return toys.make_model()

    for spec in (LAST, None):
        open_model(Source(), registry=registry_of(with_expected), expected=spec)
        open_model(Source(), registry=registry_of(without), expected=spec)
    assert told == [LAST, None]


@pytest.mark.parametrize(
    ("spec", "shapes"),
    [
        (InputSpec((4,)), [(4,)]),
        (InputSpec((1, 4, 5)), [(1, 4, 5), (5, 1, 4), (4, 5, 1), (4, 5), (20,)]),
        (LAST, [(3, 4, 5), (4, 5, 3), (5, 3, 4), (60,)]),
        (InputSpec((4, 5)), [(4, 5), (5, 4), (4, 5, 1), (1, 4, 5), (20,)]),
    ],
)
def test_shapes_are_tried_until_one_fits(spec: InputSpec, shapes: list[tuple[int, ...]]) -> None:
    tried: list[tuple[int, ...]] = []

    def opener(source: Any, *, name: str | None = None, input_shape: tuple[int, ...] | None = None) -> Model:
        assert input_shape is not None
        tried.append(input_shape)
        if input_shape != shapes[-1]:
            raise ModelError(f"expected {shapes[-1]}, found {input_shape}")
        return toys.make_model()

    open_model(Source(), registry=registry_of(opener), expected=spec)
    assert tried == shapes


def test_what_is_wrong_whatever_the_shape_is_tried_twice() -> None:
    tried: list[Any] = []

    def opener(source: Any, *, name: str | None = None, input_shape: tuple[int, ...] | None = None) -> Model:
        tried.append(input_shape)
        raise ModelError("a damaged file")

    with refused(ModelError, "a damaged file"):
        open_model(Source(), registry=registry_of(opener), expected=LAST)
    assert len(tried) == 2
