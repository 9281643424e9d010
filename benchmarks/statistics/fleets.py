"""How many of the suspects that are called copies are honest, by simulation; prints tables of docs/why/statistics.md.

Fleets of suspects, some of them copies, and the controls that all of them are judged by are drawn many times over: two
settings of one metric each, correlated. For speed many fleets are judged at once; some are also given to the rules and
to the core's own procedure, which have to say the same.
"""

import argparse
import math
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import scipy.stats
from deepjudge_statistics.rules import conformal, prediction_bound

from deepjudge_core.components.values import Decision, Evidence, Judgement
from deepjudge_core.judging.fdr import judge_fleet
from deepjudge_core.judging.judge import GROUPS, MetricResult, Setting, Verdict

RATE = 0.05
SUSPECTS, COPIES, SIZES = 50, (0, 5, 25), (12, 24, 99)
CORRELATION = 0.5  # of the two settings
NEARER = 4.0  # standard deviations of honest models' log distances that a copy's is below them on average
BLOCK, CHECKED = 1000, 2  # fleets at once, and of them those that the core is asked about

Array = np.ndarray
NULLS: Mapping[str, Callable[[np.random.Generator, tuple[int, ...]], Array]] = {  # each of mean 0 and variance 1
    "normal": lambda rng, shape: rng.normal(size=shape),
    "t3": lambda rng, shape: rng.standard_t(3, size=shape) / math.sqrt(3),
}


def draw(rng: np.random.Generator, null: str, fleets: int, models: int) -> Array:
    """Log distances ``(fleets, models, 2)`` of honest models."""
    common, own = NULLS[null](rng, (fleets, models, 1)), NULLS[null](rng, (fleets, models, 2))
    return math.sqrt(CORRELATION) * common + math.sqrt(1 - CORRELATION) * own


def by_prediction(suspects: Array, controls: Array) -> Array:
    n = controls.shape[1]
    centre, spread = controls.mean(axis=1, keepdims=True), controls.std(axis=1, ddof=1, keepdims=True)
    return scipy.stats.t.cdf((suspects - centre) / (spread * math.sqrt(1 + 1 / n)), n - 1)


def by_rank(suspects: Array, controls: Array) -> Array:
    below = [(controls <= suspects[:, [i]]).sum(axis=1) for i in range(suspects.shape[1])]
    return (1 + np.stack(below, axis=1)) / (controls.shape[1] + 1)


Rule = Callable[..., Judgement]
RULES: list[tuple[str, int, Callable[[Array, Array], Array], Rule]] = [
    ("`prediction-bound`", 6, by_prediction, prediction_bound),
    ("`conformal`", 99, by_rank, conformal),
]


def step_up(p: Array, rate: float) -> Array:
    """Which of ``(fleets, suspects)`` p-values Benjamini & Hochberg's procedure rejects, by its definition."""
    m = p.shape[1]
    ordered = np.sort(p, axis=1)
    below = ordered <= rate * np.arange(1, m + 1) / m
    last = np.where(below.any(axis=1), m - 1 - np.argmax(below[:, ::-1], axis=1), -1)
    cut = np.where(last >= 0, np.take_along_axis(ordered, np.maximum(last, 0)[:, None], 1)[:, 0], -1)
    return p <= cut[:, None]


def judge_one(suspect: Array, controls: Array, rule: Rule, level: float) -> Verdict:
    settings, metrics = {}, {}
    for place, group in enumerate(GROUPS):
        judgement = rule({group: Evidence(math.exp(suspect[place]), np.exp(controls[:, place]), 1.0)}, level=level)
        settings[group] = Setting(judgement.decision, p_value=judgement.p_value, reason=judgement.reason)
        metrics[group] = MetricResult(group, math.exp(suspect[place]), judgement.votes[group])
    copy = Decision.COPY in {setting.decision for setting in settings.values()}
    return Verdict(Decision.COPY if copy else Decision.INDEPENDENT, None, settings, metrics)


def check(suspects: Array, controls: Array, rejected: Array, rule: Rule) -> None:
    """Stop where the core says something else of a fleet."""
    for drawn, their_controls, expected in zip(suspects[:CHECKED], controls, rejected, strict=False):
        verdicts, _ = judge_fleet([partial(judge_one, one, their_controls, rule) for one in drawn], RATE)
        copies = [verdict is not None and verdict.decision is Decision.COPY for verdict in verdicts]
        if copies != expected.tolist():
            raise SystemExit(f"expected {expected.sum()} copies, found {sum(copies)}")


def rates(rejected: Array, copies: int) -> tuple[Array, Array]:
    """Of each fleet the share of honest models among those called copies, and of the copies that are."""
    false, caught = rejected[:, copies:].sum(axis=1), rejected[:, :copies].sum(axis=1)
    return false / np.maximum(false + caught, 1), caught / max(copies, 1)


def mean(values: Array) -> str:
    """In percent, with the half width of its 95 % interval."""
    return f"{100 * values.mean():.1f} ± {196 * values.std() / math.sqrt(len(values)):.1f}"


def row(cells: list[str]) -> None:
    print(f"| {' | '.join(cells)} |")


def simulate(null: str, rule: str, n: int, copies: int, draws: int, seed: int) -> dict[str, tuple[Array, Array]]:
    """How the fleets are judged, by name: the :func:`rates` of each of them."""
    [(_, _, p_of, itself)] = [rule_row for rule_row in RULES if rule_row[0] == rule]
    rates_of: dict[str, list[tuple[Array, Array]]] = {}
    for block in range(0, draws, BLOCK):
        rng = np.random.default_rng([seed, n, copies, block])
        fleets = min(BLOCK, draws - block)
        suspects, controls = draw(rng, null, fleets, SUSPECTS), draw(rng, null, fleets, n)
        suspects[:, :copies] -= NEARER
        p = np.minimum(1, 2 * p_of(suspects, controls).min(axis=2))
        together = step_up(p, RATE)
        check(suspects, controls, together, itself)
        for how, rejected in (("together", together), ("alone", p <= RATE)):
            rates_of.setdefault(how, []).append(rates(rejected, copies))
    return {
        how: tuple(np.concatenate(parts) for parts in zip(*blocks, strict=True)) for how, blocks in rates_of.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for null in NULLS:
        print(f"\n{null}:\n")
        head = ["rule", "n", "copies", "false, fdr=0.05", "found, fdr=0.05", "false, level 0.05", "found, level 0.05"]
        row(head)
        row(["---"] * len(head))
        for rule, least, *_ in RULES:
            for n in SIZES:
                for copies in COPIES if n >= least else ():
                    rates_of = simulate(null, rule, n, copies, arguments.draws, arguments.seed)
                    cells = [mean(part) for how in ("together", "alone") for part in rates_of[how]]
                    if not copies:
                        cells[1] = cells[3] = "-"
                    row([rule, str(n), f"{copies} of {SUSPECTS}", *cells])


if __name__ == "__main__":
    main()
