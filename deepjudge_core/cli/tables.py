"""The tables of suspects and controls: as wide as the terminal at most, 100 columns where there is none."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from deepjudge_core.auditing.outcome import AuditOutcome, SuspectResult
from deepjudge_core.cli.many import ManySettings
from deepjudge_core.components.values import Decision
from deepjudge_core.judging.calibration import Calibration
from deepjudge_core.judging.judge import GROUPS
from deepjudge_core.judging.ranking import ranked, ratio
from deepjudge_core.judging.verdict import SAID, MetricResult, in_words
from deepjudge_core.text import LONGEST_LINE, clean, compact, ending, number

PAPER = 100  # columns where there is no terminal
_LEAST_NAME = 16
_STYLES = {
    Decision.COPY: "bold red",
    Decision.INDEPENDENT: "green",
    Decision.INCONCLUSIVE: "yellow",
    Decision.FAILED: "bold magenta",
}
_MARKS = {
    "*": "at most the threshold, which is a vote for copy",
    "?": "casts no vote",
    "-": "not measured",
}
_PLURALS = {Decision.COPY: "copies"}
_RATIO = "ratio: the value as a share of the threshold, median of the nearer group of metrics; copies have at most 1"


@dataclass(frozen=True)
class _Part:
    # A column, or several: a head, a cell for each row, and what stands at the foot.
    head: str
    cells: Sequence[Text]
    foot: str = ""
    right: bool = True


def show_suspects(out: Console, report: AuditOutcome, many: ManySettings, say: Callable[[str], None]) -> None:
    """The table of suspects, and what its marks say.

    Args:
        out: Where to.
        report: What came of them.
        many: Which are shown, and in which order.
        say: What says a line.
    """
    results = in_order(report.suspects, many)
    if results:
        _show(out, results, say)


def in_order(results: Sequence[SuspectResult], many: ManySettings) -> list[SuspectResult]:
    """Those that are shown, in the order of the table."""
    ordered = list(results)
    if many.sort == "similarity":
        ordered = [results[place] for place in ranked(results)]
    elif many.sort == "name":
        ordered.sort(key=lambda result: result.path)
    return [result for result in ordered if not many.only or result.decision in many.only]


def counts(report: AuditOutcome, many: ManySettings) -> str:
    """How many suspects there are of each verdict, how many files were skipped, and how many suspects are not shown."""
    decisions = [result.decision for result in report.suspects]
    parts = [
        f"{count} {_PLURALS.get(decision, SAID[decision]) if count != 1 else SAID[decision]}"
        for decision in SAID
        if (count := decisions.count(Decision(decision)))
    ]
    parts += [f"{_number_of(len(report.skipped), 'file')} skipped"] if report.skipped else []
    hidden = len(decisions) - len(in_order(report.suspects, many))
    left = f" (--only leaves {hidden} out above)" if hidden else ""
    return f"{_number_of(len(decisions), 'suspect')}: {', '.join(parts)}{left}"


def _number_of(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def show_controls(out: Console, calibration: Calibration, say: Callable[[str], None]) -> None:
    """The table of controls and their values."""
    controls, values = calibration.controls, calibration.measurements
    names = list(values[0]) if values else []
    paths = [control.model.name for control in controls]
    parts = [_Part(name, [Text(compact(one[name].value)) for one in values], right=True) for name in names]
    kinds = _Part("format", [Text(clean(control.model.framework)) for control in controls], right=False)
    strata = _Part("stratum", [Text(stratum or "unknown") for stratum in calibration.strata], right=False)
    known = [strata] if any(calibration.strata) else []
    for layout in ([kinds, *known, *parts], [*known, *parts], parts):
        table = _fitting(out, "control", paths, layout, say)
        if table:
            out.print(table)
            return
    say("the values of the controls need a wider terminal; they are in the calibration")


def _show(out: Console, results: Sequence[SuspectResult], say: Callable[[str], None]) -> None:
    names = list(dict.fromkeys(name for result in results for name in result.metrics))
    ratios = [ratio(result) for result in results]
    near = _Part("ratio", [Text("-" if one is None else compact(one)) for one in ratios])
    nears = [near] if any(one is not None for one in ratios) else []
    kinds = [_Part("format", [Text(clean(r.model.framework) if r.model else "-") for r in results], right=False)]
    metrics = [_metric(name, results) for name in names]
    groups = [_Part(group, [_votes(result, group) for result in results]) for group in GROUPS if names]
    last = [*_further(results), _Part("verdict", [_decision(result) for result in results], right=False)]
    paths = [result.path for result in results]
    whole = [(kinds + nears + metrics, True), (nears + metrics, True), (metrics, True), (nears + groups, False)]
    for parts, values in whole if names else [(kinds, False)]:
        table = _fitting(out, "suspect", paths, [*parts, *last], say)
        if table or parts == whole[-1][0] or not names:
            out.print(table or _folded("suspect", paths, [*parts, *last]))
            for line in _legend(results, ratios=near in parts, values=values, groups=not values and bool(names)):
                say(line)
            return


def _metric(name: str, results: Sequence[SuspectResult]) -> _Part:
    measured = [result.metrics.get(name) for result in results]
    thresholds = {one.threshold for one in measured if one and one.threshold is not None}
    foot = "..".join(compact(one) for one in sorted({min(thresholds), max(thresholds)})) if thresholds else ""
    return _Part(name, [_cell(one) for one in measured], foot)


def _cell(result: MetricResult | None) -> Text:
    mark = _mark(result)
    if result is None or mark == "-":
        return Text("- ", "dim")
    style = {"*": "red", "?": "dim"}.get(mark, "")
    return Text(f"{compact(result.value)}{mark or ' '}", style)


def _mark(result: MetricResult | None) -> str:
    if result is None or result.value is None:
        return "-"
    return "?" if result.vote.vote is None else "*" if result.vote.vote else ""


def _votes(result: SuspectResult, group: str) -> Text:
    cast = [one.vote.vote for one in result.metrics.values() if one.group == group and one.vote.vote is not None]
    return Text(f"{sum(cast)} of {len(cast)}", "red" if any(cast) else "") if cast else Text("-", "dim")


def _further(results: Sequence[SuspectResult]) -> Iterator[_Part]:
    if any(result.tested for result in results):
        yield _Part("q", [Text(number(r.tested.q_value) if r.tested else "-") for r in results])
    if any(result.sequential for result in results):
        asked = (
            (result.sequential and f"{len(result.sequential.rows)} of {result.sequential.budget}") for result in results
        )
        yield _Part("cases asked", [Text(one or "-") for one in asked])


def _decision(result: SuspectResult) -> Text:
    points_to = result.verdict.points_to if result.verdict else None
    return Text(in_words(result.decision, points_to), _STYLES[result.decision])


def _legend(results: Sequence[SuspectResult], *, ratios: bool, values: bool, groups: bool) -> Iterator[str]:
    marks = {_mark(result.metrics.get(name)) for result in results for name in result.metrics} if values else set()
    said = [f"{mark} {words}" for mark, words in _MARKS.items() if mark in marks]
    if said:
        yield "; ".join(said)
    if ratios:
        yield _RATIO
    if groups:
        yield "black-box, white-box: metrics that vote for copy; a wider terminal or --csv shows their values"


def _fitting(
    out: Console, head: str, paths: Sequence[str], parts: Sequence[_Part], say: Callable[[str], None]
) -> Table | None:
    # The table with its names cut from the left as far as it takes; None where that is too far, or makes two alike.
    room = out.width if out.is_terminal else PAPER
    folder, names = without_common(paths)
    longest = max(map(len, names))
    table = _table(head, names, parts)
    excess = _width(out, table) - room
    if excess > 0:
        kept = max(longest - excess, 0)
        names = [ending(name, kept) for name in names]
        if kept < min(longest, _LEAST_NAME) or len(set(names)) < len(set(paths)):
            return None
        table = _table(head, names, parts)
    if folder:
        say(f"{head}s in {folder}")
    return table


def _folded(head: str, paths: Sequence[str], parts: Sequence[_Part]) -> Table:
    return _table(head, [clean(path, LONGEST_LINE) for path in paths], parts, folds=True)


def _table(head: str, names: Iterable[str], parts: Sequence[_Part], *, folds: bool = False) -> Table:
    columns = [
        Column(head, "thresholds" if any(part.foot for part in parts) else "", overflow="fold", no_wrap=not folds)
    ]
    columns += [Column(part.head, part.foot, justify="right" if part.right else "left", no_wrap=True) for part in parts]
    table = Table(*columns, box=SIMPLE, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.show_footer = any(part.foot for part in parts)
    for row in zip(map(Text, names), *(part.cells for part in parts), strict=True):
        table.add_row(*row)
    return table


def _width(out: Console, table: Table) -> int:
    return table.__rich_measure__(out, out.options.update(max_width=10**6)).maximum


def without_common(paths: Sequence[str]) -> tuple[str, list[str]]:
    """The folder that several paths are in, and the paths from there; no folder for one path, or if there is none."""
    shown = [clean(path, LONGEST_LINE) for path in paths]
    folders = [path.split("/")[:-1] for path in shown]
    same = takewhile(lambda parts: len(set(parts)) == 1, zip(*folders, strict=False))
    start = "".join(f"{parts[0]}/" for parts in same) if len(shown) > 1 else ""
    return (start, [path[len(start) :] for path in shown]) if start.strip("/.") else ("", shown)
