"""How long a zoo takes, before it is made: a few steps of training tell."""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deepjudge_core.models.network import Losses, Network
from deepjudge_core.models.training import Schedule, cross_entropy
from deepjudge_core.suites.suite import Suite
from deepjudge_core.text import counted, duration
from deepjudge_core.zoo.manifest import MANIFEST, load_zoo
from deepjudge_core.zoo.material import Material
from deepjudge_core.zoo.plans import LONGER, PlannedModel, ZooRecipe, plans_of, schedule_of

_MOST_STEPS, _MOST_SECONDS = 20, 0.5  # of the measurement


@dataclass(frozen=True)
class Estimate:
    """How much there is to make.

    Attributes:
        controls: Controls that are not there yet.
        stolen: Stolen models that are not there yet.
        least: Seconds of training, if the fewest epochs are enough for the controls.
        most: Seconds of training, if the controls need the most.
    """

    controls: int
    stolen: int
    least: float
    most: float

    @property
    def models(self) -> int:
        """Models that are not there yet."""
        return self.controls + self.stolen

    def __str__(self) -> str:
        """One line for a person, such as ``12 controls and 51 stolen models: about 2 to 7 min``."""
        counts = ((self.controls, "control"), (self.stolen, "stolen model"))
        made = " and ".join(counted(count, name) for count, name in counts if count)
        least, most = duration(self.least), duration(self.most)
        return f"{made or 'nothing'}: about {least if least == most else f'{least} to {most}'}"


def estimate(
    victim: Network, material: Material, recipe: ZooRecipe, *, folder: Path | None = None, suite: Suite | None = None
) -> Estimate:
    """Measure how long the models take that are not there yet.

    A few steps of training are made with the victim's architecture, for half a second at most beyond the first one.
    Loading, storing and testing models is not counted.

    Args:
        victim: From :func:`~deepjudge_core.components.opening.open_network`; left as it is.
        material: What models are trained with.
        recipe: What is made.
        folder: Where the zoo is, or is going to be; None for nowhere.
        suite: What thieves know of the test cases.

    Raises:
        FileFormatError: When the zoo that is there is damaged.
        ModelError: When the victim cannot be trained.
    """
    made = load_zoo(folder).models if folder and (folder / MANIFEST).exists() else ()
    there = {Path(model.file).with_suffix("").as_posix() for model in made if folder and (folder / model.file).exists()}
    found = schedule_of(made, victim, material, recipe.settings)
    schedule = found[1] if found else recipe.settings.schedule
    planned = plans_of(victim, material, suite, recipe, schedule)
    plans = [plan for plan in planned if plan.stem not in there and not plan.without]
    controls = [plan for plan in plans if plan.attack is None]
    if not plans:
        return Estimate(0, 0, 0.0, 0.0)
    each = _seconds_of_a_step(victim, material)
    least = each * sum(plan.steps for plan in plans)
    most = least if found else least + each * sum(_longer(plan, controls[0]) for plan in controls)
    return Estimate(len(controls), len(plans) - len(controls), least, most)


def _longer(plan: PlannedModel, first: PlannedModel) -> int:
    # Steps beyond the fewest. What was tried of the first control is not kept.
    return plan.steps * (sum(LONGER) if plan is first else LONGER[-1]) - plan.steps


def _seconds_of_a_step(victim: Network, material: Material) -> float:
    trainer = victim.architecture.trainer(victim.weights)
    rows = np.arange(Schedule().size(len(material.own.x)))
    x, losses = material.own.x[rows], Losses(cross_entropy(material.own.y[rows]))
    trainer.step(x, losses, rate=Schedule.rate)  # the first one also compiles what there is to compile
    start, steps = time.perf_counter(), 0
    while steps < _MOST_STEPS and (not steps or time.perf_counter() - start < _MOST_SECONDS):
        trainer.step(x, losses, rate=Schedule.rate)
        steps += 1
    return (time.perf_counter() - start) / steps
