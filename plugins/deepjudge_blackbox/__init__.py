"""Black-box components: adversarial cases, and metrics that need nothing but a model's answers."""

from collections.abc import Iterable

from deepjudge_blackbox.cw import cw
from deepjudge_blackbox.fgsm import fgsm
from deepjudge_blackbox.metrics import LN_2, jsd, robd
from deepjudge_blackbox.pgd import pgd
from deepjudge_core.components import Generator, Metric
from deepjudge_core.hookspecs import hookimpl
from deepjudge_core.model import Access


@hookimpl
def deepjudge_generators() -> Iterable[Generator]:
    """FGSM, PGD and the attack of Carlini and Wagner."""
    needs = Access.LABELS | Access.GRADIENTS
    return [Generator(f.__name__, makes="adversarial", needs=needs, generate=f) for f in (fgsm, pgd, cw)]


@hookimpl
def deepjudge_metrics() -> Iterable[Metric]:
    """Distances between two models' answers to adversarial cases."""
    return [
        Metric("robd", needs=Access.LABELS, on="adversarial", distance=robd, alpha=0.9, upper=1),
        Metric("jsd", needs=Access.PROBABILITIES, on="adversarial", distance=jsd, alpha=0.9, upper=LN_2),
    ]
