"""Training of PyTorch networks: the contract, weights and statistics, heads, files, randomness, errors."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from refusals import refused

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'deepjudge[torch]'")

from networks import formats  # noqa: E402
from networks.architectures import ARCHITECTURES, CLASSES  # noqa: E402
from networks.matrix import FORMS  # noqa: E402
from torch import nn  # noqa: E402

from deepjudge_core import open_model  # noqa: E402
from deepjudge_core.components.opening import open_network  # noqa: E402
from deepjudge_core.errors import ModelError  # noqa: E402
from deepjudge_core.models.network import Losses, Network  # noqa: E402
from deepjudge_core.models.training import Schedule, accuracy, cross_entropy, train  # noqa: E402
from deepjudge_core.testing.networks import check_network  # noqa: E402

# What torch's own recurrent layers do while they are exported, and export undoes.
pytestmark = pytest.mark.filterwarnings(r"ignore:The tensor attributes self\.\w+\._flat_weights:UserWarning")


class Normalised(nn.Module):
    """Convolutions with normalisation and dropout, a shortcut, and a convolution and a pooling as the head."""

    shape = (2, 6, 6)
    input_shape = shape

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.full((1, 2, 1, 1), 0.1))
        self.first, self.norm1 = nn.Conv2d(2, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.second, self.norm2 = nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.drop, self.head = nn.Dropout(0.3), nn.Conv2d(6, 3, 1)

    def forward(self, x):
        x = torch.relu(self.norm1(self.first(x - self.mean)))
        x = torch.relu(x + self.norm2(self.second(x)))
        return torch.softmax(self.head(self.drop(x)).mean((2, 3)), 1)


class Tied(nn.Module):
    """Two layers with one weight, and a product written as such."""

    shape = (4,)

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.slope = nn.Linear(4, 4), nn.Linear(4, 4), nn.PReLU()
        self.two.weight = self.one.weight
        self.matrix, self.bias = nn.Parameter(torch.randn(4, 3)), nn.Parameter(torch.zeros(3))

    def forward(self, x):
        return self.slope(self.two(torch.tanh(self.one(x)))) @ self.matrix + self.bias


class Written(nn.Module):
    """A softmax that the graph does not say is one."""

    shape = (5,)

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(5, 8), nn.Linear(8, 3)

    def forward(self, x):
        y = torch.exp(self.b(torch.relu(self.a(x))))
        return y / y.sum(1, keepdim=True)


class Binary(nn.Module):
    shape = (5,)

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(5, 8), nn.Linear(8, 1)

    def forward(self, x):
        return torch.sigmoid(self.b(torch.relu(self.a(x))))


class LastAxis(nn.Module):
    """Images with the channels last."""

    shape = (8, 8, 3)

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(torch.relu(self.first(x.permute(0, 3, 1, 2))).mean((2, 3)))


def opened(kind: type[Any], seed: int = 0) -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = kind().eval()
    return open_network(module, input_shape=kind.shape)


def data(shape: tuple[int, ...], classes: int = 3, n: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """Inputs whose class can be seen: the sign and size of their mean."""
    rng = np.random.default_rng(0)
    y = np.arange(n) % classes
    x = rng.uniform(-1, 1, (n, *shape)) + (y.reshape(-1, *[1] * len(shape)) - (classes - 1) / 2)
    return x.astype(np.float32), y


@pytest.fixture(scope="module")
def normalised() -> Network:
    return opened(Normalised)


@pytest.mark.parametrize(
    ("form", "name"),
    [
        *(("torch", name) for name in ARCHITECTURES),
        ("torch-pt2", "conv2d"),
        ("torch-pt2", "GRU"),
        ("torch-pth", "dense"),
        ("torch-safetensors", "conv1d"),
        ("torch-traced", "LSTM"),
    ],
)
def test_every_architecture_keeps_the_contract(form: str, name: str, tmp_path: Path) -> None:
    options = FORMS[form].options(name)
    source = FORMS[form].build(name, 0, tmp_path / "model")
    network = open_network(source, **options)
    architecture = ARCHITECTURES[name]
    x = architecture.inputs(12)
    expected = open_model(source, **options).predict(x)
    assert tuple(network.architecture.layers.values()) == architecture.layers
    assert set(network.weights) == set(architecture.shapes)
    assert network.architecture.parameters == tuple(network.weights)
    last = list(architecture.shapes)[-1].rpartition(".")[0]
    assert network.architecture.head == (f"{last}.weight", f"{last}.bias")
    np.testing.assert_allclose(network.predict(x), expected, atol=1e-5)
    network.save(tmp_path / "saved.pt2")
    np.testing.assert_allclose(open_model(tmp_path / "saved.pt2").predict(x), expected, atol=1e-5)
    check_network(network, x, np.arange(12) % CLASSES)


@pytest.mark.parametrize("kind", [Normalised, Tied, Written, Binary, LastAxis])
def test_other_networks_keep_the_contract(kind: type[Any], tmp_path: Path) -> None:
    network = opened(kind)
    x, y = data(kind.shape, network.architecture.classes)
    check_network(network, x, y)
    after = train(network, x, y, np.random.default_rng(0), schedule=Schedule(epochs=2, batch=8))
    after.save(tmp_path / "saved.pt2")
    np.testing.assert_allclose(open_model(tmp_path / "saved.pt2").predict(x), after.predict(x), atol=1e-5)
    again = open_network(tmp_path / "saved.pt2")
    assert {name: array.tolist() for name, array in again.weights.items()} == {
        name: array.tolist() for name, array in after.weights.items()
    }


@pytest.mark.parametrize(
    ("kind", "head"),
    [
        (Normalised, ("head.weight", "head.bias")),
        (Tied, ("matrix", "bias")),
        (Written, ("b.weight", "b.bias")),
        (Binary, ("b.weight", "b.bias")),
    ],
)
def test_the_head_is_found_in_the_graph(kind: type[Any], head: tuple[str, ...]) -> None:
    assert opened(kind).architecture.head == head


def test_weights_are_parameters_and_statistics_in_forward_order(normalised: Network) -> None:
    norm1 = ["norm1.weight", "norm1.bias", "norm1.running_mean", "norm1.running_var"]
    norm2 = [name.replace("1", "2") for name in norm1]
    names = ["first.weight", *norm1, "second.weight", "second.bias", *norm2, "head.weight", "head.bias"]
    assert list(normalised.weights) == names
    assert normalised.architecture.parameters == tuple(name for name in names if "running" not in name)


def test_a_shared_weight_is_one(tmp_path: Path) -> None:
    network = opened(Tied)
    assert len([name for name in network.weights if name.endswith(".weight") and "slope" not in name]) == 1


def test_statistics_move_in_training_and_not_in_use(normalised: Network) -> None:
    x, y = data(Normalised.shape)
    training, use = (normalised.architecture.trainer(normalised.weights, in_use=in_use) for in_use in (False, True))
    for trainer in (training, use):
        trainer.step(x, Losses(cross_entropy(y)), rate=1e-3)
    before = normalised.weights["norm1.running_mean"]
    module = Normalised()
    module.load_state_dict({name: torch.tensor(array) for name, array in normalised.weights.items()}, strict=False)
    module.train()(torch.tensor(x))
    np.testing.assert_allclose(training.weights()["norm1.running_mean"], module.norm1.running_mean, atol=1e-6)
    assert not np.array_equal(training.weights()["norm1.running_mean"], before)
    assert np.array_equal(use.weights()["norm1.running_mean"], before)


def test_a_batch_of_one_row_leaves_the_statistics_finite(normalised: Network) -> None:
    x, y = data(Normalised.shape)
    trainer = normalised.architecture.trainer(normalised.weights)
    trainer.step(x[:1], Losses(cross_entropy(y[:1])), rate=1e-3)
    assert all(np.isfinite(array).all() for array in trainer.weights().values())


@pytest.mark.filterwarnings(r"ignore:`isinstance\(treespec, LeafSpec\)` is deprecated:FutureWarning")
def test_decomposed_normalisation_is_trained_too(tmp_path: Path) -> None:
    example = torch.zeros(2, *Normalised.shape)
    rows = ({0: torch.export.Dim("rows")},)
    program = torch.export.export(Normalised().eval(), (example,), dynamic_shapes=rows).run_decompositions()
    network = open_network(program)
    x, y = data(Normalised.shape)
    trainer = network.architecture.trainer(network.weights)
    trainer.step(x, Losses(cross_entropy(y)), rate=1e-3)
    assert not np.array_equal(trainer.weights()["norm1.running_mean"], network.weights["norm1.running_mean"])


def test_dropout_drops_in_training_alone_by_its_own_seed(normalised: Network) -> None:
    x, y = data(Normalised.shape)

    def stepped(seed: int, **options: Any) -> np.ndarray:
        trainer = normalised.architecture.trainer(normalised.weights, seed=seed, **options)
        for _ in range(3):
            torch.rand(7)  # somebody else's
            trainer.step(x, Losses(cross_entropy(y)), rate=1e-3)
        return trainer.weights()["head.weight"]

    assert np.array_equal(stepped(1), stepped(1))
    assert not np.array_equal(stepped(1), stepped(2))
    assert np.array_equal(stepped(1, in_use=True), stepped(2, in_use=True))


def test_torchs_own_random_numbers_stay_as_they_are(normalised: Network) -> None:
    x, y = data(Normalised.shape)
    before = torch.get_rng_state()
    train(normalised, x, y, np.random.default_rng(0), schedule=Schedule(epochs=1))
    architecture = normalised.architecture
    architecture.initial(np.random.default_rng(0))
    architecture.student().initial(np.random.default_rng(0))
    assert torch.equal(torch.get_rng_state(), before)


def test_training_learns(normalised: Network) -> None:
    x, y = data(Normalised.shape, n=300)
    rng = np.random.default_rng(0)
    fresh = Network.fresh(normalised.architecture, rng)
    student = Network.fresh(normalised.architecture.student(), rng)
    for network in (fresh, student):
        after = train(network, x, y, rng, schedule=Schedule(epochs=8, rate=1e-2, batch=32))
        assert accuracy(after, x, y) > 0.95


def test_a_fresh_module_is_as_its_parts_draw_it() -> None:
    drawn = opened(Normalised).architecture.initial(np.random.default_rng(3))
    assert (drawn["norm1.running_var"] == 1).all()
    assert (drawn["norm1.weight"] == 1).all()
    limit = 1 / np.sqrt(2 * 9)  # of nn.Conv2d
    assert limit * 0.9 < np.abs(drawn["first.weight"]).max() <= limit


def test_a_fresh_network_of_an_arch_is_as_its_factory_makes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_network.py").write_text(
        "import torch\nfrom torch import nn\n"
        "def make():\n"
        "    made = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))\n"
        "    nn.init.normal_(made[0].weight, 5.0)\n"
        "    return made\n"
    )
    monkeypatch.chdir(tmp_path)
    torch.save(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).state_dict(), tmp_path / "w.pth")
    network = open_network(tmp_path / "w.pth", arch="own_network:make", input_shape=(4,))
    drawn = network.architecture.initial(np.random.default_rng(0))
    assert 4 < drawn["0.weight"].mean() < 6
    other = network.with_fresh_head(np.random.default_rng(0), 7)
    assert other.weights["2.weight"].shape == (7, 6)
    assert 4 < other.architecture.initial(np.random.default_rng(0))["0.weight"].mean() < 6
    sys.modules.pop("own_network")


def test_a_fresh_program_is_drawn_by_rule(tmp_path: Path) -> None:
    source = formats.pt2("conv2d", 0, tmp_path / "model")
    drawn = open_network(source).architecture.initial(np.random.default_rng(0))
    for name, limit in (("conv2.weight", (6 / 16) ** 0.5), ("dense2.weight", (6 / 15) ** 0.5)):
        assert limit * 0.8 < np.abs(drawn[name]).max() <= limit
    assert not drawn["conv2.bias"].any()


def test_a_binary_network_has_scores_of_two_classes() -> None:
    network = opened(Binary)
    x, _ = data(Binary.shape, 2)
    scores = network.architecture.trainer(network.weights).scores(x)
    assert scores.shape == (len(x), 2)
    assert not scores[:, 0].any()


def test_scores_of_many_rows_are_those_of_its_parts(normalised: Network) -> None:
    x, _ = data(Normalised.shape, n=1100)
    trainer = normalised.architecture.trainer(normalised.weights)
    parts = [trainer.scores(x[start : start + 100]) for start in range(0, 1100, 100)]
    np.testing.assert_allclose(trainer.scores(x), np.concatenate(parts), atol=1e-5)


def test_the_module_stays_as_it_is() -> None:
    module = Normalised()
    network = open_network(module, input_shape=module.shape)
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    x, y = data(module.shape)
    train(network, x, y, np.random.default_rng(0), schedule=Schedule(epochs=1))
    assert module.training
    assert all(torch.equal(tensor, state[name]) for name, tensor in module.state_dict().items())
    with torch.no_grad():
        module.first.weight.zero_()
    assert network.weights["first.weight"].any()
    assert network.architecture.model(network.weights, name="same").state["first.weight"].any()


class Secret(nn.Module):
    """A weight of which nobody can tell how it begins."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.randn(4, 3)), nn.Parameter(torch.rand(4, 3))

    def forward(self, x):
        return torch.relu(x) @ torch.nn.functional.normalize(self.a * self.b.exp())


class Integers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.dense = nn.Embedding(9, 4), nn.Linear(4, 3)

    def forward(self, x):
        return self.dense(self.embedding(x).mean(1))


def test_what_cannot_be_made_anew_says_so() -> None:
    network = open_network(Secret(), input_shape=(4,), name="secret")
    with refused(ModelError, "secret: ", "'a'"):
        network.architecture.initial(np.random.default_rng(0))


def fixed() -> Any:
    return torch.export.export(nn.Sequential(nn.Linear(4, 3)).eval(), (torch.zeros(2, 4),))


def integers() -> Any:
    rows = ({0: torch.export.Dim("rows")},)
    return torch.export.export(Integers().eval(), (torch.zeros(2, 6, dtype=torch.int64),), dynamic_shapes=rows)


def half() -> Any:
    rows = ({0: torch.export.Dim("rows")},)
    example = torch.zeros(2, 4, dtype=torch.float16)
    return torch.export.export(nn.Linear(4, 3).half().eval(), (example,), dynamic_shapes=rows)


def weightless() -> Any:
    return torch.export.export(nn.ReLU(), (torch.zeros(2, 4),), dynamic_shapes=({0: torch.export.Dim("rows")},))


@pytest.mark.parametrize(
    ("source", "facts"),
    [
        (fixed, ("rows", "2")),
        (integers, ("float32 or float64", "int64")),
        (half, ("float32 or float64", "float16")),
        (weightless, ("weights", "logits")),
    ],
)
def test_what_cannot_be_trained_says_so(source: Callable[[], Any], facts: tuple[str, ...]) -> None:
    with refused(ModelError, "m: ", *facts):
        open_network(source(), name="m")


def test_a_module_that_cannot_be_exported_says_so() -> None:
    from networks.torch_networks import Unexportable

    with refused(ModelError, "m: ", "torch.export"):
        open_network(Unexportable(nn.Linear(4, 3)), input_shape=(4,), name="m")


def test_a_student_of_channels_last_takes_the_same_inputs() -> None:
    network = opened(LastAxis)
    student = network.architecture.student()
    assert student.input == network.architecture.input
    assert student.input.layout == "channels_last"
    assert student.framework == "torch"


def test_a_square_head_gets_its_classes_on_the_right_axis() -> None:
    class Square(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.matrix = nn.Linear(4, 3), nn.Parameter(torch.randn(3, 3))

        def forward(self, x):
            return torch.relu(self.first(x)) @ self.matrix

    network = open_network(Square(), input_shape=(4,))
    assert network.architecture.with_classes(5).values()["matrix"].shape == (3, 5)
