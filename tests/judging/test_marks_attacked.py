"""Keys against those who cheat: owners who want an honest model accused, thieves, and files of strangers."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import marked
import numpy as np
import pytest
from deepjudge_schemes.uchida import UCHIDA
from marked import CLASSES, X, Y, audited, model, opened, suite_with
from refusals import refused

import deepjudge_core as dj
from deepjudge_core.components.chances import log10_lift
from deepjudge_core.components.registry import Configured
from deepjudge_core.components.schemes import Key, KeyAnswers, KeyTask, Lift, Matches, Reading, Scheme
from deepjudge_core.components.values import Decision
from deepjudge_core.errors import FileFormatError, UsageError
from deepjudge_core.files import storage
from deepjudge_core.files.documents import plain
from deepjudge_core.judging.keys import mark_of, read_key
from deepjudge_core.marking.making import Material, make_key
from deepjudge_core.suites.keys import key_arrays, key_header, load_key, names_of
from deepjudge_core.suites.suite import load_suite, save_suite
from deepjudge_core.types import Array

KEY, CONTROLS = marked.key(), range(20, 30)
HONEST = model(8, name="honest")


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> dj.Suite:
    return suite_with(tmp_path_factory.mktemp("keys"), KEY)


def of_key(x: Array) -> Array:
    """Which inputs are those of the key."""
    return np.array([(np.abs(np.asarray(KEY.inputs) - row) < 1e-6).all(axis=1).any() for row in x])


def verdict_of(suite: dj.Suite, suspect: Callable[[Array], Array]) -> Any:
    [found] = audited(suite, [suspect], CONTROLS, metrics=["robd", "jsd"]).suspects
    assert found.verdict is not None
    return found.verdict


def not_a_number(x: Array) -> Array:
    answers = model(0)(x)
    answers[of_key(x)] = np.nan
    return answers


def refusing(x: Array) -> Array:
    if of_key(x).any():
        raise ValueError("no")
    return model(0)(x)


@pytest.mark.parametrize("thief", [not_a_number, refusing])
def test_who_does_not_answer_a_key_is_judged_by_the_cases(suite: dj.Suite, thief: Callable[[Array], Array]) -> None:
    verdict = verdict_of(suite, thief)
    marks = verdict.settings["marks"]
    assert (verdict.decision, marks.decision, bool(marks.reason)) == (Decision.COPY, None, True)


def test_a_key_that_the_victim_of_a_changed_suite_does_not_carry_accuses_nobody(
    suite: dj.Suite, tmp_path: Path
) -> None:
    unmarked = dj.observe(opened(model(0)), suite).keys
    save_suite(tmp_path / "changed", replace(suite, victim=replace(suite.victim, keys=unmarked)))
    assert verdict_of(load_suite(tmp_path / "changed"), model(7, KEY)).settings["marks"].decision is None


def test_an_order_of_classes_that_fits_the_key_and_not_the_seeds_is_not_taken(suite: dj.Suite) -> None:
    # Of four classes an order is easily found by which an honest model matches more than the others do.
    order = (1, 2, 3, 0)
    given = dj.observe(opened(HONEST), suite, dj.QuerySettings(classes=order))
    assert given.keys[0].probabilities is None
    assert given.keys[0].missing
    shifted = opened(lambda x: model(8)(x)[:, list(order)])
    right = dj.observe(shifted, suite, dj.QuerySettings(classes=tuple(np.argsort(order).tolist())))
    assert right.keys[0].probabilities is not None


def test_an_answer_that_prefers_no_class_matches_none() -> None:
    even = KeyAnswers(np.full((3, CLASSES), 0.25, np.float32))
    assert (even.labels == -1).all()
    assert (KeyAnswers(np.eye(CLASSES, dtype=np.float32)).labels == np.arange(CLASSES)).all()


def test_a_key_called_as_a_metric_takes_no_metric_away(suite: dj.Suite, tmp_path: Path) -> None:
    save_suite(tmp_path / "suite", replace(suite, keys=(replace(KEY, scheme="robd", drawn=None),)))
    with refused(UsageError, code="conflict"):
        verdict_of(load_suite(tmp_path / "suite"), HONEST)


def test_keys_have_names_of_their_own() -> None:
    named = names_of([replace(KEY, scheme=scheme) for scheme in ("a", "a-2", "a")])
    assert len(set(named)) == 3


HOSTILE: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "more classes than numbers": ({"classes": 2**70}, {}),
    "more classes than memory": ({"classes": 2**64}, {}),
    "more trials than memory": ({"trials": 2**60, "drawn": "bits"}, {}),
    "another shape": ({"shape": [2**60, 2**60]}, {}),
    "negative": ({"shape": [-6]}, {}),
    "no inputs": ({"drawn": None, "trials": 1}, {"inputs": np.zeros((0, 6), np.float32), "labels": None}),
    "a name that moves the cursor": ({"scheme": "a\x1b[2Jb", "drawn": None}, {}),
    "a lone wrong class": ({"classes": 2, "drawn": "wrong-labels"}, {"truth": 1 - Y[:40] % 2, "labels": Y[:40] % 2}),
    "not finite": ({}, {"inputs": np.full((40, 6), np.inf, np.float32)}),
    "other options": ({"options": {"trials": 41}}, {}),
    "chosen bits": ({}, {"bits": np.zeros(40, np.int64)}),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_key_file_is_refused(tmp_path: Path, what: str) -> None:
    header, arrays = HOSTILE[what]
    whole = {name: array for name, array in (key_arrays(KEY, "") | arrays).items() if array is not None}
    storage.write(tmp_path / "key", storage.seal("key", {**plain(key_header(KEY)), **header}, whole))
    with refused(FileFormatError, code="damaged-file"):
        load_key(tmp_path / "key")


def read_by(verify: Callable[[Key, KeyAnswers], Sequence[Reading]], drawn: str) -> Sequence[Reading]:
    """What a scheme of a stranger reads of an honest model."""

    def make(task: KeyTask) -> Key:
        inputs = task.inputs[:40]
        return task.key("strange", {}, trials=40, inputs=inputs, drawn=drawn)

    scheme = Scheme("strange", source="tests", needs=dj.Access.LABELS, make=make, verify=verify)
    key = make_key(opened(model(0)), Configured(scheme, {}, "here"), Material(X, Y, (0.0, 1.0)), bytes(32))
    return read_key(mark_of(key, scheme), KeyAnswers(model(8)(np.asarray(key.inputs))))


def coins_as_scores(key: Key, _: KeyAnswers) -> Sequence[Reading]:
    return [Lift("direct", np.asarray(key.bits) - 0.5, np.asarray(key.bits), "a coin")]


def coins_drawn_anew(key: Key, _: KeyAnswers) -> Sequence[Reading]:
    return [Lift("direct", key.draw("bits", 40, 2) - 0.5, np.asarray(key.bits), "a coin")]


def all_of_them(key: Key, _: KeyAnswers) -> Sequence[Reading]:
    return [Matches("direct", 40, 40, 1 / CLASSES, "so it is")]


def only_what_matches(key: Key, answers: KeyAnswers) -> Sequence[Reading]:
    found = int((answers.labels == key.labels).sum())
    return [Matches("direct", found, max(found, 1), 1 / CLASSES, "the others were not learnt")]


def a_part(key: Key, answers: KeyAnswers) -> Sequence[Reading]:
    return [Matches("direct", 9.5, 40, 1 / CLASSES, "half of one")]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("verify", "drawn"),
    [
        (coins_as_scores, "bits"),
        (coins_drawn_anew, "bits"),
        (all_of_them, "labels"),
        (only_what_matches, "labels"),
        (a_part, "labels"),
    ],
)
def test_a_scheme_whose_chance_is_not_that_of_the_draw_is_refused(
    verify: Callable[[Key, KeyAnswers], Sequence[Reading]], drawn: str
) -> None:
    with pytest.raises(ValueError, match="expected"):
        read_by(verify, drawn)


def test_scores_of_any_size_give_a_chance() -> None:
    coins = np.arange(40) % 2
    assert log10_lift(np.full(40, 1e308), coins) == 0
    assert log10_lift(np.where(coins, 1e308, -1e308), coins) == log10_lift(np.where(coins, 1.0, -1.0), coins)


def test_one_trigger_many_times_is_matched_as_often_as_chance_says() -> None:
    # Whoever gives one answer to all of them matches as a binomial: the labels are drawn one by one.
    once = replace(KEY, inputs=np.repeat(np.asarray(KEY.inputs)[:1], 40, axis=0))
    counts = [int((replace(once, nonce=bytes([n]) * 32).completed().labels == 2).sum()) for n in range(200)]
    assert np.mean(counts) == pytest.approx(40 / CLASSES, abs=1)
    assert np.var(counts) == pytest.approx(40 / CLASSES * (1 - 1 / CLASSES), rel=0.4)


def test_bits_are_read_of_neurons_that_were_scaled_out_of_all_bounds_or_added() -> None:
    rng = np.random.default_rng(0)
    first, own = rng.normal(size=(8, 12)).astype(np.float32), rng.normal(size=(10, 72)).astype(np.float32)
    arrays = {"columns": np.array([72]), "before": first, "own": own}
    parts: dict[str, Any] = {"arrays": arrays, "matrices": (0, 1), "drawn": "bits"}
    options = {"trials": 30, "matrix": "second", "norm": "mean"}
    key = Key("uchida", options, bytes(32), "parent", (6,), CLASSES, 30, **parts).completed()

    def counted(one: Array, other: Array) -> dict[str, int]:
        read = read_key(mark_of(key, UCHIDA), KeyAnswers(matrices={0: one, 1: other}))
        return {reading.reading: reading.found for reading in read}

    plain, scaled = counted(first, own), counted(first * np.float32(1e25), own)
    assert scaled["aligned to the parent"] == plain["aligned to the parent"]
    assert set(counted(first, np.vstack([own, own[:1]]))) == {"direct"}
