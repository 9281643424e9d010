"""How the cost grows with cases, neurons, parameters, suspects, controls and the like: ``python benchmarks/scale``.

One of them is varied at a time, and processor time measured. The last column is the exponent of a power law through the
first and the last point: 1 where twice as much takes twice as long. The table of ``docs/why/performance.md`` is written
by a run of all parts. Needs the extras of deepjudge for ONNX and PyTorch.
"""

import argparse
import math
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before anything is imported that starts threads
sys.path[:0] = [str(Path(__file__).resolve().parent)]

from making import Made  # noqa: E402

from deepjudge_core.judging.likeness import Likeness  # noqa: E402
from deepjudge_core.judging.neurons import match_neurons  # noqa: E402

CASES = (500, 1000, 2000, 4000)
NEURONS = (512, 1024, 2048, 4096)
WIDTHS = (500, 1600, 5000)  # whose squares are the parameters
DEPTHS = (10, 30, 90)
SUSPECTS = (10, 20, 40)
CONTROLS = (30, 100, 300)
CLASSES = (10, 100, 1000)
ROUNDS = 3

PAGE = Path(__file__).resolve().parents[2] / "docs/why/performance.md"
START, END = "<!-- scale -->", "<!-- end of scale -->"

Runs = Mapping[int, Callable[[], object]]


def cases(made: Made) -> Runs:
    return {count: made.judging(made.suite(made.network(), count), made.network(1)) for count in CASES}


def parameters(made: Made) -> Runs:
    nets = {width: (made.network(0, width, 2), made.network(1, width, 2)) for width in WIDTHS}
    return {made.parameters(pair[1]): made.judging(made.suite(pair[0], 500), pair[1]) for pair in nets.values()}


def taps(made: Made) -> Runs:
    suite = made.suite(made.network(0, 64, 3), 500)
    return {depth: made.judging(suite, made.network(1, 64, depth)) for depth in DEPTHS}


def neurons(made: Made) -> Runs:
    layers = {width: (made.outputs(0, width), made.outputs(1, width)) for width in NEURONS}
    return {width: partial(match_neurons, *pair) for width, pair in layers.items()}


def suspects(made: Made) -> Runs:
    suite = made.suite(made.network(), 500)
    return {count: made.judging_all(suite, count) for count in SUSPECTS}


def controls(made: Made) -> Runs:
    suite = made.suite(made.network(), 500)
    answers = {count: made.answers(suite, count) for count in CONTROLS}
    return {count: partial(made.calibrated, suite, seen) for count, seen in answers.items()}


def classes(made: Made) -> Runs:
    suites = {count: made.suite(made.network(0, classes=count), 500) for count in CLASSES}
    answers = {count: made.answers(suite, 100) for count, suite in suites.items()}
    return {
        count: partial(Likeness.of, suite, answers[count], [False] * len(answers[count]))
        for count, suite in suites.items()
    }


PARTS = {
    "cases": ("judging one suspect, by cases", cases),
    "parameters": ("judging one suspect, by its parameters", parameters),
    "taps": ("judging one suspect, by its layers", taps),
    "neurons": ("matching a layer of an honest model with the victim's, by neurons", neurons),
    "suspects": ("judging suspects, by their number", suspects),
    "controls": ("thresholds of controls whose answers are there, by their number", controls),
    "classes": ("the distances among 100 controls, by classes", classes),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], metavar="|".join(PARTS), help="default: all")
    arguments = parser.parse_args()
    lines = ["| what | processor time | exponent |", "| --- | --- | --- |"]
    with tempfile.TemporaryDirectory() as folder:
        for part in arguments.parts or PARTS:
            what, make = PARTS[part]
            lines.append(line(what, measured(make(Made(Path(folder))))))
            print(lines[-1], flush=True)
    if not arguments.parts:
        page = PAGE.read_text("utf-8")
        PAGE.write_text(re.sub(f"{START}.*{END}", "\n".join((START, *lines, END)), page, flags=re.DOTALL), "utf-8")


def measured(runs: Runs) -> dict[int, float]:
    """Seconds of a processor of each, the least of some in turn after one that warms up."""
    costs = {size: list[float]() for size in runs}
    for _ in range(ROUNDS + 1):
        for size, run in runs.items():
            begun = time.process_time()
            run()
            costs[size].append(time.process_time() - begun)
    return {size: min(seconds[1:]) for size, seconds in costs.items()}


def line(what: str, found: Mapping[int, float]) -> str:
    """A row of the table."""
    (few, least), *_, (many, most) = found.items()
    exponent = math.log(most / least) / math.log(many / few)
    return f"| {what} | {', '.join(points(found))} | {exponent:.2f} |"


def points(found: Mapping[int, float]) -> Iterator[str]:
    for size, seconds in found.items():
        yield f"{size:,}: {seconds:.3g} s"


if __name__ == "__main__":
    main()
