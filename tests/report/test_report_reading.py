"""Reports that may be anybody's: what keeps the schema is taken, of all else one line says what is wrong with it."""

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import referencing
import reports
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deepjudge_core.errors import DeepJudgeError, FileFormatError
from deepjudge_core.report.audit_json import SCHEMA
from deepjudge_core.report.html import render_html
from deepjudge_core.report.markdown import render_markdown
from deepjudge_core.report.power_json import SCHEMA as POWER
from deepjudge_core.report.reading import check_report, read_report, schema_of

KNOWN = {
    *("$ref", "type", "enum", "const", "anyOf", "if", "then", "pattern", "minimum", "maximum", "exclusiveMinimum"),
    *("required", "properties", "additionalProperties", "items", "minItems", "maxItems"),
    *("$schema", "$id", "$defs", "title", "description"),
}
REGISTRY = referencing.Registry().with_contents([(name, schema_of(name)) for name in (SCHEMA, POWER)])
ORACLES = {name: jsonschema.Draft202012Validator(schema_of(name), registry=REGISTRY) for name in (SCHEMA, POWER)}
VALUES = {SCHEMA: reports.report(), POWER: reports.power()}
ODD = st.sampled_from(
    [None, True, False, 0, -1, 1, 2, 0.5, 1e308, 5e-324, 10**39, "", "copy", "\ud800", "a" * 64, [], {}, [[]], {"a": 1}]
).map(copy.deepcopy)


def words(schema: Any) -> set[str]:
    """The keywords of a schema."""
    found = set(schema)
    for key in ("properties", "$defs"):
        found |= set().union(*map(words, schema.get(key, {}).values()))
    for key in ("items", "additionalProperties", "if", "then"):
        found |= words(schema[key]) if isinstance(schema.get(key), dict) else set()
    return found.union(*map(words, schema.get("anyOf", ())))


@pytest.mark.parametrize("name", ORACLES)
def test_the_schemas_hold_nothing_that_is_not_looked_at(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(schema_of(name))
    assert words(schema_of(name)) <= KNOWN


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


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(value=changed())
def test_what_is_taken_is_what_the_schema_takes_and_can_be_rendered(value: Any) -> None:
    kind = value.get("schema")
    if isinstance(kind, str) and kind in ORACLES and ORACLES[kind].is_valid(value):
        assert check_report(value, "r.json") == value
        for render in (render_html, render_markdown):
            assert render(value).decode()
    else:
        with pytest.raises(FileFormatError, match=r"\Ar\.json: .+\Z"):
            check_report(value, "r.json")


@pytest.mark.parametrize(
    "value", [None, 3, [], {}, {"schema": []}, {"schema": "deepjudge/report/2"}, {"schema": SCHEMA}]
)
def test_no_report(value: Any) -> None:
    with pytest.raises(FileFormatError):
        check_report(value, "r.json")


def test_messages_say_where() -> None:
    value = reports.report()
    value["suspects"][1]["metrics"]["surety"]["value"] = "near"
    with pytest.raises(FileFormatError) as caught:
        check_report(value, "r.json")
    said = 'suspects[1].metrics.surety.value: expected a number or null, found "near"'
    assert str(caught.value) == f"r.json: {said}"


@pytest.mark.parametrize("part", ["suspect", "metric"])
def test_what_is_not_decided_has_a_reason(part: str) -> None:
    value = reports.report()
    failed, silent = value["suspects"][3], value["suspects"][2]["metrics"]["outputs"]
    assert (failed["decision"], silent["vote"]) == ("failed", None)
    (failed if part == "suspect" else silent)["reason"] = None
    with pytest.raises(FileFormatError, match="reason: expected a string, found null"):
        check_report(value, "r.json")


def test_more_columns_than_anybody_reads_are_refused() -> None:
    value = reports.report()
    value["metrics"] = {f"m{place}": value["metrics"]["surety"] for place in range(201)}
    with pytest.raises(FileFormatError, match="at most 200, found 201"):
        check_report(value, "r.json")


def test_read(tmp_path: Path) -> None:
    value = reports.report()
    assert read_report(reports.save(tmp_path / "r.json", value)) == value
    (tmp_path / "bad.json").write_text('{"schema": "deepjudge/report/1", "schema": 2}')
    for path in ("bad.json", "none.json", "."):
        with pytest.raises(DeepJudgeError):
            read_report(tmp_path / path)
