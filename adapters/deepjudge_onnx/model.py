"""ONNX models as the core sees them, run by ONNX Runtime."""

import contextlib
import hashlib
import importlib.util
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
from onnx import ModelProto, inliner

from deepjudge_core.errors import MissingExtraError, ModelError
from deepjudge_core.models.adapters import prefixed
from deepjudge_core.models.batched import BatchedModel
from deepjudge_core.models.input_spec import InputSpec
from deepjudge_core.models.model import Access
from deepjudge_core.models.outputs import Choice, Output, Outputs
from deepjudge_core.models.places import find_places, reduce, repeats, spread
from deepjudge_core.models.taps import Place, Tap, find_taps, input_layout
from deepjudge_core.text import shortened
from deepjudge_core.types import Array
from deepjudge_onnx.branches import undecided, without_branches
from deepjudge_onnx.contents import check
from deepjudge_onnx.gpu import CUDA, providers, ran_on
from deepjudge_onnx.graph import ORDER, cut, dependents, external_files, infer_shapes, is_half, quantised, reordered
from deepjudge_onnx.inputs import Shape, find_input, other_lengths, sample, shapes_to_try, with_constants
from deepjudge_onnx.loading import load
from deepjudge_onnx.operations import LAYERS, operations
from deepjudge_onnx.order import in_order
from deepjudge_onnx.plain import plain, with_real_scores
from deepjudge_onnx.runtime import onnxruntime
from deepjudge_onnx.sizes import with_free_rows, without_sizes
from deepjudge_onnx.values import QUANTISED, REAL
from deepjudge_onnx.weights import Weights

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from deepjudge_onnx.gradient import Differentiable

# A model is tried with two numbers of rows: they tell which axes are those of the rows. A graph that was traced for
# one row and says otherwise takes only that.
_ROWS = ((2, 3), (1,))

# Of what ONNX Runtime makes of convolutions where it knows the processor that they will run on: activations are inside
# them, and tensors in blocks.
_BLOCKED = "com.microsoft.nchwc"

# How far a conversion to PyTorch may be off, of the greatest output, and where all outputs are as good as 0.
_TOLERANCE, _HALF_TOLERANCE, _ABSOLUTE_TOLERANCE = 1e-3, 1e-2, 1e-5

# Of each row they give what leaves of trees hold: there is nothing between.
_TREES = {"TreeEnsemble", "TreeEnsembleClassifier", "TreeEnsembleRegressor"}

# At most so many rows run at once: a new session takes longer to get the memory for more than it saves.
_FORWARD_ROWS = 64

# What the layers of a large model may give for a batch, all of which is there at once.
_BATCH_NEURONS = 2**25


def open_onnx(
    source: Path | ModelProto,
    *,
    name: str,
    batch_size: int | None,
    output: Choice,
    fix: Mapping[str, float] = MappingProxyType({}),
    expected: InputSpec | None = None,
    device: str | None = None,
) -> "OnnxModel":
    """Open a file or a live model.

    Args:
        name: What to call it.
        batch_size: Rows in a batch.
        output: The one that holds the scores, by its name or its number.
        fix: Numbers for all inputs but one, by their names.
        expected: The inputs that it will be given, which tell the lengths of axes that it leaves free.
        device: What it runs on: ``cpu`` or ``cuda:N``; None for the processor.

    Raises:
        ModelError: When it cannot be opened as a classifier, or does not run on the device.
    """
    model, weights, digest = _read(source, name)
    return OnnxModel(
        model,
        name=name,
        digest=digest,
        weights=weights,
        batch_size=batch_size,
        output=output,
        fix=fix,
        expected=expected,
        device=device,
    )


def open_onnx_program(
    source: Path | ModelProto,
    *,
    name: str,
    output: Choice,
    fix: Mapping[str, float] = MappingProxyType({}),
    expected: InputSpec | None = None,
) -> "ExportedProgram":
    """Open a file or a live model as a program of torch.export, for any number of rows, even where it says one.

    Raises:
        ModelError: When it cannot be opened or converted.
    """
    model, weights, digest = _read(source, name)
    model = with_free_rows(model)
    return OnnxModel(
        model, name=name, digest=digest, weights=weights, output=output, fix=fix, expected=expected
    ).program()


def _read(source: Path | ModelProto, name: str) -> tuple[ModelProto, Weights, str]:
    if isinstance(source, Path):
        return load(source, name)
    if external_files(source):
        raise ModelError(
            f"{name}: expected a model that contains its weights, found external data; open the file instead"
        )
    with prefixed(name):
        check(source)
        model = in_order(source)
    return model, Weights(), hashlib.sha256(source.SerializeToString(deterministic=True)).hexdigest()


class OnnxModel(BatchedModel):
    """A graph, run from its input to whichever tensors are asked for, with a session for each set of them."""

    def __init__(
        self,
        model: ModelProto,
        *,
        name: str,
        digest: str,
        weights: Weights,
        batch_size: int | None = None,
        output: Choice = None,
        fix: Mapping[str, float] = MappingProxyType({}),
        expected: InputSpec | None = None,
        device: str | None = None,
    ) -> None:
        """Read the graph, and run it on a few random inputs to see what it takes and gives."""
        self.name, self._expected, self._place = name, expected, device or "cpu"
        self._model = inliner.inline_local_functions(model) if model.functions else model
        with prefixed(name):
            self._model = with_constants(self._model, fix)
            self._source, (fixed_rows, *taken), dtype = find_input(self._model)
        self._weights = weights
        self._sessions: dict[tuple[str, ...], onnxruntime.InferenceSession] = weights.sessions if weights else {}
        # What one session gives, whichever of it is asked for: opening another takes as long as a hundred rows do, and
        # a large model has no room for another.
        self._together: tuple[str, ...] = ()
        self._differentiable: dict[str, Differentiable] = {}
        self._model = whole = plain(without_branches(self._model, self._source, self._weights))
        outputs, self._samples = self._find_outputs(output, fixed_rows, tuple(taken), dtype)
        shape = self._find_lengths(tuple(taken), [value.name for value in whole.graph.output])
        self._output = outputs.all[outputs.place].name
        self._whole = whole if len(outputs.tables) > 1 else None
        self._model = with_real_scores(cut(self._model, [self._output]))
        ops = operations(self._model, self._source, self._shapes(), self._weights)
        taps = find_taps(ops, self._output)
        if weights:
            own = (name for tap in taps.taps for name in (tap.name, tap.unflattened))
            self._together = tuple(dict.fromkeys(filter(None, (*own, self._output))))
        self._places = self._find_places(taps.taps)
        if not weights:
            self._together = layers = tuple(self._places)
            self._sessions = {layers: self._session(layers)}  # the others only looked
        super().__init__(
            name=name,
            framework="onnx",
            digest=digest,
            access=Access.WHITE_BOX if self._gradient_refusal(dtype) else Access.FULL,
            input=InputSpec(shape, dtype, input_layout(ops)),
            layers={tap: place.neurons for tap, place in self._places.items()},
            scores=taps.scores,
            batch_size=batch_size,
            fixed_batch=len(self._samples[0]) if len(self._samples) == 1 else None,
            outputs=outputs,
        )
        self.parameters = _parameters(model)
        if weights and batch_size is None and self.fixed_batch is None:
            self._batch_size = min(self._batch_size, self._most_rows)
        if self.fixed_batch is None and not self._takes_a_lone_row():
            self._least_rows = 2
        if _BLOCKED in {node.domain for node in self._model.graph.node}:
            self.access &= ~Access.LAYERS
            self.unseen = (
                f"expected ONNX operations, found those of {_BLOCKED}, which are specific to one kind of processor"
            )
        choice = undecided(self._model, self._source, LAYERS)
        if choice is not None:
            self.access &= ~Access.LAYERS
            self.unseen = f"expected the same layers for every input, found an If that depends on the input: {choice!r}"
        if self._trees():
            self.access &= ~Access.LAYERS
            self.unseen = f"expected layers, found trees: {self._trees()}"

    def forward(self, x: Array, layers: Sequence[str] | None) -> list[Array]:
        """See :class:`BatchedModel`."""
        parts = 1 if self.fixed_batch else math.ceil(len(x) / _FORWARD_ROWS)
        outputs = [self._forward(part, layers) for part in np.array_split(x, parts)]
        return [np.concatenate(column) for column in zip(*outputs, strict=True)] if parts > 1 else outputs[0]

    def _forward(self, x: Array, layers: Sequence[str] | None) -> list[Array]:
        if layers is None:
            return self._run([self._output], x)
        tensors = self._run(layers, x)
        return [reduce(t, self._places[layer], len(x)) for layer, t in zip(layers, tensors, strict=True)]

    def backward(self, x: Array, cotangent: Callable[[Array], Array], layer: str) -> Array:
        """See :class:`BatchedModel`."""
        if layer not in self._differentiable:
            self._differentiable[layer] = self._convert(layer, x)
        return self._differentiable[layer].backward(x, cotangent)

    def mixed(self, x: Array, layer: str, order: Array) -> Array | None:
        """See :class:`BatchedModel`."""
        key, place = ("", layer, self.logits), self._places[layer]
        if key not in self._sessions:
            if self._weights:
                self._sessions.clear()
            self._sessions[key] = self._open_session(reordered(cut(self._model, [self.logits]), layer, place.rows))
        given = {self._source: x, ORDER: spread(order, self._times[layer])}
        (scores,) = self._run_session(self._sessions[key], [self.logits], given)
        return np.asarray(reduce(scores, self._places[self.logits], len(x)))

    def by_output(self, place: int) -> "OnnxModel":
        """See :class:`~deepjudge_core.models.batched.BatchedModel`."""
        if self._whole is None:
            raise RuntimeError("a model with a single output has no graph to choose from")
        size = self._batch_size if self.fixed_batch is None and not self._any_length else None
        return OnnxModel(
            self._whole,
            name=self.name,
            digest=self.digest,
            weights=self._weights,
            batch_size=size,
            output=place + 1,
            expected=InputSpec(self._samples[0].shape[1:]),
            device=self._place,
        )

    def program(self) -> "ExportedProgram":
        """The same in PyTorch.

        Raises:
            ModelError: When it cannot be converted, or not for any number of rows.
        """
        self._refuse_gradients()
        if len(self._samples) == 1:
            raise ModelError(f"{self.name}: expected a model for any number of rows, found one for single rows")
        loops = sorted({"Loop", "Scan"} & {node.op_type for node in dependents(self._model, self._source)})
        if loops:
            raise ModelError(
                f"{self.name}: expected layers that can be converted to PyTorch, found a {loops[0]}; open "
                "the model it was made from"
            )
        from deepjudge_onnx.network import export, run

        free = (0, *(axis for axis, size in enumerate(self.input.shape, 1) if size is None))
        fixed = without_sizes(self._model, self._source, self._samples, self._run, self.name)
        program = export(self._weights.embedded(cut(fixed, [self._output])), self._samples[0], free, self.name)
        self._check(lambda x: run(program, x), self._samples, self._output, f"{self.name}: expected")
        return program

    def _find_outputs(
        self, choice: Choice, fixed_rows: int | None, taken: Shape, dtype: str
    ) -> tuple[Outputs, list[Array]]:
        # All outputs, and inputs that the model takes, each of another number of rows.
        names = [value.name for value in self._model.graph.output]
        if not names:
            raise ModelError(f"{self.name}: expected an output (n, classes), found none")
        rng = np.random.default_rng(0)
        self._session(names)  # what it cannot run at all need not be tried
        problems = []
        for rows in ((fixed_rows,),) if fixed_rows else _ROWS:
            for shape in shapes_to_try(taken, self._expected):
                samples = [sample(n, shape, dtype, rng) for n in rows]
                try:
                    results = zip(*(self._run(names, x) for x in samples), strict=True)
                    outputs = [_output(name, values, rows) for name, values in zip(names, results, strict=True)]
                    with prefixed(self.name):
                        return Outputs.of(outputs, choice), samples
                except ModelError as error:
                    problems.append(error)
        raise problems[0]

    def _find_lengths(self, taken: Shape, names: Sequence[str]) -> Shape:
        # Of axes that it leaves free, those of which it takes one length alone get that.
        x = self._samples[0]
        return tuple(
            size or (None if self._takes_others(names, x, axis) else x.shape[axis + 1])
            for axis, size in enumerate(taken)
        )

    def _takes_others(self, names: Sequence[str], x: Array, axis: int) -> bool:
        rng = np.random.default_rng(0)
        for shape in other_lengths(x.shape[1:], axis):
            with contextlib.suppress(ModelError):
                self._run(names, sample(len(x), shape, x.dtype.name, rng))
                return True
        return False

    def _takes_a_lone_row(self) -> bool:
        # `squeeze`, which should take away the axis of a single score, takes away that of a single row as well.
        try:
            (scores,) = self._run([self._output], self._samples[0][:1])
        except ModelError:
            return False
        return np.shape(scores)[:1] == (1,)

    def _shapes(self) -> dict[str, tuple[int | None, ...]]:
        shapes = infer_shapes(self._model)
        nodes = dependents(self._model, self._source)
        unknown = [name for node in nodes for name in node.output if name and name not in shapes]
        if unknown:
            shapes.update(zip(unknown, map(np.shape, self._run(unknown, self._samples[0])), strict=True))
        return shapes

    def _find_places(self, taps: Sequence[Tap]) -> dict[str, Place]:
        rows, names = [len(x) for x in self._samples], [tap.name for tap in taps]
        of_samples = [list(map(np.shape, self._run(names, x))) for x in self._samples]
        shapes = list(zip(*of_samples, strict=True))
        places = find_places(taps, shapes, self._shapes_for, rows, self.name)
        self._times = repeats(places, dict(zip(names, of_samples[0], strict=True)), rows[0])
        of_all = sum(map(math.prod, (of_tap[0] for of_tap in shapes)))
        self._most_rows = max(1, _BATCH_NEURONS * rows[0] // max(1, of_all))
        return places

    def _shapes_for(self, name: str) -> list[tuple[int, ...]]:
        return [np.shape(self._run([name], x)[0]) for x in self._samples]

    def _run(self, names: Sequence[str], x: Array) -> list[Array]:
        return self._run_session(self._session(names), names, {self._source: x})

    def _run_session(
        self, session: onnxruntime.InferenceSession, names: Sequence[str], given: Mapping[str, Array]
    ) -> list[Array]:
        taken = {value.name for value in session.get_inputs()}  # what is made of weights alone takes none
        try:
            tensors: list[Array] = session.run(list(names), {name: given[name] for name in taken})
        except Exception as error:  # ONNX Runtime's have no base of their own
            shape = given[self._source].shape
            raise ModelError(f"{self.name}: ONNX Runtime cannot run it on {shape}: {_line(error)}") from error
        return tensors

    def _session(self, names: Sequence[str]) -> onnxruntime.InferenceSession:
        key, together = tuple(names), set(names) <= set(self._together)
        with prefixed(self.name):
            self._weights.expect_unchanged()
        if together and (self._weights or key != (self._output,)):
            key = self._together
        if key not in self._sessions:
            if self._weights:
                self._sessions.clear()
            self._sessions[key] = self._open_session(cut(self._model, key))
        return self._sessions[key]

    def _open_session(self, part: ModelProto) -> onnxruntime.InferenceSession:
        try:
            session = self._weights.session(part, providers(self._place))
        except Exception as error:
            version = onnxruntime.__version__
            raise ModelError(
                f"{self.name}: expected an ONNX model that ONNX Runtime {version} can run, found {_line(error)}"
            ) from error
        self.device = ran_on(session)
        if self._place != "cpu" and CUDA not in session.get_providers():
            raise ModelError(
                f"{self.name}: expected ONNX Runtime to run it on {self._place}, found that it runs on {self.device}",
                code="no-device",
            )
        return session

    def _convert(self, layer: str, x: Array) -> "Differentiable":
        # Compared on the inputs that are asked about, of as many rows as the model was tried with.
        self._refuse_gradients()
        from deepjudge_onnx.gradient import Differentiable

        self._weights.sessions.clear()  # room for what it is converted to
        part = self._weights.embedded(cut(self._model, [layer]))
        function = Differentiable(part, self._places[layer], self.name, self._place)
        inputs = [x[np.arange(len(one)) % len(x)] for one in self._samples]
        self._check(function.forward, inputs, layer, f"{self.name}: no gradients at {layer!r}: expected")
        return function

    def _check(self, converted: Callable[[Array], Array], inputs: Iterable[Array], name: str, start: str) -> None:
        for x in inputs:
            (expected,) = self._run([name], x)
            outputs = converted(x)
            off = np.abs(outputs - expected).max(initial=0) if outputs.shape == expected.shape else np.inf
            # So written, it refuses NaN.
            tolerance = _HALF_TOLERANCE if is_half(self._model) or expected.dtype == np.float16 else _TOLERANCE
            if not off <= tolerance * np.abs(expected).max(initial=0) + _ABSOLUTE_TOLERANCE:
                raise ModelError(
                    f"{start} the outputs of ONNX Runtime from its conversion to PyTorch, "
                    f"found a difference of {off:.2g}"
                )

    def _refuse_gradients(self) -> None:
        refused = self._gradient_refusal(self.input.dtype)
        if refused:
            raise refused

    def _trees(self) -> str:
        return ", ".join(sorted(_TREES & {node.op_type for node in self._model.graph.node}))

    def _gradient_refusal(self, dtype: str) -> ModelError | None:
        if _BLOCKED in {node.domain for node in self._model.graph.node}:
            return ModelError(f"{self.name}: no gradients through the operations of {_BLOCKED}")
        kinds = quantised(self._model, self._source)
        if kinds:
            return ModelError(f"{self.name}: no gradients through the quantised operations {', '.join(kinds)}")
        if self._trees():
            return ModelError(f"{self.name}: no gradients through trees: {self._trees()}")
        if np.dtype(dtype).kind != "f":
            return ModelError(f"{self.name}: no gradients at an input of {dtype}")
        if not all(map(importlib.util.find_spec, ("torch", "onnx2fx"))):
            return MissingExtraError(self.name, "PyTorch and onnx2fx for the gradients of an ONNX model", "torch")
        if self._place != "cpu" and not _torch_sees(self._place):
            return ModelError(
                f"{self.name}: no gradients on {self._place}: PyTorch, which computes those of an ONNX model, can use "
                "no such GPU; install its build for CUDA",
                code="no-device",
            )
        return None


def _torch_sees(device: str) -> bool:
    import torch

    return bool(torch.cuda.is_available() and torch.device(device).index < torch.cuda.device_count())


def _parameters(model: ModelProto) -> int | None:
    # Real numbers alone, as integers are shapes and places; beside quantised ones there are scales.
    whole = [one for one in model.graph.initializer if one.dims]
    if any(one.data_type in QUANTISED for one in whole):
        return None
    return sum(int(math.prod(one.dims)) for one in whole if one.data_type in REAL)


def _output(name: str, values: Sequence[object], rows: Sequence[int]) -> Output:
    arrays = [value for value in values if isinstance(value, np.ndarray)]
    if len(arrays) < len(rows):
        return Output(name, f"a {type(values[0]).__name__}", None)
    return Output.of_answers(name, arrays, rows)


def _line(error: Exception) -> str:
    return shortened(str(error)) or type(error).__name__


def _list(names: Iterable[str]) -> str:
    return shortened(", ".join(names)) or "none"
