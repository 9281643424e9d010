"""White-box components: cases in the corners of neurons' ranges, and metrics over what the neurons give there."""

from collections.abc import Iterable

from deepjudge_core.components.hooks import hookimpl
from deepjudge_core.components.kinds import Generator, Metric
from deepjudge_core.models.model import Access
from deepjudge_whitebox.metrics import lad, lod, nad, nnod, nod, recovery
from deepjudge_whitebox.neuron_corners import neuron_corners


@hookimpl
def deepjudge_generators() -> Iterable[Generator]:
    """Corner cases of single neurons."""
    needs = Access.LAYERS | Access.GRADIENTS
    return [Generator("neuron-corners", makes="corners", needs=needs, generate=neuron_corners)]


@hookimpl
def deepjudge_metrics() -> Iterable[Metric]:
    """Distances between two models' neurons."""
    return [
        Metric(
            "nod",
            needs=Access.LAYERS,
            on="corners",
            distance=nod,
            alpha=0.6,
            title="neuron output distance (NOD)",
            says="how far the outputs of single neurons differ on their corner cases, on average, in their own unit",
        ),
        Metric(
            "nad",
            needs=Access.LAYERS,
            on="corners",
            distance=nad,
            alpha=0.6,
            upper=1,
            title="neuron activation distance (NAD)",
            says="share of corner cases in which a neuron is active in only one of the two models",
        ),
        Metric(
            "lod",
            needs=Access.LAYERS,
            on="corners",
            distance=lod,
            alpha=0.6,
            title="layer output distance (LOD)",
            says="how far the outputs of a whole layer differ on the corner cases, on average, in their own unit",
        ),
        Metric(
            "lad",
            needs=Access.LAYERS,
            on="corners",
            distance=lad,
            alpha=0.6,
            upper=1,
            title="layer activation distance (LAD)",
            says="share of a layer's neurons that are active in only one of the two models, over the corner cases",
        ),
        Metric(
            "recovery",
            needs=Access.LAYERS,
            on="cases",
            distance=recovery,
            alpha=0.6,
            upper=1,
            title="linear recovery of neurons",
            says="share of the victim's neurons' variance that no layer of the model tells, as a linear function",
            reads="recovered",
        ),
        Metric(
            "nnod",
            needs=Access.LAYERS,
            on="corners",
            distance=nnod,
            alpha=0.6,
            default=False,
            title="normalised neuron output distance (NNOD)",
            says="how far the outputs of single neurons differ, in units of each neuron's greatest output",
        ),
    ]
