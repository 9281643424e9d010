"""Any of the reports, as a page."""

from deepjudge_core.report.documents import AnyReport, AuditReport
from deepjudge_core.report.pages.audit import audit_page
from deepjudge_core.report.pages.document import Page
from deepjudge_core.report.pages.power import power_page


def page_of(report: AnyReport) -> Page:
    """The page of a report."""
    return audit_page(report) if isinstance(report, AuditReport) else power_page(report)
