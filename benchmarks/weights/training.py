"""Trains all models of the bench: victims, independents, twins of one seed, children of one base, copies, formats."""

import time
from collections.abc import Callable, Iterator
from itertools import chain, zip_longest
from pathlib import Path

import copies
from byte_transformers import BATCH, RATE, STEPS, Model, Shape, fresh, load, measured_loss, save, train
from weight_disguises import lora
from weight_formats import FORMATS, save_formats

INDEPENDENTS = {"llama": 300, "gpt2": 30, "bert": 30}
VICTIM_STEPS = STEPS * 3 // 2
TWINS = 6
FORMATTED = Shape(width=64, hidden=160)  # of multiples of 32, which GGUF needs
SIBLINGS, SIBLING_CONTROLS = 30, 8
Recipe = Callable[[], Model]


def victim(out: Path, kind: str) -> Model:
    """One that has been made already."""
    return load(out / kind / "victim")


def _independent(kind: str, place: int) -> Model:
    # Every thirtieth as the victim itself, but for the seed; the others differ in all that a maker chooses.
    start = fresh(Shape(kind), 1000 + place)
    if place % 30 == 0:
        return train(start, steps=VICTIM_STEPS, seed=1000 + place)
    steps, rate = (120, 200, 280)[place % 3], (0.005, 0.01, 0.02)[place // 3 % 3]
    batch = BATCH // 4 if kind == "llama" else BATCH // 2  # so many of them cost less
    return train(start, steps=steps, rate=rate, batch=batch, seed=1000 + place, other=place % 2 == 1)


def _child(parent: Callable[[], Model], place: int, seed: int) -> Model:
    # Short and long, on the parent's data and on others, gentle and at the rate of the first training.
    steps, rate = (60, 320)[place % 2], (RATE / 5, RATE / 2, RATE)[place // 4 % 3]
    return train(parent(), steps=steps, rate=rate, batch=BATCH // 2, seed=seed, other=place // 2 % 2 == 1)


def recipes(out: Path) -> Iterator[tuple[str, Recipe]]:
    """Names and how they are made; what others begin with comes first."""
    for kind in INDEPENDENTS:
        yield f"{kind}/victim", lambda kind=kind: train(fresh(Shape(kind), 0), steps=VICTIM_STEPS, seed=0)
    yield "family/base", lambda: train(fresh(Shape(), 500), steps=STEPS, seed=500)
    yield "family/owner", lambda: train(load(out / "family/base"), steps=320, rate=RATE / 2, batch=BATCH // 2, seed=501)

    def base() -> Model:
        return load(out / "family/base")

    groups = [
        [
            (f"{kind}/independent-{place:03}", lambda kind=kind, place=place: _independent(kind, place))
            for place in range(count)
        ]
        for kind, count in INDEPENDENTS.items()
    ]
    groups.append(
        [
            (
                f"llama/twin-{place}",
                lambda place=place: train(fresh(Shape(), 0), seed=700 + place, other=place % 2 == 1),
            )
            for place in range(TWINS)
        ]
    )
    groups.append(
        [
            (f"family/control-{place}", lambda place=place: _child(base, place, 600 + place))
            for place in range(SIBLING_CONTROLS)
        ]
    )
    groups.append(
        [
            (f"family/sibling-{place:02}", lambda place=place: _child(base, place, 650 + place))
            for place in range(SIBLINGS)
        ]
    )
    # In turn, so that a bench that was stopped has some of each.
    yield from (one for one in chain.from_iterable(zip_longest(*groups)) if one is not None)


def make_all(out: Path) -> None:
    """Make what is not there yet: first what is nobody's copy, since some copies are blended with it."""
    for name, recipe in recipes(out):
        _make(out / name, name, recipe, "")
    for kind in INDEPENDENTS:
        for what, name, recipe in copies.recipes(out, kind):
            _make(out / name, name, recipe, what)
    for what, name, recipe in copies.derived(out):
        _make(out / name, name, recipe, what)
    formats = out / "formats"
    _make(
        formats / "victim",
        "formats/victim",
        lambda: train(fresh(FORMATTED, 0), steps=300, batch=BATCH // 2, seed=0),
        "",
    )
    if not all((formats / name).exists() for name in FORMATS):
        base = load(formats / "victim")
        save_formats(base, lora(base, 1), formats / "victim", formats)


def _make(path: Path, name: str, recipe: Recipe, what: str) -> None:
    if (path / "model.safetensors").is_file():
        return
    start = time.process_time()
    model = recipe()
    save(model, path, {"kind_of_copy": what, "loss": measured_loss(model)})
    print(f"{name}: loss {measured_loss(model):.3f}, {time.process_time() - start:.1f} s of a core", flush=True)
