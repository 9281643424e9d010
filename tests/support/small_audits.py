"""Outcomes of small audits, which become files and pages."""

from typing import Any

import toys

from deepjudge_core import AuditOutcome, JudgeSettings

COPY, INDEPENDENT = toys.make_model(noise=0.05), toys.make_model(9)


def report(suspects: Any, controls: int = 4, **settings: Any) -> AuditOutcome:
    """Judge suspects of the toys' victim, beside so many controls."""
    judge_by = JudgeSettings(**({"rule": "nearest"} | settings))
    return toys.outcome(toys.suite(), toys.calibration(controls), suspects, judge_by, registry=toys.registry())
