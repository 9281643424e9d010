"""What every model must keep, whatever framework it comes from."""

import re
from collections.abc import Callable, Mapping
from functools import cache

import numpy as np

from deepjudge_core.errors import ModelError
from deepjudge_core.models.model import Access, Cotangent, Model
from deepjudge_core.models.outputs import Outputs
from deepjudge_core.models.scores import sigmoid, softmax
from deepjudge_core.testing.checks import Check, Checks, run
from deepjudge_core.testing.expect import expect, expect_array, expect_close
from deepjudge_core.types import Array

_ROWS = 8
_LINES = 4  # along which each gradient is integrated
_REACH = 0.005  # of a line to either side, as a share of the range of the inputs
_POINTS = (8, 64, 512)  # on a line; more where kinks keep fewer from being exact


def check_model(model: Model, x: Array, *, tolerance: float = 1e-4, gradient_tolerance: float = 1e-2) -> None:
    """Run all of :func:`model_checks`, up to the first that fails.

    Raises:
        AssertionError: Saying what was expected and what was found.
    """
    run(model_checks(model, x, tolerance=tolerance, gradient_tolerance=gradient_tolerance))


def model_checks(model: Model, x: Array, *, tolerance: float = 1e-4, gradient_tolerance: float = 1e-2) -> Checks:
    """What a model that an adapter opened must keep.

    Args:
        model: The model.
        x: ``(n, *shape)`` at least 3 inputs such as the model is for; the first 8 are used.
        tolerance: How far numbers that are the same but for rounding may be apart, as a share of the greatest.
        gradient_tolerance: How far a change by the gradient may be from the change found, as a share of it.
    """
    x = np.array(x[:_ROWS], dtype=np.float32)
    access = getattr(model, "access", Access(0))
    # What it answered first, for the last check.
    first = cache(lambda: model.predict(x.copy()))

    def named(check: Callable[..., None], *args: object) -> Check:
        # With inputs of its own, so that no check depends on another one.
        return lambda: check(model, x.copy(), *args)

    yield "description", named(_check_description)
    yield "leaves-inputs", named(_check_leaves_inputs)
    yield "probabilities", named(_check_probabilities, first, tolerance)
    yield "batches", named(_check_batches_of_answers, tolerance)
    if Access.LAYERS in access:
        yield "activations", named(_check_activations, tolerance)
    if Access.GRADIENTS in access:
        yield "cotangent", named(_check_cotangent, tolerance)
        yield "batches-of-gradients", named(_check_batches_of_gradients, tolerance)
        yield "gradients", named(_check_gradients, gradient_tolerance)
    else:
        yield "no-gradients", named(_check_no_gradients)
    if Access.LAYERS in access:
        yield "exchange", named(_check_exchange, tolerance)
    if getattr(model, "outputs", None) is not None:
        yield "outputs", named(_check_outputs, first)
    yield "unchanged", named(_check_unchanged, first)


def _check_description(model: Model, x: Array) -> None:
    expect(isinstance(model, Model), f"expected a Model, found a {type(model).__name__} without all of its attributes")
    name = model.name
    expect(isinstance(name, str) and name, f"expected a name, found {name!r}")
    expect(model.framework, f"{name}: expected the name of a framework, found {model.framework!r}")
    expect(
        re.fullmatch("[0-9a-f]{64}", model.digest) and model.digest == model.digest,
        f"{name}: expected 64 hexadecimal digits as its digest, always the same, found {model.digest!r}",
    )
    expect(Access.LABELS in model.access, f"{name}: expected access to labels at least, found {model.access}")
    expect(
        Access.GRADIENTS not in model.access or Access.LAYERS in model.access,
        f"{name}: expected a model with gradients to provide layers as well",
    )
    expect(model.classes >= 2, f"{name}: expected 2 classes or more, found {model.classes}")
    widths = list(model.layers.values())
    expect(
        widths and all(isinstance(width, int) and width > 0 for width in widths),
        f"{name}: expected layers, each with its number of neurons, found {dict(model.layers)}",
    )
    expect(
        widths[-1] == model.classes or (widths[-1], model.classes) == (1, 2),
        f"{name}: expected the logits of {model.classes} classes as the last layer, found {widths[-1]} neurons",
    )
    shape = model.input.shape
    expect(
        len(x) >= 3
        and x.ndim == len(shape) + 1
        and all(w in (None, s) for w, s in zip(shape, x.shape[1:], strict=True)),
        f"{name}: expected at least 3 inputs of shape {model.input} to check it with, found {x.shape}",
    )


def _check_outputs(model: Model, x: Array, first: Callable[[], Array]) -> None:
    name, outputs, before = model.name, model.outputs, first()
    if not isinstance(outputs, Outputs):
        raise AssertionError(f"{name}: expected Outputs as its outputs, found a {type(outputs).__name__}")
    expect(outputs.place in outputs.tables, f"{name}: expected scores in one of the outputs {outputs.tables}")
    for place in outputs.tables:
        other, width = model.with_output(place), outputs.all[place].width or 0
        found = other.outputs and other.outputs.place
        expect(found == place, f"{name}: expected scores in the output {place}, found them in {found}")
        expect(
            other.classes == max(width, 2), f"{name}: output {place}: expected {width} scores, found {other.classes}"
        )
        same = np.array_equal(other.predict(x), before)
        expect(same or place != outputs.place, f"{name}: its answers change if its own output is chosen")
    expect(np.array_equal(before, model.predict(x)), f"{name}: its answers change after another output was asked")


def _check_leaves_inputs(model: Model, x: Array) -> None:
    before = x.copy()
    _look_into(model, x)
    expect(np.array_equal(before, x), f"{model.name}: changed the inputs that it was given")


def _check_unchanged(model: Model, x: Array, first: Callable[[], Array]) -> None:
    before = first()
    _look_into(model, x)
    expect(np.array_equal(before, model.predict(x)), f"{model.name}: its answers change after its layers were read")


def _look_into(model: Model, x: Array) -> None:
    """Ask it for all that it gives."""
    model.predict(x)
    if Access.LAYERS in model.access:
        model.activations(x, list(model.layers))
    if Access.GRADIENTS in model.access:
        for layer in (None, *model.layers):
            model.gradient(x, lambda scores, rows: scores, layer=layer)


def _check_probabilities(model: Model, x: Array, first: Callable[[], Array], tolerance: float) -> None:
    first()
    p = model.predict(x)
    expect_array(f"{model.name}: predict", p, (len(x), model.classes))
    expect(p.min() >= 0, f"{model.name}: predict: expected probabilities, found {p.min():.3g}")
    if model.independent:
        expect(p.max() <= 1, f"{model.name}: predict: expected probabilities, found {p.max():.3g}")
    else:
        expect_close(f"{model.name}: the sums of the probabilities and 1", p.sum(axis=1), np.ones(len(x)), tolerance)


def _check_no_gradients(model: Model, x: Array) -> None:
    _expect_model_error(
        f"{model.name}: a gradient of a model without gradients",
        lambda: model.gradient(x, lambda scores, rows: np.ones_like(scores)),
    )


def _check_activations(model: Model, x: Array, tolerance: float) -> None:
    name = model.name
    layers = list(model.layers)
    outputs = model.activations(x, layers)
    expect(list(outputs) == layers, f"{name}: activations: expected the layers {layers}, found {list(outputs)}")
    for layer, width in model.layers.items():
        expect_array(f"{name}: activations of {layer!r}", outputs[layer], (len(x), width))
        alone = model.activations(x, [layer])
        expect(list(alone) == [layer], f"{name}: activations: asked for {layer!r} alone, found {list(alone)}")
        expect_close(f"{name}: activations of {layer!r} alone and with others", alone[layer], outputs[layer], tolerance)

        def answer(part: Array, layer: str = layer) -> Array:
            return model.activations(part, [layer])[layer]

        _check_batches(f"{name}: activations of {layer!r}", answer, x, tolerance)
    again = model.activations(x, layers[::-1])
    expect(list(again) == layers[::-1], f"{name}: activations: expected the layers in the order asked for")
    for layer in layers:
        expect_close(f"{name}: activations of {layer!r} in another order", again[layer], outputs[layer], tolerance)
    expect(model.activations(x, []) == {}, f"{name}: activations: expected none when none are asked for")
    expect_close(
        f"{name}: predict and the {'sigmoids' if model.independent else 'softmax'} of the last layer, {layers[-1]!r}",
        model.predict(x),
        (sigmoid if model.independent else softmax)(_logits(outputs[layers[-1]])),
        tolerance,
    )
    _expect_model_error(f"{name}: activations of an unknown layer", lambda: model.activations(x, ["no such layer"]))


def _check_exchange(model: Model, x: Array, tolerance: float) -> None:
    *hidden, logits = model.layers
    for layer in hidden[len(hidden) // 2 :][:1]:
        exchange = model.exchange(x, layer)
        if exchange is None:
            return
        label = f"{model.name}: the scores with outputs of {layer!r} exchanged"
        scores = model.activations(x, [logits])[logits]
        expect_array(label, exchange.mixed, scores.shape)
        expect_close(f"{label}: those of each input", exchange.own, scores, tolerance)
        same = model.exchange(np.repeat(x[:1], len(x), axis=0), layer)
        expect(same is not None, f"{label}: expected some for equal inputs, found none")
        if same is not None:
            expect_close(f"{label} between equal inputs, and without", same.mixed, same.own, tolerance)


def _check_cotangent(model: Model, x: Array, tolerance: float) -> None:
    """The cotangent is given every row's scores once; the logits are the default."""
    name = model.name
    rng = np.random.default_rng(0)
    logits = list(model.layers)[-1]
    outputs = model.activations(x, list(model.layers))
    weights = rng.normal(size=(len(x), model.classes))
    for layer, scores in [*outputs.items(), (None, _logits(outputs[logits]))]:
        label = f"{name}: the cotangent at {'the logits' if layer is None else repr(layer)}"
        received = np.full_like(scores, np.nan)
        times = np.zeros(len(x), dtype=int)

        def cotangent(
            part: Array, rows: slice, label: str = label, received: Array = received, times: Array = times
        ) -> Array:
            expected = (len(times[rows]), received.shape[1])
            expect(part.shape == expected, f"{label}: expected scores {expected} for {rows}, found {part.shape}")
            received[rows] = part
            times[rows] += 1
            return np.ones(part.shape)

        gradient = model.gradient(x, cotangent, layer=layer)
        expect_array(f"{name}: gradient at {layer!r}", gradient, x.shape)
        expect((times == 1).all(), f"{label}: expected each row to be given once, found {times.tolist()} times")
        expect_close(f"{label}: its scores and the activations", received, scores, tolerance)
    own, default = weights[:, -model.layers[logits] :], weights
    expect_close(
        f"{name}: the gradient at {logits!r} and without a layer",
        model.gradient(x, _constant(own), layer=logits),
        model.gradient(x, _constant(default)),
        tolerance,
    )
    _expect_model_error(
        f"{name}: a gradient at an unknown layer",
        lambda: model.gradient(x, lambda scores, rows: np.ones_like(scores), layer="no such layer"),
    )


def _check_batches_of_answers(model: Model, x: Array, tolerance: float) -> None:
    _check_batches(f"{model.name}: predict", model.predict, x, tolerance)


def _check_batches_of_gradients(model: Model, x: Array, tolerance: float) -> None:
    _check_batches(f"{model.name}: gradient", lambda part: _gradient_of_squares(model, part), x, tolerance)


def _check_batches(label: str, answer: Callable[[Array], Array], x: Array, tolerance: float) -> None:
    """Rows answer alone, in odd groups and in another order as they do together, and the same every time."""
    together = answer(x)
    expect(np.array_equal(together, answer(x)), f"{label}: gives other numbers the second time")
    alone = np.concatenate([answer(x[i : i + 1]) for i in range(len(x))])
    expect_close(f"{label}: one input at a time and all together", alone, together, tolerance)
    cut = len(x) // 2 + 1
    split = np.concatenate([answer(x[:cut]), answer(x[cut:])])
    expect_close(f"{label}: {cut} inputs and the rest, and all together", split, together, tolerance)
    expect_close(f"{label}: in another order", answer(x[::-1])[::-1], together, tolerance)


def _check_gradients(model: Model, x: Array, tolerance: float) -> None:
    """The integral of a gradient along a line is the difference of the values at its ends.

    This holds across kinks (of ReLUs, of pools), near which slopes by finite differences mean little. Each row has a
    loss of its own at each layer, a random combination of the neurons, and moves along random lines.
    """
    rng = np.random.default_rng(0)
    reach = np.float32(_REACH * (float(np.ptp(x)) or 1.0))
    # In even areas, such as the black around a digit, neurons would all have their kinks at one place.
    x = x + reach * rng.normal(size=x.shape).astype(np.float32)
    lines = reach * rng.choice(np.array([-1, 1], np.float32), size=(_LINES, *x.shape))
    weights = {layer: rng.normal(size=(len(x), width)) for layer, width in model.layers.items()}
    ahead, behind = (_activations_along(model, x, ends) for ends in (lines, -lines))
    for layer, combination in weights.items():
        differences = (combination * (ahead[layer].astype(np.float64) - behind[layer])).sum(axis=2)
        noise = 8 * np.finfo(np.float32).eps * np.abs(combination * ahead[layer]).sum(axis=2).max(axis=0)
        wrong = np.arange(len(x))
        for points in _POINTS:
            integrals = _integrate(model, layer, x[wrong], lines[:, wrong], combination[wrong], points)
            size = np.maximum(_rms(differences[:, wrong]), _rms(integrals))
            # Turned round, so that NaN is wrong.
            apart = ~(_rms(integrals - differences[:, wrong]) <= tolerance * size + noise[wrong])
            wrong, integrals = wrong[apart], integrals[:, apart]
            if len(wrong) == 0:
                break
        else:
            raise AssertionError(
                f"{model.name}: the gradient at {layer!r} differs from finite differences at {len(wrong)} of {len(x)} "
                f"inputs; along lines from input {wrong[0]} expected changes of {_text(differences[:, wrong[0]])}, "
                f"found {_text(integrals[:, 0])}"
            )


def _activations_along(model: Model, x: Array, lines: Array) -> dict[str, Array]:
    """``(lines, rows, neurons)`` of each layer at the ends of lines from each row."""
    outputs = model.activations((x + lines).reshape(-1, *x.shape[1:]), list(model.layers))
    return {layer: values.reshape(*lines.shape[:2], -1) for layer, values in outputs.items()}


def _integrate(model: Model, layer: str, x: Array, lines: Array, weights: Array, points: int) -> Array:
    """``(lines, rows)``: what the gradient says of the change from one end of each line to the other."""
    places = ((np.arange(points, dtype=np.float32) + 0.5) / points * 2 - 1).reshape(-1, *[1] * x.ndim)
    cotangent = _constant(np.tile(weights, (points, 1)))
    integrals = np.empty(lines.shape[:2])
    for i, line in enumerate(lines):
        along = (x + places * line).reshape(-1, *x.shape[1:])
        mean = model.gradient(along, cotangent, layer=layer).reshape(points, *x.shape).mean(axis=0, dtype=np.float64)
        integrals[i] = (2 * line * mean).reshape(len(x), -1).sum(axis=1)
    return integrals


def _rms(values: Array) -> Array:
    """Root mean square over the first axis."""
    root: Array = np.sqrt(np.square(values).mean(axis=0))
    return root


def _text(values: Array) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


def _gradient_of_squares(model: Model, x: Array) -> Array:
    return model.gradient(x, lambda scores, rows: scores)


def _constant(weights: Array) -> Cotangent:
    """The derivative of a weighted sum of the scores."""
    return lambda scores, rows: weights[rows]


def _logits(outputs: Array) -> Array:
    return np.concatenate([np.zeros_like(outputs), outputs], axis=1) if outputs.shape[1] == 1 else outputs


def _expect_model_error(label: str, call: Callable[[], Array | Mapping[str, Array]]) -> None:
    try:
        call()
    except ModelError as error:
        expect(str(error), f"{label}: expected a ModelError with a reason, found one without")
    except Exception as error:
        raise AssertionError(f"{label}: expected a ModelError, found a {type(error).__name__}: {error}") from error
    else:
        raise AssertionError(f"{label}: expected a ModelError, found an answer")
