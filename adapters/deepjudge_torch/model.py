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

    def forward(self, x: Array, layers: Sequence[str] | None) -> list[Array]:
        """See :class:`BatchedModel`."""
        part = self._part([self._network.output] if layers is None else layers)
        with torch.inference_mode():
            return [output.cpu().numpy() for output in part(self._tensor(x))]

    def backward(self, x: Array, cotangent: Callable[[Array], Array], layer: str) -> Array:
        """See :class:`BatchedModel`."""
        if Access.GRADIENTS not in self.access:
            raise ModelError(
                f"{self.name}: expected inputs of real numbers to take gradients at, found {self.input.dtype}"
            )
        part = self._part([layer])
        # cuDNN's recurrent layers have no backward pass in evaluation mode.
        plain = torch.backends.cudnn.flags(enabled=False) if self._network.recurrent else contextlib.nullcontext()
        with torch.inference_mode(False), plain:
            leaf = self._tensor(x).requires_grad_()
            # A copy, for programs that begin with an operation in place.
            (scores,) = part(leaf.clone())
            if not scores.requires_grad:
                raise ModelError(f"{self.name}: expected a gradient of {layer!r} at the input, found none")
            given = torch.from_numpy(cotangent(scores.detach().cpu().numpy()))
            (gradient,) = torch.autograd.grad(scores, leaf, given.to(scores.device))
        return np.asarray(gradient.float().cpu().numpy())

    def _part(self, names: Sequence[str]) -> fx.GraphModule:
        key = tuple(names)
        if key not in self._parts:
            self._parts[key] = extract(self._state, self._graph, self._network, key)
        return self._parts[key]

    def _tensor(self, x: Array) -> torch.Tensor:
        # A copy always: programs may work in place, and arrays may be read-only.
        if len(x) < self._least_rows:
            x = np.concatenate([x, np.repeat(x[-1:], self._least_rows - len(x), axis=0)])
        return torch.tensor(x, dtype=self._network.example.dtype, device=self._network.example.device)


def _input_spec(network: Network) -> InputSpec:
    dtype = str(network.example.dtype).removeprefix("torch.")
    return InputSpec(
        shape=tuple(size if isinstance(size, int) else None for size in sizes(network.example)[1:]),
        # numpy has no bfloat16.
        dtype="float32" if dtype == "bfloat16" else dtype,
        layout=network.layout,
    )


def _load(path: Path) -> tuple[ExportedProgram, str]:
    # The program in a file, and the file's digest.
    wanted = f"{path}: expected a torch.export file"
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            other = _other_kind(file)
            if other:
                raise ModelError(f"{wanted}, found {other}")
            file.seek(0)
            with _quiet("torch.export"):
                return torch.export.load(file), digest
    except ModelError:
        raise
    except OSError as error:
        raise ModelError(f"{wanted}, found none that can be read: {error.strerror}") from error
    except Exception as error:  # whatever a damaged file makes torch stumble over
        raise ModelError(f"{wanted}, found one that torch {torch.__version__} cannot load: {_line(error)}") from error


def _other_kind(file: BinaryIO) -> str | None:
    # What a file is, if it is clearly none of torch.export's; those are zip archives.
    file.seek(0)
    start = file.read(4)
    if not start:
        return "an empty file"
    if not zipfile.is_zipfile(file):
        return "a truncated one" if start == b"PK\x03\x04" else "another format"
    with zipfile.ZipFile(file) as archive:
        names = {name.rpartition("/")[2] for name in archive.namelist()}
    # The second is how torch wrote them up to 2.7.
    if names & {"archive_format", "serialized_exported_program.json"}:
        return None
    return "a file of torch.save or TorchScript" if "data.pkl" in names else "another zip archive"


def _export(module: nn.Module, name: str, input_shape: tuple[int, ...] | None) -> ExportedProgram:
    if input_shape is None:
        raise ModelError(
            f"{name}: expected the shape of one input to a live module, found none: "
            "open_model(module, input_shape=(1, 28, 28))"
        )
    tensors = [*module.parameters(), *module.buffers()]
    dtype = next((tensor.dtype for tensor in tensors if tensor.dtype.is_floating_point), torch.float32)
    device = tensors[0].device if tensors else "cpu"

    def exported(**options: Any) -> ExportedProgram:
        # A fresh example each time: export marks its axes as dynamic.
        return torch.export.export(module, (torch.zeros(_ROWS, *input_shape, dtype=dtype, device=device),), **options)

    with _evaluating(module), warnings.catch_warnings():
        # torch's own recurrent layers do that, and export puts it back.
        only = r"The tensor attributes (self\.[\w.]*_flat_weights\[\d+\](, )?)+ were assigned during export"
        warnings.filterwarnings("ignore", only, UserWarning)
        try:
            with contextlib.suppress(Exception):
                return exported(dynamic_shapes=({0: Dim.AUTO},))
            return exported()  # some modules cannot do with an unknown number of rows
        except Exception as error:
            raise ModelError(
                f"{name}: expected a module that torch.export can export for inputs of {input_shape}, "
                f"found {_line(error)}"
            ) from error


@contextlib.contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    # By the flags alone: what train() and eval() of a module may do besides could not be undone.
    before = {part: part.training for part in module.modules()}
    try:
        for part in before:
            part.training = False
        yield
    finally:
        for part, training in before.items():
            part.training = training


@contextlib.contextmanager
def _quiet(name: str) -> Iterator[None]:
    # torch logs the traceback of an error that it then raises.
    logger = logging.getLogger(name)
    before = logger.disabled
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = before


def _line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _detached(value: Any) -> Any:
    return value.detach() if isinstance(value, torch.Tensor) else value


def _digest(code: str, state: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(code.encode())
    for name, value in sorted(state.items()):
        if isinstance(value, torch.Tensor):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            digest.update(value.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        else:  # the body of a branch
            digest.update(f"{name} {value.code}\n".encode())
    return digest.hexdigest()
