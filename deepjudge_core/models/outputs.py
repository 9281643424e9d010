"""The outputs of a model, and which of them holds its scores.

A model may give features beside its scores, those of another task, weights of attention, boxes. Which one answers the
classes its file does not say: what is known of the task tells it (``deepjudge_core.suites.outputs``); without that, the
output that a softmax gives is taken, else the first that is ``(n, classes)``, else the first that can be scores.
"""

from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from typing import Any

import numpy as np

from deepjudge_core.errors import ModelError
from deepjudge_core.models.resolution import EXACT, slack
from deepjudge_core.text import clean
from deepjudge_core.types import Array

Choice = str | int | None
"""An output by its name, or by its number, counted from 1; None where nobody says."""

_LISTED = 12  # outputs in a message
_LONGEST = 60  # characters of a name in a message


@dataclass(frozen=True)
class Output:
    """One output of a model.

    Attributes:
        name: As the model has it; empty where it has none, such as the places of a tuple.
        shape: As a message says it, such as ``(n, 5, 5)``.
        width: How many real numbers it gives for each input; None where it gives no row of them, and so no scores.
        softmax: Whether a softmax gives it, or the logarithm of one.
        plain: Whether it is ``(n, classes)`` as it stands; others may be the features of a map of one pixel.
    """

    name: str
    shape: str
    width: int | None
    softmax: bool = False
    plain: bool = True

    @classmethod
    def of_scores(cls, name: str, sizes: Sequence[int], *, softmax: bool = False) -> "Output":
        """One that gives a row of numbers for each input.

        Args:
            name: As the model has it.
            sizes: Of its axes without that of the rows, see :func:`row_width`.
            softmax: Whether a softmax gives it.
        """
        shape = f"({', '.join(['n', *map(str, sizes)])}{'' if sizes else ','})"
        return cls(name, shape, row_width(sizes), softmax, plain=len(sizes) == 1)

    @classmethod
    def of_answers(cls, name: str, answers: Sequence[Array], rows: Sequence[int]) -> "Output":
        """What an output is by what it gave for inputs of some numbers of rows.

        Args:
            name: As the model has it.
            answers: For each number of rows.
            rows: These numbers.
        """
        first, shapes = answers[0], {answer.shape[1:] for answer in answers}
        by_rows = all(answer.shape[:1] == (n,) for answer, n in zip(answers, rows, strict=True))
        if by_rows and len(shapes) == 1 and first.dtype.kind == "f" and row_width(first.shape[1:]) is not None:
            softmax = all(is_softmax(answer.reshape(len(answer), -1)) for answer in answers)
            return cls.of_scores(name, first.shape[1:], softmax=softmax)
        kind = "" if first.dtype.kind == "f" else f" of {first.dtype}"
        return cls(name, f"{first.shape}{kind} for n = {rows[0]}", None)


@dataclass(frozen=True)
class Outputs:
    """The outputs of a model, and the one that holds its scores.

    Attributes:
        all: In the model's own order.
        place: Of the one that holds its scores, from 0.
        named: Whether its user said which one.
    """

    all: tuple[Output, ...]
    place: int
    named: bool = False

    @classmethod
    def of(cls, outputs: Sequence[Output], choice: Choice = None) -> "Outputs":
        """Choose the output that holds the scores.

        Args:
            outputs: All.
            choice: The one that the user says.

        Raises:
            ModelError: When there is none that can be scores, or none of this name or number; without the model's name
                in front.
        """
        tables = [place for place, output in enumerate(outputs) if output.width]
        if choice is None:
            if not tables:
                raise ModelError(f"expected an output (n, classes), found {listed(outputs)}")
            return cls(tuple(outputs), first_of(outputs, tables))
        place = _find(outputs, choice)
        if place is None:
            raise ModelError(
                f"there is no output {choice!r}; choose one of these by name, or by number from 1: {listed(outputs)}"
            )
        chosen = cls(tuple(outputs), place, named=True)
        if place not in tables:
            raise ModelError(f"expected an output (n, classes), found {chosen} of shape {outputs[place].shape}")
        return chosen

    @property
    def several(self) -> bool:
        """Whether there is more than one."""
        return len(self.all) > 1

    @property
    def width(self) -> int:
        """How many numbers the one that holds the scores gives for each input."""
        return self.all[self.place].width or 0

    @property
    def tables(self) -> tuple[int, ...]:
        """Places of those that can be scores."""
        return tuple(place for place, output in enumerate(self.all) if output.width)

    def by(self, place: int) -> "Outputs":
        """The same with the scores in another one."""
        return replace(self, place=place)

    def behind_softmax(self) -> "Outputs":
        """The same where a softmax turns out to give the scores."""
        scores = replace(self.all[self.place], softmax=True)
        return replace(self, all=(*self.all[: self.place], scores, *self.all[self.place + 1 :]))

    def to_json(self) -> dict[str, Any]:
        """As a process says it that opened the model."""
        return {"all": [astuple(output) for output in self.all], "place": self.place, "named": self.named}

    @classmethod
    def from_json(cls, value: Any, most: int) -> "Outputs":
        """The inverse of :meth:`to_json`, of a process that may say anything.

        Args:
            most: Outputs, and numbers that one may give.

        Raises:
            ValueError: When it is none.
        """
        try:
            place, rows = value["place"], value["all"][: most + 1]
            outputs = tuple(
                Output(clean(str(name)), clean(str(shape)), width, bool(softmax), bool(plain))
                for name, shape, width, softmax, plain in rows
            )
            widths = [output.width for output in outputs if output.width is not None]
            fits = all(isinstance(width, int) and 0 < width <= most for width in widths)
            if len(rows) <= most and fits and outputs[place].width and place >= 0:
                return cls(outputs, place, bool(value["named"]))
        except (KeyError, TypeError, IndexError, ValueError) as error:
            raise ValueError("no outputs") from error
        raise ValueError("no outputs")

    @property
    def label(self) -> str:
        """The output that holds the scores, beside others: its name, or its number."""
        name = self.all[self.place].name
        return repr(clean(name, _LONGEST)) if name else f"output {self.place + 1}"

    def __str__(self) -> str:
        named = f" ({self.label})" if self.all[self.place].name else ""
        return f"output {self.place + 1} of {len(self.all)}{named}"


def first_of(outputs: Sequence[Output], places: Sequence[int]) -> int:
    """The first of some places whose output a softmax gives, else that is ``(n, classes)``, else the first."""
    return min(places, key=lambda place: (not outputs[place].softmax, not outputs[place].plain, place))


def row_width(sizes: Sequence[Any]) -> int | None:
    """How many numbers an output gives for each input, if these are one row of scores; None if they are none.

    They are ``(n, classes)``, or that with axes of one place, such as ``(n, classes, 1, 1)``, or ``(n,)``: one number.

    Args:
        sizes: Of its axes without that of the rows: numbers, or whatever stands for those that vary.
    """
    long = [size for size in sizes if size != 1]
    if not long:
        return 1
    return long[0] if len(long) == 1 and isinstance(long[0], int) and long[0] > 0 else None


def listed(outputs: Sequence[Output]) -> str:
    """Outputs in a message, in their order: of each its name and shape."""
    said = [f"{clean(output.name, _LONGEST)} {output.shape}".strip() for output in outputs]
    more = len(said) - _LISTED
    return (", ".join(said[:_LISTED]) + (f", and {more} more" if more > 0 else "")) or "none"


def name_of_path(path: Sequence[str | int]) -> str:
    """The name of an output that stands in dicts, dataclasses or tuples within one another.

    Args:
        path: Names, and places in tuples from 0.
    """
    if all(isinstance(step, int) for step in path):
        return ""
    return ".".join(str(step + 1) if isinstance(step, int) else step for step in path)


def is_softmax(values: Array) -> bool:
    """Whether rows ``(n, classes)`` are what a softmax gives, or logarithms of that; 0 and 1 alone say nothing."""
    if values.ndim != 2 or values.shape[1] < 2 or not values.size or not np.isfinite(values).all():
        return False
    wide = values.astype(np.float64)
    if (wide <= 0).all():
        wide = np.exp(wide)
    if not ((wide >= 0).all() and ((wide > 0) & (wide < 1)).any()):
        return False
    return bool((np.abs(wide.sum(axis=1) - 1) <= max(EXACT, slack(values))).all())


def _find(outputs: Sequence[Output], choice: str | int) -> int | None:
    names = [output.name for output in outputs]
    if isinstance(choice, str) and choice in names:
        return names.index(choice)
    number = int(choice) if isinstance(choice, int) or choice.isdecimal() else 0
    return number - 1 if 1 <= number <= len(outputs) else None
