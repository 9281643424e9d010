"""Roles of classifiers that a graph tells, and how their neurons are matched layer by layer."""

from dataclasses import replace

import numpy as np
import pytest

from deepjudge_core.testing.weights import ArrayWeights
from deepjudge_core.weights.graphs import Graph, Table
from deepjudge_core.weights.order import order_test
from deepjudge_core.weights.sketching import plan_weights, sketch
from deepjudge_core.weights.values import LayerSketch, Roles, Scale, WeightPlan

DENSE, CONVOLUTION = (0, 1), (0, 1, 2, 3)


def layer(graph, x, name, outputs, inputs, kernel=3):
    """A convolution of a network whose channels come first."""
    table = Table(name, (outputs, inputs, kernel, kernel), CONVOLUTION)
    return graph.layer(x, [table], 1, "convolutional", [None, outputs, 8, 8])


def summary(roles: Roles):
    return {one.name: [(view.tensor, view.basis) for view in one.views] for one in roles.layers}


def test_a_residual_stream_has_one_order_and_blocks_have_their_own() -> None:
    graph = Graph()
    stem = layer(graph, graph.start([None, 3, 8, 8]), "stem", 4, 3)
    first = layer(graph, graph.keep(stem), "a1", 4, 4)
    stream = graph.combine([layer(graph, first, "a2", 4, 4), stem])
    wide = layer(graph, stream, "b1", 6, 4)
    shortcut = layer(graph, stream, "short", 6, 4, kernel=1)
    out = graph.combine([layer(graph, wide, "b2", 6, 6), shortcut])
    scores = graph.layer(graph.reduce(out, (2, 3), keep=False), [Table("head", (5, 6), DENSE)], 1, "dense")
    assert summary(graph.finish(scores)) == {
        # What the block adds is read in its own order, which comes later.
        "stem": [("stem", "inputs")],
        "a1": [("a1", "stem")],
        "b1": [("b1", "stem")],
        "short": [("short", "stem"), ("b2", "b1"), ("head", "outputs")],
    }


def test_each_layer_that_is_joined_is_read_through_its_own_columns() -> None:
    graph = Graph()
    x = graph.start([None, 3, 8, 8])
    joined = graph.join([layer(graph, x, "one", 4, 3), layer(graph, x, "two", 5, 3)], 1)
    y = layer(graph, joined, "both", 6, 9)
    roles = graph.finish(graph.layer(graph.flatten(y), [Table("head", (3, 384), DENSE)], 1, "dense"))
    both = next(one for one in roles.layers if one.name == "both")
    assert [(view.basis, view.columns) for view in both.views[:2]] == [("one", (0, 4)), ("two", (4, 9))]
    assert both.views[2].shape == (3, 6, 64)


def test_a_depthwise_convolution_keeps_the_order_and_shows_it() -> None:
    graph = Graph()
    x = layer(graph, graph.start([None, 3, 8, 8]), "stem", 4, 3)
    x = graph.grouped(x, Table("deep", (4, 1, 3, 3), CONVOLUTION), 1, [None, 4, 8, 8])
    roles = graph.finish(layer(graph, x, "scores", 2, 4))
    assert summary(roles) == {"stem": [("stem", "inputs"), ("deep", "kernel"), ("scores", "outputs")]}


@pytest.mark.parametrize(
    "bind",
    [
        lambda graph, x: graph.grouped(x, Table("grouped", (4, 2, 3, 3), CONVOLUTION), 1, [None, 4, 8, 8]),
        lambda graph, x: graph.take(x, 1, 2),
        lambda graph, x: graph.reshape(x, [None, 2, 2, 8, 8]),
        lambda graph, x: graph.unknown([x], "a test"),
        lambda graph, x: graph.combine([x, graph.start([None, 4, 8, 8])]),
        lambda graph, x: graph.join([x, graph.unknown([], "a test")], 1),
    ],
    ids=["groups", "some channels", "divided channels", "unknown", "the input added", "joined with unknown"],
)
def test_what_may_bind_neurons_to_places_leaves_their_layer_out(bind) -> None:
    graph = Graph()
    x = bind(graph, layer(graph, graph.start([None, 4, 8, 8]), "stem", 4, 4))
    other = graph.layer(x, [Table("head", (5, 4), DENSE)], 1, "dense")
    roles = graph.finish(graph.layer(other, [Table("scores", (3, 5), DENSE)], 1, "dense"))
    assert "stem" not in summary(roles)
    assert not any(view.basis == "stem" for one in roles.layers for view in one.views)


def test_weights_that_are_used_twice_join_what_they_read_and_make() -> None:
    graph = Graph()
    x = graph.start([None, 4])
    ways = [graph.layer(x, [Table(name, (6, 4), DENSE)], 1, "dense") for name in ("one", "two")]
    shared = [graph.layer(way, [Table("shared", (5, 6), DENSE)], 1, "dense") for way in ways]
    roles = graph.finish(graph.layer(graph.combine(shared), [Table("scores", (3, 5), DENSE)], 1, "dense"))
    assert summary(roles)["one"] == [("one", "inputs"), ("two", "inputs")]


class Net:
    """A convolution, two dense layers and scores, in the layout of one framework or another."""

    def __init__(self, seed: int, widths=(6, 12, 10), spread=1.0) -> None:
        random = np.random.default_rng(seed)
        a, b, c = widths
        shapes = {"c": (a, 3, 3, 3), "f1": (b, a, 3, 3), "f2": (c, b), "out": (4, c)}
        self.arrays = {name: (spread * random.normal(size=shape)).astype("f") for name, shape in shapes.items()}
        self.odd = False

    def weights(self, *, last=False) -> ArrayWeights:
        graph = Graph()
        c, f1, f2, out = self.arrays.values()
        a, b = len(c), len(f1)
        if last:
            tables = {
                "c": (c.transpose(2, 3, 1, 0), (3, 2, 0, 1)),
                "f1": (f1.transpose(2, 3, 1, 0).reshape(-1, b), (1, 0)),
                "f2": (f2.T, (1, 0)),
                "out": (out.T, (1, 0)),
            }
        else:
            tables = {"c": (c, CONVOLUTION), "f1": (f1.reshape(b, -1), DENSE), "f2": (f2, DENSE), "out": (out, DENSE)}
        used = {name: Table(name, array.shape, axes) for name, (array, axes) in tables.items()}
        sizes, channel = ([None, 3, 3, a], -1) if last else ([None, a, 3, 3], 1)
        x = graph.layer(graph.start([None, 3, 3, 3]), [used["c"]], channel, "convolutional", sizes)
        for name in ("f1", "f2", "out"):
            x = graph.layer(graph.flatten(graph.keep(x, odd=self.odd)), [used[name]], 1, "dense")
        arrays = {name: np.ascontiguousarray(array) for name, (array, _) in tables.items()}
        return ArrayWeights(arrays, "net", roles=graph.finish(x))

    def rewritten(self, seed: int, scale: float = 1.0, signs=(1.0,)) -> "Net":
        random = np.random.default_rng(seed)
        other = Net(0)
        c, f1, f2, out = (array.copy() for array in self.arrays.values())
        pairs = [(c, f1), (f1, f2), (f2, out)]
        for own, following in pairs:
            order = random.permutation(len(own))
            factors = scale ** random.uniform(-1, 1, len(own)) * random.choice(signs, len(own))
            own[:] = own[order] * factors.reshape(-1, *[1] * (own.ndim - 1))
            following[:] = following[:, order] / factors.reshape(-1, *[1] * (following.ndim - 2))
        other.arrays, other.odd = dict(zip(self.arrays, (c, f1, f2, out), strict=True)), self.odd
        return other


def compared(victim: ArrayWeights, suspect: ArrayWeights):
    plan = plan_weights(victim)
    return sketch(victim, plan, victim=True), sketch(suspect, plan)


def nearest(ours: LayerSketch, theirs: LayerSketch) -> np.ndarray:
    """Of each of our neurons the greatest absolute cosine with any of theirs, in matched coordinates."""
    assert ours.invariant is not None
    assert theirs.invariant is not None
    a, b = (one.invariant[:, 0].astype(float) for one in (ours, theirs))
    return np.abs(a @ b.T).max(axis=1)


def test_channels_first_and_last_give_the_same_sketches() -> None:
    net = Net(1)
    first, last = (net.weights(last=last) for last in (False, True))
    victim, suspect = compared(first, last)
    for ours, theirs in zip(victim.layers, suspect.layers, strict=True):
        np.testing.assert_allclose(ours.raw.astype(float), theirs.raw.astype(float), atol=2e-3)
    test = order_test(victim, suspect)
    assert test is not None
    assert test.log10_p == test.least < -15


def test_a_folded_normalisation_changes_no_row() -> None:
    random = np.random.default_rng(0)
    net = Net(2)
    gain, variance = random.normal(size=6).astype("f"), random.uniform(0.5, 2, 6).astype("f")
    folded = Net(2)
    folded.arrays["c"] = net.arrays["c"] * (gain / np.sqrt(variance + 1e-3))[:, None, None, None]
    plain = net.weights()
    roles = plain.roles
    assert roles is not None
    first = roles.layers[0]
    scaled = replace(first.views[0], scales=(Scale("gain", "variance", 1e-3),))
    roles = replace(roles, layers=(replace(first, views=(scaled,)), *roles.layers[1:]))
    plain = ArrayWeights({**plain.arrays, "gain": gain, "variance": variance}, roles=roles)
    for ours, theirs in zip(*(one.layers for one in compared(plain, folded.weights())), strict=True):
        assert nearest(ours, theirs).min() > 0.999


def test_a_copy_in_another_order_is_matched_but_never_tested_as_a_copy() -> None:
    victim = Net(3)
    victim_weights = victim.weights()
    plan = plan_weights(victim_weights)
    ours = sketch(victim_weights, plan, victim=True)
    chances = []
    for seed in range(60):
        theirs = sketch(victim.rewritten(seed, scale=3).weights(), plan)
        for one, other in zip(ours.layers, theirs.layers, strict=True):
            assert nearest(one, other).min() > 0.99
        test = order_test(ours, theirs)
        assert test is not None
        chances.append(10**test.log10_p)
    assert np.mean(np.array(chances) <= 0.05) <= 0.15
    assert np.median(chances) > 0.2


def test_independent_networks_agree_no_more_often_than_the_chance_says() -> None:
    weights = Net(4).weights()
    plan = plan_weights(weights)
    ours = sketch(weights, plan, victim=True)
    tests = [order_test(ours, sketch(Net(1000 + seed).weights(), plan)) for seed in range(300)]
    chances = np.array([10**test.log10_p for test in tests if test is not None])
    assert len(chances) == 300
    assert np.mean(chances <= 0.05) <= 0.08
    assert chances.min() > 1e-4


def test_negated_neurons_of_an_odd_activation_are_matched() -> None:
    victim = Net(5)
    victim.odd = True
    for ours, theirs in zip(
        *(one.layers for one in compared(victim.weights(), victim.rewritten(1, signs=(1.0, -1.0)).weights())),
        strict=True,
    ):
        assert nearest(ours, theirs).min() > 0.99


def test_a_narrower_suspect_is_matched_as_far_as_it_goes() -> None:
    victim, suspect = compared(Net(6).weights(), Net(7, widths=(4, 12, 10)).weights())
    assert [layer.width for layer in suspect.layers] == [4, 12, 10]
    test = order_test(victim, suspect)
    assert test is not None
    assert test.compared == 22  # the first layer has another width


def test_a_plan_with_the_victims_neurons_is_stored_and_read() -> None:
    plan = plan_weights(Net(8).weights())
    assert len(plan.anchors) == 3
    arrays = plan.arrays("plan.")
    again = WeightPlan.of_header(plan.header(), arrays, "plan.")
    for place, anchor in plan.anchors.items():
        np.testing.assert_array_equal(again.anchors[place], anchor)
    for spoiled in (np.full_like(plan.anchors[0], np.nan), plan.anchors[0][1:], plan.anchors[0].astype(np.float32)):
        with pytest.raises(ValueError, match="sketch"):
            WeightPlan.of_header(plan.header(), {**arrays, "plan.anchors.0": spoiled}, "plan.")


def test_a_state_dict_alone_is_a_chain_in_whatever_order_its_names_are() -> None:
    net = Net(9)
    c, f1, f2, out = net.arrays.values()
    arrays = {"1.weight": f1.reshape(12, -1), "10.weight": out, "0.weight": c, "2.weight": f2}
    shuffled = ArrayWeights({f"features.{name}" if name == "0.weight" else name: one for name, one in arrays.items()})
    for suspect in (ArrayWeights(arrays), shuffled):
        test = order_test(*compared(net.weights(), suspect))
        assert test is not None
        assert test.agreeing == test.compared == 28


def endless(graph: Graph) -> None:
    x = graph.start([None, 4])
    for place in range(5000):
        x = graph.layer(x, [Table(str(place), (4, 4), DENSE)], 1, "dense")


def test_a_graph_of_more_than_any_network_has_is_refused() -> None:
    with pytest.raises(ValueError, match="matrices"):
        endless(Graph())


def test_what_is_joined_with_itself_again_and_again_takes_no_memory() -> None:
    graph = Graph()
    x = layer(graph, graph.start([None, 3, 8, 8]), "stem", 4, 3)
    for _ in range(60):
        x = graph.join([x, x], 1)
    assert x.axes is None
    assert not graph.finish(x).layers
