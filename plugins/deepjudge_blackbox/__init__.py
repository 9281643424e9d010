"""Black-box components: adversarial cases and mistakes, and metrics that need nothing but a model's answers."""

from collections.abc import Iterable, Mapping
from typing import Any

from deepjudge_blackbox.cw import cw
from deepjudge_blackbox.fgsm import fgsm
from deepjudge_blackbox.metrics import LN_2, akh, cka, jsd, jsd_reference, robd, robd_reference, sac
from deepjudge_blackbox.mistakes import mistakes
from deepjudge_blackbox.pgd import pgd
from deepjudge_blackbox.square import square
from deepjudge_blackbox.substitutions import substitutions
from deepjudge_core.components.hooks import hookimpl
from deepjudge_core.components.kinds import Generator, Metric, Within
from deepjudge_core.models.model import Access


@hookimpl
def deepjudge_generators() -> Iterable[Generator]:
    """Gradient attacks, searches that need only answers, and the victim's own mistakes."""
    needs = Access.LABELS | Access.GRADIENTS
    ball, some = Within(lambda options: options["eps"]), Within(lambda options: options["share"], places=True)
    return [
        *(
            Generator(
                f.__name__,
                makes="adversarial",
                needs=asked,
                generate=f,
                within=within,
                each_seed=True,
            )
            for f, asked, within in (
                (fgsm, needs, ball),
                (pgd, needs, Within(_reach_of_pgd)),
                (cw, needs, None),
                (square, Access.LABELS, ball),
                (substitutions, Access.LABELS, some),
            )
        ),
        Generator("mistakes", makes="mistakes", needs=Access.LABELS, generate=mistakes),
    ]


def _reach_of_pgd(options: Mapping[str, Any]) -> float:
    return float(options["eps"] if options["project"] else options["eps"] + options["steps"] * options["step"])


@hookimpl
def deepjudge_metrics() -> Iterable[Metric]:
    """Distances between two models' answers."""
    return [
        Metric(
            "robd",
            needs=Access.LABELS,
            on="adversarial",
            distance=robd,
            alpha=0.9,
            upper=1,
            title="robustness distance (RobD)",
            says="share of the adversarial cases in which the model does not make the victim's mistake",
        ),
        Metric(
            "jsd",
            needs=Access.PROBABILITIES,
            on="adversarial",
            distance=jsd,
            alpha=0.9,
            upper=LN_2,
            title="Jensen-Shannon divergence (JSD)",
            says=(
                "how far the class probabilities differ on the adversarial cases, on average, in nats, whatever the "
                "temperature of the model's answers"
            ),
        ),
        Metric(
            "robd-reference",
            needs=Access.LABELS,
            on="adversarial",
            distance=robd_reference,
            alpha=0.9,
            upper=1,
            default=False,
            title="robustness distance (RobD) of the paper",
            says="difference between the shares of adversarial cases that the two models classify correctly",
        ),
        Metric(
            "jsd-reference",
            needs=Access.PROBABILITIES,
            on="adversarial",
            distance=jsd_reference,
            alpha=0.9,
            upper=LN_2,
            default=False,
            title="Jensen-Shannon divergence (JSD) of the paper",
            says="how far the class probabilities differ on the adversarial cases, on average, in nats",
        ),
        Metric(
            "sac",
            needs=Access.PROBABILITIES,
            on="adversarial",
            distance=sac,
            alpha=0.9,
            upper=1,
            default=False,
            title="sample correlation (SAC)",
            says="how differently the two models relate adversarial cases to one another, as a difference of cosines",
        ),
        Metric(
            "cka",
            needs=Access.PROBABILITIES,
            on="adversarial",
            distance=cka,
            alpha=0.9,
            upper=2,
            default=False,
            title="centred kernel alignment (CKA)",
            says="1 minus the alignment of the class probabilities on the adversarial cases, without a unit",
        ),
        Metric(
            "akh",
            needs=Access.LABELS,
            on="mistakes",
            distance=akh,
            alpha=0.9,
            upper=1,
            default=False,
            title="Anna Karenina heuristic (AKH)",
            says="share of the victim's mistakes to which the model gives another label",
        ),
    ]
