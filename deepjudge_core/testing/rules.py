"""What every rule must keep."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from deepjudge_core.components import Decision, Evidence, Judgement, Rule
from deepjudge_core.model import Array
from deepjudge_core.testing.expect import expect, expect_options

# Metrics in different units: name to the size of their values.
_UNITS = {"first": 1.0, "second": 40.0, "third": 0.02}
_RANKS = {Decision.COPY: 0, Decision.INCONCLUSIVE: 1, Decision.INDEPENDENT: 2}


def check_rule(rule: Rule, *, options: Mapping[str, Any] | None = None) -> None:
    """Check a rule, on evidence of one to three metrics with 3 or 12 controls.

    Args:
        rule: The rule.
        options: Its options; its defaults otherwise.

    Raises:
        AssertionError: Saying what was expected and what was found.
    """
    name, given = rule.name, options or {}
    expect(re.fullmatch(r"[a-z0-9][a-z0-9._-]*", name), f"expected a name in lower case without spaces, found {name!r}")
    expect_options(name, rule.judge, given=1)
    for n in (3, 12):
        for metrics in (1, 2, 3):
            controls = dict(list(_controls(n).items())[:metrics])
            label = f"{name}: {metrics} metrics, {n} controls"
            copy = _judge(rule, given, _evidence(controls, 0.0))
            expect(copy.decision is Decision.COPY, f"{label}: expected copy at values of 0, found {copy.decision}")
            honest = _judge(rule, given, _evidence(controls, 1.0))
            expect(
                honest.decision is Decision.INDEPENDENT,
                f"{label}: expected independent at values such as the controls', found {honest.decision}",
            )
            first, *rest = controls
            mixed = _evidence({first: controls[first]}, 0.0) | _evidence({name: controls[name] for name in rest}, 1.0)
            for evidence in (_evidence(controls, 0.5), mixed):
                _check_order(f"{label}: in another order", rule, given, evidence)
            _check_silence(label, rule, given, controls)
            _check_monotony(label, rule, given, controls)


def _check_order(label: str, rule: Rule, options: Mapping[str, Any], evidence: Mapping[str, Evidence]) -> None:
    one = _judge(rule, options, evidence)
    turned = {
        name: dataclasses.replace(e, controls=e.controls[::-1].copy()) for name, e in reversed(list(evidence.items()))
    }
    other = _judge(rule, options, turned)
    votes = [{name: vote.vote for name, vote in judgement.votes.items()} for judgement in (one, other)]
    expect(one.decision is other.decision, f"{label}: expected {one.decision}, found {other.decision}")
    expect(votes[0] == votes[1], f"{label}: expected the votes {votes[0]}, found {votes[1]}")


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
    for metric, vote in found.votes.items():
        expect(vote.vote is not None or vote.reason, f"{rule.name}: {metric} casts no vote without a reason")
    expect(found == again, f"{rule.name}: judges the same evidence otherwise the second time")
    return found


def _controls(n: int) -> dict[str, Array]:
    rng = np.random.default_rng(n)
    return {name: unit * rng.normal(1, 0.02, n) for name, unit in _UNITS.items()}


def _evidence(controls: Mapping[str, Array], share: float) -> dict[str, Evidence]:
    """Values that are a share of the middle of the controls'."""
    return {name: Evidence(share * float(np.median(values)), values, 0.9) for name, values in controls.items()}
