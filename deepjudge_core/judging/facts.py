"""That a suspect is the victim, where no statistics are needed to say so."""

from dataclasses import replace

import numpy as np

from deepjudge_core.components.values import Decision
from deepjudge_core.files.digests import root
from deepjudge_core.judging.calibration import Calibration
from deepjudge_core.judging.verdict import Verdict
from deepjudge_core.judging.view import unfit_whole
from deepjudge_core.models.info import ModelInfo
from deepjudge_core.models.model import Access
from deepjudge_core.suites.observation import Observation, unsaturated
from deepjudge_core.suites.suite import Suite
from deepjudge_core.types import Array
from deepjudge_core.weights.reading.lora import lacks_base

ROUNDING = 1e-5
"""How far the same numbers are apart in two formats: probabilities, and a layer's outputs as shares of its greatest."""
# Values tell models apart that are as many, and so far from one another that none is met by chance.
_LEAST_VALUES, _GAP = 10, 100 * ROUNDING
_SATURATED = 0.99  # a probability above this is one that all good models give


def same_files(victim: ModelInfo, suspect: ModelInfo) -> str | None:
    """That a suspect's files are the victim's, byte for byte: one line; None where they are not, or not known."""
    if not victim.files or not suspect.files:
        return None
    if lacks_base(victim.files) or lacks_base(suspect.files):  # one LoRA on two bases is two models
        return None
    if victim.digest == suspect.digest or root(victim.files) == root(suspect.files):
        return "its files are identical to the victim's, byte for byte; this is a fact, not a statistical finding"
    return None


def same_model(suite: Suite, suspect: Observation, calibration: Calibration) -> str | None:
    """That a suspect is the victim, unchanged: one line that says by what it is known; None where it is not known.

    Two live models without files are the same where the digests of their weights are, and they give the same labels. Of
    other models all answers and all layers have to agree to rounding. That says nothing where honest models agree, too:
    where labels are all that is known; where answers are saturated, or hardly change from case to case; where no hidden
    layer was compared; and where a control has the same outputs there, as one that begins with the same public network.

    Args:
        suite: The suite, with the victim's own answers.
        suspect: The suspect's.
        calibration: The controls.
    """
    victim = suite.victim
    files = same_files(victim.model, suspect.model)
    if files:
        return files
    if unfit_whole(suspect):  # of what nobody sees, nothing is known
        return None
    ours, theirs = victim.probabilities, suspect.probabilities
    if ours is None or theirs is None or ours.shape != theirs.shape:
        return None
    no_files = not (victim.model.files or suspect.model.files)
    if no_files and victim.model.digest == suspect.model.digest and bool((_labels(ours) == _labels(theirs)).all()):
        return "its digest is the victim's; this is a fact, not a statistical finding"
    if suspect.unsteady or not (_answers_agree(victim, suspect) and _layers_agree(victim, suspect, calibration)):
        return None
    return (
        f"its answers and layers agree with the victim's on all {len(ours)} cases to within "
        f"{ROUNDING:g}, a rounding error; this is a fact, not a statistical finding"
    )


def established(verdict: Verdict, fact: str | None) -> Verdict:
    """The verdict on a suspect that is known to be the victim; the same where it is not known."""
    return verdict if fact is None else replace(verdict, decision=Decision.COPY, points_to="weights", reason=fact)


def _answers_agree(victim: Observation, suspect: Observation) -> bool:
    ours, theirs = victim.probabilities, suspect.probabilities
    exact = all(Access.PROBABILITIES in one.model.access for one in (victim, suspect))
    if not exact or ours is None or theirs is None or not _agree(ours, theirs, 1.0):
        return False
    return _tells(unsaturated(victim, _SATURATED))


def _layers_agree(victim: Observation, suspect: Observation, calibration: Calibration) -> bool:
    if not all(_layer_agrees(victim, suspect, layer) for layer in victim.activations):
        return False
    logits = list(victim.model.layers)[-1]  # which follow from the answers
    return any(layer != logits and _tells_layer(victim, layer, calibration) for layer in victim.activations)


def _labels(probabilities: Array) -> Array:
    labels: Array = probabilities.argmax(axis=1)
    return labels


def _agree(one: Array, other: Array, scale: float) -> bool:
    return one.shape == other.shape and bool((np.abs(one - other) <= ROUNDING * scale).all())


def _layer_agrees(victim: Observation, other: Observation, layer: str) -> bool:
    ours, theirs = victim.activations[layer], other.activations.get(layer)
    return theirs is not None and _agree(ours, theirs, float(np.abs(ours).max()))


def _tells_layer(victim: Observation, layer: str, calibration: Calibration) -> bool:
    ours = victim.activations[layer]
    scale = float(np.abs(ours).max())
    shared = any(_layer_agrees(victim, control, layer) for control in calibration.controls)
    return scale > 0 and not shared and _tells(ours / scale)


def _tells(outputs: Array) -> bool:
    # Whether some output takes many values, each well apart from the next: rounding makes no two of one.
    return any(_values_apart(column) >= _LEAST_VALUES for column in outputs.T)


def _values_apart(values: Array) -> int:
    count, last = 0, -np.inf
    for value in np.sort(values):
        if value - last > _GAP:
            count, last = count + 1, value
    return count
