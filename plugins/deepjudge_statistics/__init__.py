"""Rules that say how often they would accuse an honest model: prediction and tolerance bounds, conformal p-values."""

from collections.abc import Iterable

from deepjudge_core.components.hooks import hookimpl
from deepjudge_core.components.kinds import Rule
from deepjudge_statistics.combine import combine
from deepjudge_statistics.rules import conformal, prediction_bound, tolerance_bound


@hookimpl
def deepjudge_rules() -> Iterable[Rule]:
    """Rules that compare a suspect with the controls, by metric or over several metrics."""
    return [
        Rule("prediction-bound", judge=prediction_bound),
        Rule("tolerance-bound", judge=tolerance_bound),
        Rule("conformal", judge=conformal),
        Rule("combine", judge=combine),
    ]
