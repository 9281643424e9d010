"""A fingerprint that stolen models inherit and independent ones do not (Lukas et al., "Conferrable examples", 2021)."""

from collections.abc import Callable, Sequence
from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt, Le, Lt

from deepjudge_core import progress
from deepjudge_core.components.schemes import Key, KeyAnswers, KeyTask, Matches, Scheme
from deepjudge_core.errors import IncomparableError, InputError, ModelError
from deepjudge_core.models.model import Access, Model
from deepjudge_core.types import Array

_CANDIDATES = 4  # inputs that are tried for each trial
_LEAST = 1e-12  # of a probability whose logarithm is taken
_FROM_MODELS = "the inputs were chosen by the victim and models stolen from it, so that other controls have to tell"


def make(
    task: KeyTask,
    *,
    trials: Annotated[int, Ge(1)] = 100,
    eps: Annotated[float, Gt(0)] = 0.15,
    steps: Annotated[int, Ge(1)] = 40,
    step: Annotated[float, Gt(0)] | None = None,
    dropout: Annotated[float, Ge(0), Lt(1)] = 0.3,
    tau: Annotated[float, Gt(0), Le(1)] = 0.6,
) -> Key:
    """Change inputs until the victim and models stolen from it err alike, and independent models do not.

    The conferrable ensemble method: steps by the sign of the gradient of :func:`losses`, inside a ball around each
    input. Those are kept that fool the victim and that :func:`conferred` says enough of; the best ones come first.

    Args:
        trials: Number of inputs at most; up to four times as many are tried.
        eps: Radius of the ball, as a share of the input range. Within a larger one more inputs are conferred, and more
            independent models share them; natural pictures need less than digits.
        steps: Number of steps.
        step: Size of a step, as a share of the input range; none uses a tenth of ``eps``.
        dropout: Probability with which a model is left out of a step, so that inputs do not fit these models alone.
        tau: Least share of stolen models that answer as the victim times the share of independent ones that do not.

    Raises:
        InputError: When there are no such models of the victim's classes, or no input is good enough.
        ModelError: When a model of the zoo has no gradients.
    """
    surrogates, references = _members(task, "surrogates"), _members(task, "references")
    rng = task.rng("conferrable")
    rows = np.sort(rng.permutation(len(task.inputs))[: _CANDIDATES * trials])
    seeds = task.inputs[rows]
    start = task.victim.predict(seeds)
    if task.labels is not None:
        right = start.argmax(axis=1) == task.labels[rows]
        if not right.any():
            raise InputError("conferrable: expected inputs that the victim classifies correctly, found none")
        seeds, start = seeds[right], start[right]
    step = step or round(eps / 10, 12)
    x = confer(task, seeds, start, surrogates, references, rng, eps=eps, step=step, steps=steps, dropout=dropout)
    labels = task.victim.predict(x).argmax(axis=1)
    shares = conferred(labels, [_labels(model, x) for model in surrogates], [_labels(model, x) for model in references])
    good = (labels != start.argmax(axis=1)) & (shares >= tau - 1e-9)
    kept = np.flatnonzero(good)[np.argsort(-shares[good], kind="stable")][:trials]
    if not len(kept):
        fooled = labels != start.argmax(axis=1)
        best = f"{shares[fooled].max():.2f}" if fooled.any() else "none that fools the victim"
        raise InputError(
            f"conferrable: expected an input that stolen models share and independent ones do not by {tau:g}, found "
            f"{best}; raise eps or steps, lower tau, or make more models"
        )
    notes = [f"{int(good.sum())} of {len(x)} inputs that were tried are conferred by at least {tau:g}"]
    options = {"trials": trials, "eps": eps, "steps": steps, "step": step, "dropout": dropout, "tau": tau}
    parts = {"inputs": x[kept], "labels": labels[kept].astype(np.int64), "notes": tuple(notes)}
    return task.key("conferrable", options, trials=len(kept), **parts)


def verify(key: Key, answers: KeyAnswers) -> Sequence[Matches]:
    """Count the inputs that get the victim's answer."""
    if answers.labels is None:
        raise IncomparableError("it gave no labels")
    return [Matches("direct", int((answers.labels == key.labels).sum()), key.trials, None, _FROM_MODELS)]


def conferred(labels: Array, stolen: Sequence[Array], independent: Sequence[Array]) -> Array:
    """``(n,)`` the share of stolen models that give a label, times the share of independent ones that do not.

    Args:
        labels: ``(n,)`` the victim's.
        stolen: ``(n,)`` of each stolen model.
        independent: ``(n,)`` of each independent model.
    """
    alike = np.mean([other == labels for other in stolen], axis=0)
    unlike = np.mean([other != labels for other in independent], axis=0)
    shares: Array = alike * unlike
    return shares


def losses(start: Array, victim: Array, stolen: Array, independent: Array) -> tuple[Array, Array, Array, Array]:
    """The loss of the paper for each input, and its derivatives.

    ``-log max_t S_t (1 - R_t) - H(O_0, O) + H(O, S)``, where ``H`` is the cross entropy, and the greatest is one of the
    classes that are not the input's own: a model that is right is no evidence.

    Args:
        start: ``(n, classes)`` probabilities ``O_0`` that the victim gives to the unchanged inputs.
        victim: ``O`` that it gives to the changed ones.
        stolen: ``S``, the mean of those of stolen models.
        independent: ``R``, the mean of those of independent ones.

    Returns:
        ``(n,)`` losses; ``(n, classes)`` derivatives at the victim's logits, at ``S`` and at ``R``.
    """
    each = np.arange(len(start))
    o, s, r = (np.maximum(p.astype(np.float64), _LEAST) for p in (victim, stolen, independent))
    apart = np.maximum(1 - r, _LEAST)
    shared = s * apart
    shared[each, start.argmax(axis=1)] = -np.inf
    goal = shared.argmax(axis=1)
    loss = -np.log(shared[each, goal]) + (start * np.log(o)).sum(axis=1) - (o * np.log(s)).sum(axis=1)
    # Through the softmax: of sum(O_0 log O) it is O_0 - O, which does not vanish where O does.
    at_victim = (start - victim) + through_softmax(victim, -np.log(s))
    at_stolen, at_independent = -o / s, np.zeros_like(s)
    at_stolen[each, goal] -= 1 / s[each, goal]
    at_independent[each, goal] = 1 / apart[each, goal]
    return loss, at_victim, at_stolen, at_independent


def through_softmax(probabilities: Array, derivative: Array) -> Array:
    """The derivative at logits of one at their probabilities, ``(n, classes)`` each."""
    p = probabilities.astype(np.float64)
    at_logits: Array = p * (derivative - (p * derivative).sum(axis=1, keepdims=True))
    return at_logits


def confer(
    task: KeyTask,
    seeds: Array,
    start: Array,
    surrogates: Sequence[Model],
    references: Sequence[Model],
    rng: np.random.Generator,
    *,
    eps: float,
    step: float,
    steps: int,
    dropout: float,
) -> Array:
    """Changed inputs, ``(n, *shape)`` float32, within the ball and the bounds; see :func:`make`."""
    radius, move = eps * task.span, step * task.span
    low, high = (np.asarray(side, np.float32) for side in task.bounds)
    least, greatest = np.maximum(seeds - radius, low), np.minimum(seeds + radius, high)
    x = seeds.copy()
    with progress.task("conferrable", steps) as advance:
        for _ in range(steps):
            stolen, independent = (_drawn(models, dropout, rng) for models in (surrogates, references))
            own = task.victim.predict(x)
            theirs, others = ([model.predict(x) for model in models] for models in (stolen, independent))
            _, at_victim, at_stolen, at_independent = losses(
                start, own, np.mean(theirs, axis=0), np.mean(others, axis=0)
            )
            gradient = task.victim.gradient(x, _fixed(at_victim))
            for models, answers, derivative in (
                (stolen, theirs, at_stolen),
                (independent, others, at_independent),
            ):
                for model, p in zip(models, answers, strict=True):
                    gradient += model.gradient(x, _fixed(through_softmax(p, derivative / len(models))))
            x = np.clip(x - (move * np.sign(gradient)).astype(np.float32), least, greatest).astype(np.float32)
            advance(1)
    return x


def _fixed(derivative: Array) -> Callable[[Array, slice], Array]:
    return lambda _, rows: derivative[rows]


def _drawn(models: Sequence[Model], dropout: float, rng: np.random.Generator) -> list[Model]:
    kept = rng.random(len(models)) >= dropout
    kept[rng.integers(len(models))] = True  # at least one
    return [model for model, keep in zip(models, kept, strict=True) if keep]


def _labels(model: Model, x: Array) -> Array:
    labels: Array = model.predict(x).argmax(axis=1)
    return labels


def _members(task: KeyTask, kind: str) -> list[Model]:
    # A copy for another task cannot answer in the victim's classes.
    models = [model for model in getattr(task, kind) if model.classes == task.victim.classes]
    if not models:
        raise InputError(f"conferrable: expected {kind} of {task.victim.classes} classes in the zoo, found none")
    for model in models:
        if Access.GRADIENTS not in model.access:
            raise ModelError(f"{model.name}: does not provide gradients, which the scheme conferrable needs")
    return models


CONFERRABLE = Scheme(
    "conferrable",
    source="Lukas et al., ICLR 2021",
    needs=Access.LABELS,
    make=make,
    verify=verify,
    wants=("references", "surrogates"),
    asks=Access.GRADIENTS,
    says="inputs on which models stolen from the victim err as it does, and independent ones do not; survives "
    "extraction in part",
)
