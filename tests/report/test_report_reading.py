"""Reports that may be anybody's: what keeps the schema is taken, of all else one line says what is wrong with it."""

import copy
import importlib.resources
import json
from pathlib import Path
from typing import Any

import goldens
import jsonschema
import pytest
import referencing
import reports
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from refusals import refused

from deepjudge_core.errors import DeepJudgeError, FileFormatError
from deepjudge_core.files.documents import plain
from deepjudge_core.report.documents import AUDIT, POWER, read_report, report_of, schema
from deepjudge_core.report.html import render_html
from deepjudge_core.report.markdown import render_markdown
from deepjudge_core.report.schemas import FILES, dump_schema

# To a JSON Schema 1.0 is an integer. No report has one written so, and none is read.
STRICT = jsonschema.validators.extend(
    jsonschema.Draft202012Validator,
    type_checker=jsonschema.Draft202012Validator.TYPE_CHECKER.redefine(
        "integer", lambda _, value: isinstance(value, int) and not isinstance(value, bool)
    ),
)
ORACLES = {name: STRICT(schema(name)) for name in (AUDIT, POWER)}
# The schemas that were written by hand, before they were made of the types.
WRITTEN = {
    name: json.loads((goldens.GOLDEN / "schemas" / file).read_text())
    for name, file in {AUDIT: "report.json", POWER: "power.json"}.items()
}
REGISTRY = referencing.Registry().with_contents(list(WRITTEN.items()))
FORMER = {name: STRICT(WRITTEN[name], registry=REGISTRY) for name in WRITTEN}
VALUES = {AUDIT: reports.report(), POWER: reports.power()}
ODD = st.sampled_from(
    [None, True, False, 0, -1, 1, 2, 0.5, 1e308, 5e-324, 10**39, "", "copy", "\ud800", "a" * 64, [], {}, [[]], {"a": 1}]
).map(copy.deepcopy)


@pytest.mark.parametrize("name", ORACLES)
def test_the_schemas_are_published_as_they_are(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(schema(name))
    published = Path(str(importlib.resources.files("deepjudge_core.report") / FILES[name]))
    assert published.read_text("utf-8") == dump_schema(name), "run: python -m deepjudge_core.report.schemas"


@st.composite
def changed(draw: st.DrawFn) -> Any:
    """A report with some values exchanged, left out, or put where they do not belong."""
    value = json.loads(json.dumps(VALUES[draw(st.sampled_from(sorted(VALUES)))]))
    for _ in range(draw(st.integers(1, 4))):
        at = value
        while True:
            keys = list(at) if isinstance(at, dict) else list(range(len(at)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if not isinstance(at[key], dict | list) or draw(st.integers(0, 4)) == 0:
                how = draw(st.integers(0, 4))
                if how == 0:
                    del at[key]
                elif how == 1 and isinstance(at, dict):
                    at[draw(st.sampled_from(["more", "value", "", "\x1b"]))] = draw(ODD)
                else:
                    at[key] = draw(ODD)
                break
            at = at[key]
    return value


def holds(whole: Any, part: Any) -> bool:
    """Whether all that stands in some JSON values stands in others, which may have more keys."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(key in whole and holds(whole[key], part[key]) for key in part)
    if isinstance(part, list):
        return len(whole) == len(part) and all(map(holds, whole, part))
    # Where a number is meant, a long integer is read as the nearest one.
    return bool(whole == part or (isinstance(part, int) and isinstance(whole, float) and whole == float(part)))


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(value=changed())
def test_what_is_taken_is_what_the_schema_takes_and_can_be_rendered(value: Any) -> None:
    kind = value.get("schema")
    known = isinstance(kind, str) and kind in ORACLES
    if known:
        assert ORACLES[kind].is_valid(value) == FORMER[kind].is_valid(value)
    if known and ORACLES[kind].is_valid(value):
        report = report_of(value, "r.json")
        assert holds(plain(report), value)
        for render in (render_html, render_markdown):
            assert render(report).decode()
    else:
        with pytest.raises(FileFormatError, match=r"\Ar\.json: .+\Z"):
            report_of(value, "r.json")


@pytest.mark.parametrize(
    "value", [None, 3, [], {}, {"schema": []}, {"schema": "deepjudge/report/2"}, {"schema": AUDIT}]
)
def test_no_report(value: Any) -> None:
    with pytest.raises(FileFormatError):
        report_of(value, "r.json")


def test_messages_say_where() -> None:
    value = reports.report()
    value["suspects"][1]["metrics"]["surety"]["value"] = "near"
    with pytest.raises(FileFormatError) as caught:
        report_of(value, "r.json")
    assert caught.value.code == "damaged-file"
    assert str(caught.value).startswith("r.json: suspects[1].metrics.surety.value: ")
    assert str(caught.value).endswith(' null, found "near"')


@pytest.mark.parametrize(
    ("change", "facts"),
    [
        (lambda v: v.pop("suite"), ("the document", "'suite'")),
        (lambda v: v["suite"].pop("cases"), ("suite: ", "'cases'")),
        (lambda v: v["suite"].update(more=1), ("suite: ", "'more'")),
        (lambda v: v["suite"].update(bounds=[1]), ("suite.bounds: ", "2 items", "[1]")),
        (lambda v: v["suite"].update(seed=1.5), ("suite.seed: ", "an integer", "1.5")),
        (lambda v: v["suspects"][2].update(decision="maybe"), ("suspects[2].decision: ", '"inconclusive"', '"maybe"')),
        (lambda v: v["suspects"][0].update(digest="abc"), ("suspects[0].digest: ", "^[0-9a-f]{64}$", '"abc"')),
        (lambda v: v["suspects"][0].update(accuracy_on_seeds=2), ("suspects[0].accuracy_on_seeds: ", "of at most 1")),
        (lambda v: v["suspects"][0].update(layer_map={"a": None}), ("suspects[0].layer_map.a: ", "a string", "null")),
        (lambda v: v["suspects"][0]["settings"].pop("black-box"), ("suspects[0].settings: ", "'black-box'")),
        (lambda v: v["suspects"][0].update(isolation="\ud800"), ("suspects[0].isolation: ", '"process-only"', "ud800")),
        (lambda v: v["metrics"]["surety"].update(upper=0), ("metrics.surety.upper: ", "above 0", "found 0")),
        (lambda v: v.update(suspects={}), ("suspects: ", "an array", "{}")),
        (lambda v: v["calibration"]["controls"][1].update(metrics={"x": -1}), ("calibration.controls[1].metrics.x: ",)),
    ],
)
def test_messages_say_what_was_expected(change: Any, facts: tuple[str, ...]) -> None:
    value = reports.report()
    change(value)
    with pytest.raises(FileFormatError) as caught:
        report_of(value, "r.json")
    assert not [fact for fact in facts if fact not in str(caught.value)], str(caught.value)


@pytest.mark.parametrize("part", ["suspect", "metric"])
def test_what_is_not_decided_has_a_reason(part: str) -> None:
    value = reports.report()
    failed, silent = value["suspects"][3], value["suspects"][2]["metrics"]["outputs"]
    assert (failed["decision"], silent["vote"]) == ("failed", None)
    (failed if part == "suspect" else silent)["reason"] = None
    where = "suspects[3]" if part == "suspect" else "suspects[2].metrics.outputs"
    with pytest.raises(FileFormatError) as caught:
        report_of(value, "r.json")
    assert f"{where}.reason: " in str(caught.value)


def test_more_columns_than_anybody_reads_are_refused() -> None:
    value = reports.report()
    value["metrics"] = {f"m{place}": value["metrics"]["surety"] for place in range(201)}
    with refused(FileFormatError, "r.json: ", "metrics", 200, 201):
        report_of(value, "r.json")


def test_read(tmp_path: Path) -> None:
    value = reports.report()
    assert read_report(reports.save(tmp_path / "r.json", value)) == report_of(value, "r.json")
    (tmp_path / "bad.json").write_text('{"schema": "deepjudge/report/1", "schema": 2}')
    for path in ("bad.json", "none.json", "."):
        with pytest.raises(DeepJudgeError):
            read_report(tmp_path / path)
