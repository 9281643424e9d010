"""Reports of small audits, as the objects that become files and pages."""

from typing import Any

import toys

from deepjudge_core import JudgeSettings, Report
from deepjudge_core.auditing.audit import judge_suspects

COPY, INDEPENDENT = toys.make_model(noise=0.05), toys.make_model(9)


def report(suspects: Any, controls: int = 4, **judging: Any) -> Report:
    """Judge suspects of the toys' victim, beside so many controls."""
    judging = {"rule": "nearest"} | judging
    return judge_suspects(
        toys.suite(), toys.calibration(controls), suspects, JudgeSettings(**judging), registry=toys.registry()
    )
