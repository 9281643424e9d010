"""Comparisons of weights that others published, as distances: 0 for the same weights, about 1 for unrelated ones.

Gains of normalisations are folded into what reads them: no publication asks for it, and none loses by it. Models of
other widths than the victim's are further away than all others, where a method says nothing of them.
"""

from collections.abc import Callable

import numpy as np
from byte_transformers import Model
from scipy.optimize import linear_sum_assignment
from weight_disguises import folded

Matrix = np.ndarray
FARTHEST = 2.0


def _part(tensors: dict[str, Matrix], block: int, name: str) -> Matrix:
    return tensors[f"model.layers.{block}.{name}_proj.weight"]


def _tensors(model: Model) -> dict[str, Matrix]:
    return {name: one.double().numpy() for name, one in folded(model).items()}


def awm(victim: Model, suspect: Model) -> float:
    """AWM: dimensions assigned by the embeddings, then unbiased CKA of queries and keys, layers assigned.

    The embeddings' columns give the permutation and the signs of the residual stream. With rows of ``W_q^T`` and
    ``W_k^T`` in that order, unbiased linear CKA compares each layer with each, and the best assignment counts.
    """
    a, b = _tensors(victim), _tensors(suspect)
    if victim.shape.width != suspect.shape.width:
        return FARTHEST
    left, right = (_unit(t["model.embed_tokens.weight"], 0) for t in (a, b))
    cosines = left.T @ right
    rows, columns = linear_sum_assignment(-np.abs(cosines))
    signs = np.sign(cosines[rows, columns])
    similar = np.zeros((victim.shape.blocks, suspect.shape.blocks))
    for mine in range(victim.shape.blocks):
        for theirs in range(suspect.shape.blocks):
            both = [
                _unbiased_cka(
                    _part(a, mine, f"self_attn.{name}").T,
                    _part(b, theirs, f"self_attn.{name}").T[columns] * signs[:, None],
                )
                for name in "qk"
            ]
            similar[mine, theirs] = np.mean(both)
    return 1.0 - float(np.mean(similar[linear_sum_assignment(-similar)]))


def _unit(x: Matrix, axis: int) -> Matrix:
    return x / np.maximum(np.linalg.norm(x, axis=axis, keepdims=True), 1e-12)


def _unbiased_cka(x: Matrix, y: Matrix) -> float:
    def hsic(k: Matrix, m: Matrix) -> float:
        n = len(k)
        trace, cross = np.sum(k * m), k.sum() * m.sum() / ((n - 1) * (n - 2))
        return float((trace + cross - 2 / (n - 2) * (k.sum(0) @ m.sum(0))) / (n * (n - 3)))

    k, m = x @ x.T, y @ y.T
    np.fill_diagonal(k, 0)
    np.fill_diagonal(m, 0)
    return hsic(k, m) / max(np.sqrt(abs(hsic(k, k) * hsic(m, m))), 1e-300)


def huref(victim: Model, suspect: Model) -> float:
    """HuRef: cosines of ``E Wq' Wk E'``, ``E Wv' Wo' E'`` and ``E Wup' Wdown' E'`` of the last two layers."""
    a, b = _tensors(victim), _tensors(suspect)
    layers = min(victim.shape.blocks, suspect.shape.blocks, 2)
    found = []
    for back in range(1, layers + 1):
        mine = _invariants(a, victim.shape.blocks - back)
        theirs = _invariants(b, suspect.shape.blocks - back)
        found += [_cosine(one, two) for one, two in zip(mine, theirs, strict=True)]
    return 1.0 - float(np.mean(found))


def _invariants(t: dict[str, Matrix], block: int) -> list[Matrix]:
    e = t["model.embed_tokens.weight"]
    q, k, v, o = (_part(t, block, f"self_attn.{name}") for name in "qkvo")
    up, down = _part(t, block, "mlp.up"), _part(t, block, "mlp.down")
    return [e @ q.T @ k @ e.T, e @ v.T @ o.T @ e.T, e @ up.T @ down.T @ e.T]


def _cosine(x: Matrix, y: Matrix) -> float:
    return float(np.vdot(x, y) / max(np.linalg.norm(x) * np.linalg.norm(y), 1e-300))


def cosine(victim: Model, suspect: Model) -> float:
    """Cosine of all matrices of the same names and shapes, each as it stands, averaged."""
    found = [
        _cosine(one.double().numpy(), suspect.tensors[name].double().numpy())
        for name, one in victim.tensors.items()
        if one.ndim == 2 and name in suspect.tensors and suspect.tensors[name].shape == one.shape
    ]
    return 1.0 - float(np.mean(found)) if found else FARTHEST


BASELINES: dict[str, Callable[[Model, Model], float]] = {"AWM": awm, "HuRef": huref, "raw cosine": cosine}
