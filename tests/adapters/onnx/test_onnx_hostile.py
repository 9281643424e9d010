"""Files of ONNX by people who mean harm: what they are is said without onnx, and nothing else is read for them."""

import errno
import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from refusals import refused

onnx: Any = pytest.importorskip("onnx", reason="ONNX is not installed: pip install 'deepjudge[onnx]'")
pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed: pip install 'deepjudge[onnx]'")

from deepjudge_onnx import deepjudge_adapters, files  # noqa: E402
from deepjudge_onnx.graph import external_files  # noqa: E402
from deepjudge_onnx.stored import open_stored  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from deepjudge_core import open_model  # noqa: E402
from deepjudge_core.components.kinds import Format  # noqa: E402
from deepjudge_core.errors import ModelError  # noqa: E402
from deepjudge_core.sandbox.held import HeldPath  # noqa: E402

(ADAPTER,) = deepjudge_adapters()
assert ADAPTER.examine is not None
assert ADAPTER.companions is not None
IMPORTS = [helper.make_opsetid(domain, version) for domain, version in (("", 17), ("own", 1))]


def node(kind: str, inputs: str, outputs: str, **attributes: Any) -> Any:
    return helper.make_node(kind, inputs.split(), outputs.split(), **attributes)


def graph(*nodes: Any, inputs: str = "", outputs: str = "y", weights: Any = ()) -> Any:
    values = [[onnx.ValueInfoProto(name=name) for name in names.split()] for names in (inputs, outputs)]
    return helper.make_graph(list(nodes), "g", *values, list(weights))


def model(*nodes: Any, functions: Any = (), weights: Any = ()) -> Any:
    """A classifier: what the nodes make of x, of 4 numbers, times a matrix."""
    last = nodes[-1].output[0] if nodes else "x"
    matrix = numpy_helper.from_array(np.ones((4, 3), np.float32), "W")
    result = graph(*nodes, node("MatMul", f"{last} W", "y"), weights=[matrix, *weights])
    result.input.append(helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4]))
    return helper.make_model(result, opset_imports=IMPORTS, ir_version=8, functions=list(functions))


def function(name: str, *nodes: Any) -> Any:
    return helper.make_function("own", name, ["a"], ["b"], list(nodes), IMPORTS)


def laughs(depth: int, width: int) -> list[Any]:
    """Functions of which each calls the one before it several times."""
    functions = [function("f0", node("Relu", "a", "b"))]
    for level in range(1, depth):
        names = ["a", *(f"t{i}" for i in range(1, width)), "b"]
        calls = [
            helper.make_node(f"f{level - 1}", [before], [after], domain="own")
            for before, after in itertools.pairwise(names)
        ]
        functions.append(function(f"f{level}", *calls))
    return functions


def call(name: str, domain: str = "own") -> Any:
    return helper.make_node(name, ["x"], ["c"], domain=domain)


def choice(*nodes: Any) -> Any:
    """A branch that runs nodes, whichever way it goes."""
    body = graph(*nodes, outputs=nodes[-1].output[0])
    return helper.make_node("If", ["yes"], ["i"], then_branch=body, else_branch=body)


YES = numpy_helper.from_array(np.array(True), "yes")


def put(folder: Path, data: bytes, name: str = "m.onnx") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def external(folder: Path, location: str, **where: int) -> Path:
    """A model whose matrix lies elsewhere."""
    source = model()
    (tensor,) = source.graph.initializer
    onnx.external_data_helper.set_external_data(tensor, location, **where)
    tensor.ClearField("raw_data")
    return put(folder, source.SerializeToString())


def expect_refused(look: Callable[[Path], Any], path: Path, *facts: str) -> None:
    with refused(ModelError, f"{path}: ", *facts) as caught:
        look(path)
    assert len(str(caught.value)) < len(str(path)) + 600


# ---- what a file is --------------------------------------------------------------------------------------------------


def test_a_model_is_told_without_onnx(tmp_path: Path) -> None:
    path = put(tmp_path, model().SerializeToString())
    assert ADAPTER.examine(path) == Format("ONNX", runs_code=False)
    code = (
        "import sys, pathlib, deepjudge_onnx as d; a, = d.deepjudge_adapters(); "
        f"a.examine(pathlib.Path({str(path)!r})); sys.exit('onnx' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


GOOD = model().SerializeToString()
OTHER = ("truncated",)


@pytest.mark.parametrize(
    ("data", "facts"),
    [
        (b"", ("empty",)),
        (b"import os\n", OTHER),
        (b"\x7fELF\2\1\1", OTHER),
        (bytes(64), OTHER),
        (b"\xff" * 64, OTHER),
        (GOOD[:-1], OTHER),
        (GOOD[: len(GOOD) // 2], OTHER),
        (GOOD + b"\0", OTHER),
        # Without a graph, without a version, a graph longer than the file, and more fields than the file can be for.
        (b"\x08\x08", OTHER),
        (b"\x3a\x00", OTHER),
        (b"\x08\x08\x3a\xff\xff\xff\xff\x0f", OTHER),
        (b"\x08\x08" * 20_000 + b"\x3a\x00", OTHER),
        (b"\x18\0\0\0ORTM" + bytes(64), (".ort", ".onnx")),
        (b"PK\x03\x04" + bytes(64), ("zip",)),
        (b"\x89HDF\r\n\x1a\n" + bytes(64), ("HDF5",)),
        (b"\x80\x04\x95\0\0\0\0", ("pickle",)),
        (b"\x1f\x8b\x08\0\0\0\0", ("compressed",)),
    ],
)
def test_what_is_no_model_is_refused_in_one_line(data: bytes, facts: tuple[str, ...], tmp_path: Path) -> None:
    path = put(tmp_path, data)
    expect_refused(ADAPTER.examine, path, *facts)
    expect_refused(ADAPTER.open, path)


# ---- what is in it ---------------------------------------------------------------------------------------------------


def field(number: int, content: bytes) -> bytes:
    size, length = len(content), b""
    while size >= 0x80:
        length += bytes([size & 0x7F | 0x80])
        size >>= 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + content


def nested(depth: int) -> bytes:
    """Branches in branches, deeper than any library would write them."""

    body = b""
    for _ in range(depth):
        body = field(1, field(5, field(6, body)))
    return b"\x08\x08" + field(7, body)


def empty_weights(*shape: int) -> Any:
    return TensorProto(name="huge", data_type=TensorProto.FLOAT, dims=shape)


HOSTILE: dict[str, tuple[Callable[[], bytes], tuple[str, ...]]] = {
    "custom operation": (
        lambda: model(call("Evil", "evil.domain")).SerializeToString(),
        ("'Evil'", "'evil.domain'"),
    ),
    "custom operation in a branch": (
        lambda: model(choice(call("Evil", "evil"))).SerializeToString(),
        ("'Evil'", "'evil'"),
    ),
    "custom operation in a function": (
        lambda: model(
            call("f"), functions=[function("f", helper.make_node("Evil", ["a"], ["b"], domain="evil"))]
        ).SerializeToString(),
        ("'Evil'", "'evil'"),
    ),
    "a long name": (
        lambda: model(call("E" * 10**6, "d" * 10**6)).SerializeToString(),
        (repr("E" * 60), repr("d" * 60)),
    ),
    "a billion laughs": (
        lambda: model(call("f9"), functions=laughs(10, 10)).SerializeToString(),
        ("100000", "2147483647", "2111111112", "68222222325"),
    ),
    "more laughs than numbers": (
        lambda: model(call("f39"), functions=laughs(40, 10)).SerializeToString(),
        ("100000", "2147483647", "more than 10^12 and more than 10^12"),
    ),
    "a large function, often": (
        lambda: model(
            call("f2"),
            functions=[
                function(
                    "f0",
                    node("Constant", "", "c", value=numpy_helper.from_array(np.zeros(2**20))),
                    node("Add", "a c", "b"),
                ),
                *laughs(3, 200)[1:],
            ],
        ).SerializeToString(),
        ("100000", "2147483647"),
    ),
    "functions in functions": (
        lambda: model(call("f4999"), functions=laughs(5000, 1)).SerializeToString(),
        ("functions", "64"),
    ),
    "a function of itself": (
        lambda: model(
            call("f"), functions=[function("f", helper.make_node("f", ["a"], ["b"], domain="own"))]
        ).SerializeToString(),
        ("functions", "64"),
    ),
    "functions of one name": (
        lambda: model(call("f0"), functions=laughs(1, 1) * 2).SerializeToString(),
        ("functions", "name"),
    ),
    "weights of nothing": (
        lambda: model(weights=[empty_weights(2**20, 2**20)]).SerializeToString(),
        ("weights", "'huge'"),
    ),
    "weights of less than nothing": (
        lambda: model(weights=[empty_weights(-4, -3)]).SerializeToString(),
        ("weights", "'huge'"),
    ),
    "weights of nothing in a constant": (
        lambda: model(
            node("Constant", "", "huge", value=empty_weights(2**40)), node("Add", "x huge", "z")
        ).SerializeToString(),
        ("weights", "'huge'"),
    ),
    "branches in branches": (lambda: nested(2000), OTHER),
    "branches in branches, below the limit": (lambda: nested(30), ("input", "0: none")),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_models_are_refused_in_one_line(case: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    make, facts = HOSTILE[case]
    path = put(tmp_path, make())
    assert not ADAPTER.examine(path).runs_code
    expect_refused(ADAPTER.open, path, *facts)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "make",
    [
        model,
        lambda: model(call("f2"), functions=laughs(3, 4)),
        lambda: model(choice(call("f0")), functions=laughs(1, 1), weights=[YES]),
        lambda: model(choice(node("Relu", "x", "r")), weights=[YES]),
        lambda: model(helper.make_node("Gelu", ["x"], ["g"], domain="com.microsoft")),
    ],
)
def test_honest_models_open(make: Callable[[], Any], tmp_path: Path) -> None:
    source = make()
    source.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    path = put(tmp_path, source.SerializeToString())
    assert not ADAPTER.examine(path).runs_code
    assert ADAPTER.open(path).classes == 3


# ---- weights in other files ------------------------------------------------------------------------------------------


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """What nobody should read: 48 bytes, as the matrix has."""
    path = tmp_path / "elsewhere" / "canary"
    path.parent.mkdir()
    path.write_bytes(b"secret!!" * 6)
    return path


def traversal(folder: Path, canary: Path) -> str:
    return "../elsewhere/canary"


def absolute(folder: Path, canary: Path) -> str:
    return str(canary)


def within(folder: Path, canary: Path) -> str:
    (folder / "sub").mkdir()
    os.link(canary, folder / "sub" / "w")
    return "sub/w"


def backwards(folder: Path, canary: Path) -> str:
    return "..\\elsewhere\\canary"


def memory(folder: Path, canary: Path) -> str:
    # How ONNX Runtime itself marks weights at an address of its memory.
    return "*/_ORT_MEM_ADDR_/*"


def nowhere(folder: Path, canary: Path) -> str:
    return ""


def parent(folder: Path, canary: Path) -> str:
    return ".."


def symbolic(folder: Path, canary: Path) -> str:
    (folder / "m.onnx.data").symlink_to(canary)
    return "m.onnx.data"


def hard(folder: Path, canary: Path) -> str:
    os.link(canary, folder / "m.onnx.data")
    return "m.onnx.data"


def pipe(folder: Path, canary: Path) -> str:
    os.mkfifo(folder / "m.onnx.data")
    return "m.onnx.data"


def missing(folder: Path, canary: Path) -> str:
    return "m.onnx.data"


@pytest.mark.parametrize(
    ("place", "facts"),
    [
        *((place, ("name", "folder")) for place in (traversal, absolute, within)),
        *((place, ("name", "folder")) for place in (backwards, memory, nowhere, parent)),
        *((place, ("'m.onnx.data'", "link")) for place in (symbolic, hard, pipe)),
        (missing, ("'m.onnx.data'", os.strerror(errno.ENOENT))),
    ],
)
def test_weights_elsewhere_are_not_read(
    place: Callable[[Path, Path], str], facts: tuple[str, ...], tmp_path: Path, canary: Path
) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    path = external(folder, place(folder, canary))
    expect_refused(ADAPTER.open, path, *facts)


@pytest.mark.parametrize("where", [{"offset": 8}, {"length": 40}, {"length": 400}, {"offset": 2**62, "length": 48}])
def test_weights_beyond_their_file(where: dict[str, int], tmp_path: Path) -> None:
    put(tmp_path, bytes(48), "m.onnx.data")
    path = external(tmp_path, "m.onnx.data", **where)
    expect_refused(ADAPTER.open, path)


def test_weights_of_a_sparse_tensor_elsewhere(tmp_path: Path) -> None:
    put(tmp_path, bytes(48), "m.onnx.data")
    source = model()
    values = numpy_helper.from_array(np.ones(3, np.float32), "s")
    onnx.external_data_helper.set_external_data(values, "m.onnx.data", length=12)
    values.ClearField("raw_data")
    indices = numpy_helper.from_array(np.arange(3), "i")
    source.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4]))
    path = put(tmp_path, source.SerializeToString())
    assert ADAPTER.open(path).classes == 3
    (tmp_path / "m.onnx.data").unlink()
    expect_refused(ADAPTER.open, path, "m.onnx.data")


@pytest.mark.parametrize("name", ["m.onnx.data", "m.onnx_data", "other.onnx.data", "weights.bin", "W", "Größe 1%.bin"])
def test_weights_beside_the_model_open(name: str, tmp_path: Path) -> None:
    put(tmp_path, np.ones((4, 3), np.float32).tobytes(), name)
    path = external(tmp_path, name, offset=0, length=48)
    assert ADAPTER.companions(path) == [name]
    assert ADAPTER.open(path).classes == 3


# ---- which files hold weights, said without onnx ---------------------------------------------------------------------


def located(location: str) -> Any:
    """A tensor that lies elsewhere, wherever a tensor may be."""
    tensor = TensorProto(name="w", dims=[3], data_type=TensorProto.FLOAT, raw_data=bytes(12))
    onnx.external_data_helper.set_external_data(tensor, location)
    tensor.ClearField("raw_data")
    return tensor


def test_weights_are_found_wherever_a_tensor_may_be(tmp_path: Path) -> None:
    inner = graph(node("Identity", "a", "i"), outputs="i", weights=[located("branch")])
    source = model(
        node("Constant", "", "c", value=located("constant")),
        helper.make_node(
            "If", ["yes"], ["z"], then_branch=inner, else_branch=choice(node("Relu", "x", "r")).attribute[0].g
        ),
        functions=[function("f", node("Constant", "", "b", value=located("function")))],
        weights=[located("initializer"), located("initializer"), located("../path"), located("")],
    )
    sparse = source.graph.sparse_initializer.add(dims=[9])
    sparse.values.CopyFrom(located("values"))
    sparse.indices.CopyFrom(located("indices"))
    source.graph.node[0].attribute.add(name="many", type=9).tensors.append(located("list"))
    names = ["branch", "constant", "function", "indices", "initializer", "list", "values"]
    assert ADAPTER.companions(put(tmp_path, source.SerializeToString())) == names
    assert set(names) < set(external_files(source))


@pytest.mark.parametrize(
    "data",
    [
        GOOD[:-1],
        nested(2000),
        b"\x08\x08" + field(7, b"\x08"),
        b"\x08\x08" + field(7, b"\x2a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f"),
        b"\x08\x08" + field(7, b"\x2b\x2c"),
        b"\x08\x08" + field(7, field(1, field(5, field(6, b"\xff" * 11)))),
    ],
)
def test_files_that_name_no_weights(data: bytes, tmp_path: Path) -> None:
    expect_refused(ADAPTER.companions, put(tmp_path, data))


def test_a_hole_is_not_read_to_its_end(tmp_path: Path) -> None:
    """It takes no room on the disk, and is looked at before any limit of memory or time holds."""
    path = put(tmp_path, b"\x08\x08")
    os.truncate(path, 2**30)
    expect_refused(ADAPTER.companions, path, "a field of number 0")


def test_text_is_called_another_format(tmp_path: Path) -> None:
    expect_refused(ADAPTER.companions, put(tmp_path, b"hello\n"), "format")


def test_no_more_is_read_than_any_model_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(tmp_path, model(weights=[located(f"w{place}") for place in range(20)]).SerializeToString())
    assert len(ADAPTER.companions(path)) == 20
    monkeypatch.setattr(files, "_MOST_FILES", 19)
    expect_refused(ADAPTER.companions, path, "files")
    monkeypatch.undo()
    monkeypatch.setattr(files, "_MOST_INSIDE", 50)
    expect_refused(ADAPTER.companions, path, "fields")


def test_what_fields_an_entry_has_beside_key_and_value(tmp_path: Path) -> None:
    entry = field(1, b"location") + field(2, b"w")
    for others, names in ((90, ["w"]), (110, None)):
        tensor = field(13, field(5, b"") * others + entry)
        path = put(tmp_path, b"\x08\x08" + field(7, field(5, tensor)))
        if names is None:
            expect_refused(ADAPTER.companions, path, "fields")
        else:
            assert ADAPTER.companions(path) == names


def test_a_forest_is_as_few_fields_as_it_has_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = [*range(5000), 2**60, -1] * 4
    trees = helper.make_node("Trees", ["x"], ["y"], ints=numbers, floats=[0.5] * 20_000, domain="ai.onnx.ml")
    whole = model(weights=[located("w")])
    whole.graph.node.append(trees)
    path = put(tmp_path, whole.SerializeToString())
    monkeypatch.setattr(files, "_MOST_INSIDE", 500)
    assert ADAPTER.companions(path) == ["w"]
    # A number without an end is none, wherever it stands.
    attribute = field(5, b"\x40\x01" * 9 + b"\x40" + b"\xff" * 11)
    expect_refused(ADAPTER.companions, put(tmp_path, b"\x08\x08" + field(7, field(1, attribute))), "number")


# ---- files in memory -------------------------------------------------------------------------------------------------


def test_a_model_in_memory(tmp_path: Path) -> None:
    opened = ADAPTER.open(HeldPath.holding(tmp_path / "nowhere.onnx", GOOD))
    assert opened.digest == ADAPTER.open(put(tmp_path, GOOD)).digest


DENIED = """
import importlib, sys
import numpy as np
from deepjudge_onnx import deepjudge_adapters
from deepjudge_core.sandbox.held import HeldPath
(adapter,) = deepjudge_adapters()
for name in adapter.imports:
    importlib.import_module(name)
adapter.warm_up(gradients=True)
models = [open(path, "rb").read() for path in sys.argv[1:]]
opened = []
def deny(event, arguments):
    if event in ("open", "os.listdir"):
        opened.append(arguments[0])
        raise PermissionError(arguments[0])
sys.addaudithook(deny)
for data in models:
    model = adapter.open(HeldPath.holding("m.onnx", data))
    x = np.zeros((3, *model.input.shape), np.float32)
    model.predict(x)
    model.activations(x, list(model.layers))
    model.gradient(x, lambda scores, rows: np.ones_like(scores))
print(opened)
"""


def exported(folder: Path) -> list[str]:
    """A network of convolutions and one of an LSTM, as PyTorch's exporter writes them."""
    torch = pytest.importorskip("torch", reason="PyTorch exports the networks")
    from onnx_exports import export_torch

    class Sound(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.steps, self.dense = (
                torch.nn.LSTM(3, 5, 2, batch_first=True, bidirectional=True),
                torch.nn.Linear(10, 4),
            )

        def forward(self, x: Any) -> Any:
            return self.dense(self.steps(x)[0][:, -1])

    layers = torch.nn
    picture = layers.Sequential(
        layers.Conv2d(3, 4, 3), layers.BatchNorm2d(4), layers.ReLU(), layers.MaxPool2d(2), layers.Flatten(),
        layers.Linear(36, 5), layers.SiLU(), layers.Linear(5, 3), layers.Softmax(1),
    )  # fmt: skip
    paths = [folder / "picture.onnx", folder / "sound.onnx"]
    export_torch(picture, torch.zeros(2, 3, 8, 8), paths[0], "old")
    export_torch(Sound(), torch.zeros(2, 6, 3), paths[1], "old")
    return list(map(str, paths))


def test_nothing_is_opened_after_warm_up(tmp_path: Path) -> None:
    paths = [str(put(tmp_path, GOOD)), *exported(tmp_path)]
    done = subprocess.run([sys.executable, "-c", DENIED, *paths], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


@pytest.mark.parametrize("damage", ["short", "type", "name", "input"])
def test_weights_and_names_that_no_exporter_writes(tmp_path: Path, damage: str) -> None:
    made = model()
    if damage == "short":
        made.graph.initializer[0].dims[0] = 5
    if damage == "type":
        made.graph.initializer[0].data_type = 33
    data = made.SerializeToString()
    if damage == "name":
        data = data.replace(b"W", b"\xff")
    if damage == "input":
        data = data.replace(b"x", b"\xff")
    path = tmp_path / "damaged.onnx"
    path.write_bytes(data)
    for opened in (open_stored, open_model):
        with refused(ModelError, {"short": "5, 3", "type": "33"}.get(damage, "UTF-8")):
            opened(path, name="damaged")
