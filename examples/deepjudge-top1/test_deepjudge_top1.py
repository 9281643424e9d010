"""What any metric and any rule must keep, and what is particular to these."""

import numpy as np
from deepjudge_top1 import deepjudge_metrics, deepjudge_rules, top1, unanimous

from deepjudge_core.plugin import Answers, Decision, Evidence
from deepjudge_core.testing import Check, metric_checks, parametrize_with_checks, rule_checks


@parametrize_with_checks((metric.name, metric_checks(metric)) for metric in deepjudge_metrics())
def test_contract_of_metrics(check: Check) -> None:
    check()


@parametrize_with_checks((rule.name, rule_checks(rule)) for rule in deepjudge_rules())
def test_contract_of_rules(check: Check) -> None:
    check()


def test_top1_counts_other_classes() -> None:
    victim = Answers(labels=np.zeros(4), probabilities=np.eye(4))
    suspect = Answers(labels=np.zeros(4), probabilities=np.eye(4)[[0, 1, 3, 2]])
    assert top1(victim, suspect) == 0.5


def test_one_metric_that_votes_against_is_enough() -> None:
    near, far = (Evidence(value, np.array([1.0, 2.0, 3.0]), alpha=0.9) for value in (0.9, 0.91))
    assert unanimous({"a": near, "b": near}).decision is Decision.COPY
    assert unanimous({"a": near, "b": far}).decision is Decision.INDEPENDENT
    assert unanimous({"a": near, "b": far}, alpha=1.0).decision is Decision.COPY


def test_controls_at_the_victim_say_nothing() -> None:
    near, silent = (Evidence(0.0, np.array([least, 2.0, 3.0]), alpha=0.9) for least in (1.0, 0.0))
    judgement = unanimous({"a": near, "b": silent})
    assert judgement.decision is Decision.INCONCLUSIVE
    assert judgement.votes["b"].vote is None
