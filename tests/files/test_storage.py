"""The tool's own files: whole, unchanged, and of this tool, or refused."""

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toys
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import save

from deepjudge_core import (
    load_calibration,
    load_observation,
    load_suite,
    save_calibration,
    save_observation,
    save_suite,
)
from deepjudge_core.errors import FileFormatError
from deepjudge_core.files import storage

SMALL = storage.seal(
    "suite",
    {"seed": 3, "share": 0.30000000000000004, "name": "ä\n", "none": None, "pairs": [[1, "a"]]},
    {"x": np.arange(6, dtype=np.float32).reshape(2, 3), "y": np.arange(2), "none": np.zeros((0, 4), np.int64)},
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.safetensors"


def refused(path: Path, code: str, *facts: str, kinds: tuple[str, ...] = ("suite",)) -> None:
    with pytest.raises(FileFormatError) as caught:
        storage.read(path, kinds)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
    assert (caught.value.code, [fact for fact in facts if fact not in str(caught.value)]) == (code, [])


def same(found: storage.Content, content: storage.Content) -> bool:
    arrays = found.arrays.keys() == content.arrays.keys() and all(
        np.array_equal(found.arrays[k], content.arrays[k]) and found.arrays[k].dtype == content.arrays[k].dtype
        for k in content.arrays
    )
    return arrays and (found.kind, found.header, found.digest) == (content.kind, content.header, content.digest)


def test_whose_a_file_is(path: Path) -> None:
    storage.write(path, SMALL)
    assert storage.is_own(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    assert storage.is_own(path)
    weights = {"deepjudge": np.zeros(3)}
    for other in (
        save(weights),
        save(weights, metadata={"format": "pt"}),
        whole[:40],
        b"",
        b"deepjudge",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 2**63) + whole[8:],
        struct.pack("<Q", 20) + b'{"__metadata__": 37 }',
    ):
        path.write_bytes(other)
        assert not storage.is_own(path)
    assert not storage.is_own(path.parent)
    assert not storage.is_own(path.with_name("none"))


def test_there_and_back(path: Path) -> None:
    storage.write(path, SMALL)
    first = path.read_bytes()
    found = storage.read(path, ["observation", "suite"])
    assert same(found, SMALL)
    storage.write(path, storage.seal(found.kind, found.header, dict(reversed(found.arrays.items()))))
    assert path.read_bytes() == first


@pytest.mark.parametrize("flip", [0x01, 0x20, 0x80, 0xFF])
def test_every_byte_counts(path: Path, flip: int) -> None:
    storage.write(path, SMALL)
    whole = path.read_bytes()
    for place, byte in enumerate(whole):
        path.write_bytes(whole[:place] + bytes([byte ^ flip]) + whole[place + 1 :])
        try:
            found = storage.read(path, ["suite"])
        except FileFormatError as error:
            assert str(error).startswith(f"{path}: ")  # noqa: PT017
        else:
            # The last digit of a number that is the nearest to both, say.
            assert same(found, SMALL), place


def test_every_length_counts(path: Path) -> None:
    storage.write(path, SMALL)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        refused(path, "damaged-file", "a deepjudge suite")
    path.write_bytes(whole + b"\0")
    refused(path, "damaged-file")


@pytest.mark.parametrize("kind", ["suite", "observation", "calibration"])
def test_real_files(path: Path, kind: str) -> None:
    write, read = {
        "suite": (lambda: save_suite(path, toys.suite()), load_suite),
        "observation": (lambda: save_observation(path, toys.seen(1)), load_observation),
        "calibration": (
            lambda: save_calibration(path, toys.calibration()),
            lambda path: load_calibration(path, toys.suite(), registry=toys.registry()),
        ),
    }[kind]
    write()
    whole = path.read_bytes()
    write()
    assert path.read_bytes() == whole
    read(path)
    for place in range(0, len(whole), max(1, len(whole) // 300)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        try:
            read(path)
        except FileFormatError:
            continue
        # What is not refused says the same.
        write_again = storage.read(path, [kind])
        assert write_again.digest in whole.decode("latin-1")
    path.write_bytes(whole)
    others = {"suite": load_suite, "observation": load_observation} | {
        "calibration": lambda path: load_calibration(path, toys.suite(), registry=toys.registry())
    }
    for other, load in others.items():
        if other != kind:
            with pytest.raises(FileFormatError) as caught:
                load(path)
            assert caught.value.code == "wrong-file"
            assert f"a deepjudge {other}" in str(caught.value)
            assert f"found a deepjudge {kind};" in str(caught.value)


def test_a_write_that_fails_leaves_what_was_there(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_text("old")

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    for step in ("os.fsync", "pathlib.Path.replace", "os.open"):
        with monkeypatch.context() as patch:
            patch.setattr(step, full)
            with pytest.raises(FileFormatError, match=r"a\.safetensors: .*No space left on device") as caught:
                storage.write(path, SMALL)
        assert caught.value.code == "cannot-write"
        assert path.read_text() == "old"
        assert list(path.parent.iterdir()) == [path]

    def stop(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", stop)
    with pytest.raises(KeyboardInterrupt):
        storage.write(path, SMALL)
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_where_a_file_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("old")
    for place, reason in (
        ("folder", "Is a directory"),
        ("file/below", "Not a directory|File exists"),
        ("x" * 300, "name too long"),
    ):
        with pytest.raises(FileFormatError, match=f"{place}: .*({reason})") as caught:
            storage.write(tmp_path / place, SMALL)
        assert caught.value.code == "cannot-write"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]


def test_a_pipe_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for name in ("pipe", "link"):
        with pytest.raises(FileFormatError, match=f"{name}: ") as caught:
            storage.write_bytes(tmp_path / name, b"")
        assert caught.value.code == "cannot-write"
    assert (tmp_path / "pipe").is_fifo()
    assert (tmp_path / "link").is_symlink()


def test_a_file_is_as_readable_as_others(tmp_path: Path) -> None:
    storage.write(tmp_path / "new" / "folders" / "a", SMALL)
    (tmp_path / "b").write_text("")
    assert (tmp_path / "new/folders/a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_what_is_no_file_of_this_tool(path: Path, tmp_path: Path) -> None:
    refused(path, "cannot-read")
    refused(tmp_path, "cannot-read", "a deepjudge suite", "a folder")
    for content in (b"", b"text", bytes(1000), struct.pack("<Q", 2**60) + b"{}"):
        path.write_bytes(content)
        refused(path, "damaged-file", "a deepjudge suite")
    path.write_bytes(save({"weight": np.zeros(3, np.float32)}, metadata={"format": "pt"}))
    refused(path, "wrong-file", "a deepjudge suite")
    path.write_bytes(save({"weight": np.zeros(3, np.float32)}))
    refused(path, "wrong-file", "a deepjudge suite")
    storage.write(path, SMALL)
    kinds = ("observation", "calibration")
    refused(path, "wrong-file", "a deepjudge observation or calibration", "a deepjudge suite", kinds=kinds)


def raw(path: Path, header: str, tensors: dict[str, Any] | None = None, data: bytes = b"") -> None:
    text = json.dumps({"__metadata__": {"deepjudge": header}} | (tensors or {})).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def test_a_header_of_another_kind(path: Path) -> None:
    whole = {"schema": "deepjudge/suite/1", "sha256": "0" * 64, "manifest": {}}
    raw(path, json.dumps(whole | {"schema": "deepjudge/suite/2"}))
    refused(path, "wrong-file", "version 1", "found 2")
    for header in (
        "",
        "[]",
        "{}",
        "null",
        "[" * 100000,
        json.dumps(whole | {"schema": 1}),
        json.dumps(whole | {"schema": "deepjudge/suite"}),
        json.dumps(whole | {"schema": "other/suite/1"}),
        json.dumps(whole | {"manifest": float("nan")}),
    ):
        raw(path, header)
        refused(path, "damaged-file", "header")
    raw(path, json.dumps(whole))
    refused(path, "damaged-file", "SHA-256")
    for digest in (5, None):
        raw(path, json.dumps(whole | {"sha256": digest}))
        refused(path, "damaged-file", "header", "sha256: ")
    for kind, size in (("BF16", 2), ("F8_E4M3", 1), ("F8_E8M0", 1), ("BOOL", 1), ("C64", 8)):
        tensor = {"x": {"dtype": kind, "shape": [1], "data_offsets": [0, size]}}
        raw(path, json.dumps(whole), tensor, bytes(size))
        refused(path, "damaged-file")


def test_numbers_that_are_none(path: Path) -> None:
    for wrong in (np.nan, np.inf):
        storage.write(path, storage.seal("suite", {}, {"x": np.array([1, wrong])}))
        refused(path, "damaged-file", "'x'", "NaN or infinity")
    with pytest.raises(ValueError, match="not JSON compliant"):
        storage.seal("suite", {"a": float("nan")}, {})


def test_the_digest_tells_everything_apart() -> None:
    arrays = {"x": np.arange(4), "y": np.arange(4.0)}
    contents = [
        ("suite", {}, arrays),
        ("observation", {}, arrays),
        ("suite", {"a": 1}, arrays),
        ("suite", {"a": "1"}, arrays),
        ("suite", {}, arrays | {"x": np.arange(4, dtype=np.int32)}),
        ("suite", {}, arrays | {"x": np.arange(4).reshape(2, 2)}),
        ("suite", {}, arrays | {"x": np.arange(4)[::-1]}),
        ("suite", {}, {"y": arrays["x"], "x": arrays["y"]}),
        ("suite", {}, {"x": arrays["x"]}),
        ("suite", {}, {"x": arrays["x"], "z": arrays["y"]}),
    ]
    assert len({storage.seal(*content).digest for content in contents}) == len(contents)
    # but not how an array lies in memory
    swapped = np.asfortranarray(np.arange(6).reshape(2, 3))
    assert storage.seal("a", {}, {"x": swapped}).digest == storage.seal("a", {}, {"x": swapped.copy("C")}).digest


def texts() -> st.SearchStrategy[str]:
    return st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


manifests = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts(), inner, max_size=3),
    max_leaves=8,
)
arrays = st.dictionaries(
    texts().filter(lambda name: name != "__metadata__"),
    hnp.arrays(
        st.sampled_from([np.float32, np.float64, np.int64, np.uint8, np.bool_]),
        hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=3),
        elements={"allow_nan": False, "allow_infinity": False},
    ),
    max_size=3,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(manifest=st.dictionaries(texts(), manifests, max_size=3), arrays=arrays)
def test_whatever_is_written_is_read(path: Path, manifest: dict[str, Any], arrays: dict[str, Any]) -> None:
    content = storage.seal("suite", manifest, arrays)
    storage.write(path, content)
    assert same(storage.read(path, ["suite"]), content)


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        (lambda m, a: m.pop("victim"), "'victim'"),
        (lambda m, a: m.pop("notes"), "'notes'"),
        (lambda m, a: m.update(seed="x"), "seed: expected an integer"),
        (lambda m, a: m.update(bounds=[1]), "bounds: expected an array of 2 items, found [1]"),
        (lambda m, a: m.update(layers=None), "layers: expected an array, found null"),
        (lambda m, a: m.update(layers=["dense1"]), "the victim's answers have other layers"),
        (lambda m, a: m["generators"][0].pop("name"), "name"),
        (lambda m, a: m["generators"][0].update(more=1), "more"),
        (lambda m, a: m["victim"]["model"].pop("access"), "'access'"),
        (lambda m, a: m["victim"]["model"].update(access=["EVERYTHING"]), "EVERYTHING"),
        (lambda m, a: m["victim"]["model"].update(classes=5), "do not have the shape"),
        (lambda m, a: m["victim"]["model"].update(layers=[["logits", 4]]), "the victim's answers have other layers"),
        (lambda m, a: a.pop("labels"), "'labels'"),
        (lambda m, a: a.update(labels=a["labels"].astype(np.float64)), "'labels' does not have one whole number"),
        (lambda m, a: a.update(labels=a["labels"][1:]), "'labels' does not have one whole number"),
        (lambda m, a: a.update(labels=a["labels"] + 4), "'labels' is not within 0..3"),
        (lambda m, a: a.update(seeds=a["seeds"] + 1), "'seeds' is not within -1..19"),
        (lambda m, a: a.update(layers=a["layers"] + 1), "'layers' is not within -1..0"),
        (lambda m, a: a.update(neurons=a["neurons"] - 1), "'neurons' is not within -1.."),
        (lambda m, a: a.update(sets=np.maximum(a["sets"], 1)), "it does not have exactly one clean case per seed"),
        (lambda m, a: a.update(inputs=a["inputs"].astype(np.float64)), "its inputs are not a batch of float32"),
        (lambda m, a: a.update(inputs=a["inputs"][1:]), "the victim's answers have another number of cases"),
        (lambda m, a: a.update({"victim.probabilities": a["victim.probabilities"][1:]}), "different numbers of cases"),
        (lambda m, a: a.update({"victim.activations.0": a["victim.activations.0"][1:]}), "different numbers of cases"),
        (lambda m, a: a.pop("victim.activations.0"), "victim.activations.0"),
    ],
)
def test_a_suite_whose_parts_do_not_fit(path: Path, change: Callable[[Any, Any], Any], fact: str) -> None:
    # Sealed anew: by somebody's program, not by a damage.
    save_suite(path, toys.suite())
    content = storage.read(path, ["suite"])
    manifest, arrays = json.loads(json.dumps(content.header)), dict(content.arrays)
    change(manifest, arrays)
    storage.write(path, storage.seal("suite", manifest, arrays))
    with pytest.raises(FileFormatError) as caught:
        load_suite(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert caught.value.code == "damaged-file"
    assert fact in str(caught.value)
