"""Keys as values that can stand in a file: in one of their own, and in suites."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
from msgspec import Meta

from deepjudge_core.components.drawing import NONCE
from deepjudge_core.components.schemes import Drawn, Key, KeyAnswers, Scheme, mistake
from deepjudge_core.errors import FileFormatError, UsageError
from deepjudge_core.files import storage
from deepjudge_core.files.documents import Count, Document, Json, Lines, Positive, parse, plain
from deepjudge_core.sheets import Sheet, sizes
from deepjudge_core.text import counted
from deepjudge_core.types import Array

Nonce = Annotated[str, Meta(pattern=f"^[0-9a-f]{{{2 * NONCE}}}$", max_length=2 * NONCE)]
"""In hex."""
_ARRAYS = ("inputs", "labels", "truth", "bits")
_MOST_PLACES = 64  # of matrices: more than any scheme reads


class KeyHeader(Document, frozen=True):
    """A key without its arrays, as it stands in a file."""

    scheme: str
    options: Json
    nonce: Nonce
    made_from: str
    shape: tuple[Positive, ...]
    classes: Positive
    trials: Positive
    arrays: Lines
    taps: Lines
    matrices: tuple[Count, ...]
    drawn: Drawn | None
    references: Lines
    surrogates: Lines
    notes: Lines


class KeyAnswersHeader(Document, frozen=True):
    """A model's answers to a key without their arrays, as they stand in a file."""

    answered: bool
    taps: Lines
    matrices: tuple[Count, ...]
    missing: str | None


def key_header(key: Key) -> KeyHeader:
    """All but the arrays."""
    return KeyHeader(
        scheme=key.scheme,
        options=key.options,
        nonce=key.nonce.hex(),
        made_from=key.made_from,
        shape=key.shape,
        classes=key.classes,
        trials=key.trials,
        arrays=tuple(key.arrays),
        taps=key.taps,
        matrices=key.matrices,
        drawn=key.drawn,
        references=key.references,
        surrogates=key.surrogates,
        notes=key.notes,
    )


def key_arrays(key: Key, prefix: str) -> dict[str, Array]:
    """The arrays, by names that begin with ``prefix``."""
    own = {f"{prefix}{name}": getattr(key, name) for name in _ARRAYS}
    others = {f"{prefix}arrays.{place}": array for place, array in enumerate(key.arrays.values())}
    return {name: array for name, array in own.items() if array is not None} | others


def key_of(header: KeyHeader, arrays: Mapping[str, Array], prefix: str) -> Key:
    """The inverse of :func:`key_header` and :func:`key_arrays`.

    Raises:
        KeyError, ValueError: When arrays are missing or do not fit the rest, or do not follow from the nonce.
    """
    if len(header.matrices) > _MOST_PLACES:
        raise ValueError(f"expected at most {_MOST_PLACES} matrices, found {len(header.matrices)}")
    key = Key(
        scheme=header.scheme,
        options=header.options,
        nonce=bytes.fromhex(header.nonce),
        made_from=header.made_from,
        shape=header.shape,
        classes=header.classes,
        trials=header.trials,
        **{name: arrays.get(f"{prefix}{name}") for name in _ARRAYS},
        arrays={name: arrays[f"{prefix}arrays.{place}"] for place, name in enumerate(header.arrays)},
        taps=header.taps,
        matrices=header.matrices,
        drawn=header.drawn,
        references=header.references,
        surrogates=header.surrogates,
        notes=header.notes,
    )
    problem = mistake(key)
    if problem:
        raise ValueError(f"the key of {key.scheme!r}: {problem}")
    return key


def answers_header(answers: KeyAnswers) -> KeyAnswersHeader:
    """All but the arrays."""
    return KeyAnswersHeader(
        answers.probabilities is not None, tuple(answers.activations), tuple(answers.matrices), answers.missing
    )


def answers_arrays(answers: KeyAnswers, prefix: str) -> dict[str, Array]:
    """The arrays, by names that begin with ``prefix``."""
    named = {} if answers.probabilities is None else {f"{prefix}probabilities": answers.probabilities}
    named |= {f"{prefix}activations.{place}": outputs for place, outputs in enumerate(answers.activations.values())}
    return named | {f"{prefix}matrices.{place}": matrix for place, matrix in answers.matrices.items()}


def answers_of(header: KeyAnswersHeader, arrays: Mapping[str, Array], prefix: str) -> KeyAnswers:
    """The inverse of :func:`answers_header` and :func:`answers_arrays`.

    Raises:
        KeyError, ValueError: When arrays are missing, or are no answers.
    """
    answers = KeyAnswers(
        arrays[f"{prefix}probabilities"] if header.answered else None,
        {tap: arrays[f"{prefix}activations.{place}"] for place, tap in enumerate(header.taps)},
        {place: arrays[f"{prefix}matrices.{place}"] for place in header.matrices},
        header.missing,
    )
    found = [*answers.activations.values(), *answers.matrices.values()]
    found += [] if answers.probabilities is None else [answers.probabilities]
    if any(array.dtype != np.float32 or array.ndim != 2 for array in found):
        raise ValueError("the answers to a key are not tables of float32")
    return answers


def unfit(key: Key, answers: KeyAnswers) -> str | None:
    """Why answers are none to a key: one clause; None where they are."""
    count = 0 if key.inputs is None else len(key.inputs)
    if answers.probabilities is not None and answers.probabilities.shape != (count, key.classes):
        return f"expected probabilities of shape {(count, key.classes)}, found {answers.probabilities.shape}"
    if not set(answers.activations) <= set(key.taps) or not set(answers.matrices) <= set(key.matrices):
        return "expected the layers and matrices of the key, found others"
    if any(len(outputs) != count for outputs in answers.activations.values()):
        return f"expected layers of {count} inputs, found others"
    return None


def names_of(keys: Sequence[Key]) -> tuple[str, ...]:
    """What each key of a suite is called: by its scheme, and by a number from the second of a scheme on."""
    names: list[str] = []
    for place, key in enumerate(keys):
        count = 1 + sum(other.scheme == key.scheme for other in keys[:place])
        name = key.scheme if count == 1 else f"{key.scheme}-{count}"
        while name in names:  # a scheme may be called as the second key of another is
            name += "-2"
        names.append(name)
    return tuple(names)


def key_digest(key: Key) -> str:
    """SHA-256, in hex, of all of a key."""
    return _content(key).digest


def _content(key: Key) -> storage.Content:
    return storage.seal("key", plain(key_header(key)), key_arrays(key, ""))


def sheet_of_key(key: Key, scheme: Scheme | None = None) -> Sheet:
    """What may be shown of a key: neither its nonce nor its labels or bits.

    Args:
        key: The key.
        scheme: The one that made it; None where it is not installed.
    """
    asked = [
        f"{len(key.inputs)} inputs of {sizes(key.shape)}" if key.inputs is not None else "",
        f"the layers {', '.join(key.taps)}" if key.taps else "",
        f"the matrices {', '.join(str(place + 1) for place in key.matrices)}" if key.matrices else "",
    ]
    facts = {
        "scheme": f"{key.scheme} ({scheme.source})" if scheme else f"{key.scheme}, which is not installed",
        "options": " ".join(f"{name}={value}" for name, value in sorted(key.options.items())),
        "trials": f"{key.trials:,}",
        "chance": "controls decide, since what counts as a match comes from the victim"
        if key.chance is None
        else f"{key.chance:.3g} for each trial by design, since it was drawn at random",
        "says": scheme.says if scheme else "",
        "asks": ", ".join(filter(None, asked)),
        "victim": f"{key.classes} classes, digest {key.made_from}",
        "made with": ", ".join(
            counted(len(models), f"{what} model")
            for models, what in ((key.references, "independent"), (key.surrogates, "stolen"))
            if models
        ),
        "note": key.notes,
        "digest": key_digest(key),
    }
    return Sheet("key", facts)


def save_key(path: Path | str, key: Key) -> None:
    """Write a key, which its owner alone may read; equal keys give equal bytes.

    Raises:
        FileFormatError: When it cannot be written.
    """
    storage.write(Path(path), _content(key), private=True)


def load_key(path: Path | str) -> Key:
    """Read a key, and draw again what is drawn.

    Raises:
        FileFormatError: When the file is damaged or another, or does not follow from its nonce.
    """
    content = storage.read(Path(path), ["key"])
    try:
        return key_of(parse(KeyHeader, content.header), content.arrays, "")
    except (KeyError, ValueError) as error:
        raise FileFormatError(f"{path}: {error}", code="damaged-file") from None


def load_keys(paths: Iterable[Path | str]) -> dict[str, Key]:
    """Read keys, by their paths.

    Raises:
        FileFormatError: As :func:`load_key`.
        UsageError: When two are the same key.
    """
    keys: dict[str, Key] = {}
    found: dict[str, str] = {}
    for path in map(str, paths):
        key = load_key(path)
        other = found.setdefault(key_digest(key), path)
        if path in keys or other != path:
            raise UsageError(f"{path}: expected each key once, found the key {other} again", code="conflict")
        keys[path] = key
    return keys
