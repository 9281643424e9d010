"""Weights in a process of their own: what is taken in, what comes back of them, and what a hostile file comes to."""

import json
import struct
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy_transformers import llama
from refusals import expect_facts, refused
from safetensors.numpy import save_file

from deepjudge_core import load_registry
from deepjudge_core.auditing.audit import make_suite
from deepjudge_core.auditing.session import Session
from deepjudge_core.auditing.subject import ModelFile
from deepjudge_core.components.weights import open_weights
from deepjudge_core.errors import ModelError
from deepjudge_core.files import digests
from deepjudge_core.files.documents import plain
from deepjudge_core.models.isolation import Isolation
from deepjudge_core.sandbox import confine, intake, starting
from deepjudge_core.sandbox.policy import Sandbox
from deepjudge_core.sandbox.weights import open_weights_isolated
from deepjudge_core.weights.values import Sketch, WeightPlan

pytestmark = pytest.mark.skipif(not confine.is_full(), reason="this system has no Landlock or no seccomp")
QUICK = Sandbox(timeout=120)
BLOB = "0123456789abcdef" * 4


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights of a tiny transformer."""
    path = tmp_path_factory.mktemp("victim") / "victim.safetensors"
    save_file(llama(1).arrays, path)
    return path


@pytest.fixture(scope="module")
def here(victim: Path) -> tuple[WeightPlan, Sketch]:
    """What this process makes of it."""
    with open_weights(victim) as sketcher:
        plan = sketcher.plan(seed=3)
        return plan, sketcher.sketch(plan)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> None:
    """No file is so small that it is copied."""
    monkeypatch.setattr(intake, "_LARGE", 0)

    def copying(*_: Any) -> int:
        raise AssertionError("a copy was made")

    monkeypatch.setattr(intake, "_copy", copying)


def opened(path: Path, **options: Any) -> Any:
    return open_weights_isolated(path, **{"sandbox": QUICK, **options})


def expect_equal(one: Any, other: Any) -> None:
    assert plain(one.header()) == plain(other.header())
    ours, theirs = one.arrays(""), other.arrays("")
    assert ours.keys() == theirs.keys()
    for name, array in ours.items():
        assert theirs[name].dtype == array.dtype
        np.testing.assert_array_equal(theirs[name], array)


# What comes back.


def test_a_worker_says_what_this_process_would(victim: Path, here: tuple[WeightPlan, Sketch]) -> None:
    plan, sketch = here
    with opened(victim) as there:
        expect_equal(there.plan(seed=3), plan)
        expect_equal(there.sketch(plan), sketch)
        own = there.sketch(plan, victim=True)
        assert there.model.isolation is Isolation.FULL
        found = digests.of_file(victim)
        assert (there.model.digest, there.model.files) == (found.digest, found.files)
        assert there.model.name == str(victim)
    for layer, neurons in zip(own.layers, plan.neurons, strict=True):
        np.testing.assert_array_equal(layer.neurons, neurons)


def test_a_large_file_is_read_where_it_is(held: None, victim: Path, here: tuple[WeightPlan, Sketch]) -> None:
    with opened(victim) as there:
        expect_equal(there.sketch(here[0]), here[1])
        assert there.model.isolation is Isolation.FULL
        assert there.model.digest == digests.of_file(victim).digest


def test_files_count_as_memory_only_where_they_are_copied(tmp_path: Path, here: tuple[WeightPlan, Sketch]) -> None:
    # Most of it is a hole, which nobody reads but who makes its digest.
    arrays, size = llama(1).arrays, 100 * 2**20
    header, at = {"unused": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}, size
    for name, array in arrays.items():
        header[name] = {"dtype": "F32", "shape": array.shape, "data_offsets": [at, at + array.nbytes]}
        at += array.nbytes
    text = json.dumps(header).encode()
    with (tmp_path / "big.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.seek(size, 1)
        file.write(b"".join(array.tobytes() for array in arrays.values()))
    with opened(tmp_path / "big.safetensors", sandbox=Sandbox(memory=64 * 2**20, timeout=120)) as there:
        sketch = there.sketch(here[0])
    assert sketch.unseen  # what is in the hole
    expect_equal(replace(sketch, unseen=()), here[1])


def test_shards_and_a_folder(held: None, tmp_path: Path, here: tuple[WeightPlan, Sketch]) -> None:
    arrays, folder = llama(1).arrays, tmp_path / "model"
    folder.mkdir()
    names = sorted(arrays)
    files = {name: f"model-0000{1 + place % 2}-of-00002.safetensors" for place, name in enumerate(names)}
    for file in set(files.values()):
        save_file({name: arrays[name] for name in names if files[name] == file}, folder / file)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    (folder / "own notes.md").write_text("nothing of the model's")
    for path in (folder, folder / "model.safetensors.index.json"):
        with opened(path) as there:
            np.testing.assert_array_equal(there.sketch(here[0]).layers[0].raw, here[1].layers[0].raw)
            found = (
                digests.of_folder(folder)
                if path == folder
                else digests.of_file(path, [folder / file for file in set(files.values())])
            )
            assert there.model.digest == found.digest


def test_what_fails_in_a_worker_is_the_error_that_is_said(tmp_path: Path, victim: Path) -> None:
    session = Session(sandbox=QUICK)
    suite = make_suite(victim, None, session=session)
    arrays = dict(llama(1).arrays)
    arrays["model.embed_tokens.weight"] = arrays["model.embed_tokens.weight"] * np.float32(np.nan)
    for name, code in {"nan.safetensors": "cannot-answer", "cut.safetensors": "cannot-open"}.items():
        save_file(arrays, tmp_path / name)
        if name.startswith("cut"):
            (tmp_path / name).write_bytes(victim.read_bytes()[:-8])
        with refused(ModelError, name, code=code), ModelFile(tmp_path / name).answering(suite, session) as answer:
            answer()


def test_an_error_of_a_worker_has_one_code(victim: Path) -> None:
    with opened(victim) as sketcher, pytest.raises(ModelError) as caught:
        sketcher.matrices([999])
    assert str(caught.value).endswith(f" ({caught.value.code})")
    assert str(caught.value).count("(") == 1


def test_what_lies_beside_a_file_of_a_folder_is_read(tmp_path: Path, victim: Path) -> None:
    folder, words = tmp_path / "model", {f"word {place}": place for place in range(64)}
    folder.mkdir()
    for name in ("model.safetensors", "model-00001-of-00001.safetensors", "other.safetensors"):
        (folder / name).write_bytes(victim.read_bytes())
    (folder / "config.json").write_text('{"model_type": "llama", "num_attention_heads": 2}')
    (folder / "vocab.json").write_text(json.dumps(words))
    with opened(folder) as whole:
        plan = whole.plan()
        sketch = whole.sketch(plan)
    assert set(plan.tokens) <= words.keys()
    for name, known in {"model": True, "model-00001-of-00001": True, "other": False}.items():
        with opened(folder / f"{name}.safetensors") as alone:
            assert (alone.plan().tokens == plan.tokens) is known
            assert alone.model.digest == digests.of_file(folder / f"{name}.safetensors").digest
            if known:
                expect_equal(alone.sketch(plan), sketch)


def test_a_lora_and_its_base(tmp_path: Path, victim: Path, here: tuple[WeightPlan, Sketch]) -> None:
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    base.mkdir()
    adapter.mkdir()
    (base / "model.safetensors").write_bytes(victim.read_bytes())
    (base / "config.json").write_text('{"model_type": "llama", "auto_map": {"AutoModel": "own.Code"}}')
    module = "base_model.model.model.layers.0.mlp.up_proj"
    factors = {f"{module}.lora_A.weight": np.zeros((1, 32)), f"{module}.lora_B.weight": np.zeros((96, 1))}
    save_file(
        {name: array.astype(np.float32) for name, array in factors.items()}, adapter / "adapter_model.safetensors"
    )
    (adapter / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "hub/base"}')
    with opened(adapter) as there:  # the folder next to it
        expect_equal(there.sketch(here[0]), here[1])
        model = there.model
    with open_weights(adapter) as there:
        assert (there.model.digest, there.model.files) == (model.digest, model.files)
    assert {"adapter_config.json", "base/config.json", "base/model.safetensors"} < model.files.keys()
    (adapter / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "../base/.."}')
    with refused(ModelError, "base", code="cannot-open"), opened(adapter) as there:
        there.sketch(here[0])
    with opened(adapter, base=str(base)) as there:
        expect_equal(there.sketch(here[0]), here[1])
        based = there.model.digest
    with opened(adapter, base=str(victim)) as there:  # the same weights in other files
        expect_equal(there.sketch(here[0]), here[1])
        assert there.model.digest != based
        assert there.model.files["base"] == digests.of_file(victim).digest


def test_links_of_a_cache_and_no_others(tmp_path: Path, victim: Path, here: tuple[WeightPlan, Sketch]) -> None:
    snapshot, blobs = tmp_path / "snapshots/one", tmp_path / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    (blobs / BLOB).write_bytes(victim.read_bytes())
    (blobs / BLOB[:40]).write_text('{"model_type": "llama"}')
    (snapshot / "model.safetensors").symlink_to(f"../../blobs/{BLOB}")
    (snapshot / "config.json").symlink_to(f"../../blobs/{BLOB[:40]}")
    with opened(snapshot) as there:
        expect_equal(there.sketch(here[0]), here[1])
    others = [str(blobs / BLOB), f"../../blobs/{BLOB[:39]}", f"../../blobs/../blobs/{BLOB}", "../../other"]
    (blobs / BLOB[:39]).write_bytes(victim.read_bytes())
    (tmp_path / "other").write_bytes(victim.read_bytes())
    for target in others:
        (snapshot / "model.safetensors").unlink()
        (snapshot / "model.safetensors").symlink_to(target)
        with refused(ModelError, "link", code="not-a-file"), opened(snapshot):
            pass
    (blobs / BLOB).unlink()
    (blobs / BLOB).symlink_to(tmp_path / "other")
    (snapshot / "model.safetensors").unlink()
    (snapshot / "model.safetensors").symlink_to(f"../../blobs/{BLOB}")
    with refused(ModelError, "link", code="not-a-file"), opened(snapshot):
        pass


def test_a_file_that_is_written_to_meanwhile(held: None, tmp_path: Path, here: tuple[WeightPlan, Sketch]) -> None:
    path = tmp_path / "m.safetensors"
    save_file(llama(1).arrays, path)
    with opened(path) as there:
        there.sketch(here[0])
        with path.open("r+b") as file:
            file.seek(-4, 2)
            file.write(b"\0\0\0\0")
        with refused(ModelError, str(path), "changed", code="not-a-file"):
            there.sketch(here[0])


def test_another_file_in_its_place_is_not_read(held: None, tmp_path: Path, here: tuple[WeightPlan, Sketch]) -> None:
    path = tmp_path / "m.safetensors"
    save_file(llama(1).arrays, path)
    with opened(path) as there:
        save_file(llama(2).arrays, tmp_path / "other")
        digest = digests.of_file(path).digest
        path.unlink()
        path.symlink_to("other")
        with pytest.raises(ModelError, match="changed"):  # its link count is another
            there.sketch(here[0])
        assert there._digesting.found(120).digest == digest


def test_what_nobody_waits_for_is_not_read_to_its_end(tmp_path: Path, here: tuple[WeightPlan, Sketch]) -> None:
    text = json.dumps({"unused": {"dtype": "U8", "shape": [2**40], "data_offsets": [0, 2**40]}}).encode()
    with (tmp_path / "m.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + 2**40)
    with refused(ModelError, "m.safetensors: ", code="cannot-answer"), opened(tmp_path / "m.safetensors") as there:
        there.sketch(here[0])
    assert not there._digesting._thread.is_alive()


# A reader that does more than read.


READER = """
import importlib, os, pathlib, socket, sys
from deepjudge_core import Adapter, hookimpl
from deepjudge_core.errors import ModelError

def weights(path, *, name):
    try:
        {code}
    except OSError as error:
        raise ModelError(f"{{name}}: {{type(error).__name__}}") from error

@hookimpl
def deepjudge_adapters():
    given = {{"open": None, "weights": weights, "imports": ("colorsys",)}}
    return [Adapter("reader", (".own",), accepts=lambda source: False, **given)]
"""


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Opens a file by an adapter whose ``weights`` is this code."""
    monkeypatch.syspath_prepend(tmp_path / "packages")
    info = tmp_path / "packages/reader-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: reader\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[deepjudge]\nreader = a_reader\n")
    (tmp_path / "m.own").write_bytes(b"weights")
    (tmp_path / "secret").write_text("secret")

    def opening(code: str, **options: Any) -> Any:
        (tmp_path / "packages/a_reader.py").write_text(READER.format(code=code))
        sys.modules.pop("a_reader", None)
        return opened(tmp_path / "m.own", registry=load_registry(), sandbox=Sandbox(timeout=120, template=False))

    yield opening
    sys.modules.pop("a_reader", None)


@pytest.mark.parametrize(
    ("code", "facts"),
    [
        ("(path.parents[3] / 'secret').read_text(); pathlib.Path({secret!r}).read_text()", ("Error",)),
        ("pathlib.Path({secret!r}).read_text()", ("PermissionError",)),
        ("pathlib.Path({secret!r}).write_text('')", ("PermissionError",)),
        ("socket.socket()", ("PermissionError",)),
        ("os.fork()", ("PermissionError",)),
        ("bytearray(2**40)", ("MiB", "out-of-memory")),
        ("os.abort()", ("SIGABRT", "crashed")),
        ("raise ModelError(str('colorsys' in sys.modules) + path.read_text())", ("Falseweights",)),
        ("raise ValueError('a\\x1b[2Jb')", ("a\ufffd[2Jb",)),
    ],
)
def test_a_reader_can_read_what_it_was_given_and_nothing_else(
    reader: Any, tmp_path: Path, here: tuple[WeightPlan, Sketch], code: str, facts: tuple[str, ...]
) -> None:
    secret = str(tmp_path / "secret")
    with pytest.raises(ModelError) as caught, reader(code.replace("{secret!r}", repr(secret))) as there:
        there.sketch(here[0])
    expect_facts(str(caught.value), "m.own: ", *facts)
    assert (tmp_path / "secret").read_text() == "secret"


# A worker that a hostile file has taken over says what it likes.

TAKEN_OVER = """
import json, os, struct, sys, time
def say(values, arrays=(), data=b""):
    header = json.dumps({"values": values, "arrays": arrays}).encode()
    os.write(writing, struct.pack("<I", len(header)) + header + data)
reading, writing = int(sys.argv[1]), int(sys.argv[2])
say({"isolation": "landlock+seccomp", "leaks": []})
say({})
layer = {"name": "x", "block": 0, "kind": "dense", "width": 2, "invariant": False}
sketch = {"family": "f", "layers": [layer]}
plan = {"seed": 3, "rank": 4, "family": "f", "depth": 1,
        "layers": [{"name": "x", "block": 0, "kind": "dense", "width": 2}]}
shapes = {"0.neurons": [2], "0.raw": [2, 1, 4]}
arrays = [[[2], "int64"], [[2, 1, 4], "float16"]]
zero, one = struct.pack("<q", 0), struct.pack("<q", 1)
"""


@pytest.fixture
def taken_over(victim: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Opens weights whose worker runs this code."""

    def opening(code: str) -> Any:
        monkeypatch.setattr(starting, "_WORKER", f"{TAKEN_OVER}{code}\ntime.sleep(600)")
        return opened(victim, sandbox=Sandbox(timeout=120, template=False))

    return opening


PLAN = WeightPlan(3, 4, "f", 1, (), (), np.zeros(0, np.int64))


def test_what_is_right_is_believed_and_cleaned(taken_over: Any) -> None:
    code = 'layer["name"] = "a\\x1b[2J"; sketch["notes"] = sketch["unseen"] = ["n\\u202e"]; '
    code += 'say({"sketch": sketch, "shapes": shapes}, arrays, zero + one + bytes(16))'
    with taken_over(code) as there:
        sketch = there.sketch(PLAN)
    assert sketch.layers[0].name == "a\ufffd[2J"
    assert sketch.notes == sketch.unseen == ("n\ufffd",)


@pytest.mark.parametrize(
    "code",
    [
        "say({})",
        'say({"sketch": sketch})',
        'say({"sketch": sketch, "shapes": []})',
        'say({"sketch": sketch, "shapes": {}})',
        'say({"sketch": [], "shapes": shapes}, arrays)',
        'sketch["more"] = 1; say({"sketch": sketch, "shapes": shapes}, arrays)',
        # Other shapes and types than were said, and such as were not asked for.
        'say({"sketch": sketch, "shapes": shapes}, [[[2], "int64"], [[2, 1, 4], "float32"]])',
        'say({"sketch": sketch, "shapes": shapes}, [[[2], "int64"], [[2, 2, 4], "float16"]])',
        'shapes["0.raw"] = [2, 1, 5]; say({"sketch": sketch, "shapes": shapes}, [arrays[0], [[2, 1, 5], "float16"]])',
        'shapes["0.raw"] = [2, 99, 4]; say({"sketch": sketch, "shapes": shapes}, [arrays[0], [[2, 99, 4], "float16"]])',
        'shapes["0.raw"] = [1, 1, 4]; say({"sketch": sketch, "shapes": shapes}, [arrays[0], [[1, 1, 4], "float16"]])',
        'shapes["0.raw"] = [2]; say({"sketch": sketch, "shapes": shapes}, [arrays[0], [[2], "float16"]])',
        'shapes["0.raw"] = ["2", 1, 4]; say({"sketch": sketch, "shapes": shapes}, arrays)',
        'shapes["7.raw"] = [2, 1, 4]; say({"sketch": sketch, "shapes": shapes}, arrays)',
        'shapes["flat"] = [0]; say({"sketch": sketch, "shapes": shapes}, [*arrays, [[0], "float32"]])',
        'shapes["flat"] = [10**12]; say({"sketch": sketch, "shapes": shapes}, [*arrays, [[10**12], "float32"]])',
        'layer["width"] = 10**12; shapes.update({"0.neurons": [10**12], "0.raw": [10**12, 1, 4]}); '
        'say({"sketch": sketch, "shapes": shapes}, [[[10**12], "int64"], [[10**12, 1, 4], "float16"]])',
        'sketch["layers"] *= 9000; say({"sketch": sketch, "shapes": shapes}, arrays)',
        'sketch["notes"] = ["n"] * 99; say({"sketch": sketch, "shapes": shapes}, arrays)',
        'sketch["unseen"] = ["n"] * 99; say({"sketch": sketch, "shapes": shapes}, arrays)',
        # Numbers that cannot be.
        'say({"sketch": sketch, "shapes": shapes}, arrays, one + zero + bytes(16))',
        'say({"sketch": sketch, "shapes": shapes}, arrays, zero + zero + bytes(16))',
        'say({"sketch": sketch, "shapes": shapes}, arrays, zero + one + b"\\xff" * 16)',
        'say({"sketch": sketch, "shapes": shapes}, arrays, zero + one + b"\\x00\\x7b" * 8)',
    ],
)
def test_a_hostile_sketch(taken_over: Any, code: str) -> None:
    with taken_over(code) as there, refused(ModelError, "victim.safetensors: ", code="bad-answer"):
        there.sketch(PLAN)


def test_of_a_victim_the_planned_neurons_alone(taken_over: Any) -> None:
    code = 'shapes.update({"0.neurons": [1], "0.raw": [1, 1, 4]}); arrays = [[[1], "int64"], [[1, 1, 4], "float16"]]; '
    code += 'say({"sketch": sketch, "shapes": shapes}, arrays, one + bytes(8))'
    with taken_over(code) as there, refused(ModelError, code="bad-answer"):
        there.sketch(PLAN, victim=True)


@pytest.mark.parametrize(
    "code",
    [
        "say({})",
        'say({"plan": plan, "shapes": {}})',
        'say({"plan": plan, "shapes": {"neurons.0": [10**12], "ids": [0]}}, [[[10**12], "int64"], [[0], "int64"]])',
        'say({"plan": plan, "shapes": {"neurons.0": [1, 1], "ids": [0]}}, [[[1, 1], "int64"], [[0], "int64"]], zero)',
        'say({"plan": plan, "shapes": {"neurons.0": [1], "other": [0]}}, [[[1], "int64"], [[0], "int64"]], zero)',
        'say({"plan": plan, "shapes": {"neurons.0": [3], "ids": [0]}}, [[[3], "int64"], [[0], "int64"]], zero * 3)',
        'plan["tokens"] = ["t" * 2000]; '
        'say({"plan": plan, "shapes": {"neurons.0": [1], "ids": [1]}}, [[[1], "int64"], [[1], "int64"]], zero * 2)',
        'plan["flat"] = 10**12; '
        'say({"plan": plan, "shapes": {"neurons.0": [1], "ids": [0]}}, [[[1], "int64"], [[0], "int64"]], zero)',
        'plan["layers"] = []; say({"plan": plan, "shapes": {"ids": [0]}}, [[[0], "int64"]])',
    ],
)
def test_a_hostile_plan(taken_over: Any, code: str) -> None:
    with taken_over(code) as there, refused(ModelError, "victim.safetensors: ", code="bad-answer"):
        there.plan(seed=3)


def test_a_format_whose_weights_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "m.tflite").write_bytes(b"model")
    with refused(ModelError, "m.tflite: ", "weights", code="no-weights"), opened(tmp_path / "m.tflite"):
        pass
