"""The page of an audit, or of an estimate of power, from the values themselves."""

from deepjudge_core.auditing.outcome import AuditOutcome
from deepjudge_core.auditing.power import PowerEstimate
from deepjudge_core.report.audit_json import audit_report
from deepjudge_core.report.html import render_html
from deepjudge_core.report.power_json import power_report


def page_of_outcome(outcome: AuditOutcome | PowerEstimate) -> str:
    """The HTML that the command line writes of it."""
    report = power_report(outcome) if isinstance(outcome, PowerEstimate) else audit_report(outcome)
    return render_html(report).decode()
