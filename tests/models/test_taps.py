"""The rules that find taps, on graphs written by hand."""

from collections.abc import Callable

import numpy as np
import pytest
from refusals import refused

from deepjudge_core.errors import ModelError
from deepjudge_core.models.scores import Scores
from deepjudge_core.models.taps import Op, Role, Tap, axes_of_reshape, find_taps
from deepjudge_core.types import Array


def op(name: str, role: Role, *inputs: str, rank: int = 2, **facts) -> Op:
    return Op(name, role, inputs, rank, **facts)


def taps(*ops: Op, output: str | None = None) -> list[Tap]:
    """Of a graph that begins with the image ``x`` and ends with the last operation given."""
    return list(find_taps([op("x", Role.INPUT, rank=4), *ops], output or ops[-1].name).taps)


def names(*ops: Op) -> list[str]:
    return [tap.name for tap in taps(*ops)]


def scores(*ops: Op) -> tuple[str, Scores]:
    taps = find_taps([op("x", Role.INPUT), *ops], ops[-1].name)
    return taps.taps[-1].name, taps.scores


DENSE = op("dense", Role.PROJECTION, "x")
CONV = op("conv", Role.CONVOLUTION, "x", rank=4, channel=1)


def after_conv(*ops: Op, last: str) -> int:
    """Channel axis of an activation of ``last``, which is computed from a convolution with channels on axis 1."""
    rank = {o.name: o.rank for o in (CONV, *ops)}[last]
    head = op("logits", Role.PROJECTION, "act")
    return taps(CONV, *ops, op("act", Role.ACTIVATION, last, rank=rank), head)[0].channel


# Which tensors are taps


def test_activations_are_taps_in_forward_order_and_the_logits_the_last() -> None:
    graph = [
        DENSE,
        op("relu", Role.ACTIVATION, "dense"),
        op("dense2", Role.PROJECTION, "relu"),
        op("sigmoid", Role.SIGMOID, "dense2"),
        op("logits", Role.PROJECTION, "sigmoid"),
    ]
    assert names(*graph) == ["relu", "sigmoid", "logits"]


def test_activations_in_a_row_are_a_tap_each() -> None:
    graph = [
        DENSE,
        op("a", Role.ACTIVATION, "dense"),
        op("b", Role.ACTIVATION, "a"),
        op("logits", Role.PROJECTION, "b"),
    ]
    assert names(*graph) == ["a", "b", "logits"]


def test_recurrent_layers_are_taps() -> None:
    graph = [op("lstm", Role.RECURRENT, "x", rank=3, channel=2), op("logits", Role.PROJECTION, "lstm")]
    assert names(*graph) == ["lstm", "logits"]


def sequence(*used: Op) -> list[Tap]:
    """Of a recurrent layer whose output is used so."""
    lstm = op("lstm", Role.RECURRENT, "x", rank=3, channel=2)
    return taps(lstm, *used, op("logits", Role.PROJECTION, *(o.name for o in used)))


STEP = op("step", Role.SELECT, "lstm", permutation=(0, 2))


def test_of_a_sequence_the_one_step_that_is_used_is_the_tap() -> None:
    assert sequence(STEP)[0] == Tap("step", 1)
    dropout = op("kept", Role.KEEP, "lstm", rank=3)
    assert (
        sequence(dropout, op("step", Role.SELECT, "kept", permutation=(0, 2)))[0].name == "lstm"
    )  # used as it is, too
    after = [op("lstm", Role.RECURRENT, "x", rank=3, channel=2), dropout]
    after += [op("step", Role.SELECT, "kept", permutation=(0, 2)), op("logits", Role.PROJECTION, "step")]
    assert names(*after) == ["step", "logits"]
    still = op("step", Role.SELECT, "lstm", rank=3, permutation=(0, -1, 2))
    assert sequence(still)[0] == Tap("step", 2)


@pytest.mark.parametrize(
    "other",
    [
        op("other", Role.PROJECTION, "lstm", rank=3),
        op("other", Role.SELECT, "lstm", permutation=(0, 2)),
        op("other", Role.ACTIVATION, "lstm", rank=3),
    ],
)
def test_a_sequence_that_is_used_twice_is_the_tap(other: Op) -> None:
    assert sequence(STEP, other)[0] == Tap("lstm", 2)


def test_a_step_is_found_behind_a_transpose() -> None:
    lstm = op("lstm", Role.RECURRENT, "x", rank=3, channel=2)
    moved = op("moved", Role.TRANSPOSE, "lstm", rank=3, permutation=(0, 2, 1))
    logits = op("logits", Role.PROJECTION, "step")
    assert taps(lstm, moved, op("step", Role.SELECT, "moved", permutation=(0, 1)), logits)[0] == Tap("step", 1)
    neuron = op("step", Role.SELECT, "moved", permutation=(0, 2))
    assert taps(lstm, moved, neuron, logits)[0] == Tap("lstm", 2)


def test_a_reduction_of_a_sequence_is_not_the_layer_any_more() -> None:
    lstm = op("lstm", Role.RECURRENT, "x", rank=4, channel=3)
    most = op("most", Role.TRANSPOSE, "lstm", rank=3, permutation=(0, 1, 3))
    step = op("step", Role.SELECT, "most", permutation=(0, 2))
    assert taps(lstm, most, step, op("logits", Role.PROJECTION, "step"))[0] == Tap("lstm", 3)


def test_one_channel_of_many_stays_on_their_axis() -> None:
    convolution = op("conv", Role.CONVOLUTION, "x", rank=4, channel=1)
    one = op("one", Role.SELECT, "conv", rank=4, permutation=(0, -1, 2, 3))
    relu = op("relu", Role.ACTIVATION, "one", rank=4)
    assert taps(convolution, one, relu, op("logits", Role.PROJECTION, "relu"))[0] == Tap("relu", 1)


def test_a_neuron_of_a_sequence_is_no_step() -> None:
    assert sequence(op("neuron", Role.SELECT, "lstm", permutation=(0, 1)))[0] == Tap("lstm", 2)


def test_other_operations_are_no_taps() -> None:
    graph = [DENSE, op("drop", Role.KEEP, "dense"), op("flat", Role.RESHAPE, "drop"), op("logits", Role.OTHER, "flat")]
    assert names(*graph) == ["logits"]


def test_a_branch_that_the_scores_do_not_depend_on_has_no_taps() -> None:
    graph = [DENSE, op("dead", Role.ACTIVATION, "dense"), op("logits", Role.PROJECTION, "dense")]
    assert names(*graph) == ["logits"]


def test_an_activation_at_the_end_is_the_logits_and_no_tap_besides() -> None:
    assert names(DENSE, op("relu", Role.ACTIVATION, "dense")) == ["relu"]


def test_operations_after_the_logits_are_no_taps() -> None:
    graph = [DENSE, op("softmax", Role.SOFTMAX, "dense")]
    assert names(*graph) == ["dense"]


def test_an_output_that_is_not_in_the_graph_is_an_error() -> None:
    with refused(ModelError, "'y'"):
        taps(DENSE, output="y")


# Activations of several operations


def test_a_product_with_its_own_gate_is_one_activation() -> None:
    silu = [DENSE, op("sigmoid", Role.SIGMOID, "dense"), op("silu", Role.MULTIPLY, "dense", "sigmoid")]
    assert names(*silu, op("logits", Role.PROJECTION, "silu")) == ["silu", "logits"]


def test_a_gate_of_several_activations_is_one_activation() -> None:
    mish = [
        DENSE,
        op("softplus", Role.ACTIVATION, "dense"),
        op("tanh", Role.ACTIVATION, "softplus"),
        op("mish", Role.MULTIPLY, "tanh", "dense"),
    ]
    assert names(*mish, op("logits", Role.PROJECTION, "mish")) == ["mish", "logits"]


def test_arithmetic_around_a_gate_belongs_to_the_activation() -> None:
    gelu = [
        DENSE,
        op("half", Role.ELEMENTWISE, "dense"),
        op("scaled", Role.ELEMENTWISE, "dense"),
        op("erf", Role.ACTIVATION, "scaled"),
        op("plus1", Role.ELEMENTWISE, "erf"),
        op("gelu", Role.MULTIPLY, "half", "plus1"),
    ]
    assert names(*gelu, op("logits", Role.PROJECTION, "gelu")) == ["gelu", "logits"]


def test_a_gate_computed_by_a_layer_is_an_activation_of_its_own() -> None:
    squeeze = [
        DENSE,
        op("inner", Role.PROJECTION, "dense"),
        op("gate", Role.SIGMOID, "inner"),
        op("product", Role.MULTIPLY, "dense", "gate"),
    ]
    assert names(*squeeze, op("logits", Role.PROJECTION, "product")) == ["gate", "logits"]


def test_a_sum_of_activations_of_one_tensor_is_one_activation() -> None:
    prelu = [
        DENSE,
        op("positive", Role.ACTIVATION, "dense"),
        op("minus", Role.ELEMENTWISE, "dense"),
        op("negative", Role.ACTIVATION, "minus"),
        op("prelu", Role.ELEMENTWISE, "positive", "negative"),
    ]
    assert names(*prelu, op("logits", Role.PROJECTION, "prelu")) == ["prelu", "logits"]


def test_a_shortcut_is_no_part_of_an_activation() -> None:
    graph = [DENSE, op("relu", Role.ACTIVATION, "dense"), op("sum", Role.ELEMENTWISE, "dense", "relu")]
    assert names(*graph, op("logits", Role.PROJECTION, "sum")) == ["relu", "logits"]


# The scores


@pytest.mark.parametrize(
    ("role", "kind"),
    [
        (Role.SOFTMAX, Scores.PROBABILITIES),
        (Role.SIGMOID, Scores.SIGMOIDS),
        (Role.LOG_SOFTMAX, Scores.LOG_PROBABILITIES),
    ],
)
def test_a_final_softmax_or_sigmoid_is_looked_through(role: Role, kind: Scores) -> None:
    assert scores(DENSE, op("end", role, "dense")) == ("dense", kind)


def test_what_keeps_probabilities_is_looked_through() -> None:
    graph = [
        DENSE,
        op("softmax", Role.SOFTMAX, "dense"),
        op("drop", Role.IDENTITY, "softmax"),
        op("reshape", Role.RESHAPE, "drop"),
    ]
    assert scores(*graph) == ("dense", Scores.PROBABILITIES)


@pytest.mark.parametrize("role", [Role.ELEMENTWISE, Role.CONVERSION, Role.KEEP, Role.PAD])
def test_what_may_change_probabilities_is_not_looked_through(role: Role) -> None:
    graph = [DENSE, op("softmax", Role.SOFTMAX, "dense"), op("end", role, "softmax")]
    assert scores(*graph) == ("end", Scores.UNKNOWN)


def test_a_softmax_inside_is_no_end_of_a_classifier() -> None:
    graph = [DENSE, op("attention", Role.SOFTMAX, "dense"), op("logits", Role.PROJECTION, "attention")]
    assert scores(*graph) == ("logits", Scores.UNKNOWN)  # it might be a weighted mean of probabilities


@pytest.mark.parametrize(
    ("end", "kind"),
    [
        ([op("y", Role.AFFINE, "dense")], Scores.LOGITS),
        ([op("other", Role.CONVOLUTION, "x"), op("y", Role.AFFINE, "dense", "other")], Scores.LOGITS),
        ([op("relu", Role.ACTIVATION, "dense"), op("y", Role.PROJECTION, "relu")], Scores.LOGITS),
        ([op("tanh", Role.ACTIVATION, "dense"), op("y", Role.AFFINE, "tanh")], Scores.UNKNOWN),
        ([op("exp", Role.ELEMENTWISE, "dense"), op("y", Role.ELEMENTWISE, "exp")], Scores.UNKNOWN),
        ([op("p", Role.SIGMOID, "dense"), op("y", Role.AFFINE, "p", "dense")], Scores.UNKNOWN),
        (
            [op("p", Role.SIGMOID, "dense"), op("both", Role.OTHER, "p"), op("y", Role.PROJECTION, "both")],
            Scores.UNKNOWN,
        ),
        ([op("p", Role.OTHER, "dense")], Scores.UNKNOWN),
    ],
)
def test_logits_are_known_by_layers_of_weights_at_the_end(end: list[Op], kind: Scores) -> None:
    assert scores(DENSE, *end) == (end[-1].name, kind)


def test_dropout_without_a_softmax_before_it_stays_the_logits() -> None:
    assert scores(DENSE, op("drop", Role.KEEP, "dense")) == ("drop", Scores.LOGITS)


# The axis of the neurons


def test_channels_of_a_matrix_are_its_columns() -> None:
    assert taps(DENSE)[0].channel == 1


def test_channels_of_a_convolution_are_where_it_says() -> None:
    last = op("conv", Role.CONVOLUTION, "x", rank=4, channel=-1)
    head = op("logits", Role.PROJECTION, "act")
    assert taps(last, op("act", Role.ACTIVATION, "conv", rank=4), head)[0].channel == 3
    assert after_conv(last="conv") == 1


def test_channels_of_a_recurrent_layer_are_where_it_says() -> None:
    lstm = op("lstm", Role.RECURRENT, "x", rank=3, channel=1)
    assert taps(lstm, op("logits", Role.PROJECTION, "lstm"))[0].channel == 1


@pytest.mark.parametrize("role", [Role.KEEP, Role.ELEMENTWISE, Role.SIGMOID, Role.ACTIVATION])
def test_channels_stay_where_they_are(role: Role) -> None:
    assert after_conv(op("next", role, "conv", rank=4), last="next") == 1


def test_channels_move_with_a_transpose() -> None:
    nhwc = op("nhwc", Role.TRANSPOSE, "conv", rank=4, permutation=(0, 2, 3, 1))
    assert after_conv(nhwc, last="nhwc") == 3


def test_channels_come_back_with_a_second_transpose() -> None:
    nhwc = op("nhwc", Role.TRANSPOSE, "conv", rank=4, permutation=(0, 2, 3, 1))
    nchw = op("nchw", Role.TRANSPOSE, "nhwc", rank=4, permutation=(0, 3, 1, 2))
    assert after_conv(nhwc, nchw, last="nchw") == 1


def test_channels_are_followed_where_axes_come_and_go() -> None:
    gone = op("row", Role.TRANSPOSE, "conv", rank=3, permutation=(0, 1, 3))
    new = op("new", Role.TRANSPOSE, "row", rank=4, permutation=(0, -1, 1, 2))
    assert after_conv(gone, last="row") == 1
    assert after_conv(gone, new, last="new") == 2


def test_a_projection_puts_features_last() -> None:
    assert after_conv(op("dense", Role.PROJECTION, "conv", rank=4), last="dense") == 3


def test_channels_of_broadcast_operands_are_those_of_the_full_one() -> None:
    added = op("added", Role.ELEMENTWISE, "bias", "conv", rank=4)
    assert after_conv(op("bias", Role.PROJECTION, "x"), added, last="added") == 1


@pytest.mark.parametrize(
    ("before", "after", "axes"),
    [
        (["n", 4, 5, 6], ["n", 4, 30], (0, 1, -1)),
        (["n", 5, 6, 4], ["n", 30, 4], (0, -1, 3)),
        (["n", 30, 4], ["n", 5, 6, 4], (0, -1, -1, 2)),
        (["n", 5, 8], ["n", 5, 2, 4], (0, 1, -1, -1)),
        (["n", 4, 5, 6], ["n", 4, 5, 6], (0, 1, 2, 3)),
        (["n", 4, 5, 6], ["n", 120], ()),
        (["n", 4, 5], ["m", 5], ()),
    ],
)
def test_what_a_reshape_keeps(before: list[object], after: list[object], axes: tuple[int, ...]) -> None:
    assert axes_of_reshape(before, after) == axes


def test_channels_stay_where_a_reshape_joins_the_other_axes() -> None:
    joined = op("joined", Role.RESHAPE, "conv", rank=3, permutation=(0, 1, -1))
    assert after_conv(joined, last="joined") == 1
    moved = op("moved", Role.TRANSPOSE, "joined", rank=3, permutation=(0, 2, 1))
    assert after_conv(joined, moved, last="moved") == 2


# One place for one function


def unpooled(*ops: Op) -> list[Tap]:
    return taps(CONV, *ops, op("logits", Role.PROJECTION, ops[-1].name))


POOL = {"rank": 4, "channel": 1}


def test_an_activation_is_heard_behind_the_max_pooling_in_either_order() -> None:
    relu = op("relu", Role.ACTIVATION, "conv", rank=4)
    assert unpooled(relu, op("pool", Role.MAX_POOL, "relu", **POOL))[0] == Tap("pool", 1)
    pool = op("pool", Role.MAX_POOL, "conv", **POOL)
    assert unpooled(pool, op("relu", Role.ACTIVATION, "pool", rank=4))[0] == Tap("relu", 1)


def test_what_passes_values_on_may_stand_before_the_pooling() -> None:
    relu = op("relu", Role.ACTIVATION, "conv", rank=4)
    drop = op("drop", Role.IDENTITY, "relu", rank=4)
    nhwc = op("nhwc", Role.TRANSPOSE, "drop", rank=4, permutation=(0, 2, 3, 1))
    assert unpooled(relu, drop, nhwc, op("pool", Role.MAX_POOL, "nhwc", rank=4))[0] == Tap("pool", 3)


def test_zeros_around_and_joined_axes_may_stand_before_the_pooling() -> None:
    relu, pad = op("relu", Role.ACTIVATION, "conv", rank=4), op("pad", Role.PAD, "relu", rank=4)
    assert unpooled(relu, pad, op("pool", Role.MAX_POOL, "pad", **POOL))[0] == Tap("pool", 1)
    joined = op("joined", Role.RESHAPE, "relu", rank=3, permutation=(0, 1, -1))
    assert unpooled(relu, joined, op("most", Role.MAX_POOL, "joined", permutation=(0, 1)))[0] == Tap("most", 1)


def test_several_poolings_are_looked_through_and_one_over_channels_is_not() -> None:
    relu, pool = op("relu", Role.ACTIVATION, "conv", rank=4), op("pool", Role.MAX_POOL, "relu", **POOL)
    assert unpooled(relu, pool, op("pool2", Role.MAX_POOL, "pool", **POOL))[0] == Tap("pool2", 1)
    over = op("over", Role.MAX_POOL, "relu", rank=4, permutation=(0, -1, 2, 3))
    assert unpooled(relu, over)[0] == Tap("relu", 1)


@pytest.mark.parametrize("role", [Role.KEEP, Role.ELEMENTWISE])
def test_what_changes_values_before_the_pooling_keeps_the_tap_where_it_is(role: Role) -> None:
    relu, norm = op("relu", Role.ACTIVATION, "conv", rank=4), op("norm", role, "relu", rank=4)
    assert unpooled(relu, norm, op("pool", Role.MAX_POOL, "norm", **POOL))[0] == Tap("relu", 1)


def test_an_activation_that_is_used_beside_the_pooling_stays_where_it_is() -> None:
    relu, pool = op("relu", Role.ACTIVATION, "conv", rank=4), op("pool", Role.MAX_POOL, "relu", **POOL)
    assert taps(CONV, relu, pool, op("logits", Role.PROJECTION, "pool", "relu"))[0] == Tap("relu", 1)


def test_a_flattened_activation_has_the_axes_of_before() -> None:
    flat = op("flat", Role.RESHAPE, "conv")
    assert unpooled(flat, op("relu", Role.ACTIVATION, "flat"))[0] == Tap("relu", 1, "conv")
    gate = [op("sigmoid", Role.SIGMOID, "flat"), op("silu", Role.MULTIPLY, "flat", "sigmoid")]
    assert unpooled(flat, *gate)[0] == Tap("silu", 1, "conv")
    relu = op("relu", Role.ACTIVATION, "conv", rank=4)
    assert unpooled(relu, op("flat", Role.RESHAPE, "relu"))[0] == Tap("relu", 1)


# Activations spelt out


def step(name: str, inputs: str, function: Callable[..., Array], role: Role = Role.ELEMENTWISE) -> Op:
    return op(name, role, *inputs.split(), function=function)


def relu6(name: str, source: str) -> Op:
    return step(name, source, lambda x: np.clip(x, 0, 6), Role.ACTIVATION)


SPELT = {
    "x * (x > 0)": [
        step("kink", "dense", lambda x: x > 0),
        step("end", "dense kink", lambda x, k: x * k, Role.MULTIPLY),
    ],
    "where(x > 0, x, 0)": [
        step("kink", "dense", lambda x: x > 0),
        step("end", "kink dense", lambda k, x: np.where(k, x, 0), Role.MULTIPLY),
    ],
    "max(x, a * x)": [
        step("part", "dense", lambda x: 0.1 * x, Role.AFFINE),
        step("end", "dense part", np.maximum),
    ],
    "max(x, a * x), a for each channel": [
        step("part", "dense", lambda x: x * np.array([[0.1, 0.2, 0.3]]), Role.AFFINE),
        step("end", "dense part", np.maximum),
    ],
    "-min(-x, 0)": [
        step("minus", "dense", lambda x: -x, Role.AFFINE),
        step("least", "minus", lambda x: np.minimum(x, 0), Role.ACTIVATION),
        step("end", "least", lambda x: -x, Role.AFFINE),
    ],
    "(x + |x|) / 2": [
        step("abs", "dense", np.abs),
        step("sum", "dense abs", np.add, Role.AFFINE),
        step("end", "sum", lambda x: x / 2, Role.AFFINE),
    ],
    "x * relu6(x + 3) / 6": [
        step("plus3", "dense", lambda x: x + 3, Role.AFFINE),
        relu6("relu6", "plus3"),
        step("product", "dense relu6", lambda x, y: x * y, Role.MULTIPLY),
        step("end", "product", lambda x: x / 6, Role.AFFINE),
    ],
    "min(relu(x), 6)": [
        step("relu", "dense", lambda x: np.maximum(x, 0), Role.ACTIVATION),
        step("end", "relu", lambda x: np.minimum(x, 6), Role.ACTIVATION),
    ],
    "x / (1 + |x|)": [
        step("abs", "dense", np.abs),
        step("plus1", "abs", lambda x: 1 + x, Role.AFFINE),
        step("end", "dense plus1", np.divide),
    ],
    "log(1 + exp(x))": [
        step("exp", "dense", np.exp),
        step("plus1", "exp", lambda x: 1 + x, Role.AFFINE),
        step("end", "plus1", np.log),
    ],
    "x / (1 + exp(-x))": [
        step("minus", "dense", lambda x: -x, Role.AFFINE),
        step("exp", "minus", np.exp),
        step("plus1", "exp", lambda x: 1 + x, Role.AFFINE),
        step("end", "dense plus1", np.divide),
    ],
    "where(x > 0, x, exp(x) - 1)": [
        step("kink", "dense", lambda x: x > 0),
        step("exp", "dense", np.expm1),
        step("end", "kink dense exp", np.where, Role.MULTIPLY),
    ],
    "2 / (1 + exp(-2 x)) - 1": [
        step("twice", "dense", lambda x: -2 * x, Role.AFFINE),
        step("exp", "twice", np.exp),
        step("share", "exp", lambda x: 2 / (1 + x)),
        step("end", "share", lambda x: x - 1, Role.AFFINE),
    ],
    "relu(relu(x))": [
        step("relu", "dense", lambda x: np.maximum(x, 0), Role.ACTIVATION),
        step("end", "relu", lambda x: np.maximum(x, 0), Role.ACTIVATION),
    ],
    "x * (1 + erf(x)) / 2, of unknown values": [
        op("erf", Role.ACTIVATION, "dense"),
        op("plus1", Role.AFFINE, "erf"),
        op("end", Role.MULTIPLY, "dense", "plus1"),
    ],
}


@pytest.mark.parametrize("spelt", SPELT.values(), ids=SPELT)
def test_an_activation_spelt_out_is_one_tap_at_its_end(spelt: list[Op]) -> None:
    assert names(DENSE, *spelt, op("logits", Role.PROJECTION, "end")) == ["end", "logits"]


NONE = {
    "|x|": [step("abs", "dense", np.abs), step("end", "abs", lambda x: x + 1, Role.AFFINE)],
    "maxout": [op("other", Role.PROJECTION, "x"), step("end", "dense other", np.maximum)],
    "x ** 2": [step("end", "dense", np.square)],
    "exp(x), of a softmax": [
        step("exp", "dense", np.exp),
        op("sum", Role.OTHER, "exp"),
        step("end", "exp sum", np.divide),
    ],
    "clip(x, -1e4, 1e4)": [step("end", "dense", lambda x: np.clip(x, -1e4, 1e4), Role.ACTIVATION)],
}


@pytest.mark.parametrize("spelt", NONE.values(), ids=NONE)
def test_arithmetic_that_is_no_activation_is_no_tap(spelt: list[Op]) -> None:
    assert names(DENSE, *spelt, op("logits", Role.PROJECTION, "end")) == ["logits"]


def test_a_shortcut_around_an_activation_spelt_out_is_no_part_of_it() -> None:
    added = step("sum", "dense end", np.add, Role.AFFINE)
    assert names(DENSE, *SPELT["x * (x > 0)"], added, op("logits", Role.PROJECTION, "sum")) == ["end", "logits"]


def test_a_number_behind_an_activation_that_is_whole_is_no_part_of_it() -> None:
    half = step("half", "end", lambda x: x / 2, Role.AFFINE)
    assert names(DENSE, *SPELT["x * (x > 0)"], half, op("logits", Role.PROJECTION, "half")) == ["end", "logits"]


def test_a_part_that_something_else_uses_is_a_tap_too() -> None:
    graph = [*SPELT["min(relu(x), 6)"], op("logits", Role.PROJECTION, "end", "relu")]
    assert names(DENSE, *graph) == ["relu", "end", "logits"]


def test_preprocessing_without_weights_makes_no_activation() -> None:
    mask = op("mask", Role.ELEMENTWISE, "x", rank=4, function=lambda x: x > 0)
    chosen = op("chosen", Role.MULTIPLY, "mask", "x", rank=4, function=lambda k, x: x * k)
    assert names(mask, chosen, op("logits", Role.PROJECTION, "chosen")) == ["logits"]
    limits = op("limits", Role.ACTIVATION, "x", rank=4, function=lambda x: np.clip(x, 0, 1))
    assert names(limits, op("logits", Role.PROJECTION, "limits")) == ["logits"]


def test_a_function_that_cannot_be_computed_is_not_known() -> None:
    def fails(x: Array) -> Array:
        raise RuntimeError("no such kernel")

    assert names(DENSE, step("end", "dense", fails), op("logits", Role.PROJECTION, "end")) == ["logits"]


def test_long_chains_of_arithmetic_are_looked_at_piece_by_piece() -> None:
    calls = []

    def plus(x: Array) -> Array:
        calls.append(x)
        return x + 1

    last, chain = "dense", []
    for place in range(600):
        chain.append(step(f"plus{place}", last, plus))
        last = f"plus{place}"
    assert names(DENSE, *chain, op("logits", Role.PROJECTION, last)) == ["logits"]
    assert len(calls) <= 32 * 600
