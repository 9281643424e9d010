"""What all kinds of PyTorch models share: how torch runs them, takes their gradients, says what went wrong."""

import abc
import contextlib
import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from deepjudge_core.errors import ModelError
from deepjudge_core.models.batched import BatchedModel
from deepjudge_core.models.input_spec import InputSpec
from deepjudge_core.models.model import Access
from deepjudge_core.models.places import spread
from deepjudge_core.text import shortened
from deepjudge_core.types import Array

# Rows of an example: two or more, since one is taken for a constant; a number that no other axis is likely to have, so
# that the two are not taken for one. Modules that cannot be exported for any number get this one.
ROWS = 17


_QUANTISED = (torch.int8, torch.uint8)


def parameters_of(state: Iterable[object]) -> int | None:
    """How many real numbers the weights of a state hold; None where some are quantised, beside which there are scales.

    A state can also hold the graphs of branches and loops, which are no weights of their own.
    """
    whole = [weight for weight in state if isinstance(weight, torch.Tensor) and weight.ndim]
    if any(weight.is_quantized or weight.dtype in _QUANTISED for weight in whole):
        return None
    return sum(int(weight.numel()) for weight in whole if weight.is_floating_point())


class TensorModel(BatchedModel):
    """A model that torch runs: arrays become tensors, and autograd gives the gradients."""

    # Of torch's own recurrent layers, whose backward pass cuDNN has in training only.
    recurrent = False

    def __init__(self, *, dtype: torch.dtype, device: torch.device | str, input: InputSpec, **described: Any) -> None:
        """Describe the model.

        Args:
            dtype: Of the tensors that it takes.
            device: Where they have to be.
            described: As :class:`BatchedModel` has it.
        """
        self.dtype, self.device = dtype, torch.device(device)
        access = Access.FULL if dtype.is_floating_point else Access.WHITE_BOX
        super().__init__(framework="torch", access=access, input=input, **described)

    @abc.abstractmethod
    def run(self, x: torch.Tensor, layers: Sequence[str] | None) -> Sequence[torch.Tensor]:
        """The ``(rows, neurons)`` outputs at each tap, or the model's own output for None; ``x`` may be changed."""

    def forward(self, x: Array, layers: Sequence[str] | None) -> list[Array]:
        """See :class:`BatchedModel`."""
        with self.inferring():
            return [output.cpu().numpy() for output in self.run(self.tensor(x), layers)]

    def backward(self, x: Array, cotangent: Callable[[Array], Array], layer: str) -> Array:
        """See :class:`BatchedModel`."""
        if Access.GRADIENTS not in self.access:
            raise ModelError(f"{self.name}: expected real-valued inputs for gradients, found {self.input.dtype}")
        with self.differentiable():
            leaf = torch.as_tensor(x, dtype=self.dtype, device=self.device).requires_grad_()
            # A copy, for models that begin with an operation in place, and arrays that are somebody else's.
            (scores,) = self.run(leaf.clone(), [layer])
            if not scores.requires_grad:
                raise ModelError(f"{self.name}: expected a gradient of {layer!r} at the input, found none")
            cotangents = torch.from_numpy(cotangent(scores.detach().cpu().numpy()))
            (gradient,) = torch.autograd.grad(scores, leaf, cotangents.to(scores.device))
        return np.asarray(gradient.float().cpu().numpy())

    def run_mixed(self, x: torch.Tensor, layer: str, order: Array) -> torch.Tensor | None:
        """Those at the last tap, where rows have other rows' numbers at a tap; see :class:`BatchedModel`."""
        return None

    def mixed(self, x: Array, layer: str, order: Array) -> Array | None:
        """See :class:`BatchedModel`."""
        with self.inferring():
            scores = self.run_mixed(self.tensor(x), layer, order)
        return None if scores is None else np.asarray(scores.cpu().numpy())

    @contextlib.contextmanager
    def inferring(self) -> Iterator[None]:
        """Have torch note nothing."""
        with torch.inference_mode(), exact(self.device):
            yield

    @contextlib.contextmanager
    def differentiable(self) -> Iterator[None]:
        """Have torch note what it needs for gradients."""
        plain = torch.backends.cudnn.flags(enabled=False) if self.recurrent else exact(self.device)
        with torch.inference_mode(False), torch.enable_grad(), plain:
            yield

    def own_scores(self, x: Array) -> Array:
        """The model's own scores ``(n, scores)``, before anything is made of them."""
        return np.concatenate([self.forward(b, None)[0][: r.stop - r.start] for b, r in self._batches(x)])

    def tensor(self, x: Array) -> torch.Tensor:
        """A batch as the model takes it."""
        # A copy always: models may work in place, and arrays may be read-only.
        return torch.tensor(x, dtype=self.dtype, device=self.device)


def exact(device: torch.device) -> contextlib.AbstractContextManager[None]:
    """Compute with all bits of a number: on a GPU, convolutions by default drop 13 of the 23 after the point."""
    if device.type != "cuda":
        return contextlib.nullcontext()
    now = torch.backends.cudnn
    flags: contextlib.AbstractContextManager[None] = now.flags(
        enabled=now.enabled, benchmark=now.benchmark, deterministic=now.deterministic, allow_tf32=False
    )
    return flags


def neurons(tensor: torch.Tensor, rows: int, batch: int, channel: int, unflattened: Sequence[int] = ()) -> torch.Tensor:
    """Average over all axes but those of the rows and of the neurons: ``(rows, neurons)``, float32 at least."""
    if unflattened:
        tensor = tensor.reshape(rows, *unflattened)
    moved = tensor.movedim((batch, channel), (0, -1)).reshape(rows, -1, tensor.shape[channel])
    return moved.mean(1, dtype=torch.promote_types(tensor.dtype, torch.float32))


def exchanged(tensor: torch.Tensor, axis: int, order: Array) -> torch.Tensor:
    """A tensor whose rows, along an axis, have the numbers of other rows: ``(rows,)`` whose."""
    places = spread(order, tensor.shape[axis] // len(order))
    return tensor.index_select(axis, torch.from_numpy(places).to(tensor.device))


def are_probabilities(scores: torch.Tensor) -> bool:
    """Whether each row is a distribution over two classes or more."""
    scores = scores.detach().double()
    return scores.shape[1] > 1 and bool((scores >= 0).all() and ((scores.sum(1) - 1).abs() < 1e-3).all())


def as_logits(probabilities: torch.Tensor) -> torch.Tensor:
    """Logits whose softmax these are, where the model's own cannot be had."""
    return probabilities.clamp_min(torch.finfo(probabilities.dtype).tiny).log()


def spec_of(example: torch.Tensor) -> InputSpec:
    """Of a model that takes inputs like the rows of an example; images have their channels first, as torch has them."""
    return InputSpec(
        tuple(example.shape[1:]),
        dtype=numpy_name(example.dtype),
        layout="channels_first" if example.ndim == 4 else None,
    )


def numpy_name(dtype: torch.dtype) -> str:
    """What numpy calls an element type; it has no bfloat16."""
    name = str(dtype).removeprefix("torch.")
    return "float32" if name == "bfloat16" else name


def example_for(module: nn.Module, shape: Sequence[int], rows: int = ROWS) -> torch.Tensor:
    """Zeros of the element type, and on the device, that a module works with."""
    tensors = [*module.parameters(), *module.buffers()]
    dtype = next((tensor.dtype for tensor in tensors if tensor.dtype.is_floating_point), torch.float32)
    return torch.zeros(rows, *shape, dtype=dtype, device=tensors[0].device if tensors else "cpu")


def samples(like: torch.Tensor, rows: int) -> Iterator[torch.Tensor]:
    """Inputs to try a model with: small and large, positive and negative; of whole numbers, those that all know."""
    shape = (rows, *like.shape[1:])
    rng = np.random.default_rng(0)
    normal, uniform = rng.normal(size=shape), rng.uniform(size=shape)
    real = [normal, uniform, -uniform, 10 * normal] if like.dtype.is_floating_point else [uniform.round()]
    for values in (*real, np.zeros(shape)):
        yield torch.from_numpy(values).to(like.device, like.dtype)


def close(actual: Array, expected: torch.Tensor) -> bool:
    """Whether what should be the same numbers, computed in the element type of the second, are."""
    error = 1e-4 if expected.dtype.itemsize >= 4 else 2e-2
    numbers = expected.double().numpy()
    return actual.shape == numbers.shape and bool(np.allclose(actual, numbers, rtol=error, atol=error, equal_nan=True))


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module in evaluation mode for a while.

    By the flags alone: what train() and eval() of a module may do besides could not be undone.
    """
    before = {part: part.training for part in module.modules()}
    try:
        for part in before:
            part.training = False
        yield
    finally:
        for part, training in before.items():
            part.training = training


@contextlib.contextmanager
def quiet(name: str) -> Iterator[None]:
    """Silence a logger of torch, which logs the traceback of an error that it then raises."""
    logger = logging.getLogger(name)
    before = logger.disabled
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = before


def line(error: BaseException) -> str:
    """An error in one line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {shortened(lines[0])}" if lines else type(error).__name__


def digest_of(code: str, state: Mapping[str, Any]) -> str:
    """SHA-256 of what computes and of its weights."""
    digest = hashlib.sha256(code.encode())
    for name, value in sorted(state.items()):
        if isinstance(value, torch.Tensor):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        else:  # the body of a branch
            digest.update(f"{name} {value.code}\n".encode())
    return digest.hexdigest()
