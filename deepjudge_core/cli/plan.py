"""A whole audit as a value, as the command line or a file says it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from deepjudge_core.audit import Judging, Making
from deepjudge_core.inputs import Inputs, load_inputs, load_training_inputs
from deepjudge_core.matching import Match
from deepjudge_core.model import Layout
from deepjudge_core.subject import Subject


def opening(output_name: str | None, arch: str | None) -> dict[str, str]:
    """Of what is said of a file, the options of the adapter that opens it."""
    given = {"output_name": output_name, "arch": arch}
    return {option: value for option, value in given.items() if value is not None}


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
            InputError, UsageError: As :func:`~deepjudge_core.inputs.load_inputs`.
        """
        inputs = load_inputs(self.path, x=self.x, y=self.y, scale=self.scale, bounds=self.bounds)
        training = load_training_inputs(self.training, scale=self.scale) if self.training else inputs.training
        return replace(inputs, training=training, layout=self.layout)


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
        judging: How suspects are judged.
        output: Folder for what is written, from where the user is.
        folder: Where all other relative paths, and code of networks, are found from.
    """

    victim: Subject
    suspects: Sequence[Subject]
    controls: Sequence[Subject]
    inputs: InputsFile
    making: Making
    match: Match
    judging: Judging
    output: Path
    folder: Path = Path()
