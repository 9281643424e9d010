"""Hostile ONNX models, each in a process of its own, and honest ones among them."""

import json
from pathlib import Path

import pytest

pytest.importorskip("onnx", reason="ONNX is not installed: pip install 'deepjudge[onnx]'")
pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed: pip install 'deepjudge[onnx]'")

from hostile.graphs import BENIGN, CASES, HANGING, beside_modules
from hostile.ground import (
    FAILED,
    INCONCLUSIVE,
    JudgedModel,
    Place,
    ask,
    needs_landlock,
    needs_seccomp,
    rename,
)

# Beside some lies a file of weights.
BESIDE = ("weights beside it", "weights of any name", "weights cut short", "weights behind their end")
ALONE = CASES | {name: rename(CASES[name], "needs-sandbox") for name in BESIDE}
LIMITS = ("--memory", "1GiB", "--timeout", "600")


@pytest.fixture(scope="module")
def audit(tmp_path_factory: pytest.TempPathFactory) -> JudgedModel:
    return JudgedModel(tmp_path_factory.mktemp("onnx"), CASES | HANGING, *LIMITS, endless=("a loop without end",))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> JudgedModel:
    return JudgedModel(tmp_path_factory.mktemp("alone"), ALONE, *LIMITS, with_landlock=False)


@needs_landlock
@pytest.mark.parametrize("name", CASES | HANGING)
def test_a_file_has_the_outcome_that_is_its_own(name: str, audit: JudgedModel) -> None:
    audit.check(name)


@needs_landlock
def test_nothing_else_happens(audit: JudgedModel) -> None:
    audit.check_rest()


@needs_seccomp
@pytest.mark.parametrize("name", ALONE)
def test_without_landlock_a_file_has_the_same_outcome(name: str, alone: JudgedModel) -> None:
    alone.check(name)


@needs_seccomp
def test_without_landlock_nothing_else_happens(alone: JudgedModel) -> None:
    alone.check_rest()


@needs_seccomp
def test_without_landlock_a_full_sandbox_can_be_required(tmp_path: Path) -> None:
    cases = {name: rename(BENIGN[name], "no-sandbox") for name in ("an honest one", "weights beside it")}
    audit = JudgedModel(tmp_path, cases, "--require-sandbox", with_landlock=False)
    for name in cases:
        audit.check(name)
    audit.check_rest()


@needs_landlock
def test_modules_beside_a_model_and_in_the_current_directory_are_not_imported(tmp_path: Path) -> None:
    place = Place(tmp_path / "m.onnx", tmp_path / "marker", tmp_path / "canary")
    beside_modules(place)
    (tmp_path / "cut.onnx").write_bytes(place.path.read_bytes()[:-1])
    (tmp_path / "tmp").mkdir()
    honest, cut = (ask(tmp_path, Path(name), "--json", "-", cwd=tmp_path) for name in ("m.onnx", "cut.onnx"))
    assert (honest.returncode, json.loads(honest.stdout)["suspects"][0]["isolation"]) == (
        INCONCLUSIVE,
        "landlock+seccomp",
    )
    assert (cut.returncode, json.loads(cut.stdout)["suspects"][0]["isolation"]) == (FAILED, None)
    [line] = [line for line in cut.stderr.splitlines() if line.startswith("cut.onnx: ")]
    assert line.endswith(" (wrong-format)")
    assert not place.marker.exists()
    assert list((tmp_path / "tmp").iterdir()) == []
    assert not list(tmp_path.rglob("__pycache__"))
