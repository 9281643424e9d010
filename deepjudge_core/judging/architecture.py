"""Architecture: of a model that none of the controls is like, their distances say less than they seem to.

Adversarial cases of the victim fool honest models of some architectures more often than those of others: a linear
model or a perceptron comes nearer to a convolutional victim than any control of the victim's own architecture. How near
is not known unless controls of other architectures show it.
"""

from collections.abc import Sequence

from deepjudge_core.components.strata import Stratum
from deepjudge_core.models.info import ModelInfo
from deepjudge_core.models.model import Access
from deepjudge_core.types import Array

MARGIN = 0.7
"""At most this share of the nearest control's distance is much nearer: honest models of other architectures, in
docs/statistics.md, are not nearer than that control."""

BARELY = 0.9
"""More than this share of the nearest control's distance is among the controls, whatever a rule makes of their spread:
an honest model may happen to lie there."""

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


def is_nearer(value: float, controls: Array, share: float = MARGIN) -> bool:
    """Whether a suspect is clearly nearer to the victim than the nearest control.

    Args:
        value: The suspect's distance.
        controls: ``(n,)`` the controls', n > 0.
        share: At most this of the nearest control's distance, above 0.
    """
    least = controls.min()
    return bool(value <= share * least and value < least)  # as near as one at 0 is not nearer
