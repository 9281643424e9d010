"""Architecture: of a model that none of the controls is like, their distances say less than they seem to.

Adversarial cases of the victim fool honest models of some architectures more often than those of others: a linear
model or a perceptron comes nearer to a convolutional victim than any control of the victim's own architecture. How near
is not known unless controls of other architectures show it.
"""

from collections.abc import Sequence

from deepjudge_core.components.strata import (
    OTHER_ARCHITECTURE,
    SAME_ARCHITECTURE,
    Stratum,
    parts_of,
    with_architecture,
)
from deepjudge_core.models.info import ModelInfo
from deepjudge_core.models.model import Access

_SEVERAL = 3  # architectures, or controls of others than the victim's, that show what other models do
Widths = tuple[int, ...]
"""Number of neurons at each tap of a model, in forward order: what tells architectures apart in all frameworks."""


def widths(model: ModelInfo) -> Widths | None:
    """The widths of a model; None where its layers cannot be seen."""
    return tuple(model.layers.values()) if Access.LAYERS in model.access else None


def kind_of(stratum: Stratum | None, own: Widths | None, victim: Widths | None) -> Stratum | None:
    """What is known of a control: what was said of it, and of its architecture what its layers show.

    Layers of other widths are another architecture, whatever was said. Layers of the same widths may differ in what
    else they do: that they are of another architecture is believed.

    Args:
        stratum: What was said.
        own: The control's widths.
        victim: The victim's.
    """
    if own is None or victim is None or (own == victim and OTHER_ARCHITECTURE in parts_of(stratum)):
        return stratum
    return with_architecture(stratum, same=own == victim)


def is_shown(
    suspect: Widths | None, victim: Widths | None, controls: Sequence[Widths | None], kinds: Sequence[Stratum | None]
) -> bool:
    """Whether the controls show how near honest models of a suspect's architecture come.

    They do where one has its architecture, or they have several, or several are known to have others than the victim's.
    Whatever others show, it says nothing of a suspect that has the victim's architecture, or may have it, where no
    control has that.

    Args:
        suspect: The suspect's widths.
        victim: The victim's.
        controls: Theirs.
        kinds: What is known of each control, from :func:`kind_of`.
    """
    if (suspect is None or suspect == victim) and not any(SAME_ARCHITECTURE in parts_of(kind) for kind in kinds):
        return False
    known = [control for control in controls if control is not None]
    others = sum(
        OTHER_ARCHITECTURE in parts_of(kind) and (own is None or own != victim)
        for kind, own in zip(kinds, controls, strict=True)
    )
    return (suspect is not None and suspect in known) or len(set(known)) >= _SEVERAL or others >= _SEVERAL
