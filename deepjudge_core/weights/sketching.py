"""Sketches: of each neuron a few numbers, by which models are compared without their weights.

A neuron is a row of each of its layer's matrices. A row is kept as its direction, projected to a few dimensions by
signs that the plan's seed gives: once in the model's own coordinates (``raw``), once in coordinates that turn with the
residual stream (``invariant``). The latter are products with the polar factor of the embeddings of some tokens: what
those tokens mean is the same in a copy, however its residual stream was turned. Of a classifier they are coordinates in
which the neurons are matched layer by layer: see :mod:`deepjudge_core.weights.aligning`.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from deepjudge_core import progress
from deepjudge_core.errors import ModelError
from deepjudge_core.types import Array
from deepjudge_core.weights.aligning import Alignment
from deepjudge_core.weights.roles import find_roles
from deepjudge_core.weights.values import (
    LayerKind,
    LayerPlan,
    LayerSketch,
    NeuronLayer,
    Roles,
    Sketch,
    StoredWeights,
    View,
    WeightPlan,
)
from deepjudge_core.weights.views import ViewMatrix, parts_of

RANK = 128
"""Numbers that are kept of a row, where nobody says otherwise."""

_NEURONS = 512  # of a layer that are picked, at most
_TOKENS = 512
_RUN = 8  # tokens that stand beside one another, since rows are read a few at a time
_LEAST_TOKENS = 16  # that a model must share for its residual stream to be turned
_BLOCKS = 4  # of a transformer that are picked, at most
_READ = 450_000_000  # weights that are read of the picked blocks, at most, unless one alone has more
_LAYERS = 32  # of other networks
_MORE_BLOCKS = 12  # that are sketched of a model with more or fewer blocks than the victim, at most
_GREATEST = {"columns": 1 << 19, "width": 1 << 17, "at once": 1 << 27}  # so that a sketch takes less than 1.5 GB
_FLAT = 32  # sums over neurons of each number that is kept of a row
_RESIDUAL = "residual"


def plan_weights(weights: StoredWeights, *, seed: int = 0, rank: int = RANK, ancestry: bool = False) -> WeightPlan:
    """Choose what is compared of a victim: layers, neurons and tokens.

    Args:
        weights: Of the victim.
        seed: What all randomness is derived from.
        rank: Numbers that are kept of a row.
        ancestry: Whether sketches have an image of all weights, by which a common ancestor is taken into account.

    Raises:
        ModelError: When nothing of it can be compared, with the reason.
    """
    roles = find_roles(weights)
    layers = _comparable(weights, roles)
    if not layers:
        raise ModelError(f"{weights.name}: expected layers of hidden neurons, found none", code="wrong-format")
    picked = _spread(layers, weights)
    random = np.random.default_rng(seed)
    ids, tokens = _pick_tokens(weights, roles, random)
    plans = [LayerPlan(layer.name, layer.block, layer.kind, layer.width) for layer in picked]
    residual = _residual_width(weights, roles)
    if residual and len(ids) and not roles.fixed_residual:
        plans.insert(0, LayerPlan(_RESIDUAL, 0, "residual", residual))
    neurons = tuple(
        np.sort(random.choice(plan.width, min(plan.width, _NEURONS), replace=False)).astype(np.int64) for plan in plans
    )
    depth = sum(layer.kind == picked[0].kind for layer in layers)
    flat = sum(_FLAT * len(layer.views) * rank for layer in picked) if ancestry else 0
    plan = WeightPlan(seed, rank, roles.family, depth, tuple(plans), neurons, ids, tokens, flat)
    if roles.embedding is not None:
        return plan
    places = {(layer.kind, layer.block): place for place, layer in enumerate(plans)}
    own = {places[one.kind, one.block]: one.invariant for one in sketch(weights, plan, victim=True).layers}
    return replace(plan, anchors={place: rows for place, rows in own.items() if rows is not None})


def sketch(weights: StoredWeights, plan: WeightPlan, *, victim: bool = False) -> Sketch:
    """Sketch the weights of one model, which nothing but the plan goes into.

    Args:
        weights: Of the victim or of any other model.
        plan: Of the victim.
        victim: Whether they are the victim's own: of these the picked neurons alone are kept.

    Raises:
        ModelError: When nothing of it can be compared, with the reason.
    """
    roles = find_roles(weights)
    residual = _Residual.of(weights, roles, plan)
    alignment = Alignment(plan, victim=victim) if roles.embedding is None else None
    chosen, skipped = _candidates(_comparable(weights, roles), plan)
    picked = {(layer.kind, layer.block): neurons for layer, neurons in zip(plan.layers, plan.neurons, strict=True)}
    sketches = []
    if residual is not None and ("residual", 0) in picked:
        sketches.append(residual.dimensions(plan))
    images: dict[tuple[LayerKind, int], Array] = {}
    with progress.task(f"sketching {weights.name}", len(chosen)) as advance:
        for layer in chosen:
            made, image = _sketch_layer(weights, layer, plan, residual, alignment, centred=roles.centred)
            sketches.append(made)
            images[layer.kind, layer.block] = image
            advance(1)
    if not sketches:
        raise ModelError(
            f"{weights.name}: expected layers of the kinds that the victim has "
            f"({', '.join(sorted({layer.kind for layer in plan.layers}))}), found none",
            code="wrong-format",
        )
    if victim:
        sketches = [_only(one, picked[one.kind, one.block]) for one in sketches if (one.kind, one.block) in picked]
    notes = list(roles.notes)
    if residual is None and roles.embedding is not None:
        notes.append("its vocabulary shares hardly any token with the victim's: its residual stream was not turned")
    unseen = () if victim else (*skipped, *_outside(weights, roles))
    return Sketch(roles.family, tuple(sketches), _flat(plan, images), roles.guessed, tuple(notes), unseen)


def _comparable(weights: StoredWeights, roles: Roles) -> list[NeuronLayer]:
    """The layers that are small enough to be sketched within the memory that is allowed."""

    def small(view: View) -> bool:
        matrix = ViewMatrix.of(weights, view)
        return 0 < matrix.columns <= _GREATEST["columns"] and matrix.at_once <= _GREATEST["at once"]

    return [
        layer
        for layer in roles.layers
        if layer.views and layer.width <= _GREATEST["width"] and all(map(small, layer.views))
    ]


def _spread(layers: Sequence[NeuronLayer], weights: StoredWeights) -> list[NeuronLayer]:
    """Some layers, evenly over depth."""
    if layers[0].kind != "mlp":
        return list(layers[:_LAYERS])  # the first ones, since each is matched by those before
    size = max(layer.width * sum(ViewMatrix.of(weights, view).columns for view in layer.views) for layer in layers)
    return [layers[place] for place in _evenly(len(layers), max(1, min(_BLOCKS, _READ // max(1, size))))]


def _evenly(count: int, most: int) -> list[int]:
    return sorted({round(place) for place in np.linspace(0, count - 1, min(count, most))})


def _outside(weights: StoredWeights, roles: Roles) -> tuple[str, ...]:
    """That a file has more weights outside the layers that are compared than in them: maybe a copy's."""
    layers = {view.tensor for layer in roles.layers for view in layer.views}
    tables = {view.tensor for view in (roles.embedding, roles.unembedding) if view is not None}
    sizes = {name: prod(spec.shape) for name, spec in weights.tensors.items()}
    own = sum(sizes[name] for name in layers)
    others = sum(size for name, size in sizes.items() if name not in layers | tables)
    if others <= own:
        return ()
    return (
        f"its file holds {others:,} weights outside the layers that are compared, which have {own:,}: a "
        "network that computes with those may be a copy",
    )


def _candidates(layers: Sequence[NeuronLayer], plan: WeightPlan) -> tuple[list[NeuronLayer], list[str]]:
    """The layers of a model that may be those of the plan: at their places, and where blocks were added or removed.

    Also, where some of these are left out since they are too many, that they are.
    """
    chosen: set[str] = set()
    skipped: list[str] = []
    for kind in dict.fromkeys(layer.kind for layer in plan.layers):
        own = [layer for layer in layers if layer.kind == kind]
        wanted = [layer.block for layer in plan.layers if layer.kind == kind]
        shift = len(own) - plan.depth if kind == "mlp" else len(own)
        near = [
            layer
            for layer in own
            if any(block + min(0, shift) <= layer.block <= block + max(0, shift) for block in wanted)
        ]
        most = _MORE_BLOCKS if kind == "mlp" else _LAYERS
        first = [layer for layer in near if layer.block in wanted]
        others = [layer for layer in near if layer.block not in wanted]
        chosen |= {layer.name for layer in first}
        chosen |= {others[place].name for place in _evenly(len(others), most - len(first)) if most > len(first)}
        if len(near) > max(most, len(first)):
            skipped.append(
                f"only {max(most, len(first))} of its {len(near)} layers that may be those of the victim were looked at"
            )
    return [layer for layer in layers if layer.name in chosen], skipped


def _only(one: LayerSketch, neurons: Array) -> LayerSketch:
    invariant = None if one.invariant is None else one.invariant[neurons]
    return replace(one, neurons=neurons, raw=one.raw[neurons], invariant=invariant)


def _sketch_layer(
    weights: StoredWeights,
    layer: NeuronLayer,
    plan: WeightPlan,
    residual: "_Residual | None",
    alignment: Alignment | None,
    *,
    centred: bool,
) -> tuple[LayerSketch, Array]:
    """A layer's sketch, and the image of its weights."""
    turned = residual if residual is not None and all(view.basis == _RESIDUAL for view in layer.views) else None
    raws, turns, images, lengths = [], [], [], []

    def project(columns: int) -> Array:
        return _projection(plan.seed, "raw", columns, plan.rank)

    for view in layer.views:
        matrix = ViewMatrix.of(weights, view)
        onto = [project(matrix.columns)]
        if turned is not None and turned.onto.shape[0] == matrix.columns:
            onto.append(turned.onto)
        if alignment is not None and (aligned := alignment.onto(view, matrix.sizes, project)) is not None:
            onto.append(aligned)
        images_of, norms = _project(
            weights, view, np.concatenate(onto, axis=1), layer.width, centred=centred and view.basis == _RESIDUAL
        )
        raws.append(_unit(images_of[:, : plan.rank], norms))
        if len(onto) > 1:
            turns.append(_unit(images_of[:, plan.rank :], norms))
            lengths.append(np.linalg.norm(images_of[:, plan.rank :].astype(np.float64), axis=1))
        if plan.flat:
            images.append(_sums(plan.seed, images_of[:, : plan.rank]))
    invariant = np.stack(turns, axis=1) if len(turns) == len(layer.views) else None
    if alignment is not None and invariant is not None:
        alignment.add(weights, layer, invariant, lengths[0])
    made = LayerSketch(
        layer.name, layer.block, layer.kind, layer.width, np.arange(layer.width), np.stack(raws, axis=1), invariant
    )
    return made, np.concatenate(images) if images else np.empty(0, np.float32)


def _sums(seed: int, images: Array) -> Array:
    finite = np.where(np.isfinite(images), images, 0).astype(np.float64)
    sums: Array = (_signs(seed, "sums", len(images), _FLAT).T @ finite).ravel() / np.sqrt(_FLAT * images.shape[1])
    with np.errstate(over="ignore"):  # which leaves no image: see where they are put together
        return sums.astype(np.float32)


def _flat(plan: WeightPlan, images: Mapping[tuple[LayerKind, int], Array]) -> Array | None:
    wanted = [(layer.kind, layer.block) for layer in plan.layers if layer.kind != "residual"]
    if not plan.flat or any(key not in images for key in wanted):
        return None
    flat = np.concatenate([images[key] for key in wanted])
    return flat if len(flat) == plan.flat and np.isfinite(flat).all() else None


def _unit(images: Array, norms: Array) -> Array:
    """Rows as directions, float16; those that have none, or are not finite, are 0."""
    with np.errstate(all="ignore"):
        rows = images / np.sqrt(np.maximum(norms, 0))[:, None]
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return np.where(np.isfinite(rows).all(axis=1, keepdims=True), rows, 0).astype(np.float16)


def _project(
    weights: StoredWeights, view: View, onto: Array, width: int, *, centred: bool = False
) -> tuple[Array, Array]:
    """The rows of a matrix, folded with its gain, times ``onto``, and the squares of their norms, float32.

    The tensor is read a part at a time, whatever axis its neurons lie along.

    Raises:
        ModelError: When the file is damaged.
    """
    gain = None
    if view.gain is not None:
        gain = weights.read(view.gain) + np.float32(view.gain_plus)
    if centred:  # by what it is multiplied with: that of a symmetric matrix
        onto = onto - onto.mean(axis=0)
    images, squares, totals = np.zeros((width, onto.shape[1]), np.float32), np.zeros(width), np.zeros(width)
    with np.errstate(all="ignore"):
        for neurons, columns, part in parts_of(weights, view):
            rows = part if gain is None else part * gain[columns]
            images[neurons] += rows @ onto[columns]
            squares[neurons] += np.einsum("ij,ij->i", rows, rows, dtype=np.float64)
            if centred:
                totals[neurons] += rows.sum(axis=1, dtype=np.float64)
        return images, squares - totals**2 / len(onto)


def _signs(seed: int, purpose: str, rows: int, columns: int) -> Array:
    """A matrix of 1 and -1, float32. The bits of the generator do not change with the version of numpy."""
    key = int.from_bytes(hashlib.sha256(f"{purpose} {seed}".encode()).digest()[:8], "little")
    words = np.random.PCG64(key).random_raw(-(-rows * columns // 64)).astype("<u8")
    bits = np.unpackbits(words.view(np.uint8), count=rows * columns)
    return (bits.astype(np.float32) * 2 - 1).reshape(rows, columns)


def _projection(seed: int, purpose: str, rows: int, rank: int) -> Array:
    """What keeps lengths and angles of rows while it shortens them; short rows stay as they are."""
    return np.eye(rows, rank, dtype=np.float32) if rows <= rank else _signs(seed, purpose, rows, rank)


@dataclass(frozen=True, eq=False)
class _Residual:
    """What the residual dimensions mean, by the embeddings of the plan's tokens.

    Attributes:
        embeddings: ``(tokens, d)``, unit rows; 0 where the model lacks the token.
        onto: ``(d, rank)``, by which a row of weights is multiplied: it turns with the residual stream.
    """

    embeddings: Array
    onto: Array

    @classmethod
    def of(cls, weights: StoredWeights, roles: Roles, plan: WeightPlan) -> "_Residual | None":
        """None where the model lacks an embedding, or most of the tokens."""
        if roles.embedding is None or not len(plan.ids):
            return None
        places = _places(weights, ViewMatrix.of(weights, roles.embedding), roles.embedding, plan)
        if (places >= 0).sum() < min(_LEAST_TOKENS, len(plan.ids)):
            return None
        tables = [_rows(weights, view, places) for view in (roles.embedding, roles.unembedding) if view is not None]
        if len({table.shape for table in tables}) > 1:
            tables = tables[:1]
        if roles.centred:
            tables = [table - table.mean(axis=1, keepdims=True) for table in tables]
        tables = [_unit64(table) for table in tables]
        both = np.concatenate(tables)
        signs = _signs(plan.seed, "tokens", 2 * len(places), plan.rank)[: len(both)]
        return cls(tables[0], _polar_product(both, signs))

    def dimensions(self, plan: WeightPlan) -> LayerSketch:
        """The residual dimensions as neurons, of which the tokens' embeddings are the weights."""
        known = (self.embeddings != 0).any(axis=1)
        rows = np.where(known[:, None], self.embeddings - self.embeddings[known].mean(axis=0), 0).T
        images = rows @ _projection(plan.seed, "raw", rows.shape[1], plan.rank)
        raw = _unit(images, np.ones(len(images)))
        return LayerSketch(_RESIDUAL, 0, "residual", len(rows), np.arange(len(rows)), raw[:, None])


def _unit64(rows: Array) -> Array:
    with np.errstate(all="ignore"):
        units: Array = rows.astype(np.float64) / np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    units[~np.isfinite(units).all(axis=1)] = 0
    return units


def _polar_product(rows: Array, signs: Array) -> Array:
    """The transpose of the polar factor of ``rows``, ``(d, n)``, times ``signs``; directions without weight are 0."""
    wide = len(rows) <= rows.shape[1]
    values, vectors = np.linalg.eigh(rows @ rows.T if wide else rows.T @ rows)
    roots = np.where(values > values[-1] * 1e-6, 1 / np.sqrt(np.maximum(values, 1e-300)), 0)
    product = (
        rows.T @ (vectors @ (roots[:, None] * (vectors.T @ signs)))
        if wide
        else vectors @ (roots[:, None] * (vectors.T @ (rows.T @ signs)))
    )
    return np.asarray(product, np.float32)


def _residual_width(weights: StoredWeights, roles: Roles) -> int:
    return 0 if roles.embedding is None else ViewMatrix.of(weights, roles.embedding).columns


def _pick_tokens(weights: StoredWeights, roles: Roles, random: np.random.Generator) -> tuple[Array, tuple[str, ...]]:
    """Rows of the embedding, in runs, and their strings where there is a vocabulary."""
    if roles.embedding is None:
        return np.empty(0, np.int64), ()
    matrix = ViewMatrix.of(weights, roles.embedding)
    count = matrix.shape[roles.embedding.axes[0]]
    vocabulary = weights.tokens()
    if vocabulary is not None:
        count = min(count, len(vocabulary))
    runs = -(-count // _RUN)
    starts = np.sort(random.choice(runs, min(runs, _TOKENS // _RUN), replace=False)) * _RUN
    ids = (starts[:, None] + np.arange(_RUN)).ravel()
    ids = ids[ids < count].astype(np.int64)
    return ids, () if vocabulary is None else tuple(vocabulary[place] for place in ids)


def _places(weights: StoredWeights, matrix: ViewMatrix, view: View, plan: WeightPlan) -> Array:
    """Where the plan's tokens are in this model's embedding; -1 for those that it lacks."""
    count = matrix.shape[view.axes[0]]
    vocabulary = weights.tokens() if plan.tokens else None
    if vocabulary is None:
        return np.where(plan.ids < count, plan.ids, -1)
    wanted = set(plan.tokens)
    own = {token: place for place, token in reversed(list(enumerate(vocabulary[:count]))) if token in wanted}
    return np.array([own.get(token, -1) for token in plan.tokens], dtype=np.int64)


def _rows(weights: StoredWeights, view: View, places: Array) -> Array:
    """Rows of an embedding, folded with its gain, float32; 0 for those that are missing."""
    matrix = ViewMatrix.of(weights, view)
    known = np.flatnonzero(places >= 0)
    rows: Array = np.zeros((len(places), matrix.columns), np.float32)
    if view.axes[0] == 0 and view.shape is None:
        order = known[np.argsort(places[known], kind="stable")]
        for run in np.split(order, np.flatnonzero(np.diff(places[order]) > 1) + 1):
            if len(run):
                start = int(places[run[0]])
                block = weights.read(view.tensor, slice(start, int(places[run[-1]]) + 1))
                rows[run] = block.reshape(len(block), -1)[places[run] - start]
    else:
        whole = np.zeros((matrix.shape[view.axes[0]], matrix.columns), np.float32)
        for tokens, columns, part in parts_of(weights, view):
            whole[tokens, columns] = part
        rows[known] = whole[places[known]]
    if view.gain is not None:
        rows = rows * (weights.read(view.gain) + np.float32(view.gain_plus))
    return rows
