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

DATA = Path(__file__).parents[2] / "shared" / "data"
VICTIMS = DATA / "victims"
METRICS = {"robd", "jsd", "nod", "nad", "lod", "lad"}

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
def fit(model, rows, epochs):
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x[rows], y[rows], batch_size=128, epochs=epochs, verbose=0)
for number in range(8):
    keras.utils.set_random_seed(number)
    model = keras.models.clone_model(victim)
    fit(model, slice(20000, 35000) if number % 2 else slice(0, 15000), 3)
    model.save(folder / ("controls" if number < 6 else ".") / f"independent{number}.keras")
keras.utils.set_random_seed(8)
copy = keras.models.clone_model(victim)
copy.set_weights(victim.get_weights())
fit(copy, slice(40000, 50000), 1)
copy.save(folder / "finetuned.keras")
victim(x[:1])  # Keras exports what was called
victim.export(folder / "victim.onnx", format="onnx", verbose=False)
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
        *("--inputs", DATA / "mnist.npz", "--scale", "255", "-n", "500"),
        *("-g", "pgd", "neuron-corners", "--option", "neuron-corners.iterations=300"),
        *("-o", zoo / "audit"),
    )
    assert done.returncode == 1, done.stderr
    assert not done.stderr
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
    inputs, made = tmp_path / "cifar10.npz", tmp_path / "suite.safetensors"
    np.savez(inputs, **cifar10_test_images(300))
    done = run(
        *(Path(sys.executable).parent / "deepjudge", "suite", VICTIMS / "cifar10_resnet20.h5"),
        *("--inputs", inputs, "--scale", "255", "-n", "50", "--option", "neuron-corners.iterations=20"),
        *("-o", made),
    )
    assert done.returncode == 0, done.stderr
    done = run(Path(sys.executable).parent / "deepjudge", "judge", made, VICTIMS / "cifar10_resnet20.h5")
    assert done.returncode == 3, done.stderr  # values, and for want of controls no verdict
    assert "inconclusive" in done.stdout


def cifar10_test_images(n: int) -> dict[str, Any]:
    image = pytest.importorskip("PIL.Image", reason="the CIFAR-10 images are JPEG files")
    with np.load(DATA / "cifar10_jpeg.npz") as packed:
        ends = np.cumsum(packed["test_sizes"][:n].astype(np.int64))
        blob = packed["test_jpeg"][: ends[-1]].tobytes()
        labels = packed["y_test"][:n]
    starts = [0, *ends[:-1]]
    images = [np.asarray(image.open(io.BytesIO(blob[a:b]))) for a, b in zip(starts, ends, strict=True)]
    return {"x": np.stack(images), "y": labels}
