"""What of a suite can be checked without any model: that its cases are what its records say."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from deepjudge_core.components.kinds import Generator
from deepjudge_core.suites.challenge import mistakes_of_draw
from deepjudge_core.suites.ranges import spread
from deepjudge_core.suites.suite import CASE_SETS, GeneratorRecord, Suite

_SLACK = 1e-4  # of the input range: float32 that was added up
_TIE = 1e-3  # probabilities that differ by less may change their order on another machine
_SCORES = 1e-4  # as much may differ between two machines


def mistakes_of(suite: Suite, generators: Mapping[str, Generator]) -> Iterator[str]:
    """What is wrong with a suite: a line for each; no model is needed.

    Args:
        suite: The suite.
        generators: Those that are installed, by name.
    """
    if not suite.has_cases:
        return
    yield from _of_seeds(suite)
    for place, record in enumerate(suite.generators):
        yield from _of_generator(suite, place, record, generators.get(record.name))
    yield from _of_sets(suite)
    if suite.challenge is not None:
        known = None if suite.label_origin == "several" else suite.accuracy
        yield from mistakes_of_draw(suite.challenge, suite.seed_indices, known)


def unchecked_of(suite: Suite, generators: Mapping[str, Generator]) -> Iterator[str]:
    """What of a suite only a model, or a generator that is not here, could show: a line for each."""
    for record in suite.generators:
        generator = generators.get(record.name)
        if record.makes != "adversarial" or not record.kept:
            continue
        if generator is not None and generator.within is not None and _are_pictures(suite):
            yield f"how far cases of {record.name} may be from their seeds: they were changed to be pictures"
        if generator is None:
            yield f"how far cases of {record.name} may be from their seeds: no such generator is installed"


def _of_seeds(suite: Suite) -> Iterator[str]:
    clean, cases = suite.rows("clean"), suite.cases
    if len(np.unique(suite.seed_indices)) < len(suite.seed_indices):
        yield "two of its seeds are one input"
    if not np.array_equal(cases.seeds[clean], np.arange(int(clean.sum()))):
        yield "its seeds are not numbered in their order"
        return
    made = ~clean & (cases.seeds >= 0)
    if not np.array_equal(cases.labels[made], cases.labels[clean][cases.seeds[made]]):
        yield "some of its cases do not have the labels of their seeds"
    choices, p = suite.choices, suite.victim.probabilities
    by_turns = any(note.startswith("seeds were taken from each class") for note in suite.notes)
    if choices is None or p is None or choices.order == "balanced" or by_turns or suite.victim.independent:
        return
    scores = (p[clean].astype(np.float64) ** 2).sum(axis=1)[: suite.challenge.chosen if suite.challenge else None]
    steps = np.diff(scores) * (1 if choices.order == "low" else -1)
    if (steps < -_SCORES).any():
        yield f"its seeds are not in the order of the victim's confidence that it names, {choices.order}"


def _of_generator(suite: Suite, place: int, record: GeneratorRecord, generator: Generator | None) -> Iterator[str]:
    rows, cases = suite.cases.generators == place, suite.cases
    kept = int(rows.sum())
    if not kept == record.kept <= record.made:
        yield f"{record.name}: expected {record.kept} of {record.made} cases, found {kept}"
    if record.makes not in CASE_SETS or (cases.sets[rows] != CASE_SETS.index(record.makes)).any():
        yield f"{record.name}: expected cases of the set {record.makes}, found others"
        return
    if generator is None:
        return
    seeds = len(suite.seed_indices)
    if generator.each_seed and record.made != seeds:
        yield f"{record.name}: expected one case for each of {seeds} seeds, found a record of {record.made}"
    if generator.within is None or not kept or _are_pictures(suite):
        return
    seed_inputs = cases.inputs[suite.rows("clean")][cases.seeds[rows]]
    try:
        limit = float(generator.within.limit(record.options))
    except (KeyError, TypeError, ValueError):
        yield f"{record.name}: its record does not say how far cases may be from their seeds"
        return
    low, high = _bounds(suite)
    distances = generator.within.distances(cases.inputs[rows], seed_inputs, high - low)
    far = distances > limit + _slack(suite, high - low)
    if far.any():
        yield (
            f"{record.name}: {int(far.sum())} of {kept} cases are farther from their seeds than {limit:g}, the "
            f"farthest {distances.max():g}"
        )


def _are_pictures(suite: Suite) -> bool:
    return suite.choices is not None and suite.choices.pictures is not None


def _of_sets(suite: Suite) -> Iterator[str]:
    cases, (low, high) = suite.cases, _bounds(suite)
    edge = _SLACK * (high - low)
    outside = ((cases.inputs < low - edge) | (cases.inputs > high + edge)).reshape(len(cases.inputs), -1).any(axis=1)
    if outside.any():
        yield f"{int(outside.sum())} of its cases are not within its bounds"
    p = suite.victim.probabilities
    if p is None:
        return
    each = np.arange(len(p))
    ahead = p[each, cases.labels] - np.where(np.eye(p.shape[1], dtype=bool)[cases.labels], -np.inf, p).max(axis=1)
    for name, right in (("clean", True), ("adversarial", False), ("mistakes", False)):
        rows = suite.rows(name)  # type: ignore[arg-type]
        wrong = rows & ((ahead < -_TIE) if right else (ahead > _TIE))
        if wrong.any():
            how = "misclassifies" if right else "classifies correctly"
            yield f"by its own answers the victim {how} {int(wrong.sum())} of {int(rows.sum())} {name} cases"


def _bounds(suite: Suite) -> tuple[Any, Any]:
    if suite.feature_bounds is None:
        return suite.bounds
    low, high = (np.asarray(side, dtype=np.float64) for side in suite.feature_bounds)
    return spread("suite", (low, high), suite.cases.inputs.shape[1:], suite.victim.model.input.layout)


def _slack(suite: Suite, span: Any) -> float:
    # What is rounded for a victim that takes whole numbers is half of one farther away.
    whole = suite.victim.model.input.dtype.startswith(("int", "uint"))
    return _SLACK + (0.5 / float(np.min(span)) if whole else 0.0)
