"""PyTorch models as the core sees them. Here, and in :mod:`deepjudge_torch.graph`, torch is imported."""

import contextlib
import copy
import hashlib
import logging
import operator
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import fx, nn
from torch.export import Dim, ExportedProgram

from deepjudge_core.errors import ModelError
from deepjudge_core.model import Access, Array, BatchedModel, InputSpec
from deepjudge_torch.graph import Network, extract, inline_grad_modes, read, sizes

# Rows to export a live module with: two or more, since one is taken for a constant; a number that no other axis is
# likely to have, so that the two are not taken for one. Modules that cannot be exported for any number get this one.
_ROWS = 17


def open_program(
    source: Path | nn.Module | ExportedProgram,
    *,
    name: str,
    batch_size: int | None,
    input_shape: tuple[int, ...] | None,
) -> "TorchModel":
    """Open a file of ``torch.export``, a live module or an exported program.

    What is opened is a snapshot: weights that change later change nothing. A live module stays as it is, and on its
    device; a file runs where its program was exported.

    ``torch.export.load`` may unpickle parts of a file: do not open files of people who may attack you.

    Args:
        name: What to call it.
        batch_size: Rows in a batch.
        input_shape: Of one input to a live module, without the batch axis; others say it themselves.

    Raises:
        ModelError: When it cannot be opened as a classifier.
    """
    if isinstance(source, Path):
        program, digest = _load(source)
        return TorchModel(program, name=name, digest=digest, batch_size=batch_size)
    program = _export(source, name, input_shape) if isinstance(source, nn.Module) else source
    return TorchModel(program, name=name, batch_size=batch_size)


class TorchModel(BatchedModel):
    """An exported program, run from its input to whichever taps are asked for.

    Each set of taps is a graph of its own that shares the weights: nothing is hooked, nothing is computed in vain.
    """

    def __init__(
        self, program: ExportedProgram, *, name: str, digest: str | None = None, batch_size: int | None = None
    ) -> None:
        """Read the program.

        Args:
            digest: Of the file that it was loaded from; without one, the weights are somebody's, and are copied.
        """
        # What its guards ask of the input stands in the InputSpec and, for the rows, below.
        module = program.module(check_guards=False)
        inline_grad_modes(module)
        self._graph = module.graph
        self._graph.eliminate_dead_code()
        weights = {node.target for node in self._graph.find_nodes(op="get_attr")}
        self._state = {name: _detached(operator.attrgetter(name)(module)) for name in weights}
        if digest is None:
            self._state = copy.deepcopy(self._state)
            digest = _digest(self._graph.python_code("self").src, self._state)
        try:
            network = read(self._graph)
        except ModelError as error:
            raise ModelError(f"{name}: {error}") from error
        self._network = network
        super().__init__(
            name=name,
            framework="torch",
            digest=digest,
            access=Access.FULL if network.example.dtype.is_floating_point else Access.WHITE_BOX,
            input=_input_spec(network),
            layers={tap: network.places[tap].neurons for tap in network.taps},
            scores=network.scores,
            batch_size=batch_size,
            fixed_batch=network.batch if isinstance(network.batch, int) else None,
        )
        self._least_rows = 1
        if network.batch in program.range_constraints:
            rows = program.range_constraints[network.batch]
            self._least_rows = int(rows.lower)
            self._batch_size = int(min(self._batch_size, rows.upper))
        self._parts: dict[tuple[str, ...], fx.GraphModule] = {}

    def run(self, x: torch.Tensor, layers: Sequence[str] | None) -> Sequence[torch.Tensor]:
        """See :class:`TensorModel`."""
        outputs: Sequence[torch.Tensor] = self._part([self._network.output] if layers is None else layers)(x)
        return outputs

    def _part(self, names: Sequence[str]) -> fx.GraphModule:
        key = tuple(names)
        if key not in self._parts:
            self._parts[key] = extract(self._state, self._graph, self._network, key)
        return self._parts[key]

    def _tensor(self, x: Array) -> torch.Tensor:
        if len(x) < self._least_rows:
            x = np.concatenate([x, np.repeat(x[-1:], self._least_rows - len(x), axis=0)])
        return super()._tensor(x)


def export_module(module: nn.Module, example: torch.Tensor, *, rows_too: bool = True) -> ExportedProgram:
    """Export a module in evaluation mode for inputs like an example, for any number of rows where it can do with that.

    Args:
        rows_too: Whether to try any number of rows.

    Raises:
        Exception: Whatever torch.export, or the module, stumbles over.
    """

    def exported(**options: Any) -> ExportedProgram:
        # A fresh example each time: export marks its axes as dynamic.
        return torch.export.export(module, (example.clone(),), **options)

    with evaluating(module), warnings.catch_warnings():
        # torch's own recurrent layers do that, and export puts it back.
        only = r"The tensor attributes (self\.[\w.]*_flat_weights\[\d+\](, )?)+ were assigned during export"
        warnings.filterwarnings("ignore", only, UserWarning)
        if rows_too:
            with contextlib.suppress(Exception):
                return exported(dynamic_shapes=({0: Dim.AUTO},))
        return exported()


def _input_spec(network: Network) -> InputSpec:
    return InputSpec(
        shape=tuple(size if isinstance(size, int) else None for size in sizes(network.example)[1:]),
        dtype=numpy_name(network.example.dtype),
        layout=network.layout,
    )


def _load(path: Path) -> tuple[ExportedProgram, str]:
    # The program in a file, and the file's digest.
    wanted = "a torch.export file"
    kind, digest = identify(path, wanted)
    if kind is not Kind.PROGRAM:
        found = _OTHERS.get(kind, kind.value)
        raise ModelError(f"{path}: expected {wanted}, found {found}")
    try:
        with path.open("rb") as file, quiet("torch.export"):
            return torch.export.load(file), digest
    except Exception as error:  # whatever a damaged file makes torch stumble over
        raise ModelError(
            f"{path}: expected {wanted}, found one that torch {torch.__version__} cannot load: {line(error)}"
        ) from error


def _detached(value: Any) -> Any:
    return value.detach() if isinstance(value, torch.Tensor) else value
