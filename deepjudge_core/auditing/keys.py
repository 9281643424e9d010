"""What answers and suites depend on, as one text: of equal texts everything is equal that could change them."""

import dataclasses
import hashlib
import importlib.util
import os
import platform
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.metadata import distributions
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import numpy as np
from msgspec import Struct, UnsetType

from deepjudge_core.components.kinds import Adapter
from deepjudge_core.components.registry import Component, Registry
from deepjudge_core.version import VERSION

# How many threads compute, with which kernels and on what, changes the last digits of answers.
_VARIABLES = re.compile(r"\w+_NUM_THREADS|TF_\w+|KERAS_BACKEND|CUDA_VISIBLE_DEVICES")
_MOST_CODE = 2000  # Python files of a user's own code


class UnknownError(Exception):
    """It is not known of something what it depends on."""


def fingerprint(*parts: Any) -> str:
    """SHA-256, in hex, of values: texts, numbers, arrays, collections and frozen dataclasses of these.

    Of a path to a file its content counts, too.

    Raises:
        UnknownError: For any other value, and for a file that cannot be read.
    """
    digest = hashlib.sha256()
    for part in _parts(parts):
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


def _parts(value: Any) -> Iterator[bytes]:
    yield type(value).__name__.encode()
    match value:
        case None | UnsetType() | bool() | int() | float() | str() | np.generic():
            yield repr(value).encode("utf-8", "surrogatepass")
        case bytes():
            yield value
        case np.ndarray():
            yield f"{value.dtype} {value.shape}".encode()
            yield hashlib.sha256(np.ascontiguousarray(value).data).digest()
        case Path():
            yield str(value).encode("utf-8", "surrogateescape")
            yield _content(value) if value.is_file() else b""
        case Mapping():
            for key, one in sorted(value.items()):
                yield from (*_parts(key), *_parts(one))
        case tuple() | list():
            yield str(len(value)).encode()
            for one in value:
                yield from _parts(one)
        case frozenset() | set():
            yield from _parts(sorted(value))
        case _ if dataclasses.is_dataclass(value):
            for entry in dataclasses.fields(value):
                yield from (entry.name.encode(), *_parts(getattr(value, entry.name)))
        case Struct():
            for name in value.__struct_fields__:
                yield from (name.encode(), *_parts(getattr(value, name)))
        case _:
            raise UnknownError(f"a {type(value).__name__}")


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise UnknownError(f"{path}: {error.strerror}") from error


def environment(registry: Registry, adapter: Adapter) -> tuple[Any, ...]:
    """What computes the answers of an adapter's models: versions, settings, and the code of deepjudge and its plugins.

    Raises:
        UnknownError: When it is not known where the code of a plugin is.
    """
    packages, files = {"deepjudge_core"}, set[Path]()
    for plugin in registry.plugins:
        if plugin.value is not None:
            packages.add(plugin.value.partition(":")[0].partition(".")[0])
        else:  # of this program
            files |= {Path(code.co_filename) for code in _functions(plugin.components)}
    variables = {name: value for name, value in os.environ.items() if _VARIABLES.fullmatch(name)}
    return VERSION, adapter.name, variables, _installed(), _code(tuple(sorted(packages))), tuple(sorted(files))


def _functions(components: Iterable[Component]) -> Iterator[CodeType]:
    for component in components:
        for value in vars(component).values():
            if isinstance(value, FunctionType):
                yield value.__code__


@cache
def _installed() -> tuple[str, ...]:
    found = {f"{one.name} {one.version}" for one in distributions()}
    return (platform.python_version(), platform.machine(), *sorted(found))


@cache
def _code(packages: tuple[str, ...]) -> str:
    # Packages that are being written change without another version.
    return fingerprint(*(_sources(name) for name in packages))


def _sources(package: str) -> list[Path]:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise UnknownError(f"the code of {package}")
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    return sorted(file for folder in folders for file in folder.rglob("*.py")) or [Path(spec.origin)]


def own_code(arch: str | None) -> tuple[Any, ...]:
    """The user's own code that makes a network: the Python files of its folder, and all below a package.

    Raises:
        UnknownError: When it is not found where the user is, or has too many files.
    """
    if arch is None:
        return ()
    module = arch.rpartition(":")[0]
    path = Path(module) if module.endswith(".py") else Path(*module.split(".")).with_suffix(".py")
    package = path.with_suffix("")
    if not path.is_file() and not package.is_dir():
        return ("installed",)  # as all that is installed, known by its version
    files = [*Path().glob("*.py"), *path.parent.glob("*.py"), *(package.rglob("*.py") if package.is_dir() else ())]
    if len(files) > _MOST_CODE:
        raise UnknownError(f"more than {_MOST_CODE} files of code next to {path}")
    return tuple(sorted({file.resolve() for file in files}))
