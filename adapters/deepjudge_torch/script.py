"""TorchScript as the core sees it: converted to an exported program, or run as it is where that cannot be done."""

import contextlib
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
from deepjudge_core.models.model import Scores
from deepjudge_core.text import shortened
from deepjudge_torch.base import (
    ROWS,
    TensorModel,
    are_probabilities,
    as_logits,
    close,
    digest_of,
    example_for,
    find_scores,
    line,
    neurons,
    quiet,
    samples,
    spec_of,
)
from deepjudge_torch.files import identify
from deepjudge_torch.model import TorchModel, export_module

_LOGITS = "logits"


def open_script(
    source: Path | torch.jit.ScriptModule,
    *,
    name: str,
    batch_size: int | None,
    input_shape: tuple[int, ...] | None,
) -> TensorModel:
    """Open a file of ``torch.jit.save``, or a live scripted or traced module, of which a copy is taken.

    It is converted to an exported program, with all that this gives. A program whose outputs are not the script's own
    is never used: where no conversion succeeds, the script itself is run; then only its logits can be seen, and a
    warning says why.

    ``torch.jit.load`` is not safe: a file can hold code that runs. Do not open files of people who may attack you.

    Args:
        input_shape: Of one input, without the batch axis; traced modules may say it themselves.

    Raises:
        ModelError: When it cannot be opened as a classifier.
    """
    with _undeprecated():
        module, digest, traced = _load(source, name)
        example = _find_example(module, name, input_shape, traced)
        reasons = []
        for convert in (_by_converter, _by_tracing):
            try:
                program = convert(module, example)
                model = TorchModel(program, name=name, digest=digest, batch_size=batch_size, shared=True)
            except Exception as error:
                reasons.append(line(error))
                continue
            if _agree(model, module, example):
                return model
            reasons.append("the converted program gives other outputs")
    warnings.warn(
        f"{name}: its layers cannot be seen, only its logits: expected TorchScript that can be converted to a program "
        f"of torch.export, found {reasons[0]}",
        UserWarning,
        stacklevel=2,
    )
    unconverted = ScriptModel(module, example, name=name, digest=digest, batch_size=batch_size)
    unconverted.unseen = f"expected TorchScript that can be converted to a program of torch.export, found {reasons[0]}"
    return unconverted


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
    ) -> None:
        """Run the module on examples to see what it gives.

        Args:
            module: The model's own.
            example: An input that it takes.
        """
        self._module = module
        rows = len(example)
        with torch.no_grad():
            outputs = [find_scores(module(x.clone()), rows) for x in samples(example, rows)]
            if rows == ROWS:
                pairs = [find_scores(module(x[:2]), 2) for x in samples(example, rows)]
                alone = all(close(a.cpu().numpy(), b[:2].cpu()) for a, b in zip(pairs, outputs, strict=True))
                rows = 0 if alone else 1
        # The module's last operation is not known, but what it gives is.
        probabilities = all(are_probabilities(output) for output in outputs)
        super().__init__(
            name=name,
            digest=digest,
            dtype=example.dtype,
            device=example.device,
            input=spec_of(example),
            layers={_LOGITS: outputs[0].shape[1]},
            scores=Scores.PROBABILITIES if probabilities else Scores.UNKNOWN,
            batch_size=batch_size,
            fixed_batch=rows or None,
        )

    def run(self, x: torch.Tensor, layers: Sequence[str] | None) -> Sequence[torch.Tensor]:
        """See :class:`TensorModel`."""
        scores = neurons(find_scores(self._module(x), len(x)), len(x), 0, 1)
        if layers is None:
            return [scores]
        return [as_logits(scores) if self._scores is Scores.PROBABILITIES else scores] * len(layers)


def _load(source: Path | torch.jit.ScriptModule, name: str) -> tuple[torch.jit.ScriptModule, str, torch.Tensor | None]:
    # The module, its digest, and what it was traced with.
    try:
        if isinstance(source, Path):
            digest = identify(source, name, "TorchScript")[1]
            with source.open("rb") as file:
                with zipfile.ZipFile(file) as archive:
                    traced = any(path.endswith("/traced_inputs.pkl") for path in archive.namelist())
                file.seek(0)
                module = torch.jit.load(file, map_location="cpu", _restore_shapes=traced)
        else:
            digest = _digest(source)
            module = _copy(source)
        # Modules without such a flag, frozen ones say, are what they are.
        with contextlib.suppress(AttributeError, RuntimeError):
            module.eval()
        inputs = list(module.graph.inputs())[1:]
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"{name}: expected TorchScript, found some that torch {torch.__version__} cannot load: {line(error)}"
        ) from error
    if len(inputs) != 1:
        names = shortened(", ".join(value.debugName().removesuffix(".1") for value in inputs))
        raise ModelError(f"{name}: expected one input, found {len(inputs)}: {names or 'none used'}")
    kind = inputs[0].type()
    complete = isinstance(kind, torch._C.TensorType) and kind.sizes() and kind.dtype()
    return module, digest, torch.zeros(kind.sizes(), dtype=kind.dtype()) if complete else None


def _digest(module: torch.jit.ScriptModule) -> str:
    # Without lines of source, nor names that depend on what else was scripted in this process.
    graph = torch._C._jit_pass_canonicalize(module.inlined_graph, False).str(False)
    return digest_of(re.sub(r"\.?___torch_mangle_\d+", "", graph), module.state_dict())


def _copy(module: torch.jit.ScriptModule) -> torch.jit.ScriptModule:
    # Through a file: what copy.deepcopy makes has weights that are no leaves.
    buffer = io.BytesIO()
    torch.jit.save(module, buffer)
    buffer.seek(0)
    return torch.jit.load(buffer)


def _find_example(
    module: torch.jit.ScriptModule, name: str, input_shape: tuple[int, ...] | None, traced: torch.Tensor | None
) -> torch.Tensor:
    # Of a number of rows that the module takes: any, if it can be.
    if input_shape is None:
        if traced is None:
            raise ModelError(
                f"{name}: expected the shape of one input, found none in the script: input_shape=(1, 28, 28)"
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


def _agree(model: TorchModel, module: torch.jit.ScriptModule, example: torch.Tensor) -> bool:
    rows = len(example)
    for x in samples(example, rows):
        with torch.no_grad():
            expected = find_scores(module(x.clone()), rows).cpu()
        inputs = x.float().cpu().numpy()
        # Another number of rows gives the same, too.
        if not all(close(model.outputs(inputs[:part]), expected[:part]) for part in {2, rows}):
            return False
    return True


@contextlib.contextmanager
def _undeprecated() -> Iterator[None]:
    # The user's file is of the old kind; that torch says so helps nobody.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is (deprecated|not supported)", DeprecationWarning)
        yield
