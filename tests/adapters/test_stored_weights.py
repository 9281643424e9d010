"""One network in the files of every framework: the same numbers are read, whatever runs them, and nothing is run."""

import importlib.util
import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from stored import stored

from deepjudge_core.errors import ModelError
from deepjudge_core.files.memory import bounded
from deepjudge_core.testing import check_weights

ROOM = 2**26


def numbers(rng: np.random.Generator) -> dict[str, Any]:
    """A network of two dense layers."""
    shapes = {"0.weight": (6, 4), "0.bias": (6,), "2.weight": (3, 6), "2.bias": (3,)}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.fixture
def state() -> dict[str, Any]:
    return numbers(np.random.default_rng(0))


def expect(path: Path, expected: Mapping[str, Any], tolerance: float = 0.0, **options: Any) -> None:
    weights = stored(path, **options)
    check_weights(weights)
    for name, array in expected.items():
        assert weights.tensors[name].shape == array.shape
        np.testing.assert_allclose(weights.read(name), array, atol=tolerance)
        np.testing.assert_allclose(weights.read(name, slice(1, 3)), array[1:3], atol=tolerance)
    weights.close()


# PyTorch


def module(state: Mapping[str, Any]) -> Any:
    torch = pytest.importorskip("torch")
    made = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 3)).eval()
    made.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()})
    return made


def named(part: str, state: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{part}.{name}": value for name, value in state.items()}


@pytest.mark.parametrize("kind", ["plain", "old", "wrapped", "training", "averaged", "lightning", "bfloat16"])
def test_state_dicts_of_torch_save(tmp_path: Path, state: Mapping[str, Any], kind: str) -> None:
    torch = pytest.importorskip("torch")
    made = module(state)
    own = made.state_dict()
    optimiser = torch.optim.Adam(made.parameters())
    made(torch.zeros(2, 4)).sum().backward()
    optimiser.step()
    trained, optimiser_state = made.state_dict(), optimiser.state_dict()
    expected = {name: tensor.numpy() for name, tensor in trained.items()}
    averages = {name: tensor + 1 for name, tensor in own.items()}
    saved: dict[str, tuple[Any, Mapping[str, Any]]] = {
        "plain": (trained, expected),
        "old": (trained, expected),
        "wrapped": ({f"module._orig_mod.{name}": tensor for name, tensor in trained.items()}, expected),
        "training": ({"net": trained, "optim": optimiser_state, "epoch": 3, "best": 0.5}, expected),
        "averaged": ({"model": trained, "model_ema": averages, "epoch": 3}, expected),
        "lightning": (
            {
                "state_dict": {
                    **{f"net.{n}": t for n, t in trained.items()},
                    **{f"ema.{n}": t for n, t in averages.items()},
                }
            },
            named("net", expected),
        ),
        "bfloat16": ({name: tensor.bfloat16() for name, tensor in trained.items()}, expected),
    }
    content, arrays = saved[kind]
    path = tmp_path / "m.pth"
    torch.save(content, path, _use_new_zipfile_serialization=kind != "old")
    expect(path, arrays, 0.02 if kind == "bfloat16" else 0.0)
    weights = stored(path)
    assert set(weights.tensors) == set(arrays)
    weights.close()


def test_a_folder_of_state_dicts(tmp_path: Path, state: Mapping[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    own = module(state).state_dict()
    for at in (0, 2):
        part = {name: own[name] for name in own if name.startswith(str(at))}
        torch.save(part, tmp_path / f"pytorch_model-{at}.bin")
    index = {name: f"pytorch_model-{name[0]}.bin" for name in own}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": index}))
    (tmp_path / "config.json").write_text('{"model_type": "own"}')
    expect(tmp_path, state)
    (tmp_path / "pytorch_model-0.bin").write_bytes((tmp_path / "pytorch_model-2.bin").read_bytes())
    with pytest.raises(ModelError, match="index"):
        stored(tmp_path)


def test_two_networks_in_one_file_are_refused(tmp_path: Path, state: Mapping[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    one, other = module(state).state_dict(), module(numbers(np.random.default_rng(1))).state_dict()
    torch.save({"generator": one, "critic": other}, tmp_path / "m.pth")
    with pytest.raises(ModelError, match=r"generator.*critic"):
        stored(tmp_path / "m.pth")


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_programs_and_scripts_of_torch(tmp_path: Path, state: Mapping[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    made, x = module(state), torch.zeros(2, 4)
    torch.export.save(torch.export.export(made, (x,)), tmp_path / "m.pt2")
    expect(tmp_path / "m.pt2", state)
    torch.jit.trace(made, x).save(tmp_path / "m.pt")
    expect(tmp_path / "m.pt", state)


def test_a_pickle_is_not_read(tmp_path: Path, state: Mapping[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    torch.save(module(state), tmp_path / "m.pt")
    with pytest.raises(ModelError):
        stored(tmp_path / "m.pt")


def test_tensors_that_are_larger_than_their_bytes_are_refused(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.save({"w": torch.zeros(1).expand(2**20, 2**10)}, tmp_path / "m.pth")
    with pytest.raises(ModelError, match="dense"):
        stored(tmp_path / "m.pth")


# ONNX


def onnx_model(state: Mapping[str, Any], kind: str) -> Any:
    onnx = pytest.importorskip("onnx")
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    held = []
    for name, array in state.items():
        tensor = numpy_helper.from_array(array, name)
        if kind == "lists":
            tensor = helper.make_tensor(name, onnx.TensorProto.FLOAT, array.shape, array.ravel().tolist())
        elif kind == "float16":
            tensor = numpy_helper.from_array(array.astype(np.float16), name)
        held.append(tensor)
    nodes = [
        helper.make_node("Gemm", ["x", "0.weight", "0.bias"], ["h"], transB=1),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "2.weight", "2.bias"], ["y"], transB=1),
    ]
    if kind == "constant":
        nodes.insert(0, helper.make_node("Constant", [], [held[0].name], value=held.pop(0)))
    ends = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", size]) for name, size in (("x", 4), ("y", 3))
    ]
    return helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:], held))


@pytest.mark.parametrize("kind", ["raw", "lists", "float16", "constant", "external"])
def test_the_constants_of_an_onnx_file(tmp_path: Path, state: Mapping[str, Any], kind: str) -> None:
    onnx = pytest.importorskip("onnx")
    path = tmp_path / "m.onnx"
    external = {"save_as_external_data": True, "location": "m.bin", "size_threshold": 0} if kind == "external" else {}
    onnx.save(onnx_model(state, kind), path, **external)
    expect(path, state, 2e-3 if kind == "float16" else 0.0)


def test_rows_of_a_large_onnx_file_stay_in_it(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    large = np.zeros((5, 2**22), np.float32)
    large[4] = np.arange(2**22)
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Gemm", ["x", "w"], ["y"], transB=1)],
        "g",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 2**22])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 5])],
        [onnx.numpy_helper.from_array(large, "w")],
    )
    onnx.save(onnx.helper.make_model(graph), tmp_path / "m.onnx")
    with bounded(ROOM):
        weights = stored(tmp_path / "m.onnx")
        assert np.array_equal(weights.read("w", slice(4, 5)), large[4:])
    weights.close()


def test_external_weights_are_files_beside_the_model(tmp_path: Path, state: Mapping[str, Any]) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx_model(state, "raw")
    (tmp_path / "sub").mkdir()
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="m.bin", size_threshold=0)
    model = onnx.load(tmp_path / "m.onnx", load_external_data=False)
    for tensor in model.graph.initializer:
        tensor.external_data[0].value = "../m.bin"
    onnx.save(model, tmp_path / "sub" / "m.onnx")
    with pytest.raises(ModelError):
        stored(tmp_path / "sub" / "m.onnx")


@pytest.mark.parametrize("exporter", ["path", "scopes"])
@pytest.mark.parametrize("shape", [None, [2, 2]])
def test_matrices_that_an_exporter_turned_have_their_modules_names(
    tmp_path: Path, state: Mapping[str, Any], exporter: str, shape: Any
) -> None:
    onnx = pytest.importorskip("onnx")
    helper = onnx.helper
    held, nodes, last = [], [], "x"
    for at, relu in ((0, True), (2, False)):
        name, module = f"onnx::MatMul_{at}" if exporter == "path" else f"val_{at}", f"net.layer.{at}"
        held.append(onnx.numpy_helper.from_array(np.ascontiguousarray(state[f"{at}.weight"].T), name))
        held.append(onnx.numpy_helper.from_array(state[f"{at}.bias"], f"{module}.bias"))
        path = f"/net/layer.{at}/MatMul" if exporter == "path" else f"node_{at}"
        nodes.append(helper.make_node("MatMul", [last, name], [f"m{at}"], name=path))
        if exporter == "scopes":
            scopes = f"['', 'net', '{module}', 'linear_{at}']"
            nodes[-1].metadata_props.add(key="pkg.torch.onnx.name_scopes", value=scopes)
        nodes.append(helper.make_node("Add", [f"m{at}", f"{module}.bias"], [f"a{at}"]))
        nodes += [helper.make_node("Relu", [f"a{at}"], [f"r{at}"])] if relu else []
        last = f"r{at}" if relu else f"a{at}"
    x, y = (helper.make_tensor_value_info(*end) for end in (("x", 1, ["n", 4]), (last, 1, ["n", 3])))
    if shape:  # pictures of two channels, of which a dense layer sees the flattened numbers
        x = helper.make_tensor_value_info("x", 1, ["n", *shape])
        nodes.insert(0, helper.make_node("Flatten", ["x"], ["flat"]))
        nodes[1].input[0] = "flat"
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", [x], [y], held)), tmp_path / "m.onnx")
    weights = stored(tmp_path / "m.onnx")
    check_weights(weights)
    assert weights.roles is not None
    assert [layer.width for layer in weights.roles.layers] == [6]
    view = weights.roles.layers[0].views[0]
    rows = weights.read(view.tensor).reshape(view.shape or weights.tensors[view.tensor].shape).transpose(view.axes)
    assert sorted(map(tuple, np.sort(rows.reshape(6, -1)))) == sorted(map(tuple, np.sort(state["0.weight"])))
    expected = {"net.layer.2.weight": state["2.weight"], "net.layer.0.weight": state["0.weight"]}
    found = {name: weights.read(name) for name in expected if name in weights.tensors}
    assert "net.layer.2.weight" in found
    for name, array in found.items():
        assert np.array_equal(array, expected[name])
        assert np.array_equal(weights.read(name, slice(1, 3)), array[1:3])
    weights.close()


# Keras, without Keras: the layout is that of its files.


def keras_content(state: Mapping[str, Any]) -> bytes:
    h5py = pytest.importorskip("h5py")
    data = io.BytesIO()
    with h5py.File(data, "w") as file:
        for at, layer in enumerate(("dense", "dense_1")):
            group = file.create_group(f"layers/{layer}/vars")
            group["0"], group["1"] = state[f"{2 * at}.weight"].T, state[f"{2 * at}.bias"]
        file["optimizer/vars/0"] = np.int64(3)
    return data.getvalue()


def keras_expected(state: Mapping[str, Any]) -> dict[str, Any]:
    layers = {"layers/dense/vars": 0, "layers/dense_1/vars": 2}
    return {
        **{f"{path}/0": state[f"{at}.weight"].T for path, at in layers.items()},
        **{f"{path}/1": state[f"{at}.bias"] for path, at in layers.items()},
    }


def test_the_tables_of_keras_files(tmp_path: Path, state: Mapping[str, Any]) -> None:
    content = keras_content(state)
    (tmp_path / "m.weights.h5").write_bytes(content)
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
        archive.writestr("config.json", json.dumps({"class_name": "Sequential", "config": {"layers": []}}))
        archive.writestr("metadata.json", "{}")
        archive.writestr("model.weights.h5", content)
    for file in ("m.weights.h5", "m.keras"):
        expect(tmp_path / file, keras_expected(state))
        weights = stored(tmp_path / file)
        assert set(weights.tensors) == set(keras_expected(state))
        assert weights.config.get("class_name") == ("Sequential" if file == "m.keras" else None)
        weights.close()


def test_compressed_and_half_tables(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    array = np.arange(60, dtype=np.float32).reshape(12, 5)
    with h5py.File(tmp_path / "m.weights.h5", "w") as file:
        file.create_dataset("gzip", data=array, compression="gzip", chunks=(4, 5))
        file.create_dataset("half", data=array.astype(np.float16))
        # As Keras writes bfloat16: two bytes of anything.
        file.create_dataset("bfloat16", data=(array.view(np.uint32) >> 16).astype(np.uint16).view("V2"))
    expect(tmp_path / "m.weights.h5", {"gzip": array, "half": array, "bfloat16": array})


@pytest.mark.parametrize("kind", ["link", "text", "outside", "bomb", "truncated"])
def test_hdf5_holds_numbers_alone(tmp_path: Path, kind: str) -> None:
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "m.weights.h5"
    with h5py.File(path, "w") as file:
        file["w"] = np.zeros(4, np.float32)
        if kind == "link":
            file["x"] = h5py.ExternalLink("/etc/passwd", "/")
        elif kind == "text":
            file["x"] = "text"
        elif kind == "outside":
            file.create_dataset("x", (4,), "f4", external=[("/etc/hostname", 0, 16)])
        elif kind == "bomb":
            file.create_dataset("x", (2**40,), "f4", chunks=(2**20,), compression="gzip")
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    with bounded(ROOM), pytest.raises(ModelError):
        stored(path)


# Hugging Face folders, and LoRA


def folder(path: Path, state: Mapping[str, Any], config: Any = None) -> Path:
    path.mkdir()
    save_file(dict(state), path / "model.safetensors")
    (path / "config.json").write_text(json.dumps(config or {"model_type": "own"}))
    return path


def lora(path: Path, factors: Mapping[str, Any], **config: Any) -> Path:
    path.mkdir()
    save_file(dict(factors), path / "adapter_model.safetensors")
    (path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 6, **config}))
    return path


BASE = {
    "model.a.weight": (6, 4),
    "model.b.weight": (4, 6),
    "model.embed.weight": (9, 4),
    "model.conv.weight": (5, 4, 3, 3),
}


def base_of(rng: np.random.Generator) -> dict[str, Any]:
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in BASE.items()}


def factor(rng: np.random.Generator, *shape: int) -> Any:
    return rng.normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("given", ["beside", "option", "option of a file"])
def test_a_lora_is_added_to_its_base_as_rows_are_read(tmp_path: Path, given: str) -> None:
    rng = np.random.default_rng(0)
    base = base_of(rng)
    name = "hub/the-base" if given == "beside" else "/nowhere/else"
    path = folder(tmp_path / "the-base", base, {"model_type": "llama", "num_attention_heads": 2})
    start = "base_model.model.model"
    factors = {
        f"{start}.a.lora_A.weight": factor(rng, 2, 4),
        f"{start}.a.lora_B.weight": factor(rng, 6, 2),
        f"{start}.embed.lora_embedding_A": factor(rng, 3, 9),
        f"{start}.embed.lora_embedding_B": factor(rng, 4, 3),
        f"{start}.conv.lora_A.weight": factor(rng, 2, 4, 3, 3),
        f"{start}.conv.lora_B.weight": factor(rng, 5, 2, 1, 1),
        "base_model.model.score.weight": factor(rng, 2, 4),
        "base_model.model.model.b.weight": factor(rng, 4, 6),
    }
    adapter = lora(tmp_path / "adapter", factors, base_model_name_or_path=name, alpha_pattern={"embed": 12}, **SCORE)
    a = base["model.a.weight"] + 3 * factors[f"{start}.a.lora_B.weight"] @ factors[f"{start}.a.lora_A.weight"]
    embed = (
        base["model.embed.weight"]
        + 4 * (factors[f"{start}.embed.lora_embedding_B"] @ factors[f"{start}.embed.lora_embedding_A"]).T
    )
    conv = base["model.conv.weight"] + 3 * np.einsum(
        "or,rikl->oikl", factors[f"{start}.conv.lora_B.weight"][..., 0, 0], factors[f"{start}.conv.lora_A.weight"]
    )
    expected = {
        "model.a.weight": a,
        "model.embed.weight": embed,
        "model.conv.weight": conv,
        "model.b.weight": factors["base_model.model.model.b.weight"],
        "score.weight": factors["base_model.model.score.weight"],
    }
    options = {
        "beside": {},
        "option": {"base": str(path)},
        "option of a file": {"base": str(path / "model.safetensors")},
    }
    expect(adapter, expected, 1e-5, **options[given])
    weights = stored(adapter, **options[given])
    assert weights.config.get("num_attention_heads") == 2
    weights.close()


def test_the_scale_and_the_direction_are_those_of_peft(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    base = base_of(rng)
    folder(tmp_path / "base", base)
    a, b = factor(rng, 4, 4), factor(rng, 6, 4)
    factors = {"base_model.model.model.b.lora_A.weight": a, "base_model.model.model.b.lora_B.weight": b}
    adapter = lora(tmp_path / "adapter", factors, base_model_name_or_path="base", fan_in_fan_out=True, use_rslora=True)
    expect(adapter, {"model.b.weight": base["model.b.weight"] + 3 * (b @ a).T}, 1e-5)  # 6 / sqrt(4)


def test_an_embedding_is_saved_with_its_change(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    folder(tmp_path / "base", base_of(rng))
    own, a, b = factor(rng, 9, 4), factor(rng, 2, 9), factor(rng, 4, 2)
    start = "base_model.model.model.embed"
    factors = {f"{start}.base_layer.weight": own, f"{start}.lora_embedding_A": a, f"{start}.lora_embedding_B": b}
    adapter = lora(tmp_path / "adapter", factors, base_model_name_or_path="base")
    expect(adapter, {"model.embed.weight": own + 3 * (b @ a).T}, 1e-5)


def test_a_base_that_was_saved_without_its_head_is_found(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    base = {name.removeprefix("model."): array for name, array in base_of(rng).items()}
    folder(tmp_path / "base", base)
    factors = {
        "base_model.model.model.a.lora_A.weight": factor(rng, 2, 4),
        "base_model.model.model.a.lora_B.weight": factor(rng, 6, 2),
    }
    change = 3 * factors["base_model.model.model.a.lora_B.weight"] @ factors["base_model.model.model.a.lora_A.weight"]
    expect(
        lora(tmp_path / "adapter", factors, base_model_name_or_path="base"),
        {"a.weight": base["a.weight"] + change},
        1e-5,
    )


SCORE = {"modules_to_save": ["score"]}
GOOD = {
    "base_model.model.model.a.lora_A.weight": np.zeros((2, 4), np.float32),
    "base_model.model.model.a.lora_B.weight": np.zeros((6, 2), np.float32),
}


@pytest.mark.parametrize(
    ("factors", "config"),
    [
        (GOOD, {"base_model_name_or_path": None}),
        (GOOD, {"base_model_name_or_path": "../secret"}),
        (GOOD, {"base_model_name_or_path": "other"}),
        (GOOD, {"base_model_name_or_path": ".."}),
        (GOOD, {"base_model_name_or_path": "adapter"}),
        (GOOD, {"peft_type": "LOHA"}),
        (GOOD, {"use_dora": True}),
        (GOOD, {"layer_replication": [[0, 1]]}),
        ({**GOOD, "base_model.model.model.a.lora_magnitude_vector": np.ones(6, np.float32)}, {}),
        (GOOD, {"alpha_pattern": {"(a+)+$": 1}}),
        (GOOD, {"lora_alpha": "much"}),
        ({"base_model.model.model.a.lora_A.weight": np.zeros((2, 4), np.float32)}, {}),
        ({**GOOD, "base_model.model.model.a.lora_B.weight": np.zeros((5, 2), np.float32)}, {}),
        ({**GOOD, "base_model.model.model.a.lora_B.weight": np.zeros((6, 3), np.float32)}, {}),
        ({name.replace(".a.", ".z."): array for name, array in GOOD.items()}, {}),
    ],
)
def test_a_lora_that_does_not_fit_is_refused(
    tmp_path: Path, factors: Mapping[str, Any], config: Mapping[str, Any]
) -> None:
    folder(tmp_path / "base", base_of(np.random.default_rng(0)))
    folder(tmp_path.parent / f"{tmp_path.name}-secret", base_of(np.random.default_rng(0)))
    adapter = lora(tmp_path / "adapter", factors, **{"base_model_name_or_path": "base", **config})
    with pytest.raises(ModelError) as caught:
        stored(adapter)
    assert "adapter" in str(caught.value)


def test_whole_weights_have_no_base(tmp_path: Path) -> None:
    path = folder(tmp_path / "base", base_of(np.random.default_rng(0)))
    with pytest.raises(ModelError, match="LoRA"):
        stored(path, base=str(path))


# Nothing is imported that runs anything


def test_no_framework_is_imported(tmp_path: Path, state: Mapping[str, Any]) -> None:
    base = folder(tmp_path / "base", base_of(np.random.default_rng(0)))
    paths = [base, base / "model.safetensors", lora(tmp_path / "adapter", GOOD, base_model_name_or_path="base")]
    if importlib.util.find_spec("onnx"):
        import onnx

        paths.append(tmp_path / "m.onnx")
        onnx.save(onnx_model(state, "raw"), paths[-1])
    if importlib.util.find_spec("h5py"):
        paths.append(tmp_path / "m.weights.h5")
        paths[-1].write_bytes(keras_content(state))
    code = (
        "import json, sys; from pathlib import Path\n"
        "sys.path[:0] = json.loads(sys.argv[1]); from stored import stored\n"
        "for path in sys.argv[2:]:\n"
        "    weights = stored(Path(path)); [weights.read(name) for name in weights.tensors]\n"
        "print(*{'torch', 'tensorflow', 'keras', 'onnxruntime', 'transformers'} & sys.modules.keys())"
    )
    command = [sys.executable, "-c", code, json.dumps(sys.path), *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
