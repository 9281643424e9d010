"""Reports as tables for spreadsheets."""

import csv
import io
from typing import Any

import msgspec
import pytest
import small_audits as audits

from deepjudge_core.auditing.folders import Skipped
from deepjudge_core.report.audit_json import audit_report
from deepjudge_core.report.spreadsheet import HEADS, OF_METRIC, render


def rows(report: Any) -> list[dict[str, str]]:
    text = render(report).decode()
    assert text.count("\n") == text.count("\r\n")
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_a_row_for_each_suspect_the_most_similar_first() -> None:
    report = audit_report(audits.report([audits.INDEPENDENT, audits.COPY]))
    first, second = rows(report)
    assert list(first) == [*HEADS, *(f"{name}{part}" for name in report.metrics for part in OF_METRIC)]
    copy = report.suspects[1]
    assert (first["rank"], first["verdict"], first["points_to"], first["digest"]) == (
        "1",
        "copy",
        copy.points_to,
        copy.digest,
    )
    assert (second["rank"], second["verdict"]) == ("2", "independent")
    for name, result in copy.metrics.items():
        assert float(first[name]) == result.value
        assert float(first[f"{name} threshold"]) == result.threshold
        assert first[f"{name} vote"] == ("copy" if result.vote else "no")


@pytest.mark.parametrize(
    "name",
    ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", " =1", "\r=1", "\uff1d1", "%1", "|calc", '=HYPERLINK("http://x","y")'],
)
def test_no_name_is_a_formula(name: str) -> None:
    report = audit_report(audits.report([audits.COPY]))
    renamed = [msgspec.structs.replace(one, path=name) for one in report.suspects]
    skipped = (Skipped(name, "pickle", "a pickle", True),)
    [suspect, other] = rows(msgspec.structs.replace(report, suspects=tuple(renamed), skipped=skipped))
    for row in (suspect, other):
        assert row["name"].startswith("'")
        assert row["name"].isprintable()
    assert other["verdict"] == "skipped"
    assert other["reason"].startswith("pickle: ")


def test_lines_and_quotes_in_a_name_make_no_rows() -> None:
    report = audit_report(audits.report([audits.COPY]))
    renamed = tuple(msgspec.structs.replace(one, path='a"b,c\nd\udc80') for one in report.suspects)
    [suspect] = rows(msgspec.structs.replace(report, suspects=renamed))
    assert suspect["name"] == 'a"b,c d\ufffd'
