"""What an audit would see of thefts, as JSON, by the schema ``deepjudge/power/1``."""

import json
from typing import Any

from deepjudge_core.auditing.power import AttackPower, PowerEstimate, Share, ZooModelResult
from deepjudge_core.report.audit_json import metrics_to_json, suite_to_json, verdict_to_json
from deepjudge_core.version import VERSION

SCHEMA = "deepjudge/power/1"


def power_to_json(power: PowerEstimate) -> dict[str, Any]:
    """The outcome as JSON values."""
    return {
        "schema": SCHEMA,
        "deepjudge": VERSION,
        "victim": dict(power.zoo.victim),
        "suite": suite_to_json(power.suite),
        "match": power.calibration.match,
        "rule": power.judge.rule.name,
        "rule_options": dict(power.judge.options),
        "groups": power.judge.settings.groups,
        "metrics": metrics_to_json(found.metric for found in power.calibration.measurements[0].values()),
        "controls": {
            "count": len(power.calibration.controls),
            "held_out_accused": _share(power.accused),
            "notes": list(power.calibration.notes),
        },
        "attacks": [_attack(attack) for attack in power.attacks],
        "models": [_judged(found) for found in power.results],
    }


def dump_power(power: PowerEstimate) -> str:
    """The outcome as text; equal outcomes give equal texts."""
    return json.dumps(power_to_json(power), indent=2, allow_nan=False) + "\n"


def _attack(attack: AttackPower) -> dict[str, Any]:
    return {
        "attack": attack.attack,
        "copies": _share(attack.copies),
        "groups": {group: _share(share) for group, share in attack.groups.items()},
        "inconclusive": attack.inconclusive,
        "left_out": attack.left_out,
        "auc": dict(attack.auc),
    }


def _judged(found: ZooModelResult) -> dict[str, Any]:
    model = found.model
    return {
        "file": model.file,
        "kind": model.kind,
        "stratum": model.stratum,
        "attack": model.attack,
        "accuracy": model.accuracy,
        "seconds": model.seconds,
        "counts": found.counts,
        **verdict_to_json(found.verdict, found.failure),
    }


def _share(share: Share) -> dict[str, Any]:
    low, high = share.interval
    return {
        "count": share.count,
        "of": share.of,
        "share": share.count / share.of if share.of else None,
        "interval": [low, high],
    }
