"""Inputs from whatever people have them in: the one door."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from deepjudge_core.errors import InputError, UsageError
from deepjudge_core.files import storage
from deepjudge_core.models.input_spec import InputSpec
from deepjudge_core.naming import option
from deepjudge_core.suites.inputs.archives import ARCHIVES, open_archive
from deepjudge_core.suites.inputs.folders import is_listed, list_folder
from deepjudge_core.suites.inputs.keys import (
    TRAINING_KEY,
    USUAL_KEYS,
    key_of_inputs,
    listed,
    missing_key,
    pair_of_keys,
)
from deepjudge_core.suites.inputs.listing import PICTURES, SOUNDS, Listing, from_elsewhere
from deepjudge_core.suites.inputs.parquet import COLUMNAR, Columnar, columnar_files
from deepjudge_core.suites.inputs.pictures import Pictures
from deepjudge_core.suites.inputs.raw import Reading, check_scale, class_numbers, scaled
from deepjudge_core.suites.inputs.recordings import Recordings
from deepjudge_core.suites.inputs.resizing import Resizing
from deepjudge_core.suites.inputs.tables import METADATA, TABLES, has_labels, list_table
from deepjudge_core.suites.inputs.value import Inputs, LabelSource, Offered
from deepjudge_core.text import clean
from deepjudge_core.types import Array, Bounds, Layout


def open_inputs(
    path: Path | str,
    *,
    x: str | None = None,
    y: str | None = None,
    scale: float | None = None,
    bounds: Bounds | None = None,
    training: Array | None = None,
    layout: Layout | None = None,
    usual: Sequence[tuple[str, str]] = USUAL_KEYS,
    labels: LabelSource = "file",
    resize: str | None = None,
) -> Offered:
    """Find inputs, and read those whose shape does not depend on a model; see :func:`load_inputs`.

    Raises:
        InputError, UsageError: As :func:`load_inputs`.
    """
    resizing = None if resize is None else Resizing.parse(resize)
    reading = Reading(x, y, scale, bounds, training, layout, usual, labels, resizing)
    path = Path(path)
    if path.is_file() and storage.is_own(path):
        raise InputError(f"{path}: expected inputs, found a file of deepjudge's own; give the data of the model's task")
    shards = columnar_files(path)
    if shards:
        return _of_columns(Columnar(path, shards, x, y, reading.labelled), reading)
    if path.is_dir():
        return _of_folder(path, reading)
    if path.suffix.lower() in TABLES:
        return _of_files(list_table(path, x, y, labelled=reading.labelled), reading)
    return _of_arrays(path, reading)


def load_inputs(
    path: Path | str,
    *,
    x: str | None = None,
    y: str | None = None,
    scale: float | None = None,
    bounds: Bounds | None = None,
    training: Array | None = None,
    layout: Layout | None = None,
    usual: Sequence[tuple[str, str]] = USUAL_KEYS,
    labels: LabelSource = "file",
    resize: str | None = None,
    shape: tuple[int, ...] | None = None,
) -> Inputs:
    """Read labelled inputs, or inputs whose labels the victim is going to say.

    Args:
        path: Arrays: an ``.npz`` or ``.safetensors`` file, an ``.npy`` file with the labels in another one in its
            folder, or a folder of them. Pictures or recordings (WAV, FLAC): a folder with a folder for each class, or a
            table (CSV, TSV, JSON Lines) of paths and labels. Either: Parquet or Arrow files, or a folder of them, in
            the layout of Hugging Face's ``datasets``. Pickles are never read.
        x: Key of the inputs, or column of the paths; by default the first of the usual ones.
        y: Key or column of the labels; by default the one that goes with ``x``.
        scale: What the stored inputs are divided by; by default 255 for pictures, 1 for arrays.
        bounds: Range of the inputs after scaling: two numbers, or two sequences with a number for each feature of flat
            inputs, each channel of others. By default that of stored bytes (uint8); else that of each feature or
            channel, where the widest is more than ten times as wide as others; else the first of 0..1, -1..1 and, for
            whole numbers, 0..255 that holds them; else their least and greatest value.
        training: Inputs of the training set, after scaling; by default those beside inputs for tests.
        layout: Where the channels are, where that is known.
        usual: Keys of inputs and labels that are looked for, in this order.
        labels: What says the labels; "victim" reads none.
        resize: How pictures are brought to another size: "crop" or "stretch", or with a size as "crop:224". By default
            "crop" for pictures in files, and never for arrays.
        shape: Of an input; by default what is stored, and for pictures of several sizes the one that most of them have.

    Raises:
        InputError: When the file cannot be read, keys are missing, shapes do not agree, or values are out of bounds.
        MissingExtraError: When a library is missing, such as Pillow for pictures.
        UsageError: For a scale or bounds that cannot be, or a key of labels that are not read.
    """
    offered = open_inputs(
        path,
        x=x,
        y=y,
        scale=scale,
        bounds=bounds,
        training=training,
        layout=layout,
        usual=usual,
        labels=labels,
        resize=resize,
    )
    return offered.fitted(offered.expected if shape is None else InputSpec(shape, layout=layout))


def reads(path: Path) -> bool:
    """Whether a file or folder looks like inputs, by its name or by the names of what lies in it."""
    if path.is_dir():
        return is_listed(path)
    return path.suffix.lower() in (*ARCHIVES, *TABLES, *COLUMNAR)


def is_archive(path: Path) -> bool:
    """Whether it is a file of arrays, or a folder of them: whatever has no other sign."""
    if path.is_dir():
        return any(path.glob("*.npy"))
    return path.suffix.lower() not in (*TABLES, *COLUMNAR)


def _of_folder(path: Path, reading: Reading) -> Offered:
    if is_archive(path):
        return _of_arrays(path, reading)
    table = next((path / name for name in METADATA if (path / name).is_file()), None)
    if table is not None and (has_labels(table, reading.y) or not reading.labelled):
        return _of_files(list_table(table, reading.x, reading.y, labelled=reading.labelled), reading)
    for key in ("x", "y"):
        name = getattr(reading, key)
        if name is not None:
            raise UsageError(
                f"{path}: expected no {option(key, name)} for class folders, which have neither keys nor columns",
                code="conflict",
            )
    return _of_files(list_folder(path, labelled=reading.labelled), reading)


def _of_columns(columns: Columnar, reading: Reading) -> Offered:
    found = columns.read()
    if isinstance(found, Listing):
        return _of_files(found, reading)
    raw, y, classes = found
    return replace(reading.inputs(str(columns.path), raw, y), classes=classes)


def _of_files(listing: Listing, reading: Reading) -> Offered:
    listing = replace(listing, notes=(*listing.notes, *from_elsewhere(listing)))
    kinds = {item.kind: item.name for item in listing.items}
    if set(kinds) == {"picture"}:
        return Pictures(listing, reading)
    if set(kinds) == {"recording"}:
        return Recordings(listing, reading)
    found = " and ".join(sorted(map(clean, kinds.values())))
    raise InputError(
        f"{listing.source}: expected pictures ({', '.join(PICTURES)}) or recordings ({', '.join(SOUNDS)}), all of one "
        f"kind, found {found}"
    )


def _of_arrays(path: Path, reading: Reading) -> Inputs:
    with open_archive(path) as archive:
        keys, x, y = archive.keys, reading.x, reading.y
        if path.suffix == ".npy" and x is None:
            x = path.stem
        if reading.labels == "victim":
            found_x, found_y = key_of_inputs(path, keys, x, reading.usual), None
        else:
            found_x, found_y = pair_of_keys(path, keys, x, y, reading.usual)
        raw = archive.array(found_x)
        classes = None if found_y is None else class_numbers(f"{path}: {found_y!r}", archive.array(found_y))
        beside = None
        if reading.training is None and found_x == "x_test" and TRAINING_KEY in keys:
            beside = archive.array(TRAINING_KEY)
        return reading.inputs(f"{path}: {found_x!r}", raw, classes, beside=beside)


def holds(path: Path, keys: Sequence[str]) -> bool:
    """Whether it is a file of arrays that has these names.

    Raises:
        InputError: When it cannot be read.
    """
    if not is_archive(path):
        return False
    with open_archive(path) as archive:
        return set(keys) <= set(archive.keys)


def load_training_inputs(reference: str, *, scale: float | None = None) -> Array:
    """Read the inputs that ``FILE.npz:KEY`` names; without a key, ``x_train`` or the usual ones.

    Raises:
        InputError, UsageError: As :func:`load_inputs`.
    """
    check_scale(scale)
    file, colon, key = reference.rpartition(":")
    if not colon or Path(reference).exists():
        file, key = reference, ""
    path = Path(file)
    if not is_archive(path):
        raise InputError(
            f"{path}: expected training inputs in a file of arrays ({', '.join(ARCHIVES)}), found other inputs"
        )
    with open_archive(path) as archive:
        if not key:
            candidates = (TRAINING_KEY, *(pair[0] for pair in USUAL_KEYS))
            key = next((k for k in candidates if k in archive.keys), "")
        elif key not in archive.keys:
            raise missing_key(path, key, archive.keys)
        if not key:
            raise InputError(f"{path}: expected one of {', '.join(candidates)}, found {listed(archive.keys)}")
        return scaled(f"{path}: {key!r}", archive.array(key), 1.0 if scale is None else scale)
