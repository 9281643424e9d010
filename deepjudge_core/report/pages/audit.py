"""The report of an audit, as a page: the answer first, then all that it rests on."""

from deepjudge_core.report.documents import AuditReport
from deepjudge_core.report.pages.answer import answer_section, drawn_section, lead, question
from deepjudge_core.report.pages.compared import compared_section, layers_section
from deepjudge_core.report.pages.distances import distances_section
from deepjudge_core.report.pages.document import Commands, Name, Page, Paragraph, Section
from deepjudge_core.report.pages.keys import keys_section
from deepjudge_core.report.pages.listing import labels_of, names_of
from deepjudge_core.report.pages.parts import base, foot, kept_under
from deepjudge_core.report.pages.reproducing import commands
from deepjudge_core.report.pages.suspects import findings_section, suspect_sections
from deepjudge_core.report.pages.unmeasured import skipped_section, unmeasured_section


def audit_page(report: AuditReport) -> Page:
    """The page of an audit's report."""
    sections = [
        answer_section(report),
        *drawn_section(report),
        *keys_section(report, names_of(report), labels_of(report)),
        *distances_section(report),
        *suspect_sections(report),
        *findings_section(report),
        compared_section(report),
        *layers_section(report),
        *unmeasured_section(report),
        *skipped_section(report),
        _reproduce(report),
    ]
    return Page(
        title=question(report),
        lead=lead(report),
        sections=sections,
        foot=foot(report),
        facts=[("Victim, perhaps copied", Name(base(report.victim.path))), *kept_under(report)],
    )


def _reproduce(report: AuditReport) -> Section:
    return Section(
        "How to make this report again",
        "reproduce",
        [
            Paragraph(
                "Words in capitals are not recorded in this report. The same versions on the same machine give the "
                "same numbers; others may differ in the last digits."
            ),
            Commands(commands(report)),
            Paragraph("If this report came in the folder of an audit (a bundle), this checks it without any model:"),
            Commands(["deepjudge verify DIR"]),
        ],
    )
