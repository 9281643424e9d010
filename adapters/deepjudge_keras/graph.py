"""The graph of a Keras model as TensorFlow traces it, and the taps in it.

The graph holds every operation that the model runs, in forward order, whether the model is sequential, functional,
nested or a class of its own. What it does not show is which of them make up a recurrent layer, which an activation
that TensorFlow spells out in several (hard sigmoid, clipped ReLU), and where a layer puts its channels. For these the
calls of Keras's layers are listened to while the model is traced; such a layer then stands for what is inside it.
"""

import contextlib
import itertools
import math
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from deepjudge_core.errors import ModelError
from deepjudge_core.models.outputs import Choice, Output, Outputs, name_of_path, row_width
from deepjudge_core.models.scores import Scores
from deepjudge_core.models.taps import (
    Op,
    Role,
    Tap,
    axes_beside_one_place,
    axes_of_reshape,
    find_taps,
    loses_axes_of_one,
)
from deepjudge_core.types import Layout
from deepjudge_keras.inlining import CHOICES
from deepjudge_keras.values import ELEMENTWISE, PASSING, constant_of, function_of

_ACTIVATIONS = {
    **dict.fromkeys(("Elu", "Erf", "Erfc", "LeakyRelu", "Relu", "Relu6", "Selu"), Role.ACTIVATION),
    **dict.fromkeys(("Softplus", "Softsign", "Tanh"), Role.ACTIVATION),
    "Sigmoid": Role.SIGMOID,
    "Softmax": Role.SOFTMAX,
    "LogSoftmax": Role.LOG_SOFTMAX,
}
"""TensorFlow operations that are an activation function, or the nonlinear part of one."""

_OTHERS = {
    **dict.fromkeys(ELEMENTWISE, Role.ELEMENTWISE),
    **dict.fromkeys(PASSING, Role.IDENTITY),
    **dict.fromkeys(("Conv", "Conv2D", "Conv2DBackpropInput", "Conv3D", "Conv3DBackpropInputV2"), Role.CONVOLUTION),
    "DepthwiseConv2dNative": Role.CONVOLUTION,
    **dict.fromkeys(("BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "Einsum", "MatMul"), Role.PROJECTION),
    **dict.fromkeys(("Add", "AddN", "AddV2", "BiasAdd", "Neg", "Sub"), Role.AFFINE),
    **dict.fromkeys(("Mul", "Select", "SelectV2"), Role.MULTIPLY),
    **dict.fromkeys(("MaxPool", "MaxPool3D", "MaxPoolV2"), Role.MAX_POOL),
    **dict.fromkeys(("AvgPool", "ConcatV2", "FusedBatchNormV3", "MirrorPad", "PadV2", "ReverseV2"), Role.KEEP),
    **dict.fromkeys(("ExpandDims", "Reshape", "Squeeze"), Role.RESHAPE),
    "Pad": Role.PAD,
    "Transpose": Role.TRANSPOSE,
}

_LAYERS = {kind for kind, role in _OTHERS.items() if role in (Role.CONVOLUTION, Role.PROJECTION)} | {
    kind for kind, role in _ACTIVATIONS.items() if role is Role.ACTIVATION
}
"""TensorFlow operations that are layers, or activations of them."""

_TAKES = ("GatherV2", "Split", "SplitV", "StridedSlice", "Unpack")
"""They take some places of an axis: where it is one, it is selected."""

_SIZES = ("OnesLike", "Shape", "ZerosLike")
"""What they give does not depend on the values of their input."""

_LOOPS = ("StatelessWhile", "While")

_FUNCTIONS = {name.replace("_", "") for name in dir(keras.activations)} - {"linear", "softmax", "logsoftmax"}
"""Keras's activation functions, spelt as the layers and operations of the same name are in lower case."""

_SOFTMAX = (Scores.PROBABILITIES, Scores.LOG_PROBABILITIES)

_LISTENING = threading.Lock()

State = Sequence[tuple[Any, Any]]
"""Variables of Keras, each with the tensor that stands for it."""


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a layer or operation while the model was traced.

    Attributes:
        operation: The layer or operation.
        path: Names of the layers that it was called in, the model's own left out, and its name.
        inputs: Tensors that it was given.
        outputs: Tensors that it gave.
        span: Places, among the operations of the graph, of those that it added.
    """

    operation: Any
    path: str
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]
    span: range


@dataclass(frozen=True, eq=False)
class Heard:
    """What is heard at a tap.

    Attributes:
        tensor: The tensor there.
        channel: The axis of its neurons.
        unflattened: Sizes of the axes beside the rows, where the tensor is to be given them first.
    """

    tensor: Any
    channel: int
    unflattened: tuple[int, ...] = ()

    @classmethod
    def at(cls, tap: Tap, graph: Any) -> "Heard":
        """At a tap of a graph."""
        tensor = graph.get_tensor_by_name(tap.name)
        if not tap.unflattened:
            return cls(tensor, tap.channel)
        axes = graph.get_tensor_by_name(tap.unflattened).shape.as_list()[1:]
        if None in axes or tensor.shape[1] != math.prod(axes):
            return cls(tensor, 1)
        return cls(tensor, tap.channel, tuple(axes))

    @classmethod
    def of_scores(cls, tensor: Any) -> "Heard":
        """Of a tensor that holds scores and nothing else."""
        width = None if tensor.shape.rank in (None, 2) else row_width(tensor.shape.as_list()[1:])
        return cls(tensor, 1) if width is None else cls(tensor, 1, (width,))

    @property
    def width(self) -> int | None:
        """Number of its neurons, if that is known."""
        if self.unflattened:
            return self.unflattened[self.channel - 1]
        return None if self.tensor.shape.rank is None else self.tensor.shape[self.channel]


@dataclass(frozen=True, eq=False)
class Trace:
    """A model traced into the graph of its input.

    Attributes:
        output: Tensor of the scores ``(n, classes)``.
        scores: What they are.
        taps: Layer name to what is heard there, in forward order, the logits last.
        layout: Where its layers expect the channels, where that is known.
        outputs: What it gives, and which of it are the scores.
        unseen: Why not all layers can be seen; empty where they can.
    """

    output: Any
    scores: Scores
    taps: Mapping[str, Heard]
    layout: Layout | None
    outputs: Outputs
    unseen: str = ""

    def neurons(self, layer: str) -> Any:
        """Tensor of the neuron outputs ``(n, neurons)`` at a layer."""
        tap = self.taps[layer]
        tensor, channel = tap.tensor, tap.channel
        if tap.unflattened:
            tensor = tf.reshape(tensor, [-1, *tap.unflattened])
        axes = [axis for axis in range(1, tensor.shape.rank) if axis != channel]
        wide = tf.cast(tensor, tf.float32) if tensor.dtype.size < tf.float32.size else tensor
        return tf.reduce_mean(wide, axes) if axes else wide


def trace(model: Any, x: Any, state: State = (), choice: Choice = None) -> Trace:
    """Trace a model of one input, as it is in use, and find its taps.

    Args:
        model: A built ``keras.Model``. Nothing is changed in it.
        x: Its input, a tensor of the graph that it is traced into.
        state: Pairs of a variable and the tensor that stands for it.
        choice: The output that holds the scores, where the user says it.

    Raises:
        ModelError: When it gives no scores ``(n, classes)``.
    """
    return _trace(model, x, state, choice)[0]


def trace_training(model: Any, x: Any, state: State, choice: Choice = None) -> tuple[Trace, list[Any]]:
    """Trace a model as it is in training.

    Its taps are those that it has in use: what training adds, such as dropout, makes none.

    Returns:
        The trace, and the value of each variable of ``state`` afterwards.

    Raises:
        ModelError: When it gives no scores ``(n, classes)``, or a tap is not there in training.
    """
    used, before = _trace(model, x, state, choice)
    outputs, after, values = _call_model(model, x, state, training=True)
    output = outputs[used.outputs.place][1]
    taps = {name: replace(tap, tensor=_counterpart(name, tap.tensor, before, after)) for name, tap in used.taps.items()}
    return Trace(output, used.scores, taps, used.layout, used.outputs), values


def _trace(model: Any, x: Any, state: State, choice: Choice) -> tuple[Trace, list[Call]]:
    named, calls, _ = _call_model(model, x, state, training=False)
    layers = {op.name: (op, call.path) for call in calls for op in _layer_ops(call)}  # outer ones last, so they stay
    ops = operations(x, {name: op for name, (op, _) in layers.items()})
    outputs = Outputs.of(_describe(named, ops), choice)
    output = named[outputs.place][1]
    taps = find_taps(ops, output.name)
    first = any(getattr(call.operation, "data_format", None) == "channels_first" for call in calls)
    tensors = _name_taps(taps.taps, x.graph, calls, {name: path for name, (_, path) in layers.items()})
    layout: Layout = "channels_first" if first else "channels_last"
    return Trace(output, taps.scores, tensors, layout, outputs, hidden_layers(x.graph)), calls


def _describe(named: Sequence[tuple[str, Any]], ops: Sequence[Op]) -> list[Output]:
    tables = [tensor.name for _, tensor in named if _row(tensor)]
    softmax = {name for name in tables if len(tables) > 1 and find_taps(ops, name).scores in _SOFTMAX}
    return [_output(name, tensor, tensor.name in softmax) for name, tensor in named]


def _output(name: str, tensor: Any, softmax: bool) -> Output:
    if _row(tensor):
        return Output.of_scores(name, tensor.shape.as_list()[1:], softmax=softmax)
    return Output(name, _shape(tensor), None)


def _row(tensor: Any) -> int | None:
    """How many real numbers an output gives for each input, where it gives a row of them."""
    return row_width(tensor.shape.as_list()[1:]) if tensor.shape.rank and tensor.dtype.is_floating else None


def _shape(tensor: Any) -> str:
    shape = "of any shape" if tensor.shape.rank is None else str(tuple(tensor.shape))
    return shape if tensor.dtype.is_floating else f"{shape} of {tensor.dtype.name}"


def _call_model(
    model: Any, x: Any, state: State, *, training: bool
) -> tuple[list[tuple[str, Any]], list[Call], list[Any]]:
    """What a model gives, each with its name, the calls inside it, and what becomes of the variables."""
    structure = getattr(model, "input", None)  # a list or dict, where it was made with a list or dict of one input
    inputs = x if structure is None else keras.tree.pack_sequence_as(structure, [x])
    calls: list[Call] = []
    # Updates of variables and losses of regularisers go to the scope, not to the model.
    with keras.StatelessScope(state) as scope, _listening(calls, x.graph):
        outputs = keras.tree.flatten_with_path(model(inputs, training=training))
    names = [name_of_path(path) for path, _ in outputs]
    layers = getattr(model, "output_names", None) or []  # of the layers that give them
    if not any(names) and len(set(layers)) == len(names):
        names = list(layers)
    named = [(name, tensor) for name, (_, tensor) in zip(names, outputs, strict=True) if tf.is_tensor(tensor)]
    return named, calls, [scope.get_current_value(variable) for variable, _ in state]


def _counterpart(tap: str, tensor: Any, before: Sequence[Call], after: Sequence[Call]) -> Any:
    """The tensor among later calls of the same layers that is what ``tensor`` is among the earlier ones."""
    earlier, later = (_by_turn(calls) for calls in (before, after))
    operations = tensor.graph.get_operations()
    # The innermost call that made it is the first one; the order inside a layer's call is that of the layer's code.
    turn = next(turn for turn, call in earlier.items() if operations.index(tensor.op) in call.span)
    if turn in later:
        names = [output.name for output in earlier[turn].outputs]
        if tensor.name in names and len(later[turn].outputs) == len(names):
            return later[turn].outputs[names.index(tensor.name)]
        own, others = (_own(operations, calls[turn], calls.values()) for calls in (earlier, later))
        place = own.index(tensor.op)
        if [op.type for op in own[: place + 1]] == [op.type for op in others[: place + 1]]:
            return others[place].outputs[tensor.value_index]
    raise ModelError(f"expected layer {tap!r} to compute the same in training as in use, found other operations")


def _by_turn(calls: Sequence[Call]) -> dict[tuple[int, int], Call]:
    """Calls by the layer or operation and the number of its calls so far."""
    turns: Counter[int] = Counter()
    by_turn = {}
    for call in calls:
        key = id(call.operation)
        by_turn[key, turns[key]] = call
        turns[key] += 1
    return by_turn


def _own(operations: Sequence[Any], call: Call, calls: Iterable[Call]) -> list[Any]:
    """Operations that a call added itself, not by calls inside it, which come before it."""
    earlier = itertools.takewhile(lambda other: other is not call, calls)
    inside = {place for other in earlier for place in other.span}
    return [operations[place] for place in call.span if place not in inside]


@contextlib.contextmanager
def _listening(calls: list[Call], graph: Any) -> Iterator[None]:
    """Note every call of a Keras layer or operation that adds to the graph, the inner ones first.

    All of them go through this one method, also those inside layers and models that somebody else wrote.
    """
    original = keras.Operation.__call__
    stack: list[str] = []

    def listen(self: Any, *args: Any, **kwargs: Any) -> Any:
        if tf.compat.v1.get_default_graph() is not graph:  # another thread's, or inside a loop's body
            return original(self, *args, **kwargs)
        stack.append(self.name)
        start = len(graph.get_operations())
        try:
            outputs = original(self, *args, **kwargs)
        finally:
            path = "/".join(stack[1:])
            stack.pop()
        span = range(start, len(graph.get_operations()))
        calls.append(Call(self, path, _tensors((args, kwargs), graph), _tensors(outputs, graph), span))
        return outputs

    with _LISTENING:
        keras.Operation.__call__ = listen
        try:
            yield
        finally:
            keras.Operation.__call__ = original


def _tensors(nest: Any, graph: Any) -> tuple[Any, ...]:
    return tuple(t for t in keras.tree.flatten(nest) if tf.is_tensor(t) and getattr(t, "graph", None) is graph)


def operations(x: Any, layers: Mapping[str, Op] | None = None) -> list[Op]:
    """What is computed from ``x`` in the core's terms, ``layers`` standing for the operations inside them."""
    layers = layers or {}
    reached = {x.name}
    ops = [Op(x.name, Role.INPUT, (), x.shape.rank)]
    for operation in x.graph.get_operations():
        inputs = tuple(t.name for t in operation.inputs if t.name in reached)
        if not inputs or operation.type in _SIZES:
            continue  # computed from constants and sizes only
        for output in operation.outputs:
            reached.add(output.name)
            ops.append(layers.get(output.name) or _tensor_op(operation, output, inputs))
    return [*(op for name, op in layers.items() if name not in reached), *ops]  # those of no tensor: see `_layer_ops`


def hidden_layers(graph: Any) -> str:
    """Why layers of a graph cannot be seen: they are in one of two functions of a choice; empty if none is."""
    choices = [operation for operation in graph.get_operations() if operation.type in CHOICES]
    functions = {f.signature.name: f for f in graph.as_graph_def().library.function} if choices else {}

    def kinds(name: str) -> Iterator[str]:
        for node in functions[name].node_def:
            yield node.op
            for value in node.attr.values():
                if value.func.name in functions:
                    yield from kinds(value.func.name)

    for choice in choices:
        inside = {kind for branch in ("then_branch", "else_branch") for kind in kinds(choice.get_attr(branch).name)}
        if inside & _LAYERS:
            return f"expected the same layers for every input, found an If that depends on the input: {choice.name!r}"
    return ""


def data_format(operation: Any) -> str:
    """What an operation on images, or the like, says of its axes (``NHWC``, ``NCW``, ...); empty for others."""
    attributes = operation.node_def.attr
    images = "data_format" in attributes and (operation.outputs[0].shape.rank or 0) > 2
    return attributes["data_format"].s.decode() if images else ""


def _tensor_op(operation: Any, output: Any, inputs: tuple[str, ...]) -> Op:
    kind = operation.type
    role = _ACTIVATIONS.get(kind) or _OTHERS.get(kind, Role.OTHER)
    rank = output.shape.rank or 0
    permutation: tuple[int, ...] = ()
    if _is_recurrent(operation, output):
        return Op(output.name, Role.RECURRENT, inputs, rank)
    if role is Role.MAX_POOL or data_format(operation).startswith("NC"):
        channel = 1 if data_format(operation).startswith("NC") else -1
        return Op(output.name, role if role is Role.MAX_POOL else Role.CONVOLUTION, inputs, rank, channel)
    if kind == "ClipByValue" or (kind in ("Maximum", "Minimum") and len(inputs) == 1):
        role = Role.ACTIVATION
    elif len(inputs) == 1 and (kind == "Mul" or (kind in ("Div", "RealDiv") and operation.inputs[0].name == inputs[0])):
        role = Role.AFFINE
    elif kind == "Cast" and not all(tensor.dtype.is_floating for tensor in (operation.inputs[0], output)):
        role = Role.CONVERSION
    elif kind == "PadV2" and _is_zero(operation.inputs[2]):
        role = Role.PAD
    elif kind == "Max":
        permutation = _reduced_axes(operation, output)
        role = Role.MAX_POOL if permutation else role
    elif role is Role.TRANSPOSE:
        order = tf.get_static_value(operation.inputs[1])
        permutation = () if order is None else tuple(order.tolist())
    elif kind in _TAKES:
        data = next(tensor for tensor in operation.inputs if tensor.name in inputs)
        permutation = _unselected_axes(operation, data, output)
        role = Role.SELECT if permutation else role
    elif kind == "Reshape" and rank > 2 and operation.inputs[0].shape.rank:
        permutation = axes_of_reshape(operation.inputs[0].shape.as_list(), output.shape.as_list())
    elif kind in ("ExpandDims", "Squeeze") and rank > 2:
        permutation = _kept_axes(operation, output)
        role = Role.TRANSPOSE if permutation else role
    before = [tensor.shape for tensor in operation.inputs if tensor.name in inputs and tensor.shape.rank]
    if len(before) == 1 and rank and loses_axes_of_one(before[0].as_list(), output.shape.as_list()):
        role, permutation = Role.RESHAPE, ()
    function = function_of(output, inputs) if kind in ELEMENTWISE | PASSING else None
    return Op(output.name, role, inputs, rank, permutation=permutation, function=function)


def _is_zero(tensor: Any) -> bool:
    value = constant_of(tensor)
    return value is not None and not value.any()


def _reduced_axes(operation: Any, output: Any) -> tuple[int, ...]:
    """Axes of the input that are left of a reduction, as a permutation; none if unknown."""
    rank, axes = operation.inputs[0].shape.rank, tf.get_static_value(operation.inputs[1])
    if rank is None or axes is None:
        return ()
    gone = {int(axis) % rank for axis in np.reshape(axes, -1)}
    if operation.get_attr("keep_dims"):
        return tuple(-1 if axis in gone else axis for axis in range(rank))
    return tuple(axis for axis in range(rank) if axis not in gone)


def _is_recurrent(operation: Any, output: Any) -> bool:
    """Whether a tensor is what a loop over time steps gives: a state, or its list of outputs put in order."""
    if not output.dtype.is_floating or (output.shape.rank or 0) < 2:
        return False
    if operation.type in _LOOPS:
        return True
    source = operation.inputs[0].op
    if operation.type == "TensorListGetItem":
        return source.type in _LOOPS
    # The list itself has the steps first and the cases second.
    stacked = source.type == "TensorListStack" and source.inputs[0].op.type in _LOOPS
    return stacked and operation.type in ("StridedSlice", "Transpose")


def _kept_axes(operation: Any, output: Any) -> tuple[int, ...]:
    """Axes of the input that an operation keeps while it adds or removes others, as a permutation; none if unknown."""
    rank = operation.inputs[0].shape.rank
    if rank is None:
        return ()
    if operation.type == "Squeeze":
        removed = {axis % rank for axis in operation.get_attr("squeeze_dims")}
        return tuple(axis for axis in range(rank) if axis not in removed) if removed else ()
    added = tf.get_static_value(operation.inputs[1])
    if added is None:
        return ()
    axes = list(range(rank))
    axes.insert(int(added) % output.shape.rank, -1)
    return tuple(axes)


def _unselected_axes(operation: Any, data: Any, output: Any) -> tuple[int, ...]:
    """Axes of the input that are left where one place of another is taken, as a permutation; none if it is not so."""
    rank = data.shape.rank
    if rank is None or (output.shape.rank or 0) < 2:
        return ()
    if output.shape.rank == rank:  # the axis stays, with one place
        return axes_beside_one_place(data.shape.as_list(), output.shape.as_list())
    gone = _dropped_axis(operation, rank) if output.shape.rank == rank - 1 else None
    return () if gone is None else tuple(axis for axis in range(rank) if axis != gone)


def _dropped_axis(operation: Any, rank: int) -> int | None:
    """The axis of the input that an operation takes one place of, the others as they are; None if it is not so."""
    if operation.type == "Unpack":
        return int(operation.get_attr("axis")) % rank
    if operation.type == "GatherV2":
        axis = tf.get_static_value(operation.inputs[2])
        return None if axis is None or operation.get_attr("batch_dims") else int(axis) % rank
    if operation.type != "StridedSlice" or operation.get_attr("ellipsis_mask") or operation.get_attr("new_axis_mask"):
        return None
    mask = operation.get_attr("shrink_axis_mask")
    whole = operation.get_attr("begin_mask") & operation.get_attr("end_mask")
    sliced = range(int(operation.inputs[1].shape[0] or 0))
    gone = [axis for axis in sliced if mask >> axis & 1]
    others_whole = all(whole >> axis & 1 for axis in sliced if axis not in gone)
    return gone[0] if len(gone) == 1 and others_whole else None


def _layer_ops(call: Call) -> Iterator[Op]:
    """What a call of a layer or operation stands for; nothing where its inside says it all."""
    layer, depth = call.operation, 0
    if isinstance(layer, keras.layers.TimeDistributed):
        layer, depth = layer.layer, 1  # its inside is one copy of the layer a time step
    inputs = tuple(t.name for t in call.inputs)
    if not call.outputs or call.outputs[0].name in inputs:
        return
    output = call.outputs[0]
    rank = output.shape.rank or 0
    role = _ACTIVATIONS.get(output.op.type, Role.ACTIVATION)
    channel = 1 + depth if getattr(layer, "data_format", None) == "channels_first" else -1
    if isinstance(layer, keras.layers.RNN | keras.layers.Bidirectional):
        for state in call.outputs:
            yield Op(state.name, Role.RECURRENT, inputs, state.shape.rank or 0, channel)
    elif _is_activation(layer):
        yield Op(output.name, role, inputs, rank, function=function_of(output, inputs))
    elif _is_keras_own(layer) and _function(layer) is not keras.activations.linear:
        # The layer before its activation: a tensor where the activation is one operation, else only a name.
        whole = output.op.type in _ACTIVATIONS
        before = output.op.inputs[0].name if whole else f"{output.name}/before"
        yield Op(before, Role.CONVOLUTION, inputs, rank, channel)
        yield Op(output.name, role, (before,), rank, function=function_of(output, (before,)) if whole else None)
    elif rank > 2 and _is_keras_own(layer) and hasattr(layer, "data_format"):
        roles = {"MaxPool": Role.MAX_POOL, "ZeroPadding": Role.PAD}
        own = (role for name, role in roles.items() if name in type(layer).__name__)
        yield Op(output.name, next(own, Role.CONVOLUTION), inputs, rank, channel)
    elif depth:
        yield Op(output.name, Role.PROJECTION, inputs, rank)


def _is_activation(layer: Any) -> bool:
    if isinstance(layer, keras.layers.Activation):
        return _function(layer) is not keras.activations.linear
    named = _is_keras_own(layer) and type(layer).__name__.lower() in _FUNCTIONS
    return named or isinstance(layer, keras.layers.PReLU)


def _function(layer: Any) -> Any:
    return getattr(layer, "activation", keras.activations.linear)


def _is_keras_own(layer: Any) -> bool:
    # What `activation` and `data_format` mean in somebody else's layer is theirs to say.
    return type(layer).__module__.startswith("keras.src.")


def _name_taps(taps: Sequence[Tap], graph: Any, calls: Sequence[Call], paths: Mapping[str, str]) -> dict[str, Heard]:
    """Name taps by their ``paths``, else after the innermost layers; a layer that is called again gets a number."""
    places = {operation.name: place for place, operation in enumerate(graph.get_operations())}
    named: dict[str, Heard] = {}
    for tap in taps:
        heard = Heard.at(tap, graph)
        if tap is taps[-1] and heard.tensor.shape.rank != 2:
            heard = Heard.of_scores(heard.tensor)
        tensor = heard.tensor
        if tensor.dtype.is_complex:  # of whose numbers no metric knows what to make
            continue
        innermost = (call.path for call in calls if places[tensor.op.name] in call.span)
        name = path = paths.get(tap.name) or next(innermost, "") or tensor.op.type.lower()
        again = 1
        while name in named:
            again += 1
            name = f"{path}:{again}"
        named[name] = heard
    return named
