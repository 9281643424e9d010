"""The keys of a suite as metrics: each model is read once by each, in pure numpy."""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, NoReturn

import numpy as np

from deepjudge_core.components.chances import log10_binomial_tail
from deepjudge_core.components.kinds import Metric
from deepjudge_core.components.registry import Catalogue
from deepjudge_core.components.schemes import Key, KeyAnswers, Lift, Matches, Reading, Scheme
from deepjudge_core.components.values import Answers
from deepjudge_core.errors import IncomparableError, PluginError, UsageError
from deepjudge_core.models.model import Access
from deepjudge_core.suites.keys import names_of
from deepjudge_core.text import LONGEST_LINE, clean

LEAST_SHARE = 0.9
"""Of the trials of a key that a model has to match to be the marked one."""
GREATEST_LOG10_P = -6.0
"""At most this is the logarithm of its p-value, of a key whose chance is known by design."""
_MOST_READINGS = 16


@dataclass(frozen=True)
class Mark(Metric):
    """A key of a suite as a metric. Its distance is what its readings say; the core makes it, never a plugin.

    Attributes:
        place: Of the key in the suite.
        key: The key.
        verify: Of its scheme.
        provider: The distribution that brought the scheme, as ``name version``; empty where it is not installed.
        of_data: Whether a match is evidence that rows were used, not of where the model comes from.
    """

    place: int = 0
    key: Key | None = None
    verify: Callable[[Key, KeyAnswers], Sequence[Reading]] | None = None
    provider: str = ""
    of_data: bool = False

    subjects: ClassVar[tuple[str, ...]] = ("keys",)


def marks_of(keys: Sequence[Key], schemes: Catalogue[Scheme]) -> list[Metric]:
    """The keys of a suite as metrics: each needs its scheme to be installed.

    Args:
        keys: In the suite's order.
        schemes: Those that are installed.
    """
    return [_mark(place, name, keys[place], schemes) for place, name in enumerate(names_of(keys))]


def _mark(place: int, name: str, key: Key, schemes: Catalogue[Scheme]) -> Mark:
    try:
        return mark_of(key, schemes[key.scheme], name=name, place=place, provider=schemes.provider(key.scheme))
    except (UsageError, PluginError) as error:
        missing = str(error)

    def verify(_: Key, __: KeyAnswers) -> NoReturn:
        raise IncomparableError(missing)

    unknown = Scheme(key.scheme, source="", needs=Access(0), make=verify, verify=verify)
    return mark_of(key, unknown, name=name, place=place)


def mark_of(key: Key, scheme: Scheme, *, name: str = "", place: int = 0, provider: str = "") -> Mark:
    """A key as a metric.

    Args:
        key: The key.
        scheme: Its own.
        name: What it is called; by default as the scheme is.
        place: In its suite.
        provider: The distribution that brought the scheme.
    """
    return Mark(
        name=name or key.scheme,
        needs=_asked(key, scheme.needs),
        on="keys",
        distance=_no_distance,
        alpha=1.0,
        upper=2.0 * key.trials,
        title=f"key of the scheme {key.scheme}",
        says=scheme.says,
        place=place,
        key=key,
        verify=scheme.verify,
        provider=provider,
        of_data=scheme.fresh,
    )


def _asked(key: Key, needs: Access) -> Access:
    # Of what keys of the scheme may need, what this one does: some are read in one place or in another.
    if not key.taps:
        needs &= ~Access.LAYERS
    if not key.matrices:
        needs &= ~Access.WEIGHTS
    if key.labels is None and (key.taps or key.matrices):
        needs &= ~Access.BLACK_BOX
    return needs


def _no_distance(_: Answers, __: Answers) -> NoReturn:
    raise IncomparableError("a key is read of what a model answers to the key alone")


def read_key(mark: Mark, answers: KeyAnswers) -> tuple[Reading, ...]:
    """What a key counts of a model: at least one reading.

    Args:
        mark: Of the key.
        answers: The model's.

    Raises:
        IncomparableError: Where nothing can be read of it, with the reason.
        ValueError: Where the scheme gives what is no reading, or one by design that is none of what was drawn.
    """
    readings = readings_of(mark, answers)
    if mark.key and mark.verify and any(one.by_design for one in readings):
        _check_draw(mark.key, mark.verify, answers, readings)
    return readings


def readings_of(mark: Mark, answers: KeyAnswers) -> tuple[Reading, ...]:
    """What a scheme counts of a model, without a look at how that depends on what was drawn; as :func:`read_key`."""
    if mark.key is None or mark.verify is None:
        raise IncomparableError("the scheme of the key is not known")
    lacking = _lacking(mark, answers)
    if lacking:
        raise IncomparableError(answers.missing or lacking)
    readings = tuple(mark.verify(mark.key, answers))
    if not 0 < len(readings) <= _MOST_READINGS or len({one.reading for one in readings}) < len(readings):
        raise ValueError(f"expected 1 to {_MOST_READINGS} readings of different names, found {len(readings)}")
    for one in readings:
        _check(mark.key, one)
    return readings


def carries(reading: Reading) -> bool:
    """Whether a reading is one of a marked model."""
    by_chance = reading.log10_p is not None and reading.log10_p > GREATEST_LOG10_P
    enough = not isinstance(reading, Matches) or reading.found >= LEAST_SHARE * reading.of
    return enough and not by_chance


def _lacking(mark: Mark, answers: KeyAnswers) -> str | None:
    if mark.needs & (Access.LABELS | Access.PROBABILITIES) and answers.probabilities is None:
        return "it gave no answers to the key"
    if Access.LAYERS in mark.needs and not answers.activations:
        return "its layers could not be read"
    if Access.WEIGHTS in mark.needs and not answers.matrices:
        return "its weights could not be read"
    return None


def _check(key: Key, reading: Reading) -> None:
    if clean(reading.why, LONGEST_LINE).strip() == "" or clean(reading.reading) != reading.reading:
        raise ValueError("expected a clause that says what the chance rests on, found none")
    if isinstance(reading, Lift):
        if key.bits is None or not np.array_equal(reading.coins, key.bits):
            raise ValueError("expected the coins of the key, found others")
        if np.shape(reading.scores) != np.shape(reading.coins) or not np.isfinite(reading.scores).all():
            raise ValueError("expected a finite score for each coin")
        return
    if not all(isinstance(count, int | np.integer) for count in (reading.found, reading.of)):
        raise ValueError("expected whole numbers of trials")
    if not isinstance(reading, Matches) or not 0 <= reading.found <= reading.of <= key.trials or not reading.of:
        raise ValueError("expected 0 <= found <= of <= trials, and a trial that counts")
    if reading.chance is None:
        return
    if key.chance is None:
        raise ValueError("expected a chance only of what was drawn")
    if not math.isclose(reading.chance, key.chance):
        raise ValueError(f"expected the chance of what was drawn, {key.chance:g}, found {reading.chance:g}")


def _check_draw(
    key: Key,
    verify: Callable[[Key, KeyAnswers], Sequence[Reading]],
    answers: KeyAnswers,
    readings: Sequence[Reading],
) -> None:
    # A scheme is anybody's code. With another draw, the same trials have to count, and no model matches them but by
    # chance.
    again = replace(key, nonce=hashlib.sha256(key.nonce).digest()).completed()
    others = {one.reading: one for one in verify(again, replace(answers, victim=None))}
    for one in readings:
        other = others.get(one.reading)
        if isinstance(one, Lift):
            if not isinstance(other, Lift) or not np.array_equal(one.scores, other.scores):
                raise ValueError("expected scores that do not depend on the coins")
        elif one.chance is not None and isinstance(other, Matches):
            if other.of != one.of:
                raise ValueError("expected trials that count whatever was drawn")
            if log10_binomial_tail(other.found, other.of, one.chance) <= GREATEST_LOG10_P:
                raise ValueError("expected only chance matches with another draw, found more")


def providers_of(marks: Sequence[Metric]) -> Mapping[str, str]:
    """``metric NAME`` to the distribution that brought the key's scheme, of keys among metrics."""
    return {f"metric {one.name}": one.provider for one in marks if isinstance(one, Mark) and one.provider}
