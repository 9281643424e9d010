"""Every format on every device: what there is on a machine without a GPU, and what its frameworks would do with one."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conforming import ANSWERING, NETWORKS, REGISTRY, VICTIM, arranged
from models import KINDS, Zoo, inputs
from refusals import refused

import deepjudge_core as dj
from deepjudge_core.components import opening
from deepjudge_core.errors import ModelError
from deepjudge_core.models.info import ModelInfo

# The processor, in the words of each framework.
PROCESSOR = {"onnx": "CPUExecutionProvider", "torch": "cpu", "keras": "CPU:0"} | dict.fromkeys(
    ANSWERING, "OpenVINO CPU"
)


def hide_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the frameworks that are imported see no GPU, whatever there is."""
    if "torch" in sys.modules:
        monkeypatch.setattr(sys.modules["torch"].cuda, "is_available", lambda: False)
    if "onnxruntime" in sys.modules:
        from deepjudge_onnx.gpu import can_use

        can_use.cache_clear()
        monkeypatch.setattr(sys.modules["onnxruntime"], "get_available_providers", lambda: ["CPUExecutionProvider"])
    if "tensorflow" in sys.modules:
        monkeypatch.setattr(sys.modules["tensorflow"].config, "list_physical_devices", lambda kind=None: [])


@pytest.mark.parametrize("asked", ["cpu", "auto"])
@pytest.mark.parametrize("kind", NETWORKS)
def test_each_format_runs_on_the_processor(kind: str, asked: str, zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    source, options, usual = zoo.source(kind, VICTIM), KINDS[kind].options, zoo.model(kind, VICTIM)
    hide_gpus(monkeypatch)
    model = dj.open_model(source, registry=REGISTRY, device=asked, **options)
    assert ModelInfo.of(model).device == PROCESSOR[model.framework]
    x = arranged(model, inputs(8))
    np.testing.assert_array_equal(model.predict(x), usual.predict(x))
    assert model.digest == usual.digest


@pytest.mark.parametrize("asked", ["cuda", "cuda:1"])
@pytest.mark.parametrize("kind", NETWORKS)
def test_each_format_refuses_an_absent_gpu_before_it_is_opened(
    kind: str, asked: str, zoo: Zoo, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, opened = zoo.source(kind, VICTIM), list[str]()
    hide_gpus(monkeypatch)
    monkeypatch.setattr(opening, "open_by", lambda *arguments: opened.append(kind))
    named = source if isinstance(source, Path) else type(source).__name__
    with refused(ModelError, named, asked, KINDS[kind].adapter, code="no-device"):
        dj.open_model(source, registry=REGISTRY, device=asked, **KINDS[kind].options)
    assert opened == []


@pytest.mark.parametrize("kind", ["torch-pt2", "onnx-dynamo", "keras-file"])
def test_a_network_trains_on_the_processor_and_refuses_an_absent_gpu(
    kind: str, zoo: Zoo, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = zoo.source(kind, VICTIM)
    hide_gpus(monkeypatch)
    network = dj.open_network(source, registry=REGISTRY, device="cpu")
    assert str(network.architecture.model(network.weights, name="n").device) in ("cpu", "CPU:0")
    with refused(ModelError, "cuda", code="no-device"):
        dj.open_network(source, registry=REGISTRY, device="cuda")


def test_torch_sees_as_many_gpus_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    adapter = REGISTRY.adapters["torch"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    told = {asked: opening.placed(adapter, asked, "m") for asked in ("cpu", "cuda", "cuda:1", "auto")}
    assert told == {"cpu": "cpu", "cuda": "cuda:0", "cuda:1": "cuda:1", "auto": "cuda:0"}
    with refused(ModelError, "cuda:2", code="no-device"):
        opening.placed(adapter, "cuda:2", "m")


def test_a_program_is_moved_with_all_that_is_in_it(zoo: Zoo) -> None:
    torch = pytest.importorskip("torch")
    from deepjudge_torch.model import DEVICES, on_device
    from torch.utils import _pytree as pytree

    class Placed(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.dense = torch.nn.Linear(6, 4)
            self.register_buffer("mean", torch.arange(6.0))

        def forward(self, x: Any) -> Any:
            # Tensors that the graph makes name their device.
            return self.dense((x - self.mean).to(x.device)) + torch.arange(4, device=x.device, dtype=x.dtype) + 0.5

    module = Placed().eval()
    program = torch.export.export(module, (torch.zeros(17, 6),))

    def places(one: Any) -> set[str]:
        values = [node.meta.get("val") for node in one.graph.nodes]
        tensors = pytree.tree_leaves([values, dict(one.state_dict), dict(one.constants)])
        named = [node.kwargs["device"] for node in one.graph.nodes if "device" in node.kwargs]
        return {str(tensor.device) for tensor in tensors if isinstance(tensor, torch.Tensor)} | set(map(str, named))

    elsewhere = on_device(program, "meta")  # where there is all but numbers
    assert (places(program), places(elsewhere)) == ({"cpu"}, {"meta"})
    assert on_device(program, "cpu") is program
    assert places(program) == {"cpu"}
    assert next(module.parameters()).device.type == "cpu"
    # The device is no part of what a digest is taken of.
    codes = [DEVICES.sub("", one.graph.python_code("self").src) for one in (program, elsewhere)]
    assert codes[0] == codes[1]
    assert "device" in codes[0]


def test_convolutions_on_a_gpu_keep_all_bits() -> None:
    torch = pytest.importorskip("torch")
    from deepjudge_torch.base import exact

    now, before = torch.backends.cudnn, torch.backends.cudnn.allow_tf32
    with exact(torch.device("cuda:0")):
        assert not now.allow_tf32
    assert now.allow_tf32 == before
    with exact(torch.device("cpu")):
        assert now.allow_tf32 == before


def test_onnx_runtime_that_turns_to_the_processor_is_found_out(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    # Its provider for CUDA is there, and cannot be loaded: it says so on a log alone.
    source = zoo.source("onnx-dynamo", VICTIM)
    import onnxruntime
    from deepjudge_onnx import gpu
    from deepjudge_onnx.model import open_onnx
    from deepjudge_onnx.weights import Weights

    asked, session = list[Any](), Weights.session

    def turned(self: Weights, part: Any, providers: Any) -> Any:
        asked.append(providers)
        return session(self, part, ["CPUExecutionProvider"])

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [gpu.CUDA, gpu.CPU])
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)
    monkeypatch.setattr(Weights, "session", turned)
    gpu.can_use.cache_clear()
    assert not gpu.can_use(1)
    gpu.can_use.cache_clear()
    with refused(ModelError, source, "cuda:1", "CPUExecutionProvider", code="no-device"):
        open_onnx(source, name=str(source), batch_size=None, output=None, device="cuda:1")
    assert asked == [[(gpu.CUDA, {"device_id": "1", "use_tf32": "0"}), gpu.CPU]] * 2


def test_onnx_runtime_does_not_fall_back_once_a_gpu_fails(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    source = zoo.source("onnx-dynamo", VICTIM)
    import onnx
    import onnxruntime
    from deepjudge_onnx.weights import Weights

    given: list[Any] = []
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *arguments, **options: given.append(options))
    Weights().session(onnx.load(source), ["CUDAExecutionProvider", "CPUExecutionProvider"])
    assert [options["enable_fallback"] for options in given] == [False]


class Session:
    """A session of ONNX Runtime as it would be on a GPU."""

    def get_providers(self) -> list[str]:
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    def get_provider_options(self) -> dict[str, dict[str, str]]:
        return {"CUDAExecutionProvider": {"device_id": "1", "use_tf32": "0"}, "CPUExecutionProvider": {}}


def test_the_report_says_which_gpu_onnx_runtime_took() -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    from deepjudge_onnx.gpu import ran_on

    assert ran_on(Session()) == "CUDAExecutionProvider:1, CPUExecutionProvider"  # type: ignore[arg-type]


def test_an_onnx_model_on_a_gpu_that_torch_lacks_has_no_gradients(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    source = zoo.source("onnx-dynamo", VICTIM)
    import torch
    from deepjudge_onnx import model as onnx_model
    from deepjudge_onnx.gpu import CPU, CUDA
    from deepjudge_onnx.weights import Weights

    session = Weights.session
    # All runs on the processor, which says that it is a GPU.
    monkeypatch.setattr(Weights, "session", lambda self, part, providers: Pretended(session(self, part, [CPU])))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    model = onnx_model.open_onnx(source, name="m", batch_size=None, output=None, device="cuda:0")
    assert str(model.device).startswith(CUDA)
    assert dj.Access.GRADIENTS not in model.access
    with refused(ModelError, "m", "cuda:0", "PyTorch", code="no-device"):
        model.gradient(inputs(2), lambda scores, rows: scores)


class Pretended(Session):
    """A session on the processor that says otherwise."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)


SEVERAL = """
import sys
import numpy as np
import tensorflow as tf

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
from deepjudge_keras import device

# The second processor is a device of its own, to which tensors have to be copied: it stands for a GPU.
device.GPU, device.can_use = "CPU", lambda number: number < 2
import deepjudge_core as dj

x = np.load(sys.argv[1])
for path in sys.argv[2:]:
    models = [dj.open_model(path, device=asked) for asked in ("cpu", "cuda:1")]
    assert [model.device for model in models] == ["CPU:0", "CPU:1"], [model.device for model in models]
    layers = list(models[0].layers)
    np.testing.assert_array_equal(*[model.predict(x) for model in models])
    for one, other in zip(*[model.activations(x, layers).values() for model in models], strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(
        *[model.gradient(x, lambda scores, rows: np.sign(scores)) for model in models], rtol=1e-5, atol=1e-7
    )
    first, second = [model.exchange(x, layers[0]) for model in models]
    np.testing.assert_allclose(first.mixed, second.mixed, rtol=1e-5, atol=1e-6)
    if path.endswith(".keras"):
        from deepjudge_core.models.training import Schedule, train

        networks = [dj.open_network(path, device=asked) for asked in ("cpu", "cuda:1")]
        y = models[0].predict(x).argmax(axis=1)
        trained = [train(one, x, y, np.random.default_rng(0), schedule=Schedule(1, 1e-3, 8)) for one in networks]
        for name, weight in trained[0].weights.items():
            np.testing.assert_allclose(weight, trained[1].weights[name], rtol=1e-4, atol=1e-6)
        assert trained[1].architecture.model(trained[1].weights, name="n").device == "CPU:1"
print("the same")
"""


def test_tensorflow_computes_where_it_is_told(zoo: Zoo, tmp_path: Path) -> None:
    files = [zoo.source(kind, VICTIM) for kind in ("keras-file", "keras-saved")]
    np.save(tmp_path / "x.npy", np.moveaxis(inputs(16), 1, -1))
    words = [sys.executable, "-c", SEVERAL, str(tmp_path / "x.npy"), *map(str, files)]
    ended = subprocess.run(words, capture_output=True, text=True, check=False, timeout=900)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert ended.stdout == "the same\n"


def test_tensorflow_that_turns_to_the_processor_is_found_out(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    # It puts what it computes on the processor if there is no such GPU, and says nothing.
    source = zoo.source("keras-file", VICTIM)
    import tensorflow as tf
    from deepjudge_keras import device

    if tf.config.list_physical_devices("GPU"):
        pytest.skip("this machine has one")
    monkeypatch.setattr(device, "can_use", lambda number: True)
    with refused(ModelError, source, "cuda:0", "CPU:0", code="no-device"):
        dj.open_model(source, registry=REGISTRY, device="cuda")
