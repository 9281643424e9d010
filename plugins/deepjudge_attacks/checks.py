"""What the attacks ask of the loot, each in one line where it is not so."""

from typing import TYPE_CHECKING, Protocol

from deepjudge_core.components.attack import Loot
from deepjudge_core.errors import InputError
from deepjudge_core.types import Array

if TYPE_CHECKING:
    # Only the name is needed; the module behind it reads inputs of all kinds.
    from deepjudge_core.suites.suite import Suite


class Oracle(Protocol):
    """A victim that only answers."""

    def predict(self, x: Array) -> Array:
        """Class probabilities ``(n, classes)`` of inputs ``(n, *shape)``."""


def auxiliary_of(attack: str, loot: Loot) -> Array:
    """Inputs that do not belong to the victim's task.

    Raises:
        InputError: When they are missing.
    """
    if loot.auxiliary is None or len(loot.auxiliary) == 0:
        raise InputError(
            f"{attack}: expected auxiliary inputs to ask the victim about, found none", code="missing-value"
        )
    return loot.auxiliary


def suite_of(attack: str, loot: Loot) -> "Suite":
    """The suite that the thief knows.

    Raises:
        InputError: When it is missing.
    """
    if loot.suite is None:
        raise InputError(f"{attack}: expected the suite to train against, found none", code="missing-value")
    return loot.suite
