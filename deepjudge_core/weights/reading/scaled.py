"""Weights of 8 bits whose scales are tensors beside them, as quantised checkpoints have them."""

import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from deepjudge_core.errors import ModelError
from deepjudge_core.files.documents import Json
from deepjudge_core.types import Array
from deepjudge_core.weights.reading.stored import Stored, Wrapped, shown

_EIGHT_BITS = {"F8_E4M3", "F8_E5M2", "I8"}
# By which a stored number is divided once it is multiplied by its scale: bitsandbytes keeps the greatest of a row.
_SCALES = {"{weight}_scale_inv": 1, "{weight}_scale": 1, "{module}.SCB": 127}
_BLOCK = 128  # rows and columns that share a scale, where the configuration does not say
# Several numbers in one, in orders of the quantisers' own: GPTQ and AWQ, compressed-tensors, bitsandbytes of 4 bits,
# MXFP4 as transformers stores it.
_PACKED = re.compile(r".*(\.qweight|\.weight_packed|\.quant_state\.\w+|\.\w*proj_blocks)", re.ASCII)


class _Scale(NamedTuple):
    tensor: str
    block: tuple[int, int]
    divisor: int


class ScaledWeights(Wrapped):
    """The same, each number multiplied by its scale."""

    def __init__(self, weights: Stored, scales: Mapping[str, _Scale]) -> None:
        """Wrap weights; scales are no weights of their own."""
        super().__init__(weights)
        gone = {scale.tensor for scale in scales.values()}
        self.tensors = {name: spec for name, spec in weights.tensors.items() if name not in gone}
        self._scales = scales

    def _rows(self, tensor: str, start: int, stop: int) -> Array:
        values, scale = super()._rows(tensor, start, stop), self._scales.get(tensor)
        if scale is not None:
            rows, columns = scale.block
            first = start // rows
            own = self.inner.read(scale.tensor).reshape(self._table(tensor, scale))[first : -(-stop // rows)]
            own = own.repeat(rows, 0)[start - first * rows :][: stop - start]
            values *= own.repeat(columns, 1)[:, : values.shape[1]] / np.float32(scale.divisor)
        return values

    def _table(self, tensor: str, scale: _Scale) -> tuple[int, int]:
        (height, width), (rows, columns) = self.tensors[tensor].shape, scale.block
        return -(-height // rows), -(-width // columns)


def scaled(weights: Stored, config: Json) -> Stored:
    """Weights with their scales, where they have any.

    Args:
        weights: As they are stored.
        config: The configuration beside them, which says how many rows and columns share a scale.

    Raises:
        ModelError: When they are packed, or a scale does not fit its weights.
    """
    packed = next((name for name in weights.tensors if _PACKED.fullmatch(name)), None)
    if packed is not None:
        raise ModelError(
            f"{weights.name}: expected a number for each weight, found {shown(packed)}, in which a quantiser packed "
            "several; give the model before it was quantised, or as GGUF"
        )
    scales: dict[str, _Scale] = {}
    for name, spec in weights.tensors.items():
        if spec.dtype not in _EIGHT_BITS or len(spec.shape) != 2 or not name.endswith("weight"):
            continue
        named = {form.format(weight=name, module=name.rpartition(".")[0]): by for form, by in _SCALES.items()}
        tensor = next((one for one in named if one in weights.tensors), None)
        if tensor is not None:
            block = _block(spec.shape, weights.tensors[tensor].shape, config)
            if block is None:
                shape = weights.tensors[tensor].shape
                raise ModelError(
                    f"{weights.name}: expected one scale for each row, or each block, of {shown(name)} {spec.shape}, "
                    f"found {shown(tensor)} {shape}"
                )
            scales[name] = _Scale(tensor, block, named[tensor])
    return ScaledWeights(weights, scales) if scales else weights


def _block(shape: tuple[int, ...], scales: tuple[int, ...], config: Json) -> tuple[int, int] | None:
    height, width = shape
    if scales in ((), (1,), (1, 1)):
        return height, width
    if scales in ((height,), (height, 1)):
        return 1, width
    settings = config.get("quantization_config")
    size = settings.get("weight_block_size") if isinstance(settings, Mapping) else None
    rows, columns = size if isinstance(size, list) and len(size) == 2 else (_BLOCK, _BLOCK)
    if not all(isinstance(one, int) and 0 < one < 2**20 for one in (rows, columns)):
        return None
    return (rows, columns) if scales == (-(-height // rows), -(-width // columns)) else None
