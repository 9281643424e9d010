"""A table of paths and labels: CSV, TSV or JSON Lines."""

import csv
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath

from deepjudge_core.errors import InputError
from deepjudge_core.files.reading import open_regular, parse_json
from deepjudge_core.naming import option
from deepjudge_core.suites.inputs.keys import listed
from deepjudge_core.suites.inputs.listing import MOST_FILES, Item, Listing, numbered
from deepjudge_core.text import clean

TABLES = (".csv", ".tsv", ".jsonl", ".ndjson")
"""Suffixes of tables that are read."""
METADATA = ("metadata.csv", "metadata.jsonl")
"""The table of a folder in the layout of Hugging Face's ``imagefolder``."""
PATHS = ("file_name", "filename", "file", "path", "file_path", "filepath", "image", "image_path", "img", "audio")
LABELS = ("label", "labels", "class", "target", "category", "class_name", "label_name", "y")
_LARGEST = 2**28  # bytes of a table
_DELIMITERS = ",\t;"


def list_table(path: Path, x: str | None, y: str | None, *, labelled: bool) -> Listing:
    """The files that a table names, with their classes.

    Paths are relative to the table's folder, and stay in it: a table may be somebody else's.

    Args:
        path: The table.
        x: The column of paths; None for the usual one.
        y: The column of labels; None for the usual one.
        labelled: Whether it says the classes.

    Raises:
        InputError: When it cannot be read, lacks a column, or names files elsewhere.
    """
    rows = _rows(path)
    if not rows:
        raise InputError(f"{path}: expected rows of a path and a label, found none")
    columns = tuple(rows[0])
    names_files = chosen_column(path, columns, x, PATHS, "x")
    paths = [_text(path, place, row, names_files) for place, row in enumerate(rows)]
    items = tuple(item_of(path, text) for text in paths)
    if not labelled:
        return Listing(path, items, None)
    column = chosen_column(path, columns, y, LABELS, "y")
    labels = [_text(path, place, row, column) for place, row in enumerate(rows)]
    numbers, names = numbered(f"{path}: {column!r}", labels)
    return Listing(path, items, numbers, names)


def has_labels(path: Path, y: str | None) -> bool:
    """Whether a table has a column of labels, by a usual name or by the one that was said."""
    rows = _rows(path)
    return bool(rows) and any(name == y if y else str(name).lower() in LABELS for name in rows[0])


def _rows(path: Path) -> Sequence[Mapping[str, object]]:
    what = "a table of paths and labels"
    with open_regular(path, what, _LARGEST, InputError) as file:
        try:
            text = file.read(_LARGEST + 1).decode("utf-8-sig")
        except UnicodeDecodeError:
            raise InputError(f"{path}: expected {what} in UTF-8, found another encoding or another file") from None
    if path.suffix.lower() in (".jsonl", ".ndjson"):
        return _of_json(path, text)
    first = text.partition("\n")[0]
    delimiter = "\t" if path.suffix.lower() == ".tsv" else max(_DELIMITERS, key=first.count)
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        header = next(reader, [])
        rows = []
        for number, row in enumerate(reader, 2):
            if not row:
                continue
            if len(row) != len(header):
                raise InputError(f"{path}: expected {len(header)} columns in row {number}, found {len(row)}")
            rows.append(dict(zip(header, row, strict=True)))
            _check_count(path, rows)
    except csv.Error as error:
        raise InputError(f"{path}: expected a table, found one that is damaged: {error}") from None
    if len(set(header)) < len(header):
        raise InputError(f"{path}: expected columns of different names, found {listed(header)}")
    return rows


def _of_json(path: Path, text: str) -> Sequence[Mapping[str, object]]:
    rows: list[Mapping[str, object]] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = parse_json(line)
        except ValueError as error:
            raise InputError(f"{path}: expected JSON in line {number}, found no valid JSON: {error}") from None
        if not isinstance(row, dict):
            raise InputError(f"{path}: expected an object in line {number}, found another value")
        rows.append(row)
        _check_count(path, rows)
    return rows


def _check_count(path: Path, rows: Sequence[object]) -> None:
    if len(rows) > MOST_FILES:
        raise InputError(f"{path}: expected at most {MOST_FILES} rows, found more", code="too-large")


def chosen_column(path: Path, columns: Sequence[str], named: str | None, usual: Sequence[str], key: str) -> str:
    """The column of a table that was named, or the first of the usual ones.

    Args:
        path: The table.
        columns: All that it has.
        named: The one that was named; None for a usual one.
        usual: Names that are looked for, in this order.
        key: Which option names it, x or y.

    Raises:
        InputError: When there is none.
    """
    found = [column for name in usual for column in columns if column.strip().lower() == name]
    column = named or next(iter(found), None)
    if column not in columns:
        expected = repr(named) if named else f"one of {', '.join(usual)}"
        what = "paths" if key == "x" else "labels"
        raise InputError(
            f"{path}: expected a column of {what}, {expected}, found {listed(columns)}; name it with {option(key)}"
        )
    return str(column)


def _text(path: Path, place: int, row: Mapping[str, object], column: str) -> str:
    value = row.get(column)
    if not isinstance(value, str | int) or isinstance(value, bool) or value == "":
        raise InputError(f"{path}: expected a text or a whole number under {clean(column)!r} in entry {place + 1}")
    return str(value)


def item_of(table: Path, text: str) -> Item:
    """A file that a table names; paths are relative to the table's folder, or that folder if it is one.

    Raises:
        InputError: When it is outside.
    """
    pure = PurePath(text)
    folder = os.path.abspath(table if table.is_dir() else table.parent)  # noqa: PTH100 - links are not followed
    whole = os.path.normpath(os.path.join(folder, pure))  # noqa: PTH118 - as above
    if "\0" in text or os.path.commonpath([folder, whole]) != folder or whole == folder:
        raise InputError(
            f"{table}: expected paths inside its folder, found {clean(text)!r}; put the table into a "
            "folder that contains all of the files"
        )
    return Item(text, Path(whole))
