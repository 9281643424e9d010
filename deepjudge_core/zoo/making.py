"""Make a zoo: controls trained from scratch, models stolen by every attack, each kept as soon as it is made."""

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import UNSET

from deepjudge_core import progress
from deepjudge_core.errors import (
    CalibrationError,
    DeepJudgeError,
    FileFormatError,
    InputError,
    UsageError,
    first_line,
)
from deepjudge_core.files import digests
from deepjudge_core.models.network import Network
from deepjudge_core.models.training import Schedule, accuracy
from deepjudge_core.naming import option
from deepjudge_core.suites.suite import Suite
from deepjudge_core.zoo.estimate import Estimate, estimate
from deepjudge_core.zoo.manifest import MANIFEST, MissingModel, Zoo, ZooModel, ZooVictim, is_kept, load_zoo, save_zoo
from deepjudge_core.zoo.material import Material, Rows
from deepjudge_core.zoo.plans import LONGER, PlannedModel, ZooRecipe, controls_of, plans_of, schedule_of
from deepjudge_core.zoo.settings import ZooSettings

_FAR = 0.1  # below the victim's accuracy
# What twice as many epochs have to gain for it to be worth while, and how near the victim's accuracy is near where no
# number of epochs was asked for.
_GAIN, _NEAR = 0.01, 0.02
_OTHER = {
    "seed": "another seed",
    "material": "other training or test data, or another {split}",
    "auxiliary": "other auxiliary data",
    "suite": "another suite",
}


@dataclass(frozen=True, eq=False)
class _Made:
    # A network that was made, and is in no file yet.
    network: Network
    accuracy: float | None  # None where its classes are not the victim's
    seconds: float

    @property
    def share(self) -> float:
        return self.accuracy or 0.0


def make_zoo(
    victim: Network,
    material: Material,
    folder: Path,
    recipe: ZooRecipe,
    *,
    name: str,
    digest: str,
    suite: Suite | None = None,
    on_estimate: Callable[[Estimate], None] | None = None,
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
        on_estimate: Called before the first model is made, with how long all take; None to measure nothing.
        on_model: Called with each model as soon as it is made, or could not be.

    Returns:
        The zoo. An attack that fails is among :attr:`~Zoo.missing`; the others are made nevertheless.

    Raises:
        CalibrationError: When the first control stays far below the victim's accuracy, however long it is trained.
        FileFormatError: When a file cannot be written.
        InputError: When the victim knows nothing of the test data's classes.
        ModelError: When the victim cannot be made anew.
        UsageError: When the suite is another victim's, or the folder holds a zoo made otherwise, or on another device.
    """
    if suite is not None and suite.victim.model.digest != digest:
        raise UsageError(
            f"{name}: expected a suite of this victim, found one of {suite.victim.model.name}", code="conflict"
        )
    if suite is not None and suite.victim.preprocessing != material.preprocessing:
        raise UsageError(
            f"{name}: expected a suite whose victim takes inputs prepared by "
            f"{material.preprocessing or 'nothing'}, as here, found "
            f"{suite.victim.preprocessing or 'nothing'}",
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
    limits = material.limits(thefts=bool(recipe.attacks and recipe.settings.repeat))
    settings = {
        "seed": recipe.settings.seed,
        "material": material.digest,
        "auxiliary": material.auxiliary_digest,
        "suite": suite.digest if suite else None,
        **_other_device(victim),
    }
    zoo = replace(_begin(Zoo(folder, about, settings)), limits=limits)
    if own <= np.bincount(material.test.y).max() / len(material.test.y):
        raise InputError(
            f"{name}: expected data of its task, found that it classifies {own:.1%} of the test data "
            "correctly, no more than always answering the most frequent class would; check the labels "
            f"(numbers from 0, in the order of the victim's classes) and how it takes inputs ({option('scale')}, "
            f"{option('preprocessing')})"
        )
    if not zoo.models:
        save_zoo(zoo)  # said at once where nothing can be written
    if on_estimate is not None:
        ahead = estimate(victim, material, recipe, folder=folder, suite=suite)
        if ahead.models:
            on_estimate(ahead)
    zoo, schedule = _near_enough(zoo, victim, material, recipe.settings, on_model)
    plans = plans_of(victim, material, suite, recipe, schedule)
    plans = [plan for plan in plans if not _is_there(zoo, plan)]
    bar = _bar(zoo, material)
    missing: list[MissingModel] = []
    with progress.task("zoo", sum(plan.steps for plan in plans)) as advance:
        for plan in plans:
            with progress.part(advance, plan.steps):
                model = _make(zoo, plan, material.test, bar)
            if isinstance(model, ZooModel):
                zoo = zoo.with_model(model)
            else:
                missing.append(model)
            save_zoo(replace(zoo, missing=tuple(missing)))
            on_model(model)
    zoo = replace(zoo, missing=tuple(missing))
    save_zoo(zoo)
    return zoo


def _other_device(victim: Network) -> dict[str, str]:
    # What trains, in its framework's words, unless it is the processor: it changes the last digits of all that is made.
    device = victim.architecture.model(victim.weights, name="victim").device
    return {} if device is None or "cpu" in str(device).lower() else {"device": str(device)}


def _bar(zoo: Zoo, material: Material) -> float:
    # The accuracy that models are held against: where the victim has seen the test data, its own says nothing.
    controls = [model.accuracy for model in zoo.models if model.kind == "control" and model.accuracy is not None]
    return controls[0] if material.seen and controls else zoo.victim.accuracy


def _begin(zoo: Zoo) -> Zoo:
    if not (zoo.folder / MANIFEST).exists():
        return zoo
    earlier = load_zoo(zoo.folder)
    if earlier.victim.digest != zoo.victim.digest:
        raise UsageError(
            f"{zoo.folder}: holds a zoo of another victim, {earlier.victim.path}; use another folder",
            code="would-overwrite",
        )
    here, there = (str(one.settings.get("device", "the processor")) for one in (zoo, earlier))
    if here != there:
        raise UsageError(
            f"{zoo.folder}: holds a zoo made on another device: expected {here}, found {there}; use another folder, or "
            f"{option('device')}",
            code="would-overwrite",
        )
    # What is new since was asked for by no model that is there.
    settings = {name: value for name, value in earlier.settings.items() if value is not None}
    for name, value in zoo.settings.items():
        if value is not None and settings.setdefault(name, value) != value:
            other = _OTHER[name].format(split=option("split"))
            raise UsageError(
                f"{zoo.folder}: holds a zoo made with {other}: expected {_short(value)}, "
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
    found = schedule_of(zoo.models, victim, material, settings)
    if found is not None and is_kept(zoo, found[0]):
        return zoo, found[1]
    own = zoo.victim.accuracy
    enough = own - (_NEAR if settings.epochs is None else _FAR) if not material.seen else 1.0
    best: _Made | None = None
    schedules = [replace(settings.schedule, epochs=times * settings.schedule.epochs) for times in LONGER]
    for schedule in schedules if settings.controls else ():
        first = next(iter(controls_of(victim, material, settings, schedule)))
        made = _made(first, zoo.victim.classes, material.test)
        if isinstance(made, MissingModel):  # which is said where all are made
            return zoo, settings.schedule
        gains = best is None or made.share >= best.share + _GAIN
        if gains:
            best, chosen = made, (first, schedule)
        if made.share >= enough or not gains or schedule is schedules[-1]:
            break
    if best is None:
        return zoo, settings.schedule
    first, schedule = chosen
    if best.share < own - _FAR and not material.seen:
        raise CalibrationError(
            f"a control trained for {schedule.epochs} epochs classifies {best.share:.1%} of the test "
            f"data correctly, the victim {own:.1%}; expected at most {100 * _FAR:.0f} points less. "
            f"Train controls with another {option('rate')}, more {option('epochs')} or more "
            f"{option('data')}, or give {option('ZooSettings.controls', 0)} to make only stolen models"
        )
    model = _kept(zoo, first, best, best.share if material.seen else own)
    zoo = zoo.with_model(model)
    save_zoo(zoo)
    on_model(model)
    return zoo, schedule


def _is_there(zoo: Zoo, plan: PlannedModel) -> bool:
    # Whether it was made before, and so.
    model = next((model for model in zoo.models if Path(model.file).with_suffix("").as_posix() == plan.stem), None)
    if model is None or not is_kept(zoo, model):
        return False
    if dict(model.options) != dict(plan.options):
        raise UsageError(
            f"{zoo.path(model)}: was made with {_text(model.options)}, expected "
            f"{_text(plan.options)}; use another folder, or remove the file",
            code="would-overwrite",
        )
    return True


def _make(zoo: Zoo, plan: PlannedModel, test: Rows, bar: float) -> ZooModel | MissingModel:
    made = _made(plan, zoo.victim.classes, test)
    return made if isinstance(made, MissingModel) else _kept(zoo, plan, made, bar)


def _made(plan: PlannedModel, classes: int, test: Rows) -> "_Made | MissingModel":
    if plan.without:
        return MissingModel(plan.name, plan.without, failed=False)
    start = time.perf_counter()
    try:
        network = plan.make(np.random.default_rng(plan.seed))
        _check_finite(network)
        same = network.architecture.classes == classes
        share = accuracy(network, test.x, test.y) if same else None
    except DeepJudgeError as error:
        if isinstance(error, UsageError):  # an impossible value of an option
            raise UsageError(f"{plan.name}: {error}", code=error.code) from error
        return MissingModel(plan.name, str(error), failed=True)
    return _Made(network, share, time.perf_counter() - start)


def _kept(zoo: Zoo, plan: PlannedModel, made: "_Made", bar: float) -> ZooModel:
    network, share = made.network, made.accuracy
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
        far=share is not None and share < bar - _FAR,
        digest=digest,
        weights=network.digest,
        seconds=round(made.seconds, 3),
    )


def _check_finite(network: Network) -> None:
    wrong = [name for name, array in network.weights.items() if not np.isfinite(array).all()]
    if wrong:
        raise InputError(f"expected finite weights, found NaN or infinity in {wrong[0]}; lower the rate")


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
            f"{path}: cannot be written: {reason}; models made earlier are kept", code="cannot-write"
        ) from error
    return digest


def _short(value: object) -> str:
    return str(value)[:12]  # of a digest


def _text(options: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in options.items()) or "no options"
