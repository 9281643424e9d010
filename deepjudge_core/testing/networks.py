"""What every network that can be trained must keep, whatever framework it comes from."""

from functools import partial

import numpy as np

from deepjudge_core.models.network import Losses, Network, ScoresCotangent, Weights
from deepjudge_core.models.scores import softmax
from deepjudge_core.models.training import cross_entropy
from deepjudge_core.testing.checks import Checks, run
from deepjudge_core.testing.expect import expect, expect_array, expect_close
from deepjudge_core.types import Array

_RATE = 1e-3
# Gradients so far below Adam's epsilon that its first step is in proportion to them; and how far a weight may then be
# from it, by rounding, and by the kinks of a loss that is followed a little way.
_FAINT, _IN_PROPORTION = 1e-11, 0.03


def check_network(network: Network, x: Array, y: Array, *, tolerance: float = 1e-4) -> None:
    """Run all of :func:`network_checks`, up to the first that fails.

    Raises:
        AssertionError: Saying what was expected and what was found.
    """
    run(network_checks(network, x, y, tolerance=tolerance))


def network_checks(network: Network, x: Array, y: Array, *, tolerance: float = 1e-4) -> Checks:
    """What a network that an adapter opened for training must keep, and its architecture.

    Args:
        network: The network, trained or not.
        x: ``(n, *shape)`` at least 8 inputs such as it is for.
        y: ``(n,)`` their classes, not all of them the same.
        tolerance: How far numbers that are the same but for rounding may be apart, as a share of the greatest.
    """
    x = np.array(x, dtype=np.float32)
    before = {name: array.copy() for name, array in network.weights.items()}
    yield "description", partial(_check_description, network)
    yield "model", partial(_check_model, network, x, tolerance)
    yield "gradient", partial(_check_gradient, network, x, tolerance)
    yield "steps", partial(_check_steps, network, x, y)
    yield "steps-at-a-layer", partial(_check_layer_step, network, x)
    yield "further-losses", partial(_check_further_losses, network, x, y)
    yield "parameters", partial(_check_parameters, network, x, y)
    yield "masks", partial(_check_masks, network, x, y)
    yield "fresh-weights", partial(_check_initial, network, x)
    yield "other-classes", partial(_check_other_classes, network, x, y)
    yield "student", partial(_check_student, network, x, y)
    yield "unchanged", partial(_check_unchanged, network, before, x, y)


def _check_unchanged(network: Network, before: Weights, x: Array, y: Array) -> None:
    _stepped(network, x, y)
    expect(_same(network.weights, before), "expected the network's own weights to stay unchanged, found them changed")


def _check_description(network: Network) -> None:
    architecture = network.architecture
    names = tuple(network.weights)
    expect(architecture.classes >= 2, f"expected 2 classes or more, found {architecture.classes}")
    expect(
        architecture.suffix.startswith("."), f"expected a suffix that starts with a dot, found {architecture.suffix!r}"
    )
    expect(
        tuple(name for name in names if name in architecture.parameters) == architecture.parameters,
        f"expected the parameters among the weights, in the same order, found {architecture.parameters} and {names}",
    )
    head = architecture.head
    expect(head and set(head) <= set(architecture.parameters), f"expected some of the parameters as head, found {head}")
    for name, array in network.weights.items():
        expect(array.dtype.kind == "f" and array.size, f"{name}: expected real numbers, found {array.dtype}")


def _check_model(network: Network, x: Array, tolerance: float) -> None:
    architecture = network.architecture
    model = architecture.model(network.weights, name="trained")
    expect(model.name == "trained", f"expected the model to have the given name, found {model.name!r}")
    expect(dict(model.layers) == dict(architecture.layers), "expected a model with the architecture's layers")
    expect(model.classes == architecture.classes, "expected a model with the architecture's number of classes")
    scores = architecture.trainer(network.weights).scores(x)
    expect_array("scores", scores, (len(x), architecture.classes))
    expect_close("the softmax of the trainer's scores and the model's answers", softmax(scores), model.predict(x), 1e-3)
    expect_close("predict and the model's answers", network.predict(x), model.predict(x), 1e-3)
    # A part by itself is answered as in the whole, so that statistics of a batch play no part.
    part = architecture.trainer(network.weights).scores(x[:3])
    expect_close("scores of a part of the inputs", part, scores[:3], max(tolerance, 1e-3))


def _check_gradient(network: Network, x: Array, tolerance: float) -> None:
    classes = np.arange(len(x)) % network.architecture.classes
    gradient = network.architecture.trainer(network.weights).gradient(x, _of_classes(classes))
    expect_array("gradient", gradient, x.shape)
    model = network.architecture.model(network.weights, name="model")
    expected = model.gradient(x, lambda scores, rows: _of_classes(classes[rows])(scores))
    expect_close("the trainer's gradient and the model's", gradient, expected, max(tolerance, 1e-3))


def _check_steps(network: Network, x: Array, y: Array) -> None:
    first, second = (_stepped(network, x, y) for _ in range(2))
    expect(_same(first, second), "expected the same weights from the same steps with the same seed, found others")
    expect(set(first) == set(network.weights), "expected all weights from a trainer")
    changed = [name for name in network.architecture.parameters if not _equal(first[name], network.weights[name])]
    expect(
        len(changed) * 2 > len(network.architecture.parameters), f"expected steps to change weights, found {changed}"
    )
    start, end = (_loss(Network(network.architecture, w), x, y) for w in (network.weights, _stepped(network, x, y, 30)))
    expect(end < start, f"expected steps to lower the loss, found {start:.4g} before and {end:.4g} after")


def _check_layer_step(network: Network, x: Array) -> None:
    architecture = network.architecture
    layer = next(iter(architecture.layers))
    trainer = architecture.trainer(network.weights, in_use=True)
    widths: list[int] = []

    def up(outputs: Array) -> Array:
        widths.append(outputs.shape[1])
        return np.full_like(outputs, -1 / outputs.size)

    for _ in range(5):
        trainer.step(x, Losses(at={layer: up}), rate=_RATE)
    expect(widths[0] == architecture.layers[layer], f"{layer}: expected its neurons' outputs, found {widths[0]}")
    after = trainer.weights()
    means = [
        architecture.model(weights, name="model").activations(x, [layer])[layer].mean()
        for weights in (network.weights, after)
    ]
    expect(means[1] > means[0], f"{layer}: expected steps up its outputs to raise them, found {means}")
    if layer == list(architecture.layers)[-1]:  # there are no others
        return
    untouched = [name for name in architecture.head if not _equal(after[name], network.weights[name])]
    expect(not untouched, f"{layer}: expected steps at the first layer to leave the head, found {untouched} changed")


def _check_further_losses(network: Network, x: Array, y: Array) -> None:
    architecture = network.architecture
    pulled = network.matrices[0]
    way = np.random.default_rng(3).normal(size=network.weights[pulled].shape)
    taps = list(architecture.layers)
    places = dict.fromkeys([taps[0], taps[(len(taps) - 1) // 2]])
    ways = {tap: np.random.default_rng(4).normal(size=(len(x), architecture.layers[tap])) for tap in places}
    seen: list[tuple[int, ...]] = []

    def at(tap: str) -> ScoresCotangent:
        def cotangent(outputs: Array) -> Array:
            seen.append(outputs.shape)
            return np.asarray(_FAINT * ways[tap], np.float32)

        return cotangent

    def changes(*, own: bool = False, at_taps: bool = False, pull: bool = False) -> dict[str, Array]:
        trainer = architecture.trainer(network.weights, in_use=True)
        loss = cross_entropy(y)
        trainer.step(
            x,
            Losses(
                lambda scores: np.asarray(own * _FAINT * loss(scores), np.float32),
                {tap: at(tap) for tap in places} if at_taps else {},
                (lambda weights: {pulled: _FAINT * way}) if pull else None,
            ),
            rate=1,
        )
        after = trainer.weights()
        return {n: np.asarray(after[n], np.float64) - network.weights[n] for n in architecture.parameters}

    alone = changes(own=True), changes(at_taps=True), changes(pull=True)
    expect(
        sorted(seen) == sorted((len(x), architecture.layers[tap]) for tap in places),
        f"at: expected to be asked once for each tap, with (rows, neurons), found {seen}",
    )
    unit = float(np.abs(alone[2][pulled]).max() / np.abs(way).max())
    expect(unit > 0, "pull: expected a step down the loss of the weights, found none")
    _expect_in_proportion("pull: the change of the weights and minus the gradient", alone[2][pulled], -unit * way)
    for name in architecture.parameters:
        expect(
            name == pulled or not alone[2][name].any(), f"pull: expected only {pulled} to change, found {name} changed"
        )
    together = changes(own=True, at_taps=True, pull=True)
    for name in architecture.parameters:
        total = np.sum([change[name] for change in alone], axis=0)
        _expect_in_proportion(f"{name}: steps of several losses and of each", together[name], total)

    def outputs(share: float) -> float:
        moved = {n: np.asarray(network.weights[n] + share * alone[1][n]) for n in architecture.parameters}
        found = architecture.model(network.with_weights(moved).weights, name="moved").activations(x, list(places))
        return float(sum(np.sum(ways[tap] * found[tap], dtype=np.float64) for tap in places))

    # Followed both ways, the loss at the taps changes by what its gradient says.
    length = sum(float(np.sum(change**2)) for change in alone[1].values())
    far = (
        1e-4
        * max(1.0, *(float(np.abs(w).max()) for w in network.weights.values()))
        / max(float(np.abs(change).max()) for change in alone[1].values())
    )
    slope = (outputs(-far) - outputs(far)) / (2 * far)
    expect(
        abs(slope - length / unit) <= _IN_PROPORTION * length / unit,
        f"also: expected a step along the gradient, found a slope of {slope:.4g} for {length / unit:.4g}",
    )


def _expect_in_proportion(what: str, one: Array, other: Array) -> None:
    limit = _IN_PROPORTION * float(np.abs(other).max()) + 1e-9
    expect(
        float(np.abs(one - other).max()) <= limit,
        f"{what}: expected at most {limit:.3g} apart, found {float(np.abs(one - other).max()):.3g}",
    )


def _check_parameters(network: Network, x: Array, y: Array) -> None:
    architecture = network.architecture
    after = _stepped(network, x, y, parameters=architecture.head, in_use=True)
    for name, array in network.weights.items():
        changed = not _equal(after[name], array)
        expect(changed == (name in architecture.head), f"{name}: expected steps to change only the head")


def _check_masks(network: Network, x: Array, y: Array) -> None:
    name = network.matrices[0]
    mask = np.arange(network.weights[name].size).reshape(network.weights[name].shape) % 2 == 0
    masked = _stepped(network, x, y, masks={name: mask})
    expect((masked[name][~mask] == 0).all(), f"{name}: expected masked weights to stay 0, found others")
    expect((masked[name][mask] != 0).any(), f"{name}: expected the other weights to be kept")


def _check_initial(network: Network, x: Array) -> None:
    architecture = network.architecture
    first, again, other = (architecture.initial(np.random.default_rng(seed)) for seed in (0, 0, 1))
    expect(_same(first, again), "initial: expected the same weights for the same rng, found others")
    expect(list(first) == list(network.weights), "initial: expected every weight, in forward order")
    for name, array in network.weights.items():
        expect(first[name].shape == array.shape, f"{name}: initial: expected {array.shape}, found {first[name].shape}")
        expect(first[name].dtype == array.dtype, f"{name}: initial: expected {array.dtype}, found {first[name].dtype}")
    # An author may have some begin as zeros: positions, say.
    drawn = [name for name in network.matrices if np.ptp(first[name])]
    expect(drawn, "initial: expected random weights, found constants")
    for name in drawn:
        expect(not _equal(first[name], other[name]), f"{name}: initial: expected other weights for another rng")
    scores = architecture.trainer(first).scores(x)
    expect(np.isfinite(scores).all(), "initial: expected finite scores")


def _check_other_classes(network: Network, x: Array, y: Array) -> None:
    classes = network.architecture.classes + 3
    other = network.with_fresh_head(np.random.default_rng(0), classes)
    expect(other.architecture.classes == classes, f"with_classes: expected {classes}, found another number")
    expect(other.predict(x).shape == (len(x), classes), f"with_classes: expected probabilities of {classes} classes")
    for name, array in network.weights.items():
        if name not in network.architecture.head:
            expect(
                _equal(other.weights[name], array), f"{name}: with_classes: expected everything except the head to stay"
            )
    _stepped(other, x, y)


def _check_student(network: Network, x: Array, y: Array) -> None:
    student = Network.fresh(network.architecture.student(), np.random.default_rng(0))
    expect(student.architecture.input.shape == network.architecture.input.shape, "student: expected the same inputs")
    expect(student.predict(x).shape == (len(x), network.architecture.classes), "student: expected the same classes")
    _stepped(student, x, y)


def _stepped(network: Network, x: Array, y: Array, steps: int = 3, **options: object) -> dict[str, Array]:
    trainer = network.architecture.trainer(network.weights, seed=7, **options)  # type: ignore[arg-type]
    for _ in range(steps):
        trainer.step(x, Losses(cross_entropy(y)), rate=_RATE)
    return trainer.weights()


def _loss(network: Network, x: Array, y: Array) -> float:
    return float(-np.log(np.maximum(network.predict(x)[np.arange(len(x)), y], 1e-12)).mean())


def _of_classes(classes: Array) -> ScoresCotangent:
    return lambda scores: np.eye(scores.shape[1], dtype=np.float32)[classes]


def _same(one: Weights, other: Weights) -> bool:
    return list(one) == list(other) and all(_equal(one[name], other[name]) for name in one)


def _equal(one: Array, other: Array) -> bool:
    return one.dtype == other.dtype and np.array_equal(one, other)
