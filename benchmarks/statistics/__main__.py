"""How often each rule would call an honest model a copy, by simulation; prints the tables of docs/why/statistics.md.

An honest suspect and n controls are drawn from one distribution of log distances, many times over. For speed the rules
are applied to many draws at once; some are also given to the rules themselves, which have to say the same.
"""

import argparse
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import scipy.stats
from deepjudge_statistics import bounds
from deepjudge_statistics.combine import combine, harmonic_factor
from deepjudge_statistics.rules import conformal, prediction_bound, tolerance_bound
from deepjudge_voting.voting import false_positive_rate, voting

from deepjudge_core.components.values import Decision, Evidence, Judgement

LEVEL, CONFIDENCE, SPREAD = 0.01, 0.95, 0.1  # SPREAD: standard deviation of log distances
SIZES = (3, 6, 12, 24, 99)
BLOCK, CHECKED = 10_000, 20  # draws at once, and of them those that the rules themselves are asked about
METRICS, CORRELATION = 4, 0.5
ROWS = 1000  # draws whose ranks are taken at once

Array = np.ndarray
Null = Callable[[np.random.Generator, tuple[int, ...]], Array]
NULLS: Mapping[str, Null] = {  # each of mean 0 and variance 1
    "normal": lambda rng, shape: rng.normal(size=shape),
    "t3": lambda rng, shape: rng.standard_t(3, size=shape) / math.sqrt(3),
    "skewed to near": lambda rng, shape: 1 - rng.exponential(size=shape),
    "skewed to far": lambda rng, shape: rng.exponential(size=shape) - 1,
}


def t_statistic(value: Array, controls: Array) -> Array:
    n = controls.shape[1]
    return (value - controls.mean(axis=1)) / (controls.std(axis=1, ddof=1) * math.sqrt(1 + 1 / n))


def by_prediction(value: Array, controls: Array) -> Array:
    n = controls.shape[1]
    return t_statistic(np.log(value), np.log(controls)) <= scipy.stats.t.ppf(LEVEL, n - 1)


def by_tolerance(value: Array, controls: Array) -> Array:
    logs = np.log(controls)
    factor = bounds.tolerance_factor(controls.shape[1], 1 - LEVEL, CONFIDENCE)
    return np.log(value) <= logs.mean(axis=1) - factor * logs.std(axis=1, ddof=1)


def by_rank(value: Array, controls: Array) -> Array:
    return (1 + (controls <= value[:, None]).sum(axis=1)) / (controls.shape[1] + 1) <= LEVEL


def by_voting(value: Array, controls: Array, bound: str, alpha: float) -> Array:
    n = controls.shape[1]
    factor = scipy.stats.t.ppf(0.99, n - 1) * math.sqrt((bound == "prediction") + 1 / n)
    limit = controls.mean(axis=1) - factor * controls.std(axis=1, ddof=1)
    return (limit > 0) & (value <= alpha * limit)


def metric_p(values: Array) -> Array:
    """Prediction p-values ``(draws, metrics)`` of values ``(draws, 1 + n, metrics)``."""
    n = values.shape[1] - 1
    columns = [t_statistic(np.log(v[:, 0]), np.log(v[:, 1:])) for v in np.moveaxis(values, 2, 0)]
    return scipy.stats.t.cdf(np.column_stack(columns), n - 1)


def by_bonferroni(values: Array) -> Array:
    return metric_p(values).min(axis=1) * values.shape[2] <= LEVEL


def by_harmonic(values: Array) -> Array:
    return harmonic_factor(values.shape[2]) * scipy.stats.hmean(metric_p(values), axis=1) <= LEVEL


def by_score(values: Array) -> Array:
    ranks = (scipy.stats.rankdata(values[i : i + ROWS], axis=1).sum(axis=2) for i in range(0, len(values), ROWS))
    scores = np.concatenate(list(ranks))
    return by_rank(scores[:, 0], scores[:, 1:])


Rule = Callable[[Mapping[str, Evidence]], Judgement]
# What it is called, its least number of controls, all draws at once (draws, 1 + n, metrics), and the rule itself.
SINGLE: list[tuple[str, int, Callable[[Array], Array], Rule]] = [
    ("`prediction-bound`", 6, lambda v: by_prediction(v[:, 0, 0], v[:, 1:, 0]), prediction_bound),
    ("`tolerance-bound`", 3, lambda v: by_tolerance(v[:, 0, 0], v[:, 1:, 0]), tolerance_bound),
    ("`conformal`", 99, lambda v: by_rank(v[:, 0, 0], v[:, 1:, 0]), conformal),
    *(
        (
            f"`voting`, bound={bound}, alpha={alpha:g}",
            3,
            lambda v, bound=bound, alpha=alpha: by_voting(v[:, 0, 0], v[:, 1:, 0], bound, alpha),
            lambda e, bound=bound, alpha=alpha: voting(e, bound=bound, alpha={"0": alpha}),
        )
        for bound in ("prediction", "mean")
        for alpha in (1.0, 0.9)
    ),
]
SEVERAL: list[tuple[str, int, Callable[[Array], Array], Rule]] = [
    ("`prediction-bound`, `combine` method=bonferroni", 6, by_bonferroni, prediction_bound),
    ("`combine` method=harmonic", 6, by_harmonic, lambda e: combine(e, method="harmonic")),
    ("`combine` method=score", 99, by_score, combine),
]


def share(copies: Array) -> str:
    """Of so many draws, with the exact 95 % interval."""
    interval = scipy.stats.binomtest(int(copies.sum()), len(copies)).proportion_ci(0.95, method="exact")
    return f"{100 * copies.mean():.2f} ({100 * interval.low:.2f}..{100 * interval.high:.2f})"


def check(values: Array, copies: Array, rule: Rule) -> None:
    """Stop where the rule itself says something else; ``values`` is ``(draws, 1 + n, metrics)``."""
    for drawn, copy in zip(values[:CHECKED], copies, strict=False):
        evidence = {str(j): Evidence(column[0], column[1:], 1.0) for j, column in enumerate(drawn.T)}
        decision = rule(evidence).decision
        if (decision is Decision.COPY) != copy:
            raise SystemExit(f"expected {'copy' if copy else 'no copy'}, found {decision}")


def row(cells: list[str]) -> None:
    print(f"| {' | '.join(cells)} |")


def table(head: str, columns: list[str]) -> None:
    row([head, *columns])
    row(["---"] * (len(columns) + 1))


def single(draws: int, seed: int) -> None:
    for name, null in NULLS.items():
        print(f"\n{name}:\n")
        table("rule, one metric", [f"n = {n}" for n in SIZES])
        show(SINGLE, SIZES, draws, seed, lambda rng, count, n, null=null: null(rng, (count, n + 1, 1)))


def several(draws: int, seed: int) -> None:
    def correlated(rng: np.random.Generator, count: int, n: int, null: Null) -> Array:
        common, own = null(rng, (count, n + 1, 1)), null(rng, (count, n + 1, METRICS))
        return math.sqrt(CORRELATION) * common + math.sqrt(1 - CORRELATION) * own

    for name, null in NULLS.items():
        print(f"\n{name}, {METRICS} metrics:\n")
        table("rule", [f"n = {n}" for n in SIZES[1:]])
        show(SEVERAL, SIZES[1:], draws, seed, lambda rng, count, n, null=null: correlated(rng, count, n, null))


def show(
    rules: list[tuple[str, int, Callable[[Array], Array], Rule]],
    sizes: Sequence[int],
    draws: int,
    seed: int,
    draw: Callable[[np.random.Generator, int, int], Array],
) -> None:
    """A row for each rule: how many of the draws it calls copies, for each number of controls."""
    copies_of: dict[tuple[str, int], list[Array]] = {}
    for n in sizes:
        for block in range(0, draws, BLOCK):
            rng = np.random.default_rng([seed, n, block])
            values = np.exp(SPREAD * draw(rng, min(BLOCK, draws - block), n))
            for label, least, all_at_once, rule in rules:
                if n >= least:
                    copies = all_at_once(values)
                    check(values, copies, rule)
                    copies_of.setdefault((label, n), []).append(copies)
    for label, *_ in rules:
        row(
            [
                label,
                *(share(np.concatenate(copies_of[label, n])) if (label, n) in copies_of else "refused" for n in sizes),
            ]
        )


def given_controls(draws: int, seed: int) -> None:
    """What a rate that is right on average is for the controls at hand."""
    print(
        "\nnormal, given the controls: share of sets of controls with a rate above 1 %; rate that 5 % of them exceed:\n"
    )
    table("rule, one metric", [f"n = {n}" for n in SIZES])
    cells: dict[str, list[str]] = {"`prediction-bound`": [], "`tolerance-bound`": []}
    for n in SIZES:
        logs = np.random.default_rng([seed, n, 0]).normal(size=(draws, n))
        centre, spread = logs.mean(axis=1), logs.std(axis=1, ddof=1)
        factors = {
            "`prediction-bound`": None if n < 6 else -scipy.stats.t.ppf(LEVEL, n - 1) * math.sqrt(1 + 1 / n),
            "`tolerance-bound`": bounds.tolerance_factor(n, 1 - LEVEL, CONFIDENCE),
        }
        for label, factor in factors.items():
            if factor is None:
                cells[label].append("refused")
                continue
            rates = scipy.stats.norm.cdf(centre - factor * spread)
            cells[label].append(f"{100 * (rates > LEVEL).mean():.0f} %; {100 * np.quantile(rates, 0.95):.1f} %")
    for label, texts in cells.items():
        row([label, *texts])


def factors() -> None:
    print("\nwhat the formulas say:\n")
    table("", [f"n = {n}" for n in SIZES])
    row(["k of `tolerance-bound`", *(f"{bounds.tolerance_factor(n, 1 - LEVEL, CONFIDENCE):.2f}" for n in SIZES)])
    row(["least p of `conformal`", *(f"{1 / (n + 1):.3f}" for n in SIZES)])
    for bound in ("prediction", "mean"):
        rates = (f"{100 * false_positive_rate(n, bound, 0.99):.1f} %" for n in SIZES)
        row([f"rate of `voting`, bound={bound}, alpha=1", *rates])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    factors()
    single(arguments.draws, arguments.seed)
    given_controls(arguments.draws, arguments.seed)
    several(arguments.draws, arguments.seed)


if __name__ == "__main__":
    main()
