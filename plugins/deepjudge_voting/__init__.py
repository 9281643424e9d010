"""The paper's rule: thresholds from controls, and a vote over the metrics."""

from collections.abc import Iterable

from deepjudge_core.components.hooks import hookimpl
from deepjudge_core.components.kinds import Rule
from deepjudge_voting.voting import voting


@hookimpl
def deepjudge_rules() -> Iterable[Rule]:
    """Thresholding and voting."""
    return [Rule("voting", judge=voting)]
