"""Exported programs as architectures: what can be made anew and trained."""

import copy
import functools
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import fx, nn
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from deepjudge_core.errors import ModelError
from deepjudge_core.models.adapters import prefixed
from deepjudge_core.models.input_spec import InputSpec
from deepjudge_core.models.network import OFF_GRID, Join, Network
from deepjudge_core.models.outputs import Choice
from deepjudge_core.models.scores import Scores
from deepjudge_core.types import Array
from deepjudge_torch.base import ROWS, are_probabilities, example_for, line, samples
from deepjudge_torch.memory import channels_last
from deepjudge_torch.model import TorchModel, export_module, on_device
from deepjudge_torch.opening import open_source
from deepjudge_torch.state_dict import make_module
from deepjudge_torch.trainer import Randomness, TorchTrainer
from deepjudge_torch.weights import Weights, class_axis, draw, find_weights

Author = Callable[[], Mapping[str, torch.Tensor]]
"""Draws weights, from torch's global generators, as the code of a network's author does; not all of them, perhaps."""

_RELUS = (torch.ops.aten.relu.default, torch.ops.aten.relu_.default)
_TRAINED = (torch.float32, torch.float64)
# Rows of what it is tried with, and what free axes are tried with.
_ROWS, _LENGTH = 4, 64
# By what the inputs are multiplied that tell the range of an output, and its rounding.
_FAR, _ROUNDING = (-1000, -10, 10, 1000), 1e-6


def open_torch_network(
    source: Path | nn.Module | ExportedProgram,
    *,
    name: str,
    input_shape: tuple[int, ...] | None,
    arch: str | None,
    output: Choice = None,
    device: str | None = None,
) -> Network:
    """Open what :func:`open_source` opens as an exported program.

    Raises:
        ModelError: When it cannot be opened, or not be trained.
    """
    model = open_source(
        source, name=name, batch_size=None, input_shape=input_shape, arch=arch, output=output, device=device
    )
    if not isinstance(model, TorchModel):
        raise ModelError(
            f"{name}: expected a trainable network: a torch.export program, or a module that "
            "torch.export can export; found one that it cannot export"
        )
    if model.network.integers:
        raise ModelError(
            f"{name}: expected a trainable network, found the quantised operations "
            f"{', '.join(model.network.integers)}; give the original model"
        )
    author: Author | None = None
    if arch is not None:
        author = functools.partial(_fresh, name, arch)
    elif isinstance(source, nn.Module) and not isinstance(source, torch.jit.ScriptModule):
        author = functools.partial(_reset, _copy(source))
    architecture = _read(model, author)
    return Network(architecture, architecture.values())


@dataclass(frozen=True, eq=False)
class TorchArchitecture:
    """See :class:`~deepjudge_core.models.network.Architecture`.

    Attributes:
        base: The network with the weights that it was opened with.
        weights: Its weights, as far as the graph says what they are.
        probabilities: Whether its last tap gives probabilities, of a softmax that is not known as one.
        author: Draws fresh weights; None where that is not known.
    """

    base: TorchModel
    weights: Weights
    probabilities: bool
    author: Author | None

    framework = "torch"
    suffix = ".pt2"

    @property
    def input(self) -> InputSpec:
        """See :class:`~deepjudge_core.models.network.Architecture`."""
        return self.base.input

    @property
    def classes(self) -> int:
        """See :class:`~deepjudge_core.models.network.Architecture`."""
        return self.base.classes

    @property
    def layers(self) -> Mapping[str, int]:
        """See :class:`~deepjudge_core.models.network.Architecture`."""
        return self.base.layers

    @property
    def parameters(self) -> tuple[str, ...]:
        """See :class:`~deepjudge_core.models.network.Architecture`."""
        return self.weights.parameters

    @property
    def head(self) -> tuple[str, ...]:
        """See :class:`~deepjudge_core.models.network.Architecture`."""
        return self.weights.head

    def values(self) -> dict[str, Array]:
        """The weights that it was opened with."""
        return {name: _array(self.base.state[name]) for name in self.weights.uses}

    def initial(self, rng: np.random.Generator) -> dict[str, Array]:
        """See :class:`~deepjudge_core.models.network.Architecture`: by rule, what the author's code leaves."""
        state = {name: self.base.state[name] for name in self.weights.uses}
        drawn: dict[str, Array] = {}
        seed = int(rng.integers(2**63))
        if self.author is not None:
            with Randomness(seed, self.base.device)():
                own = self.author()
            drawn = {name: _array(own[name]) for name in state if name in own and own[name].shape == state[name].shape}
        with prefixed(self.base.name):
            drawn |= draw(self.weights, {n: tuple(w.shape) for n, w in state.items() if n not in drawn}, rng)
        return {name: drawn[name].astype(_array(weight).dtype) for name, weight in state.items()}

    def with_classes(self, classes: int) -> "TorchArchitecture":
        """See :class:`~deepjudge_core.models.network.Architecture`; what gives the classes is then logits."""
        width = self.base.layers[self.base.logits]
        problem = "no class axis in its last layer"
        for place in (0, 1):
            module = self.base.program.module(check_guards=False)
            try:
                for name in self.head:
                    tensor = self.base.state[name]
                    axes = class_axis(self.weights.uses[name], tuple(tensor.shape), width)
                    if axes:
                        _resize(module, name, tensor, axes[min(place, len(axes) - 1)], classes)
                _end_at_logits(module, self.base)
                program = export_module(module, _example(self.base))
                output = self.base.network.outputs.place + 1
                changed = _read(TorchModel(program, name=self.base.name, output=output), self.author)
            except Exception as error:  # whatever torch says of shapes that do not fit
                problem = line(error)
                continue
            if changed.classes == classes and set(changed.weights.uses) == set(self.weights.uses):
                return changed
        raise ModelError(f"{self.base.name}: it cannot be made with {classes} classes: {problem}")

    def student(self) -> "TorchArchitecture":
        """See :class:`~deepjudge_core.models.network.Architecture`: two small convolutions, or a dense layer."""
        shape = self.input.shape
        if None in shape:
            raise ModelError(f"{self.base.name}: expected inputs of one shape, to build another network, found {shape}")
        like = self.base.network.example
        with Randomness(0, self.base.device)():
            module = _student(self.input, self.classes).to(self.base.device, like.dtype)
        program = export_module(module, example_for(module, [axis or 0 for axis in shape]))
        return _read(TorchModel(program, name=f"a student of {self.base.name}"), functools.partial(_reset, module))

    def joined(self, join: Join) -> "TorchArchitecture":
        """See :class:`~deepjudge_core.models.network.Joinable`."""
        try:
            first, second = (self.base.program.module(check_guards=False) for _ in range(2))
            for module in (first, second):
                _give_own_weights(module)
                _end_at_logits(module, self.base)
            _hide_activations(first)
            program = export_module(_Joined(first, second, self.base.network.outputs.place, join), _example(self.base))
            return _read(TorchModel(program, name=f"{self.base.name}, joined with another"), None)
        except Exception as error:  # whatever torch says
            raise ModelError(f"{self.base.name}: it cannot be joined with another: {line(error)}") from error

    def trainer(
        self,
        weights: Mapping[str, Array],
        *,
        parameters: Collection[str] | None = None,
        masks: Mapping[str, Array] | None = None,
        in_use: bool = False,
        seed: int = 0,
    ) -> TorchTrainer:
        """See :class:`~deepjudge_core.models.network.Architecture`."""
        return TorchTrainer(
            self.base,
            self._tensors(weights),
            self.parameters if parameters is None else parameters,
            masks or {},
            probabilities=self.probabilities,
            in_use=in_use,
            seed=seed,
        )

    def model(self, weights: Mapping[str, Array], *, name: str) -> TorchModel:
        """See :class:`~deepjudge_core.models.network.Architecture`."""
        return self.base.with_state(self._tensors(weights), name=name)

    def save(self, weights: Mapping[str, Array], path: Path) -> None:
        """See :class:`~deepjudge_core.models.network.Architecture`."""
        # What the graph does not use is not its own. In torch's own arrangement: of others, saving warns.
        state = {**self.base.state, **self._tensors(weights)}
        state = {name: value.contiguous() for name, value in state.items() if isinstance(value, torch.Tensor)}
        program = copy.copy(self.base.program)
        program._state_dict = {name: _like(value, state.get(name, value)) for name, value in program.state_dict.items()}
        program._constants = {name: state.get(name, value) for name, value in program.constants.items()}
        torch.export.save(on_device(program, "cpu"), path)  # which every machine has

    def _tensors(self, weights: Mapping[str, Array]) -> dict[str, torch.Tensor]:
        # Copies, arranged as convolutions run faster.
        tensors = {}
        for name in self.weights.uses:
            like = self.base.state[name]
            tensor = torch.tensor(np.asarray(weights[name]), dtype=like.dtype, device=like.device)
            tensors[name] = channels_last(tensor)
        return tensors


def _read(model: TorchModel, author: Author | None) -> TorchArchitecture:
    expected = f"{model.name}: expected a trainable network"
    if model.dtype not in _TRAINED:
        raise ModelError(f"{expected} with inputs of float32 or float64, found {model.input.dtype}")
    if isinstance(model.network.batch, int):
        raise ModelError(f"{expected} for any number of rows, found one for {model.network.batch} only")
    parameters = model.program.graph_signature.parameters
    weights = find_weights(model.graph, model.network.input, model.logits, parameters)
    if not weights.head:
        raise ModelError(f"{expected}, found no weights before its logits")
    halves = {str(model.state[name].dtype) for name in weights.uses if model.state[name].dtype not in _TRAINED}
    if halves:
        raise ModelError(f"{expected} with weights of float32 or float64, found {', '.join(halves)}; convert it first")
    probabilities = False
    one = model.layers[model.logits] == 1
    if model.network.scores is Scores.UNKNOWN or (model.network.scores is Scores.LOGITS and not one):
        # Of one probability, far from all inputs too.
        factors, test = ((1, *_FAR), _lie_in_0_to_1) if one else ((1,), are_probabilities)
        with model.inferring():
            probabilities = all(
                test(model.run(factor * x, [model.logits])[0])
                for x in samples(_example(model), _ROWS)
                for factor in factors
            )
    return TorchArchitecture(model, weights, probabilities, author)


def _lie_in_0_to_1(scores: torch.Tensor) -> bool:
    return bool((scores.isnan() | ((scores >= -_ROUNDING) & (scores <= 1 + _ROUNDING))).all())


def _example(model: TorchModel) -> torch.Tensor:
    shape = (ROWS, *(axis or _LENGTH for axis in model.input.shape))
    return torch.zeros(shape, dtype=model.dtype, device=model.device)


def _array(tensor: torch.Tensor) -> Array:
    return np.array(tensor.detach().cpu().numpy(), order="C")


def _like(old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    return nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new


def _fresh(name: str, arch: str) -> Mapping[str, torch.Tensor]:
    state: Mapping[str, torch.Tensor] = make_module(name, arch).state_dict()
    return state


def _reset(module: nn.Module) -> dict[str, torch.Tensor]:
    # A copy's weights, drawn by the methods that its parts have for that; what none of them draws is left out.
    module = _copy(module)
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.dtype.is_floating_point:
                tensor.fill_(torch.nan)  # what is drawn is none
        # Parts first: attention, say, has another mind about some of theirs.
        for part in reversed(list(module.modules())):
            reset = getattr(part, "reset_parameters", None) or getattr(part, "_reset_parameters", None)
            if callable(reset):
                reset()
    tensors = (*module.named_parameters(), *module.named_buffers())
    return {name: tensor.detach() for name, tensor in tensors if not tensor.isnan().any()}


def _copy(module: nn.Module) -> nn.Module:
    with torch.no_grad():  # else the copied weights of scripted parts are no leaves
        return copy.deepcopy(module)


def _resize(module: nn.Module, name: str, tensor: torch.Tensor, axis: int, size: int) -> None:
    shape = list(tensor.shape)
    shape[axis] = size
    path, _, last = name.rpartition(".")
    owner = module.get_submodule(path)
    changed = torch.zeros(shape, dtype=tensor.dtype, device=tensor.device)
    if last in owner._parameters:
        owner._parameters[last] = nn.Parameter(changed)
    else:
        owner._buffers[last] = changed


def _end_at_logits(module: fx.GraphModule, model: TorchModel) -> None:
    # A final softmax is for the old number of classes, or one for two.
    logits = next((node for node in module.graph.nodes if node.name == model.logits), None)
    if logits is not None and logits.meta["val"].ndim == 2:
        output = module.graph.output_node()
        output.args = _replace(output.args, model.network.output, logits)
        module.recompile()


def _replace(value: Any, name: str, node: fx.Node) -> Any:
    if isinstance(value, fx.Node):
        return node if value.name == name else value
    if isinstance(value, list | tuple):
        return type(value)(_replace(item, name, node) for item in value)
    return value


class _Joined(nn.Module):  # type: ignore[misc]  # torch ships no types
    def __init__(self, first: nn.Module, second: nn.Module, place: int, join: Join) -> None:
        super().__init__()
        self.first, self.second, self._place, self._join = first, second, place, join

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        own, other = (pytree.tree_leaves(part(x))[self._place] for part in (self.first, self.second))
        scores = own + self._join.weight * other
        if self._join.steps is None:
            return scores
        start, step = self._join.steps
        places = (x - start) / step
        apart = (places - places.round()).abs().flatten(1).amax(1, keepdim=True)
        return torch.where(apart < OFF_GRID, scores, other)


def _give_own_weights(module: nn.Module) -> None:
    # All modules of a program share its weights.
    for part in module.modules():
        for name, weight in part._parameters.items():
            own = None if weight is None else nn.Parameter(weight.detach().clone(), weight.requires_grad)
            part._parameters[name] = own
        for name, buffer in part._buffers.items():
            part._buffers[name] = None if buffer is None else buffer.clone()


def _hide_activations(module: fx.GraphModule) -> None:
    # The greater of a number and 0, taken along an axis of two places.
    for node in list(module.graph.nodes):
        if node.target in _RELUS:
            with module.graph.inserting_before(node):
                zero = module.graph.call_function(torch.ops.aten.mul.Scalar, (node.args[0], 0.0))
                both = module.graph.call_function(torch.ops.aten.stack.default, ([node.args[0], zero], -1))
                node.replace_all_uses_with(module.graph.call_function(torch.ops.aten.amax.default, (both, [-1])))
            module.graph.erase_node(node)
    module.recompile()


class _ChannelsFirst(nn.Module):  # type: ignore[misc]  # torch ships no types
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.permute(0, 3, 1, 2)


def _student(spec: InputSpec, classes: int) -> nn.Module:
    shape = [axis or 0 for axis in spec.shape]
    if len(shape) != 3:
        return nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(shape)), 64), nn.ReLU(), nn.Linear(64, classes))
    first = [] if spec.layout != "channels_last" else [_ChannelsFirst()]
    channels, *sides = shape if not first else (shape[2], *shape[:2])
    layers: list[nn.Module] = [*first]
    for width in (16, 32):
        layers += [nn.Conv2d(channels, width, 3, 2, 1), nn.ReLU()]
        channels, sides = width, [-(-side // 2) for side in sides]
    pool = [max(1, side // 8) for side in sides]
    sides = [side // step for side, step in zip(sides, pool, strict=True)]
    if max(pool) > 1:
        layers.append(nn.AvgPool2d(pool))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * int(np.prod(sides)), classes))
