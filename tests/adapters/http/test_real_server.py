"""A real server of the Open Inference Protocol, MLServer, with a model of ONNX."""

import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import deepjudge_http
import numpy as np
import pytest
from places import ROOT

from deepjudge_core import Access, InputSpec

MLSERVER = shutil.which("mlserver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(MLSERVER is None, reason="needs mlserver on the path: make server-tests"),
]
WEIGHTS = np.random.default_rng(0).normal(0, 3, (6, 3)).astype(np.float32)
SHOWN = ("probabilities", "top-3", "labels")


def write(folder: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="needs onnx")
    helper = onnx.helper
    nodes = [helper.make_node("MatMul", ["x", "w"], ["z"]), helper.make_node("Softmax", ["z"], ["y"], axis=1)]
    places = [helper.make_tensor_value_info(name, 1, ["n", size]) for name, size in (("x", 6), ("y", 3))]
    weights = onnx.numpy_helper.from_array(WEIGHTS, "w")
    graph = helper.make_graph(nodes, "g", places[:1], places[1:], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    for shown in SHOWN:
        place = folder / shown
        place.mkdir()
        shutil.copy(ROOT / "benchmarks/api/runtime.py", place)
        onnx.save(model, place / "m.onnx")
        settings = {
            "name": shown,
            "implementation": "runtime.OnnxModel",
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 6]}],
            "parameters": {"uri": str(place / "m.onnx"), "extra": {"show": shown}},
        }
        (place / "model-settings.json").write_text(json.dumps(settings))


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("served")
    write(folder)
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    names = ("http_port", "grpc_port", "metrics_port")
    settings = {"host": "127.0.0.1", **dict(zip(names, ports, strict=True)), "parallel_workers": 0}
    (folder / "settings.json").write_text(json.dumps(settings))
    server = subprocess.Popen(
        [str(MLSERVER), "start", str(folder)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    address = f"http://127.0.0.1:{ports[0]}"
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(f"{address}/v2/models/labels/ready", timeout=10).close()
                break
            except OSError:
                time.sleep(0.5)
        yield address
    finally:
        server.terminate()
        server.wait()


@pytest.mark.parametrize("shown", SHOWN)
def test_it_answers_as_the_model_that_it_serves(shown: str, host: str, tmp_path: Path) -> None:
    [adapter] = deepjudge_http.deepjudge_adapters()
    path = tmp_path / "m.api.toml"
    path.write_text(f'url = "{host}/v2/models/{shown}"\nclasses = 3\ncache = false\n')
    x = np.random.default_rng(1).random((40, 6), np.float32)
    model = adapter.open(path, expected=InputSpec((6,)))
    logits = x @ WEIGHTS
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    answers = model.predict(x)
    assert model.access is (Access.LABELS if shown == "labels" else Access.BLACK_BOX)
    atol = {"probabilities": 1e-5, "top-3": 0.01, "labels": 1.0}[shown]
    np.testing.assert_allclose(answers, expected, atol=atol)
    assert (answers.argmax(axis=1) == expected.argmax(axis=1)).mean() > 0.9
    model.gateway.close()
