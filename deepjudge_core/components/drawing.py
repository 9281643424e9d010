"""All that is random in a key: drawn from its nonce, so that anybody can draw it again, and nobody can choose it."""

import hashlib
import math

import numpy as np

from deepjudge_core.types import Array

NONCE = 32
"""Bytes of a nonce."""
_NUMBER = 8  # bytes that one number is read from
_MOST = 2**27  # numbers at once: a key may be anybody's


def draw(nonce: bytes, purpose: str, count: int, upper: int) -> Array:
    """Independent whole numbers, each of 0..upper - 1 equally likely, ``(count,)`` int64.

    SHAKE-256 of the nonce and the purpose is read as 64-bit numbers; those that would favour small remainders are
    passed over.

    Args:
        nonce: The key's.
        purpose: What they are for, with all that they may not depend on being fixed in it.
        count: How many.
        upper: At least 1.

    Raises:
        ValueError: For more numbers than any key needs.
    """
    if count > _MOST:
        raise ValueError(f"expected at most {_MOST} numbers to be drawn, found {count}")
    limit = 2**64 - 2**64 % upper
    stream = hashlib.shake_256(nonce + b"|" + purpose.encode())
    length = count
    while True:
        numbers = np.frombuffer(stream.digest(_NUMBER * length), "<u8")
        kept = numbers if limit == 2**64 else numbers[numbers < np.uint64(limit)]
        if len(kept) >= count:
            drawn: Array = (kept[:count] % np.uint64(upper)).astype(np.int64)
            return drawn
        length *= 2


def draw_normal(nonce: bytes, purpose: str, shape: tuple[int, ...]) -> Array:
    """Independent standard normal numbers, float64, of a shape (Box & Muller, 1958)."""
    count = math.prod(shape)
    uniform = (draw(nonce, purpose, 2 * count, 2**53) + 0.5) / 2**53
    radius, angle = np.sqrt(-2 * np.log(uniform[:count])), 2 * np.pi * uniform[count:]
    normal: Array = (radius * np.cos(angle)).reshape(shape)
    return normal
