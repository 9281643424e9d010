"""Fixtures that tests of several parts share."""

import os
import sys

import pytest
from commands import cli  # noqa: F401
from models import Zoo

from deepjudge_core import load_registry
from deepjudge_core.components.registry import Registry

# The models are tiny: threads that wait for one another take many times longer than one. Read when torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

FRAMEWORKS = (
    "keras",
    "onnx",
    "onnx2fx",
    "onnxruntime",
    "onnxscript",
    "skl2onnx",
    "sklearn",
    "tensorflow",
    "tf2onnx",
    "tf_keras",
    "torch",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the tests be run as on a machine without frameworks."""
    parser.addoption(
        "--without-frameworks",
        action="store_true",
        help="do as if no framework were installed: tests that need one are skipped, which takes most of the time away",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Let no framework be imported where that was asked for."""
    if config.getoption("--without-frameworks"):
        # An import of what is None in there fails, and nobody finds it: as where it is not installed.
        sys.modules.update(dict.fromkeys(FRAMEWORKS))  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def registry() -> Registry:
    """All installed components."""
    return load_registry()


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory, registry: Registry) -> Zoo:
    """Small models of every framework."""
    return Zoo(tmp_path_factory.mktemp("zoo"), registry)
