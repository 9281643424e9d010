"""GGUF files: the oracle is the package gguf, which writes them, and dequantises whole tensors."""

import contextlib
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deepjudge_gguf import _weights
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stored import stored

from deepjudge_core.components.opening import open_model
from deepjudge_core.components.registry import load_registry
from deepjudge_core.errors import ModelError
from deepjudge_core.files.memory import bounded
from deepjudge_core.testing import check_weights

gguf = pytest.importorskip("gguf")
quants = pytest.importorskip("gguf.quants")

ROOM = 2**26  # bytes that a reader may take of a file of a few hundred
QUANTISED = sorted(kind.name for kind in gguf.GGMLQuantizationType if kind in quants._type_traits)
PLAIN = {"F32": np.float32, "F16": np.float16, "F64": np.float64, "I8": np.int8, "I32": np.int32}


def write(
    path: Path, tensors: Mapping[str, tuple[Any, str]], about: Callable[[Any], None] | None = None, kind: str = "llama"
) -> Path:
    """A file by the package itself, of raw bytes of each type."""
    writer = gguf.GGUFWriter(path, kind)
    for name, (array, element) in tensors.items():
        writer.add_tensor(name, array, raw_dtype=gguf.GGMLQuantizationType[element])
    if about:
        about(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def random_rows(kind: str, rows: int, rng: np.random.Generator) -> tuple[Any, Any]:
    """Bytes of rows of two blocks, and what they are by the package; scales are small, or not finite by chance."""
    element = gguf.GGMLQuantizationType[kind]
    _, width = gguf.GGML_QUANT_SIZES[element]
    while True:
        data = rng.integers(0, 256, (rows, 2 * width), np.uint8)
        with np.errstate(all="ignore"):
            values = quants.dequantize(data, element)
        finite = np.isfinite(values).all(1)
        if finite.sum() > rows // 2:
            return data[finite], values[finite]


@pytest.mark.parametrize("kind", QUANTISED)
def test_rows_of_every_type_are_the_packages(tmp_path: Path, kind: str) -> None:
    data, values = random_rows(kind, 40, np.random.default_rng(0))
    weights = stored(write(tmp_path / "w.gguf", {"w": (data, kind)}))
    check_weights(weights)
    assert weights.tensors["w"] == type(weights.tensors["w"])(values.shape, kind)
    assert np.array_equal(weights.read("w"), values)
    assert np.array_equal(weights.read("w", slice(3, 7)), values[3:7])
    weights.close()


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_tensors_of_plain_types_stand_where_the_package_writes_them(tmp_path: Path, data: st.DataObject) -> None:
    rng, tensors = np.random.default_rng(data.draw(st.integers(0, 99))), dict[str, tuple[Any, str]]()
    for name in data.draw(st.lists(st.text("abw.é0", min_size=1, max_size=8), min_size=1, max_size=5, unique=True)):
        kind = data.draw(st.sampled_from(sorted(PLAIN)))
        shape = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
        tensors[name] = ((rng.normal(size=shape) * 99).astype(PLAIN[kind]), kind)
    alignment = data.draw(st.sampled_from([8, 32, 256]))
    path = write(tmp_path / "drawn.gguf", tensors, lambda writer: writer.add_custom_alignment(alignment))
    with contextlib.closing(_weights(path)) as weights:
        assert list(weights.tensors) == list(tensors)
        for name, (array, _) in tensors.items():
            assert np.array_equal(weights.read(name), array.astype(np.float32))
            assert np.array_equal(weights.read(name, slice(1, 3)), array[1:3].astype(np.float32))


def test_a_list_of_numbers_that_share_their_bytes_is_read_in_parts(tmp_path: Path) -> None:
    values = np.linspace(-1, 1, 64, dtype=np.float32)
    data = quants.quantize(values, gguf.GGMLQuantizationType.Q8_0)
    weights = stored(write(tmp_path / "w.gguf", {"w": (data, "Q8_0")}))
    assert np.array_equal(
        weights.read("w", slice(30, 40)), quants.dequantize(data, gguf.GGMLQuantizationType.Q8_0)[30:40]
    )
    weights.close()


def describe(writer: Any) -> None:
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_block_count(3)
    writer.add_embedding_length(8)
    writer.add_chat_template("x" * 2**15)
    writer.add_token_list(["<s>", "Ġa", "é"])
    writer.add_token_scores([0.0] * 3)
    writer.add_token_merges(["a b"] * 5)
    writer.add_array("llama.rope.sections", [1, 2])
    writer.add_bool("tokenizer.ggml.add_bos_token", True)


def test_the_configuration_and_the_vocabulary_are_the_files_own(tmp_path: Path) -> None:
    weights = stored(write(tmp_path / "w.gguf", {"w": (np.ones((2, 2), np.float32), "F32")}, describe))
    expected = {
        "model_type": "llama",
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "num_hidden_layers": 3,
        "hidden_size": 8,
        "llama.rope.sections": [1, 2],
        "tokenizer.ggml.add_bos_token": True,
    }
    assert expected.items() <= dict(weights.config).items()
    assert weights.tokens() == ("<s>", "Ġa", "é")
    check_weights(weights)
    weights.close()
    weights = stored(write(tmp_path / "none.gguf", {"w": (np.ones((2, 2), np.float32), "F32")}))
    assert weights.tokens() is None
    weights.close()


def permuted(weight: Any, heads: int) -> Any:
    """As llama.cpp's converter does it (conversion of LlamaModel, ``permute``)."""
    shape = weight.shape
    return weight.reshape(heads, 2, shape[0] // heads // 2, *shape[1:]).swapaxes(1, 2).reshape(shape)


def test_rows_of_queries_and_keys_are_in_the_order_of_hugging_face(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    names = ("blk.0.attn_q.weight", "blk.0.attn_k.weight", "blk.0.attn_v.weight")
    original = {name: rng.normal(size=(16 if "_q" in name else 8, 8)).astype(np.float32) for name in names}
    heads = {"blk.0.attn_q.weight": 2, "blk.0.attn_k.weight": 1}
    converted = {name: permuted(array, heads[name]) if name in heads else array for name, array in original.items()}
    for kind, expected in (("llama", original), ("qwen2", converted)):
        about = {name: (array, "F32") for name, array in converted.items()}
        weights = stored(write(tmp_path / f"{kind}.gguf", about, describe, kind))
        for name in names:
            for rows in (None, slice(3, 11), slice(5, 6)):
                assert np.array_equal(weights.read(name, rows), expected[name][rows or slice(None)]), (kind, name, rows)
        weights.close()


def split(folder: Path) -> list[Path]:
    writer = gguf.GGUFWriter(folder / "m.gguf", "llama", split_max_tensors=1)
    writer.add_token_list(["a", "b"])
    for place in range(3):
        writer.add_tensor(f"w{place}", np.full((2, 2), place, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return sorted(folder.glob("*.gguf"))


def test_a_model_in_several_files_is_one(tmp_path: Path) -> None:
    files = split(tmp_path)
    assert len(files) == 3
    assert load_registry().adapters.in_folder(tmp_path) == files[:1]
    weights = stored(files[0])
    assert [weights.read(name)[0, 0] for name in sorted(weights.tensors)] == [0, 1, 2]
    assert weights.tokens() == ("a", "b")
    weights.close()
    with pytest.raises(ModelError, match="the first of the 3 files"):
        stored(files[1])
    files[2].unlink()
    with pytest.raises(ModelError, match="00003-of-00003"):
        stored(files[0])


def test_a_gguf_file_is_not_run(tmp_path: Path) -> None:
    path = write(tmp_path / "w.gguf", {"w": (np.ones((2, 2), np.float32), "F32")})
    with pytest.raises(ModelError, match="compare"):
        open_model(path)


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def header(tensors: int, keys: int, rest: bytes = b"", version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, keys) + rest


def info(name: bytes, shape: list[int], offset: int = 0, kind: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


KEY = text(b"k")
HOSTILE = {
    "empty": b"",
    "short": b"GGUF\x03",
    "another file": b"PK\x03\x04" + bytes(60),
    "version 1": header(0, 0, version=1),
    "big-endian": b"GGUF" + struct.pack(">IQQ", 3, 0, 0),
    "no counts": b"GGUF\x03\0\0\0",
    "many tensors": header(2**62, 0),
    "tensors that are not there": header(1000, 0),
    "many keys": header(0, 2**62),
    "a long key": header(0, 1, struct.pack("<Q", 2**62)),
    "an empty key": header(0, 1, text(b"") + struct.pack("<IB", 0, 1)),
    "a key twice": header(0, 2, 2 * (KEY + struct.pack("<IB", 0, 1))),
    "a key that is no UTF-8": header(0, 1, text(b"\xff") + struct.pack("<IB", 0, 1)),
    "a value of an unknown type": header(0, 1, KEY + struct.pack("<I", 77)),
    "a long text": header(0, 1, KEY + struct.pack("<IQ", 8, 2**60)),
    "a long list": header(0, 1, KEY + struct.pack("<IIQ", 9, 4, 2**60)),
    "a long list of texts": header(0, 1, KEY + struct.pack("<IIQ", 9, 8, 2**60)),
    "many empty texts": header(0, 1, KEY + struct.pack("<IIQ", 9, 8, 2**21 + 1) + bytes(2**24 + 8)),
    "a list of lists": header(0, 1, KEY + struct.pack("<IIQ", 9, 9, 1)),
    "many tokens": header(0, 1, text(b"tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 2**40)),
    "tokens that are numbers": header(0, 1, text(b"tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 4, 1)),
    "an alignment of 0": header(0, 1, text(b"general.alignment") + struct.pack("<II", 4, 0)),
    "an alignment of 3": header(0, 1, text(b"general.alignment") + struct.pack("<II", 4, 3)),
    "an alignment of 2^31": header(0, 1, text(b"general.alignment") + struct.pack("<II", 4, 2**31)),
    "an alignment that is text": header(0, 1, text(b"general.alignment") + struct.pack("<I", 8) + text(b"32")),
    "a tensor twice": header(2, 0, info(b"a", [8]) + info(b"a", [8], 32) + bytes(128)),
    "many axes": header(1, 0, info(b"a", [1] * 9) + bytes(64)),
    "2^31 axes": header(1, 0, text(b"a") + struct.pack("<I", 2**31) + bytes(64)),
    "a huge axis": header(1, 0, info(b"a", [2**60])),
    "a product that is 0 in 64 bits": header(1, 0, info(b"a", [2**32, 2**32]) + bytes(64)),
    "an empty tensor": header(1, 0, info(b"a", [0, 2**40]) + bytes(64)),
    "an unknown type": header(1, 0, info(b"a", [8], kind=4) + bytes(64)),
    "half a block": header(1, 0, info(b"a", [33], kind=8) + bytes(128)),
    "blocks without an axis": header(1, 0, info(b"a", [], kind=8) + bytes(128)),
    "overlapping": header(2, 0, info(b"a", [8]) + info(b"b", [8], 0) + bytes(128)),
    "a gap": header(2, 0, info(b"a", [8]) + info(b"b", [8], 64) + bytes(256)),
    "out of line": header(1, 0, info(b"a", [8], 1) + bytes(128)),
    "behind the end": header(1, 0, info(b"a", [2**20]) + bytes(128)),
    "an offset of 2^63": header(1, 0, info(b"a", [8], 2**63) + bytes(128)),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_in_one_line_and_takes_no_memory(tmp_path: Path, name: str) -> None:
    path = tmp_path / "hostile.gguf"
    path.write_bytes(HOSTILE[name])
    with bounded(ROOM), pytest.raises(ModelError) as caught:
        stored(path)
    assert "hostile" in str(caught.value)


def test_a_whole_file_that_hostile_ones_are_made_of_is_read(tmp_path: Path) -> None:
    path = tmp_path / "whole.gguf"
    rest = KEY + struct.pack("<IB", 0, 1) + info(b"a", [8])
    whole = header(1, 1, rest)
    path.write_bytes(whole + bytes(-len(whole) % 32) + np.arange(8, dtype="<f4").tobytes())
    weights = stored(path)
    assert weights.read("a").tolist() == list(range(8))
    assert weights.config["k"] == 1
    weights.close()


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_damaged_files_are_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    original = tmp_path / "original.gguf"
    if not original.exists():
        q8 = quants.quantize(np.ones((2, 64), np.float32), gguf.GGMLQuantizationType.Q8_0)
        tensors = {"blk.0.attn_q.weight": (np.ones((8, 4), np.float32), "F32"), "q": (q8, "Q8_0")}
        write(original, tensors, describe)
    whole = bytearray(original.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(4, len(whole) - 1))
        whole[place] = data.draw(st.sampled_from([0, 1, 2, 8, 9, 32, 127, 128, 255]))
    path = tmp_path / "damaged.gguf"
    path.write_bytes(whole[: data.draw(st.sampled_from([None, 30, 2000, -1]))])
    with bounded(ROOM), contextlib.suppress(ModelError), contextlib.closing(_weights(path)) as weights:
        weights.tokens()
        for name in weights.tensors:
            weights.read(name)
