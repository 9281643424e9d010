"""Which keys are made, how, and what the paper's table II says of their systems."""

from collections.abc import Mapping
from dataclasses import dataclass, field

QUICK = ("ft-al", "rt-al", "p-60", "permute-rescale", "quantize-int8")
"""Ways in which a model is stolen: fine-tuned, pruned, disguised, converted."""
EXTRACTING = ("knockoff", "distill")
"""Trained on answers: to inputs of another task, and to the thief's own of the same one."""
HARDENING = ("adv-train", "adapt-b")
"""Trained on, so that inputs near the boundary get other answers; of the latter, the suite's own cases."""
FARM = ("knockoff", "distill", "jba", "esa", "adv-train", "ft-al")
"""What the models are made by that keys are made from."""
EXTRACTED = ("knockoff", "distill", "jba", "esa")
"""What is told from the default suite's verdicts, too: models that were trained on answers."""
SHORTER = (
    *("knockoff.epochs=3", "distill.epochs=3", "adapt-b.epochs=2", "adv-train.epochs=1"),
    *("jba.epochs=5", "esa.rounds=15"),
)
"""Options of attacks that would take hours otherwise."""


@dataclass(frozen=True, eq=False)
class Plan:
    """A key of the study.

    Attributes:
        name: What the tables call it.
        scheme: Its scheme.
        options: Of the scheme.
        embedded: Whether a network has to be trained with it.
        zoo: Whether it is made from models of a zoo.
        paper: Way of theft to whether it is survived, by table II of the method's paper; empty where it is not there.
    """

    name: str
    scheme: str
    options: tuple[str, ...] = ()
    embedded: bool = True
    zoo: bool = False
    paper: Mapping[str, str] = field(default_factory=dict)


_FALLS = {"fine-tuning": "yes", "pruning": "yes", "extraction": "no"}
_SURVIVES = dict.fromkeys(_FALLS, "yes")
PLANS = (
    Plan("uchida", "uchida", paper=_FALLS),
    Plan("uchida, first matrix", "uchida", ("matrix=first",)),
    Plan("frontier", "frontier", paper=_FALLS),
    Plan("adi", "adi", paper={**_FALLS, "pruning": "no"}),
    Plan("zhang, content", "zhang", ("kind=content",), paper=_FALLS),
    Plan("zhang, noise", "zhang", ("kind=noise",)),
    Plan("zhang, unrelated", "zhang", ("kind=unrelated",)),
    Plan("deepsigns, white box", "deepsigns", ("box=white",), paper=_FALLS),
    Plan("deepsigns, black box", "deepsigns", ("box=black",)),
    Plan("ewe", "ewe", zoo=True, paper=_SURVIVES),
    Plan("ipguard", "ipguard", embedded=False, paper=_FALLS),
    Plan("conferrable", "conferrable", ("trials=60",), embedded=False, zoo=True, paper=_SURVIVES),
)
