"""Many suspects judged by the same controls: the false discovery rate over all of them, by Benjamini & Hochberg.

Each suspect is judged by the rule as if it were the only one, but at the level that the others leave it: the
procedure calls a suspect a copy where its p-value is at most that. So votes, thresholds, reasons and statements are the
rule's own, at the level that decides.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from deepjudge_core.components.kinds import Rule
from deepjudge_core.components.values import Decision
from deepjudge_core.errors import PluginError, UsageError
from deepjudge_core.judging.rules import expect_p_values
from deepjudge_core.judging.verdict import Setting, Verdict
from deepjudge_core.types import Array

# 1 / 150 is 0.05 * 2 / 15, whatever floats make of it: p-values that are ranks are often just at a cut.
_ROUNDING = 1 + 1e-12


@dataclass(frozen=True)
class FdrResult:
    """One suspect among the others.

    Attributes:
        p_value: Of the suspect: the smallest of its settings, times their number (Bonferroni's correction), 0..1; 1
            where the rule, at the level that would decide, has nothing to say.
        q_value: The least false discovery rate at which it would be called a copy (the adjusted p-value), 0..1.
        level: What the others leave it: it is called a copy where its p-value is at most this.
    """

    p_value: float
    q_value: float
    level: float

    @property
    def rejected(self) -> bool:
        """Whether the hypothesis that it is honest is rejected."""
        return self.p_value <= self.level


@dataclass(frozen=True)
class Fleet:
    """All suspects of an audit together.

    Attributes:
        fdr: The false discovery rate: the expected share, at most, of honest models among those called copies.
        suspects: Of each its result, in the order given; None of those that cannot be tested.
    """

    fdr: float
    suspects: tuple[FdrResult | None, ...]

    @property
    def tested(self) -> int:
        """How many suspects are tested."""
        return sum(result is not None for result in self.suspects)

    @property
    def rejected(self) -> int:
        """How many of them are called copies."""
        return sum(result is not None and result.rejected for result in self.suspects)

    @property
    def cut(self) -> float:
        """The greatest p-value that is called a copy; 0 where none is."""
        return max((result.p_value for result in self.suspects if result and result.rejected), default=0.0)


def check_fdr(fdr: float, rule: Rule, options: Mapping[str, Any], chosen: Collection[str]) -> None:
    """Refuse a false discovery rate that is none, and a rule that it cannot be had with.

    Args:
        fdr: The rate.
        rule: The rule.
        options: All of its options.
        chosen: Names of those that the caller chose.

    Raises:
        UsageError: Saying what would do.
    """
    if not 0 < fdr < 1:
        raise UsageError(f"expected 0 < fdr < 1, found {fdr}", code="wrong-value")
    expect_p_values(rule, options, "for a false discovery rate over all suspects")
    if "level" in chosen:
        raise UsageError(
            f"{rule.name}: expected either a level or a false discovery rate, found both; the rate "
            "determines the levels",
            code="conflict",
        )


def judge_fleet(
    suspects: Sequence[Callable[[float], Verdict] | None], fdr: float
) -> tuple[tuple[Verdict | None, ...], Fleet]:
    """Judge suspects so that of those called copies a share of at most ``fdr`` is expected to be honest.

    The step-up procedure (Benjamini & Hochberg, JRSS B, 1995). It holds for independent p-values and for such as are
    positively dependent on each of the honest ones' (Benjamini & Yekutieli, Annals of Statistics, 2001).

    Args:
        suspects: Of each what judges it at a level of the rule; None of those that cannot be judged.
        fdr: The rate, 0..1.

    Returns:
        The verdicts, and what they rest on.

    Raises:
        PluginError: When the rule calls a suspect a copy whose p-value says otherwise.
    """
    # What cannot be found at the greatest level that there can be is no hypothesis: it never could be found.
    widest = [judge(fdr) if judge else None for judge in suspects]
    p_values = [_p_value(verdict) if verdict else None for verdict in widest]
    while True:
        fleet = Fleet(fdr, _test([None if p is None else p.value for p in p_values], fdr))
        count = fleet.tested
        verdicts, withdrawn = list(widest), []
        for place, (judge, p, tested) in enumerate(zip(suspects, p_values, fleet.suspects, strict=True)):
            if judge and p and tested:
                level = tested.level / p.settings
                verdicts[place] = again = _with_level(judge(level), level, count, fdr)
                if tested.rejected and again.decision is not Decision.COPY:
                    withdrawn.append((place, p))
        if not withdrawn:
            break
        # At its level the rule says nothing of it after all, so that it must not make room for others.
        for place, p in withdrawn:
            p_values[place] = replace(p, value=1.0)
    for verdict, tested in zip(verdicts, fleet.suspects, strict=True):
        if verdict and verdict.decision is Decision.COPY and not (tested and tested.rejected):
            raise PluginError("expected a rule that calls copies by their p-values and its level alone, found another")
    return tuple(verdicts), fleet


@dataclass(frozen=True)
class _P:
    # Of a suspect, and the number of settings that it is of.
    value: float
    settings: int


def _p_value(verdict: Verdict) -> _P | None:
    settings = [setting for name, setting in verdict.settings.items() if _can_accuse(verdict, name, setting)]
    values = [setting.p_value for setting in settings if setting.p_value is not None]
    return _P(min(1.0, len(values) * min(values)), len(values)) if values else None


def _can_accuse(verdict: Verdict, name: str, setting: Setting) -> bool:
    # Whatever the p-value: this depends on what could be measured and on the controls. Of answers that are not steady
    # a small p-value counts, a great one says nothing.
    votes = [metric.vote for metric in verdict.metrics.values() if name in ("joint", metric.group)]
    tested = sum(vote.vote is not None or vote.log10_p is not None for vote in votes)
    return setting.p_value is not None and 2 * tested >= len(votes)


def _test(p_values: Sequence[float | None], fdr: float) -> tuple[FdrResult | None, ...]:
    # Late: what opens strangers' models does without it.
    from scipy.stats import false_discovery_control

    places = [place for place, p in enumerate(p_values) if p is not None]
    values = np.array([p for p in p_values if p is not None])
    tested: list[FdrResult | None] = [None] * len(p_values)
    if len(values):
        adjusted = false_discovery_control(values, method="bh")
        for place, p, q, level in zip(places, values, adjusted, _levels(values, fdr), strict=True):
            tested[place] = FdrResult(float(p), float(q), float(level))
    return tuple(tested)


def _levels(p_values: Array, fdr: float) -> Array:
    # A suspect is rejected just where its p-value is at most the cut that there would be if it were 0. In their order
    # those before it would then stand one place further down, and those behind it where they do.
    order, count = np.argsort(p_values), len(p_values)
    ordered = p_values[order]
    cuts = fdr * np.arange(1, count + 1) / count * _ROUNDING
    places = np.arange(count)
    rejected = np.where(ordered <= cuts, places, 0).max()
    moved = np.maximum.accumulate(np.where([0.0, *ordered[:-1]] <= cuts, places, 0))
    levels = np.empty(count)
    levels[order] = cuts[np.maximum(moved, rejected)]
    return levels


def _with_level(verdict: Verdict, level: float, tested: int, fdr: float) -> Verdict:
    # A statement says at what level the rule accuses; here is said where that comes from.
    origin = (
        f"the level of {100 * level:.3g} % is this suspect's share, among {tested} suspects "
        f"tested, of a false discovery rate of {100 * fdr:.3g} %"
    )
    settings = {
        name: replace(setting, statement=setting.statement and f"{setting.statement}; {origin}")
        for name, setting in verdict.settings.items()
    }
    return replace(verdict, settings=settings)
