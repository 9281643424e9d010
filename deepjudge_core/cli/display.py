"""What a person sees: tables, bars and one-line messages."""

from collections.abc import Iterable, Iterator, Mapping
from functools import partial

from rich.console import Console

from deepjudge_core.auditing.folders import SKIPPED, Skipped, by_code
from deepjudge_core.auditing.outcome import CLAIMED, AuditOutcome, SuspectResult
from deepjudge_core.cli import tables
from deepjudge_core.cli.many import ManySettings
from deepjudge_core.cli.terminal import say, tell
from deepjudge_core.components.strata import narrow
from deepjudge_core.components.values import Decision
from deepjudge_core.judging.calibration import Calibration
from deepjudge_core.judging.verdict import SAID, MetricResult, Verdict, in_words, open_layers
from deepjudge_core.models.isolation import Isolation
from deepjudge_core.suites.keys import names_of
from deepjudge_core.suites.observation import Observation
from deepjudge_core.suites.suite import Suite
from deepjudge_core.text import LONGEST_LINE, clean, number

_LISTED, _NAMED = 12, 4  # neurons, and models, that are named on one line
_FEW = 10  # suspects of which everything is said


def show_suite(out: Console, suite: Suite) -> None:
    """What a suite holds."""
    victim = suite.victim.model
    classes = f", {victim.classes} classes" if suite.has_cases else ""
    tell(out, f"victim      {victim.name} ({victim.framework}{classes})")
    tell(out, f"digest      {victim.digest}")
    if suite.has_cases:
        _show_cases(out, suite)
    if suite.weights is not None:
        neurons = sum(map(len, suite.weights.neurons))
        tell(out, f"weights     sketches of {neurons:,} neurons of {len(suite.weights.layers)} layers")
    for name, key in zip(names_of(suite.keys), suite.keys, strict=True):
        tell(out, f"key         {name}: {key.trials} trials{'' if key.drawn else ', by controls'}")
    if suite.ancestor is not None:
        tell(out, f"ancestor    {suite.ancestor.model.name}")
    for note in suite.notes:
        tell(out, f"note        {note}")
    tell(out, f"suite       {suite.digest}")


def _show_cases(out: Console, suite: Suite) -> None:
    victim = suite.victim.model
    if suite.victim.preprocessing:
        tell(out, f"takes       inputs prepared by {suite.victim.preprocessing}")
    if suite.label_origin == "victim":
        tell(out, "labels      the victim's own answers")
    else:
        tell(out, f"accuracy    {suite.accuracy:.1%} of the inputs offered as seeds")
    tell(out, f"seeds       {int(suite.rows('clean').sum())}")
    for record in suite.generators:
        options = " ".join(f"{name}={value}" for name, value in record.options.items())
        kept = f"{record.kept} cases" + (f" of {record.made} made" if record.kept != record.made else "")
        tell(out, f"cases       {record.name}: {kept}" + (f" ({options})" if options else ""))
    for place, layer in enumerate(suite.layers):
        neurons = victim.layers[layer]
        unreached = [neuron for at, neuron in suite.unreached if at == place]
        text = f"layer       {layer}: {neurons} neurons"
        if any(record.makes == "corners" for record in suite.generators):
            text += f", {neurons - len(unreached)} reached"
        if unreached:
            some = ", ".join(map(str, unreached[:_LISTED]))
            text += f", unreached: {some}" + (f" and {len(unreached) - _LISTED} more" * (len(unreached) > _LISTED))
        tell(out, text)


def show_cases(out: Console, suite: Suite) -> None:
    """How many cases each set of a suite has, and what its inputs are."""
    counts = ", ".join(f"{count} {name}" for name, count in suite.counts().items())
    shape = "x".join(map(str, suite.cases.inputs.shape[1:]))
    low, high = suite.bounds
    each = ", each feature or channel in its own range" if suite.feature_bounds else ""
    each += f", in steps of {suite.grid}" if suite.grid else ""
    say(out, f"sets        {counts}; inputs {shape} in {low:g}..{high:g}{each}; seed {suite.seed}")
    taps = ", ".join(f"{name} ({width})" for name, width in suite.victim.model.layers.items())
    say(out, f"taps        {taps}")


def show_observation(out: Console, observation: Observation) -> None:
    """What an observation holds."""
    layers = (
        ", ".join(f"{layer} = {tap}" for layer, tap in observation.layer_map.items()) or observation.unmatched or "none"
    )
    say(out, f"model       {observation.model.name} ({observation.model.framework})")
    say(out, f"digest      {observation.model.digest}")
    say(out, f"isolation   {observation.model.isolation}")
    if observation.model.device:
        say(out, f"device      {observation.model.device}")
    say(out, f"answers     to the suite {observation.suite}")
    if observation.exchange:
        ledger = observation.exchange.ledger
        price = f", at a price of {ledger.price:g}" if ledger.price else ""
        say(out, f"asked       {ledger.total:,} queries in {len(ledger):,} requests{price}")
        if observation.exchange.reduction:
            say(out, f"scores      {observation.exchange.reduction}")
    if observation.model.classes:
        say(out, f"layers      {layers}")
    if observation.weights is not None:
        neurons = sum(len(layer.neurons) for layer in observation.weights.layers)
        say(out, f"weights     sketches of {neurons:,} neurons of {len(observation.weights.layers)} layers")
    elif observation.unsketched:
        say(out, f"weights     not compared: {observation.unsketched}")
    for note in filter(None, (observation.unmapped, *observation.notes, observation.unsteady)):
        say(out, f"note        {note}")


def count_of(calibration: Calibration) -> str:
    """How many controls there are, and as how many they count where some are near-duplicates."""
    count, fewer = len(calibration.controls), calibration.fewer
    return f"{count} (near-duplicates count as one: {fewer})" if fewer else str(count)


def show_calibration(out: Console, calibration: Calibration, *, limited: bool = True) -> None:
    """The controls and their values; then why, where one is missing.

    Args:
        out: Where to.
        calibration: The controls.
        limited: Whether it is said what they leave open; a report of suspects says it itself.
    """
    names = list(calibration.measurements[0]) if calibration.measurements else []
    tell(out, f"controls    {count_of(calibration)}")
    tell(out, f"match       {calibration.match}")
    for limit in narrow(calibration.kinds) if limited else ():
        tell(out, f"limit       {limit}")
    if calibration.controls:
        tables.show_controls(out, calibration, partial(tell, out))
    remarks: list[tuple[str, str]] = []
    for control, values in zip(calibration.controls, calibration.measurements, strict=True):
        reasons = _reasons({name: values[name].reason for name in names})
        remarks += ((control.model.name, reason) for reason in reasons)
    for remark in gathered(remarks, len(calibration.controls), "controls"):
        tell(out, remark)


def show_skipped(out: Console, skipped: Iterable[Skipped]) -> None:
    """What was not taken of folders, a line for each reason."""
    for code, some in by_code(skipped):
        names = ", ".join(one.name for one in some[:_NAMED])
        more = f" and {len(some) - _NAMED} more" if len(some) > _NAMED else ""
        tell(out, f"skipped     {SKIPPED[code]}: {names}{more}")


def show_control_notes(out: Console, calibration: Calibration) -> None:
    """What a reader should know of how the controls were asked."""
    for control in calibration.controls:
        for note in control.notes:
            tell(out, f"{control.model.name}: {note}")


def show_report(out: Console, report: AuditOutcome, many: ManySettings | None = None) -> None:
    """The suspects' values, votes and verdicts; then why, where something is missing, and what was skipped."""
    many = many or ManySettings()
    for limit in _limits(report):
        tell(out, limit)
    tables.show_suspects(out, report, many, partial(tell, out))
    everybody, shown = len(report.suspects), tables.in_order(report.suspects, many)
    # Of many, notes only on what somebody has to look at; the reports hold all.
    quiet = [result for result in shown if everybody > _FEW and _is_quiet(result)]
    if everybody <= _FEW:
        show_control_notes(out, report.calibration)
    remarks, statements = (
        gathered(said, everybody, "suspects") for said in (_remarks(shown, len(quiet) > 0), _statements(shown))
    )
    for remark in (*report.doubts, *failures(shown), *remarks, *_fleet(report), *statements, *unconfined(report)):
        tell(out, remark)
    if quiet:
        tell(out, f"notes       on {len(quiet)} suspects with no sign of copying are in the report (--json, --html)")
    show_skipped(out, report.skipped)
    if report.suspects or report.skipped:
        tell(out, tables.counts(report, many))


def _is_quiet(result: SuspectResult) -> bool:
    return result.decision is Decision.INDEPENDENT and result.observation is not None and bool(result.observation.notes)


def _fleet(report: AuditOutcome) -> Iterator[str]:
    fleet = report.fleet
    if fleet and not fleet.tested:
        yield f"fleet: no suspect could be tested for a false discovery rate of {100 * fleet.fdr:.3g} %"
    elif fleet:
        up_to = f", those with p-values up to {number(fleet.cut)}" if fleet.rejected else ""
        yield (
            f"fleet: {fleet.rejected} of {fleet.tested} suspects tested are called copies{up_to}, at "
            f"a false discovery rate of {100 * fleet.fdr:.3g} % (Benjamini & Hochberg), which "
            "replaces the rule's own level"
        )


def gathered(said: Iterable[tuple[str, str]], everybody: int, what: str) -> Iterator[str]:
    """A line for each remark, behind the models of which it is said; the report names them all.

    Args:
        said: Of each model what is said.
        everybody: How many models there are.
        what: What they are, in the plural.
    """
    lines: dict[str, list[str]] = {}
    for model, remark in said:
        lines.setdefault(remark, []).append(model)
    for remark, models in lines.items():
        names = ", ".join(models[:_NAMED]) + (f" and {len(models) - _NAMED} more" if len(models) > _NAMED else "")
        everyone = f"both {what}" if everybody == 2 else f"all {everybody} {what}"
        yield f"{everyone if len(models) == everybody > 1 else names}: {remark}"


def _statements(results: Iterable[SuspectResult]) -> Iterator[tuple[str, str]]:
    # What the rule found where it accuses.
    for result in results:
        for group, setting in result.verdict.settings.items() if result.verdict else ():
            if setting.decision is Decision.COPY and setting.statement:
                yield result.path, f"{group}: {setting.statement}"


def _limits(report: AuditOutcome) -> tuple[str, ...]:
    # Of an accusation, what it does not exclude.
    accused = any(result.decision is Decision.COPY for result in report.suspects)
    return report.limits if accused else ()


def _observed(report: AuditOutcome) -> Iterator[Observation]:
    yield from report.calibration.controls
    yield from (result.observation for result in report.suspects if result.observation)


def unconfined(report: AuditOutcome) -> Iterator[str]:
    """What a reader should know who was told that strangers' models are confined: a line for each level below."""
    # What answers elsewhere runs nothing here.
    away = {one.model.digest for one in _observed(report) if one.exchange}
    results = [result.model for result in report.suspects if result.model]
    controls = [control.model for control in report.calibration.controls]
    models = [one for one in (report.suite.victim.model, *controls, *results) if one.digest not in away]
    for level in (Isolation.NO_OPEN, Isolation.PROCESS, Isolation.NONE):
        count = sum(model.isolation is level for model in models)
        if count:
            yield f"isolation: {count} of {len(models)} models ran at the level {str(level)!r}, not in the full sandbox"


def _open(result: SuspectResult) -> str | None:
    # A copy of the behaviour may well be one of the weights, where these were not compared.
    if result.verdict is None or result.verdict.points_to != "behaviour":
        return None
    values = [metric.value for metric in result.verdict.metrics.values() if metric.group == "white-box"]
    return open_layers(result.verdict.settings["white-box"].decision, values)


def failures(results: Iterable[SuspectResult]) -> Iterator[str]:
    """A line for each that failed, also of those that failed alike: whoever uploaded a file wants to find its own."""
    for result in results:
        if result.verdict is None:
            # An error has the path as it is shown.
            said = str(result.failure).removeprefix(f"{clean(result.path, LONGEST_LINE)}: ")
            yield f"{result.path}: failed: {said}"


def _remarks(results: Iterable[SuspectResult], few: bool) -> Iterator[tuple[str, str]]:
    for result in results:
        if result.stored:
            yield result.path, CLAIMED
        if result.observation and not (few and _is_quiet(result)):
            yield from ((result.path, note) for note in result.observation.notes)
        verdict = result.verdict
        if result.drawn:
            drawn = in_words(result.drawn.decision, result.drawn.points_to)
            because = f": {result.drawn.reason}" if result.drawn.reason else ""
            yield result.path, f"by the drawn cases alone: {drawn}{because}"
        unsteady = result.observation.unsteady if result.observation else None
        if unsteady and not (verdict and unsteady in (verdict.reason or "")):
            yield result.path, unsteady
        if verdict is None:
            continue
        if why := _open(result):
            yield result.path, f"the behaviour was copied; {why}"
        if verdict.reason:
            yield result.path, f"{SAID[result.decision]}: {verdict.reason}"
        for group, setting in verdict.settings.items():
            if setting.decision is Decision.INCONCLUSIVE and result.decision is Decision.COPY:
                yield result.path, f"{group}: inconclusive: {setting.reason}"
        # What the verdict's reason says already is not said once more, except which metric it was that failed.
        said = verdict.reason or ""
        reasons = {
            name: metric.reason
            for name, metric in verdict.metrics.items()
            if (metric.reason or "") not in said or f"{name}: {metric.reason}" in result.errors
            if not _is_beside_the_point(metric, verdict)
        }
        yield from ((result.path, reason) for reason in _reasons(reasons))


def _is_beside_the_point(metric: MetricResult, verdict: Verdict) -> bool:
    # What cannot acquit by its own chance, and does not accuse, adds nothing to what the other settings decided.
    others = any(one.group != metric.group for one in verdict.metrics.values())
    decided = verdict.decision is not Decision.INCONCLUSIVE
    return metric.vote.log10_p is not None and metric.vote.vote is None and others and decided


def _reasons(reasons: Mapping[str, str | None]) -> Iterator[str]:
    # Metrics that were not measured for one reason stand on one line.
    for reason in dict.fromkeys(filter(None, reasons.values())):
        metrics = ", ".join(name for name, why in reasons.items() if why == reason)
        yield f"{metrics}: {reason}"
