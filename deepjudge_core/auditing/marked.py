"""The part of a suite that proves ownership by keys: their answers of the victim, which has to carry each of them."""

from collections.abc import Mapping
from dataclasses import replace

from deepjudge_core.auditing.session import Session
from deepjudge_core.auditing.subject import Subject
from deepjudge_core.components.schemes import Key, KeyAnswers, Reading
from deepjudge_core.errors import IncomparableError, InputError, PluginError, one_line
from deepjudge_core.judging.keys import Mark, carries, marks_of, read_key
from deepjudge_core.models.model import Model
from deepjudge_core.naming import option
from deepjudge_core.observing.keys import answer_keys, with_matrices
from deepjudge_core.suites.suite import Suite

_EDGE = 1e-5  # of the range, by which inputs may leave it
_NARROW = 0.01  # of the range: inputs that differ by less are on another scale, such as 0..1 among 0..255


def asked_keys(suite: Suite, victim: Model, keys: Mapping[str, Key]) -> Suite:
    """A suite with keys, and the victim's answers to their inputs.

    Args:
        suite: Its cases.
        victim: The owner's model.
        keys: By what messages call them, such as the paths of their files.

    Raises:
        InputError: For a key of other inputs, classes or layers than the victim has.
        ModelError: When the victim cannot be run.
    """
    for name, key in keys.items():
        _check_fit(name, key, suite)
    held = replace(suite, keys=tuple(keys.values()))
    return replace(held, victim=replace(suite.victim, keys=answer_keys(victim, held)))


def check_keys(seeds: Suite, victim: Model, keys: Mapping[str, Key], session: Session) -> None:
    """Refuse a victim that does not carry its keys, before cases are made, which may take long.

    What is read in its weights alone is left to :func:`suite_with_keys`.

    Args:
        seeds: A suite of seeds alone.
        victim: The owner's model.
        keys: As :func:`asked_keys` gets them.
        session: Where the schemes are.

    Raises:
        InputError, ModelError: As of these two.
    """
    asked = asked_keys(seeds, victim, keys)
    marks = marks_of(asked.keys, session.registry.schemes)
    for (name, key), mark, answers in zip(keys.items(), marks, asked.victim.keys, strict=True):
        if isinstance(mark, Mark) and not key.matrices:
            check_carries(name, mark, answers)


def suite_with_keys(suite: Suite, victim: Subject, keys: Mapping[str, Key], session: Session) -> Suite:
    """The suite with the matrices that its keys need, once the victim was seen to carry each key.

    Args:
        suite: With the keys and the victim's answers.
        victim: The owner's model.
        keys: As :func:`asked_keys` got them.
        session: Where the schemes are, and how a file is confined.

    Raises:
        InputError: For a key that the victim does not carry.
        ModelError: When its weights cannot be read, and a key needs them.
    """
    if any(key.matrices for key in suite.keys):
        with victim.sketching(session) as sketcher:
            suite = replace(suite, victim=with_matrices(suite.victim, sketcher, suite))
    marks = marks_of(suite.keys, session.registry.schemes)
    for (name, _), mark, answers in zip(keys.items(), marks, suite.victim.keys, strict=True):
        if isinstance(mark, Mark):
            check_carries(name, mark, answers)
    return suite


def check_carries(name: str, mark: Mark, answers: KeyAnswers) -> Reading:
    """The reading by which a model carries a key.

    Args:
        name: What messages call the key.
        mark: The key as a metric.
        answers: The model's.

    Raises:
        InputError: When it does not carry the key, or nothing can be read.
        PluginError: When the scheme fails.
    """
    best = strongest(name, mark, answers)
    if carries(best):
        return best
    raise InputError(
        f"{name}: expected a victim that carries the key, found one that matches {best.found} of {best.of} trials; is "
        "this the marked model?",
        code="conflict",
    )


def strongest(name: str, mark: Mark, answers: KeyAnswers) -> Reading:
    """The reading of a key that says most for a model.

    Args:
        name: What messages call the key.
        mark: The key as a metric.
        answers: The model's.

    Raises:
        InputError: When nothing can be read.
        PluginError: When the scheme fails.
    """
    try:
        readings = read_key(mark, answers)
    except IncomparableError as error:
        raise InputError(f"{name}: the victim cannot be read by this key: {error}", code="conflict") from None
    except (Exception, SystemExit) as error:
        raise PluginError(f"{name}: the scheme failed: {one_line(error)}") from error
    return max(readings, key=_strength)


def _strength(reading: Reading) -> tuple[bool, float]:
    return carries(reading), -reading.distance


def _check_fit(name: str, key: Key, suite: Suite) -> None:
    victim, shape = suite.victim.model, suite.cases.inputs.shape[1:]
    if key.shape != shape:
        raise InputError(
            f"{name}: expected a key of inputs of shape {_sized(shape)}, found one of {_sized(key.shape)}; make it "
            "from this victim",
            code="conflict",
        )
    if key.classes != victim.classes:
        raise InputError(
            f"{name}: expected a key of {victim.classes} classes, found one of {key.classes}; make it from this victim",
            code="conflict",
        )
    unknown = [tap for tap in key.taps if tap not in victim.layers]
    if unknown:
        raise InputError(
            f"{name}: expected a key of the victim's layers, found one of {unknown[0]!r}; make it from this victim",
            code="conflict",
        )
    check_range(name, key, suite.bounds, "the suite's inputs")


def check_range(name: str, key: Key, bounds: tuple[float, float], others: str) -> None:
    """Refuse a key whose inputs are on another scale than others.

    Args:
        name: What messages call the key.
        key: The key.
        bounds: Least and greatest value of the others.
        others: What they are, for messages.

    Raises:
        InputError: When inputs of the key lie outside, or all within next to nothing of the range.
    """
    if key.inputs is None:
        return
    (low, high), least, greatest = bounds, float(key.inputs.min()), float(key.inputs.max())
    edge = _EDGE * (high - low)
    if low - edge <= least and greatest <= high + edge and greatest - least >= _NARROW * (high - low):
        return
    raise InputError(
        f"{name}: expected a key on the scale of {others}, {low:g}..{high:g}, found inputs in "
        f"{least:g}..{greatest:g}; give the same {option('scale')} everywhere",
        code="conflict",
    )


def _sized(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
