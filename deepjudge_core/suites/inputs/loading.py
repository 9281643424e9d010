"""Inputs from whatever people have them in: the one door."""

from collections.abc import Sequence
from pathlib import Path

from deepjudge_core.suites.inputs.archives import open_archive
from deepjudge_core.suites.inputs.keys import (
    TRAINING_KEY,
    USUAL_KEYS,
    key_of_inputs,
    missing_key,
    pair_of_keys,
)
from deepjudge_core.suites.inputs.raw import Reading, check_scale, class_numbers, scaled
from deepjudge_core.suites.inputs.value import Inputs, LabelSource
from deepjudge_core.types import Array, Bounds, Layout


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
) -> Inputs:
    """Read labelled inputs, or inputs whose labels the victim is going to say.

    Args:
        path: An ``.npz`` file, an ``.npy`` file with the labels in another one in the same folder, or a
            ``.safetensors`` file. Pickles are never read.
        x: Key of the inputs; by default the first of the usual ones.
        y: Key of the labels; by default the one that goes with ``x``.
        scale: What the stored inputs are divided by; 1 by default.
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
    reading = Reading(x, y, scale, bounds, training, layout, usual, labels)
    return _of_arrays(Path(path), reading)


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
    """Whether a file of arrays has some of these names.

    Raises:
        InputError: When it cannot be read.
    """
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
    with open_archive(path) as archive:
        if not key:
            candidates = (TRAINING_KEY, *(pair[0] for pair in USUAL_KEYS))
            key = next((k for k in candidates if k in archive.keys), "")
        if key not in archive.keys:
            raise missing_key(path, key or "a key of training inputs", archive.keys)
        return scaled(f"{path}: {key!r}", archive.array(key), 1.0 if scale is None else scale)
