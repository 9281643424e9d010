"""Reports as JSON, of audits and of an audit's power, to render."""

import copy
import json
from pathlib import Path
from typing import Any

import toys

from deepjudge_core import Access, JudgeSettings, Vote
from deepjudge_core.components.kinds import Rule
from deepjudge_core.components.registry import Registry
from deepjudge_core.components.values import Decision, Judgement
from deepjudge_core.report.audit_json import dump_report
from deepjudge_core.report.documents import report_of

HOSTILE = (
    '"><script>alert(1)</script>',
    "\u202egpj.\x1b[31mexe\n<b>",
    "|`a``b`|[x](http://evil.example)@user#1 <https://evil.example>",
    "</title></style><svg onload=alert(1)>",
    "<!-- --> &amp; 'quote'; $(touch x)",
    "-rf _x_ **y** ~~z~~ www.evil.example \ud800",
)


def chance(evidence: Any, *, level: float = 0.01) -> Judgement:
    """A rule with p-values."""
    found = {name: float((e.controls <= e.value).mean() / 10 + 0.001) for name, e in evidence.items()}
    p_value = min(found.values())
    votes = {name: Vote(p <= level, 0.01, 0.01, p_value=p, false_positive_rate=level) for name, p in found.items()}
    decision = Decision.COPY if p_value <= level else Decision.INDEPENDENT
    return Judgement(decision, None, votes, None, p_value, 0.001, "so and so <i>many</i>")


def registry() -> Registry:
    """The toys, and the rule above."""
    made = toys.registry_of(toys=toys)
    made.rules._claims["chance"] = [(made.plugins[0], Rule("chance", chance))]
    return made


def report(rule: str = "nearest", **judging: Any) -> dict[str, Any]:
    """Copies, an honest model, one that answers labels only, and one that is not there."""
    suspects = [
        toys.make_model(noise=0.05),
        toys.make_model(9),
        toys.make_model(noise=0.02, access=Access.LABELS),
        "none.toy",
    ]
    found = toys.outcome(
        toys.suite(), toys.calibration(5), suspects, JudgeSettings(rule=rule, **judging), registry=registry()
    )
    return dict(json.loads(dump_report(found)))


def hostile() -> dict[str, Any]:
    """A report in which everything that a stranger may name is named to do harm."""
    value = report()
    names = iter(HOSTILE * 4)
    value["victim"]["path"] = next(names)
    value["victim"]["framework"] = HOSTILE[0]
    for model in (*value["suspects"], *value["calibration"]["controls"]):
        model["path"] = next(names)
        model["notes"] = [HOSTILE[2], HOSTILE[1]]
    value["suspects"][3]["reason"] = " ".join(HOSTILE)
    value["suspects"][0]["layer_map"] = {HOSTILE[3]: HOSTILE[0]}
    value["suspects"][0]["unsteady"] = HOSTILE[0]
    value["suite"]["generators"][0] |= {"name": HOSTILE[0], "options": {HOSTILE[3]: HOSTILE[2]}}
    value["suite"]["layers"][0]["name"] = HOSTILE[3]
    value["suite"]["notes"] = list(HOSTILE)
    value["rule"] = HOSTILE[4]
    value["rule_options"] = {"level": 0.05, HOSTILE[0]: {HOSTILE[1]: HOSTILE[2]}}
    value["metrics"] = {HOSTILE[0] if name == "surety" else name: facts for name, facts in value["metrics"].items()}
    for model in (*value["suspects"], *value["calibration"]["controls"]):
        if "surety" in model["metrics"]:
            model["metrics"][HOSTILE[0]] = model["metrics"].pop("surety")
    return value


def many(suspects: int = 100, controls: int = 200) -> dict[str, Any]:
    """Like a fleet: so many of each, in all strata."""
    value, strata = report(), ("same-data", "other-data", "common-ancestor", None)
    models, calibration = value["suspects"], value["calibration"]
    value["suspects"] = [copy.deepcopy(models[place % 3]) | {"path": f"s{place}"} for place in range(suspects)]
    calibration["controls"] = [
        copy.deepcopy(calibration["controls"][place % 5]) | {"path": f"c{place}", "stratum": strata[place % 4]}
        for place in range(controls)
    ]
    return value


def power() -> dict[str, Any]:
    """Three attacks, four controls, two metrics."""
    whole = report()
    keys = ("decision", "points_to", "settings", "metrics", "reason")

    def model(name: str, place: int, **said: Any) -> dict[str, Any]:
        judged = copy.deepcopy({key: whole["suspects"][place][key] for key in keys})
        for number, found in enumerate(judged["metrics"].values()):
            found["value"] = (found["value"] or 0) + 0.001 * (len(name) + number)
        common = {"file": name, "stratum": None, "attack": None, "accuracy": 0.9, "seconds": 1.0, "counts": True}
        return common | said | judged

    def counted(count: int, of: int) -> dict[str, Any]:
        return {"count": count, "of": of, "share": count / of if of else None, "interval": [0.0, 1.0]}

    stolen = [
        model(f"stolen/{attack}-{place}.toy", kind, kind="stolen", attack=attack)
        for attack in ("tune", "listen", HOSTILE[0])
        for place, kind in enumerate((0, 1, 0))
    ]
    controls = [model(f"controls/{'c' * place}.toy", 1, kind="control", stratum="same-data") for place in range(1, 5)]
    auc = dict.fromkeys(whole["metrics"], 0.5) | {"outputs": None}
    return {
        "schema": "deepjudge/power/1",
        "deepjudge": "0.1.0",
        "victim": {"path": HOSTILE[3], "framework": "toy", "digest": "0" * 64, "classes": 4, "accuracy": 0.9},
        **{key: whole[key] for key in ("suite", "rule", "rule_options", "groups", "metrics")},
        "match": "none",
        "controls": {"count": 4, "held_out_accused": counted(0, 4), "notes": ["a note"]},
        "attacks": [
            {
                "attack": attack,
                "copies": counted(2, 3),
                "groups": {"black-box": counted(2, 3), "white-box": counted(0, 0)},
                "inconclusive": 0,
                "left_out": 0,
                "auc": auc,
            }
            for attack in ("tune", "listen", HOSTILE[0])
        ],
        "models": [*stolen, *controls],
    }


def save(path: Path, value: Any) -> Path:
    """Write JSON."""
    path.write_text(json.dumps(value))
    return path


def typed(value: Any) -> Any:
    """The report that JSON values are."""
    return report_of(value, "r.json")
