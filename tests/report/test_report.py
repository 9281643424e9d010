"""The JSON report: what it holds, and that it keeps its schema."""

import json
from typing import Any

import jsonschema
import numpy as np
import pytest
import toys
from small_audits import COPY, INDEPENDENT, report

from deepjudge_core import Access, AuditOutcome, JudgeSettings, Metric, build_suite, calibrate, observe, select_seeds
from deepjudge_core.report.audit_json import dump_report, report_to_json, schema

VALIDATOR = jsonschema.Draft202012Validator(schema())


def checked(found: AuditOutcome) -> Any:
    value = json.loads(dump_report(found))
    VALIDATOR.validate(value)
    assert value == report_to_json(found)
    return value


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())
    assert not VALIDATOR.is_valid({})


def setting(decision: str | None = None, p_copy: float | None = None, **said: Any) -> dict[str, Any]:
    """One of two settings in a report, by a rule that gives no p-value."""
    none = {"p_value": None, "least_p_value": None, "statement": None, "reason": None}
    return {"decision": decision, "p_copy": p_copy} | none | said


def test_every_key_of_the_description() -> None:
    found = checked(report([COPY, INDEPENDENT]))
    suite = toys.suite()
    assert found["schema"] == "deepjudge/report/1"
    assert found["victim"] == {
        "path": "victim",
        "digest": toys.make_model().digest,
        "framework": "numpy",
        "isolation": "none",
        "device": None,
        "files": {},
        "model_signing": None,
        "accuracy": 0.9,
    }
    assert found["suite"] == {
        "digest": suite.digest,
        "seed": 0,
        "bounds": [0, 1],
        "cases": {"clean": 20, "adversarial": 15, "corners": 14},
        "generators": [
            {
                "name": "shove",
                "provider": "this program",
                "options": {"eps": 0.5, "upward": True},
                "made": 20,
                "kept": 15,
            },
            {"name": "poke", "provider": "this program", "options": {"count": 2}, "made": 14, "kept": 14},
        ],
        "layers": [{"name": "dense2", "neurons": 8, "unreached": [7]}],
        "notes": list(suite.notes),
    }
    assert [control["path"] for control in found["calibration"]["controls"]] == ["toy-1", "toy-2", "toy-3", "toy-4"]
    assert (found["rule"], found["groups"]) == ("nearest", "separate")
    assert found["rule_options"] == {"share": 0.5, "alpha": {}}
    copy, independent = found["suspects"]
    assert copy.keys() | {"tried"} == independent.keys()  # only it errs on so many seeds
    assert (copy["path"], copy["digest"], copy["framework"]) == ("toy-0+0.05", COPY.digest, "numpy")
    assert (copy["decision"], copy["points_to"], copy["reason"]) == ("copy", "weights", None)
    assert copy["settings"] == {
        "black-box": setting("copy", 1, statement="2 of 2 metrics are near"),
        "white-box": setting("copy", 1, statement="1 of 1 metrics are near"),
    }
    assert copy["layer_map"] == {"dense2": "dense2"}
    assert list(copy["metrics"]) == ["answers", "surety", "outputs"]
    surety = copy["metrics"]["surety"]
    rows, bound = suite.rows("adversarial"), toys.calibration().values("surety").min()
    apart = np.abs(COPY.predict(suite.cases.inputs[rows]) - suite.victim.probabilities[rows]).mean()
    assert surety == {
        "group": "black-box",
        "value": pytest.approx(apart, abs=1e-6),
        "lower_bound": bound,
        "threshold": bound / 2,
        "p_value": None,
        "false_positive_rate": None,
        "vote": True,
        "reason": None,
    }
    assert copy["metrics"]["outputs"]["group"] == "white-box"
    assert (independent["decision"], independent["points_to"]) == ("independent", None)
    assert independent["settings"]["black-box"] == setting("independent", 0, statement="0 of 2 metrics are near")
    assert independent["metrics"]["surety"]["vote"] is False


def test_what_was_not_measured() -> None:
    [found] = checked(report([toys.make_model(noise=0.05, access=Access.LABELS)]))["suspects"]
    assert (found["decision"], found["points_to"], found["layer_map"]) == ("copy", "behaviour", {})
    assert found["metrics"]["surety"] == {
        "group": "black-box",
        "value": None,
        "lower_bound": None,
        "threshold": None,
        "p_value": None,
        "false_positive_rate": None,
        "vote": None,
        "reason": "needs the model's probabilities",
    }
    assert found["settings"]["white-box"] == setting(reason="needs the model's layers")


def test_no_controls() -> None:
    found = checked(report([COPY], controls=0))
    assert found["calibration"] == {"controls": [], "match": "neurons", "limits": [], "notes": []}
    [suspect] = found["suspects"]
    assert (suspect["decision"], suspect["reason"]) == ("inconclusive", "there are no controls")
    assert suspect["metrics"]["surety"]["value"] > 0
    assert suspect["metrics"]["surety"]["reason"] == "there are no controls"


def test_failed() -> None:
    found = checked(report(["none.toy", toys.make_model(2)]))["suspects"]
    none = setting(reason="none.toy: no such file or folder (cannot-read)")
    assert found[0] == {
        "path": "none.toy",
        "digest": None,
        "framework": None,
        "isolation": None,
        "device": None,
        "files": {},
        "model_signing": None,
        "accuracy_on_seeds": None,
        "decision": "failed",
        "points_to": None,
        "settings": {"black-box": none, "white-box": none},
        "metrics": {},
        "layer_map": {},
        "layer_cka": {},
        "neurons_moved": {},
        "classes": None,
        "preprocessing": None,
        "inferred": [],
        "notes": [],
        "unsteady": None,
        "reason": "none.toy: no such file or folder (cannot-read)",
    }
    # What was audited is said also where it could not be judged.
    assert found[1]["decision"] == "failed"
    assert found[1]["digest"] == toys.make_model(2).digest


def test_joint() -> None:
    found = checked(report([COPY, INDEPENDENT], groups="joint"))
    assert found["groups"] == "joint"
    copy, independent = found["suspects"]
    assert (copy["decision"], copy["points_to"]) == ("copy", None)
    assert copy["settings"]["joint"] == setting("copy", 1, statement="3 of 3 metrics are near")
    assert copy["settings"]["black-box"]["decision"] is None
    assert independent["settings"]["joint"]["decision"] == "independent"


def test_other_reports_keep_the_schema() -> None:
    checked(report([]))
    checked(report([COPY], metrics=[]))
    checked(report([COPY], metrics=["outputs"], rule_options={"alpha.outputs": "0.25"}))
    checked(report([observe(toys.make_model(5, widths=(3,)), toys.suite())]))

    def nothing(victim: Any, suspect: Any) -> float:
        raise ValueError("nothing")

    bad = Metric("bad", needs=Access.LABELS, on="clean", distance=nothing, alpha=1)
    registry = toys.registry_of(toys=toys)
    registry.metrics._claims["bad"] = [(registry.plugins[0], bad)]
    calibration = calibrate(toys.suite(), [toys.seen(1)] * 2, registry=registry)
    found = toys.outcome(toys.suite(), calibration, [COPY], JudgeSettings(rule="nearest"), registry=registry)
    value = checked(found)
    assert value["suspects"][0]["metrics"]["bad"]["reason"] == "the metric failed: ValueError: nothing"
    assert len(value["calibration"]["notes"]) == 1

    victim = toys.make_model()
    seeds = select_seeds(victim, *toys.make_inputs(victim), n=20)
    suite = build_suite(victim, seeds, ["poke"], layers=["logits", "dense1"], registry=toys.registry())
    calibration = calibrate(suite, [], registry=toys.registry())
    found = toys.outcome(suite, calibration, [COPY], JudgeSettings(rule="nearest"), registry=toys.registry())
    assert checked(found)["suite"]["layers"] == [
        {"name": "logits", "neurons": 4, "unreached": [3]},
        {"name": "dense1", "neurons": 10, "unreached": [9]},
    ]


def test_equal_reports_give_equal_texts() -> None:
    first = dump_report(report([COPY, INDEPENDENT, "none.toy"]))
    assert dump_report(report([COPY, INDEPENDENT, "none.toy"])) == first
    assert first.endswith("}\n")


def test_names_from_elsewhere_are_escaped() -> None:
    model = toys.make_model(9, name="\x1b[31m\x9b\udcff\u202e\n")
    text = dump_report(report([model]))
    assert text.isascii()
    assert "\x1b" not in text
    assert json.loads(text)["suspects"][0]["path"] == model.name


@pytest.mark.parametrize(
    "change",
    [
        {"decision": "maybe"},
        {"points_to": "me"},
        {"reason": None},
        {"digest": "abc"},
        {"more": 1},
        {"settings": {}},
        {"metrics": {"x": {"value": -1}}},
    ],
)
def test_the_schema_refuses(change: dict[str, Any]) -> None:
    value = checked(report([COPY], controls=0))
    value["suspects"][0] |= change
    assert not VALIDATOR.is_valid(value)


def test_a_vote_that_is_not_cast_has_a_reason() -> None:
    value = checked(report([COPY], controls=0))
    value["suspects"][0]["metrics"]["surety"]["reason"] = None
    assert not VALIDATOR.is_valid(value)
