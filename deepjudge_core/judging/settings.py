"""How suspects are measured and judged: all that is said of it beforehand."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from deepjudge_core.judging.neurons import DEFAULT_MATCH, Match

GroupMode = Literal["separate", "joint"]


@dataclass(frozen=True, eq=False)
class JudgeSettings:
    """How suspects, and the controls beside them, are measured and judged.

    Attributes:
        metrics: Names, "all" for every installed one; None for those that are taken without a name.
        rule: Name of the rule.
        rule_options: Its options.
        groups: "joint" for one vote over all metrics.
        fdr: The false discovery rate over all suspects, 0..1, which then makes the level of the rule, one that gives
            p-values; None to judge each by itself.
        sequential: Whether suspects are asked case by case, for labels alone, until these say enough; not in an audit
            in one go. The rule, one that gives p-values, bounds how often honest models agree with the victim.
        budget: How many cases may be asked then; None for all adversarial ones.
    """

    metrics: Sequence[str] | None = None
    rule: str = "voting"
    rule_options: Mapping[str, Any] | None = None
    groups: GroupMode = "separate"
    fdr: float | None = None
    sequential: bool = False
    budget: int | None = None


@dataclass(frozen=True)
class CalibrationSettings:
    """How controls are measured.

    Attributes:
        match: How neurons are put beside the victim's, of the controls and so of every suspect.
    """

    match: Match = DEFAULT_MATCH
