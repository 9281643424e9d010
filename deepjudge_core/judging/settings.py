"""How suspects are measured and judged: all that is said of it beforehand."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deepjudge_core.components.registry import Registry
from deepjudge_core.errors import UsageError
from deepjudge_core.judging.fdr import check_fdr
from deepjudge_core.judging.judge import GroupMode, check_rule
from deepjudge_core.judging.sequential import check_sequential


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


def check_judging(judging: JudgeSettings, registry: Registry) -> dict[str, Any]:
    """Refuse a wrong name or option before any model is run: it is the caller's mistake, not one suspect's.

    Returns:
        All options of the rule, but for its level where a false discovery rate makes that.

    Raises:
        UsageError: For a metric, rule or option that does not exist, and a false discovery rate that cannot be had.
    """
    metrics = [metric.name for metric in registry.metrics.select(judging.metrics)]
    given = judging.rule_options or {}
    options = check_rule(judging.rule, given, metrics, registry)
    if judging.sequential:
        others = judging.metrics is not None or judging.groups != "separate" or judging.fdr is not None
        check_sequential(judging.rule, options, judging.budget, registry, others=others)
    elif judging.budget is not None:
        raise UsageError("expected a budget only beside sequential judging, which asks cases one by one")
    if judging.fdr is None:
        return options
    check_fdr(judging.fdr, judging.rule, options, given, registry)
    return {name: value for name, value in options.items() if name != "level"}
