"""Where tensors lie in memory changes how fast networks run, and nothing else."""

from collections.abc import Callable

import numpy as np
import pytest

from deepjudge_core import open_model
from deepjudge_core.models.scores import softmax

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'deepjudge[torch]'")

from deepjudge_torch.aten import operation  # noqa: E402
from deepjudge_torch.base import digest_of  # noqa: E402
from deepjudge_torch.memory import channels_last, is_of_any_layout  # noqa: E402
from deepjudge_torch.model import TorchModel  # noqa: E402
from torch import nn  # noqa: E402

Step = Callable[[torch.Tensor], torch.Tensor]


def viewed(h: torch.Tensor) -> torch.Tensor:
    return torch.relu(h).view(len(h), -1)


def viewed_then_changed(h: torch.Tensor) -> torch.Tensor:
    flat = h.view(len(h), -1)
    h.relu_()
    return flat


def flattened_then_changed(h: torch.Tensor) -> torch.Tensor:
    flat = h.flatten(1)
    h.transpose(1, 2).mul_(-1)
    return flat


def changed_then_viewed(h: torch.Tensor) -> torch.Tensor:
    return h.relu_().view(len(h), -1)


class Net(nn.Module):
    def __init__(self, step: Step) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.step, self.conv, self.end = step, nn.Conv2d(3, 4, 3), nn.Linear(4 * 6 * 6, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.end(self.step(self.conv(x)))
        return scores


def opened(step: Step) -> tuple[TorchModel, Net]:
    module = Net(step).eval()
    model = open_model(module, input_shape=(3, 8, 8))
    assert isinstance(model, TorchModel)
    return model, module


@pytest.mark.parametrize("step", [viewed, viewed_then_changed, flattened_then_changed, changed_then_viewed])
def test_answers_are_those_of_the_module(step: Step) -> None:
    model, module = opened(step)
    x = np.random.default_rng(0).normal(size=(6, 3, 8, 8)).astype(np.float32)
    with torch.no_grad():
        expected = softmax(module(torch.from_numpy(x)).numpy())
    assert np.allclose(model.predict(x), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("step", "last"),
    [(viewed, True), (changed_then_viewed, True), (viewed_then_changed, False)],
)
def test_channels_come_last_unless_a_reshaped_tensor_is_changed(step: Step, last: bool) -> None:
    model, _ = opened(step)
    assert is_of_any_layout(model.graph) is last
    kernels = [weight for weight in model.state.values() if weight.ndim == 4]
    assert kernels
    assert all(kernel.is_contiguous(memory_format=torch.channels_last) is last for kernel in kernels)


def test_the_digest_is_the_same_however_weights_lie() -> None:
    model, _ = opened(viewed)
    turned = {name: weight.contiguous() for name, weight in model.state.items()}
    assert digest_of(model.graph.python_code("self").src, turned) == model.digest


def test_kernels_of_one_channel_are_turned_too() -> None:
    assert channels_last(torch.zeros(6, 1, 5, 5)).stride() == (25, 1, 5, 1)


class Pooled(nn.Module):
    """A ReLU before a pool, and one that is read as well as pooled."""

    def __init__(self, *, inplace: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.end = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 6, 3), nn.Linear(12, 5)
        self.relu, self.pool = nn.ReLU(inplace=inplace), nn.MaxPool2d(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wide = self.relu(self.second(self.pool(self.relu(self.first(x)))))
        scores: torch.Tensor = self.end(torch.cat([self.pool(wide).mean((2, 3)), wide.mean((2, 3))], 1))
        return scores


@pytest.mark.parametrize("inplace", [False, True])
def test_a_relu_behind_its_pool_changes_no_bit(inplace: bool) -> None:
    module = Pooled(inplace=inplace).eval()
    model = open_model(module, input_shape=(1, 12, 12))
    assert isinstance(model, TorchModel)
    x = np.random.default_rng(0).normal(size=(5, 1, 12, 12)).astype(np.float32)
    part = model._part([model.logits])
    order = [word for node in part.graph.nodes for word in ("relu", "max_pool2d") if operation(node) == word]
    assert order == ["max_pool2d", "relu", "relu", "max_pool2d"]  # the second is used by others too
    leaf = torch.from_numpy(x).requires_grad_()
    expected = module.to(memory_format=torch.channels_last)(leaf)
    expected.sum().backward()
    assert leaf.grad is not None
    assert np.array_equal(model.activations(x, [model.logits])[model.logits], expected.detach().numpy())
    assert np.array_equal(model.gradient(x, lambda scores, rows: np.ones_like(scores)), leaf.grad.numpy())
