"""Modules that torch.export cannot export: listened to by hooks, which are gone after each run."""

import copy
import gc
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models import LAYERS, SHAPE, inputs, torch_module
from refusals import refused

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'deepjudge[torch]'")

import deepjudge_torch  # noqa: E402
import torch_modules as nets  # noqa: E402
from deepjudge_torch.hooks import HookedModel  # noqa: E402
from torch import nn  # noqa: E402

from deepjudge_core import Model, open_model  # noqa: E402
from deepjudge_core.errors import ModelError  # noqa: E402
from deepjudge_core.testing import check_model  # noqa: E402

(ADAPTER,) = deepjudge_torch.deepjudge_adapters()


def guard(x: Any) -> None:
    """Depends on the values, so that torch.export gives up."""
    if x.abs().sum().item() == float("inf"):
        raise ValueError("expected numbers")


class Guarded(nn.Module):
    """Another module, that torch.export cannot export any more."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Any) -> Any:
        guard(x)
        return self.net(x)


def open_live(module: nn.Module, shape: tuple[int, ...], **options: Any) -> Model:
    model = ADAPTER.open(module, input_shape=shape, **options)
    assert isinstance(model, HookedModel)
    return model


def same(model: Model, reference: Model, x: np.ndarray, tolerance: float = 1e-5) -> None:
    assert list(model.layers.values()) == list(reference.layers.values())
    np.testing.assert_allclose(model.predict(x), reference.predict(x), atol=tolerance)
    for mine, other in zip(model.layers, reference.layers, strict=True):
        actual, expected = model.activations(x, [mine])[mine], reference.activations(x, [other])[other]
        np.testing.assert_allclose(actual, expected, atol=tolerance, err_msg=mine)
        gradients = [m.gradient(x, lambda s, rows: s, layer=layer) for m, layer in ((model, mine), (reference, other))]
        np.testing.assert_allclose(*gradients, atol=tolerance, err_msg=mine)


@pytest.mark.parametrize("softmax", [True, False])
def test_the_network_is_the_network(softmax: bool) -> None:
    module = torch_module(1, softmax=softmax)
    model = open_model(Guarded(module), input_shape=SHAPE)
    assert isinstance(model, HookedModel)
    assert dict(model.layers) == dict(zip(("net.pool", "net.relu2", "net.tanh", "logits"), LAYERS, strict=True))
    same(model, ADAPTER.open(module, input_shape=SHAPE), inputs(8))
    check_model(model, inputs(8))


@pytest.mark.parametrize("kind", [*nets.NETS, nets.Activations], ids=lambda kind: kind.__name__)
def test_every_network(kind: type) -> None:
    module, exported = nets.opened(kind)
    model = open_live(Guarded(module), module.shape)
    x = nets.inputs(module)
    if kind is nets.Attention:  # whose first activation stands inside no_grad, which only an exported program undoes
        first = next(iter(model.layers))
        with refused(ModelError, "'net.relu'"):
            model.gradient(x, lambda s, rows: s, layer=first)
        np.testing.assert_allclose(
            np.concatenate(list(model.activations(x, list(model.layers)).values()), axis=1),
            np.concatenate(list(exported.activations(x, list(exported.layers)).values()), axis=1),
            atol=1e-5,
        )
        np.testing.assert_allclose(model.predict(x), exported.predict(x), atol=1e-5)
    else:
        same(model, exported, x)
    assert model.input.shape == exported.input.shape


class Twice(nn.Module):
    """One activation module called twice, an activation that nothing depends on, and one for the output."""

    shape = (4,)

    def __init__(self, ending: Any = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.last = nn.Linear(4, 6), nn.Linear(6, 5), nn.Linear(5, 3)
        self.relu, self.vain, self.ending = nn.ReLU(), nn.Tanh(), ending or nn.Identity()

    def forward(self, x: Any) -> Any:
        guard(x)
        x = self.relu(self.a(x))
        self.vain(x)
        return self.ending(self.last(self.relu(self.b(x))))


def test_a_module_called_twice_is_two_taps(capfd: pytest.CaptureFixture[str]) -> None:
    module = Twice()
    model = open_live(module, (4,))
    assert capfd.readouterr() == ("", "")  # torch prints what it cannot export
    assert dict(model.layers) == {"relu": 6, "relu:2": 5, "logits": 3}
    x = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    first = torch.relu(module.a(torch.from_numpy(x)))
    outputs = model.activations(x, ["relu:2", "relu"])
    np.testing.assert_allclose(outputs["relu"], first.detach(), atol=1e-6)
    np.testing.assert_allclose(outputs["relu:2"], torch.relu(module.b(first)).detach(), atol=1e-6)


class Sequence(nn.Module):
    """A recurrent layer, and a choice of its steps."""

    def __init__(self, used: Callable[[Any], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.gru, self.last, self.used = nn.GRU(4, 6, batch_first=True), nn.Linear(6, 3), used

    def forward(self, x: Any) -> Any:
        guard(x)
        return torch.softmax(self.last(self.used(self.gru(x)[0])), 1)


@pytest.mark.parametrize(
    ("used", "step"),
    [
        (lambda y: y[:, -1], -1),
        (lambda y: y.select(1, 2), 2),
        (lambda y: y[:, 1] * y[:, 1], 1),
        (lambda y: y[:, -1:, :].squeeze(1), -1),
        (lambda y: y.narrow(1, 4, 1).squeeze(1), -1),
        (lambda y: y.unbind(1)[-1], -1),
        (lambda y: y.split(1, 1)[-1].squeeze(1), -1),
        (lambda y: y.transpose(0, 1)[-1], -1),
        (lambda y: y.permute(0, 2, 1)[:, :, -1], -1),
        (lambda y: y.mean(1), None),
        (lambda y: y[:, -1] + y[:, 0], None),
        (lambda y: torch.relu(y)[:, -1], None),  # what is used is not the layer's
    ],
)
def test_of_a_sequence_the_one_step_that_is_used_is_the_tap(used: Callable[[Any], Any], step: int | None) -> None:
    module = Sequence(used)
    model = open_live(module, (5, 4))
    x = np.random.default_rng(0).normal(size=(6, 5, 4)).astype(np.float32)
    y = module.gru(torch.from_numpy(x))[0].detach().numpy()
    outputs = model.activations(x, ["gru"])["gru"]
    np.testing.assert_allclose(outputs, y.mean(1) if step is None else y[:, step], atol=1e-6)
    check_model(model, x)


def own_softmax(x: Any) -> Any:
    x = x.exp()
    return x / x.sum(1, keepdim=True)


@pytest.mark.parametrize(
    "ending",
    [
        nn.Softmax(1),
        nn.LogSoftmax(1),
        lambda x: torch.softmax(x, 1),
        lambda x: x.softmax(dim=1),
        lambda x: nn.functional.log_softmax(input=x, dim=1),
        lambda x: nn.functional.softmax(x[:, :, None], 1).flatten(1),
        own_softmax,
        lambda x: {"scores": x.softmax(1), "seen": x},
    ],
)
def test_a_final_softmax_is_looked_through(ending: Any) -> None:
    plain, model = open_live(Twice(), (4,)), open_live(Twice(ending), (4,))
    x = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    np.testing.assert_allclose(model.predict(x), plain.predict(x), atol=1e-6)
    actual, expected = (m.activations(x, ["logits"])["logits"] for m in (model, plain))
    if ending is own_softmax:  # which cannot be looked through: the logits are those up to a constant
        actual, expected = (logits - logits.mean(1, keepdims=True) for logits in (actual, expected))
    np.testing.assert_allclose(actual, expected, atol=1e-5)
    check_model(model, x)


def test_one_sigmoid_output_is_two_classes() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1), nn.Sigmoid())
    model = open_live(Guarded(module), (3,))
    x = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    assert (model.classes, list(model.layers.values())) == (2, [4, 1])
    np.testing.assert_allclose(model.predict(x)[:, 1:], module(torch.tensor(x)).detach().numpy(), atol=1e-6)


def test_cells_and_final_states() -> None:
    class Cells(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.lstm, self.cell, self.linear = nn.LSTM(3, 4, batch_first=True), nn.GRUCell(4, 5), nn.Linear(5, 3)

        def forward(self, x: Any) -> Any:
            guard(x)
            _, (hidden, _) = self.lstm(x)
            state = None
            for _ in range(2):
                state = self.cell(hidden[0], state)
            return self.linear(state)

    model = open_live(Cells(), (6, 3))
    assert dict(model.layers) == {"lstm[1]": 4, "cell": 5, "cell:2": 5, "logits": 3}
    check_model(model, np.random.default_rng(0).normal(size=(5, 6, 3)).astype(np.float32))


def hooks_of(module: nn.Module) -> list[int]:
    return [len(part._forward_hooks) + len(part._forward_pre_hooks) for part in module.modules()]


def test_nothing_is_left() -> None:
    module = Twice().train()
    module.relu.eval()
    modes = [part.training for part in module.modules()]
    module.a.register_forward_hook(lambda part, inputs, output: None)  # somebody's own
    before = hooks_of(module)
    state = copy.deepcopy(module.state_dict())
    model = open_live(module, (4,))
    x = np.ones((3, 4), np.float32)
    model.activations(x, list(model.layers))
    model.gradient(x, lambda s, rows: s, layer="relu")

    def fail(scores: Any, rows: slice) -> Any:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        model.gradient(x, fail)
    with pytest.raises(ValueError, match="expected numbers"):
        model.predict(np.full((3, 4), np.inf, np.float32))
    for part in (module, model._module):  # the user's and the model's own
        assert hooks_of(part) == before
    assert [part.training for part in module.modules()] == modes
    assert all(parameter.requires_grad for parameter in module.parameters())
    torch.testing.assert_close(dict(module.state_dict()), dict(state), rtol=0, atol=0)
    assert torch.overrides._len_torch_function_stack() == 0


def test_nothing_is_left_when_opening_fails() -> None:
    class Fails(Twice):
        def forward(self, x: Any) -> Any:
            super().forward(x)
            raise RuntimeError("first line\nsecond line")

    module = Fails().train()
    with refused(ModelError, "RuntimeError: first line"):
        ADAPTER.open(module, input_shape=(4,))
    assert hooks_of(module) == [0] * len(list(module.modules()))
    assert all(part.training for part in module.modules())
    gc.collect()
    assert torch.overrides._len_torch_function_stack() == 0


def test_later_training_changes_nothing_and_digests_tell_weights_apart() -> None:
    module = Twice()
    model, again = open_live(module, (4,)), open_live(copy.deepcopy(module), (4,))
    x = np.ones((3, 4), np.float32)
    before = model.predict(x)
    with torch.no_grad():
        module.last.weight.zero_()
    np.testing.assert_array_equal(model.predict(x), before)
    assert model.digest == again.digest != open_live(module, (4,)).digest


class Halving(nn.Module):
    """The answer to an input depends on the others in its batch; always the same modules are called."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.tanh, self.b = nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)

    def forward(self, x: Any) -> Any:
        x = self.a(x)
        while x.abs().max() > 1:
            x = x / 2
        return self.b(self.tanh(x))


def test_inputs_that_see_one_another_are_asked_one_at_a_time() -> None:
    module = Halving()
    model = open_live(module, (4,))
    x = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    expected = torch.cat([module(torch.from_numpy(row[None])) for row in x]).detach()
    np.testing.assert_allclose(model.predict(x), torch.softmax(expected, 1), atol=1e-6)
    check_model(model, x)


class Pathological(nn.Module):
    """Does with an input what a function says."""

    def __init__(self, forward: Any) -> None:
        super().__init__()
        self.linear, self.relu, self.tanh, self.function = nn.Linear(4, 3), nn.ReLU(), nn.Tanh(), forward

    def forward(self, x: Any) -> Any:
        guard(x)
        return self.function(self, x)


def refusals() -> Iterator[tuple[Any, tuple[str, ...]]]:
    yield lambda m, x: m.linear(m.relu(x) if x.sum() > 0 else m.tanh(x)), ("other activation modules",)
    yield lambda m, x: m.linear(torch.dropout(m.relu(x), 0.5, True)), ("other outputs", "second time")
    yield lambda m, x: m.linear(x)[:, None].repeat(1, 2, 1), ("(n, classes)", "(n, 2, 3)")
    yield lambda m, x: m.linear(x[:, :3]), ("RuntimeError: ",)


@pytest.mark.parametrize(("function", "facts"), list(refusals()), ids=["paths", "dropout", "shape", "error"])
def test_what_cannot_be_listened_to_is_refused_in_one_line(function: Any, facts: tuple[str, ...]) -> None:
    with refused(ModelError, "Pathological: ", "torch.export", "(4,)", *facts):
        ADAPTER.open(Pathological(function), input_shape=(4,))


def test_another_path_met_later_is_an_error() -> None:
    model = open_live(Pathological(lambda m, x: m.linear(m.relu(m.relu(x)) if x.max() > 1e6 else m.relu(x))), (4,))
    with refused(ModelError, "relu", "relu, relu:2"):
        model.activations(np.full((2, 4), 1e7, np.float32), ["relu"])


def test_what_cannot_be_copied_is_refused_in_one_line() -> None:
    module = Twice()
    module.lock = threading.Lock()
    with refused(ModelError, "Twice: ", "copied", "TypeError: cannot pickle"):
        ADAPTER.open(module, input_shape=(4,))


def test_scripted_parts_are_not_looked_into() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        part = torch.jit.script(nn.Sequential(nn.Linear(4, 5), nn.ReLU()))
    module = nn.Sequential(part, nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3))
    model = open_live(Guarded(module), (4,))
    assert list(model.layers.values()) == [6, 3]
    check_model(model, np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32))


def test_weights_of_a_file_in_such_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(Twice().state_dict(), tmp_path / "twice.pth")
    model = ADAPTER.open(tmp_path / "twice.pth", arch=f"{__name__}:Twice", input_shape=(4,))
    assert isinstance(model, HookedModel)
    x = np.ones((3, 4), np.float32)
    np.testing.assert_array_equal(model.predict(x), open_live(Twice(), (4,)).predict(x))
