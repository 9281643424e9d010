"""Exported programs (``torch.export``) as the core sees them."""

import contextlib
import copy
import io
import operator
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.ao.quantization.fx._decomposed  # registers the operations that PT2E quantises with
from torch import fx, nn
from torch.export import Dim, ExportedProgram
from torch.export.passes import move_to_device_pass
from torch.utils import _pytree as pytree

from deepjudge_core.errors import ModelError
from deepjudge_core.models.adapters import prefixed
from deepjudge_core.models.input_spec import InputSpec
from deepjudge_core.models.model import Access
from deepjudge_core.models.outputs import Choice
from deepjudge_core.types import Array
from deepjudge_torch.archive import for_the_cpu, hidden_code
from deepjudge_torch.base import TensorModel, digest_of, evaluating, line, numpy_name, parameters_of, quiet
from deepjudge_torch.graph import Network, extract, hidden_layers, inline_blocks, overwrites_parts, read, sizes
from deepjudge_torch.memory import channels_last, is_of_any_layout
from deepjudge_torch.outputs import names_of


def open_program(
    source: Path | ExportedProgram,
    *,
    name: str,
    batch_size: int | None,
    output: Choice = None,
    digest: str | None = None,
    device: str | None = None,
) -> "TorchModel":
    """Open a file of ``torch.export`` or an exported program.

    What is opened is a snapshot: weights that change later change nothing.

    A file with pickled parts or foreign operations is refused, see :mod:`deepjudge_torch.archive`.

    Args:
        digest: Of the file.
        device: Where it runs; by default a file on the CPU, and a program where it was exported.

    Raises:
        ModelError: When it cannot be opened as a classifier.
    """
    options: dict[str, Any] = {"name": name, "batch_size": batch_size, "output": output, "device": device}
    if isinstance(source, Path):
        return TorchModel(load_program(source, name), digest=digest, **options)
    return TorchModel(source, shared=True, **options)


class TorchModel(TensorModel):
    """An exported program, run from its input to whichever taps are asked for.

    Each set of taps is a graph of its own that shares the weights: nothing is hooked, nothing is computed in vain.

    Attributes:
        program: As it was given.
        graph: What it computes, with the body of every block in its place.
        state: The weights by the names that the graph has for them.
        network: What the graph says of itself.
    """

    def __init__(
        self,
        program: ExportedProgram,
        *,
        name: str,
        digest: str | None = None,
        batch_size: int | None = None,
        shared: bool = False,
        output: Choice = None,
        names: Sequence[str] | None = None,
        device: str | None = None,
    ) -> None:
        """Read the program.

        Args:
            digest: Of the file that it was loaded from; by default, of its graph and weights.
            shared: Whether the weights are somebody else's too, and have to be copied.
            output: The one that holds the scores, by its name or its number.
            names: Of its outputs; by default as the program has them.
            device: Where it runs; by default where it was exported.
        """
        if device is not None:
            program = on_device(program, device)
        # What its guards ask of the input stands in the InputSpec and, for the rows, below.
        module = program.module(check_guards=False)
        if overwrites_parts(module.graph):
            module = _out_of_place(program).module(check_guards=False)
        inline_blocks(module)
        self.graph = module.graph
        self.graph.eliminate_dead_code()
        weights = {node.target for node in self.graph.find_nodes(op="get_attr")}
        self.state = {name: _detach(operator.attrgetter(name)(module)) for name in weights}
        if shared:
            self.state = copy.deepcopy(self.state)
        if is_of_any_layout(self.graph):
            self.state = {name: _arranged(value) for name, value in self.state.items()}
        self.program = program
        self._names = names_of(program.call_spec.out_spec) if names is None else names
        self._read(name, digest or self._digest(), batch_size, output)

    def _read(self, name: str, digest: str, batch_size: int | None, output: Choice) -> None:
        with prefixed(name):
            self.network = network = read(self.graph, self.state, self._names, output)
        self.recurrent = network.recurrent
        super().__init__(
            name=name,
            digest=digest,
            dtype=network.example.dtype,
            device=network.example.device,
            input=_input_spec(network),
            layers={tap: network.places[tap].neurons for tap in network.taps},
            scores=network.scores,
            batch_size=batch_size,
            fixed_batch=network.batch if isinstance(network.batch, int) else None,
            outputs=network.outputs,
        )
        self.parameters = parameters_of(self.state.values())
        if network.integers:
            self.access &= ~Access.GRADIENTS
        hidden = hidden_layers(self.graph, self.state)
        if hidden:
            self.access &= ~Access.LAYERS
            self.unseen = hidden
        if network.batch in self.program.range_constraints:
            rows = self.program.range_constraints[network.batch]
            self._least_rows = int(rows.lower)
            self._batch_size = int(min(self._batch_size, rows.upper))
        self._parts: dict[tuple[str, ...], fx.GraphModule] = {}

    @property
    def batch_size(self) -> int:
        """Rows of a batch that fits into memory."""
        return self._batch_size

    def with_state(self, state: Mapping[str, torch.Tensor], *, name: str) -> "TorchModel":
        """The same network with other weights, which are shared; those that are not given stay."""
        other = copy.copy(self)
        other.name = name
        other.state = {**self.state, **state}
        other.digest = other._digest()
        other._parts = {}
        return other

    def by_output(self, place: int) -> "TorchModel":
        """See :class:`~deepjudge_core.models.batched.BatchedModel`."""
        other = copy.copy(self)
        other._read(self.name, self.digest, self._batch_size, place + 1)
        return other

    def run(self, x: torch.Tensor, layers: Sequence[str] | None) -> Sequence[torch.Tensor]:
        """See :class:`TensorModel`."""
        outputs: Sequence[torch.Tensor] = self._part([self.network.output] if layers is None else layers)(x)
        return outputs

    def run_mixed(self, x: torch.Tensor, layer: str, order: Array) -> torch.Tensor | None:
        """See :class:`TensorModel`."""
        (scores,) = extract(self.state, self.graph, self.network, [self.logits], layer)(x, order)
        return torch.as_tensor(scores)

    def backward(self, x: Array, cotangent: Callable[[Array], Array], layer: str) -> Array:
        """See :class:`~deepjudge_core.models.batched.BatchedModel`."""
        if self.network.integers:
            raise ModelError(
                f"{self.name}: no gradients through the quantised operations {', '.join(self.network.integers)}"
            )
        return super().backward(x, cotangent, layer)

    def _digest(self) -> str:
        # What stands in the graph of a device is no part of the model.
        return digest_of(DEVICES.sub("device(type='cpu')", self.graph.python_code("self").src), self.state)

    def _part(self, names: Sequence[str]) -> fx.GraphModule:
        key = tuple(names)
        if key not in self._parts:
            self._parts[key] = extract(self.state, self.graph, self.network, key)
        return self._parts[key]


DEVICES = re.compile(r"device\(type='\w+'(?:, index=\d+)?\)")
"""The devices that the code of a graph names."""


def on_device(program: ExportedProgram, device: str) -> ExportedProgram:
    """The same program on a device, or itself if it is there; what was given stays as it is."""
    place = torch.device(device)
    values = [node.meta.get("val") for node in program.graph.nodes]
    tensors = pytree.tree_leaves([values, dict(program.state_dict), dict(program.constants)])
    found = {tensor.device for tensor in tensors if isinstance(tensor, torch.Tensor)}
    if found <= {place}:
        return program
    other = copy.copy(program)
    other._graph_module = copy.deepcopy(program.graph_module)
    other._state_dict, other._constants = dict(program.state_dict), dict(program.constants)
    moved = move_to_device_pass(other, device)
    # It writes a device as a text, unlike torch.export.
    for module in moved.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, fx.GraphModule) else ():
            if isinstance(node.kwargs.get("device"), str):
                node.update_kwarg("device", place)
            if node.target is torch.ops.aten.to.device:
                node.update_arg(1, place)
    return moved


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

    # What torch cannot export it prints, besides raising an error.
    silent = contextlib.redirect_stderr(io.StringIO())
    with evaluating(module), warnings.catch_warnings(), quiet("torch.export._trace"), silent:
        # torch's own recurrent layers do that, and export puts it back.
        only = r"The tensor attributes (self\.[\w.]*_flat_weights\[\d+\](, )?)+ were assigned during export"
        warnings.filterwarnings("ignore", only, UserWarning)
        if rows_too:
            with contextlib.suppress(Exception):
                return exported(dynamic_shapes=({0: Dim.AUTO},))
        return exported()


def _out_of_place(program: ExportedProgram) -> ExportedProgram:
    # The same without operations in place, and nothing else decomposed.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)
        return program.run_decompositions({})


def _input_spec(network: Network) -> InputSpec:
    return InputSpec(
        shape=tuple(size if isinstance(size, int) else None for size in sizes(network.example)[1:]),
        dtype=numpy_name(network.example.dtype),
        layout=network.layout,
    )


def load_program(path: Path, name: str) -> ExportedProgram:
    """The program in a file of ``torch.export`` that holds nothing but tensors and torch's own operations.

    Args:
        name: What to call it.

    Raises:
        ModelError: When it cannot be loaded, or holds more than that.
    """
    expected = "a torch.export file"
    try:
        code = hidden_code(path)
        if code is None:
            # What it is unsure of is the rows, of which it says more where it matters.
            with for_the_cpu(path) as file, quiet("torch.export"), quiet("torch._export.serde.serialize"):
                return torch.export.load(file)
    except Exception as error:  # whatever a damaged file makes torch stumble over
        raise ModelError(
            f"{name}: expected {expected}, found one that torch {torch.__version__} cannot load: {line(error)}"
        ) from error
    raise ModelError(f"{name}: expected {expected} with tensors and torch's own operations, found {code}")


def _arranged(value: Any) -> Any:
    # Outside of inference mode, in which tensors are made that have no gradients.
    with torch.inference_mode(False):
        return channels_last(value) if isinstance(value, torch.Tensor) else value


def _detach(value: Any) -> Any:
    return value.detach() if isinstance(value, torch.Tensor) else value
