"""Fixtures that tests of several parts share."""

import os

import pytest
from commands import cli  # noqa: F401
from models import Zoo

from deepjudge_core import load_registry
from deepjudge_core.components.registry import Registry

# The models are tiny: threads that wait for one another take many times longer than one. Read when torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def registry() -> Registry:
    """All installed components."""
    return load_registry()


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory, registry: Registry) -> Zoo:
    """Small models of every framework."""
    return Zoo(tmp_path_factory.mktemp("zoo"), registry)
