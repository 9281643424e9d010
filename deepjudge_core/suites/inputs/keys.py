"""Under which names inputs and labels stand in a file of arrays."""

from collections.abc import Sequence
from pathlib import Path

from deepjudge_core.errors import InputError, UsageError
from deepjudge_core.naming import option
from deepjudge_core.text import clean

USUAL_KEYS = (("x_test", "y_test"), ("x", "y"), ("images", "labels"), ("X", "Y"), ("data", "target"))
"""Names under which inputs and labels are looked for, in this order."""
TRAINING_KEY = "x_train"
TRAINING_KEYS = (("x_train", "y_train"), *USUAL_KEYS[1:])
"""The same where inputs to train with are looked for: none that are for tests."""


def pair_of_keys(
    path: Path, keys: Sequence[str], x: str | None, y: str | None, usual: Sequence[tuple[str, str]]
) -> tuple[str, str]:
    """The keys of inputs and labels: those that were said, and the usual ones otherwise.

    Raises:
        InputError: When there are none.
        UsageError: When one that was said is not there, or does not say which the other is.
    """
    if x is None and y is None:
        pairs = [pair for pair in usual if set(pair) <= set(keys)]
        if not pairs:
            raise InputError(
                f"{path}: expected inputs and labels under one of "
                f"{', '.join('/'.join(p) for p in usual)}, found {listed(keys)}; name them with "
                f"{option('x')} and {option('y')}, or, if there are no labels, use the victim's own "
                f"answers with {option('labels', 'victim')}"
            )
        return pairs[0]
    for key, place in ((x, 0), (y, 1)):
        if key is not None and key not in keys:
            raise missing_key(path, key, keys)
        if key is None:
            partner = next((p[place] for p in usual if p[1 - place] in (x, y) and p[place] in keys), None)
            if partner is None:
                what, how = ("labels", option("y")) if place else ("inputs", option("x"))
                without = f", or, if there are no labels, use {option('labels', 'victim')}" if place else ""
                said = f"one of {listed(keys)}"
                raise UsageError(
                    f"{path}: name the array of {what} too, {said}, with {how}{without}", code="missing-value"
                )
            x, y = (partner, y) if place == 0 else (x, partner)
    return str(x), str(y)


def key_of_inputs(path: Path, keys: Sequence[str], x: str | None, usual: Sequence[tuple[str, str]]) -> str:
    """The key of inputs without labels: the one that was said, a usual one, or the only one.

    Raises:
        InputError: When there is none.
        UsageError: When the one that was said is not there.
    """
    if x is not None and x not in keys:
        raise missing_key(path, x, keys)
    found = x or next((pair[0] for pair in usual if pair[0] in keys), None) or (keys[0] if len(keys) == 1 else None)
    if found is None:
        named = ", ".join(pair[0] for pair in usual)
        raise InputError(
            f"{path}: expected inputs under one of {named}, found {listed(keys)}; name them with {option('x')}"
        )
    return found


def missing_key(path: Path, key: str, keys: Sequence[str]) -> UsageError:
    """What is raised for a key that was said and is not there."""
    return UsageError(f"{path}: expected an array {key!r}, found {listed(keys)}", code="unknown-name")


def listed(keys: Sequence[str]) -> str:
    """The keys on one line."""
    return clean(", ".join(keys)) or "nothing"
