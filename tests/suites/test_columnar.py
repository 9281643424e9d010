"""Inputs in Parquet and Arrow files, written here as Hugging Face's library writes them."""

import io
import json
import resource
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from refusals import refused

from deepjudge_core import load_inputs
from deepjudge_core.errors import InputError
from deepjudge_core.suites.inputs import parquet, reads
from deepjudge_core.suites.inputs.listing import Listing
from deepjudge_core.suites.inputs.parquet import Columnar

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 6, 4)).astype(np.uint8)
LABELS = [2, 0, 1, 1, 2]


def png(pixels: np.ndarray) -> bytes:
    image = pytest.importorskip("PIL.Image")
    made = io.BytesIO()
    image.fromarray(pixels).save(made, "PNG")
    return made.getvalue()


def pictures(labels: Any = LABELS, names: list[str] | None = None, **columns: Any) -> Any:
    content = [{"bytes": png(one), "path": f"{place}.png"} for place, one in enumerate(PIXELS)]
    table = pa.table({"image": content, "label": labels, **columns})
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": names} if names else {}}
    return table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def write(path: Path, table: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(table, path, row_group_size=2)
    else:
        make = pa.ipc.new_stream if path.name.startswith("data-") else pa.ipc.new_file
        with path.open("wb") as file, make(file, table.schema) as writer:
            writer.write_table(table, max_chunksize=2)
    return path


@pytest.mark.parametrize("name", ["in.parquet", "in.arrow", "data-00000-of-00001.arrow"])
def test_pictures(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, pictures(names=["a", "b", "c", "d"]))
    inputs = load_inputs(path)
    np.testing.assert_array_equal((inputs.x * 255).round(), PIXELS)
    assert inputs.y is not None
    # All names count, also of a class that does not occur.
    assert (inputs.y.tolist(), inputs.classes, inputs.bounds) == (LABELS, ("a", "b", "c", "d"), (0, 1))
    assert reads(path)


def test_a_folder_of_shards(tmp_path: Path) -> None:
    whole = pictures()
    for place, part in enumerate((whole.slice(0, 3), whole.slice(3))):
        write(tmp_path / "saved" / f"data-0000{place}-of-00002.arrow", part)
        write(tmp_path / "hub" / "data" / f"train-0000{place}-of-00002.parquet", part)
    (tmp_path / "saved" / "state.json").write_text("{}")
    for folder in ("saved", "hub"):
        np.testing.assert_array_equal((load_inputs(tmp_path / folder).x * 255).round(), PIXELS)
        assert reads(tmp_path / folder)
    write(tmp_path / "hub" / "data" / "test-00000-of-00001.parquet", whole)
    with refused(InputError, "test, train"):
        load_inputs(tmp_path / "hub")
    (tmp_path / "both" / "train").mkdir(parents=True)
    (tmp_path / "both" / "dataset_dict.json").write_text("{}")
    with refused(InputError, tmp_path / "both" / "train"):
        load_inputs(tmp_path / "both")


def test_labels_as_names(tmp_path: Path) -> None:
    for labels in (["b", "a", "c", "c", "b"], pa.array(["b", "a", "c", "c", "b"]).dictionary_encode()):
        inputs = load_inputs(write(tmp_path / "in.parquet", pictures(labels)))
        assert inputs.y is not None
        assert (inputs.y.tolist(), inputs.classes) == ([1, 0, 2, 2, 1], ("a", "b", "c"))
    assert load_inputs(tmp_path / "in.parquet", labels="victim").y is None


@pytest.mark.parametrize("kind", ["lists", "fixed", "large"])
def test_lists_of_numbers(tmp_path: Path, kind: str) -> None:
    numbers = (PIXELS / 255).astype(np.float32)
    rows = numbers.tolist()
    types = {
        "lists": pa.list_(pa.list_(pa.float32())),
        "fixed": pa.list_(pa.list_(pa.float32(), 4), 6),
        "large": pa.large_list(pa.large_list(pa.float32())),
    }
    table = pa.table({"id": range(5), "pixels": pa.array(rows, types[kind]), "target": LABELS})
    inputs = load_inputs(write(tmp_path / "in.parquet", table))
    np.testing.assert_array_equal(inputs.x, numbers)
    named = load_inputs(tmp_path / "in.parquet", x="pixels", y="id")
    assert named.y is not None
    assert named.y.tolist() == list(range(5))


def test_paths(tmp_path: Path) -> None:
    (tmp_path / "one.png").write_bytes(png(PIXELS[0]))
    table = pa.table({"file": ["one.png"], "label": [0]})
    np.testing.assert_array_equal((load_inputs(write(tmp_path / "in.parquet", table)).x[0] * 255).round(), PIXELS[0])
    with refused(InputError, "inside its folder"):
        load_inputs(write(tmp_path / "in.parquet", pa.table({"file": ["../one.png"], "label": [0]})))


def test_what_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    for table, *facts in (
        (pa.table({"a": [1], "b": [2]}), "a, b", "x="),
        (pa.table({"image": [b"x"], "b": [2]}), "image, b", "y="),
        (pa.table({"image": [b"x"], "label": [0]}), "row 1"),
        (pa.table({"image": [None, b""], "label": [0, 1]}), "row 1"),
        (pa.table({"image": [b"x"], "label": [0.5]}), "'label'", "float"),
        (pa.table({"x": [[1.0], [1.0, 2.0]], "y": [0, 1]}), "'x'", "one length"),
        (pa.table({"x": [[[1.0], [2.0, 3.0, 4.0]], [[1.0, 2.0], [3.0, 4.0]]], "y": [0, 1]}), "'x'", "one length"),
        (pa.table({"x": [[1.0], None], "y": [0, 1]}), "'x'"),
        (pa.table({"x": [1.0, 2.0], "y": [0, 1]}), "'x'"),
        (pa.table({"x": [["a"]], "y": [0]}), "'x'", "string"),
        (pictures([7, 0, 1, 1, 2], names=["a", "b", "c"]), "below 3", "7"),
        (pictures().slice(0, 0), "found none"),
    ):
        with pytest.raises(InputError) as caught:
            load_inputs(write(path, table))
        assert all(fact in str(caught.value) for fact in (str(path), *facts)), caught.value


@pytest.mark.parametrize("name", ["in.parquet", "in.arrow"])
def test_damaged_files(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, pictures())
    whole = path.read_bytes()
    for place in range(0, len(whole), 29):
        for content in (whole[:place], whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :]):
            path.write_bytes(content)
            try:
                load_inputs(path)
            except InputError as error:
                assert "\n" not in str(error)  # noqa: PT017


def test_files_among_folders_are_not_chosen(tmp_path: Path) -> None:
    write(tmp_path / "in" / "in.parquet", pictures())
    (tmp_path / "in" / "cat").mkdir()
    with refused(InputError, "in.parquet", "cat"):
        load_inputs(tmp_path / "in")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux holds a process to a limit of memory")
@pytest.mark.parametrize("name", ["in.parquet", "in.arrow"])
def test_a_small_file_cannot_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    # Some kilobytes, which become 320 MiB only while the library unpacks them.
    monkeypatch.setattr(parquet, "_UNPACKED", 2**27)
    before = resource.getrlimit(resource.RLIMIT_AS)
    table = pa.table({"image": pa.array([bytes(2**25)] * 10, pa.binary()), "label": [0] * 10})
    if name.endswith(".parquet"):
        pq.write_table(table, tmp_path / name, compression="zstd")
    else:
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        with pa.ipc.new_file(tmp_path / name, table.schema, options=options) as writer:
            writer.write_table(table)
    assert (tmp_path / name).stat().st_size < 2**20
    with refused(InputError, name, "memory", code="too-large"):
        load_inputs(tmp_path / name)
    assert resource.getrlimit(resource.RLIMIT_AS) == before


def test_rows_share_what_a_dictionary_holds_once(tmp_path: Path) -> None:
    rows = pa.DictionaryArray.from_arrays(pa.array([1, 0, 1, 1, 0], pa.int8()), [png(PIXELS[0]), png(PIXELS[1])])
    path = write(tmp_path / "in.arrow", pa.table({"image": rows, "label": LABELS}))
    listing = Columnar(path, (path,), None, None, True).read()
    assert isinstance(listing, Listing)
    first, second, third, fourth, _ = (item.content for item in listing.items)
    assert third is fourth  # of one batch
    assert first != second
    np.testing.assert_array_equal((load_inputs(path).x * 255).round(), PIXELS[[1, 0, 1, 1, 0]])
