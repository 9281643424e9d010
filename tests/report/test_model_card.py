"""Sections of model cards: what they say, and that no name of a stranger's becomes markup."""

import copy
from html.parser import HTMLParser
from typing import Any

import pytest
import reports
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from small_audits import COPY, INDEPENDENT, report

from deepjudge_core.report.audit_json import report_to_json
from deepjudge_core.report.model_card import render

MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])


JUDGED = report_to_json(report([COPY, INDEPENDENT]))


def card_of(found: dict[str, Any]) -> str:
    return render(reports.typed(found)).decode()


def given_report() -> dict[str, Any]:
    return copy.deepcopy(JUDGED)


TAGS = {"h2", "h3", "p", "ul", "li", "code"}


class Page(HTMLParser):
    def __init__(self, card: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(MARKDOWN.render(card))

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        assert not attrs
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_card() -> None:
    found = given_report()
    found["victim"]["path"] = "my-own.onnx"
    card = card_of(found)
    assert card.startswith("## Provenance check\n")
    page = Page(card)
    assert set(page.tags) == TAGS
    for said in (
        f"Reference model: SHA-256 {found['victim']['digest']}",
        "Rule: nearest share=0.5, behaviour and layers judged separately",
        "Controls: 4 (4 of unknown stratum)",
        f"Test cases: SHA-256 {found['suite']['digest']}",
        "Copy. It appears to contain the victim's weights",
        "By behaviour: 2 of 2 metrics are near.",
        "No sign of copying found.",
        f"Model: SHA-256 {COPY.digest}",
        "A copy is not necessarily stolen",
        "No sign of copying is no proof of independence",
        "deepjudge verify DIR",
    ):
        assert said in page.text
    for limit in found["calibration"]["limits"]:
        assert limit[1:] in page.text
    # The victim's name is the owner's own affair.
    assert found["victim"]["path"] not in card


def test_its_numbers() -> None:
    found = given_report()
    found["groups"] = "joint"
    found["suspects"] = found["suspects"][1:]
    found["suspects"][0]["settings"]["black-box"] |= {"p_value": 0.25, "least_p_value": 0.0769}
    found["suspects"][0]["model_signing"] = "4" * 64
    for control, stratum in zip(found["calibration"]["controls"], ["same-data"] * 3 + [None], strict=True):
        control["stratum"] = stratum
    text = Page(card_of(found)).text
    assert "1 in 4 independent models comes this close by behaviour (p = 0.25)" in text
    assert "Controls: 4 (3 same-data, 1 of unknown stratum)" in text
    assert f"OpenSSF Model Signing: digest {'4' * 64}" in text
    assert "behaviour and layers judged together" in text
    assert "A copy is not" not in text


def test_what_could_not_be_judged() -> None:
    text = Page(card_of(report_to_json(report(["none.toy"], controls=0)))).text
    assert "It could not be tested: no such file or folder (cannot-read)." in text
    assert "Controls: none" in text


HOSTILE = (
    "<script>alert(1)</script>.onnx",
    "![x](http://a.example/b.png)",
    "[independent](javascript:x)",
    "`a` **copy** ``",
    "a\n\n## Verdict: independent\n\n- x",
    "| a | b |\n| --- | --- |",
    "https://a.example www.a.example a@a.example",
    "&lt;b&gt; $x$ ~~y~~ <!-- ",
    "`",
    "",
)


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_no_markup(name: str) -> None:
    plain = Page(card_of(given_report()))
    found = given_report()
    found["suspects"][0]["path"] = name
    found["suspects"][0]["settings"]["black-box"]["statement"] = name or "x"
    found["calibration"]["limits"] = [name or "x"]
    page = Page(card_of(found))
    # A word that Markdown could make something of is code, and a limit less is an item less.
    assert [tag for tag in page.tags if tag not in ("code", "li")] == [
        tag for tag in plain.tags if tag not in ("code", "li")
    ]


def test_no_link_is_made_of_a_text() -> None:
    found = given_report()
    found["calibration"]["limits"] = ["see https://a.example or www.a.example or a@a.example: now"]
    assert "See `https://a.example` or `www.a.example` or `a@a.example:` now." in card_of(found)


@given(st.text(max_size=30))
def test_whatever_a_model_is_called(name: str) -> None:
    found = given_report()
    found["suspects"][0]["path"] = found["suspects"][0]["reason"] = name
    tags = Page(card_of(found)).tags
    assert tags.count("h3") == 4
    assert set(tags) <= TAGS
