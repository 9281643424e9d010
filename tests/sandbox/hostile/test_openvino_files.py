"""Hostile files of what OpenVINO and LiteRT read, each in a process of its own, and honest ones among them."""

import pytest

pytest.importorskip("openvino", reason="OpenVINO is not installed: pip install 'deepjudge[openvino]'")
pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed: pip install 'deepjudge[litert]'")

from hostile import irs, phones
from hostile.ground import JudgedModel, needs_landlock, needs_seccomp, rename

# What Python refuses in them is asked in tests/adapters/openvino; of that there is one of a kind here.
_PLAIN = {
    *(
        "IR: a library of escapes",
        "IR: deep",
        "IR: another file in it",
        "IR: weights behind their end",
        "IR: cut weights",
    ),
    *(
        "IR: no weights",
        "graph: runs Python",
        "graph: in a function",
        "graph: variables",
        "graph: part of a SavedModel",
    ),
    *("graph: a length without end", "paddle: writes a file", "operation of TensorFlow", "cut in the middle"),
    *("nothing but the mark", "a tensor that is not there", "a graph that is not there", "an operation more"),
}
_ALL = irs.CASES | phones.HOSTILE | phones.BENIGN
FILES = {name: case for name, case in _ALL.items() if name not in _PLAIN}
LIMITS = ("--memory", "1GiB", "--timeout", "600")
# What reads these files opens them by name: none is opened where that cannot be held.
ALONE = {
    name: rename(FILES[name], "needs-sandbox")
    for name in ("IR: an honest one", "graph: an honest one", "an honest one")
}


@pytest.fixture(scope="module")
def audit(tmp_path_factory: pytest.TempPathFactory) -> JudgedModel:
    return JudgedModel(tmp_path_factory.mktemp("openvino"), FILES | phones.HANGING, *LIMITS, endless=phones.HANGING)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> JudgedModel:
    return JudgedModel(tmp_path_factory.mktemp("alone"), ALONE, *LIMITS, with_landlock=False)


@needs_landlock
@pytest.mark.parametrize("name", FILES | phones.HANGING)
def test_a_file_has_the_outcome_that_is_its_own(name: str, audit: JudgedModel) -> None:
    audit.check(name)


@needs_seccomp
@pytest.mark.parametrize("name", ALONE)
def test_without_landlock_no_file_is_opened(name: str, alone: JudgedModel) -> None:
    alone.check(name)


@needs_landlock
@pytest.mark.parametrize("run", ["audit", "alone"])
def test_nothing_else_happens(run: str, request: pytest.FixtureRequest) -> None:
    request.getfixturevalue(run).check_rest()
