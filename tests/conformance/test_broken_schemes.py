"""The contract of schemes fails where it should: here it is broken in each way that it is there for."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from contracts import failures

from deepjudge_core import Access
from deepjudge_core.components.schemes import Key, KeyAnswers, KeyTask, Lesson, Matches, Scheme, Teaching
from deepjudge_core.judging.neurons import match_neurons
from deepjudge_core.testing import check_scheme, scheme_checks
from deepjudge_core.types import Array

TRIALS, NONCES = 24, 200
WHY = "each label was drawn at random"


def noise(task: KeyTask) -> Array:
    return task.rng("noise").random((TRIALS, *task.inputs.shape[1:]), dtype=np.float32)


def make(task: KeyTask) -> Key:
    return task.key("mine", {}, trials=TRIALS, inputs=noise(task), drawn="labels")


def verify(key: Key, answers: KeyAnswers) -> Sequence[Matches]:
    return [Matches("direct", int((answers.labels == key.labels).sum()), key.trials, 1 / key.classes, WHY)]


def embed(key: Key, lesson: Lesson) -> Teaching:
    return Teaching(key.inputs, key.labels)


MINE = Scheme("mine", "practice", Access.LABELS, make, verify, embed, says="noise that gets its secret labels")


def changed(**parts: Any) -> Scheme:
    return dataclasses.replace(MINE, **parts)


def test_a_scheme_that_keeps_the_contract_passes() -> None:
    check_scheme(MINE, nonces=NONCES)


# What is chosen after the draw.


def grinds(task: KeyTask) -> Key:
    """Takes of many keys the one that the victim matches most."""
    keys = []
    for attempt in range(12):
        inputs = task.rng(f"noise {attempt}").random((TRIALS, *task.inputs.shape[1:]), dtype=np.float32)
        keys.append(task.key("mine", {}, trials=TRIALS, inputs=inputs, drawn="labels"))
    return max(keys, key=lambda key: (task.victim.predict(key.inputs).argmax(axis=1) == key.labels).sum())


def counts_what_fits(key: Key, answers: KeyAnswers) -> Sequence[Matches]:
    """Leaves trials out that do not match."""
    labels, drawn = np.asarray(answers.labels), np.asarray(key.labels)
    counting = (labels == drawn) | (np.arange(len(drawn)) % 2 == 0)
    found = int((labels == drawn)[counting].sum())
    return [Matches("direct", found, int(counting.sum()), 1 / key.classes, WHY)]


def best_half(key: Key, answers: KeyAnswers) -> Sequence[Matches]:
    matches = answers.labels == key.labels
    half = max((matches[: TRIALS // 2], matches[TRIALS // 2 :]), key=np.sum)
    return [Matches("direct", int(half.sum()), len(half), 1 / key.classes, WHY)]


# Neurons aligned to those of the marked victim, which know the bits.


def make_bits(task: KeyTask) -> Key:
    tap = list(task.victim.layers)[-2]
    return task.key("mine", {}, trials=16, inputs=task.inputs[:40], taps=(tap,), drawn="bits")


def reader(key: Key, outputs: Array) -> Array:
    return key.draw_normal("reader", (key.trials, outputs.shape[1]))


def aligned_to_the_victim(key: Key, answers: KeyAnswers) -> Sequence[Matches]:
    [tap] = key.taps
    outputs = answers.activations[tap]
    ours = outputs if answers.victim is None else answers.victim.activations[tap]
    beside = match_neurons(ours, outputs).apply(outputs)
    found = int(((reader(key, outputs) @ beside.mean(axis=0) >= 0) == key.bits).sum())
    return [Matches("direct", found, key.trials, 0.5, "each bit was drawn at random")]


def pull_bits(key: Key, lesson: Lesson) -> Teaching:
    def at(outputs: Array) -> Array:
        read = reader(key, outputs)
        slope = (1 / (1 + np.exp(-read @ outputs.mean(axis=0))) - key.bits) @ read
        return np.repeat(slope[None], len(outputs), axis=0) / len(outputs)

    return Teaching(key.inputs, np.zeros(40, np.int64), at={key.taps[0]: at})


BITS = changed(needs=Access.LAYERS, make=make_bits, verify=aligned_to_the_victim, embed=pull_bits)

# Randomness of its own, and what it does not need.


def own_noise(task: KeyTask) -> Key:
    inputs = np.random.default_rng().random((TRIALS, *task.inputs.shape[1:]), dtype=np.float32)
    return task.key("mine", {}, trials=TRIALS, inputs=inputs, drawn="labels")


def global_noise(task: KeyTask) -> Key:
    np.random.rand()  # noqa: NPY002 - what the check is about
    return make(task)


def reads_probabilities(key: Key, answers: KeyAnswers) -> Sequence[Matches]:
    second = np.argsort(answers.probabilities, axis=1)[:, -2]
    found = int((second == key.labels).sum())
    return [*verify(key, answers), Matches("second", found, key.trials, 1 / key.classes, WHY)]


def reads_layers(key: Key, answers: KeyAnswers) -> Sequence[Matches]:
    seen = sum(len(outputs) for outputs in answers.activations.values())
    return [dataclasses.replace(verify(key, answers)[0], found=min(seen, TRIALS))]


def reads_matrices(key: Key, answers: KeyAnswers) -> Sequence[Matches]:
    return [dataclasses.replace(verify(key, answers)[0], found=len(answers.matrices))]


# Others.


def by_place(key: Key, answers: KeyAnswers) -> Sequence[Matches]:
    matches = (answers.labels == key.labels)[:9]
    return [Matches("direct", int(matches.sum()), 9, 1 / key.classes, WHY)]


def changes_answers(key: Key, answers: KeyAnswers) -> Sequence[Matches]:
    found = verify(key, answers)
    answers.probabilities[:] = 0
    return found


def fails_of_one_answer(key: Key, answers: KeyAnswers) -> Sequence[Matches]:
    if len(np.unique(answers.labels)) == 1:
        raise ValueError
    return verify(key, answers)


def never_whole(key: Key, answers: KeyAnswers) -> Sequence[Matches]:
    [one] = verify(key, answers)
    return [dataclasses.replace(one, found=min(one.found, TRIALS - 1))]


def outside(task: KeyTask) -> Key:
    return task.key("mine", {}, trials=TRIALS, inputs=2 * noise(task), drawn="labels")


def changes_inputs(task: KeyTask) -> Key:
    key = make(task)
    task.inputs[:] = 0
    return key


def teaches_others(key: Key, lesson: Lesson) -> Teaching:
    return Teaching(key.inputs, (np.asarray(key.labels) + 1) % key.classes)


def teaches_inputs_of_its_own(key: Key, lesson: Lesson) -> Teaching:
    return Teaching(np.random.default_rng().permutation(key.inputs), key.labels)


BROKEN: dict[str, tuple[Scheme, set[str]]] = {
    "grinds": (changed(make=grinds), {"level"}),
    "counts what fits": (changed(verify=counts_what_fits), {"level"}),
    "best half": (changed(verify=best_half), {"order-of-trials"}),
    "aligned to the victim": (BITS, {"level"}),
    "own noise": (changed(make=own_noise), {"repeatable"}),
    "global noise": (changed(make=global_noise), {"own-randomness"}),
    "reads probabilities": (changed(verify=reads_probabilities), {"declared-needs"}),
    "reads layers": (changed(verify=reads_layers), {"declared-needs"}),
    "reads matrices": (changed(verify=reads_matrices), {"declared-needs"}),
    "by place": (changed(verify=by_place), {"order-of-trials"}),
    "changes answers": (changed(verify=changes_answers), {"leaves-answers"}),
    "fails of one answer": (changed(verify=fails_of_one_answer), {"constant-answers"}),
    "never whole": (changed(verify=never_whole), {"expected-answers"}),
    "outside": (changed(make=outside), {"key"}),
    "changes inputs": (changed(make=changes_inputs), {"key"}),
    "teaches others": (changed(embed=teaches_others), {"embedding"}),
    "teaches inputs of its own": (changed(embed=teaches_inputs_of_its_own), {"embedding"}),
    "gradients": (changed(needs=Access.LABELS | Access.GRADIENTS), {"needs"}),
    "no source": (changed(source=""), {"says"}),
    "name": (changed(name="My Scheme"), {"name"}),
}
SLOW = {"embedding", "level"}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_fails_its_check(name: str) -> None:
    scheme, expected = BROKEN[name]
    # The slow ones only where they are what is broken.
    checks = ((one, check) for one, check in scheme_checks(scheme, nonces=NONCES) if one in expected or one not in SLOW)
    assert expected <= set(failures(checks))


def each(*parts: str) -> Callable[[Key, KeyAnswers], Sequence[Matches]]:
    return lambda key, answers: [dataclasses.replace(verify(key, answers)[0], reading=one) for one in parts]


def test_several_readings_are_corrected_for() -> None:
    check_scheme(changed(verify=each("one", "two", "three")), nonces=NONCES)
