"""What a model answers if one of its layers has the outputs of other inputs."""

import numpy as np
import pytest
import toys

from deepjudge_core import Suite, build_suite, observe, select_seeds
from deepjudge_core.models.exchange import Exchange
from deepjudge_core.testing.numpy_model import NumpyModel
from deepjudge_core.types import Array

X = np.random.default_rng(0).random((7, *toys.SHAPE)).astype(np.float32)


def test_what_depends_on_a_layer_alone_gets_the_other_inputs_scores() -> None:
    model = toys.make_model(0)
    own = model.activations(X, ["logits"])["logits"]
    for layer in ("dense1", "dense2"):
        exchange = model.exchange(X, layer)
        assert exchange is not None
        np.testing.assert_array_equal(exchange.own, own)
        np.testing.assert_allclose(exchange.mixed, exchange.other, rtol=1e-6)
        assert exchange.influence(independent=False) == pytest.approx(np.ones(len(X)), rel=1e-5)


@pytest.mark.parametrize("rows", [{"batch_size": 3}, {"fixed_batch": 3}])
def test_pairs_lie_within_a_batch_and_what_fills_one_is_in_none(rows: dict[str, int]) -> None:
    model = NumpyModel(toys.make_model(0).weights, toys.SHAPE, **rows)
    exchange = model.exchange(X, "dense1")
    assert exchange is not None
    pairs = np.array([2, 0, 1, 5, 3, 4, 6])  # the last is alone
    np.testing.assert_allclose(exchange.other, exchange.own[pairs])
    np.testing.assert_allclose(exchange.mixed, exchange.own[pairs], rtol=1e-6)
    assert np.isnan(exchange.influence(independent=False)).tolist() == [False] * 6 + [True]


def test_neither_temperature_nor_what_all_scores_have_in_common_counts() -> None:
    rng = np.random.default_rng(0)
    own, other, mixed = rng.normal(size=(3, 20, 5)).astype(np.float32)
    expected = Exchange(own, other, mixed).influence(independent=False)
    colder = Exchange(own / 20, other / 20, mixed / 20).influence(independent=False)
    shifted = Exchange(own, other, mixed + rng.normal(size=(20, 1)).astype(np.float32)).influence(independent=False)
    np.testing.assert_allclose(colder, expected, rtol=1e-5)
    np.testing.assert_allclose(shifted, expected, rtol=1e-4)
    assert Exchange(own, other, own + 1).influence(independent=True).min() > 0


class Decoy(NumpyModel):
    """A copy whose taps are another network's, which counts a little."""

    def __init__(self, weight: float) -> None:
        copy, other = toys.make_model(0), toys.make_model(30)
        super().__init__(other.weights, toys.SHAPE)
        self._copy, self._weight = copy, weight

    def _outputs(self, x: Array, orders=None) -> dict[str, Array]:
        outputs = super()._outputs(x, orders or {})
        copied = self._copy._outputs(x)[self.logits]
        return outputs | {self.logits: copied + self._weight * outputs[self.logits]}


class Unknown(NumpyModel):
    """A model whose framework exchanges nothing."""

    def mixed(self, x: Array, layer: str, order: Array) -> Array | None:
        return None


@pytest.fixture(scope="module")
def suite() -> Suite:
    victim = toys.make_model(0)
    x, y = toys.make_inputs(victim, 200)
    return build_suite(victim, select_seeds(victim, x, y, n=40), ["pgd", "neuron-corners"], force=True)


@pytest.mark.parametrize(("weight", "compared"), [(1e-30, False), (1e-4, False), (0.5, True)])
def test_layers_that_do_not_count_are_not_compared(weight: float, compared: bool, suite: Suite) -> None:
    observation = observe(Decoy(weight), suite)
    assert (suite.layers[0] in observation.layer_map) is compared
    assert (observation.unmatched is None) is compared
    if not compared:
        assert observation.unsteady is not None  # so that it is not called independent
        assert "dense" in observation.unsteady


def test_what_could_not_be_checked_is_said(suite: Suite) -> None:
    model = Unknown(toys.make_model(3).weights, toys.SHAPE)
    observation = observe(model, suite)
    tap = observation.layer_map[suite.layers[0]]
    assert any(repr(tap) in note and "not checked" in note for note in observation.notes)
    assert not any("not checked" in note for note in observe(toys.make_model(3), suite).notes)


def test_what_takes_one_input_at_a_time_is_no_decoy(suite: Suite) -> None:
    model = NumpyModel(toys.make_model(3).weights, toys.SHAPE, fixed_batch=1)
    observation = observe(model, suite)
    assert observation.unsteady is None
    assert observation.layer_map
    assert any("not checked" in note for note in observation.notes)


class Elsewhere(NumpyModel):
    """A copy in a wider layer, beside an honest layer of the victim's width that counts as much."""

    def __init__(self) -> None:
        self._copy, self._other = toys.make_model(0), toys.make_model(30)
        super().__init__(self._other.weights, toys.SHAPE)
        self.layers = {"wide": 2 * toys.WIDTHS[1], **self.layers}

    def _outputs(self, x: Array, orders=None) -> dict[str, Array]:
        outputs, copied = self._other._outputs(x, orders or {}), self._copy._outputs(x)
        second = copied["dense2"]
        return {"wide": np.concatenate([second, second[:, ::-1]], axis=1), **outputs} | {
            self.logits: copied[self.logits] + 0.5 * outputs[self.logits]
        }


def test_a_layer_that_is_found_elsewhere_is_said(suite: Suite) -> None:
    observation = observe(Elsewhere(), suite)
    assert observation.layer_map == {"dense2": "dense2"}
    assert any("'wide'" in note for note in observation.notes)
    assert not any("'wide'" in note for note in observe(toys.make_model(0), suite).notes)
