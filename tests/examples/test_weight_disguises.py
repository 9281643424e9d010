"""The disguises of transformers compute what they say they do, and the comparison of weights sees through them."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest
from places import ROOT

torch = pytest.importorskip("torch")
sys.path.insert(0, str(ROOT / "examples"))

import tiny_transformers  # noqa: E402
from byte_transformers import (  # noqa: E402
    KINDS,
    LENGTH,
    TOKENS,
    Model,
    Shape,
    fresh,
    load,
    logits,
    loss,
    rows_of,
    save,
    text,
    train,
)
from deepjudge_weights.metrics import neuron_sketch, order_chance  # noqa: E402
from weight_disguises import KEEPING, LOSING, merge, permute_hidden, permute_residual, residual  # noqa: E402

from deepjudge_core.components.values import Answers  # noqa: E402
from deepjudge_core.components.weights import open_weights  # noqa: E402

IMPOSSIBLE = {("gpt2", "rescale"), ("bert", "rescale"), ("bert", "rotate")}


def model(kind: str, seed: int = 0) -> Model:
    """As if it were trained: no gain is 1, and no bias is 0."""
    generator = torch.Generator().manual_seed(seed + 50)
    made = fresh(Shape(kind), seed)
    vectors = {
        name: one + torch.randn(one.shape, generator=generator) * 0.3
        for name, one in made.tensors.items()
        if one.ndim == 1
    }
    return Model(made.shape, made.tensors | vectors)


def rows() -> "torch.Tensor":
    return torch.randint(1, TOKENS, (4, LENGTH + 1), generator=torch.Generator().manual_seed(1))


def computed(model: Model) -> "torch.Tensor":
    with torch.no_grad():
        return logits(model, rows()[:, 1:])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", KEEPING)
def test_a_disguise_keeps_what_the_network_computes(kind: str, name: str) -> None:
    victim = model(kind)
    if (kind, name) in IMPOSSIBLE:
        with pytest.raises(ValueError, match=r"no unit|cannot be turned"):
            KEEPING[name](victim, 3)
        return
    disguised = KEEPING[name](victim, 3)
    assert torch.allclose(computed(disguised), computed(victim), atol=1e-3)
    changed = [one for one, tensor in victim.tensors.items() if not torch.equal(disguised.tensors[one], tensor)]
    assert any(victim.tensors[one].ndim == 2 for one in changed)


@pytest.mark.parametrize("kind", KINDS)
def test_every_other_edit_gives_a_network_that_computes_something_else(kind: str) -> None:
    victim = model(kind)
    for name, edit in LOSING.items():
        found = computed(edit(victim, 3))
        assert found.isfinite().all(), name
        assert not torch.equal(found, computed(victim)), name


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_model_is_read_as_it_was(tmp_path: Path, kind: str) -> None:
    narrow = LOSING["narrow-25"](model(kind), 0)
    save(narrow, tmp_path)
    again = load(tmp_path)
    assert again.shape == narrow.shape
    assert {name: one.tolist() for name, one in again.tensors.items()} == {
        n: t.tolist() for n, t in narrow.tensors.items()
    }


@pytest.mark.parametrize("kind", KINDS)
def test_training_lowers_the_loss_and_leaves_what_it_began_with(kind: str) -> None:
    start = fresh(Shape(kind, blocks=1), 0)
    before = {name: one.clone() for name, one in start.tensors.items()}
    trained = train(start, steps=12, batch=4, seed=0)
    generator = torch.Generator().manual_seed(0)
    tested = rows_of(text(), 32, generator)
    with torch.no_grad():
        assert loss(trained, tested, torch.Generator().manual_seed(2)) < 0.95 * math.log(TOKENS)
    assert all(torch.equal(start.tensors[name], one) for name, one in before.items())


def compared(victim: Model, suspect: Model, folder: Path) -> tuple[float, float]:
    """The distance of the sketches, and log10 of the probability of the order."""
    save(victim, folder / "victim")
    save(suspect, folder / "suspect")
    with open_weights(folder / "victim") as opened:
        plan = opened.plan()
        ours = opened.sketch(plan, victim=True)
    with open_weights(folder / "suspect") as opened:
        theirs = opened.sketch(plan)
    a, b = (Answers(np.empty(0, np.int64), weights=one) for one in (ours, theirs))
    return neuron_sketch(a, b), order_chance(a, b).log10_p


@pytest.mark.parametrize("kind", KINDS)
def test_the_comparison_sees_through_disguises_alone(tmp_path: Path, kind: str) -> None:
    victim = model(kind)
    other, chance = compared(victim, model(kind, seed=9), tmp_path)
    assert chance > -3
    for name, edit in KEEPING.items():
        if (kind, name) not in IMPOSSIBLE:
            assert compared(victim, edit(victim, 3), tmp_path)[0] < 0.05 * other, name
    assert compared(victim, merge(victim, model(kind, seed=9)), tmp_path)[0] < 0.7 * other
    assert compared(victim, LOSING["4-bit"](victim, 0), tmp_path)[1] < -50


def test_a_residual_stream_in_another_order_leaves_no_order_to_test(tmp_path: Path) -> None:
    victim = model("llama")
    assert compared(victim, permute_residual(permute_hidden(victim, 1), 2), tmp_path)[1] > -3
    assert {name for name, _ in residual(victim)} == set(victim.tensors)


def test_the_demo_makes_a_zoo_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny_transformers, "TRAINING", {"tune-long": LOSING["noise-10"]})
    shape = Shape("llama", blocks=2)
    tiny_transformers.make_zoo(tmp_path, shape, steps=2, count=5)
    names = [path.name for path in (tmp_path / "copies").iterdir()]
    assert sorted(names) == sorted([*KEEPING, *LOSING, "tune-long", "disguised"])
    assert [len(list((tmp_path / name).iterdir())) for name in ("controls", "independents")] == [4, 1]
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    tiny_transformers.make_zoo(tmp_path, shape, steps=2, count=5)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")} == written
