"""What plugins hand over: adapters, generators, metrics and rules, and the values that pass between them."""

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from deepjudge_core.errors import PluginError
from deepjudge_core.model import Access, Array, Layout, Model
from deepjudge_core.strata import Stratum

CaseSet = Literal["clean", "adversarial", "corners", "mistakes"]
"""The sets of cases in a suite: the seeds themselves, seeds changed so that the victim misclassifies them, neuron
corners, and inputs that it misclassifies as they are."""

Made = Literal["adversarial", "corners", "mistakes"]
"""The sets of cases that generators make."""

ALL_METRICS = "all"
"""What stands for every installed metric, where metrics are named."""

Group = Literal["black-box", "white-box"]
"""The paper's two settings: does the suspect behave like the victim, and is it made like it."""


@dataclass(frozen=True)
class Format:
    """What a model's file turned out to be.

    Attributes:
        name: As people call it.
        runs_code: Whether opening or running such a file may do what its author wrote, beside computing answers. Files
            of strangers that may are opened in a full sandbox only.
    """

    name: str
    runs_code: bool = True


@dataclass(frozen=True)
class Adapter:
    """Opens the models of one framework.

    Attributes:
        name: Name of the framework, as it stands in reports.
        suffixes: File names that it reads end with one of these (lower case, with the dot).
        accepts: Whether a live object is one of this framework's models; must not import the framework.
        open: ``open(source, *, name, batch_size, **options) -> Model`` for a :class:`pathlib.Path` or a live object.
            Imports the framework; raises :class:`~deepjudge_core.errors.ModelError` with one line otherwise.
        folders: A folder that holds a file of one of these names is one model, and of this framework.
        network: ``network(source, *, name, **options) -> Network`` for what can be made anew and trained, with the
            options of ``open`` but ``batch_size``; or a live model that another adapter takes, made from it. None where
            the adapter trains nothing.
        examine: ``examine(path) -> Format`` for a stranger's file or folder, from its first bytes or its table of
            contents; must not import the framework, nor read the whole. Raises
            :class:`~deepjudge_core.errors.ModelError` for what is never opened, and says how to convert it. Without it
            every file is taken for one that runs code.
        companions: A file that is called like the model's, with one of these behind it, may hold its weights.
        imports: Modules that ``open`` needs, which are imported before a stranger's file is read.
        warm_up: ``warm_up(*, gradients)`` runs a tiny model of its own through all that is going to be asked of one,
            gradients among it or not, so that no file is opened for it later. Without it files stay within reach of a
            stranger's model where there is no Landlock.
    """

    name: str
    suffixes: tuple[str, ...]
    accepts: Callable[[object], bool]
    open: Callable[..., Model]
    folders: tuple[str, ...] = ()
    network: Callable[..., Any] | None = None
    examine: Callable[[Path], Format] | None = None
    companions: tuple[str, ...] = ()
    imports: tuple[str, ...] = ()
    warm_up: Callable[..., None] | None = None

    def __post_init__(self) -> None:
        # A text in place of a tuple would claim every file that ends with one of its letters.
        if not isinstance(self.suffixes, tuple) or not all(str(s).startswith(".") for s in self.suffixes):
            raise PluginError(
                f"{self.name}: expected suffixes as a tuple like ('.onnx',), each with its dot, found {self.suffixes!r}"
            )
        if not isinstance(self.folders, tuple):
            raise PluginError(f"{self.name}: expected folders as a tuple of file names, found {self.folders!r}")


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
class Seeds:
    """Inputs that the victim classifies correctly, from which test cases are made.

    Attributes:
        inputs: ``(n, *shape)`` float32, in the victim's layout.
        labels: ``(n,)`` int64, the ground truth.
        indices: ``(n,)`` int64, their places in the inputs they were selected from.
        bounds: Least and greatest value that an input may have.
        accuracy: Share of the inputs they were selected from that the victim classifies correctly, 0..1.
        notes: What a reader should know of how they were selected.
        layout: Where their channels are, where that is known.
        mistakes: What the victim misclassifies of the inputs they were selected from, at most as many as seeds were
            asked for; None where that is not known.
    """

    inputs: Array
    labels: Array
    indices: Array
    bounds: tuple[float, float]
    accuracy: float = 1.0
    notes: tuple[str, ...] = ()
    layout: Layout | None = None
    mistakes: Mistakes | None = None

    @property
    def span(self) -> float:
        """Width of the input range, the unit of step sizes and radii."""
        return self.bounds[1] - self.bounds[0]


@dataclass(frozen=True, eq=False)
class Task:
    """What a generator works from.

    Attributes:
        victim: The owner's model.
        seeds: Where cases start.
        layers: Taps of the victim that white-box cases are made for.
        training_inputs: ``(n, *shape)`` inputs over which neuron ranges are taken.
        rng: The generator's own source of randomness, derived from the suite's seed and the generator's name.
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
        seeds: ``(n,)`` place, among the task's seeds, of the seed that each case was made from; -1 for mistakes.
        layers: ``(n,)`` place, among the task's layers, of the layer that each case was made for; -1 for none.
        neurons: ``(n,)`` neuron of that layer; -1 for none.
        unreached: ``(layer, neuron)`` pairs for which no case could be made.
        labels: ``(n,)`` ground truth of mistakes; None for others, whose seed has it.
    """

    inputs: Array
    seeds: Array
    layers: Array
    neurons: Array
    unreached: tuple[tuple[int, int], ...] = ()
    labels: Array | None = None

    @classmethod
    def of_seeds(cls, inputs: Array) -> "Cases":
        """One case for each seed, in their order, made for no neuron."""
        none = np.full(len(inputs), -1)
        return cls(inputs.astype(np.float32, copy=False), np.arange(len(inputs)), none, none)

    @classmethod
    def of_mistakes(cls, mistakes: Mistakes) -> "Cases":
        """The mistakes as they are, made for no neuron."""
        none = np.full(len(mistakes.inputs), -1)
        return cls(mistakes.inputs, none, none, none, labels=mistakes.labels)


@dataclass(frozen=True)
class Generator:
    """Makes test cases by running the victim.

    Attributes:
        name: How the user chooses it.
        makes: The set that its cases belong to. The core keeps those ``adversarial`` cases and ``mistakes`` that the
            victim misclassifies.
        needs: What it asks of the victim.
        generate: ``generate(task, **options) -> Cases``; options are its keyword-only parameters with defaults.
    """

    name: str
    makes: Made
    needs: Access
    generate: Callable[..., Cases]

    def __post_init__(self) -> None:
        expect_one_of(self.name, "makes", self.makes, get_args(Made))


@dataclass(frozen=True, eq=False)
class Answers:
    """What one model answered to one set of cases; all that a metric sees.

    Attributes:
        labels: ``(n,)`` ground truth: of the seed that each case was made from, or of the mistake itself.
        probabilities: ``(n, classes)``, or None where they were not asked for.
        activations: Layer name (the victim's) to ``(n, neurons)`` outputs; empty where not asked for or not allowed.
        made_for: Layer name to ``(n,)`` neuron that each case was made for, -1 for other cases.
    """

    labels: Array
    probabilities: Array | None = None
    activations: Mapping[str, Array] = field(default_factory=dict)
    made_for: Mapping[str, Array] = field(default_factory=dict)


@dataclass(frozen=True)
class Metric:
    """A distance between two models, small for a copy.

    Attributes:
        name: How the user chooses it, and its key in reports.
        needs: What must be known of the suspect.
        on: The set of cases that it is taken over.
        distance: ``distance(victim, suspect) -> float``: pure numpy, at least 0, and 0 for a model and itself.
        alpha: Default share of the lower bound that makes the threshold (paper, section IV-D).
        upper: Greatest possible value, infinite where there is none; scales charts.
        default: Whether it is taken where no metrics are named.
    """

    name: str
    needs: Access
    on: CaseSet
    distance: Callable[[Answers, Answers], float]
    alpha: float
    upper: float = float("inf")
    default: bool = True

    def __post_init__(self) -> None:
        if self.name == ALL_METRICS:
            raise PluginError(f"a metric is called {self.name!r}, which stands for every one; expected another name")
        expect_one_of(self.name, "on", self.on, get_args(CaseSet))
        if not 0 < self.alpha <= 1:
            raise PluginError(f"{self.name}: expected 0 < alpha <= 1, found {self.alpha!r}")
        if not self.upper > 0:
            raise PluginError(f"{self.name}: expected upper > 0, found {self.upper!r}")

    @property
    def group(self) -> Group:
        """The setting that the metric belongs to."""
        return "white-box" if Access.LAYERS in self.needs else "black-box"


@dataclass(frozen=True, eq=False)
class Evidence:
    """One metric's value for a suspect beside those of the controls.

    Attributes:
        value: The suspect's.
        controls: ``(n,)`` the controls', n >= 3.
        alpha: The metric's default share of the bound.
        strata: Of each control its stratum, None where that is not known; empty where none is known.
        places: Of each control its place among all controls, by which metrics that were measured on different ones are
            put side by side; empty where they were measured on all.
    """

    value: float
    controls: Array
    alpha: float
    strata: tuple[Stratum | None, ...] = ()
    places: tuple[int, ...] = ()

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
        vote: For copy or not; None, with the reason, where the controls say nothing.
        lower_bound: What the threshold was taken from, where there is such a thing.
        threshold: The greatest value that is voted a copy.
        reason: Why no vote is cast.
        p_value: Probability that an honest model's value is as small as this, by this metric alone; 0..1.
        false_positive_rate: Probability, at most, that an honest model gets a vote for copy, 0..1.
    """

    vote: bool | None
    lower_bound: float | None = None
    threshold: float | None = None
    reason: str | None = None
    p_value: float | None = None
    false_positive_rate: float | None = None


@dataclass(frozen=True)
class Judgement:
    """What a rule makes of one group of metrics.

    Attributes:
        decision: Copy, independent or inconclusive.
        p_copy: The rule's confidence, 0..1; None where it could not be had.
        votes: Metric name to what the rule made of it.
        reason: Why, where the decision is inconclusive.
        p_value: Probability, at most, that an honest model comes as near to the victim as the suspect, all metrics
            together; 0..1. None for rules that give none.
        least_p_value: The smallest p-value that this number of controls could have given (the minimum attainable
            p-value: Tarone, 1990); None where there is no p-value.
        statement: What was found, on one line, for a reader who is no statistician.
    """

    decision: Decision
    p_copy: float | None
    votes: Mapping[str, Vote]
    reason: str | None = None
    p_value: float | None = None
    least_p_value: float | None = None
    statement: str | None = None


@dataclass(frozen=True)
class Rule:
    """Turns the evidence of a group of metrics into a decision.

    Attributes:
        name: How the user chooses it.
        judge: ``judge(evidence, **options) -> Judgement`` for a mapping of metric name to :class:`Evidence`, never
            empty; options are its keyword-only parameters with defaults.
    """

    name: str
    judge: Callable[..., Judgement]


def expect_one_of(owner: str, attribute: str, found: str, expected: tuple[str, ...]) -> None:
    """Refuse an attribute of a component that is none of its kinds.

    Raises:
        PluginError: Naming them.
    """
    if found not in expected:
        raise PluginError(f"{owner}: expected {attribute} to be one of {', '.join(expected)}, found {found!r}")
