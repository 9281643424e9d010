"""Whether an output gives what the scores say: roundings pass, another order or another certainty does not."""

from collections.abc import Callable

import numpy as np
import pytest

from deepjudge_core import Access
from deepjudge_core.models.agreement import disagreement
from deepjudge_core.models.resolution import divided
from deepjudge_core.models.scores import sigmoid, softmax
from deepjudge_core.testing import NumpyModel
from deepjudge_core.types import Array


def bfloat16(p: Array) -> Array:
    return (p.astype(np.float32).view(np.uint32) & 0xFFFF0000).view(np.float32)


ROUNDINGS: list[Callable[[Array], Array]] = [
    lambda p: p,
    lambda p: p.astype(np.float16).astype(np.float32),
    bfloat16,
    lambda p: np.round(p, 2),
    lambda p: np.round(p * 256) / 256,
    lambda p: np.floor(p * 127) / 127,
]


def scores(classes: int, scale: float = 3.0) -> Array:
    return (scale * np.random.default_rng(classes).normal(size=(32, classes))).astype(np.float32)


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("classes", [2, 10, 100])
def test_roundings_agree(rounding: Callable[[Array], Array], classes: int) -> None:
    p = softmax(scores(classes))
    assert disagreement(divided(rounding(p).astype(np.float32)), p, independent=False) is None
    each = sigmoid(scores(classes))
    assert disagreement(rounding(each), each, independent=True) is None


@pytest.mark.parametrize("scale", [1e-3, 3.0])
@pytest.mark.parametrize("independent", [False, True])
def test_other_answers_do_not(scale: float, independent: bool) -> None:
    z = scores(5, scale)
    kind = sigmoid if independent else softmax
    assert disagreement(kind(z), kind(z), independent=independent) is None
    assert disagreement(kind(z[:, ::-1]), kind(z), independent=independent) is not None
    assert disagreement(kind(-z), kind(z), independent=independent) is not None
    few = np.where(np.arange(len(z))[:, None] % 8, z, -z)
    assert disagreement(kind(few), kind(z), independent=independent) is not None
    assert disagreement(kind(z[:, :4]), kind(z), independent=independent) is not None


def test_a_sigmoid_of_each_class_beside_the_likeliest_counts() -> None:
    own = sigmoid(scores(5, 1e-3))
    flipped = 1 - own
    flipped[np.arange(len(own)), own.argmax(axis=1)] = 1
    assert disagreement(flipped, own, independent=True) is not None


@pytest.mark.parametrize("access", [Access.WHITE_BOX, Access.BLACK_BOX])
def test_another_reading_is_of_the_own_answers(access: Access) -> None:
    class Lying(NumpyModel):
        def activations(self, x: Array, layers: list[str]) -> dict[str, Array]:
            return {name: values[:, ::-1] for name, values in super().activations(x, layers).items()}

    model = Lying(NumpyModel.random((6,), (5,), 4, seed=0).weights, (6,), access=access)
    x = np.random.default_rng(0).random((20, 6), np.float32)
    own = model.predict(x)
    read = model.reading(True).predict(x)
    np.testing.assert_array_equal(read.argmax(axis=1), own.argmax(axis=1))
    np.testing.assert_allclose(read, own / (1 + own), atol=1e-5)  # the sigmoid of log p
