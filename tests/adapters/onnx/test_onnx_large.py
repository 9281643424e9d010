"""Large ONNX models, whose weights stay in their files: small ones, by lower limits, answer the same that way."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import deepjudge_onnx
import numpy as np
import pytest
from refusals import refused

onnx: Any = pytest.importorskip("onnx", reason="ONNX is not installed: pip install 'deepjudge[onnx]'")
pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed: pip install 'deepjudge[onnx]'")

from deepjudge_onnx import loading  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from deepjudge_core.components.opening import open_model  # noqa: E402
from deepjudge_core.components.registry import Registry  # noqa: E402
from deepjudge_core.errors import ModelError  # noqa: E402
from deepjudge_core.models.model import Access  # noqa: E402
from deepjudge_core.sandbox.held import HeldPath  # noqa: E402

(ADAPTER,) = deepjudge_onnx.deepjudge_adapters()
RNG = np.random.default_rng(0)
X = RNG.random((5, 1, 8, 8), np.float32)
SIZES = {"k": (4, 1, 3, 3), "b": (4,), "slope": (4, 1, 1), "w": (144, 64), "c": (64,), "v": (64, 4)}


@pytest.fixture
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "_LARGE", 0)
    monkeypatch.setattr(loading, "_LARGE_WEIGHT", 16)


def weight(name: str, values: Any, kind: str = "raw") -> Any:
    if kind == "raw":
        return numpy_helper.from_array(values, name)
    return helper.make_tensor(name, TensorProto.FLOAT, values.shape, values.ravel().tolist())


def network(kind: str = "raw", outputs: str = "y") -> Any:
    """Of all that asks for weights beside ONNX Runtime: a function with one for each channel, a branch, a function."""
    rng = np.random.default_rng(1)
    weights = [weight(name, rng.normal(scale=0.1, size=size).astype(np.float32), kind) for name, size in SIZES.items()]
    weights.append(numpy_helper.from_array(np.full((64, 64), 2, np.float32), "many"))
    body = helper.make_graph([helper.make_node("Neg", ["p"], ["o"])], "b", [], [onnx.ValueInfoProto(name="o")])
    nodes = [
        helper.make_node("Conv", ["x", "k", "b"], ["c1"]),
        helper.make_node("PRelu", ["c1", "slope"], ["p"]),
        # Whether it is taken says a weight.
        helper.make_node("ReduceMin", ["many"], ["least"], keepdims=0),
        helper.make_node("Cast", ["least"], ["yes"], to=TensorProto.BOOL),
        helper.make_node("If", ["yes"], ["i"], then_branch=body, else_branch=body),
        helper.make_node("Flatten", ["i"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["m"]),
        helper.make_node("Add", ["m", "c"], ["a"]),
        helper.make_node("own", ["a"], ["r"], domain="own"),
        helper.make_node("MatMul", ["r", "v"], ["z"]),
        helper.make_node("Softmax", ["z"], ["y"]),
        helper.make_node("Sigmoid", ["z"], ["other"]),
    ]
    imports = [helper.make_opsetid(domain, version) for domain, version in (("", 17), ("own", 1))]
    relu = helper.make_function("own", "own", ["a"], ["o"], [helper.make_node("Relu", ["a"], ["o"])], imports)
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, 8, 8])],
        [onnx.ValueInfoProto(name=name) for name in outputs.split()],
        weights,
    )
    return helper.make_model(graph, opset_imports=imports, ir_version=8, functions=[relu])


def one_file(folder: Path, **options: Any) -> Path:
    onnx.save(network(**options), folder / "m.onnx")
    return folder / "m.onnx"


def floats(folder: Path) -> Path:
    """As old converters write them."""
    return one_file(folder, kind="floats")


def beside(folder: Path) -> Path:
    onnx.save(network(), folder / "m.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    return folder / "m.onnx"


def each_beside(folder: Path) -> Path:
    options = {"save_as_external_data": True, "all_tensors_to_one_file": False, "size_threshold": 300}
    onnx.save(network(), folder / "m.onnx", **options)
    return folder / "m.onnx"


def in_constants(folder: Path) -> Path:
    """Weights of a file that no initializer is."""
    model = network()
    tensor = model.graph.initializer[-2]
    (folder / "w").write_bytes(bytes(64) + tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "w"), ("offset", "64")):
        tensor.external_data.add(key=key, value=value)
    model.graph.node.insert(0, helper.make_node("Constant", [], ["v"], value=tensor))
    del model.graph.initializer[-2]
    onnx.save(model, folder / "m.onnx")
    return folder / "m.onnx"


def through_a_link(folder: Path) -> Path:
    (folder / "elsewhere").mkdir()
    (folder / "m.onnx").symlink_to(one_file(folder / "elsewhere"))
    return folder / "m.onnx"


def through_a_linked_folder(folder: Path) -> Path:
    (folder / "elsewhere").mkdir()
    beside(folder / "elsewhere")
    (folder / "linked").symlink_to("elsewhere")
    return folder / "linked" / "m.onnx"


PLACES = [one_file, floats, beside, each_beside, in_constants, through_a_link, through_a_linked_folder]


@pytest.mark.parametrize("place", PLACES)
def test_weights_in_their_files_change_nothing(
    place: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = place(tmp_path)
    expected = ADAPTER.open(path)
    assert not expected._weights
    monkeypatch.setattr(loading, "_LARGE", 0)
    monkeypatch.setattr(loading, "_LARGE_WEIGHT", 16)
    model = ADAPTER.open(path)
    # They are in no copy of the graph, and one session holds them.
    assert model._weights
    assert model._model.ByteSize() < sum(4 * np.prod(size) for size in SIZES.values()) / 4
    assert (model.digest, model.access, model.layers) == (expected.digest, expected.access, expected.layers)
    assert len(model.layers) == 3
    np.testing.assert_array_equal(model.predict(X), expected.predict(X))
    names = list(model.layers)
    for mine, theirs in zip(*(m.activations(X, names).values() for m in (model, expected)), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert len(model._sessions) == 1
    if Access.GRADIENTS in model.access:
        mine, theirs = (m.gradient(X, lambda scores, rows: np.cos(scores)) for m in (model, expected))
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.usefixtures("small_limits")
def test_models_of_several_outputs_share_their_session(tmp_path: Path) -> None:
    model = ADAPTER.open(one_file(tmp_path, outputs="y other"))
    other = model.with_output(1)
    np.testing.assert_array_equal(model.predict(X), ADAPTER.open(network(outputs="y other")).predict(X))
    assert (model.predict(X) != other.predict(X)).any()
    assert len(model._sessions) == 1
    assert model._sessions is other._sessions
    assert ADAPTER.network is not None
    ADAPTER.network(tmp_path / "m.onnx")


@pytest.mark.usefixtures("small_limits")
@pytest.mark.parametrize(("place", "file"), [(one_file, "m.onnx"), (beside, "weights.bin")])
def test_a_file_that_is_another_one_now(place: Callable[[Path], Path], file: str, tmp_path: Path) -> None:
    model = ADAPTER.open(place(tmp_path), name="m")
    model.predict(X)
    times = (tmp_path / file).stat()
    data = (tmp_path / file).read_bytes()
    (tmp_path / file).write_bytes(data)
    os.utime(tmp_path / file, ns=(times.st_atime_ns, times.st_mtime_ns + 1))
    with refused(ModelError, "m: ", file):
        model.predict(X)
    os.utime(tmp_path / file, ns=(times.st_atime_ns, times.st_mtime_ns))
    model.predict(X)
    (tmp_path / file).unlink()
    with refused(ModelError, "m: ", file):
        model.activations(X, list(model.layers))


@pytest.mark.usefixtures("small_limits")
def test_a_file_in_memory_is_not_looked_for(tmp_path: Path) -> None:
    path = one_file(tmp_path)
    held = HeldPath.holding(tmp_path / "nowhere.onnx", path.read_bytes())
    assert ADAPTER.open(held).digest == ADAPTER.open(path).digest


@pytest.mark.usefixtures("small_limits")
@pytest.mark.parametrize("size", [(144, 65), (2**20, 2**20), (-144, -64)])
def test_weights_of_more_numbers_than_there_are(size: tuple[int, int], tmp_path: Path) -> None:
    model = network()
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == "w")
    tensor.dims[:] = size
    path = tmp_path / "m.onnx"
    onnx.save(model, path)
    with refused(ModelError, path, "'w'"):
        ADAPTER.open(path)


@pytest.mark.parametrize("limit", [0, 2**26])
def test_a_file_of_weights_that_is_missing_or_short(
    limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "_LARGE", limit)
    path = each_beside(tmp_path)
    (tmp_path / "w").write_bytes((tmp_path / "w").read_bytes()[:-1])
    with refused(ModelError, path, "'w'", 144 * 64 * 4, 144 * 64 * 4 - 1):
        ADAPTER.open(path)
    (tmp_path / "w").unlink()
    with refused(ModelError, path, "'w'"):
        ADAPTER.open(path)


def test_the_files_of_a_model_are_those_that_it_names(tmp_path: Path, registry: Registry) -> None:
    path = beside(tmp_path)
    (tmp_path / "m.onnx.data").write_bytes(b"of another one")
    opened = open_model(path, registry=registry)
    assert opened.files.keys() == {"m.onnx", "weights.bin"}
