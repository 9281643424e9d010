"""What the weights of a Keras model are for, told by its configuration. Knows neither Keras nor TensorFlow."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deepjudge_core.errors import ModelError
from deepjudge_core.weights.graphs import Graph, Table, Traced
from deepjudge_core.weights.values import Roles, Scale
from deepjudge_keras.keras2 import translate

Held = Sequence[tuple[str, tuple[int, ...]]]
"""Name and shape of each weight of a layer, in Keras's order."""

Lookup = Callable[[tuple[str, ...]], Held]
"""Gives the weights of a layer by the names of the models that it is in and its own; empty where it has none."""

_GATES = {"LSTM": (0, 1, 2, 3), "GRU": (0, 1, 2), "SimpleRNN": (0,)}
_SUMS = ("Add", "Average", "Maximum", "Minimum", "Multiply", "Subtract")
_KEEPING = {
    *("ActivityRegularization", "AlphaDropout", "Dropout", "ELU", "GaussianDropout", "GaussianNoise", "Identity"),
    *("LayerNormalization", "LeakyReLU", "Masking", "PReLU", "ReLU", "Rescaling", "RMSNormalization", "Softmax"),
    *("SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "UnitNormalization"),
}
# Of what augments inputs, nothing is left in use.
_INPUTS = ("Normalization", "RandomBrightness", "RandomContrast", "RandomFlip", "RandomRotation", "RandomTranslation")
_PLACES = ("AveragePooling", "CenterCrop", "Cropping", "MaxPooling", "Resizing", "UpSampling", "ZeroPadding")
_ODD = ("tanh", "softsign", "hard_tanh")
_MODELS = ("Functional", "Model", "Sequential")
_LAYERS = "layers"
_MOST = 2**12  # layers of one model
# Groups in which a layer keeps its weights, in Keras's order.
_PARTS = ("", "cell/", "layer/", "forward_layer/cell/", "backward_layer/cell/")


@dataclass(frozen=True)
class _Layer:
    kind: str
    config: Mapping[str, Any]
    held: Held
    path: tuple[str, ...]

    @property
    def channels_last(self) -> bool:
        return self.config.get("data_format") != "channels_first"


def find_roles(config: Mapping[str, Any], lookup: Lookup) -> Roles:
    """What the weights of a model of one input are for.

    Args:
        config: As Keras 3 writes it.
        lookup: Gives the weights of a layer.

    Raises:
        KeyError, TypeError, ValueError, IndexError, AttributeError: When it is not the configuration of such a model.
    """
    graph = Graph()
    walk = _Walk(graph, lookup)
    return graph.finish(walk.model(config, (), None))


class _Walk:
    """Goes through a model, and those in it."""

    def __init__(self, graph: Graph, lookup: Lookup) -> None:
        self._graph, self._lookup = graph, lookup

    def model(self, entry: Mapping[str, Any], path: tuple[str, ...], x: Traced | None) -> Traced:
        """Follow a whole model; its input begins where ``x`` is None."""
        layers = entry["config"]["layers"]
        if len(layers) > _MOST:
            raise ValueError(f"more than {_MOST} layers")
        if entry["class_name"] == "Sequential":
            shape = entry["config"].get("build_input_shape")
            for layer in layers:
                if x is None:
                    shape = layer["config"].get("batch_shape") or layer["config"].get("batch_input_shape") or shape
                    if shape is None:
                        raise ValueError("a model of unknown input")
                    x = self._graph.start([None, *shape[1:]])
                if layer["class_name"] != "InputLayer":
                    x = self._call(layer, path, [x])
            if x is None:
                raise ValueError("a model without layers")
            return x
        return self._functional(entry["config"], path, x)

    def _functional(self, config: Mapping[str, Any], path: tuple[str, ...], x: Traced | None) -> Traced:
        (source,), (output,) = _places(config["input_layers"]), _places(config["output_layers"])
        entries = {entry["config"]["name"]: entry for entry in config["layers"]}
        traced: dict[tuple[str, int], Traced] = {}
        if x is None:
            x = self._graph.start([None, *entries[source[0]]["config"]["batch_shape"][1:]])
        traced[source[0], 0] = x
        waiting = [(name, at, node) for name, entry in entries.items() for at, node in enumerate(_nodes(entry))]
        while waiting:
            later = []
            for name, at, node in waiting:
                keys = list(_tensors(node))
                if not keys or not all(key in traced for key in keys):
                    later.append((name, at, node))
                    continue
                traced[name, at] = self._call(entries[name], path, [traced[key] for key in keys])
            if len(later) == len(waiting):
                break
            waiting = later
        return traced[output]

    def _call(self, entry: Mapping[str, Any], path: tuple[str, ...], sources: Sequence[Traced]) -> Traced:
        kind, config = entry["class_name"], entry["config"]
        inner = (*path, config["name"])
        if kind in _MODELS:
            if len(sources) != 1:
                return self._graph.unknown(sources, "a model of several inputs inside is not understood")
            return self.model(entry, inner, sources[0])
        layer = _Layer(kind, config, self._lookup(inner), inner)
        if kind in _SUMS:
            return self._graph.combine(sources)
        if kind == "Concatenate":
            return self._graph.join(sources, config.get("axis", -1))
        if len(sources) != 1:
            return self._graph.unknown(sources, f"{kind[:40]} of several tensors is not understood")
        return self._activate(self._apply(layer, sources[0]), config.get("activation"))

    def _activate(self, x: Traced, activation: object) -> Traced:
        name = activation.get("config") if isinstance(activation, dict) else activation
        if activation in (None, "linear") or name == "linear":
            return x
        if name == "glu":
            return self._graph.unknown([x], "glu is not understood")
        return self._graph.keep(x, odd=name in _ODD)

    def _apply(self, layer: _Layer, x: Traced) -> Traced:
        kind, graph = layer.kind, self._graph
        rank = x.rank
        channel = -1 if layer.channels_last else 1
        if kind in ("Activation", *_INPUTS, *_KEEPING):
            return graph.keep(x) if kind != "Activation" else x
        if rank is None and not layer.held:
            return x
        if kind == "Dense":
            return graph.layer(x, [_table(layer, 0, (1, 0))], -1, "dense")
        if kind == "TimeDistributed" and layer.config["layer"]["class_name"] == "Dense":
            inner = layer.config["layer"]["config"]
            return self._activate(graph.layer(x, [_table(layer, 0, (1, 0))], -1, "dense"), inner.get("activation"))
        if kind in ("Conv1D", "Conv2D", "Conv3D"):
            table = _convolution(layer, 0)
            sizes = [None] * (rank or 0)
            if layer.config.get("groups", 1) != 1:
                return graph.grouped(x, table, channel, sizes)
            return graph.layer(x, [table], channel, "convolutional", sizes)
        if kind in ("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"):
            table = _convolution(layer, 0)
            table = Table(table.tensor, table.shape, (table.axes[1], table.axes[0], *table.axes[2:]))
            return graph.layer(x, [table], channel, "convolutional", [None] * (rank or 0))
        if kind in ("DepthwiseConv1D", "DepthwiseConv2D", "SeparableConv1D", "SeparableConv2D"):
            depthwise = _convolution(layer, 0)
            turned = (depthwise.axes[1], depthwise.axes[0], *depthwise.axes[2:])
            y = graph.grouped(x, Table(depthwise.tensor, depthwise.shape, turned), channel, [None] * (rank or 0))
            if kind.startswith("Depthwise"):
                return y
            return graph.layer(y, [_convolution(layer, 1)], channel, "convolutional", [None] * (rank or 0))
        if kind == "BatchNormalization":
            return self._normalise(layer, x)
        if kind in _GATES:
            return self._recur(kind, layer.config, x, layer.held, layer)
        if kind == "Bidirectional":
            return self._both(layer, x)
        if kind == "Embedding":
            return graph.embed(x, _table(layer, 0, (1, 0)))
        if kind.startswith("Global") and rank is not None:
            axes = range(1, rank - 1) if layer.channels_last else range(2, rank)
            return graph.reduce(x, axes, keep=bool(layer.config.get("keepdims")))
        if kind.startswith(_PLACES) and rank is not None:
            return graph.keep(x, [None if 0 < axis != channel % rank else size for axis, size in enumerate(x.sizes)])
        if kind == "Flatten" and layer.channels_last:
            return graph.flatten(x)
        if kind == "Permute":
            return graph.transpose(x, (0, *layer.config["dims"]))
        if kind == "Reshape":
            shape = [None if size in (None, -1) else size for size in layer.config["target_shape"]]
            if None not in x.sizes[1:] and shape.count(None) <= 1:
                return graph.reshape(x, [None, *_whole(shape, x.sizes[1:])])
        return graph.unknown([x], f"{kind[:40]} is not understood")

    def _normalise(self, layer: _Layer, x: Traced) -> Traced:
        config, names = layer.config, [name for name, _ in layer.held]
        axis = config.get("axis", -1)
        (axis,) = axis if isinstance(axis, list) else [axis]
        gain = names.pop(0) if config.get("scale", True) else None
        if x.axes is None:
            return x
        return self._graph.scale(x, Scale(gain, names[-1], float(config.get("epsilon", 1e-3))), axis)

    def _recur(self, kind: str, config: Mapping[str, Any], x: Traced, held: Held, layer: _Layer) -> Traced:
        if config.get("time_major") or x.rank not in (3, None):
            return self._graph.unknown([x], f"{kind} of other axes is not understood")
        name, shape = held[0]
        width, rest = divmod(shape[1], len(_GATES[kind]))
        if rest:
            raise ValueError("gates of different widths")
        rows = [(gate * width, (gate + 1) * width) for gate in _GATES[kind]]
        y = self._graph.layer(x, [Table(name, shape, (1, 0), one) for one in rows], 2, "recurrent")
        if config.get("return_state"):
            return self._graph.unknown([y], "states of a recurrent layer are not followed")
        return y if config.get("return_sequences") else self._graph.take(y, 1, None)

    def _both(self, layer: _Layer, x: Traced) -> Traced:
        inner = layer.config["layer"]
        kind = inner["class_name"]
        if kind not in _GATES or layer.config.get("merge_mode") != "concat":
            return self._graph.unknown([x], "Bidirectional of this kind is not understood")
        half = len(layer.held) // 2
        parts = [self._recur(kind, inner["config"], x, held, layer) for held in (layer.held[:half], layer.held[half:])]
        return self._graph.join(parts, -1)


def _table(layer: _Layer, place: int, axes: tuple[int, ...]) -> Table:
    name, shape = layer.held[place]
    if len(shape) != len(axes):
        raise ValueError(f"weights of {len(shape)} axes")
    return Table(name, shape, axes)


def _convolution(layer: _Layer, place: int) -> Table:
    # (places, inputs, outputs)
    name, shape = layer.held[place]
    rank = len(shape)
    return Table(name, shape, (rank - 1, rank - 2, *range(rank - 2)))


def _whole(shape: Sequence[int | None], before: Sequence[int | None]) -> list[int]:
    count = 1
    for size in before:
        count *= size or 0
    for size in shape:
        count //= size or 1
    return [count if size is None else size for size in shape]


def _nodes(entry: Mapping[str, Any]) -> Sequence[Any]:
    nodes: Sequence[Any] = entry.get("inbound_nodes", [])
    return nodes


def _places(layers: Any) -> list[tuple[str, int]]:
    # Of the inputs and outputs of a model: one, as ``[name, call, place]``, or several.
    if isinstance(layers, dict):
        layers = list(layers.values())
    if layers and isinstance(layers[0], str):
        layers = [layers]
    return [(name, call) for name, call, _ in layers]


def _tensors(node: Any) -> list[tuple[str, int]]:
    # What a layer is called with.
    if isinstance(node, list | tuple):
        return [key for part in node for key in _tensors(part)]
    if isinstance(node, dict):
        if node.get("class_name") == "__keras_tensor__":
            name, call, _ = node["config"]["keras_history"]
            return [(name, call)]
        return [key for part in node.values() for key in _tensors(part)]
    return []


def roles_of_file(config: Mapping[str, Any], content: Any, tables: Mapping[str, tuple[int, ...]]) -> Roles | None:
    """What the tables of a file are for; None where its configuration does not say it.

    Args:
        config: As it stands in the file.
        content: The open HDF5.
        tables: Path in it to shape.
    """
    try:
        config = translate(dict(config)) if _is_old(config) else config
        own = content.get("model_weights")
        lookup = lookup_of_archive(config, tables) if own is None else lookup_of_hdf5(own, tables)
        return find_roles(config, lookup)
    except (ArithmeticError, AttributeError, IndexError, KeyError, ModelError, TypeError, ValueError):
        return None


def roles_of_live(model: Any) -> Roles | None:
    """What the weights of a live ``keras.Model`` are for, by their paths; None where its class does not say it."""

    def lookup(path: tuple[str, ...]) -> Held:
        layer = model
        for name in path:
            layer = layer.get_layer(name)
        return [(weight.path, tuple(weight.shape)) for weight in layer.weights]

    try:
        kind = next(cls.__name__ for cls in type(model).__mro__ if cls.__name__ in _MODELS)
        return find_roles({"class_name": kind, "config": model.get_config()}, lookup)
    except (AttributeError, IndexError, KeyError, NotImplementedError, TypeError, ValueError):
        return None


def _is_old(config: Mapping[str, Any]) -> bool:
    # Whether Keras 2 says how its layers are called.
    layers = config["config"] if isinstance(config["config"], list) else config["config"].get("layers", ())
    called = any(isinstance(node, list) for layer in layers for node in layer.get("inbound_nodes", ()))
    return called or isinstance(config["config"], list)


def lookup_of_archive(config: Mapping[str, Any], tables: Mapping[str, tuple[int, ...]]) -> Lookup:
    """How to find the weights of layers in the HDF5 of a ``.keras`` file.

    Args:
        config: As Keras 3 writes it.
        tables: Path in the file to shape.
    """
    groups: dict[tuple[str, ...], str] = {}

    def name_groups(entry: Mapping[str, Any], path: tuple[str, ...], group: str) -> None:
        counts: dict[str, int] = {}
        for layer in entry["config"]["layers"]:
            kind = _snake(layer["class_name"])
            count = counts.get(kind, 0)
            counts[kind] = count + 1
            inner = (*path, layer["config"]["name"])
            groups[inner] = f"{group}{_LAYERS}/{kind}_{count}" if count else f"{group}{_LAYERS}/{kind}"
            if layer["class_name"] in _MODELS:
                name_groups(layer, inner, f"{groups[inner]}/")

    name_groups(config, (), "")

    def lookup(path: tuple[str, ...]) -> Held:
        prefixes = [f"{groups[path]}/{part}vars/" for part in _PARTS]
        return [
            (name, tables[name])
            for prefix in prefixes
            for name in sorted((n for n in tables if n.startswith(prefix)), key=lambda n: (len(n), n))
        ]

    return lookup


def lookup_of_hdf5(weights: Any, tables: Mapping[str, tuple[int, ...]]) -> Lookup:
    """How to find the weights of layers in an ``.h5`` file.

    Args:
        weights: The group ``model_weights``, whose groups say the order of their weights.
        tables: Path in the file to shape.
    """

    def lookup(path: tuple[str, ...]) -> Held:
        if len(path) != 1 or path[0] not in weights:  # models inside list theirs in an order of their own
            return []
        group = weights[path[0]]
        keys = ["weight_names"] if "weight_names" in group.attrs else _chunks(group.attrs)
        names = [name for key in keys for name in group.attrs[key]]
        texts = [name.decode() if isinstance(name, bytes) else str(name) for name in names]
        paths = [f"{group.name}/{text}".removeprefix("/") for text in texts]
        return [(name, tables[name]) for name in paths]

    return lookup


def _chunks(attributes: Any) -> list[str]:
    # Keras divides long lists of names.
    keys = [key for key in attributes if re.fullmatch(r"weight_names\d+", key)]
    return sorted(keys, key=lambda key: int(key.removeprefix("weight_names")))


def _snake(name: str) -> str:
    # As Keras names the groups of a file.
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()
