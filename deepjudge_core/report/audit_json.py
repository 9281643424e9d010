"""The report of an audit, as it stands in a file: made of what came of the audit."""

import json
import math
from collections.abc import Iterable
from typing import Any, get_args

from msgspec import UNSET, UnsetType

from deepjudge_core.auditing.outcome import AuditOutcome, SuspectResult
from deepjudge_core.components.kinds import Metric
from deepjudge_core.components.schemes import Key, Matches, Reading
from deepjudge_core.components.strata import parts_of
from deepjudge_core.components.values import Decision
from deepjudge_core.files.digests import root
from deepjudge_core.files.documents import plain
from deepjudge_core.judging.calibration import Calibration
from deepjudge_core.judging.exact import as_number
from deepjudge_core.judging.fdr import FdrResult, Fleet
from deepjudge_core.judging.fitting import Offer
from deepjudge_core.judging.judge import GROUPS, Judge, MetricResult, Setting, Verdict, seen_alike
from deepjudge_core.judging.keys import Mark
from deepjudge_core.judging.measure import Measurements
from deepjudge_core.judging.neurons import matchings
from deepjudge_core.judging.sequential import ORDER, SequentialResult
from deepjudge_core.judging.settings import JudgeSettings
from deepjudge_core.judging.verdict import Counted
from deepjudge_core.models.cka import linear_cka
from deepjudge_core.models.info import ModelInfo, access_names
from deepjudge_core.models.model import Access
from deepjudge_core.report import documents
from deepjudge_core.report.documents import (
    AnyReport,
    ApiEntry,
    Architecture,
    AuditReport,
    CalibrationEntry,
    CaseCounts,
    ControlEntry,
    CountEntry,
    DrawnEntry,
    FdrEntry,
    FleetEntry,
    GeneratorEntry,
    KeyEntry,
    LayerEntry,
    MadeEntry,
    MetricEntry,
    ResultEntry,
    SequentialEntry,
    SettingEntries,
    SettingEntry,
    SkippedEntry,
    SuiteEntry,
    SuspectEntry,
    VictimEntry,
    WeightLayerEntry,
    WeightsEntry,
)
from deepjudge_core.suites.keys import key_digest, names_of
from deepjudge_core.suites.observation import Observation
from deepjudge_core.suites.profile import chosen_otherwise
from deepjudge_core.suites.suite import Suite
from deepjudge_core.text import LONGEST_LINE, clean
from deepjudge_core.version import VERSION
from deepjudge_core.weights.values import WeightPlan

COIN = 0.5
"""With which a fair coin says that a row was used."""


def audit_report(report: AuditOutcome, made: MadeEntry | None = None) -> AuditReport:
    """The report as it stands in a file.

    Args:
        report: What came of the audit.
        made: When it was made, by whom, and in which case; None where that is not recorded.
    """
    calibration = report.calibration
    return AuditReport(
        deepjudge=VERSION,
        made=made or UNSET,
        chosen=_chosen(report),
        victim=VictimEntry(
            **_model(report.suite.victim.model),
            accuracy=report.suite.accuracy if report.suite.has_cases else None,
            preprocessing=expected.header() if (expected := report.suite.victim.preprocessing) else UNSET,
        ),
        suite=suite_entry(report.suite, report.judge.metrics),
        calibration=CalibrationEntry(
            controls=tuple(_control(report, place) for place in range(len(calibration.controls))),
            match=calibration.match,
            limits=report.limits,
            notes=(*calibration.notes, *calibration.derived, *report.doubts),
            effective=calibration.fewer or UNSET,
        ),
        rule=report.rule,
        rule_options=dict(report.rule_options),
        groups=report.groups,
        require_layers=report.judge.settings.require_layers or UNSET,
        fleet=_fleet(report.fleet),
        metrics=metric_entries(report.metrics, report.judge),
        suspects=tuple(_suspect(report, result) for result in report.suspects),
        skipped=tuple(SkippedEntry(one.name, one.code, one.reason, one.unjudged) for one in report.skipped) or UNSET,
    )


def dump(report: AnyReport) -> str:
    """A report as text; equal reports give equal texts."""
    return json.dumps(plain(report), indent=2, allow_nan=False) + "\n"


def dump_report(report: AuditOutcome) -> str:
    """The report of an audit as text."""
    return dump(audit_report(report))


def report_to_json(report: AuditOutcome) -> dict[str, Any]:
    """The report of an audit as JSON values."""
    values: dict[str, Any] = json.loads(dump_report(report))
    return values


def schema() -> dict[str, Any]:
    """The JSON Schema that every report of an audit keeps."""
    return documents.schema(documents.AUDIT)


def metric_entries(metrics: Iterable[Metric], judge: Judge) -> dict[str, MetricEntry]:
    """What metrics are, by name: all that a reader of their values has to know."""
    return {
        metric.name: MetricEntry(
            group=metric.group,
            needs=access_names(metric.needs),
            upper=float(metric.upper) if math.isfinite(metric.upper) else None,
            provider=judge.provider(metric) or UNSET,
            title=metric.title or UNSET,
            says=metric.says or UNSET,
        )
        for metric in metrics
    }


def suite_entry(suite: Suite, metrics: Iterable[Metric]) -> SuiteEntry:
    """What a suite holds, without its arrays.

    Args:
        suite: The suite.
        metrics: What was measured, its keys among them.
    """
    marks = {metric.name: metric for metric in metrics if isinstance(metric, Mark)}
    return SuiteEntry(
        digest=suite.digest,
        seed=suite.seed,
        bounds=suite.bounds if suite.has_cases else None,
        cases=CaseCounts(**suite.counts()),
        generators=tuple(
            GeneratorEntry(record.name, record.provider, record.options, record.made, record.kept, record.details)
            for record in suite.generators
        ),
        layers=tuple(
            LayerEntry(
                name=name,
                neurons=suite.victim.model.layers[name],
                unreached=tuple(neuron for layer, neuron in suite.unreached if layer == place),
            )
            for place, name in enumerate(suite.layers)
        ),
        notes=suite.notes,
        feature_bounds=suite.feature_bounds or UNSET,
        grid=suite.grid or UNSET,
        labels=UNSET if suite.label_origin == "inputs" else suite.label_origin,
        inputs=suite.origin or UNSET,
        weights=UNSET if suite.weights is None else _weights(suite.weights, suite.ancestor),
        keys=tuple(_key(name, key, marks.get(name)) for name, key in zip(names_of(suite.keys), suite.keys, strict=True))
        or UNSET,
        choices=suite.choices or UNSET,
        challenge=suite.challenge or UNSET,
    )


def _chosen(report: AuditOutcome) -> dict[str, Any] | UnsetType:
    # What is not as in the standard profile. Of the metrics of weights, which depend on the victim, nothing is said.
    suite, judge = report.suite, report.judge
    if suite.choices is None:
        return UNSET
    standard, settings = JudgeSettings(), judge.settings
    chosen = chosen_otherwise(suite.choices)
    pairs = {
        "rule": (report.rule, standard.rule),
        "rule_options": (dict(report.rule_options), dict(judge.usual_options)),
        "groups": (settings.groups, standard.groups),
        "require_layers": (settings.require_layers, standard.require_layers),
        "fdr": (settings.fdr, standard.fdr),
        "metrics": (_compared(judge.metrics), _compared(filter(Offer.of(suite).fits, judge.usual))),
    }
    chosen |= {name: theirs for name, (theirs, usual) in pairs.items() if theirs != usual}
    plainly: dict[str, Any] = json.loads(json.dumps(chosen))
    return plainly


def _compared(metrics: Iterable[Metric]) -> list[str]:
    return [metric.name for metric in metrics if not metric.of_weights and metric.on != "keys"]


def _key(name: str, key: Key, mark: Mark | None) -> KeyEntry:
    # Nothing by which somebody could tell what a marked model answers.
    return KeyEntry(
        name=name,
        scheme=key.scheme,
        provider=(mark.provider if mark else "") or None,
        options=dict(key.options),
        digest=key_digest(key),
        trials=key.trials,
        by_design=key.drawn is not None,
        proves="data" if mark and mark.of_data else "origin",
    )


def _weights(plan: WeightPlan, ancestor: Observation | None) -> WeightsEntry:
    layers = zip(plan.layers, plan.neurons, strict=True)
    return WeightsEntry(
        family=plan.family,
        layers=tuple(WeightLayerEntry(one.name, one.kind, one.width, len(picked)) for one, picked in layers),
        ancestor=UNSET if ancestor is None else ancestor.model.name,
    )


def verdict_fields(verdict: Verdict | None, failure: str | None) -> dict[str, Any]:
    """The fields that say what is made of one model, or why nothing is."""
    settings = verdict.settings if verdict else {group: Setting(None, reason=failure) for group in GROUPS}
    entries = {name.replace("-", "_"): _setting(setting) for name, setting in settings.items()}
    return {
        "decision": str(verdict.decision if verdict else Decision.FAILED),
        "points_to": verdict.points_to if verdict else None,
        "settings": SettingEntries(**entries),
        "metrics": {name: _result(metric) for name, metric in verdict.metrics.items()} if verdict else {},
        "reason": failure or (verdict.reason if verdict else None),
    }


def _model(model: ModelInfo) -> dict[str, Any]:
    return {
        "path": model.name,
        "digest": model.digest,
        "framework": model.framework,
        "isolation": model.isolation,
        "device": model.device,
        "files": dict(model.files),
        "model_signing": root(model.files) if model.files else None,
    }


def _control(report: AuditOutcome, place: int) -> ControlEntry:
    calibration = report.calibration
    control, measured, first = calibration.controls[place], calibration.measurements[place], calibration.clusters[place]
    return ControlEntry(
        **_model(control.model),
        stratum=calibration.strata[place],
        architecture=_architecture(calibration, place),
        alike=UNSET if first == place else calibration.controls[first].model.name,
        metrics={name: measurement.value for name, measurement in measured.items()},
        counted={name: tuple(map(_count, m.readings)) for name, m in measured.items() if m.readings} or UNSET,
        **_layers(report, control),
        **_asked(control),
        api=_api(report, control),
    )


def _architecture(calibration: Calibration, place: int) -> Architecture | UnsetType:
    if not calibration.several_architectures:
        return UNSET
    parts = parts_of(calibration.kinds[place])
    return next((one for one in get_args(Architecture) if one in parts), UNSET)


def _count(reading: Reading) -> CountEntry:
    return CountEntry(reading.reading, reading.found, reading.of)


def _suspect(report: AuditOutcome, result: SuspectResult) -> SuspectEntry:
    verdict, observation = result.verdict, result.observation
    answers = result.answers() if verdict else None
    model = _model(result.model) if result.model else {"digest": None, "framework": None, "isolation": None}
    return SuspectEntry(
        **model | {"path": result.path},
        accuracy_on_seeds=result.accuracy,
        **verdict_fields(verdict, result.failure),
        drawn=UNSET if result.drawn is None else DrawnEntry(**verdict_fields(result.drawn, None)),
        published=result.published or UNSET,
        tested=UNSET if report.fdr is None else _tested(result.tested),
        sequential=UNSET if result.sequential is None else _sequential(result.sequential),
        **(_layers(report, answers) if answers else {"layer_map": {}}),
        **(_asked(observation) if observation else {}),
        api=_api(report, observation, result.measurements) if observation else UNSET,
        stored=result.stored or UNSET,
    )


def _fleet(fleet: Fleet | None) -> FleetEntry | UnsetType:
    # Not where each suspect was judged by itself: so the reports of older bundles stay what they were.
    return UNSET if fleet is None else FleetEntry(fleet.fdr, fleet.tested, fleet.rejected, fleet.cut)


def _tested(tested: FdrResult | None) -> FdrEntry | None:
    return None if tested is None else FdrEntry(tested.p_value, tested.q_value, tested.level)


def _sequential(result: SequentialResult) -> SequentialEntry:
    e_copy, e_independent = (None if math.isinf(value) else value for value in (result.e_copy, result.e_independent))
    return SequentialEntry(
        queries=len(result.rows),
        budget=result.budget,
        cases=result.cases,
        order=ORDER,
        most=result.most,
        e_copy=e_copy,
        e_independent=e_independent,
        asked=result.rows,
        labels=result.labels,
    )


def _layers(report: AuditOutcome, observation: Observation) -> dict[str, Any]:
    # How the layers of a model that was measured were put beside the victim's.
    suite = report.suite
    ours, theirs = (suite.seed_outputs(answers.activations) for answers in (suite.victim, observation))
    moved = matchings(suite, observation) if report.calibration.match == "neurons" else {}
    return {
        "layer_map": dict(observation.layer_map),
        "layer_cka": {layer: linear_cka(ours[layer], outputs) for layer, outputs in theirs.items()},
        "neurons_moved": {layer: matching.moved for layer, matching in moved.items()},
    }


def _asked(observation: Observation) -> dict[str, Any]:
    return {
        "classes": observation.classes,
        "preprocessing": observation.preprocessing and observation.preprocessing.header(),
        "inferred": observation.inferred,
        "notes": observation.notes,
        "unsteady": observation.unsteady,
        "tried": observation.tried or UNSET,
        "accuracy_on_probes": UNSET if observation.accuracy is None else observation.accuracy,
    }


def _api(
    report: AuditOutcome, observation: Observation, measurements: Measurements | None = None
) -> ApiEntry | UnsetType:
    # Of a suspect, with the distances that its thresholds come from, where those of all answers are others.
    exchange = observation.exchange
    if exchange is None:
        return UNSET
    rows, suite, calibration = exchange.compared, report.suite, report.calibration
    seen = calibration if measurements is None else seen_alike(measurements, calibration)
    names = [metric.name for metric in report.metrics if not metric.of_weights and metric.on != "keys"]
    controls = {name: tuple(one[name].value for one in seen.measurements if name in one) for name in names}
    top, digits = exchange.reduction.top, exchange.reduction.digits
    return ApiEntry(
        shows="probabilities" if Access.PROBABILITIES in observation.model.access else "labels",
        top=UNSET if top is None else top,
        digits=UNSET if digits is None else digits,
        queries=exchange.ledger.total,
        requests=len(exchange.ledger),
        failed=exchange.ledger.failed,
        price=exchange.ledger.price,
        compared={name: int(rows[suite.rows(name)].sum()) for name in suite.counts()},
        controls=UNSET if seen is calibration else controls,
    )


def _setting(setting: Setting) -> SettingEntry:
    return SettingEntry(
        decision=None if setting.decision is None else str(setting.decision),  # type: ignore[arg-type]
        p_copy=setting.p_copy,
        p_value=setting.p_value,
        least_p_value=setting.least_p_value,
        statement=setting.statement,
        reason=setting.reason,
        log10_p=UNSET if setting.log10_p is None else setting.log10_p,
        level=UNSET if setting.level is None else setting.level,
    )


def _result(metric: MetricResult) -> ResultEntry:
    return ResultEntry(
        group=metric.group,
        value=metric.value,
        lower_bound=metric.vote.lower_bound,
        threshold=metric.vote.threshold,
        p_value=metric.vote.p_value,
        false_positive_rate=metric.vote.false_positive_rate,
        vote=metric.vote.vote,
        reason=metric.reason,
        log10_p=UNSET if metric.vote.log10_p is None else metric.vote.log10_p,
        **({} if metric.counted is None else _counted(metric.counted)),
    )


def _counted(counted: Counted) -> dict[str, Any]:
    reading = counted.reading
    chance = reading.chance if isinstance(reading, Matches) else COIN
    known = {} if counted.log10_p is None else {"least_p_value": as_number(counted.least)}
    facts = {"reading": reading.reading, "found": reading.found, "of": reading.of, "chance": chance}
    return facts | {"why": clean(reading.why, LONGEST_LINE)} | known
