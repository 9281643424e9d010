"""Architecture: of a model that none of the controls is like, their distances say less than they seem to.

Adversarial cases of the victim fool honest models of some architectures more often than those of others: a linear
model or a perceptron comes nearer to a convolutional victim than any control of the victim's own architecture. How near
is not known unless controls of other architectures show it.
"""

from collections.abc import Sequence

from deepjudge_core.components.strata import Stratum
from deepjudge_core.models.info import ModelInfo
from deepjudge_core.models.model import Access

_SEVERAL = 3  # architectures, or controls of others than the victim's, that show what other models do
Widths = tuple[int, ...]
"""Number of neurons at each tap of a model, in forward order: what tells architectures apart in all frameworks."""


def widths(model: ModelInfo) -> Widths | None:
    """The widths of a model; None where its layers cannot be seen."""
    return tuple(model.layers.values()) if Access.LAYERS in model.access else None


def is_shown(suspect: Widths | None, controls: Sequence[Widths | None], strata: Sequence[Stratum | None]) -> bool:
    """Whether the controls show how near honest models of a suspect's architecture come.

    They do where one has its architecture, or they have several, or several are known to have others than the victim's.
    """
    known = [control for control in controls if control is not None]
    return (
        (suspect is not None and suspect in known)
        or len(set(known)) >= _SEVERAL
        or strata.count("other-architecture") >= _SEVERAL
    )
