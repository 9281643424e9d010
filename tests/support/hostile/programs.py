"""PyTorch files by people who mean harm: weights, programs of torch.export, TorchScript."""

import functools
import io
import itertools
import json
import os
import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import nn

from hostile.ground import CLASSES, FEATURES, SECRET, Case, Place
from hostile.plain import ESCAPES, WEIGHTS, Payload, header

Entries = dict[str, bytes]

# What makes the network of a state dict; imported by the worker from the current directory.
ARCH = "hostile_networks:Net"
ARCH_SOURCE = f"""
import torch
class Net(torch.nn.Module):
    input_shape = ({FEATURES},)
    def __init__(self):
        super().__init__()
        self.dense = torch.nn.Linear({FEATURES}, {CLASSES})
    def forward(self, x):
        return self.dense(x)
"""


def saved(value: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


# ---- weights


def state(**changes: Any) -> dict[str, Any]:
    rng = np.random.default_rng(2)
    kernel = torch.from_numpy(rng.normal(size=(CLASSES, FEATURES)).astype(np.float32))
    return {"dense.weight": kernel, "dense.bias": torch.zeros(CLASSES)} | changes


def weights(old: bool = False, **changes: Any) -> Callable[[Place], object]:
    """A state dict with something else in it; where that is a function, it is given where it is."""

    def make(place: Place) -> None:
        given = {name: change(place) if callable(change) else change for name, change in changes.items()}
        place.path.write_bytes(saved(state(**given), _use_new_zipfile_serialization=not old))

    return make


def payload(place: Place) -> Payload:
    return Payload(place.marker)


def out_of_range() -> Any:
    return torch.sparse_coo_tensor(
        torch.tensor([[2**40]]), torch.ones(1), (CLASSES,), check_invariants=False, is_coalesced=True
    )


def cyclic(place: Place) -> None:
    found: dict[str, Any] = {}
    found["model"] = found["state_dict"] = found
    place.path.write_bytes(saved(found))


def beside(place: Place) -> Path:
    """The file that an index names."""
    return place.path.with_name(place.path.name.replace(".index.json", "").replace(".", "-00001-of-00002.", 1))


def sharded(make: Callable[[Place], object]) -> Callable[[Place], object]:
    """An index of two files, of which the first is made so."""

    def make_all(place: Place) -> None:
        first = beside(place)
        second = first.with_name(first.name.replace("00001-of", "00002-of"))
        where = {"dense.weight": first.name, "dense.bias": second.name}
        place.path.write_text(json.dumps({"weight_map": where}))
        bias = {"dense.bias": torch.zeros(CLASSES)}
        second.write_bytes(saved(bias) if second.suffix == ".bin" else safetensors.torch.save(bias))
        make(place)

    return make_all


def honest_shard(place: Place) -> None:
    beside(place).write_bytes(saved({"dense.weight": state()["dense.weight"]}))


def linked(place: Place) -> None:
    place.canary.write_bytes(SECRET)
    beside(place).symlink_to(place.canary)


def hard_linked(place: Place) -> None:
    place.canary.write_bytes(SECRET)
    beside(place).hardlink_to(place.canary)


MORE = "found a damaged file, or one that holds more than weights"
DENSE = "expected a state dict of dense tensors, found "

STATES = {
    "a payload": Case("m.pt", weights(x=payload), "cannot-open", MORE),
    "a payload, in the old way": Case("m.pth", weights(True, x=payload), "cannot-open", MORE),
    "a module": Case("m.pt", lambda place: place.path.write_bytes(saved(nn.Linear(4, 3))), "cannot-open", MORE),
    "a terabyte in four bytes": Case(
        "m.pt", weights(x=torch.zeros(1).expand(2**20, 2**20)), "cannot-open", f"{DENSE}1099511627776 numbers"
    ),
    "sparse, out of range": Case("m.pt", weights(**{"dense.bias": out_of_range()}), "cannot-open", "cannot load"),
    "cyclic": Case("m.pt", cyclic, "cannot-open", "found a dict of model (dict), state_dict (dict)"),
    "escapes in names": Case("m.pt", weights(**{f"{ESCAPES}\u202e": torch.zeros(1)}), "cannot-open", "unexpected"),
    "NaN in weights": Case("m.pt", weights(**{"dense.bias": torch.full((3,), torch.nan)}), "bad-answer", "NaN"),
    "a tensor of nothing": Case(
        "m.safetensors",
        lambda place: place.path.write_bytes(
            header(b'{"dense.weight":{"dtype":"F32","shape":[1099511627776,3],"data_offsets":[0,48]}}') + bytes(48)
        ),
        "cannot-open",
        "",
    ),
    "other weights": Case("m.safetensors", lambda place: place.path.write_bytes(WEIGHTS), "cannot-open", "missing"),
    "an index of files that are not there": Case(
        "model.safetensors.index.json", sharded(lambda place: None), "cannot-open", ""
    ),
    "an index of a link": Case("model.safetensors.index.json", sharded(linked), "not-a-file", "found a symbolic link"),
    "an index of a hard link": Case(
        "model.safetensors.index.json", sharded(hard_linked), "not-a-file", "found a hard link"
    ),
    "an index of a pipe": Case(
        "model.safetensors.index.json", sharded(lambda place: os.mkfifo(beside(place))), "not-a-file", "found a pipe"
    ),
    "an index of a payload": Case(
        "pytorch_model.bin.index.json",
        sharded(lambda place: beside(place).write_bytes(saved({"dense.weight": Payload(place.marker)}))),
        "cannot-open",
        MORE,
    ),
    "an index of other weights": Case(
        "model.safetensors.index.json",
        sharded(lambda place: beside(place).write_bytes(WEIGHTS + bytes(4))),
        "cannot-open",
        "",
    ),
    "honest weights in two files": Case("pytorch_model.bin.index.json", sharded(honest_shard)),
    "honest weights beside their averages": Case(
        "m.ckpt",
        lambda place: place.path.write_bytes(
            saved({"net": state(), "ema": state(**{"dense.bias": torch.ones(CLASSES)})})
        ),
        words="not the averages of 'ema'",
    ),
    "honest weights": Case("m.pt", weights()),
    "honest weights, in the old way": Case("m.pth", weights(True)),
}


# ---- programs


@functools.cache
def program() -> Entries:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(FEATURES, 6), nn.ReLU(), nn.Linear(6, CLASSES)).eval()
    rows = ({0: torch.export.Dim("rows", min=1)},)
    buffer = io.BytesIO()
    torch.export.save(torch.export.export(network, (torch.zeros(2, FEATURES),), dynamic_shapes=rows), buffer)
    with zipfile.ZipFile(buffer) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def changed(change: Callable[[Entries, Place], object]) -> Callable[[Place], object]:
    def make(place: Place) -> None:
        entries = dict(program())
        change(entries, place)
        with zipfile.ZipFile(place.path, "w") as archive:
            for name, data in entries.items():
                archive.writestr(name, data)

    return make


def entry(entries: Entries, end: str) -> str:
    return next(name for name in entries if name.endswith(end))


def replaced(old: str, new: Callable[[Place], str]) -> Callable[[Place], object]:
    def change(entries: Entries, place: Place) -> None:
        name = entry(entries, "models/model.json")
        text = entries[name].decode()
        assert old in text
        entries[name] = text.replace(old, new(place)).encode()

    return changed(change)


def pickled_weights(entries: Entries, place: Place) -> None:
    name = entry(entries, "model_weights_config.json")
    config = json.loads(entries[name])
    first = next(iter(config["config"].values()))
    first["use_pickle"] = True
    entries[name] = json.dumps(config).encode()
    entries[entry(entries, first["path_name"])] = saved(Payload(place.marker))


def constants(kind: str, dump: Callable[[Any], bytes] = saved) -> Callable[[Place], object]:
    def change(entries: Entries, place: Place) -> None:
        name = entry(entries, "model_constants_config.json")
        config = {"x": {"path_name": f"{kind}_0", "is_param": False, "use_pickle": True, "tensor_meta": None}}
        entries[name] = json.dumps({"config": config}).encode()
        entries[name.replace("model_constants_config.json", f"{kind}_0")] = dump(Payload(place.marker))

    return changed(change)


def sample_inputs(entries: Entries, place: Place) -> None:
    entries[entry(entries, "sample_inputs/model.pt")] = saved((Payload(place.marker),))


def library(entries: Entries, place: Place) -> None:
    root = entry(entries, "models/model.json").replace("models/model.json", "")
    entries[f"{root}data/aotinductor/model/model.so"] = b"\x7fELF" + bytes(64)


NOT_PLAIN = "expected a torch.export file with tensors and torch's own operations, found "
CALL = "__import__('os').mkdir('{}')"

PROGRAMS = {
    "pickled sample inputs": Case("m.pt2", changed(sample_inputs), "cannot-open", f"{NOT_PLAIN}pickled sample inputs"),
    "pickled weights": Case("m.pt2", changed(pickled_weights), "cannot-open", f"{NOT_PLAIN}the pickled object"),
    "a pickled constant": Case("m.pt2", constants("tensor"), "cannot-open", f"{NOT_PLAIN}the pickled object"),
    "an opaque constant": Case("m.pt2", constants("opaque_obj", pickle.dumps), "cannot-open", f"{NOT_PLAIN}the entry"),
    "a custom object": Case("m.pt2", constants("custom_obj"), "cannot-open", f"{NOT_PLAIN}the entry"),
    "an expression": Case(
        "m.pt2",
        replaced('"expr_str": "', lambda place: f'"expr_str": "{CALL.format(place.marker)} or '),
        "cannot-open",
        f"{NOT_PLAIN}the expression",
    ),
    "a library": Case("m.pt2", changed(library), "cannot-open", f"{NOT_PLAIN}the entry"),
    "an operation that loads": Case(
        "m.pt",
        replaced("torch.ops.aten.relu.default", lambda _: "torch.ops.load_library"),
        "cannot-open",
        "load_library",
    ),
    "an operation that reads": Case(
        "m.pt2", replaced("aten.relu.default", lambda _: "aten.from_file.default"), "cannot-open", "from_file"
    ),
    "an honest program": Case("m.pt2", changed(lambda entries, place: None)),
}


# ---- TorchScript


_NUMBERS = itertools.count()


def script(*forward: str, loading: str = "") -> Callable[[Place], object]:
    """A model of one layer, ``y``, whose code has more in it: of the marker, ``{marker}``, and ``{canary}``."""

    def make(place: Place) -> None:
        place.canary.write_bytes(SECRET)
        names = {"marker": str(place.marker), "canary": str(place.canary)}
        module: Any = nn.Module()
        # Of modules with equal constants only one can have its own code.
        module.number, module.__constants__ = next(_NUMBERS), ["number"]
        module.w = nn.Parameter(state()["dense.weight"].T.contiguous())
        lines = ["def forward(self, x: Tensor) -> Tensor:", "y = x @ self.w", *forward, "return y"]
        code = [
            "def __getstate__(self) -> Tuple[Tensor, bool]:\n    return (self.w, self.training)\n",
            "def __setstate__(self, state: Tuple[Tensor, bool]) -> None:\n    self.w = state[0]\n"
            f"    self.training = state[1]\n    {loading}\n",
        ]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            made = torch.jit.script(module)
            made.define("\n    ".join(lines).format(**names) + "\n")
            for text in code if loading else []:
                made.define(text.format(**names))
            torch.jit.save(made, place.path)

    return make


ENDLESS = ("while True:", "    y = torch.sin(y)")
VAST = "[1099511627776]"
MUCH = "a" * 1000

# torch does not say that it could not write.
SCRIPTS = {
    "writes while loading": Case("m.pt", script(loading="torch.save(state[0], '{marker}')")),
    "reads while loading": Case(
        "m.pt", script(loading="self.w = state[0] + torch.from_file('{canary}', False, 3)"), "cannot-open", ""
    ),
    "writes when it is called": Case("m.pt", script("torch.save(x, '{marker}')")),
    "reads when it is called": Case("m.pt", script("y = y + torch.from_file('{canary}', False, 3)"), "cannot-open", ""),
    "crashes": Case(
        "m.pt",
        script(f"y = y + torch.segment_reduce(y, 'sum', lengths=torch.tensor({VAST}), axis=0, unsafe=True)"),
        "crashed",
        "its process was ended by SIGSEGV",
    ),
    "exhausts memory": Case("m.pt", script(f"y = y + torch.zeros([1]).expand({VAST}).clone().sum()"), "out-of-memory"),
    "raises": Case("m.pt", script(f"if bool(x.sum() > -1):\n        raise Exception('{ESCAPES}')"), "cannot-open", ""),
    "says megabytes": Case("m.pt", script("for i in range(5000):", f"    print('{MUCH}')")),
    "an honest script": Case("m.pt", script()),
}

HANGING = {
    "never answers": Case("m.pt", script(*ENDLESS), "timed-out", "expected an answer within"),
}


def install_network(folder: Path) -> None:
    """Put the user's own network where the command looks for it."""
    (folder / "hostile_networks.py").write_text(ARCH_SOURCE)
