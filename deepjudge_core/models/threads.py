"""One thread for products of small matrices: several, which spin until all are done, take three times the processor."""

from contextlib import AbstractContextManager
from functools import cache
from typing import Any


def one_thread() -> AbstractContextManager[Any]:
    """Let numpy compute on one thread inside the block."""
    blas: AbstractContextManager[Any] = _blas().limit(limits=1)
    return blas


@cache
def _blas() -> Any:
    from threadpoolctl import ThreadpoolController  # it looks through all libraries that are loaded

    return ThreadpoolController().select(user_api="blas")
