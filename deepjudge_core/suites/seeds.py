"""Seeds: the inputs that test cases start from."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from deepjudge_core.components.grid import find_grid
from deepjudge_core.components.values import Mistakes, Probes, Seeds
from deepjudge_core.errors import ErringVictimError, InputError, UnfitError, UsageError
from deepjudge_core.models.asking import ask
from deepjudge_core.models.layouts import arrangement
from deepjudge_core.models.model import Model
from deepjudge_core.models.sampling import evenly
from deepjudge_core.naming import option
from deepjudge_core.suites.choices import Order
from deepjudge_core.suites.inputs import as_inputs, check_bounds
from deepjudge_core.suites.labels import LabelOrigin, as_numbers, has_several, is_clear, likeliest
from deepjudge_core.suites.ranges import Spread, arranged_bounds, spread
from deepjudge_core.suites.suite import MOST_PROBES
from deepjudge_core.types import Array, Bounds, Layout

_MOST_EXACT = 2**24  # the first whole number behind which float32 has gaps
LEAST_KNOWLEDGE = 0.25
"""Of the way from chance to all: less is no model of the task, or is not given its inputs."""
_ORIGINS = {
    "victim": (
        "the labels are the victim's own answers ({labels}), so it was not checked that "
        "the victim knows the task, and accuracies say how often models agree with it"
    ),
    "several": (
        "inputs have several classes: the label is the class that the victim finds likeliest, "
        "and accuracies of other models say how often they find the same one likeliest"
    ),
}
_LEAST_ACCURACY = 0.5  # below it, it is said: labels or inputs may not be what the victim was trained for


def select_seeds(
    victim: Model,
    x: Array,
    y: Array | None,
    *,
    n: int = 1000,
    order: Order = "high",
    bounds: Bounds = (0.0, 1.0),
    layout: Layout | None = None,
    victim_layout: Layout | None = None,
    force: bool = False,
    ranked: Array | None = None,
) -> Seeds:
    """Select the correctly classified inputs of which the victim is most (or least) certain.

    The score of an input is ``sum_c p_c(x)^2`` (DeepGini, Feng et al., ISSTA 2020; paper, section V-A4). Equal scores
    keep the order of the inputs.

    Args:
        victim: The owner's model.
        x: ``(m, *shape)``; channels may be first or last.
        y: ``(m,)`` class numbers, or ``(m, classes)`` of 0 and 1 where inputs have several classes at once, of which
            the label is the one that the victim finds likeliest; None takes the victim's own answers.
        n: How many to take; all correctly classified ones where they are fewer. Of those that the victim misclassifies
            at most as many are kept beside them, evenly spread over the inputs in their order.
        order: Highest scores, lowest scores, or highest scores of each class in turn.
        bounds: Least and greatest value that an input may have: two numbers, or two arrays, of an input's shape or with
            a number for each feature of flat inputs, each channel of others.
        layout: Where the channels of ``x`` are, and those of a victim that does not say; needed where the shape can be
            read both ways.
        victim_layout: Where they are in the inputs of a victim that does not say, if elsewhere than in ``x``.
        force: Whether to go on, with a note, where no verdict could rest on them.
        ranked: If half of them are drawn, ``(m,)`` the places of the inputs in the order in which they are drawn. The
            drawn ones stand behind those that are selected by their scores.

    Raises:
        InputError: When shapes, labels or values do not fit.
        UnfitError: When the victim classifies hardly any input correctly, or is hardly sure of its own answers where
            these are the labels; or the seeds are of one class.
        ModelError: When the victim cannot be run, or answers nonsense.
        UsageError: For a number of seeds or bounds that cannot be.
    """
    if n < 1:
        raise UsageError(f"expected a positive number of seeds, found {n}", code="wrong-value")
    offered = arranged(victim, x, bounds=bounds, layout=layout, victim_layout=victim_layout)
    inputs = offered.inputs
    given = None if y is None else class_numbers(inputs, as_inputs("labels", y, None), victim)
    answers, _ = ask(victim, inputs, {})
    p = answers.astype(np.float64)
    y = p.argmax(axis=1) if given is None else likeliest(given, p)
    origin: LabelOrigin = "victim" if given is None else "several" if given.ndim == 2 else "inputs"
    known = np.ones(len(y), bool) if given is None or given.ndim == 1 else given.any(axis=1)
    if origin == "several" and not victim.independent:
        raise InputError(
            f"{victim.name}: its classes exclude one another, so expected one class per input, found "
            "inputs with several classes"
        )
    correct = (p.argmax(axis=1) == y) & known
    if victim.independent:
        correct &= is_clear(p)
    # Evenly: the surest would be the inputs that are labelled wrong, and the first those of the first class.
    right, wrong = np.flatnonzero(correct), evenly(np.flatnonzero((p.argmax(axis=1) != y) & known), n)
    if len(right) == 0:
        raise ErringVictimError(
            f"{victim.name}: classifies none of the {len(y)} inputs correctly",
            f"{_checks()}; {_own_answers()}",
        )
    score = (p[right] ** 2).sum(axis=1)
    if victim.independent:  # the same of each class by itself, likely or not
        score = (p[right] ** 2 + (1 - p[right]) ** 2).mean(axis=1)
    by_score = right[np.argsort(score if order == "low" else -score, kind="stable")]
    alone = len(np.unique(y[by_score[:n]])) == 1 and len(np.unique(y[right])) > 1 and n > 1
    if order == "balanced" or alone:
        by_score = _by_turns(by_score, y)
    indices, probes = by_score[:n], evenly(np.flatnonzero(known), MOST_PROBES)
    if ranked is not None:
        free = correct.copy()
        free[by_score[: n - n // 2]] = False
        indices = np.concatenate([by_score[: n - n // 2], ranked[free[ranked]][: n // 2]])
    accuracy = len(right) / int(known.sum())
    notes = [_ORIGINS[origin].format(labels=option("labels", "victim"))] if origin in _ORIGINS else []
    if not known.all():
        notes.append(f"{int((~known).sum())} inputs without a class were left out")
    notes += _classes(y[right], y[indices])
    if alone and order != "balanced":
        notes.append(
            f"seeds were taken from each class in turn, because the {n} most confident inputs are all of one class"
        )
    garbled = _unsure(p) if given is None else _erring(correct[known], y[known])
    narrow = _of_one_class(y, y[indices], own=given is None)
    if narrow and given is not None and _knows_one_class(victim, inputs[probes], offered.bounds):
        # What was offered is not why: other inputs would be of no other class.
        notes.append(f"all inputs are of class {y[0]}, and the victim also gives their mirror images no other class")
        narrow = None
    insist = f"{option('force', True)} makes the suite anyway"
    if garbled and not force:
        checks = _checks_of_scale() if given is None else _checks()
        others = "" if given is None else f"; {_own_answers()}"
        raise ErringVictimError(f"{victim.name}: {garbled}", f"{checks}{others}; {insist}")
    if narrow and not force:
        raise UnfitError(f"{victim.name}: {narrow}; {insist}")
    notes += [f"made although {reason}" for reason in (garbled, narrow) if reason]
    if accuracy < _LEAST_ACCURACY:
        notes.append(f"the victim classifies only {accuracy:.1%} of the inputs correctly; are labels and scale right?")
    if len(indices) < n:
        why = "there are no more inputs" if given is None else "the victim classifies no more inputs correctly"
        notes.append(f"{len(indices)} seeds instead of {n}: {why}")
    return Seeds(
        inputs[indices],
        y[indices],
        indices,
        offered.bounds,
        accuracy,
        tuple(notes),
        offered.layout,
        None if given is None else Mistakes(inputs[wrong], y[wrong]),
        Probes(inputs[probes], y[probes]),
        label_origin=origin,
        grid=find_grid(inputs, offered.bounds, offered.layout),
    )


@dataclass(frozen=True, eq=False)
class Arranged:
    """Inputs as a victim takes them, and as suites and keys hold them.

    Attributes:
        inputs: ``(n, *shape)`` float32.
        bounds: Least and greatest value of an input, or of each of its values.
        layout: Where the channels are; None where nobody knows.
    """

    inputs: Array
    bounds: Spread
    layout: Layout | None


def arranged(
    victim: Model,
    x: Array,
    *,
    bounds: Bounds = (0.0, 1.0),
    layout: Layout | None = None,
    victim_layout: Layout | None = None,
    source: str = "inputs",
) -> Arranged:
    """Inputs as the victim takes them; see :func:`select_seeds`.

    Args:
        victim: The owner's model.
        x: ``(m, *shape)``; channels may be first or last.
        bounds: Least and greatest value that an input may have.
        layout: Where the channels of ``x`` are.
        victim_layout: Where they are in the inputs of a victim that does not say.
        source: What messages call the inputs.

    Raises:
        InputError: When shapes or values do not fit.
        UsageError: For bounds that cannot be.
    """
    x = as_inputs(source, x)
    spec = victim.input.with_layout(victim_layout or layout)
    label = victim.name if source == "inputs" else f"{victim.name}: {source}"
    arrange = arrangement(label, x.shape[1:], spec, layout)
    limits = spread(source, bounds, x.shape[1:], layout)
    check_bounds(source, x, limits)
    if victim.input.counts:
        _check_whole(victim, x)
    return Arranged(np.ascontiguousarray(arrange(x)), arranged_bounds(limits, arrange), spec.layout)


def class_numbers(x: Array, y: Array, victim: Model) -> Array:
    """The labels of inputs as the victim's classes.

    Args:
        x: ``(n, *shape)`` the inputs.
        y: ``(n,)`` numbers, or ``(n, classes)`` of 0 and 1.
        victim: The owner's model.

    Returns:
        ``(n,)`` int64; ``(n, classes)`` where an input has several classes at once.

    Raises:
        InputError: When they are no classes of the victim.
    """
    if y.shape not in (x.shape[:1], (len(x), victim.classes)):
        raise InputError(
            f"{victim.name}: expected one label per input, or {victim.classes} labels of 0 and 1, "
            f"found inputs {x.shape} and labels {y.shape}"
        )
    labels = y.astype(np.int64)
    if not (labels == y).all():
        raise InputError("expected whole class numbers as labels, found others")
    if labels.ndim == 2:
        if labels.min() < 0 or labels.max() > 1 or not labels.any():
            raise InputError(f"expected labels of 0 and 1 for each class, found {labels.min()}..{labels.max()}")
        return labels if has_several(labels) else as_numbers(labels)
    if labels.min() < 0 or labels.max() >= victim.classes:
        raise InputError(
            f"{victim.name}: expected labels 0..{victim.classes - 1}, found labels "
            f"{labels.min()}..{labels.max()}; {_way_out_of(labels, victim)}"
        )
    return labels


def _check_whole(victim: Model, x: Array) -> None:
    greatest = np.abs(x).max(initial=0)
    if not (x % 1 == 0).all():
        raise InputError(f"{victim.name}: expected whole numbers as inputs of {victim.input.dtype}, found others")
    if greatest >= _MOST_EXACT:
        raise InputError(
            f"{victim.name}: expected whole numbers below {_MOST_EXACT}, which a suite stores "
            f"exactly, found {greatest:.0f}"
        )


def _knows_one_class(victim: Model, x: Array, bounds: Spread) -> bool:
    # Whether it answers inputs with small values for great ones, and great for small, as it does these.
    low, high = bounds
    answers, _ = ask(victim, np.concatenate([x, (low + high - x).astype(np.float32)]), {})
    return len(np.unique(answers.argmax(axis=1))) == 1


def _of_one_class(y: Array, seeds: Array, *, own: bool) -> str | None:
    if len(np.unique(seeds)) > 1:
        return None
    if own and len(np.unique(y)) == 1:
        return f"the victim gives all inputs the class {y[0]}, expected at least two classes; {_checks_of_scale()}"
    if len(np.unique(y)) == 1:
        return (
            f"all inputs are of class {y[0]}, expected at least two classes; give inputs of all classes, not a part "
            "of a sorted file"
        )
    mend = "take more" if len(seeds) == 1 else "it classifies no input of another class correctly"
    return f"all {len(seeds)} seeds are of class {seeds[0]}, expected at least two classes; {mend}"


def _erring(correct: Array, y: Array) -> str | None:
    # Of each class alike, since who always answers the usual one knows nothing.
    classes = np.unique(y)
    knowledge = float(np.mean([correct[y == label].mean() for label in classes]))
    least = 1 / len(classes) + LEAST_KNOWLEDGE * (1 - 1 / len(classes))
    if knowledge >= least or len(classes) == 1:
        return None
    return (
        f"the victim classifies {correct.mean():.1%} of the inputs correctly ({knowledge:.1%} per "
        f"class on average), expected at least {least:.1%}"
    )


def _checks() -> str:
    return (
        "check the labels (numbers from 0, in the order of the victim's classes), that the inputs are what it was "
        f"trained for, and how it takes them ({option('preprocessing')}, {option('scale')}, "
        f"{option('QuerySettings.layout')})"
    )


def _checks_of_scale() -> str:
    return (
        f"check that the inputs are what it was trained for, and how it takes them ({option('preprocessing')}, "
        f"{option('scale')})"
    )


def _own_answers() -> str:
    return f"{option('labels', 'victim')} uses its own answers as labels"


def _way_out_of(labels: Array, victim: Model) -> str:
    if labels.min() == 1 and labels.max() <= victim.classes:
        first = "subtract 1 from the labels"
    else:
        first = "check that inputs and labels belong to this victim, and number its classes from 0"
    return f"{first}, or use its own answers as labels with {option('labels', 'victim')}"


def _unsure(p: Array) -> str | None:
    # Of a victim that is right by construction: whether it knows the task can be told from its sureness alone.
    sureness, classes = float(p.max(axis=1).mean()), p.shape[1]
    least = 1 / classes + LEAST_KNOWLEDGE * (1 - 1 / classes)
    if sureness >= least:
        return None
    return f"the victim gives its own answers a probability of {sureness:.1%} on average, expected at least {least:.1%}"


def _classes(right: Array, seeds: Array) -> Iterator[str]:
    known, taken = (len(np.unique(labels)) for labels in (right, seeds))
    if 2 * taken <= known:
        yield (
            f"the seeds cover {taken} of the {known} classes that the victim knows; "
            f"{option('order', 'balanced')} covers all"
        )


def _by_turns(ranked: Array, y: Array) -> Array:
    # The k-th best of every class stands before the (k+1)-th best of any.
    turn = np.empty(len(ranked), dtype=np.int64)
    for label in np.unique(y[ranked]):
        members = y[ranked] == label
        turn[members] = np.arange(members.sum())
    turns: Array = ranked[np.argsort(turn, kind="stable")]
    return turns
