"""A suite of two halves: seeds that were selected by their order, and seeds that a challenge drew."""

from dataclasses import replace

import numpy as np
from msgspec import structs

from deepjudge_core.components.registry import Registry
from deepjudge_core.components.values import Seeds
from deepjudge_core.errors import UnfitError
from deepjudge_core.models.model import Model
from deepjudge_core.suites.challenge import Challenge, split
from deepjudge_core.suites.choice import GeneratorChoice
from deepjudge_core.suites.generation import generate_suite
from deepjudge_core.suites.observation import Observation
from deepjudge_core.suites.settings import SuiteSettings
from deepjudge_core.suites.suite import CASE_SETS, CaseTable, GeneratorRecord, Suite
from deepjudge_core.types import Array, Layout


def generate_drawn(
    victim: Model,
    seeds: Seeds,
    choice: GeneratorChoice,
    challenge: Challenge,
    *,
    training_inputs: Array | None,
    layout: Layout | None,
    settings: SuiteSettings,
    registry: Registry,
) -> Suite:
    """Make test cases of both halves, the drawn one with the challenge's randomness; see :func:`generate_suite`.

    What generators choose by themselves, such as a radius, they choose by the first half.

    Raises:
        DeepJudgeError: As :func:`generate_suite`.
        UnfitError: When there are too few inputs to draw any.
    """
    first, drawn = split(seeds, challenge.chosen)
    if not len(drawn.indices):
        raise UnfitError(
            f"{victim.name}: expected more inputs than the {challenge.chosen} seeds that were selected, so "
            "that a challenge can draw some, found no more; offer more inputs, or ask for fewer seeds"
        )
    one = generate_suite(
        victim,
        first,
        choice,
        training_inputs=training_inputs,
        layout=layout,
        layers=settings.layers,
        seed=settings.seed,
        force=settings.force,
    )
    names = [record.name for record in one.generators if record.makes != "mistakes"]  # which come from no seed
    options = {record.name: _given(record) for record in one.generators}
    other = generate_suite(
        victim,
        drawn,
        GeneratorChoice.of(SuiteSettings(generators=names, options=options), registry.generators),
        training_inputs=first.inputs if training_inputs is None else training_inputs,
        layout=first.layout if training_inputs is None else layout,
        layers=one.layers or None,
        seed=challenge.seed,
        force=settings.force,
    )
    return _joined(one, other, challenge)


def drawn_rows(suite: Suite) -> Array:
    """``(n,)`` bool: the cases that follow from the challenge; none of a suite without one."""
    first = len(suite.seed_indices) if suite.challenge is None else suite.challenge.chosen
    rows: Array = suite.cases.seeds >= first
    return rows


def drawn_suite(suite: Suite) -> Suite:
    """The drawn cases as a suite of their own, without weights and keys."""
    rows, first = drawn_rows(suite), suite.challenge.chosen if suite.challenge else 0
    table = CaseTable(**{name: column[rows] for name, column in vars(suite.cases).items()})
    return replace(
        suite,
        seed_indices=suite.seed_indices[first:],
        cases=replace(table, seeds=table.seeds - first),
        victim=of_rows(suite.victim, rows, ""),
        weights=None,
        ancestor=None,
        keys=(),
        challenge=None,
    )


def of_rows(observation: Observation, rows: Array, suite: str) -> Observation:
    """What a model answered to some of the cases, as its answers to another suite, by that one's digest."""
    p = observation.probabilities
    return replace(
        observation,
        suite=suite,
        probabilities=None if p is None else p[rows],
        activations={layer: values[rows] for layer, values in observation.activations.items()},
        recovered={layer: values[rows] for layer, values in observation.recovered.items()},
        weights=None,
        unsketched=None,
        keys=(),
    )


def _given(record: GeneratorRecord) -> dict[str, object]:
    return {name: value for name, value in record.options.items() if value is not None}


def _joined(one: Suite, other: Suite, challenge: Challenge) -> Suite:
    # The seeds of both first, in their order, as everywhere.
    tables = [vars(one.cases), dict(vars(other.cases))]
    names = [record.name for record in one.generators]
    places = np.array([*(names.index(record.name) for record in other.generators), -1])  # of -1 the last
    tables[1]["generators"] = places[other.cases.generators]
    tables[1]["seeds"] = other.cases.seeds + challenge.chosen
    whole = {name: np.concatenate([tables[0][name], tables[1][name]]) for name in tables[0]}
    clean = whole["sets"] == CASE_SETS.index("clean")
    order = np.concatenate([np.flatnonzero(clean), np.flatnonzero(~clean)])
    theirs = {record.name: record for record in other.generators}
    records = [
        structs.replace(mine, made=mine.made + theirs[mine.name].made, kept=mine.kept + theirs[mine.name].kept)
        if mine.name in theirs
        else mine
        for mine in one.generators
    ]
    p, q = one.victim.probabilities, other.victim.probabilities
    victim = replace(
        one.victim,
        probabilities=None if p is None or q is None else np.concatenate([p, q])[order],
        activations={
            layer: np.concatenate([values, other.victim.activations[layer]])[order]
            for layer, values in one.victim.activations.items()
        },
    )
    reached = set(one.unreached) & set(other.unreached)
    own = (f"of the drawn seeds: {note}" for note in other.notes if note not in one.notes)
    return replace(
        one,
        seed_indices=np.concatenate([one.seed_indices, other.seed_indices]),
        cases=CaseTable(**{name: column[order] for name, column in whole.items()}),
        unreached=tuple(pair for pair in one.unreached if pair in reached),
        generators=tuple(records),
        victim=victim,
        notes=tuple(dict.fromkeys((*one.notes, *own))),
        challenge=challenge,
    )
