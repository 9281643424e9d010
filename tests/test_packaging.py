"""What stands in files beside the code agrees with the project."""

import re
import tomllib

import pytest
from places import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def test_the_citation_is_of_this_project() -> None:
    yaml = pytest.importorskip("yaml")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    for key in ("version", "license", "keywords"):
        expected = [word for word in PROJECT[key] if word != "onnx"] if key == "keywords" else PROJECT[key]
        assert citation[key] == expected
    assert citation["title"] == PROJECT["name"]
    paper = citation["preferred-citation"]
    assert paper["title"] in (ROOT / "README.md").read_text("utf-8")
    assert any(one["value"].removeprefix("arXiv:") in PROJECT["urls"]["Paper"] for one in paper["identifiers"])


def test_the_image_is_built_from_what_is_there() -> None:
    text = (ROOT / "Dockerfile").read_text("utf-8")
    [extras] = re.findall(r"^ARG EXTRAS=(.*)$", text, re.MULTILINE)
    assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])
    taken = [line[1:] for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line.startswith("!")]
    assert [name for name in taken if not (ROOT / name).exists()] == []
    assert {PROJECT["readme"], *PROJECT["license-files"], "constraints.txt"} <= set(taken)
    users = re.findall(r"^USER (.*)$", text, re.MULTILINE)
    assert users
    assert not {"root", "0"} & {user.partition(":")[0] for user in users}
