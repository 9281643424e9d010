"""Weights that are read in a process of their own, which gives plans and sketches of them and runs nothing."""

import contextlib
import math
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from deepjudge_core import progress
from deepjudge_core.components.opening import resolve
from deepjudge_core.components.registry import Adapters, Registry, load_registry
from deepjudge_core.components.weights import info_of_weights, unreadable
from deepjudge_core.errors import ModelError
from deepjudge_core.files.digests import FileDigests, FileKey, file_key
from deepjudge_core.files.documents import parse, plain
from deepjudge_core.models.info import ModelInfo
from deepjudge_core.models.isolation import Isolation
from deepjudge_core.models.sketcher import Sketcher
from deepjudge_core.naming import current_flags, option
from deepjudge_core.sandbox import landlock
from deepjudge_core.sandbox.channel import ArraySpec, ChannelError
from deepjudge_core.sandbox.intake import Held, Taken, take
from deepjudge_core.sandbox.policy import DEFAULT_SANDBOX, Sandbox
from deepjudge_core.sandbox.process import Worker
from deepjudge_core.sandbox.scratch import Scratch, make_scratch
from deepjudge_core.sandbox.setup import begun, check_required, isolation_of, plugin_of
from deepjudge_core.text import clean
from deepjudge_core.types import Array
from deepjudge_core.weights.matrices import MOST_NUMBERS
from deepjudge_core.weights.reading import lora
from deepjudge_core.weights.values import PlanHeader, Sketch, SketchHeader, WeightPlan

# Far above what any network has; what is more only takes the audit's time and memory.
_MOST_LAYERS, _MOST_VIEWS, _MOST_TOKENS, _LONGEST_TOKEN = 2**13, 16, 2**14, 2**10
_WIDEST = 2**24
_LARGEST_ANSWER = 2**31  # bytes
_LONGEST_NOTE, _MOST_NOTES = 1000, 10
_UNIT = 1.01  # greatest number of a unit vector, for roundings of float16


@contextlib.contextmanager
def open_weights_isolated(
    source: str | Path,
    *,
    registry: Registry | None = None,
    sandbox: Sandbox = DEFAULT_SANDBOX,
    others: Collection[FileKey] = (),
    adapter: str | None = None,
    **options: Any,
) -> Iterator[Sketcher]:
    """Open the weights of a model in a process of its own, which ends with the context.

    Large files are not copied: see :class:`~deepjudge_core.sandbox.intake.Held`. The process starts at once; whatever
    is wrong with the weights is raised when they are asked for something.

    Args:
        source: A path.
        registry: Where the adapters are; by default every installed one.
        sandbox: How it is confined.
        others: The other files that are opened as models, of which it may take none for its weights.
        adapter: Name of the adapter; by default the one that reads the file.
        options: Of the adapter's ``weights``.

    Raises:
        ModelError: When they cannot be read, or its isolation is not enough.
        UsageError: When no installed adapter, or more than one, reads it.
    """
    adapters = (registry or load_registry()).adapters
    path, name, chosen = resolve(Path(source), adapters, adapter)
    label = clean(name)
    if chosen is None or chosen.weights is None:
        raise unreadable(label, adapters)
    plugin = plugin_of(chosen, adapters, label)
    apart = others if path.suffix.lower() != ".json" else ()

    def is_other(beside: Path) -> bool:
        return file_key(beside) in apart and adapters.reads(beside)

    with make_scratch() as scratch, Held() as held:
        holding = held if landlock.version() > 0 else None
        taken = take(path, label, chosen, _folder(scratch, "weights"), sandbox.memory, is_other, holding, weights=True)
        changed, base = options.get("base") or _base_beside(path, taken.path, label), None
        if changed:
            base = _take_base(changed, label, adapters, _folder(scratch, "base"), sandbox, holding)
            options["base"] = str(base.path)
        with (
            _Digesting(taken, base, label) as digesting,
            begun(label, taken.path, chosen, plugin, scratch, sandbox, frameworks=False, held=held) as worker,
        ):
            yield RemoteSketcher(worker, label, chosen.name, sandbox, options, digesting, held)


def _folder(scratch: Scratch, name: str) -> Path:
    folder = scratch.model / name
    folder.mkdir()
    return folder


def _take_base(base: Any, label: str, adapters: Adapters, folder: Path, sandbox: Sandbox, held: Held | None) -> Taken:
    # What differences of weights are added to.
    path, name, adapter = resolve(Path(base), adapters)
    if adapter is None or adapter.weights is None:
        raise unreadable(clean(name), adapters)
    return take(path, f"{label}: its base {clean(name)}", adapter, folder, sandbox.memory, held=held, weights=True)


def _base_beside(source: Path, copy: Path, label: str) -> Path | None:
    # Of a LoRA, whose copy has nothing beside it.
    return lora.base_beside(source, lora.read_lora(copy, label)) if copy.is_dir() and lora.is_lora(copy) else None


class _Digesting:
    # Computes the digests of a model's files, and of its base's, while its weights are read.

    def __init__(self, taken: Taken, base: Taken | None, label: str) -> None:
        self._taken, self._base, self._label = taken, base, label
        self._found: FileDigests | OSError | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._digest, daemon=True)

    def __enter__(self) -> "_Digesting":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _digest(self) -> None:
        try:
            own = self._taken.digested(self._stop.is_set)
            self._found = own.with_base(self._base.digested(self._stop.is_set)) if self._base else own
        except OSError as error:
            self._found = error

    def found(self, timeout: float) -> FileDigests:
        self._thread.join(timeout)
        if isinstance(self._found, FileDigests):
            return self._found
        if self._found is None:
            raise ModelError(
                f"{self._label}: expected files that are read within {timeout:g} s, found larger ones; allow more with "
                f"{option('Sandbox.timeout')}",
                code="timed-out",
            )
        raise ModelError(
            f"{self._label}: cannot be read: {self._found.strerror or self._found}", code="not-a-file"
        ) from self._found


class RemoteSketcher(Sketcher):
    """Weights that a worker reads, whose plans and sketches are checked; it has not said yet how it is confined."""

    notes: tuple[str, ...] = ()

    def __init__(
        self,
        worker: Worker,
        label: str,
        adapter: str,
        sandbox: Sandbox,
        options: Mapping[str, Any],
        digesting: _Digesting,
        held: Held,
    ) -> None:
        """Wrap a worker that was told where the model's copy is.

        Args:
            worker: The worker.
            label: What messages call the model.
            adapter: Name of what reads it.
            sandbox: How it is confined.
            options: Of the adapter's ``weights``.
            digesting: What computes its digests meanwhile.
            held: Its files that are open and were not copied.
        """
        self._worker, self._label, self._adapter, self._sandbox = worker, label, adapter, sandbox
        self._options, self._digesting, self._held = options, digesting, held

    @cached_property
    def model(self) -> ModelInfo:  # type: ignore[override]
        """See :class:`~deepjudge_core.models.sketcher.Sketcher`."""
        found = self._digesting.found(self._sandbox.timeout)
        self._held.check(self._label)
        info = info_of_weights(self._label, self._adapter)
        return replace(info, digest=found.digest, files=found.files, isolation=self._isolation)

    def plan(self, *, seed: int = 0, ancestry: bool = False) -> WeightPlan:
        """See :class:`~deepjudge_core.models.sketcher.Sketcher`."""
        self._open()
        self._worker.send({"ask": "plan", "seed": seed, "ancestry": ancestry})
        message = self._worker.receive(_expect_plan)
        named = dict(zip(message.values["shapes"], message.arrays, strict=True))
        try:
            return WeightPlan.of_header(parse(PlanHeader, message.values["plan"]), named, "")
        except (KeyError, ValueError) as error:
            raise self._worker.refuse(f"no plan: {error}") from None

    def sketch(self, plan: WeightPlan, *, victim: bool = False) -> Sketch:
        """See :class:`~deepjudge_core.models.sketcher.Sketcher`."""
        self._open()
        expected, arrays = _Expected(plan, victim), plan.arrays("")
        asked = {"ask": "sketch", "plan": plain(plan.header()), "names": list(arrays), "victim": victim}
        self._worker.send(asked, list(arrays.values()))
        message = self._worker.receive(expected)
        try:
            header = parse(SketchHeader, message.values["sketch"])
            sketch = Sketch.of_header(header, dict(zip(message.values["shapes"], message.arrays, strict=True)), "")
            expected.check(sketch)
        except (KeyError, ValueError) as error:
            raise self._worker.refuse(f"no sketch: {error}") from None
        self._held.check(self._label)
        # Of a victim, names are those of the plan.
        return sketch if victim else _cleaned(sketch)

    def matrices(self, places: Sequence[int]) -> dict[int, Array]:
        """See :class:`~deepjudge_core.models.sketcher.Sketcher`."""
        self._open()
        self._worker.send({"ask": "matrices", "places": list(places)})

        def expect(values: Mapping[str, Any]) -> Sequence[ArraySpec]:
            try:
                shapes = _shapes(values)
                if list(shapes) != [str(place) for place in places]:
                    raise ValueError
                specs = [ArraySpec((outputs, inputs)) for outputs, inputs in shapes.values()]
                if any(min(spec.shape) < 1 or math.prod(spec.shape) > MOST_NUMBERS for spec in specs):
                    raise ValueError
            except (KeyError, TypeError, ValueError):
                raise ChannelError("no matrices") from None
            return specs

        arrays = self._worker.receive(expect).arrays
        self._held.check(self._label)
        if not all(np.isfinite(array).all() for array in arrays):
            raise ModelError(
                f"{self._label}: expected numbers in its weights, found NaN or infinity", code="bad-answer"
            )
        return dict(zip(places, arrays, strict=True))

    def _open(self) -> None:
        _ = self._isolation, self._opened  # once

    @cached_property
    def _isolation(self) -> Isolation:
        isolation, leaks = isolation_of(self._worker)
        check_required(self._label, isolation, leaks, self._sandbox)
        return isolation

    @cached_property
    def _opened(self) -> bool:
        with progress.task(f"reading {self._label}", 1):
            asked = {"ask": "weights", "label": self._label, "options": self._options, "flags": current_flags()}
            self._worker.send(asked)
            self._worker.receive(failing="cannot-open")
        return True


def _expect_plan(values: Mapping[str, Any]) -> Sequence[ArraySpec]:
    try:
        header, shapes = parse(PlanHeader, values["plan"]), _shapes(values)
        if not 0 < len(header.layers) <= _MOST_LAYERS or not 0 <= header.flat <= _WIDEST:
            raise ValueError
        if len(header.tokens) > _MOST_TOKENS or max(map(len, header.tokens), default=0) > _LONGEST_TOKEN:
            raise ValueError
        if len(shapes) > 2 * len(header.layers) + 1:
            raise ValueError
        specs = [_spec_of_plan(name, shape, header.rank) for name, shape in shapes.items()]
    except (KeyError, TypeError, ValueError):
        raise ChannelError("no plan of weights") from None
    return specs


def _spec_of_plan(name: str, shape: tuple[int, ...], rank: int) -> ArraySpec:
    if not 0 <= min(shape) <= max(shape) <= _WIDEST:
        raise ValueError
    if not name.startswith("anchors."):
        [_] = shape
        return ArraySpec(shape, "int64")
    _, views, length = shape
    if views > _MOST_VIEWS or length > rank or math.prod(shape) > _LARGEST_ANSWER:
        raise ValueError
    return ArraySpec(shape, "float16")


class _Expected:
    # Which arrays a sketch has, and what they may be.

    def __init__(self, plan: WeightPlan, victim: bool) -> None:
        self._plan, self._victim = plan, victim

    def __call__(self, values: Mapping[str, Any]) -> Sequence[ArraySpec]:
        try:
            header, shapes = parse(SketchHeader, values["sketch"]), _shapes(values)
            if len(header.layers) > _MOST_LAYERS or max(len(header.notes), len(header.unseen)) > _MOST_NOTES:
                raise ValueError
            widths = [layer.width for layer in header.layers]
            specs = [self._spec(name, shape, widths) for name, shape in shapes.items()]
        except (KeyError, TypeError, ValueError, IndexError):
            raise ChannelError("no sketch of weights") from None
        if sum(math.prod(spec.shape) * np.dtype(spec.dtype).itemsize for spec in specs) > _LARGEST_ANSWER:
            raise ChannelError("a sketch of more than 2 GiB")
        return specs

    def _spec(self, name: str, shape: tuple[int, ...], widths: Sequence[int]) -> ArraySpec:
        if name == "flat" and self._plan.flat:
            return ArraySpec((self._plan.flat,))
        place, _, part = name.partition(".")
        width = widths[int(place)]
        # Of a victim the picked neurons alone.
        if not 0 < shape[0] <= width <= _WIDEST or (not self._victim and shape[0] != width):
            raise ValueError
        if part == "neurons":
            return ArraySpec(shape[:1], "int64")
        _, views, rank = shape
        if not 0 < views <= _MOST_VIEWS or rank > self._plan.rank:
            raise ValueError
        return ArraySpec(shape, "float16")

    def check(self, sketch: Sketch) -> None:
        """Refuse what no sketch by the plan is.

        Raises:
            ValueError: Saying what is wrong.
        """
        for layer in sketch.layers:
            for vectors in (layer.raw, *([] if layer.invariant is None else [layer.invariant])):
                if np.abs(vectors).max() > _UNIT:
                    raise ValueError("vectors that are too long")
        if not self._victim:
            return
        planned = {
            (layer.kind, layer.block): neurons
            for layer, neurons in zip(self._plan.layers, self._plan.neurons, strict=True)
        }
        for layer in sketch.layers:
            if not np.array_equal(layer.neurons, planned.get((layer.kind, layer.block), ())):
                raise ValueError("other neurons than those of the plan")


def _shapes(values: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return parse(dict[str, tuple[int, ...]], values["shapes"])


def _cleaned(sketch: Sketch) -> Sketch:
    # Of a model that may be a stranger's: what it says reaches reports.
    layers = tuple(replace(layer, name=clean(layer.name)) for layer in sketch.layers)
    notes, unseen = (tuple(clean(line, _LONGEST_NOTE) for line in lines) for lines in (sketch.notes, sketch.unseen))
    return replace(sketch, family=clean(sketch.family), layers=layers, notes=notes, unseen=unseen)
