"""Ask models that answer elsewhere: only what reaches them as it is, within a budget, and nothing twice.

An interface may take whole numbers, or pictures. A case that it changes is another case: what the victim and the
controls answer to it nobody knows. So it is not asked, and no model's answers to it are compared.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from deepjudge_core.errors import InputError, ModelError
from deepjudge_core.models.gateway import Gateway
from deepjudge_core.models.model import Model
from deepjudge_core.models.preprocessing import Prepare
from deepjudge_core.models.steadiness import queries_again
from deepjudge_core.naming import option
from deepjudge_core.observing.arranging import Arranging
from deepjudge_core.observing.settings import QuerySettings
from deepjudge_core.suites.observation import Exchange, Observation
from deepjudge_core.suites.suite import Suite
from deepjudge_core.types import Array

_SAME = 0.01  # of a step of whole numbers: what is nearer to one is one, but for roundings
_CHUNK = 64  # cases that are prepared at once

Observe = Callable[[Model, Suite, QuerySettings], Observation]


def observe_through(
    gateway: Gateway, model: Model, suite: Suite, asking: QuerySettings, observe: Observe
) -> Observation:
    """Let a model that answers elsewhere answer those cases of a suite that reach it as they are.

    Args:
        gateway: What stands between.
        model: The model.
        suite: The suite.
        asking: How it is asked, where its description does not say.
        observe: Lets a model answer all cases of a suite.

    Raises:
        ModelError: When hardly anything reaches it, the budget does not suffice, or as ``observe``.
    """
    asking = as_described(gateway, asking)
    compared = reached(gateway, model, suite, asking)
    part = suite.only(compared)
    keys = sum(len(key.inputs) for key in suite.keys if key.inputs is not None)
    gateway.afford(len(part.cases.labels) + queries_again(part.cases.sets) + keys)
    seen = observe(model, part, asking)
    return replace(
        seen,
        suite=suite.digest,
        probabilities=_among(seen.probabilities, compared),
        exchange=Exchange(compared, gateway.reduction(), gateway.ledger()),
        notes=(*seen.notes, *_notes(suite, compared)),
    )


def as_described(gateway: Gateway, asking: QuerySettings) -> QuerySettings:
    """How a model is asked whose description says it, and of which nothing is looked for: each query may cost."""
    return replace(asking, preprocessing=asking.preprocessing or gateway.expects, infer=False)


def reached(gateway: Gateway, model: Model, suite: Suite, asking: QuerySettings) -> Array:
    """``(n,)`` bool: which cases reach a model as they are, and their seeds as well.

    Args:
        gateway: What stands between.
        model: The model.
        suite: The suite.
        asking: How it is asked, from :func:`as_described`.

    Raises:
        ModelError: When none of the seeds or none of the adversarial cases does, or the inputs do not fit.
    """
    try:
        arranging = Arranging.of(model, suite, asking)
    except InputError as error:
        raise ModelError(str(error)) from None
    inputs = suite.cases.inputs
    prepare = arranging.prepare(
        asking.preprocessing or suite.victim.preprocessing, inputs, model.input.layout or asking.layout
    )
    same = ~_changed(gateway, inputs, prepare)
    clean, seeds = same[suite.rows("clean")], suite.cases.seeds
    same &= (seeds < 0) | clean[seeds]
    for case_set, count in suite.counts().items():
        if case_set in ("clean", "adversarial") and count and not same[suite.rows(case_set)].any():
            made = option("SuiteSettings.pictures", "png")
            raise ModelError(
                f"{model.name}: expected {case_set} cases that reach it unchanged, found none of {count}: its "
                f"interface takes whole numbers or pictures; make the suite with {made}, or "
                "jpeg if that is what it takes",
                code="cannot-answer",
            )
    return same


def changes_keys(gateway: Gateway, suite: Suite, prepare: Prepare) -> bool:
    """Whether an interface changes any input of a suite's keys."""
    inputs = [key.inputs for key in suite.keys if key.inputs is not None]
    return any(_changed(gateway, one, prepare).any() for one in inputs)


def expect_one_label(gateway: Gateway, name: str, shown: Array) -> None:
    """Refuse scores ``(classes,)`` of which two are greatest, since an interface rounds them.

    Raises:
        ModelError: Saying what to do.
    """
    stated = gateway.stated()
    known = stated is not None and stated.digits is not None
    if gateway.reduction() and not known and (shown >= shown.max()).sum() > 1:
        raise ModelError(
            f"{name}: expected one class with the greatest score, found two, because scores are rounded; state digits "
            "in its description, so that the controls are rounded, too",
            code="bad-answer",
        )


def _changed(gateway: Gateway, inputs: Array, prepare: Prepare) -> Array:
    parts = []
    for start in range(0, len(inputs), _CHUNK):
        sent = prepare(inputs[start : start + _CHUNK])
        apart = np.abs(gateway.realised(sent) - sent).reshape(len(sent), -1)
        parts.append(apart.max(axis=1) > _SAME)
    return np.concatenate(parts)


def _among(answers: Array | None, compared: Array) -> Array | None:
    # Behind a case that was not asked stands what says nothing.
    if answers is None:
        return None
    whole = np.full((len(compared), answers.shape[1]), 1 / answers.shape[1], np.float32)
    whole[compared] = answers
    return whole


def _notes(suite: Suite, compared: Array) -> tuple[str, ...]:
    if compared.all():
        return ()
    counts = ", ".join(
        f"{int(compared[suite.rows(case_set)].sum())} of {count} {case_set}"
        for case_set, count in suite.counts().items()
    )
    return (
        f"only cases that reach it as they are were asked and are compared, of the victim and the controls as well: "
        f"{counts}",
    )
