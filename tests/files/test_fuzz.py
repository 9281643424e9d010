"""Files that the other side may have made: whatever is in them, one line is said of it, and memory stays below a cap.

Each test damages valid files at random, 60 times: half a minute for all. By hand, ``DEEPJUDGE_FUZZ=20000 pytest
tests/files/test_fuzz.py`` does so 20000 times in each test, which takes an hour or more.
"""

import contextlib
import copy
import io
import json
import os
import re
import resource
import socket
import stat
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toys
from commands import HOW, MADE, install_toys
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from deepjudge_core import load_inputs, load_suite, save_calibration, save_observation, save_suite
from deepjudge_core.cli import main as cli_main
from deepjudge_core.cli.commands import audit
from deepjudge_core.cli.commands import suite as suite_command
from deepjudge_core.errors import DeepJudgeError, ModelError
from deepjudge_core.files import storage
from deepjudge_core.files.reading import LARGEST_JSON
from deepjudge_core.suites.inputs import holds, load_training_inputs
from deepjudge_core.text import clean
from deepjudge_core.zoo.manifest import load_zoo

pytestmark = pytest.mark.slow
EXAMPLES = int(os.environ.get("DEEPJUDGE_FUZZ", "60"))
FUZZ = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
CAP = 2**29  # bytes of memory beyond what there was before

AUDIT = """
output = "out"
match = "neurons"
metrics = ["answers", "surety"]
victim = { path = "victim.toy" }
[inputs]
path = "in.npz"
scale = 1.0
bounds = [0.0, 1.0]
[suite]
seeds = 20
layers = ["dense1", "logits"]
[generators.shove]
eps = 0.5
[rule]
name = "nearest"
options = { share = 0.5, alpha = { answers = 0.9 } }
[[controls]]
path = "controls"
[[suspects]]
path = "copy.toy"
classes = [0, 1, 2, 3]
input = { scale = 2.0, mean = [0.5] }
layers = { dense1 = "dense1" }
"""
ZOO = {
    "schema": "deepjudge/zoo/1",
    "deepjudge": "0.1.0",
    "victim": {"path": "victim.toy", "framework": "numpy", "digest": "0" * 64, "classes": 4, "accuracy": 0.9},
    "settings": {"seed": 0, "material": "0" * 64, "auxiliary": None, "suite": None},
    "models": [
        {
            "file": f"controls/c{seed}.toy",
            "kind": kind,
            "stratum": "same-data",
            "attack": attack,
            "options": {"epochs": 3},
            "seed": seed,
            "accuracy": 0.9,
            "far": False,
            "digest": "0" * 64,
            "weights": "0" * 64,
            "seconds": 1.5,
        }
        for seed, (kind, attack) in enumerate([("control", None), ("stolen", "tune")])
    ],
    "missing": [{"name": "x", "reason": "it failed", "failed": True}],
}


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with valid files of each kind, in which commands are run; and a cap on memory."""
    folder = tmp_path_factory.mktemp("fuzz")
    with pytest.MonkeyPatch.context() as patch, contextlib.chdir(folder):
        patch.syspath_prepend(folder)
        install_toys(folder)
        save_suite(Path("suite.safetensors"), toys.suite())
        save_observation(Path("observation.safetensors"), toys.seen(0, 0.05))
        save_calibration(Path("calibration.safetensors"), toys.calibration())
        toys.save_model(Path("victim.toy"))
        toys.save_model(Path("copy.toy"), noise=0.05)
        Path("controls").mkdir()
        toys.save_model(Path("controls/c1.toy"), seed=1)
        x, y = toys.make_inputs(toys.make_model())
        np.savez("in.npz", x=x, y=y)
        np.savez_compressed("packed.npz", x_test=x, y_test=y, x_train=x)
        Path("zoo.json").write_text(json.dumps(ZOO))
        assert command("judge", *JUDGED, *HOW, "--json", "report.json")[0] == 1
        Path("audit.toml").write_text(AUDIT)
        assert command("audit", "audit.toml")[0] == 3
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        yield folder
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown * (1 if sys.platform == "darwin" else 1024) < CAP


def command(*arguments: str) -> tuple[int, str]:
    """The exit status of a command, and its one line where it fails."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = cli_main.main(arguments)
    said = out.getvalue() + err.getvalue()
    assert "internal error" not in said, said
    assert all(c.isprintable() or c == "\n" for c in said), said
    assert status in (0, 1, 2, 3, 4)
    if status in (2, 4) and not out.getvalue():
        *_, line = err.getvalue().splitlines()
        assert line.startswith("deepjudge: "), said
        return status, line
    return status, ""


JUDGED = ("suite.safetensors", "observation.safetensors", "--stored", "--calibration", "calibration.safetensors")
KINDS = ("suite", "observation", "calibration")


def refused_or_read(read: Callable[..., Any], *arguments: Any) -> Any:
    """What is read; None of what is refused as it should be, in one line."""
    try:
        return read(*arguments)
    except DeepJudgeError as error:
        assert all(map(str.isprintable, str(error)))  # noqa: PT017
        return None


# Damages.


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """Bytes of which some were changed, left out, put in, repeated or cut off."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        # Much of what is of interest stands at the beginning and at the end.
        place = draw(st.integers(0, len(data)) | st.integers(0, 200) | st.integers(0, 100).map(lambda n: len(data) - n))
        place = min(max(place, 0), len(data))
        end = min(place + draw(st.integers(1, 8)), len(data))
        match draw(st.sampled_from(["flip", "put", "insert", "delete", "repeat", "cut"])):
            case "flip" if place < len(data):
                data[place] ^= 1 << draw(st.integers(0, 7))
            case "put":
                data[place:end] = draw(st.binary(min_size=end - place, max_size=end - place))
            case "insert":
                data[place:place] = draw(st.binary(max_size=8) | st.sampled_from([b"\0" * 8, b"\xff" * 8, b"[" * 50]))
            case "delete":
                del data[place:end]
            case "repeat":
                data[place:place] = data[place : place + draw(st.integers(1, 400))]
            case "cut":
                del data[place:]
    return bytes(data)


ODD = st.sampled_from(
    [
        None,
        True,
        0,
        -1,
        2**31,
        2**63,
        10**39,
        0.5,
        -1e308,
        1e308,
        "",
        "nan",
        "\x1b[2J\u202e\ud800\0",
        "a" * 5000,
        "../../x",
        [],
        {},
        [[]],
        [1, "a"],
        {"a": {"b": [None]}},
    ]
)
JSON = st.recursive(ODD, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner))


def _keys(value: Any) -> list[Any]:
    return list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []


@st.composite
def changed(draw: st.DrawFn, value: Any) -> Any:
    """JSON values of which some are others, gone, twice, or have another key."""
    value = json.loads(json.dumps(value))
    for _ in range(draw(st.integers(1, 3))):
        outer, keys = value, _keys(value)
        if not keys:
            break
        key = draw(st.sampled_from(keys))
        # Step by step, so that long lists do not take all.
        while _keys(outer[key]) and draw(st.integers(0, 3)):
            outer = outer[key]
            key = draw(st.sampled_from(_keys(outer)))
        match draw(st.sampled_from(["replace", "replace", "delete", "repeat", "rename"])):
            case "replace":
                outer[key] = copy.deepcopy(draw(JSON))  # of what is shared, and would be changed
            case "delete":
                del outer[key]
            case "repeat" if isinstance(outer, list):
                outer.append(copy.deepcopy(outer[key]))
            case "rename" if isinstance(outer, dict):
                outer[draw(st.text(max_size=5))] = outer.pop(key)
    return value


@st.composite
def rearranged(draw: st.DrawFn, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Arrays of which one is gone, or has other numbers, another shape or another type."""
    arrays = dict(arrays)
    name = draw(st.sampled_from(sorted(arrays)))
    array = arrays.pop(name)
    kind = draw(st.sampled_from(["drop", "none", "flat", "less", "type", "value", "value", "scale", "new", "point"]))
    if kind == "drop":
        return arrays
    with np.errstate(all="ignore"):
        if kind == "none":
            array = array[:0]
        elif kind == "flat":
            array = array.reshape(-1)
        elif kind == "less":
            array = array[1:]
        elif kind == "type":
            array = array.astype(
                draw(st.sampled_from([np.float64, np.float16, np.int8, np.uint64, np.bool_, np.int64]))
            )
        elif kind == "scale":
            array = (array * np.array(draw(st.sampled_from([-1, 0, 1e30])))).astype(array.dtype)
        elif kind == "value":
            array = array.copy()
            array.reshape(-1)[draw(st.integers(0, array.size - 1))] = draw(st.sampled_from([-1, 0, 5, 2**31 - 1]))
            if array.dtype.kind == "f":
                array.reshape(-1)[0] = draw(st.sampled_from([np.nan, np.inf, 3e38, -3e38, 1e-45]))
        elif kind == "new":
            array = np.zeros(draw(st.sampled_from([(), (0, 5), (1, 1, 1), (3,)])), array.dtype)
        else:
            array = np.asarray(array.reshape(-1)[0])
    return arrays | {name: array}


def sealed(content: storage.Content, manifest: Any, arrays: dict[str, np.ndarray]) -> bytes:
    """A file of these, by who knows how to write one."""
    with contextlib.suppress(ValueError, DeepJudgeError):
        storage.write(Path("sealed.safetensors"), storage.seal(content.kind, manifest, arrays))
        return Path("sealed.safetensors").read_bytes()
    return b""


# The tool's own files.


@FUZZ
@given(data=st.data(), kind=st.sampled_from(KINDS))
def test_damaged_files(data: st.DataObject, kind: str) -> None:
    path = Path("damaged.safetensors")
    path.write_bytes(data.draw(damaged(Path(f"{kind}.safetensors").read_bytes())))
    status, line = command("show", str(path))
    assert status in (0, 4)
    assert status == 0 or line.startswith(f"deepjudge: {path}: ")
    storage.is_own(path)


@FUZZ
@given(data=st.data(), kind=st.sampled_from(KINDS))
def test_files_that_were_sealed_anew(data: st.DataObject, kind: str) -> None:
    content = storage.read(Path(f"{kind}.safetensors"), KINDS)
    manifest = data.draw(changed(dict(content.header)) | st.just(dict(content.header)))
    arrays = data.draw(rearranged(dict(content.arrays)) | st.just(dict(content.arrays)))
    path = Path("damaged.safetensors")
    path.write_bytes(sealed(content, manifest, arrays))
    status, _ = command("show", str(path))
    assert status in (0, 4)
    judged = [str(path) if name == f"{kind}.safetensors" else name for name in JUDGED]
    if kind == "suite":
        suite = refused_or_read(load_suite, path)
        if suite is not None:  # what was answered to it, by who knows how to write that too
            for place, other in ((1, "observation"), (4, "calibration")):
                answers = storage.read(Path(f"{other}.safetensors"), KINDS)
                anew = json.loads(json.dumps(dict(answers.header)).replace(toys.suite().digest, suite.digest))
                judged[place] = f"to-{other}.safetensors"
                Path(judged[place]).write_bytes(sealed(answers, anew, dict(answers.arrays)))
    command("judge", *judged, *HOW, "--json", "judged.json")


@FUZZ
@given(data=st.data())
def test_other_headers(data: st.DataObject) -> None:
    whole = Path("observation.safetensors").read_bytes()
    length = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + length])
    inner = json.loads(header["__metadata__"]["deepjudge"])
    header["__metadata__"]["deepjudge"] = json.dumps(data.draw(changed(inner) | JSON))
    text = json.dumps(data.draw(changed(header) | JSON)).encode()
    said = data.draw(st.just(len(text)) | st.integers(0, 2**64 - 1) | st.integers(0, len(text) + 9))
    path = Path("damaged.safetensors")
    path.write_bytes(struct.pack("<Q", said) + text + data.draw(st.just(whole[8 + length :]) | st.binary(max_size=99)))
    assert command("show", str(path))[0] in (0, 4)
    storage.is_own(path)


# JSON and TOML.


@FUZZ
@given(data=st.data(), name=st.sampled_from(["report.json", "zoo.json"]))
def test_other_json(data: st.DataObject, name: str) -> None:
    whole = Path(name).read_bytes()
    made = changed(json.loads(whole)).map(lambda value: json.dumps(value).encode())
    Path("damaged.json").write_bytes(data.draw(damaged(whole) | made))
    assert command("show", "damaged.json")[0] in (0, 4)


@FUZZ
@given(data=st.data())
def test_other_zoos(data: st.DataObject) -> None:
    Path("zoo").mkdir(exist_ok=True)
    made = changed(ZOO).map(lambda value: json.dumps(value).encode())
    Path("zoo/zoo.json").write_bytes(data.draw(damaged(json.dumps(ZOO).encode()) | made))
    refused_or_read(load_zoo, Path("zoo"))
    command("power", "suite.safetensors", "zoo", *HOW, "-o", "power")


WORDS = sorted({*re.findall(r"\w+", AUDIT), "x", "y", "training", "groups", "arch", "infer_input", "order", "std"})
VALUES = st.sampled_from(
    [
        *("1", "-1", "0", "0.5", "inf", "nan", "1e400", "true", '""', '"victim.toy"', '"\\u0000"', '"\\u001b[2J"'),
        *("[]", "{}", "[[]]", "1979-05-27", "07:32:00", f"0x{'f' * 5000}", "9" * 400, "9" * 5000, "[" * 99 + "]" * 99),
        *('"""a\n"""', "[\n1,\n2]", "{a = {b = {}}}", '"' + "a" * 3000 + '"', ".".join("a" * 60) + " = 1"),
    ]
)
KEYS = st.lists(st.sampled_from(WORDS), min_size=1, max_size=3).map(".".join)
LINES = st.one_of(
    st.builds("{} = {}".format, KEYS, VALUES),
    KEYS.map("[{}]".format),
    KEYS.map("[[{}]]".format),
    st.sampled_from(AUDIT.split("\n")),
    st.text(max_size=20),
)


@st.composite
def documents(draw: st.DrawFn) -> bytes:
    """Files of audits with lines changed, left out and put in."""
    lines = AUDIT.split("\n")
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(lines) - 1))
        lines[place : place + draw(st.integers(0, 2))] = draw(st.lists(LINES, max_size=2))
    return "\n".join(lines).encode(errors="replace")


@FUZZ
@given(text=documents() | damaged(AUDIT.encode()) | st.lists(LINES).map("\n".join).map(lambda text: text.encode()))
def test_other_audits(text: bytes) -> None:
    Path("damaged.toml").write_bytes(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(audit, "run_plan", lambda plan, registry: 0)  # no model is run
        status, line = command("audit", "damaged.toml")
    assert status in (0, 2, 4)
    assert status == 0 or line.startswith("deepjudge: damaged.toml")


# Inputs.

DTYPES = st.sampled_from(
    ["<f4", "<i8", "|u1", "|O", "<U3", "|V8", ">f8", "|S0", "<c8", "f4,f4", "(9,)<f4", "|b1", "zz"]
)
SHAPES = st.lists(st.sampled_from([0, 1, 2, 12, 60, -1, 10**6, 2**31, 2**62, 10**30, True, None, "a"]), max_size=4)
HEADERS = st.one_of(
    st.builds(
        lambda descr, order, shape: repr({"descr": descr, "fortran_order": order, "shape": tuple(shape)}),
        DTYPES,
        st.booleans() | st.none(),
        SHAPES,
    ),
    st.just("{'descr': '<f4', 'fortran_order': False, 'shape': (60, 12), }"),
    st.sampled_from(["(" * 900, "-" * 900 + "1", "[" * 9000, "{}", "9" * 5000, "1L", "'\\d'", "__import__('os')", ""]),
    st.text(max_size=50),
)


@st.composite
def members(draw: st.DrawFn) -> bytes:
    """An array as numpy writes it, with another header or other numbers."""
    header = draw(HEADERS).encode("latin-1", "replace") + b"\n"
    version = draw(st.sampled_from([(1, 0), (1, 0), (2, 0), (3, 0), (9, 9)]))
    length = struct.pack("<H" if version == (1, 0) else "<I", draw(st.just(len(header)) | st.integers(0, 2**16 - 1)))
    numbers = draw(st.binary(max_size=50) | st.sampled_from([bytes(2880), bytes(5760), bytes(60), b""]))
    return b"\x93NUMPY" + bytes(version) + length + header + numbers


@st.composite
def archives(draw: st.DrawFn) -> bytes:
    """Zip files whose entries may be anything, with checksums that are right and sizes that may not be."""
    made = io.BytesIO()
    arrays = [*zipfile.ZipFile("packed.npz").namelist(), "x.npy", "y.npy", "x", "../x.npy", "\x1b.npy"]
    with zipfile.ZipFile(made, "w") as archive, contextlib.suppress(UserWarning):  # of a name twice
        for _ in range(draw(st.integers(0, 4))):
            method = draw(st.sampled_from([0, 8, 12, 14]))
            entry = zipfile.ZipInfo(draw(st.sampled_from(arrays)))
            with zipfile.ZipFile("in.npz") as valid:
                whole = valid.read(draw(st.sampled_from(valid.namelist())))
            archive.writestr(entry, draw(members() | damaged(whole) | st.just(whole)), method)
    data = bytearray(made.getvalue())
    for found in list(re.finditer(rb"PK\x01\x02|PK\x03\x04", data)):
        if draw(st.integers(0, 4)) == 0:
            central = found[0] == b"PK\x01\x02"
            place = found.start() + draw(st.sampled_from([8, 10, 20, 24] if central else [6, 8, 18, 22]))
            data[place : place + 2] = draw(st.sampled_from([b"\0\0", b"\1\0", b"\x08\0", b"\xff\xff"]))
    return bytes(data)


@FUZZ
@given(data=st.data(), name=st.sampled_from(["in.npz", "packed.npz"]))
def test_other_inputs(data: st.DataObject, name: str) -> None:
    path = Path("damaged.npz")
    path.write_bytes(data.draw(archives() | archives() | damaged(Path(name).read_bytes())))
    refused_or_read(load_inputs, path)
    refused_or_read(holds, path, ["x"])
    refused_or_read(load_training_inputs, str(path))

    def stop(*_: object, **__: object) -> None:
        raise ModelError("stopped")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(suite_command, "make_suite", stop)  # no model is run
        status, line = command("suite", "victim.toy", "--inputs", str(path), *MADE, "-o", "made.safetensors")
    assert status == 4
    assert line.startswith(("deepjudge: damaged.npz", "deepjudge: stopped"))


@FUZZ
@given(text=st.text(max_size=300), longest=st.integers(1, 250))
def test_texts(text: str, longest: int) -> None:
    found = clean(text, longest)
    assert len(found) <= longest
    assert found.isprintable()
    assert clean(found, longest) == found
    assert DeepJudgeError(text).args[0].isprintable()


# What is small and wants to be large, and what is no file: in a process that has no more memory.


def header(text: bytes, size: int = 0) -> bytes:
    return struct.pack("<Q", len(text)) + text + bytes(size)


def own(manifest: str) -> bytes:
    return header(json.dumps({"__metadata__": {"deepjudge": manifest}}).encode())


def bomb(name: str, size: int) -> bytes:
    """An archive of an array of zeros, a two-hundredth of its size."""
    made = io.BytesIO()
    with (
        zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open(f"{name}.npy", "w") as file,
    ):
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (size // 4, 1)})
        for _ in range(size // 2**20):
            file.write(bytes(2**20))
    return made.getvalue()


def promising(size: int) -> bytes:
    """An archive whose entry says that it is as large as its array says."""
    made = io.BytesIO()
    start = io.BytesIO()
    np.lib.format.write_array_header_1_0(start, {"descr": "<f4", "fortran_order": False, "shape": (size // 4, 1)})
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", start.getvalue())
        archive.writestr("y.npy", start.getvalue())
    data, whole = made.getvalue(), len(start.getvalue()) + size
    small = struct.pack("<I", len(start.getvalue()))
    return data.replace(small, struct.pack("<I", whole)) if whole < 2**32 else data


def crowded(entries: int) -> bytes:
    """An archive of nothing but a list of entries."""
    one = b"PK\x01\x02" + bytes(24) + struct.pack("<H", 5) + bytes(16) + b"x.npy"
    listed = one * entries
    count = struct.pack("<HH", entries & 0xFFFF, entries & 0xFFFF)
    return b"PK\x03\x04" + listed + b"PK\x05\x06" + bytes(4) + count + struct.pack("<IIH", len(listed), 4, 0)


BOMBS: dict[str, Callable[[], bytes]] = {
    "lists.safetensors": lambda: own("[" + "[]," * (LARGEST_JSON // 4) + "[]]"),
    "objects.safetensors": lambda: own('[{"a":1}' + ',{"a":1}' * 200_000 + "]"),
    "outer.safetensors": lambda: header(b'{"deepjudge":[' + b"{}," * (LARGEST_JSON // 4) + b"{}]}"),
    "long.safetensors": lambda: header(b" " * 2 * LARGEST_JSON),
    "deep.safetensors": lambda: own("[" * 10**6),
    "number.safetensors": lambda: own("9" * 10**6),
    "infinite.safetensors": lambda: own('{"schema":"deepjudge/suite/1","sha256":"","manifest":{"a":1e999}}'),
    "twice.safetensors": lambda: own('{"schema":"","schema":"deepjudge/suite/1","sha256":"","manifest":{}}'),
    "shape.safetensors": lambda: header(
        b'{"__metadata__":{"deepjudge":"{}"},"x":{"dtype":"F32","shape":[0,9223372036854775807,4],"data_offsets":[0,0]}}'
    ),
    "many.safetensors": lambda: save({str(n): np.zeros(0) for n in range(100_000)}, metadata={"deepjudge": "{}"}),
    "lists.json": lambda: b"[" + b"[]," * (LARGEST_JSON // 4) + b"[]]",
    "long.json": lambda: b" " * (LARGEST_JSON + 1),
    "deep.json": lambda: b'{"schema":"deepjudge/report/1","a":' + b"[" * 900 + b"]" * 900 + b"}",
    "deep.toml": lambda: b"a = " + b"[" * 50_000,
    "dotted.toml": lambda: b"a." * 60_000 + b"a = 1",
    "long.toml": lambda: b"\n" * 2**18,
    "lines.toml": lambda: b"a = [\n" + b"1,\n" * 30_000 + b"]",
    "mistakes.toml": lambda: b"".join(b"k%d = 1\n" % n for n in range(8_000)),
    "bomb.npz": lambda: bomb("x_train", 2**30),
    "promise.npz": lambda: promising(2**31),
    "smaller.npz": lambda: promising(2**27),
    "crowd.npz": lambda: crowded(300_000),
    "evaluated.npz": lambda: promising(4).replace(b"{'descr", b"-------"),
}
SPECIAL = ("pipe", "socket", "folder", "device", "sparse")

RUN = """
import resource, sys, time
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]),) * 2)
from deepjudge_core.files import storage
from deepjudge_core.suites.inputs import archives
from deepjudge_core.cli.main import main
archives.LARGEST_ARRAYS = storage.LARGEST_ARRAYS = 2**28  # as where there is 1 GiB of memory
for line in sys.stdin.read().splitlines():
    begun = time.process_time()  # its own, whatever else the machine does
    status = main(line.split("\\t"))
    print("", status, time.process_time() - begun, sep="\\t", file=sys.stderr, flush=True)
# Not by getrusage, whose greatest value is taken over from who started this process.
[peak] = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
print("", peak, sep="\\t", file=sys.stderr)
"""


def arguments(name: str) -> list[str]:
    if name.endswith(".npz"):
        training = ["--training-inputs", name] if name == "bomb.npz" else []
        inputs = "in.npz" if training else name
        return ["suite", "victim.toy", "--inputs", inputs, *training, *MADE, "-o", "made.safetensors"]
    return ["audit" if name.endswith(".toml") else "show", name]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere memory has no such limit")
def test_bombs_and_what_is_no_file(folder: Path) -> None:
    for name, make in BOMBS.items():
        (folder / name).write_bytes(make())
    names = list(BOMBS)
    for suffix in (".safetensors", ".json", ".npz", ".toml"):
        for kind in SPECIAL:
            path = folder / f"{kind}{suffix}"
            names.append(path.name)
            if kind == "pipe":
                os.mkfifo(path)
            elif kind == "socket":
                with socket.socket(socket.AF_UNIX) as bound, contextlib.chdir(folder):
                    bound.bind(path.name)
            elif kind == "folder":
                path.mkdir()
            elif kind == "device":
                path.symlink_to("/dev/zero")
            else:
                with path.open("wb") as file:
                    file.truncate(2**36)
    assert stat.S_ISSOCK((folder / "socket.npz").stat().st_mode)
    given = "\n".join("\t".join(arguments(name)) for name in names)
    # What the process needs for itself, with its libraries, and the cap of what a file may need.
    found = subprocess.run(
        [sys.executable, "-c", RUN, str(2**31)],
        input=given,
        capture_output=True,
        text=True,
        check=True,
        timeout=1800,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *sys.path])},
    )
    assert found.stdout == ""
    *lines, peak = found.stderr.splitlines()
    ended = [place for place, line in enumerate(lines) if line.startswith("\t")]
    for name, begin, end in zip(names, [-1, *ended], ended, strict=False):
        said = lines[begin + 1 : end]
        _, status, seconds = lines[end].split("\t")
        assert (status == "2" and name.endswith(".toml")) or status == "4", (name, said)
        assert all(line.startswith("deepjudge: ") and "internal error" not in line for line in said), (name, said)
        assert 0 < len(said) <= (20 if name.endswith(".toml") else 1), (name, said)
        assert float(seconds) < 30, name
    assert len(ended) == len(names)
    assert int(peak) * 1024 < 2**30
