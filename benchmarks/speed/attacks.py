"""pgd and cw against the bare passes and against other makers' attacks, and gradients of ONNX models."""

from collections.abc import Callable, Iterator
from functools import partial

import networks
import numpy as np
import peers
import torch
from networks import LENET, Data, channels_last
from table import Row
from timing import ROUNDS, best, race

from deepjudge_core import load_registry, open_model
from deepjudge_core.components.values import Cases, Seeds, Task
from deepjudge_core.models.losses import cross_entropy_direction
from deepjudge_core.models.model import Model

SEEDS, STEPS, EPS, STEP = 1000, 10, 0.1, 0.02
CW_SEEDS, SEARCHES, CW_STEPS, RATE, CONSTANT = 200, 3, 100, 0.1, 0.1
BARE = "bare passes"


def pgd(data: Data) -> Iterator[Row]:
    """1,000 inputs, 10 steps."""
    module = data.lenet()
    x, y = (part[:SEEDS] for part in data.mnist)
    goals = torch.from_numpy(y)
    of_torch = open_model(module, input_shape=(1, 28, 28))
    runs: dict[str, Callable[[], object]] = {
        "deepjudge": partial(_ours, "pgd", of_torch, _first(x), y, eps=EPS, step=STEP, steps=STEPS),
        "deepjudge on ONNX": partial(_ours, "pgd", open_model(data.onnx(LENET)), x, y, eps=EPS, step=STEP, steps=STEPS),
    }
    inputs, batches = networks.tensor(x), dict[str, int]()

    def bare(rows: int) -> torch.Tensor:
        return _ascend(channels_last(module), inputs, goals, rows)

    attacks = peers.pgd(module, eps=EPS, step=STEP, steps=STEPS)
    others = {
        name: lambda rows, attack=attack: peers.in_batches(attack(rows), inputs, goals, rows)
        for name, attack in attacks.items()
    }
    for name, run in {BARE: bare, **others}.items():
        batches[name] = best(run, peers.BATCHES)
        runs[name] = partial(run, batches[name])
    found = race(runs)
    detail = f"{found}; rows in a batch: {', '.join(f'{name} {rows}' for name, rows in batches.items())}"
    detail += peers.missing("foolbox", "torchattacks", "art")
    yield Row("`pgd`, torch: deepjudge / bare passes", found.ratio("deepjudge", BARE), 1.1, detail=detail)
    for name in attacks:
        note = "the fastest peer" if name == found.fastest(list(attacks)) else ""
        yield Row(f"`pgd`, torch: {name} / deepjudge", found.ratio(name, "deepjudge"), 1.4, most=False, detail=note)
    what = "`pgd`, ONNX: deepjudge / bare passes in PyTorch"
    yield Row(what, found.ratio("deepjudge on ONNX", BARE), 1.1)


def gradients(data: Data) -> Iterator[Row]:
    """Gradients of the cross entropy at 1,000 inputs."""
    module = channels_last(data.lenet())
    x, y = (part[:SEEDS] for part in data.mnist)
    inputs, goals, loss = networks.tensor(x), torch.from_numpy(y), cross_entropy_direction(y)

    def bare(rows: int) -> None:
        for at in range(0, SEEDS, rows):
            _gradient(module, inputs[at : at + rows], goals[at : at + rows])

    rows = best(bare, peers.BATCHES)
    victims = {"ONNX": (open_model(data.onnx(LENET)), x)}
    victims["torch"] = open_model(data.lenet(), input_shape=(1, 28, 28)), _first(x)
    ours = {name: partial(victim.gradient, inputs, loss) for name, (victim, inputs) in victims.items()}
    found = race({BARE: partial(bare, rows), **ours}, rounds=3 * ROUNDS)
    for name in ours:
        detail = f"{found}; bare: {rows} rows in a batch" if name == "ONNX" else ""
        yield Row(f"gradients, {name}: deepjudge / bare passes in PyTorch", found.ratio(name, BARE), 1.1, detail=detail)


def cw(data: Data) -> Iterator[Row]:
    """200 inputs, three constants of 100 steps each, no confidence."""
    module = data.lenet()
    x, y = data.mnist
    right = np.flatnonzero(module(networks.tensor(x[:1000])).argmax(1).numpy() == y[:1000])[:CW_SEEDS]
    x, y = x[right], y[right]
    victim, inputs, goals = open_model(module, input_shape=(1, 28, 28)), networks.tensor(x), torch.from_numpy(y)
    options = {"searches": SEARCHES, "steps": CW_STEPS, "rate": RATE, "constant": CONSTANT}
    cases = dict[str, np.ndarray]()

    def ours() -> None:
        cases["deepjudge"] = _ours("cw", victim, _first(x), y, kappa=0.0, **options).inputs

    runs: dict[str, Callable[[], object]] = {"deepjudge": ours}
    attack = peers.foolbox_cw(module, **options)
    if attack is None:
        return

    def foolbox(rows: int) -> None:
        cases["Foolbox"] = peers.in_batches(attack, inputs, goals, rows).numpy()

    rows = best(foolbox, [64, 128, CW_SEEDS])
    runs["Foolbox"] = partial(foolbox, rows)
    found = race(runs, rounds=5, warm=False)
    lengths = {name: np.sqrt(np.square(part - _first(x)).sum((1, 2, 3))) for name, part in cases.items()}
    wrong = {name: module(torch.from_numpy(part)).argmax(1).numpy() != y for name, part in cases.items()}
    said = [f"{name} {lengths[name].mean():.4f} ({wrong[name].sum()} of {CW_SEEDS} misclassified)" for name in cases]
    detail = f"{found}; mean L2: {', '.join(said)}; Foolbox: {rows} rows in a batch"
    yield Row("`cw`, torch: deepjudge / Foolbox", found.ratio("deepjudge", "Foolbox"), 0.7, detail=detail)


def _ours(name: str, victim: Model, x: np.ndarray, y: np.ndarray, **options: float) -> Cases:
    seeds = Seeds(x, y, np.arange(len(x)), (0.0, 1.0))
    return load_registry().generators[name].generate(Task(victim, seeds, (), x, np.random.default_rng(0)), **options)


def _first(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2))


def _ascend(module: torch.nn.Module, x: torch.Tensor, y: torch.Tensor, rows: int) -> torch.Tensor:
    cases = []
    for at in range(0, len(x), rows):
        origin, goal = x[at : at + rows], y[at : at + rows]
        case = (origin + EPS * (2 * torch.rand_like(origin) - 1)).clamp_(0, 1)
        low, high = (origin - EPS).clamp_(0), (origin + EPS).clamp_(max=1)
        for _ in range(STEPS):
            case = case.add_(_gradient(module, case, goal).sign_(), alpha=STEP).clamp_(low, high)
        cases.append(case)
    return torch.cat(cases)


def _gradient(module: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    leaf = x.detach().requires_grad_()
    loss = torch.nn.functional.cross_entropy(module(leaf), y, reduction="sum")
    return torch.autograd.grad(loss, leaf)[0]
