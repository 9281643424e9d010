"""Small modules of PyTorch, and how tests open them."""

import functools
import warnings
from pathlib import Path
from typing import Any

import deepjudge_torch
import numpy as np
import torch
from torch import nn

from deepjudge_core.models.model import Model

(ADAPTER,) = deepjudge_torch.deepjudge_adapters()

ROWS = 5


class Conv2d(nn.Module):
    shape = (2, 9, 8)
    hooked = ("gelu", "pool", "linear")

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.gelu = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.GELU()
        self.second, self.relu, self.pool = nn.Conv2d(4, 3, 3), nn.ReLU(), nn.MaxPool2d(2)
        self.drop, self.linear = nn.Dropout(), nn.Linear(12, 5)
        self.norm.running_mean.uniform_(-1, 1)

    def forward(self, x):
        x = self.pool(self.relu(self.second(self.gelu(self.norm(self.first(x))))))
        return torch.softmax(self.linear(self.drop(x.flatten(1))), dim=1)


class Conv1d(nn.Module):
    shape = (3, 12)
    hooked = ("silu", "tanh", "linear")

    def __init__(self) -> None:
        super().__init__()
        self.first, self.silu = nn.Conv1d(3, 4, 3), nn.SiLU()
        self.second, self.tanh, self.linear = nn.Conv1d(4, 6, 3), nn.Tanh(), nn.Linear(6, 3)

    def forward(self, x):
        x = x - 0.5  # an operation that keeps axes in front of the first layer
        return self.linear(self.tanh(self.second(self.silu(self.first(x)))).mean(2))


class Mlp(nn.Module):
    shape = (7,)
    hooked = ("sigmoid", "elu", "linear")

    def __init__(self) -> None:
        super().__init__()
        self.a, self.sigmoid = nn.Linear(7, 6), nn.Sigmoid()
        self.b, self.elu, self.linear = nn.Linear(6, 5), nn.ELU(), nn.Linear(5, 4)

    def forward(self, x):
        return {"log": torch.log_softmax(self.linear(self.elu(self.b(self.sigmoid(self.a(x))))), dim=-1)}


class Lstm(nn.Module):
    shape = (6, 4)
    hooked = ("lstm", "linear")

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.linear = nn.LSTM(4, 5, num_layers=2, batch_first=True, dropout=0.5), nn.Linear(5, 3)

    def forward(self, x):
        return self.linear(self.lstm(x)[0][:, -1])


class Gru(nn.Module):
    """Time first, with an activation between."""

    shape = (6, 4)
    hooked = ("gru", "relu", "linear")
    time_first = ("gru", "relu")

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.relu, self.linear = nn.GRU(4, 5, bidirectional=True), nn.ReLU(), nn.Linear(10, 3)

    def forward(self, x):
        return self.linear(self.relu(self.gru(x.transpose(0, 1))[0])[-1])


class Residual(nn.Module):
    """In-place operations, one on what a tap has read, one on the input."""

    shape = (3, 6, 6)
    hooked = ("gelu", "relu", "last", "linear")

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.gelu = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.GELU()
        self.second, self.relu = nn.Conv2d(3, 3, 1), nn.ReLU(inplace=True)
        self.dense, self.last, self.linear = nn.Linear(3, 5), nn.LeakyReLU(inplace=True), nn.Linear(5, 4)

    def forward(self, x):
        x *= 2
        y = self.gelu(self.norm(self.conv(x)))
        y += x
        z = self.second(y)
        z += y
        return self.linear(self.last(self.dense(self.relu(z).mean((2, 3)))))


class Attention(nn.Module):
    """A vision transformer of one block, its embedding frozen as in fine-tuning."""

    shape = (1, 8, 8)
    hooked = ("relu", "gelu", "linear")

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.relu, self.token = nn.Conv2d(1, 6, 4, 4), nn.ReLU(), nn.Parameter(torch.randn(1, 1, 6))
        self.before, self.attention = nn.LayerNorm(6), nn.MultiheadAttention(6, 2, batch_first=True)
        self.after, self.up, self.gelu, self.down = nn.LayerNorm(6), nn.Linear(6, 9), nn.GELU("tanh"), nn.Linear(9, 6)
        self.linear = nn.Linear(6, 3)

    def forward(self, x):
        with torch.no_grad():
            x = self.relu(self.patches(x))
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x.flatten(2).transpose(1, 2)], dim=1)
        y = self.before(x)
        x = x + self.attention(y, y, y)[0]
        x = x + self.down(self.gelu(self.up(self.after(x))))
        return x, self.linear(x[:, 0])


NETS = (Conv2d, Conv1d, Mlp, Lstm, Gru, Residual, Attention)


def make(kind: type, seed: int = 0, **arguments) -> nn.Module:
    torch.manual_seed(seed)
    return kind(**arguments).double()


def inputs(module: nn.Module, rows: int = ROWS) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(rows, *module.shape))


def export(module: nn.Module, rows: int | None = None):
    example = (torch.zeros(rows or 2, *module.shape, dtype=torch.float64),)
    shapes = None if rows else ({0: torch.export.Dim.AUTO},)
    return torch.export.export(module.eval(), example, dynamic_shapes=shapes)


def save(module: nn.Module, path: Path, rows: int | None = None) -> Path:
    torch.export.save(export(module, rows), path)
    return path


def open_live(module: nn.Module, **options) -> Model:
    return ADAPTER.open(module, input_shape=module.shape, **options)


@functools.cache
def opened(kind: type) -> tuple[nn.Module, Model]:
    module = make(kind)
    return module.eval(), open_live(module)


def hooked(module: nn.Module, x: np.ndarray) -> list[np.ndarray]:
    """Outputs of the named parts in forward order, averaged over space and time."""
    outputs = {}

    def listen(part, inputs, output, *, name):
        outputs[name] = (output[0] if isinstance(output, tuple) else output).detach().clone()

    handles = [
        getattr(module, name).register_forward_hook(functools.partial(listen, name=name)) for name in module.hooked
    ]
    with torch.no_grad():
        module(torch.tensor(x))
    for handle in handles:
        handle.remove()
    if isinstance(module, Lstm):  # which goes on with the last step alone
        outputs["lstm"] = outputs["lstm"][:, -1]
    rows = {name: outputs[name].movedim(1 if name in getattr(module, "time_first", ()) else 0, 0) for name in outputs}
    channel = {name: 1 if rows[name].ndim > 2 and not is_last(module, name) else -1 for name in rows}
    return [
        rows[n].movedim(channel[n], -1).flatten(1, -2).mean(1).numpy() if rows[n].ndim > 2 else rows[n].numpy()
        for n in module.hooked
    ]


def is_last(module: nn.Module, name: str) -> bool:
    return isinstance(module, Lstm | Gru) or (isinstance(module, Attention) and name == "gelu")


class Activations(nn.Module):
    """Activation functions, each between two layers."""

    shape = (4,)
    functions = (
        nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Tanh, nn.Sigmoid, nn.Hardtanh,
        # These leave no trace in a program that is decomposed to core aten.
        nn.CELU, nn.Softplus, nn.PReLU, nn.LogSigmoid, nn.Hardswish, nn.Hardsigmoid, nn.Threshold,
    )  # fmt: skip

    def __init__(self, count: int | None = None) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.acts = nn.ModuleList(f(0.1, -0.1) if f is nn.Threshold else f() for f in self.functions[:count])

    def forward(self, x):
        for act in self.acts:
            x = act(self.linear(x) - 0.2)
        return self.linear(x)


class Spelt(nn.Module):
    """Activation functions written out by hand."""

    shape = (4,)
    functions = (
        lambda x: x * torch.sigmoid(1.7 * x),
        lambda x: x * torch.tanh(nn.functional.softplus(x)),
        lambda x: 0.5 * x * (1 + torch.erf(x / 2**0.5)),
        lambda x: torch.clamp(x, min=0),
        lambda x: torch.maximum(x, torch.zeros_like(x)),
        lambda x: torch.where(torch.relu(x) > 0, x, 0.1 * x),
    )

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.acts = nn.ModuleList(Written(f) for f in self.functions)

    def forward(self, x):
        for act in self.acts:
            x = act(self.linear(x))
        return self.linear(x)


class Written(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.forward = function


def make_script(module: nn.Module, how: str, example: Any = None) -> Any:
    """What torch says of TorchScript while it is made is the maker's business."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if how == "traced":
            return torch.jit.trace(module.eval(), example, strict=False)
        script = torch.jit.script(module.eval())
        return torch.jit.freeze(script) if how == "frozen" else script
