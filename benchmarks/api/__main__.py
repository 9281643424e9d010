"""The authors' LeNet-5 behind MLServer: what an audit by labels, by three rounded scores and by probabilities tells.

Run it as ``python benchmarks/api --data FOLDER --server PYTHON``: FOLDER as for ``speed``, and the Python of an
environment of its own with mlserver and onnxruntime.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np

HERE, PORT = Path(__file__).parent, 8351
SHOWN = ("probabilities", "top-3", "labels")
MODELS = ("copy", "honest")
SEEDS, WAIT = "150", 300.0


def deepjudge(folder: Path, *arguments: str) -> None:
    """Run a command, which may find copies."""
    code = "import sys; from deepjudge_core.cli.main import main; sys.exit(main())"
    done = subprocess.run([sys.executable, "-c", code, *arguments], check=False, cwd=folder)
    assert done.returncode in (0, 1), arguments


def describe(folder: Path) -> list[str]:
    """Write a description of each model that is served, and its settings for the server."""
    served = folder / "served"
    shutil.rmtree(served, ignore_errors=True)
    served.mkdir()
    ports = {"http_port": PORT, "grpc_port": PORT + 1, "metrics_port": PORT + 2}
    settings = {"host": "127.0.0.1", **ports, "parallel_workers": 0, "debug": False}
    (served / "settings.json").write_text(json.dumps(settings))
    names = []
    for model in MODELS:
        for shown in SHOWN:
            name = f"{model}-{shown}"
            place = served / name
            place.mkdir()
            shutil.copy(HERE / "runtime.py", place)
            for file in (folder / "models").glob(f"{model}.onnx*"):
                shutil.copy(file, place)
            kind = (
                {"datatype": "INT64", "shape": [-1, 1]}
                if shown == "labels"
                else {"datatype": "FP32", "shape": [-1, 10]}
            )
            (place / "model-settings.json").write_text(
                json.dumps(
                    {
                        "name": name,
                        "implementation": "runtime.OnnxModel",
                        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 28, 28, 1]}],
                        "outputs": [{"name": "answer", **kind}],
                        "parameters": {"uri": str(place / f"{model}.onnx"), "extra": {"show": shown}},
                    }
                )
            )
            more = {"top-3": "top = 3\n", "labels": "classes = 10\n"}.get(shown, "")
            (folder / f"{name}.api.toml").write_text(
                f'url = "http://127.0.0.1:{PORT}/v2/models/{name}"\nprice = 0.001\ntimeout = 300\n'
                f'cache = "{folder / "cache"}"\n{more}'
            )
            names.append(f"{name}.api.toml")
    return names


def wait(name: str) -> None:
    """Wait until a model is served."""
    end = time.monotonic() + WAIT
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/v2/models/{name}/ready", timeout=10):
                return
        except OSError:
            time.sleep(1)
    raise SystemExit("the server does not answer")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--server", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("api-benchmark"))
    options = parser.parse_args()
    folder, victim = options.out.absolute(), options.data.absolute() / "victims/mnist_lenet5.h5"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "models/honest.onnx").exists():
        from making import make

        make(victim, options.data / "mnist.npz", folder / "models")
    with np.load(options.data / "mnist.npz") as mnist:
        x, y = mnist["x_test"][:2000, :, :, None], mnist["y_test"][:2000].astype("int64")
    np.savez(folder / "test.npz", x_test=x, y_test=y)
    made = ("-g", "pgd", "-n", SEEDS, "--order", "balanced", "--no-weights", "--pictures", "png")
    deepjudge(folder, "suite", str(victim), "--inputs", "test.npz", "--scale", "255", *made, "-o", "suite.safetensors")
    controls = "models/control-*.onnx"
    deepjudge(folder, "calibrate", "suite.safetensors", controls, "--no-sandbox", "-o", "calibration.safetensors")
    suspects = describe(folder)
    shutil.rmtree(folder / "cache", ignore_errors=True)
    server = subprocess.Popen(
        [options.server.parent / "mlserver", "start", folder / "served"], stdout=subprocess.DEVNULL
    )
    try:
        wait("honest-labels")
        judged = ("suite.safetensors", *suspects, "--calibration", "calibration.safetensors")
        deepjudge(folder, "judge", *judged, "--budget", "500", "--json", "report.json")
        deepjudge(folder, "judge", *judged, "--sequential", "--json", "sequential.json")
    finally:
        server.terminate()
        server.wait()
    report, again = (json.loads((folder / name).read_text()) for name in ("report.json", "sequential.json"))
    for one, other in zip(report["suspects"], again["suspects"], strict=True):
        values = {name: result["value"] for name, result in one["metrics"].items() if result["value"] is not None}
        print(one["path"], one["decision"], values, one["api"]["queries"], "queries;", end=" ")
        print("case by case:", other["decision"], other["sequential"]["queries"], "queries")


if __name__ == "__main__":
    main()
