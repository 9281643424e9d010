"""Few of many rows, which stand for all."""

import numpy as np

from deepjudge_core.types import Array


def evenly(rows: Array, n: int) -> Array:
    """At most so many of some rows, evenly spread over them, the first and the last among them.

    Args:
        rows: ``(m,)`` in their order.
        n: How many, at least 1.
    """
    chosen: Array = rows[np.linspace(0, max(len(rows) - 1, 0), min(n, len(rows))).round().astype(np.int64)]
    return chosen
