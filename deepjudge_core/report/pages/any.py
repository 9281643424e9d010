"""Any of the reports, as a page."""

from dataclasses import dataclass, replace

from deepjudge_core.report.documents import AnyReport, AuditReport
from deepjudge_core.report.pages.audit import audit_page
from deepjudge_core.report.pages.document import Line, Name, Page
from deepjudge_core.report.pages.power import power_page


@dataclass(frozen=True)
class Seal:
    """The bundle that a page belongs to.

    Attributes:
        manifest: SHA-256 of its manifest, in hex.
        signed_by: The public key that signs the manifest, in hex; None if nobody does.
    """

    manifest: str
    signed_by: str | None


def page_of(report: AnyReport, seal: Seal | None = None) -> Page:
    """The page of a report.

    Args:
        report: The report.
        seal: The bundle that holds it; None for a report that belongs to none.
    """
    if not isinstance(report, AuditReport):
        return power_page(report)
    page = audit_page(report)
    return replace(page, notice=_ALONE) if seal is None else replace(page, foot=(_sealed(seal), *page.foot))


_ALONE = (
    "This page is no evidence. It was made from a report alone and belongs to no bundle, so it cannot be checked, and "
    "anyone who had the report could change it."
)


def _sealed(seal: Seal) -> Line:
    signer = (", signed with the key ", Name(seal.signed_by)) if seal.signed_by else (", which nobody signed",)
    return (
        "This page is no evidence itself. It shows the report of the bundle whose manifest has the SHA-256 ",
        Name(seal.manifest),
        *signer,
        ". ",
        Name("deepjudge verify DIR --page FILE"),
        " checks the bundle, and whether this page is the page of its report.",
    )
