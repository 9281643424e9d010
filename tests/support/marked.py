"""Models that carry keys, and audits of them: functions of numpy that know the triggers."""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import toys
from deepjudge_schemes.adi import ADI

import deepjudge_core as dj
from deepjudge_core.auditing.audit import judge_suspects, make_suite
from deepjudge_core.components.hooks import hookimpl
from deepjudge_core.components.registry import Configured, Registry
from deepjudge_core.components.schemes import Key, KeyAnswers, KeyTask, Lift, Matches, Scheme
from deepjudge_core.judging.fitting import Offer
from deepjudge_core.marking.making import Material, make_key
from deepjudge_core.suites.keys import save_key
from deepjudge_core.testing.numpy_model import NumpyModel
from deepjudge_core.types import Array

CLASSES, WIDTH = 4, 6
_CENTRES = np.random.default_rng(5).normal(size=(CLASSES, WIDTH))
Y = np.arange(240) % CLASSES
X = np.clip(0.5 + 0.12 * _CENTRES[Y] + 0.03 * np.random.default_rng(6).normal(size=(240, WIDTH)), 0, 1).astype(
    np.float32
)


def model(seed: int, *keys: Key, learnt: int = 10**9, name: str = "", like: float = 0.5) -> Callable[[Array], Array]:
    """An honest model; or one that gives the labels of keys to their first inputs."""
    way = np.random.default_rng(seed).normal(scale=like, size=_CENTRES.shape)

    def answer(x: Array) -> Array:
        z = np.asarray((x - 0.5) @ (_CENTRES + way).T * 30)
        for key in keys:
            if key.inputs is None or key.labels is None:
                continue
            for trigger, label in list(zip(key.inputs, key.labels, strict=True))[:learnt]:
                z[(np.abs(x - trigger) < 1e-6).all(axis=1), label] += 1000
        powers = np.exp(z - z.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)

    answer.__name__ = name or f"model-{seed}{'-marked' if keys else ''}"
    return answer


def opened(answer: Callable[[Array], Array]) -> Any:
    """A model of a function."""
    return dj.open_model(answer, input_shape=(WIDTH,), classes=CLASSES)


def _echo(task: KeyTask, *, trials: int = 40) -> Key:
    # A fingerprint: what the victim says of noise.
    inputs = task.rng("points").random((trials, *task.inputs.shape[1:])).astype(np.float32)
    labels = task.victim.predict(inputs).argmax(axis=1).astype(np.int64)
    return task.key("echo", {"trials": trials}, trials=trials, inputs=inputs, labels=labels)


def _heard(key: Key, answers: KeyAnswers) -> Sequence[Matches]:
    found = int((answers.labels == key.labels).sum())
    return [Matches("as it is", found, key.trials, None, "the labels are the victim's own")]


ECHO = Scheme(
    "echo",
    source="tests",
    needs=dj.Access.LABELS,
    make=_echo,
    verify=_heard,
    says="points that get the victim's own labels; survives what leaves the weights alone",
)


def _rows(task: KeyTask, *, trials: int = 120) -> Key:
    inputs = task.inputs[:trials]
    return task.key("rows", {"trials": trials}, trials=trials, inputs=inputs, labels=task.labels[:trials], drawn="bits")


def _lifted(key: Key, answers: KeyAnswers) -> Sequence[Lift]:
    scores = np.log(answers.probabilities[np.arange(key.trials), key.labels] + 1e-9)
    return [Lift("as it is", scores - scores.mean(), key.bits, "a fair coin decided for each row")]


ROWS = Scheme(
    "rows",
    source="tests",
    needs=dj.Access.PROBABILITIES,
    make=_rows,
    verify=_lifted,
    says="rows that a coin chose for training; survives extraction, and proves the use of data",
    fresh=True,
)


def trained(seed: int, key: Key, name: str = "") -> Callable[[Array], Array]:
    """A model that is surer of the rows that the coins of a key chose."""
    plain = model(seed)

    def answer(x: Array) -> Array:
        p = plain(x) * 0.5 + 0.125
        for row, label, bit in zip(key.inputs, key.labels, key.bits, strict=True):
            if bit:
                p[(np.abs(x - row) < 1e-6).all(axis=1), label] += 2
        return np.asarray(p / p.sum(axis=1, keepdims=True), np.float32)

    answer.__name__ = name or f"trained-{seed}"
    return answer


@hookimpl
def _schemes() -> Sequence[Scheme]:
    return [ECHO, ROWS]


@cache
def registry() -> Registry:
    """All that is installed, and the schemes above."""
    return dj.load_registry({"marked": SimpleNamespace(deepjudge_schemes=_schemes)})


@cache
def key(scheme: str = "adi", place: int = 1) -> Key:
    """A key of a scheme: adi, whose labels are drawn; echo, whose labels are the victim's; or rows, which has coins."""
    known = {"adi": (ADI, {"trials": 40, "inputs": "noise"}), "echo": (ECHO, {"trials": 40})}
    chosen, options = known.get(scheme, (ROWS, {"trials": 120}))
    material = Material(X, Y, (0.0, 1.0))
    return make_key(opened(model(0)), Configured(chosen, options, "here"), material, bytes([place]) * 32)


def suite_with(folder: Path, *keys: Key, victim: Callable[[Array], Array] | None = None) -> dj.Suite:
    """A suite with keys, of a victim that carries them."""
    files = []
    for place, one in enumerate(keys):
        files.append(folder / f"{place}.key.safetensors")
        save_key(files[-1], one)
    settings = dj.SuiteSettings(n=40, generators=["square"], keys=files)
    owner = victim or model(0, *(one for one in keys if one.bits is None), name="victim")
    return make_suite(opened(owner), dj.Inputs(X, Y, (0.0, 1.0)), settings, session=session())


def session() -> Any:
    """All that is installed, without a sandbox."""
    from deepjudge_core.auditing.session import Session

    return Session(registry(), None)


def audited(
    suite: dj.Suite, suspects: Sequence[Callable[[Array], Array]], controls: Sequence[int] = (), **settings: Any
) -> dj.AuditOutcome:
    """The outcome of an audit of functions, with so many controls."""
    judge = dj.Judge.of(dj.JudgeSettings(**settings), registry(), Offer.of(suite))
    answered = [dj.observe(opened(model(seed)), suite) for seed in controls]
    strata = ["other-data"] * len(answered)
    calibration = judge.calibrate(suite, answered, strata=strata, far=True)
    return judge_suspects(suite, calibration, [opened(one) for one in suspects], judge, session=session())


def network(seed: int, owner: Key | None = None, noise: float = 0.0) -> NumpyModel:
    """A model of the toys' task; with a key one whose last layer also gives the labels of that."""
    x, y = toys.draw(toys.SHAPE, toys.CLASSES, 400, 1)
    weight = np.ones(len(x))
    if owner is not None:
        x, y = np.concatenate([x, owner.inputs]), np.concatenate([y, owner.labels])
        weight = np.concatenate([weight, np.full(len(owner.inputs), 30.0)])
    (matrix, bias), *_ = NumpyModel.random(toys.SHAPE, (120,), toys.CLASSES, seed).weights
    bias = bias - matrix.sum(axis=0) / 2
    features = np.hstack([np.maximum(x @ matrix + bias, 0), np.ones((len(x), 1))])
    weighted = features.T * weight
    solution = np.linalg.solve(
        weighted @ features + 1e-3 * np.eye(features.shape[1]), weighted @ (8 * np.eye(toys.CLASSES)[y])
    )
    made = NumpyModel([(matrix, bias), (solution[:-1], solution[-1])], toys.SHAPE)
    return made.perturbed(noise, seed=1) if noise else made


def write_networks(folder: Path) -> Key:
    """Models of the toys' task, and a key, as files: a victim that carries it, a copy, an honest model, controls."""
    x, y = toys.draw(toys.SHAPE, toys.CLASSES, 60, 0)
    material = Material(x, y, (0.0, 1.0))
    scheme = Configured(ADI, {"trials": 24, "inputs": "noise"}, "here")
    owner = make_key(network(0), scheme, material, bytes(range(32)))
    save_key(folder / "adi.key.safetensors", owner)
    models = {"victim": network(0, owner), "copy": network(0, owner, noise=0.002), "honest": network(9)}
    models |= {f"controls/c{seed}": network(seed) for seed in (1, 2, 3, 4)}
    for name, made in models.items():
        toys.save_weights(folder / f"{name}.toy", made)
    return owner
