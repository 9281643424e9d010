"""Copies of a victim: what a thief, or an honest licensee, makes of its weights. Kind, name, and how it is made."""

from collections.abc import Callable
from pathlib import Path

import torch
from byte_transformers import Model, load
from weight_disguises import (
    KEEPING,
    LOSING,
    Edit,
    chain,
    distil,
    fine_tune,
    lora_merge,
    merge,
    mix_heads,
    new_block,
    noise,
    permute_hidden,
    permute_residual,
    prune,
    prune_width,
    quantise,
    rescale,
    rotate,
    rounded,
    swap_vocabulary,
)

SHORT, LONG = 60, 320
ATTENTION, MLP = (lambda name: "attn" in name or "attention" in name), (lambda name: "mlp" in name or "dense" in name)


def blended(out: Path, kind: str, place: int, share: float) -> Edit:
    """A merge with an independent model of the same kind."""
    return lambda model, seed: merge(model, load(out / kind / f"independent-{place:03}"), share)


def between(model: Model, seed: int) -> Model:
    """The mean of two fine-tunes."""
    one, two = (fine_tune(LONG, 0.5, other)(model, seed + other) for other in (False, True))
    return merge(one, two)


def kinds(out: Path, kind: str) -> dict[str, list[Edit]]:
    """Edits by kind of copy; the last kind is what the comparison cannot see."""
    gentle, usual, hard = 0.2, 0.5, 1.0
    moved = fine_tune(LONG, usual, other=True)
    every = {
        "fine-tuned, short": [
            fine_tune(SHORT, rate, other) for rate in (gentle, usual, hard) for other in (False, True)
        ],
        "fine-tuned, long": [fine_tune(LONG, rate, other) for rate in (gentle, usual, hard) for other in (False, True)],
        "fine-tuned, very long": [fine_tune(1000, usual, other=True)],
        "fine-tuned twice": [chain(fine_tune(LONG, usual, other), moved) for other in (False, True)],
        "fine-tuned in part": [fine_tune(LONG, usual, other=True, trained=one) for one in (ATTENTION, MLP)],
        "LoRA merged": [lora_merge(rank, rate) for rank, rate in ((2, 1.0), (4, 1.0), (8, 1.0), (8, 3.0))],
        "merged with an independent": [
            blended(out, kind, place, share) for place, share in ((0, 0.3), (0, 0.5), (1, 0.5), (2, 0.5))
        ],
        "mean of two fine-tunes": [between],
        "rounded": [rounded(torch.bfloat16), rounded(torch.float16)],
        "8 bit": [quantise(8, 16), quantise(8, 48)],
        "4 bit": [quantise(4, 16), quantise(4, 48)],
        "pruned": [prune(0.3), prune(0.5), prune(0.7), chain(prune(0.5), fine_tune(SHORT, usual, other=True))],
        "narrower": [prune_width(0.25), prune_width(0.5), chain(prune_width(0.25), moved)],
        "shallower": [LOSING["drop-first"], LOSING["drop-last"], chain(LOSING["drop-last"], moved)],
        "deeper": [LOSING["repeat"]],
        "noise": [noise(0.1), noise(0.3), noise(0.5)],
        "a fresh block": [new_block],
        "wider": [KEEPING["widen"]],
        "hidden units permuted": [permute_hidden, chain(moved, permute_hidden)],
        "residual permuted": [permute_residual, chain(moved, permute_residual)],
        "heads mixed": [mix_heads, chain(moved, mix_heads)],
        "permuted and heads mixed": [
            chain(permute_hidden, permute_residual, mix_heads),
            chain(moved, permute_hidden, permute_residual, mix_heads),
        ],
        "new vocabulary": [swap_vocabulary(200), swap_vocabulary(400)],
    }
    if kind != "llama":
        few = ("fine-tuned, short", "fine-tuned, long", "LoRA merged")
        every = {name: edits[::2] if name in few else edits[:2] for name, edits in every.items()}
        del every["fine-tuned, very long"], every["mean of two fine-tunes"]
    if kind == "llama":
        disguised = chain(permute_hidden, rescale, mix_heads)
        every |= {
            "rescaled": [rescale, chain(moved, rescale)],
            "permuted, rescaled, heads mixed": [disguised, chain(moved, disguised)],
        }
    if kind != "bert":
        whole = chain(permute_hidden, mix_heads, rotate)
        every |= {
            "basis rotated": [rotate, chain(rotate, fine_tune(SHORT, usual, other=True)), chain(moved, rotate)],
            "rotated, fine-tuned, 4 bit": [chain(rotate, moved, quantise(4)), chain(moved, rotate, quantise(4))],
            "all of them, fine-tuned, 4 bit": [chain(whole, moved, quantise(4)), chain(moved, whole, quantise(4))],
        }
    return every


def beyond(out: Path, kind: str) -> dict[str, list[Edit]]:
    """What no comparison of weights here sees."""
    del out
    if kind != "llama":
        return {}
    turned = chain(permute_hidden, rotate, swap_vocabulary(200))
    return {"rotated and new vocabulary": [turned], "student": [distil]}


def recipes(out: Path, kind: str) -> list[tuple[str, str, Callable[[], Model]]]:
    """Kind, name and maker of each copy; some begin with independents, which have to be there."""
    victim = load(out / kind / "victim")
    made = []
    for prefix, which in (("copy", kinds(out, kind)), ("unseen", beyond(out, kind))):
        for name, edits in which.items():
            for place, edit in enumerate(edits):
                path = f"{kind}/{prefix}-{name.replace(', ', '_').replace(' ', '-')}-{place}"
                made.append((name, path, lambda edit=edit, place=place: edit(victim, 3000 + 10 * place)))
    return made


def derived(out: Path) -> list[tuple[str, str, Callable[[], Model]]]:
    """The same of copies of the owner's model, which itself is a fine-tune of a base."""
    owner, moved = load(out / "family" / "owner"), fine_tune(LONG, 0.5, other=True)
    every: dict[str, list[Edit]] = {
        "fine-tuned, short": [fine_tune(SHORT, rate, other) for rate in (0.2, 0.5) for other in (False, True)],
        "fine-tuned, long": [fine_tune(LONG, rate, other) for rate in (0.2, 0.5, 1.0) for other in (False, True)],
        "fine-tuned twice": [chain(moved, fine_tune(LONG, 0.5, other=False))],
        "LoRA merged": [lora_merge(4, 1.0), lora_merge(8, 1.0)],
        "8 bit": [quantise(8)],
        "4 bit": [quantise(4)],
        "pruned": [prune(0.3), prune(0.5)],
        "noise": [noise(0.1)],
        "fine-tuned, 4 bit": [chain(moved, quantise(4))],
        "merged with a sibling": [lambda model, seed: merge(model, load(out / "family" / "sibling-01"))],
    }
    return [
        (
            name,
            f"family/copy-{name.replace(', ', '_').replace(' ', '-')}-{place}",
            lambda edit=edit, place=place: edit(owner, 3000 + 10 * place),
        )
        for name, edits in every.items()
        for place, edit in enumerate(edits)
    ]
