"""Parquet and Arrow files with a column of inputs and one of labels, as Hugging Face's ``datasets`` writes them."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from deepjudge_core.errors import InputError, MissingExtraError
from deepjudge_core.files import memory
from deepjudge_core.files.reading import LARGEST_ARRAYS, open_regular, parse_json
from deepjudge_core.suites.inputs.listing import MOST_FILES, Item, Listing, numbered
from deepjudge_core.suites.inputs.raw import class_numbers
from deepjudge_core.suites.inputs.tables import LABELS, PATHS, chosen_column, item_of
from deepjudge_core.text import clean
from deepjudge_core.types import Array

COLUMNAR = (".parquet", ".arrow", ".feather")
"""Suffixes of files that are read."""
_INPUTS = ("image", "images", "img", "picture", "audio", "pixel_values", "pixels", "features", "inputs", "data", "x")
_PARTS = "dataset_dict.json"
_SHARDS = 10_000
_AT_ONCE = 256  # rows
_DEEPEST = 8  # lists within one another
# Of memory while a file is unpacked: the table and one copy of it, and what the library reserves without using it.
_UNPACKED = 2 * LARGEST_ARRAYS + 2**30


def columnar_files(path: Path) -> tuple[Path, ...]:
    """The Parquet or Arrow files of a path: itself, or the shards of a folder, sorted; none if it is neither.

    Raises:
        InputError: When a folder holds several parts of a data set.
    """
    if not path.is_dir():
        return (path,) if path.suffix.lower() in COLUMNAR else ()
    if (path / _PARTS).is_file():
        parts = sorted(one.name for one in path.iterdir() if one.is_dir())
        first = path / parts[-1] if parts else path
        raise InputError(
            f"{path}: expected one part of a data set, found {clean(', '.join(parts))}; name one, such as {first}"
        )
    files = [one for folder in (path, path / "data") if folder.is_dir() for one in folder.iterdir()]
    found = sorted(one for one in files if one.suffix.lower() in COLUMNAR)
    folders = sorted(one.name for one in path.iterdir() if one.is_dir() and one.name[:1] != "." and one.name != "data")
    if found and folders:
        raise InputError(
            f"{path}: expected Parquet or Arrow files, or class folders, found {clean(found[0].name)} and the folder "
            f"{clean(folders[0])}; name one of them"
        )
    stems = {one.name.split("-")[0] for one in found if "-of-" in one.name}
    if len(stems) > 1:  # as train-00000-of-00002.parquet
        raise InputError(
            f"{path}: expected one part of a data set, found files of {clean(', '.join(sorted(stems)))}; put those of "
            "one part into a folder of their own"
        )
    return tuple(found[:_SHARDS])


@dataclass(frozen=True, eq=False)
class Columnar:
    """A table in Parquet or Arrow files.

    Attributes:
        path: What messages call it.
        files: At least one, in order.
        x: The column of inputs; None for a usual one.
        y: The column of labels; None for a usual one.
        labelled: Whether it says the classes.
    """

    path: Path
    files: tuple[Path, ...]
    x: str | None
    y: str | None
    labelled: bool

    def read(self) -> "Listing | tuple[Array, Array | None, tuple[str, ...] | None]":
        """Pictures, recordings or paths as a listing; or arrays, their class numbers, and the names of these.

        Raises:
            InputError: When it is damaged, or has no such columns.
            MissingExtraError: Without pyarrow.
        """
        with _in_one_line(self.path), memory.bounded(_UNPACKED):
            return self._read()

    def _read(self) -> "Listing | tuple[Array, Array | None, tuple[str, ...] | None]":
        schema = self._schema
        found = chosen_column(self.path, tuple(schema.names), self.x, (*_INPUTS, *PATHS), "x")
        wanted = [found]
        label = None
        if self.labelled:
            label = chosen_column(self.path, tuple(schema.names), self.y, LABELS, "y")
            wanted.append(label)
        table = self._table(wanted)
        y, classes = (None, None) if label is None else self._labels(label, table.column(label))
        column = table.column(found)
        if len(column) == 0:
            raise InputError(f"{self.path}: expected rows, found none")
        items = self._items(found, column)
        if items is None:
            return self._numbers(found, column), y, classes
        return Listing(self.path, items, y, classes)

    @cached_property
    def _schema(self) -> Any:
        with _opened(self.files[0]) as opened:
            return opened.schema

    def _table(self, columns: Sequence[str]) -> Any:
        import pyarrow as pa

        batches, size, rows = [], 0, 0
        for file in self.files:
            with _opened(file) as opened:
                for batch in opened.batches(columns):
                    batch.validate(full=True)  # where values lie, which reading them does not check
                    size, rows = size + batch.nbytes, rows + batch.num_rows
                    if size > LARGEST_ARRAYS or rows > MOST_FILES:
                        raise InputError(
                            f"{self.path}: expected at most {LARGEST_ARRAYS} bytes and {MOST_FILES} rows, found more",
                            code="too-large",
                        )
                    batches.append(batch)
        if not batches:
            raise InputError(f"{self.path}: expected rows, found none")
        try:
            return pa.Table.from_batches(batches)
        except pa.ArrowException:
            raise InputError(f"{self.path}: expected files of the same columns, found others") from None

    def _features(self) -> Mapping[str, Any]:
        # What Hugging Face's library says of the columns.
        said = (self._schema.metadata or {}).get(b"huggingface", b"{}")
        try:
            features = parse_json(said)["info"]["features"]
        except (ValueError, KeyError, TypeError):
            return {}
        return features if isinstance(features, dict) else {}

    def _labels(self, name: str, column: Any) -> tuple[Array, tuple[str, ...] | None]:
        source = f"{self.path}: {clean(name)!r}"
        values = column.to_pylist()
        if any(isinstance(value, list) for value in values):
            return class_numbers(source, self._numbers(name, column)), None
        if not all(isinstance(value, str | int) for value in values):
            kind = next(type(value).__name__ for value in values if not isinstance(value, str | int))
            raise InputError(f"{source}: expected class numbers or names, found {kind}")
        numbers, classes = numbered(source, [int(value) if isinstance(value, bool) else value for value in values])
        feature = self._features().get(name)
        names = feature.get("names") if isinstance(feature, dict) else None
        if classes is None and isinstance(names, list) and all(isinstance(one, str) for one in names):
            if numbers.max(initial=0) >= len(names):
                raise InputError(f"{source}: expected classes below {len(names)}, found {numbers.max()}")
            classes = tuple(clean(one, 100) for one in names)
        return numbers, classes

    def _items(self, name: str, column: Any) -> tuple[Item, ...] | None:
        import pyarrow as pa

        kind = column.type
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        text, binary = ((pa.types.is_string(kind) or pa.types.is_large_string(kind)), _is_binary(kind))
        if text:
            return tuple(item_of(self.path, str(value)) for value in _values(column))
        if not binary and not (pa.types.is_struct(kind) and {"bytes", "path"} & {field.name for field in kind}):
            return None
        items = []
        for place, value in enumerate(_values(column)):
            content, path = (value, None) if binary else ((value or {}).get("bytes"), (value or {}).get("path"))
            if isinstance(content, bytes):
                suffix = Path(str(path)).suffix if path else ""
                items.append(Item(f"row {place + 1}{f' ({clean(str(path), 100)})' if path else ''}", content, suffix))
            elif path:
                items.append(item_of(self.path, str(path)))
            else:
                raise InputError(
                    f"{self.path}: expected bytes or a path under {clean(name)!r}, found none in row {place + 1}"
                )
        return tuple(items)

    def _numbers(self, name: str, column: Any) -> Array:
        # Lists within lists of numbers, all of one shape.
        import pyarrow as pa

        values, shape = column.combine_chunks(), [len(column)]
        if isinstance(values, pa.ChunkedArray):
            values = pa.concat_arrays(values.chunks)
        source = f"{self.path}: {clean(name)!r}"
        for _ in range(_DEEPEST):
            if isinstance(values, pa.ExtensionArray):
                values = values.storage
            if values.null_count:
                raise InputError(f"{source}: expected a value in each row, found none in some")
            if not (_is_list(values.type) or pa.types.is_fixed_size_list(values.type)):
                break
            count, values = len(values), values.flatten()
            each = len(values) // max(count, 1)
            shape.append(each)
        kind = values.type
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
            raise InputError(f"{source}: expected pictures, recordings, paths or lists of numbers, found {kind}")
        array: Array = values.to_numpy(zero_copy_only=False)
        if len(shape) < 2 or int(np.prod(shape)) != len(array) or not _is_regular(column, shape[1:]):
            raise InputError(f"{source}: expected lists of one length in every row, found others or single numbers")
        return array.reshape(shape)


def _values(column: Any) -> Iterator[Any]:
    # Row by row; what a dictionary holds once and many rows share is in memory once.
    import pyarrow as pa

    for chunk in column.chunks:
        if isinstance(chunk, pa.DictionaryArray):
            shared = chunk.dictionary.to_pylist()
            yield from (None if place is None else shared[place] for place in chunk.indices.to_pylist())
        else:
            yield from chunk.to_pylist()


def _is_regular(column: Any, shape: Sequence[int]) -> bool:
    import pyarrow as pa
    import pyarrow.compute as pc

    for chunk in column.chunks:
        values = chunk
        for size in shape:
            values = values.storage if isinstance(values, pa.ExtensionArray) else values
            if not bool(pc.all(pc.equal(pc.list_value_length(values), size)).as_py()):
                return False
            values = values.flatten()
    return True


def _is_list(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _is_binary(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind))


class _Reader:
    # One open file, of either format.

    def __init__(self, file: Any, parquet: bool) -> None:
        import pyarrow as pa
        from pyarrow import parquet as pq

        self.schema: Any
        self._parquet: Any = None
        self._stream: Any = None
        if parquet:
            whole = pq.ParquetFile(file)
            self._parquet, self.schema = whole, whole.schema_arrow
            return
        try:
            self._stream = pa.ipc.open_stream(file)
        except pa.ArrowException:
            file.seek(0)
            self._stream = pa.ipc.open_file(file)
        self.schema = self._stream.schema

    def batches(self, columns: Sequence[str]) -> Iterator[Any]:
        if self._parquet is not None:
            yield from self._parquet.iter_batches(_AT_ONCE, columns=list(columns), use_threads=False)
            return
        count = getattr(self._stream, "num_record_batches", None)
        found = iter(self._stream) if count is None else (self._stream.get_batch(place) for place in range(count))
        for batch in found:
            yield batch.select(list(columns))


@contextmanager
def _opened(path: Path) -> Iterator[_Reader]:
    with open_regular(path, "a Parquet or Arrow file", LARGEST_ARRAYS, InputError) as file:
        yield _Reader(file, path.suffix.lower() == ".parquet")


@contextmanager
def _in_one_line(source: Path) -> Iterator[None]:
    # What the library says of a damaged file, and the error of its absence.
    try:
        import pyarrow as pa
    except ImportError:
        raise MissingExtraError(str(source), "pyarrow", "parquet") from None
    try:
        yield
    except MemoryError:
        raise InputError(
            f"{source}: expected a table that needs at most {_UNPACKED} bytes of memory, found one that needs more",
            code="too-large",
        ) from None
    except (pa.ArrowException, OSError, ValueError, KeyError, EOFError, OverflowError) as error:
        first = (str(error).splitlines() or [""])[0]
        raise InputError(
            f"{source}: expected Parquet or Arrow, found a damaged file or another one: {clean(first, 200)}"
        ) from None
