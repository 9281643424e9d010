"""Keys in weights: one network gives the same matrices, and so the same bits, in the files of every framework."""

from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from deepjudge_schemes.uchida import UCHIDA
from networks.architectures import ARCHITECTURES
from networks.matrix import FORMS

import deepjudge_core as dj
from deepjudge_core.auditing.subject import Subject
from deepjudge_core.components.options import resolve
from deepjudge_core.components.registry import Configured
from deepjudge_core.components.schemes import KeyAnswers, Matches
from deepjudge_core.marking.making import Material, make_key
from deepjudge_core.types import Array

SEED = 21
KEYS = ("torch-pt2", "onnx-dynamo", "keras-file")
NONCES = 8


def matrices_of(name: str, key: str, folder: Path, places: tuple[int, ...]) -> dict[int, Array]:
    for module in FORMS[key].needs:
        if find_spec(module) is None:
            pytest.skip(f"{module} is not installed")
    path = FORMS[key].build(name, SEED, folder / f"{name}-{key}")
    with Subject.of(path).sketching(dj.Session(sandbox=None)) as sketcher:
        return sketcher.matrices(places)


@pytest.mark.parametrize("name", ["conv1d", "conv2d", "dense"])
@pytest.mark.parametrize("key", KEYS)
def test_matrices_are_those_of_the_network(name: str, key: str, tmp_path: Path) -> None:
    found = matrices_of(name, key, tmp_path, (0, 1))
    weights = [array for array in ARCHITECTURES[name].weights(SEED).values() if array.ndim > 1]
    for place in (0, 1):
        np.testing.assert_allclose(found[place], weights[place].reshape(len(weights[place]), -1), atol=1e-6)


@pytest.mark.parametrize("norm", ["unit", "mean"])
@pytest.mark.parametrize("key", KEYS)
def test_bits_are_the_same_in_every_format(key: str, norm: str, tmp_path: Path) -> None:
    own = ARCHITECTURES["conv2d"].weights(SEED)["conv1.weight"]
    read = partial(_bits, own.reshape(len(own), -1), norm)
    counts = [read(nonce, None) for nonce in range(NONCES)]
    found = matrices_of("conv2d", key, tmp_path, (0,))[0]
    assert [read(nonce, found) for nonce in range(NONCES)] == counts
    assert len(set(counts)) > 1


def _bits(own: Array, norm: str, nonce: int, found: Array | None) -> int:
    # How many bits of a key of the network match; where nothing was found, by the formula of the paper.
    options = resolve("uchida", UCHIDA.make, {"trials": 20, "matrix": "first", "norm": norm})
    victim = dj.open_model(_silent, input_shape=(3, 8, 8), classes=5)
    material = Material(np.zeros((1, 3, 8, 8), np.float32), None, (0.0, 1.0), matrices=lambda _: {0: own})
    key = make_key(victim, Configured(UCHIDA, options, "here"), material, bytes([nonce]) * 32)
    if found is None:
        rows = own / np.linalg.norm(own, axis=1, keepdims=True) if norm == "unit" else own
        reader = key.draw_normal("reader", (key.trials, own.shape[1]))
        return int(((reader @ rows.mean(axis=0, dtype=np.float64) >= 0) == key.bits).sum())
    matches = {one.reading: one for one in UCHIDA.verify(key, KeyAnswers(matrices={0: found}))}["direct"]
    assert isinstance(matches, Matches)
    return matches.found


def _silent(x: Array) -> Array:
    return np.full((len(x), 5), 0.2, np.float32)
