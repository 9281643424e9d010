"""Make a zoo: controls trained from scratch, models stolen by every attack, each kept as soon as it is made."""

import secrets
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import UNSET

from deepjudge_core import progress
from deepjudge_core.components.attack import Attack, Loot, Need
from deepjudge_core.components.registry import Catalogue, Configured
from deepjudge_core.components.strata import Stratum
from deepjudge_core.errors import (
    CalibrationError,
    DeepJudgeError,
    FileFormatError,
    InputError,
    PluginError,
    UsageError,
    first_line,
    one_line,
)
from deepjudge_core.files import digests
from deepjudge_core.models.network import Network
from deepjudge_core.models.training import Schedule, accuracy, train
from deepjudge_core.naming import option
from deepjudge_core.suites.ranges import hull
from deepjudge_core.suites.suite import Suite
from deepjudge_core.types import Array
from deepjudge_core.zoo.manifest import MANIFEST, MissingModel, Zoo, ZooModel, ZooVictim, is_kept, load_zoo, save_zoo
from deepjudge_core.zoo.material import Material, Rows
from deepjudge_core.zoo.settings import ZooSettings

_FAR = 0.1  # below the victim's accuracy
# How many times as many epochs as asked for the first control is given until it is near the victim's accuracy, and what
# twice as many have to gain for it to be worth while.
_LONGER, _GAIN = (1, 2, 4, 8), 0.01
_STRATA: tuple[Stratum, ...] = ("same-data", "other-data")
_WITHOUT: Mapping[Need, str] = {
    "auxiliary": "needs inputs of another task: {}",
    "suite": "needs a suite that the thief knows: {}",
}
_OTHER = {
    "seed": "another seed",
    "material": "other training or test data, or another split",
    "auxiliary": "other auxiliary data",
    "suite": "another suite",
}


@dataclass(frozen=True, eq=False)
class _PlannedModel:
    # One model that is going to be made.
    name: str
    seed: int
    options: Mapping[str, Any]
    make: Callable[[np.random.Generator], Network]
    stratum: Stratum | None = None
    attack: str | None = None
    without: str | None = None  # why it cannot be made

    @property
    def stem(self) -> str:
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


def make_zoo(
    victim: Network,
    material: Material,
    folder: Path,
    recipe: ZooRecipe,
    *,
    name: str,
    digest: str,
    suite: Suite | None = None,
    on_model: Callable[[ZooModel | MissingModel], None] = lambda model: None,
) -> Zoo:
    """Make what is not in the folder yet.

    Each model has a seed of its own, derived from the recipe's and its name: what was interrupted goes on to the same
    models, and more controls or attacks leave those that are there as they are.

    Args:
        victim: From :func:`~deepjudge_core.components.opening.open_network`.
        material: What models are trained and tested with.
        folder: Where the zoo is, or is going to be.
        recipe: What is made.
        name: Of the victim, for the manifest.
        digest: Of the victim's file.
        suite: What thieves know of the test cases.
        on_model: Called with each model as soon as it is made, or could not be.

    Returns:
        The zoo. An attack that fails is among :attr:`~Zoo.missing`; the others are made nevertheless.

    Raises:
        CalibrationError: When the first control stays far below the victim's accuracy, however long it is trained.
        FileFormatError: When a file cannot be written.
        InputError: When the victim knows nothing of the test data's classes.
        ModelError: When the victim cannot be made anew.
        UsageError: When the suite is another victim's, or the folder holds a zoo made otherwise.
    """
    if suite is not None and suite.victim.model.digest != digest:
        raise UsageError(
            f"{name}: expected a suite of this victim, found one of {suite.victim.model.name}", code="conflict"
        )
    if suite is not None and suite.victim.preprocessing != material.preprocessing:
        raise UsageError(
            f"{name}: expected a suite whose victim takes inputs prepared by {material.preprocessing or 'nothing'}, as "
            f"here, found {suite.victim.preprocessing or 'nothing'}",
            code="conflict",
        )
    victim.architecture.initial(np.random.default_rng(0))  # said at once where it cannot be made anew
    own = accuracy(victim, material.test.x, material.test.y)
    about = ZooVictim(
        name,
        victim.architecture.framework,
        digest,
        victim.architecture.classes,
        own,
        UNSET if material.preprocessing is None else material.preprocessing.header(),
    )
    settings = {
        "seed": recipe.settings.seed,
        "material": material.digest,
        "auxiliary": material.auxiliary_digest,
        "suite": suite.digest if suite else None,
    }
    zoo = _begin(Zoo(folder, about, settings))
    if own <= np.bincount(material.test.y).max() / len(material.test.y):
        raise InputError(
            f"{name}: expected data of its task, found that it classifies {own:.1%} of the test data correctly, "
            "no more than who always answers the most frequent class: are labels and scale right?"
        )
    if not zoo.models:
        save_zoo(zoo)  # said at once where nothing can be written
    zoo, schedule = _near_enough(zoo, victim, material, recipe.settings, on_model)
    plans = [*_controls(victim, material, recipe.settings, schedule), *_thefts(victim, material, suite, recipe)]
    missing: list[MissingModel] = []
    with progress.task("zoo", len(plans)) as advance:
        for plan in plans:
            if not _is_there(zoo, plan):
                model = _make(zoo, plan, material.test, own)
                if isinstance(model, ZooModel):
                    zoo = zoo.with_model(model)
                else:
                    missing.append(model)
                save_zoo(replace(zoo, missing=tuple(missing)))
                on_model(model)
            advance(1)
    zoo = replace(zoo, missing=tuple(missing))
    save_zoo(zoo)
    return zoo


def _begin(zoo: Zoo) -> Zoo:
    if not (zoo.folder / MANIFEST).exists():
        return zoo
    earlier = load_zoo(zoo.folder)
    if earlier.victim.digest != zoo.victim.digest:
        raise UsageError(
            f"{zoo.folder}: holds a zoo of another victim, {earlier.victim.path}: use another folder",
            code="would-overwrite",
        )
    # What is new since was asked for by no model that is there.
    settings = {name: value for name, value in earlier.settings.items() if value is not None}
    for name, value in zoo.settings.items():
        if value is not None and settings.setdefault(name, value) != value:
            raise UsageError(
                f"{zoo.folder}: holds a zoo made with {_OTHER[name]}: expected {_short(value)}, "
                f"found {_short(settings[name])}; use another folder",
                code="would-overwrite",
            )
    return replace(earlier, settings=settings)


def _near_enough(
    zoo: Zoo,
    victim: Network,
    material: Material,
    settings: ZooSettings,
    on_model: Callable[[ZooModel | MissingModel], None],
) -> tuple[Zoo, Schedule]:
    # How controls are trained, for them to be as good as an honest rival: the first of them shows how long. The zoo
    # then has it, so that one that goes on finds the same.
    own, best = zoo.victim.accuracy, 0.0
    for times in _LONGER if settings.controls else ():
        schedule = replace(settings.schedule, epochs=times * settings.schedule.epochs)
        first = next(iter(_controls(victim, material, settings, schedule)))
        there = next((model for model in zoo.models if Path(model.file).with_suffix("").as_posix() == first.stem), None)
        if there is not None and is_kept(zoo, there):
            if dict(there.options) == dict(first.options):
                return zoo, schedule
            continue
        model = _make(zoo, first, material.test, own)
        if isinstance(model, MissingModel):  # which is said where all are made
            return zoo, settings.schedule
        if not model.far:
            zoo = zoo.with_model(model)
            save_zoo(zoo)
            on_model(model)
            return zoo, schedule
        zoo.path(model).unlink(missing_ok=True)
        reached = model.accuracy or 0.0
        if reached < best + _GAIN or times == _LONGER[-1]:
            raise CalibrationError(
                f"a control trained for {schedule.epochs} epochs classifies {max(reached, best):.1%} of the test data "
                f"correctly, the victim {own:.1%}: expected at most {100 * _FAR:.0f} points less; train controls with "
                f"another {option('rate')}, more {option('epochs')} or more {option('data')}, or give "
                f"{option('ZooSettings.controls', 0)} for thefts alone"
            )
        best = reached
    return zoo, settings.schedule


def _controls(
    victim: Network, material: Material, settings: ZooSettings, schedule: Schedule
) -> Iterator[_PlannedModel]:
    # In turns, so that few are half of each, too. Those on other rows get as many as the victim had.
    others = Rows(material.other.x[: len(material.own.x)], material.other.y[: len(material.own.x)])
    for place in range(settings.controls):
        stratum = _STRATA[place % 2]
        rows = material.own if stratum == "same-data" else others
        name = f"{stratum}-{place // 2 + 1:02}"

        def make(rng: np.random.Generator, rows: Rows = rows, name: str = name) -> Network:
            fresh = Network.fresh(victim.architecture, rng)
            return train(fresh, rows.x, rows.y, rng, schedule=schedule, label=name)

        yield _PlannedModel(name, _seed(settings, name), asdict(schedule), make, stratum=stratum)


def _thefts(
    victim: Network,
    material: Material,
    suite: Suite | None,
    recipe: ZooRecipe,
) -> Iterator[_PlannedModel]:
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

            yield _PlannedModel(
                name,
                _seed(recipe.settings, name),
                options,
                make,
                attack=attack.name,
                without=_WITHOUT[lacking].format(option(lacking)) if lacking else None,
            )


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


def _is_there(zoo: Zoo, plan: _PlannedModel) -> bool:
    # Whether it was made before, and so.
    model = next((model for model in zoo.models if Path(model.file).with_suffix("").as_posix() == plan.stem), None)
    if model is None or not is_kept(zoo, model):
        return False
    if dict(model.options) != dict(plan.options):
        raise UsageError(
            f"{zoo.path(model)}: was made with {_text(model.options)}, expected {_text(plan.options)}: "
            "use another folder, or remove the file",
            code="would-overwrite",
        )
    return True


def _make(zoo: Zoo, plan: _PlannedModel, test: Rows, victims: float) -> ZooModel | MissingModel:
    if plan.without:
        return MissingModel(plan.name, plan.without, failed=False)
    start = time.perf_counter()
    try:
        network = plan.make(np.random.default_rng(plan.seed))
        _check_finite(network)
        same = network.architecture.classes == zoo.victim.classes
        share = accuracy(network, test.x, test.y) if same else None
    except DeepJudgeError as error:
        if isinstance(error, UsageError):  # an impossible value of an option
            raise UsageError(f"{plan.name}: {error}", code=error.code) from error
        return MissingModel(plan.name, str(error), failed=True)
    file = plan.stem + network.architecture.suffix
    digest = _save(network, zoo.folder / file)
    return ZooModel(
        file=file,
        kind="control" if plan.attack is None else "stolen",
        stratum=plan.stratum,
        attack=plan.attack,
        options=dict(plan.options),
        seed=plan.seed,
        accuracy=share,
        far=share is not None and share < victims - _FAR,
        digest=digest,
        weights=network.digest,
        seconds=round(time.perf_counter() - start, 3),
    )


def _check_finite(network: Network) -> None:
    wrong = [name for name, array in network.weights.items() if not np.isfinite(array).all()]
    if wrong:
        raise InputError(f"expected finite weights, found NaN or infinity in {wrong[0]}: lower the rate")


def _save(network: Network, path: Path) -> str:
    # Under a temporary name first: what has its own name is whole.
    temporary = path.with_name(f".{secrets.token_hex(4)}{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            network.save(temporary)
            digest = digests.of_file(temporary).digest
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except Exception as error:  # each framework says in its own way that a disk is full
        reason = error.strerror if isinstance(error, OSError) and error.strerror else first_line(error)
        raise FileFormatError(
            f"{path}: cannot be written: {reason}; what was made before is kept", code="cannot-write"
        ) from error
    return digest


def _seed(settings: ZooSettings, name: str) -> int:
    return int(np.random.SeedSequence([settings.seed, zlib.crc32(name.encode())]).generate_state(1)[0])


def _short(value: object) -> str:
    return str(value)[:12]  # of a digest


def _text(options: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in options.items()) or "no options"
