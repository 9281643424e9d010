"""The process in which a stranger's model is opened and run, or its weights are read: it gives up its rights first.

Started by :mod:`deepjudge_core.sandbox.process` as ``main(reading, writing)`` with the file descriptors of a channel.
The first message says how to confine itself; the second what to open, if it is run; those after it what to compute, or
what to say of its weights.
"""

import contextlib
import importlib
import os
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from deepjudge_core.components.kinds import Adapter
from deepjudge_core.components.opening import open_by
from deepjudge_core.components.registry import load_adapter
from deepjudge_core.components.weights import read_by
from deepjudge_core.errors import DeepJudgeError, ModelError, UsageError, first_line
from deepjudge_core.files.documents import parse, plain
from deepjudge_core.models.code import OwnCode
from deepjudge_core.models.info import ModelInfo
from deepjudge_core.models.input_spec import InputSpec
from deepjudge_core.models.model import Model
from deepjudge_core.naming import flagged
from deepjudge_core.sandbox import confine, limits
from deepjudge_core.sandbox.channel import Channel, ClosedError, Message
from deepjudge_core.sandbox.held import HeldPath
from deepjudge_core.sandbox.probe import probe
from deepjudge_core.sandbox.process import USAGE
from deepjudge_core.sandbox.starting import THREADS
from deepjudge_core.types import Array
from deepjudge_core.weights.matrices import read_matrices
from deepjudge_core.weights.sketching import plan_weights, sketch
from deepjudge_core.weights.values import PlanHeader, StoredWeights, WeightPlan

# How libraries say that memory is exhausted, where they do not raise MemoryError.
_OUT_OF_MEMORY = ("allocat", "bad_alloc", "out of memory", "resource exhausted", "resourceexhausted")


def main(reading: int, writing: int) -> None:
    """Serve one model until the other side is gone."""
    channel = Channel(reading, writing)
    with contextlib.suppress(ClosedError):
        _Worker(channel).serve()


class _Worker:
    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        # By the output that holds the scores; as it was opened by None.
        self._models: dict[int | None, Model] = {}
        self._weights: StoredWeights | None = None

    def serve(self) -> None:
        setup = self._channel.receive().values
        adapter, path = self._report(self._confine, setup)
        while True:
            request = self._channel.receive()
            match request.values["ask"]:
                case "open":
                    self._report(self._open, adapter, path, request.values)
                case "by output":
                    self._report(self._by_output, request.values)
                case "weights":
                    self._report(self._read, adapter, path, request.values)
                case "plan":
                    self._report(self._plan, request.values)
                case "sketch":
                    self._report(self._sketch, request)
                case "matrices":
                    self._report(self._matrices, request.values)
                case _:
                    self._report(self._answer, request)

    def _report(self, function: Any, *arguments: Any) -> Any:
        # What a model brings about is said, and the next question waited for.
        try:
            return function(*arguments)
        except ClosedError:
            raise
        except (Exception, SystemExit, KeyboardInterrupt) as error:
            traceback.print_exc()
            self._channel.send(Message({"failed": _reason(error), "code": _code(error)}))
        return None, None

    def _confine(self, setup: Mapping[str, Any]) -> tuple[Adapter, Path]:
        adapter = load_adapter(setup["plugin"], setup["adapter"])
        if setup["own_code"]:
            _import_own_code(setup["label"], setup["own_code"], setup["folder"])
        readable = tuple(Path(path) for path in setup["readable"])
        path = Path(setup["model"])
        confine.enter(readable, Path(setup["writable"]), landlock=setup["landlock"])
        # It was 1, to have one thread until here.
        os.environ.pop(THREADS)
        if setup["threads"] is not None:
            os.environ[THREADS] = setup["threads"]
        for module in adapter.imports if setup["frameworks"] else ():
            # Where a framework is missing, the adapter itself says so.
            with contextlib.suppress(ModuleNotFoundError):
                importlib.import_module(module)
        closing = not setup["landlock"] and setup["frameworks"] and adapter.warm_up is not None and path.is_file()
        if closing and adapter.warm_up is not None:
            path = HeldPath.holding(path, path.read_bytes())
            adapter.warm_up(gradients=setup["gradients"])
        limits.limit_memory(setup["memory"])
        if closing:
            confine.close_files()
        result = probe(Path(setup["forbidden"]))
        self._channel.send(Message({"isolation": result.level, "leaks": result.leaks}))
        return adapter, path

    def _open(self, adapter: Adapter, path: Path, values: Mapping[str, Any]) -> None:
        spec = values["expected"]
        expected = None if spec is None else InputSpec(tuple(spec["shape"]), spec["dtype"], spec["layout"])
        options = {**values["options"], "name": values["label"]}
        with flagged(values["flags"]):
            model = open_by(adapter, path, values["label"], expected, options)
        self._tell(None, model)

    def _by_output(self, values: Mapping[str, Any]) -> None:
        self._tell(values["output"], self._of(None).with_output(values["output"]))

    def _tell(self, output: int | None, model: Model) -> None:
        self._models[output] = model
        outputs = model.outputs and model.outputs.to_json()
        facts = {
            "unseen": model.unseen,
            "fixed_batch": model.fixed_batch,
            "outputs": outputs,
            "notes": model.notes,
            "independent": model.independent,
            "parameters": model.parameters,
        }
        self._channel.send(Message({"model": ModelInfo.of(model).to_json(), **facts}))

    def _read(self, adapter: Adapter, path: Path, values: Mapping[str, Any]) -> None:
        if self._weights is not None:
            self._weights.close()
        with flagged(values["flags"]):
            self._weights = read_by(adapter, path, values["label"], values["options"])
        self._channel.send(Message({}))

    def _plan(self, values: Mapping[str, Any]) -> None:
        plan = plan_weights(self._stored(), seed=values["seed"], ancestry=values["ancestry"])
        arrays = plan.arrays("")
        told = {"plan": plain(plan.header()), "shapes": {name: array.shape for name, array in arrays.items()}}
        self._channel.send(Message(told, list(arrays.values())))

    def _sketch(self, request: Message) -> None:
        # The plan is this side's own, of another worker's making, which was checked.
        named = dict(zip(request.values["names"], request.arrays, strict=True))
        plan = WeightPlan.of_header(parse(PlanHeader, request.values["plan"]), named, "")
        made = sketch(self._stored(), plan, victim=request.values["victim"])
        arrays = made.arrays("")
        told = {"sketch": plain(made.header()), "shapes": {name: array.shape for name, array in arrays.items()}}
        self._channel.send(Message(told, list(arrays.values())))

    def _matrices(self, values: Mapping[str, Any]) -> None:
        matrices = read_matrices(self._stored(), values["places"])
        shapes = {str(place): matrix.shape for place, matrix in matrices.items()}
        self._channel.send(Message({"shapes": shapes}, list(matrices.values())))

    def _stored(self) -> StoredWeights:
        if self._weights is None:
            raise ModelError("the weights were not opened")
        return self._weights

    def _of(self, output: int | None) -> Model:
        if output not in self._models:
            raise ModelError("the model was not opened")
        return self._models[output]

    def _answer(self, request: Message) -> None:
        model, values, x = self._of(request.values["output"]), request.values, request.arrays[0]
        names = [list(model.layers)[place] for place in values["layers"]]
        told: dict[str, Any] = {}
        if values["ask"] == "predict":
            arrays = [model.predict(x)]
        elif values["ask"] == "activations":
            outputs = model.activations(x, names)
            arrays = [outputs[name] for name in names]
        elif values["ask"] == "exchange":
            exchange = model.exchange(x, names[0])
            told["exchanged"] = exchange is not None
            arrays = [] if exchange is None else [exchange.own, exchange.other, exchange.mixed]
        else:
            arrays = [model.gradient(x, self._cotangent, layer=names[0] if names else None)]
        # Its first answers may have told.
        told["independent"] = model.independent
        self._channel.send(Message(told, [np.asarray(array, np.float32) for array in arrays]))

    def _cotangent(self, scores: Array, rows: slice) -> Array:
        # The other side computes it, and sends it in place of the next question.
        values = {"rows": [rows.start, rows.stop], "dtype": scores.dtype.name}
        self._channel.send(Message(values, [scores]))
        return self._channel.receive().arrays[0]


def _code(error: BaseException | None) -> str | None:
    if isinstance(error, UsageError):
        return f"{USAGE}{error.code}"
    while error is not None:
        if isinstance(error, MemoryError) or any(word in str(error).lower() for word in _OUT_OF_MEMORY):
            return "out-of-memory"
        error = error.__cause__
    return None


def _reason(error: BaseException) -> str:
    # What a library says may be the model's choice: it is cleaned and cut there, and once more on the other side, which
    # gives the error a code of its own.
    return str(error).removesuffix(f" ({error.code})") if isinstance(error, DeepJudgeError) else first_line(error)


def _import_own_code(label: str, code: str, folder: str) -> None:
    # The user's own, which may lie beside the model: it is imported while it can be, behind all that is installed.
    sys.path.append(folder)
    try:
        OwnCode.parse(code).load()
    except Exception as error:
        raise ModelError(f"{label}: expected {code} to build the network, found {first_line(error)}") from error
    finally:
        sys.path.remove(folder)
