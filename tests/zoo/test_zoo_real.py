"""The zoo of victims in the formats that people have: made, interrupted and gone on with, judged; by the commands."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Cli
from networks.formats import silenced
from places import DATA
from refusals import expect_facts
from sklearn.datasets import load_digits

from deepjudge_core import open_model
from deepjudge_core.models.training import train
from deepjudge_core.zoo import plans

# Set before TensorFlow is imported, as the adapter sets it: no word of its own on the terminal.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

OWN, TEST = 650, 1300  # rows of the digits: the victim's end at the one, those to test with begin at the other
ARCH = """
from torch import nn

def make():
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 48), nn.GELU(), nn.LayerNorm(48), nn.Linear(48, 32), nn.GELU(), nn.Linear(32, 10)
    )
"""


def digits() -> tuple[np.ndarray, np.ndarray]:
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    return (data.images[order] / 16).astype(np.float32), data.target[order].astype(np.int64)


def fitted(module: Any, shape: tuple[int, ...] = (1, 8, 8)) -> Any:
    """A torch module, trained by hand on the victim's rows."""
    import torch

    torch.manual_seed(0)
    x, y = digits()
    inputs, labels = torch.from_numpy(x[:OWN]).reshape(-1, *shape), torch.from_numpy(y[:OWN])
    for part in module.modules():
        if hasattr(part, "reset_parameters"):
            part.reset_parameters()
    adam = torch.optim.Adam(module.parameters(), lr=3e-3)
    module.train()
    for _ in range(12):
        for rows in torch.randperm(OWN).split(32):
            adam.zero_grad()
            torch.nn.functional.cross_entropy(module(inputs[rows]), labels[rows]).backward()
            adam.step()
    return module.eval()


def convolutions() -> Any:
    """With normalisation and dropout."""
    from torch import nn

    return nn.Sequential(
        *(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Dropout(0.2), nn.Linear(64, 10)),
    )


def keras_model() -> Any:
    """With normalisation, giving probabilities; trained as Keras does it."""
    import keras

    keras.utils.set_random_seed(0)
    layers = keras.layers
    blocks = [
        layer
        for width in (8, 16)
        for layer in (
            layers.Conv2D(width, 3, padding="same"),
            layers.BatchNormalization(momentum=0.9),
            layers.ReLU(),
            layers.MaxPooling2D(2),
        )
    ]
    ends = [layers.Flatten(), layers.Dense(10, activation="softmax")]
    model = keras.Sequential([keras.Input((8, 8, 1)), *blocks, *ends])
    x, y = digits()
    with silenced((r"__array__ implementation doesn't accept a copy keyword", DeprecationWarning)):
        model.compile(keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy")
        model.fit(x[:OWN, :, :, None], y[:OWN], batch_size=32, epochs=8, verbose=0)
    return model


def keras_victim() -> None:
    model = keras_model()
    with silenced((r"__array__ implementation doesn't accept a copy keyword", DeprecationWarning)):
        model.save("victim.keras")


def weights_victim() -> None:
    Path("somebodys.py").write_text(ARCH)
    import safetensors.torch

    own: dict[str, Any] = {}
    exec(ARCH, own)
    safetensors.torch.save_file(fitted(own["make"]()).state_dict(), "victim.safetensors")


def onnx_victim() -> None:
    import torch

    rows = ({0: torch.export.Dim("rows")},)
    with silenced((r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)):
        torch.onnx.export(
            fitted(convolutions()), (torch.zeros(2, 1, 8, 8),), "victim.onnx", dynamic_shapes=rows, verbose=False
        )


def program_victim() -> None:
    import torch

    rows = ({0: torch.export.Dim("rows")},)
    program = torch.export.export(fitted(convolutions()), (torch.zeros(2, 1, 8, 8),), dynamic_shapes=rows)
    torch.export.save(program, "victim.pt2")


@dataclass(frozen=True)
class Job:
    """A victim that somebody has, and what is to be stolen of it."""

    victim: str
    needs: tuple[str, ...]
    make: Callable[[], None]
    attacks: tuple[str, ...]
    options: tuple[str, ...] = ()
    suffix: str = ".pt2"


TORCH, ONNX = ("torch",), ("torch", "onnx", "onnxscript", "onnxruntime", "onnx2fx")
JOBS = (
    Job("victim.keras", ("tensorflow", "keras"), keras_victim, ("ft-ll", "p-60", "permute-rescale"), (), ".keras"),
    Job(
        "victim.safetensors",
        (*TORCH, "safetensors"),
        weights_victim,
        ("ft-al", "quantize-int8", "knockoff"),
        ("--arch", "somebodys:make"),
    ),
    Job("victim.onnx", ONNX, onnx_victim, ("ft-al", "adapt-b", "adapt-w")),
    Job("victim.pt2", TORCH, program_victim, ("ft-ll", "p-20", "transfer")),
)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """A folder with digits, the victim's half first, others, and inputs of another task."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    x, y = digits()
    np.savez("train.npz", x_train=x[:TEST], y_train=y[:TEST])
    np.savez("test.npz", x_test=x[TEST:], y_test=y[TEST:])
    np.savez("other.npz", x=(x[:OWN] + x[OWN:TEST, ::-1]) / 2)
    return Cli(tmp_path, capsys, monkeypatch)


def entries(folder: str) -> list[dict[str, Any]]:
    return json.loads((Path(folder) / "zoo.json").read_text())["models"]


def weights(folder: str) -> dict[str, str]:
    return {entry["file"]: entry["weights"] for entry in entries(folder)}


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.victim)
def test_a_zoo_is_made_gone_on_with_and_judged(job: Job, here: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in job.needs:
        pytest.importorskip(module, reason=f"{module} is not installed")
    job.make()
    here.capsys.readouterr()  # what exporters say
    suite = ("suite", job.victim, *job.options, "--inputs", "test.npz", "-n", 150, "--training-inputs", "train.npz")
    corners = ("--option", "neuron-corners.m=1.2", "--option", "neuron-corners.iterations=200")
    status, _, err = here(*suite, *corners, "-o", "suite.safetensors")
    assert status == 0, err
    data = ("--data", "train.npz", "--test", "test.npz", "--auxiliary", "other.npz", "--suite", "suite.safetensors")
    zoo = ("zoo", job.victim, *job.options, *data, "--repeat", 1, "--epochs", 4, "--rate", 5e-3)
    part = (*zoo, "--control-count", 3, "--attacks", job.attacks[0], "-o", "part")

    # Interrupted in the third control, and gone on with.
    calls: list[str] = []

    def interrupted(*arguments: Any, **options: Any) -> Any:
        calls.append(options["label"])
        if len(calls) == 3:
            raise KeyboardInterrupt
        return train(*arguments, **options)

    monkeypatch.setattr(plans, "train", interrupted)
    assert here(*part)[::2] == (130, "deepjudge: interrupted\n")
    assert list(weights("part")) == [f"controls/{stratum}-01{job.suffix}" for stratum in ("same-data", "other-data")]
    status, out, err = here(*part)
    assert (status, err) == (0, "")
    assert calls == ["same-data-01", "other-data-01", "same-data-02", "same-data-02"]
    assert "3 controls, 1 stolen model" in out

    # Made at one go, elsewhere, among others: the same.
    status, out, err = here(*zoo, "--control-count", 4, "--attacks", ",".join(job.attacks), "-o", "zoo")
    assert (status, err) == (0, "")
    assert "4 controls, 3 stolen models" in out
    assert len(weights("part")) == 4
    assert weights("part").items() <= weights("zoo").items()
    assert len(weights("zoo")) == 7

    x, y = digits()
    for entry in entries("zoo"):
        assert entry["kind"] == ("stolen" if entry["attack"] else "control")
        assert entry["file"].endswith(job.suffix)
        if entry["accuracy"] is None:
            assert entry["attack"] == "transfer"
            continue
        model = open_model(Path("zoo") / entry["file"])
        shape = [axis or 1 for axis in model.input.shape]
        right = model.predict(x[TEST:].reshape(-1, *shape)).argmax(axis=1) == y[TEST:]
        assert right.mean() == pytest.approx(entry["accuracy"], abs=0.003)
        assert entry["accuracy"] > 0.8
        assert not entry["far"]

    status, out, err = here("power", "suite.safetensors", "zoo", "-o", "power")
    assert (status, err) == (0, "")
    report = json.loads(Path("power/power.json").read_text())
    copies = {attack["attack"]: attack["copies"]["count"] for attack in report["attacks"]}
    assert list(copies) == list(job.attacks)
    assert copies[job.attacks[0]] == 1
    assert report["controls"]["held_out_accused"]["count"] == 0


# What is wrong is one line.


def torch_script() -> None:
    import torch

    class Fickle(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(64, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x.flatten(1)
            if bool(x.sum() > 3):
                x = -x
            return self.layer(x)

    with silenced((r"`torch\.jit\.\w+` is (deprecated|not supported)", DeprecationWarning)):
        torch.jit.save(torch.jit.script(Fickle()), "victim.pt")


def saved_model() -> None:
    import keras

    layers = keras.layers
    model = keras.Sequential([keras.Input((8, 8)), layers.Flatten(), layers.Dense(10, activation="softmax")])
    model(np.zeros((1, 8, 8), np.float32))  # Keras exports what was called
    model.export("victim", verbose=False)


def quantised_onnx() -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    onnx_victim()
    quantize_dynamic("victim.onnx", "victim-int8.onnx", weight_type=QuantType.QUInt8)


def fixed_program() -> None:
    import torch

    torch.export.save(torch.export.export(convolutions().eval(), (torch.zeros(2, 1, 8, 8),)), "victim.pt2")


@pytest.mark.parametrize(
    ("victim", "make", "needs", "fact"),
    [
        ("victim.pt", torch_script, TORCH, "victim.pt"),
        ("victim", saved_model, ("tensorflow", "keras"), "victim"),
        ("victim-int8.onnx", quantised_onnx, ONNX, "victim-int8.onnx"),
        ("victim.pt2", fixed_program, TORCH, "2 only"),
    ],
)
def test_a_victim_that_cannot_be_made_anew(
    victim: str, make: Callable[[], None], needs: tuple[str, ...], fact: str, here: Cli
) -> None:
    for module in needs:
        pytest.importorskip(module, reason=f"{module} is not installed")
    make()
    here.capsys.readouterr()  # what exporters say
    with silenced((".*its layers cannot be seen", UserWarning)):
        zoo = ("zoo", victim, "--data", "train.npz", "--control-count", 2, "--attacks", "ft-ll", "-o", "zoo")
        here.refuses(4, "unusable-model", *zoo, facts=(fact,))


@pytest.mark.parametrize("what", ["full", "class"])
def test_what_goes_wrong_with_files(what: str, here: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    program_victim()
    zoo = ("zoo", "victim.pt2", "--data", "train.npz", "--control-count", 2, "--attacks", "float16", "--epochs", 8)
    if what == "class":
        with np.load("train.npz") as arrays:
            x, y = arrays["x_train"], arrays["y_train"]
        rows = y != 3
        np.savez("train.npz", x_train=x[rows], y_train=y[rows])
        here.refuses(4, "wrong-inputs", *zoo, "-o", "zoo", facts=("class 3",))
        return
    save, saved = torch.export.save, []

    def full(program: Any, path: Any) -> None:
        saved.append(path)
        if len(saved) == 2:
            Path(path).write_bytes(b"half of it")
            raise OSError(28, "No space left on device")
        save(program, path)

    monkeypatch.setattr(torch.export, "save", full)
    status, _, err = here(*zoo, "-o", "zoo")
    assert status == 4
    expect_facts(err.strip(), "zoo/controls/other-data-01.pt2", "No space left on device", "(cannot-write)")
    assert list(weights("zoo")) == ["controls/same-data-01.pt2"]
    assert [path.name for path in Path("zoo/controls").iterdir()] == ["same-data-01.pt2"]


# The authors' victim.


def test_thefts_of_the_authors_lenet(here: Cli) -> None:
    if not (DATA / "victims").exists():
        pytest.skip("the authors' victims and MNIST are not on this machine")
    pytest.importorskip("tensorflow", reason="the victim is a Keras model")
    keras = pytest.importorskip("keras", reason="the victim is a Keras model")
    shutil.copy(DATA / "victims" / "mnist_lenet5.h5", "lenet.h5")
    with np.load(DATA / "mnist.npz") as mnist:
        rows = {name: mnist[name][:n] for name, n in (("x_train", 4000), ("y_train", 4000))}
        rows |= {name: mnist[name][:500] for name in ("x_test", "y_test")}
    np.savez("mnist.npz", **rows)
    attacks = ("--attacks", "ft-ll,permute-rescale", "--repeat", 1, "--option", "ft-ll.epochs=1")
    status, _, err = here(
        "zoo", "lenet.h5", "--data", "mnist.npz", "--scale", 255, "--control-count", 0, *attacks, "-o", "zoo"
    )
    assert (status, err) == (0, "")
    victim, tuned, permuted = (
        keras.models.load_model(path, compile=False)
        for path in ("lenet.h5", "zoo/stolen/ft-ll-01.keras", "zoo/stolen/permute-rescale-01.keras")
    )
    before, after = victim.get_weights(), tuned.get_weights()
    same = [np.array_equal(a, b) for a, b in zip(before, after, strict=True)]
    assert same == [True] * (len(before) - 2) + [False] * 2
    others = [np.array_equal(a, b) for a, b in zip(before, permuted.get_weights(), strict=True)]
    assert not any(others[:-1])
    x = rows["x_test"][..., None].astype(np.float32) / 255
    np.testing.assert_allclose(permuted.predict(x, verbose=0), victim.predict(x, verbose=0), atol=1e-4)
