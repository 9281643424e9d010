"""Open a model, whatever it is: the adapter is chosen by the file's name or by the live object's type."""

import contextlib
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from deepjudge_core import progress
from deepjudge_core.components.kinds import Adapter
from deepjudge_core.components.registry import Adapters, Registry, load_registry
from deepjudge_core.errors import DeepJudgeError, MissingExtraError, ModelError, UsageError, first_line
from deepjudge_core.files import digests, storage
from deepjudge_core.files.absent import NO_SUCH
from deepjudge_core.files.fetching import is_address
from deepjudge_core.models.batched import BatchedModel, Origin
from deepjudge_core.models.device import AUTO, CPU, check_device, number_of, wants_gpu
from deepjudge_core.models.input_spec import InputSpec
from deepjudge_core.models.layouts import shapes_of
from deepjudge_core.models.model import Classifier, Model, complete
from deepjudge_core.models.network import Network
from deepjudge_core.naming import option
from deepjudge_core.text import is_url

_FORMERLY = {"output_name": "output"}
_DEVICE = "device"
# Parameters of an adapter's functions that are no options.
_TOLD = ("source", "expected", _DEVICE)


def open_model(
    source: Any,
    *,
    registry: Registry | None = None,
    expected: InputSpec | None = None,
    adapter: str | None = None,
    device: str | None = None,
    **options: Any,
) -> Model:
    """Open a model.

    Args:
        source: A path, the URL of a model behind an API, or a live object that an installed adapter accepts: a
            ``torch.nn.Module``, a ``keras.Model``, an estimator of scikit-learn, or any function from
            ``(n, *input_shape)`` to ``(n, classes)`` scores or probabilities. What is a
            :class:`~deepjudge_core.models.model.Model` already is returned as it is.
        registry: Where the adapters are; by default every installed one.
        expected: The inputs that it will be given, for models that do not say themselves what they take.
        adapter: Name of the adapter; by default the one that reads or accepts the source.
        device: What it runs on: "cpu", "cuda", "cuda:N" for one of several GPUs, or "auto" for a GPU if there is one.
            By default a file runs on the processor, and a live model where it is.
        options: Of the adapter: ``name``, ``batch_size``, ``output`` of a model with several, by its name or its number
            from 1, ``fix`` of an ONNX model with several inputs, ``input_shape`` of a live PyTorch module or a
            function, ``classes`` and ``scores`` ("logits", "probabilities", ...) of a function.

    Raises:
        ModelError: When it cannot be opened, there is no such device, or its adapter has no such option.
        PluginError: When its adapter's name is claimed twice.
        UsageError: When no adapter, or more than one, reads it.
    """
    source, label, chosen = resolve(source, (registry or load_registry()).adapters, adapter)
    if chosen is None:
        if device is not None:
            raise _without_choice(label, device, "one that is open already")
        return complete(source)
    place = placed(chosen, device, label)
    with progress.task(f"opening {label}", 1):
        opened = open_by(chosen, source, label, expected, options, place)
        if chosen.remote and wants_gpu(device):
            opened.notes = (*opened.notes, "it answers elsewhere, so the choice of a device does not apply to it")
        if isinstance(opened, BatchedModel):
            opened.origin = Origin(source, chosen.name, options)
        if isinstance(source, Path) and isinstance(opened, BatchedModel):
            opened.files = _files(source, chosen, opened.digest)
        return opened


def digested(path: Path, adapter: Adapter) -> digests.FileDigests:
    """The digests of a model's files, as they are now: its own, and of those beside it that hold its weights.

    Raises:
        OSError, ModelError: When they cannot be read.
    """
    if path.is_dir():
        return digests.of_folder(path)
    beside = [path.with_name(name) for name in adapter.beside(path) if name != path.name]
    return digests.of_file(path, [other for other in beside if other.is_file()])


def _files(path: Path, adapter: Adapter, digest: str) -> Mapping[str, str]:
    # Only where they are those that the adapter read: they may be others by now, or more.
    try:
        current = digested(path, adapter)
    except (OSError, ModelError):
        return {}
    return current.files if current.digest == digest else {}


def placed(adapter: Adapter, device: str | None, label: str) -> str | None:
    """What an adapter is told of the device that was asked for.

    Args:
        adapter: The adapter.
        device: As :func:`open_model` has it.
        label: What messages call the model.

    Returns:
        "cpu" or "cuda:N"; None if it is told nothing.

    Raises:
        ModelError: When there is no such device for its models, or its framework is not installed.
        UsageError: When it is no device.
    """
    if device is None:
        return None
    check_device(device)
    if adapter.remote or (device != CPU and adapter.cuda is None and not wants_gpu(device)):
        return None
    if device == CPU and not adapter.general:
        return CPU
    if adapter.cuda is None:
        raise _without_choice(label, device, f"one of {adapter.name}")
    if adapter.extra and adapter.extra.missing:
        raise MissingExtraError(label, adapter.extra.framework, adapter.extra.name)
    number = number_of(device)
    if adapter.cuda(number):
        return f"cuda:{number}"
    if device == AUTO:
        return CPU
    raise ModelError(
        f"{label}: expected a GPU for {option('device', device)}, found none of number {number} that its framework, "
        f"{adapter.name}, can use; install its build for CUDA, or use {option('device', CPU)}",
        code="no-device",
    )


def _without_choice(label: str, device: str, kind: str) -> ModelError:
    return ModelError(
        f"{label}: expected a model whose device can be chosen, found {kind}, which has no such choice; leave out "
        f"{option('device', device)}, or use {option('device', AUTO)}, which accepts such models, too",
        code="no-device",
    )


def open_by(
    adapter: Adapter,
    source: Any,
    label: str,
    expected: InputSpec | None,
    options: Mapping[str, Any],
    device: str | None = None,
) -> Model:
    """Open a model with an adapter; ``label`` is what messages call it.

    Args:
        adapter: The adapter.
        source: What it opens.
        label: What messages call the model.
        expected: The inputs that it will be given.
        options: Of the adapter.
        device: As :func:`placed` gives it.

    Raises:
        ModelError: When it cannot be opened, or the adapter has no such option.
    """
    run = {name: value for name, value in options.items() if name not in _of_weights_alone(adapter)}
    opened: Classifier = _call(adapter, adapter.open, source, label, expected, run, device)
    model = complete(opened)
    if options.get("fix"):
        model.fixed = dict(options["fix"])
    return model


def open_network(
    source: Any,
    *,
    registry: Registry | None = None,
    expected: InputSpec | None = None,
    adapter: str | None = None,
    device: str | None = None,
    **options: Any,
) -> Network:
    """Open a model as what can be made anew and trained.

    Args:
        source: As :func:`open_model` has it; what is a :class:`~deepjudge_core.models.network.Network` already is
            returned as it is.
        registry: Where the adapters are; by default every installed one.
        expected: The inputs that it will be given, for models that do not say themselves what they take.
        adapter: Name of the adapter; by default the one that reads or accepts the source.
        device: What it is trained and run on, as :func:`open_model` has it.
        options: Of the adapter: ``name``, ``output`` of a model with several, ``arch`` of a file of PyTorch weights,
            ``input_shape`` of a live module.

    Raises:
        ModelError: When it cannot be opened or trained, there is no such device, or its adapter has no such option.
        PluginError: When its adapter's name is claimed twice.
        UsageError: When no adapter, or more than one, reads it.
    """
    if isinstance(source, Network):
        return source
    registry = registry or load_registry()
    source, label, chosen = resolve(source, registry.adapters, adapter)
    if chosen is None or chosen.network is None:
        found = f"one of {chosen.name}, which has no gradients" if chosen else "one that only answers"
        kinds = ", ".join(registry.adapters.trainable) or "none is installed"
        raise ModelError(
            f"{label}: expected a trainable model, found {found}: give the file that it was converted from "
            f"({kinds}), or independent models of your own as controls"
        )
    # What one adapter converts, another one trains, on a device of its own.
    place = placed(chosen, device, label) if _DEVICE in inspect.signature(chosen.network).parameters else None
    with progress.task(f"opening {label}", 1):
        network = _call(chosen, chosen.network, source, label, expected, options, place)
    if isinstance(network, Network):
        if place is None and wants_gpu(device):
            raise _without_choice(label, str(device), f"one of {chosen.name}")
        return network
    return open_network(network, registry=registry, expected=expected, device=device, name=options.get("name", label))


def options_taken(path: Path, adapter: Adapter, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that an adapter takes for a file or folder of this kind, out of those given.

    A file that cannot be examined keeps all that the adapter takes: opening it says what is wrong.
    """
    parameters = inspect.signature(adapter.open).parameters.keys() | _of_weights_alone(adapter)
    taken = {name: value for name, value in options.items() if name in parameters}
    without: tuple[str, ...] = ()
    if taken and adapter.examine is not None and (path.is_file() or path.is_dir()):
        with contextlib.suppress(Exception):  # whatever a damaged file makes it stumble over
            without = adapter.examine(path).without
    return {name: value for name, value in taken.items() if name not in without}


def _of_weights_alone(adapter: Adapter) -> set[str]:
    # Options that change what is read of weights, and nothing of how a model is run.
    if adapter.weights is None:
        return set()
    return inspect.signature(adapter.weights).parameters.keys() - inspect.signature(adapter.open).parameters.keys()


def resolve(source: Any, adapters: Adapters, adapter: str | None = None) -> tuple[Any, str, Adapter | None]:
    """What is opened, what it is called in messages, and by which adapter; by none where it is a model already.

    Args:
        source: A path or a live object.
        adapters: Those that there are.
        adapter: Name of the one that opens it; None for the one that reads or accepts it.

    Raises:
        ModelError: When there is no such file, or an empty one.
        PluginError: When the adapter's name is claimed twice.
        UsageError: When no adapter, or more than one, reads it.
    """
    if not isinstance(source, str | Path):
        named = source if hasattr(source, "__qualname__") else type(source)  # a function, or what an object is
        label = f"{named.__module__}.{named.__qualname__}"
        if adapter is not None and not adapters[adapter].accepts(source):
            raise UsageError(f"{label}: the adapter {adapter} does not open it", code="conflict")
        chosen = adapters.of_object(source, label) if adapter is None else adapters[adapter]
        # Asked after the adapters, since looking for all of a model's attributes may fail in a framework's own model.
        if chosen is None and not isinstance(source, Classifier):
            raise adapters.refuse(label)
        return source, label, chosen
    if is_url(source):
        chosen = adapters.of_url(str(source)) if adapter is None else adapters[adapter]
        return str(source), str(source), chosen
    path, label = Path(source), str(source)
    if not path.exists():
        hint = "; 'deepjudge fleet' fetches models from addresses" if is_address(source) else ""
        raise ModelError(f"{label}: {NO_SUCH}{hint}", code="cannot-read")
    if storage.is_own(path):
        raise UsageError(f"{label}: expected a model, found a file of deepjudge's own; name the model's own file")
    chosen = adapters.of_file(path, label) if adapter is None else adapters[adapter]
    if path.is_file() and path.stat().st_size == 0:
        raise ModelError(f"{label}: expected a model, found an empty file", code="wrong-format")
    return path, label, chosen


def _call(
    adapter: Adapter,
    function: Callable[..., Any],
    source: Any,
    label: str,
    expected: InputSpec | None,
    options: Mapping[str, Any],
    device: str | None,
) -> Any:
    parameters = inspect.signature(function).parameters
    for name in options:
        if name in _FORMERLY:
            raise ModelError(f"{label}: the option {name!r} is now called {_FORMERLY[name]!r}")
        if name not in parameters:
            known = f"they have {', '.join(one for one in parameters if one not in _TOLD)}"
            raise ModelError(f"{label}: models of this format have no option {name!r}; {known}")
    told = {"expected": expected, _DEVICE: device}
    options = {**options, **{name: value for name, value in told.items() if name in parameters}}
    try:
        if expected is None or "input_shape" not in parameters or "input_shape" in options:
            return function(source, **options)
        return _open_for(source, function, expected, options)
    except DeepJudgeError:
        raise
    except (Exception, SystemExit) as error:
        raise ModelError(f"{label}: the {adapter.name} adapter cannot open it: {first_line(error)}") from error


def _open_for(source: Any, function: Callable[..., Any], expected: InputSpec, options: Mapping[str, Any]) -> Any:
    failures: list[ModelError] = []
    for shape in shapes_of(expected):
        try:
            return function(source, input_shape=shape, **options)
        except ModelError as error:
            failures.append(error)
            if str(failures[0]) == str(failures[-1]) and len(failures) > 1:  # whatever the shape
                break
    if failures:
        raise failures[0]
    return function(source, **options)
