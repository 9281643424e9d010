"""What the models of a zoo are trained and tested with: rows of the victim's training data, and others."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from deepjudge_core.errors import InputError, UsageError
from deepjudge_core.models.layouts import arrangement
from deepjudge_core.models.network import Architecture
from deepjudge_core.models.preprocessing import Preparation, Preprocessing
from deepjudge_core.naming import option
from deepjudge_core.suites.inputs import Inputs, check_bounds
from deepjudge_core.suites.ranges import Spread, arranged_bounds, spread
from deepjudge_core.types import Array

_HELD_OUT = 10  # one in so many rows, for tests where no others are given


@dataclass(frozen=True, eq=False)
class Rows:
    """Labelled inputs: ``(n, *shape)`` float32 and ``(n,)`` int64."""

    x: Array
    y: Array


@dataclass(frozen=True, eq=False)
class Material:
    """What there is to train and test with, arranged as the victim takes it.

    Attributes:
        own: The rows that the victim was trained on.
        other: Rows that it was not trained on: those of a thief.
        test: Rows that nobody is trained on.
        bounds: Least and greatest value of an input, or of each of its values.
        whole: Whether the victim was trained on all of the training data, so that ``other`` is the same as ``own``.
        seen: Whether ``test`` are rows that the victim was trained on, which only makes its accuracy too high.
        auxiliary: ``(m, *shape)`` inputs of another task; None without.
        auxiliary_labels: ``(m,)`` their classes; None without.
        preprocessing: What was done to all of it, since the victim expects it; None for nothing.
        prepare: What does it; None for nothing.
    """

    own: Rows
    other: Rows
    test: Rows
    bounds: Spread
    whole: bool = False
    seen: bool = False
    auxiliary: Array | None = None
    auxiliary_labels: Array | None = None
    preprocessing: Preprocessing | None = None
    prepare: Preparation | None = None

    def prepared(self, preprocessing: Preprocessing, prepare: Preparation) -> "Material":
        """The same as the victim takes it, which networks are trained with.

        The bounds are then those of all channels together.

        Args:
            preprocessing: What the victim expects.
            prepare: What does it to batches.
        """
        own, other, test = (Rows(prepare(rows.x), rows.y) for rows in (self.own, self.other, self.test))
        shape = (1, *self.own.x.shape[1:])
        edges = [prepare(np.broadcast_to(np.asarray(side, np.float32), shape)) for side in self.bounds]
        return replace(
            self,
            own=own,
            other=other,
            test=test,
            auxiliary=None if self.auxiliary is None else prepare(self.auxiliary),
            bounds=(float(np.min(edges)), float(np.max(edges))),
            preprocessing=preprocessing,
            prepare=prepare,
        )

    def limits(self, *, thefts: bool) -> tuple[str, ...]:
        """What a zoo made with it cannot show: a line for each.

        Args:
            thefts: Whether there are stolen models in it.
        """
        lines = []
        if self.whole:
            lines.append(
                "the victim was trained on all of the training data, so all controls share its data: "
                "this zoo does not show how far from the victim honest models with other training data "
                "are"
            )
        if self.whole and thefts:
            lines.append(
                "the thieves had the victim's own training data: a thief with other data may be harder to notice"
            )
        if self.seen:
            lines.append(
                "the test data are rows that the victim was trained on, so its accuracy on new data is "
                f"unknown: models are compared with the first control's (give {option('test')} for rows "
                "that it has not seen)"
            )
        return tuple(lines)

    @property
    def digest(self) -> str:
        """SHA-256, in hex, of all of it but the auxiliary inputs."""
        return _digest(*(array for rows in (self.own, self.other, self.test) for array in (rows.x, rows.y)))

    @property
    def auxiliary_digest(self) -> str | None:
        """SHA-256, in hex, of the auxiliary inputs."""
        return None if self.auxiliary is None else _digest(self.auxiliary)


def divide(
    training: Inputs,
    architecture: Architecture,
    *,
    name: str,
    share: float = 0.5,
    test: Inputs | None = None,
    auxiliary: Inputs | None = None,
) -> Material:
    """Divide training data into the victim's rows and the others.

    Args:
        training: The first ``share`` of its rows are those that the victim was trained on.
        architecture: The victim's, for which all is arranged.
        name: The victim's, for messages.
        share: More than 0, at most 1, which leaves no other rows: thieves then have the victim's.
        test: By default every tenth row of the training data, which then trains nobody.
        auxiliary: Inputs of another task, whose labels may be -1 for none.

    Raises:
        InputError: When shapes, labels or values do not fit, or a class has no rows.
        UsageError: For a share that cannot be.
    """
    if not 0 < share <= 1:
        raise UsageError(
            f"expected the victim's share of the rows as a number above 0, up to 1, found {share:g}",
            code="wrong-value",
        )
    rows = _arranged("training data", training, architecture, training, name)
    if test is None:
        held = np.arange(len(rows.x)) % _HELD_OUT == _HELD_OUT - 1
        rows, tests = Rows(rows.x[~held], rows.y[~held]), Rows(rows.x[held], rows.y[held])
    else:
        tests = _arranged("test data", test, architecture, training, name)
    for label, part in (("training data", rows), ("test data", tests)):
        if part.y.min() < 0 or part.y.max() >= architecture.classes:
            raise InputError(
                f"{label}: expected labels 0..{architecture.classes - 1}, found "
                f"{part.y.min()}..{part.y.max()}; number the victim's classes from 0, in its order"
            )
    nowhere = sorted(set(range(architecture.classes)) - set(rows.y.tolist()))
    if nowhere:
        raise InputError(
            f"training data: expected rows of every class, found none of class {_text(nowhere)}; "
            "give data of all of the victim's classes, with its numbers of them"
        )
    edge = round(share * len(rows.x))
    own = Rows(rows.x[:edge], rows.y[:edge])
    other = own if share == 1 else Rows(rows.x[edge:], rows.y[edge:])
    for whose, part in (("the victim's part", own), ("the other part", other)):
        lacking = sorted(set(range(architecture.classes)) - set(part.y.tolist()))
        if lacking:
            rows_of = f"{'0' if part is own else edge}..{edge if part is own else len(rows.x)}"
            way_out = f"shuffle the rows, or state the victim's part with {option('split')}"
            if training.classes:  # sorted by class, as folders are
                way_out = (
                    f"give {option('split', 1)} if the victim was trained on all of it, or a table of paths and "
                    "labels in the order of training"
                )
            raise InputError(
                f"training data: expected rows of every class in {whose}, rows {rows_of}, found none of class "
                f"{_text(lacking)}; {way_out}"
            )
    spec = architecture.input.with_layout(training.layout)
    arrange = arrangement(name, training.x.shape[1:], spec, training.layout)
    limits = spread("training data", training.bounds, training.x.shape[1:], training.layout)
    whole, seen = share == 1, share == 1 and test is None
    material = Material(own, other, tests, arranged_bounds(limits, arrange), whole=whole, seen=seen)
    if auxiliary is None:
        return material
    others = _arranged("auxiliary data", auxiliary, architecture, training, name)
    labels = others.y if others.y.min() >= 0 else None
    return replace(material, auxiliary=others.x, auxiliary_labels=labels)


def _arranged(what: str, inputs: Inputs, architecture: Architecture, training: Inputs, name: str) -> Rows:
    advice = f"bring them to the range of the training data, or state one for both with {option('bounds')}"
    check_bounds(what, inputs.x, training.bounds, advice=advice)
    spec = architecture.input.with_layout(training.layout)
    try:
        arranged = arrangement(name, inputs.x.shape[1:], spec, training.layout)(inputs.x)
        return Rows(np.ascontiguousarray(arranged, np.float32), inputs.labels)
    except InputError as error:
        raise InputError(f"{what}: {error}") from None


def _text(classes: Sequence[int]) -> str:
    return ", ".join(map(str, classes))


def _digest(*arrays: Array) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
