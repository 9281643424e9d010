"""Exported programs in training."""

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import fx, nn

from deepjudge_core.errors import ModelError
from deepjudge_core.models.network import Losses, ScoresCotangent
from deepjudge_core.types import Array
from deepjudge_torch.base import as_logits, line
from deepjudge_torch.graph import extract
from deepjudge_torch.memory import channels_last
from deepjudge_torch.model import TorchModel
from deepjudge_torch.weights import draws, training_graph

_BETAS, _EPSILON = (0.9, 0.999), 1e-7
# Of the gradients of a step, beyond which they are scaled down.
_GREATEST_NORM = 5.0
# Probability that is told from 0, of the class that is less probable.
_LEAST_REST = 2.0**-24


class Randomness:
    """Random numbers of one's own: what torch draws meanwhile from its global generators, which stay as they were."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self._seed: int | None = seed
        self._device = device
        self._states: list[torch.Tensor] = []

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """Draw from here on, each time further on."""
        cuda = self._device.type == "cuda"
        with torch.random.fork_rng(devices=[self._device] if cuda else []):
            generators = [torch.default_generator]
            if cuda:
                generators.append(torch.cuda.default_generators[self._device.index or 0])
            if self._seed is not None:
                self._states = [generator.manual_seed(self._seed).get_state() for generator in generators]
                self._seed = None
            for generator, state in zip(generators, self._states, strict=True):
                generator.set_state(state)
            yield
            self._states = [generator.get_state() for generator in generators]


class TorchTrainer:
    """See :class:`~deepjudge_core.models.network.Trainer`: a copy of the weights, and the graphs that use them."""

    def __init__(
        self,
        model: TorchModel,
        weights: Mapping[str, torch.Tensor],
        parameters: Collection[str],
        masks: Mapping[str, Array],
        *,
        probabilities: bool,
        in_use: bool,
        seed: int,
    ) -> None:
        """Start.

        Args:
            model: The network.
            weights: The trainer's own, in forward order.
            parameters: Names of those that steps change.
            masks: See :class:`~deepjudge_core.models.network.Architecture`.
            probabilities: Whether its last tap gives probabilities, of a softmax that is not known as one.
            in_use: See :class:`~deepjudge_core.models.network.Architecture`.
            seed: Of dropout.
        """
        self._model, self._weights, self._probabilities = model, weights, probabilities
        self._masks = {
            name: torch.as_tensor(np.asarray(mask), device=weights[name].device) for name, mask in masks.items()
        }
        self._trained = {name: weight for name, weight in weights.items() if name in parameters}
        for weight in self._trained.values():
            weight.requires_grad_()
        self._mask()
        # One kernel for all weights.
        self._adam = torch.optim.Adam(list(self._trained.values()), betas=_BETAS, eps=_EPSILON, fused=True)
        self._in_use = in_use
        self._state = {**model.state, **weights}
        # Each with whether it draws random numbers: to look through a graph takes as long as a part of a step.
        self._parts: dict[tuple[tuple[str, ...], bool], tuple[fx.GraphModule, bool]] = {}
        self._randomness = Randomness(seed, model.device)

    def scores(self, x: Array) -> Array:
        """See :class:`~deepjudge_core.models.network.Trainer`."""
        rows = self._model.batch_size
        with self._model.inferring():
            parts = [self._scores(self._tensor(x[start : start + rows])) for start in range(0, len(x), rows)]
            return np.asarray(torch.cat(parts)[: len(x)].float().cpu().numpy())

    def gradient(self, x: Array, cotangent: ScoresCotangent) -> Array:
        """See :class:`~deepjudge_core.models.network.Trainer`."""
        with self._model.differentiable():
            leaf = self._tensor(x).requires_grad_()
            scores = self._scores(leaf.clone())[: len(x)]
            (gradient,) = torch.autograd.grad(scores, leaf, _cotangent_at(cotangent, scores))
        return np.ascontiguousarray(gradient[: len(x)].float().cpu().numpy())

    def step(self, x: Array, losses: Losses, *, rate: float) -> None:
        """See :class:`~deepjudge_core.models.network.Trainer`."""
        # One row has no statistics.
        training = not self._in_use and len(x) > 1
        with self._model.differentiable():
            taps = [tap or self._model.logits for tap in losses.of_outputs]
            found = self._run(taps, self._tensor(x), training=training)
            outputs = [
                (one if tap else self._as_scores(one))[: len(x)]
                for tap, one in zip(losses.of_outputs, found, strict=True)
            ]
            self._adam.zero_grad()
            derivatives = [_cotangent_at(*one) for one in zip(losses.of_outputs.values(), outputs, strict=True)]
            # Layers in front of all weights that are trained have no part in it.
            behind = [place for place, one in enumerate(outputs) if place == 0 or one.requires_grad]
            torch.autograd.backward([outputs[place] for place in behind], [derivatives[place] for place in behind])
            if losses.pull is not None:
                self._add(losses.pull(self.weights()))
            nn.utils.clip_grad_norm_(list(self._trained.values()), _GREATEST_NORM)
            self._adam.param_groups[0]["lr"] = rate
            self._adam.step()
            self._mask()

    def weights(self) -> dict[str, Array]:
        """See :class:`~deepjudge_core.models.network.Trainer`."""
        return {name: np.array(weight.detach().cpu().numpy(), order="C") for name, weight in self._weights.items()}

    def _tensor(self, x: Array) -> torch.Tensor:
        return channels_last(self._model.tensor(x))

    def _add(self, gradients: Mapping[str, Array]) -> None:
        # To those of the trained weights, before anything is done with them.
        for name, gradient in gradients.items():
            if name in self._trained:
                weight = self._trained[name]
                more = torch.as_tensor(np.asarray(gradient)).to(weight)
                weight.grad = more if weight.grad is None else weight.grad + more

    def _scores(self, x: torch.Tensor) -> torch.Tensor:
        (scores,) = self._run([self._model.logits], x, training=False)
        return self._as_scores(scores)

    def _as_scores(self, scores: torch.Tensor) -> torch.Tensor:
        if scores.shape[1] == 1:  # of a sigmoid
            if self._probabilities:
                scores = scores.logit(_LEAST_REST)
            return torch.cat([torch.zeros_like(scores), scores], 1)
        return as_logits(scores) if self._probabilities else scores

    def _run(self, layers: Sequence[str], x: torch.Tensor, *, training: bool) -> Sequence[torch.Tensor]:
        key = (tuple(layers), training)
        if key not in self._parts:
            part = extract(self._state, self._model.graph, self._model.network, layers)
            self._parts[key] = (training_graph(part), draws(part.graph)) if training else (part, False)
        part, drawing = self._parts[key]
        with self._randomness() if drawing else contextlib.nullcontext():
            try:
                outputs: Sequence[torch.Tensor] = part(x)
            except (RuntimeError, ValueError) as error:
                raise ModelError(
                    f"{self._model.name}: expected a network that trains on {tuple(x.shape)}, found {line(error)}"
                ) from error
        return outputs

    def _mask(self) -> None:
        with torch.no_grad():
            for name, mask in self._masks.items():
                self._weights[name].mul_(mask)


def _cotangent_at(cotangent: ScoresCotangent, outputs: torch.Tensor) -> torch.Tensor:
    values = np.asarray(cotangent(outputs.detach().cpu().numpy()))
    return torch.from_numpy(values).to(outputs)
