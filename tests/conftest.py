"""Fixtures that tests of several parts share."""

import os
import sys
import zlib
from importlib.machinery import ModuleSpec, PathFinder
from typing import Any

import pytest
from commands import cli  # noqa: F401
from hypothesis import HealthCheck, settings
from models import Zoo
from snapshots import Snapshots

from deepjudge_core import load_registry
from deepjudge_core.components.registry import Registry

# The models are tiny: threads that wait for one another take many times longer than one. Read when torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# How busy the machine is says nothing of an example.
settings.register_profile("any-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any-machine")
# Reports say when they were made: so two of the same audit are the same.
os.environ.setdefault("SOURCE_DATE_EPOCH", "1770000000")

FRAMEWORKS = {
    *(
        "ai_edge_litert",
        "gguf",
        "keras",
        "onnx",
        "onnx2fx",
        "onnxconverter_common",
        "onnxruntime",
        "onnxscript",
        "openvino",
    ),
    *("skl2onnx", "tensorflow", "tf2onnx", "tf_keras", "torch", "torchao", "transformers"),
}

# Files of half a minute and more, longest first.
LONG = (
    *("adapters/test_formats.py", "zoo/test_zoo_real.py", "auditing/test_real_victims.py", "examples/test_zoo_demo.py"),
    *("docs/test_tutorials.py", "conformance/test_matrix.py", "examples/test_examples.py", "sandbox/hostile/"),
    *("zoo/test_zoo.py", "plugins/test_attacks.py", "auditing/test_killing.py"),
)


class _FinderWithoutFrameworks:
    """Finds all modules but those of frameworks, so that importing one fails as where it is not installed."""

    find_distributions = PathFinder.find_distributions
    invalidate_caches = PathFinder.invalidate_caches

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        return None if name.partition(".")[0] in FRAMEWORKS else PathFinder.find_spec(name, path, target)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the tests be run as on a machine without frameworks."""
    parser.addoption(
        "--without-frameworks",
        action="store_true",
        help="do as if no framework were installed: tests that need one are skipped, which takes most of the time away",
    )
    parser.addoption(
        "--one-in",
        type=int,
        default=1,
        metavar="N",
        help="leave out slow tests, and of each test with many cases run one in N: by their names, at least one",
    )
    parser.addoption("--others", action="store_true", help="run what --one-in N leaves out")


def pytest_configure(config: pytest.Config) -> None:
    """Let no framework be imported where that was asked for."""
    if config.getoption("--without-frameworks"):
        sys.meta_path[sys.meta_path.index(PathFinder)] = _FinderWithoutFrameworks  # type: ignore[call-overload]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Take the cases that were asked for, and begin with what takes long, so that no worker ends with it."""
    if (one_in := config.getoption("--one-in")) > 1:
        chosen = _chosen(items, one_in)
        others = [item for item in items if item not in chosen]
        kept, left = (others, list(chosen)) if config.getoption("--others") else (list(chosen), others)
        config.hook.pytest_deselected(items=left)
        items[:] = kept
    items.sort(key=lambda item: (_place(item), item.get_closest_marker("slow") is None))


def _chosen(items: list[pytest.Item], one_in: int) -> dict[pytest.Item, None]:
    # By their names, so that no stride falls in with that of an adapter or a metric among the parameters.
    tests: dict[str, list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("slow") is None:
            tests.setdefault(item.nodeid.partition("[")[0], []).append(item)
    chosen: dict[pytest.Item, None] = {}
    for cases in tests.values():
        cases.sort(key=lambda item: zlib.crc32(item.nodeid.encode()))
        chosen |= dict.fromkeys(cases[: -(-len(cases) // one_in)])
    return chosen


def _place(item: pytest.Item) -> int:
    # A worker takes a file as a whole.
    return next((place for place, part in enumerate(LONG) if part in item.nodeid), len(LONG))


@pytest.fixture(scope="session")
def registry() -> Registry:
    """All installed components."""
    return load_registry()


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory, registry: Registry) -> Zoo:
    """Small models of every framework."""
    return Zoo(tmp_path_factory.mktemp("zoo"), registry)


@pytest.fixture(scope="session")
def snapshots(tmp_path_factory: pytest.TempPathFactory) -> Snapshots:
    """Folders that are filled once."""
    return Snapshots(tmp_path_factory.mktemp("snapshots"))
