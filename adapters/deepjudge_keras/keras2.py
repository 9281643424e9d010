"""Rewrites what Keras 2 and TensorFlow.js say of a model as Keras 3 says it.

Keras 3 itself reads some of it, and takes some of it for something else. Nothing is judged here: what comes out is
looked through as every configuration is.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from deepjudge_core.errors import ModelError
from deepjudge_keras.tensorflow_calls import GRAPH_OPERATION, LAMBDAS, graph_operation, operation
from deepjudge_keras.vocabulary import LAYERS

HARD_SIGMOID = "deepjudge>hard_sigmoid"
"""Keras 2's, which has another slope than that of Keras 3; the name by which the adapter registers it."""

Config = dict[str, Any]

_CONSTANT = "_CONSTANT_VALUE"
"""Stands in place of a layer's name before a constant that is the first argument of a call."""

_OFF: Mapping[str, tuple[Any, ...]] = {
    "time_major": (False,),
    "groups": (1,),
    "renorm": (False,),
    "virtual_batch_size": (None,),
    "adjustment": (None,),
    "zero_output_for_mask": (False,),
    "softmax_robust_masking": (False,),
    "dynamic": (False,),
    "stateful": (False,),
    "rng_type": ("legacy_stateful", "stateful", "stateless"),
}
"""Switches of Keras 2 that Keras 3 no longer has everywhere, and the values with which they make no difference."""

_UNUSED = frozenset(
    (
        "batch_input_shape",
        "build_input_shape",
        "experimental_run_tf_function",
        "fused",
        "implementation",
        "input_length",
        "key_shape",
        "query_shape",
        "renorm_clipping",
        "renorm_momentum",
        "value_shape",
        "weights",
    )
)
"""What Keras 2 says of layers that what they compute does not depend on."""

_GROUPED = frozenset(("Conv1D", "Conv2D", "Conv3D"))
_RECURRENT = frozenset(
    ["Bidirectional", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D", "GRU", "LSTM", "RNN", "SimpleRNN", "StackedRNNCells"]
)
_MODELS = ("Functional", "Model", "Sequential")
_ONLY_IN_TRAINING = ("RandomHeight", "RandomWidth")
_INNER = ("backward_layer", "cell", "layer")


def is_keras_2(version: object) -> bool:
    """Whether a file that says this of its version is of Keras 2, or of what writes as it does."""
    text = version.decode(errors="replace") if isinstance(version, bytes) else version
    return not (isinstance(text, str) and text.partition(".")[0].isdigit() and int(text.partition(".")[0]) >= 3)


def plain_name(name: str) -> str:
    """The name of a layer as Keras 3 takes it."""
    return name.replace("/", "_")


def translate(config: Config) -> Config:
    """The configuration of a model, which is not nested deeply, as Keras 3 writes it.

    Raises:
        ModelError: When it has what Keras 3 has no counterpart for.
    """
    if config.get("class_name") not in _MODELS or isinstance(config.get("config"), list):
        config = {"class_name": "Sequential", **config, "config": _whole(config["config"])}
    return _layer(config)


def _whole(config: Any) -> Config:
    # Of a list of layers only, as the first versions wrote it.
    return {"name": "sequential", "layers": config} if isinstance(config, list) else config


def _layer(entry: Config) -> Config:
    kind, config = entry["class_name"], _whole(entry["config"])
    if entry.get("registered_name") not in (None, kind):
        return entry
    if kind == "Sequential":
        return _entry("keras.models", kind, _sequential(config))
    if kind in _MODELS:
        return _entry("keras.src.models.functional", "Functional", _functional(config))
    kind, config = _counterpart(kind, config)
    return _entry("keras.layers", kind, _mend(kind, config)) if kind in LAYERS else entry


def _counterpart(kind: str, config: Config) -> tuple[str, Config]:
    """A layer that Keras 3 has under another name."""
    if kind == "SyncBatchNormalization":
        return "BatchNormalization", {**config, "synchronized": True}
    if kind == "ThresholdedReLU":
        others = {key: value for key, value in config.items() if key != "theta"}
        return "ReLU", {**others, "threshold": config["theta"]}
    if kind in _ONLY_IN_TRAINING:
        return "Identity", {key: config[key] for key in ("name", "dtype") if key in config}
    return kind, config


def _entry(module: str, kind: str, config: Config) -> Config:
    return {"module": module, "class_name": kind, "config": config, "registered_name": None}


def _mend(kind: str, config: Config) -> Config:
    """What a layer is made of."""
    shape = config.get("batch_input_shape")
    mended = {key: _value(key, value) for key, value in config.items() if not _is_idle(kind, key, value)}
    if kind == "InputLayer":
        mended = {key: value for key, value in mended.items() if key not in ("sparse", "ragged", "optional") or value}
        mended |= {"batch_shape": shape} if shape is not None else {}
    if kind.startswith("SpatialDropout"):
        mended = {key: value for key, value in mended.items() if key not in ("noise_shape", "trainable")}
    if kind.startswith("Separable"):  # those of its two kernels have names of their own
        mended = {key: value for key, value in mended.items() if not key.startswith("kernel_") or key == "kernel_size"}
    if kind == "LeakyReLU" and "alpha" in mended:
        mended["negative_slope"] = mended.pop("alpha")
    if kind == "BatchNormalization" and isinstance(mended.get("axis"), list) and len(mended["axis"]) == 1:
        (mended["axis"],) = mended["axis"]
    return mended


def _is_idle(kind: str, key: str, value: Any) -> bool:
    if key == "groups" and kind in _GROUPED:
        return False
    return key in _UNUSED or (key in _OFF and value in _OFF[key])


def _value(key: str, value: Any) -> Any:
    if key == "name" and isinstance(value, str):
        return plain_name(value)
    if key in _INNER and isinstance(value, dict):
        return _layer(value)
    if key == "cells" and isinstance(value, list):
        return [_layer(cell) for cell in value]
    if key == "dtype" and isinstance(value, dict):
        return value["config"]["name"]
    if key.endswith("activation"):
        return _activation(value)
    if key.endswith("initializer") and isinstance(value, dict):
        return _initializer(value)
    if isinstance(value, dict) and value.get("class_name") == "__numpy__":
        return value["config"]["value"]
    return value


def _activation(value: Any) -> Any:
    if isinstance(value, dict) and value.get("class_name") in LAYERS:
        return _layer(value)
    name = value.get("config") if isinstance(value, dict) and value.get("class_name") == "function" else value
    if name == "hard_sigmoid":
        return {"module": None, "class_name": "function", "config": HARD_SIGMOID, "registered_name": HARD_SIGMOID}
    return value


def _initializer(value: Config) -> Config:
    if value.get("registered_name") not in (None, value.get("class_name")):
        return value
    # TensorFlow's own are Keras's under another name; those of old said which type of numbers they were of.
    config = {key: item for key, item in (value.get("config") or {}).items() if key != "dtype"}
    return {"class_name": value["class_name"], "config": config}


def _sequential(config: Config) -> Config:
    layers = [_layer(entry) for entry in config["layers"]]
    first: Config = config["layers"][0]
    shape = first["config"].get("batch_input_shape") if first["class_name"] not in _MODELS else None
    if first["class_name"] != "InputLayer" and shape is not None:  # as TensorFlow 2.1 and TensorFlow.js write it
        dtype = "int32" if first["config"].get("dtype") == "int32" else "float32"
        layers = [_entry("keras.layers", "InputLayer", {"batch_shape": shape, "dtype": dtype}), *layers]
    mended: Config = {"name": plain_name(config.get("name", "sequential")), "layers": layers}
    if isinstance(config.get("build_input_shape"), list):
        mended["build_input_shape"] = config["build_input_shape"]
    return mended


def _functional(config: Config) -> Config:
    calls = _Calls(config)
    return {
        "name": plain_name(config.get("name", "model")),
        # Each layer says whether it is trained. That of all of them is not: it would change theirs.
        "trainable": None,
        "layers": [calls.layer(entry) for entry in config["layers"]],
        "input_layers": calls.places(config["input_layers"]),
        "output_layers": calls.places(config["output_layers"]),
    }


class _Calls:
    """How the layers of a functional model are called, each by tensors of others."""

    def __init__(self, config: Config) -> None:
        self._kinds = {entry["name"]: entry["class_name"] for entry in config["layers"]}
        self._first = self._first_calls(config)

    def layer(self, entry: Config) -> Config:
        nodes = entry.get("inbound_nodes", [])
        if entry["class_name"] in (*LAMBDAS, GRAPH_OPERATION):
            return self._lambda(entry, nodes)
        made = _layer(entry)
        called = [self._call(entry["name"], entry["class_name"], node) for node in nodes]
        return {**made, "name": entry["name"], "inbound_nodes": called}

    def places(self, tensors: Any) -> Any:
        """Where inputs or outputs of the model are, by the numbers that Keras 3 has for calls."""
        if self._is_tensor(tensors):
            name, call, place = tensors[:3]
            # Keras 3 counts the calls of a functional model from 1 here, and from 0 where tensors are given on.
            first = 1 if self._kinds[name] in ("Functional", "Model") else 0
            return [name, call - self._first[name] + first, place]
        if isinstance(tensors, dict):
            return {key: self.places(value) for key, value in tensors.items()}
        places = [self.places(item) for item in tensors]
        return places[0] if len(places) == 1 else places

    def _first_calls(self, config: Config) -> Mapping[str, int]:
        """The number of each layer's first call: 1 where a model, as it was made, counted as one itself."""
        used: dict[str, set[int]] = {name: set() for name in self._kinds}
        nodes = [entry.get("inbound_nodes", []) for entry in config["layers"]]
        for name, call in _references([nodes, config["input_layers"], config["output_layers"]], self._kinds):
            used[name].add(call)
        calls = {entry["name"]: len(entry.get("inbound_nodes", [])) for entry in config["layers"]}
        return {
            name: 1 if kind in _MODELS and (max(used[name], default=0) >= max(calls[name], 1)) else 0
            for name, kind in self._kinds.items()
        }

    def _call(self, name: str, kind: str, node: Any) -> Config:
        first, others = self._arguments(node)
        others = {key: self._argument(value) for key, value in others.items() if value is not None}
        if others.get("training"):
            raise ModelError(f"its layer {name!r:.80} always works in training mode; export it to ONNX")
        if kind in _RECURRENT and isinstance(first, list) and len(first) > 1:
            others["initial_state"], first = first[1:], first[0]
        return {"args": [first], "kwargs": others}

    def _lambda(self, entry: Config, nodes: Any) -> Config:
        if len(nodes) != 1:
            raise ModelError(
                f"expected one call of the TensorFlow function {entry['name']!r:.80}, found {len(nodes)}; "
                "export it to ONNX"
            )
        first, others = self._arguments(nodes[0])
        if entry["class_name"] == GRAPH_OPERATION:
            made = graph_operation(entry["config"], first if isinstance(first, list) else [first])
        else:
            given = {"": first, **others}
            named = {key: self._argument(value) for key, value in given.items() if value is not None}
            made = operation(entry["config"]["function"], named)
        config = {**made.config, "name": plain_name(entry["name"])}
        called = {"args": list(made.args), "kwargs": {}}
        return {**_entry(made.module, made.kind, config), "name": entry["name"], "inbound_nodes": [called]}

    def _arguments(self, node: Any) -> tuple[Any, Config]:
        """The first argument of a call, and the others by their names, which stand beside each tensor of the first."""
        others: Config = {}

        def walk(part: Any, depth: int) -> Any:
            if isinstance(part, list) and len(part) in (3, 4) and part[0] == _CONSTANT:
                others.update(part[3] if len(part) == 4 else {})
                return part[2]
            if self._is_tensor(part):
                others.update(part[3] if len(part) == 4 else {})
                return self._tensor(part)
            if isinstance(part, dict):
                return {key: walk(value, depth + 1) for key, value in part.items()}
            if not isinstance(part, list):
                raise ModelError(
                    f"its configuration calls a layer with {part!r:.80}, which is not one of its tensors; "
                    "save the model again"
                )
            items = [walk(item, depth + 1) for item in part]
            return items[0] if len(items) == 1 and depth == 0 else items

        return walk(node, 0), others

    def _argument(self, value: Any) -> Any:
        if self._is_tensor(value):
            return self._tensor(value)
        if isinstance(value, list) and any(self._is_tensor(item) for item in value):
            return [self._argument(item) for item in value]
        return value

    def _is_tensor(self, value: Any) -> bool:
        if not isinstance(value, list) or len(value) not in (3, 4) or not isinstance(value[0], str):
            return False
        return value[0] in self._kinds and all(isinstance(place, int) for place in value[1:3])

    def _tensor(self, value: Sequence[Any]) -> Config:
        name, call, place = value[:3]
        history = [name, call - self._first[name], place]
        return {"class_name": "__keras_tensor__", "config": {"shape": [], "dtype": "float32", "keras_history": history}}


def _references(node: Any, names: Any) -> Iterator[tuple[str, int]]:
    """Each layer that is referred to, and the number of its call."""
    if isinstance(node, dict):
        node = list(node.values())
    if not isinstance(node, list):
        return
    if len(node) in (3, 4) and isinstance(node[0], str) and node[0] in names and isinstance(node[1], int):
        yield node[0], node[1]
    for item in node:
        yield from _references(item, names)
