"""The suite: test cases made from the victim, with the victim's own answers to them, as one file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import get_args

import numpy as np
from msgspec import UNSET, UnsetType

from deepjudge_core.components.grid import Grid
from deepjudge_core.components.schemes import Key
from deepjudge_core.components.values import Answers, CaseSet, Probes
from deepjudge_core.errors import FileFormatError
from deepjudge_core.files import storage
from deepjudge_core.files.documents import Document, Json, Lines, Part, Share, parse, plain
from deepjudge_core.models.geometry import Fitting
from deepjudge_core.models.input_spec import InputSpec
from deepjudge_core.sheets import Sheet, Shown, sizes
from deepjudge_core.suites.challenge import Challenge
from deepjudge_core.suites.choices import Choices
from deepjudge_core.suites.inputs.origin import Origin
from deepjudge_core.suites.keys import KeyHeader, key_arrays, key_header, key_of, names_of, unfit
from deepjudge_core.suites.labels import LabelOrigin
from deepjudge_core.suites.moments import Moments
from deepjudge_core.suites.observation import Observation, ObservationHeader
from deepjudge_core.types import Array
from deepjudge_core.weights.values import PlanHeader, Sketch, WeightPlan

MOST_PROBES = 400
"""Ordinary inputs that a suite holds: enough to see that a model gets 3 % more of them right."""
CASE_SETS: tuple[CaseSet, ...] = get_args(CaseSet)
_COLUMNS = ("labels", "sets", "generators", "seeds", "layers", "neurons")


@dataclass(frozen=True, eq=False)
class CaseTable:
    """All cases of a suite, one row each: clean seeds, adversarial cases, neuron corners, mistakes.

    Attributes:
        inputs: ``(n, *shape)`` float32, in the victim's layout.
        labels: ``(n,)`` int64 ground truth of the seed, or of the mistake itself.
        sets: ``(n,)`` int64 place in ``CASE_SETS``.
        generators: ``(n,)`` int64 place in the suite's generators; -1 for clean seeds.
        seeds: ``(n,)`` int64 place of the seed among the clean cases; -1 for mistakes.
        layers: ``(n,)`` int64 place in the suite's layers; -1 for none.
        neurons: ``(n,)`` int64; -1 for none.
    """

    inputs: Array
    labels: Array
    sets: Array
    generators: Array
    seeds: Array
    layers: Array
    neurons: Array

    @classmethod
    def empty(cls) -> "CaseTable":
        """That of a suite of weights alone."""
        return cls(np.zeros((0, 1), np.float32), *(np.zeros(0, np.int64) for _ in _COLUMNS))


class GeneratorRecord(Document, frozen=True):
    """How one generator was run: its name, who gave it, all its options, and how many cases came of it.

    Options that it chose by itself are among them. Details are what else it keeps of how the cases were made.
    """

    name: str
    makes: str
    provider: str
    options: Json
    made: int
    kept: int
    details: Json | UnsetType = UNSET  # before there were any, files had none, and so had their digests


@dataclass(frozen=True, eq=False, repr=False)
class Suite(Shown):
    """Everything that is needed to compare other models with the victim.

    Attributes:
        seed: What all randomness was derived from.
        bounds: Least and greatest value of an input, of all features and channels together; both 0 without cases.
        accuracy: Share of the inputs offered as seeds that the victim classifies correctly; 0 without cases.
        layers: Taps of the victim that are compared.
        seed_indices: ``(seeds,)`` int64 places of the seeds in the inputs they were selected from.
        cases: The cases; none in a suite of weights alone.
        unreached: ``(layer, neuron)`` pairs, places in ``layers`` and neurons, that have no case.
        generators: How the cases were made.
        victim: The victim's own answers: probabilities of the cases, and a sketch of its weights if there is a plan.
        notes: What a reader should know of how it was made.
        feature_bounds: Least and greatest values of each feature of flat inputs, of each channel of others; None where
            one range holds for all.
        moments: Mean and deviation of the training inputs, or of the seeds; None where nobody took them.
        probes: Inputs of the task as they come, on which it is tried what a model expects of them; None for none.
        label_origin: Where the labels are from. If the victim says or chooses them, the accuracy of others says how
            often they agree with it; if it says them, its own says nothing.
        fitting: How pictures were brought to the size that the victim takes; None if they were not.
        origin: Where the inputs are from that the seeds were selected from; None if that was not recorded.
        weights: How weights are sketched; None in a suite of cases alone.
        ancestor: What the victim was made from, as its owner says, with a sketch of its weights; None if nobody says.
        keys: What proves ownership beside the cases: every model is asked them once, too.
        grid: The steps in which the inputs come that the seeds were selected from, and the cases with them; None where
            they come in none.
        choices: How it was asked for; None where that was not recorded.
        challenge: What half of its seeds were drawn by; None where none were.
    """

    seed: int
    bounds: tuple[float, float]
    accuracy: float
    layers: tuple[str, ...]
    seed_indices: Array
    cases: CaseTable
    unreached: tuple[tuple[int, int], ...]
    generators: tuple[GeneratorRecord, ...]
    victim: Observation
    notes: tuple[str, ...] = ()
    feature_bounds: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    moments: Moments | None = None
    probes: Probes | None = None
    label_origin: LabelOrigin = "inputs"
    fitting: Fitting | None = None
    origin: Origin | None = None
    weights: WeightPlan | None = None
    ancestor: Observation | None = None
    keys: tuple[Key, ...] = ()
    grid: Grid | None = None
    choices: Choices | None = None
    challenge: Challenge | None = None

    @classmethod
    def of_weights(
        cls, plan: WeightPlan, victim: Observation, notes: tuple[str, ...] = (), ancestor: Observation | None = None
    ) -> "Suite":
        """A suite of weights alone: nobody is run for it."""
        return cls(
            seed=plan.seed,
            bounds=(0.0, 0.0),
            accuracy=0.0,
            layers=(),
            seed_indices=np.zeros(0, np.int64),
            cases=CaseTable.empty(),
            unreached=(),
            generators=(),
            victim=victim,
            notes=notes,
            weights=plan,
            ancestor=ancestor,
        )

    @cached_property
    def digest(self) -> str:
        """SHA-256, in hex, of all of it."""
        return _content(self).digest

    def sheet(self) -> Sheet:
        """See :class:`~deepjudge_core.sheets.Shown`."""
        victim, (low, high) = self.victim.model, self.bounds
        own = ", each feature or channel within its own range" if self.feature_bounds else ""
        if not self.has_cases:
            return Sheet(
                "suite", {"victim": f"{victim.name} ({victim.framework})", **self._weight_facts(), **self._foot()}
            )
        facts = {
            "victim": f"{victim.name} ({victim.framework}, {victim.classes} classes)",
            "takes": f"inputs prepared by {self.victim.preprocessing}" if self.victim.preprocessing else "",
            "cases": ", ".join(f"{count} {name}" for name, count in self.counts().items()),
            "each": f"{sizes(self.cases.inputs.shape[1:])}, in {low:g}..{high:g}{own}",
            "steps": "" if self.grid is None else str(self.grid),
            "labels": "the victim's own answers" if self.label_origin == "victim" else "",
            "accuracy": "" if self.label_origin == "victim" else f"{self.accuracy:.1%} of the inputs offered as seeds",
            "layers": ", ".join(f"{layer} ({victim.layers[layer]} neurons)" for layer in self.layers) or "none",
            "resized": "" if self.fitting is None else str(self.fitting),
            **self._weight_facts(),
            "keys": ", ".join(
                f"{name} ({key.trials} trials)" for name, key in zip(names_of(self.keys), self.keys, strict=True)
            ),
            **self._foot(),
        }
        rows = [
            (record.name, record.makes, str(record.kept), str(record.made), _options(record.options))
            for record in self.generators
        ]
        return Sheet("suite", facts, ("generator", "makes", "kept", "made", "options"), rows)

    def _weight_facts(self) -> dict[str, str]:
        if self.weights is None:
            return {}
        neurons = sum(map(len, self.weights.neurons))
        facts = {"weights": f"sketches of {neurons:,} neurons of {len(self.weights.layers)} layers"}
        return facts if self.ancestor is None else {**facts, "ancestor": self.ancestor.model.name}

    def _foot(self) -> dict[str, str | tuple[str, ...]]:
        return {"seed": str(self.seed), "note": self.notes, "digest": self.digest}

    @property
    def has_cases(self) -> bool:
        """Whether models are run for it; if not, it has a plan of weights alone."""
        return len(self.cases.labels) > 0

    @property
    def input(self) -> InputSpec:
        """What its cases are, as a model is told that does not say itself what it takes."""
        return replace(self.victim.model.input, shape=self.cases.inputs.shape[1:])

    def rows(self, case_set: CaseSet) -> Array:
        """``(n,)`` bool: which cases belong to the set."""
        rows: Array = self.cases.sets == CASE_SETS.index(case_set)
        return rows

    def counts(self) -> dict[CaseSet, int]:
        """How many cases each set has; of mistakes only where there are any, since few suites are made with them."""
        counts = {case_set: int(self.rows(case_set).sum()) for case_set in CASE_SETS}
        return {case_set: count for case_set, count in counts.items() if count or case_set != "mistakes"}

    def only(self, rows: Array) -> "Suite":
        """The suite of some of its cases, for comparing answers; it has a digest of its own.

        Args:
            rows: ``(n,)`` bool, which of them; with each case its seed.
        """
        if rows.all():
            return self
        clean = rows[self.rows("clean")]
        places = np.cumsum(clean) - 1  # of the seeds that stay, among these
        cases = CaseTable(**{name: values[rows] for name, values in vars(self.cases).items()})
        seeds = np.where(cases.seeds < 0, cases.seeds, places[cases.seeds])
        return replace(
            self,
            cases=replace(cases, seeds=seeds),
            seed_indices=self.seed_indices[clean],
            victim=self.victim.only(rows),
        )

    def seed_outputs(self, activations: Mapping[str, Array]) -> dict[str, Array]:
        """Of each tap's outputs on all cases, those on the clean seeds."""
        rows = self.rows("clean")
        return {name: outputs[rows] for name, outputs in activations.items()}

    def answers(self, observation: Observation, case_set: CaseSet | None) -> Answers:
        """What a model answered to one set of cases, or to all; the arrays are copies that nobody can write to."""
        rows = np.ones(len(self.cases.labels), bool) if case_set is None else self.rows(case_set)
        made_for = {
            layer: np.where(self.cases.layers[rows] == place, self.cases.neurons[rows], -1)
            for place, layer in enumerate(self.layers)
        }
        probabilities, of_seeds = observation.probabilities, None
        if probabilities is not None and (self.cases.seeds[rows] >= 0).all():  # mistakes were made from none
            of_seeds = _fixed(probabilities[self.rows("clean")][self.cases.seeds[rows]])
        return Answers(
            labels=_fixed(self.cases.labels[rows]),
            probabilities=None if probabilities is None else _fixed(probabilities[rows]),
            activations={layer: _fixed(values[rows]) for layer, values in observation.activations.items()},
            recovered={layer: _fixed(values[rows]) for layer, values in observation.recovered.items()},
            made_for={layer: _fixed(neurons) for layer, neurons in made_for.items()},
            seed_labels=None if of_seeds is None else _fixed(of_seeds.argmax(axis=1)),
            independent=observation.independent,
            seed_probabilities=of_seeds,
        )

    def weight_answers(self, observation: Observation, siblings: Sequence[Observation] = ()) -> tuple[Answers, Answers]:
        """What metrics of weights see: the victim's side, with its ancestor's and the siblings' sketches; the model's.

        Args:
            observation: The model's.
            siblings: Controls that come from the victim's ancestor, without the model itself.
        """
        none = np.zeros(0, np.int64)
        ancestor = None if self.ancestor is None else self.ancestor.weights
        beside = tuple(one.weights for one in siblings if one.weights is not None)
        victim = Answers(none, weights=self.victim.weights, ancestor=ancestor, siblings=beside)
        return victim, Answers(none, weights=observation.weights)


def answered(suite: Suite, observation: Observation) -> tuple[Suite, Observation]:
    """The part of a suite that reached a model, and its answers: all of both, unless it answers elsewhere."""
    exchange = observation.exchange
    if exchange is None or exchange.compared.all():
        return suite, observation
    return suite.only(exchange.compared), observation.only(exchange.compared)


def _fixed(array: Array) -> Array:
    array.setflags(write=False)
    return array


def _options(options: Json) -> str:
    return " ".join(f"{name}={value}" for name, value in options.items())


def save_suite(path: Path | str, suite: Suite) -> None:
    """Write a suite; equal suites give equal bytes. One with keys may be read by its owner alone.

    Raises:
        FileFormatError: When it cannot be written.
    """
    storage.write(Path(path), _content(suite), private=bool(suite.keys))


def load_suite(path: Path | str) -> Suite:
    """Read a suite.

    Raises:
        FileFormatError: When the file is damaged or another.
    """
    content = storage.read(Path(path), ["suite"])
    try:
        suite = _of_header(parse(_SuiteHeader, content.header), content.arrays)
        _check(suite)
    except (KeyError, ValueError) as error:
        raise FileFormatError(f"{path}: the suite is incomplete: {error}", code="damaged-file") from None
    return suite


_LEAST_RIGHT = 0.95  # of the seeds, which were selected from those that the victim gets right; but for roundings


class _SuiteHeader(Part, frozen=True):
    # A suite without its arrays.
    seed: int
    bounds: tuple[float, float]
    accuracy: Share
    layers: tuple[str, ...]
    unreached: tuple[tuple[int, int], ...]
    generators: tuple[GeneratorRecord, ...]
    victim: ObservationHeader
    notes: Lines
    feature_bounds: tuple[tuple[float, ...], tuple[float, ...]] | UnsetType = UNSET  # where one holds for all
    moments: Moments | UnsetType = UNSET
    labels: LabelOrigin | UnsetType = UNSET  # where they are not those of the inputs
    fitting: Fitting | UnsetType = UNSET  # if pictures had another shape
    inputs: Origin | UnsetType = UNSET  # of suites that were made from a file or folder
    weights: PlanHeader | UnsetType = UNSET  # of suites that compare weights
    ancestor: ObservationHeader | UnsetType = UNSET
    keys: tuple[KeyHeader, ...] | UnsetType = UNSET
    grid: Grid | UnsetType = UNSET  # of suites whose inputs come in steps
    choices: Choices | UnsetType = UNSET
    challenge: Challenge | UnsetType = UNSET


def _content(suite: Suite) -> storage.Content:
    header = _SuiteHeader(
        seed=suite.seed,
        bounds=suite.bounds,
        accuracy=suite.accuracy,
        layers=suite.layers,
        unreached=suite.unreached,
        generators=suite.generators,
        victim=suite.victim.header(),
        notes=suite.notes,
        feature_bounds=suite.feature_bounds or UNSET,
        # Not where nobody took them: so what was stored before has the digest that it had.
        moments=UNSET if suite.moments is None else suite.moments,
        labels=UNSET if suite.label_origin == "inputs" else suite.label_origin,
        fitting=suite.fitting or UNSET,
        inputs=suite.origin or UNSET,
        weights=UNSET if suite.weights is None else suite.weights.header(),
        ancestor=UNSET if suite.ancestor is None else suite.ancestor.header(),
        keys=tuple(map(key_header, suite.keys)) or UNSET,
        grid=suite.grid or UNSET,
        choices=suite.choices or UNSET,
        challenge=suite.challenge or UNSET,
    )
    arrays: dict[str, Array] = {}
    if suite.has_cases:
        arrays = {"inputs": suite.cases.inputs, "seed_indices": suite.seed_indices}
        arrays |= {column: getattr(suite.cases, column) for column in _COLUMNS}
    if suite.weights is not None:
        arrays |= suite.weights.arrays("weights.")
    if suite.ancestor is not None:
        arrays |= suite.ancestor.arrays("ancestor.")
    for place, key in enumerate(suite.keys):
        arrays |= key_arrays(key, f"keys.{place}.")
    if suite.probes is not None:
        arrays |= {"probes.inputs": suite.probes.inputs, "probes.labels": suite.probes.labels}
    return storage.seal("suite", plain(header), arrays | suite.victim.arrays("victim."))


def _of_header(header: _SuiteHeader, arrays: Mapping[str, Array]) -> Suite:
    plan = WeightPlan.of_header(header.weights, arrays, "weights.") if header.weights else None
    weights_alone = plan is not None and "inputs" not in arrays
    cases = CaseTable.empty() if weights_alone else CaseTable(arrays["inputs"], *(arrays[name] for name in _COLUMNS))
    return Suite(
        seed=header.seed,
        bounds=header.bounds,
        accuracy=header.accuracy,
        layers=header.layers,
        seed_indices=np.zeros(0, np.int64) if weights_alone else arrays["seed_indices"],
        cases=cases,
        unreached=header.unreached,
        generators=header.generators,
        victim=Observation.of_header(header.victim, arrays, "victim."),
        notes=header.notes,
        feature_bounds=None if header.feature_bounds is UNSET else header.feature_bounds,
        moments=header.moments or None,
        probes=Probes(arrays["probes.inputs"], arrays["probes.labels"]) if "probes.inputs" in arrays else None,
        label_origin="inputs" if header.labels is UNSET else header.labels,
        fitting=header.fitting or None,
        origin=header.inputs or None,
        weights=plan,
        ancestor=Observation.of_header(header.ancestor, arrays, "ancestor.") if header.ancestor else None,
        keys=tuple(key_of(key, arrays, f"keys.{place}.") for place, key in enumerate(header.keys or ())),
        grid=header.grid or None,
        choices=header.choices or None,
        challenge=header.challenge or None,
    )


def _check(suite: Suite) -> None:
    if suite.weights is not None:
        _check_weights(suite, suite.weights)
    elif suite.victim.weights is not None or suite.ancestor is not None:
        raise ValueError("it has sketches of weights without a plan of them")
    if suite.keys:
        _check_keys(suite)
    if suite.has_cases or suite.weights is None:
        _check_cases(suite)
    elif suite.generators or suite.layers or suite.unreached or suite.victim.probabilities is not None:
        raise ValueError("it has no cases, and yet generators, layers or answers")


def _check_keys(suite: Suite) -> None:
    if len(suite.victim.keys) != len(suite.keys):
        raise ValueError("the victim does not answer each of its keys")
    for key, answers in zip(suite.keys, suite.victim.keys, strict=True):
        problem = unfit(key, answers)
        if problem:
            raise ValueError(f"the victim's answers to the key of {key.scheme!r}: {problem}")
        if key.shape != suite.cases.inputs.shape[1:] or key.classes != suite.victim.model.classes:
            raise ValueError(f"the key of {key.scheme!r} does not fit the victim's inputs and classes")
        if not set(key.taps) <= set(suite.victim.model.layers):
            raise ValueError(f"the key of {key.scheme!r} names layers that the victim does not have")


def _check_weights(suite: Suite, plan: WeightPlan) -> None:
    for observation in filter(None, (suite.victim, suite.ancestor)):
        if observation.weights is None:
            raise ValueError("a plan of weights without the victim's sketch, or its ancestor's")
        _check_sketch(plan, observation.weights)
    picked = [layer.neurons for layer in suite.victim.weights.layers] if suite.victim.weights else []
    if len(picked) != len(plan.neurons) or not all(map(np.array_equal, picked, plan.neurons)):
        raise ValueError("the victim's sketch has other neurons than the plan")


def _check_sketch(plan: WeightPlan, sketch: Sketch) -> None:
    for layer in sketch.layers:
        for array in (layer.raw, layer.invariant):
            if array is not None and array.shape[2] != plan.rank:
                raise ValueError(f"the sketch of {layer.name!r} has {array.shape[2]} numbers a row, not {plan.rank}")
    if sketch.flat is not None and len(sketch.flat) != plan.flat:
        raise ValueError(f"the image of all weights has {len(sketch.flat)} numbers, not {plan.flat}")


def _check_cases(suite: Suite) -> None:
    cases, victim = suite.cases, suite.victim
    if cases.inputs.dtype != np.float32 or cases.inputs.ndim < 2:
        raise ValueError("its inputs are not a batch of float32")
    if suite.seed_indices.dtype != np.int64 or suite.seed_indices.ndim != 1:
        raise ValueError("its seeds are not whole numbers")
    if victim.probabilities is None or victim.classes is not None:
        raise ValueError("the victim's answers do not have its own classes")
    if len(victim.probabilities) != len(cases.inputs):
        raise ValueError("the victim's answers have another number of cases")
    if tuple(victim.activations) != suite.layers or not set(suite.layers) <= set(victim.model.layers):
        raise ValueError("the victim's answers have other layers")
    if any(values.shape[1] != victim.model.layers[layer] for layer, values in victim.activations.items()):
        raise ValueError("the victim's answers have other neurons")
    if not suite.bounds[0] < suite.bounds[1] or not np.isfinite(np.float32(suite.bounds[1] - suite.bounds[0])):
        raise ValueError("its bounds are not a range")
    if suite.feature_bounds is not None:
        low, high = (np.array(side) for side in suite.feature_bounds)
        if low.shape != high.shape or not (low < high).all() or (low.min(), high.max()) != suite.bounds:
            raise ValueError("the bounds of its features do not match the overall bounds")
        if len(low) not in (cases.inputs.shape[1], cases.inputs.shape[-1]):
            raise ValueError("its feature bounds do not match the features of its inputs")
    if int(suite.rows("clean").sum()) != len(suite.seed_indices):
        raise ValueError("it does not have exactly one clean case per seed")
    widest = max(victim.model.layers.values(), default=0)
    ranges = {
        "labels": (0, victim.model.classes),
        "sets": (0, len(CASE_SETS)),
        "generators": (-1, len(suite.generators)),
        "seeds": (-1, len(suite.seed_indices)),
        "layers": (-1, len(suite.layers)),
        "neurons": (-1, widest),
    }
    for column, (first, end) in ranges.items():
        values = getattr(cases, column)
        if values.shape != (len(cases.inputs),) or values.dtype != np.int64:
            raise ValueError(f"{column!r} does not have one whole number per case")
        if not (first <= values.min() and values.max() < end):
            raise ValueError(f"{column!r} is not within {first}..{end - 1}")
    if suite.grid is not None:
        suite.grid.check(cases.inputs.shape[1:])
    clean = suite.rows("clean")
    right = victim.probabilities[clean].argmax(axis=1) == cases.labels[clean]
    if right.mean() < _LEAST_RIGHT:
        raise ValueError("its victim does not classify the seeds as labelled")
    if suite.challenge is not None and not suite.challenge.chosen < len(suite.seed_indices):
        raise ValueError("it has no seeds that were drawn by its challenge")
    if suite.probes is not None:
        _check_probes(suite, suite.probes)
    if not np.array_equal(cases.seeds == -1, suite.rows("mistakes")):
        raise ValueError("its cases without a seed are not exactly its mistakes")


def _check_probes(suite: Suite, probes: Probes) -> None:
    shape, classes = suite.cases.inputs.shape[1:], suite.victim.model.classes
    inputs, labels = probes.inputs, probes.labels
    if inputs.dtype != np.float32 or inputs.shape[1:] != shape or labels.dtype != np.int64:
        raise ValueError("its probes are not a batch of float32 with whole-number labels")
    if labels.shape != inputs.shape[:1] or not len(labels) or not (labels.min() >= 0 and labels.max() < classes):
        raise ValueError("its probes do not have one class each")
    if len(labels) > MOST_PROBES:
        raise ValueError(f"it has {len(labels)} probes, more than {MOST_PROBES}")
    low, high = suite.bounds
    edge = 1e-5 * (high - low)
    if not (low - edge <= inputs.min() and inputs.max() <= high + edge):
        raise ValueError("its probes are not within its bounds")


def check_suite(suite: Suite, observation: Observation) -> None:
    """Refuse answers to another suite, and such as are no answers to this one.

    Raises:
        FileFormatError: Naming the model, and what was expected and found.
    """
    if observation.suite != suite.digest:
        raise FileFormatError(
            f"{observation.model.name}: expected answers to this suite {suite.digest[:12]}, found "
            f"answers to the suite {observation.suite[:12]}; ask the model again, with this suite"
        )
    if observation.independent != suite.victim.independent:
        kinds = [
            f"classes {'that are independent' if one else 'that exclude one another'}"
            for one in (suite.victim.independent, observation.independent)
        ]
        raise FileFormatError(f"{observation.model.name}: expected probabilities of {kinds[0]}, found {kinds[1]}")
    if observation.weights is not None:
        if suite.weights is None:
            raise FileFormatError(
                f"{observation.model.name}: expected no sketch of weights, since the suite has none, found one"
            )
        try:
            _check_sketch(suite.weights, observation.weights)
        except ValueError as error:
            raise FileFormatError(f"{observation.model.name}: expected sketches by the suite's plan: {error}") from None
    for key, answers in zip(suite.keys, observation.keys, strict=False):
        problem = unfit(key, answers)
        if problem:
            raise FileFormatError(f"{observation.model.name}: the key of {key.scheme}: {problem}")
    if len(observation.keys) not in (0, len(suite.keys)):
        raise FileFormatError(
            f"{observation.model.name}: expected answers to {len(suite.keys)} keys, found {len(observation.keys)}"
        )
    # An observation is somebody else's file: its parts agree with one another, but do they with the suite?
    if observation.activations and set(observation.activations) != set(suite.layers):
        raise FileFormatError(
            f"{observation.model.name}: expected answers of the layers "
            f"{', '.join(suite.layers) or 'none'}, found {', '.join(observation.activations)}"
        )
    if observation.recovered and set(observation.recovered) != set(suite.layers):
        raise FileFormatError(
            f"{observation.model.name}: expected what it tells of the layers {', '.join(suite.layers) or 'none'}, "
            f"found that of {', '.join(observation.recovered)}"
        )
    expected, actual = _shapes(suite.victim), _shapes(observation)
    expected |= {f"{layer} (recovered)": values.shape for layer, values in suite.victim.activations.items()}
    for name, shape in actual.items():
        if shape != expected.get(name):
            raise FileFormatError(
                f"{observation.model.name}: expected {name} of shape {expected.get(name)}, found {shape}"
            )


def _shapes(observation: Observation) -> dict[str, tuple[int, ...]]:
    answers = dict(observation.activations)
    answers |= {f"{layer} (recovered)": values for layer, values in observation.recovered.items()}
    if observation.probabilities is not None:
        answers["probabilities"] = observation.probabilities
    return {name: values.shape for name, values in answers.items()}
