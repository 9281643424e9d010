"""Wall and processor time of things that are run in turn, so that what else the machine does falls on all of them."""

import os
import resource
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

ROUNDS = 5

Setting = TypeVar("Setting")


@dataclass(frozen=True)
class Cost:
    """Seconds.

    Attributes:
        wall: As a clock on the wall counts them.
        processor: That the process and the children it waited for spent on processors, with those of the kernel.
    """

    wall: float
    processor: float

    def __truediv__(self, other: "Cost") -> "Cost":
        return Cost(self.wall / other.wall, self.processor / other.processor)


def cost(run: Callable[[], object]) -> Cost:
    """What one run takes."""
    wall, processor = time.perf_counter(), _processor()
    run()
    return Cost(time.perf_counter() - wall, _processor() - processor)


def cost_of_command(words: Sequence[str], accepted: Sequence[int] = (0,)) -> Cost:
    """What a program takes, with all processes that it waits for.

    Args:
        words: The command line.
        accepted: The exit statuses of a run that counts.
    """
    wall = time.perf_counter()
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in accepted:
        raise SystemExit(f"expected {' '.join(words)} to end with {accepted}, found {process.returncode}")
    return Cost(time.perf_counter() - wall, usage.ru_utime + usage.ru_stime)


@dataclass(frozen=True)
class Race:
    """What several runs took that were done in turn.

    Attributes:
        costs: Of each run, by its name, one for each round.
    """

    costs: Mapping[str, Sequence[Cost]]

    def ratio(self, name: str, other: str) -> Cost:
        """How many times the cost of another run this one has: the median over the rounds."""
        return _median([one / two for one, two in zip(self.costs[name], self.costs[other], strict=True)])

    def median(self, name: str) -> Cost:
        """What one run takes."""
        return _median(self.costs[name])

    def fastest(self, names: Sequence[str]) -> str:
        """Which of these takes the least of a processor."""
        return min(names, key=lambda name: self.median(name).processor)

    def __str__(self) -> str:
        return ", ".join(f"{name} {self.median(name).processor:.3g} s" for name in self.costs)


def race(runs: Mapping[str, Callable[[], object]], rounds: int = ROUNDS, *, warm: bool = True) -> Race:
    """Run all in turn.

    Args:
        runs: What is run, by its name. What gives a cost has measured itself.
        rounds: How often each is run.
        warm: Whether each is run once before.
    """
    if warm:
        for run in runs.values():
            run()
    costs: dict[str, list[Cost]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            given: list[object] = []
            measured = cost(lambda run=run, given=given: given.append(run()))
            costs[name].append(given[0] if isinstance(given[0], Cost) else measured)
    return Race(costs)


def best(run: Callable[[Setting], object], settings: Sequence[Setting]) -> Setting:
    """The setting by which a run takes the least of a processor, of two runs each after one that warms up."""
    run(settings[0])
    costs = {at: min(cost(lambda at=at: run(settings[at])).processor for _ in range(2)) for at in range(len(settings))}
    return settings[min(costs, key=costs.__getitem__)]


def _processor() -> float:
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def _median(costs: Sequence[Cost]) -> Cost:
    return Cost(*(statistics.median(getattr(one, what) for one in costs) for what in ("wall", "processor")))
