"""The tables of the study, as Markdown."""

from collections.abc import Iterable, Iterator

import numpy as np
from measuring import Found, Missed
from plan import ATTACKS

from deepjudge_core.judging.exact import power_of_ten
from deepjudge_core.judging.verdict import Counted


def tables_of(found: Iterable[Found], missed: Iterable[Missed]) -> str:
    """All of them."""
    rows = list(found)
    return "\n".join([*_matches(rows), "", *_independents(rows), "", *_missed(list(missed)), "", *_costs(rows), ""])


def _matches(rows: list[Found]) -> Iterator[str]:
    yield "## Trials that match, of the marked model and of what was stolen from it"
    yield ""
    yield f"| key | marked | {' | '.join(ATTACKS)} | table II: fine-tuning, pruning, extraction |"
    yield f"| --- | --- | {' | '.join('---' for _ in ATTACKS)} | --- |"
    for row in rows:
        cells = [_cell(*row.stolen[attack][:2]) if attack in row.stolen else "-" for attack in ATTACKS]
        yield f"| {row.plan.name} | {_count(row.marked)} | {' | '.join(cells)} | {row.plan.paper or '-'} |"


def _independents(rows: list[Found]) -> Iterator[str]:
    yield "## Independents"
    yield ""
    yield "| key | independents | trials that match: mean, greatest | accused at 1 % |"
    yield "| --- | ---: | --- | ---: |"
    for row in rows:
        shares = np.array([found for found, _ in row.matched])
        of = row.matched[0][1] if row.matched else 0
        spread = f"{shares.mean():.1f}, {shares.max()} of {of}" if len(shares) else "not measured"
        yield f"| {row.plan.name} | {len(row.matched)} | {spread} | {row.accused:.2%} |"


def _missed(rows: list[Missed]) -> Iterator[str]:
    yield "## Extracted models, beside the same 24 controls"
    yield ""
    yield "| attack | accuracy | default suite | conferrable inputs |"
    yield "| --- | ---: | --- | --- |"
    for row in rows:
        accuracy = "-" if row.accuracy is None else f"{row.accuracy:.1%}"
        cell = _cell(row.matched, "copy" if row.accused else "")
        yield f"| {row.attack} | {accuracy} | {row.default} | {cell} |"
    misses = [row for row in rows if row.default != "copy"]
    yield ""
    found = sum(row.accused for row in misses)
    yield f"The default suite misses {len(misses)} of {len(rows)}; the key finds {found} of these."


def _costs(rows: list[Found]) -> Iterator[str]:
    yield "## What embedding said"
    for row in rows:
        if row.cost:
            yield ""
            yield f"**{row.plan.name}**"
            yield ""
            yield from (f"    {line}" for line in row.cost.splitlines())


def _count(one: Counted) -> str:
    return f"{one.reading.found} of {one.reading.of}"


def _cell(one: Counted | None, why: str) -> str:
    if one is None:
        return f"not measured ({why})"
    p = "" if one.log10_p is None else f", p = {power_of_ten(one.log10_p)}"
    return f"{'**' if why == 'copy' else ''}{_count(one)}{'**' if why == 'copy' else ''}{p}"
