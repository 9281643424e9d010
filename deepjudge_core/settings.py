"""A setting is declared once, as a field of a frozen dataclass: all that is said of it anywhere is made from that.

The field's name, annotation and default are those of the setting. Constraints stand in the annotation, in the
vocabulary of ``annotated_types``: ``Annotated[int, Ge(1)]``. What else there is to say is a :class:`Declaration`, which
:func:`setting` puts into the field's metadata. The command line, its help, the reader of ``AUDIT.toml``, the example of
one, its JSON Schema and the tables of the documentation read :func:`settings_of`.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from dataclasses import replace as changed
from functools import cache
from itertools import pairwise
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

from annotated_types import BaseMetadata, Ge, GroupedMetadata, Gt, Le, Lt, MinLen

T = TypeVar("T")

GROUPS = (
    "input",
    "data",
    "suite",
    "key",
    "weights",
    "model",
    "zoo",
    "judging",
    "isolation",
    "bundle",
    "suspect",
    "report",
    "output",
    "general",
)
"""The groups of options, in the order of ``--help``."""


@dataclass(frozen=True)
class Nonzero(BaseMetadata):
    """A number other than 0."""


OneOrEach = float | tuple[float, ...]
"""One number for all, or one for each; typed with colons between them."""


@dataclass(frozen=True)
class Increasing(BaseMetadata):
    """Each value is above the one before, or each of its numbers, of which there are as many or one for all."""


@dataclass(frozen=True)
class Distinct(BaseMetadata):
    """No value is there twice."""


@dataclass(frozen=True)
class Matches(BaseMetadata):
    """A text of a form.

    Attributes:
        pattern: The form, as a regular expression of the whole text.
        words: The form, as a person says it.
    """

    pattern: str
    words: str


@dataclass(frozen=True)
class OrNumber(BaseMetadata):
    """A text, in place of which a file may have a whole number from 1, which is the text of its digits."""


@dataclass(frozen=True)
class Size(BaseMetadata):
    """A number of bytes, which is written as ``8GiB``."""


@dataclass(frozen=True)
class Names(BaseMetadata):
    """Texts that name files: what is there is one of them, with its commas."""


@dataclass(frozen=True)
class OneOrMore(BaseMetadata):
    """A list of one value may be written as the value."""


@dataclass(frozen=True)
class Declaration:
    """What is declared of a setting beside its name, annotation and default.

    Attributes:
        help: What it does, in one sentence without a full stop.
        group: One of :data:`GROUPS`.
        flags: Its names on the command line; none for what is a positional argument or stands in files only.
        metavar: What stands for its value in the help.
        positional: Whether it is an argument without a name.
        key: Its key in ``AUDIT.toml``; None for what no file says.
        tables: The tables that have the key: ``""`` is the document, ``"suspects[]"`` an array of tables.
        sample: A value to show, where the default is not one.
        usual: What holds without it, where the default does not say that.
        word: What is written for None, such as ``auto``.
        commands: The commands that have it; by default all that take its class.
        filed: Further commands that have it in their file alone, since the flag means something else there.
        reads: Whether it names a file that is read.
        writes: Whether it names a file that is written.
        formerly: What the option or key was called before.
        components: The kind of components that it names: ``generators``, ``metrics``, ``rules``, ``attacks``.
        bare: The value of an option that is given without one; None where it takes one.
        optional_key: Whether the key may be left out though the setting is required.
        unless: The flag and the dotted key of a truth with which the setting may be left out; without it, it is
            required though it has a default.
    """

    help: str
    group: str = "general"
    flags: tuple[str, ...] = ()
    metavar: str | None = None
    positional: bool = False
    key: str | None = None
    tables: tuple[str, ...] = ("",)
    sample: Any = None
    usual: str | None = None
    word: str | None = None
    commands: tuple[str, ...] = ()
    filed: tuple[str, ...] = ()
    reads: bool = False
    writes: bool = False
    formerly: tuple[str, ...] = ()
    components: str | None = None
    bare: str | None = None
    optional_key: bool = False
    unless: tuple[str, str] | None = None


@dataclass(frozen=True, eq=False)
class Setting:
    """One setting, as its field declares it.

    Attributes:
        path: Names of the fields that lead to it, from the outermost class.
        annotation: Its type, with the constraints on its values.
        default: Its default; :data:`dataclasses.MISSING` where it has none and is required.
        declared: What else is declared of it.
        owner: The name of the class that declares it.
    """

    path: tuple[str, ...]
    annotation: Any
    default: Any
    declared: Declaration
    owner: str

    @property
    def required(self) -> bool:
        """Whether it has to be given, if nothing makes it unnecessary."""
        return self.default is MISSING or self.declared.unless is not None

    @property
    def name(self) -> str:
        """What messages call it: its longest flag, or what stands for an argument."""
        return max(self.declared.flags, key=len) if self.declared.flags else self.declared.metavar or self.path[-1]

    @property
    def keys(self) -> tuple[str, ...]:
        """Its dotted keys in ``AUDIT.toml``."""
        if self.declared.key is None:
            return ()
        return tuple(f"{table}.{self.declared.key}".removeprefix(".") for table in self.declared.tables)


_KEY = "setting"


def setting(help: str, *flags: str, default: Any = MISSING, factory: Any = MISSING, **more: Any) -> Any:
    """A field that declares a setting.

    Args:
        help: See :class:`Declaration`, as for all of ``more``.
        flags: Its names on the command line.
        default: Its default; without one, and without a factory, it is required.
        factory: What makes its default.
        more: Other attributes of the declaration.
    """
    metadata = {_KEY: Declaration(help, flags=flags, **more)}
    if factory is not MISSING:
        return field(default_factory=factory, metadata=metadata)
    return field(metadata=metadata) if default is MISSING else field(default=default, metadata=metadata)


def argument(metavar: str, help: str, *, default: Any = MISSING, **more: Any) -> Any:
    """A field that declares a positional argument; see :func:`setting`."""
    return setting(help, default=default, metavar=metavar, positional=True, **more)


def part(kind: type[Any]) -> Any:
    """A field that holds settings of another class, each with its default."""
    return field(default_factory=kind, metadata={"part": kind})


def settings_of(owner: Any, command: str | None = None) -> tuple[Setting, ...]:
    """The settings that a class and its parts declare.

    Args:
        owner: A frozen dataclass.
        command: Only those of this command.
    """
    return tuple(
        one
        for one in _all(owner)
        if command is None or command in (*(one.declared.commands or (command,)), *one.declared.filed)
    )


@cache
def _all(owner: Any) -> tuple[Setting, ...]:
    hints = get_type_hints(owner, include_extras=True)
    return tuple(_declared(owner, hints))


def _declared(owner: type[Any], hints: Mapping[str, Any]) -> Iterator[Setting]:
    for entry in fields(owner):
        inner = part_of(entry, hints)
        if inner is not None:
            yield from (changed(one, path=(entry.name, *one.path)) for one in settings_of(inner))
        elif _KEY in entry.metadata:
            default = entry.default if entry.default_factory is MISSING else entry.default_factory()
            declaring = next(base for base in owner.__mro__ if entry.name in vars(base).get("__annotations__", ()))
            yield Setting((entry.name,), hints[entry.name], default, entry.metadata[_KEY], declaring.__name__)


def part_like(owner: type[Any], kind: type[T]) -> type[T]:
    """The class of the part of a class that is of this kind, or a kind of it; the kind itself without one."""
    hints = get_type_hints(owner, include_extras=True)
    parts = filter(None, (part_of(entry, hints) for entry in fields(owner)))
    return next((part for part in parts if issubclass(part, kind)), kind)


def part_of(entry: "Field[Any]", hints: Mapping[str, Any]) -> type[Any] | None:
    """The class whose settings a field holds; None where it is no such field."""
    if "part" not in entry.metadata:
        return None
    kind = hints[entry.name]
    return kind if is_dataclass(kind) and isinstance(kind, type) else entry.metadata["part"]


def build(owner: type[T], values: Mapping[tuple[str, ...], Any]) -> T:
    """An instance of a class of settings, with the defaults of what is not given.

    A class may have a method ``from_options`` that makes it of what is given, where a default depends on that.

    Args:
        owner: The class.
        values: Paths of settings to their values.
    """
    hints, options = get_type_hints(owner, include_extras=True), {}
    for entry in fields(owner):  # type: ignore[arg-type]
        inner = part_of(entry, hints)
        if inner is not None:
            options[entry.name] = build(inner, {path[1:]: v for path, v in values.items() if path[0] == entry.name})
        elif (entry.name,) in values:
            options[entry.name] = values[entry.name,]
    make: Any = getattr(owner, "from_options", owner)
    settings: T = make(**options)
    return settings


# Constraints.


def unannotated(annotation: Any) -> tuple[Any, tuple[Any, ...]]:
    """A type without what is said of its values, and that, one by one."""
    if get_origin(annotation) is not Annotated:
        return annotation, ()
    inner, *constraints = get_args(annotation)
    return inner, tuple(_flat(constraints))


def _flat(constraints: Iterable[Any]) -> Iterator[Any]:
    for constraint in constraints:
        if isinstance(constraint, GroupedMetadata):
            yield from _flat(constraint)
        else:
            yield constraint


def keeps(value: Any, constraints: Iterable[Any]) -> bool:
    """Whether a value of the right type keeps all constraints. Those that are not known are left to who set them."""
    return all(_keeps(value, constraint) for constraint in constraints)


def _keeps(value: Any, constraint: Any) -> bool:
    match constraint:
        case Gt(gt=bound):
            return bool(value > bound)
        case Ge(ge=bound):
            return bool(value >= bound)
        case Lt(lt=bound):
            return bool(value < bound)
        case Le(le=bound):
            return bool(value <= bound)
        case MinLen(min_length=least):
            return len(value) >= least
        case Nonzero():
            return bool(value != 0)
        case Increasing():
            sides = [one if isinstance(one, tuple) else (one,) for one in value]
            most = max(map(len, sides), default=0)
            if any(len(side) not in (1, most) for side in sides):
                return False
            rows = [side * most if len(side) == 1 else side for side in sides]
            finite = all(math.isfinite(number) for row in rows for number in row)
            return finite and all(one < two for low, high in pairwise(rows) for one, two in zip(low, high, strict=True))
        case Distinct():
            return len(set(value)) == len(value)
    return True


def in_words(constraints: Sequence[Any]) -> str:
    """Constraints of numbers and lists as a person says them, such as ``above 0``; empty for none."""
    said = []
    for constraint in constraints:
        match constraint:
            case Gt(gt=bound):
                said.append(f"above {bound}")
            case Ge(ge=bound):
                said.append(f"at least {bound}")
            case Lt(lt=bound):
                said.append(f"below {bound}")
            case Le(le=bound):
                said.append(f"at most {bound}")
            case Nonzero():
                said.append("not 0")
            case Increasing():
                said.append("in increasing order")
            case Distinct():
                said.append("all different")
    return ", ".join(said)


def as_schema(constraints: Iterable[Any]) -> dict[str, Any]:
    """Constraints as JSON Schema says them, as far as it can."""
    schema: dict[str, Any] = {}
    for constraint in constraints:
        match constraint:
            case Gt(gt=bound):
                schema["exclusiveMinimum"] = bound
            case Ge(ge=bound):
                schema["minimum"] = bound
            case Lt(lt=bound):
                schema["exclusiveMaximum"] = bound
            case Le(le=bound):
                schema["maximum"] = bound
            case MinLen(min_length=least):
                schema["minItems"] = least
            case Nonzero():
                schema["not"] = {"const": 0}
            case Matches(pattern=pattern):
                schema["pattern"] = f"^(?:{pattern})$"
            case Distinct():
                schema["uniqueItems"] = True
    return schema
