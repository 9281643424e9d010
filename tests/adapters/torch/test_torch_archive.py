"""Files of torch.export that would run code of their author when they are loaded."""

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from refusals import refused

torch = pytest.importorskip("torch", reason="PyTorch models need PyTorch")

from networks import formats, runtimes  # noqa: E402
from networks.architectures import ARCHITECTURES  # noqa: E402

from deepjudge_core import Access  # noqa: E402
from deepjudge_core.components.opening import open_model, open_network  # noqa: E402
from deepjudge_core.errors import ModelError  # noqa: E402

Change = Callable[[dict[str, bytes]], None]


class Payload:
    """Touches a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return Path.touch, (self.marker,)


def pickled(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    network = torch.nn.Sequential(torch.nn.Conv1d(2, 3, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(12, 4))
    rows = ({0: torch.export.Dim("rows", min=1)},)
    path = tmp_path_factory.mktemp("archive") / "net.pt2"
    torch.export.save(torch.export.export(network.eval(), (torch.zeros(2, 2, 6),), dynamic_shapes=rows), path)
    return path


def rewritten(honest: Path, path: Path, change: Change) -> Path:
    with zipfile.ZipFile(honest) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    change(entries)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return path


def entry(entries: dict[str, bytes], end: str) -> str:
    return next(name for name in entries if name.endswith(end))


def edit(entries: dict[str, bytes], end: str, change: Callable[[str], str]) -> None:
    name = entry(entries, end)
    before = entries[name].decode()
    after = change(before)
    assert after != before
    entries[name] = after.encode()


def test_an_honest_file_opens(honest: Path, tmp_path: Path) -> None:
    assert open_model(honest).classes == 4
    # So does what the other tests change, when they change nothing.
    assert open_model(rewritten(honest, tmp_path / "same.pt2", lambda entries: None)).classes == 4


def weights(entries: dict[str, bytes], marker: Path) -> None:
    config = json.loads(entries[entry(entries, "model_weights_config.json")])
    first = next(iter(config["config"].values()))
    first["use_pickle"] = True
    entries[entry(entries, "model_weights_config.json")] = json.dumps(config).encode()
    entries[entry(entries, first["path_name"])] = pickled(Payload(marker))


def constants(entries: dict[str, bytes], marker: Path) -> None:
    name = entry(entries, "model_constants_config.json")
    payload = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
    entries[name] = json.dumps({"config": {"x": payload}}).encode()
    entries[name.replace("model_constants_config.json", "opaque_obj_0")] = pickled(Payload(marker))


def sample_inputs(entries: dict[str, bytes], marker: Path) -> None:
    entries[entry(entries, "sample_inputs/model.pt")] = pickled((Payload(marker),))


def expression(entries: dict[str, bytes], marker: Path) -> None:
    code = f"__import__('pathlib').Path('{marker}').touch()"
    edit(
        entries,
        "models/model.json",
        lambda text: text.replace('"expr_str": "Symbol', f'"expr_str": "{code} or Symbol', 1),
    )


def operation(entries: dict[str, bytes], marker: Path) -> None:
    edit(
        entries, "models/model.json", lambda text: text.replace("torch.ops.aten.relu.default", "torch.ops.load_library")
    )


def reading(entries: dict[str, bytes], marker: Path) -> None:
    edit(entries, "models/model.json", lambda text: text.replace("aten.relu.default", "aten.from_file.default"))


def writing(entries: dict[str, bytes], marker: Path) -> None:
    edit(entries, "models/model.json", lambda text: text.replace("aten.relu.default", "aten.save.default"))


def library(entries: dict[str, bytes], marker: Path) -> None:
    entries[entry(entries, "models/model.json").replace("models/model.json", "data/aotinductor/model/model.so")] = (
        b"ELF"
    )


def old_weights(entries: dict[str, bytes], marker: Path) -> None:
    name = entry(entries, "model_weights_config.json").replace("model_weights_config.json", "model.pt")
    entries[name] = pickled({"x": Payload(marker)})


@pytest.mark.parametrize(
    ("hide", "fact"),
    [
        (weights, "'weight_0'"),
        (constants, "'data/constants/opaque_obj_0'"),
        (sample_inputs, "sample inputs"),
        (expression, "expression"),
        (operation, "'torch.ops.load_library'"),
        (reading, "'torch.ops.aten.from_file.default'"),
        (writing, "'torch.ops.aten.save.default'"),
        (library, "'data/aotinductor/model/model.so'"),
        (old_weights, "'data/weights/model.pt'"),
    ],
)
def test_hidden_code_is_refused_and_not_run(
    honest: Path, tmp_path: Path, hide: Callable[[dict[str, bytes], Path], None], fact: str
) -> None:
    marker = tmp_path / "was-here"
    path = rewritten(honest, tmp_path / "evil.pt2", lambda entries: hide(entries, marker))
    with refused(ModelError, f"{path}: ", "torch.export", fact):
        open_model(path)
    assert not marker.exists()


def test_a_program_that_opens_a_file_of_old_torch_is_refused(honest: Path, tmp_path: Path) -> None:
    def old(entries: dict[str, bytes]) -> None:
        entries["serialized_exported_program.json"] = b"{}"

    with refused(ModelError, "torch.export"):
        open_model(rewritten(honest, tmp_path / "old.pt2", old))


# ---- processors that this machine does not have


class Placed(torch.nn.Module):
    """Makes tensors of its own where its input is."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = torch.nn.Linear(6, 4)
        self.register_buffer("mean", torch.arange(6.0))

    def forward(self, x: Any) -> Any:
        x = (x - self.mean) * torch.tensor(0.5, device=x.device)
        return torch.relu(self.dense(x)) + torch.arange(4, device=x.device, dtype=x.dtype)


@pytest.mark.skipif(torch.accelerator.is_available(), reason="this machine has one")
@pytest.mark.parametrize("kind", ["cuda", "xpu"])
def test_what_was_exported_on_a_gpu_runs_on_the_cpu(kind: str, tmp_path: Path) -> None:
    module, plain = Placed().eval(), tmp_path / "cpu.pt2"
    rows = ({0: torch.export.Dim("rows", min=1)},)
    torch.export.save(torch.export.export(module, (torch.zeros(2, 6),), dynamic_shapes=rows), plain)

    def move(entries: dict[str, bytes]) -> None:
        # As files from there have it: in descriptions of tensors, arguments of operations, and sample inputs.
        place = f'"type": "{kind}", "index": 1'.encode()
        for name, data in entries.items():
            if name.endswith(".json"):
                entries[name] = data.replace(b'"type": "cpu", "index": null', place)
        inputs = entry(entries, "sample_inputs/model.pt")
        entries[inputs] = moved(entries[inputs], kind)

    path = rewritten(plain, tmp_path / "gpu.pt2", move)
    with pytest.raises(Exception, match="not compiled with"):
        torch.export.load(path)
    model, x = open_model(path), np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
    expected = torch.softmax(module(torch.from_numpy(x)), 1).detach().numpy()
    np.testing.assert_allclose(model.predict(x), expected, rtol=0, atol=1e-6)
    assert (str(model.device), list(model.layers.values())) == ("cpu", [4, 4])
    same = open_model(plain)
    np.testing.assert_array_equal(
        model.gradient(x, lambda scores, rows: scores), same.gradient(x, lambda scores, rows: scores)
    )


def moved(data: bytes, kind: str) -> bytes:
    """A file of torch.save whose tensors were on another processor."""
    entries = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as before, zipfile.ZipFile(entries, "w") as after:
        for name in before.namelist():
            content, place = before.read(name), f"{kind}:1".encode()
            # A short text of the pickle: its length stands before it.
            after.writestr(name, content.replace(b"X\x03\0\0\0cpu", b"X%b\0\0\0%b" % (bytes([len(place)]), place)))
    assert entries.getvalue() != data
    return entries.getvalue()


# ---- integers of PT2E


@pytest.mark.parametrize("dynamic", [False, True])
def test_integers_of_pt2e(dynamic: bool, tmp_path: Path) -> None:
    pytest.importorskip("torchao", reason="PT2E is torchao's: pip install torchao")
    path = formats.pt2e("conv2d", 21, tmp_path / "m", dynamic=dynamic)
    model, real = open_model(path), open_model(formats.pt2("conv2d", 21, tmp_path / "real"))
    x = ARCHITECTURES["conv2d"].inputs(200)
    expected = runtimes.answers(path, "conv2d", 21, x, model.classes)
    # Of a scale of its own for each batch, in batches of the same size.
    np.testing.assert_allclose(model.predict(x), expected, rtol=0, atol=1e-5)
    assert list(model.layers.values()) == list(real.layers.values())
    assert np.mean(model.predict(x).argmax(1) == real.predict(x).argmax(1)) >= 0.9
    assert Access.LAYERS in model.access
    assert Access.GRADIENTS not in model.access
    with refused(ModelError, f"{path}: ", "quantised", "dequantize_per_tensor"):
        model.gradient(x[:2], lambda scores, rows: scores)
    with refused(ModelError, f"{path}: ", "quantised"):
        open_network(path)
