"""Inputs from ``.npz`` files, mostly labelled, with the bounds that they declare or imply."""

import io
import math
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.lib.format import MAGIC_PREFIX, read_array_header_1_0, read_array_header_2_0, read_magic

from deepjudge_core.errors import InputError, UsageError
from deepjudge_core.files.reading import LARGEST_ARRAYS, open_regular
from deepjudge_core.naming import option
from deepjudge_core.suites.labels import as_numbers
from deepjudge_core.suites.ranges import is_one, own_ranges, spread
from deepjudge_core.text import clean
from deepjudge_core.types import Array, Bounds, Layout

USUAL_KEYS = (("x_test", "y_test"), ("x", "y"), ("images", "labels"), ("X", "Y"), ("data", "target"))
"""Names under which inputs and labels are looked for, in this order."""
LabelSource = Literal["file", "victim"]
"""What says the classes of inputs: their file, or the victim by its own answers."""
TRAINING_KEY = "x_train"
TRAINING_KEYS = (("x_train", "y_train"), *USUAL_KEYS[1:])
"""The same where inputs to train with are looked for: none that are for tests."""
_MOST_AT_ONCE = 2**20  # bytes
_LONGEST_HEADER = 1024  # characters that numpy evaluates; those of an array of numbers are a tenth of it
_HEADERS = {(1, 0): read_array_header_1_0, (2, 0): read_array_header_2_0}
_ENCRYPTED = 1  # the bit of an entry's flags


@dataclass(frozen=True, eq=False)
class Inputs:
    """Inputs, their labels and their range.

    Attributes:
        x: ``(n, *shape)`` float32.
        y: ``(n,)`` int64; ``(n, classes)`` of 0 and 1 where an input has several classes at once; None where nobody
            knows them, and the victim's own answers are taken.
        bounds: Least and greatest value that an input may have: two numbers, or two arrays of an input's shape where
            features or channels have ranges of their own.
        training: ``(n, *shape)`` float32, inputs of the victim's training set, where they are known.
        layout: Where the channels are, where that is known.
    """

    x: Array
    y: Array | None
    bounds: Bounds = (0.0, 1.0)
    training: Array | None = None
    layout: Layout | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "x", as_inputs("inputs", self.x))
        if self.y is not None:
            object.__setattr__(self, "y", as_inputs("labels", self.y, None))
        if self.training is not None:
            object.__setattr__(self, "training", as_inputs("training inputs", self.training))

    @property
    def labels(self) -> Array:
        """``(n,)`` their labels, for what cannot do without.

        Raises:
            InputError: When there are none, or several for an input.
        """
        if self.y is None:
            raise InputError("expected a label for each input, found none")
        return as_numbers(self.y)


def as_inputs(source: str, values: object, dtype: type[np.generic] | None = np.float32) -> Array:
    """Whatever holds numbers as one array.

    Args:
        source: What messages call it.
        values: An array, or sequences within one another.
        dtype: Of the array; None for the one that the values have.

    Raises:
        InputError: When the values are no numbers, or sequences of several lengths.
    """
    try:
        array = np.asarray(values)
    except ValueError:
        array = np.array(None)
    if array.dtype.kind in "biuf":
        return array if dtype is None else array.astype(dtype, copy=False)
    ragged = "sequences of several lengths, or no numbers: pad sequences to one length"
    found = ragged if array.dtype.kind == "O" else str(array.dtype)
    raise InputError(f"{source}: expected one array of real numbers, found {found}")


def load_inputs(
    path: Path | str,
    *,
    x: str | None = None,
    y: str | None = None,
    scale: float = 1.0,
    bounds: Bounds | None = None,
    training: Array | None = None,
    layout: Layout | None = None,
    usual: Sequence[tuple[str, str]] = USUAL_KEYS,
    labels: LabelSource = "file",
) -> Inputs:
    """Read labelled inputs, or inputs whose labels the victim is going to say.

    Args:
        path: An ``.npz`` file, read without pickle.
        x: Key of the inputs; by default the first of the usual ones.
        y: Key of the labels; by default the one that goes with ``x``.
        scale: What the stored inputs are divided by.
        bounds: Range of the inputs after scaling: two numbers, or two sequences with a number for each feature of flat
            inputs, each channel of others. By default that of stored bytes (uint8); else that of each feature or
            channel, where the widest is more than ten times as wide as others; else the first of 0..1, -1..1 and, for
            whole numbers, 0..255 that holds them; else their least and greatest value.
        training: Inputs of the training set, after scaling; by default those beside inputs for tests.
        layout: Where the channels are, where that is known.
        usual: Keys of inputs and labels that are looked for, in this order.
        labels: What says the labels; "victim" reads none.

    Raises:
        InputError: When the file cannot be read, keys are missing, shapes do not agree, or values are out of bounds.
        UsageError: For a scale or bounds that cannot be, or a key of labels that are not read.
    """
    _check_scale(scale)
    if labels == "victim" and y is not None:
        raise UsageError(
            f"{option('y', y)}: expected no key of labels if the victim says them ({option('labels', 'victim')})",
            code="conflict",
        )
    path = Path(path)
    with _open(path) as archive:
        keys = archive.files
        if labels == "victim":
            found_x, found_y = _key(path, keys, x, usual), None
        else:
            found_x, found_y = _keys(path, keys, x, y, usual)
        raw = _array(path, archive, found_x)
        classes = None if found_y is None else _labels(path, found_y, _array(path, archive, found_y))
        beside = None
        if training is None and found_x == "x_test" and TRAINING_KEY in keys:
            training = beside = _scaled(path, TRAINING_KEY, _array(path, archive, TRAINING_KEY), scale)
        inputs = _scaled(path, found_x, raw, scale)
    if classes is not None and len(raw) != len(classes):
        raise InputError(
            f"{path}: expected as many labels as inputs, found {len(raw)} inputs and {len(classes)} labels"
        )
    source = f"{path}: {found_x!r}"
    if bounds is None and scale >= 2 and np.abs(raw.astype(np.float64)).max() <= 1:
        raise InputError(
            f"{source}: expected inputs to divide by {scale:g}, found {raw.min():g}..{raw.max():g}, no more than 1; "
            f"leave {option('scale')} out, or state the range of the outcome with {option('bounds')}"
        )
    if bounds is None:
        limits = _bounds(source, raw.dtype, inputs, training, scale, layout)
    else:
        limits = spread(source, bounds, inputs.shape[1:], layout)
    check_bounds(source, inputs, limits)
    if beside is not None:
        check_bounds(f"{path}: {TRAINING_KEY!r}", beside, limits)
    return Inputs(inputs, classes, limits, training, layout)


def holds(path: Path, keys: Sequence[str]) -> bool:
    """Whether an ``.npz`` file has arrays of these names.

    Raises:
        InputError: When it cannot be read.
    """
    with _open(path) as archive:
        return set(keys) <= set(archive.files)


def load_training_inputs(reference: str, *, scale: float = 1.0) -> Array:
    """Read the inputs that ``FILE.npz:KEY`` names; without a key, ``x_train`` or the usual ones.

    Raises:
        InputError, UsageError: As :func:`load_inputs`.
    """
    _check_scale(scale)
    file, colon, key = reference.rpartition(":")
    if not colon or Path(reference).exists():
        file, key = reference, ""
    path = Path(file)
    with _open(path) as archive:
        if not key:
            candidates = (TRAINING_KEY, *(pair[0] for pair in USUAL_KEYS))
            key = next((k for k in candidates if k in archive.files), "")
        if key not in archive.files:
            raise _missing(path, key or "a key of training inputs", archive.files)
        return _scaled(path, key, _array(path, archive, key), scale)


def check_bounds(
    source: str,
    inputs: Array,
    bounds: Bounds,
    *,
    advice: str | None = None,
) -> None:
    """Refuse inputs outside their bounds; the advice says what to do then.

    Raises:
        InputError: Saying which range was expected and which was found; for NaN and for no inputs too.
        UsageError: For bounds that are none.
    """
    low, high = (np.asarray(side, np.float64) for side in bounds)
    wrong = ~((low < high) & np.isfinite(low) & np.isfinite(high))
    if wrong.any():
        of = "" if is_one(bounds) else f" of {_place(wrong)}"
        one, other = (np.broadcast_to(side, wrong.shape)[wrong].flat[0] for side in (low, high))
        raise UsageError(f"expected finite bounds LOW < HIGH{of}, found {one:g} and {other:g}", code="wrong-value")
    if inputs.size == 0:
        raise InputError(f"{source}: expected inputs, found none")
    axes = None if is_one(bounds) else 0
    least, greatest = np.asarray(inputs.min(axis=axes)), np.asarray(inputs.max(axis=axes))
    # Compared in the inputs' own precision: 0.1 is no float32, and its nearest one lies above it.
    outside = ~((low.astype(inputs.dtype) <= least) & (greatest <= high.astype(inputs.dtype)))
    if outside.any():
        of = "" if is_one(bounds) else f" of {_place(outside)}"
        ours, other, one, most = (side[outside].flat[0] for side in (low, high, least, greatest))
        advice = advice or f"state their range with {option('bounds')}, or divide them with {option('scale')}"
        raise InputError(f"{source}: expected inputs{of} within {ours:g}..{other:g}, found {one:g}..{most:g}; {advice}")


def _place(where: Array) -> str:
    # The first value of an input that it is true of.
    place = np.argwhere(where)[0]
    return f"feature {place[0]}" if len(place) == 1 else f"the value at {', '.join(map(str, place))}"


class _InParts(io.BufferedReader):
    # A file of which nobody gets much at once: the library takes the list of an archive's entries whole, and needs ten
    # times its length for it; it takes arrays in parts.

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            size = _MOST_AT_ONCE
        if size > _MOST_AT_ONCE:
            raise ValueError(f"expected to read at most {_MOST_AT_ONCE} bytes at once, found {size}")
        return super().read(size)


@contextmanager
def _open(path: Path) -> Iterator[np.lib.npyio.NpzFile]:
    # Opened here, since numpy leaves files open that it cannot read, and waits for pipes.
    with open_regular(path, "an .npz file", LARGEST_ARRAYS, InputError) as opened, _InParts(opened.raw) as file:
        if file.peek(len(MAGIC_PREFIX)).startswith(MAGIC_PREFIX):
            raise InputError(f"{path}: expected an .npz file with inputs and labels, found a single array")
        try:
            loaded = np.load(file, allow_pickle=False)
        except Exception:  # numpy and zipfile raise a dozen kinds at damaged files
            raise InputError(f"{path}: expected an .npz file, found something else or a damaged one") from None
        with loaded, _in_memory(path):
            if len(set(loaded.files)) < len(loaded.files):
                raise InputError(f"{path}: expected an .npz file, found one with two arrays of one name")
            yield loaded


@contextmanager
def _in_memory(path: Path) -> Iterator[None]:
    try:
        yield
    except MemoryError:
        raise InputError(f"{path}: expected arrays that the memory holds, found larger ones") from None


def _array(path: Path, archive: np.lib.npyio.NpzFile, key: str) -> Array:
    try:
        # What numpy reads arrays from; None of an archive that is closed.
        content = _unfit(archive.zip, key) if archive.zip else "a closed file"
        if content is None:
            array: Array = archive[key]
            return array
    except MemoryError:
        raise
    except Exception:  # see `_open`
        content = "a damaged array"
    raise InputError(f"{path}: expected a plain array of numbers under {clean(key)!r}, found {content}")


def _unfit(archive: zipfile.ZipFile, key: str) -> str | None:
    # Why an array is not read, by what is said of it before its numbers: the library would make room for as much as is
    # promised, and unpack as much as there is.
    entry = archive.getinfo(key if key in archive.namelist() else f"{key}.npy")
    if entry.flag_bits & _ENCRYPTED:
        return "an encrypted one"
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "one that numpy does not compress so"
    with archive.open(entry) as file:
        if file.read(len(MAGIC_PREFIX)) != MAGIC_PREFIX:
            return "another file"
        file.seek(0)
        read_header = _HEADERS[read_magic(file)]
        shape, _, dtype = read_header(file, max_header_size=_LONGEST_HEADER)
        there = entry.file_size - file.tell()
    if dtype.hasobject:
        return "objects (pickles are never read)"
    if dtype.kind not in "buif":
        return clean(str(dtype))
    count = math.prod(shape)
    if min(shape, default=0) < 0 or count * dtype.itemsize != there:
        return "a damaged array"
    if count * max(dtype.itemsize, np.dtype(np.float32).itemsize) > LARGEST_ARRAYS:
        return f"{count} of them, which need more than {LARGEST_ARRAYS} bytes"
    return None


def _keys(
    path: Path, keys: list[str], x: str | None, y: str | None, usual: Sequence[tuple[str, str]]
) -> tuple[str, str]:
    if x is None and y is None:
        pairs = [pair for pair in usual if set(pair) <= set(keys)]
        if not pairs:
            raise InputError(
                f"{path}: expected inputs and labels under one of {', '.join('/'.join(p) for p in usual)}, "
                f"found {_listed(keys)}; name them with --x KEY --y KEY, or without any labels, --labels victim takes "
                "the victim's own answers"
            )
        return pairs[0]
    for key, place in ((x, 0), (y, 1)):
        if key is not None and key not in keys:
            raise _missing(path, key, keys)
        if key is None:
            partner = next((p[place] for p in usual if p[1 - place] in (x, y) and p[place] in keys), None)
            if partner is None:
                without = ", or without any labels, --labels victim" if place else ""
                raise InputError(
                    f"{path}: name the {'labels with --y' if place else 'inputs with --x'} KEY too{without}"
                )
            x, y = (partner, y) if place == 0 else (x, partner)
    return str(x), str(y)


def _key(path: Path, keys: list[str], x: str | None, usual: Sequence[tuple[str, str]]) -> str:
    # Of inputs without labels.
    if x is not None and x not in keys:
        raise _missing(path, x, keys)
    found = x or next((pair[0] for pair in usual if pair[0] in keys), None) or (keys[0] if len(keys) == 1 else None)
    if found is None:
        named = ", ".join(pair[0] for pair in usual)
        raise InputError(f"{path}: expected inputs under one of {named}, found {_listed(keys)}; name them with --x KEY")
    return found


def _missing(path: Path, key: str, keys: list[str]) -> InputError:
    return InputError(f"{path}: expected {key!r}, found {_listed(keys)}")


def _listed(keys: list[str]) -> str:
    return clean(", ".join(keys)) or "nothing"


def _scaled(path: Path, key: str, raw: Array, scale: float) -> Array:
    if raw.ndim < 2:
        raise InputError(f"{path}: expected inputs with a batch axis under {key!r}, found shape {raw.shape}")
    if raw.size == 0:
        raise InputError(f"{path}: expected inputs under {key!r}, found none")
    with np.errstate(over="ignore"):  # what becomes infinite is refused
        inputs = raw.astype(np.float32)
        if scale != 1.0:
            inputs /= np.float32(scale)
    if not np.isfinite(inputs).all():
        raise InputError(f"{path}: expected finite inputs under {key!r}, found NaN or infinity")
    return inputs


def _labels(path: Path, key: str, raw: Array) -> Array:
    labels = raw[:, 0] if raw.ndim == 2 and raw.shape[1] == 1 else raw
    if labels.ndim != 1 and not (labels.ndim == 2 and labels.shape[1] > 1 and np.isin(labels, (0, 1)).all()):
        raise InputError(
            f"{path}: expected one class number per input under {key!r}, or 0 and 1 for each class, found shape "
            f"{raw.shape}"
        )
    with np.errstate(invalid="ignore"):  # NaN becomes some number, and is found by the comparison
        numbers = labels.astype(np.int64)
    if not (numbers == labels).all():
        raise InputError(f"{path}: expected whole class numbers under {key!r}, found others")
    return numbers


def _check_scale(scale: float) -> None:
    if scale == 0 or not math.isfinite(scale):
        raise UsageError(f"expected a finite scale other than 0, found {scale:g}", code="wrong-value")


def _bounds(
    source: str,
    dtype: np.dtype[np.generic],
    inputs: Array,
    training: Array | None,
    scale: float,
    layout: Layout | None,
) -> Bounds:
    if dtype == np.uint8:
        edge = float(np.float32(255) / np.float32(scale))
        return (0.0, edge) if edge > 0 else (edge, 0.0)
    least, greatest = float(inputs.min()), float(inputs.max())
    usual = next(((low, high) for low, high in ((0.0, 1.0), (-1.0, 1.0)) if low <= least and greatest <= high), None)
    if usual is None and least >= 0 and 1 < greatest <= 255 and bool((inputs == np.round(inputs)).all()):
        usual = 0.0, 255.0
    own = own_ranges(inputs, training, layout, usual=usual is not None)
    if own or usual:
        return own or usual  # type: ignore[return-value]
    if least == greatest:
        raise InputError(f"{source}: expected inputs that differ, found only {least:g}")
    if training is not None:
        least, greatest = min(least, float(training.min())), max(greatest, float(training.max()))
    return least, greatest
