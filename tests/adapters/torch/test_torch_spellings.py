"""The tap of an activation in PyTorch, however it is written and wherever pooling and flattening stand."""

import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from spellings import FUNCTIONS, RISING, SPELLINGS, check_layers  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402, N812
from torch_modules import ADAPTER  # noqa: E402

from deepjudge_core.models.model import Access, Model  # noqa: E402


def _tensor(function: Callable[..., torch.Tensor]) -> Callable[[torch.Tensor, float], torch.Tensor]:
    return lambda x, number: function(x, torch.tensor(number))


M = SimpleNamespace(
    **{name: getattr(torch, name) for name in ("abs", "clip", "erf", "exp", "log", "relu", "sigmoid", "sign", "tanh")},
    maximum=lambda x, y: torch.maximum(x, y) if isinstance(y, torch.Tensor) else torch.clamp(x, min=y),
    minimum=lambda x, y: torch.minimum(x, y if isinstance(y, torch.Tensor) else torch.tensor(y)),
    number=lambda x: x.float(),
    softplus=F.softplus,
    where=torch.where,
)
NATIVE = {
    "relu": [
        F.relu,
        nn.ReLU(),
        nn.LeakyReLU(0.0),
        lambda x: F.prelu(x, torch.zeros(1)),
        lambda x: F.threshold(x, 0, 0),
    ],
    "leaky": [nn.LeakyReLU(0.1), lambda x: F.prelu(x, torch.tensor([0.1]))],
    "relu6": [F.relu6, nn.Hardtanh(0, 6)],
    "hard sigmoid": [F.hardsigmoid],
    "sigmoid": [torch.sigmoid, torch.special.expit],
    "tanh": [torch.tanh],
    "softplus": [F.softplus, lambda x: torch.logaddexp(x, torch.zeros_like(x))],
    "softsign": [F.softsign],
    "elu": [F.elu, F.celu],
    "selu": [F.selu],
    "log sigmoid": [F.logsigmoid],
    "hard swish": [F.hardswish],
    "swish": [F.silu],
    "gelu": [F.gelu],
    "gelu by a tanh": [nn.GELU(approximate="tanh")],
    "mish": [F.mish],
    "tanh shrink": [F.tanhshrink],
    "square of relu": [lambda x: F.relu(x).square()],
}
FORMS = [
    *((name, lambda x, f=f: f(x, M)) for name, f in SPELLINGS.values()),
    *((name, f) for name, functions in NATIVE.items() for f in functions),
    ("relu", lambda x: x.masked_fill(x < 0, 0)),
    ("relu", lambda x: torch.where(x > 0, x, torch.zeros_like(x))),
    ("relu", lambda x: torch.multiply(x, torch.greater(x, 0).type_as(x))),
    ("relu", lambda x: torch.fmax(x, torch.zeros(1))),
]


class Dense(nn.Module):
    def __init__(self, act: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.first, self.last, self.act = nn.Linear(4, 6), nn.Linear(6, 3), act

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.act(self.first(x)))


def check(model: Model, module: Dense, name: str) -> None:
    x = 3 * np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    with torch.no_grad():
        before = module.first(torch.tensor(x)).numpy()
    check_layers(model.activations(x, list(model.layers)), before, name)


@pytest.mark.parametrize(("name", "act"), FORMS)
def test_an_activation_is_one_tap_however_it_is_spelt(name: str, act: Callable[..., torch.Tensor]) -> None:
    module = Dense(act).eval()
    program = torch.export.export(module, (torch.zeros(2, 4),), dynamic_shapes=({0: torch.export.Dim.AUTO},))
    check(ADAPTER.open(program), module, name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own making
        check(ADAPTER.open(program.run_decompositions()), module, name)


@pytest.mark.parametrize("key", ["x * (x > 0)", "x / (1 + |x|)", "0.5 x (1 + erf(x / root 2))", "log(1 + exp(x))"])
@pytest.mark.parametrize("traced", [True, False])
def test_scripts_have_the_same_taps(key: str, traced: bool, tmp_path: Path) -> None:
    name, act = SPELLINGS[key]
    module = Dense(lambda x: act(x, M)).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        script = torch.jit.trace(module, torch.zeros(2, 4))
        script = script if traced else torch.jit.freeze(script)
    script.save(tmp_path / "m.pt")
    check(ADAPTER.open(tmp_path / "m.pt", input_shape=(4,)), module, name)


class InPlace(Dense):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x)
        y[y < 0] = 0
        return self.last(y)


def test_a_change_in_place_is_a_spelling_too() -> None:
    module = InPlace(nn.Identity()).eval()
    check(ADAPTER.open(module, input_shape=(4,)), module, "relu")


def test_slopes_of_each_channel() -> None:
    module = Dense(nn.PReLU(6)).eval()
    with torch.no_grad():
        module.act.weight.copy_(torch.linspace(-0.5, 0.5, 6))
    program = torch.export.export(module, (torch.zeros(2, 4),), dynamic_shapes=({0: torch.export.Dim.AUTO},))
    x = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    with torch.no_grad():
        expected = module.act(module.first(torch.tensor(x))).numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own making
        models = [ADAPTER.open(program), ADAPTER.open(program.run_decompositions())]
    for model in models:
        (hidden, _) = model.activations(x, list(model.layers)).values()
        np.testing.assert_allclose(hidden, expected, atol=1e-6)


class Pooled(nn.Module):
    """An activation before or after pooling and flattening."""

    def __init__(self, act: Callable[..., torch.Tensor], pool: Callable[..., torch.Tensor], *, late: bool) -> None:
        super().__init__()
        self.conv, self.conv2, self.linear = nn.Conv2d(1, 3, 3), nn.Conv2d(3, 4, 3), nn.Linear(36, 4)
        self.act, self.pool, self.late = act, pool, late

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x, act = self.conv(x), self.act
        x = self.conv2(act(self.pool(x)) if self.late else self.pool(act(x)))
        return self.linear(act(x.flatten(1)) if self.late else act(x).flatten(1))


def layers_of(act: Callable[..., torch.Tensor], pool: Callable[..., torch.Tensor], *, late: bool) -> list[np.ndarray]:
    torch.manual_seed(0)
    model = ADAPTER.open(Pooled(act, pool, late=late).eval(), input_shape=(1, 12, 12))
    x = np.random.default_rng(0).normal(size=(5, 1, 12, 12)).astype(np.float32)
    return list(model.activations(x, list(model.layers)).values())


MAX_POOLS = {
    "max_pool2d": lambda x: F.max_pool2d(x, 2),
    "adaptive": lambda x: F.adaptive_max_pool2d(x, 5),
    "twice": lambda x: F.max_pool2d(F.max_pool2d(x, 2, 1), 2, 2, ceil_mode=True),
    "dropout": lambda x: F.max_pool2d(F.dropout2d(x, 0.5, training=False), 2),
}


@pytest.mark.parametrize("name", sorted(RISING & NATIVE.keys()))
@pytest.mark.parametrize("pool", MAX_POOLS.values(), ids=MAX_POOLS)
def test_an_activation_that_never_falls_commutes_with_max_pooling(name: str, pool: Callable[..., torch.Tensor]) -> None:
    act = NATIVE[name][0]
    for mine, other in zip(layers_of(act, pool, late=True), layers_of(act, pool, late=False), strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-5)


def test_mean_pooling_commutes_with_no_activation() -> None:
    x = torch.tensor(np.random.default_rng(0).normal(size=(5, 1, 12, 12)).astype(np.float32))
    for late in (True, False):
        torch.manual_seed(0)
        conv = nn.Conv2d(1, 3, 3)
        with torch.no_grad():
            expected = torch.relu(F.avg_pool2d(conv(x), 2)) if late else torch.relu(conv(x))
        actual = layers_of(torch.relu, lambda x: F.avg_pool2d(x, 2), late=late)[0]
        np.testing.assert_allclose(actual, expected.mean((2, 3)).numpy(), atol=1e-5)


class Whole(nn.Module):
    """The greatest number of each channel."""

    def __init__(self, pool: Callable[..., torch.Tensor], *, late: bool) -> None:
        super().__init__()
        self.conv, self.linear, self.pool, self.late = nn.Conv2d(1, 3, 3), nn.Linear(3, 4), pool, late

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        x = torch.relu(self.pool(x)) if self.late else self.pool(torch.relu(x))
        return self.linear(x.flatten(1))


@pytest.mark.parametrize("late", [True, False])
@pytest.mark.parametrize(
    "pool",
    [
        lambda x: x.amax((2, 3)),
        lambda x: x.amax((2, 3), keepdim=True),
        lambda x: x.flatten(2).max(2).values,
        lambda x: F.adaptive_max_pool2d(x, 1),
        lambda x: F.max_pool2d(x, x.shape[2:]),
        lambda x: x.max(3)[0].max(2)[0],
    ],
)
def test_the_greatest_number_of_a_map_is_pooling_too(pool: Callable[..., torch.Tensor], late: bool) -> None:
    torch.manual_seed(0)
    module = Whole(pool, late=late).eval()
    model = ADAPTER.open(module, input_shape=(1, 6, 6))
    x = np.random.default_rng(0).normal(size=(5, 1, 6, 6)).astype(np.float32)
    with torch.no_grad():
        expected = torch.relu(module.conv(torch.tensor(x))).amax((2, 3)).numpy()
    (hidden, _) = model.activations(x, list(model.layers)).values()
    np.testing.assert_allclose(hidden, expected, atol=1e-6)


def test_every_function_has_a_spelling() -> None:
    assert {name for name, _ in SPELLINGS.values()} == FUNCTIONS.keys()


# -- what is hidden, and what is changed in place


class Part(Dense):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x)
        torch.relu_(y[:, :3])
        y = self.last(y)
        y[:, 1] *= 5
        return y


def test_a_change_of_a_part_in_place_is_a_change_of_the_whole() -> None:
    module = Part(nn.Identity()).eval()
    model = ADAPTER.open(module, input_shape=(4,))
    x = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    with torch.no_grad():
        expected = module(torch.tensor(x)).softmax(1).numpy()
    np.testing.assert_allclose(model.predict(x), expected, atol=1e-6)
    assert list(model.layers.values()) == [3, 3]


class Branch(Dense):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x)
        return self.last(torch.cond(y.sum() > 0, torch.relu, torch.tanh, (y,)))


class Block(Dense):
    def __init__(self, *, enabled: bool) -> None:
        super().__init__(torch.relu)
        self.enabled = enabled

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.enabled):
            y = self.act(self.first(x))
        return self.last(y.float())


def test_branches_and_blocks_with_layers_inside_hide_them_and_say_so() -> None:
    for module in (Branch(nn.Identity()), Block(enabled=True)):
        model = ADAPTER.open(module.eval().requires_grad_(False), input_shape=(4,))
        assert Access.LAYERS not in model.access
        assert "cond" in model.unseen or "autocast" in model.unseen


def test_a_block_that_changes_nothing_is_looked_into() -> None:
    module = Block(enabled=False).eval()
    check(ADAPTER.open(module, input_shape=(4,)), module, "relu")
