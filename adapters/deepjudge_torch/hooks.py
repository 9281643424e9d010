"""Modules that torch.export cannot export, run as they are and listened to by forward hooks.

Taps are the outputs of torch's own activation and recurrent modules, in the order in which they are called; of an
activation that a max pooling module follows, the output of that. What a module computes by functions
(``torch.relu(x)``) cannot be seen so, nor what happens in scripted or compiled parts.
"""

import contextlib
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from deepjudge_core.errors import ModelError
from deepjudge_core.models.outputs import Choice, Outputs
from deepjudge_core.models.scores import Scores
from deepjudge_core.models.taps import Place
from deepjudge_core.types import Array
from deepjudge_torch.aten import TAKES
from deepjudge_torch.base import (
    ROWS,
    TensorModel,
    are_probabilities,
    as_logits,
    close,
    digest_of,
    example_for,
    exchanged,
    line,
    neurons,
    parameters_of,
    samples,
    spec_of,
)
from deepjudge_torch.outputs import describe, find_scores

# Weights over a set, and no activations.
_WEIGHTING = (nn.LogSoftmax, nn.MultiheadAttention, nn.Softmax, nn.Softmax2d, nn.Softmin)
_MAX_POOLS = (
    *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d),
    *(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d),
)
_HEARD = (
    *_MAX_POOLS,
    nn.RNNBase,
    nn.RNNCellBase,
    *(
        getattr(nn.modules.activation, name)
        for name in nn.modules.activation.__all__
        if getattr(nn, name) not in _WEIGHTING
    ),
)
# The axis of the channels, where there are three axes or more, by the file of torch.nn.modules that a class stands in.
_CHANNELS = {
    **dict.fromkeys(("batchnorm", "conv", "instancenorm", "pixelshuffle", "pooling", "upsampling"), 1),
    **dict.fromkeys(("linear", "rnn", "sparse", "transformer"), -1),
}
_ENDINGS = {
    "log_softmax": Scores.LOG_PROBABILITIES,
    "sigmoid": Scores.SIGMOIDS,
    "softmax": Scores.PROBABILITIES,
}
_LINEAR = {"addmm", "linear", "matmul", "mm"}
_FEW = 2  # rows, to tell their axis from the others


class HookedModel(TensorModel):
    """A module, run as it is, with hooks that are there during a run only.

    Where the answer to an input depends on the others in its batch, each input is a batch of its own.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        name: str,
        digest: str | None,
        batch_size: int | None,
        input_shape: tuple[int, ...],
        output: Choice = None,
    ) -> None:
        """Run the module on examples to see what it calls.

        Args:
            module: The model's own: it is put in evaluation mode, its weights are not to be trained.
            output: The one that holds the scores, by its name or its number.

        Raises:
            ModelError: When it cannot be run, or calls other modules for other inputs; without the name in front.
        """
        for part in module.modules():
            part.training = False
        module.requires_grad_(False)
        self._module, self._input_shape, self._choice = module, input_shape, output
        self._chosen: Outputs | None = None
        self._heard = {key: part for key, part in module.named_modules() if isinstance(part, _HEARD)}
        self.recurrent = any(isinstance(part, nn.RNNBase) for part in self._heard.values())

        example = self._find_example(input_shape)
        rows, first = len(example), next(samples(example, len(example)))
        run = self._probe(first)
        few = None
        if rows > _FEW:  # a module that takes no other number of rows is asked for as many as it takes
            with contextlib.suppress(ModelError):
                few = self._probe(first[:_FEW])
        self._order = run.order
        self._looked_through = run.ending.gave(run.scores)
        ends = run.ending.scores
        if not self._looked_through:
            ends = Scores.LOGITS if run.ending.linear is run.scores else Scores.UNKNOWN
        if not self._looked_through and are_probabilities(run.scores):
            ends = Scores.PROBABILITIES
        self._check_same(run, few, example)
        self._places, self._steps = _find_places(run, few, rows)
        layers = {tap: place.neurons for tap, place in self._places.items()}
        logits = "logits"
        while logits in layers:
            logits += "_"
        mixed = few is not None and not close(few.scores.detach().cpu().numpy(), run.scores[:_FEW].detach().cpu())
        state = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        super().__init__(
            name=name,
            digest=digest or digest_of(f"{type(module).__qualname__} {module}", state),
            dtype=example.dtype,
            device=example.device,
            input=spec_of(example),
            layers={**layers, logits: run.scores.shape[1]},
            scores=ends,
            batch_size=batch_size,
            fixed_batch=1 if mixed else rows if few is None else None,
            outputs=self._chosen,
        )
        self.parameters = parameters_of(state.values())

    def by_output(self, place: int) -> "HookedModel":
        """See :class:`~deepjudge_core.models.batched.BatchedModel`."""
        return HookedModel(
            self._module,
            name=self.name,
            digest=self.digest,
            batch_size=self._batch_size,
            input_shape=self._input_shape,
            output=place + 1,
        )

    def run(self, x: torch.Tensor, layers: Sequence[str] | None) -> Sequence[torch.Tensor]:
        """See :class:`TensorModel`."""
        return self._run(x, layers, {})

    def run_mixed(self, x: torch.Tensor, layer: str, order: Array) -> torch.Tensor | None:
        """See :class:`TensorModel`."""
        (scores,) = self._run(x, [self.logits], {layer: order})
        return scores

    def _run(
        self, x: torch.Tensor, layers: Sequence[str] | None, orders: Mapping[str, Array]
    ) -> Sequence[torch.Tensor]:
        # With the rows of some taps in another order.
        rows, names = len(x), set(layers or ())
        order: list[str] = []
        outputs: dict[str, torch.Tensor] = {}

        def note(call: "_Call") -> Mapping[str, torch.Tensor]:
            order.append(call.key)
            for tap, tensor in call.outputs.items():
                if tap in names:
                    place = self._places[tap]
                    step = self._steps.get(tap)
                    # At once: an operation in place further on may overwrite it.
                    value = tensor if step is None else tensor.narrow(*step, 1)
                    outputs[tap] = neurons(value, rows, place.rows, place.channel)
            return {
                tap: exchanged(tensor, self._places[tap].rows, orders[tap])
                for tap, tensor in call.outputs.items()
                if tap in orders
            }

        with _listening(self._heard, note), _Ending() as ending:
            scores = find_scores(self._module(x), rows, None if self._chosen is None else self._chosen.place)
        if order != self._order or (self._looked_through and not ending.gave(scores)):
            raise ModelError(
                f"{self.name}: expected a module that calls {', '.join(self._order) or 'no activation'} "
                f"for every input, as when it was opened, found {', '.join(order) or 'none'}"
            )
        if layers is None:
            return [neurons(scores, rows, 0, 1)]
        if self._looked_through:
            scores = ending.logits.reshape(scores.shape)
        scores = neurons(scores, rows, 0, 1)
        if self._scores is Scores.PROBABILITIES and not self._looked_through:
            scores = as_logits(scores)
        return [outputs.get(tap, scores) for tap in layers]

    def _find_example(self, input_shape: tuple[int, ...]) -> torch.Tensor:
        # Of a number of rows that the module takes.
        failures = []
        for rows in (ROWS, 1):
            example = example_for(self._module, input_shape, rows)
            try:
                self._probe(next(samples(example, rows)))
            except ModelError as error:
                failures.append(error)
            else:
                return example
        raise failures[0]

    def _probe(self, x: torch.Tensor) -> "_Run":
        calls: list[_Call] = []
        parts = {key: part for key, part in self._module.named_modules() if key in self._heard or _channel_of(part)}
        watched = _Indexing()
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            _listening(parts, calls.append),
            _Ending() as ending,
            watched,
        ):
            leaf = x.clone()
            inputs = leaf.requires_grad_().clone() if leaf.dtype.is_floating_point else leaf
            try:
                answer = self._module(inputs)
                self._chosen = self._chosen or Outputs.of(describe(answer, len(x)), self._choice)
                scores = find_scores(answer, len(x), self._chosen.place)
            except ModelError as error:
                raise ModelError(f"expected a model that gives {str(error).removeprefix('expected ')}") from error
            except Exception as error:
                raise ModelError(f"it cannot be run on them: {line(error)}") from error
        return _Run(scores, ending, calls, watched.tensors)

    def _check_same(self, run: "_Run", few: "_Run | None", example: torch.Tensor) -> None:
        # One after the other: what a run keeps may be large.
        others = (self._probe(x) for x in samples(example, len(example)))
        for at, other in enumerate(others if few is None else itertools.chain(others, [few])):
            if at == 0 and not close(other.scores.detach().cpu().numpy(), run.scores.detach().cpu()):
                raise ModelError("it gives other outputs for the same inputs the second time")
            if (
                other.order != self._order
                or other.scores.shape[1] != run.scores.shape[1]
                or (self._looked_through and not other.ending.gave(other.scores))
            ):
                raise ModelError("it calls other activation modules, or gives other outputs, for other inputs")


@dataclass(frozen=True)
class _Call:
    """One call of a module.

    Attributes:
        key: The module's name, and which of its calls this is.
        part: The module.
        input: The tensor that it was given.
        outputs: What it gave, by names that taps may have.
    """

    key: str
    part: nn.Module
    input: torch.Tensor | None
    outputs: dict[str, torch.Tensor]


@dataclass(frozen=True)
class _Run:
    """What a module did: its scores, the last softmax, the calls of its parts, the tensors that it took places of."""

    scores: torch.Tensor
    ending: "_Ending"
    calls: list[_Call]
    indexed: list[torch.Tensor]

    @property
    def order(self) -> list[str]:
        """The activations and recurrent layers that were called."""
        return [call.key for call in self.calls if isinstance(call.part, _HEARD)]


class _Ending(TorchFunctionMode):  # type: ignore[misc]  # torch ships no types here
    """Keeps what went into the last softmax or sigmoid, be it called as a module or as a function.

    And what the last layer of weights gave, unless it was given the result of one of these.
    """

    def __init__(self) -> None:
        super().__init__()
        self.linear: torch.Tensor | None = None
        self.scores = Scores.LOGITS
        self.logits = self.result = torch.empty(0)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """See :class:`TorchFunctionMode`."""
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        scores = _ENDINGS.get(name.removesuffix("_"))
        if scores is None:
            result = func(*args, **kwargs)
            if name in _LINEAR:
                self.linear = None if any(value is self.result for value in args) else result
            return result
        operand = args[0] if args else kwargs["input"]
        if name.endswith("_"):
            operand = operand.clone()
        self.result = func(*args, **kwargs)
        self.logits, self.scores = operand, scores
        return self.result

    def gave(self, scores: torch.Tensor) -> bool:
        """Whether these are its result, perhaps in another shape."""
        if self.result.numel() != scores.numel():
            return False
        if scores.shape[1] == 1 and self.result.untyped_storage().data_ptr() != scores.untyped_storage().data_ptr():
            return False  # it may be limited afterwards, and so the same for some inputs: its values tell as much
        return bool(torch.allclose(self.result.reshape(scores.shape), scores, equal_nan=True))


class _Indexing(TorchFunctionMode):  # type: ignore[misc]  # torch ships no types here
    """Notes the tensors of which some places are taken, as of a sequence the last step."""

    def __init__(self) -> None:
        super().__init__()
        self.tensors: list[torch.Tensor] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """See :class:`TorchFunctionMode`."""
        if getattr(func, "__name__", "") in ("__getitem__", *TAKES):
            self.tensors.extend(args[:1])
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def _listening(
    parts: Mapping[str, nn.Module], note: Callable[[_Call], Mapping[str, torch.Tensor] | None]
) -> Iterator[None]:
    # Calls of the parts are noted as they happen; what is noted may be other outputs, by their names.
    times: Counter[str] = Counter()

    def hook(name: str, part: nn.Module, arguments: Any, output: Any) -> Any:
        times[name] += 1
        key = name or type(part).__name__
        if times[name] > 1:
            key += f":{times[name]}"
        tensors = _tensors(output)
        names = [key, *(f"{key}[{item}]" for item in range(1, len(tensors)))]
        if isinstance(part, nn.RNNBase):  # its states come before its sequence, as in other formats
            tensors, names = [*tensors[1:], tensors[0]], [*names[1:], key]
        inputs = _tensors(arguments)
        outputs = dict(zip(names, tensors, strict=False))
        others = note(_Call(key, part, inputs[0] if inputs else None, outputs)) or {}
        changed = {id(outputs[tap]): tensor for tap, tensor in others.items()}
        return pytree.tree_map(lambda leaf: changed.get(id(leaf), leaf), output) if changed else None

    handles = []
    try:
        for name, part in parts.items():
            handles.append(part.register_forward_hook(partial(hook, name)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _tensors(value: Any) -> list[torch.Tensor]:
    return [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, torch.Tensor)]


def _find_places(run: _Run, few: _Run | None, rows: int) -> tuple[dict[str, Place], dict[str, tuple[int, int]]]:
    # Of the taps: what activations gave, where the scores depend on it and it has rows and channels. And for those
    # that are sequences, of which the module goes on with one step alone, the axis of time and that step.
    logits = run.ending.result if run.ending.gave(run.scores) else run.scores
    candidates = {
        tap: (at, tensor)
        for at, call in enumerate(run.calls)
        if isinstance(call.part, _HEARD)
        for tap, tensor in call.outputs.items()
        if tensor is not logits and tensor is not run.scores and not tensor.is_complex()
    }
    pooled = {
        tap
        for tap, (at, tensor) in candidates.items()
        if not isinstance(run.calls[at].part, nn.RNNBase) and _is_pooled(run.calls, at, tensor)
    }
    candidates = {
        tap: (at, tensor)
        for tap, (at, tensor) in candidates.items()
        if tap not in pooled and (not isinstance(run.calls[at].part, _MAX_POOLS) or _pools(run.calls, at, pooled))
    }
    gradients = _gradients(run.scores, {tap: tensor for tap, (_, tensor) in candidates.items()})
    smaller = {} if few is None else {tap: tensor for call in few.calls for tap, tensor in call.outputs.items()}
    places, steps = {}, {}
    for tap, (at, tensor) in candidates.items():
        batch = _find_rows(tensor, smaller.get(tap), rows, run.calls[at].part)
        channel = _find_channel(run.calls, at, tensor)
        unused = tap in gradients and gradients[tap] is None
        if unused or batch is None or batch == channel:
            continue
        places[tap] = Place(batch, channel, tensor.shape[channel])
        gradient = gradients.get(tap)
        recurrent = isinstance(run.calls[at].part, nn.RNNBase) and tensor.ndim == 3
        if recurrent and gradient is not None and any(_same(tensor, indexed) for indexed in run.indexed):
            used = gradient.abs().sum((batch, channel)).nonzero()
            if len(used) == 1:
                steps[tap] = (3 - batch - channel, int(used))
    return places, steps


def _is_pooled(calls: Sequence[_Call], at: int, tensor: torch.Tensor) -> bool:
    # Whether max pooling alone uses the output of a call, as far as modules tell.
    users = [call.part for call in calls[at + 1 :] if call.input is tensor]
    return len(users) == 1 and isinstance(users[0], _MAX_POOLS)


def _pools(calls: Sequence[_Call], at: int, activations: set[str]) -> bool:
    return any(
        tensor is calls[at].input for call in calls[:at] for tap, tensor in call.outputs.items() if tap in activations
    )


def _same(tensor: torch.Tensor, other: torch.Tensor) -> bool:
    # Whether they hold the same numbers, perhaps with their axes in another order.
    same = tensor.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()
    return bool(same and tensor.numel() == other.numel())


def _gradients(scores: torch.Tensor, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor | None]:
    # Of the scores, as far as autograd can tell; None for those that they do not depend on.
    differentiable = {tap: tensor for tap, tensor in tensors.items() if tensor.requires_grad}
    if not scores.requires_grad or not differentiable:
        return {}
    # Not of their sum, which is always 1 after a softmax.
    each = torch.linspace(1, 2, scores.shape[1]).to(scores).expand_as(scores)
    gradients = torch.autograd.grad(scores, list(differentiable.values()), each, allow_unused=True)
    return dict(zip(differentiable, gradients, strict=True))


def _find_rows(tensor: torch.Tensor, smaller: torch.Tensor | None, rows: int, part: nn.Module) -> int | None:
    shape = tuple(tensor.shape)
    if smaller is None:  # a fixed number of rows
        likely = 1 if isinstance(part, nn.RNNBase) and not part.batch_first else 0
        return next((axis for axis in (likely, *range(len(shape))) if axis < len(shape) and shape[axis] == rows), None)
    if len(shape) != smaller.ndim:
        return None
    for axis, (many, few) in enumerate(zip(shape, smaller.shape, strict=True)):
        if (many, few) == (rows, _FEW):
            return axis
    # (rows, time, ...) reshaped to (rows * time, ...)
    return 0 if shape and shape[0] * _FEW == smaller.shape[0] * rows else None


def _find_channel(calls: Sequence[_Call], at: int, tensor: torch.Tensor) -> int:
    # As the part has it that made the tensor, the last one that made one of its shape, or one of its rank.
    rank = int(tensor.ndim)
    if rank <= 2:
        return rank - 1
    before = [call for call in calls[: at + 1][::-1] if _channel_of(call.part)]
    same: list[Callable[[torch.Tensor], bool]] = [
        lambda output: output is calls[at].input or output is tensor,
        lambda output: output.shape == tensor.shape,
        lambda output: output.ndim == rank,
    ]
    for test in same:
        for call in before:
            if any(test(output) for output in call.outputs.values()):
                return _channel_of(call.part) % rank
    return rank - 1 if rank == 3 else 1


def _channel_of(part: nn.Module) -> int:
    # 0 where it says nothing.
    if isinstance(part, nn.LayerNorm | nn.RMSNorm):
        return -1 if len(part.normalized_shape) == 1 else 0
    if isinstance(part, nn.GroupNorm | nn.LocalResponseNorm):
        return 1
    files = [cls.__module__.removeprefix("torch.nn.modules.") for cls in type(part).__mro__]
    return next((_CHANNELS[file] for file in files if file in _CHANNELS), 0)
