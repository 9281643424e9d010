"""What tensors are for: whatever a family calls them, a copy with its hidden units in another order is found."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pytest
from deepjudge_weights.metrics import neuron_sketch

from deepjudge_core import Answers
from deepjudge_core.errors import ModelError
from deepjudge_core.testing.weights import ArrayWeights
from deepjudge_core.weights.order import order_test
from deepjudge_core.weights.roles import find_roles
from deepjudge_core.weights.sketching import plan_weights, sketch

D, M, TOKENS, BLOCKS = 12, 40, 60, 3


@dataclass(frozen=True)
class Family:
    """The names of a family, with the shapes and the axes along which hidden units lie.

    Attributes:
        block: Name of a block's tensor to its shape and the axis of hidden units; None where they are not in it.
        outside: The same for tensors outside of blocks.
        parts: How many matrices of hidden units lie one below the other in a tensor.
        residual: Whether the residual dimensions may be tested.
        config: What stands beside.
    """

    block: Mapping[str, tuple[tuple[int, ...], int | None]]
    outside: Mapping[str, tuple[int, ...]]
    parts: int = 1
    residual: bool = True
    config: Mapping[str, str] | None = None


def linear(read: str, write: str, *more: str) -> dict[str, tuple[tuple[int, ...], int | None]]:
    return {**dict.fromkeys((read, *more), ((M, D), 0)), write: ((D, M), 1)}


GAIN: tuple[tuple[int, ...], None] = ((D,), None)
SQUARE: tuple[tuple[int, ...], None] = ((D, D), None)
VOCABULARY, NORM = (TOKENS, D), (D,)
LLAMA_OUTSIDE = {"model.embed_tokens.weight": VOCABULARY, "model.norm.weight": NORM, "lm_head.weight": VOCABULARY}
AT = "model.layers.{}."

FAMILIES: dict[str, Family] = {
    "llama": Family(
        {
            **linear(AT + "mlp.gate_proj.weight", AT + "mlp.down_proj.weight", AT + "mlp.up_proj.weight"),
            AT + "self_attn.q_proj.weight": SQUARE,
            AT + "input_layernorm.weight": GAIN,
            AT + "post_attention_layernorm.weight": GAIN,
        },
        LLAMA_OUTSIDE,
    ),
    "wrapped": Family(
        {
            **linear(
                "_orig_mod.base_model.model.model.layers.{}.mlp.gate_proj.base_layer.weight",
                "_orig_mod.base_model.model.model.layers.{}.mlp.down_proj.base_layer.weight",
                "_orig_mod.base_model.model.model.layers.{}.mlp.up_proj.base_layer.weight",
            ),
            "_orig_mod.base_model.model.model.layers.{}.input_layernorm.weight": GAIN,
            "_orig_mod.base_model.model.model.layers.{}.post_attention_layernorm.weight": GAIN,
        },
        {"_orig_mod.base_model.model." + name: shape for name, shape in LLAMA_OUTSIDE.items()},
    ),
    "gemma": Family(
        {
            **linear(AT + "mlp.gate_proj.weight", AT + "mlp.down_proj.weight", AT + "mlp.up_proj.weight"),
            AT + "pre_feedforward_layernorm.weight": GAIN,
        },
        {"model.embed_tokens.weight": VOCABULARY, "model.norm.weight": NORM},
        config={"model_type": "gemma2"},
    ),
    "phi3": Family(
        {
            AT + "mlp.gate_up_proj.weight": ((2 * M, D), 0),
            AT + "mlp.down_proj.weight": ((D, M), 1),
            AT + "input_layernorm.weight": GAIN,
            AT + "post_attention_layernorm.weight": GAIN,
        },
        LLAMA_OUTSIDE,
        parts=2,
    ),
    "mixtral": Family(
        {
            **linear(
                AT + "block_sparse_moe.experts.0.w1.weight",
                AT + "block_sparse_moe.experts.0.w2.weight",
                AT + "block_sparse_moe.experts.0.w3.weight",
            ),
            AT + "input_layernorm.weight": GAIN,
            AT + "post_attention_layernorm.weight": GAIN,
        },
        LLAMA_OUTSIDE,
    ),
    "gguf": Family(
        {
            **linear("blk.{}.ffn_gate.weight", "blk.{}.ffn_down.weight", "blk.{}.ffn_up.weight"),
            "blk.{}.ffn_norm.weight": GAIN,
            "blk.{}.attn_q.weight": SQUARE,
        },
        {"token_embd.weight": VOCABULARY, "output_norm.weight": NORM},
    ),
    "gguf experts": Family(
        {
            "blk.{}.ffn_gate_exps.weight": ((2, M, D), 1),
            "blk.{}.ffn_up_exps.weight": ((2, M, D), 1),
            "blk.{}.ffn_down_exps.weight": ((2, D, M), 2),
            "blk.{}.ffn_norm.weight": GAIN,
        },
        {"token_embd.weight": VOCABULARY, "output_norm.weight": NORM, "output.weight": VOCABULARY},
    ),
    "gpt2": Family(
        {
            "h.{}.mlp.c_fc.weight": ((D, M), 1),
            "h.{}.mlp.c_proj.weight": ((M, D), 0),
            "h.{}.mlp.c_fc.bias": ((M,), 0),
            "h.{}.ln_2.weight": GAIN,
            "h.{}.ln_2.bias": GAIN,
        },
        {"wte.weight": VOCABULARY, "wpe.weight": (20, D), "ln_f.weight": NORM},
    ),
    "gpt2 rewritten": Family(
        {
            **linear("transformer.h.{}.mlp.c_fc.weight", "transformer.h.{}.mlp.c_proj.weight"),
            "transformer.h.{}.ln_2.weight": GAIN,
        },
        {"transformer.wte.weight": VOCABULARY, "transformer.ln_f.weight": NORM, "lm_head.weight": VOCABULARY},
    ),
    "gpt-neox": Family(
        {
            **linear("gpt_neox.layers.{}.mlp.dense_h_to_4h.weight", "gpt_neox.layers.{}.mlp.dense_4h_to_h.weight"),
            "gpt_neox.layers.{}.post_attention_layernorm.weight": GAIN,
            "gpt_neox.layers.{}.post_attention_layernorm.bias": GAIN,
            "gpt_neox.layers.{}.input_layernorm.weight": GAIN,
        },
        {
            "gpt_neox.embed_in.weight": VOCABULARY,
            "gpt_neox.final_layer_norm.weight": NORM,
            "embed_out.weight": VOCABULARY,
        },
    ),
    "opt": Family(
        {
            **linear("model.decoder.layers.{}.fc1.weight", "model.decoder.layers.{}.fc2.weight"),
            "model.decoder.layers.{}.final_layer_norm.weight": GAIN,
        },
        {"model.decoder.embed_tokens.weight": VOCABULARY, "model.decoder.final_layer_norm.weight": NORM},
        config={"model_type": "opt"},
    ),
    "whisper": Family(
        linear("model.decoder.layers.{}.fc1.weight", "model.decoder.layers.{}.fc2.weight"),
        {"model.decoder.embed_tokens.weight": VOCABULARY},
        residual=False,  # positions are sines
    ),
    "bert": Family(
        {
            **linear("bert.encoder.layer.{}.intermediate.dense.weight", "bert.encoder.layer.{}.output.dense.weight"),
            "bert.encoder.layer.{}.attention.self.query.weight": SQUARE,
        },
        {"bert.embeddings.word_embeddings.weight": VOCABULARY},
    ),
    "distilbert": Family(
        linear("transformer.layer.{}.ffn.lin1.weight", "transformer.layer.{}.ffn.lin2.weight"),
        {"embeddings.word_embeddings.weight": VOCABULARY},
    ),
    "sentence transformer": Family(
        linear(
            "0.auto_model.encoder.layer.{}.intermediate.dense.weight",
            "0.auto_model.encoder.layer.{}.output.dense.weight",
        ),
        {"0.auto_model.embeddings.word_embeddings.weight": VOCABULARY},
    ),
    "vit": Family(
        {**linear("blocks.{}.mlp.fc1.weight", "blocks.{}.mlp.fc2.weight"), "blocks.{}.norm2.weight": GAIN},
        {"patch_embed.proj.weight": (D, 3, 5, 5)},
        residual=False,
    ),
    "own names": Family(
        {
            **linear("net.{}.widen", "net.{}.narrow"),
            **{"net.{}.attention_" + name: SQUARE for name in "qkvo"},
        },
        {},
        residual=False,
    ),
}


def make(family: Family, seed: int) -> ArrayWeights:
    random = np.random.default_rng(seed)
    arrays = {name: random.normal(size=shape).astype(np.float32) for name, shape in family.outside.items()}
    for block in range(BLOCKS):
        for name, (shape, _) in family.block.items():
            arrays[name.format(block)] = random.normal(size=shape).astype(np.float32)
    return ArrayWeights(arrays, config=dict(family.config or {}))


def reordered(family: Family, weights: ArrayWeights) -> ArrayWeights:
    random, arrays = np.random.default_rng(1), dict(weights.arrays)
    for block in range(BLOCKS):
        order = random.permutation(M)
        for name, (shape, axis) in family.block.items():
            if axis is not None:
                parts = shape[axis] // M
                places = np.concatenate([order + part * M for part in range(parts)])
                arrays[name.format(block)] = arrays[name.format(block)].take(places, axis=axis)
    return ArrayWeights(arrays, config=weights.config)


def answers(weights: ArrayWeights, plan, **kwargs) -> Answers:
    return Answers(np.empty(0), weights=sketch(weights, plan, **kwargs))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_copy_with_its_hidden_units_in_another_order_is_one(name: str) -> None:
    family = FAMILIES[name]
    owner, other = make(family, 0), make(family, 2)
    plan = plan_weights(owner)
    victim = answers(owner, plan, victim=True)
    copied = answers(reordered(family, owner), plan)
    assert neuron_sketch(victim, answers(owner, plan)) == 0
    assert neuron_sketch(victim, copied) == 0
    assert neuron_sketch(victim, answers(other, plan)) > 0.3
    # What is left in order are the residual dimensions, if nothing else puts them in order.
    test = order_test(victim.weights, copied.weights)
    assert test is not None
    assert (test.log10_p < -4) == family.residual


@pytest.mark.parametrize("name", FAMILIES)
def test_every_matrix_of_the_hidden_units_is_found(name: str) -> None:
    family = FAMILIES[name]
    weights = make(family, 0)
    roles = find_roles(weights)
    found = {view.tensor for layer in roles.layers for view in layer.views}
    wanted = {
        tensor.format(block)
        for block in range(BLOCKS)
        for tensor, (shape, axis) in family.block.items()
        if axis is not None and len(shape) > 1
    }
    assert found == wanted
    assert [layer.block for layer in roles.layers] == list(range(len(roles.layers)))
    assert {layer.width for layer in roles.layers} == {M}


def test_blocks_are_in_the_order_of_their_numbers() -> None:
    family = FAMILIES["gguf"]
    arrays = {}
    for block in (10, 2, 0, 1):
        arrays |= {name.format(block): np.ones(shape) for name, (shape, _) in family.block.items()}
    assert [layer.name for layer in find_roles(ArrayWeights(arrays)).layers] == ["blk.0", "blk.1", "blk.2", "blk.10"]


def test_a_gain_counts_wherever_it_is() -> None:
    # What is multiplied into the matrices, or stands before them, is the same network.
    family = FAMILIES["llama"]
    owner = make(family, 0)
    folded = dict(owner.arrays)
    for block in range(BLOCKS):
        gain = f"model.layers.{block}.post_attention_layernorm.weight"
        for name in ("gate", "up"):
            tensor = f"model.layers.{block}.mlp.{name}_proj.weight"
            folded[tensor] = folded[tensor] * folded[gain]
        folded[gain] = np.ones(D, np.float32)
    folded["lm_head.weight"] = folded["lm_head.weight"] * folded["model.norm.weight"]
    folded["model.norm.weight"] = np.ones(D, np.float32)
    plan = plan_weights(owner)
    ours, theirs = sketch(owner, plan), sketch(ArrayWeights(folded), plan)
    for a, b in zip(ours.layers, theirs.layers, strict=True):
        np.testing.assert_allclose(a.raw, b.raw, atol=2e-3)


def test_gemma_stores_its_gains_less_1() -> None:
    family = FAMILIES["gemma"]
    owner = make(family, 0)
    as_others = {name: array + 1 if "norm" in name else array for name, array in owner.arrays.items()}
    plan = plan_weights(owner)
    ours, theirs = sketch(owner, plan), sketch(ArrayWeights(as_others), plan)
    for a, b in zip(ours.layers, theirs.layers, strict=True):
        np.testing.assert_allclose(a.raw, b.raw, atol=2e-3)


CHAINS: dict[str, Callable[[], list[tuple[int, ...]]]] = {
    "dense": lambda: [(30, 20), (25, 30), (4, 25)],
    "dense, inputs first": lambda: [(20, 30), (30, 25), (25, 4)],
    "convolutional": lambda: [(6, 1, 5, 5), (16, 6, 5, 5), (30, 16 * 4), (4, 30)],
    "convolutional, channels last": lambda: [(5, 5, 1, 6), (5, 5, 6, 16), (16 * 4, 30), (30, 4)],
}


@pytest.mark.parametrize("name", CHAINS)
def test_a_state_dict_of_layers_that_follow_one_another_is_a_chain(name: str) -> None:
    random = np.random.default_rng(0)
    arrays = {f"layers.{place}.weight": random.normal(size=shape) for place, shape in enumerate(CHAINS[name]())}
    weights = ArrayWeights(arrays | {"layers.0.bias": random.normal(size=7)})
    roles = find_roles(weights)
    assert roles.guessed
    assert [layer.name for layer in roles.layers] == list(arrays)[:-1]
    plan = plan_weights(weights)
    test = order_test(sketch(weights, plan, victim=True), sketch(weights, plan))
    assert test is not None
    assert test.log10_p < -20


def test_tensors_without_numbers_are_passed_over() -> None:
    family = FAMILIES["gguf"]
    plain = make(family, 0)
    for name in ("token_embd.weight", "output_norm.weight"):
        weights = ArrayWeights({**plain.arrays, name: np.ones((0, D))})
        assert len(find_roles(weights).layers) == BLOCKS
        sketch(weights, plan_weights(weights))


@pytest.mark.parametrize("name", ["1" * 100_000, "1." * 50_000, "layers.²", "²", "٣.٤", "", ".", "weight"])
def test_no_name_is_taken_for_more_than_a_name(name: str) -> None:
    family = FAMILIES["gguf"]
    plain = make(family, 0)
    odd = ArrayWeights({name: np.ones((M, D)), **plain.arrays, name + ".weight": np.ones((D, M))})
    assert find_roles(odd).layers == find_roles(plain).layers
    with pytest.raises(ModelError):
        find_roles(ArrayWeights({name: np.ones((M, D))}))


@pytest.mark.parametrize(
    "shapes",
    [
        [(30, 20), (25, 31)],
        [(30, 20)],
        [(16, 3, 3, 3), (16, 16, 3, 3), (32, 16, 1, 1), (32, 16, 3, 3), (10, 32)],
        [(40,)],
        [],
    ],
)
def test_what_is_not_recognised_is_said(shapes: list[tuple[int, ...]]) -> None:
    weights = ArrayWeights({f"layers.{place}.weight": np.ones(shape) for place, shape in enumerate(shapes)}, "odd")
    with pytest.raises(ModelError, match=r"^odd: .*found \d+ matrices") as caught:
        plan_weights(weights)
    assert caught.value.code == "wrong-format"
