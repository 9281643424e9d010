"""State dicts, with the network that the user's own code makes."""

import argparse
import datetime
import errno
import hashlib
import json
import os
import sys
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models import LAYERS, SHAPE, inputs, torch_module
from refusals import expect_facts, refused

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'deepjudge[torch]'")

import deepjudge_torch  # noqa: E402
import safetensors.torch  # noqa: E402
from torch import nn  # noqa: E402

from deepjudge_core import InputSpec, Model, open_model  # noqa: E402
from deepjudge_core.components.registry import Registry  # noqa: E402
from deepjudge_core.errors import DeepJudgeError, ModelError, UsageError  # noqa: E402
from deepjudge_core.testing import check_model  # noqa: E402

(ADAPTER,) = deepjudge_torch.deepjudge_adapters()
CODE = """
import sys
from torch import nn

STARTS = sys.path[0]

class Net(nn.Sequential):
    def __init__(self):
        super().__init__()
        for name, part in {
            "conv1": nn.Conv2d(3, 4, 3), "relu1": nn.ReLU(), "pool": nn.MaxPool2d(2), "conv2": nn.Conv2d(4, 6, 2),
            "relu2": nn.ReLU(), "flatten": nn.Flatten(), "dense1": nn.Linear(24, 10), "tanh": nn.Tanh(),
            "dense2": nn.Linear(10, 5),
        }.items():
            self.add_module(name, part)

class Shaped(Net):
    input_shape = (3, 8, 8)

class Named(nn.Module):
    "Its one child is called as a wrapper of modules calls its own."

    def __init__(self):
        super().__init__()
        self.module = Net()

    def forward(self, x):
        return self.module(x)

class Zoo:
    net = Shaped

ONE = Shaped()

def shared():
    return ONE

def broken():
    raise RuntimeError("first line\\nsecond line")

def nothing():
    return 3

def smaller():
    net = Shaped()
    net.dense2 = nn.Linear(10, 4)
    del net.conv1
    for name in "abcd":
        net.add_module(name, nn.Linear(1, 1, bias=False))
    return net
"""


@pytest.fixture(autouse=True)
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's own code, where the user is."""
    (tmp_path / "user").mkdir()
    (tmp_path / "user" / "nets.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    for name in ("user", "user.nets"):
        monkeypatch.delitem(sys.modules, name, raising=False)


def save(folder: Path, suffix: str, state: Any = None, **options: Any) -> Path:
    state = torch_module(1).state_dict() if state is None else state
    path = folder / f"weights{suffix}"
    if suffix == ".safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save(state, path, **options)
    return path


def open_path(path: Path, arch: str | None = "user.nets:Shaped", **options: Any) -> Model:
    return ADAPTER.open(path, arch=arch, **options)


@pytest.fixture(scope="module")
def live() -> Model:
    return ADAPTER.open(torch_module(1), input_shape=SHAPE)


def same(model: Model, reference: Model) -> None:
    x = inputs(6)
    assert dict(model.layers) == dict(reference.layers)
    np.testing.assert_array_equal(model.predict(x), reference.predict(x))
    for layer in (*reference.layers, None):
        gradients = [m.gradient(x, lambda s, rows: s, layer=layer) for m in (model, reference)]
        np.testing.assert_array_equal(*gradients)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors"])
def test_a_state_dict_is_the_live_module(suffix: str, tmp_path: Path, live: Model) -> None:
    path = save(tmp_path, suffix)
    model = open_path(path)
    same(model, live)
    check_model(model, inputs(8))
    assert (model.name, tuple(model.layers.values())) == (str(path), LAYERS)
    assert model.digest == hashlib.sha256(path.read_bytes()).hexdigest()


def test_through_the_front_door_with_the_shape_given(tmp_path: Path, live: Model) -> None:
    path = save(tmp_path, ".pth", _use_new_zipfile_serialization=False)
    same(open_model(path, arch="user.nets:Net", input_shape=SHAPE), live)
    same(open_path(path, "user.nets:Zoo.net"), live)


def test_pictures_without_an_axis_for_their_one_channel(tmp_path: Path) -> None:
    grey = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 5))
    (tmp_path / "user" / "grey.py").write_text(
        "from torch import nn\n"
        "def make():\n"
        "    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 5))\n"
    )
    path = save(tmp_path, ".safetensors", grey.state_dict())
    for shape in ((8, 8), (8, 8, 1), (1, 8, 8)):
        model = open_model(path, arch="user.grey:make", expected=InputSpec(shape))
        assert model.input.shape == (1, 8, 8)


@pytest.mark.parametrize("key", ["state_dict", "model", "model_state_dict"])
def test_what_training_loops_file(key: str, tmp_path: Path, live: Model) -> None:
    state = torch_module(1).state_dict()
    content = {"epoch": 3, "optimizer": {"lr": 0.1}, key: {f"module.{name}": value for name, value in state.items()}}
    same(open_path(save(tmp_path, ".pt", content)), live)


def test_prefixes(tmp_path: Path, live: Model) -> None:
    state = torch_module(1).state_dict()
    named = {f"module.{name}": value for name, value in state.items()}
    same(open_path(save(tmp_path, ".safetensors", named)), live)
    twice = {f"_orig_mod.{name}": value for name, value in named.items()}
    for weights in (twice, {f"module._orig_mod.{name}": value for name, value in state.items()}):
        same(open_path(save(tmp_path, ".pt", weights)), live)
    # It is the network's own name here.
    model = open_path(save(tmp_path, ".pt", named), "user.nets:Named", input_shape=SHAPE)
    np.testing.assert_array_equal(model.predict(inputs(3)), live.predict(inputs(3)))


def prefixed(prefix: str, state: dict[str, Any]) -> dict[str, Any]:
    return {f"{prefix}{name}": value for name, value in state.items()}


OWN, AVERAGES = torch_module(1).state_dict(), torch_module(2).state_dict()
STEPS = {"state": {0: {"exp_avg": torch.zeros(3), "step": torch.tensor(9.0)}}, "param_groups": [{"lr": 0.1}]}
WRITTEN: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "numpy's figures": (
        {
            "state_dict": OWN,
            "best": np.float64(0.9),
            "losses": np.arange(3.0),
            "random": np.random.get_state(),  # noqa: NPY002
            "out": Path("runs"),
            "at": datetime.datetime(2024, 1, 1),
        },
        (),
    ),
    "DeiT": ({"model": OWN, "args": argparse.Namespace(lr=0.1, data="x"), "scaler": {"scale": 65536.0}}, ()),
    "cifar scripts": ({"net": prefixed("module.", OWN), "acc": 93.1, "epoch": 17}, ()),
    "torchvision's references": ({"model": OWN, "optimizer": STEPS, "lr_scheduler": {"last_epoch": 3}, "epoch": 2}, ()),
    "Lightning": (
        {
            "state_dict": prefixed("model.", OWN) | {"loss.weight": torch.ones(5)},
            "optimizer_states": [STEPS],
            "global_step": 100,
            "pytorch-lightning_version": "2.5.0",
        },
        ("'state_dict/model.*'", "loss.weight"),
    ),
    "Lightning, compiled, of several processes": ({"state_dict": prefixed("net._orig_mod.module.", OWN)}, ()),
    "timm": (
        {"arch": "net", "state_dict": OWN, "state_dict_ema": prefixed("module.", AVERAGES), "optimizer": STEPS},
        ("'state_dict'", "'state_dict_ema/module.*'"),
    ),
    "averages in the module itself": (
        {"state_dict": prefixed("model.", OWN) | prefixed("model_ema.module.", AVERAGES)},
        ("'state_dict/model.*'", "'state_dict/model_ema.module.*'"),
    ),
    "averages in a callback": (
        {"state_dict": prefixed("model.", OWN), "callbacks": {"EMA": {"decay": 0.9, "ema_state_dict": AVERAGES}}},
        ("'state_dict/model.*'", "'callbacks/EMA/ema_state_dict'"),
    ),
    "the same twice": ({"model": OWN, "best_model": dict(OWN)}, ()),
    "averages alone": ({"ema": OWN, "epoch": 3}, ("averages of 'ema'",)),
    "a mean of the last": (prefixed("module.", OWN) | {"n_averaged": torch.tensor(7)}, ("n_averaged",)),
    "numbers among the weights": (OWN | {"epoch": 3, "accuracy": 0.93}, ()),
}


@pytest.mark.parametrize("case", WRITTEN)
@pytest.mark.parametrize("suffix", [".ckpt", ".pth.tar"])
def test_what_training_code_writes(case: str, suffix: str, tmp_path: Path, live: Model) -> None:
    content, facts = WRITTEN[case]
    model = open_model(save(tmp_path, suffix, content), arch="user.nets:Shaped")
    same(model, live)
    if facts:
        expect_facts("; ".join(model.notes), *facts)
    else:
        assert model.notes == ()


def sharded(folder: Path, suffix: str, state: dict[str, Any]) -> Path:
    """As Hugging Face's libraries write weights that are too large for one file."""
    stem, names = f"model{suffix}"[: -len(suffix)], list(state)
    halves = {f"{stem}-0000{i + 1}-of-00002{suffix}": names[i::2] for i in range(2)}
    for file, part in halves.items():
        weights = {name: state[name].contiguous() for name in part}
        if suffix == ".safetensors":
            safetensors.torch.save_file(weights, folder / file)
        else:
            torch.save(weights, folder / file)
    index = folder / f"{stem}{suffix}.index.json"
    where = {name: file for file, part in halves.items() for name in part}
    index.write_text(json.dumps({"metadata": {"total_size": 4}, "weight_map": where}))
    return index


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_weights_in_several_files(suffix: str, tmp_path: Path, live: Model, registry: Registry) -> None:
    (tmp_path / "m").mkdir()
    index = sharded(tmp_path / "m", suffix, prefixed("net.", OWN))
    model = open_model(index, arch="user.nets:Shaped")
    same(model, live)
    assert len(model.files) == 3
    # In a folder of models it is one.
    save(tmp_path / "m", ".pt")
    assert registry.adapters.in_folder(tmp_path / "m") == [index, tmp_path / "m" / "weights.pt"]


def change_index(index: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(index.read_text())
    change(content["weight_map"])
    index.write_text(json.dumps(content))


def missing_file(index: Path) -> None:
    (index.parent / "model-00002-of-00002.safetensors").unlink()


def swapped(index: Path) -> None:
    one, two = sorted(index.parent.glob("*.safetensors"))
    first = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(first)


def pickled(index: Path) -> None:
    torch.save(Whole(), index.parent / "model-00002-of-00002.safetensors")


def many(index: Path) -> None:
    change_index(index, lambda names: names.update({str(i): f"{i}.safetensors" for i in range(2000)}))


SHARDS: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "a file that leads out": (
        lambda index: change_index(index, lambda names: names.update({"x": "../secret.safetensors"})),
        ("'../secret.safetensors'",),
    ),
    "a whole path": (
        lambda index: change_index(index, lambda names: names.update({"x": "/etc/secret.safetensors"})),
        ("'/etc/secret.safetensors'",),
    ),
    "a file of another kind": (
        lambda index: change_index(index, lambda names: names.update({"x": "secret.pkl"})),
        (".safetensors", "'secret.pkl'"),
    ),
    "a number": (lambda index: change_index(index, lambda names: names.update({"x": 3})), ("weight_map",)),
    "none": (lambda index: change_index(index, dict.clear), ("1000", "found 0")),
    "too many": (many, ("1000", "found 2002")),
    "no index": (lambda index: index.write_text("[]"), ("object",)),
    "no JSON": (lambda index: index.write_text("{"), ("index",)),
    "a missing file": (missing_file, ("model-00002-of-00002.safetensors",)),
    "files of one another": (swapped, ("model-00001-of-00002.safetensors", "conv1.bias")),
    "a pickle": (pickled, ("safetensors", "torch.save")),
}


@pytest.mark.parametrize("case", SHARDS)
def test_an_index_that_does_not_fit(case: str, tmp_path: Path) -> None:
    make, facts = SHARDS[case]
    index = sharded(tmp_path, ".safetensors", OWN)
    make(index)
    with refused(ModelError, f"{index}: ", *facts):
        open_model(index, arch="user.nets:Shaped")


def deep(value: Any, depth: int) -> Any:
    for _ in range(depth):
        value = {"a": value}
    return value


def attributed(**attributes: Any) -> dict[str, Any]:
    state = OrderedDict(OWN)
    vars(state).update(attributes)
    return state


def optimiser(**more: Any) -> dict[str, Any]:
    network = torch_module(1)
    adam = torch.optim.Adam(network.parameters())
    network(torch.ones(2, *SHAPE)).sum().backward()
    adam.step()
    state = adam.state_dict()
    state["state"][0] |= more
    return state


MOVED = {name: value + 1 for name, value in AVERAGES.items()}
# Of what is somebody's and what is to be measured in its place, both fit.
SEVERAL: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "two": ({"student": OWN, "expert": AVERAGES}, ("'student'", "'expert'")),
    "one of them wrapped": (
        {"state_dict": prefixed("features.module.", AVERAGES), "best": prefixed("features.", OWN)},
        ("'state_dict/features.", "'best/features.*'"),
    ),
    "in a list": ({"models": [3, AVERAGES], "x": OWN}, ("'models/1'", "'x'")),
    "in a tuple": ({"models": (AVERAGES, 3), "x": OWN}, ("'models/0'", "'x'")),
    "by a number": ({7: AVERAGES, "x": OWN}, ("'7'", "'x'")),
    "deep": ({"b": deep(AVERAGES, 60), "x": OWN}, ("'b/a/a/", "'x'")),
    "as a module's addition": ({"x": OWN, "y_extra_state": AVERAGES}, ("'x'", "'y_extra_state'")),
    "in an optimiser": (
        {"x": OWN, "optimizer": {"state": {0: {"model": AVERAGES}}, "param_groups": []}},
        ("'x'", "'optimizer/state/0/model'"),
    ),
    "beside averages": ({"x": OWN, "y": AVERAGES, "ema": MOVED}, ("'x'", "'y'")),
}


@pytest.mark.parametrize("case", SEVERAL)
def test_of_several_networks_none_is_taken(case: str, tmp_path: Path) -> None:
    content, facts = SEVERAL[case]
    path = save(tmp_path, ".pt", content)
    with refused(ModelError, path, *facts):
        open_path(path)


HALF = len(AVERAGES) // 2
# What does not fit as it stands, and yet is as large as the network; and what is no network.
BESIDE: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "one tensor more": ({"y": AVERAGES | {"extra": torch.zeros(1)}, "x": OWN}, ("'x'", "'y'")),
    "by a key that looks alike": ({7: AVERAGES | {"extra": torch.zeros(1)}, "7": OWN}, ("'7'",)),
    "of another name": ({"y": {f"{name}_": value for name, value in AVERAGES.items()}, "x": OWN}, ("'x'", "'y'")),
    "names left out": ({"y": list(AVERAGES.values()), "x": OWN}, ("'x'", "'y'")),
    "in one tensor": ({"y": {"z": torch.cat([v.flatten() for v in AVERAGES.values()])}, "x": OWN}, ("'y'",)),
    "a dict for each": ({"y": {name: {"w": value} for name, value in AVERAGES.items()}, "x": OWN}, ("'x'", "'y'")),
    "in two parts": (
        {
            "x": OWN,
            "y": [*AVERAGES.values()][:HALF],
            "z": {"a": [*AVERAGES.values()][HALF:]},
        },
        ("'x'",),
    ),
    "as an attribute": (attributed(more={"y": [*AVERAGES.values()]}), ("more/y",)),
    "in half precision": ({"x": OWN, "y": {"z": [v.half() for v in AVERAGES.values()]}}, ("'x'", "'y/z'")),
    "in an optimiser": ({"x": OWN, "optimizer": optimiser(y=[*AVERAGES.values()])}, ("'optimizer/state/0/y'",)),
    "called an optimiser's": ({"x": OWN, "state": {0: [*AVERAGES.values()]}}, ("'state/0'",)),
    "averages too": ({"x": OWN, "ema": AVERAGES, "y": [*MOVED.values()]}, ("'ema'", "'y'")),
    "an optimiser": ({"x": OWN, "optimizer": optimiser(), "optimizers": [optimiser()]}, ()),
    "the same by other ways": ({"x": OWN, "list": [*OWN.values()], "tree": {k: {"w": v} for k, v in OWN.items()}}, ()),
    "states of random numbers": ({"x": OWN, "random": torch.get_rng_state(), "counts": torch.arange(9999)}, ()),
}


@pytest.mark.parametrize("case", BESIDE)
def test_what_else_may_be_a_network_is_said(case: str, tmp_path: Path, live: Model) -> None:
    content, facts = BESIDE[case]
    model = open_path(save(tmp_path, ".pt", content))
    np.testing.assert_array_equal(model.predict(inputs(4)), live.predict(inputs(4)))
    assert bool(model.notes) == bool(facts)
    if facts:
        expect_facts("; ".join(model.notes), *facts)


# Of an object that a file makes, in the words of pickle: what may be planted in it.
_MADE = b"c%s\n)\x81"
_STATE = b"}X\x0c\x00\x00\x00__setstate__ctorch._utils\n_rebuild_tensor_v2\ns"
PLANTED = {
    "a state": b"%sb" % _STATE,
    "a state, used": b"%sbX\x01\x00\x00\x00xb" % _STATE,
    "a state of slots": b"N%s\x86b" % _STATE,
    "a state of slots, used": b"N%s\x86bX\x01\x00\x00\x00xb" % _STATE,
}
INTO = {
    "an item": b"X\x01\x00\x00\x00aK\x01s",
    "items": b"(X\x01\x00\x00\x00aK\x01u",
    "a part": b"K\x01a",
    "parts": b"(K\x01e",
}


def pickled_as(path: Path, data: bytes) -> Path:
    """A file of ``torch.save`` whose pickle holds weights and, under "args", what the bytes make."""
    torch.save({"x": OWN, "args": 3}, path)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    [name] = [name for name in entries if name.endswith("data.pkl")]
    number = b"K\x03"
    before, found, after = entries[name].rpartition(number)
    assert found
    entries[name] = before + data + after
    with zipfile.ZipFile(path, "w") as archive:
        for entry, content in entries.items():
            archive.writestr(entry, content)
    return path


@pytest.mark.parametrize("kind", [b"argparse\nNamespace", b"pathlib\nPosixPath", b"numpy\nndarray"])
def test_nothing_can_be_planted_in_what_is_passed_over(kind: bytes, tmp_path: Path, live: Model) -> None:
    for what in PLANTED.values():
        model = open_path(pickled_as(tmp_path / "m.pt", _MADE % kind + what))
        np.testing.assert_array_equal(model.predict(inputs(2)), live.predict(inputs(2)))
    for what in INTO.values():
        with refused(ModelError, tmp_path / "m.pt"):
            open_path(pickled_as(tmp_path / "m.pt", _MADE % kind + what))
    # As the key of a dict.
    open_path(pickled_as(tmp_path / "m.pt", b"}" + _MADE % kind + b"K\x01s"))


def test_a_factory_may_give_the_same_module_twice(tmp_path: Path, live: Model) -> None:
    first = open_path(save(tmp_path, ".pt"), "user.nets:shared")
    open_path(save(tmp_path, ".pth", torch_module(2).state_dict()), "user.nets:shared")
    same(first, live)


def test_the_path_is_left_as_it_was(tmp_path: Path) -> None:
    before = list(sys.path)
    open_path(save(tmp_path, ".pt"))
    assert sys.path == before
    assert Path(sys.modules["user.nets"].STARTS) == tmp_path


class Whole(nn.Module):
    pass


def broken_sparse(path: Path) -> None:
    # An index beyond the end: harmless to load, not to use.
    tensor = torch.sparse_coo_tensor(torch.tensor([[9]]), torch.ones(1), (3,), check_invariants=False)
    torch.save({"a": tensor}, path)


def test_bad_files_are_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    good = save(tmp_path, ".pt").read_bytes()
    tensors = save(tmp_path, ".safetensors").read_bytes()
    old = save(tmp_path, ".pth", _use_new_zipfile_serialization=False).read_bytes()
    bad = {
        "empty.pt": (b"", ("empty",)),
        "text.pth": (b"not a model at all", ("format",)),
        "cut.pt": (good[: len(good) // 2], ("truncated",)),
        "cut-old.pth": (old[: len(old) // 2], ("state dict",)),
        "cut.safetensors": (tensors[: len(tensors) // 2], ("state dict", torch.__version__)),
        "none.safetensors": (good, ("safetensors", "torch.save")),
        "tensors.pt": (tensors[:40], ("state dict", torch.__version__)),
    }
    for name, (data, _) in bad.items():
        (tmp_path / name).write_bytes(data)
    torch.save(Whole(), tmp_path / "whole.pt")
    torch.save([1], tmp_path / "list.pt")
    torch.save({"epoch": 3, "model": 5}, tmp_path / "other.pt")
    torch.save({}, tmp_path / "nothing.pt")
    broken_sparse(tmp_path / "sparse.pt")
    (tmp_path / "folder.pt").mkdir()
    cases = {name: facts for name, (_, facts) in bad.items()} | {
        "whole.pt": ("state dict", "more than weights", "Whole"),
        "list.pt": ("state dict", "list"),
        "other.pt": ("epoch (int), model (int)",),
        "nothing.pt": ("nothing",),
        "sparse.pt": ("state dict", torch.__version__),
        "folder.pt": ("config.json",),
        "missing.pt": (os.strerror(errno.ENOENT),),
    }
    for name, facts in cases.items():
        with refused(ModelError, f"{tmp_path / name}: ", *facts):
            open_path(tmp_path / name)
    assert capfd.readouterr() == ("", "")


# What a weight may be, by what the network has: of another precision, and a counter or mask of whole numbers.
@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    ("key", "dtype", "fits"),
    [
        ("1.weight", "float16", True),
        ("1.weight", "bfloat16", True),
        ("1.weight", "float64", True),
        ("1.weight", "complex64", False),
        ("1.weight", "float8_e4m3fn", False),
        ("1.weight", "int8", False),
        ("1.weight", "int64", False),
        ("1.weight", "bool", False),
        ("2.num_batches_tracked", "float32", True),
        ("2.num_batches_tracked", "int32", True),
        ("2.num_batches_tracked", "complex64", False),
        ("2.running_mean", "int64", False),
    ],
)
def test_weights_are_not_cast_in_silence(
    key: str, dtype: str, fits: bool, ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(name: str = "", arch: str = "") -> Any:
        torch.manual_seed(0)
        parts = (nn.Flatten(), nn.Linear(12, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3))
        return nn.Sequential(*parts).eval()

    monkeypatch.setattr("deepjudge_torch.state_dict.make_module", make)
    state, path = make().state_dict(), tmp_path / f"w{ending}"
    state[key] = state[key].to(getattr(torch, dtype))
    (safetensors.torch.save_file if ending == ".safetensors" else torch.save)(state, path)
    options = {"arch": "nets:make", "input_shape": (12,)}
    if fits:
        x = np.random.default_rng(0).normal(size=(5, 12)).astype(np.float32)
        expected = ADAPTER.open(make(), input_shape=(12,)).predict(x)
        np.testing.assert_allclose(ADAPTER.open(path, **options).predict(x), expected, atol=1e-2)
    else:
        with refused(ModelError, path, key, dtype, str(make().state_dict()[key].dtype).removeprefix("torch.")):
            ADAPTER.open(path, **options)


def test_complex_weights_of_a_network_that_has_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Waves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.waves = nn.Parameter(torch.randn(12, 8, dtype=torch.complex64))
            self.act, self.last = nn.Tanh(), nn.Linear(8, 3)

        def forward(self, x: Any) -> Any:
            return self.last(self.act(x.to(torch.complex64) @ self.waves).abs())

    monkeypatch.setattr("deepjudge_torch.state_dict.make_module", lambda name, arch: Waves())
    torch.save(Waves().state_dict(), tmp_path / "w.pth")
    x = np.random.default_rng(0).normal(size=(5, 12)).astype(np.float32)
    model = ADAPTER.open(tmp_path / "w.pth", arch="nets:Waves", input_shape=(12,))
    assert list(model.layers.values()) == [3]  # its complex activations are no tap
    with torch.no_grad():
        expected = Waves()(torch.tensor(x)).softmax(1).numpy()
    np.testing.assert_allclose(model.predict(x), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("arch", "kind", "facts"),
    [
        (
            None,
            ModelError,
            ("arch='file.py:function'",),
        ),
        ("user.nets", UsageError, ("module:function", "'user.nets'")),
        ("user/nets.py:Nest", ModelError, ("user/nets.py:Nest", "AttributeError: module")),
        ("user/none.py:Net", ModelError, ("user/none.py:Net", "none.py")),
        ("nowhere:Net", ModelError, ("nowhere:Net", "ModuleNotFoundError: No module")),
        (
            "user.nets:Nest",
            ModelError,
            ("user.nets:Nest", "AttributeError: module"),
        ),
        (
            "user.nets:broken",
            ModelError,
            ("user.nets:broken", "RuntimeError: first line"),
        ),
        ("user.nets:nothing", ModelError, ("user.nets:nothing", "torch.nn.Module", "int")),
        ("user.nets:Net", ModelError, ("input_shape=(1, 28, 28)", "user.nets:Net")),
        (
            "user.nets:smaller",
            ModelError,
            (
                "user.nets:smaller",
                "missing: a.weight, b.weight, c.weight and 1 more",
                "unexpected: conv1.weight, conv1.bias",
                "dense2.weight (5, 10) for (4, 10), dense2.bias (5) for (4)",
            ),
        ),
    ],
)
def test_bad_networks_are_one_line(
    arch: str | None, kind: type[DeepJudgeError], facts: tuple[str, ...], tmp_path: Path
) -> None:
    path = save(tmp_path, ".pth")
    with refused(kind, f"{path}: ", *facts, code="wrong-value" if kind is UsageError else None):
        open_path(path, arch)


def test_a_shape_that_does_not_fit_is_one_line(tmp_path: Path) -> None:
    with refused(ModelError, "(3, 9, 20)"):
        open_path(save(tmp_path, ".pth"), input_shape=(3, 9, 20))


@pytest.mark.parametrize("suffix", [".pt2", ".pt"])
def test_a_model_that_brings_its_network_needs_none(suffix: str, tmp_path: Path) -> None:
    module, example = torch_module(0), torch.zeros(2, *SHAPE)
    path = tmp_path / f"whole{suffix}"
    if suffix == ".pt2":
        torch.export.save(torch.export.export(module, (example,)), path)
    else:
        with warnings.catch_warnings():  # TorchScript is deprecated, and says so
            warnings.simplefilter("ignore", DeprecationWarning)
            torch.jit.save(torch.jit.trace(module, example), path)
    with pytest.raises(ModelError) as caught:
        open_model(path, arch="models:architecture")
    expect_facts(str(caught.value), f"{path}: ", "models:architecture")
