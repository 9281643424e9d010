"""What is written stays byte for byte what it was: files of others hold digests of it, and are verified years later."""

import goldens
import pytest

from deepjudge_core.report import model_card, sarif
from deepjudge_core.report.documents import read_report
from deepjudge_core.report.markdown import render_markdown


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return goldens.files(tmp_path_factory.mktemp("golden"))


FILES = sorted(path.name for path in goldens.GOLDEN.iterdir() if path.suffix in (".json", ".jsonl"))


@pytest.mark.parametrize("name", FILES)
def test_the_bytes_are_those_of_before(written: dict[str, bytes], name: str) -> None:
    assert written[name].decode() == (goldens.GOLDEN / name).read_text("utf-8")


def test_each_file_has_a_golden_one(written: dict[str, bytes]) -> None:
    assert sorted(written) == FILES


RENDERED = {
    "report-separate.md": render_markdown,
    "report-fdr.md": render_markdown,
    "power.md": render_markdown,
    "report-separate.sarif": sarif.render,
    "report-separate-card.md": model_card.render,
}


@pytest.mark.parametrize("name", RENDERED)
def test_reports_read_as_before(name: str) -> None:
    report = goldens.GOLDEN / f"{name.split('.', maxsplit=1)[0].removesuffix('-card')}.json"
    assert RENDERED[name](read_report(report)) == (goldens.GOLDEN / name).read_bytes()
