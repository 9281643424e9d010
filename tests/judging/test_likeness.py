"""Distances among controls with very many classes: what is left out says nothing."""

import numpy as np
import pytest

from deepjudge_core.judging.likeness import coarse, divergence
from deepjudge_core.models.scores import softmax
from deepjudge_core.types import Array


def answers(classes: int) -> Array:
    """Six honest models and one that is nearly the first, ``(7, 50, classes)``."""
    rng = np.random.default_rng(classes)
    common = rng.normal(0, 3, (50, classes))
    logits = [common + rng.normal(0, 2, common.shape) for _ in range(6)]
    return np.array([softmax(one) for one in (*logits, logits[0] + rng.normal(0, 0.3, common.shape))])


@pytest.mark.parametrize("classes", [3, 32])
def test_few_classes_are_compared_as_they_are(classes: int) -> None:
    scores = answers(classes)
    assert coarse(scores) is scores


@pytest.mark.parametrize("classes", [33, 100, 1000])
def test_many_classes_are_few_outcomes(classes: int) -> None:
    full, few = (scores.astype(np.float64) for scores in (answers(classes), coarse(answers(classes))))
    assert few.shape == (7, 50, 32)
    np.testing.assert_allclose(few.sum(axis=2), full.sum(axis=2), atol=1e-5)
    apart = [[divergence(scores[0], other) for other in scores[1:]] for scores in (full, few)]
    # Outcomes that are one are never further apart than by themselves.
    assert all(less <= more + 1e-6 for more, less in zip(*apart, strict=True))
    shares = [distances[-1] / np.mean(distances[:-1]) for distances in apart]
    assert shares[1] == pytest.approx(shares[0], rel=0.2)
