"""Judge what suspects answered, as often as anybody wants: no model is run for it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from deepjudge_core.auditing.audit import judge_suspects
from deepjudge_core.auditing.folders import Skipped
from deepjudge_core.auditing.outcome import AuditOutcome, SuspectResult
from deepjudge_core.auditing.session import Session
from deepjudge_core.auditing.subject import Answer, Stored
from deepjudge_core.errors import ModelError
from deepjudge_core.fleets.store import Member, Row, Store
from deepjudge_core.fleets.work import Task
from deepjudge_core.judging.calibration import Calibration
from deepjudge_core.judging.judge import Judge
from deepjudge_core.judging.ranking import ratio
from deepjudge_core.suites.observation import Observation
from deepjudge_core.suites.suite import Suite
from deepjudge_core.text import LONGEST_LINE, clean


@dataclass(frozen=True)
class MemberAnswers(Stored):
    """What a member of a fleet answered.

    Attributes:
        member: Who.
        row: What came of asking it; None where nothing did.
        store: Where its answers are.
    """

    member: Member
    row: Row | None
    store: Store

    @classmethod
    def of_task(cls, task: Task, store: Store) -> "MemberAnswers":
        """What came of a task."""
        member = Member(task.suite, task.source, 0, task.name, task.suspect, task.settings)
        return cls(member, store.row(*task.key), store)

    @property
    def name(self) -> str:
        """What the user calls it."""
        return self.member.name

    @property
    def again(self) -> Answer | None:
        """See the base."""
        return self.read

    def read(self) -> Observation:
        """See the base.

        Raises:
            ModelError: When it did not answer, with the reason.
            FileFormatError: When its answers are damaged.
        """
        if self.row is None:
            reason, code = self.member.reason or "was not asked yet; the same command asks it", self.member.code
            raise _failure(self.name, reason, code)
        if self.row.status != "answered":
            raise _failure(self.name, str(self.row.reason), self.row.code)
        observation = self.store.read(self.row)
        # The same bytes may have been asked under another name.
        return replace(observation, model=replace(observation.model, name=self.name))


def judge_stored(
    suite: Suite,
    calibration: Calibration,
    members: Sequence[Member],
    judge: Judge,
    store: Store,
    *,
    session: Session,
    unfit: Mapping[str, bool],
    skipped: Sequence[Skipped] = (),
) -> AuditOutcome:
    """Judge the members of a fleet against one suite, and keep what was said of each.

    Args:
        suite: The suite.
        calibration: Its controls.
        members: Whom the user named.
        judge: By what.
        store: Where their answers are.
        session: Who hears of it.
        unfit: Of each source whether its inputs fit no suite of the fleet at all.
        skipped: Files that were not taken as models.
    """
    rows = [_row_of(member, store) for member in members]
    asked, beside, said = list[MemberAnswers](), list(skipped), list[Member]()
    for member, row in zip(members, rows, strict=True):
        if row and row.status == "skipped":
            reason = str(row.reason)
            beside.append(Skipped(member.name, "other-inputs", reason, unfit.get(member.source, False)))
            said.append(replace(member, decision="skipped", points_to=None, ratio=None, q_value=None, said=reason))
        else:
            asked.append(MemberAnswers(member, row, store))
    outcome = judge_suspects(suite, calibration, asked, judge, session=session)
    said += (_said(one.member, result) for one, result in zip(asked, outcome.suspects, strict=True))
    store.judged(said)
    return replace(outcome, skipped=tuple(beside))


def fits_no_suite(members: Sequence[Member], store: Store) -> dict[str, bool]:
    """Of each source whether every suite that it was asked takes other inputs.

    Args:
        members: Those of all suites.
        store: What came of each.
    """
    unfit: dict[str, bool] = {}
    for member in members:
        row = _row_of(member, store)
        unfit[member.source] = unfit.get(member.source, True) and row is not None and row.status == "skipped"
    return unfit


def _row_of(member: Member, store: Store) -> Row | None:
    if member.suspect is None or member.settings is None:
        return None
    return store.row(member.suite, member.suspect, member.settings)


def _failure(name: str, reason: str, code: str | None) -> ModelError:
    # The reason has the code behind it where that says more than the reason.
    error = ModelError(f"{name}: {reason}")
    error.code = code or error.code
    return error


def _said(member: Member, result: SuspectResult) -> Member:
    reason = result.failure or (result.verdict.reason if result.verdict else None)
    reason = reason and reason.removeprefix(f"{clean(member.name, LONGEST_LINE)}: ")
    return replace(
        member,
        decision=str(result.decision),
        points_to=result.points_to,
        ratio=ratio(result),
        q_value=result.tested.q_value if result.tested else None,
        said=reason,
    )
