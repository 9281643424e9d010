"""Which keys are made, how, and what the paper's table II says of their systems."""

from dataclasses import dataclass

QUICK = ("ft-al", "rt-al", "p-60", "permute-rescale", "quantize-int8")
SLOW = ("knockoff", "distill", "adapt-b", "adv-train")
ATTACKS = (*QUICK, *SLOW)
"""In every way in which a model is stolen: fine-tuned, pruned, disguised, converted, extracted, hardened."""
FARM = ("knockoff", "distill", "jba", "esa", "adv-train", "ft-al")
"""What the models are made by that keys are made from."""
EXTRACTED = ("knockoff", "distill", "jba", "esa")
"""What is told from the default suite's verdicts, too: models that were trained on answers."""
SHORTER = (
    *("knockoff.epochs=3", "distill.epochs=3", "adapt-b.epochs=2", "adv-train.epochs=1"),
    *("jba.epochs=5", "esa.rounds=15"),
)
"""Options of attacks that would take hours otherwise."""


@dataclass(frozen=True)
class Plan:
    """A key of the study.

    Attributes:
        name: What the tables call it.
        scheme: Its scheme.
        options: Of the scheme.
        embedded: Whether a network has to be trained with it.
        zoo: Whether it is made from models of a zoo.
        paper: Table II of the method's paper: survives fine-tuning, pruning, extraction; empty where it is not there.
    """

    name: str
    scheme: str
    options: tuple[str, ...] = ()
    embedded: bool = True
    zoo: bool = False
    paper: str = ""


PLANS = (
    Plan("uchida", "uchida", paper="yes, yes, no"),
    Plan("uchida, first matrix", "uchida", ("matrix=first",)),
    Plan("frontier", "frontier", paper="yes, yes, no"),
    Plan("adi", "adi", paper="yes, no, no"),
    Plan("zhang, content", "zhang", ("kind=content",), paper="yes, yes, no"),
    Plan("zhang, noise", "zhang", ("kind=noise",)),
    Plan("zhang, unrelated", "zhang", ("kind=unrelated",)),
    Plan("deepsigns, white box", "deepsigns", ("box=white",), paper="yes, yes, no"),
    Plan("deepsigns, black box", "deepsigns", ("box=black",)),
    Plan("ewe", "ewe", zoo=True, paper="yes, yes, yes"),
    Plan("ipguard", "ipguard", embedded=False, paper="yes, yes, no"),
    Plan("conferrable", "conferrable", embedded=False, zoo=True, paper="yes, yes, yes"),
    Plan("random-inclusion", "random-inclusion"),
)
