"""Measures all models against their victim: with the product's own code, and with what others published."""

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from baselines import BASELINES
from byte_transformers import Model, load
from deepjudge_weights.metrics import neuron_sketch, sibling_slope
from scipy.stats import beta
from weight_formats import FORMATS

from deepjudge_core.components.values import Answers
from deepjudge_core.components.weights import open_weights
from deepjudge_core.errors import DeepJudgeError
from deepjudge_core.weights.order import order_test
from deepjudge_core.weights.values import Sketch, WeightPlan

Row = dict[str, Any]


class Victim:
    """What others are compared with: its plan and sketch, and, for baselines, itself."""

    def __init__(self, path: Path, *, ancestry: bool = False) -> None:
        with open_weights(path) as weights:
            self.plan: WeightPlan = weights.plan(ancestry=ancestry)
            self.sketch: Sketch = weights.sketch(self.plan, victim=True)
        self.model: Model | None = load(path) if (path / "model.safetensors").is_file() else None

    def sketch_of(self, path: Path) -> Sketch:
        """The sketch of any other model."""
        with open_weights(path) as weights:
            return weights.sketch(self.plan)

    def measure(self, path: Path, *, baselines: bool = False) -> Row:
        """``p`` is a logarithm to base 10; what could not be measured is None, with the reason."""
        try:
            other = self.sketch_of(path)
            test = order_test(self.sketch, other)
            row: Row = {
                "sketch": neuron_sketch(answers(self.sketch), answers(other)),
                "p": None if test is None else test.log10_p,
            }
        except DeepJudgeError as error:
            return {"error": str(error)}
        if baselines and self.model is not None:
            row |= {name: distance(self.model, load(path)) for name, distance in BASELINES.items()}
        return row


def answers(sketch: Sketch) -> Answers:
    """A sketch as metrics get it."""
    return Answers(np.empty(0, np.int64), weights=sketch)


def measure_all(out: Path) -> dict[str, dict[str, Row]]:
    """All models by group and name. What was measured before is taken from ``measured.json``."""
    kept = out / "measured.json"
    groups: dict[str, dict[str, Row]] = json.loads(kept.read_text()) if kept.is_file() else {}
    for group, measure in (
        ("llama", _kind),
        ("gpt2", _kind),
        ("bert", _kind),
        ("family", _family),
        ("formats", _formats),
    ):
        groups.setdefault(group, {})
        if (out / group / ("owner" if group == "family" else "victim") / "model.safetensors").is_file():
            measure(out / group, groups[group])
            kept.write_text(json.dumps(groups, indent=1))
    return groups


def _kind(folder: Path, rows: dict[str, Row]) -> None:
    victim = Victim(folder / "victim")
    for path in _missing(folder, rows):
        rows[path.name] = victim.measure(path, baselines=folder.name == "llama") | {"kind": _note(path)}


def _missing(folder: Path, rows: dict[str, Row]) -> list[Path]:
    found = [path for path in sorted(folder.iterdir()) if (path / "model.safetensors").is_file()]
    return [path for path in found if path.name not in rows and path.name not in ("victim", "base", "owner")]


def _note(path: Path) -> str:
    return str(json.loads((path / "config.json").read_text()).get("kind_of_copy", ""))


def _family(folder: Path, rows: dict[str, Row]) -> None:
    """The slopes of siblings, controls and copies: of each control without itself among the controls."""
    owner = Victim(folder / "owner", ancestry=True)
    base = owner.sketch_of(folder / "base")
    controls = {path.name: owner.sketch_of(path) for path in sorted(folder.glob("control-*"))}
    for path in _missing(folder, rows):
        others = tuple(sketch for name, sketch in controls.items() if name != path.name)
        ours = replace(answers(owner.sketch), ancestor=base, siblings=others)
        slope = sibling_slope(ours, answers(owner.sketch_of(path)))
        rows[path.name] = owner.measure(path) | {"kind": _note(path), "slope": slope}


def _formats(folder: Path, rows: dict[str, Row]) -> None:
    """Distances from the merged model in a folder, in each format."""
    victim = Victim(folder / FORMATS[0])
    for name in FORMATS:
        if name not in rows and (folder / name).exists():
            rows[name] = victim.measure(folder / name)


def upper_bound(wrong: int, of: int) -> float:
    """The 95 % upper bound (Clopper and Pearson) of a share of which ``wrong`` of ``of`` were seen."""
    return 1.0 if wrong == of else float(beta.ppf(0.95, wrong + 1, of - wrong))


def separation(copies: Iterable[float], independents: Iterable[float]) -> tuple[float, float]:
    """AUC of distances, and the share of copies that are nearer than every independent."""
    near, far = np.array(list(copies)), np.array(list(independents))
    less = (near[:, None] < far).mean() + (near[:, None] == far).mean() / 2
    return float(less), float((near < far.min()).mean())
