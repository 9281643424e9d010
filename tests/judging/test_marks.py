"""The setting of marks: what keys accuse of, by design and by controls, and what they leave open."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deepjudge_schemes.adi import ADI
from refusals import refused
from scipy import stats

import deepjudge_core as dj
from deepjudge_core.components.chances import log10_binomial_tail, log10_lift
from deepjudge_core.components.drawing import draw, draw_normal
from deepjudge_core.components.registry import Configured
from deepjudge_core.components.schemes import Key, KeyTask, Lift, Scheme
from deepjudge_core.components.values import Decision
from deepjudge_core.errors import FileFormatError, InputError
from deepjudge_core.files import storage
from deepjudge_core.files.documents import plain
from deepjudge_core.judging.judge import Verdict
from deepjudge_core.marking.making import Material, make_key
from deepjudge_core.suites.keys import key_arrays, key_header, load_key, names_of, save_key
from deepjudge_core.suites.suite import Suite, load_suite, save_suite
from deepjudge_core.types import Array

CLASSES, WIDTH = 4, 6
CENTRES = np.random.default_rng(5).normal(size=(CLASSES, WIDTH))
RNG = np.random.default_rng(6)
Y = np.arange(240) % CLASSES
X = np.clip(0.5 + 0.12 * CENTRES[Y] + 0.03 * RNG.normal(size=(240, WIDTH)), 0, 1).astype(np.float32)
NONCE = bytes(range(32))


def scores(x: Array, seed: int) -> Array:
    way = np.random.default_rng(seed).normal(scale=0.15, size=CENTRES.shape)
    return np.asarray((x - 0.5) @ (CENTRES + way).T * 30)


def probabilities(z: Array) -> Array:
    powers = np.exp(z - z.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)


def model(seed: int, key: Key | None = None, learnt: int = 10**9) -> Callable[[Array], Array]:
    """An honest model; or one that gives the labels of a key to its first inputs."""

    def answer(x: Array) -> Array:
        z = scores(x, seed)
        if key is not None and key.inputs is not None and key.labels is not None:
            for trigger, label in list(zip(key.inputs, key.labels, strict=True))[:learnt]:
                z[(np.abs(x - trigger) < 1e-6).all(axis=1), label] += 1000
        return probabilities(z)

    answer.__name__ = f"model-{seed}-{'marked' if key else 'plain'}-{learnt}"
    return answer


def opened(answer: Callable[[Array], Array]) -> Any:
    return dj.open_model(answer, input_shape=(WIDTH,), classes=CLASSES)


def made(scheme: Scheme = ADI, nonce: bytes = NONCE, **options: Any) -> Key:
    chosen = {"trials": 40, "inputs": "noise"} | options if scheme is ADI else options
    return make_key(opened(model(0)), Configured(scheme, chosen, "here"), Material(X, Y, (0.0, 1.0)), nonce)


KEY = made()


def suite_with(path: Path, *keys: Key, victim: Callable[[Array], Array] | None = None) -> Suite:
    files = []
    for place, key in enumerate(keys):
        files.append(path / f"{place}.key.safetensors")
        save_key(files[-1], key)
    settings = dj.SuiteSettings(n=40, generators=["square"], keys=files)
    return dj.make_suite(opened(victim or model(0, keys[0])), dj.Inputs(X, Y, (0.0, 1.0)), settings)


def judged(suite: Suite, suspect: Callable[[Array], Array], controls: Sequence[int] = (), **settings: Any) -> Verdict:
    answers = [dj.observe(opened(model(seed)), suite) for seed in controls]
    calibration = dj.calibrate(suite, answers)
    measured = dj.measure(suite, dj.observe(opened(suspect), suite), calibration=calibration)
    return dj.judge(measured, calibration, dj.JudgeSettings(**settings))


def test_a_copy_is_found_by_its_triggers_without_controls(tmp_path: Path) -> None:
    suite = suite_with(tmp_path, KEY)
    verdict = judged(suite, model(7, KEY, learnt=30))
    setting, result = verdict.settings["marks"], verdict.metrics["adi"]
    assert (verdict.decision, setting.decision, result.vote.vote) == (Decision.COPY, Decision.COPY, True)
    assert result.counted is not None
    found, of = result.counted.reading.found, result.counted.reading.of
    assert (of, found >= 30) == (40, True)
    assert setting.log10_p == pytest.approx(np.log10(stats.binom.sf(found - 1, 40, 0.25)), abs=1e-9)


def test_an_honest_model_is_neither_accused_nor_acquitted_by_marks(tmp_path: Path) -> None:
    verdict = judged(suite_with(tmp_path, KEY), model(8), controls=range(20, 26))
    assert verdict.settings["marks"].decision is None
    assert verdict.metrics["adi"].vote.vote is None


def test_a_suite_keeps_its_keys_and_without_any_its_digest(tmp_path: Path) -> None:
    suite = suite_with(tmp_path, KEY, made(nonce=bytes(32)), victim=both(KEY, made(nonce=bytes(32))))
    save_suite(tmp_path / "suite.safetensors", suite)
    again = load_suite(tmp_path / "suite.safetensors")
    assert again.digest == suite.digest
    assert names_of(again.keys) == ("adi", "adi-2")
    assert (again.keys[0].labels == KEY.labels).all()
    assert replace(again, keys=(), victim=replace(again.victim, keys=())).digest != suite.digest


def both(*keys: Key) -> Callable[[Array], Array]:
    def answer(x: Array) -> Array:
        z = scores(x, 0)
        for key in keys:
            for trigger, label in zip(np.asarray(key.inputs), np.asarray(key.labels), strict=True):
                z[(np.abs(x - trigger) < 1e-6).all(axis=1), label] += 1000
        return probabilities(z)

    return answer


def test_an_unmarked_victim_is_refused(tmp_path: Path) -> None:
    with refused(InputError, code="conflict"):
        suite_with(tmp_path, KEY, victim=model(0))


def test_edited_labels_are_refused(tmp_path: Path) -> None:
    labels = (np.asarray(KEY.labels) + 1) % CLASSES
    forged = replace(KEY, labels=labels)
    content = storage.seal("key", plain(key_header(forged)), key_arrays(forged, ""))
    storage.write(tmp_path / "forged.safetensors", content)
    with refused(FileFormatError, code="damaged-file"):
        load_key(tmp_path / "forged.safetensors")


def test_a_key_file_is_its_owners_alone_and_equal_keys_give_equal_bytes(tmp_path: Path) -> None:
    save_key(tmp_path / "a.safetensors", KEY)
    save_key(tmp_path / "b.safetensors", made())
    assert (tmp_path / "a.safetensors").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_changing_one_input_draws_all_labels_anew() -> None:
    inputs = np.array(KEY.inputs)
    inputs[0, 0] = 1 - inputs[0, 0]
    other = replace(KEY, inputs=inputs).completed()
    assert not replace(other, labels=KEY.labels).follows
    assert (np.asarray(other.labels)[1:] != np.asarray(KEY.labels)[1:]).mean() > 0.4


def test_the_binomial_tail_is_scipys() -> None:
    for found, of, chance in ((44, 100, 0.1), (0, 5, 0.5), (64, 64, 0.5), (1, 3, 0.25)):
        assert log10_binomial_tail(found, of, chance) == pytest.approx(
            stats.binom.logsf(found - 1, of, chance) / np.log(10)
        )


def test_a_lift_accuses_no_more_than_its_level() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(size=300)
    ps = [log10_lift(values, rng.integers(0, 2, 300)) for _ in range(200)]
    for level in (0.05, 0.01):
        assert np.mean(np.array(ps) <= np.log10(level)) <= level + 3 * np.sqrt(level / 200)
    strong = (values > 0).astype(int)
    assert log10_lift(values, strong) < -30
    assert Lift("it", values, strong, "why").distance < 0.1


def test_what_is_drawn_is_uniform_and_follows_from_the_nonce() -> None:
    drawn = draw(NONCE, "test", 30_000, 10)
    assert (drawn == draw(NONCE, "test", 30_000, 10)).all()
    assert stats.chisquare(np.bincount(drawn, minlength=10)).pvalue > 1e-4
    assert stats.kstest(draw_normal(NONCE, "test", (5_000,)), "norm").pvalue > 1e-4
    assert (draw(NONCE, "other", 100, 10) != drawn[:100]).any()


def test_task_randomness_follows_from_the_nonce() -> None:
    task = KeyTask(opened(model(0)), X, Y, (0.0, 1.0), NONCE)
    assert (task.rng("a").random(5) == task.rng("a").random(5)).all()
    assert (task.rng("a").random(5) != task.rng("b").random(5)).any()
