"""How an audit is made, from the suite to the verdicts."""

from dataclasses import dataclass, field

from deepjudge_core.judging.judge import Judge
from deepjudge_core.judging.settings import CalibrationSettings, JudgeSettings
from deepjudge_core.suites.settings import SuiteSettings


@dataclass(frozen=True, eq=False)
class AuditSettings:
    """All that is said of an audit in one go but its models and inputs.

    Attributes:
        suite: How the suite is made.
        calibration: How controls are measured.
        judge: How suspects are measured and judged; or the judge, where the names were looked up before.
    """

    suite: SuiteSettings = field(default_factory=SuiteSettings)
    calibration: CalibrationSettings = field(default_factory=CalibrationSettings)
    judge: JudgeSettings | Judge = field(default_factory=JudgeSettings)
