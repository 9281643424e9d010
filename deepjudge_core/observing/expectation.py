"""Which standard preprocessing a model expects of its inputs, as its accuracy shows.

What is looked at are probes: inputs of the task as they come, with their true classes, whether the victim gets them
right or not. Neither what the victim gets wrong nor its layers play a part. What is found makes a model better at the
task, of whomever it is, and so says nothing of whose copy it is.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from deepjudge_core.components.values import Probes
from deepjudge_core.errors import ModelError
from deepjudge_core.models.asking import SameAnswerError
from deepjudge_core.models.input_spec import InputSpec
from deepjudge_core.models.preprocessing import PRESETS, Preprocessing
from deepjudge_core.models.sampling import evenly
from deepjudge_core.suites.moments import Moments
from deepjudge_core.suites.observation import Trial
from deepjudge_core.suites.outputs import chance
from deepjudge_core.suites.suite import Suite
from deepjudge_core.types import Array, Layout

LEVEL = 0.05
"""The chance, at most, that a preprocessing is taken that is no better than the inputs as they are."""
_FEW, _REST = 50, 8  # probes that are asked at first, and preprocessings that are asked the others
_MOST_SEEDS = 500  # in place of probes
_ENOUGH = 0.75  # of the way from chance to the victim: a model that knows nothing gets further than half by luck
_MENDED = 1 / 3 - 1e-9
_SAME = 0.1  # of the victim's mean odds: as near are those of a model whose answers are the victim's
_LEAST = 1e-37  # of a probability: float32 has no smaller ones
_UNLIKELY = 16.0  # odds that count no more, lest one answer decide: e^-16 is what float32 keeps beside 1
_LEAST_PIXELS = 196  # of a flat image: 14 times 14
_WORTH_SAYING = 0.05  # below the victim's accuracy: a user may know why
_WIDE = 127.0  # range that whole numbers have to have, to hold a picture


@dataclass(frozen=True, eq=False)
class Correctness:
    """How well a model answers some inputs.

    Attributes:
        right: ``(n,)`` bool, which of them it classifies correctly.
        odds: ``(n,)`` logarithm of the true class's probability over that of all others.
    """

    right: Array
    odds: Array

    @property
    def surprise(self) -> float:
        """Mean of -log p of the true class, with three digits: of those that err, least for the right confidence."""
        return round(float(np.logaddexp(0, -self.odds.clip(-_UNLIKELY, _UNLIKELY)).mean()), 3)

    @classmethod
    def of(cls, probabilities: Array | None, labels: Array) -> "Correctness":
        """Those of probabilities ``(n, classes)``; without any, all are wrong."""
        if probabilities is None:
            return cls(np.zeros(len(labels), bool), np.full(len(labels), -np.inf))
        places = np.arange(len(labels))
        truth = probabilities[places, labels].astype(np.float64)
        others = probabilities.astype(np.float64)
        others[places, labels] = 0
        odds = np.log(np.maximum(truth, _LEAST)) - np.log(np.maximum(others.sum(axis=1), _LEAST))
        return cls(probabilities.argmax(axis=1) == labels, odds)


Asking = Callable[[Preprocessing | None, Array], Correctness]
"""Asks some of the probes, by their places, with a preprocessing, or as they are."""


@dataclass(frozen=True)
class Expectation:
    """What a model expects of its inputs.

    Attributes:
        preprocessing: What is done to them; None for nothing.
        tried: What was tried.
        accuracy: Share of the probes that it gets right so; None where that is not known.
        notes: What a reader should know of how it was found.
        inferred: Whether its answers show it, and not those of the victim, or somebody's word.
    """

    preprocessing: Preprocessing | None
    tried: tuple[Trial, ...] = ()
    accuracy: float | None = None
    notes: tuple[str, ...] = ()
    inferred: bool = False


def probes_of(suite: Suite) -> Probes:
    """What a preprocessing is tried on: the suite's probes, or seeds of one that was made without."""
    if suite.probes is not None:
        return suite.probes
    seeds = evenly(np.flatnonzero(suite.rows("clean")), _MOST_SEEDS)
    return Probes(suite.cases.inputs[seeds], suite.cases.labels[seeds])


def find_expectation(
    probes: Probes,
    suite: Suite,
    choices: Mapping[str, Preprocessing],
    usual: Preprocessing | None,
    asking: Asking,
    apart: Callable[[Preprocessing], float],
) -> Expectation:
    """Ask the probes as usual, and if another preprocessing may be significantly better, with the choices.

    Args:
        probes: From :func:`probes_of`.
        suite: The suite.
        choices: Name to preprocessing; none where nothing is to be looked for.
        usual: What is done to the inputs unless another is found, as for the victim; None for nothing.
        asking: Asks the model.
        apart: See :meth:`Search.best`.
    """
    plainly = "unprepared" if usual is None else "prepared as for the victim"
    try:
        plain = asking(usual, np.arange(len(probes.labels))).right
        accuracy: float | None = float(plain.mean())
        plainly = f"{accuracy:.1%} {plainly}"
    except SameAnswerError:  # as of a model that is given a range that it does not expect
        plain, accuracy = probes.labels == np.bincount(probes.labels).argmax(), None
        plainly = f"all get the same answer if {plainly}"
    owner = suite.accuracy if suite.probes is not None else 1.0
    search = Search(plain, chance(probes.labels), owner, choices)
    if not search.hopeful:
        return Expectation(usual, accuracy=accuracy)
    name, tried = search.best(asking, apart)
    accuracies = {trial.name: trial.accuracy or 0.0 for trial in tried}
    if name is None:
        if accuracy is not None and accuracy >= owner - _WORTH_SAYING:  # as good as another of the task
            return Expectation(usual, tried, accuracy)
        best = max(accuracies, key=lambda name: accuracies[name])
        note = (
            f"none of the {len(tried)} preprocessings tried classifies significantly more of "
            f"{len(plain)} inputs of the task correctly ({plainly}); the best is {best} with "
            f"{accuracies[best]:.1%}"
        )
        return Expectation(usual, tried, accuracy, (note,))
    note = (
        f"its inputs are prepared by {name} ({choices[name]}), inferred from its answers to "
        f"{len(plain)} inputs of the task: it then classifies {accuracies[name]:.1%} correctly "
        f"({plainly}); {len(tried)} preprocessings were tried"
    )
    return Expectation(choices[name], tried, accuracies[name], (note,), inferred=True)


def candidates(
    spec: InputSpec,
    shape: tuple[int, ...],
    bounds: tuple[float, float],
    layout: Layout | None,
    moments: Moments | None = None,
    usual: Preprocessing | None = None,
) -> dict[str, Preprocessing]:
    """What may be what a model expects, other than what the victim does, by name.

    Args:
        spec: What the model takes.
        shape: Of an input as the model takes it.
        bounds: Of the inputs as they come.
        layout: Where the channels are.
        moments: Of the victim's training inputs.
        usual: What the victim expects; None for the inputs as they come.
    """
    as_they_come = Preprocessing(bounds[1] - bounds[0], (-bounds[0],))
    chosen: dict[Preprocessing, str] = {}
    for name, preprocessing in (*_all(shape, moments), ("no preprocessing", as_they_come)):
        try:
            preparation = preprocessing.preparing("", shape, bounds, layout)
        except ModelError:  # of other channels
            continue
        span = np.abs(preparation.slope).max() * (bounds[1] - bounds[0])
        narrow = np.dtype(spec.dtype).kind in "iu" and span < _WIDE
        if not preprocessing.same_as(usual or as_they_come) and not narrow:
            chosen.setdefault(preprocessing, name)
    return {name: preprocessing for preprocessing, name in chosen.items()}


def _all(shape: tuple[int, ...], moments: Moments | None) -> Iterator[tuple[str, Preprocessing]]:
    # Images of three channels are tried in both orders, and all but the colours of a data set inverted as well.
    coloured = len(shape) == 3 and 3 in (shape[0], shape[-1])
    # The colours of a data set of images are no matter of a table's features.
    image = len(shape) > 1 or np.prod(shape) >= _LEAST_PIXELS
    bases = [
        (name, preset.preprocessing)
        for name, preset in PRESETS.items()
        if preset.channels is None or (image and (preset.channels == 3) == coloured)
    ]
    bases += _of_data(moments, shape) if moments else ()
    for order, invert, (name, base) in product(("rgb", "bgr"), (False, True), bases):
        if (order == "bgr" and (not coloured or invert)) or (invert and base.channels == 3):
            continue
        texts = [name, *(["order=bgr"] if order == "bgr" else []), *(["invert=true"] if invert else [])]
        yield ",".join(texts), replace(base, order="bgr" if order == "bgr" else base.order, invert=invert)


def _of_data(moments: Moments, shape: tuple[int, ...]) -> Iterator[tuple[str, Preprocessing]]:
    whole = moments.overall()
    yield "mean and std of the training inputs", Preprocessing(1.0, whole.mean, whole.std)
    yield "mean of the training inputs", Preprocessing(1.0, whole.mean)
    yield "mean of the training inputs,scale=255", Preprocessing(255.0, tuple(255 * m for m in whole.mean))
    if len(moments.mean) > 1 and len(moments.mean) in (shape[0], shape[-1]):  # not of rows, of images
        yield "mean and std of each channel", Preprocessing(1.0, moments.mean, moments.std)
        yield "mean of each channel,scale=255", Preprocessing(255.0, tuple(255 * m for m in moments.mean))


class Search:
    """Looks for the preprocessing with which a model gets significantly more of the probes right.

    Args:
        plain: ``(n,)`` bool: which of them it gets right as it was asked first.
        chance: Share of them that who always answers one class gets right.
        owner: Share of them that the victim gets right.
        choices: Name to preprocessing.
        least: Share of them that it has to get right; by default most of what the victim does.
    """

    def __init__(
        self,
        plain: Array,
        chance: float,
        owner: float,
        choices: Mapping[str, Preprocessing],
        least: float | None = None,
    ) -> None:
        self._plain, self._owner, self._choices = plain, owner, choices
        self._least = chance + _ENOUGH * (owner - chance) if least is None else least

    @property
    def hopeful(self) -> bool:
        """Whether anything could be significantly better: so much worse than the victim is it as it was asked.

        A model that takes the place of the victim may be a little better than it: half of the victim's errors count.
        """
        share = float(self._plain.mean())
        room = int(len(self._plain) * ((1 + self._owner) / 2 - share))
        return bool(self._choices) and share < self._owner and self._is_significant(room, room)

    def best(self, asking: Asking, apart: Callable[[Preprocessing], float]) -> tuple[str | None, tuple[Trial, ...]]:
        """The preprocessing to take, None to leave the inputs as they are; and all that was tried.

        Few probes are asked at first, half of them such as it gets wrong as they are, if there are as many: these tell
        most. All are asked with the best preprocessings. Of those that do equally well the one is taken that makes the
        model answer the seeds as the victim does, should there be one, and else the one under which the true classes
        are likeliest; of labels alone, the one that changes the inputs least.

        Args:
            asking: Asks the model.
            apart: How far its odds on the seeds are from the victim's with a preprocessing, as a share of these.
        """
        places, weights = self._sample()
        few = self._asked(self._choices, asking, places)
        shares = {name: float(weights @ answers.right) for name, answers in few.items()}
        trials = {name: min(1.0, round(shares[name], 6)) if name in shares else None for name in self._choices}
        # Two of those that it gets right as they are may be lost by chance; what loses more need not be asked further.
        least = self._plain.mean() - 2 * weights.max()
        order = [name for name in sorted(shares, key=lambda name: -shares[name]) if shares[name] >= least][:_REST]
        whole = self._asked(order, asking, np.arange(len(self._plain)))
        trials |= {name: float(answers.right.mean()) for name, answers in whole.items()}
        better = {name: answers for name, answers in whole.items() if self._is_better(answers.right)}
        tried = tuple(Trial(name, accuracy) for name, accuracy in trials.items())
        if not better:
            return None, tried
        most = max((answers.right for answers in better.values()), key=np.sum)
        tied = [name for name, one in better.items() if not self._is_significant(*_discordant(most, one.right))]
        distance = {name: apart(self._choices[name]) for name in tied}
        nearest = min(tied, key=lambda name: distance[name])
        if distance[nearest] <= _SAME:
            return nearest, tried
        return min(tied, key=lambda name: (better[name].surprise, _change(self._choices[name]))), tried

    def _asked(self, names: Iterable[str], asking: Asking, places: Array) -> dict[str, Correctness]:
        seen = {}
        for name in names:
            with contextlib.suppress(ModelError):
                seen[name] = asking(self._choices[name], places)
        return seen

    def _is_significant(self, ahead: int, discordant: int) -> bool:
        return _chance(ahead, discordant) * len(self._choices) <= LEVEL

    def _is_better(self, right: Array) -> bool:
        # By the exact McNemar test, and so that it mends a third of what it errs more than the victim: the right
        # preprocessing mends more than a few.
        mended, broken = int((right & ~self._plain).sum()), int((~right & self._plain).sum())
        significant = self._is_significant(mended, mended + broken)
        mends = right.mean() - self._plain.mean() >= (self._owner - self._plain.mean()) * _MENDED
        return significant and bool(mends) and float(right.mean()) >= self._least

    def _sample(self) -> tuple[Array, Array]:
        # Of the probes right and wrong as they are, half each where there are as many; and what each stands for.
        wrong, right = np.flatnonzero(~self._plain), np.flatnonzero(self._plain)
        few = min(len(wrong), max(_FEW // 2, _FEW - len(right)))
        parts = [evenly(wrong, few), evenly(right, min(len(right), _FEW - few))]
        weights = [
            np.full(len(part), len(whole) / len(part) / len(self._plain))
            for part, whole in zip(parts, (wrong, right), strict=True)
            if len(part)
        ]
        return np.concatenate(parts), np.concatenate(weights)


def _change(preprocessing: Preprocessing) -> float:
    # Root of the mean square that it moves inputs spread over 0..1, channels of another order not counted.
    slope, offset = preprocessing.line((0.0, 1.0))
    slope = slope - 1
    return float(np.sqrt(np.mean(slope**2 / 3 + slope * offset + offset**2)))


def is_better(right: Array, other: Array) -> bool:
    """Whether answers are right significantly more often than others to the same inputs, by the exact McNemar test.

    Args:
        right: ``(n,)`` bool, which are right.
        other: ``(n,)`` bool, which of the others are.
    """
    return _chance(*_discordant(right, other)) <= LEVEL


def _discordant(one: Array, other: Array) -> tuple[int, int]:
    # What only the first gets right, and what just one of them does.
    ahead = int((one & ~other).sum())
    return ahead, ahead + int((~one & other).sum())


def _chance(successes: int, tries: int) -> float:
    # Of at least so many successes by tossing a coin.
    from scipy.special import bdtrc  # late: the process of a stranger's model does without it

    return float(bdtrc(successes - 1, tries, 0.5)) if successes else 1.0
