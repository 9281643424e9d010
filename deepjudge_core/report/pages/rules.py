"""Rules side by side, on the page of an audit's power."""

from collections.abc import Iterator

from msgspec import UNSET

from deepjudge_core.report.documents import PowerReport, ShareEntry
from deepjudge_core.report.pages.document import Bullets, Cell, Name, Section, Table
from deepjudge_core.report.pages.parts import word
from deepjudge_core.text import recognised


def rules_section(power: PowerReport) -> Iterator[Section]:
    """What each rule notices and whom it accuses: a section if there are several."""
    rules = () if power.rules is UNSET else power.rules
    if not rules:
        return
    attacks = list(dict.fromkeys(attack.attack for rule in rules for attack in rule.attacks))
    by_name = [{attack.attack: attack for attack in rule.attacks} for rule in rules]
    rows = [
        [
            word(name),
            *(
                told(found[name].copies, found[name].inconclusive) if name in found else Cell("-", "number")
                for found in by_name
            ),
        ]
        for name in attacks
    ]
    accused = [_accused(rule.held_out_accused, rule.held_out_inconclusive) for rule in rules]
    head = ["attack", *(rule.rule for rule in rules)]
    yield Section(
        "Rules side by side",
        "rules",
        [
            Table("Stolen models that each rule judges a copy", head, rows),
            Table(
                "Controls that each rule accuses, held out one at a time",
                ["", *head[1:]],
                [[word("controls"), *accused]],
            ),
            Bullets([("Everything else on this page is by the rule ", Name(power.rule), ".")]),
        ],
    )


def _accused(share: ShareEntry, undecided: int) -> Cell:
    return Cell(recognised(share.count, share.of + undecided, undecided), "number")


def told(share: ShareEntry, undecided: int) -> Cell:
    """So many of so many; those of which nothing could be said are told apart."""
    return Cell(recognised(share.count, share.of, undecided), "number")
