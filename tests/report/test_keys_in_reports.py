"""Keys in reports: what was counted is there, in every form, and nothing that is secret."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import jsonschema
import marked
import pytest
import reports
import test_report_html as pages
from scipy import stats

from deepjudge_core.cli.describing import of_report
from deepjudge_core.report import model_card, sarif, spreadsheet
from deepjudge_core.report.audit_json import dump_report, report_to_json, schema
from deepjudge_core.report.documents import AuditReport
from deepjudge_core.report.html import render_html
from deepjudge_core.report.markdown import render_markdown
from deepjudge_core.report.pages import marks
from deepjudge_core.report.pages.reproducing import commands
from deepjudge_core.report.pages.wording import answer, limits, rates, sureness

SINCE = {"date": "2026-01-02T03:04:05Z", "commitment": "a" * 64, "before": True}


@pytest.fixture(scope="module")
def value(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Of a copy that knows most triggers of two keys, and of an honest model; beside 12 controls."""
    keys = marked.key(), marked.key("echo")
    suite = marked.suite_with(tmp_path_factory.mktemp("keys"), *keys)
    suspects = [marked.model(7, *keys, learnt=30, name="copy"), marked.model(8, name="honest")]
    found = marked.audited(suite, suspects, range(20, 32), metrics=["robd", "jsd"])
    assert json.loads(dump_report(found)) == report_to_json(found)
    return report_to_json(found)


@pytest.fixture(scope="module")
def report(value: dict[str, Any]) -> AuditReport:
    return reports.typed(value)


def test_what_was_counted_stands_in_json(value: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator(schema()).validate(value)
    copy, honest = value["suspects"]
    adi, echo = copy["metrics"]["adi"], copy["metrics"]["echo"]
    assert (adi["of"], adi["chance"], adi["reading"]) == (40, 0.25, "direct")
    assert adi["p_value"] == pytest.approx(stats.binom.sf(adi["found"] - 1, 40, 0.25), rel=1e-6)
    assert adi["least_p_value"] == pytest.approx(0.25**40, rel=1e-6)
    assert (echo["of"], echo["chance"]) == (40, None)
    assert copy["settings"]["marks"]["decision"] == "copy"
    assert copy["settings"]["marks"]["level"] == 0.01
    assert (honest["decision"], honest["settings"]["marks"]["decision"]) == ("independent", None)
    assert len(value["calibration"]["controls"][0]["counted"]["echo"]) == 1
    entries = [(key["name"], key["by_design"], key["trials"], key["options"]) for key in value["suite"]["keys"]]
    assert entries == [
        ("adi", True, 40, {"trials": 40, "inputs": "noise"}),
        ("echo", False, 40, {"trials": 40}),
    ]


def test_no_report_has_anything_secret(value: dict[str, Any], report: AuditReport) -> None:
    texts = [json.dumps(value), *(render(report).decode() for render in (render_html, render_markdown, sarif.render))]
    for key in (marked.key(), marked.key("echo")):
        assert key.nonce.hex() not in "".join(texts)
        assert all(repr(list(map(int, key.labels)))[1:9] not in text for text in texts)
        assert all(str(float(key.inputs[0, 0])) not in text for text in texts)
        assert key.fixed not in "".join(texts)


def test_the_answer_says_what_was_counted_and_what_chance_gives(report: AuditReport) -> None:
    copy, honest = report.suspects
    found = copy.metrics["adi"].found
    most = next(m for m in range(41) if stats.binom.sf(m - 1, 40, 0.25) <= 0.005)
    said = answer(copy, report)
    assert all(fact in said for fact in (f"{found} of 40", f" {most} or more", "0.5 %"))
    assert "allowing for 2^40 tries" in sureness(copy, report)
    assert "acquits nobody" in answer(honest, report)
    assert any("three times" in line for line in rates(report))
    assert any("1 / p tries" in line for line in limits(report))


def test_a_commitment_in_time_stands_in_place_of_the_allowance(value: dict[str, Any]) -> None:
    known = reports.typed(value | {"committed": SINCE})
    said = sureness(known.suspects[0], known)
    assert "2026-01-02 03:04 UTC" in said
    assert "2^40" not in said
    assert not any("1 / p tries" in line for line in limits(known))
    late = reports.typed(value | {"committed": SINCE | {"before": False}})
    assert "2^40" in sureness(late.suspects[0], late)


def test_every_form_has_the_keys(report: AuditReport) -> None:
    found = report.suspects[0].metrics["adi"].found
    page, text, card = (render(report).decode() for render in (render_html, render_markdown, model_card.render))
    for shown in (page, text):
        assert "Secret keys" in shown
        assert report.suite.keys[0].digest in shown
        assert shown.count(f"{found} of 40") >= 2
    assert f"{found} of 40" in card
    [row, *_] = csv.DictReader(io.StringIO(spreadsheet.render(report).decode()))
    assert (row["adi found"], row["adi of"], row["adi vote"]) == (str(found), "40", "copy")
    rules = [rule["id"] for rule in sarif.report_to_sarif(report)["runs"][0]["tool"]["driver"]["rules"]]
    assert "metric.adi" in rules
    [sheet] = of_report(report)
    assert str(sheet.rows[0][-2]).startswith(f"{found} of 40, p = ")
    assert str(sheet.rows[0][-1]).endswith("controls 18 to 32")
    assert sum("--key" in line for line in commands(report)) == 1
    assert not any("adi" in line.partition("--metric")[2] for line in commands(report))


def test_what_chance_gives_is_the_binomial() -> None:
    for of, chance, level in ((100, 0.1, 0.01), (64, 0.5, 1e-6), (20, 0.1, 1e-12), (3, 0.5, 0.01)):
        tails = [stats.binom.sf(count - 1, of, chance) for count in range(of + 1)]
        expected = next((count for count, tail in enumerate(tails) if tail <= level), None)
        assert marks.needed(of, chance, level) == expected
    assert marks.fewest(100, 0.1, 0.01) == stats.binom.ppf(0.01, 100, 0.1)
    assert marks.needed(2**31, 0.5, 0.01) > 2**30


def test_rows_of_data_say_that_data_were_used(tmp_path: Path) -> None:
    key = marked.key("rows")
    suite = marked.suite_with(tmp_path, key, victim=marked.trained(0, key, "victim"))
    found = marked.audited(suite, [marked.trained(7, key, "user"), marked.model(8)], metrics=["robd", "jsd"])
    report = reports.typed(report_to_json(found))
    user, other = report.suspects
    assert (user.decision, user.points_to, other.decision) == ("copy", "data", "inconclusive")
    assert report.suite.keys[0].proves == "data"
    assert "use of data, not that the victim" in answer(user, report)
    assert any("rows were used for training" in line for line in limits(report))
    assert "rows that the key chose" in render_html(report).decode()


def test_reports_of_before_are_still_read() -> None:
    report = reports.typed(reports.report())
    assert not report.suite.keys
    assert "Secret keys" not in render_html(report).decode()
    assert marks.level_of(report) is None


def test_names_by_strangers_become_no_markup(value: dict[str, Any]) -> None:
    hostile = json.loads(json.dumps(value).replace('"echo"', json.dumps(reports.HOSTILE[0])))
    hostile["suspects"][0]["metrics"]["adi"] |= {"why": reports.HOSTILE[3], "reading": reports.HOSTILE[0]}
    report = reports.typed(hostile)
    page = render_html(report).decode()
    assert "<script" not in page
    assert "<svg onload" not in page
    assert "&lt;script" in page


@pytest.mark.parametrize("odd", [{"of": 2**31}, {"of": 0, "found": 0}, {"found": 10**6}, {"chance": 1e-300}])
def test_numbers_by_strangers_are_shown_and_take_no_time(value: dict[str, Any], odd: dict[str, Any]) -> None:
    changed = json.loads(json.dumps(value))
    changed["suspects"][0]["metrics"]["adi"] |= odd
    report = reports.typed(changed)
    for render in (render_html, render_markdown, sarif.render, spreadsheet.render):
        assert render(report)


def test_the_page_keeps_what_every_page_keeps(value: dict[str, Any]) -> None:
    rendered = value, render_html(reports.typed(value)).decode()
    pages.test_it_is_well_formed_and_nothing_of_it_comes_from_elsewhere(rendered)
    pages.test_what_a_screen_reader_needs(rendered)
    pages.test_figures_are_well_formed_and_have_texts(rendered)
