"""Weights in memory, for tests of what reads weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from deepjudge_core.files.documents import Json
from deepjudge_core.types import Array
from deepjudge_core.weights.values import Roles, StoredWeights, TensorSpec


@dataclass(eq=False)
class ArrayWeights(StoredWeights):
    """Weights that are arrays.

    Attributes:
        arrays: Name to array.
        name: See :class:`StoredWeights`, like all that follow.
        format: The same.
        config: The same.
        roles: The same.
        vocabulary: What :meth:`tokens` gives.
    """

    arrays: Mapping[str, Array]
    name: str = "weights"
    format: str = "arrays"
    config: Json = field(default_factory=dict)
    roles: Roles | None = None
    vocabulary: Sequence[str] | None = None

    def __post_init__(self) -> None:
        self.tensors = {name: TensorSpec(array.shape, "F32") for name, array in self.arrays.items()}

    def tokens(self) -> tuple[str, ...] | None:
        """See :class:`StoredWeights`."""
        return None if self.vocabulary is None else tuple(self.vocabulary)

    def read(self, tensor: str, rows: slice | None = None) -> Array:
        """See :class:`StoredWeights`."""
        return np.array(self.arrays[tensor] if rows is None else self.arrays[tensor][rows], np.float32)

    def close(self) -> None:
        """Nothing is open."""
