"""Numbers of every width as float32, from the bytes of a file. Little-endian, as files are."""

from collections.abc import Mapping

import numpy as np

from deepjudge_core.types import Array

_PLAIN = {
    **{f"F{8 * size}": f"<f{size}" for size in (2, 4, 8)},
    **{f"I{8 * size}": f"<i{size}" for size in (1, 2, 4, 8)},
    **{f"U{8 * size}": f"<u{size}" for size in (1, 2, 4, 8)},
    "BOOL": "|b1",
}
"""Types that numpy has."""


def _tables() -> Mapping[str, Array]:
    # Of numbers of one byte the value of each: sign, exponent, mantissa (Micikevicius et al., 2022, FP8 Formats for
    # Deep Learning, table 1).
    tables = {}
    for name, exponents, bits in (("F8_E4M3", 4, 3), ("F8_E5M2", 5, 2)):
        codes = np.arange(256)
        exponent, fraction = (codes >> bits) % 2**exponents, codes % 2**bits / 2**bits
        bias = 2 ** (exponents - 1) - 1
        sizes = np.where(exponent == 0, fraction * 2.0 ** (1 - bias), (1 + fraction) * 2.0 ** (exponent - bias))
        if name == "F8_E4M3":
            sizes[codes % 128 == 127] = np.nan
        else:
            sizes[exponent == 31] = np.where(fraction[exponent == 31] == 0, np.inf, np.nan)
        tables[name] = np.where(codes >= 128, -sizes, sizes).astype(np.float32)
    return tables


_BYTES = _tables()

BITS = {
    "F4": 4,
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("C64", "F64", "I64", "U64"), 64),
}
"""Bits of a number of each type that safetensors has."""
READ = frozenset({*_PLAIN, *_BYTES, "BF16"})
"""The types that :func:`as_float32` takes."""


def as_float32(data: Array, kind: str) -> Array:
    """The numbers that bytes are.

    Args:
        data: ``(n,)`` uint8, which belongs to nobody else; may be what is returned.
        kind: One of :data:`READ`.

    Returns:
        ``(n / bytes of a number,)`` float32; what float32 cannot hold is infinite.
    """
    if kind == "BF16":  # the upper half of a float32
        values: Array = np.zeros(len(data) // 2, "<f4")
        values.view("<u2")[1::2] = data.view("<u2")
        return values.astype(np.float32, copy=False)
    if kind in _BYTES:
        return np.asarray(_BYTES[kind][data])
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(data.view(_PLAIN[kind]).astype(np.float32, copy=False))
