"""Image and audio classifiers of Hugging Face's transformers, from the folder that it saves them in.

Of the folder are read the configuration, the weights, as data, and what is said of preprocessing, each by the code of
this adapter; transformers makes the network and puts the weights into it. It is given no folder, and so finds no code,
no pickles and no adapters in it, and asks nobody for any.
"""

import contextlib
import dataclasses
import inspect
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import CodeType
from typing import Any

import huggingface_hub
import torch
import transformers
from torch import nn
from torch.nn.modules import module as registration
from transformers.integrations import hub_kernels
from transformers.utils import logging

from deepjudge_core.errors import ModelError, UsageError
from deepjudge_core.files import digests
from deepjudge_core.models.outputs import Choice
from deepjudge_core.models.preprocessing import Preprocessing
from deepjudge_torch.base import TensorModel, line
from deepjudge_torch.checkpoint import few
from deepjudge_torch.folder import PREPROCESSING, Contents, read_settings
from deepjudge_torch.live import open_module
from deepjudge_torch.state_dict import holds, read_weights

_CLASSIFIERS = (
    transformers.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING,
    transformers.MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING,
)
# What they take beside tokens.
_INPUTS = ("pixel_values", "input_values", "input_features")
# Made by networks of another library, which loads them by itself.
_FOREIGN = {"timm_wrapper"}
# Numbers and parts of a network, for each that is in the file, and a few more: tables that are computed are in none.
_PARTS, _MORE = 2, 2**24
_MOST_MODULES = 20_000
_INTEGERS = (torch.int8, torch.uint8, *(dtype for name, dtype in vars(torch).items() if name.startswith("float8_")))


# What a network's attention may be: transformers' own, by torch.
_ATTENTION = (None, "eager", "sdpa")
# Nobody is asked for anything while a folder is opened.
_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "USE_HUB_KERNELS": "0"}


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    # The libraries read the environment once, when they are imported: it may have been before.
    with contextlib.ExitStack() as stack:
        for values, key, value in (
            *((os.environ, key, value) for key, value in _OFFLINE.items()),
            (vars(huggingface_hub.constants), "HF_HUB_OFFLINE", True),
            (vars(hub_kernels), "_kernels_enabled", False),
        ):
            stack.callback(values.__setitem__, key, values[key]) if key in values else stack.callback(values.pop, key)
            values[key] = value
        yield


@_offline()
def open_folder(
    contents: Contents,
    *,
    name: str,
    batch_size: int | None,
    input_shape: tuple[int, ...] | None,
    output: Choice = None,
    device: str | None = None,
) -> TensorModel:
    """Open a folder of a classifier.

    Args:
        contents: Of the folder.
        input_shape: Of one input, without the batch axis; by default as the configuration has it.
        output: The one that holds the scores, by its name or its number.
        device: Where it runs.

    Raises:
        ModelError: When it cannot be opened as a classifier.
    """
    digest = digests.of_folder(contents.path).digest
    weights = read_weights(contents.weights, name)
    network, notes = _make(contents, weights, name)
    preprocessing = _preprocessing(contents.path, name)
    shape = input_shape or _shape(network.config, preprocessing)
    if shape is None:
        raise ModelError(
            f"{name}: expected the input shape, found none in its configuration; give input_shape=(3, 224, 224)"
        )
    options: dict[str, Any] = {"name": name, "batch_size": batch_size, "output": output, "device": device}
    model = open_module(_Classifier(network), input_shape=shape, digest=digest, **options)
    model.notes = (*notes, *_hints(preprocessing))
    return model


class _Classifier(nn.Module):  # type: ignore[misc]  # torch ships no types
    # Of one input and one output: of several labels at once their probabilities, as transformers' pipelines give them.
    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        self.labels = network.config.problem_type == "multi_label_classification"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.network(**{self.network.main_input_name: x}, return_dict=True).logits
        return logits.sigmoid() if self.labels else logits


def _make(contents: Contents, weights: Mapping[str, torch.Tensor], name: str) -> tuple[Any, tuple[str, ...]]:
    # The network with its weights, and what to say of them.
    expected = f"{name}: expected an image or audio classifier of transformers"
    others = [key for key, value in weights.items() if value.dtype in _INTEGERS]
    if others:
        raise ModelError(f"{expected}, found quantised weights: {few(others)}")
    try:
        with _quiet(), torch.random.fork_rng(devices=[]), _bounded(weights, expected):
            config, unknown = _configuration(contents, expected)
            kind = _class_of(config, expected)
            network, found = kind.from_pretrained(
                None,
                config=config,
                state_dict=dict(weights),
                ignore_mismatched_sizes=True,  # they are asked for, and refused
                output_loading_info=True,
            )
    except ModelError:
        raise
    except Exception as error:  # whatever a configuration makes transformers stumble over
        raise ModelError(
            f"{expected}, found a folder that transformers {transformers.__version__} cannot open: {line(error)}"
        ) from error
    lacking = {
        "missing": [str(key) for key in found["missing_keys"]],
        "of another shape": [str(entry[0]) for entry in found["mismatched_keys"]],
        "damaged": [str(message) for message in found["error_msgs"]],
    }
    lacks = "; ".join(f"{what}: {few(sorted(names))}" for what, names in lacking.items() if names)
    if lacks:
        raise ModelError(f"{expected} with all its weights, found {lacks}")
    wrong = [key for key, own in network.state_dict().items() if key in weights and not holds(own.dtype, weights[key])]
    if wrong:
        raise ModelError(f"{expected}, found numbers of another kind: {few(wrong)}")
    unused = {"weights": sorted(map(str, found["unexpected_keys"])), "settings": unknown}
    notes = (
        f"{what} that its network does not have are not used: {few(names)}" for what, names in unused.items() if names
    )
    return network.eval(), tuple(notes)


def _configuration(contents: Contents, expected: str) -> tuple[Any, list[str]]:
    # And the settings that it does not have.
    if contents.kind in _FOREIGN:
        raise ModelError(f"{expected}, found {contents.kind!r}, which belongs to another library")
    if contents.kind not in transformers.CONFIG_MAPPING:
        raise ModelError(
            f"{expected}, found {contents.kind[:60]!r}, which transformers {transformers.__version__} does not have"
        )
    kind, unknown = transformers.CONFIG_MAPPING[contents.kind], list[tuple[str, Any]]()
    try:
        config = kind(**_settings(kind, contents.config, unknown))
    except ValueError as error:
        raise ModelError(f"{expected}, found {contents.kind[:60]!r}: {line(error)}") from error
    parts = list(_configurations(config))
    for part in parts:
        if part._attn_implementation not in _ATTENTION or getattr(part, "quantization_config", None) is not None:
            raise ModelError(f"{expected} without its own code, found a configuration that asks for it")
    # Some it computes from others.
    return config, [
        key for key, value in unknown if not any(_as_json(vars(one).get(key)) == _as_json(value) for one in parts)
    ]


def _as_json(value: Any) -> str:
    return json.dumps(value, default=str)


def _settings(kind: Any, values: Mapping[str, Any], unknown: list[tuple[str, Any]]) -> dict[str, Any]:
    # Those that a kind of configuration has; any other would become an attribute, which its code may take for its own.
    names = {field.name for field in dataclasses.fields(kind)} | kind.attribute_map.keys() | _taken(kind)
    unknown += [(key, value) for key, value in values.items() if key not in names | {"model_type"} and value]
    settings = {key: value for key, value in values.items() if key in names}
    for key, value in settings.items():
        part = _kind_of_part(kind, key, value) if isinstance(value, dict) else None
        if part is not None:
            own = {"model_type": value["model_type"]} if "model_type" in value else {}
            settings[key] = own | _settings(part, value, unknown)
    return settings


def _kind_of_part(kind: Any, key: str, value: Mapping[str, Any]) -> Any:
    # Early ones of CLIP have a part twice.
    part = kind.sub_configs_defaults.get(key.removesuffix("_dict"))
    if part is not None and issubclass(part.config_class, transformers.PreTrainedConfig):
        return part.config_class
    named = value.get("model_type", part and part.model_type)
    if named not in transformers.CONFIG_MAPPING:
        return None
    return transformers.CONFIG_MAPPING[named]


def _taken(kind: Any) -> set[str]:
    # Names from before that a configuration still understands: they stand in the code that takes what is no field.
    makers = [inspect.unwrap(base.__post_init__) for base in kind.__mro__ if "__post_init__" in vars(base)]
    codes = [maker.__code__ for maker in makers]
    return {name for code in codes for name in _strings(code) if name.isidentifier() and not name.startswith("_")}


def _strings(code: CodeType) -> Iterator[str]:
    for constant in code.co_consts:
        if isinstance(constant, str):
            yield constant
        elif isinstance(constant, CodeType):
            yield from _strings(constant)


def _configurations(config: Any) -> Iterator[Any]:
    yield config
    for value in vars(config).values():
        if isinstance(value, transformers.PreTrainedConfig):
            yield from _configurations(value)


def _class_of(config: Any, expected: str) -> Any:
    known = next((mapping[type(config)] for mapping in _CLASSIFIERS if type(config) in mapping), None)
    kinds = known if isinstance(known, tuple) else (known,)
    names = config.architectures or [getattr(kind, "__name__", "") for kind in kinds[:1]]
    kind = next((kind for kind in kinds if kind is not None and kind.__name__ in names), None)
    if kind is None:
        found = few([str(name) for name in names]) or config.model_type
        raise ModelError(f"{expected}, found {found!r}; 'deepjudge compare VICTIM SUSPECT' compares its weights")
    if kind.main_input_name not in _INPUTS or config.problem_type == "regression":
        raise ModelError(f"{expected}, found one of {config.problem_type or kind.main_input_name}")
    return kind


@contextlib.contextmanager
def _bounded(weights: Mapping[str, torch.Tensor], expected: str) -> Iterator[None]:
    # What is made has about as many numbers as are in the file; they are counted before they take memory.
    most = _PARTS * sum(value.numel() for value in weights.values()) + _MORE
    numbers = modules = 0

    def count_tensor(_: nn.Module, name: str, tensor: torch.Tensor | None) -> None:
        nonlocal numbers
        numbers += 0 if tensor is None else tensor.numel()
        if numbers > most:
            raise ModelError(
                f"{expected} of the size of its weights, found a configuration with more than {most} numbers"
            )

    def count_module(*_: Any) -> None:
        nonlocal modules
        modules += 1
        if modules > _MOST_MODULES:
            raise ModelError(f"{expected}, found a configuration with more than {_MOST_MODULES} parts")

    with contextlib.ExitStack() as stack:
        for handle in (
            registration.register_module_parameter_registration_hook(count_tensor),
            registration.register_module_buffer_registration_hook(count_tensor),
            registration.register_module_module_registration_hook(count_module),
        ):
            stack.callback(handle.remove)
        yield


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    # No bars and no advice: what matters of it is asked for, and said.
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _shape(config: Any, preprocessing: Mapping[str, Any]) -> tuple[int, ...] | None:
    # Of one input, where the folder says it.
    if config.model_type == "audio-spectrogram-transformer":
        return config.max_length, config.num_mel_bins
    if config.model_type == "whisper":
        return config.num_mel_bins, 2 * config.max_source_positions
    size = getattr(config, "image_size", None) or _size(preprocessing)
    sides = (size, size) if isinstance(size, int) else tuple(size or ())
    if len(sides) != 2 or not hasattr(config, "num_channels"):
        return None
    return config.num_channels, *sides


def _size(preprocessing: Mapping[str, Any]) -> Any:
    # What images are cropped to, or made; of the shorter edge alone the other is not known.
    for key in ("crop_size", "size"):
        size = preprocessing.get(key)
        if isinstance(size, dict) and {"height", "width"} <= size.keys():
            return size["height"], size["width"]
        if isinstance(size, int):
            return size
    return None


def _preprocessing(path: Path, name: str) -> Mapping[str, Any]:
    if not (path / PREPROCESSING).is_file():
        return {}
    settings = read_settings(path / PREPROCESSING, name)
    return settings if isinstance(settings, dict) else {}


def _hints(settings: Mapping[str, Any]) -> Iterator[str]:
    # What its maker says of inputs, as a user would type it. Nothing is done: whether it holds, the answers show.
    if not settings.get("do_normalize"):
        return
    if "image_mean" not in settings:
        kind = str(settings.get("feature_extractor_type", "its feature extractor"))[:60]
        yield (f"its folder says that {kind} normalises its inputs, but the model gets the suite's inputs unchanged")
        return
    with contextlib.suppress(UsageError, TypeError, ValueError):
        factor = float(settings.get("rescale_factor", 1 / 255)) if settings.get("do_rescale", True) else 1.0
        mean, std = (_numbers(settings[key]) for key in ("image_mean", "image_std"))
        scale = round(255 * factor, 6)
        yield (
            f"its folder says that its inputs are prepared by {Preprocessing(scale, mean, std)}, but "
            "the model gets the suite's inputs unchanged unless you say how to prepare them "
            "or its answers show it"
        )


def _numbers(value: Any) -> tuple[float, ...]:
    numbers = [float(number) for number in (value if isinstance(value, list) else [value])]
    if not all(map(math.isfinite, numbers)):
        raise ValueError(json.dumps(value))
    return tuple(numbers)
