"""Files that are refused before anything opens them."""

import pytest
from hostile.ground import JudgedModel, needs_seccomp
from hostile.plain import FILES

pytestmark = needs_seccomp


@pytest.fixture(scope="module")
def audit(tmp_path_factory: pytest.TempPathFactory) -> JudgedModel:
    return JudgedModel(tmp_path_factory.mktemp("refused"), FILES, "--memory", "1GiB", "--timeout", "600")


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_refused_in_one_line(name: str, audit: JudgedModel) -> None:
    audit.check(name)


def test_nothing_else_happens(audit: JudgedModel) -> None:
    audit.check_rest()
