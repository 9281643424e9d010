"""Reports as files for people, through the commands."""

import json
import os
import shlex
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import reports
import toys
from commands import HOW, MADE, WHOLE, Cli
from refusals import refused

from deepjudge_core.cli.commands import COMMANDS
from deepjudge_core.cli.exports import EXPORTS
from deepjudge_core.cli.program import parse
from deepjudge_core.errors import MissingExtraError
from deepjudge_core.report import pdf
from deepjudge_core.report.html import render_html
from deepjudge_core.report.markdown import render_markdown
from deepjudge_core.report.pages.parts import base
from deepjudge_core.report.pages.reproducing import commands, power_commands
from deepjudge_core.text import clean

RENDERED = {"html": render_html, "markdown": render_markdown}
ALL = ("--html", "r.html", "--markdown", "r.md")
AUDIT = ("audit", "victim.toy", "copy.toy", "honest.toy", "--controls", "controls", "--inputs", "in.npz", *MADE, *HOW)


def matches(value: Any, html: str = "r.html", markdown: str = "r.md") -> bool:
    """Whether the files are what the report's JSON makes, whoever made it."""
    report = reports.typed(value)
    return (Path(html).read_bytes(), Path(markdown).read_bytes()) == (render_html(report), render_markdown(report))


def judged(cli: Cli) -> tuple[str, ...]:
    """A suite and a calibration, and the command that judges by them."""
    assert cli("suite", "victim.toy", "--inputs", "in.npz", *MADE, "-o", "s.safetensors")[0] == 0
    assert cli("calibrate", "s.safetensors", "controls", "-o", "c.safetensors")[0] == 0
    return ("judge", "s.safetensors", "copy.toy", "honest.toy", "--calibration", "c.safetensors", *HOW)


def test_judge(cli: Cli) -> None:
    command = judged(cli)
    status, out, err = cli(*command, "--json", "r.json", *ALL)
    assert (status, err) == (1, "")
    assert out.splitlines()[-2:] == ["html: r.html", "markdown: r.md"]
    assert matches(json.loads(Path("r.json").read_text()))
    status, out, err = cli(*command, "--json", "-", *ALL)
    assert (status, err.splitlines()[-2:]) == (1, ["html: r.html", "markdown: r.md"])
    assert matches(json.loads(out))


def test_audit_and_its_file(cli: Cli) -> None:
    status, out, err = cli(*AUDIT, *ALL, "-o", "out")
    assert (status, err) == (1, "")
    assert out.splitlines()[-4:] == [
        "report: out/report.json",
        "html: r.html",
        "markdown: r.md",
        "page: out/report.html",
    ]
    for page in ("r.html", "r.md"):
        assert cli("verify", "out", "--page", page)[0] == 0
    # The file says the same, from its own folder.
    Path("work").mkdir()
    for name in ("victim.toy", "copy.toy", "honest.toy", "controls", "in.npz"):
        shutil.move(name, "work")
    report = '[report]\nhtml = "r.html"\nmarkdown = "../other.md"\n\n[[controls]]'
    Path("work/audit.toml").write_text(WHOLE.replace("[[controls]]", report))
    status, out, err = cli("audit", "work/audit.toml")
    assert (status, err) == (1, "")
    assert out.splitlines()[-3:-1] == ["html: work/r.html", "markdown: work/../other.md"]
    for page in ("work/r.html", "other.md"):
        assert cli("verify", "work/out", "--page", page)[0] == 0


def test_a_stored_report(cli: Cli) -> None:
    for value in (reports.report(), reports.hostile(), reports.power()):
        reports.save(Path("r.json"), value)
        assert cli("report", "r.json", *ALL) == (0, "html: r.html\nmarkdown: r.md\n", "")
        assert matches(value)


@pytest.mark.parametrize("inside", ["out/r.html", "out/observations/../r.html", "out-withheld/r.html"])
def test_nothing_is_added_to_a_bundle(cli: Cli, inside: str) -> None:
    for folder in ("out/observations", "out-withheld"):
        Path(folder).mkdir(parents=True)
    cli.refuses(2, "would-overwrite", *AUDIT, "--html", inside, "-o", "out", facts=(inside, "outside out"))
    report = f'[report]\nhtml = "{inside}"\n\n[[controls]]'
    Path("audit.toml").write_text(WHOLE.replace("[[controls]]", report))
    cli.refuses(2, "audit-file", "audit", "audit.toml", facts=("report.html",))


def test_nor_through_a_link(cli: Cli) -> None:
    Path("out").mkdir()
    Path("link").symlink_to("out")
    for one, other in (("link", "out"), ("out", "link")):
        facts = (f"{one}/r.html: ", f"outside {other}")
        cli.refuses(2, "would-overwrite", *AUDIT, "--html", f"{one}/r.html", "-o", other, facts=facts)


@pytest.mark.parametrize(
    ("words", "code", "facts"),
    [
        (("--html", "controls"), "cannot-write", ("controls: ", "a folder")),
        (("--html", "pipe"), "cannot-write", ("pipe: ", "a device or a pipe")),
        (("--html", "x" * 300), "cannot-write", (f"{'x' * 300}: ", "File name too long")),
        (("--html", "no/r.html"), "cannot-write", ("no/r.html: ", "folder no")),
        (("--html", "r", "--markdown", "controls/../r"), "would-overwrite", ("controls/../r: ", "found it twice")),
        (("--html", "r.pdf"), "conflict", ("r.pdf: ", "--html", "--pdf")),
        (("--html", "r", "--markdown", "./r"), "would-overwrite", ("deepjudge: r: ", "found it twice")),
    ],
)
def test_what_cannot_be_written_is_said_before_a_model_is_run(
    cli: Cli, words: tuple[str, ...], code: str, facts: tuple[str, ...]
) -> None:
    reports.save(Path("r.json"), reports.report())
    os.mkfifo("pipe")
    for command in (AUDIT, ("judge", "in.npz", "copy.toy"), ("power", "in.npz", "controls"), ("report",)):
        output = () if command[0] in ("judge", "report") else ("-o", "out")
        given = (*command, "r.json") if command == ("report",) else command
        cli.refuses(2, code, *given, *words, *output, facts=facts)


def test_where_json_cannot_be_written_is_said_before_a_model_is_run(cli: Cli) -> None:
    os.mkfifo("pipe")
    for place, found in (("pipe", "a device or a pipe"), ("controls", "a folder")):
        command = ("judge", "in.npz", "copy.toy", "--json", place)
        cli.refuses(2, "cannot-write", *command, facts=(f"{place}: ", found))


def test_one_file_for_json_and_html(cli: Cli) -> None:
    cli.refuses(2, "would-overwrite", "judge", "in.npz", "copy.toy", "--json", "r", "--html", "r", facts=("r: ",))
    reports.save(Path("r.json"), reports.report())
    cli.refuses(2, "would-overwrite", "report", "r.json", "--html", "./r.json", facts=("r.json",))
    cli.refuses(2, "would-overwrite", "report", "r.json", "--html", "controls/../r.json", facts=("controls/../r.json",))
    every = "--html, --markdown, --pdf, --sarif, --model-card"
    cli.refuses(2, "missing-value", "report", "r.json", facts=(every,))


@pytest.mark.parametrize("name", ["--sarif", "--model-card"])
def test_a_report_of_another_kind(cli: Cli, name: str) -> None:
    reports.save(Path("power.json"), reports.power())
    facts = (f"{name}: ", "deepjudge/report/1", "found deepjudge/power/1")
    cli.refuses(2, "conflict", "report", "power.json", "--html", "r.html", name, "r", facts=facts)
    assert not Path("r.html").exists()


def test_a_damaged_report_is_one_line(cli: Cli) -> None:
    value = reports.report()
    value["suspects"][0]["decision"] = "guilty"
    reports.save(Path("r.json"), value)
    cli.refuses(4, "damaged-file", "report", "r.json", "--html", "r.html", facts=("r.json", "suspects[0].decision"))
    Path("r.json").write_text("{")
    cli.refuses(4, "damaged-file", "report", "r.json", "--html", "r.html")
    cli.refuses(2, "cannot-read", "report", "none.json", "--html", "r.html", facts=("none.json",))


def test_each_mistake_of_a_file_has_its_line(cli: Cli) -> None:
    Path("audit.toml").write_text(f'{WHOLE}\n[report]\nhtml = "no/r.html"\nmarkdown = "controls"\nsvg = "r.svg"\n')
    status, _, err = cli("audit", "audit.toml")
    first = WHOLE.count("\n") + 3
    assert status == 2
    assert [line.split(": ")[1:3] for line in err.splitlines()] == [
        [f"audit.toml:{first}", "report.html"],
        [f"audit.toml:{first + 1}", "report.markdown"],
        [f"audit.toml:{first + 2}", "report.svg"],
    ]


def test_every_export_is_checked_and_takes_the_dict_alone() -> None:
    assert list(EXPORTS) == ["html", "markdown", "pdf", "sarif", "model_card", "csv"]
    for name, export in EXPORTS.items():
        if name != "pdf":
            assert export.render(reports.typed(reports.report()))


# The commands that a report names.


@pytest.mark.parametrize(
    "how",
    [
        (),
        ("--stratum", "same-data=more"),
        ("--groups", "joint", "--rule-option", "share=0.25"),
        ("--classes", "1,0,2,3"),
    ],
)
def test_the_commands_make_the_report_again(cli: Cli, how: tuple[str, ...]) -> None:
    Path("more").mkdir()
    toys.save_model(Path("more/m.toy"), seed=11)
    assert cli(*AUDIT, *how, "-o", "out")[0] in (0, 1, 3)
    value = json.loads(Path("out/report.json").read_text())
    lines = [line for line in commands(reports.typed(value)) if not line.startswith("#")]
    assert lines[0].startswith("sha256sum victim.toy controls/c1.toy")
    for line in lines[1:]:
        deepjudge, *words = shlex.split(line.replace("INPUTS.npz", "in.npz"))
        assert deepjudge == "deepjudge"
        status, _, err = cli(*words)
        assert (status in (0, 1, 3), err) == (True, "")
    assert json.loads(Path("report-1.json").read_text()) == value


def test_controls_stand_in_the_commands_in_their_order() -> None:
    """What a calibration was committed to depends on it."""
    value = reports.report()
    controls = value["calibration"]["controls"]
    strata = ("same-data", "same-data", None, "common-ancestor", "common-ancestor")
    for place, (control, stratum) in enumerate(zip(controls, strata, strict=True)):
        control |= {"path": f"c{place}", "stratum": stratum}
    [line] = (line for line in commands(reports.typed(value)) if line.startswith("deepjudge calibrate"))
    assert "safetensors c2 --stratum same-data=c0,c1 --stratum common-ancestor=c3,c4 --match" in line


def test_names_are_quoted_in_commands() -> None:
    lines = commands(reports.typed(reports.hostile()))
    words = [word for line in lines if not line.startswith("#") for word in shlex.split(line)]
    for name in map(clean, reports.HOSTILE):
        assert name in words or f"./{name}" in words
    for line in [*lines, *power_commands(reports.typed(reports.power()))]:
        if line.startswith("deepjudge "):
            assert parse(shlex.split(line)[1:], COMMANDS).command


def test_no_name_becomes_an_option() -> None:
    value = reports.report()
    value["suite"]["generators"][-1]["name"] = value["rule"] = "--no-sandbox"
    value["metrics"]["--no-sandbox"] = value["metrics"]["surety"]
    lines = commands(reports.typed(value))
    assert not any("--no-sandbox" in line for line in lines)
    assert any(line.startswith("deepjudge judge") and "--rule NAME" in line for line in lines)


def test_a_report_says_its_case_and_who_made_it(cli: Cli) -> None:
    said = ("--case", "A v. B", "--by", "C")
    assert cli(*AUDIT, "-o", "out", *said)[0] == 1
    made = json.loads(Path("out/report.json").read_text())["made"]
    assert (made["case"], made["by"]) == ("A v. B", "C")
    assert cli("verify", "out")[0] == 0
    # Later words stand in place of earlier ones; the date is that of the report.
    assert cli("report", "out/report.json", "--html", "page.html", "--case", "other")[0] == 0
    page = Path("page.html").read_text()
    assert "<dd>other</dd>" in page
    assert "<dd>C</dd>" in page
    assert made["date"][:10] in page
    cli.refuses(2, "conflict", "judge", "out/suite.safetensors", "copy.toy", "--by", "C", facts=("--by",))


# PDF.


@pytest.mark.slow
def test_pdf_is_an_extra(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    reports.save(Path("r.json"), reports.report())
    monkeypatch.setitem(sys.modules, "weasyprint", None)
    facts = ("PDF", "WeasyPrint", "pip install 'deepjudge[pdf]'")
    cli.refuses(4, "missing-extra", "report", "r.json", "--pdf", "r.pdf", facts=facts)
    cli.refuses(2, "missing-extra", *AUDIT, "--pdf", "r.pdf", "-o", "out", facts=facts)


def test_pdf_needs_pango(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "weasyprint.py").write_text("print('advice')\nraise OSError('cannot load library pango')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "weasyprint", raising=False)
    with refused(MissingExtraError, "PDF", "Pango", "apt-get install libpango"):
        pdf.check_pdf()
    assert capsys.readouterr() == ("", "")


def test_pdf(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        pdf.check_pdf()
    except MissingExtraError as error:
        pytest.skip(str(error))
    import weasyprint

    value = reports.hostile()
    value["suspects"] = value["suspects"][:2]
    reports.save(Path("r.json"), value)
    status, _, err = cli("report", "r.json", "--pdf", "r.pdf")
    assert (status, err) == (0, "")
    made = Path("r.pdf").read_bytes()
    assert made.startswith(b"%PDF-")
    # A font that was cut down at another time is the same.
    with monkeypatch.context() as later:
        later.setattr(time, "time", lambda: 2e9)
        assert pdf.render_pdf(reports.typed(value)) == made
    # The outline names each section and suspect.
    document = weasyprint.HTML(string=render_html(reports.typed(value)).decode()).render()
    shown = " ".join(label for label, *_ in flattened(document.make_bookmark_tree()))
    assert "What this does not show" in shown
    for suspect in value["suspects"]:
        assert base(suspect["path"]) in shown


def flattened(tree: Any) -> list[Any]:
    return [found for entry in tree for found in (entry, *flattened(entry[2]))]
