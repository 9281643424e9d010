"""How the contracts speak: an :class:`AssertionError` that says what was expected and what was found."""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from deepjudge_core.components import options
from deepjudge_core.errors import UsageError
from deepjudge_core.types import Array


def expect(condition: object, text: str) -> None:
    """Fail with the text unless the condition holds; unlike an ``assert`` statement also under ``python -O``."""
    if not condition:
        raise AssertionError(text)


def expect_close(text: str, values: Array, expected: Array, tolerance: float) -> None:
    """Fail unless two arrays agree up to ``tolerance`` times the greatest number expected (1e-3 where it is less)."""
    expect(values.shape == expected.shape, f"{text}: expected shape {expected.shape}, found {values.shape}")
    if values.size == 0:
        return
    allowed = tolerance * max(float(np.abs(expected).max()), 1e-3)
    apart = float(np.abs(values.astype(np.float64) - expected).max())
    # Turned round, so that NaN fails.
    expect(not apart > allowed and np.isfinite(apart), f"{text}: they differ by {apart:.3g}, allowed {allowed:.3g}")


def expect_array(text: str, values: object, shape: tuple[int, ...]) -> None:
    """Fail unless it is a finite float32 array of the shape."""
    if not isinstance(values, np.ndarray):
        raise AssertionError(f"{text}: expected a numpy array, found a {type(values).__name__}")
    expect(values.shape == shape, f"{text}: expected shape {shape}, found {values.shape}")
    expect(values.dtype == np.float32, f"{text}: expected float32, found {values.dtype}")
    expect(np.isfinite(values).all(), f"{text}: found NaN or infinity")


def expect_options(name: str, function: Callable[..., Any], positional: int) -> None:
    """Fail unless all parameters but the first ones are options that a user can set from the command line.

    Args:
        name: Of the component.
        function: Its function.
        positional: How many parameters the core gives by position.
    """
    parameters = list(inspect.signature(function, eval_str=True).parameters.values())
    for parameter in parameters[positional:]:
        label = f"{name}: option {parameter.name!r}"
        expect(parameter.kind is inspect.Parameter.KEYWORD_ONLY, f"{label}: expected a keyword-only parameter")
        expect(parameter.default is not inspect.Parameter.empty, f"{label}: expected a default")
        expect(parameter.annotation is not inspect.Parameter.empty, f"{label}: expected a type annotation")
        if isinstance(parameter.default, bool | int | float | str):
            text = str(parameter.default)
            try:
                value = options.resolve(name, function, {parameter.name: text})[parameter.name]
            except UsageError as error:
                raise AssertionError(f"{label}: its default cannot be written as text: {error}") from error
            expect(value == parameter.default, f"{label}: the text {text!r} gives {value!r}, not its default")
