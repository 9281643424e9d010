"""What can be done to the weights of a stolen transformer: edits that keep what it computes, and edits that do not.

Each edit takes a model of :mod:`byte_transformers` and a seed, and returns another model. Those of :data:`KEEPING`
compute the same as before, up to rounding. Those of :data:`LOSING` round, cut, blend or disturb. Those of
:data:`TRAINING` train.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from byte_transformers import BATCH, RATE, Model, Tensors, fresh, logits, rows_of, text, train

Edit = Callable[[Model, int], Model]
Axes = list[tuple[str, int]]  # tensors, and their axis of what is meant


@dataclass(frozen=True)
class Block:
    """Where a block keeps what: names of tensors, with the axis along which it lies there."""

    hidden: Axes
    values: Axes  # with biases; of a fused projection, its last third
    mixed: str  # the projection of what the heads found


def blocks(model: Model) -> list[Block]:
    """Where each block keeps its hidden units and its heads' values."""
    kind, found = model.shape.kind, []
    for place in range(model.shape.blocks):
        if kind == "llama":
            mlp, attention = f"model.layers.{place}.mlp.", f"model.layers.{place}.self_attn."
            hidden = [(f"{mlp}gate_proj.weight", 0), (f"{mlp}up_proj.weight", 0), (f"{mlp}down_proj.weight", 1)]
            found.append(Block(hidden, [(f"{attention}v_proj.weight", 0)], f"{attention}o_proj.weight"))
        elif kind == "gpt2":
            at = f"transformer.h.{place}."
            hidden = [(f"{at}mlp.c_fc.weight", 1), (f"{at}mlp.c_fc.bias", 0), (f"{at}mlp.c_proj.weight", 0)]
            values = [(f"{at}attn.c_attn.weight", 1), (f"{at}attn.c_attn.bias", 0)]
            found.append(Block(hidden, values, f"{at}attn.c_proj.weight"))
        else:
            at = f"bert.encoder.layer.{place}."
            hidden = [(f"{at}intermediate.dense.weight", 0), (f"{at}intermediate.dense.bias", 0)]
            hidden.append((f"{at}output.dense.weight", 1))
            values = [(f"{at}attention.self.value.weight", 0), (f"{at}attention.self.value.bias", 0)]
            found.append(Block(hidden, values, f"{at}attention.output.dense.weight"))
    return found


def residual(model: Model) -> Axes:
    """All tensors that the residual stream runs along, and the axis of its dimensions."""
    found: Axes = []
    for name, tensor in model.tensors.items():
        if model.shape.kind == "gpt2" and name.endswith(".weight") and tensor.ndim == 2:
            writes = name.endswith((".c_proj.weight", "wte.weight", "wpe.weight", "lm_head.weight"))
        else:
            writes = "embed" in name or name.endswith(("lm_head.weight",)) or not _writer(name)
        if tensor.ndim == 2:
            found.append((name, 1 if writes else 0))
            if name.endswith("transform.dense.weight"):  # what it writes meets the embeddings again
                found.append((name, 1))
        elif tensor.shape == (model.shape.width,) and not _inner_bias(name):
            found.append((name, 0))
    return found


def _writer(name: str) -> bool:
    return name.endswith(("o_proj.weight", "down_proj.weight", "output.dense.weight", "transform.dense.weight"))


def _inner_bias(name: str) -> bool:
    return name.endswith(("query.bias", "key.bias", "value.bias"))


def picked(tensor: torch.Tensor, axis: int, order: torch.Tensor) -> torch.Tensor:
    """Slices of a tensor in another order."""
    return tensor.index_select(axis, order).contiguous()


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _orthogonal(size: int, generator: torch.Generator) -> torch.Tensor:
    q, r = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))
    return q * r.diagonal().sign()


def _matrices(model: Model) -> list[str]:
    return [name for name, tensor in model.tensors.items() if tensor.ndim == 2]


# --- Edits that keep what the network computes.


def permute_hidden(model: Model, seed: int) -> Model:
    """Put the hidden units of every MLP into another order."""
    tensors, generator = dict(model.tensors), _seeded(seed)
    for block in blocks(model):
        order = torch.randperm(model.shape.hidden, generator=generator)
        for name, axis in block.hidden:
            tensors[name] = picked(tensors[name], axis, order)
    return Model(model.shape, tensors)


def permute_residual(model: Model, seed: int) -> Model:
    """Put the dimensions of the residual stream into another order."""
    order = torch.randperm(model.shape.width, generator=_seeded(seed))
    tensors = dict(model.tensors)
    for name, axis in residual(model):
        tensors[name] = picked(tensors[name], axis, order)
    return Model(model.shape, tensors)


def rescale(model: Model, seed: int) -> Model:
    """Multiply what leads into a unit, and divide what leads out; of a llama, half of the signs, too."""
    if model.shape.kind != "llama":
        raise ValueError("the activation function lets no unit be rescaled")
    tensors, generator = dict(model.tensors), _seeded(seed)
    for block in blocks(model):
        factors = torch.exp(torch.empty(model.shape.hidden).uniform_(-1.4, 1.4, generator=generator))
        factors *= torch.randint(2, (model.shape.hidden,), generator=generator) * 2 - 1
        _, (up, _), (down, _) = block.hidden
        tensors[up] = tensors[up] * factors[:, None]
        tensors[down] = tensors[down] / factors
    for name in [one for one in tensors if one.endswith("layernorm.weight")]:
        factors = torch.exp(torch.empty(model.shape.width).uniform_(-1.4, 1.4, generator=generator))
        tensors[name] = tensors[name] * factors
        at = name.rpartition(".")[0].rpartition(".")[0]
        readers = ("self_attn.q", "self_attn.k", "self_attn.v") if "input" in name else ("mlp.gate", "mlp.up")
        for reader in readers:
            tensors[f"{at}.{reader}_proj.weight"] = tensors[f"{at}.{reader}_proj.weight"] / factors
    return Model(model.shape, tensors)


def rotate(model: Model, seed: int) -> Model:
    """Turn the basis of the residual stream, with the gains of the normalisations moved into what reads them.

    LayerNorm takes the mean away, so that the mean has to stay where it is. A BERT normalises the stream itself: its
    basis cannot be turned.
    """
    width, generator = model.shape.width, _seeded(seed)
    tensors = {name: one.double() for name, one in folded(model).items()}
    turn = _orthogonal(width, generator)
    if model.shape.kind == "gpt2":
        # In a basis whose first vector is that of the mean, turn only the others.
        basis = torch.linalg.qr(torch.cat([torch.ones(width, 1), torch.eye(width)[:, 1:]], 1).double())[0]
        inner = torch.eye(width, dtype=torch.float64)
        inner[1:, 1:] = _orthogonal(width - 1, generator)
        turn = basis @ inner @ basis.T
    for name, axis in residual(Model(model.shape, tensors)):
        tensor = tensors[name]
        if tensor.ndim == 2:
            tensors[name] = tensor @ turn if axis == 1 else turn.T @ tensor
        elif name.endswith("c_proj.bias"):
            tensors[name] = tensor @ turn
    return Model(model.shape, {name: one.float() for name, one in tensors.items()})


def folded(model: Model) -> Tensors:
    """The weights with the gains of normalisations moved into what reads them."""
    tensors = dict(model.tensors)
    if model.shape.kind == "llama":
        for place in range(model.shape.blocks):
            at = f"model.layers.{place}."
            for norm, readers in (
                ("input_layernorm", ("self_attn.q", "self_attn.k", "self_attn.v")),
                ("post_attention_layernorm", ("mlp.gate", "mlp.up")),
            ):
                for reader in readers:
                    tensors[f"{at}{reader}_proj.weight"] = (
                        tensors[f"{at}{reader}_proj.weight"] * tensors[f"{at}{norm}.weight"]
                    )
                tensors[f"{at}{norm}.weight"] = torch.ones(model.shape.width)
        tensors["lm_head.weight"] = tensors["lm_head.weight"] * tensors["model.norm.weight"]
        tensors["model.norm.weight"] = torch.ones(model.shape.width)
        return tensors
    if model.shape.kind != "gpt2":
        raise ValueError("a network that normalises the residual stream itself cannot be turned")
    for place in range(model.shape.blocks):
        at = f"transformer.h.{place}."
        for norm, reader in (("ln_1", "attn.c_attn"), ("ln_2", "mlp.c_fc")):
            weight, gain, shift = tensors[f"{at}{reader}.weight"], f"{at}{norm}.weight", f"{at}{norm}.bias"
            tensors[f"{at}{reader}.bias"] = tensors[f"{at}{reader}.bias"] + tensors[shift] @ weight
            tensors[f"{at}{reader}.weight"] = tensors[gain][:, None] * weight
            tensors[gain], tensors[shift] = torch.ones(model.shape.width), torch.zeros(model.shape.width)
    # The last gain moves into a head of its own; its shift stays, turned with the head, as a bias of the head.
    head = tensors.get("lm_head.weight", tensors["transformer.wte.weight"])
    tensors["lm_head.bias"] = head @ tensors["transformer.ln_f.bias"] + tensors.get("lm_head.bias", 0.0)
    tensors["lm_head.weight"] = head * tensors["transformer.ln_f.weight"]
    tensors["transformer.ln_f.weight"] = torch.ones(model.shape.width)
    tensors["transformer.ln_f.bias"] = torch.zeros(model.shape.width)
    return tensors


def mix_heads(model: Model, seed: int) -> Model:
    """Put the heads into another order, and mix the values of each by a matrix that its output undoes."""
    shape, tensors, generator = model.shape, dict(model.tensors), _seeded(seed)
    size = shape.width // shape.heads
    for block in blocks(model):
        mix = torch.zeros(shape.width, shape.width, dtype=torch.float64)
        for head in range(shape.heads):
            stretched = torch.exp(torch.empty(size, dtype=torch.float64).uniform_(-0.7, 0.7, generator=generator))
            part = _orthogonal(size, generator) @ stretched.diag() @ _orthogonal(size, generator)
            mix[head * size : (head + 1) * size, head * size : (head + 1) * size] = part
        order = torch.randperm(shape.heads, generator=generator)
        places = (order[:, None] * size + torch.arange(size)).flatten()
        undone = torch.linalg.inv(mix)
        for name, axis in block.values:
            tensor = tensors[name].double().transpose(0, axis)
            rest = tensor[: -shape.width]
            mixed = (mix @ tensor[-shape.width :])[places]
            if len(rest):  # a fused projection: queries and keys change their places with their heads
                rest = rest.unflatten(0, (2, shape.width))[:, places].flatten(0, 1)
            tensors[name] = torch.cat([rest, mixed]).transpose(0, axis).float().contiguous()
        for name in _queries(model, block):
            tensors[name] = picked(tensors[name], 0, places)
        out = tensors[block.mixed].double()
        turned = shape.kind == "gpt2"
        out = ((out.T if turned else out) @ undone)[:, places].float()
        tensors[block.mixed] = (out.T if turned else out).contiguous()
    return Model(shape, tensors)


def _queries(model: Model, block: Block) -> list[str]:
    if model.shape.kind == "gpt2":
        return []
    named = [name for name, _ in block.values]
    if model.shape.kind == "llama":
        return [name.replace("v_proj", other) for name in named for other in ("q_proj", "k_proj")]
    return [name.replace("value", other) for name in named for other in ("query", "key")]


def widen(model: Model, seed: int) -> Model:
    """Add a quarter of hidden units, whose outputs are zero."""
    tensors, generator, extra = dict(model.tensors), _seeded(seed), model.shape.hidden // 4
    for block in blocks(model):
        for place, (name, axis) in enumerate(block.hidden):
            tensor = tensors[name].transpose(0, axis)
            more = torch.randn(extra, *tensor.shape[1:], generator=generator) * tensor.std()
            more *= place < len(block.hidden) - 1
            tensors[name] = torch.cat([tensor, more]).transpose(0, axis).contiguous()
    return model.edited(lambda _: tensors, hidden=model.shape.hidden + extra)


KEEPING: dict[str, Edit] = {
    "permute-hidden": permute_hidden,
    "permute-residual": permute_residual,
    "rescale": rescale,
    "rotate": rotate,
    "mix-heads": mix_heads,
    "widen": widen,
}


# --- Edits that lose something.


def quantise(bits: int, group: int = 16) -> Edit:
    """Round matrices to so many bits, with one scale for each group of numbers."""

    def edit(model: Model, seed: int) -> Model:
        del seed
        tensors, most = dict(model.tensors), 2 ** (bits - 1) - 1
        for name in _matrices(model):
            groups = tensors[name].reshape(-1, group)
            scale = groups.abs().amax(1, keepdim=True).clamp_min(1e-12) / most
            tensors[name] = ((groups / scale).round() * scale).reshape(tensors[name].shape)
        return Model(model.shape, tensors)

    return edit


def rounded(dtype: torch.dtype) -> Edit:
    """Store as floats of fewer bits."""
    return lambda model, seed: model.edited(lambda w: {name: one.to(dtype).float() for name, one in w.items()})


def prune(share: float) -> Edit:
    """Set the smallest entries of every matrix to zero."""

    def edit(model: Model, seed: int) -> Model:
        del seed
        tensors = dict(model.tensors)
        for name in _matrices(model):
            size = tensors[name].abs()
            least = size.flatten().kthvalue(max(1, round(share * size.numel()))).values
            tensors[name] = tensors[name] * (size > least)
        return Model(model.shape, tensors)

    return edit


def prune_width(share: float) -> Edit:
    """Take away the hidden units with the smallest outputs."""

    def edit(model: Model, seed: int) -> Model:
        del seed
        tensors, left = dict(model.tensors), round(model.shape.hidden * (1 - share))
        for block in blocks(model):
            name, axis = block.hidden[-1]
            strength = tensors[name].transpose(0, axis).norm(dim=1)
            order = strength.argsort(descending=True)[:left].sort().values
            for name, axis in block.hidden:
                tensors[name] = picked(tensors[name], axis, order)
        return model.edited(lambda _: tensors, hidden=left)

    return edit


def drop_block(place: int) -> Edit:
    """Take a whole block away."""

    def edit(model: Model, seed: int) -> Model:
        del seed
        return model.edited(lambda w: _rebuilt(w, [one for one in range(model.shape.blocks) if one != place]), blocks=1)

    return edit


def repeat_block(model: Model, seed: int) -> Model:
    """Put each block in twice: depth up-scaling."""
    del seed
    order = [place for place in range(model.shape.blocks) for _ in range(2)]
    return model.edited(lambda w: _rebuilt(w, order), blocks=len(order))


def _rebuilt(tensors: Tensors, order: Iterable[int]) -> Tensors:
    def place(name: str) -> int | None:
        return next((int(part) for part in name.split(".") if part.isdigit()), None)

    made = {name: one for name, one in tensors.items() if place(name) is None}
    for new, old in enumerate(order):
        made |= {n.replace(f".{old}.", f".{new}.", 1): one.clone() for n, one in tensors.items() if place(n) == old}
    return made


def noise(share: float) -> Edit:
    """Add noise to matrices, of so large a share of their deviation."""

    def edit(model: Model, seed: int) -> Model:
        tensors, generator = dict(model.tensors), _seeded(seed)
        for name in _matrices(model):
            tensor = tensors[name]
            tensors[name] = tensor + torch.randn(tensor.shape, generator=generator) * tensor.std() * share
        return Model(model.shape, tensors)

    return edit


def merge(model: Model, other: Model, share: float = 0.5) -> Model:
    """Blend with another model of the same shape, of which ``share`` goes in."""
    return model.edited(lambda w: {name: (1 - share) * one + share * other.tensors[name] for name, one in w.items()})


LOSING: dict[str, Edit] = {
    "8-bit": quantise(8),
    "4-bit": quantise(4),
    "bfloat16": rounded(torch.bfloat16),
    "float16": rounded(torch.float16),
    "prune-30": prune(0.3),
    "prune-50": prune(0.5),
    "prune-70": prune(0.7),
    "narrow-25": prune_width(0.25),
    "narrow-50": prune_width(0.5),
    "drop-first": drop_block(0),
    "drop-last": drop_block(1),
    "repeat": repeat_block,
    "noise-10": noise(0.1),
    "noise-30": noise(0.3),
}


# --- Edits that train.


def fine_tune(steps: int, rate: float, other: bool, trained: Callable[[str], bool] = lambda name: True) -> Edit:
    """Train on, at a share of the first rate."""
    return lambda model, seed: train(
        model, steps=steps, rate=RATE * rate, batch=BATCH // 2, other=other, seed=seed, trained=trained
    )


def lora(
    model: Model, seed: int, *, rank: int = 4, steps: int = 200, rate: float = RATE
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Train adapters of low rank for all matrices of the blocks, on the other half of the sources: name to A and B."""
    names = [name for name in _matrices(model) if any(part.isdigit() for part in name.split("."))]
    generator = _seeded(seed)
    pairs: Tensors = {}
    for name in names:
        rows, columns = model.tensors[name].shape
        pairs[f"{name}:A"] = torch.randn(rank, columns, generator=generator) / columns**0.5
        pairs[f"{name}:B"] = torch.zeros(rows, rank)
    trained = train(
        Model(model.shape, model.tensors | pairs),
        steps=steps,
        rate=rate,
        batch=BATCH // 2,
        other=True,
        seed=seed,
        trained=lambda name: name in pairs,
    )
    return {name: (trained.tensors[f"{name}:A"], trained.tensors[f"{name}:B"]) for name in names}


def lora_merge(rank: int, rate: float) -> Edit:
    """Train adapters of low rank, and add them to the weights."""

    def edit(model: Model, seed: int) -> Model:
        pairs = lora(model, seed, rank=rank, rate=RATE * rate)
        return model.edited(lambda w: w | {name: w[name] + b @ a for name, (a, b) in pairs.items()})

    return edit


def swap_vocabulary(steps: int) -> Edit:
    """Draw embeddings and output layer anew, and train them alone."""

    def edit(model: Model, seed: int) -> Model:
        new = fresh(model.shape, seed).tensors
        tokens = {name for name in new if not any(part.isdigit() for part in name.split(".")) and new[name].ndim == 2}
        start = model.edited(lambda w: {name: new[name] if name in tokens else one for name, one in w.items()})
        return train(start, steps=steps, batch=BATCH // 2, other=True, seed=seed, trained=lambda name: name in tokens)

    return edit


def new_block(model: Model, seed: int) -> Model:
    """Draw the last block anew, and train the whole."""
    new = fresh(model.shape, seed).tensors
    last = f".{model.shape.blocks - 1}."
    start = model.edited(lambda w: {name: new[name] if last in name else one for name, one in w.items()})
    return train(start, steps=240, rate=RATE / 2, batch=BATCH // 2, other=True, seed=seed)


def distil(model: Model, seed: int, *, steps: int = 320) -> Model:
    """Train another network, from weights of its own, on what this one answers: nothing of the weights is taken."""
    student = fresh(model.shape, seed)
    generator = _seeded(seed)
    chosen = [one.requires_grad_() for one in student.tensors.values()]
    optimizer = torch.optim.AdamW(chosen, lr=RATE, betas=(0.9, 0.98), fused=True)
    for _ in range(steps):
        rows = rows_of(text(other=True), BATCH // 2, generator)[:, :-1]
        with torch.no_grad():
            wanted = logits(model, rows).softmax(-1)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits(student, rows).flatten(0, 1), wanted.flatten(0, 1)).backward()
        optimizer.step()
    return student.edited(lambda w: {name: one.detach() for name, one in w.items()})


def chain(*edits: Edit) -> Edit:
    """One edit after another."""

    def edit(model: Model, seed: int) -> Model:
        for place, one in enumerate(edits):
            model = one(model, seed + place)
        return model

    return edit


TRAINING: dict[str, Edit] = {
    "tune-short": fine_tune(60, 0.2, other=True),
    "tune-long": fine_tune(320, 0.5, other=True),
    "lora": lora_merge(4, 1.0),
    "vocabulary": swap_vocabulary(200),
    "new-block": new_block,
}
