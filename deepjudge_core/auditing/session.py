"""What every step of an audit needs beside its own input, in one value."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from deepjudge_core.components.registry import Registry, load_registry
from deepjudge_core.files.digests import FileKey
from deepjudge_core.judging.calibration import Calibration
from deepjudge_core.judging.judge import Judge
from deepjudge_core.models.device import CPU
from deepjudge_core.sandbox.policy import DEFAULT_SANDBOX, Sandbox, check_place
from deepjudge_core.suites.observation import Observation
from deepjudge_core.suites.suite import Suite


@dataclass(frozen=True, eq=False)
class QueryEvent:
    """That a control or a suspect was asked all cases, or failed to answer.

    Attributes:
        role: Which of the two.
        name: What the user calls it.
        observation: What it answered; None where it could not be asked.
        stored: Whether it answered before, and only what is stored of that was read.
        failure: Why it could not be asked: one line.
    """

    role: Literal["control", "suspect"]
    name: str
    observation: Observation | None
    stored: bool = False
    failure: str | None = None


class Listener:
    """Hears of each part of an audit as soon as it is there; what follows may take long, or fail.

    A subclass overrides what it wants to hear of. What it raises ends the audit.
    """

    def on_suite(self, suite: Suite) -> None:
        """The suite was made."""

    def on_suite_reused(self, suite: Suite) -> None:
        """The suite was made before, and is taken as it was kept; :meth:`on_suite` follows."""

    def on_judge(self, judge: Judge) -> None:
        """By what is judged, whose metrics depend on the suite where none were named; :meth:`on_suite` follows."""

    def on_answer(self, event: QueryEvent) -> None:
        """A control or a suspect answered all cases, or failed to."""

    def on_calibration(self, calibration: Calibration) -> None:
        """The controls have answered and were measured."""


@dataclass(frozen=True, eq=False)
class Session:
    """Where steps find components, how they confine models, and who hears of them.

    Who watches progress is no part of it: loops far below, in models and trainers, tell of themselves, and nothing on
    the way to them has a use for it (:mod:`deepjudge_core.progress`).

    Attributes:
        registry: The components; by default every installed one.
        sandbox: How models' files are confined; None to open them in this process.
        listener: Who hears of each part.
        models: The files that are opened as models, of which no suspect may take one for its weights.
        kept: A folder of suites and answers: what is there is not made, or asked for, again; None to keep none.
        device: What models' files run on, as ``open_model`` has it; a GPU needs ``sandbox=None``. A live model runs
            where it is.

    Raises:
        UsageError: When files are confined and are to run on a GPU.
    """

    registry: Registry = field(default_factory=load_registry)
    sandbox: Sandbox | None = DEFAULT_SANDBOX
    listener: Listener = field(default_factory=Listener)
    models: frozenset[FileKey] = frozenset()
    kept: Path | None = None
    device: str = CPU

    def __post_init__(self) -> None:
        """Check that there may be such a device."""
        check_place(self.device, confined=self.sandbox is not None)
