"""The tables of suspects and controls: as wide as the terminal at most, 100 columns where there is none."""

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
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
from deepjudge_core.judging.judge import ALL_GROUPS, GROUPS
from deepjudge_core.judging.measure import Measurement
from deepjudge_core.judging.ranking import ranked, ratio
from deepjudge_core.judging.verdict import SAID, MetricResult, in_words
from deepjudge_core.text import LONGEST_LINE, clean, compact, counted, ending, number

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
_PLURALS: dict[str, str] = {Decision.COPY: "copies"}
# What is not called a copy without saying what else it may be.
_OTHERWISE = {"descent": "or same initialisation", "data": "or trained on the same data"}
_RATIO = "ratio: the value as a share of the threshold, median of the nearer group of metrics; copies have at most 1"


@dataclass(frozen=True)
class Part:
    """A column.

    Attributes:
        head: What stands above it.
        cells: A cell for each row.
        foot: What stands below it.
        right: Whether cells stand on the right.
    """

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
    return [result for result in ordered if not many.only or result.decision in many.only][: many.most]


def counts(report: AuditOutcome, many: ManySettings) -> str:
    """How many suspects there are of each verdict, how many files were skipped, and how many suspects are not shown."""
    decisions = [result.decision for result in report.suspects]
    parts = []
    for decision in SAID:
        count, more = decisions.count(Decision(decision)), list[str]()
        for otherwise, words in _OTHERWISE.items() if decision == Decision.COPY else ():
            if shared := sum(one.points_to == otherwise for one in report.suspects):
                count -= shared
                more += [f"{shared} {_noun(decision, shared)} {words}"]
        parts += [f"{count} {_noun(decision, count)}"] if count else []
        parts += more
    parts += [f"{counted(len(report.skipped), 'file')} skipped"] if report.skipped else []
    hidden = len(decisions) - len(in_order(report.suspects, many))
    why = " and ".join(["--only"] * bool(many.only) + ["--top"] * bool(many.most))
    left = f" ({why} {'leaves' if many.only and many.most is None else 'leave'} {hidden} out above)" if hidden else ""
    return f"{counted(len(decisions), 'suspect')}: {', '.join(parts)}{left}"


def _noun(decision: str, count: int) -> str:
    return SAID[decision] if count == 1 else _PLURALS.get(decision, SAID[decision])


def show_controls(out: Console, calibration: Calibration, say: Callable[[str], None]) -> None:
    """The table of controls and their values."""
    controls, values = calibration.controls, calibration.measurements
    names = list(values[0]) if values else []
    paths = [control.model.name for control in controls]
    parts = [Part(name, [Text(_measured(one[name])) for one in values], right=True) for name in names]
    kinds = Part("format", [Text(clean(control.model.framework)) for control in controls], right=False)
    strata = Part("stratum", [Text(stratum or "unknown") for stratum in calibration.divided], right=False)
    known = [strata] if any(calibration.divided) else []
    layouts = [[kinds, *known, *parts], [*known, *parts], parts, []]
    shown = show(out, "control", paths, layouts, say)
    if parts and not shown:
        say("a wider terminal shows the values of the controls")


def _measured(one: Measurement) -> str:
    if not one.readings:
        return compact(one.value)
    best = min(one.readings, key=lambda reading: reading.distance)
    return f"{best.found} of {best.of}"


def _show(out: Console, results: Sequence[SuspectResult], say: Callable[[str], None]) -> None:
    names = list(dict.fromkeys(name for result in results for name in result.metrics))
    ratios = [ratio(result) for result in results]
    near = Part("ratio", [Text("-" if one is None else compact(one)) for one in ratios])
    nears = [near] if any(one is not None for one in ratios) else []
    kinds = [Part("format", [Text(clean(r.model.framework) if r.model else "-") for r in results], right=False)]
    keys = [name for name in names if any(_is_key(result, name) for result in results)]
    metrics = [metric(name, results) for name in names if name not in keys]
    whole = [key(name, results, whole=True) for name in keys]
    short = [key(name, results) for name in keys]
    groups = [Part(group, [_votes(result, group) for result in results]) for group in _groups(results) if names]
    last = [*_further(results), verdicts(results)]
    paths = [result.path for result in results]
    first = [[*parts, *keyed] for parts in (kinds + nears + metrics, nears + metrics) for keyed in _once(whole, short)]
    layouts = [*first, metrics + short, nears + groups + short, groups, []] if names else [kinds, []]
    layouts = [*first, metrics + short, nears + groups, []] if names and not keys else layouts
    parts = show(out, "suspect", paths, [[*layout, *last] for layout in layouts], say)
    shown = {part.head for part in parts}
    for line in _legend(results, shown, names):
        say(line)


def verdicts(results: Sequence[SuspectResult]) -> Part:
    """The column of verdicts, marked if they rest on what somebody stored."""
    stored = [" (stored)" if result.stored else "" for result in results]
    cells = [
        Text(f"{in_words(result.decision, result.points_to)}{mark}", _STYLES[result.decision])
        for result, mark in zip(results, stored, strict=True)
    ]
    return Part("verdict", cells, right=False)


def metric(name: str, results: Sequence[SuspectResult]) -> Part:
    """The column of a metric: values with their marks, and the thresholds."""
    measured = [result.metrics.get(name) for result in results]
    thresholds = {one.threshold for one in measured if one and one.threshold is not None}
    foot = "..".join(compact(one) for one in sorted({min(thresholds), max(thresholds)})) if thresholds else ""
    return Part(name, [_cell(one) for one in measured], foot)


def _once(whole: list[Part], short: list[Part]) -> list[list[Part]]:
    return [whole, short] if whole else [[]]


def _is_key(result: SuspectResult, name: str) -> bool:
    return name in result.metrics and result.metrics[name].group == "marks"


def key(name: str, results: Sequence[SuspectResult], *, whole: bool = False) -> Part:
    """The column of a key: trials that match, with their marks.

    Args:
        name: Of the key.
        results: The suspects.
        whole: Whether it says beside what: the p-value by design, or what the controls match.
    """
    return Part(name, [_counted(result.metrics.get(name), whole=whole) for result in results])


def _counted(result: MetricResult | None, *, whole: bool) -> Text:
    if result is None or result.counted is None:
        return Text("- ", "dim")
    mark = "*" if result.vote.vote else " "
    return Text(f"{result.counted.words if whole else result.counted.clause}{mark}", "red" if result.vote.vote else "")


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


def _groups(results: Sequence[SuspectResult]) -> list[str]:
    measured = {metric.group for result in results for metric in result.metrics.values()}
    return [group for group in ALL_GROUPS if group in GROUPS or group in measured]


def _votes(result: SuspectResult, group: str) -> Text:
    cast = [one.vote.vote for one in result.metrics.values() if one.group == group and one.vote.vote is not None]
    return Text(f"{sum(cast)} of {len(cast)}", "red" if any(cast) else "") if cast else Text("-", "dim")


def _further(results: Sequence[SuspectResult]) -> Iterator[Part]:
    if any(result.tested for result in results):
        yield Part("q", [Text(number(r.tested.q_value) if r.tested else "-") for r in results])
    if any(result.sequential for result in results):
        asked = (
            (result.sequential and f"{len(result.sequential.rows)} of {result.sequential.budget}") for result in results
        )
        yield Part("cases asked", [Text(one or "-") for one in asked])


def marks(results: Sequence[SuspectResult], names: Sequence[str]) -> Iterator[str]:
    """What the marks behind the values of some metrics say: a line, if there are any."""
    there = {_mark(result.metrics.get(name)) for result in results for name in names if not _is_key(result, name)}
    there |= {"*"} if any(_is_key(r, name) and r.metrics[name].vote.vote for r in results for name in names) else set()
    found = [result.metrics[name].vote for result in results for name in names if name in result.metrics]
    exact = any(vote.log10_p is not None for vote in found)
    words = _MARKS | ({"*": "votes for copy"} if exact else {})  # which needs no threshold
    if said := [f"{mark} {text}" for mark, text in words.items() if mark in there]:
        yield "; ".join(said)


def _legend(results: Sequence[SuspectResult], shown: Container[str], names: Sequence[str]) -> Iterator[str]:
    if names and names[0] in shown:
        yield from marks(results, names)
    if "ratio" in shown:
        yield _RATIO
    if GROUPS[0] in shown:
        groups = ", ".join(group for group in ALL_GROUPS if group in shown)
        yield f"{groups}: metrics that vote for copy; a wider terminal or --csv shows their values"


def show(
    out: Console,
    head: str,
    names: Sequence[str],
    layouts: Sequence[Sequence[Part]],
    say: Callable[[str], None],
) -> Sequence[Part]:
    """Print a table that fits, with a row for each name.

    Names are cut from the left, or folded if two would look alike; the folder that all paths share stands above.

    Args:
        out: Where to.
        head: What the rows are, in the singular.
        names: Of each row its name, or path.
        layouts: Columns to choose from, the first that leaves room for the names.
        say: What says a line.

    Returns:
        The layout that was chosen.
    """
    room = out.width if out.is_terminal else PAPER
    folder, shown = without_common(names)
    longest = max(map(len, shown), default=0)
    for parts in layouts:
        table = _table(head, shown, parts)
        left = longest - max(_width(out, table) - room, 0)
        if left >= min(longest, _LEAST_NAME):
            break
    if left < longest:
        cut = [ending(name, max(left, 1)) for name in shown]
        alike = len(set(cut)) < len(set(shown))
        table = _table(head, shown if alike else cut, parts, folded=max(left, 1) if alike else None)
    if folder:
        say(f"{head}s in {folder}")
    if out.is_terminal:
        out.print(table)
        return parts
    with out.capture() as printed:
        out.print(table)
    for line in printed.get().splitlines():
        say(line.rstrip())
    return parts


def _table(head: str, names: Iterable[str], parts: Sequence[Part], *, folded: int | None = None) -> Table:
    has_foot = any(part.foot for part in parts)
    first = Column(head, "thresholds" if has_foot else "", overflow="fold", no_wrap=folded is None, max_width=folded)
    columns = [Column(part.head, part.foot, justify="right" if part.right else "left", no_wrap=True) for part in parts]
    table = Table(first, *columns, box=SIMPLE, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.show_footer = has_foot
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
