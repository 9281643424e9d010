"""What is said of one suspect: the values that come of judging."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from deepjudge_core.components.schemes import Reading
from deepjudge_core.components.values import Decision, Group, Vote
from deepjudge_core.judging.exact import power_of_ten
from deepjudge_core.sheets import Sheet, Shown

PointsTo = Literal["weights", "behaviour", "weights-changed-behaviour", "descent", "key", "data"]
POINTS_TO: Mapping[str, str] = {
    "weights": "the weights were taken",
    "behaviour": "the behaviour was copied",
    "weights-changed-behaviour": "the weights were taken and the behaviour changed since",
    "descent": "the weights descend from the victim's, or share its initialisation",
    "key": "it answers a secret key of the victim",
    "data": "rows that a key of the victim chose were trained on",
}
"""What each of them means, in words."""

SAID: Mapping[str, str] = {
    Decision.COPY: "copy",
    Decision.INDEPENDENT: "no sign of copying",
    Decision.INCONCLUSIVE: "inconclusive",
    Decision.FAILED: "failed",
}
"""Each decision, as a person reads it."""
_COPIED: Mapping[str, str] = {
    "weights": "copy of the weights",
    "behaviour": "copy of the behaviour",
    "weights-changed-behaviour": "copy of the weights, changed since",
    "descent": "copy, or same initialisation",
    "key": "copy, found by a key",
    "data": "copy, or trained on its data",
}


def in_words(decision: str, points_to: str | None) -> str:
    """A verdict in a few words.

    Args:
        decision: Copy, independent, inconclusive or failed.
        points_to: What a copy points to.
    """
    return _COPIED.get(points_to or "", SAID[Decision.COPY]) if decision == Decision.COPY else SAID[decision]


def open_layers(decision: str | None, values: Iterable[float | None]) -> str | None:
    """Why it is open whether the weights were taken, too, where the behaviour was copied; None where it is not.

    Args:
        decision: What the metrics of the layers say.
        values: Theirs.
    """
    if decision == Decision.INDEPENDENT:
        return None
    measured = decision is not None and any(value is not None for value in values)
    return "the layers are inconclusive" if measured else "layers were not compared"


_VOTES = {True: "copy", False: "no copy", None: "none"}
GROUPS: tuple[Group, ...] = ("black-box", "white-box")
"""The paper's two settings, which every verdict has."""
ALL_GROUPS: tuple[Group, ...] = (*GROUPS, "weights", "marks")
"""All settings; a verdict has that of weights only where weights were to be compared, and that of marks only where the
suite has keys."""


@dataclass(frozen=True)
class Setting:
    """What was found in one of the settings.

    Attributes:
        decision: None where nothing of the setting was asked for or the access did not allow it; and where nothing was
            found by what can only accuse.
        p_copy: The rule's confidence, 0..1.
        reason: Why there is no decision, or none but inconclusive.
        p_value: Probability, at most, that an honest model comes as near to the victim, 0..1; None for rules that give
            none.
        least_p_value: The smallest p-value that this number of controls could have given.
        statement: What the rule found, on one line, for a reader who is no statistician.
        log10_p: The logarithm of the p-value to base 10, where it may be too small for a number; 0 or less.
        level: Of marks, the probability, at most, with which a model made without the keys is called a copy.
    """

    decision: Decision | None
    p_copy: float | None = None
    reason: str | None = None
    p_value: float | None = None
    least_p_value: float | None = None
    statement: str | None = None
    log10_p: float | None = None
    level: float | None = None


@dataclass(frozen=True)
class Counted:
    """What one key says of one model.

    Attributes:
        reading: The one that counts: the least likely.
        log10_p: Of the key's p-value, corrected for the number of its readings; None where controls would have to tell
            and are too few.
        least: The least ``log10_p`` that it could have given.
        controls: Trials that controls match by this reading; empty for a chance by design.
        limit: The greatest distance that is clearly nearer than all controls; None for a chance by design.
    """

    reading: Reading
    log10_p: float | None
    least: float
    controls: tuple[int, ...] = ()
    limit: float | None = None

    @property
    def by_design(self) -> bool:
        """Whether its p-value holds whatever the model is."""
        return self.reading.by_design

    @property
    def clause(self) -> str:
        """What was counted, beginning with the number."""
        reading = self.reading
        return f"{reading.found} of {reading.of}"

    @property
    def words(self) -> str:
        """What was counted, and beside what: ``44 of 100, p = 1.6e-18`` or ``100 of 100, controls 2 to 42``."""
        if self.by_design:
            return f"{self.clause}, p = {power_of_ten(self.log10_p or 0.0)}"
        if not self.controls:
            return self.clause
        return f"{self.clause}, controls {min(self.controls)} to {max(self.controls)}"


@dataclass(frozen=True)
class MetricResult:
    """One metric of the suspect: its value and what the rule made of it; of a key what was counted, if it was."""

    group: Group
    value: float | None
    vote: Vote
    counted: Counted | None = None

    @property
    def reason(self) -> str | None:
        """Why it was not measured, or casts no vote."""
        return self.vote.reason

    @property
    def shown(self) -> str | float | None:
        """Its value; of a key what was counted."""
        return self.counted.words if self.counted else self.value

    @property
    def threshold(self) -> float | None:
        """The greatest value that votes for copy."""
        return self.vote.threshold


@dataclass(frozen=True, repr=False)
class Verdict(Shown):
    """What is said of one suspect.

    Attributes:
        decision: Copy, independent or inconclusive.
        points_to: What a copy points to, in the words of :data:`POINTS_TO`. None for no copy, or when one vote is taken
            over all metrics.
        settings: The decision in each of the settings, and in "joint" where one vote is taken over all metrics.
        metrics: Metric name to its result.
        reason: Why it is inconclusive; of a copy the fact that it rests on, where that is no statistics; of an
            independent model that its layers could not be compared.
    """

    decision: Decision
    points_to: PointsTo | None
    settings: Mapping[str, Setting]
    metrics: Mapping[str, MetricResult]
    reason: str | None = None

    def sheet(self) -> Sheet:
        """See :class:`~deepjudge_core.sheets.Shown`."""
        settings = {
            name: ": ".join(
                filter(
                    None,
                    [SAID[setting.decision] if setting.decision else "not judged", setting.statement or setting.reason],
                )
            )
            for name, setting in self.settings.items()
        }
        rows = [
            (name, one.shown, one.threshold, _VOTES[one.vote.vote], one.reason) for name, one in self.metrics.items()
        ]
        head = ("metric", "distance", "copy up to", "vote", "remark")
        facts = {**settings, "reason": self.reason}
        return Sheet(f"verdict: {in_words(self.decision, self.points_to)}", facts, head, rows)

    def to_html(self) -> str:
        """A page of its own; the report of a whole audit has more."""
        return self.sheet().page()
