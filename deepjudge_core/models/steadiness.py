"""Whether a model keeps to its answers: it is asked some cases again, and the differences are measured."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from deepjudge_core.models.sampling import evenly
from deepjudge_core.types import Array

# Cases of each set that are asked again: in one batch, in the same once more, and each alone. Of three sets these are
# 36 rows, where a suite has a thousand and more.
_CASES = 4
# Differences are in units of probability, and of the greatest output at a tap. The same batch twice gave the same bits
# in every format that was tried, on a CPU; there is room for GPUs, which may add in another order each time.
_SAME = 1e-3
# In another batch kernels and so roundings are others: up to 7e-7 in float32. Dynamic int8 quantisation takes its scale
# over the batch: up to 0.044 in one case, 0.027 in the mean over some. A case at a boundary may differ by more: so the
# mean counts.
_OTHER_BATCH = 0.1
# Of the cases of a set, which may get another class though their probabilities change by less, as where these are flat.
_OTHER_CLASS = 0.5


class Responses(NamedTuple):
    """What a model answered to some cases: probabilities ``(n, classes)``, and tap to ``(n, neurons)``."""

    probabilities: Array
    activations: Mapping[str, Array]

    @classmethod
    def join(cls, parts: Sequence["Responses"]) -> "Responses":
        """The answers to some cases, and those to the next."""
        return cls(
            np.concatenate([part.probabilities for part in parts]),
            {tap: np.concatenate([part.activations[tap] for part in parts]) for tap in parts[0].activations},
        )

    def of(self, rows: Array | slice) -> "Responses":
        """The answers to the cases of some rows."""
        return Responses(self.probabilities[rows], {tap: values[rows] for tap, values in self.activations.items()})


def queries_again(sets: Array) -> int:
    """How many inputs are asked for :func:`unsteadiness` of cases in these sets."""
    return 3 * sum(min(_CASES, int((sets == which).sum())) for which in np.unique(sets))


def unsteadiness(
    first: Responses, sets: Array, answer: Callable[[Array], Responses], *, alone: bool = True
) -> str | None:
    """What of a model's answers changes when it is asked again; None where they stay.

    Args:
        first: What it answered to all cases.
        sets: ``(n,)`` which of the suite's sets each case is in.
        answer: Asks it the cases of these rows, in one batch.
        alone: Whether a single case can be asked; of a fixed batch size it is asked in another order instead.

    Returns:
        One line, which the model's name can stand before.
    """
    rows = np.concatenate([evenly(np.flatnonzero(sets == which), _CASES) for which in np.unique(sets)])
    # The same at once, so that answers that change by turns are not met at the same turn.
    together, again = answer(rows), answer(rows)
    if alone:
        apart, other = Responses.join([answer(row) for row in rows[:, None]]), "when asked alone"
    else:
        apart, other = answer(rows[::-1]).of(slice(None, None, -1)), "when cases come in another order"
    spans = {tap: float(np.abs(values).max()) or 1.0 for tap, values in first.activations.items()}

    for what, differences in _differences(together, again, spans):
        if (gap := float(differences.max())) > _SAME:
            return f"gives different answers to the same input: {what} by up to {gap:.2g}"
    for one, two, when in (
        (together, apart, other),
        (first.of(rows), together, "when asked again, together with others"),
    ):
        for what, differences in _differences(one, two, spans):
            # By set: metrics are means over one, and another set's cases would hide it.
            gap = max(float(differences[sets[rows] == which].mean()) for which in np.unique(sets))
            if gap > _OTHER_BATCH:
                return f"answers a case differently {when}: {what} by {gap:.2g} on average"
        changed = _changed(one, two)
        if max(float(changed[sets[rows] == which].mean()) for which in np.unique(sets)) > _OTHER_CLASS:
            return f"gives the same input another class {when}: for {changed.sum()} of {len(changed)} cases"
    return None


def _changed(one: Responses, two: Responses) -> Array:
    # Which cases get another class, and not by roundings alone.
    classes, others = (answers.probabilities.argmax(axis=1) for answers in (one, two))
    changed: Array = (classes != others) & (np.abs(one.probabilities - two.probabilities).max(axis=1) > _SAME)
    return changed


def _differences(one: Responses, two: Responses, spans: Mapping[str, float]) -> list[tuple[str, Array]]:
    # Of each kind of answer how it is called, and the greatest difference of each case.
    gaps = [("probabilities differ", np.abs(one.probabilities - two.probabilities).max(axis=1))]
    for tap, span in spans.items():
        # In float64: of numbers near the greatest, float32 has no difference.
        gap = np.abs(one.activations[tap].astype(np.float64) - two.activations[tap]).max(axis=1) / span
        gaps.append((f"outputs at {tap!r} differ, as a share of the greatest,", gap))
    return gaps
