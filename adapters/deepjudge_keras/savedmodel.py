"""TensorFlow's SavedModel folders, as Keras exports them and as TensorFlow saves modules and functions.

To load one is not safe where its maker may attack you: its graph may hold operations that read and write files, of
which only the plain ones are refused here, and TensorFlow's readers were not made for hostile ones.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from tensorflow.core.protobuf import saved_model_pb2

from deepjudge_core.errors import ModelError
from deepjudge_core.files import digests
from deepjudge_core.models.adapters import prefixed
from deepjudge_core.models.model import Access
from deepjudge_core.models.outputs import Choice, Output, Outputs, is_softmax, row_width
from deepjudge_core.models.taps import find_taps
from deepjudge_core.types import Array, Layout
from deepjudge_keras.device import on
from deepjudge_keras.graph import Heard, Trace, data_format, hidden_layers, operations
from deepjudge_keras.inlining import CALLS, argument, inline
from deepjudge_keras.loading import cause
from deepjudge_keras.model import TracedModel
from deepjudge_keras.operations import expect_plain

_GRAPH = "saved_model.pb"
_VARIABLES = "variables/variables.index"
_SERVED = "serving_default"
_INITIALISER = "__saved_model_init_op"
_LENGTHS = (8, 16, 32, 64, 128, 224, 299)
"""Tried for axes of any length, to find one that a model can be run on."""

_ROWS = 3


@dataclass(frozen=True, eq=False)
class Signature:
    """One function of a SavedModel, and what it answers to a few random inputs.

    Attributes:
        loaded: The SavedModel, which keeps the variables.
        function: The concrete function.
        input: The ``tf.TensorSpec`` of its one input.
        samples: Random inputs.
        answers: All that it gives for them.
        outputs: What these are, and which of them are the scores.
        notes: What a reader should know of how it was chosen.
    """

    loaded: Any
    function: Any
    input: Any
    samples: Array
    answers: Sequence[Array]
    outputs: Outputs
    notes: tuple[str, ...] = ()

    @property
    def scores(self) -> Array:
        """Its scores for the random inputs."""
        return self.answers[self.outputs.place]

    def trace(self, x: Any) -> Trace:
        """Trace it into the graph of ``x``, operation by operation."""
        output = inline(self.function, x, self.function.outputs[self.outputs.place])
        while output.op.type == "Identity":  # in which calls wrap their results
            output = output.op.inputs[0]
        output = self._scores(output)
        taps = find_taps(operations(x), output.name)
        named = {tap.name.removesuffix(":0"): Heard.at(tap, x.graph) for tap in taps.taps}
        logits = named[taps.taps[-1].name.removesuffix(":0")]
        if logits.tensor.shape.rank not in (None, 2):
            named[taps.taps[-1].name.removesuffix(":0")] = Heard.of_scores(logits.tensor)
        tensors = {name: heard for name, heard in named.items() if not heard.tensor.dtype.is_complex}
        return Trace(output, taps.scores, tensors, _layout(x.graph), self.outputs, hidden_layers(x.graph))

    def trace_as_one(self, x: Any) -> Trace:
        """Trace it into the graph of ``x`` as a single call, in which only the output can be seen."""
        graph = self.function.graph
        called = {operation.type for operation in graph.get_operations()} & set(CALLS)
        if called:  # the last operation, which makes the scores, may be inside
            raise ModelError(
                f"expected a graph that shows how its scores are computed, found a {called.pop()}; export it to ONNX"
            )
        scores = find_taps(operations(argument(self.function)), self.function.outputs[self.outputs.place].name).scores
        output = self._scores(_call(self.function, self.input.name, x)[self.outputs.place])
        return Trace(output, scores, {"output": Heard.of_scores(output)}, None, self.outputs)

    def _scores(self, output: Any) -> Any:
        output.set_shape((None, *self.scores.shape[1:]))  # a graph need not say
        return output


def open_saved_model(
    path: Path,
    *,
    name: str | None = None,
    batch_size: int | None = None,
    output: Choice = None,
    device: str | None = None,
) -> TracedModel:
    """Open a SavedModel folder; see the module on those of people who may attack you.

    The signature ``serving_default`` is taken, or the only one that takes numbers; where none does, as in those that
    take images as files, what the model computes when it is called itself. What is traced is run on random inputs and
    compared with what the signature itself gives.

    Args:
        name: What to call it.
        batch_size: Rows in a batch.
        output: The one that holds the scores, by its name or its number.
        device: Where it runs: see :func:`~deepjudge_keras.device.on`.
    """
    digest = digests.of_folder(path).digest
    with on(device):
        signature = _signature(path, output)
    return _open(signature, path, name or str(path), digest=digest, batch_size=batch_size, device=device)


def _open(signature: Signature, path: Path, named: str, **described: Any) -> TracedModel:
    def by_output(place: int) -> TracedModel:
        return _open(replace(signature, outputs=signature.outputs.by(place)), path, named, **described)

    def opened(trace: Callable[[Any], Trace]) -> TracedModel:
        return TracedModel(trace, signature.input, name=named, by_output=by_output, **described)

    try:
        model = opened(signature.trace)
    except ModelError as error:
        try:
            model = opened(signature.trace_as_one)
        except ModelError:
            raise error from None
        model.refuse(Access.LAYERS | Access.GRADIENTS, str(error).removeprefix(f"{named}: "))
    model.notes = signature.notes
    for _ in range(2):  # numbers drawn at random may begin alike
        _compare(path, signature.scores, model.forward(signature.samples, None)[0])
    if Access.GRADIENTS in model.access:
        try:
            model.backward(signature.samples, np.ones_like, model.logits)
        except Exception as error:
            reason = str(error).removeprefix(f"{named}: ") if isinstance(error, ModelError) else cause(error)
            model.refuse(Access.GRADIENTS, f"expected a graph with gradients, found one without: {reason}")
    return model


def _signature(path: Path, choice: Choice) -> Signature:
    meta = _meta_graph(path)
    chosen = _choose_signature(path, meta)
    try:
        expect_plain(meta)
    except ModelError as error:
        raise _other(path, str(error)) from error
    try:
        with _without_warnings():
            loaded = tf.saved_model.load(str(path), tags=list(meta.meta_info_def.tags))
        function, spec = (loaded.signatures[chosen[0]], chosen[1]) if chosen else _callable(loaded)
    except Exception as error:
        missing = "" if (path / _VARIABLES).is_file() else f" without {_VARIABLES}"
        raise _other(path, f"one{missing} that cannot be loaded: {cause(error)}") from error
    if function is None:
        found = "; ".join(_described(key, value) for key, value in sorted(_signatures(meta).items()))
        raise ModelError(
            f"{path}: expected a signature with one input (n, ...) of numbers, or a model that can be "
            f"called with one, found {found}; save it with signatures=... of a function that takes "
            "numbers"
        )
    samples, answers = _run(path, function, spec)
    structure = function.structured_outputs
    names = sorted(structure) if isinstance(structure, dict) else []  # as TensorFlow takes a dict apart
    named = zip(names if len(names) == len(answers) else [""] * len(answers), answers, strict=True)
    with prefixed(str(path)):
        outputs = Outputs.of([_output(name, answer, len(samples)) for name, answer in named], choice)
    taken = f"the signature {chosen[0]}" if chosen else "what it computes when called directly"
    note = f"its signature {_SERVED} takes no numbers, so {taken} was used"
    served = _SERVED in _signatures(meta) and not (chosen and chosen[0] == _SERVED)
    return Signature(loaded, function, spec, samples, answers, outputs, (note,) if served else ())


def _output(name: str, answer: Array, rows: int) -> Output:
    real = answer.dtype.kind in "fV"  # the kind of bfloat16 is V to numpy
    if real and answer.shape[:1] == (rows,) and row_width(answer.shape[1:]) is not None:
        scores = answer.astype(np.float32).reshape(rows, -1)
        return Output.of_scores(name, answer.shape[1:], softmax=is_softmax(scores))
    return Output(name, f"{answer.dtype} {answer.shape} for n = {rows}", None)


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Keep advice to the maker of a model, such as on variables of TensorFlow 1, from whoever opens it."""
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel("ERROR")
    try:
        yield
    finally:
        logger.setLevel(level)


def _meta_graph(path: Path) -> Any:
    """The graph that is meant for use, and what is said of it, before TensorFlow makes anything of it."""
    file = path / _GRAPH
    if not file.is_file():
        raise _other(path, f"a folder without {_GRAPH}" if any(path.iterdir()) else "an empty folder")
    content = file.read_bytes()
    if not content:
        raise _other(path, f"an empty {_GRAPH}")
    try:
        graphs = saved_model_pb2.SavedModel.FromString(content).meta_graphs
    except DecodeError as error:
        raise _other(path, f"a {_GRAPH} that is truncated, or another file") from error
    if not graphs:
        raise _other(path, f"a {_GRAPH} without a graph")
    return next((graph for graph in graphs if "serve" in graph.meta_info_def.tags), graphs[0])


def _signatures(meta: Any) -> dict[str, Any]:
    return {key: value for key, value in meta.signature_def.items() if key != _INITIALISER}


def _choose_signature(path: Path, meta: Any) -> tuple[str, Any] | None:
    """Name of the signature to take, and the ``tf.TensorSpec`` of its one input; None where none takes numbers."""
    signatures = _signatures(meta)
    if not signatures:
        raise _other(path, "a graph without signatures: save it with signatures=...")
    specs = {key: spec for key, value in signatures.items() if (spec := _numbers(value)) is not None}
    names = ", ".join(sorted(specs if len(specs) > 1 else signatures))
    if _SERVED in specs:
        return _SERVED, specs[_SERVED]
    if len(specs) == 1:  # what is served may take images as files, or records
        return next(iter(specs.items()))
    if specs or (_SERVED not in signatures and len(signatures) > 1):
        raise ModelError(
            f"{path}: expected the signature {_SERVED}, or exactly one other, to take numbers, found {names}; save it "
            "with one"
        )
    return None


def _numbers(signature: Any) -> Any:
    """The ``tf.TensorSpec`` of a signature's one input ``(n, ...)`` of numbers; None where it has others."""
    if len(signature.inputs) != 1:
        return None
    ((name, info),) = signature.inputs.items()
    spec = tf.TensorSpec(tf.TensorShape(info.tensor_shape), tf.as_dtype(info.dtype), name)
    return spec if _is_numbers(spec) else None


def _is_numbers(spec: Any) -> bool:
    numbers = spec.dtype.is_floating or spec.dtype.is_integer
    return numbers and spec.shape.rank is not None and spec.shape.rank >= 2


def _described(key: str, signature: Any) -> str:
    """A signature and its inputs, in words."""
    specs = {
        name: f"{tf.as_dtype(info.dtype).name} {tf.TensorShape(info.tensor_shape)}"
        for name, info in sorted(signature.inputs.items())
    }
    inputs = ", ".join(f"{name}: {spec}" for name, spec in specs.items()) or "none"
    return f"{key} ({len(specs)}: {inputs})" if len(specs) > 1 else f"{key} ({inputs})"


def _callable(loaded: Any) -> tuple[Any, Any]:
    """What a model computes that is called itself, as in use, and the ``tf.TensorSpec`` of its one input; else None."""
    called = loaded.__call__ if callable(loaded) else None
    for function in getattr(called, "concrete_functions", ()):
        given = function.structured_input_signature
        specs = [part for part in tf.nest.flatten(given) if isinstance(part, tf.TensorSpec)]
        if len(specs) != 1 or not _is_numbers(specs[0]) or any(part is True for part in tf.nest.flatten(given)):
            continue  # True would be for training
        spec = tf.TensorSpec(specs[0].shape, specs[0].dtype, "x")
        return tf.function(_caller(loaded, given), [spec], autograph=False).get_concrete_function(), spec
    return None, None


def _caller(loaded: Any, given: Any) -> Callable[[Any], Any]:
    def call(x: Any) -> Any:
        args, keywords = tf.nest.map_structure(lambda part: x if isinstance(part, tf.TensorSpec) else part, given)
        return loaded(*args, **keywords)

    return call


def _run(path: Path, function: Any, spec: Any) -> tuple[Array, list[Array]]:
    """Random inputs, and all that the function gives for them."""
    rng = np.random.default_rng(0)
    rows, *axes = spec.shape
    failure: Exception
    for length in _LENGTHS if None in axes else _LENGTHS[:1]:
        shape = (rows or _ROWS, *(axis or length for axis in axes))
        # Small numbers, since integers may be places in a table.
        values = rng.normal(size=shape) if spec.dtype.is_floating else rng.integers(0, 2, shape)
        samples = values.astype(spec.dtype.as_numpy_dtype)
        try:
            return samples, [output.numpy() for output in _call(function, spec.name, tf.constant(samples))]
        except (tf.errors.OpError, ValueError) as error:
            failure = error
    raise _other(path, f"one that fails on inputs {spec.shape}: {cause(failure)}") from failure


def _call(function: Any, argument: str, x: Any) -> list[Any]:
    outputs: list[Any] = tf.nest.flatten(function(**{argument: x}))
    return outputs


def _compare(path: Path, expected: Array, actual: Array) -> None:
    tolerance = 1e-4 if expected.dtype.itemsize >= 4 else 1e-2
    tolerance *= max(1.0, float(np.nanmax(np.abs(expected), initial=0)))
    same = actual.shape == expected.shape
    if not same or not np.allclose(actual, expected, rtol=0, atol=tolerance, equal_nan=True):
        difference = f"a difference of {np.abs(actual - expected).max():.2g}" if same else f"the shape {actual.shape}"
        raise ModelError(
            f"{path}: expected the graph to give the same answers as its signature for random inputs, "
            f"found {difference}; save it again, or export it to ONNX"
        )


def _layout(graph: Any) -> Layout | None:
    formats = {data_format(operation) for operation in graph.get_operations() if operation.outputs} - {""}
    if not formats:
        return None
    return "channels_first" if any(form.startswith("NC") for form in formats) else "channels_last"


def _other(path: Path, content: str) -> ModelError:
    return ModelError(f"{path}: expected a SavedModel, found {content}")
