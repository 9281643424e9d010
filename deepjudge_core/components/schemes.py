"""Schemes that prove ownership by a key: watermarks and fingerprints, as plugins hand them over.

Every one of them is matches of trials. A key is a list of trials, and a suspect matches some of them. Either what
counts as a match was drawn at random once everything else was fixed; then the probability that a model made without the
key matches as many is exact, whatever the model is. Or it comes from the victim; then controls have to tell.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, Literal, get_args

import numpy as np

from deepjudge_core.components.chances import log10_binomial_tail, log10_lift
from deepjudge_core.components.drawing import NONCE, draw, draw_normal
from deepjudge_core.components.kinds import expect_one_of
from deepjudge_core.errors import PluginError
from deepjudge_core.files.documents import Json
from deepjudge_core.models.model import Access, Model
from deepjudge_core.models.network import Network
from deepjudge_core.text import clean
from deepjudge_core.types import Array

Drawn = Literal["labels", "wrong-labels", "bits"]
"""What of a key is drawn from its nonce: a class for each input, of all classes; a class for each input, of those that
are not its truth; or bits."""

_MOST_TRIALS, _MOST_CLASSES = 2**22, 2**24  # far above what any network has; a key may be anybody's file

NOTHING = Access(0)
"""What is asked of a model that is not run."""

Want = Literal["labels", "auxiliary", "references", "surrogates"]
"""What a scheme needs to make a key, besides the victim and inputs."""


@dataclass(frozen=True, eq=False)
class Key:
    """What the owner keeps secret until it is used.

    All that is drawn follows from the nonce and from everything else in the key: who changes an input draws all labels
    anew. So an accuser who makes up a key after seeing the suspect needs about ``1 / p`` tries for a p-value of ``p``.

    Attributes:
        scheme: Name of the scheme that made it.
        options: All options that it was made with.
        nonce: 32 bytes, chosen at random.
        made_from: Digest of the model that it was made for.
        shape: Of the victim's inputs.
        classes: The victim's.
        trials: How many there are, at least 1.
        inputs: ``(k, *shape)`` float32 that every model is asked, in the victim's layout; None if none is.
        labels: ``(k,)`` int64, what a marked model answers; filled by the core where it is drawn. None without inputs,
            or if answers are not what is counted.
        truth: ``(k,)`` int64, ground truth of the inputs; None where they have none.
        bits: ``(trials,)`` int64 of 0 and 1, filled by the core where they are drawn; None for others.
        arrays: What else is needed to verify it, float32, float64 or int64, such as the unmarked parent's outputs.
        taps: The victim's taps that are read of every model on the inputs.
        matrices: Places of matrices that are read of every model, in forward order from 0.
        drawn: What is drawn; None for keys that come from the victim.
        references: Digests of the independent models that it was made with: they cannot show how honest ones match.
        surrogates: Digests of the stolen models that it was made with.
        notes: What a reader should know of how it was made.
    """

    scheme: str
    options: Json
    nonce: bytes
    made_from: str
    shape: tuple[int, ...]
    classes: int
    trials: int
    inputs: Array | None = None
    labels: Array | None = None
    truth: Array | None = None
    bits: Array | None = None
    arrays: Mapping[str, Array] = field(default_factory=dict)
    taps: tuple[str, ...] = ()
    matrices: tuple[int, ...] = ()
    drawn: Drawn | None = None
    references: tuple[str, ...] = ()
    surrogates: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def chance(self) -> float | None:
        """With which a model made without the key matches a trial, by design; None if controls have to tell."""
        if self.drawn is None:
            return None
        return {"labels": 1 / self.classes, "wrong-labels": 1 / max(self.classes - 1, 1), "bits": 0.5}[self.drawn]

    @cached_property
    def fixed(self) -> str:
        """SHA-256, in hex, of all that is fixed before anything is drawn."""
        named = {"inputs": self.inputs, "truth": self.truth, **{f"arrays.{name}": a for name, a in self.arrays.items()}}
        if self.drawn not in ("labels", "wrong-labels"):
            named["labels"] = self.labels
        if self.drawn != "bits":
            named["bits"] = self.bits
        sums = {
            name: [
                str(array.dtype),
                list(array.shape),
                hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest(),
            ]
            for name, array in named.items()
            if array is not None
        }
        rest = [self.scheme, dict(self.options), list(self.shape), self.classes, self.trials, self.drawn]
        whole = json.dumps([*rest, list(self.taps), list(self.matrices), sums], sort_keys=True)
        return hashlib.sha256(whole.encode()).hexdigest()

    def draw(self, purpose: str, count: int, upper: int) -> Array:
        """Whole numbers of 0..upper - 1, ``(count,)`` int64, that follow from the nonce and all that is fixed."""
        return draw(self.nonce, f"{self.scheme}|{purpose}|{self.fixed}", count, upper)

    def draw_normal(self, purpose: str, shape: tuple[int, ...]) -> Array:
        """Standard normal numbers, float64, of a shape, that follow from the nonce and all that is fixed."""
        return draw_normal(self.nonce, f"{self.scheme}|{purpose}|{self.fixed}", shape)

    def completed(self) -> "Key":
        """The key with what is drawn."""
        if self.drawn == "bits":
            return replace(self, bits=self.draw("bits", self.trials, 2))
        if self.drawn == "labels":
            return replace(self, labels=self.draw("labels", self.trials, self.classes))
        if self.drawn == "wrong-labels":
            truth = np.asarray(self.truth)
            steps = 1 + self.draw("labels", self.trials, self.classes - 1)
            return replace(self, labels=(truth + steps) % self.classes)
        return self

    @property
    def follows(self) -> bool:
        """Whether what is drawn is what the nonce gives."""
        drawn = self.completed()
        return all(
            one is other or (one is not None and other is not None and np.array_equal(one, other))
            for one, other in ((self.labels, drawn.labels), (self.bits, drawn.bits))
        )


@dataclass(frozen=True, eq=False)
class KeyAnswers:
    """All that a scheme sees of one model.

    Attributes:
        probabilities: ``(k, classes)`` of the key's inputs, in the victim's order of classes; None where they were not
            asked for, or its classes are others. With ``Access.LABELS`` alone only the greatest of each row may be
            looked at.
        activations: The victim's tap to ``(k, neurons)`` outputs, in the model's own order of neurons; empty where they
            could not be read.
        matrices: Place to ``(outputs, inputs)`` float32, in the model's own order, columns by channels first, then by
            places; empty where they could not be read.
        missing: Why something of it is not there; None if nothing is missing.
        victim: What the marked victim answered; None while that is read itself. What is drawn shows in it: a reading
            that depends on it needs controls.
    """

    probabilities: Array | None = None
    activations: Mapping[str, Array] = field(default_factory=dict)
    matrices: Mapping[int, Array] = field(default_factory=dict)
    missing: str | None = None
    victim: "KeyAnswers | None" = None

    @property
    def labels(self) -> Array | None:
        """``(k,)`` int64 its classes, -1 where no class is the likeliest alone; None where there are no answers."""
        if self.probabilities is None:
            return None
        likeliest = self.probabilities == self.probabilities.max(axis=1, keepdims=True)
        # Of equals, the first class would match every trigger with that label.
        return np.where(likeliest.sum(axis=1) == 1, likeliest.argmax(axis=1), -1)


@dataclass(frozen=True)
class Matches:
    """One reading of a key: how many of its trials a model matches.

    Attributes:
        reading: How it was read, such as "direct" or "neurons in the order of the parent's".
        found: Trials that match.
        of: Trials that count.
        chance: With which a model made without the key matches each trial, independently, by design; None if controls
            have to tell.
        why: What that rests on: one clause without a full stop.
    """

    reading: str
    found: int
    of: int
    chance: float | None
    why: str

    @property
    def by_design(self) -> bool:
        """Whether its chance holds whatever the model is."""
        return self.chance is not None

    @property
    def distance(self) -> float:
        """Odds against a match, 0 where all trials match: unlike those of shares, their logarithms spread alike."""
        return (self.of - self.found) / (self.found + 0.5)

    @property
    def log10_p(self) -> float | None:
        """Of the probability that as many match by chance; None if controls have to tell."""
        return None if self.chance is None else log10_binomial_tail(self.found, self.of, self.chance)

    @property
    def least(self) -> float:
        """The least ``log10_p`` that this reading could have given; 0 if controls have to tell."""
        return 0.0 if self.chance is None else log10_binomial_tail(self.of, self.of, self.chance)


@dataclass(frozen=True, eq=False)
class Lift:
    """A reading of coins: whether a model scores higher where the coin of the key says 1.

    Attributes:
        reading: How it was read.
        scores: ``(n,)`` a number for each coin, which depends on the model and on nothing that the coins decided.
        coins: ``(n,)`` of 0 and 1, the key's.
        why: What the chance rests on: one clause without a full stop.
    """

    reading: str
    scores: Array
    coins: Array
    why: str
    chance: None = None
    by_design: ClassVar[bool] = True

    @property
    def found(self) -> int:
        """Coins of 1 among the positive scores."""
        return int(self.coins[self.scores > 0].sum())

    @property
    def of(self) -> int:
        """Positive scores."""
        return int((self.scores > 0).sum())

    @cached_property
    def z(self) -> float:
        """Standard deviations by which the scores are higher where the coin says 1."""
        spread = float(np.sqrt(np.sum(np.square(self.scores, dtype=np.float64))) / 2)
        return float(np.sum((self.coins - 0.5) * self.scores)) / spread if spread > 0 else 0.0

    @property
    def distance(self) -> float:
        """``1 / (1 + z)``, for z above 0: 1 where the coins do not matter."""
        return 1 / (1 + max(self.z, 0.0))

    @cached_property
    def log10_p(self) -> float:
        """Of the probability, at most, with which other coins would give as much."""
        return log10_lift(self.scores, self.coins)

    @property
    def least(self) -> float:
        """The ``log10_p`` of coins that are 1 exactly where scores are positive."""
        return log10_lift(self.scores, (self.scores > 0).astype(np.int64))


Reading = Matches | Lift
"""What is counted of one model by a key."""


@dataclass(frozen=True, eq=False)
class KeyTask:
    """What a key is made from.

    Attributes:
        victim: The owner's :class:`~deepjudge_core.models.model.Model`, asked for nothing that the scheme does not
            need.
        inputs: ``(n, *shape)`` float32 of the victim's task, in its layout.
        labels: ``(n,)`` int64, their classes; None where the file has none.
        bounds: Least and greatest value of an input; two numbers, or two float32 arrays of an input's shape.
        nonce: 32 bytes.
        auxiliary: ``(m, *shape)`` float32 inputs of another task, within the bounds; None where none were given.
        auxiliary_labels: ``(m,)`` int64, their classes; None where they have none.
        references: Independent models, each opened at first use; none without a zoo.
        surrogates: Models that were stolen from it, likewise.
        matrices: Reads the victim's matrices by their places.
    """

    victim: Model
    inputs: Array
    labels: Array | None
    bounds: tuple[float, float] | tuple[Array, Array]
    nonce: bytes
    auxiliary: Array | None = None
    auxiliary_labels: Array | None = None
    references: Sequence[Model] = ()
    surrogates: Sequence[Model] = ()
    matrices: Callable[[Sequence[int]], dict[int, Array]] | None = None

    @property
    def span(self) -> Any:
        """Width of the input range, the unit of step sizes and radii; a number or an array, as the bounds are."""
        return self.bounds[1] - self.bounds[0]

    def rng(self, purpose: str) -> np.random.Generator:
        """A source of randomness for what is fixed before anything is drawn, such as which inputs are taken."""
        return np.random.default_rng(np.frombuffer(hashlib.sha256(self.nonce + purpose.encode()).digest(), "<u4"))

    def key(self, scheme: str, options: Mapping[str, Any], **parts: Any) -> Key:
        """A key of this victim with what is drawn; ``parts`` are attributes of :class:`Key`."""
        shape = tuple(self.inputs.shape[1:])
        victim = self.victim
        return Key(scheme, dict(options), self.nonce, victim.digest, shape, victim.classes, **parts).completed()


At = Callable[[Array], Array]
"""Maps a tap's outputs ``(rows, neurons)`` on the rows of a :class:`Teaching` to a loss' derivative, same shape."""


@dataclass(frozen=True, eq=False)
class Lesson:
    """What a key is embedded with.

    Attributes:
        network: The unmarked victim.
        inputs: ``(n, *shape)`` float32, the owner's training inputs.
        labels: ``(n,)`` int64, their classes.
        bounds: As those of :class:`KeyTask`.
        rng: The only source of randomness.
    """

    network: Network
    inputs: Array
    labels: Array
    bounds: tuple[float, float] | tuple[Array, Array]
    rng: np.random.Generator


@dataclass(frozen=True, eq=False)
class Teaching:
    """What one key adds to each step of training.

    Attributes:
        inputs: ``(n, *shape)`` float32 that are mixed among the owner's; None if none are.
        labels: ``(n,)`` int64, or ``(n, classes)`` probabilities: what the network is to answer.
        rows: How many of them each batch has; at most an eighth of it, but 8, unless ``pick`` chooses them.
        pick: Chooses the rows of a batch, ``(rows,)`` places; by default at random.
        at: Tap to the derivative of a further loss at its outputs on the rows of the batch.
        pull: Maps the matrices, by place, ``(outputs, inputs)``, to the gradients of a loss of the weights, same shape.
    """

    inputs: Array | None = None
    labels: Array | None = None
    rows: int = 16
    pick: Callable[[np.random.Generator], Array] | None = None
    at: Mapping[str, At] = field(default_factory=dict)
    pull: Callable[[Mapping[int, Array]], Mapping[int, Array]] | None = None


@dataclass(frozen=True)
class Scheme:
    """A way to prove ownership by a key: a watermark, which is embedded, or a fingerprint, which is not.

    Attributes:
        name: How the user chooses it.
        source: The paper that it comes from.
        needs: What must be known of a suspect: an :class:`Access`. A key without taps needs no layers, one without
            matrices no weights, and one with either but without labels no labels.
        make: ``make(task, **options) -> Key`` for a :class:`KeyTask`; options are its keyword-only parameters with
            defaults. It draws by the task and the key only. Reports tell the options, so none is a secret.
        verify: ``verify(key, answers) -> Sequence[Reading]`` for :class:`KeyAnswers`: pure numpy. The core counts the
            reading that is least likely, corrected for their number. It raises
            :class:`~deepjudge_core.errors.IncomparableError` where a reading would mean nothing.
        embed: ``embed(key, lesson) -> Teaching`` for a :class:`Lesson`; None for a fingerprint.
        wants: What a key cannot be made without: "labels" of the inputs, "auxiliary" inputs, "references",
            "surrogates".
        asks: What making a key asks of the victim.
        says: What a match means and what the mark does not survive: a clause without a full stop.
        fresh: Whether a network is trained from fresh weights, since what it is trained on is the mark: a match is
            then evidence that the rows were used.
    """

    name: str
    source: str
    needs: Access
    make: Callable[..., Key]
    verify: Callable[[Key, KeyAnswers], Sequence[Reading]]
    embed: Callable[[Key, Lesson], Teaching] | None = None
    wants: tuple[Want, ...] = ()
    asks: Access = NOTHING
    says: str = ""
    fresh: bool = False

    def __post_init__(self) -> None:
        for want in self.wants:
            expect_one_of(self.name, "wants", want, get_args(Want))


def expect_key(scheme: Scheme, made: object) -> Key:
    """Refuse what is no key, or no whole one, of a plugin's making.

    Raises:
        PluginError: Saying what is wrong.
    """
    failed = f"the scheme {scheme.name!r} failed:"
    if not isinstance(made, Key):
        raise PluginError(f"{failed} expected a Key, found {type(made).__name__}")
    problem = mistake(made)
    if problem or made.scheme != scheme.name:
        raise PluginError(f"{failed} {problem or f'expected a key of its own, found one of {made.scheme}'}")
    return made


def mistake(key: Key) -> str | None:
    """What is wrong with a key's parts, one clause; None where they fit one another."""
    if len(key.nonce) != NONCE:
        return f"expected a nonce of {NONCE} bytes, found {len(key.nonce)}"
    # Where there is no other class that could be drawn, a match says nothing.
    least = {"labels": 2, "wrong-labels": 3}.get(key.drawn or "", 1)
    if not 1 <= key.trials <= _MOST_TRIALS or not least <= key.classes <= _MOST_CLASSES:
        return (
            f"expected 1..{_MOST_TRIALS} trials and {least}..{_MOST_CLASSES} classes, found {key.trials} and "
            f"{key.classes}"
        )
    if clean(key.scheme) != key.scheme:
        return "expected the name of a scheme, found one that cannot be shown"
    if key.inputs is not None and (key.inputs.dtype != np.float32 or key.inputs.shape[1:] != key.shape):
        return f"expected float32 inputs of shape {key.shape}, found {key.inputs.dtype} {key.inputs.shape[1:]}"
    count = 0 if key.inputs is None else len(key.inputs)
    for name, labels in (("labels", key.labels), ("truth", key.truth)):
        if labels is None:
            continue
        if labels.shape != (count,) or labels.dtype != np.int64 or not count:
            return f"expected {name} for each of {count} inputs, found {labels.dtype} {labels.shape}"
        if labels.min() < 0 or labels.max() >= key.classes:
            return f"expected {name} in 0..{key.classes - 1}, found {labels.min()}..{labels.max()}"
    if key.inputs is not None and not count:
        return "expected inputs, found an array of none"
    if key.drawn == "bits" and key.bits is None:
        return f"expected {key.trials} bits, found none"
    if key.bits is not None and (key.bits.shape != (key.trials,) or not np.isin(key.bits, (0, 1)).all()):
        return f"expected {key.trials} bits"
    if key.drawn in ("labels", "wrong-labels") and key.trials != count:
        return f"expected a trial for each of {count} inputs, found {key.trials}"
    if key.drawn == "wrong-labels" and key.truth is None:
        return "expected the truth of the inputs, found none"
    if not key.follows:
        return "expected what its nonce gives, found other labels or bits: they were changed, or chosen"
    return None
