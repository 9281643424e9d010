"""Many suspects in the sandbox: copies of a process that has imported its framework, against processes from scratch."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from networks import Data
from suspects import SAVERS, audit
from table import Row
from timing import Race, race

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
COPIES, SCRATCH = "copies", "from scratch"


def fleets(data: Data) -> Iterator[Row]:
    """Each with the start of the process that is copied."""
    suite, calibration = audit(data.scratch)
    registry = load_registry()
    judge = Judge.of(JudgeSettings(), registry)

    def judged(paths: list[Path], template: bool) -> None:
        session = Session(registry, Sandbox(required=True, template=template))
        report = report_to_json(judge_suspects(suite, calibration, paths, judge, session=session))
        end_templates()
        failed = [suspect["name"] for suspect in report["suspects"] if suspect["decision"] == "failed"]
        if failed:
            raise SystemExit(f"expected answers from all suspects, found none from {', '.join(failed)}")

    def raced(paths: list[Path]) -> Race:
        return race({COPIES: partial(judged, paths, True), SCRATCH: partial(judged, paths, False)}, ROUNDS, warm=False)

    for kind, count in COUNTS.items():
        paths = [data.scratch / f"suspect-{number}.{kind}" for number in range(count)]
        for number, path in enumerate(paths):
            SAVERS[kind](100 + number, path)
        found = raced(paths)
        detail = ", ".join(f"{way} {found.median(way).wall:.1f} s of wall time" for way in (COPIES, SCRATCH))
        ratio = found.ratio(SCRATCH, COPIES)
        what = f"{count} `.{kind}` suspects in the sandbox: {SCRATCH} / {COPIES}"
        yield Row(what, ratio, GOALS[kind], most=False, by_wall=True, detail=detail)
        if kind == "onnx":
            few = race({COPIES: partial(judged, paths[: count // 5], True)}, ROUNDS, warm=False)
            per_suspect = found.median(COPIES) / few.median(COPIES)
            ratio = type(per_suspect)(per_suspect.wall / 5, per_suspect.processor / 5)
            what = f"one of {count} `.{kind}` suspects / one of {count // 5}"
            yield Row(what, ratio, 1.0, detail=f"{few.median(COPIES).wall:.1f} s of wall time for {count // 5}")
