"""What a message calls a setting: its flag on the command line, its keyword in Python.

A message names the field that declares the setting, ``option("bounds")``. Which flag that is, only the command line
knows: it says so for as long as a command runs. Texts that are stored and compared later, such as reasons of verdicts,
name no option: they must not depend on who asked.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

_flags: ContextVar[Mapping[str, str] | None] = ContextVar("deepjudge_flags", default=None)


def option(name: str, value: Any = None, *, python: str | None = None) -> str:
    """A setting as whoever reads the message gives it, such as ``--order balanced`` or ``order='balanced'``.

    Args:
        name: The field that declares it; behind its class, as in ``QuerySettings.layers``, if that has to be built in
            Python, or if several classes have a field of that name.
        value: What to give it; True or False for a flag without a value.
        python: What Python calls it, if that is not a keyword of the field's name.
    """
    flags = _flags.get()
    if flags is not None and name in flags:
        return " ".join([flags[name], *_typed(value)])
    if python is not None:
        return python
    owner, _, field = name.rpartition(".")
    keyword = f"{field}={'...' if value is None and owner else '' if value is None else repr(value)}"
    return f"{owner}({keyword})" if owner else keyword


def _typed(value: Any) -> Iterator[str]:
    if isinstance(value, list | tuple):
        yield ",".join(map(str, value))
    elif value is not None and not isinstance(value, bool):
        yield str(value)


def command(typed: str, python: str) -> str:
    """How whoever reads the message makes something: by a command, or by a call in Python.

    Args:
        typed: What follows the program's name.
        python: The call.
    """
    return python if _flags.get() is None else f"'deepjudge {typed}'"


def current_flags() -> Mapping[str, str] | None:
    """What :func:`flagged` set, to be sent to another process; None in Python."""
    flags = _flags.get()
    return None if flags is None else dict(flags)


@contextmanager
def flagged(flags: Mapping[str, str] | None) -> Iterator[None]:
    """Let messages inside the block name flags.

    Args:
        flags: Field, alone and behind its class and a dot, to flag; None to name keywords.
    """
    token = _flags.set(flags)
    try:
        yield
    finally:
        _flags.reset(token)
