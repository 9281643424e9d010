"""What is said of keys: how many of their trials a model matches, and how many one made without them would."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import scipy  # which loads its parts when they are first used
from msgspec import UNSET

from deepjudge_core.judging.exact import power_of_ten
from deepjudge_core.judging.marks import TRIES, allowing_for_tries
from deepjudge_core.report.documents import (
    AuditReport,
    CommittedEntry,
    KeyEntry,
    PowerReport,
    ResultEntry,
    SuspectEntry,
    ZooModelEntry,
)
from deepjudge_core.text import capital, counted


@dataclass(frozen=True)
class Match:
    """A key that was read of a model.

    Attributes:
        name: Of the key.
        key: The key.
        result: What was counted.
        controls: How many trials controls match, by the same reading.
    """

    name: str
    key: KeyEntry
    result: ResultEntry
    controls: tuple[int, ...] = ()

    @property
    def found(self) -> int:
        """Trials that match."""
        return self.result.found or 0

    @property
    def of(self) -> int:
        """Trials that count."""
        return self.result.of or 0

    @property
    def chance(self) -> float | None:
        """Of each trial, by design; None where controls decide."""
        return self.result.chance or None

    @property
    def log10_p(self) -> float | None:
        """Of its p-value; None where there is none."""
        return None if self.result.log10_p is UNSET else self.result.log10_p

    @property
    def of_data(self) -> bool:
        """Whether it is a matter of rows that were trained on."""
        return self.key.proves == "data"

    @property
    def words(self) -> str:
        """``44 of 100``."""
        return f"{self.found:,} of {self.of:,}"

    @property
    def whole(self) -> str:
        """``44 of 100, p = 1.6e-18``, or ``100 of 100, controls 2 to 42``."""
        if self.chance is not None:
            return f"{self.words}, p = {self.p}"
        return f"{self.words}, controls {self.span}" if self.controls else self.words

    @property
    def p(self) -> str:
        """Its p-value as it stands in a table."""
        return "-" if self.log10_p is None else power_of_ten(self.log10_p)

    @property
    def afterwards(self) -> str:
        """Its p-value by design if the key may have been drawn anew until it fitted."""
        return "-" if self.chance is None or self.log10_p is None else power_of_ten(allowing_for_tries(self.log10_p))

    @cached_property
    def span(self) -> str:
        """What the controls match."""
        return span(self.controls)


def span(counts: Sequence[int]) -> str:
    """The least and the greatest of some numbers."""
    if not counts:
        return "-"
    least, most = min(counts), max(counts)
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


def needed(of: int, chance: float, level: float) -> int | None:
    """How many trials a model made without a key matches with at most some probability, or more; None if not even all.

    Args:
        of: Trials, which match independently.
        chance: Of each.
        level: The probability.
    """
    low, high = 0, of + 1
    while low < high:
        middle = (low + high) // 2
        # The tail of a binomial is that of a beta distribution.
        enough = middle > of or (middle > 0 and float(scipy.special.betainc(middle, of - middle + 1, chance)) <= level)
        low, high = (low, middle) if enough else (middle + 1, high)
    return low if low <= of else None


def fewest(of: int, chance: float, level: float) -> int:
    """How many trials such a model matches at least, but for some probability."""
    missed = needed(of, 1 - chance, level)
    return 0 if missed is None else of - missed + 1


def matches(model: SuspectEntry | ZooModelEntry, report: AuditReport | PowerReport) -> list[Match]:
    """The keys that were read of a model, in the suite's order."""
    controls = report.calibration.controls if isinstance(report, AuditReport) else ()
    found = []
    for key in report.suite.keys or ():
        result = model.metrics.get(key.name)
        if result is None or result.found is UNSET or not result.of:
            continue
        readings = [one for control in controls for one in (control.counted or {}).get(key.name, ())]
        alike = tuple(one.found for one in readings if one.reading == result.reading)
        found.append(Match(key.name, key, result, alike))
    return found


def accusing(suspect: SuspectEntry, report: AuditReport) -> list[Match]:
    """The keys that accuse a suspect, the least likely first."""
    found = [match for match in matches(suspect, report) if match.result.vote]
    return sorted(found, key=lambda match: match.log10_p or 0.0)


def committed(report: AuditReport) -> CommittedEntry | None:
    """Since when the keys are fixed, where that is before the suspects were asked."""
    return report.committed if report.committed and report.committed.before else None


def told(suspect: SuspectEntry, report: AuditReport) -> str:
    """What keys say of a suspect that they accuse: a sentence or two for each."""
    return " ".join(part for match in accusing(suspect, report) for part in _told(match))


def _told(match: Match) -> Iterator[str]:
    name, why = match.name, capital((match.result.why or "").rstrip("."))
    if match.of_data:
        yield f"It is surer than expected of {match.of:,} rows; the key {name} chose {match.found:,} of them. {why}."
        return
    yield f"It matches {match.words} trials of the owner's secret key {name}."
    if match.chance is None:
        yield f"The {counted(len(match.controls), 'control')}, made without the key, match {match.span}."
        return
    level = match.result.false_positive_rate or 0.01
    most = needed(match.of, match.chance, level)
    rest = "" if most is None else f", so a model made without the key matches {most:,} or more with a probability of "
    yield f"{why}{rest}{f'at most {100 * level:.3g} %' if rest else ''}."


MEANINGS: Mapping[str | None, str] = {
    "weights": "So it appears to contain weights of the marked model.",
    "weights-changed-behaviour": "So it appears to contain weights of the marked model, with its behaviour changed "
    "since.",
    "key": "So it appears to come from the marked model, or to have been trained on its answers. A key of labels does "
    "not tell which.",
    "data": "So it appears to have been trained on rows that the key chose, or on the answers of a model that was. "
    "That shows the use of data, not that the victim itself was copied.",
}
"""What it means that keys alone accuse a suspect, by what it points to."""


def meaning(suspect: SuspectEntry) -> str:
    """What it means that keys alone accuse a suspect."""
    return MEANINGS.get(suspect.points_to, MEANINGS["key"])


def strength(found: Sequence[Match], report: AuditReport, word: Callable[[float], str]) -> Iterator[str]:
    """How sure the keys are that accuse a suspect, in words and numbers.

    Args:
        found: The keys.
        report: The whole.
        word: Maps the logarithm of a p-value to how strong it is.
    """
    since = committed(report)
    for match in found:
        by = f" (key {match.name})" if len(found) > 1 else ""
        log10_p = match.log10_p or 0.0
        as_much = "fair coins give as much" if match.of_data else "such a model matches as many"
        chance = f"{as_much} with a probability of at most {match.p}"
        if match.chance is None:
            of = counted(len(match.controls), "control")
            yield f"{word(log10_p)}{by}: by the spread of the {of}, {chance}."
        elif since:
            yield f"{word(log10_p)}{by}: {chance}."
        else:
            weaker = word(allowing_for_tries(log10_p)) != word(log10_p)
            provided = ", if the key is older than the suspect" if weaker else ""
            yield (
                f"{word(log10_p)}{by}{provided}: {chance} (allowing for {TRIES} tries to find a key that fits: "
                f"{match.afterwards})."
            )
    if found and since:
        keys = "key was" if len(found) == 1 else "keys were"
        yield f"By its time-stamp, the {keys} committed to on {day(since)}, before the suspect was asked."


def day(since: CommittedEntry) -> str:
    """A date and a time, as people write them."""
    return f"{since.date[:10]} {since.date[11:16]} UTC"


def silent(suspect: SuspectEntry, report: AuditReport) -> str:
    """What is said where keys were read and accuse nobody."""
    found = matches(suspect, report)
    if not found:
        return ""
    keys = "The owner's key is" if len(found) == 1 else "None of the owner's keys is"
    return f"{keys} {'not ' if len(found) == 1 else ''}found in it, which acquits nobody: a mark can be removed."


def limits(report: AuditReport) -> Iterator[str]:
    """What keys do not show."""
    keys = report.suite.keys or ()
    if not keys or not report.suspects:
        return
    yield (
        "A mark that is not found acquits nobody: training on, pruning or extraction may have removed it. What each "
        "key survives is said under Secret keys."
    )
    data = [key.name for key in keys if key.proves == "data"]
    if data:
        yield (
            f"The {_named(data)} shows that rows were used for training, also by somebody who never had the victim. "
            "Honest models that were trained on the same rows match, too."
        )
    since = committed(report)
    if since and _accused(report):
        yield (
            f"The time-stamp shows that the keys are older than the questions of this audit. It does not show that "
            f"they are older than the suspect: compare {day(since)} with the day on which the owner could first ask it."
        )
    drawn = [key.name for key in keys if key.by_design]
    if drawn and not since and _accused(report):
        yield (
            f"People who know a suspect can draw keys until one fits: it takes about 1 / p tries. Nothing shows that "
            f"the {_named(drawn)} is older than the suspect: a commitment with a time-stamp would."
        )
    chosen = [key.name for key in keys if not key.by_design]
    if chosen and _accused(report):
        yield (
            f"The trials of the {_named(chosen)} were chosen by the owner, so that all rests on the controls: trials "
            "that honest models match accuse honest models. Controls of the other side are the best check. People who "
            "know a suspect can also choose trials that it alone matches, in few tries."
        )


def _accused(report: AuditReport) -> bool:
    return any(match.result.vote for suspect in report.suspects for match in matches(suspect, report))


def _named(names: Sequence[str]) -> str:
    return f"key {names[0]}" if len(names) == 1 else f"each of the keys {', '.join(names)}"


def rates(report: AuditReport) -> Iterator[str]:
    """How often keys accuse falsely: a sentence where they were read."""
    level = level_of(report)
    if level is None or not report.suite.keys:
        return
    keys = report.suite.keys
    all_of = "the key" if len(keys) == 1 else f"any of the {len(keys)} keys"
    by_controls = "" if all(key.by_design for key in keys) else ", as far as the controls tell where labels were chosen"
    yield (
        f"At most {100 * level:.3g} % of models made without the keys would be called copies by {all_of}"
        f"{by_controls}. A p-value of a key is the probability, at most, that such a model matches as many trials."
    )


def level_of(report: AuditReport | PowerReport) -> float | None:
    """The probability, at most, with which keys accuse a model made without them; None where none was read."""
    models = report.suspects if isinstance(report, AuditReport) else report.models
    levels = [marks.level for model in models if (marks := model.settings.marks) and marks.level]
    return max(levels, default=None)
