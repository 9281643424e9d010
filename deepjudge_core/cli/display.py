"""What a person sees: tables, bars and one-line messages."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from deepjudge_core.audit import Report, SuspectResult
from deepjudge_core.calibration import Calibration
from deepjudge_core.components import Decision
from deepjudge_core.judge import GROUPS, MetricResult
from deepjudge_core.plugins import Registry
from deepjudge_core.progress import Advance
from deepjudge_core.suite import CASE_SETS, Suite

_STYLES = {
    Decision.COPY: "bold red",
    Decision.INDEPENDENT: "green",
    Decision.INCONCLUSIVE: "yellow",
    Decision.FAILED: "bold magenta",
}
_POINTS_TO = {
    "weights": "the weights were taken",
    "behaviour": "the behaviour was copied",
    "weights-changed-behaviour": "the weights were taken, the behaviour changed since",
}
_PIPE_WIDTH = 160  # of tables that no terminal folds


def console(*, stderr: bool = False) -> Console:
    """A console on standard output, or for what is no result, on standard error."""
    probe = Console(stderr=stderr)
    return probe if probe.is_terminal else Console(stderr=stderr, width=_PIPE_WIDTH)


def clean(text: str) -> str:
    """A text from a file, fit for a terminal: on one line, without control characters."""
    return "".join(c if c.isprintable() else "�" for c in text.replace("\n", " "))


class Bars:
    """Shows tasks as progress bars on a terminal, and nothing elsewhere."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)

    @contextmanager
    def task(self, description: str, total: int) -> Iterator[Advance]:
        """See :class:`deepjudge_core.progress.Watcher`."""
        if not self._console.is_terminal:
            yield lambda units: None
            return
        columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
        with Progress(*columns, console=self._console, transient=True) as bars:
            bar = bars.add_task(escape(clean(description)), total=total)
            yield lambda units: bars.advance(bar, units)


def show_suite(out: Console, suite: Suite) -> None:
    """What a suite holds."""
    victim = suite.victim.model
    out.print(f"victim      {clean(victim.name)} ({victim.framework}, {victim.classes} classes)", markup=False)
    out.print(f"digest      {victim.digest}", markup=False)
    out.print(f"accuracy    {suite.accuracy:.1%} of the inputs offered as seeds")
    out.print(f"seeds       {int(suite.rows('clean').sum())}")
    for record in suite.generators:
        options = " ".join(f"{name}={value}" for name, value in record.options.items())
        kept = f"{record.kept} cases" + (f" of {record.made} made" if record.kept != record.made else "")
        out.print(f"{record.name:<11} {kept} ({options})", markup=False, highlight=False)
    for place, layer in enumerate(suite.layers):
        neurons = victim.layers[layer]
        unreached = [neuron for at, neuron in suite.unreached if at == place]
        text = f"layer       {clean(layer)}: {neurons} neurons"
        if any(record.makes == "corners" for record in suite.generators):
            text += f", {neurons - len(unreached)} reached"
        if unreached:
            text += f", unreached: {', '.join(map(str, unreached))}"
        out.print(text, markup=False)
    for note in suite.notes:
        out.print(f"note        {clean(note)}", markup=False)
    out.print(f"suite       {suite.digest}", markup=False)


def show_cases(out: Console, suite: Suite) -> None:
    """How many cases each set of a suite has, and what its inputs are."""
    counts = ", ".join(f"{int(suite.rows(name).sum())} {name}" for name in CASE_SETS)
    shape = "x".join(map(str, suite.cases.inputs.shape[1:]))
    low, high = suite.bounds
    out.print(f"cases       {counts}; inputs {shape} in {low:g}..{high:g}; seed {suite.seed}", markup=False)
    taps = ", ".join(f"{clean(name)} ({width})" for name, width in suite.victim.model.layers.items())
    out.print(f"taps        {taps}", markup=False)


def show_calibration(out: Console, calibration: Calibration) -> None:
    """The controls and their values."""
    names = list(calibration.measurements[0]) if calibration.measurements else []
    table = Table("control", "framework", *names, title=f"{len(calibration.controls)} controls")
    for seen, measured in zip(calibration.controls, calibration.measurements, strict=True):
        cells = (number(measured[name].value) for name in names)
        table.add_row(escape(clean(seen.model.name)), seen.model.framework, *cells)
    out.print(table)
    for note in calibration.notes:
        out.print(f"note: {clean(note)}", markup=False)


def show_report(out: Console, report: Report) -> None:
    """One row a suspect: its values, thresholds and votes, and the verdict; then why, where something is missing."""
    judged = [result.verdict for result in report.suspects if result.verdict]
    names = list(judged[0].metrics) if judged else []
    table = Table("suspect", "framework", *names, "verdict", show_lines=True)
    for result in report.suspects:
        framework = result.model.framework if result.model else "-"
        cells = [_cell(result.verdict.metrics[name]) if result.verdict else Text("-") for name in names]
        table.add_row(escape(clean(result.path)), framework, *cells, _verdict(result))
    out.print(table)
    for line in _remarks(report):
        out.print(line, markup=False, highlight=False, soft_wrap=True)


def show_plugins(out: Console, registry: Registry) -> None:
    """What is installed, a row each, and what fails."""
    table = Table("plugin", "from", "gives")
    for plugin in registry.plugins:
        gives = ", ".join(f"{type(c).__name__.lower()} {c.name}" for c in plugin.components)
        table.add_row(plugin.name, plugin.distribution, Text("failed", "bold red") if plugin.failure else gives)
    out.print(table)


def number(value: float | None) -> str:
    """A value as it stands in tables."""
    return "-" if value is None else f"{value:.4g}" if value == 0 or abs(value) >= 1e-3 else f"{value:.1e}"


def write_path(out: Console, label: str, path: Path) -> None:
    """Say where a file was written."""
    out.print(f"{label} {path}", markup=False, highlight=False, soft_wrap=True)


def _cell(result: MetricResult) -> Text:
    if result.value is None:
        return Text("not measured", "dim")
    text = Text(number(result.value))
    if result.vote.vote is None:
        return text.append("\nno vote", "dim")
    sign, word, style = ("<=", "copy", "red") if result.vote.vote else (">", "no", "green")
    return text.append(f"\n{sign} {number(result.vote.threshold)}", "dim").append(f"\n{word}", style)


def _verdict(result: SuspectResult) -> Text:
    text = Text(str(result.decision), _STYLES[result.decision])
    if result.verdict and result.verdict.points_to:
        text.append(f"\n{_POINTS_TO[result.verdict.points_to]}", "dim")
    return text


def _remarks(report: Report) -> Iterator[str]:
    for result in report.suspects:
        name = clean(result.path)
        if result.verdict is None:
            yield f"{name}: failed: {clean(result.failure or '')}"
            continue
        if result.decision is Decision.INCONCLUSIVE:
            yield f"{name}: inconclusive: {clean(result.verdict.reason or '')}"
        reasons: dict[str, list[str]] = {}
        for metric, found in result.verdict.metrics.items():
            if found.reason:
                reasons.setdefault(found.reason, []).append(metric)
        for reason, metrics in reasons.items():
            if reason != result.verdict.reason:
                yield f"{name}: {', '.join(metrics)}: {clean(reason)}"
        for group in GROUPS:
            setting = result.verdict.settings[group]
            if setting.decision is Decision.INCONCLUSIVE and result.decision is Decision.COPY:
                yield f"{name}: {group}: inconclusive: {clean(setting.reason or '')}"
