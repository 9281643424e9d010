"""The report as JSON, by the schema ``deepjudge/report/1`` (``schema.json`` beside this file)."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from importlib.resources import files
from typing import Any

from deepjudge_core.auditing.outcome import AuditOutcome, SuspectResult
from deepjudge_core.components.kinds import Metric
from deepjudge_core.components.strata import limits
from deepjudge_core.components.values import Decision
from deepjudge_core.files.digests import root
from deepjudge_core.judging.fdr import FdrResult, Fleet
from deepjudge_core.judging.judge import GROUPS, MetricResult, Setting, Verdict
from deepjudge_core.judging.measure import Measurements
from deepjudge_core.judging.neurons import matchings
from deepjudge_core.judging.sequential import ORDER, SequentialResult
from deepjudge_core.models.cka import linear_cka
from deepjudge_core.models.info import ModelInfo
from deepjudge_core.suites.observation import Observation
from deepjudge_core.suites.suite import Suite
from deepjudge_core.version import VERSION

SCHEMA = "deepjudge/report/1"
_UNKNOWN: dict[str, Any] = {
    **dict.fromkeys(("path", "digest", "framework", "isolation", "device")),
    "files": {},
    "model_signing": None,
}


def report_to_json(report: AuditOutcome) -> dict[str, Any]:
    """The report as JSON values."""
    return {
        "schema": SCHEMA,
        "deepjudge": VERSION,
        "victim": _model(report.suite.victim.model) | {"accuracy": report.suite.accuracy},
        "suite": suite_to_json(report.suite),
        "calibration": {
            "controls": [
                _model(control.model)
                | {"stratum": stratum, "metrics": _values(measured)}
                | _layers(report, control)
                | _asked(control)
                for control, stratum, measured in zip(
                    report.calibration.controls, report.calibration.strata, report.calibration.measurements, strict=True
                )
            ],
            "match": report.calibration.match,
            "limits": list(limits(report.calibration.strata)),
            "notes": [*report.calibration.notes, *report.doubts],
        },
        "rule": report.rule,
        "rule_options": dict(report.rule_options),
        "groups": report.groups,
        **_fleet(report.fleet),
        "metrics": metrics_to_json(report.metrics),
        "suspects": [_suspect(report, result) for result in report.suspects],
    }


def metrics_to_json(metrics: Iterable[Metric]) -> dict[str, Any]:
    """What metrics are, by name: all that a reader of their values has to know."""
    return {
        metric.name: {
            "group": metric.group,
            "needs": [str(access.name).lower() for access in metric.needs],
            "upper": float(metric.upper) if math.isfinite(metric.upper) else None,
        }
        for metric in metrics
    }


def suite_to_json(suite: Suite) -> dict[str, Any]:
    """What a suite holds, without its arrays."""
    return {
        "digest": suite.digest,
        "seed": suite.seed,
        "bounds": list(suite.bounds),
        "cases": suite.counts(),
        "generators": [
            {
                "name": record.name,
                "provider": record.provider,
                "options": dict(record.options),
                "made": record.made,
                "kept": record.kept,
            }
            for record in suite.generators
        ],
        "layers": [
            {
                "name": name,
                "neurons": suite.victim.model.layers[name],
                "unreached": [neuron for layer, neuron in suite.unreached if layer == place],
            }
            for place, name in enumerate(suite.layers)
        ],
        "notes": list(suite.notes),
    }


def dump_report(report: AuditOutcome) -> str:
    """The report as text; equal reports give equal texts."""
    return dump(report_to_json(report))


def dump(told: Mapping[str, Any]) -> str:
    """The same of its JSON values."""
    return json.dumps(told, indent=2, allow_nan=False) + "\n"


def schema() -> dict[str, Any]:
    """The JSON Schema that every report keeps."""
    loaded: dict[str, Any] = json.loads((files("deepjudge_core.report") / "schema.json").read_text("utf-8"))
    return loaded


def _model(model: ModelInfo) -> dict[str, Any]:
    return {
        "path": model.name,
        "digest": model.digest,
        "framework": model.framework,
        "isolation": str(model.isolation),
        "device": model.device,
        "files": dict(model.files),
        "model_signing": root(model.files) if model.files else None,
    }


def verdict_to_json(verdict: Verdict | None, failure: str | None) -> dict[str, Any]:
    """What is said of one model, or why nothing is."""
    settings = verdict.settings if verdict else {group: Setting(None, reason=failure) for group in GROUPS}
    return {
        "decision": str(verdict.decision if verdict else Decision.FAILED),
        "points_to": verdict.points_to if verdict else None,
        "settings": {name: _setting(setting) for name, setting in settings.items()},
        "metrics": {name: _metric(metric) for name, metric in verdict.metrics.items()} if verdict else {},
        "reason": failure or (verdict.reason if verdict else None),
    }


def _suspect(report: AuditOutcome, result: SuspectResult) -> dict[str, Any]:
    verdict, seen = result.verdict, result.observation
    return {
        **(_model(result.model) if result.model else _UNKNOWN),
        "path": result.path,
        "accuracy_on_seeds": result.accuracy,
        **verdict_to_json(verdict, result.failure),
        **({} if report.fdr is None else {"tested": _tested(result.tested)}),
        **({} if result.sequential is None else {"sequential": _questioning(result.sequential)}),
        **(_layers(report, seen) if seen and verdict else {"layer_map": {}, "layer_cka": {}, "neurons_moved": {}}),
        **_asked(seen),
    }


def _fleet(fleet: Fleet | None) -> dict[str, Any]:
    # Not where each suspect was judged by itself: so the reports of older bundles stay what they were.
    if fleet is None:
        return {}
    said = {"fdr": fleet.fdr, "tested": fleet.tested, "rejected": fleet.rejected, "cut": fleet.cut}
    return {"fleet": said}


def _tested(tested: FdrResult | None) -> dict[str, Any] | None:
    return None if tested is None else asdict(tested)


def _questioning(found: SequentialResult) -> dict[str, Any]:
    e_values = (None if math.isinf(value) else value for value in (found.e_copy, found.e_independent))
    return {
        "queries": len(found.rows),
        "budget": found.budget,
        "cases": found.cases,
        "order": ORDER,
        "most": found.most,
        **dict(zip(("e_copy", "e_independent"), e_values, strict=True)),
        "asked": list(found.rows),
        "labels": list(found.labels),
    }


def _values(measured: Measurements) -> dict[str, float | None]:
    return {name: measurement.value for name, measurement in measured.items()}


def _layers(report: AuditOutcome, seen: Observation) -> dict[str, Any]:
    # How the layers of a model that was measured were put beside the victim's.
    suite = report.suite
    ours, theirs = (suite.seed_outputs(answers.activations) for answers in (suite.victim, seen))
    moved = matchings(suite, seen) if report.calibration.match == "neurons" else {}
    return {
        "layer_map": dict(seen.layer_map),
        "layer_cka": {layer: linear_cka(ours[layer], outputs) for layer, outputs in theirs.items()},
        "neurons_moved": {layer: matching.moved for layer, matching in moved.items()},
    }


def _asked(seen: Observation | None) -> dict[str, Any]:
    return {
        "classes": list(seen.classes) if seen and seen.classes is not None else None,
        "preprocessing": seen.preprocessing.to_json() if seen and seen.preprocessing else None,
        "inferred": list(seen.inferred) if seen else [],
        "notes": list(seen.notes) if seen else [],
        "unsteady": seen.unsteady if seen else None,
    }


def _setting(setting: Setting) -> dict[str, Any]:
    decision = None if setting.decision is None else str(setting.decision)
    return {
        "decision": decision,
        "p_copy": setting.p_copy,
        "p_value": setting.p_value,
        "least_p_value": setting.least_p_value,
        "statement": setting.statement,
        "reason": setting.reason,
    }


def _metric(metric: MetricResult) -> dict[str, Any]:
    return {
        "group": metric.group,
        "value": metric.value,
        "lower_bound": metric.vote.lower_bound,
        "threshold": metric.vote.threshold,
        "p_value": metric.vote.p_value,
        "false_positive_rate": metric.vote.false_positive_rate,
        "vote": metric.vote.vote,
        "reason": metric.reason,
    }
