"""What models a zoo has, and how each is made, before any is."""

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from deepjudge_core.components.attack import Attack, Loot, Need
from deepjudge_core.components.registry import Catalogue, Configured
from deepjudge_core.components.strata import Stratum
from deepjudge_core.errors import DeepJudgeError, PluginError, UsageError, one_line
from deepjudge_core.models.network import Network
from deepjudge_core.models.training import Schedule, train
from deepjudge_core.naming import option
from deepjudge_core.suites.ranges import hull
from deepjudge_core.suites.suite import Suite
from deepjudge_core.types import Array
from deepjudge_core.zoo.manifest import ZooModel
from deepjudge_core.zoo.material import Material, Rows
from deepjudge_core.zoo.settings import ZooSettings

LONGER = (1, 2, 4, 8)
"""How many times as many epochs the first control is given until it is near the victim's accuracy."""

_STRATA: tuple[Stratum, ...] = ("same-data", "other-data")
_WITHOUT: Mapping[Need, str] = {
    "auxiliary": "needs inputs of another task",
    "suite": "needs a suite, as known to the thief",
}


@dataclass(frozen=True, eq=False)
class PlannedModel:
    """One model that is going to be made.

    Attributes:
        name: What it is called.
        seed: Of what is drawn for it.
        options: Of the attack, or of the control's training.
        make: Makes it.
        steps: About how many steps of training it takes; 0 of one that cannot be made.
        stratum: Of a control.
        attack: Of a stolen model.
        without: Why it cannot be made.
    """

    name: str
    seed: int
    options: Mapping[str, Any]
    make: Callable[[np.random.Generator], Network]
    steps: int
    stratum: Stratum | None = None
    attack: str | None = None
    without: str | None = None

    @property
    def stem(self) -> str:
        """Its file's path in the zoo, without what the name ends with."""
        return f"{'controls' if self.attack is None else 'stolen'}/{self.name}"


class _Answers:
    """A victim of which a thief has nothing but its answers."""

    __slots__ = ("predict",)

    def __init__(self, predict: Callable[[Array], Array]) -> None:
        self.predict = predict


@dataclass(frozen=True, eq=False)
class ZooRecipe:
    """What a zoo is made by: settings whose names and options were looked up and checked, once.

    Attributes:
        settings: What was asked for.
        attacks: The attacks, with all their options.
    """

    settings: ZooSettings
    attacks: tuple[Configured[Attack], ...]

    @classmethod
    def of(cls, settings: ZooSettings, attacks: Catalogue[Attack]) -> "ZooRecipe":
        """Look up what the settings name, and refuse what cannot be, before any model is run.

        Raises:
            UsageError: For an attack or option that does not exist, or a number that cannot be.
        """
        if settings.controls_only:
            if settings.attacks is not None or settings.options or not settings.controls:
                raise UsageError(
                    f"{option('controls_only', True)}: expected only controls, found {option('attacks')}, "
                    f"{option('ZooSettings.options')} or {option('ZooSettings.controls', 0)}",
                    code="conflict",
                )
            configured: tuple[Configured[Attack], ...] = ()
        else:
            configured = attacks.configure(settings.attacks, settings.options)
        for label, number in (
            ("controls", settings.controls),
            ("models of each attack", settings.repeat),
            ("seed", settings.seed),
        ):
            if number < 0:
                raise UsageError(f"{label}: expected at least 0, found {number}", code="wrong-value")
        return cls(settings, configured)

    @property
    def needs_suite(self) -> bool:
        """Whether an attack works against a suite."""
        return self.settings.repeat > 0 and any("suite" in attack.component.needs for attack in self.attacks)


def plans_of(
    victim: Network, material: Material, suite: Suite | None, recipe: ZooRecipe, schedule: Schedule
) -> list[PlannedModel]:
    """All models of a zoo, whether they are there or not.

    Args:
        victim: The victim.
        material: What models are trained with.
        suite: What thieves know of the test cases.
        recipe: What is made.
        schedule: How controls are trained.
    """
    return [*controls_of(victim, material, recipe.settings, schedule), *_thefts(victim, material, suite, recipe)]


def schedule_of(
    models: Iterable[ZooModel], victim: Network, material: Material, settings: ZooSettings
) -> tuple[ZooModel, Schedule] | None:
    """The first control, and how all are trained because it was; None without one.

    Args:
        models: What the zoo has.
        victim: The victim.
        material: What models are trained with.
        settings: What is asked for.
    """
    if not settings.controls:
        return None
    usual = settings.schedule
    stem = next(iter(controls_of(victim, material, settings, usual))).stem
    first = next((model for model in models if Path(model.file).with_suffix("").as_posix() == stem), None)
    if first is None:
        return None
    epochs = first.options.get("epochs")
    fits = settings.epochs is None or epochs in [times * settings.epochs for times in LONGER]
    # What does not fit is said where all are made.
    return first, replace(usual, epochs=epochs) if fits and isinstance(epochs, int) and epochs > 0 else usual


def controls_of(
    victim: Network, material: Material, settings: ZooSettings, schedule: Schedule
) -> Iterator[PlannedModel]:
    """The controls, in turns of each stratum, so that few are half of each, too.

    Those on other rows get as many as the victim had.

    Args:
        victim: The victim.
        material: What they are trained with.
        settings: How many, and the seed.
        schedule: How they are trained.
    """
    strata = _STRATA[:1] if material.whole else _STRATA
    others = Rows(material.other.x[: len(material.own.x)], material.other.y[: len(material.own.x)])
    for place in range(settings.controls):
        stratum = strata[place % len(strata)]
        rows = material.own if stratum == "same-data" else others
        name = f"{stratum}-{place // len(strata) + 1:02}"

        def make(rng: np.random.Generator, rows: Rows = rows, name: str = name) -> Network:
            fresh = Network.fresh(victim.architecture, rng)
            return train(fresh, rows.x, rows.y, rng, schedule=schedule, label=name)

        steps = schedule.epochs * schedule.steps(len(rows.x))
        yield PlannedModel(name, _seed(settings, name), asdict(schedule), make, steps, stratum=stratum)


def _thefts(
    victim: Network,
    material: Material,
    suite: Suite | None,
    recipe: ZooRecipe,
) -> Iterator[PlannedModel]:
    loot = Loot(
        x=material.other.x,
        y=material.other.y,
        bounds=material.bounds,
        architecture=victim.architecture,
        auxiliary=material.auxiliary,
        auxiliary_labels=material.auxiliary_labels,
        suite=known_suite(suite, material),
    )
    for configured in recipe.attacks:
        attack, options = configured.component, configured.options
        lacking = next((need for need in attack.needs if getattr(loot, need) is None), None)
        for place in range(recipe.settings.repeat):
            name = f"{attack.name}-{place + 1:02}"

            def make(
                rng: np.random.Generator, attack: Attack = attack, options: Mapping[str, Any] = options
            ) -> Network:
                return _steal(attack, victim, loot, rng, options)

            yield PlannedModel(
                name,
                _seed(recipe.settings, name),
                options,
                make,
                0 if lacking else _steps(options, len(loot.x)),
                attack=attack.name,
                without=f"{_WITHOUT[lacking]}: {option(lacking)}" if lacking else None,
            )


def _steps(options: Mapping[str, Any], rows: int) -> int:
    # About how many an attack takes, by the names that its options usually have.
    schedule = Schedule(batch=options.get("batch", Schedule.batch))
    seen = min(rows, options.get("memory", options.get("queries", rows)))
    return int(options.get("rounds", 1) * options.get("epochs", 1) * schedule.steps(seen))


def known_suite(suite: Suite | None, material: Material) -> Suite | None:
    """What a thief knows of the cases, as the networks take them.

    Args:
        suite: What it knows; None for nothing.
        material: Says what the networks' inputs are.
    """
    if suite is None or material.prepare is None:
        return suite
    inputs = material.prepare(suite.cases.inputs)
    return replace(
        suite, bounds=hull(material.bounds), cases=replace(suite.cases, inputs=inputs), probes=None, moments=None
    )


def _steal(
    attack: Attack, victim: Network, loot: Loot, rng: np.random.Generator, options: Mapping[str, Any]
) -> Network:
    source = victim if attack.takes == "weights" else _Answers(victim.predict)
    try:
        stolen = attack.steal(source, loot, rng, **options)
    except DeepJudgeError:
        raise
    except (Exception, SystemExit) as error:
        raise PluginError(f"the attack {attack.name!r} failed: {one_line(error)}") from error
    if not isinstance(stolen, Network):
        raise PluginError(f"the attack {attack.name!r} failed: expected a Network, found a {type(stolen).__name__}")
    return stolen


def _seed(settings: ZooSettings, name: str) -> int:
    return int(np.random.SeedSequence([settings.seed, zlib.crc32(name.encode())]).generate_state(1)[0])
