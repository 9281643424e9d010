"""Run a model on a suite, once; the only place where a suspect is run."""

from collections.abc import Mapping, Sequence

import numpy as np

from deepjudge_core import progress
from deepjudge_core.errors import DeepJudgeError, InputError, ModelError, UsageError
from deepjudge_core.layouts import arrangement
from deepjudge_core.model import Access, Array, Model, softmax
from deepjudge_core.observation import ModelInfo, Observation
from deepjudge_core.suite import Suite

_CHUNK = 512  # cases between two signs of progress


def observe(model: Model, suite: Suite, *, layers: Mapping[str, str] | None = None) -> Observation:
    """Let a model answer all cases of a suite.

    Args:
        model: Anybody's model.
        suite: The suite.
        layers: The suite's layers to the model's taps, where position and width do not find them.

    Raises:
        ModelError: When the model has other classes or inputs, cannot be run, or answers nonsense.
        UsageError: When ``layers`` names what does not exist.
    """
    victim = suite.victim.model
    if model.classes != victim.classes:
        raise ModelError(f"{model.name}: expected {victim.classes} classes, found {model.classes}")
    try:
        arrange = arrangement(model.name, suite.cases.inputs.shape[1:], model.input, victim.input.layout)
    except InputError as error:
        raise ModelError(str(error)) from None
    layer_map, unmatched = _correspondence(model, suite, layers or {})
    probabilities, activations = ask(model, arrange(suite.cases.inputs), layer_map)
    return Observation(ModelInfo.of(model), suite.digest, probabilities, activations, layer_map, unmatched)


def ask(model: Model, inputs: Array, layer_map: Mapping[str, str]) -> tuple[Array, dict[str, Array]]:
    """Run a model once over inputs: probabilities ``(n, classes)``, and ``(n, neurons)`` for each layer of the map.

    Raises:
        ModelError: When it cannot be run, or answers nonsense.
    """
    taps = list(dict.fromkeys(layer_map.values()))
    probabilities = []
    activations: dict[str, list[Array]] = {tap: [] for tap in taps}
    try:
        with progress.task(f"asking {model.name}", len(inputs)) as advance:
            for start in range(0, len(inputs), _CHUNK):
                chunk = inputs[start : start + _CHUNK]
                if taps:
                    # One pass gives both: the probabilities are the softmax of the last tap, the logits; unless the
                    # model's own output is no softmax, as of sigmoids for many labels.
                    if start == 0:
                        _check(model, model.predict(chunk[:1]), {})
                    logits = list(model.layers)[-1]
                    seen = model.activations(chunk, list(dict.fromkeys([*taps, logits])))
                    probabilities.append(_from_logits(seen[logits]))
                    for tap in taps:
                        activations[tap].append(seen[tap])
                else:
                    probabilities.append(model.predict(chunk))
                advance(len(chunk))
    except DeepJudgeError:
        raise
    except Exception as error:
        text = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{model.name}: cannot be run on inputs of shape {inputs.shape[1:]}: {text}") from error
    answers = np.concatenate(probabilities)
    joined = {tap: np.concatenate(parts) for tap, parts in activations.items()}
    _check(model, answers, joined)
    return answers, {layer: joined[tap] for layer, tap in layer_map.items()}


def _check(model: Model, probabilities: Array, activations: Mapping[str, Array]) -> None:
    name, expected = model.name, (len(probabilities), model.classes)
    if probabilities.shape != expected:
        raise ModelError(f"{name}: expected probabilities of shape {expected}, found {probabilities.shape}")
    if not np.isfinite(probabilities).all():
        raise ModelError(f"{name}: expected probabilities, found NaN or infinity")
    sums = probabilities.sum(axis=1)
    if not np.allclose(sums, 1, atol=1e-3) or probabilities.min() < -1e-6:
        raise ModelError(f"{name}: expected probabilities that sum to 1, found sums {sums.min():.4g}..{sums.max():.4g}")
    if len(probabilities) > 1 and float(np.ptp(probabilities, axis=0).max()) == 0:
        raise ModelError(f"{name}: expected answers that depend on the input, found the same answer to every input")
    for tap, values in activations.items():
        if values.shape != (len(probabilities), model.layers[tap]):
            raise ModelError(f"{name}: expected {model.layers[tap]} neurons at {tap!r}, found shape {values.shape}")
        if not np.isfinite(values).all():
            raise ModelError(f"{name}: expected numbers at {tap!r}, found NaN or infinity")


def _from_logits(logits: Array) -> Array:
    return softmax(np.concatenate([np.zeros_like(logits), logits], axis=1) if logits.shape[1] == 1 else logits)


def _correspondence(model: Model, suite: Suite, given: Mapping[str, str]) -> tuple[dict[str, str], str | None]:
    for layer, tap in given.items():
        if layer not in suite.layers:
            raise UsageError(f"the suite has no layer {layer!r}; its layers are {', '.join(suite.layers) or 'none'}")
        if tap not in model.layers:
            raise UsageError(f"{model.name}: no layer {tap!r}; its layers are {', '.join(model.layers)}")
    if not suite.layers:
        return {}, "the suite compares no layers"
    if Access.LAYERS not in model.access:
        return {}, "the model's layers cannot be seen"
    names, widths = list(suite.victim.model.layers), list(suite.victim.model.layers.values())
    taps, found = list(model.layers), list(model.layers.values())
    layer_map = {}
    for layer in suite.layers:
        place = names.index(layer)
        # Neurons are counted up to this layer, so that a layer more or less before it is noticed.
        if layer in given:
            layer_map[layer] = given[layer]
        elif found[: place + 1] == widths[: place + 1]:
            layer_map[layer] = taps[place]
        else:
            return {}, (
                f"no layer answers {layer!r}: expected taps of {_text(widths[: place + 1])} neurons up to it, "
                f"found {_text(found)}"
            )
    for layer, tap in layer_map.items():
        if model.layers[tap] != suite.victim.model.layers[layer]:
            raise UsageError(
                f"{model.name}: layer {tap!r} has {model.layers[tap]} neurons, "
                f"expected {suite.victim.model.layers[layer]} as in {layer!r}"
            )
    return layer_map, None


def _text(widths: Sequence[int]) -> str:
    return ", ".join(map(str, widths))
