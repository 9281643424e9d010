"""Make a suite again from the victim and its inputs, and say in what the stored one differs."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from msgspec.structs import astuple

from deepjudge_core.auditing.audit import make_suite
from deepjudge_core.auditing.session import Session
from deepjudge_core.auditing.subject import Subject
from deepjudge_core.errors import UsageError
from deepjudge_core.suites.challenge import Given
from deepjudge_core.suites.inputs import Offered
from deepjudge_core.suites.profile import settings_of
from deepjudge_core.suites.suite import CASE_SETS, Suite
from deepjudge_core.types import Array

_NEAR = 1e-4  # of the input range, and of a probability: what another machine's float32 may differ by


def remade(suite: Suite, victim: Subject, inputs: Offered, session: Session) -> Suite:
    """A suite made as another says that it was made, without weights and keys.

    Args:
        suite: The other.
        victim: The model that is said to be the victim.
        inputs: What seeds are said to be selected from.
        session: Where generators and adapters are, and how the victim's file is confined.

    Raises:
        UsageError: When the suite does not say how it was made, as those of earlier versions.
        DeepJudgeError: When it cannot be made.
    """
    if suite.choices is None:
        raise UsageError("expected a suite that says how it was asked for, found one that does not", code="conflict")
    given = None if suite.challenge is None else Given(suite.challenge.value, suite.challenge.commitment)
    return make_suite(victim, inputs, settings_of(suite.choices), challenge=given, session=session)


def differences(stored: Suite, again: Suite) -> tuple[tuple[str, ...], str]:
    """What of a stored suite is not as it is when it is made again, and a line about the rest.

    Args:
        stored: The suite.
        again: What was made.

    Returns:
        A line for each difference that is greater than another machine's rounding; and how exactly the rest agrees.
    """
    ours, theirs = _bare(stored, stored), _bare(again, stored)
    name, own = again.victim.model.name, stored.victim.model.name
    theirs = replace(theirs, notes=tuple(note.replace(name, own) for note in theirs.notes))
    silent = [note for note in theirs.notes if note not in ours.notes]
    # Of weights and keys, which are not made again, there are more.
    theirs = theirs if silent else replace(theirs, notes=ours.notes)
    if ours.digest == theirs.digest:
        return (), f"made again, it has the same digest of cases and answers, {ours.digest}"
    found = tuple(_of_all(ours, theirs))
    far = max(_distances(ours, theirs).max(initial=0.0), _answers(ours, theirs).max(initial=0.0)) if not found else 0.0
    return (
        found,
        f"made again, it agrees to within {far:.1g}, and not in every digit: another machine or version made it",
    )


def _bare(suite: Suite, like: Suite) -> Suite:
    # Cases and answers: neither weights and keys, nor where the victim lay and ran.
    model, own = suite.victim.model, like.victim.model
    model = replace(model, name=own.name, isolation=own.isolation, device=own.device)
    victim = replace(suite.victim, model=model, weights=None, unsketched=None, keys=())
    same = suite.origin and like.origin and suite.origin.digest == like.origin.digest
    origin = like.origin if same else suite.origin
    return replace(suite, victim=victim, origin=origin, weights=None, ancestor=None, keys=())


def _of_all(ours: Suite, theirs: Suite) -> Iterator[str]:
    if ours.victim.model.digest != theirs.victim.model.digest:
        yield f"its victim has the SHA-256 {ours.victim.model.digest}, this model {theirs.victim.model.digest}"
    if ours.origin and theirs.origin and ours.origin.digest != theirs.origin.digest:
        yield f"its inputs have the SHA-256 {ours.origin.digest}, these {theirs.origin.digest}"
    if not np.array_equal(ours.seed_indices, theirs.seed_indices):
        others = len(set(ours.seed_indices.tolist()) - set(theirs.seed_indices.tolist()))
        yield f"{others} of its {len(ours.seed_indices)} seeds are others, or they are in another order"
        return
    for one, other in zip(ours.generators, theirs.generators, strict=False):
        if astuple(one)[:4] != astuple(other)[:4] or (one.made, one.kept) != (other.made, other.kept):
            yield (
                f"{one.name} kept {one.kept} of {one.made} with {dict(one.options)}; again it is {other.name}, "
                f"{other.kept} of {other.made} with {dict(other.options)}"
            )
    if len(ours.generators) != len(theirs.generators):
        yield f"it has {len(ours.generators)} generators; again there are {len(theirs.generators)}"
    columns = ("labels", "sets", "generators", "seeds", "layers", "neurons")
    if not all(np.array_equal(getattr(ours.cases, name), getattr(theirs.cases, name)) for name in columns):
        yield "its cases are made of other seeds, or for other neurons"
        return
    yield from (f"a note is missing: {note}" for note in theirs.notes if note not in ours.notes)
    for what, distances in (("cases", _distances(ours, theirs)), ("the victim's answers", _answers(ours, theirs))):
        for place, name in enumerate(CASE_SETS):
            rows = ours.cases.sets == place
            far = distances[rows] > _NEAR
            if far.any():
                most = distances[rows].max()
                yield f"{int(far.sum())} of {int(rows.sum())} {what} ({name}) differ, by up to {most:.2g}"


def _distances(ours: Suite, theirs: Suite) -> Array:
    span = ours.bounds[1] - ours.bounds[0]
    apart: Array = (
        np.abs(ours.cases.inputs - theirs.cases.inputs).reshape(len(ours.cases.inputs), -1).max(axis=1) / span
    )
    return apart


def _answers(ours: Suite, theirs: Suite) -> Array:
    one, other = ours.victim.probabilities, theirs.victim.probabilities
    if one is None or other is None or one.shape != other.shape:
        return np.full(len(ours.cases.inputs), np.inf)
    apart: Array = np.abs(one - other).max(axis=1)
    return apart
