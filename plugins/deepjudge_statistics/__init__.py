"""Rules that say how often they would accuse an honest model: by bounds, conformal p-values and exact tests."""

from collections.abc import Iterable

from deepjudge_core.components.hooks import hookimpl
from deepjudge_core.components.kinds import Rule
from deepjudge_core.judging.exact import exact
from deepjudge_statistics.combine import combine
from deepjudge_statistics.rules import conformal, prediction_bound, tolerance_bound


@hookimpl
def deepjudge_rules() -> Iterable[Rule]:
    """Rules that compare a suspect with the controls, by metric or over several metrics, and one that needs none."""
    return [
        Rule("prediction-bound", judge=prediction_bound),
        Rule("tolerance-bound", judge=tolerance_bound),
        Rule("conformal", judge=conformal),
        Rule("combine", judge=combine),
        Rule("exact", judge=exact, needs_controls=False),
    ]
