"""Controls that an audit makes for itself, from the data that the victim was trained on."""

import contextlib
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import click

from deepjudge_core.auditing.subject import ModelFile, Subject
from deepjudge_core.cli import terminal
from deepjudge_core.cli.commands.zoo import ZooCommand
from deepjudge_core.cli.plan import Plan
from deepjudge_core.errors import UsageError
from deepjudge_core.observing.settings import OpeningSettings
from deepjudge_core.suites.settings import ArraySettings
from deepjudge_core.zoo.estimate import Estimate
from deepjudge_core.zoo.manifest import Zoo
from deepjudge_core.zoo.settings import MaterialSettings, ZooSettings

_LIKE = ("scale", "bounds", "resize")  # what is said of the inputs is true of the training data


class _DeclinedError(Exception):
    """The user wants none."""


@dataclass(frozen=True, kw_only=True)
class _Controls(ZooCommand):
    # A zoo of controls alone, for which the user is asked.
    agreed: bool = False

    def estimated(self, estimate: Estimate) -> None:
        out = terminal.console()
        if estimate.models == 0:
            return
        terminal.say(out, f"to make     {estimate}")
        if self.agreed:
            return
        if not _has_terminal():
            raise _DeclinedError("there is no terminal to ask at: --make-controls makes them without asking")
        if not click.confirm("Make them now?", default=True):
            raise _DeclinedError("not wanted; --make-controls makes them without asking")

    def close(self, zoo: Zoo) -> None:
        """Say nothing: the audit goes on, and says itself what its controls do not show."""


def _has_terminal() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()


def with_controls(plan: Plan, folder: Path, *, agreed: bool) -> Plan:
    """The plan with controls of its own, where it has none and the user agrees.

    Args:
        plan: The audit, with training data.
        folder: Where the controls go; those that are there are not made again.
        agreed: Whether the user need not be asked.

    Raises:
        DeepJudgeError: When they cannot be made.
    """
    if plan.data is None or plan.controls or not isinstance(plan.victim, ModelFile):
        return plan
    arrays = {name: getattr(plan.inputs, name) for name in _LIKE if hasattr(plan.inputs, name)}
    zoo = folder.absolute()
    command = _Controls(
        victim=Path(plan.victim.path),
        material=MaterialSettings(data=plan.data, split=1.0),
        arrays=ArraySettings(**arrays),
        zoo=ZooSettings(controls_only=True),
        opening=OpeningSettings(**plan.victim.options),
        layout=plan.victim.query.layout,
        preprocessing=plan.victim.query.preprocessing,
        device=plan.device,
        output=zoo,
        agreed=agreed,
    )
    try:
        with contextlib.chdir(plan.folder):
            command.run()
    except _DeclinedError as error:
        terminal.say(terminal.console(), f"controls    none made: {error}")
        return plan
    files = sorted(path for path in (zoo / "controls").iterdir() if path.is_file())
    if not files:
        raise UsageError(f"{folder}: expected controls, found none", code="wrong-value")
    here = Path.cwd() / plan.folder
    shown = [path.relative_to(here) if path.is_relative_to(here) else path for path in files]
    return replace(plan, controls=[Subject.of(str(path), query=plan.suspects[0].query.of_controls()) for path in shown])
