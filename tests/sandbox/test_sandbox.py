"""Models in processes of their own: what is taken in, what passes between the processes, and what an audit makes of it.

What a confined process cannot do is looked at in test_confinement.py; what hostile files come to, in hostile/.
"""

import contextlib
import json
import os
import socket
import stat
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toys
from commands import HOW, MADE, Cli
from conforming import VICTIM
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from models import KINDS, Zoo, inputs
from refusals import expect_facts, refused

from deepjudge_core import Access, Adapter, Format, open_model, save_observation, save_suite
from deepjudge_core.auditing.audit import judge_suspects
from deepjudge_core.auditing.session import Session
from deepjudge_core.auditing.subject import LiveModel, ModelFile, answer_each
from deepjudge_core.components.registry import Registry, load_registry
from deepjudge_core.errors import ModelError, PluginError, UsageError
from deepjudge_core.files import digests
from deepjudge_core.files.digests import file_key
from deepjudge_core.judging.judge import Judge
from deepjudge_core.judging.settings import JudgeSettings
from deepjudge_core.models.info import ModelInfo
from deepjudge_core.models.isolation import Isolation
from deepjudge_core.sandbox import confine, intake, landlock, limits, process, remote, seccomp, starting, worker
from deepjudge_core.sandbox.channel import ArraySpec, Channel, ChannelError, ClosedError, LateError, Message
from deepjudge_core.sandbox.intake import receive
from deepjudge_core.sandbox.policy import Sandbox
from deepjudge_core.sandbox.remote import open_isolated
from deepjudge_core.sandbox.scratch import make_scratch

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="macOS and Windows have no sandbox that is tested")
needs_landlock = pytest.mark.skipif(
    not confine.is_full(),
    reason="this system has no Landlock or no seccomp",
)
QUICK = Sandbox(timeout=300)
FILES = [name for name, kind in KINDS.items() if kind.suffix or name == "keras-saved"]
# Of tier B; onnx-dynamo has its weights in another file.
_SANDBOXED = {"torch-pt2", "torch-script", "keras-saved", "onnx-dynamo", "openvino", "tflite"}
WITHOUT_CODE = [f for f in FILES if f not in _SANDBOXED]


@pytest.fixture
def scratch_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where workers' folders are made; empty when they are gone."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


# What is taken in.


def adapter(**fields: Any) -> Adapter:
    return Adapter("any", (".any", ".more.any"), accepts=lambda source: False, open=lambda source: None, **fields)


def take(path: Path, folder: Path, *, largest: int = 10**6, others: Any = (), **fields: Any) -> Any:
    folder.mkdir()
    return receive(path, "it", adapter(**fields), folder, largest, lambda beside: beside in others)


def expect_refused(path: Path, folder: Path, code: str, *facts: object, **options: Any) -> None:
    with refused(ModelError, *facts, code=code):
        take(path, folder, **options)


def test_a_copy_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "a.any").write_bytes(b"model")
    received = take(tmp_path / "a.any", tmp_path / "copy")
    assert received.path == tmp_path / "copy/a.any"
    assert received.path.read_bytes() == b"model"
    assert stat.S_IMODE(received.path.stat().st_mode) == 0o400
    assert received.digest == "9372c470eeadd5ecd9c3c74c2b3cb633f8e2f2fad799250a0f70d652b6b825e4"
    assert received.format == Format("any", runs_code=True)


@pytest.mark.parametrize(
    ("name", "called"),
    [("a b-c_1.any", "a b-c_1.any"), ("\x1b[31m.more.any", "model.any"), (".any", "model.any"), ("ü.ANY", "model.any")],
)
def test_a_name_that_is_not_plain_is_not_kept(tmp_path: Path, name: str, called: str) -> None:
    (tmp_path / name).write_bytes(b"model")
    assert take(tmp_path / name, tmp_path / "copy").path.name == called


def test_what_is_no_regular_file_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "there.any").write_bytes(b"model")
    (tmp_path / "link.any").symlink_to("there.any")
    os.mkfifo(tmp_path / "pipe.any")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket.any"))
        for name in ("link", "pipe", "socket"):
            expect_refused(tmp_path / f"{name}.any", tmp_path / f"copy-{name}", "not-a-file", "it: ", name)
    expect_refused(Path("/dev/zero"), tmp_path / "d", "not-a-file", "it: ", "device")


def test_what_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "sparse.any").open("wb") as file:
        file.truncate(2**36)
    monkeypatch.setattr(intake, "_copy", None)  # what reads it
    facts = ("it: ", "1 MiB", "65536", "memory=")
    expect_refused(tmp_path / "sparse.any", tmp_path / "copy", "too-large", *facts, largest=2**20)
    monkeypatch.undo()
    (tmp_path / "exact.any").write_bytes(bytes(10))
    assert take(tmp_path / "exact.any", tmp_path / "exact", largest=10).path.exists()
    expect_refused(tmp_path / "exact.any", tmp_path / "less", "too-large", largest=9)
    (tmp_path / "empty.any").touch()
    expect_refused(tmp_path / "empty.any", tmp_path / "empty", "wrong-format", "it: ", "empty")


def test_files_of_weights_come_along(tmp_path: Path) -> None:
    plain = {"examine": lambda path: Format("any", runs_code=False)}
    names = ["weights 1.bin", "absent", "a.any", "/etc/passwd", "../other", "..", ".", "", "a\0b"]
    naming = {**plain, "companions": lambda path: names}
    (tmp_path / "a.any").write_bytes(b"model")
    assert not take(tmp_path / "a.any", tmp_path / "alone", **naming).format.runs_code
    (tmp_path / "weights 1.bin").write_bytes(b"weights")
    (tmp_path / "other").write_bytes(b"of the auditor")
    received = take(tmp_path / "a.any", tmp_path / "copy", **naming)
    assert sorted(path.name for path in (tmp_path / "copy").iterdir()) == ["a.any", "weights 1.bin"]
    assert received.format == Format("any with weights in other files")
    assert received.files.keys() == {"a.any", "weights 1.bin"}
    assert received.digest != take(tmp_path / "a.any", tmp_path / "again", **plain).digest
    expect_refused(tmp_path / "a.any", tmp_path / "less", "too-large", largest=8, **naming)
    (tmp_path / "weights 1.bin").unlink()
    (tmp_path / "weights 1.bin").symlink_to("other")
    facts = ("it: weights 1.bin: ", "link")
    expect_refused(tmp_path / "a.any", tmp_path / "linked", "not-a-file", *facts, **naming)


def test_what_is_no_weights_does_not_come_along(tmp_path: Path) -> None:
    (tmp_path / "a.any").write_bytes(b"model")
    (tmp_path / ".netrc").write_bytes(b"secret")
    save_observation(tmp_path / "observed", toys.seen(1))
    save_suite(tmp_path / "suite", toys.suite())
    (tmp_path / "zoo.json").write_text('{"schema": "deepjudge/zoo/1"}')
    (tmp_path / "b.any").write_bytes(b"another suspect")
    others = [tmp_path / "b.any"]
    for name in (".netrc", "observed", "suite", "zoo.json", "b.any"):
        options = {"companions": lambda path, name=name: [name], "others": others}
        expect_refused(tmp_path / "a.any", tmp_path / f"of {name}", "wrong-format", "it: ", name, **options)
    # What is called after a model that the user names is the user's choice.
    (tmp_path / ".a.any").write_bytes(b"model")
    (tmp_path / ".a.data").write_bytes(b"weights")
    received = take(tmp_path / ".a.any", tmp_path / "hidden", companions=lambda path: ["model.data"])
    assert received.beside == ("model.data",)


def test_a_suspect_takes_no_other_one_for_its_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = tmp_path / "a.onnx", tmp_path / "b.onnx"
    for path in (first, second, tmp_path / "w"):
        path.write_bytes(b"model")
    asked: list[list[bool]] = []

    def noted(*arguments: Any) -> Any:
        asked.append([arguments[-1](tmp_path / name) for name in ("b.onnx", "w", "absent")])
        raise ModelError("stopped here")

    monkeypatch.setattr(remote, "receive", noted)
    everything = {file_key(path) for path in (first, second, tmp_path / "w")}
    for others in ((), everything):
        with refused(ModelError, "stopped"), open_isolated(first, registry=load_registry(), others=others):
            pass
    # A file that no adapter reads is weights, though a pattern of the user's names it too.
    assert asked == [[False, False, False], [True, False, False]]


def test_names_that_are_no_text(tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    folder.mkdir()
    (folder / os.fsdecode(b"\xff.txt")).touch()
    expect_refused(folder, tmp_path / "copy", "not-a-file", "it: ", "UTF-8", "udcff.txt")
    with pytest.raises(OSError, match="udcff"):
        digests.of_folder(folder)
    assert adapter(companions=lambda path: ["\ud800", "w"]).beside(tmp_path / "a.any") == ["w"]


def test_another_name_that_it_has_by_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved/a").write_bytes(b"1")
    opening = os.open

    def late(path: Any, *arguments: Any, **options: Any) -> int:
        if Path(path).name == "a" and not (tmp_path / "secret").exists():
            (tmp_path / "secret").hardlink_to(path)
        return opening(path, *arguments, **options)

    monkeypatch.setattr(os, "open", late)
    expect_refused(tmp_path / "saved", tmp_path / "copy", "not-a-file", "hard link")


def test_weights_are_not_the_model_itself_under_another_name(tmp_path: Path) -> None:
    # Its copy is called model.any, as its weights are.
    (tmp_path / "ü.any").write_bytes(b"model")
    (tmp_path / "model.any").write_bytes(b"weights")
    expect_refused(tmp_path / "ü.any", tmp_path / "copy", "not-a-file", companions=lambda path: ["model.any"])


def test_what_names_no_weights_is_damaged(tmp_path: Path) -> None:
    def fail(path: Path) -> list[str]:
        raise RecursionError

    (tmp_path / "a.any").write_bytes(b"model")
    expect_refused(tmp_path / "a.any", tmp_path / "copy", "wrong-format", "it: ", companions=fail)
    with refused(PluginError, "any: ", "companions"):
        adapter(companions=(".data",))


def test_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    (folder / "deep/er").mkdir(parents=True)
    (folder / "a").write_bytes(b"1")
    (folder / "deep/er/b").write_bytes(b"")
    received = take(folder, tmp_path / "copy")
    assert {str(p.relative_to(received.path)) for p in received.path.rglob("*") if p.is_file()} == {"a", "deep/er/b"}
    (folder / "deep/link").symlink_to("/etc/passwd")
    expect_refused(folder, tmp_path / "linked", "not-a-file", "link")
    (folder / "deep/link").unlink()
    for number in range(1000):
        (folder / str(number)).touch()
    expect_refused(folder, tmp_path / "many", "too-large", "1000 files")
    inner = tmp_path / "nested"
    (inner / "/".join("123456789")).mkdir(parents=True)
    expect_refused(inner, tmp_path / "deep", "too-large", "8 deep")


def test_what_examining_comes_to(tmp_path: Path) -> None:
    (tmp_path / "a.any").write_bytes(b"model")

    def fail(path: Path) -> Format:
        raise ModelError(f"{path}: expected this, found that")

    def stumble(path: Path) -> Format:
        raise IndexError

    expect_refused(tmp_path / "a.any", tmp_path / "copy", "wrong-format", "it: expected this, found that", examine=fail)
    expect_refused(tmp_path / "a.any", tmp_path / "again", "wrong-format", "it: ", examine=stumble)


# Folders for a worker.


def test_a_folder_is_removed_whatever_is_in_it(scratch_folders: Path) -> None:
    with make_scratch() as scratch:
        (scratch.work / "locked/in").mkdir(parents=True)
        (scratch.work / "locked/in/file").touch()
        (scratch.work / "out").symlink_to("/")
        (scratch.work / "locked").chmod(0)
    assert list(scratch_folders.iterdir()) == []
    assert Path("/etc").exists()


def test_those_of_killed_audits_are_removed_and_no_others(scratch_folders: Path) -> None:
    left = scratch_folders / "deepjudge-left"
    left.mkdir()
    (left / "in-use").touch()
    (scratch_folders / "deepjudge-being-made").mkdir()
    with make_scratch() as one, make_scratch():
        assert one.forbidden.is_file()
        assert not left.exists()
    assert [path.name for path in scratch_folders.iterdir()] == ["deepjudge-being-made"]


# Messages.


@pytest.fixture
def pair() -> Iterator[tuple[Channel, Channel, int]]:
    """Two ends, and what the second one writes to."""
    first_in, second_out = os.pipe()
    second_in, first_out = os.pipe()
    ends = Channel(first_in, first_out), Channel(second_in, second_out)
    yield *ends, second_out
    for end in ends:
        end.close()


@given(
    st.dictionaries(st.text(), st.integers(-(10**9), 10**9) | st.text() | st.none()),
    st.lists(
        hnp.arrays(st.sampled_from([np.float16, np.float32, np.float64]), hnp.array_shapes(min_side=0, max_side=4)),
        max_size=3,
    ),
)
def test_what_is_sent_is_received(values: dict[str, Any], arrays: list[np.ndarray]) -> None:
    first_in, second_out = os.pipe()
    second_in, first_out = os.pipe()
    first, second = Channel(first_in, first_out), Channel(second_in, second_out)
    try:
        first.send(Message(values, arrays))
        message = second.receive(lambda values: [ArraySpec(a.shape, a.dtype.name) for a in arrays], timeout=120)
    finally:
        first.close()
        second.close()
    assert message.values == values
    for sent, received in zip(arrays, message.arrays, strict=True):
        assert received.dtype == sent.dtype
        np.testing.assert_array_equal(received, sent)


def test_more_than_a_pipe_holds(pair: tuple[Channel, Channel, int]) -> None:
    first, second, _ = pair
    x = np.arange(10**6, dtype=np.int32)
    sending = threading.Thread(target=first.send, args=(Message({}, [x[::-1]]),))
    sending.start()
    [array] = second.receive().arrays
    sending.join()
    np.testing.assert_array_equal(array, x[::-1].astype(np.float32))


@pytest.mark.parametrize(
    ("data", "fact"),
    [
        (b"\xff\xff\xff\xff", "4294967295"),
        (b"\x02\0\0\0[]", "JSON"),
        (b"\x04\0\0\0\xff\xfe{}", "JSON"),
        (b"\x00\x00\x08\0" + b"[" * 2**19, "JSON"),
        ({"values": [], "arrays": []}, "JSON"),
        ({"values": {}, "arrays": [[[1], "object"]]}, "JSON"),
        ({"values": {}, "arrays": [[[-1], "float32"]]}, "JSON"),
        ({"values": {}, "arrays": [[[1e400], "float32"]]}, "JSON"),
        ({"values": {}, "arrays": [[[2**62, 2**62], "float32"]]}, "float32 2x3"),
        ({"values": {}, "arrays": [[[2, 3], "float64"]]}, "float64 2x3.*float32 2x3"),
        ({"values": {}, "arrays": []}, "none.*float32 2x3"),
    ],
)
def test_what_is_no_message(pair: tuple[Channel, Channel, int], data: Any, fact: str) -> None:
    first, _, writing = pair
    if not isinstance(data, bytes):
        data = json.dumps(data).encode()
        data = len(data).to_bytes(4, "little") + data
    os.set_blocking(writing, True)
    threading.Thread(target=os.write, args=(writing, data), daemon=True).start()
    with pytest.raises(ChannelError, match=fact):
        first.receive(lambda values: [ArraySpec((2, 3))], timeout=120)


def test_who_is_late_and_who_is_gone() -> None:
    first_in, second_out = os.pipe()
    second_in, first_out = os.pipe()
    looks: list[None] = []
    first = Channel(first_in, first_out, lambda: looks.append(None))
    with pytest.raises(LateError):
        first.receive(timeout=1.2)
    assert len(looks) >= 2  # one at least for each half of a second
    with pytest.raises(LateError):
        first.send(Message({}, [np.zeros(10**6)]), timeout=0.2)
    os.write(second_out, b"\x05\0")
    os.close(second_out)
    with pytest.raises(ClosedError):
        first.receive(timeout=120)
    os.close(second_in)
    with pytest.raises(ClosedError):
        first.send(Message({}), timeout=120)
    first.close()


# Models.


def compared(zoo: Zoo, registry: Registry, kind: str, expected: Isolation) -> None:
    """A model answers there what it answers here."""
    path, options = zoo.source(kind, VICTIM), KINDS[kind].options
    here = open_model(path, registry=registry, **options)
    x = inputs(9) if here.input.layout != "channels_last" else np.moveaxis(inputs(9), 1, -1)
    with open_isolated(path, registry=registry, sandbox=QUICK, **options) as there:
        assert there.isolation is expected
        assert (there.name, there.framework, there.digest) == (here.name, here.framework, here.digest)
        assert (there.access, there.input, there.classes) == (here.access, here.input, here.classes)
        assert ModelInfo.of(there).files == ModelInfo.of(here).files != {}
        assert dict(there.layers) == dict(here.layers)
        names = list(here.layers)
        np.testing.assert_array_equal(there.predict(x), here.predict(x))
        remote, local = there.activations(x, names), here.activations(x, names)
        for name in names:
            np.testing.assert_array_equal(remote[name], local[name])
        for layer in (None, names[0]) if Access.GRADIENTS in here.access else ():

            def cotangent(scores: np.ndarray, rows: slice) -> np.ndarray:
                return np.tanh(scores) + x[rows].mean()

            ours = here.gradient(x, cotangent, layer=layer)
            np.testing.assert_array_equal(there.gradient(x, cotangent, layer=layer), ours)
        theirs, own = there.exchange(x, names[0]), here.exchange(x, names[0])
        assert own is not None
        for part in ("own", "other", "mixed"):
            np.testing.assert_array_equal(getattr(theirs, part), getattr(own, part))
        assert there.activations(x, []) == {}
        assert "cpu" in str(ModelInfo.of(there).device).lower()  # no other device is within a worker's reach
        with refused(ModelError, "'nowhere'"):
            there.activations(x, ["nowhere"])


@pytest.fixture(scope="module")
def kept_scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all models: with another one, a framework is imported anew."""
    return tmp_path_factory.mktemp("scratch")


@needs_landlock
@pytest.mark.parametrize("kind", FILES)
def test_a_model_answers_as_in_this_process(
    zoo: Zoo, registry: Registry, kind: str, kept_scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(kept_scratch))
    compared(zoo, registry, kind, Isolation.FULL)
    assert list(kept_scratch.glob("deepjudge-*")) == []


@pytest.mark.skipif(not seccomp.supported(), reason="this system has no seccomp")
@pytest.mark.parametrize("kind", WITHOUT_CODE)
def test_without_landlock_too(zoo: Zoo, registry: Registry, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landlock, "version", lambda: 0)
    compared(zoo, registry, kind, Isolation.NO_OPEN)


def test_code_of_others_is_not_run_without_landlock(
    zoo: Zoo, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(landlock, "version", lambda: 0)
    path = zoo.source("torch-pt2", VICTIM)
    opening = open_isolated(path, registry=registry, sandbox=QUICK)
    with (
        refused(ModelError, "torch.export", code="needs-sandbox"),
        opening,
    ):
        pass
    path = zoo.source("onnx-legacy", VICTIM)
    opening = open_isolated(path, registry=registry, sandbox=Sandbox(required=True))
    with (
        refused(ModelError, "seccomp-noopen", code="no-sandbox"),
        opening,
    ):
        pass


def test_a_library_says_it_in_its_own_words() -> None:
    error = ModelError("expected this, found no way")
    error.__cause__ = ValueError("no way")
    assert worker._reason(error) == "expected this, found no way"
    assert worker._reason(RuntimeError("first\nsecond")) == "first"
    assert worker._reason(ValueError()) == "ValueError"
    assert worker._reason(KeyError("weight")) == "KeyError: 'weight'"
    assert worker._reason(RuntimeError("a\x1b[2J\u202eb")).isprintable()
    assert len(worker._reason(RuntimeError("ab" * 10_000))) <= 500


@needs_landlock
@pytest.mark.parametrize(
    ("broken", "facts"),
    [
        ("operation", ("ONNX Runtime", "Nonsense")),
        ("shape", ("ONNX Runtime", "Incompatible dimensions")),
    ],
)
def test_what_onnx_runtime_says_reaches_the_line(
    broken: str, facts: tuple[str, ...], tmp_path: Path, registry: Registry
) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper, numpy_helper

    kind = "Nonsense" if broken == "operation" else "MatMul"
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])
    weight = numpy_helper.from_array(np.ones((9, 3), np.float32), "w")
    graph = helper.make_graph([helper.make_node(kind, ["x", "w"], ["y"])], "g", [given], [], [weight])
    graph.output.append(onnx.ValueInfoProto(name="y"))
    path = tmp_path / "m.onnx"
    path.write_bytes(helper.make_model(graph, ir_version=8).SerializeToString())
    with pytest.raises(ModelError) as confined, open_isolated(path, registry=registry, sandbox=QUICK):
        pass
    with pytest.raises(ModelError) as plain:
        open_model(path, registry=registry)
    said = [str(caught.value).removesuffix(" (cannot-open)") for caught in (confined, plain)]
    expect_facts(said[0], str(path), *facts)
    assert said[0] == said[1]  # in the sandbox as well as without


def test_an_adapter_of_this_program_cannot_be_had_elsewhere(tmp_path: Path) -> None:
    toys.save_model(tmp_path / "a.toy")
    registry = load_registry({"toys": toys})
    with (
        refused(UsageError, "a.toy", "plugin"),
        open_isolated(tmp_path / "a.toy", registry=registry, sandbox=QUICK),
    ):
        pass


# A worker that a hostile model has taken over says what it likes.

TAKEN_OVER = """
import json, os, struct, sys, time
def say(values, arrays=(), data=b""):
    header = json.dumps({"values": values, "arrays": arrays}).encode()
    os.write(writing, struct.pack("<I", len(header)) + header + data)
reading, writing = int(sys.argv[1]), int(sys.argv[2])
layers = [["a", 3], ["b", 2]]
info = {"name": "x", "framework": "x", "digest": "0" * 64, "access": ["probabilities", "layers", "gradients"],
        "classes": 2, "input": {"shape": [4], "dtype": "float32", "layout": None}, "layers": layers}
"""


@pytest.fixture
def taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Opens a file whose worker runs this code, with ``info`` to be said of its model."""
    monkeypatch.syspath_prepend(tmp_path)
    info = tmp_path / "toys-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toys\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[deepjudge]\ntoys = toys\n")
    path = toys.save_model(tmp_path / "a.toy")
    registry = load_registry()

    def opened(code: str, timeout: float = 120, **more: Any) -> Any:
        monkeypatch.setattr(starting, "_WORKER", f"{TAKEN_OVER}{code}\ntime.sleep(600)")
        sandbox = Sandbox(timeout=timeout, template=False, total=more.pop("total", 3600))
        return open_isolated(path, registry=registry, sandbox=sandbox, **more)

    return opened


FULL = 'say({"isolation": "landlock+seccomp", "leaks": []}); '
DESCRIBED = FULL + 'say({"model": info}); '
X = np.zeros((5, 4), np.float32)


@pytest.mark.parametrize(
    ("code", "facts"),
    [
        ("say({})", ("isolation", "(bad-answer)")),
        ('say({"isolation": "best", "leaks": []})', ("isolation", "(bad-answer)")),
        ("sys.exit()", ("status 0", "(crashed)")),
        ("os.abort()", ("SIGABRT", "(crashed)")),
        ("sys.exit(7)", ("status 7", "(crashed)")),
        ("pass", ("1 s", "timeout=", "(timed-out)")),
        ('os.write(writing, b"\\xff" * 100)', ("4294967295", "(bad-answer)")),
        ('sys.stderr.write("std::bad_alloc"); sys.stderr.flush(); os.abort()', ("MiB", "memory=", "(out-of-memory)")),
        (FULL + "say({})", ("classifier", "(bad-answer)")),
        *(
            (FULL + f'info["{key}"] = {value}; say({{"model": info}})', ("classifier", "(bad-answer)"))
            for key, value in (
                ("classes", "10**9"),
                ("classes", "1"),
                ("layers", "[]"),
                ("layers", '[["a", 0]]'),
                ("layers", '[["a", 1, 2]]'),
                ("layers", "7"),
                ("access", '["everything"]'),
                ("access", "[[]]"),
                ("input", '{"shape": [-1], "dtype": "float32", "layout": None}'),
                ("input", '{"shape": [4], "dtype": "object", "layout": None}'),
                ("input", '{"shape": "4", "dtype": "a,b", "layout": None}'),
            )
        ),
        (FULL + 'say({"failed": "a\\x1b[31mb\\n" + "c" * 5000, "code": "x\\n"})', ("a�[31mb c", "(cannot-open)")),
        (FULL + 'say({"failed": 7})', ("7", "(cannot-open)")),
    ],
)
def test_a_hostile_description(taken_over: Any, code: str, facts: tuple[str, ...]) -> None:
    with pytest.raises(ModelError) as caught, taken_over(code, timeout=1 if code == "pass" else 120):
        pass
    expect_facts(str(caught.value), *facts, f"({caught.value.code})")
    assert len(str(caught.value)) < 1200


@pytest.mark.parametrize(
    ("code", "facts"),
    [
        ('say({}, [[[5, 3], "float32"]], bytes(60))', ("float32 5x3", "float32 5x2", "(bad-answer)")),
        ('say({}, [[[4, 2], "float32"]], bytes(32))', ("float32 4x2", "float32 5x2", "(bad-answer)")),
        ('say({}, [[[10**12, 2], "float32"]])', ("float32 5x2", "(bad-answer)")),
        ('say({}, [[[5, 2], "float32"]], b"\\xff" * 40)', ("NaN", "(bad-answer)")),
        ("say({})", ("none", "float32 5x2", "(bad-answer)")),
        ('say({}, [[[5, 2], "float32"]], bytes(39)); time.sleep(1); sys.exit()', ("(crashed)",)),
    ],
)
def test_a_hostile_answer(taken_over: Any, code: str, facts: tuple[str, ...]) -> None:
    with taken_over(DESCRIBED + code) as model, pytest.raises(ModelError) as caught:
        model.predict(X)
    expect_facts(str(caught.value), *facts, f"({caught.value.code})")


def test_slow_answers_do_not_add_up(taken_over: Any) -> None:
    answers = '\nwhile True: time.sleep(0.2); say({}, [[[5, 2], "float32"]], bytes(40))'

    def ask_on(model: Any) -> None:
        for _ in range(1000):
            model.predict(X)

    with taken_over(DESCRIBED + answers, total=1, gradients=False) as model, pytest.raises(ModelError) as caught:
        ask_on(model)
    assert caught.value.code == "timed-out"
    expect_facts(str(caught.value), "1 s", "total=")


@pytest.mark.parametrize(("code", "expected"), [("unknown-name", "unknown-name"), ("made-up", "wrong-usage")])
def test_a_mistake_of_the_user_keeps_its_code(taken_over: Any, code: str, expected: str) -> None:
    said = f'say({{"failed": "no module m", "code": "usage:{code}"}})'
    with refused(UsageError, "no module m", code=expected), taken_over(FULL + said):
        pass


def test_once_it_is_gone_the_reason_stays(taken_over: Any) -> None:
    with taken_over(DESCRIBED + "say({})") as model:
        lines = []
        for _ in range(2):
            with pytest.raises(ModelError) as caught:
                model.predict(X)
            lines.append(str(caught.value))
    assert lines[0] == lines[1]


@pytest.mark.parametrize("rows", ["[0, 9]", "[-1, 5]", "[3, 3]", '["a", 2]', "[0]", "7", "[0, 10**300]", "None"])
def test_rows_that_were_not_asked_for(taken_over: Any, rows: str) -> None:
    code = f'say({{"rows": {rows}, "dtype": "float32"}}, [[[5, 2], "float32"]], bytes(40))'
    with taken_over(DESCRIBED + code) as model, refused(ModelError, code="bad-answer"):
        model.gradient(X, lambda scores, rows: scores)


def test_an_answer_that_would_take_all_memory_is_not_asked_for(taken_over: Any) -> None:
    code = 'info["layers"] = [["a", 10**12], ["b", 2]]; ' + DESCRIBED + "time.sleep(60)"
    with taken_over(code) as model, refused(ModelError, "2 GiB", code="too-large"):
        model.activations(X, ["a"])


def test_a_type_that_numpy_alone_does_not_know(taken_over: Any) -> None:
    with taken_over('info["input"]["dtype"] = "bfloat16"; ' + DESCRIBED) as model:
        assert (model.input.shape, model.input.dtype, model.input.layout) == ((4,), "bfloat16", None)


def test_what_it_says_that_it_runs_on_is_a_short_text(taken_over: Any) -> None:
    for said, expected in (
        ('"cuda:0"', "cuda:0"),
        ("None", None),
        ('"\\x1b[31m" + "c" * 500', "\ufffd[31m" + "c" * 94 + "…"),
    ):
        with taken_over(f'info["device"] = {said}; ' + DESCRIBED) as model:
            assert model.device == expected
    with refused(ModelError, code="bad-answer"), taken_over('info["device"] = [{}]; ' + DESCRIBED):
        pass
    with taken_over(DESCRIBED) as model:
        assert model.device is None
    with refused(ModelError, "classifier", code="bad-answer"), taken_over('info["device"] = [{}]; ' + DESCRIBED):
        pass


def test_names_that_look_the_same_stay_apart(taken_over: Any) -> None:
    code = 'layers[:] = [["a\\u202e", 3], ["a\\u200b", 3], ["b" * 500, 2]]; ' + DESCRIBED + "time.sleep(60)"
    with taken_over(code) as model:
        first, second, third = model.layers
    assert first != second
    assert all(name.isprintable() and len(name) <= 200 for name in (first, second, third))


def test_thousands_of_names_that_look_the_same(taken_over: Any) -> None:
    code = 'layers[:] = [["\ufffd (2)", 1], *([chr(0xE000 + i % 6000) * (1 + i // 6000), 1] for i in range(N))]; '
    with taken_over(code.replace("N", "6000") + DESCRIBED + "time.sleep(60)") as model:
        assert len(model.layers) == 6001
        assert list(model.layers)[:3] == ["\ufffd (2)", "\ufffd", "\ufffd (3)"]
    with refused(ModelError, 8192, 9001, code="too-large"), taken_over(code.replace("N", "9000") + DESCRIBED):
        pass


def test_what_it_writes_is_bounded_and_read_to_the_end(taken_over: Any) -> None:
    code = 'sys.stdout.write("x" * 10**7); sys.stdout.flush(); ' + DESCRIBED
    code += 'say({}, [[[5, 2], "float32"]], bytes(40))'
    with taken_over(code) as model:
        assert model.predict(X).shape == (5, 2)
        assert len(model._worker._log) <= process._LONGEST_LOG


THREADS = """
import threading
threading.stack_size(2**16)
for _ in range(10_000):
    try:
        threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
    except RuntimeError:
        break
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="nobody counts the threads of a process here")
@pytest.mark.parametrize("waiting", [True, False])
def test_who_starts_thousands_of_threads_is_ended(taken_over: Any, waiting: bool) -> None:
    # Also one that answers so soon that nobody waits for it.
    answers = 'say({}, [[[5, 2], "float32"]], bytes(40))\n'
    rest = "time.sleep(600)" if waiting else f"while True: {answers}"

    def ask_on(model: Any) -> None:
        while True:
            model.predict(X)

    with (
        taken_over(f"{DESCRIBED}\n{THREADS}{rest}") as model,
        refused(ModelError, limits.THREADS, code="too-many-threads"),
    ):
        ask_on(model)


def test_who_fills_the_disk_is_ended(taken_over: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_MOST_WRITTEN", 10**6)
    code = DESCRIBED + 'open("big", "wb").write(bytes(2 * 10**6))'
    with taken_over(code) as model, refused(ModelError, "2 MiB", "1 files", code="too-much-written"):
        model.predict(X)


def test_what_it_knows_of_the_user(taken_over: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "canary")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    code = "layers[0][0] = json.dumps(dict(os.environ))[:190]; layers[1][0] = os.getcwd(); layers.append(["
    code += 'str("SECRET_TOKEN" in os.environ) + os.environ["OMP_NUM_THREADS"] + str(os.environ["HOME"] == os.getcwd())'
    code += ' + str(os.listdir(".")) + str(sys.flags.isolated), 2]); ' + DESCRIBED
    with taken_over(code) as model:
        assert list(model.layers)[-1] == "False3True[]1"


def test_a_worker_ends_with_its_context_and_with_its_parent(taken_over: Any) -> None:
    with taken_over(DESCRIBED) as model:
        pid = model._worker._process.pid
        os.kill(pid, 0)
        assert os.getpgid(pid) == pid  # so that Ctrl-C is this process' alone
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


# One after the other.


def test_the_next_one_is_started_before_one_answers() -> None:
    events: list[str] = []

    class Noted(LiveModel):
        @contextlib.contextmanager
        def answering(self, *_: Any) -> Iterator[Any]:
            events.append(f"begin {self.model}")
            yield lambda: events.append(f"ask {self.model}")
            events.append(f"end {self.model}")

    for answer in answer_each([Noted(n) for n in "abc"], toys.suite(), Session(toys.registry(), QUICK)):
        answer()
    assert " ".join(events) == "begin a begin b ask a end a begin c ask b end b ask c end c"
    events.clear()
    begun = answer_each([Noted(n) for n in "abc"], toys.suite(), Session(toys.registry(), QUICK))
    next(begun)()
    begun.close()
    assert events[:3] == ["begin a", "begin b", "ask a"]
    assert sorted(events[3:]) == ["end a", "end b"]
    assert list(answer_each([], toys.suite(), Session(toys.registry(), QUICK))) == []


def test_what_goes_wrong_at_the_start_is_said_in_its_turn(tmp_path: Path) -> None:
    subjects = [ModelFile(tmp_path / "none.onnx"), LiveModel(toys.make_model(1)), ModelFile(tmp_path / "none.x")]
    answers = answer_each(subjects, toys.suite(), Session(load_registry(), QUICK))
    first = next(answers)
    with refused(ModelError, "none.onnx", code="cannot-read"):
        first()
    assert next(answers)().probabilities is not None
    last = next(answers)
    with refused(ModelError, "none.x", code="cannot-read"):
        last()
    assert list(answers) == []


def test_what_nobody_foresaw_is_one_suspect_s_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "hf"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "resnet"}')
    (folder / "model.safetensors").write_bytes(b"\2\0\0\0\0\0\0\0{}")

    class Odd(LiveModel):
        @contextlib.contextmanager
        def answering(self, *_: Any) -> Iterator[Any]:
            def answer() -> Any:
                raise self.model

            yield answer

    def judged(*suspects: Any) -> Any:
        session = Session(load_registry(), QUICK)
        judge = Judge.of(JudgeSettings(metrics=("robd",)), session.registry)
        return judge_suspects(toys.suite(), toys.calibration(), suspects, judge, session=session).suspects

    def fail(*_: Any) -> Any:
        raise UnicodeEncodeError("utf-8", "x", 0, 1, "surrogates not allowed")

    monkeypatch.setattr(remote, "receive", fail)
    first, second, third = judged(Odd(KeyError("x")), ModelFile(folder), toys.seen(9))
    expect_facts(str(first.failure), "KeyError")
    expect_facts(str(second.failure), str(folder), "UnicodeEncodeError")
    assert third.failure is None
    for end in (MemoryError, KeyboardInterrupt):
        with pytest.raises(end):
            judged(Odd(end()))


# Commands.


@needs_landlock
def test_an_audit_says_how_models_were_kept(cli: Cli) -> None:
    cli.confined = True
    more = ("--inputs", "in.npz", *MADE, *HOW, "--timeout", "300", "--memory", "1GiB")
    status, out, err = cli("audit", "victim.toy", "copy.toy", "--controls", "controls", *more, "-o", "out")
    assert (status, err) == (1, "")
    assert "isolation:" not in out
    report = json.loads(Path("out/report.json").read_text())
    models = [report["victim"], *report["calibration"]["controls"], *report["suspects"]]
    assert {model["isolation"] for model in models} == {"landlock+seccomp"}
    cli.confined = False
    status, out, _ = cli("audit", "victim.toy", "copy.toy", "--controls", "controls", *more[:-4], "-o", "plain")
    assert status == 1
    [line] = (line for line in out.splitlines() if line.startswith("isolation:"))
    expect_facts(line, "6 of 6", "'none'")
    plain = json.loads(Path("plain/report.json").read_text())
    assert plain["suspects"][0]["metrics"] == report["suspects"][0]["metrics"]


@needs_landlock
def test_the_file_of_an_audit_says_so_too(cli: Cli) -> None:
    cli.confined = True
    text = (
        'output = "out"\nvictim.path = "victim.toy"\ninputs.path = "in.npz"\ncontrols = [{path = "controls"}]\n'
        'suspects = [{path = "copy.toy"}]\nrule.name = "nearest"\nmetrics = ["answers"]\nsuite.seeds = 20\n'
        "generators = {shove = {}, poke = {}}\n"
    )
    for sandbox, isolation in (("use = false", "none"), ('required = true, memory = "1GiB"', "landlock+seccomp")):
        Path("audit.toml").write_text(f"{text}sandbox = {{{sandbox}}}\n")
        assert cli("audit", "audit.toml")[0] == 1
        report = json.loads(Path("out/report.json").read_text())
        assert report["suspects"][0]["isolation"] == isolation
    Path("audit.toml").write_text(f'{text}sandbox = {{memory = "much", timeout = 0}}\n')
    status, _, err = cli("audit", "audit.toml")
    assert status == 2
    assert "sandbox.memory: " in err
    assert '"much"' in err


def test_limits_that_cannot_be(cli: Cli) -> None:
    cli.confined = True
    rest = ("--inputs", "in.npz", "-o", "s.safetensors")
    for option, value, fact in (
        ("--memory", "lots", "lots"),
        ("--memory", "1", "--memory"),
        ("--timeout", "0", "--timeout"),
        ("--timeout", "nan", "NaN"),
        ("--timeout", "x", '"x"'),
        ("--no-sandbox", "--require-sandbox", "--no-sandbox"),
    ):
        status, out, err = cli("suite", "victim.toy", *rest, option, value)
        assert (status, out) == (2, "")
        assert fact in err


def test_the_sandbox_is_that_of_this_system() -> None:
    # Not that of one where confining failed: then the tests above would skip, and nobody would know.
    version = tuple(map(int, os.uname().release.split("-")[0].split(".")[:2]))
    if version < (5, 13):
        pytest.skip("Landlock came with Linux 5.13")
    enabled = Path("/sys/kernel/security/lsm")
    if enabled.is_file() and os.access(enabled, os.R_OK) and "landlock" not in enabled.read_text():
        pytest.skip("this kernel was started without Landlock")
    assert landlock.version() > 0 or confine.system_paths() == ()
