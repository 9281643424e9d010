"""Labelled inputs from ``.npz`` files, with the bounds that they declare or imply."""

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deepjudge_core.errors import InputError
from deepjudge_core.model import Array

USUAL_KEYS = (("x_test", "y_test"), ("x", "y"), ("images", "labels"), ("X", "Y"), ("data", "target"))
"""Names under which inputs and labels are looked for, in this order."""
TRAINING_KEY = "x_train"


@dataclass(frozen=True, eq=False)
class Inputs:
    """Inputs, their labels and their range.

    Attributes:
        x: ``(n, *shape)`` float32.
        y: ``(n,)`` int64.
        bounds: Least and greatest value that an input may have.
        training: ``(n, *shape)`` float32, inputs of the training set of the same file, where it has them.
    """

    x: Array
    y: Array
    bounds: tuple[float, float]
    training: Array | None = None


def load_inputs(
    path: Path,
    *,
    x: str | None = None,
    y: str | None = None,
    scale: float = 1.0,
    bounds: tuple[float, float] | None = None,
) -> Inputs:
    """Read labelled inputs.

    Args:
        path: An ``.npz`` file, read without pickle.
        x: Key of the inputs; by default the first of the usual ones.
        y: Key of the labels; by default the one that goes with ``x``.
        scale: What the stored inputs are divided by.
        bounds: Range of the inputs after scaling; by default the range of their integer type, 0..1, -1..1, or else
            their least and greatest value.

    Raises:
        InputError: When the file cannot be read, keys are missing, shapes do not agree, or values are out of bounds.
    """
    if scale == 0 or not np.isfinite(scale):
        raise InputError(f"expected a scale other than 0, found {scale}")
    with _open(path) as archive:
        keys = archive.files
        found_x, found_y = _keys(path, keys, x, y)
        raw = _array(path, archive, found_x)
        labels = _labels(path, found_y, _array(path, archive, found_y))
        training = None
        if found_x == "x_test" and TRAINING_KEY in keys:
            training = _scaled(path, TRAINING_KEY, _array(path, archive, TRAINING_KEY), scale)
    if len(raw) != len(labels):
        raise InputError(f"{path}: expected as many labels as inputs, found {len(raw)} inputs and {len(labels)} labels")
    if len(raw) == 0:
        raise InputError(f"{path}: expected inputs, found none")
    inputs = _scaled(path, found_x, raw, scale)
    limits = _bounds(raw.dtype, inputs, scale) if bounds is None else bounds
    check_bounds(f"{path}: {found_x!r}", inputs, limits)
    return Inputs(inputs, labels, limits, training)


def load_training_inputs(reference: str, *, scale: float = 1.0) -> Array:
    """Read the inputs that ``FILE.npz:KEY`` names; without a key, ``x_train`` or the usual ones.

    Raises:
        InputError: As :func:`load_inputs`.
    """
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


def check_bounds(source: str, inputs: Array, bounds: tuple[float, float]) -> None:
    """Refuse inputs outside their bounds.

    Raises:
        InputError: Saying which range was expected and which was found.
    """
    low, high = bounds
    if not low < high:
        raise InputError(f"{source}: expected bounds LOW < HIGH, found {low:g} and {high:g}")
    least, greatest = float(inputs.min()), float(inputs.max())
    if least < low or greatest > high:
        raise InputError(
            f"{source}: expected inputs within {low:g}..{high:g}, found {least:g}..{greatest:g}; "
            "state their range with --bounds, or divide them with --scale"
        )


def _open(path: Path) -> np.lib.npyio.NpzFile:
    try:
        loaded = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise InputError(f"{path}: cannot be read: {error.strerror}") from None
        raise InputError(f"{path}: expected an .npz file, found something else or a damaged one") from None
    if not isinstance(loaded, np.lib.npyio.NpzFile):
        raise InputError(f"{path}: expected an .npz file with inputs and labels, found a single array")
    return loaded


def _array(path: Path, archive: np.lib.npyio.NpzFile, key: str) -> Array:
    try:
        array: Array = archive[key]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        what = "objects (pickles are never read)" if "pickle" in str(error) else "a damaged array"
        raise InputError(f"{path}: expected a plain array under {key!r}, found {what}") from None
    if array.dtype.kind not in "buif":
        raise InputError(f"{path}: expected numbers under {key!r}, found {array.dtype}")
    return array


def _keys(path: Path, keys: list[str], x: str | None, y: str | None) -> tuple[str, str]:
    if x is None and y is None:
        pairs = [pair for pair in USUAL_KEYS if set(pair) <= set(keys)]
        if not pairs:
            raise InputError(
                f"{path}: expected inputs and labels under one of {', '.join('/'.join(p) for p in USUAL_KEYS)}, "
                f"found {', '.join(keys) or 'nothing'}; name them with --x KEY --y KEY"
            )
        return pairs[0]
    for given, place in ((x, 0), (y, 1)):
        if given is not None and given not in keys:
            raise _missing(path, given, keys)
        if given is None:
            partner = next((p[place] for p in USUAL_KEYS if p[1 - place] in (x, y) and p[place] in keys), None)
            if partner is None:
                raise InputError(f"{path}: name the {'labels with --y' if place else 'inputs with --x'} KEY too")
            x, y = (partner, y) if place == 0 else (x, partner)
    return str(x), str(y)


def _missing(path: Path, key: str, keys: list[str]) -> InputError:
    return InputError(f"{path}: expected {key!r}, found {', '.join(keys) or 'nothing'}")


def _scaled(path: Path, key: str, raw: Array, scale: float) -> Array:
    if raw.ndim < 2:
        raise InputError(f"{path}: expected inputs with a batch axis under {key!r}, found shape {raw.shape}")
    inputs = raw.astype(np.float32)
    if not np.isfinite(inputs).all():
        raise InputError(f"{path}: expected finite inputs under {key!r}, found NaN or infinity")
    if scale != 1.0:
        inputs /= np.float32(scale)
    return inputs


def _labels(path: Path, key: str, raw: Array) -> Array:
    labels = raw[:, 0] if raw.ndim == 2 and raw.shape[1] == 1 else raw
    if labels.ndim != 1:
        raise InputError(f"{path}: expected one class number per input under {key!r}, found shape {raw.shape}")
    numbers = labels.astype(np.int64)
    if not (numbers == labels).all():
        raise InputError(f"{path}: expected whole class numbers under {key!r}, found others")
    return numbers


def _bounds(dtype: np.dtype[np.generic], inputs: Array, scale: float) -> tuple[float, float]:
    if dtype == np.uint8:
        edge = float(np.float32(255) / np.float32(scale))
        return (0.0, edge) if edge > 0 else (edge, 0.0)
    least, greatest = float(inputs.min()), float(inputs.max())
    for low, high in ((0.0, 1.0), (-1.0, 1.0)):
        if low <= least and greatest <= high:
            return low, high
    if least >= 0 and 1 < greatest <= 255 and bool((inputs == np.round(inputs)).all()):
        return 0.0, 255.0
    return least, greatest
