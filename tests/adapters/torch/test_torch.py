"""The PyTorch adapter: live modules, exported programs and files, against forward hooks and finite differences."""

import copy
import errno
import hashlib
import logging
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from places import ROOT
from refusals import refused

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'deepjudge[torch]'")

from torch import nn  # noqa: E402
from torch_modules import (  # noqa: E402
    ADAPTER,
    NETS,
    Activations,
    Attention,
    Conv1d,
    Conv2d,
    Gru,
    Lstm,
    Mlp,
    Residual,
    Spelt,
    export,
    hooked,
    inputs,
    make,
    open_live,
    opened,
    save,
)

from deepjudge_core.errors import MissingExtraError, ModelError  # noqa: E402
from deepjudge_core.models.model import Access, Model  # noqa: E402
from deepjudge_core.models.scores import softmax as numpy_softmax  # noqa: E402

# What torch's own recurrent layers do while they are exported, and export undoes.
pytestmark = pytest.mark.filterwarnings(r"ignore:The tensor attributes self\.(lstm|gru)\._flat_weights:UserWarning")


@pytest.fixture(params=NETS, ids=lambda kind: kind.__name__)
def net(request) -> tuple[nn.Module, Model]:
    return opened(request.param)


def differences(f: Callable[[np.ndarray], np.ndarray], x: np.ndarray, step: float = 1e-6) -> np.ndarray:
    """Central finite differences of a function of one row that is given many."""
    steps = step * np.eye(x.size).reshape(x.size, *x.shape)
    return ((f(x + steps) - f(x - steps)) / (2 * step)).reshape(x.shape)


def test_taps_are_what_forward_hooks_see(net) -> None:
    module, model = net
    x = inputs(module)
    outputs = model.activations(x, list(model.layers))
    expected = hooked(module, x)
    assert [a.shape[1] for a in expected] == list(model.layers.values())
    for actual, reference in zip(outputs.values(), expected, strict=True):
        np.testing.assert_allclose(actual, reference, atol=1e-6)


def test_each_tap_alone_is_what_all_are_together(net) -> None:
    module, model = net
    x = inputs(module)
    together = model.activations(x, list(model.layers))
    for layer, expected in together.items():
        np.testing.assert_allclose(model.activations(x, [layer])[layer], expected, atol=1e-6)


def test_probabilities_are_the_modules_own(net) -> None:
    module, model = net
    x = inputs(module)
    logits = hooked(module, x)[-1]
    assert model.classes == logits.shape[1]
    np.testing.assert_allclose(model.predict(x), numpy_softmax(logits), atol=1e-6)


def test_batches_change_nothing(net) -> None:
    module, model = net
    small = open_live(module, batch_size=2)
    x = inputs(module)
    np.testing.assert_allclose(small.predict(x), model.predict(x), atol=1e-6)
    np.testing.assert_allclose(small.predict(x[:1]), model.predict(x)[:1], atol=1e-6)
    for layer in model.layers:
        np.testing.assert_allclose(
            small.activations(x, [layer])[layer], model.activations(x, [layer])[layer], atol=1e-6
        )
        np.testing.assert_allclose(
            small.gradient(x, lambda s, rows: np.cos(s), layer=layer),
            model.gradient(x, lambda s, rows: np.cos(s), layer=layer),
            atol=1e-6,
        )


def test_gradients_are_finite_differences(net) -> None:
    module, model = net
    x = inputs(module, rows=2)
    for layer in (None, *model.layers):
        weights = np.random.default_rng(1).normal(size=(2, model.layers[layer or model.logits]))
        gradient = model.gradient(x, lambda s, rows, w=weights: w[rows] * np.cos(s), layer=layer)
        assert gradient.shape == x.shape
        assert np.abs(gradient).max() > 1e-3
        for row in range(2):

            def loss(many, row=row, layer=layer, weights=weights):
                # In float64, from the part itself: the model's answers are float32.
                (scores,) = model.forward(many, [layer or model.logits])
                return np.sin(scores) @ weights[row]

            np.testing.assert_allclose(gradient[row], differences(loss, x[row]), atol=1e-6)


def state_of(module: nn.Module) -> dict:
    hooks = [k for k in vars(module) if k.endswith("_hooks")]
    return {
        "training": [part.training for part in module.modules()],
        "requires_grad": [p.requires_grad for p in module.parameters()],
        "grad": [p.grad for p in module.parameters()],
        "hooks": [len(getattr(part, k)) for part in module.modules() for k in hooks],
        "weights": {k: v.clone() for k, v in module.state_dict().items()},
        "attributes": [sorted(vars(part)) for part in module.modules()],
        "same": [id(p) for p in module.parameters()],
    }


@pytest.mark.parametrize("kind", [Conv2d, Lstm])
def test_nothing_is_left_on_a_live_module(kind: type) -> None:
    module = make(kind)
    module.linear.eval()
    next(module.parameters()).requires_grad_(False)
    before = state_of(module)
    model = open_live(module)
    x = inputs(module)
    model.predict(x)
    model.gradient(x, lambda s, rows: s)

    def fail(scores, rows):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        model.gradient(x, fail)
    after = state_of(module)
    torch.testing.assert_close(after.pop("weights"), before.pop("weights"), rtol=0, atol=0)
    assert after == before
    module.train()(torch.tensor(x)).sum().backward()  # it still trains


def test_a_module_that_cannot_be_exported_is_left_as_it_was() -> None:
    class Unexportable(Mlp):
        def forward(self, x):
            return super().forward(x)["log"] if x.sum() > 0 else x

    module = make(Unexportable)
    module.elu.eval()
    before = state_of(module)
    with refused(ModelError, "Unexportable: ", "torch.export"):
        open_live(module)
    after = state_of(module)
    after.pop("weights"), before.pop("weights")
    assert after == before


def test_later_training_changes_nothing() -> None:
    module = make(Mlp)
    model = open_live(module)
    x = inputs(module)
    before = model.predict(x)
    with torch.no_grad():
        module.linear.weight.zero_()
    np.testing.assert_array_equal(model.predict(x), before)


def test_works_inside_no_grad_and_inference_mode() -> None:
    module, model = opened(Mlp)
    x = inputs(module)
    expected = model.gradient(x, lambda s, rows: s)
    for mode in (torch.no_grad(), torch.inference_mode()):
        with mode:
            np.testing.assert_array_equal(model.gradient(x, lambda s, rows: s), expected)


def test_inputs_are_not_changed_and_may_be_read_only() -> None:
    module, model = opened(Residual)  # doubles its input in place
    x = inputs(module)
    before = x.copy()
    x.flags.writeable = False
    model.predict(x)
    model.gradient(x, lambda s, rows: s)
    np.testing.assert_array_equal(x, before)


def test_a_file_a_program_and_the_live_module_are_the_same(net, tmp_path: Path) -> None:
    module, live = net
    x = inputs(module)
    program = export(module)
    torch.export.save(program, tmp_path / "model.pt2")
    for other in (ADAPTER.open(tmp_path / "model.pt2"), ADAPTER.open(program)):
        assert dict(other.layers) == dict(live.layers)
        assert other.input == live.input
        np.testing.assert_array_equal(other.predict(x), live.predict(x))
        np.testing.assert_array_equal(other.gradient(x, lambda s, rows: s), live.gradient(x, lambda s, rows: s))


def check_taps(model: Model, module: nn.Module, parts: list[nn.Module], x: np.ndarray) -> None:
    """The taps before the logits are the outputs of the parts, matrices all."""
    outputs = []
    handles = [part.register_forward_hook(lambda p, inputs, output: outputs.append(output.clone())) for part in parts]
    with torch.no_grad():
        module(torch.tensor(x))
    for handle in handles:
        handle.remove()
    assert len(model.layers) == len(outputs) + 1
    actual = model.activations(x, list(model.layers))
    for (name, tap), output in zip(actual.items(), outputs, strict=False):
        np.testing.assert_allclose(tap, output.numpy(), atol=1e-6, err_msg=name)


# torch's own, of its own making
DECOMPOSING = pytest.mark.filterwarnings(r"ignore:`isinstance\(treespec, LeafSpec\)` is deprecated:FutureWarning")


@pytest.mark.parametrize("kind", [Activations, Spelt])
def test_every_activation_is_one_tap(kind: type) -> None:
    module = make(kind).eval()
    check_taps(open_live(module), module, list(module.acts), inputs(module))


@DECOMPOSING
def test_decomposed_programs_have_the_same_taps() -> None:
    for kind, arguments in ((Conv2d, {}), (Conv1d, {}), (Mlp, {}), (Residual, {}), (Activations, {"count": 11})):
        module = make(kind, **arguments).eval()
        live, model = open_live(module), ADAPTER.open(export(module).run_decompositions())
        x = inputs(module)
        assert list(model.layers.values()) == list(live.layers.values())
        for (name, actual), expected in zip(
            model.activations(x, list(model.layers)).items(),
            live.activations(x, list(live.layers)).values(),
            strict=True,
        ):
            np.testing.assert_allclose(actual, expected, atol=1e-6, err_msg=name)


@pytest.mark.parametrize(
    ("kind", "rows"),
    [(Conv2d, 1), (Conv2d, 3), (Attention, 3), (Gru, 1), (Gru, 6)],  # as many rows as steps, the time axis first
)
def test_files_of_a_fixed_batch_size(kind: type, rows: int, tmp_path: Path) -> None:
    module, live = opened(kind)
    model = ADAPTER.open(save(module, tmp_path / "fixed.pt2", rows), batch_size=64)
    x = inputs(module)
    assert dict(model.layers) == dict(live.layers)
    np.testing.assert_allclose(model.predict(x), live.predict(x), atol=1e-6)
    for layer in model.layers:
        np.testing.assert_allclose(model.activations(x, [layer])[layer], live.activations(x, [layer])[layer], atol=1e-6)
    np.testing.assert_allclose(model.gradient(x, lambda s, rows: s), live.gradient(x, lambda s, rows: s), atol=1e-6)


def test_a_limited_batch_size_is_kept() -> None:
    module = make(Mlp)
    sizes = []
    shapes = ({0: torch.export.Dim("rows", min=2, max=4)},)
    example = (torch.zeros(3, 7, dtype=torch.float64),)
    model = ADAPTER.open(torch.export.export(module.eval(), example, dynamic_shapes=shapes))
    model.gradient(inputs(module, rows=9), lambda s, rows: sizes.append(rows) or s)
    assert [rows.stop - rows.start for rows in sizes] == [4, 4, 1]


def test_a_module_that_needs_a_known_number_of_rows() -> None:
    class Cached(Mlp):
        def __init__(self) -> None:
            super().__init__()
            self.shapes = {}

        def forward(self, x):
            self.shapes[x.shape] = True  # a symbolic shape cannot be a key
            return super().forward(x)

    module = make(Cached)
    x = inputs(module)
    np.testing.assert_array_equal(open_live(module).predict(x), opened(Mlp)[1].predict(x))


def test_a_module_that_asks_for_the_number_of_rows() -> None:
    class Sized(Mlp):
        def forward(self, x):
            return super().forward(x.reshape(len(x), -1))

    module = make(Sized)
    x = inputs(module, rows=40)
    np.testing.assert_allclose(open_live(module).predict(x), opened(Mlp)[1].predict(x), atol=1e-6)


def test_axes_of_any_length() -> None:
    module, auto = make(Conv1d).eval(), torch.export.Dim.AUTO
    example = (torch.zeros(3, 3, 12, dtype=torch.float64),)
    model = ADAPTER.open(torch.export.export(module, example, dynamic_shapes=({0: auto, 2: auto},)))
    assert model.input.shape == (3, None)
    assert model.predict(np.zeros((2, 3, 20))).shape == (2, 3)


def test_time_folded_into_the_rows() -> None:
    class Folded(nn.Module):
        shape = (4, 3)

        def __init__(self) -> None:
            super().__init__()
            self.first, self.linear = nn.Linear(3, 5), nn.Linear(20, 2)

        def forward(self, x):
            y = torch.relu(self.first(x.reshape(-1, 3)))
            return self.linear(y.reshape(x.shape[0], -1))

    module = make(Folded)
    model = open_live(module)
    assert not model.fixed_batch
    x = inputs(module)
    expected = np.maximum(module.first(torch.tensor(x)).detach().numpy(), 0).mean(1)
    assert list(model.layers.values()) == [5, 2]
    np.testing.assert_allclose(model.activations(x, list(model.layers))[next(iter(model.layers))], expected, atol=1e-6)


def test_the_last_state_of_a_recurrent_layer_is_its_tap_where_only_that_is_used() -> None:
    class Last(Lstm):
        def forward(self, x):
            return self.linear(self.gru(x)[1][-1])

        def __init__(self) -> None:
            super().__init__()
            self.gru = nn.GRU(4, 5, batch_first=True)

    module = make(Last).eval()
    model = open_live(module)
    x = inputs(module)
    tap = next(iter(model.layers))
    expected = module.gru(torch.tensor(x))[1][-1].detach().numpy()
    np.testing.assert_allclose(model.activations(x, [tap])[tap], expected, atol=1e-6)


@pytest.mark.parametrize("hooked", [False, True])
def test_a_last_state_and_its_sequence_are_taps_in_that_order(hooked: bool) -> None:
    class Both(nn.Module):
        shape = (6, 4)

        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.linear = nn.LSTM(4, 5, batch_first=True), nn.Linear(10, 3)

        def forward(self, x):
            if hooked and x.sum() > 1e9:  # which torch.export cannot export
                raise ValueError
            y, (h, _) = self.lstm(x)
            return self.linear(torch.cat([h[-1], y.mean(1)], 1))

    module = make(Both).eval()
    model = open_live(module)
    x = inputs(module)
    y, (h, _) = module.lstm(torch.tensor(x))
    state, sequence, _ = model.activations(x, list(model.layers)).values()
    np.testing.assert_allclose(state, h[-1].detach().numpy(), atol=1e-6)
    np.testing.assert_allclose(sequence, y.mean(1).detach().numpy(), atol=1e-6)


def test_every_step_of_a_recurrent_cell_is_a_tap() -> None:
    class Cells(nn.Module):
        shape = (3, 4)

        def __init__(self) -> None:
            super().__init__()
            self.cell, self.linear = nn.GRUCell(4, 5), nn.Linear(5, 2)

        def forward(self, x):
            state = x.new_zeros(x.shape[0], 5)
            for step in range(3):
                state = self.cell(x[:, step], state)
            return self.linear(state)

    module = make(Cells)
    check_taps(open_live(module), module, [module.cell], inputs(module))


def test_channels_are_found_where_a_model_moves_them() -> None:
    class ChannelsLast(Conv2d):
        shape = (9, 8, 2)

        def forward(self, x):
            return super().forward(x.permute(0, 3, 1, 2))

    model = open_live(make(ChannelsLast))
    assert model.input.layout == "channels_last"
    assert list(model.layers.values()) == [4, 3, 5]
    layouts = {kind.__name__: opened(kind)[1].input.layout for kind in NETS}
    first = "channels_first"
    assert layouts == {
        "Conv2d": first, "Conv1d": first, "Mlp": None, "Lstm": None, "Gru": None, "Residual": first, "Attention": first
    }  # fmt: skip


def test_the_input_is_described() -> None:
    model = opened(Conv2d)[1]
    assert (model.input.shape, model.input.dtype) == ((2, 9, 8), "float64")
    assert (model.framework, model.name, model.access) == ("torch", "Conv2d", Access.FULL)
    assert open_live(make(Mlp), name="mine").name == "mine"


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision(dtype: str) -> None:
    torch.manual_seed(0)
    module = Mlp().to(getattr(torch, dtype))
    model = open_live(module)
    x = inputs(module).astype(np.float32)
    reference = opened(Mlp)[1]
    np.testing.assert_allclose(model.predict(x), reference.predict(x), atol=2e-2)
    np.testing.assert_allclose(
        model.gradient(x, lambda s, rows: s), reference.gradient(x, lambda s, rows: s), atol=2e-2
    )


def test_whole_numbers_have_no_gradients() -> None:
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.linear = nn.Embedding(9, 4), nn.Linear(4, 2)

        def forward(self, x):
            return self.linear(torch.relu(self.embedding(x)).mean(1))

    program = torch.export.export(Words().eval(), (torch.zeros(3, 5, dtype=torch.int64),))
    model = ADAPTER.open(program)
    assert (model.input.dtype, model.access) == ("int64", Access.WHITE_BOX)
    assert model.predict(np.ones((4, 5))).shape == (4, 2)
    with refused(ModelError, "int64"):
        model.gradient(np.ones((4, 5)), lambda s, rows: s)


def test_one_sigmoid_output_is_two_classes() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1), nn.Sigmoid()).double()
    model = ADAPTER.open(module, input_shape=(3,))
    x = np.random.default_rng(0).normal(size=(4, 3))
    assert model.classes == 2
    np.testing.assert_allclose(model.predict(x)[:, 1:], module(torch.tensor(x)).detach().numpy(), atol=1e-6)


def test_a_blocked_gradient_is_an_error() -> None:
    class Blocked(Mlp):
        def forward(self, x):
            return super().forward(x.detach())

    model = open_live(make(Blocked))
    with refused(ModelError, "Blocked: ", "'linear_2'"):
        model.gradient(np.zeros((2, 7)), lambda s, rows: s)


DIGEST = """
import sys, torch
sys.path.insert(0, sys.argv[1])
from torch_modules import *
print(open_live(make(Attention)).digest)
"""


def test_equal_modules_have_equal_digests_in_any_process() -> None:
    digest = opened(Attention)[1].digest
    command = [sys.executable, "-W", "error", "-c", DIGEST, str(ROOT / "tests" / "support")]
    output = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert output.stdout.strip() == digest
    assert ADAPTER.open(export(opened(Attention)[0])).digest == digest


def test_digests_differ_by_weights_and_by_graph(tmp_path: Path) -> None:
    class Doubled(Mlp):
        def forward(self, x):
            return super().forward(2 * x)

    digests = [open_live(make(Mlp)).digest, open_live(make(Mlp, seed=1)).digest, open_live(make(Doubled)).digest]
    assert len(set(digests)) == 3
    path = save(make(Mlp), tmp_path / "model.pt2")
    assert ADAPTER.open(path).digest == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_live_module_needs_the_shape_of_its_input() -> None:
    with refused(ModelError, "input_shape=(1, 28, 28)"):
        ADAPTER.open(make(Mlp))


@pytest.mark.parametrize("kind", [Conv2d, Lstm])
def test_a_program_exported_in_training_mode_is_refused(kind: type) -> None:
    module = make(kind).train()
    program = torch.export.export(module, (torch.zeros(2, *module.shape, dtype=torch.float64),))
    with refused(ModelError, ".eval()"):
        ADAPTER.open(program)


@DECOMPOSING
def test_harmless_traces_of_training_are_not_refused() -> None:
    class Harmless(Gru):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.InstanceNorm1d(6)

        def forward(self, x):
            return super().forward(nn.functional.dropout(self.norm(x), 0.0))

    module = make(Harmless).train()
    program = torch.export.export(module, (torch.zeros(2, *module.shape, dtype=torch.float64),))
    ADAPTER.open(program)
    ADAPTER.open(program.run_decompositions())


def test_several_inputs_and_other_outputs_are_refused() -> None:
    class Two(nn.Module):
        def forward(self, x, y):
            return x + y

    class Square(nn.Module):
        def forward(self, x):
            return [x[:, None] * x[:, :, None], x.sum()]

    x, y = torch.zeros(3, 4), torch.ones(3, 4)
    with refused(ModelError, "2: x, y"):
        ADAPTER.open(torch.export.export(Two(), (x, y)))
    with refused(ModelError, "(n, classes)", "(n, 4, 4), ()"):
        ADAPTER.open(Square(), input_shape=(4,))


def bad_files(folder: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    good = save(make(Mlp), folder / "good.pt2").read_bytes()
    (folder / "empty.pt2").write_bytes(b"")
    yield "empty", ("empty",)
    (folder / "text.pt2").write_text("not a model at all")
    yield "text", ("format",)
    (folder / "truncated.pt2").write_bytes(good[: len(good) // 2])
    yield "truncated", ("truncated",)
    with zipfile.ZipFile(folder / "zip.pt2", "w") as archive:
        archive.writestr("a/b.txt", "hello")
    yield "zip", ("zip",)
    with zipfile.ZipFile(folder / "good.pt2") as archive, zipfile.ZipFile(folder / "damaged.pt2", "w") as damaged:
        for item in archive.infolist():
            data = archive.read(item)
            damaged.writestr(item.filename, data[:-9] if item.filename.endswith("model.json") else data)
    yield "damaged", (torch.__version__, "JSONDecodeError")
    with zipfile.ZipFile(folder / "good.pt2") as archive, zipfile.ZipFile(folder / "lacking.pt2", "w") as lacking:
        for item in archive.infolist():
            if not item.filename.endswith("weight_0"):
                lacking.writestr(item.filename, archive.read(item))
    yield "lacking", (torch.__version__,)
    yield "missing", (os.strerror(errno.ENOENT),)


def test_bad_files_are_one_line(tmp_path: Path, capfd, caplog) -> None:
    for name, facts in bad_files(tmp_path):
        path = tmp_path / f"{name}.pt2"
        with refused(ModelError, f"{path}: ", "torch.export", *facts):
            ADAPTER.open(path)
    assert capfd.readouterr() == ("", "")
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_the_adapter_knows_its_models_without_importing_torch() -> None:
    assert ADAPTER.accepts(make(Mlp))
    assert ADAPTER.accepts(export(make(Mlp)))
    assert not ADAPTER.accepts(np.zeros(3))
    code = (
        "import sys, deepjudge_torch as d; a, = d.deepjudge_adapters(); a.accepts(1); sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_torch_the_extra_is_named(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.delitem(sys.modules, "deepjudge_torch.model", raising=False)
    monkeypatch.delitem(sys.modules, "deepjudge_torch.graph", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    with refused(MissingExtraError, "m.pt2: ", "PyTorch", "deepjudge[torch]"):
        ADAPTER.open(tmp_path / "m.pt2")


def test_copies_of_a_module_are_equal() -> None:
    module, model = opened(Mlp)
    assert open_live(copy.deepcopy(module)).digest == model.digest
