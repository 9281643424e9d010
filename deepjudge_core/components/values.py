"""The values that pass between components and the core."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from deepjudge_core.components.grid import Grid
from deepjudge_core.components.strata import Stratum
from deepjudge_core.models.model import Model
from deepjudge_core.sheets import Sheet, Shown, sizes
from deepjudge_core.types import Array, Layout
from deepjudge_core.weights.values import Sketch

CaseSet = Literal["clean", "adversarial", "corners", "mistakes"]
"""The sets of cases in a suite: the seeds themselves, seeds changed so that the victim misclassifies them, neuron
corners, and inputs that it misclassifies as they are."""
Group = Literal["black-box", "white-box", "weights", "marks"]
"""The paper's two settings, does the suspect behave like the victim and is it made like it; whether its weights, read
and never run, descend from the victim's; and whether it carries the marks of a key."""


@dataclass(frozen=True, eq=False)
class Mistakes:
    """Inputs that the victim misclassifies as they are.

    Attributes:
        inputs: ``(n, *shape)`` float32, in the victim's layout.
        labels: ``(n,)`` int64, the ground truth.
    """

    inputs: Array
    labels: Array


@dataclass(frozen=True, eq=False)
class Probes:
    """Inputs of the victim's task as they come, whether it classifies them correctly or not.

    Attributes:
        inputs: ``(n, *shape)`` float32, in the victim's layout.
        labels: ``(n,)`` int64, the ground truth.
    """

    inputs: Array
    labels: Array


@dataclass(frozen=True, eq=False, repr=False)
class Seeds(Shown):
    """Inputs that the victim classifies correctly, from which test cases are made.

    Attributes:
        inputs: ``(n, *shape)`` float32, in the victim's layout.
        labels: ``(n,)`` int64, the ground truth, which the victim gives too.
        indices: ``(n,)`` int64, their places in the inputs they were selected from.
        bounds: Least and greatest value that an input may have; :attr:`span` is the width between. Two numbers, or two
            float32 arrays of an input's shape where features or channels have ranges of their own: what is written with
            either does for both.
        accuracy: Share of the inputs they were selected from that the victim classifies correctly, 0..1.
        notes: What a reader should know of how they were selected.
        layout: Where their channels are: ``channels_first`` or ``channels_last``, None where that is not known.
        mistakes: What the victim misclassifies of the inputs they were selected from, at most as many as seeds were
            asked for; None where that is not known.
        probes: Some of the inputs they were selected from, unchanged, which show how well others know the task, or
            None.
        label_origin: ``inputs``; ``victim`` if the labels are the victim's own answers, since the truth is unknown;
            ``several`` if the label is the likeliest of the input's classes by the victim.
        grid: The steps in which the inputs come that they were selected from; None where they come in none.
    """

    inputs: Array
    labels: Array
    indices: Array
    bounds: tuple[float, float] | tuple[Array, Array]
    accuracy: float = 1.0
    notes: tuple[str, ...] = ()
    layout: Layout | None = None
    mistakes: Mistakes | None = None
    probes: Probes | None = None
    label_origin: Literal["inputs", "victim", "several"] = "inputs"
    grid: Grid | None = None

    def sheet(self) -> Sheet:
        """See :class:`~deepjudge_core.sheets.Shown`."""
        low, high = (float(side) for side in (np.min(self.bounds[0]), np.max(self.bounds[1])))
        facts = {
            "each": f"{sizes(self.inputs.shape[1:])}, in {low:g}..{high:g}",
            "classes": f"{len(np.unique(self.labels))}",
            "labels": {"victim": "the victim's own answers", "several": "the likeliest of several"}.get(
                self.label_origin
            ),
            "accuracy": f"the victim classifies {self.accuracy:.1%} of the inputs offered correctly",
            "mistakes": "" if self.mistakes is None else f"{len(self.mistakes.inputs)} inputs that it misclassifies",
            "note": self.notes,
        }
        return Sheet(f"{len(self.inputs)} seeds", facts)

    @property
    def span(self) -> Any:
        """Width of the input range, the unit of step sizes and radii; a number or an array, as the bounds are."""
        return self.bounds[1] - self.bounds[0]

    def radius(self, eps: float) -> Any:
        """How far a case may be from its seed, of a share of the range: in whole steps of the grid, where there is one.

        A number or an array, as the bounds are; an array also where each feature or channel has a grid of its own.
        """
        radius = eps * self.span
        return radius if self.grid is None else self.grid.whole(radius, self.inputs.shape[1:])

    def on_grid(self, x: Array) -> Array:
        """Inputs ``(n, *shape)`` as data would have them: at their nearest places on the grid, where there is one."""
        return x if self.grid is None else self.grid.rounded(x, self.bounds)


@dataclass(frozen=True, eq=False)
class Task:
    """What a generator works from.

    Attributes:
        victim: The owner's :class:`Model`. It is asked for nothing that the generator's ``needs`` does not name.
        seeds: Where cases start.
        layers: Taps of the victim that white-box cases are made for.
        training_inputs: ``(n, *shape)`` inputs over which neuron ranges are taken.
        rng: The generator's only source of randomness, derived from the suite's seed and the generator's name.
    """

    victim: Model
    seeds: Seeds
    layers: tuple[str, ...]
    training_inputs: Array
    rng: np.random.Generator


@dataclass(frozen=True, eq=False)
class Cases:
    """Test cases that a generator made.

    Attributes:
        inputs: ``(n, *shape)`` float32, inside the bounds of the seeds.
        seeds: ``(n,)`` place, among the task's seeds, of the seed that each case was made from; -1 for mistakes. There
            may be several cases of a seed, or none: the suite then notes of how many there is none.
        layers: ``(n,)`` place, among the task's layers, of the layer that each case was made for; -1 for none.
        neurons: ``(n,)`` neuron of that layer; -1 for none.
        unreached: ``(layer, neuron)`` pairs for which no case could be made. A generator of corners lists every one.
        labels: ``(n,)`` ground truth of mistakes; None for others, whose seed has it.
        options: Option to value, of those that the generator chose by itself: with them it makes the same cases again.
        details: What else is worth keeping of how they were made: values of JSON.
        notes: What a reader should know of it.
    """

    inputs: Array
    seeds: Array
    layers: Array
    neurons: Array
    unreached: tuple[tuple[int, int], ...] = ()
    labels: Array | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @classmethod
    def of_seeds(cls, inputs: Array, *, options: Mapping[str, Any] | None = None) -> "Cases":
        """One case for each seed, in their order, made for no neuron."""
        none = np.full(len(inputs), -1)
        return cls(inputs.astype(np.float32, copy=False), np.arange(len(inputs)), none, none, options=options or {})

    @classmethod
    def of_mistakes(cls, mistakes: Mistakes) -> "Cases":
        """The mistakes as they are, made for no neuron."""
        none = np.full(len(mistakes.inputs), -1)
        return cls(mistakes.inputs, none, none, none, labels=mistakes.labels)


@dataclass(frozen=True, eq=False)
class Answers:
    """What one model answered to one set of cases; all that a metric sees.

    Attributes:
        labels: ``(n,)`` ground truth: of the seed that each case was made from, or of the mistake itself.
        probabilities: ``(n, classes)``, or None where they were not asked for. With ``Access.LABELS`` alone only the
            greatest of each row may be looked at.
        activations: Layer name (the victim's) to ``(n, neurons)`` outputs; empty where not asked for or not allowed.
        recovered: Layer name (the victim's) to ``(n, neurons)`` what the one tap of the model that tells most of the
            layer's outputs says of them, as a linear function; empty as ``activations`` are, and of the victim itself.
        made_for: Layer name to ``(n,)`` neuron that each case was made for, -1 for a case that was made for another
            layer or none.
        seed_labels: ``(n,)`` label that the model gives to the seed that each case was made from; None where that is
            not known, or the cases were made from none.
        seed_probabilities: ``(n, classes)`` what the model answers to these seeds; None where that is not known.
        independent: Whether each class has a probability of its own, so that a row need not sum to 1. The label is the
            likeliest class nevertheless.
        weights: The sketch of the model's weights; None where it was not asked for or not allowed.
        ancestor: The sketch of the model that the victim was made from, on the victim's side; None if none was named.
        siblings: The sketches of the controls that were made from the same ancestor, without the model that is
            measured, on the victim's side.
    """

    labels: Array
    probabilities: Array | None = None
    activations: Mapping[str, Array] = field(default_factory=dict)
    made_for: Mapping[str, Array] = field(default_factory=dict)
    seed_labels: Array | None = None
    independent: bool = False
    weights: Sketch | None = None
    ancestor: Sketch | None = None
    siblings: tuple[Sketch, ...] = ()
    seed_probabilities: Array | None = None
    recovered: Mapping[str, Array] = field(default_factory=dict)


@dataclass(frozen=True)
class Chance:
    """How likely it is that a model made independently of the victim comes as near to it, whatever the controls.

    Probabilities are logarithms to base 10, since they may be too small for a number.

    Attributes:
        log10_p: The greatest such probability, 0 or less.
        least: The least ``log10_p`` that could have been found; 0 where nothing could have been.
        counted: What was found: a clause that begins with what it is about and has no full stop, such as "the order of
            3,072 of 3,072 neurons agrees with the victim's".
        agreeing: How many of those that were compared agree, for tables; None where nothing was counted.
        compared: How many were compared.
    """

    log10_p: float
    least: float
    counted: str
    agreeing: int | None = None
    compared: int | None = None


@dataclass(frozen=True, eq=False)
class Evidence:
    """One metric's value for a suspect beside those of the controls.

    Attributes:
        value: The suspect's.
        controls: ``(n,)`` the controls', n >= 3; any number for rules that need none.
        alpha: The metric's default share of the bound.
        strata: Each control's stratum, such as ``same-data``; None if it is unknown; empty if none is known.
        places: Each control's place among all controls, which aligns metrics that were measured on different controls;
            empty if they were measured on all.
        chance: How likely so small a value is of a model made independently, whatever the controls; None for metrics
            that leave this to the controls.
    """

    value: float
    controls: Array
    alpha: float
    strata: tuple[Stratum | None, ...] = ()
    places: tuple[int, ...] = ()
    chance: Chance | None = None

    def by_stratum(self) -> dict[Stratum | None, Array]:
        """Stratum to the values of its controls; None to those of which it is not known."""
        strata = self.strata or (None,) * len(self.controls)
        return {stratum: self.controls[[other == stratum for other in strata]] for stratum in dict.fromkeys(strata)}


class Decision(enum.StrEnum):
    """What is said of a suspect."""

    COPY = "copy"
    INDEPENDENT = "independent"
    INCONCLUSIVE = "inconclusive"
    FAILED = "failed"


@dataclass(frozen=True)
class Vote:
    """What a rule makes of one metric.

    Attributes:
        vote: For copy or not; None, with the reason, if the controls cannot decide.
        lower_bound: The bound from which the threshold was computed, if the rule has one.
        threshold: The greatest value that gets a vote for copy, if the rule has one.
        reason: Why no vote is cast; required where ``vote`` is None.
        p_value: Probability that an honest model's value is as small as this, by this metric alone; 0..1.
        false_positive_rate: Probability, at most, that an honest model gets a vote for copy, 0..1.
        log10_p: The logarithm of the p-value to base 10, 0 or less; None for rules whose p-values are never that small.
    """

    vote: bool | None
    lower_bound: float | None = None
    threshold: float | None = None
    reason: str | None = None
    p_value: float | None = None
    false_positive_rate: float | None = None
    log10_p: float | None = None


@dataclass(frozen=True)
class Judgement:
    """What a rule makes of one group of metrics.

    Attributes:
        decision: ``COPY``, ``INDEPENDENT`` or ``INCONCLUSIVE``; ``FAILED`` is the core's.
        p_copy: The rule's confidence, 0..1; None where it could not be had.
        votes: A :class:`Vote` for every metric of the evidence, and no other.
        reason: Why the decision is inconclusive; None for other decisions.
        p_value: Probability, at most, that an honest model comes as near to the victim as the suspect, all metrics
            together; 0..1. None for rules that give none.
        least_p_value: The smallest p-value that this number of controls could have given (the minimum attainable
            p-value: Tarone, 1990); None where there is no p-value.
        statement: What was found, on one line, for a reader who is no statistician; may be None where the decision is
            inconclusive.
        log10_p: The logarithm of the p-value to base 10, 0 or less; None for rules whose p-values are never that small.
    """

    decision: Decision
    p_copy: float | None
    votes: Mapping[str, Vote]
    reason: str | None = None
    p_value: float | None = None
    least_p_value: float | None = None
    statement: str | None = None
    log10_p: float | None = None
