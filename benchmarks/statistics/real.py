"""How often each rule accuses honest models that were really trained, and how many copies it finds.

Makes a victim, honest models of two strata and copies with ``deepjudge suite`` and ``deepjudge zoo``, lets all answer
once, and then judges again and again by the rules themselves: some of the honest models are drawn as controls, the
others and the copies are the suspects. Prints the tables of docs/why/statistics.md.
"""

import argparse
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats

from deepjudge_core.auditing.power import ZooModelResult, estimate_power
from deepjudge_core.auditing.session import Session
from deepjudge_core.components.registry import load_registry
from deepjudge_core.components.values import Decision
from deepjudge_core.judging.calibration import Calibration
from deepjudge_core.judging.judge import GROUPS, Judge, Verdict, judge
from deepjudge_core.judging.measure import Measurements
from deepjudge_core.judging.settings import JudgeSettings
from deepjudge_core.suites.suite import load_suite
from deepjudge_core.zoo.manifest import load_zoo

STRATA = ("same-data", "other-data")
FINE_TUNED, PRUNED = ("ft-ll", "ft-al", "rt-al"), ("p-20", "p-60")
ATTACKS = (*FINE_TUNED, *PRUNED)
SIZES = (6, 12, 24, 99)  # controls of each stratum
ROWS = 20_000  # of training data: the victim's half and the other
LEVEL = 0.01
# What it is called, its least number of controls of each stratum, the rule and its options.
RULES: tuple[tuple[str, int, str, Mapping[str, Any]], ...] = (
    ("`prediction-bound`", 6, "prediction-bound", {}),
    ("`tolerance-bound`", 3, "tolerance-bound", {}),
    ("`conformal`", 99, "conformal", {}),
    ("`combine` method=harmonic", 6, "combine", {"method": "harmonic"}),
    ("`combine` method=score", 99, "combine", {}),
    ("`voting`", 3, "voting", {}),
    ("`voting` strata=true", 3, "voting", {"strata": True}),
    ("`voting` bound=mean", 3, "voting", {"bound": "mean"}),
)
REGISTRY = load_registry()


@dataclass(frozen=True, eq=False)
class Material:
    """All models, each with its values.

    Attributes:
        calibration: The honest ones.
        copies: By attack the values of each copy.
    """

    calibration: Calibration
    copies: Mapping[str, Sequence[Measurements]]

    def drawn(self, places: Sequence[int]) -> Calibration:
        """A calibration of some of the honest models, by their places."""
        whole = self.calibration
        parts = {
            name: tuple(getattr(whole, name)[place] for place in places)
            for name in ("controls", "measurements", "strata")
        }
        return replace(whole, notes=(), **parts)


def train_victim(x: np.ndarray, y: np.ndarray, path: Path) -> None:
    """A perceptron with two hidden layers, by PyTorch's own means."""
    import torch

    torch.manual_seed(0)
    layers = [torch.nn.Flatten(), torch.nn.Linear(784, 128), torch.nn.ReLU(), torch.nn.Linear(128, 64)]
    model = torch.nn.Sequential(*layers, torch.nn.ReLU(), torch.nn.Linear(64, 10))
    inputs, labels = torch.from_numpy(x), torch.from_numpy(y.astype(np.int64))
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(10):
        for rows in torch.randperm(len(inputs)).split(64):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(inputs[rows]), labels[rows]).backward()
            optimizer.step()
    batch = torch.export.Dim("batch")
    torch.export.save(torch.export.export(model.eval(), (inputs[:2],), dynamic_shapes=({0: batch},)), path)


def command(folder: Path, *words: object) -> None:
    """Run deepjudge in a folder, as a user would."""
    line = ["deepjudge", *map(str, words)]
    print("$ " + " ".join(line), file=sys.stderr, flush=True)
    subprocess.run([Path(sys.executable).with_name("deepjudge"), *line[1:]], cwd=folder, check=True, stdout=sys.stderr)


def make(data: Path, folder: Path, honest: int, repeat: int) -> None:
    """The models and the suite; what is there already is not made again."""
    folder.mkdir(parents=True, exist_ok=True)
    with np.load(data) as rows:
        x, y = rows["x_train"][:ROWS].astype(np.float32) / np.float32(255), rows["y_train"][:ROWS]
        x_test, y_test = rows["x_test"].astype(np.float32) / np.float32(255), rows["y_test"]
    np.savez(folder / "train.npz", x_train=x, y_train=y)
    np.savez(folder / "test.npz", x_test=x_test, y_test=y_test)
    if not (folder / "victim.pt2").exists():
        train_victim(x[: ROWS // 2], y[: ROWS // 2], folder / "victim.pt2")
    inputs = ("--inputs", "test.npz", "--training-inputs", "train.npz:x_train")
    if not (folder / "suite.safetensors").exists():
        command(folder, "suite", "victim.pt2", *inputs, "-o", "suite.safetensors")
    counts = ("--control-count", honest, "--attacks", ",".join(ATTACKS), "--repeat", repeat)
    command(folder, "zoo", "victim.pt2", "--data", "train.npz", "--test", "test.npz", *counts, "-o", "zoo")


def measured(folder: Path) -> Material:
    """Every model of the zoo, asked and measured once."""
    power = estimate_power(
        load_suite(folder / "suite.safetensors"),
        load_zoo(folder / "zoo"),
        Judge.of(JudgeSettings(), REGISTRY),
        observations=folder / "observations",
        session=Session(REGISTRY, None),
    )
    for failure in power.failures:
        sys.exit(failure)

    def values(one: ZooModelResult) -> Measurements:
        if one.measurements is None:
            raise SystemExit(f"{one.model.file}: not measured")
        return one.measurements

    counted = [one for one in power.results if one.counts and one.model.kind == "stolen"]
    copies = {attack: [values(f) for f in counted if f.model.attack == attack] for attack in ATTACKS}
    return Material(power.calibration, copies)


def decided(values: Measurements, controls: Calibration, rule: str, options: Mapping[str, Any]) -> Verdict:
    """What the rule says of one model."""
    return judge(values, controls, JudgeSettings(rule=rule, rule_options=options), registry=REGISTRY)


def is_copy(verdict: Verdict) -> list[bool]:
    """Of the black-box setting, the white-box setting, and the whole."""
    return [*(verdict.settings[group].decision is Decision.COPY for group in GROUPS), verdict.decision is Decision.COPY]


def percent(flags: np.ndarray) -> str:
    """The share, with its exact 95 % interval."""
    interval = scipy.stats.binomtest(int(flags.sum()), len(flags)).proportion_ci(0.95, method="exact")
    return f"{100 * flags.mean():.1f} ({100 * interval.low:.1f}..{100 * interval.high:.1f})"


def row(cells: Sequence[str]) -> None:
    print(f"| {' | '.join(cells)} |")


def table(*columns: str) -> None:
    row(columns)
    row(["---"] * len(columns))


def leave_one_out(material: Material) -> None:
    """Each honest model by all the others, the copies by all of them."""
    whole = material.calibration
    counts = ", ".join(f"{whole.strata.count(stratum)} {stratum}" for stratum in STRATA)
    print(f"\nEach honest model judged by all others ({counts}), copies by all; percent called copies:\n")
    table("rule", *(f"honest, {name}" for name in (*GROUPS, "whole")), "fine-tuned", "pruned")
    for label, _, rule, options in RULES:
        honest = np.array(
            [is_copy(decided(m, whole.without(place), rule, options)) for place, m in enumerate(whole.measurements)]
        )
        flags_of = {a: [is_copy(decided(m, whole, rule, options))[-1] for m in of] for a, of in material.copies.items()}
        caught = (np.array([flag for attack in kind for flag in flags_of[attack]]) for kind in (FINE_TUNED, PRUNED))
        row([label, *(percent(column) for column in honest.T), *(percent(flags) for flags in caught)])


def by_number(material: Material, draws: int, seed: int) -> None:
    """Honest models drawn as controls, the others and the copies judged by them."""
    whole = material.calibration
    places = {stratum: [i for i, of in enumerate(whole.strata) if of == stratum] for stratum in STRATA}
    print(f"\nPercent called copies, {draws} draws of n controls of each stratum: honest / copies:\n")
    table("rule", *(f"n = {n}" for n in SIZES))
    for label, least, rule, options in RULES:
        cells = []
        for n in SIZES:
            if n < least or any(n >= len(of) for of in places.values()):
                cells.append("refused")
                continue
            rng = np.random.default_rng([seed, n])
            honest, copies = [], []
            for _ in range(draws):
                chosen = sorted(int(i) for of in places.values() for i in rng.choice(of, n, replace=False))
                controls = material.drawn(chosen)
                others = [m for i, m in enumerate(whole.measurements) if i not in chosen]
                honest.append(np.mean([is_copy(decided(m, controls, rule, options))[-1] for m in others]))
                stolen = [m for of in material.copies.values() for m in of]
                copies.append(np.mean([is_copy(decided(m, controls, rule, options))[-1] for m in stolen]))
            cells.append(f"{100 * np.mean(honest):.1f} / {100 * np.mean(copies):.1f}")
        row([label, *cells])


def by_one_stratum(material: Material, draws: int, seed: int, n: int = 12) -> None:
    """What controls of one stratum say of honest models of the other."""
    whole = material.calibration
    places = {stratum: [i for i, of in enumerate(whole.strata) if of == stratum] for stratum in STRATA}
    print(f"\nPercent of honest models called copies, {n} controls of one stratum only, {draws} draws:\n")
    pairs = [(controls, suspects) for controls in STRATA for suspects in STRATA]
    table("rule", *(f"controls {controls}, suspects {suspects}" for controls, suspects in pairs))
    for label, least, rule, options in RULES:
        if n < least:
            continue
        cells = []
        for controls, suspects in pairs:
            rng = np.random.default_rng([seed, n])
            shares = []
            for _ in range(draws):
                chosen = sorted(int(i) for i in rng.choice(places[controls], n, replace=False))
                by = material.drawn(chosen)
                others = [whole.measurements[i] for i in places[suspects] if i not in chosen]
                shares.append(np.mean([is_copy(decided(m, by, rule, options))[-1] for m in others]))
            cells.append(f"{100 * np.mean(shares):.1f}")
        row([label, *cells])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data", type=Path, required=True, help="an .npz with x_train, y_train, x_test, y_test in 0..255"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for models and answers")
    parser.add_argument("--honest", type=int, default=208, help="honest models, half of them of each stratum")
    parser.add_argument("--repeat", type=int, default=40, help="copies of each attack")
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    make(arguments.data.resolve(), arguments.output, arguments.honest, arguments.repeat)
    material = measured(arguments.output)
    leave_one_out(material)
    by_number(material, arguments.draws, arguments.seed)
    by_one_stratum(material, arguments.draws, arguments.seed)


if __name__ == "__main__":
    main()
