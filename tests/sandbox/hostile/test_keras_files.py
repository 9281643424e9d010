"""Hostile Keras files and SavedModels, each in a process of its own, and honest ones among them."""

import pytest

pytest.importorskip("tensorflow", reason="TensorFlow is not installed: pip install 'deepjudge[tensorflow]'")
pytest.importorskip("keras", reason="Keras is not installed: pip install 'deepjudge[tensorflow]'")

from hostile.ground import JudgedModel, needs_landlock, needs_seccomp, rename
from hostile.layers import FILES, FOLDERS, HANGING, SCRIPTS

CASES = FILES | FOLDERS | SCRIPTS
LIMITS = ("--memory", "1GiB", "--timeout", "600")
# One of a kind: what looks at files is the same with Landlock and without.
ALONE = {
    "Lambda": FILES["Lambda"],
    "an honest folder": rename(FOLDERS["an honest folder"], "needs-sandbox"),
    "an honest file of HDF5": FILES["an honest file of HDF5"],
    "an honest script": rename(SCRIPTS["an honest script"], "needs-sandbox"),
}


@pytest.fixture(scope="module")
def audit(tmp_path_factory: pytest.TempPathFactory) -> JudgedModel:
    return JudgedModel(tmp_path_factory.mktemp("keras"), CASES | HANGING, *LIMITS, endless=HANGING)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> JudgedModel:
    return JudgedModel(tmp_path_factory.mktemp("alone"), ALONE, *LIMITS, with_landlock=False)


@needs_landlock
@pytest.mark.parametrize("name", CASES | HANGING)
def test_a_file_has_the_outcome_that_is_its_own(name: str, audit: JudgedModel) -> None:
    audit.check(name)


@needs_seccomp
@pytest.mark.parametrize("name", ALONE)
def test_without_landlock_what_runs_code_is_not_opened(name: str, alone: JudgedModel) -> None:
    alone.check(name)


@needs_landlock
@pytest.mark.parametrize("run", ["audit", "alone"])
def test_nothing_else_happens(run: str, request: pytest.FixtureRequest) -> None:
    request.getfixturevalue(run).check_rest()
