"""What every rule must keep."""

import dataclasses
import re
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from deepjudge_core.components.kinds import Rule
from deepjudge_core.components.options import resolve
from deepjudge_core.components.strata import Stratum
from deepjudge_core.components.values import Decision, Evidence, Judgement
from deepjudge_core.testing.expect import expect, expect_options
from deepjudge_core.text import LONGEST_LINE, clean
from deepjudge_core.types import Array

# Metrics in different units: name to the size of their values.
_UNITS = {"first": 1.0, "second": 40.0, "third": 0.02}
_CONTROLS = (3, 12)
_STRATA: tuple[Stratum, ...] = ("same-data", "other-data")
_RANKS = {Decision.COPY: 0, Decision.INCONCLUSIVE: 1, Decision.INDEPENDENT: 2}


def check_rule(rule: Rule, *, options: Mapping[str, Any] | None = None, controls: Collection[int] = _CONTROLS) -> None:
    """Check a rule, on evidence of one to three metrics with 3 or 12 controls, and with other numbers of them.

    Args:
        rule: The rule.
        options: Its options; its defaults otherwise.
        controls: Numbers of controls with which it has to tell a copy from an honest model. With those it need not that
            are not among them, everything else is checked.

    Raises:
        AssertionError: Saying what was expected and what was found.
    """
    name, given = rule.name, options or {}
    expect(re.fullmatch(r"[a-z0-9][a-z0-9._-]*", name), f"expected a name in lower case without spaces, found {name!r}")
    expect_options(name, rule.judge, given=1)
    for n in sorted({*_CONTROLS, *controls}):
        for metrics in (1, 2, 3):
            values = dict(list(_controls(n).items())[:metrics])
            label = f"{name}: {metrics} metrics, {n} controls"
            copy, honest = (_judge(rule, given, _evidence(values, share)) for share in (0.0, 1.0))
            if n in controls:
                expect(copy.decision is Decision.COPY, f"{label}: expected copy at values of 0, found {copy.decision}")
                expect(
                    honest.decision is Decision.INDEPENDENT,
                    f"{label}: expected independent at values such as the controls', found {honest.decision}",
                )
            first, *rest = values
            mixed = _evidence({first: values[first]}, 0.0) | _evidence({name: values[name] for name in rest}, 1.0)
            for evidence in (_evidence(values, 0.5), mixed):
                _check_order(f"{label}: in another order", rule, given, evidence)
                _check_order(f"{label}: in two strata, in another order", rule, given, _divided(evidence))
            _check_silence(label, rule, given, values)
            _check_monotony(label, rule, given, values)


def _divided(evidence: Mapping[str, Evidence]) -> dict[str, Evidence]:
    """The same with every other control of another stratum."""
    return {
        name: dataclasses.replace(
            e,
            strata=tuple(_STRATA[i % 2] for i in range(len(e.controls))),
            places=tuple(range(len(e.controls))),
        )
        for name, e in evidence.items()
    }


def _check_order(label: str, rule: Rule, options: Mapping[str, Any], evidence: Mapping[str, Evidence]) -> None:
    one = _judge(rule, options, evidence)
    turned = {
        name: dataclasses.replace(e, controls=e.controls[::-1].copy(), strata=e.strata[::-1], places=e.places[::-1])
        for name, e in reversed(list(evidence.items()))
    }
    other = _judge(rule, options, turned)
    votes = [{name: vote.vote for name, vote in judgement.votes.items()} for judgement in (one, other)]
    expect(one.decision is other.decision, f"{label}: expected {one.decision}, found {other.decision}")
    expect(votes[0] == votes[1], f"{label}: expected the votes {votes[0]}, found {votes[1]}")
    same = one.p_value == other.p_value or np.isclose(one.p_value or 0, other.p_value or 0)
    expect(bool(same), f"{label}: expected p_value {one.p_value}, found {other.p_value}")


def _check_silence(label: str, rule: Rule, options: Mapping[str, Any], controls: Mapping[str, Array]) -> None:
    """Controls that are as near as a copy say nothing, and nothing is no evidence of a copy."""
    silent = {name: Evidence(0.0, np.zeros_like(values), 0.9) for name, values in controls.items()}
    found = _judge(rule, options, silent)
    expect(found.decision is not Decision.COPY, f"{label}: expected no copy where all controls are 0, found one")
    first, *rest = controls
    if rest:
        mixed = {first: silent[first], **_evidence({name: controls[name] for name in rest}, 1.0)}
        found = _judge(rule, options, mixed)
        expect(
            found.decision is not Decision.COPY,
            f"{label}: expected no copy by one metric whose controls are all 0, found one",
        )


def _check_monotony(label: str, rule: Rule, options: Mapping[str, Any], controls: Mapping[str, Array]) -> None:
    """A greater value, of one metric or of all, never makes a suspect more of a copy."""
    shares = np.linspace(0, 1.5, 16)
    paths = [[_evidence(controls, share) for share in shares]]
    for moving in controls:
        for others in (0.0, 1.0):
            fixed = _evidence(controls, others)
            paths.append([fixed | _evidence({moving: controls[moving]}, share) for share in shares])
    for path in paths:
        nearer = _judge(rule, options, path[0])
        for evidence in path[1:]:
            farther = _judge(rule, options, evidence)
            at = "at values " + ", ".join(f"{e.value:.3g}" for e in evidence.values())
            expect(
                _RANKS[nearer.decision] <= _RANKS[farther.decision],
                f"{label}: turns from {nearer.decision} to {farther.decision} {at}, one of them greater",
            )
            if nearer.p_copy is not None and farther.p_copy is not None:
                expect(
                    nearer.p_copy >= farther.p_copy,
                    f"{label}: p_copy grows from {nearer.p_copy:.3g} to {farther.p_copy:.3g} {at}",
                )
            if nearer.p_value is not None and farther.p_value is not None:
                expect(
                    nearer.p_value <= farther.p_value,
                    f"{label}: p_value falls from {nearer.p_value:.3g} to {farther.p_value:.3g} {at}",
                )
            nearer = farther


def _judge(rule: Rule, options: Mapping[str, Any], evidence: Mapping[str, Evidence]) -> Judgement:
    """The judgement, which is one, and made without leaving traces."""
    before = {name: e.controls.copy() for name, e in evidence.items()}
    found: Judgement = rule.judge(evidence, **options)
    again = rule.judge(evidence, **options)
    expect(
        list(before) == list(evidence) and all(np.array_equal(before[n], e.controls) for n, e in evidence.items()),
        f"{rule.name}: changed the evidence that it was given",
    )
    expect(isinstance(found, Judgement), f"{rule.name}: expected a Judgement, found a {type(found).__name__}")
    expect(found.decision in _RANKS, f"{rule.name}: expected one of {', '.join(_RANKS)}, found {found.decision!r}")
    expect(
        set(found.votes) == set(evidence),
        f"{rule.name}: expected a vote of each of {', '.join(evidence)}, found {', '.join(found.votes) or 'none'}",
    )
    expect(
        found.p_copy is None or 0 <= found.p_copy <= 1,
        f"{rule.name}: expected p_copy within 0..1, found {found.p_copy}",
    )
    expect(
        found.decision is not Decision.INCONCLUSIVE or found.reason, f"{rule.name}: is inconclusive without a reason"
    )
    _check_shares(rule.name, "p_value", found.p_value, found.least_p_value)
    _check_level(rule, options, found)
    expect(
        found.p_value is None or found.least_p_value is None or found.least_p_value <= found.p_value,
        f"{rule.name}: expected least_p_value <= p_value, found {found.least_p_value} and {found.p_value}",
    )
    expect(
        bool(found.statement) or found.decision is Decision.INCONCLUSIVE,
        f"{rule.name}: expected a statement of its decision, found none",
    )
    expect(
        found.statement is None or clean(found.statement, LONGEST_LINE) == found.statement,
        f"{rule.name}: expected a statement of one clean line, found {found.statement!r}",
    )
    for metric, vote in found.votes.items():
        expect(vote.vote is not None or vote.reason, f"{rule.name}: {metric} casts no vote without a reason")
        _check_shares(rule.name, f"p_value or rate of {metric}", vote.p_value, vote.false_positive_rate)
        value, threshold = evidence[metric].value, vote.threshold
        expect(
            vote.vote is None or threshold is None or vote.vote == (value <= threshold),
            f"{rule.name}: expected {metric} to vote copy where its value is at most its threshold, found the vote "
            f"{vote.vote} at the value {value:.3g} and the threshold {threshold}",
        )
    expect(found == again, f"{rule.name}: judges the same evidence otherwise the second time")
    return found


def _check_level(rule: Rule, options: Mapping[str, Any], found: Judgement) -> None:
    """A rule with p-values and a level goes by them: so a false discovery rate can be had with it."""
    level = resolve(rule.name, rule.judge, options).get("level")
    if level is None or found.p_value is None or found.decision is Decision.INCONCLUSIVE:
        return
    copy = found.p_value <= level
    expect(
        (found.decision is Decision.COPY) == copy,
        f"{rule.name}: expected {'copy' if copy else 'no copy'} at the p-value {found.p_value:.3g}, found "
        f"{found.decision}",
    )


def _check_shares(rule: str, what: str, *shares: float | None) -> None:
    for share in shares:
        expect(share is None or 0 <= share <= 1, f"{rule}: expected {what} within 0..1, found {share}")


def _controls(n: int) -> dict[str, Array]:
    rng = np.random.default_rng(n)
    return {name: unit * rng.normal(1, 0.02, n) for name, unit in _UNITS.items()}


def _evidence(controls: Mapping[str, Array], share: float) -> dict[str, Evidence]:
    """Values that are a share of the middle of the controls'."""
    return {name: Evidence(share * float(np.median(values)), values, 0.9) for name, values in controls.items()}
