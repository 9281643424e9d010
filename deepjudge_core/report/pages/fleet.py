"""Many suspects and many victims on one page: who is nearest to whom."""

from collections.abc import Sequence
from dataclasses import dataclass

from deepjudge_core.judging.ranking import ranked, ratio
from deepjudge_core.report.documents import AuditReport, MadeEntry, SuspectEntry
from deepjudge_core.report.pages.document import Block, Cell, Line, Name, Page, Paragraph, Section, Table
from deepjudge_core.report.pages.parts import base, decided, figure, table_of
from deepjudge_core.text import counted

_MOST = 100  # suspects of one victim; the report of the victim has all
_TALL = 25
_RANKED = (
    "Most similar first. Relative distance: a suspect's distance from the victim divided by the threshold, as a median "
    "over the measurements of behaviour or over those of layers, whichever is smaller. 0 is the victim itself; at 1 or "
    "less it is as close as copies are."
)


@dataclass(frozen=True)
class Ranked:
    """A victim, and what came of the suspects.

    Attributes:
        report: The report.
        place: Where the victim's own page is, from the folder of this one.
    """

    report: AuditReport
    place: str


def fleet_page(victims: Sequence[Ranked], made: MadeEntry) -> Page:
    """The page of a fleet.

    Args:
        victims: In the order of their suites.
        made: When it was made, by whom, and in which case.
    """
    facts: list[tuple[str, Line]] = [("Victims", ", ".join(base(one.report.victim.path) for one in victims))]
    facts += [(what, Name(said)) for what, said in (("Case", made.case), ("Made by", made.by)) if said]
    facts += [("Date", made.date[:10])] if made.date else []
    copies = sum(suspect.decision == "copy" for one in victims for suspect in one.report.suspects)
    suspects = len({suspect.path for one in victims for suspect in one.report.suspects})
    lead = f"{counted(suspects, 'suspect')} and {counted(len(victims), 'victim')}: " + (
        f"{counted(copies, 'pair')} appear to be a victim and its copy." if copies else "no copy was found."
    )
    sections = [_of_victim(place, one) for place, one in enumerate(victims)]
    return Page("Is any of these models a copy of one of the victims?", lead, sections, ["Made by deepjudge."], facts)


def _of_victim(place: int, one: Ranked) -> Section:
    report = one.report
    order = ranked(report.suspects)
    suspects = [report.suspects[at] for at in order[:_MOST]]
    blocks: list[Block] = [Paragraph(_RANKED)] if suspects else [Paragraph("No suspect was judged.")]
    if suspects:
        blocks.append(_table(suspects))
    if len(order) > _MOST:
        blocks.append(Paragraph(f"{counted(len(order) - _MOST, 'less similar suspect')} are in the victim's report."))
    if report.skipped:
        blocks.append(Paragraph(f"{counted(len(report.skipped), 'file')} did not fit, or held no model."))
    blocks.append(Paragraph(("All that this rests on: ", Name(one.place), ".")))
    return Section(("Victim ", Name(base(report.victim.path))), f"victim-{place}", blocks)


def _table(suspects: Sequence[SuspectEntry]) -> Table:
    return table_of(
        "The suspects",
        {
            "rank": [Cell(str(rank), "number") for rank in range(1, len(suspects) + 1)],
            "model": [Cell(Name(suspect.path), "name") for suspect in suspects],
            "answer": [decided(suspect.decision, suspect.points_to) for suspect in suspects],
            "relative distance": [figure(ratio(suspect)) for suspect in suspects],
            "q": [figure(suspect.tested.q_value if suspect.tested else None) for suspect in suspects],
        },
        tall=len(suspects) > _TALL,
    )
