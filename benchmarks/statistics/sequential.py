"""How often asking case by case accuses an honest model, and after how many queries; for docs/why/statistics.md.

The e-value after so many cases depends on how many of them agreed, and not on their order: it is looked up in a table,
which some draws of the core's own bets have to agree with.
"""

import argparse
import math
from functools import cache

import numpy as np
import scipy.special
import scipy.stats

from deepjudge_core.judging.betting import Capital

LEVEL, SIZE = 0.01, 500
FEW = 100  # cases where the bound is another for each set of controls, and with it the table
CONTROLS = (6, 12, 24)
SPREAD, MIDDLE = 0.2, math.log(0.6)  # of honest models' log disagreement
BLOCK, CHECKED = 1000, 3

Array = np.ndarray


@cache
def e_values(size: int, most: int) -> Array:
    """``(size + 1, size + 1)`` log e-values against at most ``most``, after so many cases with so many agreements."""
    t, s = np.arange(size + 1)[:, None], np.arange(size + 1)[None, :]

    def log_weight(k: Array) -> Array:  # of an order with s agreements among t, where k agree in all
        with np.errstate(invalid="ignore"):
            weight = -scipy.special.gammaln(k - s + 1) - scipy.special.gammaln(size - k - (t - s) + 1)
        weight = weight + scipy.special.gammaln(k + 1) + scipy.special.gammaln(size - k + 1)
        return np.where((s <= t) & (s <= k) & (t - s <= size - k), weight, -np.inf)

    whole = np.full((size + 1, size + 1), -np.inf)
    for k in range(most + 1, size + 1):
        whole = np.logaddexp(whole, log_weight(np.array(k)))
    under = log_weight(np.array(most))
    with np.errstate(invalid="ignore"):
        log_e = whole - math.log(size - most) - under
    return np.where(np.isneginf(whole), -np.inf, np.where(s > most, np.inf, log_e))


def check(agrees: Array, most: int, logs: Array) -> None:
    """Stop where the core's own bets are others; ``logs`` is ``(draws, size)``."""
    for row, expected in zip(agrees[:CHECKED], logs, strict=False):
        capital = Capital.start(len(row), most)
        for place, one in enumerate(row):
            capital = capital.after(bool(one))
            if not np.isclose(capital.value, np.exp(expected[place]), rtol=1e-6, atol=1e-9):
                raise SystemExit(f"expected {np.exp(expected[place])}, found {capital.value}")


def ask(agrees: Array, most: int) -> tuple[Array, Array]:
    """Of each of ``(draws, size)``: 1 for copy, -1 for independent, 0 for neither; and the number of queries."""
    draws, size = agrees.shape
    ones = agrees.cumsum(axis=1)
    t = np.arange(1, size + 1)
    copy, other = e_values(size, most)[t, ones], e_values(size, size - 1 - most)[t, t - ones]
    check(agrees, most, copy)
    enough = math.log(2 / LEVEL)
    stop = (copy >= enough) | (other >= enough)
    first = np.where(stop.any(axis=1), stop.argmax(axis=1), size - 1)
    rows = np.arange(draws)
    decided = np.where(copy[rows, first] >= enough, 1, np.where(other[rows, first] >= enough, -1, 0))
    return decided, first + 1


def draw(rng: np.random.Generator, draws: int, agreeing: int) -> Array:
    return mixed(rng, np.full(draws, agreeing), SIZE)


def mixed(rng: np.random.Generator, agreeing: Array, size: int) -> Array:
    """``(draws, size)`` in random order, of each draw so many that agree."""
    return rng.permuted(np.arange(size) < agreeing[:, None], axis=1)


def share(count: int, draws: int) -> str:
    interval = scipy.stats.binomtest(count, draws).proportion_ci(0.95, method="exact")
    return f"{100 * count / draws:.2f} ({100 * interval.low:.2f}..{100 * interval.high:.2f})"


def row(cells: list[str]) -> None:
    print(f"| {' | '.join(cells)} |")


def head(cells: list[str]) -> None:
    row(cells)
    row(["---"] * len(cells))


def at_the_bound(draws: int, seed: int) -> None:
    print("\nhonest models exactly at the bound, percent called copies:\n")
    head(["bound", "called a copy", "of it before all cases were asked"])
    for bound in (0.3, 0.5, 0.7, 0.9):
        most, copies, early = round(bound * SIZE), 0, 0
        for block in range(0, draws, BLOCK):
            rng = np.random.default_rng([seed, most, block])
            decided, queries = ask(draw(rng, min(BLOCK, draws - block), most), most)
            copies += int((decided == 1).sum())
            early += int(((decided == 1) & (queries < SIZE)).sum())
        row([f"{bound:.0%}", share(copies, draws), share(early, draws)])


def drawn_controls(draws: int, seed: int) -> None:
    print("\nhonest models and controls drawn alike, percent called copies:\n")
    head(["log disagreement", *(f"n = {n}" for n in CONTROLS)])
    for name in ("normal", "t3"):
        cells = []
        for n in CONTROLS:
            rng = np.random.default_rng([seed, n])
            noise = rng.normal(size=(draws, n + 1)) if name == "normal" else rng.standard_t(3, (draws, n + 1)) / 3**0.5
            disagreeing = np.clip(np.round(FEW * np.exp(MIDDLE + SPREAD * noise)), 1, FEW).astype(int)
            logs = np.log(disagreeing[:, 1:] / FEW)
            factor = scipy.stats.t.ppf(LEVEL / 2, n - 1) * math.sqrt(1 + 1 / n)
            limits = np.exp(logs.mean(axis=1) + factor * logs.std(axis=1, ddof=1))
            most = FEW - 1 - np.floor(FEW * limits).astype(int)
            copies = 0
            for bound in np.unique(most):
                decided, _ = ask(mixed(rng, FEW - disagreeing[most == bound, 0], FEW), int(bound))
                copies += int((decided == 1).sum())
            cells.append(share(copies, draws))
        row([name, *cells])


def queries(draws: int, seed: int) -> None:
    print("\nqueries, median (95 % of the models take at most), and percent decided rightly:\n")
    agreements = (0.99, 0.9, 0.8, 0.6, 0.5, 0.4, 0.3)
    head(["bound", *(f"agrees on {agreement:.0%}" for agreement in agreements)])
    for bound in (0.5, 0.7):
        most, cells = round(bound * SIZE), []
        for agreement in agreements:
            agreeing = round(agreement * SIZE)
            decided, taken = ask(draw(np.random.default_rng([seed, most, agreeing]), draws, agreeing), most)
            right = np.mean(decided == (1 if agreeing > most else -1))
            cells.append(f"{np.median(taken):.0f} ({np.quantile(taken, 0.95):.0f}); {100 * right:.1f}")
        row([f"{bound:.0%}", *cells])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    at_the_bound(arguments.draws, arguments.seed)
    queries(min(arguments.draws, 5000), arguments.seed)
    drawn_controls(arguments.draws, arguments.seed)


if __name__ == "__main__":
    main()
