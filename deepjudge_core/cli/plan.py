"""A whole audit as a value, as the command line or a file says it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from deepjudge_core.auditing.subject import Subject
from deepjudge_core.errors import UsageError
from deepjudge_core.judging.judge import Judge
from deepjudge_core.judging.neurons import Match
from deepjudge_core.sandbox.policy import Sandbox
from deepjudge_core.suites.generation import SuiteSettings
from deepjudge_core.suites.inputs import Inputs, load_inputs, load_training_inputs
from deepjudge_core.types import Layout

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def opening(output_name: str | None, arch: str | None) -> dict[str, str]:
    """Of what is said of a file, the options of the adapter that opens it."""
    given = {"output_name": output_name, "arch": arch}
    return {option: value for option, value in given.items() if value is not None}


def size(text: str) -> int:
    """Bytes, from a text as ``8GiB``, ``512M`` or ``1000000``.

    Raises:
        UsageError: For another text.
    """
    found = re.fullmatch(r"(\d{1,15}(?:\.\d{1,9})?) ?([KMGT])?(?:i?B)?", text.strip(), re.IGNORECASE)
    if not found:
        raise UsageError(f"expected a size as 8GiB or 512MiB, found {text!r}")
    return int(float(found[1]) * _UNITS[(found[2] or "").upper()])


def sandbox(
    *, use: bool = True, memory: int | None = None, timeout: float | None = None, required: bool = False
) -> Sandbox | None:
    """How models' files are confined; None where they are not.

    Args:
        use: Whether they are.
        memory: Bytes for each model; None for the default.
        timeout: Seconds for opening it and for each batch; None for the default.
        required: Whether less than the full sandbox is refused.

    Raises:
        UsageError: For limits that cannot be, or a sandbox that is required and not used.
    """
    if required and not use:
        raise UsageError("expected a sandbox that is used where it is required, found use = false")
    limits: dict[str, Any] = {"memory": memory, "timeout": timeout}
    found = Sandbox(required=required, **{name: value for name, value in limits.items() if value is not None})
    return found if use else None


@dataclass(frozen=True)
class InputsFile:
    """Where the inputs are, and how they are read.

    Attributes:
        path: An ``.npz`` file.
        x: Key of the inputs; None for the usual ones.
        y: Key of the labels; None for the usual ones.
        scale: What they are divided by.
        bounds: Their range after that; None for what they imply.
        training: ``FILE.npz:KEY`` of inputs of the training set; None for those of the same file.
        layout: Where their channels are, where the shape does not tell.
    """

    path: Path
    x: str | None = None
    y: str | None = None
    scale: float = 1.0
    bounds: tuple[float, float] | None = None
    training: str | None = None
    layout: Layout | None = None

    def load(self) -> Inputs:
        """Read them.

        Raises:
            InputError, UsageError: As :func:`~deepjudge_core.suites.inputs.load_inputs`.
        """
        inputs = load_inputs(self.path, x=self.x, y=self.y, scale=self.scale, bounds=self.bounds)
        training = load_training_inputs(self.training, scale=self.scale) if self.training else inputs.training
        return replace(inputs, training=training, layout=self.layout)


@dataclass(frozen=True)
class BundleSettings:
    """How what comes of an audit is made fit to be checked by others.

    Attributes:
        commitment: What was committed to before; None for nothing.
        key: The private key that signs the bundle; None for an unsigned one.
        withhold: Whether test cases and answers are left out of it.
        stamp: The response that stamps the commitment; None for none.
    """

    commitment: Path | None = None
    key: Path | None = None
    withhold: bool = False
    stamp: Path | None = None


@dataclass(frozen=True)
class Plan:
    """What is audited, how, and where the outcome goes.

    Attributes:
        victim: The owner's model.
        suspects: What is judged.
        controls: Models known to be independent of the victim.
        inputs: What seeds are selected from.
        making: How the suite is made.
        match: How neurons are put beside the victim's.
        judge: By what suspects are judged.
        sandbox: How models' files are confined; None to open them in the audit's own process.
        output: Folder for what is written, from where the user is.
        sealing: How that is sealed.
        exports: Which forms of the report are written beside JSON, and where, from where the user is.
        folder: Where all other relative paths, and code of networks, are found from.
    """

    victim: Subject
    suspects: Sequence[Subject]
    controls: Sequence[Subject]
    inputs: InputsFile
    making: SuiteSettings
    match: Match
    judge: Judge
    sandbox: Sandbox | None
    output: Path
    sealing: BundleSettings = BundleSettings()
    exports: Mapping[str, Path] = field(default_factory=dict)
    folder: Path = Path()
