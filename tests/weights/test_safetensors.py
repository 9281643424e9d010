"""Files of safetensors and Hugging Face's folders, read without a framework. The oracle is the library safetensors."""

import contextlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_strategies
from safetensors.numpy import save
from stored import stored

from deepjudge_core.errors import ModelError
from deepjudge_core.files.memory import bounded
from deepjudge_core.weights.reading.tensors import open_tensors

KINDS = {
    **{name: name for name in ("float64", "float32", "float16", "bool")},
    **{f"{sign}int{bits}": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
    **{name: getattr(ml_dtypes, name) for name in ("bfloat16", "float8_e4m3fn", "float8_e5m2")},
}
ROOM = 2**26  # bytes that a reader may take of a file of a few hundred


def header(entries: Any, data: bytes = b"") -> bytes:
    """A file of safetensors, whatever the header says."""
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(shape: list[int], start: int, stop: int, kind: str = "F32") -> Mapping[str, Any]:
    return {"dtype": kind, "shape": shape, "data_offsets": [start, stop]}


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_every_number_of_every_type_is_the_librarys(tmp_path: Path, data: st.DataObject) -> None:
    """Bytes are drawn, not numbers: of each type every bit pattern that is a finite number comes up."""
    arrays = {}
    for name in data.draw(st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=4, unique=True)):
        kind = np.dtype(KINDS[data.draw(st.sampled_from(sorted(KINDS)))])
        shape = data.draw(numpy_strategies.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
        count = int(np.prod(shape)) * kind.itemsize
        raw = np.frombuffer(data.draw(st.binary(min_size=count, max_size=count)), np.uint8)
        arrays[name] = (raw % 2 if kind.kind == "b" else raw).view(kind).reshape(shape)
    path = tmp_path / "drawn.safetensors"
    path.write_bytes(save(arrays))
    with contextlib.closing(open_tensors(path, name="drawn")) as weights:
        assert {name: spec.shape for name, spec in weights.tensors.items()} == {n: a.shape for n, a in arrays.items()}
        for name, array in arrays.items():
            with np.errstate(all="ignore"):
                expected = array.astype(np.float32)
            first, last = sorted(data.draw(st.tuples(st.integers(0, 6), st.integers(0, 6))))
            for rows in (None, slice(first, last)) if array.ndim else (None,):
                part = expected if rows is None else expected[rows]
                if np.isfinite(part).all():
                    read = weights.read(name, rows)
                    assert read.dtype == np.float32
                    assert np.array_equal(read, part), (name, array.dtype)
                else:
                    with pytest.raises(ModelError, match="finite"):
                        weights.read(name, rows)


def test_rows_are_read_and_not_the_whole(tmp_path: Path) -> None:
    path = tmp_path / "large.safetensors"
    with path.open("wb") as file:
        file.write(header({"w": entry([2**20, 256], 0, 2**30)}))
        file.truncate(file.tell() + 2**30)
        file.seek(-1024, 2)
        file.write(np.arange(256, dtype="<f4").tobytes())
    weights = open_tensors(path, name="large")
    with bounded(ROOM):
        assert weights.read("w", slice(2**20 - 1, None)).tolist() == [list(range(256))]
    weights.close()


def test_what_is_read_belongs_to_the_reader(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(save({"w": np.ones(3, np.float32), "h": np.ones(3, np.float16)}))
    weights = open_tensors(path, name="w")
    for name in ("w", "h"):
        weights.read(name)[:] = 2
        assert weights.read(name).tolist() == [1, 1, 1]
    with pytest.raises(KeyError):
        weights.read("other")
    with pytest.raises(ValueError, match="step 1"):
        weights.read("w", slice(0, 3, 2))
    weights.close()


HOSTILE = {
    "empty": b"",
    "short": b"\x00" * 7,
    "header longer than the file": struct.pack("<Q", 2**62) + b"{}",
    "header longer than any": struct.pack("<Q", 2**25) + b" " * 2**25,
    "no JSON": header(b"{'a': 1}"),
    "no UTF-8": header(b'{"\xff": {}}'),
    "no object": header(b"[]"),
    "deep": header(b'{"a":' + b"[" * 200_000),
    "a number of many digits": header(b'{"a": {"dtype": "F32", "shape": [' + b"9" * 10_000 + b"]}}"),
    "a key twice": header(
        b'{"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]},'
        b' "a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}',
        b"\0",
    ),
    "NaN": header(b'{"a": {"dtype": "F32", "shape": [NaN], "data_offsets": [0, 4]}}', b"\0" * 4),
    "many names": header(b"{" + b",".join(b'"%d":{}' % place for place in range(2**20)) + b"}"),
    "unknown key": header({"a": {**entry([1], 0, 4), "code": "x"}}, b"\0" * 4),
    "unknown type": header({"a": entry([1], 0, 4, "F33")}, b"\0" * 4),
    "metadata that is no text": header({"__metadata__": {"a": 1}}),
    "a huge axis": header({"a": entry([2**60], 0, 2**62)}),
    "a product beyond 64 bits": header({"a": entry([2**40, 2**40], 0, 0)}),
    "an empty tensor of huge axes": header({"a": entry([0, 2**40, 2**40], 0, 0)}),
    "many axes": header({"a": entry([1] * 1000, 0, 4)}, b"\0" * 4),
    "a negative axis": header({"a": entry([-1, -1], 0, 4)}, b"\0" * 4),
    "a negative place": header({"a": entry([1], -4, 0)}, b"\0" * 4),
    "overlapping": header({"a": entry([2], 0, 8), "b": entry([1], 4, 8)}, b"\0" * 8),
    "a gap": header({"a": entry([1], 0, 4), "b": entry([1], 8, 12)}, b"\0" * 12),
    "behind the end": header({"a": entry([2], 0, 8)}, b"\0" * 4),
    "more data": header({"a": entry([1], 0, 4)}, b"\0" * 8),
    "other sizes": header({"a": entry([3], 0, 8)}, b"\0" * 8),
    "half a byte": header({"a": entry([3], 0, 1, "F4")}, b"\0"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_in_one_line_and_takes_no_memory(tmp_path: Path, name: str) -> None:
    path = tmp_path / "hostile.safetensors"
    path.write_bytes(HOSTILE[name])
    room = ROOM if len(HOSTILE[name]) < 2**20 else 2**29
    with bounded(room), pytest.raises(ModelError) as caught:
        open_tensors(path, name="hostile")
    assert caught.value.code == ModelError.code
    assert "hostile" in str(caught.value)


def test_a_file_that_was_cut_after_it_was_opened_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(save({"w": np.ones((4, 4), np.float32)}))
    weights = open_tensors(path, name="w")
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ModelError, match="damaged"):
        weights.read("w")
    weights.close()


def shards(folder: Path, parts: Mapping[str, Mapping[str, Any]], weight_map: Mapping[str, str] | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    for file, arrays in parts.items():
        (folder / file).write_bytes(save(dict(arrays)))
    weight_map = weight_map or {name: file for file, arrays in parts.items() for name in arrays}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    return index


def test_several_files_are_one_model(tmp_path: Path) -> None:
    one, two = {"a": np.arange(6, dtype=np.float32).reshape(3, 2)}, {"b": np.float16([1.5])}
    index = shards(tmp_path, {"model-1.safetensors": one, "model-2.safetensors": two})
    weights = stored(index)
    assert weights.read("a", slice(1, 3)).tolist() == [[2, 3], [4, 5]]
    assert weights.read("b").tolist() == [1.5]
    weights.close()


@pytest.mark.parametrize(
    "weight_map",
    [
        {"a": "../model-1.safetensors"},
        {"a": "/model-1.safetensors"},
        {"a": "sub/model-1.safetensors"},
        {"a": "model-3.safetensors"},
        {"a": "model-1.safetensors", "more": "model-1.safetensors"},
        {"other": "model-1.safetensors"},
    ],
)
def test_an_index_names_files_of_its_folder_and_what_is_in_them(tmp_path: Path, weight_map: Mapping[str, str]) -> None:
    index = shards(tmp_path / "model", {"model-1.safetensors": {"a": np.zeros(2, np.float32)}}, weight_map)
    (tmp_path / "model-1.safetensors").write_bytes(save({"a": np.zeros(2, np.float32)}))
    with pytest.raises(ModelError):
        stored(index)


def folder(path: Path, **texts: str) -> Path:
    path.mkdir()
    (path / "model.safetensors").write_bytes(save({"w": np.ones((3, 2), np.float32)}))
    (path / "config.json").write_text('{"model_type": "bert", "num_attention_heads": 2}')
    for name, text in texts.items():
        (path / name.replace("__", ".")).write_text(text, "utf-8")
    return path


VOCABULARIES = {
    "a table": (
        {
            "tokenizer__json": '{"model": {"type": "BPE", "vocab": {"a": 0, "Ġb": 1}, "merges": [["a", "b"]]}, '
            '"added_tokens": [{"id": 3, "content": "<s>", "special": true}]}'
        },
        ("a", "Ġb", "", "<s>"),
    ),
    "a list with scores": ({"tokenizer__json": '{"model": {"vocab": [["▁a", 0.0], ["b", -1.5]]}}'}, ("▁a", "b")),
    "GPT-2's": ({"vocab__json": '{"b": 1, "a": 0}', "added_tokens__json": '{"c": 2}'}, ("a", "b", "c")),
    "BERT's": ({"vocab__txt": "[PAD]\n##a\n\u2028\n"}, ("[PAD]", "##a", "\u2028")),
    "none": ({}, None),
    "no tokens": ({"tokenizer__json": '{"model": {"type": "Own"}, "post_processor": null}'}, None),
}


@pytest.mark.parametrize("name", VOCABULARIES)
def test_the_tokens_of_a_folder_stand_at_their_numbers(tmp_path: Path, name: str) -> None:
    texts, expected = VOCABULARIES[name]
    weights = stored(folder(tmp_path / "model", **texts))
    assert weights.config["num_attention_heads"] == 2
    assert weights.tokens() == expected
    assert weights.read("w").shape == (3, 2)
    weights.close()


@pytest.mark.parametrize(
    "texts",
    [
        {"tokenizer__json": '{"model": {"vocab": {"a": -1}}}'},
        {"tokenizer__json": '{"model": {"vocab": {"a": 9000000000}}}'},
        {"tokenizer__json": '{"model": {"vocab": {"a": "0"}}}'},
        {"tokenizer__json": "[" * 100_000},
        {"tokenizer__json": '{"x": ' + "[" * 100_000},
        {"tokenizer__json": '{"model": {"vocab": {' + ",".join(f'"{n}":0' for n in range(2**20 + 9)) + "}}}"},
        {"vocab__json": "[]"},
        {"vocab__txt": "\n" * (2**20 + 2)},
    ],
)
def test_tokens_that_are_none_are_refused_in_one_line(tmp_path: Path, texts: Mapping[str, str]) -> None:
    weights = stored(folder(tmp_path / "model", **texts))
    with bounded(2 * ROOM), pytest.raises(ModelError):
        weights.tokens()
    weights.close()


@pytest.mark.parametrize("text", ["[]", "{", '{"a": NaN}', '{"a": 1, "a": 2}', "[" * 10_000])
def test_a_configuration_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ModelError, match=r"config\.json"):
        stored(folder(tmp_path / "model", config__json=text))


def quantised(height: int, width: int, layout: str) -> tuple[dict[str, Any], Any]:
    """A matrix of 8 bits with its scales, and the numbers that they stand for."""
    rng = np.random.default_rng(0)
    if layout == "SCB":
        data, scales = rng.integers(-127, 128, (height, width)).astype(np.int8), rng.uniform(1, 2, height)
        scales = scales.astype(np.float32)
        return {"a.weight": data, "a.SCB": scales}, data * scales[:, None] / np.float32(127)
    data = rng.normal(size=(height, width)).astype(ml_dtypes.float8_e4m3fn)
    values = data.astype(np.float32)
    rows, columns = {"tensor": (height, width), "row": (1, width), "block": (128, 128), "own": (3, 5)}[layout]
    scales = rng.uniform(1, 2, () if layout == "tensor" else (-(-height // rows), -(-width // columns)))
    scales = scales.astype(np.float32)
    table = scales.reshape(-(-height // rows), -(-width // columns))
    # Number by number, as the layout is defined.
    for row in range(height):
        values[row] *= table[row // rows][np.arange(width) // columns]
    return {"a.weight": data, f"a.weight_scale{'_inv' if layout == 'block' else ''}": scales}, values


@pytest.mark.parametrize("layout", ["tensor", "row", "block", "own", "SCB"])
def test_numbers_of_8_bits_are_multiplied_by_their_scales(tmp_path: Path, layout: str) -> None:
    arrays, values = quantised(200, 260, layout)
    path = folder(
        tmp_path / "model",
        config__json=json.dumps(
            {"quantization_config": {"quant_method": "fp8", "weight_block_size": [3, 5] if layout == "own" else None}}
        ),
    )
    (path / "model.safetensors").write_bytes(save({**arrays, "b.weight": np.ones((2, 2), np.float32)}))
    for source in [path, path / "model.safetensors"][: 1 if layout == "own" else 2]:
        weights = stored(source)
        assert set(weights.tensors) == {"a.weight", "b.weight"}
        for rows in (slice(None), slice(127, 131), slice(199, 200)):
            np.testing.assert_allclose(weights.read("a.weight", rows), values[rows], rtol=1e-6)
        weights.close()


@pytest.mark.parametrize(
    "name", ["a.qweight", "a.weight_packed", "a.weight.quant_state.bitsandbytes__nf4", "a.up_proj_blocks"]
)
def test_packed_weights_are_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(save({name: np.zeros((4, 4), np.uint8)}))
    with pytest.raises(ModelError, match="GGUF"):
        stored(path)


def test_scales_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(save({"a.weight": np.zeros((4, 4), np.int8), "a.weight_scale": np.zeros((3, 2), np.float32)}))
    with pytest.raises(ModelError, match="scale"):
        stored(path)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_damaged_files_are_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    """Any bytes of a header may change: what is wrong is one line, and nothing is read beyond the file."""
    whole = bytearray(save({"a": np.ones((2, 3), np.float32), "b": np.ones(4, np.float16)}, metadata={"x": "y"}))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(whole) - 1))
        whole[place] = data.draw(st.sampled_from([*b'0123456789"{}[]:,-eEF\\', 0, 255]))
    path = tmp_path / "damaged.safetensors"
    path.write_bytes(whole[: data.draw(st.sampled_from([None, 5, 40, -1]))])
    with (
        bounded(ROOM),
        contextlib.suppress(ModelError),
        contextlib.closing(open_tensors(path, name="damaged")) as weights,
    ):
        for name in weights.tensors:
            weights.read(name)
