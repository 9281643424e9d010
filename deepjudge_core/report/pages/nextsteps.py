"""What to do next, by the answers of a report: for its reader, and for who made it."""

from collections.abc import Collection, Iterator

from deepjudge_core.judging.calibration import LEAST_CONTROLS
from deepjudge_core.report.documents import AuditReport
from deepjudge_core.report.pages.document import Block, Bullets, Commands, Line, Name
from deepjudge_core.report.pages.reproducing import control_commands
from deepjudge_core.report.pages.wording import effective_controls


def next_steps(report: AuditReport) -> list[Block]:
    """A list of steps, the most urgent first; where controls are missing, with the commands that make some."""
    decisions = {suspect.decision for suspect in report.suspects}
    few = effective_controls(report) < LEAST_CONTROLS and "inconclusive" in decisions
    blocks: list[Block] = []
    if few:
        blocks += [Bullets([_CONTROLS]), Commands(control_commands(report))]
    steps = list(_steps(report, decisions, few=few))
    return [*blocks, Bullets(steps)] if steps else blocks


_CONTROLS: Line = (
    f"Controls would decide: at least {LEAST_CONTROLS} models of the same task that do not come from the victim. Give "
    "yours to ",
    *(Name("deepjudge audit"), " or ", Name("deepjudge calibrate")),
    "; or make some from the victim's training data (here called TRAIN.npz), then judge again:",
)


def _steps(report: AuditReport, decisions: Collection[str], *, few: bool) -> Iterator[Line]:
    if "inconclusive" in decisions and not few:
        yield "Undecided: the reason in the table says what is missing. Mend that, and judge again."
    if "copy" in decisions:
        yield (
            "Before you accuse anybody: compare the SHA-256 (fingerprint) of the file in evidence with the one under "
            "Files, and ask whether a licence, a common ancestor or shared data explains the likeness."
        )
        yield (
            "If this report came in the folder of an audit, let somebody else check it, without any model: ",
            Name("deepjudge verify DIR"),
        )
    if "independent" in decisions and report.suite.bounds is not None:
        yield (
            "To learn how many copies this test would miss, make copies with ",
            *(Name("deepjudge zoo"), " and count those that are found with ", Name("deepjudge power"), "."),
        )
    if "failed" in decisions:
        yield "Not tested: get those models in a form that can be opened; the table says why they could not be."
    if any(one.unjudged for one in report.skipped or ()):
        yield "Judge the files that may hold a model, too: they are listed under Files that were not judged."
