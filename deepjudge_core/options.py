"""Options of components: from the keyword-only parameters of their functions, checked and converted."""

import difflib
import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin

from deepjudge_core.errors import UsageError


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


def resolve(owner: str, function: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """All options of a component: what was given, converted, and the defaults of the rest.

    Args:
        owner: The component's name, for messages.
        function: Its function; every keyword-only parameter is an option.
        given: Option name to value; a text is converted to the annotated type. An option that is a mapping takes
            ``option.key`` entries.

    Raises:
        UsageError: For an option that does not exist or a value that cannot be converted.
    """
    parameters = {
        p.name: p
        for p in inspect.signature(function, eval_str=True).parameters.values()
        if p.kind is inspect.Parameter.KEYWORD_ONLY
    }
    resolved = {name: p.default for name, p in parameters.items()}
    for full, value in given.items():
        name, dot, key = full.partition(".")
        if name not in parameters:
            near = difflib.get_close_matches(name, parameters, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise UsageError(f"{owner} has no option {name!r}; its options: {', '.join(parameters) or 'none'}{hint}")
        annotation = parameters[name].annotation
        label = f"{owner}.{full}"
        if not dot:
            resolved[name] = _convert(label, value, annotation)
        elif _is_mapping(annotation):
            resolved[name] = {**resolved[name], key: _convert(label, value, get_args(annotation)[1])}
        else:
            raise UsageError(f"{owner}.{name} is one value; expected {name}=VALUE, found {full!r}")
    return resolved


def _is_mapping(annotation: Any) -> bool:
    origin = get_origin(annotation)
    return isinstance(origin, type) and issubclass(origin, Mapping)


def _convert(label: str, value: Any, annotation: Any) -> Any:
    origin = get_origin(annotation)
    if origin is Literal:
        choices = get_args(annotation)
        if value in choices:
            return value
        raise UsageError(f"{label}: expected one of {', '.join(map(str, choices))}, found {value!r}")
    if origin in (Union, types.UnionType):
        kinds = get_args(annotation)
        if type(None) in kinds and value in (None, "none"):
            return None
        return _convert(label, value, next(kind for kind in kinds if kind is not type(None)))
    if _is_mapping(annotation):
        if isinstance(value, Mapping):
            return {k: _convert(f"{label}.{k}", v, get_args(annotation)[1]) for k, v in value.items()}
        raise UsageError(f"{label}: expected {label}.NAME=VALUE, found {value!r}")
    if annotation is bool and isinstance(value, str):
        truth = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        if value.lower() in truth:
            return truth[value.lower()]
        raise UsageError(f"{label}: expected true or false, found {value!r}")
    if annotation in (int, float, str, bool) and not isinstance(value, annotation):
        try:
            return annotation(value)
        except (TypeError, ValueError):
            raise UsageError(f"{label}: expected {annotation.__name__}, found {value!r}") from None
    return value
