"""The tables of the study, as Markdown, and their place in the page."""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from measuring import ByDefault, Found
from plan import EXTRACTING, HARDENING, QUICK

from deepjudge_core.judging.exact import power_of_ten
from deepjudge_core.judging.verdict import Counted

_PAGE = Path(__file__).resolve().parents[2] / "docs" / "why" / "marks.md"
_START, _END = "<!-- measured -->", "<!-- end of measured -->"
_ACCURACY = re.compile(r"accuracy +(\S+ ?%) before, (\S+ ?%) after")


def write(text: str) -> None:
    """Put the tables where their marks stand in the page."""
    page = _PAGE.read_text("utf-8")
    if _START not in page or _END not in page:
        raise SystemExit(f"{_PAGE}: expected the marks {_START} and {_END}, found none")
    changed = re.sub(f"{_START}.*{_END}", lambda _: f"{_START}\n{text}\n{_END}", page, flags=re.DOTALL)
    _PAGE.write_text(changed, "utf-8")


def tables_of(found: Iterable[Found], by_default: ByDefault | None) -> str:
    """All of them."""
    rows = list(found)
    parts = [
        _matches("Fine-tuned, pruned, disguised, converted", rows, QUICK, ("fine-tuning", "pruning")),
        _matches("Extracted and hardened", rows, (*EXTRACTING, *HARDENING), ("extraction",)),
        _thefts(rows),
        _independents(rows),
        _missed(rows, by_default) if by_default else (),
        _costs(rows),
    ]
    return "\n".join(line for part in parts for line in (*part, ""))


def _matches(title: str, rows: list[Found], attacks: Sequence[str], paper: Sequence[str]) -> Iterator[str]:
    rows = [row for row in rows if row.stolen.keys() & set(attacks)]
    if not rows:
        return
    yield f"### {title}"
    yield ""
    said = [f"table II: {way}" for way in paper]
    yield f"| {' | '.join(['key', 'marked', *attacks, *said])} |"
    yield f"| {' | '.join(['---'] * (2 + len(attacks) + len(said)))} |"
    for row in rows:
        cells = [_cell(*row.stolen[attack]) if attack in row.stolen else "not measured" for attack in attacks]
        answers = [row.plan.paper.get(way, "-") for way in paper]
        yield f"| {' | '.join([row.plan.name, _count(row.marked), *cells, *answers])} |"


def _thefts(rows: list[Found]) -> Iterator[str]:
    yield "### How good the stolen models are"
    yield ""
    yield "| attack | models | accuracy: least, greatest |"
    yield "| --- | ---: | --- |"
    for attack in (*QUICK, *EXTRACTING, *HARDENING):
        shares = [row.accuracies[attack] for row in rows if attack in row.accuracies]
        if shares:
            yield f"| {attack} | {len(shares)} | {min(shares):.1%}, {max(shares):.1%} |"


def _independents(rows: list[Found]) -> Iterator[str]:
    yield "### Independents"
    yield ""
    yield "| key | independents | trials that match: mean, greatest | accused at 1 % |"
    yield "| --- | ---: | --- | ---: |"
    for row in rows:
        found = np.array([found for found, _ in row.matched])
        of = max((of for _, of in row.matched), default=0)
        spread = f"{found.mean():.1f}, {found.max()} of {of}" if len(found) else "not measured"
        accused = "not measured" if row.accused is None else f"{row.accused:.2%}"
        yield f"| {row.plan.name} | {len(row.matched)} | {spread} | {accused} |"


def _missed(rows: list[Found], by_default: ByDefault) -> Iterator[str]:
    yield "### Conferrable inputs and the default suite"
    yield ""
    yield "| extracted by | accuracy | default suite | conferrable inputs |"
    yield "| --- | ---: | --- | --- |"
    both = [(model, cell) for row in rows for model, cell in row.others if model.file in by_default.copies]
    for model, cell in both:
        accuracy = "-" if model.accuracy is None else f"{model.accuracy:.1%}"
        default = "copy" if by_default.copies[model.file] else "missed" if by_default.decides else "no verdict"
        yield f"| {model.attack} | {accuracy} | {default} | {_cell(*cell)} |"
    misses = [why for model, (_, why) in both if not by_default.copies[model.file]]
    yield ""
    effective = by_default.effective
    if effective < by_default.controls:
        count = by_default.controls
        yield f"The {count} controls of the default suite count as {effective}, since they answer nearly alike."
    if by_default.decides:
        yield f"The default suite misses {len(misses)} of {len(both)}; the key finds {misses.count('copy')} of these."
    else:
        yield "That is too few for a verdict, so what the default suite misses is not known."
        yield f"The key finds {misses.count('copy')} of {len(both)}."


def _costs(rows: list[Found]) -> Iterator[str]:
    yield "### What a key costs"
    yield ""
    yield "| key | accuracy before | accuracy after |"
    yield "| --- | ---: | ---: |"
    for row in rows:
        said = _ACCURACY.search(row.cost)
        if said:
            yield f"| {row.plan.name} | {said[1]} | {said[2]} |"


def _count(one: Counted) -> str:
    return f"{one.reading.found} of {one.reading.of}"


def _cell(one: Counted | None, why: str) -> str:
    if one is None:
        return f"not measured: {why}"
    p = "" if one.log10_p is None else f", p = {power_of_ten(one.log10_p)}"
    bold = "**" if why == "copy" else ""
    return f"{bold}{_count(one)}{bold}{p}"
