"""What a fleet is made of on the command line: its suites, their calibrations, and a first look at verdicts."""

import glob
import time
from collections import Counter, OrderedDict
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from deepjudge_core.auditing.audit import judge_one
from deepjudge_core.auditing.session import Session
from deepjudge_core.errors import DeepJudgeError, UsageError
from deepjudge_core.files import storage
from deepjudge_core.fleets.judging import MemberAnswers
from deepjudge_core.fleets.store import Store
from deepjudge_core.fleets.work import Result, Task
from deepjudge_core.judging.calibration import Calibration, load_controls
from deepjudge_core.judging.fitting import Offer
from deepjudge_core.judging.judge import Judge
from deepjudge_core.judging.settings import JudgeSettings
from deepjudge_core.judging.verdict import in_words
from deepjudge_core.suites.suite import Suite, load_suite

_FILES = "*.safetensors"
_HELD = 2  # suites of which verdicts are said
_EARLY = 2.0  # seconds until the rate is said
_PER_MINUTE = 60
BEFORE = "answered before"
"""What is said of a suspect whose answers were there already."""


def suite_files(first: str, others: Sequence[str]) -> tuple[list[Path], list[str]]:
    """The suites among what was typed, and the rest: suspects.

    What is typed first means suites. A suite says itself that it is one, so that those that a shell put in the place of
    a glob are found among the others.

    Raises:
        UsageError: When what is typed first has no suite.
    """
    path = Path(first)
    if path.is_dir():
        files = [one for one in sorted(path.glob(_FILES)) if storage.kind_of(one) == "suite"]
    elif not path.exists() and glob.has_magic(first):
        files = [Path(one) for one in sorted(glob.glob(first)) if storage.kind_of(Path(one)) == "suite"]  # noqa: PTH207
    else:
        files = [path]  # whatever is wrong with it is said when it is opened
    if not files:
        raise UsageError(f"{first}: expected suites, from 'deepjudge suite', found none", code="missing-value")
    more = [name for name in others if Path(name).is_file() and storage.kind_of(Path(name)) == "suite"]
    return [*files, *map(Path, more)], [name for name in others if name not in more]


def calibrations_beside(files: Sequence[Path]) -> list[Path]:
    """The calibrations in the folders of files."""
    folders = dict.fromkeys(file.parent for file in files)
    found = (path for folder in folders for path in sorted(folder.glob(_FILES)))
    return [path for path in found if storage.kind_of(path) == "calibration"]


def calibrations_in(place: Path) -> list[Path]:
    """A calibration, or those in a folder.

    Raises:
        UsageError: When there is none.
    """
    found = calibrations_beside([place / _FILES]) if place.is_dir() else [place]
    if not found:
        raise UsageError(
            f"{place}: expected calibrations, from 'deepjudge calibrate', found none", code="missing-value"
        )
    return found


def by_suite(calibrations: Iterable[Path], suites: Collection[str]) -> dict[str, Path]:
    """The calibration of each suite, as they say themselves; suites without one are left out.

    Args:
        calibrations: Files.
        suites: Digests of the suites.

    Raises:
        UsageError: When two belong to one suite.
        FileFormatError: When one cannot be read.
    """
    found: dict[str, Path] = {}
    for path in calibrations:
        suite = load_controls(path).suite
        if suite not in suites:
            continue
        if suite in found:
            raise UsageError(
                f"{path}: expected one calibration of each suite, found another one of the same suite, {found[suite]}; "
                "leave one out",
                code="conflict",
            )
        found[suite] = path
    return found


class Tally:
    """How many suspects are done, what came of them, and how fast that goes.

    Attributes:
        counts: Of each word that :meth:`Preview.word` says, how many.
    """

    def __init__(self, total: int) -> None:
        """Begin to count, and to take the time, of so many suspects."""
        self.counts = Counter[str]()
        self._total, self._begun = total, time.monotonic()

    def add(self, word: str) -> str:
        """Count one more, and say where all stand."""
        self.counts[word] += 1
        done, spent = self.counts.total(), time.monotonic() - self._begun
        asked = done - self.counts[BEFORE]
        words = [f"{done} of {self._total}", *(f"{count} {word}" for word, count in self.counts.most_common())]
        # The first ones wait for a framework to be imported.
        if spent >= _EARLY:
            words.append(f"{_PER_MINUTE * asked / spent:.3g} a minute")
        return ", ".join(words)


class Preview:
    """What would be said of suspects as their answers come: each by itself, as if it was the only one."""

    def __init__(self, store: Store, judging: JudgeSettings, session: Session) -> None:
        """Judge by these settings; nothing is read yet."""
        self._store, self._judging, self._session = store, judging, session
        self._held = OrderedDict[str, tuple[Suite, Calibration, Judge]]()

    def word(self, task: Task, result: Result | None) -> str:
        """What came of a task, in a word or two."""
        if result is None:
            return BEFORE
        if result.status != "answered":
            return "failed" if result.status == "undone" else result.status
        if self._judging.fdr is not None:
            return "answered"  # what is said of one alone would not hold
        try:
            suite, calibration, judge = self._of(task.suite)
            answers = MemberAnswers.of_task(task, self._store)
            found = judge_one(suite, calibration, judge, answers, answers.read, self._session)
        except DeepJudgeError:  # which is said at the end
            return "answered"
        return in_words(found.decision, found.points_to)

    def _of(self, digest: str) -> tuple[Suite, Calibration, Judge]:
        if digest not in self._held:
            while len(self._held) >= _HELD:
                self._held.popitem(last=False)
            suite = load_suite(self._store.suite_path(digest))
            judge = Judge.of(self._judging, self._session.registry, Offer.of(suite))
            stored = self._store.calibration_path(digest)
            controls = judge.load_calibration(stored, suite) if stored.is_file() else judge.calibrate(suite, [])
            self._held[digest] = suite, controls, judge
        return self._held[digest]
