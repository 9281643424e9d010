"""What every scheme must keep."""

import copy
import dataclasses
import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, partial
from itertools import pairwise
from typing import Any, cast

import numpy as np

from deepjudge_core.components.options import resolve
from deepjudge_core.components.registry import Configured
from deepjudge_core.components.schemes import Key, KeyAnswers, Lesson, Lift, Matches, Reading, Scheme, Teaching
from deepjudge_core.errors import DeepJudgeError, IncomparableError
from deepjudge_core.judging.keys import Mark, mark_of, read_key
from deepjudge_core.marking.embedding import embed_keys
from deepjudge_core.marking.making import Material, make_key
from deepjudge_core.models.model import Access
from deepjudge_core.models.network import Network
from deepjudge_core.models.training import Schedule
from deepjudge_core.suites.keys import key_arrays, key_digest
from deepjudge_core.testing.checks import Checks, expect_name, run
from deepjudge_core.testing.expect import expect, expect_options
from deepjudge_core.testing.numpy_model import NumpyModel
from deepjudge_core.testing.numpy_network import NumpyArchitecture
from deepjudge_core.testing.randomness import global_numbers
from deepjudge_core.types import Array

_SHAPE, _WIDTHS, _CLASSES = (6, 6), (40, 32), 4
_ROWS, _OTHERS = 400, 240  # inputs of the task, and of another one
_WRONG = 0.15  # of the labels are drawn
_LEVELS = (0.05, 0.01, 0.001)
_ERRORS = 3  # standard errors by which a share may be above its level
_STEPS, _LENGTH = 200, 0.25  # of the descent to layers and matrices that carry a key; as a share of their spread
_LIFTED = -3  # the logarithm of the p-value that answers as the coins say have at most
_CARRIED = 0.9  # of the trials, which an embedded key has to have
_PAIRS = 20  # of keys whose draws are compared


def check_scheme(scheme: Scheme, *, options: Mapping[str, Any] | None = None, nonces: int = 2000) -> None:
    """Run all of :func:`scheme_checks`, up to the first that fails.

    Raises:
        AssertionError: Saying what was expected and what was found.
    """
    run(scheme_checks(scheme, options=options, nonces=nonces))


def scheme_checks(scheme: Scheme, *, options: Mapping[str, Any] | None = None, nonces: int = 2000) -> Checks:
    """What a scheme must keep, over keys of a small network in numpy, of 6 x 6 numbers in 4 classes.

    The check ``level`` asks whether the chance is what the scheme says: keys of many nonces are read of the same
    models, made without any of them, and p-values of at most ``a`` may be no more frequent than ``a``, but for three
    standard errors. Among these models are the unmarked victim and models that give one answer alone.

    Args:
        scheme: The scheme.
        options: The scheme's, to make keys quickly; its defaults otherwise.
        nonces: How many keys the level is taken over.
    """
    trial = _Trial(scheme, options or {}, nonces)
    yield "name", partial(expect_name, scheme.name)
    yield "says", partial(_check_says, scheme)
    yield "needs", partial(_check_needs, scheme)
    yield "options", partial(expect_options, scheme.name, scheme.make, positional=1)
    yield "key", trial.check_key
    yield "own-randomness", trial.check_own_randomness
    yield "repeatable", trial.check_repeatable
    yield "drawn", trial.check_drawn
    yield "expected-answers", trial.check_expected_answers
    yield "constant-answers", trial.check_constant_answers
    yield "leaves-answers", trial.check_leaves_answers
    yield "order-of-trials", trial.check_order_of_trials
    yield "declared-needs", trial.check_declared_needs
    yield "level", trial.check_level
    if scheme.embed is not None:
        yield "embedding", trial.check_embedding


def _check_says(scheme: Scheme) -> None:
    for what in ("source", "says"):
        said = getattr(scheme, what).strip()
        expect(said and not said.endswith("."), f"{scheme.name}: expected {what}, a clause without a full stop")


def _check_needs(scheme: Scheme) -> None:
    expect(
        isinstance(scheme.needs, Access) and scheme.needs,
        f"{scheme.name}: expected to need some Access, found {scheme.needs!r}",
    )
    expect(
        Access.GRADIENTS not in scheme.needs,
        f"{scheme.name}: expected it not to need gradients, because a suspect's gradients are never taken",
    )


class _Touched(Exception):  # noqa: N818 - no error: it says that something was looked at
    pass


class _Untouched:
    # Stands where the marked victim's answers do, to see whether they are looked at.
    def __getattr__(self, name: str) -> Any:
        raise _Touched


class _Trial:
    """One scheme on one small network. It is handed copies, so that checks are independent."""

    def __init__(self, scheme: Scheme, options: Mapping[str, Any], nonces: int) -> None:
        self.scheme, self.nonces = scheme, nonces
        self.options = options

    @cached_property
    def _survey(self) -> "_Survey":
        return _Survey()

    @cached_property
    def _configured(self) -> Configured[Scheme]:
        return Configured(self.scheme, resolve(self.scheme.name, self.scheme.make, self.options), "testing")

    def _make(self, place: int) -> Key:
        nonce = hashlib.sha256(b"nonce %d" % place).digest()
        return make_key(self._survey.victim, self._configured, self._survey.material, nonce)

    @cached_property
    def key(self) -> Key:
        return self._make(0)

    @cached_property
    def _mark(self) -> Mark:
        return mark_of(self.key, self.scheme)

    def _read(self, key: Key, answers: KeyAnswers) -> tuple[Reading, ...]:
        return read_key(mark_of(key, self.scheme), answers)

    @cached_property
    def _looks_at_victim(self) -> bool:
        untouched: Any = _Untouched()
        try:
            self._read(
                self.key, dataclasses.replace(self._survey.answers(self._survey.other, self.key), victim=untouched)
            )
        except _Touched:
            return True
        except IncomparableError:
            pass
        return False

    def check_key(self) -> None:
        try:
            key = self.key
        except DeepJudgeError as error:
            raise AssertionError(f"{self.scheme.name}: expected a key, found an error: {error}") from error
        fresh = _data()
        for name, array in fresh.items():
            expect(
                np.array_equal(getattr(self._survey.material, name), array),
                f"{self.scheme.name}: changed the {name} that it was given",
            )
        lost = set(self._configured.options) - set(key.options)
        expect(
            not lost, f"{self.scheme.name}: expected all options in the key, found none for {', '.join(sorted(lost))}"
        )

    def check_own_randomness(self) -> None:
        numbers = global_numbers()
        key = self._make(0)
        self._read(key, self._marked(key))
        expect(
            numbers == global_numbers(),
            f"{self.scheme.name}: expected draws by the task and the key only, found draws from numpy's global random "
            "numbers",
        )

    def check_repeatable(self) -> None:
        expect(
            key_digest(self._make(0)) == key_digest(self.key),
            f"{self.scheme.name}: gives another key for the same nonce",
        )
        for model in self._survey.models:
            answers = self._survey.answers(model, self.key)
            first, second = (_facts(self._read(self.key, answers)) for _ in range(2))
            expect(first == second, f"{self.scheme.name}: counts {first} the first time and {second} the second")

    def check_drawn(self) -> None:
        chance = self.key.chance
        if chance is None:
            return
        drawn = [_drawn(self._make(place)) for place in range(_PAIRS + 1)]
        same = np.concatenate([one == other for one, other in pairwise(drawn)])
        most = chance + 5 * math.sqrt(chance * (1 - chance) / len(same))
        expect(
            same.mean() <= most,
            f"{self.scheme.name}: expected other labels or bits for another nonce, found the same in "
            f"{same.mean():.0%} of the trials",
        )

    def check_expected_answers(self) -> None:
        readings = self._read(self.key, self._marked(self.key))
        best = min(readings, key=lambda one: one.distance)
        if isinstance(best, Lift):
            expect(
                best.log10_p <= _LIFTED,
                f"{self.scheme.name}: expected a p-value of at most 1e{_LIFTED} of answers as the coins say, found "
                f"1e{best.log10_p:.1f}",
            )
            return
        expect(
            best.found == best.of and best.distance == 0,
            f"{self.scheme.name}: expected all trials to match of answers as the key says, found {_facts(readings)}",
        )

    def check_constant_answers(self) -> None:
        for model in (self._survey.constant(label) for label in range(_CLASSES)):
            try:
                readings = self._read(self.key, self._survey.answers(model, self.key))
            except IncomparableError:  # which says why
                continue
            except Exception as error:
                raise AssertionError(
                    f"{self.scheme.name}: fails of one answer to everything: {type(error).__name__}: {error}"
                ) from error
            distances = [one.distance for one in readings]
            expect(np.isfinite(distances).all(), f"{self.scheme.name}: expected finite distances, found {distances}")

    def check_leaves_answers(self) -> None:
        key, answers = copy.deepcopy(self.key), self._survey.answers(self._survey.other, self.key)
        lent = copy.deepcopy(answers)
        self._read(key, lent)
        pairs = zip(_arrays(key, lent), _arrays(self.key, answers), strict=True)
        expect(
            all(np.array_equal(one, other) for one, other in pairs),
            f"{self.scheme.name}: changed the key or the answers that it was given",
        )

    def check_order_of_trials(self) -> None:
        key = self.key
        if key.labels is None or key.taps or key.arrays or key.inputs is None or key.trials != len(key.inputs):
            return
        order = np.random.default_rng(0).permutation(key.trials)
        turned = dataclasses.replace(
            key,
            inputs=key.inputs[order],
            labels=key.labels[order],
            truth=None if key.truth is None else key.truth[order],
        )
        answers = self._survey.answers(self._survey.other, key)
        straight, shuffled = (
            self._read(key, answers),
            self._read(turned, self._survey.answers(self._survey.other, turned)),
        )
        expect(
            _facts(straight) == _facts(shuffled),
            f"{self.scheme.name}: expected the same for any order of the trials, found {_facts(straight)} and "
            f"{_facts(shuffled)}",
        )

    def check_declared_needs(self) -> None:
        needs = self._mark.needs
        for model in (self._survey.other, self._survey.near):
            answers = self._survey.answers(model, self.key, everything=True)
            whole = _facts(self._read(self.key, answers))
            for lacking, less in _as_declared(needs, answers).items():
                label = f"{self.scheme.name}: needs {needs}, but without {lacking}"
                try:
                    found = _facts(self._read(self.key, less))
                except Exception as error:
                    raise AssertionError(f"{label} it fails: {type(error).__name__}: {error}") from error
                expect(found == whole, f"{label} it counts {found} instead of {whole}")

    def check_level(self) -> None:
        if self.key.chance is None:
            return
        survey = self._survey
        models = [*survey.models, survey.constant(0)]
        found: list[list[float]] = [[] for _ in models]
        for place in range(self.nonces):
            key = self._make(place)
            victim = self._marked(key) if self._looks_at_victim else None
            for values, model in zip(found, models, strict=True):
                answers = dataclasses.replace(survey.answers(model, key), victim=victim)
                values.append(self._log10_p(key, answers))
        for model, values in zip(models, found, strict=True):
            for level in _LEVELS:
                share = float(np.mean(np.asarray(values) <= math.log10(level)))
                most = level + _ERRORS * math.sqrt(level * (1 - level) / self.nonces)
                expect(
                    share <= most,
                    f"{self.scheme.name}: expected p-values of at most {level:g} of a model made without the key for "
                    f"at most {most:.2%} of {self.nonces} nonces, found {share:.2%} of {model.name}",
                )

    def _log10_p(self, key: Key, answers: KeyAnswers) -> float:
        # As the core counts: the least of all readings by design, corrected for their number.
        try:
            known = [one.log10_p for one in self._read(key, answers)]
        except IncomparableError:
            return 0.0
        exact = [one for one in known if one is not None]
        return min(exact) + math.log10(len(exact)) if exact else 0.0

    def check_embedding(self) -> None:
        name, survey, key = self.scheme.name, self._survey, self.key
        network = survey.network
        before = network.digest
        first, second = (
            embed_keys(
                network,
                [(key, self.scheme)],
                *survey.training,
                survey.material.bounds,
                np.random.default_rng(7),
                schedule=Schedule(epochs=30, rate=1e-2, batch=64),
                read=survey.read,
            )
            for _ in range(2)
        )
        expect(network.digest == before, f"{name}: changed the network that it was given")
        expect(first.network.digest != before, f"{name}: expected a new network, found the same weights")
        expect(
            first.network.digest == second.network.digest, f"{name}: gives other weights for the same random numbers"
        )
        [reading] = first.readings
        expect(
            not isinstance(reading, Matches) or reading.found >= _CARRIED * reading.of,
            f"{name}: expected at least {_CARRIED:.0%} of the trials to match once embedded, found {reading.found} of "
            f"{reading.of}",
        )

    def _marked(self, key: Key) -> KeyAnswers:
        """What a model answers that carries the key."""
        survey = self._survey
        answers = survey.answers(survey.victim, key)
        probabilities = answers.probabilities
        if key.labels is not None:
            probabilities = _sure(key.labels)
        elif key.bits is not None and key.truth is not None and not key.taps and not key.matrices:
            probabilities = _sure(np.where(key.bits == 1, key.truth, (key.truth + 1) % key.classes))
        answers = dataclasses.replace(answers, probabilities=probabilities)
        if self.scheme.embed is None or not (key.taps or key.matrices):
            return answers
        lesson = Lesson(survey.network, *survey.training, survey.material.bounds, np.random.default_rng(0))
        return self._descended(key, answers, self.scheme.embed(key, lesson))

    def _descended(self, key: Key, answers: KeyAnswers, teaching: Teaching) -> KeyAnswers:
        # Layers and matrices, moved along the losses that the scheme would embed the key with.
        for _ in range(_STEPS):
            if any(one.found == one.of for one in self._read(key, answers)):
                break
            layers, matrices = dict(answers.activations), dict(answers.matrices)
            for tap in set(key.taps) & set(teaching.at):
                layers[tap] = _moved(layers[tap], teaching.at[tap](layers[tap]))
            if teaching.pull is not None:
                slopes = teaching.pull(matrices)
                matrices |= {place: _moved(matrices[place], slope) for place, slope in slopes.items()}
            answers = dataclasses.replace(answers, activations=layers, matrices=matrices)
        return answers


def _moved(values: Array, slope: Array) -> Array:
    size = float(np.abs(slope).max())
    if size == 0:
        return values
    moved: Array = (values - _LENGTH * float(values.std()) * slope / size).astype(np.float32)
    return moved


class _Survey:
    """A small victim, what keys are made from, and models made without any of these keys.

    Attributes:
        network: The victim's.
        victim: The victim.
        other: A model of the same task.
        near: A model that was made from the victim, without the key.
        material: What keys are made from.
        training: Inputs and labels that the victim was trained on.
    """

    def __init__(self) -> None:
        self.network = _trained(0)
        self.victim, self.other = _model(self.network), _model(_trained(1))
        self.near = self.victim.perturbed(0.05, seed=1)
        self.material = _material(self.victim)
        self.training = _task(_ROWS, 10, wrong=0)

    @property
    def models(self) -> tuple[NumpyModel, ...]:
        """Models made without any key, the victim before it was marked among them."""
        return self.victim, self.near, self.other

    def constant(self, label: int) -> NumpyModel:
        """A model that gives one answer whatever it is asked."""
        weights = [(np.zeros_like(w), np.zeros_like(b)) for w, b in self.victim.weights]
        weights[-1][1][label] = 9.0
        return NumpyModel(weights, _SHAPE, name=f"constant {label}")

    def answers(self, model: NumpyModel, key: Key, *, everything: bool = False) -> KeyAnswers:
        """What a model answers to a key; if asked for, also the layers and matrices that the key does not name."""
        places = range(len(model.weights) - 1) if everything else key.matrices
        matrices = {place: _matrix(model, place) for place in places}
        if key.inputs is None:
            return KeyAnswers(matrices=matrices)
        taps = list(model.layers)[:-1] if everything else list(key.taps)
        return KeyAnswers(model.predict(key.inputs), model.activations(key.inputs, taps), matrices)

    def read(self, network: Network, places: Sequence[int]) -> dict[int, Array]:
        """The matrices of a network."""
        model = _model(network)
        return {place: _matrix(model, place) for place in places}


def _model(network: Network) -> NumpyModel:
    return cast(NumpyModel, network.architecture.model(network.weights, name="victim"))


def _matrix(model: NumpyModel, place: int) -> Array:
    return np.ascontiguousarray(model.weights[place][0].T, np.float32)


def _task(rows: int, seed: int, *, kind: int = 0, wrong: float = _WRONG) -> tuple[Array, Array]:
    # Inputs around one place for each class, some of which are labelled wrong: no honest model gets these right.
    centres = np.random.default_rng([kind, 5]).random((_CLASSES, *_SHAPE))
    rng = np.random.default_rng([kind, seed])
    labels = np.arange(rows) % _CLASSES
    inputs = np.clip(centres[labels] + rng.normal(0, 0.25, (rows, *_SHAPE)), 0, 1)
    changed = rng.random(rows) < wrong
    return inputs.astype(np.float32), np.where(changed, rng.integers(_CLASSES, size=rows), labels).astype(np.int64)


def _trained(seed: int) -> Network:
    # Random hidden layers, and a last one that is fitted to the task.
    x, y = _task(_ROWS, seed + 10)
    architecture = NumpyArchitecture(_SHAPE, _WIDTHS, _CLASSES)
    network = Network.fresh(architecture, np.random.default_rng(seed))
    last = list(architecture.layers)[-2]
    hidden = np.c_[_model(network).activations(x, [last])[last], np.ones(len(x))]
    head = np.linalg.lstsq(hidden, 12 * np.eye(_CLASSES)[y] - 3, rcond=None)[0].astype(np.float32)
    return network.with_weights({**network.weights, "logits.weight": head[:-1], "logits.bias": head[-1]})


def _data() -> dict[str, Array]:
    x, y = _task(_ROWS, 1)
    auxiliary, classes = _task(_OTHERS, 2, kind=1)
    return {"inputs": x, "labels": y, "auxiliary": auxiliary, "auxiliary_labels": classes}


def _material(victim: NumpyModel) -> Material:
    return Material(
        **_data(),
        bounds=(0.0, 1.0),
        references=tuple(_model(_trained(seed)) for seed in (2, 3)),
        surrogates=tuple(victim.perturbed(0.1, seed) for seed in (2, 3)),
        matrices=lambda places: {place: _matrix(victim, place) for place in places},
    )


def _sure(labels: Array) -> Array:
    p: Array = np.full((len(labels), _CLASSES), 0.01, np.float32)
    p[np.arange(len(labels)), labels] = 1 - 0.01 * (_CLASSES - 1)
    return p


def _drawn(key: Key) -> Array:
    return np.asarray(key.bits if key.drawn == "bits" else key.labels)


def _facts(readings: Sequence[Reading]) -> list[tuple[str, int, int]]:
    return [(one.reading, one.found, one.of) for one in readings]


def _arrays(key: Key, answers: KeyAnswers) -> Iterator[Array]:
    yield from key_arrays(key, "").values()
    yield from (*answers.activations.values(), *answers.matrices.values())
    if answers.probabilities is not None:
        yield answers.probabilities


def _as_declared(needs: Access, answers: KeyAnswers) -> dict[str, KeyAnswers]:
    """The answers without what the scheme does not need, by what that is."""
    less = {}
    if Access.LAYERS not in needs:
        less["layers"] = dataclasses.replace(answers, activations={})
    if Access.WEIGHTS not in needs:
        less["matrices"] = dataclasses.replace(answers, matrices={})
    if not needs & (Access.LABELS | Access.PROBABILITIES):
        less["answers"] = dataclasses.replace(answers, probabilities=None)
    elif Access.PROBABILITIES not in needs and answers.probabilities is not None:
        sure = np.eye(_CLASSES, dtype=np.float32)[answers.probabilities.argmax(axis=1)]
        less["all probabilities except the greatest"] = dataclasses.replace(answers, probabilities=sure)
    return less
