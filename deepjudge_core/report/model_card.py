"""A section about a report for a model card, in Markdown; made of the report alone.

There is no metadata beside it: what model cards have for evaluations (``model-index``) asks for a dataset and a metric
of a hub's, which a verdict has not, and what they have for origins (``base_model``) is the publisher's to say.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

from msgspec import UNSET

from deepjudge_core.files.documents import Json
from deepjudge_core.report.documents import AuditReport, ControlEntry, SuspectEntry
from deepjudge_core.report.markdown import markdown_of_section
from deepjudge_core.report.pages.document import Bullets, Line, Name, Paragraph, Section
from deepjudge_core.report.pages.wording import SIDES, kind_of, limits, rates, sentence, verdict


def render(report: AuditReport) -> bytes:
    """A report as a file with a section of a model card; equal reports give equal bytes."""
    return markdown_of_section(_card(report)).encode()


def _card(report: AuditReport) -> Section:
    about: list[Line] = [
        ("Reference model: SHA-256 ", Name(report.victim.digest)),
        ("Rule: ", Name(" ".join([report.rule, *_options(report.rule_options)])), f", {_judged(report)}"),
        f"Controls: {_controls(report.calibration.controls)}",
        ("Test cases: SHA-256 ", Name(report.suite.digest)),
    ]
    suspects = [
        Section(Name(suspect.path), f"suspect-{place}", list(_suspect(suspect, report)))
        for place, suspect in enumerate(report.suspects, 1)
    ]
    return Section(
        "Provenance check",
        "provenance",
        [
            Paragraph(
                f"deepjudge {report.deepjudge} checked whether a model is a copy of a reference model (the victim): it "
                "compared how close their answers are with how close those of independent models (the controls) come."
            ),
            Bullets(about),
            *([Bullets(said)] if (said := rates(report)) else []),
        ],
        [*suspects, _limits(report), _verifying()],
    )


def _suspect(suspect: SuspectEntry, report: AuditReport) -> Iterator[Paragraph | Bullets]:
    yield Paragraph(verdict(suspect, report))
    facts: list[Line] = [
        sentence(f"by {SIDES[name]}: {setting.statement}")
        for name, setting in suspect.settings.named().items()
        if setting.statement
    ]
    if suspect.digest:
        facts.append(("Model: SHA-256 ", Name(suspect.digest)))
    if suspect.model_signing:
        facts.append(("OpenSSF Model Signing: digest ", Name(suspect.model_signing)))
    if facts:
        yield Bullets(facts)


def _limits(report: AuditReport) -> Section:
    return Section("What this does not show", "limits", [Bullets(limits(report))])


def _verifying() -> Section:
    how: Line = (
        "The SHA-256 of the model's file (",
        Name("sha256sum"),
        ") has to be the one above; if a model has several files, it is that of all of them together. Anyone who has "
        "the folder of the audit recomputes the verdicts without any model by ",
        Name("deepjudge verify DIR"),
        ".",
    )
    return Section("How to verify it", "verifying", [Paragraph(how)])


def _controls(controls: Sequence[ControlEntry]) -> str:
    strata: Counter[str] = Counter(kind_of(control, "of unknown stratum") for control in controls)
    named = ", ".join(f"{count} {stratum}" for stratum, count in strata.items())
    alike = sum(control.alike is not UNSET for control in controls)
    count = f", which count as {len(controls) - alike}, because some answer nearly as others do" if alike else ""
    return f"{len(controls)} ({named}){count}" if controls else "none"


def _options(options: Json) -> list[str]:
    return [f"{name}={value}" for name, value in options.items() if value not in ({}, None)]


def _judged(report: AuditReport) -> str:
    if any(suspect.sequential for suspect in report.suspects):
        return "on the labels given to cases that were asked one by one"
    together = "together" if report.groups == "joint" else "separately"
    return f"behaviour and layers judged {together}"
