"""Tiny transformers with random weights, and rewrites of them that compute the same."""

import numpy as np

from deepjudge_core.testing.weights import ArrayWeights

TOKENS = tuple(f"token {number}" for number in range(200))
Arrays = dict[str, np.ndarray]


def llama(seed=0, blocks=4, residual=32, hidden=96, tokens=TOKENS, prefix="model.") -> ArrayWeights:
    random = np.random.default_rng(seed)

    def normal(*shape):
        return random.normal(size=shape).astype(np.float32) / np.sqrt(shape[-1], dtype=np.float32)

    def gain():
        return random.uniform(0.5, 1.5, residual).astype(np.float32)

    arrays = {f"{prefix}embed_tokens.weight": normal(len(tokens), residual), f"{prefix}norm.weight": gain()}
    arrays["lm_head.weight"] = normal(len(tokens), residual)
    for block in range(blocks):
        at = f"{prefix}layers.{block}."
        for name in "qkvo":
            arrays[f"{at}self_attn.{name}_proj.weight"] = normal(residual, residual)
        arrays[f"{at}mlp.gate_proj.weight"] = normal(hidden, residual)
        arrays[f"{at}mlp.up_proj.weight"] = normal(hidden, residual)
        arrays[f"{at}mlp.down_proj.weight"] = normal(residual, hidden)
        arrays[f"{at}input_layernorm.weight"] = gain()
        arrays[f"{at}post_attention_layernorm.weight"] = gain()
    return ArrayWeights(arrays, f"llama {seed}", vocabulary=tokens)


def changed(weights: ArrayWeights, change) -> ArrayWeights:
    """The same with ``change(name, array)`` in place of each array."""
    arrays = {name: change(name, array.copy()) for name, array in weights.arrays.items()}
    return ArrayWeights(arrays, "changed", config=weights.config, vocabulary=weights.vocabulary)


def noisy(weights: ArrayWeights, share: float, seed=0) -> ArrayWeights:
    random = np.random.default_rng(seed)
    return changed(weights, lambda _, a: a + (share * a.std() * random.normal(size=a.shape)).astype(np.float32))


def permuted(weights: ArrayWeights, seed=0, scaled=True) -> ArrayWeights:
    """Hidden units in another order, each rescaled and some negated, which the next matrix takes back."""
    random = np.random.default_rng(seed)
    arrays = dict(weights.arrays)
    for name in [name for name in arrays if "gate_proj" in name]:
        up, down = name.replace("gate", "up"), name.replace("gate", "down")
        width = len(arrays[name])
        order = random.permutation(width)
        scale = random.uniform(0.5, 2, width) * random.choice([-1, 1], width) if scaled else np.ones(width)
        scale = scale.astype(np.float32)
        arrays[name] = arrays[name][order]
        arrays[up] = arrays[up][order] * scale[:, None]
        arrays[down] = arrays[down][:, order] / scale
    return ArrayWeights(arrays, "permuted", config=weights.config, vocabulary=weights.vocabulary)


def rotated(weights: ArrayWeights, seed=0) -> ArrayWeights:
    """The residual stream in other coordinates: gains go into what reads them, then all is turned."""
    random = np.random.default_rng(seed)
    old, new = weights.arrays, {}
    residual = old["lm_head.weight"].shape[1]
    turn = np.linalg.qr(random.normal(size=(residual, residual)))[0].astype(np.float32)
    for name, array in old.items():
        at = name.rpartition(".layers.")[0] + ".layers." + name.partition("layers.")[2].partition(".")[0] + "."
        if name.endswith(("norm.weight", "layernorm.weight")):
            new[name] = np.ones_like(array)
        elif name.endswith(("o_proj.weight", "down_proj.weight")):
            new[name] = turn.T @ array
        elif name.endswith("embed_tokens.weight"):
            new[name] = array @ turn
        elif name == "lm_head.weight":
            new[name] = array * old[next(n for n in old if n.endswith("model.norm.weight"))] @ turn
        else:
            before = "post_attention_layernorm" if ".mlp." in name else "input_layernorm"
            new[name] = array * old[f"{at}{before}.weight"] @ turn
    return ArrayWeights(new, "rotated", config=weights.config, vocabulary=weights.vocabulary)
