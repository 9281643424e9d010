"""Sketches of weights: the same for whatever computes the same, far apart for others, and never large."""

import re

import msgspec
import numpy as np
import pytest
from deepjudge_weights.metrics import neuron_sketch, order, order_chance, sibling_slope
from numpy_transformers import TOKENS, changed, llama, noisy, permuted, rotated

from deepjudge_core import Answers
from deepjudge_core.errors import IncomparableError, ModelError
from deepjudge_core.testing.weights import ArrayWeights
from deepjudge_core.weights import views
from deepjudge_core.weights.order import order_test
from deepjudge_core.weights.sketching import plan_weights, sketch
from deepjudge_core.weights.values import NeuronLayer, Roles, Sketch, View, WeightPlan

OWNER = llama(0)
PLAN = plan_weights(OWNER)
VICTIM = sketch(OWNER, PLAN, victim=True)


def answers(weights: Sketch, **kwargs) -> Answers:
    return Answers(np.empty(0), weights=weights, **kwargs)


def distance(weights: ArrayWeights) -> float:
    return neuron_sketch(answers(VICTIM), answers(sketch(weights, PLAN)))


def log10_p(weights: ArrayWeights) -> float:
    return order_chance(answers(VICTIM), answers(sketch(weights, PLAN))).log10_p


def without_block(weights: ArrayWeights, block: int) -> ArrayWeights:
    arrays = {}
    for name, array in weights.arrays.items():
        parts = name.split(".")
        if "layers" in parts:
            number = int(parts[2])
            if number == block:
                continue
            parts[2] = str(number - (number > block))
        arrays[".".join(parts)] = array
    return ArrayWeights(arrays, vocabulary=weights.vocabulary)


def narrowed(weights: ArrayWeights, width: int) -> ArrayWeights:
    kept = np.sort(np.random.default_rng(0).choice(96, width, replace=False))

    def cut(name: str, array: np.ndarray) -> np.ndarray:
        if "gate_proj" in name or "up_proj" in name:
            return array[kept]
        return array[:, kept] if "down_proj" in name else array

    return changed(weights, cut)


def other_tokens(weights: ArrayWeights) -> ArrayWeights:
    """The same tokens in another order."""
    order = np.random.default_rng(0).permutation(len(TOKENS))
    tables = ("model.embed_tokens.weight", "lm_head.weight")
    arrays = {name: array[order] if name in tables else array for name, array in weights.arrays.items()}
    return ArrayWeights(arrays, vocabulary=[TOKENS[place] for place in order])


def new_tokens(weights: ArrayWeights) -> ArrayWeights:
    """Another vocabulary, with embeddings of its own."""
    random = np.random.default_rng(9)
    return ArrayWeights(
        {name: random.normal(size=a.shape) if len(a) == len(TOKENS) else a for name, a in weights.arrays.items()},
        vocabulary=[f"new {number}" for number in range(len(TOKENS))],
    )


@pytest.mark.parametrize(
    ("copy", "most"),
    [
        (OWNER, 0),
        (noisy(OWNER, 0.1), 0.02),
        (permuted(OWNER), 0.001),
        (rotated(OWNER), 0.001),
        (permuted(rotated(OWNER)), 0.001),
        (noisy(permuted(rotated(OWNER)), 0.1), 0.05),
        (without_block(OWNER, 0), 0.001),
        (permuted(rotated(without_block(OWNER, 1))), 0.001),
        (narrowed(OWNER, 72), 0.001),
        (permuted(rotated(narrowed(OWNER, 72)), 3), 0.001),
        (other_tokens(rotated(OWNER)), 0.001),
        (new_tokens(OWNER), 0),
    ],
)
def test_copies_are_near(copy: ArrayWeights, most: float) -> None:
    assert distance(copy) <= most


def test_others_are_far() -> None:
    assert min(distance(llama(seed, blocks)) for seed, blocks in ((1, 4), (2, 4), (3, 3), (4, 9))) > 0.5


def test_the_order_of_a_plain_copy_is_the_victims() -> None:
    assert order(answers(VICTIM), answers(sketch(OWNER, PLAN))) == 0
    for copy in (OWNER, noisy(OWNER, 0.3), new_tokens(OWNER), without_block(OWNER, 3)):
        assert log10_p(copy) < -50


def test_what_scrambles_every_order_leaves_nothing_to_find() -> None:
    # 1, or nearly: a scrambled copy looks like a model that was made independently, and never less so.
    assert log10_p(permuted(rotated(OWNER))) > -2


def test_independent_transformers_are_not_told_otherwise() -> None:
    ps = [log10_p(llama(seed)) for seed in range(1, 25)]
    assert np.mean(np.array(ps) <= np.log10(0.05)) <= 0.08
    assert min(ps) > -3


@pytest.mark.parametrize(
    ("config", "tested"),
    [
        ({}, True),
        ({"sinusoidal_pos_embds": False}, True),
        ({"sinusoidal_pos_embds": True}, False),
        ({"position_embedding_type": "sinusoidal"}, False),
        ({"model_type": "fnet"}, False),
    ],
)
def test_what_fixes_the_residual_dimensions_keeps_them_out(config: dict[str, object], tested: bool) -> None:
    plan = plan_weights(ArrayWeights(OWNER.arrays, config=config, vocabulary=TOKENS))
    assert ("residual" in {layer.kind for layer in plan.layers}) == tested


def test_the_victim_keeps_its_picked_neurons_alone() -> None:
    plan = plan_weights(llama(0, hidden=1000))
    victim = sketch(llama(0, hidden=1000), plan, victim=True)
    assert [len(layer.neurons) for layer in victim.layers] == [32, 512, 512, 512, 512]
    for layer, neurons in zip(victim.layers, plan.neurons, strict=True):
        np.testing.assert_array_equal(layer.neurons, neurons)


def test_a_plan_and_a_sketch_come_back_from_a_file() -> None:
    plan = WeightPlan.of_header(PLAN.header(), PLAN.arrays("p."), "p.")
    made = sketch(OWNER, plan)
    back = Sketch.of_header(made.header(), made.arrays("s."), "s.")
    for ours, theirs in zip(sketch(OWNER, PLAN).layers, back.layers, strict=True):
        np.testing.assert_array_equal(ours.raw, theirs.raw)
        if ours.invariant is not None:
            np.testing.assert_array_equal(ours.invariant, theirs.invariant)


@pytest.mark.parametrize(
    "damaged",
    [
        {"p.ids": np.arange(10**6)},
        {"p.ids": np.full(len(PLAN.ids), -1)},
        {"p.ids": PLAN.ids[1:]},
        {"p.neurons.1": np.array([3, 2])},
        {"p.neurons.1": np.array([96])},
        {"p.neurons.1": np.zeros(0, np.int64)},
        {"p.neurons.1": np.arange(5.0)},
    ],
)
def test_a_damaged_plan_is_refused(damaged: dict[str, np.ndarray]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        WeightPlan.of_header(PLAN.header(), PLAN.arrays("p.") | damaged, "p.")


def test_a_plan_that_asks_for_too_much_is_refused() -> None:
    header = msgspec.structs.replace(PLAN.header(), rank=10**9)
    with pytest.raises(ValueError, match="1024"):
        WeightPlan.of_header(header, PLAN.arrays("p."), "p.")


def test_no_layer_counts_twice() -> None:
    # Whoever makes a suite or an observation up could multiply one small probability by itself.
    header, made = PLAN.header(), sketch(OWNER, PLAN)
    with pytest.raises(ValueError, match="place"):
        WeightPlan.of_header(
            msgspec.structs.replace(header, layers=(*header.layers[:-1], header.layers[-2])), PLAN.arrays("p."), "p."
        )
    own = made.header()
    with pytest.raises(ValueError, match="place"):
        Sketch.of_header(
            msgspec.structs.replace(own, layers=(*own.layers[:-1], own.layers[-2])), made.arrays("s."), "s."
        )


def renamed(weights: ArrayWeights, before: str) -> dict[str, np.ndarray]:
    return {before + name.replace("mlp.", "own."): array for name, array in weights.arrays.items()}


def blocks(weights: ArrayWeights, move: int) -> dict[str, np.ndarray]:
    return {
        re.sub(r"layers\.(\d+)", lambda found: f"layers.{int(found[1]) + move}", name): array
        for name, array in weights.arrays.items()
        if "layers." in name
    }


def test_what_is_looked_at_of_an_honest_model_is_enough() -> None:
    assert not sketch(OWNER, PLAN).unseen
    assert not sketch(llama(8, blocks=6), PLAN).unseen


@pytest.mark.parametrize(
    "hidden",
    [
        # An honest model has the usual names; the copy beside it has others, in or outside of its blocks.
        llama(8).arrays | renamed(OWNER, "own."),
        renamed(OWNER, "") | llama(8).arrays,
        {name: array.ravel() for name, array in renamed(OWNER, "own.").items()} | llama(8).arrays,
        # The blocks of a copy stand behind, or among, many that nothing reads.
        blocks(llama(8, blocks=60), 0) | blocks(OWNER, 60),
    ],
    ids=["beside", "inside", "flat", "behind"],
)
def test_what_else_a_file_holds_is_said(hidden: dict[str, np.ndarray]) -> None:
    assert sketch(ArrayWeights(hidden), PLAN).unseen


def test_another_seed_makes_another_sketch() -> None:
    wide = llama(0, residual=160)
    plans = [plan_weights(wide, seed=seed) for seed in (0, 0, 1)]
    first, again, other = (sketch(wide, plan).layers[1].raw for plan in plans)
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.5


@pytest.mark.parametrize("damage", [0.0, np.nan, np.inf, 1e30])
def test_rows_without_sense_spoil_no_others(damage: float) -> None:
    def spoil(name: str, array: np.ndarray) -> np.ndarray:
        if "gate_proj" in name or "up_proj" in name:
            array[::4] = damage
        if "down_proj" in name:
            array[:, ::4] = damage
        return array

    made = sketch(changed(OWNER, spoil), PLAN)
    for layer in made.layers:
        assert np.isfinite(layer.raw).all()
    test = order_test(VICTIM, made)
    assert test is not None
    assert test.log10_p < -50
    assert neuron_sketch(answers(VICTIM), answers(made)) < 0.3


class Counted(ArrayWeights):
    """Notes the most numbers that are asked for at once."""

    most = 0

    def read(self, tensor: str, rows: slice | None = None) -> np.ndarray:
        part = super().read(tensor, rows)
        self.most = max(self.most, part.size)
        return part


VIEWS: dict[str, tuple[tuple[int, ...], View, object]] = {
    "rows": ((30, 8), View("t", (0, 1), "inputs"), lambda t: t),
    "columns": ((8, 30), View("t", (1, 0), "inputs"), lambda t: t.T),
    "some rows": ((60, 8), View("t", (0, 1), "inputs", rows=(30, 60)), lambda t: t[30:]),
    "some columns": ((40, 30), View("t", (1, 0), "inputs", columns=(5, 25)), lambda t: t[5:25].T),
    "rows of a part": ((8, 60), View("t", (1, 0), "inputs", rows=(10, 40)), lambda t: t[:, 10:40].T),
    "convolution": ((30, 4, 3, 3), View("t", (0, 1, 2, 3), "inputs"), lambda t: t.reshape(30, -1)),
    "its inputs": (
        (8, 30, 3, 3),
        View("t", (1, 0, 2, 3), "inputs"),
        lambda t: t.transpose(1, 0, 2, 3).reshape(30, -1),
    ),
    "channels last": (
        (3, 3, 4, 30),
        View("t", (3, 2, 0, 1), "inputs"),
        lambda t: t.transpose(3, 2, 0, 1).reshape(30, -1),
    ),
    "flattened pictures": (
        (8, 30 * 6),
        View("t", (1, 0, 2), "inputs", shape=(8, 30, 6)),
        lambda t: t.reshape(8, 30, 6).transpose(1, 0, 2).reshape(30, -1),
    ),
    "flattened, inputs first": (
        (6 * 30, 8),
        View("t", (1, 0, 2), "inputs", shape=(6, 30, 8)),
        lambda t: t.reshape(6, 30, 8).transpose(1, 0, 2).reshape(30, -1),
    ),
    "one of several": (
        (4, 30, 8),
        View("t", (0, 1), "inputs", shape=(120, 8), rows=(60, 90)),
        lambda t: t[2],
    ),
    "columns of one of several": (
        (4, 8, 30),
        View("t", (1, 0), "inputs", shape=(32, 30), columns=(16, 24)),
        lambda t: t[2].T,
    ),
    "gain": ((30, 8), View("t", (0, 1), "inputs", gain="g", gain_plus=1), lambda t: t * np.arange(1, 9)),
}


@pytest.mark.parametrize("name", VIEWS)
def test_a_matrix_is_read_a_part_at_a_time(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shape, view, rows = VIEWS[name]
    tensor = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    layer = NeuronLayer("layer", 0, "dense", 30, (view,))
    arrays = {"t": tensor, "g": np.arange(8, dtype=np.float32)}
    weights = Counted(arrays, roles=Roles("graph", (layer,)))
    plan = plan_weights(weights)
    whole = sketch(weights, plan).layers[0].raw[:, 0]
    expected = rows(tensor)
    expected = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    # A row that is no longer than the sketch is kept as it is; of others the angles are kept.
    width = expected.shape[1]
    assert width <= plan.rank
    np.testing.assert_allclose(whole[:, :width], expected, atol=1e-3)
    weights.most = 0
    monkeypatch.setattr(views, "_CHUNK", 1)
    np.testing.assert_allclose(sketch(weights, plan).layers[0].raw[:, 0], whole, atol=1e-3)
    assert weights.most <= max(8, tensor.size // min(shape[0], 6))


def test_long_rows_keep_their_angles() -> None:
    random = np.random.default_rng(0)
    first = random.normal(size=(40, 5000))
    tensor = np.concatenate([first, first + random.normal(size=first.shape)])
    weights = ArrayWeights({"t": tensor, "u": random.normal(size=(3, 80))})
    raw = sketch(weights, plan_weights(weights)).layers[0].raw[:, 0].astype(float)
    found = (raw[:40] * raw[40:]).sum(axis=1)
    assert found.mean() == pytest.approx(np.sqrt(0.5), abs=0.05)
    assert (raw[:20] * raw[20:40]).sum(axis=1).mean() == pytest.approx(0, abs=0.06)


def test_a_model_without_the_victims_kinds_is_refused() -> None:
    random = np.random.default_rng(0)
    dense = ArrayWeights({f"{place}": random.normal(size=(10, 10)) for place in range(3)}, "dense one")
    with pytest.raises(ModelError, match=r"^dense one: expected layers of the kinds") as caught:
        sketch(dense, PLAN)
    assert caught.value.code == "wrong-format"
    with pytest.raises(IncomparableError):
        order(answers(VICTIM), answers(sketch(llama(1, hidden=20, residual=16), PLAN)))


# What was made from a common ancestor.


def toward(start: ArrayWeights, seed: int, size: float = 0.4) -> ArrayWeights:
    """Trained further from somewhere: all models on one task go a part of their way together."""
    shared, own = np.random.default_rng(100), np.random.default_rng(seed)

    def move(_: str, array: np.ndarray) -> np.ndarray:
        scale = np.float32(size * array.std())
        common, alone = (random.normal(size=array.shape).astype(np.float32) for random in (shared, own))
        return array + scale * (0.5 * common + alone)

    return changed(start, move)


def test_siblings_are_far_and_what_came_through_the_victim_is_near() -> None:
    base = llama(50)
    owner = toward(base, 1)
    plan = plan_weights(owner, ancestry=True)
    siblings = tuple(sketch(toward(base, seed), plan) for seed in range(2, 7))
    victim = answers(sketch(owner, plan, victim=True), ancestor=sketch(base, plan), siblings=siblings)

    def slope(weights: ArrayWeights) -> float:
        return sibling_slope(victim, answers(sketch(weights, plan)))

    assert slope(owner) == pytest.approx(0, abs=1e-6)
    assert slope(noisy(owner, 0.1)) < 0.3
    assert slope(toward(owner, 8, 0.2)) < 0.4
    assert min(slope(toward(base, seed)) for seed in range(20, 26)) > 0.8
    for stranger in (llama(60), rotated(owner), llama(1, hidden=40)):
        with pytest.raises(IncomparableError):
            slope(stranger)
    with pytest.raises(IncomparableError):  # the victim is the ancestor itself
        sibling_slope(answers(sketch(owner, plan), ancestor=sketch(owner, plan)), answers(sketch(owner, plan)))
    with pytest.raises(IncomparableError):
        sibling_slope(answers(sketch(owner, plan)), answers(sketch(owner, plan)))
