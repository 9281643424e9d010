"""How often each rule accuses honest models that err, of whom controls show nothing; for docs/why/statistics.md.

A platform's suspects are no models like the controls: some were never trained, or on few rows, on noise, for inputs of
another range, by another architecture. Makes a victim, controls and copies with ``deepjudge suite`` and ``deepjudge
zoo``, trains honest models of all these kinds, and lets every rule judge each of them.
"""

import argparse
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from real import RULES, command, row, table
from torch import nn

import deepjudge_core as dj
from deepjudge_core.components.values import Decision
from deepjudge_core.judging.accuracy import accuracy_on_seeds
from deepjudge_core.judging.calibration import Calibration
from deepjudge_core.judging.judge import Judge, Verdict
from deepjudge_core.judging.settings import JudgeSettings
from deepjudge_core.suites.observation import Observation
from deepjudge_core.zoo.manifest import load_zoo

ATTACKS = ("ft-ll", "ft-al", "rt-al", "p-20", "p-60", "knockoff", "esa", "jba", "distill")
HALF = 20_000  # rows of the victim; as many others are the controls'
Data = tuple[torch.Tensor, torch.Tensor]
REGISTRY = dj.load_registry()
USABLE = [rule for rule in RULES if rule[1] <= 12]  # those that say something with 12 controls of each stratum


def lenet() -> nn.Module:
    """The architecture of the victim and the controls: LeNet-5."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(256, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
    )  # fmt: skip


def small() -> nn.Module:
    """One convolution, and few features."""
    return nn.Sequential(nn.Conv2d(1, 4, 5, stride=2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(144, 10))


def deep() -> nn.Module:
    """Five convolutions, normalised."""
    widths = (1, 16, 16, 32, 32, 64)
    blocks: list[nn.Module] = []
    for place, (before, after) in enumerate(itertools.pairwise(widths)):
        blocks += [nn.Conv2d(before, after, 3, stride=1 + place % 2, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def perceptron() -> nn.Module:
    """One hidden layer."""
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 10))


def linear() -> nn.Module:
    """Logistic regression."""
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))


@dataclass(frozen=True)
class Kind:
    """A kind of honest models.

    Attributes:
        network: Of what architecture.
        rows: On how many rows they are trained; 0 for none.
        epochs: How often they see each.
        noise: Share of the labels that are drawn anew.
        prepare: What they expect to be done to inputs in 0..1.
    """

    network: Callable[[], nn.Module] = lenet
    rows: int = HALF
    epochs: int = 5
    noise: float = 0.0
    prepare: Callable[[torch.Tensor], torch.Tensor] = lambda x: x


KINDS: Mapping[str, Kind] = {
    "untrained": Kind(rows=0),
    "noise labels": Kind(noise=1.0, rows=2000),
    "half the labels noise": Kind(noise=0.5),
    "30 rows": Kind(rows=30, epochs=60),
    "60 rows": Kind(rows=60, epochs=60),
    "300 rows": Kind(rows=300, epochs=40),
    "1,000 rows": Kind(rows=1000, epochs=20),
    "one epoch": Kind(epochs=1),
    "expects -1..1": Kind(prepare=lambda x: 2 * x - 1),
    "expects mean and deviation": Kind(prepare=lambda x: (x - 0.1307) / 0.3081),
    "expects 1 - x": Kind(prepare=lambda x: 1 - x),
    "small": Kind(small),
    "deep": Kind(deep, epochs=2),
    "perceptron": Kind(perceptron),
    "perceptron, 1,000 rows": Kind(perceptron, rows=1000, epochs=20),
    "linear": Kind(linear),
}


def trained(kind: Kind, data: Data, seed: int) -> nn.Module:
    """An honest model, by PyTorch's own means."""
    torch.manual_seed(seed)
    model, (x, y) = kind.network(), data
    rows = torch.randperm(len(x))[: kind.rows]
    x, y = kind.prepare(x[rows]), y[rows].clone()
    drawn = torch.rand(len(y)) < kind.noise
    y[drawn] = torch.randint(10, (int(drawn.sum()),))
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    for _ in range(kind.epochs if kind.rows else 0):
        for batch in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()
    return model.eval()


def make(data: Path, auxiliary: Path, folder: Path, honest: int, repeat: int) -> Data:
    """The victim, its suite, controls and copies; what is there already is not made again. Returns the other rows."""
    folder.mkdir(parents=True, exist_ok=True)
    with np.load(data) as rows:
        x = rows["x_train"][: 2 * HALF, None].astype(np.float32) / np.float32(255)
        y, y_test = rows["y_train"][: 2 * HALF].astype(np.int64), rows["y_test"]
        x_test = rows["x_test"][:, None].astype(np.float32) / np.float32(255)
    np.savez(folder / "train.npz", x_train=x, y_train=y)
    np.savez(folder / "test.npz", x_test=x_test, y_test=y_test)
    own, other = ((torch.from_numpy(x[part]), torch.from_numpy(y[part])) for part in (slice(HALF), slice(HALF, None)))
    if not (folder / "victim.pt2").exists():
        victim, batch = trained(Kind(), own, 0), torch.export.Dim("batch")
        torch.export.save(
            torch.export.export(victim, (own[0][:2].clone(),), dynamic_shapes=({0: batch},)), folder / "victim.pt2"
        )
    if not (folder / "suite.safetensors").exists():
        inputs = (
            "--inputs",
            "test.npz",
            "--training-inputs",
            "train.npz:x_train",
            "-n",
            500,
            "--option",
            "pgd.eps=0.2",
            "--option",
            "pgd.step=0.02",
        )
        command(folder, "suite", "victim.pt2", *inputs, "-o", "suite.safetensors")
    counts = ("--control-count", honest, "--attacks", ",".join(ATTACKS), "--repeat", repeat)
    with np.load(auxiliary) as rows:
        np.savez(folder / "auxiliary.npz", x=rows["x_train"][:HALF, None].astype(np.float32) / np.float32(255))
    data_of = ("--data", "train.npz", "--test", "test.npz", "--auxiliary", "auxiliary.npz")
    command(folder, "zoo", "victim.pt2", *data_of, *counts, "-o", "zoo")
    return other


def observed(suite: dj.Suite, kind: str, data: Data, number: int, folder: Path) -> Iterator[Observation]:
    """The answers of honest models of a kind, asked as any suspect is."""
    folder.mkdir(exist_ok=True)
    for seed in range(number):
        path = folder / f"{kind.replace(' ', '-')}-{seed}.safetensors"
        if not path.exists():
            model = dj.open_model(trained(KINDS[kind], data, 1000 + seed), expected=suite.victim.model.input)
            dj.save_observation(path, dj.observe(model, suite))
        yield dj.load_observation(path)


def letters(verdicts: Sequence[Verdict]) -> str:
    """How many are called copies, inconclusive and independent."""
    decisions = [verdict.decision for verdict in verdicts]
    return " / ".join(str(decisions.count(d)) for d in (Decision.COPY, Decision.INCONCLUSIVE, Decision.INDEPENDENT))


def show(title: str, kinds: Mapping[str, Sequence[Observation]], suite: dj.Suite, controls: Calibration) -> None:
    """A row for each kind: accuracy, distances, and what each rule says."""
    rules = [(label, Judge.of(JudgeSettings(rule=rule, rule_options=o), REGISTRY)) for label, _, rule, o in USABLE]
    print(f"\n{title}; copy / inconclusive / independent:\n")
    table("models", "number", "seeds right", "robd", "jsd", *(label for label, _ in rules))
    for kind, answers in kinds.items():
        measured = [rules[0][1].measure(suite, o) for o in answers]
        cells = [[100 * accuracy.share for o in answers if (accuracy := accuracy_on_seeds(suite, o))]]
        cells += [[m[name].value or 0.0 for m in measured] for name in ("robd", "jsd")]
        row(
            [
                kind,
                str(len(answers)),
                *(f"{min(values):.3g}..{max(values):.3g}" for values in cells),
                *(letters([judge.judge(m, controls) for m in measured]) for _, judge in rules),
            ]
        )


def answers_of(folder: Path, suite: dj.Suite) -> tuple[Calibration, dict[str, list[Observation]]]:
    """The controls of the zoo, measured, and the answers of its stolen models by attack."""
    zoo, stored = load_zoo(folder / "zoo"), folder / "observations"
    stored.mkdir(exist_ok=True)
    asked: dict[str, Observation] = {}
    for model in zoo.models:
        path = stored / f"{zoo.path(model).stem}.safetensors"
        if not path.exists():
            dj.save_observation(path, dj.observe(dj.open_model(zoo.path(model)), suite))
        asked[model.file] = dj.load_observation(path)
    controls = zoo.of("control")
    judge = Judge.of(JudgeSettings(), REGISTRY)
    calibration = judge.calibrate(suite, [asked[c.file] for c in controls], strata=[c.stratum for c in controls])
    stolen = {attack: [asked[m.file] for m in zoo.of("stolen", far=True) if m.attack == attack] for attack in ATTACKS}
    return calibration, {attack: answers for attack, answers in stolen.items() if answers}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="MNIST: x_train, y_train, x_test, y_test in 0..255")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for models and answers")
    parser.add_argument("--auxiliary", type=Path, required=True, help="inputs of another task, for thieves, in 0..255")
    parser.add_argument("--controls", type=int, default=24, help="half of them of each stratum")
    parser.add_argument("--repeat", type=int, default=3, help="copies of each attack, honest models of each kind")
    arguments = parser.parse_args()
    folder = arguments.output
    other = make(arguments.data, arguments.auxiliary, folder, arguments.controls, arguments.repeat)
    suite = dj.load_suite(folder / "suite.safetensors")
    calibration, stolen = answers_of(folder, suite)
    honest = {kind: [*observed(suite, kind, other, arguments.repeat, folder / "erring")] for kind in KINDS}
    show("Honest models", honest, suite, calibration)
    show("Copies", stolen, suite, calibration)


if __name__ == "__main__":
    main()
