"""TorchScript as the core sees it: converted to an exported program, or run as it is where that cannot be done."""

import contextlib
import functools
import io
import re
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.fx.experimental.proxy_tensor import make_fx

from deepjudge_core.errors import ModelError
from deepjudge_core.models.adapters import prefixed
from deepjudge_core.models.outputs import Choice, Outputs
from deepjudge_core.models.scores import Scores
from deepjudge_core.text import shortened
from deepjudge_torch.base import (
    ROWS,
    TensorModel,
    are_probabilities,
    as_logits,
    close,
    digest_of,
    example_for,
    line,
    neurons,
    parameters_of,
    quiet,
    samples,
    spec_of,
)
from deepjudge_torch.model import TorchModel, export_module
from deepjudge_torch.outputs import describe, find_scores

_LOGITS = "logits"


def open_script(
    source: Path | torch.jit.ScriptModule,
    *,
    name: str,
    batch_size: int | None,
    input_shape: tuple[int, ...] | None,
    output: Choice = None,
    digest: str | None = None,
    device: str | None = None,
) -> TensorModel:
    """Open a file of ``torch.jit.save``, or a live scripted or traced module, of which a copy is taken.

    It is converted to an exported program, with all that this gives. A program whose outputs are not the script's own
    is never used: where no conversion succeeds, the script itself is run; then only its logits can be seen, and a
    warning says why.

    ``torch.jit.load`` is not safe: a file can hold code that runs. Do not open files of people who may attack you.

    Args:
        input_shape: Of one input, without the batch axis; traced modules may say it themselves.
        output: The one that holds the scores, by its name or its number.
        digest: Of the file.
        device: Where it runs; by default a file on the CPU, and a live module where it is.

    Raises:
        ModelError: When it cannot be opened as a classifier.
    """
    with _undeprecated():
        # It is converted on the CPU: a trace names the device that it was made on.
        module, traced = _load(source, name, None if device is None else "cpu")
        digest = digest or _digest(source)
        example = _find_example(module, name, input_shape, traced)
        with torch.no_grad():
            outputs = describe(module(next(samples(example, len(example)))), len(example))
        with prefixed(name):
            chosen = Outputs.of(outputs, output)
        reasons = []
        for convert in (_by_converter, _by_tracing):
            try:
                program = convert(module, example)
                names = [one.name for one in outputs]
                opened = functools.partial(
                    TorchModel,
                    program,
                    name=name,
                    digest=digest,
                    batch_size=batch_size,
                    shared=True,
                    output=chosen.place + 1,
                    names=names,
                )
                model = opened()
                if _agree(model, module, example, chosen):
                    model = model if device in (None, "cpu") else opened(device=device)
                    model.outputs = chosen
                    return model
            except Exception as error:
                reasons.append(line(error))
                continue
            reasons.append("the converted program gives other outputs")
    warnings.warn(
        f"{name}: its layers cannot be seen, only its logits: expected TorchScript that can be "
        f"converted to a torch.export program, found {reasons[0]}",
        UserWarning,
        stacklevel=2,
    )
    unseen = f"expected TorchScript that can be converted to a torch.export program, found {reasons[0]}"
    if device is not None:
        module, example = module.to(device), example.to(device)
    return ScriptModel(module, example, name=name, digest=digest, batch_size=batch_size, outputs=chosen, unseen=unseen)


class ScriptModel(TensorModel):
    """TorchScript, run as it is; the one tap is the logits.

    Where the answer to an input depends on the others in its batch, each input is a batch of its own.
    """

    # Whether there is a recurrent layer cannot be seen.
    recurrent = True

    def __init__(
        self,
        module: torch.jit.ScriptModule,
        example: torch.Tensor,
        *,
        name: str,
        digest: str,
        batch_size: int | None,
        outputs: Outputs,
        unseen: str,
    ) -> None:
        """Run the module on examples to see what it gives.

        Args:
            module: The model's own.
            example: An input that it takes.
            outputs: What it gives.
            unseen: Why nothing else of it can be seen.
        """
        self._module, self._example, self._chosen = module, example, outputs
        self.unseen = self._unseen = unseen
        place = outputs.place
        rows = len(example)
        with torch.no_grad():
            scores = [find_scores(module(x.clone()), rows, place) for x in samples(example, rows)]
            if rows == ROWS:
                pairs = [find_scores(module(x[:2]), 2, place) for x in samples(example, rows)]
                alone = all(close(a.cpu().numpy(), b[:2].cpu()) for a, b in zip(pairs, scores, strict=True))
                rows = 0 if alone else 1
        # The module's last operation is not known, but what it gives is.
        probabilities = all(are_probabilities(one) for one in scores)
        super().__init__(
            name=name,
            digest=digest,
            dtype=example.dtype,
            device=example.device,
            input=spec_of(example),
            layers={_LOGITS: scores[0].shape[1]},
            scores=Scores.PROBABILITIES if probabilities else Scores.UNKNOWN,
            batch_size=batch_size,
            fixed_batch=rows or None,
            outputs=outputs,
        )
        self.parameters = parameters_of([*module.parameters(), *module.buffers()])

    def by_output(self, place: int) -> "ScriptModel":
        """See :class:`~deepjudge_core.models.batched.BatchedModel`."""
        return ScriptModel(
            self._module,
            self._example,
            name=self.name,
            digest=self.digest,
            batch_size=self._batch_size,
            outputs=self._chosen.by(place),
            unseen=self._unseen,
        )

    def run(self, x: torch.Tensor, layers: Sequence[str] | None) -> Sequence[torch.Tensor]:
        """See :class:`TensorModel`."""
        scores = neurons(find_scores(self._module(x), len(x), self._chosen.place), len(x), 0, 1)
        if layers is None:
            return [scores]
        return [as_logits(scores) if self._scores is Scores.PROBABILITIES else scores] * len(layers)


def read_state(path: Path, name: str) -> dict[str, torch.Tensor]:
    """The weights in a file of TorchScript, which is loaded and not run; code in it may run, as when it is opened.

    Raises:
        ModelError: When it cannot be loaded.
    """
    with _undeprecated():
        return dict(_loaded(path, name, "cpu")[0].state_dict())


def _load(
    source: Path | torch.jit.ScriptModule, name: str, device: str | None
) -> tuple[torch.jit.ScriptModule, torch.Tensor | None]:
    # The module, and what it was traced with.
    module, inputs = _loaded(source, name, device)
    if len(inputs) != 1:
        names = shortened(", ".join(value.debugName().removesuffix(".1") for value in inputs))
        raise ModelError(f"{name}: expected one input, found {len(inputs)}: {names or 'none used'}")
    kind = inputs[0].type()
    complete = isinstance(kind, torch._C.TensorType) and kind.sizes() and kind.dtype()
    return module, torch.zeros(kind.sizes(), dtype=kind.dtype()) if complete else None


def _loaded(
    source: Path | torch.jit.ScriptModule, name: str, device: str | None
) -> tuple[torch.jit.ScriptModule, list[Any]]:
    # The module and its inputs, on a device, or where a live module is.
    try:
        if isinstance(source, Path):
            with source.open("rb") as file:
                with zipfile.ZipFile(file) as archive:
                    traced = any(path.endswith("/traced_inputs.pkl") for path in archive.namelist())
                file.seek(0)
                module = torch.jit.load(file, map_location="cpu", _restore_shapes=traced)
        else:
            module = _copy(source, device)
        # Modules without such a flag, frozen ones say, are what they are.
        with contextlib.suppress(AttributeError, RuntimeError):
            module.eval()
        return module, list(module.graph.inputs())[1:]
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"{name}: expected TorchScript, found a file that torch {torch.__version__} cannot load: {line(error)}"
        ) from error


def _digest(module: torch.jit.ScriptModule) -> str:
    # Without lines of source, nor names that depend on what else was scripted in this process.
    graph = torch._C._jit_pass_canonicalize(module.inlined_graph, False).str(False)
    return digest_of(re.sub(r"\.?___torch_mangle_\d+", "", graph), module.state_dict())


def _copy(module: torch.jit.ScriptModule, device: str | None) -> torch.jit.ScriptModule:
    # Through a file: what copy.deepcopy makes has weights that are no leaves.
    buffer = io.BytesIO()
    torch.jit.save(module, buffer)
    buffer.seek(0)
    return torch.jit.load(buffer, map_location=device)


def _find_example(
    module: torch.jit.ScriptModule, name: str, input_shape: tuple[int, ...] | None, traced: torch.Tensor | None
) -> torch.Tensor:
    # Of a number of rows that the module takes: any, if it can be.
    if input_shape is None:
        if traced is None:
            raise ModelError(
                f"{name}: expected the input shape, found none in the script; give input_shape=(1, 28, 28)"
            )
        input_shape = tuple(traced.shape[1:])
    shape = tuple(input_shape)
    example = example_for(module, shape)
    example = example.to(_dtype(module, example.dtype) if traced is None else traced.dtype)
    failures: list[ModelError] = []
    for rows in dict.fromkeys((ROWS, 1 if traced is None else len(traced), 1)):
        tried = torch.zeros(rows, *shape, dtype=example.dtype, device=example.device)
        try:
            with torch.no_grad():
                find_scores(module(tried.clone()), rows)
        except ModelError as error:
            failures.append(error)
        except Exception as error:
            failure = ModelError(f"expected a model that takes inputs of shape {shape}, found {_last(error)}")
            failure.__cause__ = error
            failures.append(failure)
        else:
            return tried
    raise ModelError(f"{name}: {failures[0]}") from failures[0].__cause__


def _dtype(module: torch.jit.ScriptModule, default: torch.dtype) -> torch.dtype:
    # Of the weights, which in a frozen module are constants of its graph.
    if next(module.parameters(), None) is None:
        graph = module.inlined_graph  # its nodes live no longer than it does
        for node in graph.findAllNodes("prim::Constant"):
            if node.hasAttribute("value") and node.kindOf("value") == "t" and node.t("value").is_floating_point():
                return node.t("value").dtype
    return default


def _last(error: Exception) -> str:
    # The interpreter's errors say where something happened, then what.
    lines = [text for text in str(error).splitlines() if text.strip()]
    return shortened(lines[-1]) if lines else line(error)


def _by_converter(module: torch.jit.ScriptModule, example: torch.Tensor) -> ExportedProgram:
    # For any number of rows, where the module can do with that.
    from torch._export.converter import TS2EPConverter

    class Converter(TS2EPConverter):  # type: ignore[misc]  # torch ships no types
        def retrace_as_exported_program(self, gm: fx.GraphModule, name_to_constant: Any) -> ExportedProgram:
            # torch's own leaves all axes open, not only the rows, and cannot do with less.
            return export_module(gm, example)

    with warnings.catch_warnings(), quiet("torch._export.converter"):
        # What it is unsure of shows in the outputs, which are compared.
        for unsure in (
            r"Converting aten::append\.t, which is an inplace mutation",
            r"Manually populate .* into state_dict ExportedProgram",
            r"Pred is a Python constant\. When used with torch\.cond",
        ):
            warnings.filterwarnings("ignore", unsure, UserWarning)
        return Converter(module, (example.clone(),)).convert()


def _by_tracing(module: torch.jit.ScriptModule, example: torch.Tensor) -> ExportedProgram:
    # What the script calls for this many rows. It fails where this depends on the values of the input.
    traced = make_fx(module.forward, pre_dispatch=True, tracing_mode="real", _allow_non_fake_inputs=True)
    return export_module(traced(example.clone()), example, rows_too=False)


def _agree(model: TorchModel, module: torch.jit.ScriptModule, example: torch.Tensor, outputs: Outputs) -> bool:
    # In each output that can be scores.
    rows = len(example)
    models = {place: model if place == outputs.place else model.by_output(place) for place in outputs.tables}
    for x in samples(example, rows):
        with torch.no_grad():
            answer = module(x.clone())
        inputs = x.float().cpu().numpy()
        for place, other in models.items():
            expected = find_scores(answer, rows, place).cpu()
            # Another number of rows gives the same, too.
            if not all(close(other.own_scores(inputs[:part]), expected[:part]) for part in {2, rows}):
                return False
    return True


@contextlib.contextmanager
def _undeprecated() -> Iterator[None]:
    # The user's file is of the old kind; that torch says so helps nobody.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is (deprecated|not supported)", DeprecationWarning)
        yield
