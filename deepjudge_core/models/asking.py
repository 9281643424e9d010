"""Ask a model, and check what it answers."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext

import numpy as np

from deepjudge_core import progress
from deepjudge_core.errors import DeepJudgeError, ModelError, first_line
from deepjudge_core.models.agreement import disagreement
from deepjudge_core.models.exchange import Exchange
from deepjudge_core.models.model import Model
from deepjudge_core.models.preprocessing import Prepare
from deepjudge_core.models.resolution import divided
from deepjudge_core.models.sampling import evenly
from deepjudge_core.models.scores import sigmoid, softmax
from deepjudge_core.models.steadiness import Responses, unsteadiness
from deepjudge_core.types import Array

_CHUNK = 512  # cases between two signs of progress
_FEW = 32  # the same of a model that is asked through a network
_MOST_PREPARED = 2**29  # bytes of the inputs of one batch: a suspect says to which size pictures are brought for it
_BAD = "bad-answer"  # the code of what no classifier answers
_SLACK = 1e-6  # of a probability beside 0..1
_OWN = 32  # cases of each set at most, of which the model's own output is compared with its scores
_NO_CHANGE = 1e-6  # between answers that are one; batches of other sizes differ by about 1e-8


def ask(
    model: Model,
    inputs: Array,
    layer_map: Mapping[str, str],
    prepare: Prepare | None = None,
    sets: Array | None = None,
) -> tuple[Array, dict[str, Array]]:
    """Run a model once over inputs: probabilities ``(n, classes)``, and ``(n, neurons)`` for each layer of the map.

    With layers, the probabilities are those of its scores, once its own output shows the same for some of each set.

    Args:
        model: The model.
        inputs: ``(n, *shape)``.
        layer_map: Layer to the model's tap.
        prepare: What is done to each batch of inputs before.
        sets: ``(n,)`` which of the suite's sets each case is in; one for all by default.

    Raises:
        OtherAnswersError: When its own output gives others than its scores.
        ModelError: When it cannot be run, or answers nonsense.
    """
    taps = list(dict.fromkeys(layer_map.values()))
    parts: list[Responses] = []
    with _running(model, inputs), progress.task(f"asking {model.name}", len(inputs)) as advance:
        for chunk in _batches(inputs, prepare, _FEW if model.gateway else _CHUNK):
            parts.append(_respond(model, chunk, taps))
            advance(len(chunk))
        answers, activations = Responses.join(parts)
        _check_probabilities(model, len(inputs), answers)
        if taps:
            _check_own(model, inputs, answers, prepare, np.zeros(len(inputs)) if sets is None else sets)
        if len(answers) > 1 and float(np.ptp(answers, axis=0).max()) < _NO_CHANGE:
            raise SameAnswerError(
                f"{model.name}: expected answers that depend on the input, found the same answer to every input",
                code=_BAD,
            )
        _check_activations(model, len(inputs), activations)
    return answers, {layer: activations[tap] for layer, tap in layer_map.items()}


def ask_again(
    model: Model,
    inputs: Array,
    sets: Array,
    answers: Array,
    activations: Mapping[str, Array],
    prepare: Prepare | None = None,
) -> str | None:
    """Ask some of the cases again, alone and beside others: what of the answers changes, None where they stay.

    Args:
        model: The model.
        inputs: ``(n, *shape)``.
        sets: ``(n,)`` which of the suite's sets each case is in.
        answers: What it answered to them: probabilities.
        activations: And outputs, by tap.
        prepare: What is done to each batch of inputs before.

    Raises:
        ModelError: As :func:`ask`.
    """

    def answer(rows: Array) -> Responses:
        responses = _respond_to_all(model, inputs[rows], list(activations), prepare)
        _check_probabilities(model, len(rows), responses.probabilities)
        _check_activations(model, len(rows), responses.activations)
        return responses

    # An interface that keeps its answers would give the same ones.
    repeating = model.gateway.repeating() if model.gateway else nullcontext()
    with _running(model, inputs), repeating:
        return unsteadiness(Responses(answers, activations), sets, answer, alone=_can_be_asked_alone(model))


def exchange(model: Model, inputs: Array, tap: str, prepare: Prepare | None = None) -> Exchange | None:
    """See :meth:`~deepjudge_core.models.model.Model.exchange`, of inputs as the suite has them.

    Raises:
        ModelError: When it cannot be run.
    """
    with _running(model, inputs):
        return model.exchange(inputs if prepare is None else prepare(inputs), tap)


def _can_be_asked_alone(model: Model) -> bool:
    # Models of a fixed batch size say so; a batch for each case would take long.
    return model.fixed_batch in (None, 1)


@contextmanager
def _running(model: Model, inputs: Array) -> Iterator[None]:
    try:
        # What is no number is refused by what it is, whatever numpy would warn of on the way.
        with np.errstate(all="ignore"):
            yield
    except DeepJudgeError:
        raise
    except (Exception, SystemExit) as error:
        reason = first_line(error)
        raise ModelError(f"{model.name}: cannot be run on inputs of shape {inputs.shape[1:]}: {reason}") from error


def _batches(inputs: Array, prepare: Prepare | None, most: int = _CHUNK) -> Iterator[Array]:
    # Inputs as the model takes them, of which few enough are in memory at once.
    size = most
    if prepare is not None and len(inputs):
        size = max(1, min(most, _MOST_PREPARED // max(prepare(inputs[:1]).nbytes, 1)))
    for start in range(0, len(inputs), size):
        batch = inputs[start : start + size]
        yield prepare(batch) if prepare else batch


def _respond_to_all(model: Model, inputs: Array, taps: Sequence[str], prepare: Prepare | None) -> Responses:
    return Responses.join([_respond(model, batch, taps) for batch in _batches(inputs, prepare)])


def _respond(model: Model, inputs: Array, taps: Sequence[str]) -> Responses:
    if not taps:
        return Responses(_own_answers(model, inputs), {})
    # One pass gives both: the probabilities are the softmax of the last tap, the logits, or a sigmoid of each of them.
    logits = list(model.layers)[-1]
    outputs = model.activations(inputs, list(dict.fromkeys([*taps, logits])))
    answers = _from_logits(outputs[logits], independent=bool(model.independent))
    return Responses(answers, {tap: outputs[tap] for tap in taps})


def _own_answers(model: Model, inputs: Array) -> Array:
    answers = model.predict(inputs)
    return answers if model.independent else divided(answers)


def _check_own(model: Model, inputs: Array, answers: Array, prepare: Prepare | None, sets: Array) -> None:
    # A file may hold scores that are not those of what it answers.
    rows = np.concatenate([evenly(np.flatnonzero(sets == which), _OWN) for which in np.unique(sets)])
    own = np.concatenate([_own_answers(model, batch) for batch in _batches(inputs[rows], prepare)])
    independent = bool(model.independent)
    _check_probabilities(model, len(rows), own)

    def difference(scored: Array) -> str | None:
        parts = (sets[rows] == which for which in np.unique(sets))
        found = (disagreement(own[part], scored[part], independent=independent) for part in parts)
        return next(filter(None, found), None)

    # Some answers change by the batch, as where it is quantised as it runs: so the same one is asked.
    if difference(answers[rows]) is None:
        return
    found = difference(_respond_to_all(model, inputs[rows], list(model.layers)[-1:], prepare).probabilities)
    if found:
        kind = "a sigmoid of each of its scores" if independent else "the softmax of its scores"
        raise OtherAnswersError(f"{model.name}: expected an output that is {kind}, found {found}", code=_BAD)


class OtherAnswersError(ModelError):
    """A model's own output gives other answers than its scores do, so that its layers may be another network's."""


class SameAnswerError(ModelError):
    """Every input gets the same answer, as of a model that is given a range it does not expect."""


def _check_probabilities(model: Model, rows: int, probabilities: Array) -> None:
    name, expected = model.name, (rows, model.classes)
    if probabilities.shape != expected:
        raise ModelError(f"{name}: expected probabilities of shape {expected}, found {probabilities.shape}", code=_BAD)
    if not np.isfinite(probabilities).all():
        raise ModelError(f"{name}: expected probabilities, found NaN or infinity", code=_BAD)
    if model.independent:
        if probabilities.min() < -_SLACK or probabilities.max() > 1 + _SLACK:
            raise ModelError(
                f"{name}: expected a probability for each class, found {probabilities.min():.4g}.."
                f"{probabilities.max():.4g}",
                code=_BAD,
            )
        return
    sums = probabilities.sum(axis=1)
    if not np.allclose(sums, 1, atol=1e-3) or probabilities.min() < -_SLACK:
        raise ModelError(
            f"{name}: expected probabilities that sum to 1, found sums {sums.min():.4g}..{sums.max():.4g}", code=_BAD
        )


def _check_activations(model: Model, rows: int, activations: Mapping[str, Array]) -> None:
    name = model.name
    for tap, values in activations.items():
        if values.shape != (rows, model.layers[tap]):
            raise ModelError(
                f"{name}: expected {model.layers[tap]} neurons at {tap!r}, found shape {values.shape}", code=_BAD
            )
        if not np.isfinite(values).all():
            raise ModelError(f"{name}: expected numbers at {tap!r}, found NaN or infinity", code=_BAD)


def _from_logits(logits: Array, *, independent: bool) -> Array:
    whole = np.concatenate([np.zeros_like(logits), logits], axis=1) if logits.shape[1] == 1 else logits
    return sigmoid(whole) if independent else softmax(whole)
