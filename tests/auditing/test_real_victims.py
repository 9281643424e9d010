"""The main job on models that nobody here wrote: the victims that the authors of the method published."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from places import DATA
from tutorials import without_progress

VICTIMS = DATA / "victims"
METRICS = {"robd", "jsd", "nod", "nad", "lod", "lad", "recovery"}

pytestmark = pytest.mark.skipif(not VICTIMS.exists(), reason="the authors' victims and MNIST are not on this machine")

# Controls and independent suspects: another initialisation on the victim's own rows (even) or on others (odd).
TRAIN = """
import sys
from pathlib import Path
import keras, numpy as np
victim_path, data, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
with np.load(data) as arrays:
    x, y = arrays["x_train"][:, :, :, None].astype("float32") / 255, arrays["y_train"].astype("int64")
victim = keras.models.load_model(victim_path, compile=False)
# One for all, since TensorFlow takes seconds to get ready for each.
model = keras.models.clone_model(victim)
model.compile("adam", "sparse_categorical_crossentropy")
model.optimizer.build(model.trainable_variables)
start = [variable.numpy() for variable in model.optimizer.variables]
def fit(weights, rows, epochs):
    model.set_weights(weights)
    for variable, value in zip(model.optimizer.variables, start, strict=True):
        variable.assign(value)
    model.fit(x[rows], y[rows], batch_size=32, epochs=epochs, verbose=0)
for number in range(8):
    keras.utils.set_random_seed(number)
    fresh = keras.models.clone_model(victim).get_weights()
    fit(fresh, slice(20000, 23000) if number % 2 else slice(0, 3000), 2)
    model.save(folder / ("controls" if number < 6 else ".") / f"independent{number}.keras")
keras.utils.set_random_seed(8)
fit(victim.get_weights(), slice(40000, 43000), 1)
model.save(folder / "finetuned.keras")
victim(x[:1])  # Keras exports what was called
victim.export(folder / "victim.onnx", format="onnx", verbose=False)
"""

# The victim's function, its neurons in another order and on other scales, in three formats.
DISGUISE = """
import sys
from pathlib import Path
import keras, numpy as np, torch
from torch import nn
victim, folder = keras.models.load_model(sys.argv[1], compile=False), Path(sys.argv[2])
rng = np.random.default_rng(0)
weights = victim.get_weights()
for i in range(0, len(weights) - 2, 2):
    kernel, bias, following = weights[i : i + 3]
    order, scale = rng.permutation(len(bias)), np.exp(rng.uniform(-1.5, 1.5, len(bias))).astype("float32")
    weights[i], weights[i + 1] = kernel[..., order] * scale, bias[order] * scale
    # Inputs of the layer after it, by channel: before a dense layer there is one for each pixel.
    by_channel = following.reshape(*following.shape[:-2], -1, len(bias), following.shape[-1])
    weights[i + 2] = (by_channel[..., order, :] / scale[:, None]).reshape(following.shape)
disguised = keras.models.clone_model(victim)
disguised.set_weights(weights)
disguised.save(folder / "disguised.keras")
disguised(np.zeros((1, 28, 28, 1), "float32"))
disguised.export(folder / "disguised.onnx", format="onnx", verbose=False)

module = nn.Sequential(
    nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5, padding=2), nn.ReLU(),
    nn.MaxPool2d(2), nn.Flatten(), nn.Linear(784, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
)
channels_first = weights[4].reshape(7, 7, 16, 120).transpose(2, 0, 1, 3).reshape(784, 120)
kernels = [weights[0].transpose(3, 2, 0, 1), weights[2].transpose(3, 2, 0, 1), channels_first.T, *(
    weights[i].T for i in (6, 8)
)]
for layer, kernel, bias in zip([m for m in module if hasattr(m, "weight")], kernels, weights[1::2]):
    layer.weight.data, layer.bias.data = torch.tensor(kernel), torch.tensor(bias)
rows = ({0: torch.export.Dim("rows")},)
torch.export.save(
    torch.export.export(module.eval(), (torch.zeros(2, 1, 28, 28),), dynamic_shapes=rows), folder / "disguised.pt2"
)
"""


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.run([*map(str, command)], capture_output=True, text=True, env=environment, check=False)


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("tensorflow", reason="the victims are Keras models")
    pytest.importorskip("tf2onnx", reason="Keras exports to ONNX through tf2onnx")
    pytest.importorskip("onnxruntime", reason="one suspect is an ONNX file")
    folder = tmp_path_factory.mktemp("zoo")
    (folder / "controls").mkdir()
    done = run(sys.executable, "-c", TRAIN, VICTIMS / "mnist_lenet5.h5", DATA / "mnist.npz", folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def audited(zoo: Path) -> dict[str, Any]:
    done = run(
        *(Path(sys.executable).parent / "deepjudge", "audit", VICTIMS / "mnist_lenet5.h5"),
        *(VICTIMS / "mnist_lenet5.h5", zoo / "victim.onnx", zoo / "finetuned.keras"),
        *(zoo / "independent6.keras", zoo / "independent7.keras"),
        *("--controls", zoo / "controls"),
        *("--inputs", DATA / "mnist.npz", "--scale", "255", "-n", "300"),
        *("-g", "pgd,neuron-corners", "--option", "neuron-corners.iterations=100"),
        *("-o", zoo / "audit"),
    )
    assert done.returncode == 1, done.stderr
    assert not without_progress(done.stderr)
    report: dict[str, Any] = json.loads((zoo / "audit" / "report.json").read_text())
    assert len(report["calibration"]["controls"]) == 6
    return {Path(suspect["path"]).name: suspect for suspect in report["suspects"]}


@pytest.mark.parametrize("name", ["mnist_lenet5.h5", "victim.onnx", "finetuned.keras"])
def test_copies_are_copies(audited: dict[str, Any], name: str) -> None:
    assert audited[name]["decision"] == "copy"
    assert audited[name]["points_to"] == "weights"


@pytest.mark.parametrize("name", ["independent6.keras", "independent7.keras"])
def test_independent_models_are_not(audited: dict[str, Any], name: str) -> None:
    assert audited[name]["decision"] == "independent"
    assert audited[name]["points_to"] is None


@pytest.mark.parametrize(("name", "framework"), [("mnist_lenet5.h5", "keras"), ("victim.onnx", "onnx")])
def test_the_same_network_is_at_no_distance(audited: dict[str, Any], name: str, framework: str) -> None:
    suspect = audited[name]
    assert suspect["framework"] == framework
    assert set(suspect["metrics"]) >= METRICS
    for metric in METRICS:
        assert suspect["metrics"][metric]["value"] < 1e-4


def test_the_resnet_makes_a_suite(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow", reason="the victims are Keras models")
    inputs, suite = tmp_path / "cifar10.npz", tmp_path / "suite.safetensors"
    np.savez(inputs, **cifar10_test_images(120))
    done = run(
        *(Path(sys.executable).parent / "deepjudge", "suite", VICTIMS / "cifar10_resnet20.h5"),
        *("--inputs", inputs, "--scale", "255", "-n", "20", "--option", "neuron-corners.iterations=5"),
        *("-o", suite),
    )
    assert done.returncode == 0, done.stderr
    done = run(Path(sys.executable).parent / "deepjudge", "judge", suite, VICTIMS / "cifar10_resnet20.h5")
    assert done.returncode == 1, done.stderr  # the victim's own file is a copy, whatever the controls
    assert "copy" in done.stdout


@pytest.fixture(scope="module")
def matched(zoo: Path, audited: dict[str, Any]) -> dict[str, Any]:
    pytest.importorskip("torch", reason="one suspect is a PyTorch file")
    del audited  # which made the suite
    done = run(sys.executable, "-c", DISGUISE, VICTIMS / "mnist_lenet5.h5", zoo)
    assert done.returncode == 0, done.stderr
    command, suite, nulls = (
        Path(sys.executable).parent / "deepjudge",
        zoo / "audit" / "suite.safetensors",
        zoo / "nulls",
    )
    done = run(command, "calibrate", suite, zoo / "controls", "--match", "neurons", "-o", nulls)
    assert done.returncode == 0, done.stderr
    suspects = [zoo / "victim.onnx", zoo / "finetuned.keras", *sorted(zoo.glob("independent*.keras"))]
    suspects += [zoo / f"disguised{suffix}" for suffix in (".keras", ".onnx", ".pt2")]
    done = run(command, "judge", suite, *suspects, "--calibration", nulls, "--json", zoo / "matched.json")
    assert done.returncode == 1, done.stderr
    report: dict[str, Any] = json.loads((zoo / "matched.json").read_text())
    assert report["calibration"]["match"] == "neurons"
    return {Path(suspect["path"]).name: suspect for suspect in report["suspects"]}


@pytest.mark.parametrize("name", ["disguised.keras", "disguised.onnx", "disguised.pt2"])
def test_permuted_and_rescaled_neurons_do_not_hide_a_copy(matched: dict[str, Any], name: str) -> None:
    assert matched[name]["points_to"] == "weights"
    assert matched[name]["neurons_moved"]["block2_pool1"] > 10
    for metric in METRICS:
        assert matched[name]["metrics"][metric]["value"] < 1e-4


def test_matched_neurons_accuse_no_independent_model(matched: dict[str, Any]) -> None:
    decisions = {name: suspect["decision"] for name, suspect in matched.items() if name.startswith("independent")}
    assert list(decisions.values()) == ["independent"] * 2
    assert matched["victim.onnx"]["points_to"] == matched["finetuned.keras"]["points_to"] == "weights"
    assert matched["victim.onnx"]["neurons_moved"] == {"block2_pool1": 0}


def cifar10_test_images(n: int) -> dict[str, Any]:
    image = pytest.importorskip("PIL.Image", reason="the CIFAR-10 images are JPEG files")
    with np.load(DATA / "cifar10_jpeg.npz") as packed:
        ends = np.cumsum(packed["test_sizes"][:n].astype(np.int64))
        blob = packed["test_jpeg"][: ends[-1]].tobytes()
        labels = packed["y_test"][:n]
    starts = [0, *ends[:-1]]
    images = [np.asarray(image.open(io.BytesIO(blob[a:b]))) for a, b in zip(starts, ends, strict=True)]
    return {"x": np.stack(images), "y": labels}
