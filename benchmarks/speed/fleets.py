"""Many suspects in the sandbox: copies of a process that has imported its framework, against processes from scratch."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from networks import Data
from suspects import SAVERS, audit
from table import Row
from timing import Cost, race

from deepjudge_core.auditing.audit import judge_suspects
from deepjudge_core.auditing.session import Session
from deepjudge_core.components.registry import load_registry
from deepjudge_core.judging.judge import Judge
from deepjudge_core.judging.settings import JudgeSettings
from deepjudge_core.report.audit_json import report_to_json
from deepjudge_core.sandbox.policy import Sandbox
from deepjudge_core.sandbox.starting import end_templates

ROUNDS = 5
COUNTS = {"onnx": 50, "pt2": 20, "keras": 20}
GOALS = {"onnx": 3.5, "pt2": 4.0, "keras": 4.0}
COPIES, SCRATCH, FEW = "copies", "from scratch", "few"
SHARE = 5  # of the suspects, to see how time grows with them


def onnx(data: Data) -> Iterator[Row]:
    """50 suspects, and a fifth of them."""
    yield from _fleet(data, "onnx")


def pt2(data: Data) -> Iterator[Row]:
    """20 suspects."""
    yield from _fleet(data, "pt2")


def keras(data: Data) -> Iterator[Row]:
    """20 suspects."""
    yield from _fleet(data, "keras")


def _fleet(data: Data, kind: str) -> Iterator[Row]:
    suite, calibration = audit(data.scratch)
    registry = load_registry()
    judge, count = Judge.of(JudgeSettings(), registry), COUNTS[kind]
    paths = [data.scratch / f"suspect-{number}.{kind}" for number in range(count)]
    for number, path in enumerate(paths):
        SAVERS[kind](100 + number, path)

    def judged(paths: list[Path], template: bool = True) -> None:
        # With the start, and the end, of the process that is copied.
        session = Session(registry, Sandbox(required=True, template=template))
        report = report_to_json(judge_suspects(suite, calibration, paths, judge, session=session))
        end_templates()
        failed = [suspect["name"] for suspect in report["suspects"] if suspect["decision"] == "failed"]
        if failed:
            raise SystemExit(f"expected answers from all suspects, found none from {', '.join(failed)}")

    some = paths[: count // SHARE]
    runs = {COPIES: partial(judged, paths), SCRATCH: partial(judged, paths, False), FEW: partial(judged, some)}
    found = race(runs, ROUNDS, warm=False)
    detail = f"wall time: {', '.join(f'{way} {found.median(way).wall:.1f} s' for way in (COPIES, SCRATCH))}"
    what = f"{count} `.{kind}` suspects in the sandbox: {SCRATCH} / {COPIES}"
    yield Row(what, found.ratio(SCRATCH, COPIES), GOALS[kind], most=False, by_wall=True, detail=detail)
    times = found.ratio(COPIES, FEW)
    each = Cost(times.wall / SHARE, times.processor / SHARE)
    detail = f"{len(some)}: {found.median(FEW).wall:.1f} s of wall time"
    yield Row(f"one of {count} `.{kind}` suspects / one of {len(some)}", each, 1.0, detail=detail)
