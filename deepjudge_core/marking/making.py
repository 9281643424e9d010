"""Make a key: of a scheme, from the owner's model."""

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from deepjudge_core.components.drawing import NONCE
from deepjudge_core.components.registry import Configured
from deepjudge_core.components.schemes import Key, KeyTask, Scheme, expect_key
from deepjudge_core.errors import DeepJudgeError, InputError, ModelError, PluginError, UsageError, one_line
from deepjudge_core.models.model import Model
from deepjudge_core.types import Array


@dataclass(frozen=True, eq=False)
class Material:
    """What keys are made from, besides the victim.

    Attributes:
        inputs: ``(n, *shape)`` float32 of the victim's task, in its layout.
        labels: ``(n,)`` int64; None where there are none.
        bounds: Least and greatest value of an input, or of each.
        auxiliary: ``(m, *shape)`` inputs of another task, in the victim's layout; None where there are none.
        auxiliary_labels: ``(m,)`` int64; None where there are none.
        references: Models independent of the victim.
        surrogates: Models stolen from it.
        matrices: Reads the victim's matrices by their places; None where they cannot be read.
    """

    inputs: Array
    labels: Array | None
    bounds: tuple[float, float] | tuple[Array, Array]
    auxiliary: Array | None = None
    auxiliary_labels: Array | None = None
    references: tuple[Model, ...] = ()
    surrogates: tuple[Model, ...] = ()
    matrices: Callable[[Sequence[int]], dict[int, Array]] | None = None


def make_key(victim: Model, scheme: Configured[Scheme], material: Material, nonce: bytes | None = None) -> Key:
    """Make a key; equal arguments and nonces give equal keys.

    Args:
        victim: The owner's model.
        scheme: With its options.
        material: What it is made from.
        nonce: 32 bytes that all that is drawn follows from; by default chosen at random.

    Raises:
        InputError, ModelError: When the scheme needs what is not there, with the reason.
        PluginError: When the scheme fails.
        UsageError: For a nonce of another length.
    """
    if nonce is not None and len(nonce) != NONCE:
        raise UsageError(f"expected a nonce of {NONCE} bytes ({2 * NONCE} hex digits), found {len(nonce)} bytes")
    _check(victim, scheme.component, material)
    task = KeyTask(victim, nonce=nonce or secrets.token_bytes(NONCE), **vars(material))
    try:
        key = expect_key(scheme.component, scheme.component.make(task, **scheme.options))
    except DeepJudgeError:
        raise
    except (Exception, SystemExit) as error:
        raise PluginError(f"the scheme {scheme.name!r} failed: {one_line(error)}") from error
    _check_inputs(key, material)
    return key


_WAYS: Mapping[str, str] = {
    "labels": "inputs with labels",
    "auxiliary": "auxiliary inputs, of another task",
    "references": "a zoo with models independent of the victim",
    "surrogates": "a zoo with models stolen from the victim",
}


def _check(victim: Model, scheme: Scheme, material: Material) -> None:
    for want in scheme.wants:
        held: Any = getattr(material, want)
        if held is None or len(held) == 0:
            raise InputError(f"{scheme.name}: expected {_WAYS[want]}, found none", code="missing-value")
    missing = scheme.asks & ~victim.access
    if missing:
        names = " and ".join(str(flag.name).lower() for flag in missing)
        raise ModelError(f"{victim.name}: does not provide {names}, which the scheme {scheme.name} needs")


def _check_inputs(key: Key, material: Material) -> None:
    if key.inputs is None:
        return
    low, high = (np.asarray(side, np.float32) for side in material.bounds)
    if not (np.isfinite(key.inputs).all() and ((low <= key.inputs) & (key.inputs <= high)).all()):
        raise PluginError(
            f"the scheme {key.scheme!r} failed: expected inputs within {low.min():g}..{high.max():g}, found "
            f"{key.inputs.min():g}..{key.inputs.max():g}"
        )
