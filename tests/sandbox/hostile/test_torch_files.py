"""Hostile PyTorch files, each in a process of its own, and honest ones among them."""

import pytest

pytest.importorskip("torch", reason="PyTorch models need PyTorch")

from hostile.ground import JudgedModel, needs_landlock, needs_seccomp, rename
from hostile.programs import ARCH, HANGING, PROGRAMS, SCRIPTS, STATES, install_network

MODELS = PROGRAMS | SCRIPTS
LIMITS = ("--memory", "1GiB", "--timeout", "600")
WITH_ARCH = (*LIMITS, "--arch", ARCH)
# Each is one of a kind: what looks at files is the same with Landlock and without.
STATES_ALONE = {name: STATES[name] for name in ("a payload", "sparse, out of range", "honest weights")}
MODELS_ALONE = {
    name: rename(MODELS[name], "needs-sandbox")
    for name in ("pickled sample inputs", "writes while loading", "an honest program")
}


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> JudgedModel:
    return JudgedModel(tmp_path_factory.mktemp("states"), STATES, *WITH_ARCH, prepare=install_network)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> JudgedModel:
    return JudgedModel(tmp_path_factory.mktemp("models"), MODELS | HANGING, *LIMITS, endless=HANGING)


@pytest.fixture(scope="module")
def states_alone(tmp_path_factory: pytest.TempPathFactory) -> JudgedModel:
    folder = tmp_path_factory.mktemp("states-alone")
    return JudgedModel(folder, STATES_ALONE, *WITH_ARCH, prepare=install_network, with_landlock=False)


@pytest.fixture(scope="module")
def models_alone(tmp_path_factory: pytest.TempPathFactory) -> JudgedModel:
    return JudgedModel(tmp_path_factory.mktemp("models-alone"), MODELS_ALONE, *LIMITS, with_landlock=False)


@needs_landlock
@pytest.mark.parametrize("name", STATES)
def test_weights_have_the_outcome_that_is_their_own(name: str, states: JudgedModel) -> None:
    states.check(name)


@needs_landlock
@pytest.mark.parametrize("name", MODELS | HANGING)
def test_a_model_has_the_outcome_that_is_its_own(name: str, models: JudgedModel) -> None:
    models.check(name)


@needs_seccomp
@pytest.mark.parametrize("name", STATES_ALONE)
def test_without_landlock_weights_have_the_same_outcome(name: str, states_alone: JudgedModel) -> None:
    states_alone.check(name)


@needs_seccomp
@pytest.mark.parametrize("name", MODELS_ALONE)
def test_without_landlock_no_model_is_opened(name: str, models_alone: JudgedModel) -> None:
    models_alone.check(name)


@needs_landlock
@pytest.mark.parametrize("run", ["states", "models", "states_alone", "models_alone"])
def test_nothing_else_happens(run: str, request: pytest.FixtureRequest) -> None:
    request.getfixturevalue(run).check_rest()
