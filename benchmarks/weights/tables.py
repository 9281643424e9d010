"""Tables of what was measured, in Markdown."""

from collections.abc import Iterable, Sequence
from itertools import groupby

import numpy as np
from deepjudge_statistics.bounds import prediction_limit
from deepjudge_voting.voting import lower_bound
from deepjudge_weights import deepjudge_metrics
from measuring import Row, separation, upper_bound

Rows = dict[str, Row]
ALPHA = 0.001  # of the rule that takes exact probabilities
LEVEL, CONTROLS, DRAWS = 0.01, 20, 1000  # of the bound that takes distances, and how many independents it knows
STATISTICS = {"sketch": "`neuron-sketch`", "p": "`order`", "AWM": "AWM", "HuRef": "HuRef", "raw cosine": "raw cosine"}
_TWINS = "*honest:* trained from the victim's seed"
_FAMILY = {"sibling controls": "control", "siblings": "sibling", "copies of the owner's": "copy"}


def print_tables(groups: dict[str, Rows]) -> None:
    """Print all tables."""
    for kind in ("llama", "gpt2", "bert"):
        rows = {name: row for name, row in groups[kind].items() if "error" not in row}
        for name in groups[kind].keys() - rows.keys():
            print(f"{kind}/{name}: {groups[kind][name]['error']}")
        if rows:
            _kind(kind, rows)
    if groups["family"]:
        _family(groups["family"])
    if groups["formats"]:
        print("\n### Formats\n")
        _table(
            ("format", "`neuron-sketch`", "`order`, log10 p"),
            [(name, *_shown(row)) for name, row in groups["formats"].items()],
        )


def _kind(kind: str, rows: Rows) -> None:
    copies, independents, twins, unseen = (_named(rows, name) for name in ("copy", "independent", "twin", "unseen"))
    if not copies or len(independents) <= CONTROLS:
        print(f"\n{kind}: {len(copies)} copies, {len(independents)} independents: too few")
        return
    count = len({row["kind"] for row in copies})
    print(f"\n### {kind}: {len(copies)} copies of {count} kinds, {len(independents)} independents of one victim\n")
    table = []
    for name, title in STATISTICS.items():
        near, far = ([row[name] for row in group if row.get(name) is not None] for group in (copies, independents))
        if near and far:
            auc, found = separation(near, far)
            spread = f"{np.mean(far):.3f} ± {np.std(far, ddof=1):.3f}, {min(far):.3f}"
            table.append((title, spread, f"{max(near):.3f}", f"{auc:.3f}", f"{found:.0%}"))
    _table(
        ("statistic", "independents: mean ± sd, least", "farthest copy", "AUC", "copies nearer than all independents"),
        table,
    )
    _order(copies, independents)
    _bound(copies, independents)
    print()
    header = ("kind of copy", "models", "`neuron-sketch`, at most", "`order`, log10 p, at most")
    body = [(group[0]["kind"], str(len(group)), *_farthest(group)) for group in _by_kind(copies)]
    body += [(f"*not seen:* {group[0]['kind']}", str(len(group)), *_farthest(group)) for group in _by_kind(unseen)]
    if twins:
        body.append((_TWINS, str(len(twins)), *_farthest(twins)))
    _table(header, body)


def _order(copies: Sequence[Row], independents: Sequence[Row]) -> None:
    honest, stolen = ([10 ** row["p"] for row in part if row["p"] is not None] for part in (independents, copies))
    tested, small, accused = len(honest), sum(p <= 0.05 for p in honest), sum(p <= ALPHA for p in honest)
    print(f"\n`order`: {small} of {tested} independents ({small / tested:.1%}) have p <= 0.05.")
    print(f"The least p is {min(honest):.4f}; {accused} have p <= {ALPHA}: {_share(accused, tested)}.")
    print(f"{sum(p <= ALPHA for p in stolen)} of {len(copies)} copies have p <= {ALPHA}.")


def _bound(copies: Sequence[Row], independents: Sequence[Row]) -> None:
    metric = next(one for one in deepjudge_metrics() if one.name == "neuron-sketch")
    far = np.array([row["sketch"] for row in independents])
    controls, others = far[:CONTROLS], far[CONTROLS:]
    limit = metric.alpha * lower_bound(controls, "prediction", 0.99)
    by_order = [row["p"] is not None and 10 ** row["p"] <= ALPHA for row in copies]
    by_sketch = [row["sketch"] <= limit for row in copies]
    accused = int((others <= limit).sum())
    print(f"\n`neuron-sketch`, {CONTROLS} independents as controls, the default rule (voting), threshold {limit:.3f}:")
    print(
        f"{sum(by_sketch)} of {len(copies)} copies are found; {sum(map(max, by_order, by_sketch))} by it or by `order`."
    )
    print(f"{accused} of {len(others)} others are accused: {_share(accused, len(others))}.")
    random = np.random.default_rng(0)
    shares = []
    for _ in range(DRAWS):
        order = random.permutation(len(far))
        shares.append(np.mean(far[order[CONTROLS:]] <= prediction_limit(LEVEL, far[order[:CONTROLS]])))
    print(f"\nThe rule `prediction-bound` at {LEVEL:.0%} accuses {np.mean(shares):.2%} of the others on average over")
    print(f"{DRAWS:,} choices of {CONTROLS} controls; in one of twenty, {np.quantile(shares, 0.95):.1%} or more.")


def _judged(controls: list[float], copies: list[float], honest: list[float]) -> tuple[int, int, float]:
    """Copies found, honest models accused, and the threshold, of the rule ``prediction-bound``."""
    limit = prediction_limit(LEVEL, np.array(controls))
    return sum(value <= limit for value in copies), sum(value <= limit for value in honest), limit


def _share(wrong: int, of: int) -> str:
    return f"at most {upper_bound(wrong, of):.1%}, with 95 % confidence"


def _family(rows: Rows) -> None:
    groups = {title: _named(rows, name) for title, name in _FAMILY.items()}
    print(f"\n### One base: {', '.join(f'{len(group)} {title}' for title, group in groups.items())}\n")
    body = []
    for title, group in groups.items():
        slopes = [row["slope"] for row in group]
        if slopes:
            body.append((title, str(len(group)), f"{min(slopes):.3f}..{max(slopes):.3f}", *_farthest(group)))
    _table(("models", "count", "`sibling-slope`", "`neuron-sketch`, at most", "`order`, log10 p, at most"), body)
    controls, siblings, copies = ([row["slope"] for row in group] for group in groups.values())
    found, accused, limit = _judged(controls, copies, siblings)
    print(f"\n`sibling-slope`, prediction bound at {LEVEL:.0%}, threshold {limit:.3f}:")
    print(f"{found} of {len(copies)} copies found, {accused} of {len(siblings)} siblings accused.\n")
    _table(("kind of copy", "models", "`sibling-slope`"), map(_slopes, _by_kind(groups["copies of the owner's"])))


def _slopes(group: list[Row]) -> tuple[str, str, str]:
    slopes = [row["slope"] for row in group]
    return group[0]["kind"], str(len(group)), f"{min(slopes):.3f}..{max(slopes):.3f}"


def _by_kind(rows: Sequence[Row]) -> list[list[Row]]:
    return [list(group) for _, group in groupby(sorted(rows, key=lambda row: row["kind"]), key=lambda row: row["kind"])]


def _named(rows: Rows, prefix: str) -> list[Row]:
    return [row for name, row in sorted(rows.items()) if name.startswith(prefix)]


def _farthest(rows: Iterable[Row]) -> tuple[str, str]:
    rows = list(rows)
    p_values = [row["p"] for row in rows if row["p"] is not None]
    return f"{max(row['sketch'] for row in rows):.3f}", f"{max(p_values):.1f}" if p_values else "none"


def _shown(row: Row) -> tuple[str, str]:
    return (row["error"], "") if "error" in row else (f"{row['sketch']:.4f}", f"{row['p']:.1f}")


def _table(header: Sequence[str], body: Iterable[Sequence[str]]) -> None:
    for line in (header, ["---"] * len(header), *body):
        print(f"| {' | '.join(line)} |")
