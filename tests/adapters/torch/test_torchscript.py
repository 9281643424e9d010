"""TorchScript: converted, checked, and run as it is where it cannot be converted."""

import hashlib
import os
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models import LAYERS, SHAPE, inputs, torch_module
from places import ROOT
from refusals import expect_facts, refused

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'deepjudge[torch]'")

import deepjudge_torch  # noqa: E402
import deepjudge_torch.script as script_module  # noqa: E402
import torch_modules as nets  # noqa: E402
from torch import nn  # noqa: E402
from torch_modules import make_script  # noqa: E402

from deepjudge_core import Model, open_model  # noqa: E402
from deepjudge_core.errors import ModelError  # noqa: E402
from deepjudge_core.testing import check_model  # noqa: E402

(ADAPTER,) = deepjudge_torch.deepjudge_adapters()


def save(script: Any, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(script, path)
    return path


def same(model: Model, reference: Model, x: np.ndarray, tolerance: float = 1e-5) -> None:
    assert list(model.layers.values()) == list(reference.layers.values())
    np.testing.assert_allclose(model.predict(x), reference.predict(x), atol=tolerance)
    for mine, other in zip(model.layers, reference.layers, strict=True):
        actual, expected = model.activations(x, [mine])[mine], reference.activations(x, [other])[other]
        np.testing.assert_allclose(actual, expected, atol=tolerance)
        gradients = [m.gradient(x, lambda s, rows: s, layer=layer) for m, layer in ((model, mine), (reference, other))]
        np.testing.assert_allclose(*gradients, atol=tolerance)


@pytest.mark.parametrize(("how", "softmax"), [("traced", True), ("scripted", False), ("frozen", True)])
def test_the_network_in_torchscript_is_the_network(how: str, softmax: bool, tmp_path: Path) -> None:
    module, x = torch_module(1, softmax=softmax), inputs(8)
    path = save(make_script(module, how, torch.from_numpy(x[:2])), tmp_path / "net.pt")
    model = open_model(path, **({} if how == "traced" else {"input_shape": SHAPE}))
    assert tuple(model.layers.values()) == LAYERS
    assert (model.input.shape, model.framework, model.name) == (SHAPE, "torch", str(path))
    assert model.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    same(model, ADAPTER.open(module, input_shape=SHAPE), x)
    check_model(model, x)


@pytest.mark.parametrize(
    ("kind", "how"),
    [
        *((kind, "scripted") for kind in (*nets.NETS, nets.Activations)),
        *((kind, "traced") for kind in (nets.Mlp, nets.Gru, nets.Residual, nets.Spelt)),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_every_network(kind: type, how: str, tmp_path: Path) -> None:
    module, live = nets.opened(kind)
    x = nets.inputs(module)
    path = save(make_script(module, how, torch.tensor(x[:3])), tmp_path / "net.pt")
    model = ADAPTER.open(path, input_shape=module.shape)
    same(model, live, x)
    assert model.input == live.input


def test_a_live_script_is_copied_and_left_alone() -> None:
    module = nets.make(nets.Mlp)
    x = nets.inputs(module)
    live, script = nets.open_live(module), make_script(module, "scripted")
    script.train()
    model = ADAPTER.open(script, input_shape=(7,))
    assert script.training
    with torch.no_grad():
        script.linear.weight.zero_()
    same(model, live, x)


DIGEST = """
import sys
sys.path.insert(0, sys.argv[1])
from torch_modules import *
for seed in (0, 0, 1):
    print(ADAPTER.open(make_script(make(Mlp, seed), "scripted"), input_shape=(7,)).digest)
"""


def test_live_scripts_have_digests_of_their_own() -> None:
    command = [sys.executable, "-c", DIGEST, str(ROOT / "tests" / "support")]
    env = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": os.pathsep.join(sys.path)}
    digests = subprocess.run(command, capture_output=True, text=True, check=True, env=env).stdout.split()
    assert digests[0] == digests[1] != digests[2]
    script = make_script(nets.make(nets.Mlp), "scripted")
    assert ADAPTER.open(script, input_shape=(7,)).digest == digests[0]


def test_traced_for_one_row_only(tmp_path: Path) -> None:
    class OneRow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = torch_module(1)

        def forward(self, x: Any) -> Any:
            return self.net(x).view(1, 5)

    path = save(make_script(OneRow(), "traced", torch.from_numpy(inputs(1))), tmp_path / "one.pt")
    same(ADAPTER.open(path), ADAPTER.open(torch_module(1), input_shape=SHAPE), inputs(4))


class Loop(nn.Module):
    """Cannot be converted: how often it halves depends on the values, of all rows."""

    def __init__(self, softmax: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last, self.softmax = nn.Linear(4, 5), nn.Linear(5, 3), softmax

    def forward(self, x):
        x = self.first(x)
        while bool(x.abs().max() > 1):
            x = x / 2
        x = self.last(torch.tanh(x))
        return torch.softmax(x, 1) if self.softmax else x


@pytest.mark.parametrize("softmax", [True, False])
def test_what_cannot_be_converted_is_run_as_it_is(softmax: bool, tmp_path: Path) -> None:
    module = Loop(softmax)
    path = save(make_script(module, "scripted"), tmp_path / "loop.pt")
    with pytest.warns(UserWarning, match="prim::Loop") as caught:
        model = ADAPTER.open(path, input_shape=(4,))
    [warning] = caught
    expect_facts(str(warning.message), "loop.pt: ", "logits")
    assert dict(model.layers) == {"logits": 3}
    assert "prim::Loop" in model.unseen
    x = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    # One input at a time: the answer to one must not depend on the others.
    expected = torch.cat([module(torch.from_numpy(row[None])) for row in x]).detach()
    expected = expected if softmax else torch.softmax(expected, 1)
    np.testing.assert_allclose(model.predict(x), expected.numpy(), atol=1e-6)
    check_model(model, x)


def test_a_conversion_that_differs_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(make_script(torch_module(1), "scripted"), tmp_path / "net.pt")
    other = script_module.export_module(torch_module(2), torch.zeros(17, *SHAPE))
    monkeypatch.setattr(script_module, "_by_converter", lambda module, example: other)
    reference = ADAPTER.open(torch_module(1), input_shape=SHAPE)
    same(ADAPTER.open(path, input_shape=SHAPE), reference, inputs(4))  # the second way
    monkeypatch.setattr(script_module, "_by_tracing", lambda module, example: other)
    with pytest.warns(UserWarning, match="outputs") as caught:
        model = ADAPTER.open(path, input_shape=SHAPE)
    [warning] = caught
    expect_facts(str(warning.message), "net.pt: ", "logits")
    np.testing.assert_allclose(model.predict(inputs(4)), reference.predict(inputs(4)), atol=1e-6)
    gradients = [m.gradient(inputs(4), lambda s, rows: s) for m in (model, reference)]
    np.testing.assert_allclose(*gradients, atol=1e-5)


def test_words_are_whole_numbers(tmp_path: Path) -> None:
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.linear = nn.Embedding(9, 4), nn.Linear(4, 2)

        def forward(self, x):
            return self.linear(torch.relu(self.embedding(x)).mean(1))

    script = make_script(Words(), "traced", torch.zeros(3, 5, dtype=torch.int64))
    model = ADAPTER.open(save(script, tmp_path / "words.pt"))
    assert (model.input.dtype, model.input.shape, list(model.layers.values())) == ("int64", (5,), [4, 2])


def test_traced_attention(tmp_path: Path) -> None:
    # Whose trace computes its sizes anew, and is of torch's own encoder, which has a faster way without gradients.
    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches, self.linear = nn.Conv2d(1, 8, 4, 4), nn.Linear(8, 3)
            self.encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, activation=nn.GELU())

        def forward(self, x):
            return self.linear(self.encoder(self.patches(x).flatten(2).transpose(1, 2)).mean(1))

    module, x = Encoder().eval(), inputs(6)[:, :1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        script = torch.jit.trace(module, torch.from_numpy(x[:2]), check_trace=False)
    model = ADAPTER.open(save(script, tmp_path / "net.pt"))
    assert list(model.layers.values()) == [16, 3]
    same(model, ADAPTER.open(module, input_shape=(1, 8, 8)), x)


def test_half_precision(tmp_path: Path) -> None:
    module = torch_module(1)
    path = save(make_script(torch_module(1).to(torch.bfloat16), "scripted"), tmp_path / "half.pt")
    model = ADAPTER.open(path, input_shape=SHAPE)
    expected = ADAPTER.open(module, input_shape=SHAPE).predict(inputs(4))
    np.testing.assert_allclose(model.predict(inputs(4)), expected, atol=5e-2)
    assert (tuple(model.layers.values()), model.input.dtype) == (LAYERS, "float32")


def test_a_program_by_another_name(tmp_path: Path) -> None:
    module, live = nets.opened(nets.Mlp)
    path = nets.save(module, tmp_path / "net.pt2").rename(tmp_path / "net.pth")
    same(ADAPTER.open(path), live, nets.inputs(module))


class Two(nn.Module):
    def forward(self, x, y):
        return x + y


class Square(nn.Module):
    def forward(self, x):
        return x[:, None] * x[:, :, None]


def test_bad_scripts_are_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    good = save(make_script(torch_module(1), "scripted"), tmp_path / "good.pt")
    save(make_script(Two(), "scripted"), tmp_path / "two.pt")
    save(make_script(Square(), "scripted"), tmp_path / "square.pt")
    (tmp_path / "cut.pt").write_bytes(good.read_bytes()[:3000])
    with zipfile.ZipFile(good) as archive, zipfile.ZipFile(tmp_path / "damaged.pt", "w") as damaged:
        for item in archive.infolist():
            data = archive.read(item)
            damaged.writestr(item.filename, b"def ?" if "/code/" in item.filename else data)
    cases: list[tuple[str, Any, tuple[str, ...]]] = [
        ("good", None, ("input_shape=(1, 28, 28)",)),
        ("good", (3, 9), ("(3, 9)", "RuntimeError: ")),
        ("two", (3,), ("2: x, y",)),
        ("square", (3,), ("(n, classes)", "(n, 3, 3)")),
        ("cut", SHAPE, ("truncated",)),
        ("damaged", SHAPE, ("TorchScript", torch.__version__)),
    ]
    for name, shape, facts in cases:
        path = tmp_path / f"{name}.pt"
        with refused(ModelError, f"{path}: ", *facts):
            ADAPTER.open(path, input_shape=shape)
    assert capfd.readouterr() == ("", "")
