"""The same seed makes the same file."""

import hashlib
from pathlib import Path

import pytest
from conforming import FRAMEWORKS, VICTIM, make_suite
from models import Zoo

from deepjudge_core import save_suite


@pytest.mark.parametrize("kind", FRAMEWORKS)
def test_a_suite_file_depends_on_the_seed_and_nothing_else(kind: str, zoo: Zoo, tmp_path: Path) -> None:
    model = zoo.model(kind, VICTIM)
    digests = []
    for place, seed in enumerate((0, 0, 1)):
        path = tmp_path / f"{place}.safetensors"
        save_suite(path, make_suite(model, seed))
        digests.append(hashlib.sha256(path.read_bytes()).hexdigest())
    assert digests[0] == digests[1] != digests[2]
