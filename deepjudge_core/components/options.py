"""Options of components: from the keyword-only parameters of their functions, checked and converted."""

import difflib
import inspect
import math
import types
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal, Union, get_args, get_origin

from deepjudge_core.errors import PluginError, UsageError


def parse_assignments(assignments: Sequence[str]) -> dict[str, str]:
    """Split ``name=value`` texts.

    Raises:
        UsageError: When one has no ``=``, or a name is given twice.
    """
    parsed: dict[str, str] = {}
    for text in assignments:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UsageError(f"expected an option as name=value, found {text!r}")
        if name in parsed:
            raise UsageError(f"the option {name!r} is given twice")
        parsed[name] = value
    return parsed


def expect_positive(owner: str, **options: float) -> None:
    """Refuse options that are not above 0.

    Raises:
        UsageError: Naming the component and the option.
    """
    for name, value in options.items():
        if not value > 0:
            raise UsageError(f"{owner}: expected {name} > 0, found {value}", code="wrong-value")


def resolve(owner: str, function: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """All options of a component: what was given, converted, and the defaults of the rest.

    Args:
        owner: The component's name, for messages.
        function: Its function; every keyword-only parameter is an option.
        given: Option name to value; a text is converted to the annotated type. An option that is a mapping takes
            ``option.key`` entries.

    Raises:
        UsageError: For an option that does not exist, or one without a default that is not given, or a value that
            cannot be converted.
        PluginError: When the function's options cannot be read.
    """
    parameters = _parameters(owner, function)
    # Copied: a default must not change with what is made of it, and files take plain values only.
    resolved = {
        name: dict(p.default) if isinstance(p.default, Mapping) else p.default
        for name, p in parameters.items()
        if p.default is not inspect.Parameter.empty
    }
    for full, value in given.items():
        name, dot, key = full.partition(".")
        if name not in parameters:
            near = difflib.get_close_matches(name, parameters, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise UsageError(f"{owner} has no option {name!r}; its options: {', '.join(parameters) or 'none'}{hint}")
        annotation = parameters[name].annotation
        entries = _of_mapping(annotation)
        label = f"{owner}.{full}"
        if not dot:
            resolved[name] = _convert(label, value, annotation)
        elif entries is not None:
            resolved[name] = {**(resolved.get(name) or {}), key: _convert(label, value, entries)}
        else:
            raise UsageError(f"{owner}.{name} is one value; expected {name}=VALUE, found {full!r}")
    missing = [name for name in parameters if name not in resolved]
    if missing:
        raise UsageError(f"{owner}: expected a value for the option {missing[0]!r}, found none")
    return resolved


def _parameters(owner: str, function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    try:
        parameters = inspect.signature(function, eval_str=True).parameters.values()
    except Exception as error:  # of any kind: annotations that are texts are evaluated
        raise PluginError(f"{owner}: its options cannot be read: {type(error).__name__}: {error}") from error
    return {p.name: p for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}


def _of_mapping(annotation: Any) -> Any:
    """The type of a mapping's values; None for what is no mapping."""
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        return next(filter(None, map(_of_mapping, get_args(annotation))), None)
    return get_args(annotation)[1] if isinstance(origin, type) and issubclass(origin, Mapping) else None


def _convert(label: str, value: Any, annotation: Any) -> Any:
    origin = get_origin(annotation)
    if origin is Literal:
        choices = get_args(annotation)
        if value in choices:
            return value
        raise UsageError(f"{label}: expected one of {', '.join(map(str, choices))}, found {value!r}")
    if origin in (Union, types.UnionType):
        *others, last = [kind for kind in get_args(annotation) if kind is not type(None)]
        if type(None) in get_args(annotation) and value in (None, "none"):
            return None
        for kind in others:
            with suppress(UsageError):
                return _convert(label, value, kind)
        return _convert(label, value, last)
    entries = _of_mapping(annotation)
    if entries is not None:
        if isinstance(value, Mapping):
            return {k: _convert(f"{label}.{k}", v, entries) for k, v in value.items()}
        raise UsageError(f"{label}: expected {label}.NAME=VALUE, found {value!r}")
    if annotation is bool and isinstance(value, str):
        truth = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        if value.lower() in truth:
            return truth[value.lower()]
        raise UsageError(f"{label}: expected true or false, found {value!r}")
    if annotation in (int, float, str, bool):
        with suppress(TypeError, ValueError, OverflowError):
            converted = annotation(value)
            # Not 1 for 1.5 or for true; and no infinity, which no manifest can hold.
            kept = isinstance(value, str) or (converted == value and isinstance(value, bool) <= (annotation is bool))
            if kept and (annotation is not float or math.isfinite(converted)):
                return converted
        raise UsageError(f"{label}: expected {annotation.__name__}, found {value!r}")
    return value
