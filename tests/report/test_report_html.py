"""The report for people: it says all that the JSON says, and nothing that a stranger wrote becomes markup in it."""

import copy
import itertools
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import goldens
import pytest
import reports
from markdown_it import MarkdownIt

from deepjudge_core.components.registry import load_registry
from deepjudge_core.report.html import render_html
from deepjudge_core.report.markdown import code, escape, render_markdown
from deepjudge_core.report.pages import charts
from deepjudge_core.report.pages.document import Bullets, Commands, Name
from deepjudge_core.report.pages.listing import MANY
from deepjudge_core.report.pages.nextsteps import next_steps
from deepjudge_core.report.pages.palette import DARK, LIGHT, PAINTS
from deepjudge_core.report.pages.parts import below_common, thresholds_of
from deepjudge_core.report.pages.reproducing import commands
from deepjudge_core.report.pages.similarity import AT_THRESHOLD, axes_of, ranges_of
from deepjudge_core.report.pages.wording import ANSWERS, answer, limits, odds, rates, sureness, verdict
from deepjudge_core.text import clean

DOCS = Path(__file__).parents[2] / "docs"
VOID = {"meta", "br", "wbr", "hr", "img", "link", "input"}
TAGS = {
    *("html", "head", "meta", "title", "style", "body", "header", "h1", "h2", "h3", "p", "nav", "ol", "li", "a", "ul"),
    *("main", "section", "div", "table", "caption", "thead", "tbody", "tr", "th", "td", "code", "wbr", "pre", "figure"),
    *("figcaption", "svg", "desc", "rect", "line", "text", "circle", "polygon", "polyline", "path", "footer"),
    *("details", "summary", "dl", "dt", "dd", "span"),
}
ALL = {
    "copies": reports.report,
    "p-values": lambda: reports.report("chance"),
    "joint": lambda: reports.report(groups="joint"),
    "hostile": reports.hostile,
    "many": reports.many,
    "power": reports.power,
    "none": lambda: reports.report(metrics=[]) | {"suspects": []},
}


class Page(HTMLParser):
    """The elements of a page, each with its text; complains of what is not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[tuple[str, dict[str, str | None]]] = []
        self.found: list[tuple[str, dict[str, str | None], str]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs)
        if tag in VOID:
            self.found.append((tag, dict(attrs), ""))
        else:
            self.open.append((tag, dict(attrs)))
            self.texts.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs), ""))

    def handle_endtag(self, tag: str) -> None:
        opened, attributes = self.open.pop()
        assert opened == tag
        text = self.texts.pop()
        self.found.append((tag, attributes, text))
        if self.texts:
            self.texts[-1] += text

    def handle_data(self, data: str) -> None:
        if self.texts:
            self.texts[-1] += data

    def all(self, *tags: str) -> Iterator[tuple[dict[str, str | None], str]]:
        return ((attributes, text) for tag, attributes, text in self.found if tag in tags)

    @property
    def text(self) -> str:
        return next(text for _, text in self.all("body"))


def html(value: Any) -> str:
    return render_html(reports.typed(value)).decode()


def markdown(value: Any) -> str:
    return render_markdown(reports.typed(value)).decode()


@pytest.fixture(scope="module", params=ALL)
def rendered(request: pytest.FixtureRequest) -> tuple[dict[str, Any], str]:
    value = ALL[request.param]()
    return value, html(value)


def test_it_is_well_formed_and_nothing_of_it_comes_from_elsewhere(rendered: tuple[dict[str, Any], str]) -> None:
    _, text = rendered
    page = Page(text)
    assert {tag for tag, _, _ in page.found} <= TAGS
    names = {name for _, attributes, _ in page.found for name in attributes}
    assert not {name for name in names if name.startswith("on") or name in ("src", "style", "xlink:href", "srcset")}
    assert all((attributes["href"] or "").startswith("#") for attributes, _ in page.all("a"))
    [(_, style)] = page.all("style")
    assert "url(" not in style
    assert "@import" not in style
    [policy] = [a["content"] for a, _ in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'")
    assert "script" not in policy


def test_what_a_screen_reader_needs(rendered: tuple[dict[str, Any], str]) -> None:
    _, text = rendered
    page = Page(text)
    [(html, _)] = page.all("html")
    assert html["lang"] == "en"
    ids = [attributes["id"] for _, attributes, _ in page.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes, _ in page.found:
        for name in ("aria-labelledby", "aria-describedby"):
            assert set((attributes.get(name) or "").split()) <= set(ids)
    assert {(a["href"] or "")[1:] for a, _ in page.all("a")} <= set(ids)
    levels = [int(tag[1]) for tag in re.findall(r"<(h\d)", text)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    tables, captions = list(page.all("table")), list(page.all("caption"))
    assert len(tables) == len(captions)
    assert all(caption.strip() for _, caption in captions)
    assert {attributes.get("scope") for attributes, _ in page.all("th")} <= {"col", "row"}
    assert all(attributes["aria-label"] for attributes, _ in page.all("div") if "tabindex" in attributes)


def test_figures_are_well_formed_and_have_texts(rendered: tuple[dict[str, Any], str]) -> None:
    value, text = rendered
    figures = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert bool(figures) == bool(value.get("suspects", True))
    for figure in figures:
        root = ElementTree.fromstring(figure)
        title, desc = root[0], root[1]
        assert root.get("role") == "img"
        assert root.get("aria-labelledby") == f"{title.get('id')} {desc.get('id')}"
        assert title.text
        assert desc.text
        _, _, width, height = map(float, root.get("viewBox").split())
        for part in root.iter():
            assert part.get("class", "p-text").removeprefix("p-") in PAINTS
            numbers = [part.get(name) for name in ("x", "y", "cx", "cy", "x1", "x2", "y1", "y2") if part.get(name)]
            assert all(-20 <= float(number) <= max(width, height) for number in numbers)


def test_nothing_that_strangers_wrote_is_markup() -> None:
    page = Page(html(reports.hostile()))
    assert page.text.count("<script>alert(1)</script>") >= 3
    for name in reports.HOSTILE:
        assert clean(name) in page.text
    text = html(reports.hostile())
    assert not re.search(r"<(script|img|b|i)\b|<svg on|\x1b|\u202e|<!--", text)


def test_all_that_the_report_says_is_there() -> None:
    value = reports.report("chance")
    page, text = Page(html(value)), markdown(value)
    for shown in (page.text, text):
        for model in (value["victim"], *value["suspects"], *value["calibration"]["controls"]):
            assert model["path"] in shown
            assert (model["digest"] or "") in shown
        for line in value["calibration"]["limits"]:
            assert line[1:] in shown
        assert all(metric in shown for metric in value["metrics"])
        assert value["suite"]["digest"] in shown
        assert "eeds the model's layers" in shown
        assert "none.toy" in shown
        assert "could not be tested: no such file or folder" in shown
        assert "deepjudge verify DIR" in shown
        assert "at most 2 % in all" in shown
        assert "no proof of independence" in shown


def test_the_question_and_its_answer_come_first() -> None:
    value = reports.report("chance") | {"made": {"date": "2026-02-03T04:05:06Z", "case": "A <v> B", "by": "C & D"}}
    page = Page(html(value))
    [(_, question)] = page.all("h1")
    [lead] = [text for attributes, text in page.all("p") if attributes.get("class") == "lead"]
    assert question == "Is any of these models a copy of victim?"
    assert lead == "Yes: 2 of 4 models appear to be copies. For 1, no sign of copying was found. 1 could not be tested."
    assert [text for _, text in page.all("dd")] == ["victim", "A <v> B", "2026-02-03 04:05 UTC", "C & D"]
    [first, *_] = page.all("table")
    for suspect in value["suspects"]:
        assert ANSWERS[suspect["decision"]] in first[1]
    value["suspects"] = value["suspects"][:1]
    [(_, question)] = Page(html(value)).all("h1")
    assert re.fullmatch(r"Is toy\S+ a copy of victim\?", question)


def test_the_first_screen_has_all_that_the_answer_depends_on() -> None:
    text = html(reports.report("chance"))
    first = text.split("<nav")[0]
    titles = [text for _, text in Page(f"<div>{first.split('</header>')[1].split('<main>')[1]}</div>").all("h3")]
    assert titles == ["What this does not show", "What to do next", "What this rests on", "What the rates mean"]
    # What an abbreviation means is said later, so there is none here.
    assert not re.search("RobD|JSD|CKA|AUC|ROC", first)


def test_the_sections_stand_in_their_order() -> None:
    page = Page(html(reports.report()))
    assert [title for _, title in page.all("h2")] == [
        "Answer",
        "Distances from the victim",
        "Suspect by suspect",
        "What the rule found",
        "What was compared",
        "Layers",
        "What was not measured",
        "How to make this report again",
    ]
    page = Page(html(reports.power()))
    assert "How well each measurement tells them apart" in [title for _, title in page.all("h2")]


@pytest.mark.parametrize("name", ["start/reading-a-report.md", "reference/report.md"])
def test_the_documentation_explains_each_part(name: str) -> None:
    skipped = {"name": "c.pkl", "code": "pickle", "reason": "a pickle", "unjudged": True}
    text = html(reports.report() | {"skipped": [skipped]})
    first, rest = text.split("<nav")
    parts = [*re.findall(r"<h3[^>]*>(.*?)</h3>", first), *re.findall(r"<h2[^>]*>(.*?)</h2>", rest)]
    assert len(parts) == 12
    explained = (DOCS / name).read_text("utf-8").casefold()
    assert [part for part in parts if f"\n| {part.casefold()} |" not in explained] == []


@pytest.mark.parametrize("name", ["copies", "p-values", "joint", "many", "power"])
def test_no_sentence_is_there_twice(name: str) -> None:
    page = Page(html(ALL[name]()))
    texts = [text for _, text in page.all("p", "li", "td", "figcaption", "caption")]
    sentences = [part.strip() for text in texts for part in re.split(r"(?<=[.]) ", text)]
    long = [part for part in sentences if len(re.findall(r"\b[a-z]{2,}\b", part)) > 5 and " " in part]
    assert [part for part in dict.fromkeys(long) if long.count(part) > 1] == []


def test_metrics_are_explained_where_they_first_stand() -> None:
    value = reports.report()
    value["metrics"]["surety"] |= {"title": "how sure <it> is", "says": "difference of the greatest probabilities"}
    text = Page(html(value)).text
    place = text.index("surety")
    assert text.index("how sure <it> is") < text.index("Difference of the greatest probabilities")
    assert text.index("how sure <it> is") - place < 50


def test_the_registered_metrics_are_explained() -> None:
    for metric in load_registry().metrics.select(["all"]):
        assert metric.title, metric.name
        assert metric.says, metric.name
        assert not metric.says.endswith(".")


def test_what_is_independent_is_so_within_a_scope() -> None:
    report = reports.report()
    suspect = report["suspects"][1]
    assert suspect["decision"] == "independent"

    def said() -> str:
        return answer(reports.typed(report).suspects[1])

    assert "Neither its behaviour nor its layers" in said()
    suspect["settings"]["white-box"]["decision"] = None
    assert "layers could not be compared" in said()
    suspect["settings"]["white-box"]["decision"] = "independent"
    suspect["settings"]["black-box"]["decision"] = None
    assert "behaviour was not compared" in said()


def test_a_fact_is_certain() -> None:
    value = reports.report()
    value["suspects"][0]["reason"] = "the files are the same"
    suspect = reports.typed(value).suspects[0]
    assert "the victim itself" in answer(suspect)
    assert "the files are the same" in answer(suspect)
    assert sureness(suspect).startswith("Certain")


def test_a_vote_claims_no_error_rate_that_nobody_knows() -> None:
    value = reports.report()
    assert "was not measured: the rule nearest gives no error rate" in markdown(value)
    for suspect in value["suspects"]:
        for found in suspect["metrics"].values():
            found["false_positive_rate"] = None if found["vote"] is None else 0.01
    text = markdown(value)
    assert "each would say so of at most 1 % of independent models" in text
    assert "if their distances from the victim are normally distributed" in text
    assert "How often the vote of all is wrong was not measured" in text
    assert "up to twice as likely as by one of them." in text
    assert "in all" not in text


@pytest.mark.parametrize(
    ("votes", "said"),
    [
        ([], "No measurement could vote"),
        ([True], "The only measurement says copy"),
        ([False], "The only measurement does not"),
        ([True, True], "Both measurements say copy"),
        ([False, False], "Neither measurement says"),
        ([True, False], "1 of 2 measurements says copy"),
        ([True] * 3, "All 3 measurements say copy"),
        ([False] * 3, "None of 3 measurements says copy"),
    ],
)
def test_votes_are_counted_in_words(votes: list[bool], said: str) -> None:
    value = reports.report()
    suspect = value["suspects"][0]
    suspect["settings"]["white-box"]["decision"] = None
    one = suspect["metrics"]["answers"]
    suspect["metrics"] = {f"m{place}": one | {"vote": vote} for place, vote in enumerate(votes)}
    assert sureness(reports.typed(value).suspects[0]).startswith(said)


def test_measurements_without_a_vote_are_told_of() -> None:
    value = reports.report()
    assert "could not vote" not in sureness(reports.typed(value).suspects[0])
    value["suspects"][0]["metrics"]["surety"] |= {"vote": None, "reason": "the controls differ too much"}
    assert "1 more could not vote" in sureness(reports.typed(value).suspects[0])


def test_the_level_is_that_of_a_setting() -> None:
    text = markdown(reports.report("chance", rule_options={"level": 0.02}))
    assert "At most 2 % of independent models like the controls would be called copies, in each of the two" in text
    assert "at most 4 % in all" in text
    joint = markdown(reports.report("chance", groups="joint"))
    assert "At most 1 % of independent models like the controls would be called copies." in joint
    assert "judged separately" not in joint


@pytest.mark.parametrize(
    ("p_value", "said"),
    [
        (3e-30, "Very strong evidence: at most 1 in 1,000,000"),
        (0.01, "Strong evidence: at most 1 in 100"),
        (0.05, "Moderate evidence"),
        (0.4, "Weak evidence: at most 1 in 2 independent"),
        (0.7, "Weak evidence: at most 70 %"),
    ],
)
def test_how_sure_in_words_and_as_a_rate(p_value: float, said: str) -> None:
    value = reports.report("chance")
    value["suspects"][0]["settings"]["black-box"] |= {"p_value": p_value, "least_p_value": 0}
    value["suspects"][0]["settings"]["white-box"]["p_value"] = 0.9
    assert sureness(reports.typed(value).suspects[0]).startswith(said)


def test_a_setting_without_a_p_value_says_its_votes() -> None:
    value = reports.report("chance")
    value["suspects"][0]["settings"]["white-box"]["p_value"] = None
    report = reports.typed(value)
    said = verdict(report.suspects[0], report)
    assert "p = - " not in said
    assert re.search(
        r"1 in \S+ independent models comes this close by behaviour \(p = \S+\)\. [\w ]+: \d of \d on layers\.", said
    )


def test_p_values_are_explained_where_there_are_some() -> None:
    with_p = reports.report("chance")
    assert rates(reports.typed(with_p))[0].startswith("A p-value (p) is")
    assert rates(reports.typed(reports.report("chance", fdr=0.05)))[0].startswith("A p-value (p) is")
    for suspect in with_p["suspects"]:
        for setting in suspect["settings"].values():
            setting["p_value"] = None
    assert rates(reports.typed(with_p))[0].startswith("At most 1 % of independent models")


def test_rates_of_many_suspects_are_not_those_of_one() -> None:
    for judging in ({}, {"groups": "joint"}):
        assert "at least one false accusation" in rates(reports.typed(reports.report("chance", **judging)))[-1]
    one = reports.report("chance")
    one["suspects"] = one["suspects"][:1]
    assert not any("false accusation is" in said and "suspects" in said for said in rates(reports.typed(one)))
    [*_, fleet] = rates(reports.typed(reports.report("chance", fdr=0.05)))
    assert "independent of one another or positively dependent" in fleet
    assert "q-value (q) is" in fleet


def test_limits_are_those_of_the_answers() -> None:
    value, said = reports.report(), "not necessarily stolen"
    assert said in markdown(value)
    value["suspects"] = [suspect for suspect in value["suspects"] if suspect["decision"] != "copy"]
    assert said not in markdown(value)
    assert any("no proof of independence" in line for line in limits(reports.typed(value)))


def test_the_first_screen_says_of_which_kinds_the_controls_are() -> None:
    value = reports.report()
    for control in value["calibration"]["controls"]:
        control["stratum"] = None
    assert "kind (stratum) is unknown" in markdown(value)
    for control in value["calibration"]["controls"][:2]:
        control["stratum"] = "same-data"
    assert "2 same-data, 3 unknown" in markdown(value)


def test_only_suspects_that_were_judged_multiply_the_rates() -> None:
    value = reports.report("chance")
    assert [suspect["decision"] for suspect in value["suspects"]].count("failed") == 1
    assert "With 3 suspects" in rates(reports.typed(value))[-1]


def steps(value: Any) -> tuple[str, list[str]]:
    """What to do next: the commands within the sentences, and those on lines of their own."""
    blocks = next_steps(reports.typed(value))
    lines = [line for block in blocks if isinstance(block, Bullets) for line in block.lines]
    names = [part.text for line in lines if isinstance(line, tuple) for part in line if isinstance(part, Name)]
    return " ".join(names), [line for block in blocks if isinstance(block, Commands) for line in block.lines]


def test_controls_decide_where_there_are_none() -> None:
    value = json.loads((goldens.GOLDEN / "report-no-controls.json").read_text())
    assert "inconclusive" in {suspect["decision"] for suspect in value["suspects"]}
    said, made = steps(value)
    assert "deepjudge audit" in said
    assert [line.split()[:2] for line in made] == [["deepjudge", "zoo"], ["deepjudge", "calibrate"]]
    for line in made:
        spoken = [" ".join(text.split()) for _, text in Page(html(value)).all("code")]
        assert line in spoken
    assert any("Without controls" in line for line in limits(reports.typed(value)))
    # Nothing is open that they could decide.
    for suspect in value["suspects"]:
        suspect["decision"] = "failed"
    assert steps(value) == ("", [])


@pytest.mark.parametrize(
    ("decision", "said"), [("copy", "verify"), ("independent", "power"), ("inconclusive", ""), ("failed", "")]
)
def test_the_next_steps_are_those_of_the_answers(decision: str, said: str) -> None:
    value = reports.report()
    for suspect in value["suspects"]:
        suspect |= {"decision": decision, "reason": "whatever"}
    names, made = steps(value)
    assert not made  # the controls suffice
    assert {word for word in ("verify", "power") if word in names} == {said} - {""}
    assert len(next_steps(reports.typed(value))) == 1
    assert next_steps(reports.typed(value | {"suspects": []})) == []


def test_a_finding_is_parted_only_outside_of_brackets() -> None:
    value = reports.report()
    value["suspects"] = value["suspects"][:1]
    value["suspects"][0]["settings"]["black-box"]["statement"] = "one; two (of these; not those. nor any). three"
    [table] = [text for _, text in Page(html(value)).all("tbody") if "Two (" in text]
    for finding in ("One.", "Two (of these; not those. nor any).", "Three."):
        assert finding in table


def test_a_finding_of_several_comparisons_is_there_once() -> None:
    value = reports.report()
    value["suspects"] = value["suspects"][:2]
    first, second = (suspect["settings"] for suspect in value["suspects"])
    for setting in (first["black-box"], first["white-box"], second["black-box"]):
        setting["statement"] = "the distances are normally distributed, as far as anybody knows"
    second["white-box"]["statement"] = "this holds for the other one"
    rows = [text for _, text in Page(f"<div>{section_of(html(value), 'findings')}</div>").all("tr")]
    [row] = [" ".join(text.split()) for text in rows if "normally" in text]
    assert re.search(r"behaviour, layers ?behaviour: all; layers: 1$", row), row


def test_that_nothing_is_decided_stands_once_beside_each_model() -> None:
    value = reports.report()
    value["suspects"] = value["suspects"][:1]
    value["suspects"][0] |= {"decision": "inconclusive", "reason": "there are no controls"}
    assert Page(html(value)).text.count("The comparison does not decide") == 1
    assert "There are no controls." in Page(html(value)).text


def test_files_that_were_not_judged_stand_by_their_reasons() -> None:
    files = [("a.md", ".md"), ("b.json", ".json")]
    unread = [
        {"name": name, "code": "unknown-format", "reason": f"no adapter reads {end}", "unjudged": False}
        for name, end in files
    ]
    pickled = {"name": "c.pkl", "code": "pickle", "reason": "a pickle", "unjudged": True}
    value = reports.report() | {"skipped": [*unread, pickled]}
    page = Page(html(value))
    [table] = [text for _, text in page.all("tbody") if "c.pkl" in text]
    rows = [" ".join(text.split()) for _, text in Page(f"<div>{section_of(html(value), 'skipped')}</div>").all("tr")]
    assert len(rows) == 3
    assert re.search(r"A pickle ?yes ?c\.pkl", rows[1])
    assert re.search(r"no ?a\.md, b\.json", rows[2])
    assert table.index("c.pkl") < table.index("a.md")
    assert "1 other file, which may hold a model, was not judged" in page.text


def section_of(text: str, anchor: str) -> str:
    """A section that has no other within it."""
    return re.search(rf'<section id="{anchor}".*?</section>', text, re.DOTALL)[0]


def test_commands_are_what_a_shell_takes() -> None:
    value = reports.report()
    shown = [text for _, text in Page(html(value)).all("pre")]
    assert "\n".join([*commands(reports.typed(value)), ""]) in shown


def test_only_what_was_compared_is_explained() -> None:
    without = json.loads((goldens.GOLDEN / "report-no-controls.json").read_text())
    text = markdown(without)
    assert "dashed threshold" not in text
    assert "Hollow marks" not in text
    labels = reports.report(metrics=[])
    for suspect in labels["suspects"]:
        suspect["layer_map"] = {}
    titles = [title for _, title in Page(html(labels)).all("h2")]
    assert "Layers" not in titles
    assert "neurons compared" not in markdown(labels)


def test_accuracy_is_that_of_each_model() -> None:
    value = reports.report()
    value["victim"]["accuracy"] = 0.987
    for suspect, accuracy in zip(value["suspects"], (0.12, 0.34, 0.56, None), strict=True):
        suspect["accuracy_on_seeds"] = accuracy
    text = markdown(value)
    for shown in ("98.7%", "12.0%", "34.0%", "56.0%"):
        assert shown in text


def test_what_so_few_controls_cannot_show_is_said() -> None:
    value = reports.report("chance")
    assert "With 5 controls, any rate below 1 in 6 rests on how distances are assumed to be" in markdown(value)
    for place, control in enumerate(value["calibration"]["controls"]):
        control["stratum"] = "same-data" if place < 3 else "other-data"
    text = markdown(value)
    assert "With 5 controls (only 2 of one stratum, that is, of one kind), any rate below 1 in 3 rests" in text
    # With as many as a level of 1 in 10 needs, none of it rests on a distribution.
    value["calibration"]["controls"] *= 12
    value["rule_options"] = {"level": 0.1}
    for suspect in value["suspects"]:
        for setting in suspect["settings"].values():
            setting["p_value"] = setting["least_p_value"] = 0.1
    assert "not on the controls alone" not in markdown(value)


def test_a_copy_of_the_behaviour_may_be_one_of_the_weights() -> None:
    value = reports.report()
    value["suspects"] = value["suspects"][:1]
    suspect = value["suspects"][0] | {"decision": "copy", "points_to": "behaviour"}
    value["suspects"], white_box = [suspect], suspect["settings"]["white-box"]
    for made, said in (
        ("independent", "(extraction or distillation)."),
        ("inconclusive", "Whether it also contains the victim's weights is open: the layers are inconclusive."),
        (None, "Whether it also contains the victim's weights is open: layers were not compared."),
    ):
        white_box["decision"] = made
        suspect["metrics"] = {**suspect["metrics"], "outputs": {**suspect["metrics"]["outputs"], "value": 0.5}}
        text = answer(reports.typed(value).suspects[0])
        assert text.startswith("It behaves more like the victim")
        assert said in text
        assert ("distillation" in text) == (made == "independent")
    assert "Yes, it appears to be a copy." in markdown(value)
    # What is inconclusive since nothing could be measured was not compared.
    white_box["decision"] = "inconclusive"
    suspect["metrics"] = {name: metric | {"value": None} for name, metric in suspect["metrics"].items()}
    assert "is open: layers were not compared" in markdown(value)


def test_rates_are_explained_by_what_was_given() -> None:
    value = reports.report("chance")
    for suspect in value["suspects"]:
        for setting in suspect["settings"].values():
            setting["p_value"] = setting["least_p_value"] = None
    value["rule_options"] = {"level": 0.01, "confidence": 0.95}
    text = markdown(value)
    assert "A p-value" not in text
    assert "at most 2 % in all, with 90 % confidence." in text
    value["rule_options"]["confidence"] = 7.5  # nobody's
    assert "% confidence" not in markdown(value)


def test_many_suspects_are_ranked_and_the_rest_is_folded() -> None:
    value = reports.many(60)
    text = html(value)
    first, *rest = re.findall(r"<details.*?>", text)
    folded = [tag for tag in (first, *rest) if "open" not in tag]
    copies = sum(suspect["decision"] == "copy" for suspect in value["suspects"])
    assert copies > MANY
    assert len(folded) >= 60 - MANY
    assert len(rest) + 1 - len(folded) == MANY  # the accused, and not all of so many
    [table, *_] = Page(text).all("table")
    order = re.findall(r"copy|no sign of copying found", table[1].split("relative distance")[1])
    assert order == sorted(order, key=["copy", "no sign of copying found"].index)
    # On paper what is folded is left out, by the browser and by WeasyPrint alike.
    assert "details:not([open]) { display: none }" in text
    few = re.findall(r"<details.*?>", html(reports.report()))
    assert few
    assert all("open" in tag for tag in few)


def test_names_are_told_apart_by_the_folders_that_differ() -> None:
    assert below_common(["a/b/1/m.onnx", "a/b/2/m.onnx"]) == {"a/b/1/m.onnx": "1/m.onnx", "a/b/2/m.onnx": "2/m.onnx"}
    assert below_common(["/a/m", "/a/m"]) == {"/a/m": "m"}
    assert below_common(["m", "a/m"]) == {"m": "m", "a/m": "a/m"}
    assert below_common(["a/b/"]) == {"a/b/": "b"}
    assert below_common([]) == {}


def test_pages_are_numbered_on_paper() -> None:
    assert 'counter(page) " of " counter(pages)' in html(reports.report())


def test_equal_reports_give_equal_bytes(rendered: tuple[dict[str, Any], str]) -> None:
    value, text = rendered
    assert html(copy.deepcopy(value)) == text
    assert html(json.loads(json.dumps(value))) == text


# Colours.


def luminance(colour: str) -> float:
    """Of WCAG 2.2."""
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def themes() -> dict[str, dict[str, str]]:
    """The variables of both themes, from the page's own style."""
    [(_, style)] = Page(html(reports.report())).all("style")
    light, dark = (dict(re.findall(r"--(\w+): (#[0-9a-f]{6});", part)) for part in style.split("@media", 2)[:2])
    assert (light, dark) == (dict(LIGHT), dict(DARK))
    return {"light": light, "dark": dark}


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_contrast(theme: str) -> None:
    colours = themes()[theme]
    texts = ("ink", "muted", "copy", "independent", "inconclusive", "failed")
    for ground in ("page", "tint"):
        for text in texts:
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
    for mark in texts:
        assert contrast(colours[mark], colours["band"]) >= 3, mark


def test_every_colour_is_used_by_its_variable() -> None:
    text = html(reports.report())
    [(_, style)] = Page(text).all("style")
    used = set(re.findall(r"var\(--(\w+)\)", style))
    assert used <= set(LIGHT)
    assert used == set(LIGHT) == set(DARK)
    for name in PAINTS:
        assert f".p-{name} {{" in style


# Charts.


def marks(svg: str, paint: str) -> list[ElementTree.Element]:
    return [part for part in ElementTree.fromstring(svg) if part.get("class") == f"p-{paint}"]


def test_marks_stand_in_the_order_of_their_values() -> None:
    values = [0.0, 0.5, 1.0, 0.25]
    svg = charts.strip("s", "m", [], [charts.Row("all", values)], [0.3])
    places = sorted(float(mark.get("cx")) for mark in marks(svg, "control"))
    width = places[-1] - places[0]
    assert [(place - places[0]) / width for place in places] == pytest.approx([0, 0.25, 0.5, 1], abs=1e-3)
    [threshold] = marks(svg, "threshold")
    assert (float(threshold.get("x1")) - places[0]) / width == pytest.approx(0.3, abs=1e-3)


def test_of_several_thresholds_the_least_and_the_greatest_are_drawn() -> None:
    value = reports.many(8)
    for suspect, place in zip(value["suspects"], (8, 2, 3, 4, 5, 6, 7, 0), strict=True):
        suspect["metrics"]["surety"]["threshold"] = place / 10
    thresholds = thresholds_of(reports.typed(value).suspects, "surety")
    assert thresholds == [0.2, 0.8]
    svg = charts.strip("s", "m", [], [charts.Row("all", [0.0, 1.0])], thresholds)
    low, high = sorted(float(mark.get("x1")) for mark in marks(svg, "threshold"))
    # Whatever a suspect's own threshold is, what is shaded is a vote.
    [zone] = marks(svg, "zone")
    assert float(zone.get("x")) + float(zone.get("width")) == pytest.approx(low)
    assert low < high
    assert "threshold 0.2 to 0.8" in svg


def test_a_logarithmic_axis_has_a_place_for_0() -> None:
    svg = charts.strip("s", "m", [], [charts.Row("all", [0.0, 1e-9, 0.01, 0.1, 1.0, 10.0])], [0.01])
    zero, tiny, *rest = sorted(float(mark.get("cx")) for mark in marks(svg, "control"))
    assert zero == tiny < rest[0]
    steps = [after - before for before, after in itertools.pairwise(rest)]
    assert steps == pytest.approx([steps[0]] * 3, abs=0.05)
    assert "m, log" in svg
    assert "&lt; 0.001" in svg


def test_an_axis_ends_where_floats_do() -> None:
    svg = charts.strip("s", "m", [], [charts.Row("all", [0.0, 5e-324, 1e-299, 1.0])], [5e-324])
    zero, least, *rest = sorted(float(mark.get("cx")) for mark in marks(svg, "control"))
    assert zero == least < rest[0] < rest[1]


def test_labels_do_not_touch() -> None:
    suspects = [charts.Mark(place / 30, f"{place} model-{place}.onnx"[:22], "copy") for place in range(6)]
    suspects += [charts.Mark(1 - place / 90, f"{place} rival-{place}.onnx"[:22], "independent") for place in range(6)]
    svg = charts.strip("s", "m", suspects, [], [0.5])
    boxes = []
    for text in marks(svg, "text"):
        if "onnx" in (text.text or ""):
            width, x, y = 6.4 * len(text.text), float(text.get("x")), float(text.get("y"))
            left = x if text.get("text-anchor") == "start" else x - width
            boxes.append((left, left + width, y))
            assert left >= 0
            assert left + width <= 900
    assert len(boxes) == 12
    for place, (left, right, y) in enumerate(boxes):
        for other in boxes[place + 1 :]:
            assert y != other[2] or right <= other[0] or other[1] <= left
    for line in marks(svg, "leader"):
        x, top = float(line.get("x1")), float(line.get("y1"))
        assert not [box for box in boxes if box[0] < x < box[1] and box[2] > top]


def test_many_marks_are_counted() -> None:
    suspects = [charts.Mark(place / 1000, str(place), "copy") for place in range(500)]
    svg = charts.strip("s", "m", suspects, [], [0.5])
    counts = [int(text.text.split()[0]) for text in marks(svg, "text") if text.text.endswith("\u00d7")]
    assert sum(counts) == 500
    assert float(ElementTree.fromstring(svg).get("height")) < 300


def test_the_curve_is_that_of_its_pairs() -> None:
    stolen, controls = [0.1, 0.2, 0.2, 0.9], [0.2, 0.5, 0.8]
    curve = charts.roc_curve(stolen, controls)
    pairs = [(s < c) + (s == c) / 2 for s in stolen for c in controls]
    assert curve.area == pytest.approx(sum(pairs) / len(pairs))
    assert (curve.false[0], curve.true[0], curve.false[-1], curve.true[-1]) == (0, 0, 1, 1)


def test_curves_have_names() -> None:
    parts = {f"attack-{place}": charts.roc_curve([0.1 * place, 0.2], [0.3, 0.4]) for place in range(4)}
    svg = charts.roc("r", "m", charts.roc_curve([0.1, 0.2], [0.3]), parts)
    texts = [text.text for text in marks(svg, "text")]
    assert [any(text.startswith(attack) for text in texts) for attack in parts] == [True] * 4
    assert "all attacks 1.00" in texts
    # Each can be told from the others by its dashes.
    assert len({line.get("class") for line in ElementTree.fromstring(svg) if "part" in line.get("class", "")}) == 4


def test_similarity_is_scaled_by_the_threshold() -> None:
    value = reports.report()
    value["suspects"][0]["metrics"]["answers"] |= {"threshold": 0.2, "value": 0.2}
    value["suspects"][0]["metrics"]["outputs"] |= {"threshold": 0.2, "value": 0.0}
    value["suspects"][0]["metrics"]["surety"] |= {"threshold": None}
    report = reports.typed(value)
    axes = axes_of(report.suspects[0], ranges_of(report))
    assert axes["answers"].similarity == AT_THRESHOLD
    assert axes["outputs"].similarity == 1
    assert "surety" not in axes
    low, high = axes["outputs"].band
    found = sorted(control["metrics"]["outputs"] for control in value["calibration"]["controls"])
    assert (low, high) == pytest.approx((0.2 / (0.2 + found[-1]), 0.2 / (0.2 + found[0])))


def test_an_honest_model_lies_within_the_ring_and_a_copy_outside() -> None:
    value = reports.report()
    report = reports.typed(value)
    for suspect in report.suspects:
        for metric, axis in axes_of(suspect, ranges_of(report)).items():
            vote = suspect.metrics[metric].vote
            if axis.similarity is not None and vote is not None:
                assert vote == (axis.similarity >= AT_THRESHOLD)


# Markdown.


def test_markdown_of_strangers_is_code() -> None:
    text = markdown(reports.hostile())
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").enable("strikethrough").parse(text)
    inner = [part for token in tokens for part in (token.children or [])]
    kinds = {token.type for token in (*tokens, *inner)}
    assert not {
        kind for kind in kinds if kind.startswith(("html", "link", "image", "em_", "s_", "blockquote", "code_block"))
    }
    plain = "\n".join(part.content for part in inner if part.type == "text")
    assert not re.search(r"@|://|www\.|#\d|<\S|\x1b|\u202e", plain)
    codes = [part.content for part in inner if part.type == "code_inline"]
    assert set(map(clean, reports.HOSTILE)) <= set(codes)


def test_tables_keep_their_columns() -> None:
    for value in (reports.hostile(), reports.power()):
        tokens = MarkdownIt("commonmark").enable("table").parse(markdown(value))
        counts: list[int] = []
        for token in tokens:
            if token.type == "tr_open":
                counts.append(0)
            elif token.type in ("td_open", "th_open"):
                counts[-1] += 1
            elif token.type == "table_close":
                assert len(set(counts)) == 1
                counts = []


@pytest.mark.parametrize("text", ["a", "`", "``a`", " a ", "", "a|b", "` `", "*_<>"])
def test_code(text: str) -> None:
    [paragraph] = [t for t in MarkdownIt().parse(f"x {code(text)} y") if t.type == "inline"]
    [found] = [part.content for part in paragraph.children if part.type == "code_inline"]
    assert found == (text or " ")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("so, at most 1 % (p = 0.01); the victim's", "so, at most 1 % (p = 0.01); the victim's"),
        ("- a", "`-` a"),
        ("1. a", "`1.` a"),
        ("a - b", "a - b"),
        ("see https://x.y @z", "see `https://x.y` `@z`"),
        ("a_b *c*", "`a_b` `*c*`"),
        ("WWW.x.y", "`WWW.x.y`"),
        ("(www.x.y)", "`(www.x.y)`"),
    ],
)
def test_escape(text: str, shown: str) -> None:
    assert escape(text) == shown


def test_a_long_message_of_a_library_stands_in_full_once() -> None:
    value, long = reports.report(), " ".join(f"word{place}" for place in range(200))
    path = value["suspects"][3]["path"]
    value["suspects"] += [copy.deepcopy(value["suspects"][3]) | {"path": "other.toy"}]
    for suspect, named in zip(value["suspects"][3:], (path, "other.toy"), strict=True):
        suspect["reason"] = f"{named}: {long}"
    text = html(value)
    assert text.count("word199") == 1
    assert text.count("word0 ") == 2
    short = reports.report()
    short["suspects"][3]["reason"] = f"{path}: word0 word1"
    assert html(short).count("word1") == 1


def test_the_page_says_what_the_thief_of_each_attack_did() -> None:
    value = reports.power()
    value["attacks"][1]["title"] = "listened"
    assert Page(html(value)).text.count("listened") == 1


@pytest.mark.parametrize("p_value", [0.0123, 0.3, 0.5, 0.5001, 0.7334, 0.99])
def test_what_is_said_of_a_chance_is_no_less_than_the_chance(p_value: float) -> None:
    one, count = re.fullmatch(r"(?:(1) in )?([\d,]+)(?: %)?", odds(p_value)).groups()
    number = int(count.replace(",", ""))
    assert p_value <= (1 / number if one else number / 100) < p_value + 0.5
