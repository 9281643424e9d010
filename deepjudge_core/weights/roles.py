"""What each tensor of a model is for, by its name; where names say nothing, by the shapes.

The neurons of a transformer are the hidden units of its blocks (``mlp``). A matrix that reads the residual stream is
folded with the gain of the normalisation before it, since a copy may hold the gain in either place.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import prod

from deepjudge_core.errors import ModelError
from deepjudge_core.files.documents import Json
from deepjudge_core.weights.values import LayerKind, NeuronLayer, Roles, StoredWeights, View

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class _Naming:
    """How a family of models names the matrices of a block's hidden units.

    Attributes:
        family: What the family is called.
        matrices: Endings of the matrices' names, behind the number of the block, as regular expressions: those that
            read the residual stream, ``(hidden, residual)``, and the one that writes to it, ``(residual, hidden)``.
        gains: The same of the gain of the normalisation before; the first that a block has counts.
        free: Whether nothing in such models fixes the order of the residual dimensions, as sinusoidal positions do.
    """

    family: str
    matrices: tuple[str, ...]
    gains: tuple[str, ...] = ()
    free: bool = False


_GATED = ("gate_proj", "up_proj", "down_proj")
_LLAMA_GAINS = ("pre_feedforward_layernorm", "post_attention_layernorm", "input_layernorm")
_EXPERT = r"(?:mlp|block_sparse_moe)\.(?:experts\.\d+|shared_experts?)\."
_T5 = r"layer\.\d+\.DenseReluDense\."
_NAMINGS = (
    _Naming("llama", tuple(rf"mlp\.{name}" for name in _GATED), _LLAMA_GAINS, free=True),
    _Naming("llama", (r"mlp\.gate_up_proj", r"mlp\.down_proj"), _LLAMA_GAINS, free=True),
    _Naming("llama", tuple(rf"feed_forward\.w{number}" for number in (1, 3, 2)), ("ffn_norm",), free=True),
    _Naming("llama", tuple(_EXPERT + name for name in _GATED), _LLAMA_GAINS, free=True),
    _Naming("llama", tuple(f"{_EXPERT}w{number}" for number in (1, 3, 2)), _LLAMA_GAINS, free=True),
    _Naming("llama", (r"mlp\.experts\.gate_up_proj", r"mlp\.experts\.down_proj"), _LLAMA_GAINS, free=True),
    _Naming("gguf", ("ffn_gate", "ffn_up", "ffn_down"), ("ffn_norm",), free=True),
    _Naming("gguf", ("ffn_up", "ffn_down"), ("ffn_norm",), free=True),
    _Naming("gguf", ("ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"), ("ffn_norm",), free=True),
    _Naming("gpt2", (r"mlp\.c_fc", r"mlp\.c_proj"), ("ln_2", "post_attention_layernorm"), free=True),
    _Naming("gpt2", (r"mlp\.fc_in", r"mlp\.fc_out"), ("ln_1",), free=True),
    _Naming(
        "gpt-neox",
        (r"mlp\.dense_h_to_4h", r"mlp\.dense_4h_to_h"),
        ("ln_mlp", "post_attention_layernorm", "input_layernorm"),
        free=True,
    ),
    _Naming("bert", (r"intermediate\.dense", r"output\.dense"), ("layernorm_after",), free=True),
    _Naming("bert", (r"ffn\.lin1", r"ffn\.lin2"), free=True),
    _Naming("bert", ("ffn", "ffn_output"), free=True),
    _Naming("bert", (r"mlp\.Wi", r"mlp\.Wo"), ("mlp_norm",), free=True),
    _Naming("mamba", (r"mixer\.in_proj", r"mixer\.out_proj"), ("norm",), free=True),
    _Naming("mpt", (r"ffn\.up_proj", r"ffn\.down_proj"), ("norm_2",), free=True),
    _Naming("t5", (_T5 + "wi_0", _T5 + "wi_1", _T5 + "wo"), free=True),
    _Naming("t5", (_T5 + "wi", _T5 + "wo"), free=True),
    _Naming("vit", (r"mlp\.fc1", r"mlp\.fc2"), ("norm2", "layer_norm2", "layernorm_after", "input_layernorm")),
    _Naming("vit", (r"mlp\.0", r"mlp\.3"), ("ln_2",)),
    _Naming("vit", (r"mlp\.linear_1", r"mlp\.linear_2"), ("ln_2",)),
    _Naming("opt", ("fc1", "fc2"), ("final_layer_norm",)),
    _Naming("torch", ("linear1", "linear2"), ("norm2",)),
)
_EMBEDDINGS = (
    r"(.*\.)?(embed_tokens|wte|embed_in|word_embeddings|tok_embeddings|token_embedding|token_embd|shared)"
    r"|backbone\.embeddings"
)
_PATCHES = r"(.*\.)?(patch_embed\.proj|patch_embeddings\.projection|patch_embedding|conv_proj)"
_UNEMBEDDINGS = r"(.*\.)?(lm_head|embed_out)|output"
_FINAL_GAINS = (
    r"(.*\.)?(model|decoder|gpt_neox|transformer|backbone)\.(norm|final_layer_norm|final_layernorm|ln_f|norm_f)"
    r"|norm|ln_f|output_norm|final_layer_norm"
)

_TRIES = 10_000  # beginnings of a chain

_EXPERTS = 4096  # in one tensor, at most: each is a layer
_LONGEST_CHAIN = 1000  # matrices
_LONGEST_NAME = 128  # of a tensor that is looked at: patterns take long on what somebody made to take long
NOT_FOUND = (
    "expected the blocks of a transformer, or dense and convolutional layers that follow one another, found {count} "
    "matrices whose names and shapes say neither"
)


def find_roles(weights: StoredWeights) -> Roles:
    """Say what each tensor is for: by names, as the format's own graph says it, or by shapes.

    Names come first: they tell what a block of a transformer is, in all formats alike.

    Raises:
        ModelError: When none of them tells.
    """
    shapes = {
        name: spec.shape for name, spec in weights.tensors.items() if len(name) <= _LONGEST_NAME and 0 not in spec.shape
    }
    roles = _by_names(shapes, weights.config) or weights.roles or _by_shapes(shapes) or _chain(shapes)
    if roles is None:
        count = sum(len(shape) >= 2 for shape in shapes.values())
        raise ModelError(f"{weights.name}: {NOT_FOUND.format(count=count)}", code="wrong-format")
    return roles


def _plain(name: str) -> str:
    # What a wrapper puts in front does not matter, since names are looked at from their ends.
    return name.removesuffix(".weight").removesuffix(".base_layer")


def _by_names(shapes: Shapes, config: Json) -> Roles | None:
    plain = {_plain(name): name for name in shapes}
    found: dict[str, tuple[_Naming, NeuronLayer]] = {}
    for naming in _NAMINGS:  # of which one model may have several, as where the first blocks have no experts
        for layer in _blocks(naming, plain, shapes):
            found.setdefault(layer.name, (naming, layer))
    if not found:
        return None
    names = sorted(found, key=_natural)
    layers = tuple(replace(found[name][1], block=block) for block, name in enumerate(names))
    namings = [found[name][0] for name in names]
    roles = Roles(namings[0].family, layers, fixed_residual=not all(naming.free for naming in namings))
    return _with_embeddings(roles, shapes, config)


def _blocks(naming: _Naming, plain: Mapping[str, str], shapes: Shapes) -> Iterator[NeuronLayer]:
    # Experts of one block are layers of their own: the number of the expert stays in what identifies a layer.
    patterns = [(ending.rpartition(".")[2], re.compile(rf"(.*?\d+\.)({ending})")) for ending in naming.matrices]
    found: dict[str, dict[int, str]] = {}
    heads: dict[str, str] = {}
    for name in plain:
        for place, (last, pattern) in enumerate(patterns):
            if name.endswith(last) and (match := pattern.fullmatch(name)):
                leaf = match[2].rpartition(".")[0]
                key = match[1] + (leaf if re.search(r"\d|expert", leaf) else "")
                found.setdefault(key, {})[place] = name
                heads[key] = match[1]
    for key in sorted(found, key=_natural):
        if len(found[key]) == len(patterns):
            names = [plain[found[key][place]] for place in range(len(patterns))]
            yield from _hidden(key.rstrip("."), names, shapes, _gain(naming, heads[key], plain))


def _gain(naming: _Naming, block: str, plain: Mapping[str, str]) -> str | None:
    """The gain of the normalisation before the hidden units of a block, whose names begin so."""
    gain = next((gain for gain in naming.gains if block + gain in plain), None)
    if gain == "post_attention_layernorm" and block + "input_layernorm" not in plain:
        return None  # with nothing before attention, what is normalised is what attention and hidden units give
    return plain.get(block + gain) if gain else None


def _natural(name: str) -> list[tuple[int, str]]:
    """A key by which names are sorted as people number things."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def _hidden(name: str, matrices: Sequence[str], shapes: Shapes, gain: str | None) -> Iterator[NeuronLayer]:
    """The hidden units of a block, by the matrices that read the residual stream and the last, which writes to it.

    Those of experts that lie in one tensor are a layer for each.
    """
    *reads, write = matrices
    axes = {len(shapes[matrix]) for matrix in matrices}
    if axes not in ({2}, {3}):
        return
    stacked = axes == {3}
    experts = shapes[write][0] if stacked else 1
    # Linear layers hold (out, in); those of GPT-2 hold (in, out), and who rewrites it keeps the names.
    for out in (0, 1):
        sides = {matrix: (shapes[matrix][-2 + out], shapes[matrix][-1 - out]) for matrix in matrices}
        residual, hidden = sides[write]
        parts = sides[reads[0]][0] // hidden
        fits = all(sides[matrix] == (parts * hidden, residual) for matrix in reads)
        known = shapes[gain] == (residual,) if gain else hidden >= residual or out == 1
        if not fits or not known or parts not in ((1, 2) if len(reads) == 1 else (1,)):
            continue
        if stacked and (out == 1 or experts > _EXPERTS or any(shapes[matrix][0] != experts for matrix in reads)):
            return
        for expert in range(experts):
            views = [
                _part(matrix, shapes[matrix], out, expert * parts + part, hidden, gain)
                for matrix in reads
                for part in range(parts)
            ]
            writes = View(write, (1 - out, out), "residual")
            if stacked:
                columns = (expert * residual, (expert + 1) * residual)
                writes = View(write, (1, 0), "residual", shape=(experts * residual, hidden), columns=columns)
            yield NeuronLayer(f"{name}.{expert}" if stacked else name, 0, "mlp", hidden, (*views, writes))
        return


def _part(matrix: str, shape: tuple[int, ...], out: int, part: int, hidden: int, gain: str | None) -> View:
    """One of the matrices, below one another, that a tensor holds."""
    if len(shape) == 3:
        shape = (shape[0] * shape[1], shape[2])
        return View(matrix, (0, 1), "residual", shape, (part * hidden, (part + 1) * hidden), gain=gain)
    rows = (part * hidden, (part + 1) * hidden) if shape[out] > hidden else None
    return View(matrix, (out, 1 - out), "residual", rows=rows, gain=gain)


def _with_embeddings(roles: Roles, shapes: Shapes, config: Json) -> Roles:
    write = roles.layers[0].views[-1]
    residual = write.columns[1] - write.columns[0] if write.columns else shapes[write.tensor][write.axes[1]]
    kind = str(config.get("model_type", ""))
    gains = {view.gain for layer in roles.layers for view in layer.views if view.gain}
    embedding = _table(_EMBEDDINGS, residual, shapes) or _patches(residual, shapes)
    final = next((name for name in shapes if re.fullmatch(_FINAL_GAINS, _plain(name))), None)
    unembedding = None
    if final is not None and shapes[final] == (residual,):
        # Where there is no table of its own, the output is that of the input: a copy may hold it twice.
        table = _table(_UNEMBEDDINGS, residual, shapes) or _table(_EMBEDDINGS, residual, shapes)
        unembedding = None if table is None else replace(table, gain=final)
    roles = replace(
        roles,
        embedding=embedding,
        unembedding=None if embedding is None else unembedding,
        centred=any(gain.removesuffix("weight") + "bias" in shapes for gain in gains),
        fixed_residual=_in_fixed_order(config) or (roles.fixed_residual and kind not in ("opt", "phi")),
    )
    # Gemma stores its gains less 1; llama.cpp adds it.
    return _plus_one(roles) if kind.startswith("gemma") and roles.family != "gguf" else roles


def _in_fixed_order(config: Json) -> bool:
    """Whether a configuration says that sines, or a Fourier transform, put the residual dimensions in order."""
    sines = any(value and "sinus" in f"{key} {value}".lower() for key, value in config.items())
    return sines or config.get("model_type") == "fnet"


def _table(pattern: str, residual: int, shapes: Shapes) -> View | None:
    names = [name for name, shape in shapes.items() if re.fullmatch(pattern, _plain(name)) and len(shape) == 2]
    found = next((name for name in names if shapes[name][1] == residual), None)
    return None if found is None else View(found, (0, 1), "residual")


def _patches(residual: int, shapes: Shapes) -> View | None:
    for name, shape in shapes.items():
        if re.fullmatch(_PATCHES, _plain(name)) and len(shape) >= 2 and shape[0] == residual:
            return View(name, (1, 0), "residual", shape=(residual, prod(shape[1:])))
    return None


def _plus_one(roles: Roles) -> Roles:
    def plus(view: View) -> View:
        return replace(view, gain_plus=1.0 if view.gain else 0.0)

    layers = tuple(replace(layer, views=tuple(map(plus, layer.views))) for layer in roles.layers)
    return replace(roles, layers=layers, unembedding=roles.unembedding and plus(roles.unembedding))


def _by_shapes(shapes: Shapes) -> Roles | None:
    """The blocks of a transformer with names of its own: a pair ``(m, d)``, ``(d, m)`` beside other matrices."""
    numbered = [name for name, shape in shapes.items() if len(shape) == 2 and min(shape) > 1]
    best: list[NeuronLayer] = []
    for level in range(3):
        groups: dict[str, list[str]] = {}
        for name in numbered:
            ends = [match.end() for match in re.finditer(r"\d+", name)]
            if len(ends) > level:
                groups.setdefault(name[: ends[level]], []).append(name)
        layers = [
            layer
            for key in sorted(groups, key=_natural)
            if (layer := _pair(key, sorted(groups[key], key=_natural), shapes)) is not None
        ]
        best = max(best, layers, key=len)
    if len(best) < 2 or len({layer.width for layer in best}) > 1:
        return None
    numbered_layers = tuple(replace(layer, block=block) for block, layer in enumerate(best))
    return _with_embeddings(Roles("shapes", numbered_layers, fixed_residual=True, guessed=True), shapes, {})


def _pair(key: str, names: Iterable[str], shapes: Shapes) -> NeuronLayer | None:
    names = list(names)
    # Attention has matrices between as many dimensions as well; a block that is a transformer's has four more.
    pairs = {tuple(sorted(shapes[name])) for name in names if shapes[name][0] != shapes[name][1]}
    fitting = [
        (small, large)
        for small, large in pairs
        if any(shapes[name] == (large, small) for name in names)
        and any(shapes[name] == (small, large) for name in names)
    ]
    if not fitting or len(names) < 4:
        return None
    small, large = max(fitting, key=lambda pair: pair[1])
    mine = [name for name in names if set(shapes[name]) == {small, large}]
    if len(mine) not in (2, 3):
        return None
    views = tuple(View(name, (0, 1) if shapes[name][0] == large else (1, 0), "residual") for name in mine)
    return NeuronLayer(key, 0, "mlp", large, views)


def _chain(shapes: Shapes) -> Roles | None:
    """Dense and convolutional layers, each of which reads what the one before it gives."""
    names = [name for name, shape in shapes.items() if len(shape) >= 2]
    # What a recurrent layer makes of its own state is in one order on both sides, which no shape says.
    if not 2 <= len(names) <= _LONGEST_CHAIN or any(re.search(r"weight_hh|recurrent", name) for name in names):
        return None
    given = [(order, out) for order in (names, sorted(names, key=_natural)) for out in (0, -1)]
    for order, out in (*given, *((_by_sides(names, shapes, out), out) for out in (0, -1))):
        if order and all(_follows(after, before, shapes, out) for before, after in pairwise(order)):
            return Roles("chain", tuple(_links(order, shapes, out)), guessed=True)
    return None


def _sides(name: str, shapes: Shapes, out: int) -> tuple[int, int]:
    """How many inputs and outputs a matrix has, the outputs along the axis ``out``."""
    shape = shapes[name]
    return (shape[1], shape[0]) if out == 0 else (shape[-2], shape[-1])


def _follows(after: str, before: str, shapes: Shapes, out: int) -> bool:
    given, read = _sides(before, shapes, out)[1], _sides(after, shapes, out)[0]
    flattened = len(shapes[before]) > 2 and len(shapes[after]) == 2
    return read % given == 0 if flattened else read == given and len(shapes[before]) == len(shapes[after])


def _by_sides(names: Sequence[str], shapes: Shapes, out: int) -> list[str]:
    """The only order in which each matrix reads what the one before gives; empty if there is none, or several.

    Some formats sort tensors by their names.
    """
    after = {one: [other for other in names if other != one and _follows(other, one, shapes, out)] for one in names}
    reached = set().union(*after.values())
    stack = [[one] for one in names if one not in reached]
    found: list[list[str]] = []
    for _ in range(_TRIES):
        if not stack or len(found) > 1:
            break
        path = stack.pop()
        if len(path) == len(names):
            found.append(path)
        stack += [[*path, one] for one in after[path[-1]] if one not in path]
    return found[0] if len(found) == 1 and not stack else []


def _links(names: Sequence[str], shapes: Shapes, out: int) -> list[NeuronLayer]:
    """The hidden layers of a chain whose matrices have their outputs along the axis ``out``."""
    layers: list[NeuronLayer] = []
    counts: dict[LayerKind, int] = {}
    for place, name in enumerate(names[:-1]):
        axes, width = len(shapes[name]), _sides(name, shapes, out)[1]
        kind: LayerKind = "dense" if axes == 2 else "convolutional"
        views = [_reading(name, shapes[name], layers[-1] if layers else None, out)]
        if place == len(names) - 2:
            views.append(_leaving(names[-1], shapes[names[-1]], width, out))
        layers.append(NeuronLayer(name, counts.get(kind, 0), kind, width, tuple(views)))
        counts[kind] = counts.get(kind, 0) + 1
    return layers


def _reading(name: str, shape: tuple[int, ...], before: NeuronLayer | None, out: int) -> View:
    """The matrix by whose rows a layer reads another, whose neurons come first among the columns."""
    basis = before.name if before else "inputs"
    if before and len(shape) == 2 and shape[1 - abs(out)] != before.width:
        width = before.width
        # Pictures are flattened channel by channel, or place by place.
        if out == 0:
            return View(name, (0, 1, 2), basis, shape=(shape[0], width, shape[1] // width))
        return View(name, (2, 1, 0), basis, shape=(shape[0] // width, width, shape[1]))
    axes = len(shape)
    order = tuple(range(axes)) if out == 0 else (axes - 1, axes - 2, *range(axes - 2))
    return View(name, order, basis)


def _leaving(name: str, shape: tuple[int, ...], width: int, out: int) -> View:
    """The matrix behind the last hidden layer, by that layer's neurons; a flattened picture has several of each."""
    inputs = shape[1] if out == 0 else shape[-2]
    if inputs == width:
        axes = (1, 0, *range(2, len(shape))) if out == 0 else (len(shape) - 2, len(shape) - 1, *range(len(shape) - 2))
        return View(name, axes, "outputs")
    if out == 0:  # pictures are flattened channel by channel, or place by place
        return View(name, (1, 0, 2), "outputs", shape=(shape[0], width, inputs // width))
    return View(name, (1, 0, 2), "outputs", shape=(inputs // width, width, shape[1]))
