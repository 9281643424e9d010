"""What is loaded to judge one ONNX suspect: libraries that take long to load are loaded where they are used."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import deepjudge_core as dj

pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

INCONCLUSIVE = 3
COMMAND = "from deepjudge_core.cli.main import main; status = main(['judge', *sys.argv[1:]])"
OPENED = """
from pathlib import Path
from deepjudge_onnx import deepjudge_adapters
(adapter,) = deepjudge_adapters()
status = len(adapter.open(Path(sys.argv[1])).layers)
"""


def save(path: Path, seed: int, activation: str = "Relu") -> Path:
    """A perceptron of random weights."""
    rng = np.random.default_rng(seed)
    weights = {name: rng.normal(size=shape).astype(np.float32) for name, shape in (("v", (8, 12)), ("w", (12, 3)))}
    nodes = [
        helper.make_node("MatMul", ["x", "v"], ["a"]),
        helper.make_node(activation, ["a"], ["h"]),
        helper.make_node("MatMul", ["h", "w"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])
    graph = helper.make_graph(
        nodes, "network", [x], [y], [numpy_helper.from_array(value, name) for name, value in weights.items()]
    )
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


def loaded_by(code: str, *arguments: object) -> tuple[int, set[str]]:
    """What code says as ``status``, and the modules that are there in the end."""
    code = f"import sys\n{code}\nprint()\nprint(status, *sys.modules)"
    words = [sys.executable, "-c", code, *map(str, arguments)]
    run = subprocess.run(words, capture_output=True, text=True, check=True, timeout=300)
    status, *modules = run.stdout.splitlines()[-1].split()
    return int(status), set(modules)


def test_the_process_that_judges_loads_neither_frameworks_nor_what_writes_pages(tmp_path: Path) -> None:
    victim = dj.open_model(save(tmp_path / "victim.onnx", 0))
    x = np.random.default_rng(1).random((200, 8), np.float32)
    inputs = dj.Inputs(x, victim.predict(x).argmax(axis=1))
    suite = dj.make_suite(victim, inputs, dj.SuiteSettings(n=40, generators=["square"]))
    dj.save_suite(tmp_path / "suite.safetensors", suite)
    suspect = save(tmp_path / "suspect.onnx", 2)
    status, loaded = loaded_by(COMMAND, tmp_path / "suite.safetensors", suspect)
    assert status == INCONCLUSIVE  # there are no controls
    commands = {name for name in loaded if name.startswith("deepjudge_core.cli.commands.")}
    assert commands == {"deepjudge_core.cli.commands.judge"}
    assert not loaded & {"onnx", "onnxruntime", "torch", "tensorflow", "jinja2", "scipy.stats"}


def test_the_process_that_opens_a_model_of_plain_relus_loads_no_evaluator(tmp_path: Path) -> None:
    late = {"onnx.reference", "scipy.special"}
    layers, loaded = loaded_by(OPENED, save(tmp_path / "relu.onnx", 0))
    assert "onnxruntime" in loaded
    assert (layers, loaded & late) == (2, set())
    layers, loaded = loaded_by(OPENED, save(tmp_path / "softplus.onnx", 0, "Softplus"))
    assert (layers, loaded & late) == (2, {"onnx.reference"})
