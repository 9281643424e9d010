"""Any of the reports, as a page."""

from typing import Any

from deepjudge_core.report.audit_json import SCHEMA
from deepjudge_core.report.pages.audit import audit_page
from deepjudge_core.report.pages.document import Page
from deepjudge_core.report.pages.power import power_page
from deepjudge_core.report.reading import check_report


def page_of(value: Any) -> Page:
    """The page of a report's JSON values.

    Raises:
        FileFormatError: When they are no report.
    """
    report = check_report(value, "the report")
    return audit_page(report) if report["schema"] == SCHEMA else power_page(report)
