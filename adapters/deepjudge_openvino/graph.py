"""A graph of OpenVINO: what can be asked of it without knowing what its operations mean, and how it is run."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deepjudge_core.errors import ModelError
from deepjudge_core.models.taps import Op
from deepjudge_core.text import shortened
from deepjudge_core.types import Array
from deepjudge_openvino.model import Graph
from deepjudge_openvino.operations import operations
from deepjudge_openvino.runtime import EXACT, openvino, opset

_DTYPES = {"f32": "float32", "f16": "float16", "f64": "float64", "u8": "uint8", "i32": "int32", "i64": "int64"}

# Their results do not depend on the values of what they are given.
_SIZES = {"ShapeOf"}

# Compiled parts of a model, each with weights of its own.
_KEPT = 4

# What its errors have around what they say.
_AROUND = ("Check ", "Exception from ", "FrontEnd API failed", "Summary:", "To facilitate ")

# Names that OpenVINO gives to what has none.
_OWN = re.compile(r"[A-Z]\w*_\d+")

_ENDS = {"Assign", "Constant", "Parameter", "Result"}


class UnreadableError(ModelError):
    """OpenVINO cannot read a file."""


class OpenVinoGraph(Graph):
    """A model that OpenVINO has read, run by a compiled part of it for each set of tensors."""

    device = "OpenVINO CPU"

    @classmethod
    def read(cls, path: Path) -> "OpenVinoGraph":
        """Read a file, and what holds its weights beside it.

        Raises:
            UnreadableError: When OpenVINO cannot read or run it; without the model's name in front, as all others.
            ModelError: When it has not one input of numbers.
        """
        try:
            graph = cls(openvino.Core().read_model(path))
            graph._request(graph.outputs)
        except RuntimeError as error:
            version = openvino.__version__.partition("-")[0]
            raise UnreadableError(
                f"expected a model that OpenVINO {version} can run, found an error: {_last_line(error)}; convert the "
                "model again"
            ) from error
        return graph

    def __init__(self, model: Any) -> None:
        """Look at a model.

        Args:
            model: An ``openvino.Model``.

        Raises:
            ModelError: When it has not one input of numbers; without the model's name in front.
        """
        self._model = model
        parameters = model.get_parameters()
        if len(parameters) != 1:
            names = shortened(", ".join(p.get_friendly_name() for p in parameters)) or "none"
            raise ModelError(
                f"expected a model with one input, found {len(parameters)}: {names}; make the others "
                "constants, and convert it again"
            )
        self._source = parameters[0].output(0)
        kind = self._source.get_element_type().get_type_name()
        if kind not in _DTYPES:
            raise ModelError(
                f"expected an input of {', '.join(_DTYPES.values())}, found {kind}; convert it with one of these"
            )
        if self._source.get_partial_shape().rank.is_dynamic:
            raise ModelError("expected an input (n, ...), found one of any number of axes; convert it with a shape")
        self.shape, self.dtype = sizes(self._source), _DTYPES[kind]
        self._tensors = dict(_named(model))
        self._names = {_key(tensor): name for name, tensor in self._tensors.items()}
        self.outputs = tuple(self._names[_key(tensor)] for tensor in _results(model))
        self._requests: dict[tuple[str, ...], Any] = {}
        self._reordered: dict[str, Any] = {}
        if any(node.get_type_name() == "If" for node in self._dependents()):
            self.hidden = "expected the same layers for every input, found an If that depends on the input"

    def run(self, names: Sequence[str], x: Array) -> list[Array]:
        """See :class:`Graph`."""
        try:
            request = self._request(tuple(names))
            for state in request.query_state():
                state.reset()
            request.set_input_tensor(openvino.Tensor(np.ascontiguousarray(x)))
            request.infer()
            return [np.array(request.get_output_tensor(place).data) for place in range(len(names))]
        except RuntimeError as error:
            raise ModelError(f"OpenVINO cannot run it on {x.shape}: {_last_line(error)}") from error

    def reordered(self, name: str, x: Array, *, tensor: str, axis: int, order: Array) -> Array | None:
        """See :class:`Graph`."""
        try:
            if tensor not in self._reordered:
                self._reordered = {tensor: self._compiled(name, tensor, axis)}  # each has weights of its own
            request = self._reordered[tensor]
            for state in request.query_state():
                state.reset()
            request.infer([np.ascontiguousarray(x), order.astype(np.int64)])
            return np.array(request.get_output_tensor(0).data)
        except RuntimeError as error:
            raise ModelError(f"OpenVINO cannot run it on {x.shape}: {_last_line(error)}") from error

    def _compiled(self, name: str, tensor: str, axis: int) -> Any:
        # A part that is given the order as its second input; the model is left as it is.
        own = self._tensors[tensor]
        order = opset.parameter([-1], np.int64)
        readers = own.get_target_inputs()
        taken = opset.gather(own, order, opset.constant(np.int64(axis)))
        try:
            for reader in readers:
                reader.replace_source_output(taken.output(0))
            part = openvino.Model([self._tensors[name]], self._model.get_sinks(), [self._source.get_node(), order])
            return openvino.Core().compile_model(part, "CPU", dict(EXACT)).create_infer_request()
        finally:
            for reader in readers:
                reader.replace_source_output(own)

    def operations(self, x: Array) -> list[Op]:
        """See :class:`Graph`."""
        dependents = list(self._dependents())
        names = [self._names[_key(tensor)] for node in dependents for tensor in node.outputs()]
        shapes = {name: sizes(self._tensors[name]) for name in names if _has_rank(self._tensors[name])}
        unknown = [name for name in names if name not in shapes]
        if unknown:
            shapes |= zip(unknown, map(np.shape, self.run(unknown, x)), strict=True)
        shapes[self._names[_key(self._source)]] = self.shape
        return operations(self._source, dependents, {_key(t): n for n, t in self._tensors.items()}, shapes)

    def _dependents(self) -> Iterator[Any]:
        # Nodes whose outputs depend on the values of the input, in forward order.
        reached = {_key(self._source)}
        for node in self._model.get_ordered_ops():
            if node.get_type_name() in _SIZES | _ENDS:
                continue
            if any(_key(value) in reached for value in node.input_values()):
                reached.update(map(_key, node.outputs()))
                yield node

    def _request(self, names: tuple[str, ...]) -> Any:
        if names not in self._requests:
            if len(self._requests) == _KEPT:
                self._requests.pop(next(iter(self._requests)))
            results = [self._tensors[name] for name in names]
            # Without what is kept from one input to the next where nothing reads it.
            part = openvino.Model(results, self._model.get_sinks(), [self._source.get_node()])
            self._requests[names] = openvino.Core().compile_model(part, "CPU", dict(EXACT)).create_infer_request()
        return self._requests[names]


def sizes(tensor: Any) -> tuple[int | None, ...]:
    """The shape of a tensor whose number of axes is known."""
    return tuple(axis.get_length() if axis.is_static else None for axis in tensor.get_partial_shape())


def _last_line(error: Exception) -> str:
    # What an error of OpenVINO says, without where in its code, and without where to read on.
    lines = [line.strip().removeprefix("-- ") for line in str(error).splitlines()]
    said = (line for line in reversed(lines) if line and not line.startswith(_AROUND))
    return shortened(next(said, type(error).__name__))


def _results(model: Any) -> list[Any]:
    return [result.input(0).get_source_output() for result in model.get_results()]


def _has_rank(tensor: Any) -> bool:
    return bool(tensor.get_partial_shape().rank.is_static)


def _key(tensor: Any) -> tuple[str, int]:
    return tensor.get_node().get_name(), tensor.get_index()


def _named(model: Any) -> Iterator[tuple[str, Any]]:
    # Tensors by the names that people know, each once. Those that OpenVINO itself gives go on with each file.
    outputs = {_key(output): output for output in _results(model)}
    taken: set[str] = set()
    for node in model.get_ordered_ops():
        kind, friendly = node.get_type_name(), node.get_friendly_name()
        if kind in ("Assign", "Result"):
            continue
        for place, tensor in enumerate(node.outputs()):
            named = outputs[_key(tensor)].get_names() if _key(tensor) in outputs else set()
            known = [text for text in named if not _OWN.fullmatch(text)]
            base = (kind if _OWN.fullmatch(friendly) else friendly) + (f":{place}" if place else "")
            name = base = min(known, key=lambda text: (len(text), text), default=base)
            again = 1
            while name in taken:
                again += 1
                name = f"{base}:{again}"
            taken.add(name)
            yield name, tensor
