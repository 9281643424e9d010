"""Whether a search for the preprocessing finds copies and accuses nobody: ``python benchmarks/inputs -o FOLDER``.

The method's authors' LeNet-5 (MNIST) and ResNet-20 (CIFAR-10) are the victims. Copies, honest models, and honest models
that err are put behind each standard preprocessing in turn, asked as anybody is, and judged by each rule with honest
models that take the inputs as they are for controls. Prints the table of docs/why/evidence.md. What is in the folder
already is not trained again.
"""

import argparse
import copy
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1] / "layers"))
from networks import NETWORKS, Data, authors_weights

from deepjudge_core import (
    Decision,
    Judge,
    JudgeSettings,
    Observation,
    Preprocessing,
    Suite,
    build_suite,
    calibrate,
    load_registry,
    measure,
    observe,
    open_model,
    select_seeds,
)
from deepjudge_core.errors import ModelError

RULES = ("voting", "prediction-bound", "tolerance-bound", "combine")
GREY = ("0..1", "0..255", "-1..1", "-0.5..0.5", "mnist", "fashion-mnist", "0..1,invert=true", "mnist,invert=true")
COLOURED = (
    *("0..1", "0..255", "-1..1", "imagenet", "cifar10", "cifar10-batches", "cifar100", "0..255-mean", "caffe"),
    *("0..1,order=bgr", "-1..1,order=bgr", "imagenet,order=bgr", "0..1,invert=true"),
)


@dataclass(frozen=True)
class Study:
    """A victim, how honest models are trained beside it, and what preprocessings they are put behind."""

    network: str
    honest: Sequence[Callable[[], nn.Module]]  # taken in turn
    controls: int
    suspects: int
    rows: int
    epochs: int
    preprocessings: Sequence[str]
    seeds: int = 500


def small(channels: int, size: int) -> nn.Module:
    """A network of another architecture."""
    return nn.Sequential(
        *(nn.Conv2d(channels, 24, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(24, 48, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(48 * (size // 4) ** 2, 64), nn.ReLU(), nn.Linear(64, 10)),
    )


STUDIES = {
    "mnist": Study("lenet5", (NETWORKS["lenet5"].module,), 12, 6, 20_000, 2, GREY),
    "cifar10": Study("resnet20", (lambda: small(3, 32),), 8, 4, 10_000, 3, COLOURED),
}


class Behind(nn.Module):
    """A network of inputs in 0..1 that takes what a preprocessing makes of them."""

    def __init__(self, module: nn.Module, preprocessing: Preprocessing, channels: int) -> None:
        super().__init__()
        slope, offset = (np.broadcast_to(values, channels).copy() for values in preprocessing.line((0.0, 1.0)))
        self.module, self.reversed = module, preprocessing.order == "bgr"
        self.slope, self.offset = (
            nn.Parameter(torch.tensor(values, dtype=torch.float32)[:, None, None], False) for values in (slope, offset)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.module(((x.flip(1) if self.reversed else x) - self.offset) / self.slope)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("studies", nargs="*", metavar="|".join(STUDIES), help="default: all")
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder of all that is made")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the data and victims/")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    heads = ["victim", "models", "number", "behind", "found", "right, unchanged", "right, as found"]
    heads += ["least robd", "least jsd", "accused by a rule, most"]
    print(f"| {' | '.join(heads)} |", f"| {' | '.join(['---'] * len(heads))} |", sep="\n")
    for name in arguments.studies or STUDIES:
        out = arguments.out / name
        out.mkdir(parents=True, exist_ok=True)
        for row in rows(name, STUDIES[name], arguments.data, out):
            print(f"| {' | '.join(row)} |", flush=True)


def rows(name: str, study: Study, folder: Path, out: Path) -> Iterator[list[str]]:
    """The rows of one study: one for each kind of models and preprocessing."""
    network = NETWORKS[study.network]
    data = network.data(folder, out)
    victim = network.module()
    authors_weights(victim, folder / "victims" / str(network.victim))
    opened = open_model(victim.eval(), input_shape=tuple(data.x_test.shape[1:]))
    seeds = select_seeds(opened, data.x_test.numpy(), data.y_test.numpy(), n=study.seeds)
    options = {"neuron-corners": {"iterations": 100, "tries": 3}}
    suite = build_suite(opened, seeds, training_inputs=data.x_train[:20_000].numpy(), options=options)
    fleets = models(study, data, victim, out)
    controls = [_observed(model, suite, data) for model in fleets.pop("controls")]
    calibration = calibrate(suite, controls)
    judges = [Judge.of(JudgeSettings(rule=rule), load_registry()) for rule in RULES]
    for kind, fleet in fleets.items():
        for typed in study.preprocessings:
            preprocessing, channels = Preprocessing.parse(typed), data.x_test.shape[1]
            behind = [Behind(model, preprocessing, channels).eval() for model in fleet]
            observations = [one for one in (_tried(model, suite, data) for model in behind) if one is not None]
            measured = [measure(suite, one, match=calibration.match) for one in observations]
            found = sum(_same(one.preprocessing or Preprocessing(), preprocessing) for one in observations)
            accused = [
                sum(judge.judge(one, calibration).decision is Decision.COPY for one in measured) for judge in judges
            ]
            yield [
                *(name, kind, str(len(observations)), f"`{typed}`", f"{found}"),
                _range([_accuracy(model, suite) for model in behind]),
                _range([one.accuracy for one in observations]),
                *(_least([one[metric].value for one in measured]) for metric in ("robd", "jsd")),
                str(max(accused)),
            ]


def models(study: Study, data: Data, victim: nn.Module, out: Path) -> Mapping[str, list[nn.Module]]:
    """Controls, copies, honest models and honest models that err, by kind."""

    def trained(name: str, seed: int, rows: slice, labels: torch.Tensor | None = None, **more: object) -> nn.Module:
        path = out / f"{name}.pth"
        torch.manual_seed(seed)
        module = study.honest[seed % len(study.honest)]()
        if not path.is_file():
            _train(module, data.x_train[rows], (data.y_train if labels is None else labels)[rows], study.epochs, 2e-3)
            torch.save(module.state_dict(), path)
        module.load_state_dict(torch.load(path, weights_only=True))
        return module.eval()

    halves = slice(0, study.rows), slice(study.rows, 2 * study.rows)
    tuned = copy.deepcopy(victim)
    path = out / "tuned.pth"
    if not path.is_file():
        _train(tuned, data.x_train[halves[1]][:10_000], data.y_train[halves[1]][:10_000], 1, 2e-4)
        torch.save(tuned.state_dict(), path)
    tuned.load_state_dict(torch.load(path, weights_only=True))
    noise = data.y_train[torch.randperm(len(data.y_train), generator=torch.Generator().manual_seed(0))]
    torch.manual_seed(5)
    return {
        "controls": [trained(f"control-{i}", i, halves[i % 2]) for i in range(study.controls)],
        "copies": [victim, tuned.eval()],
        "honest": [trained(f"honest-{i}", 100 + i, halves[i % 2]) for i in range(study.suspects)],
        "erring": [
            study.honest[0]().eval(),
            trained("noise", 200, halves[1], noise),
            *(trained(f"few-{count}", 201, slice(0, count)) for count in (100, 1000)),
        ],
    }


def _train(module: nn.Module, x: torch.Tensor, y: torch.Tensor, epochs: int, rate: float) -> None:
    module.train()
    optimiser = torch.optim.Adam(module.parameters(), rate)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(128):
            optimiser.zero_grad()
            nn.functional.cross_entropy(module(x[rows]), y[rows]).backward()
            optimiser.step()


def _observed(model: nn.Module, suite: Suite, data: Data) -> Observation:
    return observe(open_model(model, input_shape=tuple(data.x_test.shape[1:])), suite)


def _tried(model: nn.Module, suite: Suite, data: Data) -> Observation | None:
    # None of one that gives one answer to everything, which no audit judges.
    try:
        return _observed(model, suite, data)
    except ModelError:
        return None


def _accuracy(model: nn.Module, suite: Suite) -> float:
    with torch.no_grad():
        answers = model(torch.from_numpy(suite.probes.inputs)).argmax(1).numpy()
    return float((answers == suite.probes.labels).mean())


def _same(one: Preprocessing, other: Preprocessing) -> bool:
    # Those of a data set differ from those of its preset in the last digits.
    lines = [np.concatenate(np.broadcast_arrays(*p.line((0.0, 1.0)))) for p in (one, other)]
    return one.order == other.order and bool(np.allclose(*lines, rtol=0.02, atol=0.02))


def _range(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{min(known):.1%}..{max(known):.1%}".replace("%", " %")


def _least(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{min(known):.3f}" if known else "none"


if __name__ == "__main__":
    main()
