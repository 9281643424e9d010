"""A seccomp filter as a table of rules, and its translation into the kernel's BPF.

The constants are those of linux/seccomp.h, linux/filter.h and linux/audit.h.
"""

import enum
import errno
import struct
from collections.abc import Iterable, Mapping
from typing import NamedTuple

_LOAD, _AND, _RETURN = 0x20, 0x54, 0x06  # a word of the call's data; with a constant; a verdict
_EQUAL, _AT_LEAST = 0x15, 0x35  # to a constant: how many instructions to skip if so, and if not
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # where they stand in the call's data
_X32 = 0x40000000  # set in the numbers of the x32 calls, which are the same calls under other numbers


class Verdict(enum.IntEnum):
    """What becomes of a call."""

    ALLOW = 0x7FFF0000
    PRETEND = 0x00050000  # not done, and answered like a success
    DENY = 0x00050000 | errno.EPERM
    UNKNOWN = 0x00050000 | errno.ENOSYS
    KILL = 0x80000000


class Where(NamedTuple):
    """A condition: ``argument & mask == value``.

    Of each argument the lower 32 bits are compared: the kernel itself reads no more of those that are asked for here.
    """

    argument: int
    value: int
    mask: int = 0xFFFFFFFF


class Rule(NamedTuple):
    """The verdict on a call whose arguments meet all conditions."""

    name: str
    verdict: Verdict
    where: tuple[Where, ...] = ()


def assemble(architecture: int, numbers: Mapping[str, int], rules: Iterable[Rule]) -> bytes:
    """The program of a table, of which the first rule that applies decides; calls without a rule are unknown.

    Args:
        architecture: The ``AUDIT_ARCH`` of this process. Calls by another one's numbers kill it.
        numbers: The number of each call. A rule for a call that the architecture does not have is left out.
        rules: The table.
    """
    program = [
        _step(_LOAD, _ARCHITECTURE),
        _step(_EQUAL, architecture, 1, 0),
        _step(_RETURN, Verdict.KILL),
        _step(_LOAD, _NUMBER),
        _step(_AT_LEAST, _X32, 0, 1),
        _step(_RETURN, Verdict.KILL),
    ]
    for rule in rules:
        if rule.name in numbers:
            program += _translate(rule, numbers[rule.name])
    return b"".join([*program, _step(_RETURN, Verdict.UNKNOWN)])


def _translate(rule: Rule, number: int) -> list[bytes]:
    # Each rule is complete in itself and jumps over its own end only: a jump reaches no further than 255 instructions.
    # It is built from its end, so that the length of what follows is known.
    steps = [_step(_RETURN, rule.verdict)]
    for where in reversed(rule.where):
        steps = [
            _step(_LOAD, _ARGUMENTS + 8 * where.argument),  # little-endian: the lower half comes first
            _step(_AND, where.mask),
            _step(_EQUAL, where.value, 0, len(steps)),
            *steps,
        ]
    return [_step(_LOAD, _NUMBER), _step(_EQUAL, number, 0, len(steps)), *steps]


def _step(code: int, constant: int, if_so: int = 0, if_not: int = 0) -> bytes:
    return struct.pack("<HBBI", code, if_so, if_not, constant)
