"""Options of components: from the keyword-only parameters of their functions, checked and converted."""

import difflib
import inspect
import math
import re
import types
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import MISSING, dataclass
from typing import Any, Literal, Union, get_args, get_origin

from deepjudge_core.components.attack import Attack
from deepjudge_core.components.kinds import Generator, Rule
from deepjudge_core.components.schemes import Scheme
from deepjudge_core.errors import PluginError, UsageError
from deepjudge_core.settings import in_words, keeps, unannotated
from deepjudge_core.text import found

_TYPES: Mapping[Any, str] = {int: "whole number", float: "number", str: "text", bool: "true or false"}


@dataclass(frozen=True)
class Option:
    """An option of a component, as the function's signature and docstring declare it.

    Attributes:
        name: The parameter.
        annotation: Its type, with the constraints on its values; Any where the function does not say.
        default: Its default; :data:`dataclasses.MISSING` where it has none.
        help: The parameter's entry in the docstring; empty where there is none.
    """

    name: str
    annotation: Any
    default: Any
    help: str

    @property
    def required(self) -> bool:
        """Whether it has to be given."""
        return self.default is MISSING

    @property
    def optional(self) -> bool:
        """Whether it takes ``none``, which stands for no value where a file has none."""
        return type(None) in get_args(unannotated(self.annotation)[0])

    @property
    def words(self) -> str:
        """Its type and constraints, as a person says them."""
        return _in_words(self.annotation)


def options_of(component: Any) -> tuple[Option, ...]:
    """The options of a generator, a rule, an attack or a scheme; none of other components.

    Raises:
        PluginError: When the function's options cannot be read.
    """
    function = function_of(component)
    if function is None:
        return ()
    said = _described(inspect.getdoc(function) or "")
    return tuple(
        Option(name, _annotation(one), _default(one), said.get(name, ""))
        for name, one in _parameters(component.name, function).items()
    )


def function_of(component: Any) -> Callable[..., Any] | None:
    """Whose keyword-only parameters are the options of a component; None of one that has none."""
    match component:
        case Generator(generate=function) | Rule(judge=function) | Attack(steal=function) | Scheme(make=function):
            return function
    return None


def _described(doc: str) -> dict[str, str]:
    # The entries of a Google docstring's section of arguments, each on one line, without its full stop.
    section = re.search(r"^Args:\n((?:[ \t]+.*\n?|\n)+)", doc, re.MULTILINE)
    entries = re.findall(r"^    (\w+): (.*(?:\n {5,}.*)*)", section[1], re.MULTILINE) if section else []
    return {name: " ".join(text.split()).removesuffix(".").replace("``", "`") for name, text in entries}


def _annotation(parameter: inspect.Parameter) -> Any:
    return Any if parameter.annotation is inspect.Parameter.empty else parameter.annotation


def _default(parameter: inspect.Parameter) -> Any:
    # Copied: a default must not change with what is made of it, and files take plain values only.
    if parameter.default is inspect.Parameter.empty:
        return MISSING
    return dict(parameter.default) if isinstance(parameter.default, Mapping) else parameter.default


def _in_words(annotation: Any) -> str:
    inner, constraints = unannotated(annotation)
    said = in_words(constraints)
    if get_origin(inner) is Literal:
        return " or ".join(map(str, get_args(inner)))
    if get_origin(inner) in (Union, types.UnionType):
        return " or ".join(_in_words(kind) if kind is not type(None) else "none" for kind in get_args(inner))
    entries = _of_mapping(inner)
    if entries is not None:
        return f"a {_in_words(entries)} for each name"
    words = _TYPES.get(inner, "any value")
    return f"{words}{' of ' if said.startswith('at ') else ' ' if said else ''}{said}"


def parse_assignments(assignments: Sequence[str]) -> dict[str, str]:
    """Split ``name=value`` texts.

    Raises:
        UsageError: When one has no ``=``, or a name is given twice.
    """
    parsed: dict[str, str] = {}
    for text in assignments:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UsageError(f"expected an option as name=value, found {text!r}", code="wrong-value")
        if name in parsed:
            raise UsageError(f"the option {name!r} is given twice", code="conflict")
        parsed[name] = value
    return parsed


def resolve(owner: str, function: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """All options of a component: what was given, converted, and the defaults of the rest.

    Args:
        owner: The component's name, for messages.
        function: Its function; every keyword-only parameter is an option.
        options: Option name to value; a text is converted to the annotated type. An option that is a mapping takes
            ``option.key`` entries.

    Raises:
        UsageError: For an option that does not exist, or one without a default that is not given, or a value that
            cannot be converted.
        PluginError: When the function's options cannot be read.
    """
    parameters = _parameters(owner, function)
    resolved = {name: _default(p) for name, p in parameters.items() if _default(p) is not MISSING}
    for full, value in options.items():
        name, dot, key = full.partition(".")
        if name not in parameters:
            near = difflib.get_close_matches(name, parameters, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            names = ", ".join(parameters) or "none"
            raise UsageError(f"{owner} has no option {name!r}; its options: {names}{hint}", code="unknown-option")
        annotation = parameters[name].annotation
        entries = _of_mapping(annotation)
        label = f"{owner}.{full}"
        if not dot:
            resolved[name] = _convert(label, value, annotation)
        elif entries is not None:
            resolved[name] = {**(resolved.get(name) or {}), key: _convert(label, value, entries)}
        else:
            raise _wrong(f"{owner}.{name} takes a single value", f"{name}=VALUE", full)
    missing = [name for name in parameters if name not in resolved]
    if missing:
        raise UsageError(f"{owner}: the option {missing[0]!r} needs a value", code="missing-value")
    return resolved


def _parameters(owner: str, function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    try:
        parameters = inspect.signature(function, eval_str=True).parameters.values()
    except Exception as error:  # of any kind: annotations that are texts are evaluated
        raise PluginError(f"{owner}: cannot read its options: {type(error).__name__}: {error}") from error
    return {p.name: p for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}


def _of_mapping(annotation: Any) -> Any:
    """The type of a mapping's values; None for what is no mapping."""
    annotation, _ = unannotated(annotation)
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        return next(filter(None, map(_of_mapping, get_args(annotation))), None)
    return get_args(annotation)[1] if isinstance(origin, type) and issubclass(origin, Mapping) else None


def _convert(label: str, value: Any, annotation: Any) -> Any:
    inner, constraints = unannotated(annotation)
    if constraints:
        converted = _convert(label, value, inner)
        if not keeps(converted, constraints):
            raise _wrong(label, f"a {_in_words(annotation)}", value)
        return converted
    annotation, origin = inner, get_origin(inner)
    if origin is Literal:
        choices = get_args(annotation)
        if value in choices:
            return value
        raise _wrong(label, f"one of {', '.join(map(str, choices))}", value)
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
        raise _wrong(label, f"a table of names and values, or {label}.NAME=VALUE", value)
    if annotation is bool and isinstance(value, str):
        truth = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        if value.lower() in truth:
            return truth[value.lower()]
        raise _wrong(label, "true or false", value)
    if annotation in (int, float, str, bool):
        with suppress(TypeError, ValueError, OverflowError):
            converted = annotation(value)
            # Not 1 for 1.5 or for true; and no infinity, which no manifest can hold.
            exact = isinstance(value, str) or (converted == value and isinstance(value, bool) <= (annotation is bool))
            if exact and (annotation is not float or math.isfinite(converted)):
                return converted
        raise _wrong(label, _TYPES[annotation] if annotation is bool else f"a {_TYPES[annotation]}", value)
    return value


def _wrong(label: str, words: str, value: Any) -> UsageError:
    return UsageError(f"{label}: expected {words}, found {found(value)}", code="wrong-value")
