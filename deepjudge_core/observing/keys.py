"""Let a model answer the keys of a suite: labels, layers and matrices, as each key asks for."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from deepjudge_core.components.schemes import Key, KeyAnswers
from deepjudge_core.errors import ModelError
from deepjudge_core.models.asking import OtherAnswersError, ask
from deepjudge_core.models.model import Access, Model
from deepjudge_core.models.preprocessing import Prepare
from deepjudge_core.models.sketcher import Sketcher
from deepjudge_core.observing.layers import NoLayerError, align, find_candidates
from deepjudge_core.suites.observation import Observation
from deepjudge_core.suites.suite import Suite
from deepjudge_core.types import Array

_SEEDS = 8  # that are asked beside the keys: to one odd kind of inputs an honest model may give one answer alone

ToClasses = Callable[[Array], Array | None]
"""Maps a model's own answers to the victim's classes; None where they are others."""


def answer_keys(
    model: Model,
    suite: Suite,
    *,
    prepare: Prepare | None = None,
    to_classes: ToClasses = lambda answers: answers,
    unmapped: str | None = None,
) -> tuple[KeyAnswers, ...]:
    """Ask a model the inputs of a suite's keys, all of them at once.

    Args:
        model: Anybody's model.
        suite: The suite.
        prepare: What is done to the inputs before.
        to_classes: How its answers become those of the victim's classes.
        unmapped: Why they cannot.

    Raises:
        ModelError: When it cannot be run, or answers nonsense.
    """
    keys = suite.keys
    given = [key.inputs for key in keys if key.inputs is not None]
    if not given:
        return tuple(KeyAnswers() for _ in keys)
    seeds = suite.cases.inputs[:_SEEDS]
    inputs = np.concatenate([seeds, *given])
    wanted = any(key.taps for key in keys)
    taps = _taps(model, keys, suite) if wanted and Access.LAYERS in model.access else ()
    hidden = "its layers cannot be seen" if wanted and Access.LAYERS not in model.access else None
    try:
        answers, activations = ask(model, inputs, {tap: tap for tap in taps}, prepare)
    except OtherAnswersError as error:
        answers, activations = ask(model, inputs, {}, prepare)
        hidden = str(error).removeprefix(f"{model.name}: ")
    mapped = to_classes(answers)
    found, start = [], len(seeds)
    for key in keys:
        if key.inputs is None:
            found.append(KeyAnswers())
            continue
        rows = slice(start, start + len(key.inputs))
        start = rows.stop
        own = {tap: outputs[rows] for tap, outputs in activations.items()}
        layers, unlike = _aligned(model, key, suite, own) if key.taps and not hidden else ({}, None)
        missing = (hidden or unlike) if key.taps else None
        found.append(
            KeyAnswers(
                None if mapped is None else mapped[rows],
                {layer: own[tap] for layer, tap in layers.items()},
                missing=missing or (unmapped if mapped is None else None),
            )
        )
    return tuple(found)


def _taps(model: Model, keys: Sequence[Key], suite: Suite) -> tuple[str, ...]:
    # Those that may answer a key's layers, by their widths.
    owner, taps = suite.victim.model.layers, dict[str, None]()
    for key in keys:
        for layer in key.taps:
            taps |= dict.fromkeys(tap for tap, width in model.layers.items() if width == owner[layer])
    return tuple(taps)


def _aligned(
    model: Model, key: Key, suite: Suite, outputs: Mapping[str, Array]
) -> tuple[Mapping[str, str], str | None]:
    place = suite.keys.index(key)
    ours = suite.victim.keys[place].activations if suite.victim.keys else {}
    if not ours:  # the victim itself
        return {layer: layer for layer in key.taps}, None
    try:
        chosen = find_candidates(model.name, suite.victim.model.layers, model.layers, key.taps, {})
        return align(chosen, ours, [outputs]), None
    except NoLayerError as error:
        return {}, str(error)


def with_matrices(observation: Observation, sketcher: Sketcher, suite: Suite) -> Observation:
    """What a model answered, with the matrices that the keys of a suite name.

    Args:
        observation: What it answered.
        sketcher: Reads the weights of the same model.
        suite: The suite.
    """
    places = sorted({place for key in suite.keys for place in key.matrices})
    if not places:
        return observation
    answers = observation.keys or tuple(KeyAnswers() for _ in suite.keys)
    try:
        matrices = sketcher.matrices(places)
    except ModelError as error:
        return without_matrices(replace(observation, keys=answers), error, suite)
    read = (
        replace(one, matrices={place: matrices[place] for place in key.matrices})
        for one, key in zip(answers, suite.keys, strict=True)
    )
    return replace(observation, keys=tuple(read))


def without_matrices(observation: Observation, error: ModelError, suite: Suite) -> Observation:
    """What a model answered, with the reason why its matrices could not be read."""
    missing = str(error).removeprefix(f"{observation.model.name}: ")
    answers = observation.keys or tuple(KeyAnswers() for _ in suite.keys)
    told = (
        replace(one, missing=missing) if key.matrices else one for one, key in zip(answers, suite.keys, strict=True)
    )
    return replace(observation, keys=tuple(told))
