"""The networks as PyTorch modules, in evaluation mode. No other file of this package defines any."""

import torch
from torch import nn

from networks.architectures import ARCHITECTURES, CLASSES, HEADS, PATCH


def module(name: str, seed: int) -> nn.Module:
    """A network that gives logits."""
    made: nn.Module = make(name)
    weights = ARCHITECTURES[name].weights(seed)
    made.load_state_dict({key: torch.from_numpy(value) for key, value in weights.items()})
    return made.eval()


def plain(name: str, seed: int) -> nn.Module:
    """The same, of simple operations alone."""
    made = module(name, seed)
    for part in made.modules():
        if isinstance(part, nn.MultiheadAttention):
            part.__class__ = PlainAttention
    return made


def make(name: str) -> nn.Module:
    """The same with whatever weights."""
    made: nn.Module = {
        "conv1d": lambda: Convolutional(nn.Conv1d, nn.MaxPool1d(2), 30),
        "conv2d": lambda: Convolutional(nn.Conv2d, nn.MaxPool2d(2), 24),
        "dense": Dense,
        "LSTM": LastStep,
        "GRU": MeanOverTime,
        "attention": Transformer,
    }[name]()
    return made


def conv1d() -> nn.Module:
    """A module for somebody's weights."""
    return make("conv1d")


def conv2d() -> nn.Module:
    return make("conv2d")


def dense() -> nn.Module:
    return make("dense")


def lstm() -> nn.Module:
    return make("LSTM")


def gru() -> nn.Module:
    return make("GRU")


def attention() -> nn.Module:
    return make("attention")


class Convolutional(nn.Module):
    def __init__(self, convolution: type[nn.Module], pool: nn.Module, flat: int) -> None:
        super().__init__()
        self.conv1, self.relu1, self.pool = convolution(3, 4, 3), nn.ReLU(), pool
        self.conv2, self.relu2, self.flatten = convolution(4, 6, 2), nn.ReLU(), nn.Flatten()
        self.dense1, self.tanh, self.dense2 = nn.Linear(flat, 10), nn.Tanh(), nn.Linear(10, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(self.relu1(self.conv1(x)))
        x = self.flatten(self.relu2(self.conv2(x)))
        return self.dense2(self.tanh(self.dense1(x)))


class Dense(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.dense1, self.relu1 = nn.Linear(16, 12), nn.ReLU()
        self.dense2, self.relu2 = nn.Linear(12, 8), nn.ReLU()
        self.dense3 = nn.Linear(8, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.dense3(self.relu2(self.dense2(self.relu1(self.dense1(x)))))


class LastStep(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(5, 8, batch_first=True)
        self.dense1, self.tanh, self.dense2 = nn.Linear(8, 7), nn.Tanh(), nn.Linear(7, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        steps, _ = self.lstm(x)
        return self.dense2(self.tanh(self.dense1(steps[:, -1])))


class MeanOverTime(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(5, 8, batch_first=True)
        self.dense1, self.tanh, self.dense2 = nn.Linear(8, 7), nn.Tanh(), nn.Linear(7, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        steps, _ = self.gru(x)
        return self.dense2(self.tanh(self.dense1(steps.mean(1))))


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, PATCH, PATCH)
        self.positions = nn.Parameter(torch.zeros(4, 8))
        self.norm1, self.attention = nn.LayerNorm(8), nn.MultiheadAttention(8, HEADS, batch_first=True)
        self.norm2, self.mlp1, self.gelu, self.mlp2 = nn.LayerNorm(8), nn.Linear(8, 12), nn.GELU(), nn.Linear(12, 8)
        self.norm3, self.head = nn.LayerNorm(8), nn.Linear(8, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2) + self.positions
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        x = x + self.mlp2(self.gelu(self.mlp1(self.norm2(x))))
        return self.head(self.norm3(x).mean(1))


class PlainAttention(nn.MultiheadAttention):
    """Attention to itself in the operations of old opsets, into which exporters cannot translate PyTorch's own."""

    def forward(self, x: torch.Tensor, *_: torch.Tensor, need_weights: bool) -> tuple[torch.Tensor, None]:
        parts = nn.functional.linear(x, self.in_proj_weight, self.in_proj_bias).chunk(3, dim=-1)
        split = [part.reshape(-1, 4, HEADS, 8 // HEADS).transpose(1, 2) for part in parts]
        weights = torch.softmax(split[0] @ split[1].transpose(2, 3) / (8 // HEADS) ** 0.5, -1)
        return self.out_proj((weights @ split[2]).transpose(1, 2).reshape(-1, 4, 8)), None


class Unexportable(nn.Module):
    """A network that asks for the values of its input, as torch.export cannot."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.isnan().any().item():
            raise ValueError("expected numbers")
        return self.network(x)
