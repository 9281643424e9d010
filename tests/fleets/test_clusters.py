"""Real clusters of this machine: each pair is asked, also if a worker is lost in the middle."""

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import toys
from commands import MADE, Cli

from deepjudge_core import load_suite
from deepjudge_core.auditing.session import Session
from deepjudge_core.auditing.subject import ModelFile
from deepjudge_core.components.registry import load_registry
from deepjudge_core.errors import DeepJudgeError, UsageError
from deepjudge_core.fleets.engine import Engine
from deepjudge_core.fleets.planning import Fleet
from deepjudge_core.fleets.settings import EngineSettings
from deepjudge_core.fleets.store import Store
from deepjudge_core.fleets.work import Result, Task
from deepjudge_core.sandbox.policy import Sandbox

SUSPECTS = 10


@pytest.fixture
def tasks(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> list[Task]:
    """Tasks of a suite and suspects; workers find the plugins by the environment."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, [Path.cwd(), *filter(None, sys.path)])))
    assert cli("suite", "victim.toy", "--inputs", "in.npz", *MADE, "-o", "s.safetensors")[0] == 0
    Path("up").mkdir()
    for seed in range(SUSPECTS):
        toys.save_model(Path(f"up/{seed}.toy"), seed=20 + seed)
    subjects = [ModelFile(path) for path in sorted(Path("up").iterdir())]
    fleet = Fleet(subjects, Session(load_registry(), Sandbox(timeout=120)))
    with Store(Path("results")) as store:
        return [task for _, task in fleet.tasks(load_suite("s.safetensors").digest, store) if task]


def asked(engine: Engine, tasks: list[Task], after_first: Callable[[Result], None]) -> list[str]:
    """Who answered, once or more; the workers do what is said after the first result."""
    suites = {tasks[0].suite: Path("s.safetensors")}
    with contextlib.closing(engine.results(iter(tasks), suites)) as results:  # type: ignore[type-var]
        first = next(results)
        after_first(first)
        every = [first, *results]
    assert [(one.status, one.reason) for one in every] == [("answered", None)] * len(tasks)
    return sorted(one.task.source for one in every)


def kill_worker(result: Result) -> None:
    os.kill(int(result.worker.rpartition(":")[2]), signal.SIGKILL)


@pytest.mark.slow
def test_dask_loses_nothing_with_a_worker(tasks: list[Task]) -> None:
    distributed = pytest.importorskip("distributed", reason="needs Dask")
    with dask_cluster(distributed) as scheduler:
        engine = EngineSettings("dask", scheduler=scheduler).engine_of(1)
        assert asked(engine, tasks, kill_worker) == sorted(task.source for task in tasks)


@contextlib.contextmanager
def dask_cluster(distributed: object) -> Iterator[str]:
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
    ) as cluster:
        yield cluster.scheduler_address


@pytest.mark.slow
def test_ray_loses_nothing_with_a_worker(tasks: list[Task]) -> None:
    pytest.importorskip("ray", reason="needs Ray")
    engine = EngineSettings("ray", address="local").engine_of(1)
    assert asked(engine, tasks, kill_worker) == sorted(task.source for task in tasks)


@pytest.mark.slow
def test_no_scheduler_is_one_line(tasks: list[Task], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed", reason="needs Dask")
    from deepjudge_core.fleets import dask

    monkeypatch.setattr(dask, "_PATIENCE", 1)
    engine = EngineSettings("dask", scheduler="tcp://127.0.0.1:9").engine_of(1)
    with pytest.raises(DeepJudgeError) as caught:
        asked(engine, tasks, kill_worker)
    assert str(caught.value).startswith("tcp://127.0.0.1:9: ")


@pytest.mark.parametrize(
    ("chosen", "code"),
    [
        ({"engine": "dask"}, "missing-value"),
        ({"engine": "ray"}, "missing-value"),
        ({"engine": "ray", "scheduler": "tcp://x"}, "conflict"),
        ({"address": "auto"}, "conflict"),
    ],
)
def test_an_address_is_of_its_engine(chosen: dict[str, str], code: str) -> None:
    with pytest.raises(UsageError) as caught:
        EngineSettings(**chosen)  # type: ignore[arg-type]
    assert caught.value.code == code
