"""What every rule must keep."""

import copy
import dataclasses
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from deepjudge_core.components.kinds import Rule
from deepjudge_core.components.options import resolve
from deepjudge_core.components.strata import Stratum
from deepjudge_core.components.values import Chance, Decision, Evidence, Judgement
from deepjudge_core.testing.checks import Checks, expect_name, run
from deepjudge_core.testing.expect import expect, expect_options
from deepjudge_core.text import LONGEST_LINE, clean
from deepjudge_core.types import Array

# Metrics in different units: name to the size of their values.
_UNITS = {"first": 1.0, "second": 40.0, "third": 0.02}
_CONTROLS = (3, 12)
_STRATA: tuple[Stratum, ...] = ("same-data", "other-data")
_RANKS = {Decision.COPY: 0, Decision.INCONCLUSIVE: 1, Decision.INDEPENDENT: 2}

Case = Mapping[str, Evidence]


def check_rule(rule: Rule, *, options: Mapping[str, Any] | None = None, controls: Collection[int] = _CONTROLS) -> None:
    """Run all of :func:`rule_checks`, up to the first that fails.

    Raises:
        AssertionError: Saying what was expected and what was found.
    """
    run(rule_checks(rule, options=options, controls=controls))


def rule_checks(
    rule: Rule, *, options: Mapping[str, Any] | None = None, controls: Collection[int] = _CONTROLS
) -> Checks:
    """What a rule must keep, on evidence of one to three metrics with 3 or 12 controls, and other numbers of them.

    Args:
        rule: The rule.
        options: Its options; its defaults otherwise.
        controls: Numbers of controls with which it has to tell a copy from an honest model. With those it need not that
            are not among them, everything else is checked. A rule that needs no controls has to tell by the chances
            that metrics give themselves instead.
    """
    trial = _Trial(rule, options or {}, controls)
    yield "name", partial(expect_name, rule.name)
    yield "options", partial(expect_options, rule.name, rule.judge, positional=1)
    yield "leaves-evidence", trial.check_leaves_evidence
    yield "repeatable", trial.check_repeatable
    yield "confidence", trial.check_confidence
    yield "votes", trial.check_votes
    yield "reasons", trial.check_reasons
    yield "statement", trial.check_statement
    yield "p-values", trial.check_p_values
    yield "level", trial.check_level
    yield "copies", trial.check_copies
    yield "independents", trial.check_independents
    yield "order", trial.check_order
    yield "silence", trial.check_silence
    yield "monotony", trial.check_monotony
    yield "without-controls", trial.check_without_controls


class _Trial:
    """One rule on made-up evidence. It is handed copies of it, so that checks are independent."""

    def __init__(self, rule: Rule, options: Mapping[str, Any], controls: Collection[int]) -> None:
        self.rule, self.options = rule, options
        self.controls = controls if rule.needs_controls else ()
        self._judgements: dict[int, tuple[Case, Judgement]] = {}
        self._settings = [_Setting(n, metrics) for n in sorted({*_CONTROLS, *controls}) for metrics in (1, 2, 3)]

    def _label(self, setting: "_Setting") -> str:
        return f"{self.rule.name}: {setting.metrics} metrics, {setting.n} controls"

    def _judge(self, case: Case) -> Judgement:
        """The judgement, which is one; of the same evidence the one from before."""
        if id(case) not in self._judgements:
            self._judgements[id(case)] = case, self._judge_anew(copy.deepcopy(case))
        return self._judgements[id(case)][1]

    def _judge_anew(self, case: Case) -> Judgement:
        name = self.rule.name
        judgement: Judgement = self.rule.judge(case, **self.options)
        expect(isinstance(judgement, Judgement), f"{name}: expected a Judgement, found a {type(judgement).__name__}")
        expect(
            judgement.decision in _RANKS, f"{name}: expected one of {', '.join(_RANKS)}, found {judgement.decision!r}"
        )
        return judgement

    def _cases(self) -> Iterator[Case]:
        for setting in self._settings:
            yield from setting.cases

    def check_leaves_evidence(self) -> None:
        for case in self._cases():
            lent = copy.deepcopy(dict(case))
            self._judge_anew(lent)
            expect(
                list(case) == list(lent)
                and all(np.array_equal(case[name].controls, e.controls) for name, e in lent.items()),
                f"{self.rule.name}: changed the evidence that it was given",
            )

    def check_repeatable(self) -> None:
        for case in self._cases():
            expect(
                self._judge(case) == self._judge_anew(copy.deepcopy(case)),
                f"{self.rule.name}: judges the same evidence differently the second time",
            )

    def check_confidence(self) -> None:
        for case in self._cases():
            p_copy = self._judge(case).p_copy
            expect(p_copy is None or 0 <= p_copy <= 1, f"{self.rule.name}: expected p_copy within 0..1, found {p_copy}")

    def check_votes(self) -> None:
        name = self.rule.name
        for case in self._cases():
            votes = self._judge(case).votes
            expect(
                set(votes) == set(case),
                f"{name}: expected a vote from each of {', '.join(case)}, found {', '.join(votes) or 'none'}",
            )
            for metric, vote in votes.items():
                value, threshold = case[metric].value, vote.threshold
                expect(
                    vote.vote is None or threshold is None or vote.vote == (value <= threshold),
                    f"{name}: expected {metric} to vote copy if its value is at most its threshold, found the "
                    f"vote {vote.vote} at the value {value:.3g} and the threshold {threshold}",
                )

    def check_reasons(self) -> None:
        for case in self._cases():
            judgement = self._judge(case)
            expect(
                judgement.decision is not Decision.INCONCLUSIVE or judgement.reason,
                f"{self.rule.name}: is inconclusive without a reason",
            )
            for metric, vote in judgement.votes.items():
                expect(
                    vote.vote is not None or vote.reason, f"{self.rule.name}: {metric} casts no vote without a reason"
                )

    def check_statement(self) -> None:
        for case in self._cases():
            judgement = self._judge(case)
            statement = judgement.statement
            expect(
                bool(statement) or judgement.decision is Decision.INCONCLUSIVE,
                f"{self.rule.name}: expected a statement of its decision, found none",
            )
            expect(
                statement is None or clean(statement, LONGEST_LINE) == statement,
                f"{self.rule.name}: expected a statement on one clean line, found {statement!r}",
            )

    def check_p_values(self) -> None:
        name = self.rule.name
        for case in self._cases():
            judgement = self._judge(case)
            p, least = judgement.p_value, judgement.least_p_value
            _check_shares(name, "p_value", p, least)
            expect(
                p is None or least is None or least <= p,
                f"{name}: expected least_p_value <= p_value, found {least} and {p}",
            )
            for metric, vote in judgement.votes.items():
                _check_shares(name, f"p_value or rate of {metric}", vote.p_value, vote.false_positive_rate)

    def check_level(self) -> None:
        """A rule with p-values and a level goes by them: so a false discovery rate can be had with it."""
        level = resolve(self.rule.name, self.rule.judge, self.options).get("level")
        if level is None:
            return
        for case in self._cases():
            judgement = self._judge(case)
            if judgement.p_value is None or judgement.decision is Decision.INCONCLUSIVE:
                continue
            is_copy = judgement.p_value <= level
            expect(
                (judgement.decision is Decision.COPY) == is_copy,
                f"{self.rule.name}: expected {'copy' if is_copy else 'no copy'} at the p-value "
                f"{judgement.p_value:.3g}, found {judgement.decision}",
            )

    def check_copies(self) -> None:
        for setting in self._settings:
            decision = self._judge(setting.nearest).decision
            expect(
                decision is Decision.COPY or setting.n not in self.controls,
                f"{self._label(setting)}: expected copy at values of 0, found {decision}",
            )

    def check_independents(self) -> None:
        for setting in self._settings:
            decision = self._judge(setting.honest).decision
            expect(
                decision is Decision.INDEPENDENT or setting.n not in self.controls,
                f"{self._label(setting)}: expected independent at values like the controls', found {decision}",
            )

    def check_order(self) -> None:
        for setting in self._settings:
            for what, case, other in setting.turned:
                label = f"{self._label(setting)}: {what}"
                straight, turned = self._judge(case), self._judge(other)
                expect(
                    straight.decision is turned.decision,
                    f"{label}: expected {straight.decision}, found {turned.decision}",
                )
                votes = [{name: vote.vote for name, vote in each.votes.items()} for each in (straight, turned)]
                expect(votes[0] == votes[1], f"{label}: expected the votes {votes[0]}, found {votes[1]}")
                p, p_turned = straight.p_value, turned.p_value
                same = p == p_turned or np.isclose(p or 0, p_turned or 0)
                expect(bool(same), f"{label}: expected p_value {p}, found {p_turned}")

    def check_silence(self) -> None:
        """Controls that are as near as a copy say nothing, and nothing is no evidence of a copy."""
        for setting in self._settings:
            decision = self._judge(setting.silent).decision
            expect(
                decision is not Decision.COPY,
                f"{self._label(setting)}: expected no copy if all controls are 0, found one",
            )
            if setting.one_silent is not None:
                decision = self._judge(setting.one_silent).decision
                expect(
                    decision is not Decision.COPY,
                    f"{self._label(setting)}: expected no copy by one metric whose controls are all 0, found one",
                )

    def check_monotony(self) -> None:
        """A greater value, of one metric or of all, never makes a suspect more of a copy."""
        for setting in self._settings:
            label = self._label(setting)
            for path in setting.paths:
                nearer = self._judge(path[0])
                for case in path[1:]:
                    farther = self._judge(case)
                    at = "at values " + ", ".join(f"{e.value:.3g}" for e in case.values())
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

    def check_without_controls(self) -> None:
        """A rule that needs no controls goes by the chances of metrics; one that chance explains accuses nobody."""
        if self.rule.needs_controls:
            return
        for count in (1, 2, 3):
            for log10_p, is_copy in ((0.0, False), (-400.0, True)):
                chance = Chance(log10_p, -400.0, "the order agrees")
                case = {name: Evidence(0.5, np.zeros(0), 0.9, chance=chance) for name in list(_UNITS)[:count]}
                judgement = self._judge(case)
                expect(
                    (judgement.decision is Decision.COPY) is is_copy,
                    f"{self.rule.name}: expected {'copy' if is_copy else 'no copy'} at p-values of 1e{log10_p:g} and "
                    f"without controls, found {judgement.decision}",
                )
                expect(
                    set(judgement.votes) == set(case),
                    f"{self.rule.name}: expected a vote from each metric without controls, found others",
                )


class _Setting:
    """All evidence of one number of controls and one of metrics.

    Attributes:
        n, metrics: Those numbers.
        nearest, honest: Values of 0, and such as the controls'.
        silent, one_silent: Controls of all metrics at 0; of one of several.
        turned: What was turned, evidence, and the same in another order.
        paths: Ways from values of 0 to such as lie beyond the controls', of all metrics or of one.
    """

    def __init__(self, n: int, metrics: int) -> None:
        self.n, self.metrics = n, metrics
        controls = dict(list(_controls(n).items())[:metrics])
        self.nearest, self.honest = _evidence(controls, 0.0), _evidence(controls, 1.0)
        first, *rest = controls
        others = {name: controls[name] for name in rest}
        self.silent = {name: Evidence(0.0, np.zeros_like(values), 0.9) for name, values in controls.items()}
        self.one_silent = {first: self.silent[first], **_evidence(others, 1.0)} if rest else None
        mixed = _evidence({first: controls[first]}, 0.0) | _evidence(others, 1.0)
        self.turned: list[tuple[str, Case, Case]] = []
        for case in (_evidence(controls, 0.5), mixed):
            divided = _divided(case)
            self.turned.append(("in another order", case, _turned(case)))
            self.turned.append(("in two strata, in another order", divided, _turned(divided)))
        shares = np.linspace(0, 1.5, 16)
        self.paths: list[list[Case]] = [[_evidence(controls, share) for share in shares]]
        for moving, values in controls.items():
            for place in (0.0, 1.0):
                fixed = _evidence(controls, place)
                self.paths.append([fixed | _evidence({moving: values}, share) for share in shares])

    @property
    def cases(self) -> Iterator[Case]:
        """All of it."""
        yield from (self.nearest, self.honest, self.silent)
        if self.one_silent is not None:
            yield self.one_silent
        for _, *both in self.turned:
            yield from both
        for path in self.paths:
            yield from path


def _divided(case: Case) -> Case:
    """The same with every other control of another stratum."""
    return {
        name: dataclasses.replace(
            e,
            strata=tuple(_STRATA[i % 2] for i in range(len(e.controls))),
            places=tuple(range(len(e.controls))),
        )
        for name, e in case.items()
    }


def _turned(case: Case) -> Case:
    """The same with metrics and controls in reverse order."""
    return {
        name: dataclasses.replace(e, controls=e.controls[::-1].copy(), strata=e.strata[::-1], places=e.places[::-1])
        for name, e in reversed(list(case.items()))
    }


def _check_shares(rule: str, what: str, *shares: float | None) -> None:
    for share in shares:
        expect(share is None or 0 <= share <= 1, f"{rule}: expected {what} within 0..1, found {share}")


def _controls(n: int) -> dict[str, Array]:
    rng = np.random.default_rng(n)
    return {name: unit * rng.normal(1, 0.02, n) for name, unit in _UNITS.items()}


def _evidence(controls: Mapping[str, Array], share: float) -> dict[str, Evidence]:
    """Values that are a share of the middle of the controls'."""
    return {name: Evidence(share * float(np.median(values)), values, 0.9) for name, values in controls.items()}
