"""Metrics over weights that are read and never run: do those of two models descend from the same ones?"""

from collections.abc import Iterable

from deepjudge_core.components.hooks import hookimpl
from deepjudge_core.components.kinds import Metric
from deepjudge_core.models.model import Access
from deepjudge_weights.metrics import neuron_sketch, neuron_sketch_of_others, order, order_chance, sibling_slope, wcos


@hookimpl
def deepjudge_metrics() -> Iterable[Metric]:
    """Distances between two models' weights."""
    return [
        Metric(
            "order",
            needs=Access.WEIGHTS,
            on="weights",
            distance=order,
            alpha=0.6,
            upper=1,
            title="order of the neurons",
            says="share of the compared neurons that do not stand where the most similar neuron of the victim stands",
            p_value=order_chance,
        ),
        Metric(
            "neuron-sketch",
            needs=Access.WEIGHTS,
            on="weights",
            distance=neuron_sketch,
            alpha=0.6,
            upper=1,
            title="distance of matched neurons",
            says="1 minus the cosine of the weights of matched neurons, in whatever order and coordinates they are",
            background=neuron_sketch_of_others,
        ),
        Metric(
            "wcos",
            needs=Access.WEIGHTS,
            on="weights",
            distance=wcos,
            alpha=0.6,
            upper=1,
            title="distance of matched early weights",
            says="1 minus the cosine of the weights between the first hidden layers of a classifier, neurons matched",
        ),
        Metric(
            "sibling-slope",
            needs=Access.WEIGHTS,
            on="ancestry",
            distance=sibling_slope,
            alpha=0.6,
            title="distance along the victim's way from its ancestor",
            says="1 minus the share of the victim's own way from the ancestor's weights that the suspect went, too",
        ),
    ]
