"""Small transformers that read bytes, trained on the sources of Python's standard library, and saved as folders.

A model is a mapping of names to tensors, with the names and shapes that the library transformers gives them. So what is
done to weights is an edit of that mapping. Losses and training take the mapping as it is.
"""

import json
import math
import sysconfig
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional

Tensors = dict[str, torch.Tensor]

WIDTH, HEADS, HIDDEN, BLOCKS, TOKENS = 48, 4, 128, 2, 256
LENGTH, BATCH, STEPS, RATE = 48, 16, 400, 1e-2
KINDS = ("llama", "gpt2", "bert")
MASK = 0  # the byte that stands for what a BERT has to guess: the sources hold none of it


@dataclass(frozen=True)
class Shape:
    """How large a transformer is, and of which kind."""

    kind: str = "llama"
    width: int = WIDTH
    heads: int = HEADS
    hidden: int = HIDDEN
    blocks: int = BLOCKS

    @classmethod
    def of_config(cls, config: Mapping[str, Any]) -> "Shape":
        """The inverse of :meth:`config`."""
        kind = config["model_type"]
        return cls(kind, *(config[name] for name in _SIZES[kind == "gpt2"]))

    def config(self) -> dict[str, Any]:
        """What stands in its ``config.json``."""
        sizes = dict(zip(_SIZES[self.kind == "gpt2"], (self.width, self.heads, self.hidden, self.blocks), strict=True))
        return {"model_type": self.kind, "vocab_size": TOKENS, **sizes, **_CONFIGS[self.kind]}


_SIZES = (
    ("hidden_size", "num_attention_heads", "intermediate_size", "num_hidden_layers"),
    ("n_embd", "n_head", "n_inner", "n_layer"),
)
_CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {
        "architectures": ["LlamaForCausalLM"],
        "num_key_value_heads": HEADS,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "max_position_embeddings": LENGTH,
        "tie_word_embeddings": False,
    },
    "gpt2": {
        "architectures": ["GPT2LMHeadModel"],
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "n_positions": LENGTH,
        "tie_word_embeddings": True,
    },
    "bert": {
        "architectures": ["BertForMaskedLM"],
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-5,
        "type_vocab_size": 1,
        "max_position_embeddings": LENGTH,
        "tie_word_embeddings": True,
    },
}


@dataclass(frozen=True)
class Model:
    """A transformer: its shape, and its weights by name."""

    shape: Shape
    tensors: Tensors

    def edited(self, change: Callable[[Tensors], Tensors], **sizes: int) -> "Model":
        """With other weights, and other sizes where they change."""
        return Model(replace(self.shape, **sizes), change(dict(self.tensors)))


@cache
def text(other: bool = False) -> torch.Tensor:
    """Bytes of the standard library's sources: of every second file, or of the others."""
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    return torch.frombuffer(bytearray(b"\n".join(one.read_bytes() for one in files[other::2])), dtype=torch.uint8)


def fresh(shape: Shape, seed: int) -> Model:
    """A model that nothing has been learned by yet."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*sizes: int, deviation: float = 0.02) -> torch.Tensor:
        return torch.randn(*sizes, generator=generator) * deviation

    d, m, inner = shape.width, shape.hidden, 1 / math.sqrt(shape.width)
    made: Tensors = {}

    def norm(name: str, bias: bool = True) -> None:
        made[f"{name}.weight"] = torch.ones(d)
        if bias:
            made[f"{name}.bias"] = torch.zeros(d)

    def dense(name: str, inputs: int, outputs: int, bias: bool = True, turned: bool = False) -> None:
        weight = normal(outputs, inputs, deviation=inner)
        made[f"{name}.weight"] = weight.T.contiguous() if turned else weight
        if bias:
            made[f"{name}.bias"] = torch.zeros(outputs)

    if shape.kind == "llama":
        made["model.embed_tokens.weight"] = normal(TOKENS, d, deviation=0.5)
        for block in range(shape.blocks):
            at = f"model.layers.{block}."
            for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
                dense(f"{at}self_attn.{name}", d, d, bias=False)
            for name, inputs, outputs in (("gate_proj", d, m), ("up_proj", d, m), ("down_proj", m, d)):
                dense(f"{at}mlp.{name}", inputs, outputs, bias=False)
            norm(f"{at}input_layernorm", bias=False)
            norm(f"{at}post_attention_layernorm", bias=False)
        norm("model.norm", bias=False)
        dense("lm_head", d, TOKENS, bias=False)
    elif shape.kind == "gpt2":
        made["transformer.wte.weight"] = normal(TOKENS, d, deviation=inner)
        made["transformer.wpe.weight"] = normal(LENGTH, d, deviation=inner / 2)
        for block in range(shape.blocks):
            at = f"transformer.h.{block}."
            norm(f"{at}ln_1")
            dense(f"{at}attn.c_attn", d, 3 * d, turned=True)
            dense(f"{at}attn.c_proj", d, d, turned=True)
            norm(f"{at}ln_2")
            dense(f"{at}mlp.c_fc", d, m, turned=True)
            dense(f"{at}mlp.c_proj", m, d, turned=True)
        norm("transformer.ln_f")
    else:
        made["bert.embeddings.word_embeddings.weight"] = normal(TOKENS, d, deviation=inner)
        made["bert.embeddings.position_embeddings.weight"] = normal(LENGTH, d, deviation=inner / 2)
        made["bert.embeddings.token_type_embeddings.weight"] = normal(1, d)
        norm("bert.embeddings.LayerNorm")
        for block in range(shape.blocks):
            at = f"bert.encoder.layer.{block}."
            for name in ("query", "key", "value"):
                dense(f"{at}attention.self.{name}", d, d)
            dense(f"{at}attention.output.dense", d, d)
            norm(f"{at}attention.output.LayerNorm")
            dense(f"{at}intermediate.dense", d, m)
            dense(f"{at}output.dense", m, d)
            norm(f"{at}output.LayerNorm")
        dense("cls.predictions.transform.dense", d, d)
        norm("cls.predictions.transform.LayerNorm")
        made["cls.predictions.bias"] = torch.zeros(TOKENS)
    return Model(shape, made)


def logits(model: Model, tokens: torch.Tensor) -> torch.Tensor:
    """Scores ``(rows, length, tokens)`` of what stands next, or of what is hidden, for a BERT."""
    pairs = [name[:-2] for name in model.tensors if name.endswith(":A")]
    if pairs:  # adapters of low rank, which are being trained
        w = model.tensors
        model = Model(model.shape, w | {name: w[name] + w[f"{name}:B"] @ w[f"{name}:A"] for name in pairs})
    return {"llama": _llama, "gpt2": _gpt2, "bert": _bert}[model.shape.kind](model, tokens)


def _attend(shape: Shape, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool) -> torch.Tensor:
    q, k, v = (part.unflatten(-1, (shape.heads, -1)).transpose(1, 2) for part in (q, k, v))
    if shape.kind == "llama":
        turn = _turning(q.shape[2], q.shape[3])
        q, k = _turned(q, turn), _turned(k, turn)
    return functional.scaled_dot_product_attention(q, k, v, is_causal=causal).transpose(1, 2).flatten(2)


@cache
def _turning(length: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    angles = torch.arange(length)[:, None] / 10000.0 ** (torch.arange(0, width, 2) / width)
    return torch.cat([angles, angles], 1).cos(), torch.cat([angles, angles], 1).sin()


def _turned(x: torch.Tensor, turn: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    half = x.shape[-1] // 2
    return x * turn[0] + torch.cat([-x[..., half:], x[..., :half]], -1) * turn[1]


def _llama(model: Model, tokens: torch.Tensor) -> torch.Tensor:
    w = model.tensors
    x = functional.embedding(tokens, w["model.embed_tokens.weight"])
    d = x.shape[-1:]
    for block in range(model.shape.blocks):
        at = f"model.layers.{block}."
        read = functional.rms_norm(x, d, w[f"{at}input_layernorm.weight"], 1e-5)
        q, k, v = (functional.linear(read, w[f"{at}self_attn.{one}_proj.weight"]) for one in "qkv")
        x = x + functional.linear(_attend(model.shape, q, k, v, causal=True), w[f"{at}self_attn.o_proj.weight"])
        read = functional.rms_norm(x, d, w[f"{at}post_attention_layernorm.weight"], 1e-5)
        gate, up = (functional.linear(read, w[f"{at}mlp.{one}_proj.weight"]) for one in ("gate", "up"))
        x = x + functional.linear(functional.silu(gate) * up, w[f"{at}mlp.down_proj.weight"])
    return functional.linear(functional.rms_norm(x, d, w["model.norm.weight"], 1e-5), w["lm_head.weight"])


def _gpt2(model: Model, tokens: torch.Tensor) -> torch.Tensor:
    w = model.tensors

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return functional.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], 1e-5)

    def dense(x: torch.Tensor, name: str) -> torch.Tensor:
        return functional.linear(x, w[f"{name}.weight"].T, w[f"{name}.bias"])

    x = functional.embedding(tokens, w["transformer.wte.weight"]) + w["transformer.wpe.weight"][: tokens.shape[1]]
    for block in range(model.shape.blocks):
        at = f"transformer.h.{block}."
        q, k, v = dense(norm(x, f"{at}ln_1"), f"{at}attn.c_attn").chunk(3, -1)
        x = x + dense(_attend(model.shape, q, k, v, causal=True), f"{at}attn.c_proj")
        read = dense(norm(x, f"{at}ln_2"), f"{at}mlp.c_fc")
        x = x + dense(functional.gelu(read, approximate="tanh"), f"{at}mlp.c_proj")
    head = w.get("lm_head.weight", w["transformer.wte.weight"])
    return functional.linear(norm(x, "transformer.ln_f"), head, w.get("lm_head.bias"))


def _bert(model: Model, tokens: torch.Tensor) -> torch.Tensor:
    w = model.tensors

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return functional.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], 1e-5)

    def dense(x: torch.Tensor, name: str) -> torch.Tensor:
        return functional.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])

    x = functional.embedding(tokens, w["bert.embeddings.word_embeddings.weight"])
    x = x + w["bert.embeddings.position_embeddings.weight"][: tokens.shape[1]]
    x = norm(x + w["bert.embeddings.token_type_embeddings.weight"][0], "bert.embeddings.LayerNorm")
    for block in range(model.shape.blocks):
        at = f"bert.encoder.layer.{block}."
        q, k, v = (dense(x, f"{at}attention.self.{one}") for one in ("query", "key", "value"))
        read = dense(_attend(model.shape, q, k, v, causal=False), f"{at}attention.output.dense")
        x = norm(x + read, f"{at}attention.output.LayerNorm")
        read = dense(functional.gelu(dense(x, f"{at}intermediate.dense")), f"{at}output.dense")
        x = norm(x + read, f"{at}output.LayerNorm")
    x = norm(functional.gelu(dense(x, "cls.predictions.transform.dense")), "cls.predictions.transform.LayerNorm")
    return functional.linear(x, w["bert.embeddings.word_embeddings.weight"], w["cls.predictions.bias"])


def loss(model: Model, rows: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Mean cross-entropy in nats a byte, of rows one longer than what is read."""
    if model.shape.kind != "bert":
        return functional.cross_entropy(logits(model, rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())
    rows = rows[:, 1:]
    hidden = torch.rand(rows.shape, generator=generator) < 0.25
    return functional.cross_entropy(logits(model, rows.masked_fill(hidden, MASK))[hidden], rows[hidden])


def rows_of(data: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
    """Random places of a text, ``(count, LENGTH + 1)``."""
    starts = torch.randint(len(data) - LENGTH - 1, (count, 1), generator=generator)
    return data[starts + torch.arange(LENGTH + 1)].long()


def train(
    model: Model,
    *,
    steps: int = STEPS,
    rate: float = RATE,
    seed: int,
    other: bool = False,
    batch: int = BATCH,
    trained: Callable[[str], bool] = lambda name: True,
) -> Model:
    """Train a copy of a model: AdamW, the rate up to ``rate`` in a tenth of the steps, and down along a cosine.

    Args:
        model: What to begin with.
        steps: How many batches.
        rate: The greatest learning rate.
        seed: Of the batches.
        other: Whether to read the other half of the sources.
        batch: Rows of a step.
        trained: Which tensors change.
    """
    generator = torch.Generator().manual_seed(seed)
    data = text(other)
    tensors = {name: one.clone() for name, one in model.tensors.items()}
    chosen = [one.requires_grad_() for name, one in tensors.items() if trained(name)]
    optimizer = torch.optim.AdamW(chosen, lr=rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    model = Model(model.shape, tensors)
    warm = max(1, steps // 10)
    for step in range(steps):
        share = step / warm if step < warm else 0.5 + 0.5 * math.cos(math.pi * (step - warm) / (steps - warm))
        optimizer.param_groups[0]["lr"] = rate * max(share, 0.01)
        optimizer.zero_grad()
        loss(model, rows_of(data, batch, generator), generator).backward()
        optimizer.step()
    return Model(model.shape, {name: one.detach() for name, one in tensors.items()})


def measured_loss(model: Model, other: bool = False) -> float:
    """Loss on 256 rows, the same for every model."""
    generator = torch.Generator().manual_seed(12345)
    with torch.no_grad():
        return float(loss(model, rows_of(text(other), 256, generator), generator))


def save(model: Model, folder: Path, extra: Mapping[str, Any] | None = None) -> None:
    """Write a folder as the library transformers does: ``config.json``, ``model.safetensors``, ``tokenizer.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(model.shape.config() | dict(extra or {}), indent=2))
    (folder / "tokenizer.json").write_text(json.dumps(_tokenizer()))
    tensors = {name: one.detach().contiguous() for name, one in model.tensors.items()}
    partial = folder / "model.safetensors.partial"
    save_file(tensors, partial, metadata={"format": "pt"})
    partial.replace(folder / "model.safetensors")


def load(folder: Path) -> Model:
    """Read what :func:`save` wrote."""
    shape = Shape.of_config(json.loads((folder / "config.json").read_text()))
    return Model(shape, load_file(folder / "model.safetensors"))


def vocabulary() -> tuple[str, ...]:
    """Each byte as GPT-2 writes it: those that cannot be printed get a letter from 256 on."""
    printed = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return tuple(chr(byte) if byte in printed else chr(next(others)) for byte in range(TOKENS))


def _tokenizer() -> dict[str, Any]:
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    pieces = {piece: byte for byte, piece in enumerate(vocabulary())}
    model = {"type": "BPE", "fuse_unk": False, "byte_fallback": False, "vocab": pieces, "merges": []}
    return {"version": "1.0", "added_tokens": [], "pre_tokenizer": byte_level, "decoder": byte_level, "model": model}
