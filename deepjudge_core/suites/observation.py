"""What one model answered to all cases of a suite, as a value that can stand in a file."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from msgspec import UNSET, Meta, UnsetType

from deepjudge_core.components.schemes import KeyAnswers
from deepjudge_core.errors import FileFormatError
from deepjudge_core.files import storage
from deepjudge_core.files.documents import Document, Lines, Part, Share, parse, plain
from deepjudge_core.models.gateway import Ledger, Reduction
from deepjudge_core.models.info import ModelHeader, ModelInfo
from deepjudge_core.models.preprocessing import Preprocessing, PreprocessingHeader
from deepjudge_core.sheets import Sheet, Shown
from deepjudge_core.suites.keys import KeyAnswersHeader, answers_arrays, answers_header, answers_of
from deepjudge_core.types import Array
from deepjudge_core.weights.values import Sketch, SketchHeader

Guess = Literal["classes", "preprocessing"]
"""What may be found out about a model from its answers to the seeds."""
_NEAR = 2e-3  # how exactly probabilities are positive and sum to 1: a little less than models are held to


class Trial(Document, frozen=True):
    """A preprocessing with which a model was tried on the suite's probes.

    Attributes:
        name: The preset, changed as it is typed; or which of the training inputs' own numbers it is made of.
        accuracy: Share of them that it gets right so, by those that were asked; None where it gives no answers
            that tell them apart.
    """

    name: str
    accuracy: Share | None


class ExchangeHeader(Part, frozen=True, kw_only=True):
    """An :class:`Exchange` without its arrays, as it stands in a file."""

    top: Annotated[int, Meta(ge=1)] | UnsetType = UNSET
    digits: Annotated[int, Meta(ge=0)] | UnsetType = UNSET


@dataclass(frozen=True, eq=False)
class Exchange:
    """How a model was asked that answers elsewhere.

    Attributes:
        compared: ``(n,)`` bool, which of the suite's cases reached it as they are, and so did their seeds: of the
            others nothing is known, and what stands for their answers is none.
        reduction: What its interface keeps of the scores.
        ledger: The requests.
    """

    compared: Array
    reduction: Reduction
    ledger: Ledger

    def header(self) -> ExchangeHeader:
        """All but the arrays."""
        top, digits = self.reduction.top, self.reduction.digits
        return ExchangeHeader(top=UNSET if top is None else top, digits=UNSET if digits is None else digits)

    def arrays(self, prefix: str) -> dict[str, Array]:
        """The arrays, by names that begin with ``prefix``."""
        ledger = {f"{prefix}ledger.{one.name}": getattr(self.ledger, one.name) for one in fields(Ledger)}
        return {f"{prefix}compared": self.compared.astype(np.uint8), **ledger}

    @classmethod
    def of_header(cls, header: ExchangeHeader, arrays: Mapping[str, Array], prefix: str) -> "Exchange":
        """The inverse of :meth:`header` and :meth:`arrays`.

        Raises:
            KeyError, ValueError: When arrays are missing, or do not fit the rest.
        """
        compared = arrays[f"{prefix}compared"]
        if compared.ndim != 1 or compared.dtype != np.uint8 or (compared.size and compared.max() > 1):
            raise ValueError("it does not say which cases are compared")
        ledger = Ledger(**{one.name: arrays[f"{prefix}ledger.{one.name}"] for one in fields(Ledger)})
        ledger.check()
        reduction = Reduction(
            None if header.top is UNSET else header.top, None if header.digits is UNSET else header.digits
        )
        return cls(compared.astype(bool), reduction, ledger)


class ObservationHeader(Part, frozen=True, kw_only=True):
    """An :class:`Observation` without its arrays, as it stands in a file."""

    model: ModelHeader
    suite: str
    layers: tuple[tuple[str, str], ...]
    unmatched: str | None
    classes: tuple[int, ...] | None
    unmapped: str | None
    preprocessing: PreprocessingHeader | None
    inferred: tuple[Guess, ...]
    notes: Lines
    unsteady: str | UnsetType | None = UNSET
    tried: tuple[Trial, ...] | UnsetType = UNSET
    accuracy: Share | UnsetType = UNSET
    independent: bool | UnsetType = UNSET  # before there were such models, all classes excluded one another
    weights: SketchHeader | UnsetType = UNSET
    unsketched: str | UnsetType = UNSET
    keys: tuple[KeyAnswersHeader, ...] | UnsetType = UNSET
    recovered: tuple[tuple[str, str], ...] | UnsetType = UNSET
    exchange: ExchangeHeader | UnsetType = UNSET


@dataclass(frozen=True, eq=False, repr=False)
class Observation(Shown):
    """A model's answers to all cases of a suite, in the suite's order.

    Attributes:
        model: Who answered.
        suite: Digest of the suite; empty for the victim's own answers inside it.
        probabilities: ``(n, classes)`` float32, of the victim's classes in their order; None where the model's classes
            are others.
        activations: The suite's layer to ``(n, neurons)`` float32; empty where layers could not be compared.
        layer_map: The suite's layer to the model's own tap.
        unmatched: Why layers could not be compared; None where they could.
        classes: The model's own output for each of the victim's classes; None where they are the same in number and
            order, or could not be compared.
        unmapped: Why classes could not be compared; None where they could.
        preprocessing: What was done to the suite's inputs; None where they were given as they are.
        inferred: What of it was not given but found from the answers to the seeds.
        notes: What a reader should know of how the model was asked.
        unsteady: What of its answers changed when some cases were asked again; None where nothing did.
        tried: The preprocessings with which it was tried; none where there was no room for a better one.
        accuracy: Share of the suite's probes that it classifies correctly, so asked; None where that is not known.
        independent: Whether the probabilities are those of classes with a probability each, as the victim's.
        weights: The sketch of its weights; None where the suite asks for none, or they could not be compared.
        unsketched: Why its weights could not be compared; None where they could, or the suite asks for none.
        keys: What it answered to each of the suite's keys; empty of a suite without any.
        recovered: The suite's layer to ``(n, neurons)`` float32, what one of the model's taps tells of the victim's
            outputs there: each case by a linear fit on others; empty where layers cannot be seen, or there are none.
        recovered_from: The suite's layer to that tap: of all that were tried the one that tells most.
        exchange: How it was asked if it answers elsewhere; None of others.
    """

    model: ModelInfo
    suite: str
    probabilities: Array | None
    activations: Mapping[str, Array] = field(default_factory=dict)
    layer_map: Mapping[str, str] = field(default_factory=dict)
    unmatched: str | None = None
    classes: tuple[int, ...] | None = None
    unmapped: str | None = None
    preprocessing: Preprocessing | None = None
    inferred: tuple[Guess, ...] = ()
    notes: tuple[str, ...] = ()
    unsteady: str | None = None
    tried: tuple[Trial, ...] = ()
    accuracy: float | None = None
    independent: bool = False
    weights: Sketch | None = None
    unsketched: str | None = None
    keys: tuple[KeyAnswers, ...] = ()
    recovered: Mapping[str, Array] = field(default_factory=dict)
    recovered_from: Mapping[str, str] = field(default_factory=dict)
    exchange: Exchange | None = None

    @cached_property
    def digest(self) -> str:
        """SHA-256, in hex, of all of it."""
        return _content(self).digest

    def without_arrays(self) -> "Observation":
        """The same without what it answered, for who reads that again when it is wanted."""
        return replace(self, probabilities=None, activations={}, weights=None, keys=())

    def sheet(self) -> Sheet:
        """See :class:`~deepjudge_core.sheets.Shown`."""
        layers = ", ".join(f"{layer} = {tap}" for layer, tap in self.layer_map.items())
        cases, was_run = None if self.probabilities is None else len(self.probabilities), self.model.classes > 0
        facts = {
            "framework": self.model.framework,
            "classes": str(self.model.classes) if was_run else "",
            "answers": f"probabilities of {cases} cases" if cases else f"not compared: {self.unmapped}",
            "layers": layers or f"not compared: {self.unmatched or 'none were observed'}" if was_run else "",
            "recovered": ", ".join(f"{layer} from {tap}" for layer, tap in self.recovered_from.items()),
            "weights": self._weights(),
            "prepared": str(self.preprocessing) if self.preprocessing else "",
            "isolation": str(self.model.isolation),
            "device": self.model.device,
            "asked": self._asked(),
            "note": (*self.notes, *filter(None, [self.unsteady])),
            "digest": self.model.digest,
            "suite": self.suite,
        }
        return Sheet(f"answers of {self.model.name}", facts)

    def _asked(self) -> str:
        if self.exchange is None:
            return ""
        ledger, reduction = self.exchange.ledger, self.exchange.reduction
        shown = f"; its scores: {reduction}" if reduction else ""
        return f"{ledger.total:,} queries in {len(ledger):,} requests{shown}"

    def only(self, rows: Array) -> "Observation":
        """What it answered to some of the cases ``(n,)`` bool."""
        return replace(
            self,
            probabilities=None if self.probabilities is None else self.probabilities[rows],
            activations={layer: values[rows] for layer, values in self.activations.items()},
            recovered={layer: values[rows] for layer, values in self.recovered.items()},
        )

    def _weights(self) -> str:
        if self.weights is None:
            return f"not compared: {self.unsketched}" if self.unsketched else ""
        neurons = sum(len(layer.neurons) for layer in self.weights.layers)
        return f"sketches of {neurons:,} neurons of {len(self.weights.layers)} layers"

    def header(self) -> ObservationHeader:
        """All but the arrays."""
        return ObservationHeader(
            model=self.model.header(),
            suite=self.suite,
            layers=tuple(self.layer_map.items()),
            unmatched=self.unmatched,
            classes=self.classes,
            unmapped=self.unmapped,
            preprocessing=None if self.preprocessing is None else self.preprocessing.header(),
            inferred=self.inferred,
            notes=self.notes,
            # Not where nothing changed: so the digests of suites stay what they were.
            unsteady=UNSET if self.unsteady is None else self.unsteady,
            tried=self.tried or UNSET,
            accuracy=UNSET if self.accuracy is None else self.accuracy,
            independent=self.independent or UNSET,
            weights=UNSET if self.weights is None else self.weights.header(),
            unsketched=self.unsketched or UNSET,
            keys=tuple(map(answers_header, self.keys)) or UNSET,
            recovered=tuple(self.recovered_from.items()) or UNSET,
            exchange=UNSET if self.exchange is None else self.exchange.header(),
        )

    def arrays(self, prefix: str) -> dict[str, Array]:
        """The arrays, by names that begin with ``prefix``."""
        named = {} if self.probabilities is None else {f"{prefix}probabilities": self.probabilities}
        for place, layer in enumerate(self.layer_map):
            named[f"{prefix}activations.{place}"] = self.activations[layer]
        for place, layer in enumerate(self.recovered_from):
            named[f"{prefix}recovered.{place}"] = self.recovered[layer]
        for place, answers in enumerate(self.keys):
            named |= answers_arrays(answers, f"{prefix}keys.{place}.")
        if self.exchange is not None:
            named |= self.exchange.arrays(f"{prefix}exchange.")
        return named if self.weights is None else named | self.weights.arrays(f"{prefix}weights.")

    @classmethod
    def of_header(cls, header: ObservationHeader, arrays: Mapping[str, Array], prefix: str) -> "Observation":
        """The inverse of :meth:`header` and :meth:`arrays`.

        Raises:
            KeyError, ValueError: When arrays are missing, or do not fit the rest.
        """
        layer_map, sources = dict(header.layers), dict(header.recovered or ())
        observation = cls(
            model=ModelInfo.of_header(header.model),
            suite=header.suite,
            probabilities=None if header.unmapped is not None else arrays[f"{prefix}probabilities"],
            activations={layer: arrays[f"{prefix}activations.{place}"] for place, layer in enumerate(layer_map)},
            layer_map=layer_map,
            unmatched=header.unmatched,
            classes=header.classes,
            unmapped=header.unmapped,
            preprocessing=None if header.preprocessing is None else Preprocessing.of_header(header.preprocessing),
            inferred=header.inferred,
            notes=header.notes,
            unsteady=header.unsteady or None,
            tried=header.tried or (),
            accuracy=None if header.accuracy is UNSET else header.accuracy,
            independent=header.independent is True,
            weights=Sketch.of_header(header.weights, arrays, f"{prefix}weights.") if header.weights else None,
            unsketched=header.unsketched or None,
            keys=tuple(
                answers_of(one, arrays, f"{prefix}keys.{place}.") for place, one in enumerate(header.keys or ())
            ),
            recovered={layer: arrays[f"{prefix}recovered.{place}"] for place, layer in enumerate(sources)},
            recovered_from=sources,
            exchange=Exchange.of_header(header.exchange, arrays, f"{prefix}exchange.") if header.exchange else None,
        )
        observation._check()
        return observation

    def _check(self) -> None:
        answers = [
            *self.activations.values(),
            *self.recovered.values(),
            *([] if self.probabilities is None else [self.probabilities]),
        ]
        if any(a.dtype != np.float32 for a in answers):
            raise ValueError("its answers are not float32")
        if self.exchange is not None and any(len(a) != len(self.exchange.compared) for a in answers):
            raise ValueError("its answers have another number of cases than it says which of them are compared")
        if any(a.ndim != 2 or len(a) != len(answers[0]) for a in answers):
            raise ValueError("its activations and probabilities have different numbers of cases")
        classes = self.model.classes if self.classes is None else len(self.classes)
        if self.probabilities is not None and self.probabilities.shape[1] != classes:
            raise ValueError("its probabilities do not have the shape of the model's classes")
        if not all(0 <= place < self.model.classes for place in self.classes or ()):
            raise ValueError("it names classes that the model does not have")
        p = self.probabilities
        if p is not None and self.independent:
            if not (p.min() > -_NEAR and p.max() < 1 + _NEAR):
                raise ValueError("some probabilities are outside 0..1")
        elif p is not None and not (p.min() > -_NEAR and np.allclose(p.sum(axis=1), 1, atol=_NEAR)):
            raise ValueError("some probabilities are negative or do not sum to 1")


def unsaturated(observation: Observation, limit: float) -> Array:
    """Of the answers ``(n, classes)`` those rows that not all good models give: without a class that is all but sure.

    Of classes with a probability each, rows with a class of which neither yes nor no is all but sure, and 0 for others.

    Args:
        observation: Whose probabilities are known.
        limit: A probability above this is all but sure.
    """
    p: Array = np.asarray(observation.probabilities)
    if not observation.independent:
        few: Array = p[p.max(axis=1) < limit]
        return few
    open_ones = (p > 1 - limit) & (p < limit)
    values: Array = np.where(open_ones, p, 0)[open_ones.any(axis=1)]
    return values


def save_observation(path: Path | str, observation: Observation) -> None:
    """Write an observation, to be judged elsewhere.

    Raises:
        FileFormatError: When it cannot be written.
    """
    storage.write(Path(path), _content(observation))


def pack_observation(observation: Observation) -> bytes:
    """The bytes of an observation's file, for who sends it elsewhere before it is written.

    Raises:
        FileFormatError: When it could not be read back.
    """
    return storage.packed(_content(observation), observation.model.name)


def _content(observation: Observation) -> storage.Content:
    return storage.seal("observation", plain(observation.header()), observation.arrays(""))


def load_observation(path: Path | str) -> Observation:
    """Read an observation.

    Raises:
        FileFormatError: When the file is damaged or another.
    """
    content = storage.read(Path(path), ["observation"])
    try:
        return Observation.of_header(parse(ObservationHeader, content.header), content.arrays, "")
    except (KeyError, ValueError) as error:
        raise FileFormatError(f"{path}: the observation is incomplete: {error}", code="damaged-file") from None
