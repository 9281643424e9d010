"""Apply a rule, which is anybody's code, and check what it says."""

import contextlib
import math
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from deepjudge_core.components import options as component_options
from deepjudge_core.components.kinds import Rule
from deepjudge_core.components.values import Decision, Evidence, Judgement, Vote
from deepjudge_core.errors import DeepJudgeError, PluginError, UsageError
from deepjudge_core.text import LONGEST_LINE, clean


def resolve_options(rule: Rule, options: Mapping[str, Any], metrics: Collection[str]) -> dict[str, Any]:
    """All options of a rule. Those that are mappings are by metric; a rule is given those of what it judges.

    Raises:
        UsageError: For an option, or a metric in an option, that does not exist.
    """
    resolved = component_options.resolve(rule.name, rule.judge, options)
    # A rule sees one group at a time, so that only here it is known which metrics there are.
    for option, value in resolved.items():
        others = sorted(set(value) - set(metrics)) if isinstance(value, Mapping) else []
        if others:
            raise UsageError(
                f"{rule.name}.{option}: expected metrics among {', '.join(metrics)}, found {', '.join(others)}",
                code="unknown-name",
            )
    return resolved


def check_options(rule: Rule, options: Mapping[str, Any], metrics: Collection[str]) -> dict[str, Any]:
    """All options of a rule, checked before anything is measured.

    Raises:
        UsageError: As :func:`resolve_options`, and for an impossible value.
    """
    resolved = resolve_options(rule, options, metrics)
    try_rule(rule, resolved, metrics)
    return resolved


def try_rule(rule: Rule, options: Mapping[str, Any], metrics: Collection[str]) -> Judgement | None:
    """What a rule says of controls that nobody has: it alone knows which values of its options are possible.

    Returns:
        Its judgement; None where it fails, which is said of the suspects.

    Raises:
        UsageError: For an impossible value of an option.
    """
    evidence = {name: Evidence(1.0, np.linspace(1, 2, 12), 1.0) for name in metrics}
    with contextlib.suppress(PluginError):
        return apply_rule(rule, evidence, options)
    return None


def expect_p_values(rule: Rule, options: Mapping[str, Any], why: str) -> None:
    """Refuse a rule that does not call copies by p-values and a level.

    Args:
        rule: The rule.
        options: All of its options.
        why: What it is needed for.

    Raises:
        UsageError: Where that is known from its options, or from what it says of controls that nobody has.
    """
    judgement = try_rule(rule, options, ["any"]) if "level" in options else None
    if judgement is None or judgement.p_value is None:
        raise UsageError(f"{rule.name}: expected a rule that gives p-values, {why}", code="conflict")


def apply_rule(rule: Rule, evidence: Mapping[str, Evidence], options: Mapping[str, Any]) -> Judgement:
    """What a rule says of evidence, checked; it is given those entries of its options that are of these metrics.

    Raises:
        UsageError: For an impossible value of an option.
        PluginError: When the rule fails, or its judgement is none.
    """
    own = {
        option: {name: v for name, v in value.items() if name in evidence} if isinstance(value, Mapping) else value
        for option, value in options.items()
    }
    try:
        return _plain(rule.judge(evidence, **own), evidence)
    except UsageError:
        raise
    except (Exception, SystemExit) as error:
        text = str(error) if isinstance(error, DeepJudgeError) else f"{type(error).__name__}: {error}"
        raise PluginError(f"the rule {rule.name!r} failed: {' '.join(text.split())}") from error


def _plain(judgement: object, evidence: Collection[str]) -> Judgement:
    # Of a rule's numpy numbers and flags, what can stand in a report.
    if not isinstance(judgement, Judgement):
        raise PluginError(f"expected a Judgement, found {type(judgement).__name__}")
    if set(judgement.votes) != set(evidence):
        raise PluginError(f"expected votes for {', '.join(evidence)}, found {', '.join(judgement.votes) or 'none'}")
    decision, p_copy = Decision(judgement.decision), _share("p_copy", judgement.p_copy)
    if decision is Decision.FAILED or (decision is Decision.INCONCLUSIVE and not judgement.reason):
        raise PluginError(f"expected a decision, or inconclusive with a reason, found {decision}")
    votes = {}
    for name, vote in judgement.votes.items():
        if vote.vote is None and not vote.reason:
            raise PluginError(f"expected a reason why {name!r} casts no vote, found none")
        flag = None if vote.vote is None else bool(vote.vote)
        p_value, rate = _share("p_value", vote.p_value), _share("false_positive_rate", vote.false_positive_rate)
        log10_p = _logarithm(vote.log10_p)
        votes[name] = Vote(
            flag, _number(vote.lower_bound), _number(vote.threshold), vote.reason, p_value, rate, log10_p
        )
    p_value, least = _share("p_value", judgement.p_value), _share("least_p_value", judgement.least_p_value)
    if p_value is not None and least is not None and least > p_value:
        raise PluginError(f"expected least_p_value <= p_value, found {least} and {p_value}")
    statement = judgement.statement
    if statement is not None and (not statement.strip() or clean(statement, LONGEST_LINE) != statement):
        raise PluginError(f"expected a statement on one clean line, found {statement!r}")
    log10_p = _logarithm(judgement.log10_p)
    return Judgement(decision, p_copy, votes, judgement.reason, p_value, least, statement, log10_p)


def _logarithm(value: float | None) -> float | None:
    number = _number(value)
    if number is not None and number > 0:
        raise PluginError(f"expected log10_p of at most 0, found {number}")
    return number


def _share(what: str, value: float | None) -> float | None:
    number = _number(value)
    if number is not None and not 0 <= number <= 1:
        raise PluginError(f"expected {what} within 0..1, found {number}")
    return number


def _number(value: float | None) -> float | None:
    number = None if value is None else float(value)
    if number is not None and not math.isfinite(number):
        raise PluginError(f"expected finite numbers, found {number}")
    return number
