"""Other makers' attacks, each with its own best settings; those that are not installed are left out."""

import importlib.util
import logging
from collections.abc import Callable, Mapping

import numpy as np
import torch
from networks import channels_last
from torch import nn

BATCHES = (128, 256, 512, 1000)

Attack = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Inputs within 0..1 and labels to cases."""


def missing(*names: str) -> str:
    """Those of these packages that are not installed, as a note."""
    return "".join(f"; {name}: not installed" for name in names if importlib.util.find_spec(name) is None)


def in_batches(attack: Attack, x: torch.Tensor, y: torch.Tensor, rows: int) -> torch.Tensor:
    """Cases of all inputs, some rows at a time."""
    return torch.cat([attack(x[at : at + rows], y[at : at + rows]) for at in range(0, len(x), rows)])


def pgd(module: nn.Module, *, eps: float, step: float, steps: int) -> Mapping[str, Callable[[int], Attack]]:
    """PGD of each peer, by the rows in its batch, for a module that gives logits."""
    module, found = channels_last(module), dict[str, Callable[[int], Attack]]()
    if importlib.util.find_spec("foolbox"):
        import foolbox

        wrapped = foolbox.PyTorchModel(module, bounds=(0, 1), device="cpu")
        ascent = foolbox.attacks.LinfPGD(abs_stepsize=step, steps=steps)
        found["Foolbox"] = lambda rows: lambda x, y: ascent(wrapped, x, y, epsilons=eps)[1]
    if importlib.util.find_spec("torchattacks"):
        import torchattacks

        other = torchattacks.PGD(module, eps=eps, alpha=step, steps=steps)
        found["torchattacks"] = lambda rows: other
    if importlib.util.find_spec("art"):
        logging.getLogger("art").setLevel(logging.ERROR)
        from art.attacks.evasion import ProjectedGradientDescentPyTorch
        from art.estimators.classification import PyTorchClassifier

        classifier = PyTorchClassifier(module, nn.CrossEntropyLoss(), (1, 28, 28), 10, clip_values=(0, 1))

        def art(rows: int) -> Attack:
            attack = ProjectedGradientDescentPyTorch(
                *(classifier, np.inf, eps, step),
                max_iter=steps,
                num_random_init=1,
                batch_size=rows,
                verbose=False,
            )
            return lambda x, y: torch.from_numpy(attack.generate(x.numpy(), np.eye(10, dtype=np.float32)[y.numpy()]))

        found["ART"] = art
    return found


def foolbox_cw(module: nn.Module, *, searches: int, steps: int, rate: float, constant: float) -> Attack | None:
    """The attack of Carlini and Wagner in L2, without confidence."""
    if importlib.util.find_spec("foolbox") is None:
        return None
    import foolbox

    wrapped = foolbox.PyTorchModel(channels_last(module), bounds=(0, 1), device="cpu")
    attack = foolbox.attacks.L2CarliniWagnerAttack(
        binary_search_steps=searches, steps=steps, stepsize=rate, initial_const=constant, abort_early=False
    )
    return lambda x, y: attack(wrapped, x, y, epsilons=None)[1]
