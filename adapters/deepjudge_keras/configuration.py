"""Reads what a stranger's model is made of, and refuses what is more than Keras's own layers and numbers."""

from typing import Any

import keras

from deepjudge_core.errors import ModelError
from deepjudge_keras import jsontext
from deepjudge_keras.keras2 import HARD_SIGMOID, translate
from deepjudge_keras.vocabulary import ACTIVATIONS, CLASSES, NAMES, NUMBERS

_PLACES = ("__ellipsis__", "__keras_tensor__", "__slice__")
_TABLES = ("__numpy__", "__tensor__")

_NOT_MADE = ("build_config", "compile_config")
"""What Keras does after it made an object. A model is built by what it is made of, and is not trained here."""

_REBUILD = "rebuild the model from Keras's own layers and save it again, or export it to ONNX"


@keras.saving.register_keras_serializable(*HARD_SIGMOID.split(">"))  # type: ignore[untyped-decorator]
def hard_sigmoid(x: Any) -> Any:
    """As Keras 2 has it: 0.2 x + 0.5 between 0 and 1. That of Keras 3 rises by 1/6."""
    return keras.ops.clip(x * 0.2 + 0.5, 0.0, 1.0)


def read(text: str | bytes, *, keras_2: bool = False) -> dict[str, Any]:
    """The configuration in a text of JSON, without what is not asked for.

    Args:
        keras_2: Whether Keras 2 wrote it, or what writes as it does.

    Raises:
        ModelError: When it is none, or names something that is not of Keras.
    """
    return admit(jsontext.parse(text), keras_2=keras_2)


def admit(config: Any, *, keras_2: bool = False) -> dict[str, Any]:
    """The configuration that JSON holds, as Keras 3 writes it.

    Raises:
        ModelError: As :func:`read` does.
    """
    if not isinstance(config, dict) or not isinstance(config.get("config"), dict | list):
        raise ModelError("its configuration does not describe a model; save the model again")
    if keras_2:
        try:
            config = translate(config)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise ModelError("its configuration was not written by Keras 2") from error
    admitted: dict[str, Any] = _admit(config)
    return admitted


def _admit(node: Any) -> Any:
    """A copy of what may be made."""
    if isinstance(node, list):
        return [_admit(item) for item in node]
    if not isinstance(node, dict):
        return node
    if "class_name" in node:
        _expect_kind(node)
        node = {key: value for key, value in node.items() if key not in _NOT_MADE}
    for key, value in node.items():
        if key.endswith("activation") and isinstance(value, str):
            _expect_activation(value)
    return {key: _admit(value) for key, value in node.items()}


def _expect_kind(node: dict[str, Any]) -> None:
    kind, module, registered = node["class_name"], node.get("module"), node.get("registered_name")
    if not isinstance(kind, str) or not all(isinstance(name, str | None) for name in (module, registered)):
        raise ModelError(f"its configuration contains a name that is not a string: {_REBUILD}")
    if kind in _PLACES:
        return
    if kind in _TABLES:
        _expect_table(node.get("config"))
    elif kind == "Lambda":
        raise ModelError(
            "a Lambda layer holds its author's code; rebuild the layer without Lambda and save the "
            "model again, or export it to ONNX"
        )
    elif kind == "function" and not _is_registered(str(node.get("config"))):
        raise ModelError(f"it refers to a function, {node.get('config')!r:.80}: {_REBUILD}")
    elif (
        kind != "function"
        and not _is_registered(registered or kind)
        and not (registered in (None, kind) and _is_keras_own(module, kind))
    ):
        full_name = registered if registered not in (None, kind) else f"{module}.{kind}" if module else kind
        raise ModelError(
            f"it contains {full_name!r:.80}, which is not one of the Keras layers that only compute: {_REBUILD}"
        )


def _is_keras_own(module: str | None, name: str) -> bool:
    return name in NAMES if module is None else (module, name) in CLASSES


def _is_registered(name: str) -> bool:
    # Whoever runs this process made such a class known to Keras; a file cannot. In a worker there are none.
    return ">" in name and keras.saving.get_registered_object(name) is not None


def _expect_activation(name: str) -> None:
    if name not in ACTIVATIONS and not _is_registered(name):
        raise ModelError(f"it uses the activation {name!r:.80}, which is not a Keras activation: {_REBUILD}")


def _expect_table(config: Any) -> None:
    if not isinstance(config, dict) or config.get("dtype") not in NUMBERS or not _is_table(config.get("value")):
        raise ModelError(f"it holds a constant that is not a table of numbers: {_REBUILD}")


def _is_table(value: Any) -> bool:
    return all(map(_is_table, value)) if isinstance(value, list) else isinstance(value, int | float)
