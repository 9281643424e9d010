"""Models that are opened and run in a process of their own."""

import contextlib
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from deepjudge_core import progress
from deepjudge_core.components.kinds import Adapter
from deepjudge_core.components.opening import resolve
from deepjudge_core.components.registry import Adapters, Registry, load_registry
from deepjudge_core.errors import ModelError, UsageError
from deepjudge_core.files.digests import FileKey, file_key
from deepjudge_core.models.code import OwnCode
from deepjudge_core.models.device import CPU
from deepjudge_core.models.exchange import Exchange
from deepjudge_core.models.info import ModelInfo
from deepjudge_core.models.input_spec import InputSpec
from deepjudge_core.models.isolation import Isolation
from deepjudge_core.models.model import Cotangent, Model
from deepjudge_core.models.outputs import Outputs
from deepjudge_core.naming import current_flags, option
from deepjudge_core.sandbox import confine
from deepjudge_core.sandbox.channel import ArraySpec, ChannelError
from deepjudge_core.sandbox.intake import Received, receive
from deepjudge_core.sandbox.policy import DEFAULT_SANDBOX, Sandbox, check_place
from deepjudge_core.sandbox.process import Worker
from deepjudge_core.sandbox.scratch import make_scratch
from deepjudge_core.sandbox.setup import (
    LONGEST_REASON,
    begun,
    check_required,
    clean_notes,
    found_level,
    isolation_of,
    plugin_of,
)
from deepjudge_core.text import clean
from deepjudge_core.types import Array

# A classifier has fewer of each, and the deepest networks some thousand layers; what is more only takes the audit's
# time and memory.
_MOST_CLASSES, _MOST_LAYERS = 2**16, 2**13
_MOST_PARAMETERS = 2**50
_LARGEST_ANSWER = 2**31  # bytes
_SOME_FILES = 5  # that a note names
# By its name: where no framework is imported, numpy does not know bfloat16.
_NUMBERS = re.compile(r"(b?float|u?int)\d+")


@contextlib.contextmanager
def open_isolated(
    source: str | Path,
    *,
    registry: Registry | None = None,
    sandbox: Sandbox = DEFAULT_SANDBOX,
    expected: InputSpec | None = None,
    gradients: bool = True,
    others: Collection[FileKey] = (),
    adapter: str | None = None,
    device: str = CPU,
    **options: Any,
) -> Iterator[Model]:
    """Open a model in a process of its own, which ends with the context.

    Args:
        source: A path.
        registry: Where the adapters are; by default every installed one.
        sandbox: How it is confined.
        expected: The inputs that it will be given, for models that do not say themselves what they take.
        gradients: Whether it is going to be asked for gradients.
        others: The other files that are opened as models, of which it may take none for its weights.
        adapter: Name of the adapter; by default the one that reads the file.
        device: As :func:`~deepjudge_core.components.opening.open_model` has it. The process has no GPU.
        options: Of the adapter.

    Raises:
        ModelError: When it cannot be opened, or its isolation is not enough.
        UsageError: When no installed adapter, or more than one, reads it, or a GPU is asked for.
    """
    adapters = (registry or load_registry()).adapters
    with begin_isolated(
        source,
        adapters,
        sandbox=sandbox,
        expected=expected,
        gradients=gradients,
        others=others,
        adapter=adapter,
        device=device,
        **options,
    ) as opened:
        yield opened()


@contextlib.contextmanager
def begin_isolated(
    source: str | Path,
    adapters: Adapters,
    *,
    sandbox: Sandbox = DEFAULT_SANDBOX,
    expected: InputSpec | None = None,
    gradients: bool = True,
    others: Collection[FileKey] = (),
    adapter: str | None = None,
    device: str = CPU,
    **options: Any,
) -> Iterator[Callable[[], Model]]:
    """Start the process of a model, which imports its framework until what the context gives is called to open it.

    Arguments and errors are those of :func:`open_isolated`, with the installed ``adapters``.
    """
    check_place(device, confined=True)
    path, name, chosen = resolve(Path(source), adapters, adapter)
    if chosen is None:
        raise UsageError(f"{name}: expected a model's file")
    label, options = clean(name), _from_everywhere(options)
    plugin = plugin_of(chosen, adapters, label)
    with make_scratch() as scratch:
        # An index names other files of weights, each of which is a model by its content.
        apart = others if path.suffix.lower() != ".json" else ()

        def is_other(beside: Path) -> bool:
            return file_key(beside) in apart and adapters.reads(beside)

        received = receive(path, label, chosen, scratch.model, sandbox.memory, is_other)
        if received.format.runs_code and not sandbox.required and not confine.is_full():
            # No process has to import a framework to find that out.
            raise _needs_sandbox(label, received, "no Landlock or no seccomp")
        starting = begun(
            label,
            received.path,
            chosen,
            plugin,
            scratch,
            sandbox,
            gradients=gradients,
            own_code=options.get("arch"),
        )
        with starting as worker:

            def opened() -> RemoteModel:
                with progress.task(f"opening {label}", 1):
                    isolation, leaks = isolation_of(worker)
                    _check(label, received, isolation, leaks, sandbox)
                    spec = expected and {"shape": expected.shape, "dtype": expected.dtype, "layout": expected.layout}
                    asked = {"ask": "open", "label": label, "expected": spec, "options": options}
                    worker.send({**asked, "flags": current_flags()})
                    values = worker.receive(failing="cannot-open").values

                def described(values: Mapping[str, Any]) -> ModelInfo:
                    return _describe(worker, values, label, chosen, received)

                return RemoteModel(
                    worker, described, isolation, values, fixed=options.get("fix", {}), own_notes=_beside(received)
                )

            yield opened


def _beside(received: Received) -> tuple[str, ...]:
    # Files that nobody named, and that a model read.
    names = received.beside
    if not names:
        return ()
    more = f" and {len(names) - _SOME_FILES} more" if names[_SOME_FILES:] else ""
    return (f"its weights are also in other files: {', '.join(names[:_SOME_FILES])}{more}",)


def _from_everywhere(options: Mapping[str, Any]) -> dict[str, Any]:
    # The worker is in another folder.
    arch = options.get("arch")
    return {**options, "arch": str(OwnCode.parse(arch).absolute())} if isinstance(arch, str) else dict(options)


def _check(label: str, received: Received, isolation: Isolation, leaks: str, sandbox: Sandbox) -> None:
    if isolation is Isolation.FULL:
        return
    check_required(label, isolation, leaks, sandbox)
    if received.format.runs_code:
        raise _needs_sandbox(label, received, found_level(isolation, leaks))


def _needs_sandbox(label: str, received: Received, found: str) -> ModelError:
    return ModelError(
        f"{label}: {received.format.name} may do more than compute, so it is opened only in the "
        f"full sandbox, which this system does not have (found {found}); convert it to ONNX in "
        f"one file, or use {option('Confinement.use', False, python='Session(sandbox=None)')} if it is your own",
        code="needs-sandbox",
    )


def _describe(worker: Worker, values: Mapping[str, Any], label: str, adapter: Adapter, received: Received) -> ModelInfo:
    # What it says of itself, but for what is known better here.
    try:
        info = ModelInfo.from_json(values["model"])
        if not 2 <= info.classes <= _MOST_CLASSES or not info.layers:
            raise ValueError
        if min(info.layers.values()) < 1 or not _NUMBERS.fullmatch(info.input.dtype):
            raise ValueError
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        raise worker.refuse("no description of a classifier") from None
    if len(info.layers) > _MOST_LAYERS:
        raise ModelError(
            f"{label}: expected a network of at most {_MOST_LAYERS} layers, found {len(info.layers)}", code="too-large"
        )
    return replace(
        info,
        name=label,
        framework=adapter.name,
        digest=received.digest,
        files=received.files,
        layers=_clean_names(info.layers),
    )


def _clean_names(layers: Mapping[str, int]) -> dict[str, int]:
    # Names that differ in what cannot be seen are numbered. A name that is taken costs one step of one counter, so that
    # all of it takes time in proportion to the names.
    cleaned: dict[str, int] = {}
    numbers = Counter[str]()
    for name, width in layers.items():
        shown = plain = clean(name)
        while shown in cleaned:
            numbers[plain] += 1
            shown = f"{plain} ({numbers[plain] + 1})"
        cleaned[shown] = width
    return cleaned


def _rows(values: Mapping[str, Any], count: int) -> slice:
    match values["rows"]:
        case [int(start), int(stop)] if 0 <= start < stop <= count:
            return slice(start, stop)
    raise ChannelError("rows that were not requested")


class RemoteModel(Model):
    """A :class:`~deepjudge_core.models.model.Model` that a worker runs, whose answers are checked."""

    def __init__(
        self,
        worker: Worker,
        described: Callable[[Mapping[str, Any]], ModelInfo],
        isolation: Isolation,
        values: Mapping[str, Any],
        output: int | None = None,
        *,
        fixed: Mapping[str, float] = MappingProxyType({}),
        own_notes: tuple[str, ...] = (),
    ) -> None:
        """Wrap a worker that has opened a model.

        Args:
            worker: The worker.
            described: What the model is, of what it says of itself.
            isolation: How it is kept.
            values: What it says of itself: beside the description ``unseen``, ``fixed_batch``, ``outputs``,
                ``notes``, ``independent`` and ``parameters`` as :class:`~deepjudge_core.models.model.Model` has them.
            output: The output that it is asked by, if not the one that it was opened with.
            fixed: As :class:`~deepjudge_core.models.model.Model` has it.
            own_notes: What is known of it here, and stands before what it says itself.
        """
        info = described(values)
        self._worker, self._described, self._output, self.fixed = worker, described, output, fixed
        self._own_notes = own_notes
        self.name, self.framework, self.digest = info.name, info.framework, info.digest
        self.access, self.input, self.classes = info.access, info.input, info.classes
        self.layers: Mapping[str, int] = MappingProxyType(dict(info.layers))
        self.isolation, self.device, self.files = isolation, info.device, info.files
        unseen, batch = values.get("unseen"), values.get("fixed_batch")
        self.unseen = None if unseen is None else clean(str(unseen), LONGEST_REASON)
        self.notes = own_notes + clean_notes(values.get("notes"))
        self._learn(values)
        self.fixed_batch = batch if isinstance(batch, int) and batch > 0 else None
        count = values.get("parameters")
        self.parameters = count if isinstance(count, int) and 0 <= count < _MOST_PARAMETERS else None
        try:
            said = values.get("outputs")
            self.outputs = None if said is None else Outputs.from_json(said, _MOST_CLASSES)
        except ValueError:
            raise worker.refuse("no description of its outputs") from None

    def with_output(self, place: int) -> Model:
        """See :class:`~deepjudge_core.models.model.Model`."""
        if self.outputs is None or place not in self.outputs.tables:
            return super().with_output(place)
        if place == self.outputs.place:
            return self
        self._worker.send({"ask": "by output", "output": place})
        values = self._worker.receive(failing="cannot-open").values
        return RemoteModel(
            self._worker,
            self._described,
            self.isolation,
            values,
            place,
            fixed=self.fixed,
            own_notes=self._own_notes,
        )

    def predict(self, x: Array) -> Array:
        """See :class:`~deepjudge_core.models.model.Model`."""
        [answer] = self._ask("predict", x, [], [(len(x), self.classes)])
        return answer

    def activations(self, x: Array, layers: Sequence[str]) -> dict[str, Array]:
        """See :class:`~deepjudge_core.models.model.Model`."""
        if not layers:
            return {}
        shapes = [(len(x), self._width(layer)) for layer in layers]
        return dict(zip(layers, self._ask("activations", x, layers, shapes), strict=True))

    def gradient(self, x: Array, cotangent: Cotangent, *, layer: str | None = None) -> Array:
        """See :class:`~deepjudge_core.models.model.Model`."""
        width = self.classes if layer is None else self._width(layer)

        def expected(values: Mapping[str, Any]) -> list[ArraySpec]:
            if "rows" not in values:
                return [ArraySpec(x.shape)]
            rows = _rows(values, len(x))
            return [ArraySpec((rows.stop - rows.start, width), str(values.get("dtype")))]

        self._send("gradient", x, [] if layer is None else [layer])
        while "rows" in (message := self._worker.receive(expected)).values:
            [scores] = message.arrays
            self._worker.send({}, [np.asarray(cotangent(scores, _rows(message.values, len(x))), scores.dtype)])
        self._learn(message.values)
        return message.arrays[0]

    def exchange(self, x: Array, layer: str) -> Exchange | None:
        """See :class:`~deepjudge_core.models.model.Model`."""
        spec = ArraySpec((len(x), self._width(list(self.layers)[-1])))
        self._send("exchange", x, [layer])
        message = self._worker.receive(lambda values: [spec] * 3 if values.get("exchanged") else [])
        self._learn(message.values)
        if not message.arrays:
            return None
        self._check_numbers(message.arrays)
        own, other, mixed = message.arrays
        return Exchange(own, other, mixed)

    def _ask(self, what: str, x: Array, layers: Sequence[str], shapes: Sequence[tuple[int, ...]]) -> Sequence[Array]:
        size = sum(4 * rows * width for rows, width in shapes)
        if size > _LARGEST_ANSWER:
            raise ModelError(
                f"{self.name}: expected an answer of at most 2 GiB, found {size / 2**30:.1f}", code="too-large"
            )
        self._send(what, x, layers)
        message = self._worker.receive(lambda values: [ArraySpec(shape) for shape in shapes])
        self._learn(message.values)
        self._check_numbers(message.arrays)
        return message.arrays

    def _check_numbers(self, arrays: Sequence[Array]) -> None:
        if not all(np.isfinite(array).all() for array in arrays):
            raise ModelError(f"{self.name}: expected numbers, found NaN or infinity", code="bad-answer")

    def _learn(self, values: Mapping[str, Any]) -> None:
        # What kind of probabilities it gives; that is for once, whatever it says later.
        independent = values.get("independent")
        if self.independent is None and isinstance(independent, bool):
            self.independent = independent

    def _send(self, what: str, x: Array, layers: Sequence[str]) -> None:
        places = {name: place for place, name in enumerate(self.layers)}
        layers_asked = [places[layer] for layer in layers]
        self._worker.send({"ask": what, "layers": layers_asked, "output": self._output}, [x])

    def _width(self, layer: str) -> int:
        if layer not in self.layers:
            raise ModelError(f"{self.name}: there is no layer {layer!r}; its layers are {', '.join(self.layers)}")
        return self.layers[layer]
