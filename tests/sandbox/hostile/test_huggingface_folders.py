"""Hostile folders of Hugging Face's classifiers, each in a process of its own, and an honest one among them."""

import pytest

pytest.importorskip("torch", reason="PyTorch models need PyTorch")
pytest.importorskip("transformers", reason="transformers is not installed: pip install 'deepjudge[huggingface]'")

from hostile.folders import FOLDERS
from hostile.ground import JudgedModel, needs_landlock, needs_seccomp, rename

ALONE = {"an honest folder": rename(FOLDERS["an honest folder"], "needs-sandbox")}


@pytest.fixture(scope="module")
def audit(tmp_path_factory: pytest.TempPathFactory) -> JudgedModel:
    return JudgedModel(tmp_path_factory.mktemp("folders"), FOLDERS, "--memory", "2GiB", "--timeout", "600")


@needs_landlock
@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_has_the_outcome_that_is_its_own(name: str, audit: JudgedModel) -> None:
    audit.check(name)


@needs_landlock
def test_nothing_else_happens(audit: JudgedModel) -> None:
    audit.check_rest()


@needs_seccomp
def test_without_landlock_it_is_not_opened(tmp_path_factory: pytest.TempPathFactory) -> None:
    alone = JudgedModel(tmp_path_factory.mktemp("alone"), ALONE, "--timeout", "600", with_landlock=False)
    alone.check("an honest folder")
    alone.check_rest()
