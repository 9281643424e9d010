"""Calls of the C library and the kernel that Python does not offer."""

import ctypes
import functools
import os


@functools.cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    return libc


def call(function: str, *arguments: int | bytes | ctypes.Array[ctypes.c_char] | None) -> int:
    """Call a function of the C library; ``call("syscall", number, ...)`` is any call of the kernel.

    Integers are passed as longs: of a C int, the upper half of the register would hold what was there before.

    Raises:
        OSError: When it returns -1, with its errno.
    """
    result = int(getattr(_libc(), function)(*(ctypes.c_long(a) if isinstance(a, int) else a for a in arguments)))
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{function}: {os.strerror(number)}")
    return result
