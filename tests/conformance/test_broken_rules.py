"""The contract of rules fails where it should: here it is broken in each way that it is there for."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from contracts import failures

from deepjudge_core import Decision, Evidence, Judgement, Rule, Vote
from deepjudge_core.testing import check_rule, rule_checks


def least(evidence: Mapping[str, Evidence], *, share: float = 0.9) -> Judgement:
    votes = {}
    for name, e in evidence.items():
        limit = share * float(e.controls.min())
        votes[name] = Vote(e.value <= limit) if limit > 0 else Vote(None, reason="a control is at 0")
    cast = [vote.vote for vote in votes.values() if vote.vote is not None]
    if not cast:
        return Judgement(Decision.INCONCLUSIVE, None, votes, "no metric could vote")
    p_copy = float(np.mean(cast))
    decision = Decision.COPY if p_copy > 0.5 else Decision.INDEPENDENT
    return Judgement(decision, p_copy, votes, statement="less than the least")


def decide(evidence: Mapping[str, Evidence], copy: bool) -> Judgement:
    votes = dict.fromkeys(evidence, Vote(copy))
    decision = Decision.COPY if copy else Decision.INDEPENDENT
    return Judgement(decision, float(copy), votes, statement="so it is")


def shares(evidence: Mapping[str, Evidence]) -> list[float]:
    return [e.value / max(float(np.median(e.controls)), 1e-9) for e in evidence.values()]


def ignores_a_metric(evidence: Mapping[str, Evidence]) -> Judgement:
    judgement = least(evidence)
    return dataclasses.replace(judgement, votes=dict(list(judgement.votes.items())[:-1]))


def always_copy(evidence: Mapping[str, Evidence]) -> Judgement:
    return decide(evidence, True)


def always_independent(evidence: Mapping[str, Evidence]) -> Judgement:
    return decide(evidence, False)


def takes_silence_for_a_copy(evidence: Mapping[str, Evidence]) -> Judgement:
    return decide(evidence, all(e.value <= 0.9 * e.controls.min() for e in evidence.values()))


def takes_one_silence_for_a_copy(evidence: Mapping[str, Evidence]) -> Judgement:
    if not any(e.controls.any() for e in evidence.values()):
        return least(evidence)
    return decide(evidence, any(e.value <= 0.9 * e.controls.min() for e in evidence.values()))


def copies_in_between(evidence: Mapping[str, Evidence]) -> Judgement:
    if not all(e.controls.any() for e in evidence.values()):
        return least(evidence)
    return decide(evidence, all(share < 0.3 or 0.5 < share < 0.7 for share in shares(evidence)))


def surer_in_between(evidence: Mapping[str, Evidence]) -> Judgement:
    judgement = least(evidence)
    between = judgement.decision is Decision.COPY and min(shares(evidence)) < 0.3
    return dataclasses.replace(judgement, p_copy=0.6) if between else judgement


def by_the_first_control(evidence: Mapping[str, Evidence]) -> Judgement:
    return least(evidence, share=0.45 if all(e.controls[0] > e.controls[-1] for e in evidence.values()) else 0.55)


def by_the_first_metric(evidence: Mapping[str, Evidence]) -> Judgement:
    first = next(iter(evidence))
    return dataclasses.replace(least({first: evidence[first]}), votes=least(evidence).votes)


def changes_the_controls(evidence: Mapping[str, Evidence]) -> Judgement:
    for e in evidence.values():
        e.controls.sort()
    return least(evidence)


def too_sure(evidence: Mapping[str, Evidence]) -> Judgement:
    return dataclasses.replace(least(evidence), p_copy=1.5)


def fails(evidence: Mapping[str, Evidence]) -> Judgement:
    return dataclasses.replace(least(evidence), decision=Decision.FAILED)


def inconclusive_without_reason(evidence: Mapping[str, Evidence]) -> Judgement:
    return dataclasses.replace(least(evidence), reason=None)


def no_vote_without_reason(evidence: Mapping[str, Evidence]) -> Judgement:
    judgement = least(evidence)
    return dataclasses.replace(judgement, votes={name: Vote(vote.vote) for name, vote in judgement.votes.items()})


def other_judgement_each_time(evidence: Mapping[str, Evidence]) -> Judgement:
    return dataclasses.replace(least(evidence), reason=np.random.bytes(8).hex())  # noqa: NPY002


def no_judgement(evidence: Mapping[str, Evidence]) -> Any:
    return least(evidence).decision


def rule_without_default(evidence: Mapping[str, Evidence], *, share: float) -> Judgement:
    return least(evidence, share=share)


BROKEN_RULES = {
    ignores_a_metric: "expected a vote from each of first, found none",
    always_copy: "expected independent at values like the controls'",
    always_independent: "expected copy at values of 0",
    takes_silence_for_a_copy: "expected no copy if all controls are 0",
    takes_one_silence_for_a_copy: "expected no copy by one metric whose controls are all 0",
    copies_in_between: "turns from independent to copy",
    surer_in_between: "p_copy grows from 0.6 to 1",
    by_the_first_control: "in another order: expected",
    by_the_first_metric: "2 metrics, 3 controls: in another order: expected copy, found independent",
    changes_the_controls: "changed the evidence",
    too_sure: "expected p_copy within 0..1, found 1.5",
    fails: "expected one of copy, inconclusive, independent",
    inconclusive_without_reason: "is inconclusive without a reason",
    no_vote_without_reason: "casts no vote without a reason",
    other_judgement_each_time: "differently the second time",
    no_judgement: "expected a Judgement, found a Decision",
    rule_without_default: "option 'share': expected a default",
}


def grows_surer_with_distance(evidence: Mapping[str, Evidence]) -> Judgement:
    return dataclasses.replace(least(evidence), p_value=1 - min(1.0, min(shares(evidence)) / 2))


def surer_than_can_be(evidence: Mapping[str, Evidence]) -> Judgement:
    return dataclasses.replace(least(evidence), p_value=0.01, least_p_value=0.02)


def no_probability(evidence: Mapping[str, Evidence]) -> Judgement:
    return dataclasses.replace(least(evidence), p_value=1.5)


def says_nothing(evidence: Mapping[str, Evidence]) -> Judgement:
    return dataclasses.replace(least(evidence), statement=None)


def says_it_in_lines(evidence: Mapping[str, Evidence]) -> Judgement:
    return dataclasses.replace(least(evidence), statement="a\nb")


def names_another_threshold(evidence: Mapping[str, Evidence]) -> Judgement:
    judgement = least(evidence)
    votes = {
        name: dataclasses.replace(vote, threshold=evidence[name].value / 2) for name, vote in judgement.votes.items()
    }
    return dataclasses.replace(judgement, votes=votes)


def ignores_its_level(evidence: Mapping[str, Evidence], *, level: float = 0.05) -> Judgement:
    return dataclasses.replace(least(evidence), p_value=2 * level)


BROKEN_RULES |= {
    ignores_its_level: "expected no copy at the p-value 0.1, found copy",
    grows_surer_with_distance: "p_value falls from",
    surer_than_can_be: "expected least_p_value <= p_value, found 0.02 and 0.01",
    no_probability: "expected p_value within 0..1, found 1.5",
    says_nothing: "expected a statement of its decision, found none",
    names_another_threshold: "expected first to vote copy if its value is at most its threshold",
    says_it_in_lines: "expected a statement on one clean line, found 'a.nb'",
}


def accuses_by_chance(evidence: Mapping[str, Evidence]) -> Judgement:
    if all(len(metric.controls) for metric in evidence.values()):
        return least(evidence)
    return Judgement(Decision.COPY, None, {name: Vote(True) for name in evidence}, statement="it is near")


WITHOUT = Rule("broken", accuses_by_chance, needs_controls=False)


def test_the_contract_of_rules_that_need_no_controls_fails() -> None:
    with pytest.raises(AssertionError, match="expected no copy at p-values of 1e0 and without controls, found copy"):
        check_rule(WITHOUT)


def test_a_healthy_rule_keeps_the_contract() -> None:
    check_rule(Rule("least", least))


@pytest.mark.parametrize("broken", BROKEN_RULES, ids=lambda b: b.__name__)
def test_the_contract_of_rules_fails(broken: Callable[..., Judgement]) -> None:
    with pytest.raises(AssertionError, match=BROKEN_RULES[broken]):
        check_rule(Rule("broken", broken))


def test_each_check_of_rules_fails_for_a_rule() -> None:
    idle = {name for name, _ in rule_checks(Rule("least", least))}
    for broken in BROKEN_RULES:
        idle -= failures(rule_checks(Rule("broken", broken))).keys()
    idle -= failures(rule_checks(WITHOUT)).keys()
    assert idle == {"name"}
    assert failures(rule_checks(Rule("My Own", least))).keys() == idle
