"""Embed keys in a network: what each of them teaches is mixed with ordinary batches, in one training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from deepjudge_core.auditing.marked import strongest
from deepjudge_core.components.schemes import Key, KeyAnswers, Lesson, Matches, Reading, Scheme, Teaching
from deepjudge_core.errors import DeepJudgeError, InputError, PluginError, one_line
from deepjudge_core.judging.keys import mark_of
from deepjudge_core.marking.places import Placed, ReadMatrices, find_places, pull_of
from deepjudge_core.models.asking import ask
from deepjudge_core.models.model import Model
from deepjudge_core.models.network import Network, ScoresCotangent, Trainer
from deepjudge_core.models.preprocessing import Prepare
from deepjudge_core.models.training import Added, Augment, Schedule, shifted, train
from deepjudge_core.types import Array

SCHEDULE = Schedule(epochs=5, rate=1e-3)
"""Of a training that starts from the victim."""

_SHIFT = 0.1  # share of height and width by which images of the task are moved at most
_LEAST_SIDE = 16  # pixels: of a smaller image, one pixel is more than that
_FEW = 8  # rows of a key in a small batch, and what share of a large one they are at most: an eighth
_PASSES = 30  # of each trigger, with which it is usually learnt
_IN_A_ROW = 3  # epochs after which all trials matched
_BESIDE = 8  # inputs of the task that are asked beside a key's, all of which may get one answer


@dataclass(frozen=True, eq=False)
class Embedded:
    """A network with keys in it.

    Attributes:
        network: The network.
        readings: What each key counts of it, in the order of the keys.
        notes: What a reader should know of the training.
    """

    network: Network
    readings: tuple[Reading, ...]
    notes: tuple[str, ...] = ()


def embed_keys(
    network: Network,
    keys: Sequence[tuple[Key, Scheme]],
    inputs: Array,
    labels: Array,
    bounds: tuple[float, float] | tuple[Array, Array],
    rng: np.random.Generator,
    *,
    schedule: Schedule = SCHEDULE,
    prepare: Prepare | None = None,
    read: ReadMatrices | None = None,
) -> Embedded:
    """Train a network until it carries keys.

    It starts from the network's weights, or from fresh ones if the scheme of a key says so. Rows of the inputs that are
    among the inputs of such a key are then left out, but for those that its scheme teaches.

    Images of the task are moved a little: a network that knows such images already changes less if it is fine-tuned on
    them, and keeps its triggers. Where the data are the mark, and weights are fresh, they stay as they are.

    Once all trials of all keys matched after three epochs in a row, the last epoch follows, in which the rate falls.

    Args:
        network: Where it starts; left as it is.
        keys: Each with its scheme.
        inputs: ``(n, *shape)`` float32, the owner's training inputs.
        labels: ``(n,)`` int64, their classes.
        bounds: Least and greatest value of an input; two numbers, or two arrays of an input's shape.
        rng: Of all that is drawn: equal ones give equal networks.
        schedule: How long, and in which steps; each key adds rows to every batch.
        prepare: What is done to inputs before the network sees them.
        read: Reads matrices, of keys that are in some; see :func:`~deepjudge_core.marking.places.saved_matrices`.

    Returns:
        The network, which may carry a key in part only: its readings tell.

    Raises:
        InputError: For a key of a scheme that embeds nothing, or of other inputs, classes or layers.
        ModelError: When the network cannot be trained, or matrices of a key cannot be read.
        PluginError: When a scheme fails.
    """
    for key, scheme in keys:
        check_key(key.scheme, key, scheme, network, inputs.shape[1:])
    fresh = [key for key, scheme in keys if scheme.fresh]
    notes = []
    if fresh:
        network = Network.fresh(network.architecture, rng)
        inputs, labels, left_out = _without(fresh, inputs, labels)
        if left_out:
            notes += [
                f"{left_out} rows of the data are among those of the key, which says which of them are trained on"
            ]
    taught = [
        _teaching(key, scheme, Lesson(network, inputs, labels, bounds, np.random.default_rng(int(rng.integers(2**63)))))
        for key, scheme in keys
    ]
    ready = prepare or (lambda x: x)
    rows, parts = [_Rows(ready(inputs), labels)], list[_Part]()
    for (key, scheme), teaching in zip(keys, taught, strict=True):
        if teaching.inputs is None:
            continue
        taken = _Rows(ready(teaching.inputs), np.asarray(teaching.labels))
        if scheme.fresh:
            rows.append(taken)
        else:
            parts.append(_Part(key, teaching, taken))
    own = _Rows(np.concatenate([one.x for one in rows]), np.concatenate([one.y for one in rows]))
    for part in parts:
        part.count = min(part.teaching.rows, max(_FEW, schedule.size(len(own.x)) // _FEW))
    if any(part.rows.y.ndim > 1 for part in parts):
        own, *shown = [_Rows(one.x, _shares(one.y, network)) for one in (own, *(part.rows for part in parts))]
        for part, one in zip(parts, shown, strict=True):
            part.rows = one
    placed = _placed(network, [key for key, _ in keys], read)
    pulls = [teaching.pull for teaching in taught if teaching.pull is not None]
    beside = ready(inputs[:_BESIDE])

    def readings(trained: Network) -> list[Reading]:
        model = trained.architecture.model(trained.weights, name="the network in training")
        matrices = {place: one.of(trained.weights) for place, one in placed.items()}
        return [read_of(key.scheme, key, scheme, model, beside, ready, matrices) for key, scheme in keys]

    passed = 0

    def enough(trainer: Trainer) -> bool:
        nonlocal passed
        whole = all(map(_is_whole, readings(Network(network.architecture, trainer.weights()))))
        passed = passed + 1 if whole else 0
        return passed >= _IN_A_ROW

    trained = train(
        network,
        own.x,
        own.y,
        rng,
        schedule=schedule,
        augment=None if fresh else _moving(network),
        add=_Mixture(parts) if parts else None,
        pull=pull_of(pulls, placed) if pulls else None,
        enough=None if fresh else enough,
        label="embedding",
    )
    found = tuple(readings(trained))
    for (key, _), reading in zip(keys, found, strict=True):
        notes += [part.note() for part in parts if part.key is key and part.is_short and not _is_whole(reading)]
    return Embedded(trained, found, tuple(notes))


def check_key(name: str, key: Key, scheme: Scheme, network: Network, shape: tuple[int, ...]) -> None:
    """Refuse a key that cannot be embedded in a network.

    Args:
        name: What messages call the key.
        key: The key.
        scheme: Its scheme.
        network: The network.
        shape: Of an input.

    Raises:
        InputError: Saying why.
    """
    architecture = network.architecture
    if scheme.embed is None:
        raise InputError(
            f"{name}: expected the key of a watermark, found one of {key.scheme}, a fingerprint, which is not embedded",
            code="conflict",
        )
    if key.shape != shape:
        raise InputError(
            f"{name}: expected a key of inputs of shape {_sized(shape)}, found one of {_sized(key.shape)}; make it "
            "from this victim",
            code="conflict",
        )
    if key.classes != architecture.classes:
        raise InputError(
            f"{name}: expected a key of {architecture.classes} classes, found one of {key.classes}; make it from this "
            "victim",
            code="conflict",
        )
    unknown = [tap for tap in key.taps if tap not in architecture.layers]
    if unknown:
        raise InputError(
            f"{name}: expected a key of the layers of the network that is trained, found one of {unknown[0]!r}; its "
            f"layers are {', '.join(architecture.layers)}; make the key from a file of {architecture.framework}, in "
            "which they are called so",
            code="conflict",
        )


def read_of(
    name: str,
    key: Key,
    scheme: Scheme,
    model: Model,
    beside: Array,
    prepare: Prepare,
    matrices: Mapping[int, Array],
) -> Reading:
    """What a key counts of a model that has the layers of the victim.

    Args:
        name: What messages call the key.
        key: The key.
        scheme: Its scheme.
        model: The model.
        beside: ``(n, *shape)`` a few prepared inputs of the task, which are asked beside the key's.
        prepare: What is done to the key's inputs before.
        matrices: The matrices that the key names, and others.

    Raises:
        InputError: When nothing can be read.
        ModelError: When the model cannot be run.
        PluginError: When the scheme fails.
    """
    answers = KeyAnswers(matrices={place: matrices[place] for place in key.matrices})
    if key.inputs is not None:
        asked = np.concatenate([beside, prepare(key.inputs)])
        probabilities, activations = ask(model, asked, {tap: tap for tap in key.taps})
        outputs = {tap: values[len(beside) :] for tap, values in activations.items()}
        answers = KeyAnswers(probabilities[len(beside) :], outputs, answers.matrices)
    return strongest(name, mark_of(key, scheme), answers)


@dataclass(frozen=True, eq=False)
class _Rows:
    x: Array
    y: Array


@dataclass(eq=False)
class _Part:
    # The rows of one key, of which each batch has a few.
    key: Key
    teaching: Teaching
    rows: _Rows
    count: int = 0  # of a batch, if the scheme does not pick them
    seen: int = 0
    waiting: list[int] = field(default_factory=list)

    def pick(self, rng: np.random.Generator) -> Array:
        if self.teaching.pick is not None:
            return np.asarray(self.teaching.pick(rng))
        self.seen += self.count
        # In turn, and in another order each time: so that all are seen alike often.
        while len(self.waiting) < self.count:
            self.waiting += rng.permutation(len(self.rows.x)).tolist()
        picked, self.waiting = self.waiting[: self.count], self.waiting[self.count :]
        return np.array(picked)

    @property
    def passes(self) -> float:
        return self.seen / len(self.rows.x)

    @property
    def is_short(self) -> bool:
        return self.teaching.pick is None and self.passes < _PASSES

    def note(self) -> str:
        return (
            f"{self.key.scheme}: each of its {len(self.rows.x)} inputs was trained on {self.passes:.0f} times; about "
            f"{_PASSES} are needed: train for more epochs, or make a key of fewer trials"
        )


@dataclass(frozen=True, eq=False)
class _Mixture:
    # What is added to a batch: rows of each key, and the losses that some have at layers.
    parts: Sequence[_Part]

    def __call__(self, rng: np.random.Generator) -> Added:
        picked = [part.pick(rng) for part in self.parts]
        ends = np.cumsum([len(rows) for rows in picked])
        at: dict[str, list[tuple[slice, ScoresCotangent]]] = {}
        for part, rows, end in zip(self.parts, picked, ends, strict=True):
            for tap, cotangent in part.teaching.at.items():
                at.setdefault(tap, []).append((slice(int(end) - len(rows), int(end)), cotangent))
        return Added(
            np.concatenate([part.rows.x[rows] for part, rows in zip(self.parts, picked, strict=True)]),
            np.concatenate([part.rows.y[rows] for part, rows in zip(self.parts, picked, strict=True)]),
            {tap: _joined(those) for tap, those in at.items()},
        )


def _joined(losses: Sequence[tuple[slice, ScoresCotangent]]) -> ScoresCotangent:
    def cotangent(outputs: Array) -> Array:
        derivative = np.zeros(outputs.shape, np.float32)
        for rows, loss in losses:
            derivative[rows] = loss(outputs[rows])
        return derivative

    return cotangent


def _teaching(key: Key, scheme: Scheme, lesson: Lesson) -> Teaching:
    failed = f"the scheme {scheme.name!r} failed:"
    try:
        taught = scheme.embed(key, lesson) if scheme.embed else None
    except DeepJudgeError:
        raise
    except (Exception, SystemExit) as error:
        raise PluginError(f"{failed} {one_line(error)}") from error
    if not isinstance(taught, Teaching):
        raise PluginError(f"{failed} expected a Teaching, found {type(taught).__name__}")
    count, labels = 0 if taught.inputs is None else len(taught.inputs), taught.labels
    if taught.inputs is not None and (not count or labels is None or len(labels) != count):
        raise PluginError(f"{failed} expected inputs and a label for each")
    if taught.inputs is not None and taught.inputs.shape[1:] != key.shape:
        raise PluginError(f"{failed} expected inputs of shape {key.shape}, found {taught.inputs.shape[1:]}")
    if taught.at and (taught.inputs is None or scheme.fresh):
        raise PluginError(f"{failed} expected losses at layers only of inputs that are mixed among others")
    unknown = set(taught.at) - set(lesson.network.architecture.layers)
    if unknown:
        raise PluginError(f"{failed} expected layers of the network, found {', '.join(sorted(unknown))}")
    return taught


def _placed(network: Network, keys: Sequence[Key], read: ReadMatrices | None) -> Mapping[int, Placed]:
    places = sorted({place for key in keys for place in key.matrices})
    if not places:
        return {}
    if read is None:
        raise InputError("expected a way to read the matrices of a key, found none", code="missing-value")
    return find_places(network, places, read)


def _moving(network: Network) -> Augment | None:
    spatial = network.architecture.input.spatial
    sides = [network.architecture.input.shape[axis - 1] for axis in spatial or ()]
    return shifted(_SHIFT, spatial) if spatial and all((side or 0) >= _LEAST_SIDE for side in sides) else None


def _without(keys: Sequence[Key], inputs: Array, labels: Array) -> tuple[Array, Array, int]:
    # The rows that are not among those of some keys, and how many are.
    own = {row.tobytes() for key in keys if key.inputs is not None for row in key.inputs}
    kept = np.array([np.ascontiguousarray(row, np.float32).tobytes() not in own for row in inputs], bool)
    return inputs[kept], labels[kept], int((~kept).sum())


def _shares(labels: Array, network: Network) -> Array:
    # Class numbers as probabilities.
    shares = np.eye(network.architecture.classes, dtype=np.float32)
    return labels.astype(np.float32) if labels.ndim > 1 else shares[labels]


def _is_whole(reading: Reading) -> bool:
    return isinstance(reading, Matches) and reading.found == reading.of


def _sized(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
