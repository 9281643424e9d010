"""What isolation costs: ``python benchmarks/isolation [onnx|pt2|keras ...]``.

The same suspects are judged in this process and each in one of its own, in turn, when all frameworks are imported here.
What is measured of them has to be the same. All figures are seconds for one suspect. Needs the extras of deepjudge.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

sys.path.insert(0, str(Path(__file__).parents[1] / "speed"))
from suspects import SAVERS, audit

from deepjudge_core import load_registry
from deepjudge_core.auditing.audit import judge_suspects
from deepjudge_core.auditing.outcome import AuditOutcome
from deepjudge_core.auditing.session import Session
from deepjudge_core.judging.judge import Judge
from deepjudge_core.judging.settings import JudgeSettings
from deepjudge_core.models.isolation import Isolation
from deepjudge_core.report.audit_json import dump_report, report_to_json
from deepjudge_core.sandbox.policy import Sandbox

ONNX_LIMIT = 0.5  # seconds
ALONE = "import time; start = time.perf_counter(); {}; print(time.perf_counter() - start)"


class Format(NamedTuple):
    imports: str
    load: str  # by the framework alone, which imports more as it loads
    limit: float | None = None  # None: what the imports take


FORMATS: Mapping[str, Format] = {
    "onnx": Format("import onnx, onnxruntime", "onnxruntime.InferenceSession({path!r})", ONNX_LIMIT),
    "pt2": Format("import torch", "torch.export.load({path!r})"),
    "keras": Format("import tensorflow, keras", "keras.models.load_model({path!r}, compile=False)"),
}


def alone(code: str, rounds: int) -> float:
    """Seconds that code takes in a new process; the first time, which reads the disk, does not count."""
    command = [sys.executable, "-I", "-c", ALONE.format(code)]
    runs = [subprocess.run(command, capture_output=True, text=True, check=True) for _ in range(rounds + 1)]
    return statistics.median(float(run.stdout) for run in runs[1:])


def measured(report: AuditOutcome, level: Isolation) -> Any:
    """All of a report but how its suspects were kept, which has to be this."""
    values = report_to_json(report)
    for suspect in values["suspects"]:
        assert suspect.pop("isolation") == level, suspect
    return values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("formats", nargs="*", metavar="|".join(FORMATS), help="default: all")
    parser.add_argument("-n", type=int, default=4, help="suspects of each format")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    registry = load_registry()
    heads = ["isolated", "in this process", "added", "wanted, at most", "bare import", "bare import and load"]
    print(f"| suspects | {' | '.join(heads)} |\n|{' --- |' * (1 + len(heads))}")
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder)
        suite, calibration = audit(models)
        for name in arguments.formats or FORMATS:
            kind = FORMATS[name]
            suspects = [models / f"suspect-{seed}.{name}" for seed in range(10, 10 + arguments.n)]
            for seed, path in enumerate(suspects, 10):
                SAVERS[name](seed, path)
            ways = {Isolation.FULL: Sandbox(required=True), Isolation.NONE: None}
            seconds: dict[Isolation, list[float]] = {level: [] for level in ways}
            for counts in [False] + [True] * arguments.rounds:  # the first time warms up
                reports = []
                for level, sandbox in ways.items():
                    start = time.perf_counter()
                    report = judge_suspects(
                        suite,
                        calibration,
                        suspects,
                        Judge.of(JudgeSettings(), registry),
                        session=Session(registry, sandbox),
                    )
                    if counts:
                        seconds[level].append((time.perf_counter() - start) / arguments.n)
                    reports.append(measured(report, level))
                assert reports[0] == reports[1], "isolation changed what was measured"
                assert all(suspect["decision"] != "failed" for suspect in reports[0]["suspects"]), dump_report(report)
            apart, within = (statistics.median(seconds[level]) for level in ways)
            bare = alone(kind.imports, arguments.rounds)
            loaded = alone(f"{kind.imports}; {kind.load.format(path=str(suspects[0]))}", arguments.rounds)
            limit = bare if kind.limit is None else kind.limit
            numbers = [apart, within, apart - within, limit, bare, loaded]
            print(f"| {arguments.n} .{name} | {' | '.join(f'{seconds:.2f}' for seconds in numbers)} |", flush=True)


if __name__ == "__main__":
    main()
