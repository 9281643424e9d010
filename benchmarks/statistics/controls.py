"""What near-duplicates and copies among the controls do, and how far honest models are from one another.

Trains a victim, honest models and copies, and lets all answer once; what is there already is not made again. Prints the
tables of docs/why/statistics.md about controls.
"""

import argparse
import copy
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from real import row, table
from scipy.spatial.distance import pdist, squareform
from torch import nn

import deepjudge_core as dj
from deepjudge_core.components.values import Decision
from deepjudge_core.judging.calibration import Calibration
from deepjudge_core.judging.judge import Judge
from deepjudge_core.judging.likeness import Likeness, scores_of
from deepjudge_core.judging.ordinary import Odds
from deepjudge_core.judging.settings import JudgeSettings
from deepjudge_core.suites.observation import Observation
from deepjudge_core.suites.suite import save_suite

ROWS = 6000  # of the victim; as many others are the thief's, and as many again
SEEDS = 100  # that odds are compared on
NOISE = (0.01, 0.03, 0.05, 0.1, 0.2)  # of the standard deviation of each tensor
RULES: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "`voting`": ("voting", {}),
    "`prediction-bound`": ("prediction-bound", {}),
    "`tolerance-bound`": ("tolerance-bound", {}),
    "`combine` method=harmonic": ("combine", {"method": "harmonic"}),
}
Data = tuple[torch.Tensor, torch.Tensor]
Make = Callable[[], nn.Module]
REGISTRY = dj.load_registry()


def lenet(first: int = 6, second: int = 16, third: int = 120, fourth: int = 84) -> nn.Module:
    """LeNet-5, of other widths where these are given."""
    return nn.Sequential(
        nn.Conv2d(1, first, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(first, second, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(16 * second, third), nn.ReLU(), nn.Linear(third, fourth), nn.ReLU(),
        nn.Linear(fourth, 10),
    )  # fmt: skip


def perceptron() -> nn.Module:
    """Two hidden layers."""
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10))


def fitted(model: nn.Module, data: Data, seed: int, epochs: int = 6, rate: float = 2e-3) -> nn.Module:
    """The model, trained on."""
    torch.manual_seed(seed)
    x, y = data
    optimizer = torch.optim.Adam(model.parameters(), rate)
    steps = epochs * len(x) // 64 + epochs + 2
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def fresh(make: Make, data: Data, seed: int) -> nn.Module:
    """An honest model."""
    torch.manual_seed(seed)
    return fitted(make(), data, seed)


def noisy(model: nn.Module, share: float, seed: int) -> nn.Module:
    """A copy with noise, a share of the standard deviation of each tensor."""
    changed, draw = copy.deepcopy(model), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in changed.parameters():
            tensor.add_(torch.randn(tensor.shape, generator=draw) * tensor.std() * share)
    return changed.eval()


def pruned(model: nn.Module, share: float) -> nn.Module:
    """A copy without the smallest weights of each matrix."""
    changed = copy.deepcopy(model)
    with torch.no_grad():
        for tensor in changed.parameters():
            if tensor.dim() > 1:
                tensor[tensor.abs() < tensor.abs().flatten().quantile(share)] = 0
    return changed.eval()


def models(victim: nn.Module, own: Data, other: Data, third: Data) -> Iterator[tuple[str, Callable[[], nn.Module]]]:
    """Names, and what makes the models."""
    for kind, count, make, data, seed in (
        ("same", 12, lenet, own, 100),
        ("other", 8, lenet, other, 200),
        ("wide", 6, lambda: lenet(8, 20), own, 300),
        ("mlp", 3, perceptron, own, 400),
        ("thin", 3, lambda: lenet(4, 10, 100, 60), own, 500),
    ):
        for number in range(count):
            yield f"{kind}-{number}", lambda m=make, d=data, s=seed + number: fresh(m, d, s)  # type: ignore[misc]
    tuned = [(own, 1, 5e-4), (other, 1, 1e-3), (other, 3, 1e-3), (other, 6, 2e-3), (third, 3, 2e-3), (third, 6, 1e-3)]
    for number, (data, epochs, rate) in enumerate(tuned):
        yield (
            f"ft-{number}",
            lambda d=data, s=600 + number, e=epochs, r=rate: fitted(  # type: ignore[misc]
                copy.deepcopy(victim), d, s, e, r
            ),
        )
    for share in (0.2, 0.5, 0.7):
        yield f"pruned-{share}", lambda s=share: pruned(victim, s)  # type: ignore[misc]
    base = fresh(lenet, own, 100)
    for share, number in itertools.product(NOISE, range(8)):
        yield f"dup-{share}-{number}", lambda s=share, n=number: noisy(base, s, 1000 + n)  # type: ignore[misc]
    for number, (data, epochs, rate) in enumerate(
        [(own, 1, 5e-4), (own, 1, 1e-3), (other, 1, 1e-3), (other, 3, 1e-3), (third, 3, 1e-3), (third, 6, 2e-3)]
    ):
        yield (
            f"dupft-{number}",
            lambda d=data, s=700 + number, e=epochs, r=rate: fitted(  # type: ignore[misc]
                copy.deepcopy(base), d, s, e, r
            ),
        )


def answers_of(data: Path, folder: Path) -> tuple[dj.Suite, dict[str, Observation]]:
    """The suite, and of each model its answers."""
    with np.load(data) as rows:
        x = rows["x_train"][: 3 * ROWS, None].astype(np.float32) / np.float32(255)
        y = rows["y_train"][: 3 * ROWS].astype(np.int64)
        x_test, y_test = rows["x_test"][:, None].astype(np.float32) / np.float32(255), rows["y_test"].astype(np.int64)
    parts = [
        (torch.from_numpy(x[at : at + ROWS]), torch.from_numpy(y[at : at + ROWS])) for at in range(0, 3 * ROWS, ROWS)
    ]
    stored = folder / "observations"
    stored.mkdir(parents=True, exist_ok=True)
    victim = fresh(lenet, parts[0], 0)
    if not (folder / "suite.safetensors").exists():
        suite = dj.make_suite(victim, dj.Inputs(x_test, y_test, training=x[:ROWS]), dj.SuiteSettings(n=300))
        save_suite(folder / "suite.safetensors", suite)
    suite, answers = dj.load_suite(folder / "suite.safetensors"), {}
    for name, make in models(victim, *parts):
        path = stored / f"{name}.safetensors"
        if not path.exists():
            dj.save_observation(path, dj.observe(make(), suite))
        answers[name] = dj.load_observation(path)
    return suite, answers


class Study:
    """All answers, and what is asked of them."""

    def __init__(self, suite: dj.Suite, answers: Mapping[str, Observation]) -> None:
        self.suite, self.answers = suite, answers
        flat = [scores_of(one).ravel() for one in (suite.victim, *answers.values())]
        apart = squareform(pdist(np.array(flat), "jensenshannon") ** 2)
        self.places = {name: place for place, name in enumerate(answers, 1)}
        self.apart = apart

    def named(self, *kinds: str) -> list[str]:
        """Models of some kinds, by how their names begin."""
        return [name for name in self.answers if name.rsplit("-", 1)[0] in kinds]

    def share(self, one: str, other: str) -> float:
        """How far two are from one another, as a share of the nearer one's distance from the victim."""
        a, b = self.places[one], self.places[other]
        return float(self.apart[a, b] / min(self.apart[0, a], self.apart[0, b]))

    def odds_share(self, one: str, other: str) -> float:
        """The same of the odds that they give to the other classes of the seeds."""
        models = (self.suite.victim, self.answers[one], self.answers[other])
        victim, a, b = (Odds.of(self.suite, model, SEEDS) for model in models)
        if victim is None or a is None or b is None:
            return float("nan")
        among, *to_victim = (
            float("nan") if far is None else far for far in (a.apart(b), victim.apart(a), victim.apart(b))
        )
        return among / min(to_victim)

    def likeness(self, names: Sequence[str], *, layers: bool = True) -> Likeness:
        """What the distances of these as controls show."""
        seen = [self.answers[name] for name in names]
        return Likeness.of(
            self.suite, seen if layers else [replace(o, activations={}) for o in seen], [False] * len(seen)
        )

    def copies(self, controls: Calibration, suspects: Sequence[str], rule: str) -> str:
        """How many of the suspects are called copies, inconclusive and independent."""
        name, options = RULES[rule]
        judge = Judge.of(JudgeSettings(rule=name, rule_options=options), REGISTRY)
        found = [judge.judge(judge.measure(self.suite, self.answers[s]), controls).decision for s in suspects]
        return " / ".join(str(found.count(d)) for d in (Decision.COPY, Decision.INCONCLUSIVE, Decision.INDEPENDENT))

    def calibrated(self, names: Sequence[str]) -> Calibration:
        """These as controls."""
        return dj.calibrate(self.suite, [self.answers[name] for name in names], registry=REGISTRY)


def show_distances(study: Study) -> None:
    """How far honest models and near-duplicates are from one another, as shares of the distance from the victim."""
    print("\nDistances between controls, as shares of the nearer one's distance from the victim:\n")
    table("pairs", "number", "least", "median", "greatest", "odds: least", "median", "greatest")
    base = study.named("same")[0]
    pairs = {f"honest, {kind}": [*itertools.combinations(study.named(kind), 2)] for kind in ("same", "other")}
    pairs["honest, other architectures"] = [*itertools.combinations(study.named("wide", "mlp", "thin"), 2)]
    pairs["honest, all"] = [*itertools.combinations(study.named("same", "other", "wide", "mlp", "thin"), 2)]
    for share in NOISE:
        pairs[f"one control with {share:.0%} noise"] = [
            *itertools.combinations([base, *study.named(f"dup-{share}")], 2)
        ]
    pairs["a control and itself, fine-tuned"] = [(base, name) for name in study.named("dupft")]
    for label, some in pairs.items():
        both = ([share(*pair) for pair in some] for share in (study.share, study.odds_share))
        cells = [f"{take(shares):.3f}" for shares in both for take in (min, np.median, max)]
        row([label, str(len(some)), *cells])


def show_duplicates(study: Study) -> None:
    """What eight noisy copies of one control, as the only controls, do to honest models."""
    honest = [*study.named("same")[1:], *study.named("other")]
    print(f"\n{len(honest)} honest models by eight noisy copies of one control; copy / inconclusive / independent:\n")
    table("noise", "count as", *(f"{rule}, each counted" for rule in RULES), *RULES)
    for share in NOISE:
        controls = study.calibrated(study.named(f"dup-{share}"))
        each = replace(controls, clusters=tuple(range(len(controls.controls))))
        cells = [study.copies(calibration, honest, rule) for calibration in (each, controls) for rule in RULES]
        row([f"{share:.0%}", str(controls.effective), *cells])


def show_doubts(study: Study) -> None:
    """How many copies among three controls are doubtful."""
    pairs = [*itertools.combinations(study.named("same")[:8], 2)]
    print(f"\nOne copy and two honest models as controls, {len(pairs)} pairs; the copy is doubtful in so many:\n")
    table("copy", "with layers", "answers alone", "an honest one is doubtful")
    for name in study.named("ft", "pruned"):
        found = [[study.likeness([name, *pair], layers=layers).doubtful for pair in pairs] for layers in (True, False)]
        wrong = sum(bool({1, 2} & {*places}) for each in found for places in each)
        row([name, *(str(sum(0 in places for places in each)) for each in found), str(wrong)])


def show_usual(study: Study) -> None:
    """Ordinary controls."""
    same, other = study.named("same"), study.named("other")
    controls = study.calibrated([*same[:6], *other[:4]])
    copies = [name for name in study.named("ft", "pruned") if name != "pruned-0.7"]
    print(f"\n10 ordinary controls, which count as {controls.effective}, {len(controls.doubtful)} of them doubtful:\n")
    table("suspects", *RULES)
    for label, suspects in (("10 honest models", [*same[6:], *other[4:]]), (f"{len(copies)} copies", copies)):
        row([label, *(study.copies(controls, suspects, rule) for rule in RULES)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="MNIST: x_train, y_train, x_test, y_test in 0..255")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the suite and the answers")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    study = Study(*answers_of(arguments.data, arguments.output))
    for show in (show_distances, show_duplicates, show_doubts, show_usual):
        show(study)


if __name__ == "__main__":
    main()
