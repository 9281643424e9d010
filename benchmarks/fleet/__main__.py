"""Fleets: rate by jobs, time and memory by suspects, reports, and kills: ``python -m benchmarks.fleet --data FOLDER``.

Needs the extras of deepjudge for ONNX and PyTorch (whose gradients make the cases), and ``mnist.npz`` in the folder.
"""

import argparse
import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.fleet.making import make
from deepjudge_core import Session, load_registry, load_suite
from deepjudge_core.auditing.audit import judge_suspects
from deepjudge_core.auditing.subject import KnownAnswers
from deepjudge_core.fleets.store import DATABASE, Row, Store
from deepjudge_core.judging.fitting import Offer
from deepjudge_core.judging.judge import Judge
from deepjudge_core.judging.settings import JudgeSettings
from deepjudge_core.report.audit_json import audit_report, dump
from deepjudge_core.report.html import render_html
from deepjudge_core.suites.observation import Observation

CODE = "import sys; from deepjudge_core.cli.main import main; sys.exit(main())"


def row(what: str, found: str, wanted: str, detail: str) -> None:
    print(f"| {what} | {found} | {wanted} | {detail} |", flush=True)


def deepjudge(*words: object) -> float:
    """Run a command; gives its seconds."""
    begun = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", CODE, *map(str, words)], capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1, 3):
        raise SystemExit(done.stderr)
    return time.perf_counter() - begun


def prepare(folder: Path, data: Path, suspects: int) -> None:
    """Make models, suites and calibrations."""
    make(folder, data, suspects)
    (folder / "suites").mkdir(exist_ok=True)
    for place in (0, 1):
        suite = folder / f"suites/suite{place}.safetensors"
        deepjudge(
            *("suite", folder / f"victim{place}.onnx", "--inputs", folder / "inputs.npz"),
            *("-n", 100, "-g", "pgd", "-o", suite),
        )
        deepjudge("calibrate", suite, folder / "controls", "-o", folder / f"suites/calibration{place}.safetensors")


def some(folder: Path, count: int) -> Path:
    """A folder with so many of the suspects."""
    taken = folder / f"some{count}"
    taken.mkdir(exist_ok=True)
    for path in sorted((folder / "suspects").iterdir())[:count]:
        shutil.copy(path, taken)
    return taken


def asked(folder: Path, suites: Path, count: int, jobs: int) -> float:
    """Seconds of a fleet, without those of a second run, which asks nobody."""
    results = folder / f"results{count}-{jobs}"
    words = ("fleet", suites, some(folder, count), "-o", results, "--jobs", jobs, "--top", 1)
    seconds = deepjudge(*words)
    return seconds - deepjudge(*words)


def rate(folder: Path, count: int) -> None:
    """Suspects per second, by two jobs and by one."""
    one, two = (asked(folder, folder / "suites", count, jobs) for jobs in (1, 2))
    detail = f"{count} suspects x 2 suites; {2 * count / one:.2f} and {2 * count / two:.2f} pairs a second"
    row("rate of two jobs / twice that of one", f"{one / two / 2:.2f}", ">= 0.85", detail)


def linear(folder: Path, counts: Sequence[int]) -> None:
    """Time and memory by the number of suspects."""
    suite = folder / "suites/suite0.safetensors"
    times, memory = {}, {}
    for count in counts:
        times[count] = asked(folder, suite, count, 2) / count
        memory[count] = peak(folder, suite, count)
    few, many = counts[0], counts[-1]
    detail = ", ".join(f"{count}: {1000 * seconds:.0f} ms" for count, seconds in times.items())
    row(f"time for a suspect, of {many} / of {few}", f"{times[many] / times[few]:.2f}", "0.9 to 1.1", detail)
    detail = ", ".join(f"{count}: {size:.0f} MiB" for count, size in memory.items())
    row(f"memory, of {many} / of {few}", f"{memory[many] / memory[few]:.2f}", "near 1", detail)


def peak(folder: Path, suite: Path, count: int) -> float:
    """MiB that the command itself takes at most, over results that are there and judged anew."""
    results = folder / f"results{count}-2"
    code = (
        "import resource, sys; from deepjudge_core.cli.main import main; main(); "
        "print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)"
    )
    words = ["fleet", str(suite), str(folder / f"some{count}"), "-o", str(results), "--top", "1"]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    return int(done.stderr.rsplit("peak ", 1)[1]) / 1024


def varied(base: Observation, seed: int) -> Observation:
    """Answers of another model, near those of one."""
    rng = np.random.default_rng(seed)
    answers = np.asarray(base.probabilities)
    moved = np.abs(answers + rng.normal(0, 0.02, answers.shape)).astype(np.float32)
    layers = {
        name: (values + rng.normal(0, 0.1, values.shape)).astype(np.float32)
        for name, values in base.activations.items()
    }
    model = replace(base.model, name=f"m{seed}", digest=f"{seed:064x}", files={".": f"{seed:064x}"})
    return replace(base, model=model, probabilities=moved / moved.sum(axis=1, keepdims=True), activations=layers)


def report(folder: Path, suspects: int, controls: int) -> None:
    """The processor time of a report of many suspects and controls, whose answers are made up."""
    registry = load_registry()
    with Store(next(folder.glob("results*")), make=False) as store:
        rows = [one for one in store.rows() if one.status == "answered"]
        suite = load_suite(store.suite_path(rows[0].suite))
        answers = [store.read(one) for one in rows if one.suite == suite.digest][-4:]
    judge = Judge.of(JudgeSettings(), registry, Offer.of(suite))
    begun = time.process_time()
    calibration = judge.calibrate(suite, [varied(answers[place % 4], place) for place in range(controls)])
    accused = [KnownAnswers(varied(answers[place % 4], 10**6 + place)) for place in range(suspects)]
    made = time.process_time()
    outcome = judge_suspects(suite, calibration, accused, judge, session=Session(registry))
    judged = time.process_time()
    written = audit_report(outcome)
    text, page = dump(written), render_html(written)
    ended = time.process_time()
    detail = (
        f"controls {made - begun:.1f} s, judging {judged - made:.1f} s, JSON ({len(text) / 2**20:.1f} MiB) and page "
        f"({len(page) / 2**20:.1f} MiB) {ended - judged:.1f} s"
    )
    found = f"{ended - begun:.0f} s of a processor"
    row(f"report of {suspects} suspects and {controls} controls", found, "seconds", detail)


def started(words: Sequence[str]) -> subprocess.Popen[bytes]:
    """A fleet that runs."""
    return subprocess.Popen([sys.executable, "-c", CODE, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def until_a_row(words: Sequence[str], results: Path) -> float:
    """Seconds until a fleet keeps its first answers; it is killed then."""
    begun, process = time.perf_counter(), started(words)
    while not (results / DATABASE).is_file() or not rows_of(results):
        if process.poll() is not None:
            raise SystemExit("the fleet ended without an answer")
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return time.perf_counter() - begun


def rows_of(results: Path) -> list[Row]:
    """What was asked so far, all of which can be read."""
    with Store(results) as store:
        rows = list(store.rows())
        for one in rows:
            if one.status == "answered":
                store.read(one)
    return rows


def kills(folder: Path, count: int, seed: int = 3) -> None:
    """Kill a fleet at random moments, and look whether a row was lost, or asked again."""
    results, rng = folder / "killed", random.Random(seed)
    shutil.rmtree(results, ignore_errors=True)
    words = ["fleet", str(folder / "suites"), str(folder / "suspects"), "-o", str(results), "--jobs", "2"]
    known: dict[tuple[str, ...], float] = {}
    lost = again = 0
    first = until_a_row(words, results)
    for _ in range(count):
        process = started(words)
        time.sleep(rng.uniform(0.1, 2) * first)  # as often before the first row of a run as behind it
        process.send_signal(signal.SIGKILL)
        process.wait()
        if not (results / DATABASE).is_file():
            continue
        found = {(one.suite, one.suspect, one.settings): one.finished for one in rows_of(results)}
        lost += sum(key not in found for key in known)
        again += sum(found.get(key, finished) != finished for key, finished in known.items())
        known = found
    with closing(sqlite3.connect(results / DATABASE)) as database:
        [sound] = database.execute("PRAGMA integrity_check").fetchone()
    detail = f"{len(known)} rows at the end; the database is {sound}"
    row(f"rows lost, and asked again, of {count} kills", f"{lost}, {again}", "0, 0", detail)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=["rate", "linear", "report", "kills"])
    parser.add_argument("--data", type=Path, required=True, help="a folder with mnist.npz")
    parser.add_argument("--suspects", type=int, default=200, help="of the rate")
    parser.add_argument("--most", type=int, default=1000, help="suspects of time and memory")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--folder", type=Path, help="where models and results are kept; by default nowhere")
    chosen = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as temporary:
        folder = chosen.folder or Path(temporary)
        if not (folder / "suites").is_dir():
            prepare(folder, chosen.data / "mnist.npz", max(chosen.suspects, chosen.most))
        print("| what | found | wanted | detail |\n| --- | --- | --- | --- |", flush=True)
        if "rate" in chosen.parts:
            rate(folder, chosen.suspects)
        if "linear" in chosen.parts:
            linear(folder, [10, chosen.most // 10, chosen.most])
        if "report" in chosen.parts:
            report(folder, 1000, 300)
        if "kills" in chosen.parts:
            kills(folder, chosen.kills)
    print(f"peak of this program: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB", file=sys.stderr)


if __name__ == "__main__":
    main()
