"""Hostile ONNX models, each in a process of its own, and honest ones among them."""

import pytest

pytest.importorskip("onnx", reason="ONNX is not installed: pip install 'deepjudge[onnx]'")
pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed: pip install 'deepjudge[onnx]'")

from hostile.graphs import CASES, HANGING  # noqa: E402
from hostile.ground import Judged, needs_landlock, needs_seccomp, without_landlock  # noqa: E402

ALONE = without_landlock(CASES)
LIMITS = ("--memory", "1GiB", "--timeout", "60")


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Judged:
    return Judged(tmp_path_factory.mktemp("onnx"), CASES, *LIMITS)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Judged:
    return Judged(tmp_path_factory.mktemp("alone"), ALONE, *LIMITS, with_landlock=False)


@pytest.fixture(scope="module")
def hanging(tmp_path_factory: pytest.TempPathFactory) -> Judged:
    return Judged(tmp_path_factory.mktemp("hanging"), HANGING, "--timeout", "5")


@needs_landlock
@pytest.mark.parametrize("name", CASES)
def test_a_file_has_the_outcome_that_is_its_own(name: str, judged: Judged) -> None:
    judged.check(name)


@needs_landlock
def test_nothing_else_happens(judged: Judged) -> None:
    judged.check_rest()


@needs_seccomp
@pytest.mark.parametrize("name", ALONE)
def test_without_landlock_a_file_has_the_same_outcome(name: str, alone: Judged) -> None:
    alone.check(name)


@needs_seccomp
def test_without_landlock_nothing_else_happens(alone: Judged) -> None:
    alone.check_rest()


@needs_landlock
@pytest.mark.parametrize("name", HANGING)
def test_what_never_ends_is_ended(name: str, hanging: Judged) -> None:
    hanging.check(name)


@needs_landlock
def test_nothing_else_happens_meanwhile(hanging: Judged) -> None:
    hanging.check_rest()
