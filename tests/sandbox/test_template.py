"""Workers that are copies of a process which has imported its framework already."""

import json
import os
import signal
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toys
from refusals import refused

from deepjudge_core import load_registry, open_isolated
from deepjudge_core.errors import ModelError
from deepjudge_core.models.isolation import Isolation
from deepjudge_core.sandbox import landlock, seccomp
from deepjudge_core.sandbox.policy import Sandbox
from deepjudge_core.sandbox.remote import begin_isolated
from deepjudge_core.sandbox.scratch import make_scratch
from deepjudge_core.sandbox.setup import begun, isolation_of, plugin_of
from deepjudge_core.sandbox.starting import Kind, end_templates, start_copy

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not landlock.version() or not seccomp.supported(), reason="no Linux with Landlock and seccomp"),
]

# A framework that writes what it could do while it was imported.
FRAMEWORK = """
import errno, json, os, pathlib, socket, subprocess, tempfile
def outcome(act):
    try:
        act()
    except OSError as error:
        return errno.errorcode.get(error.errno)
    return "done"
secret = pathlib.Path(os.path.dirname(os.path.dirname(__file__)), "secret")
acts = {{
    "read": lambda: secret.read_text(),
    "list": lambda: os.listdir(secret.parent),
    "write": lambda: pathlib.Path(__file__).with_name("new").touch(),
    "connect": lambda: socket.socket(),
    "run": lambda: subprocess.run(["/bin/true"]),
    "fork": lambda: os.waitpid(os.fork() or os._exit(0), 0),
}}
record = {{"pid": os.getpid(), "home": os.environ["HOME"], **{{name: outcome(act) for name, act in acts.items()}}}}
try:
    with open({log!r}, "a") as log:
        log.write(json.dumps(record) + "\\n")
except PermissionError:  # of a worker that is no copy, and may write to its own folder only
    pass
"""
PLUGIN = """
import dataclasses
from deepjudge_core import hookimpl
import toys
@hookimpl
def deepjudge_adapters():
    return [dataclasses.replace(one, imports=("framework",), copyable=True) for one in toys.deepjudge_adapters()]
"""


class Ground:
    """A plugin whose framework tells when it is imported, and a model."""

    def __init__(self, folder: Path) -> None:
        self.log = Path(tempfile.gettempdir(), "imports")
        (folder / "secret").write_text("alive")
        site = folder / "site-packages"  # such a folder may be read by who opens models
        information = site / "copied-1.0.dist-info"
        information.mkdir(parents=True)
        (information / "METADATA").write_text("Metadata-Version: 2.1\nName: copied\nVersion: 1.0\n")
        (information / "entry_points.txt").write_text("[deepjudge]\ncopied = copied\n")
        (site / "copied.py").write_text(textwrap.dedent(PLUGIN))
        (site / "framework.py").write_text(FRAMEWORK.format(log=str(self.log)))
        self.model = toys.save_model(folder / "a.toy")

    def imports(self) -> list[dict[str, Any]]:
        """What each process wrote that imported the framework."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def opened(self, **limits: Any) -> Any:
        return open_isolated(self.model, registry=load_registry(), sandbox=Sandbox(timeout=120, **limits))


@pytest.fixture
def ground(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ground]:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    made = Ground(tmp_path)
    monkeypatch.syspath_prepend(Path(toys.__file__).parent)
    monkeypatch.syspath_prepend(tmp_path / "site-packages")
    yield made
    end_templates()


def gone(pid: int) -> bool:
    """Whether a process has ended, even if nobody has asked how."""
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z"


X = np.random.default_rng(0).random((5, *toys.make_model(1).input.shape), np.float32)


def test_a_framework_is_imported_once_for_models_that_each_have_a_process(ground: Ground) -> None:
    answers, processes = [], set()
    for _ in range(3):
        with ground.opened() as model:
            assert model.isolation is Isolation.FULL
            processes.add(model._worker._process.pid)
            answers.append(model.predict(X))
    with ground.opened(template=False) as model:
        answers.append(model.predict(X))
    assert len(processes) == 3
    [record] = ground.imports()
    assert record["pid"] not in processes
    for answer in answers[1:]:
        np.testing.assert_array_equal(answer, answers[0])


def test_a_copy_has_nothing_open_but_its_own(ground: Ground) -> None:
    with ground.opened() as one, ground.opened() as other:
        opened = []
        for model in (one, other):
            folder = Path(f"/proc/{model._worker._process.pid}/fd")
            try:
                opened.append({str(link.readlink()) for link in folder.iterdir()} - {os.devnull})
            except PermissionError:
                pytest.skip("only root sees what such a process has open")
    # Not the template's socket, and nothing of the other copy: requests, answers and a log for each.
    for links in opened:
        assert len(links) == 3
        assert all(link.startswith("pipe:") for link in links)
    assert not opened[0] & opened[1]


def test_the_framework_is_imported_in_confinement(ground: Ground) -> None:
    with ground.opened() as model:
        model.predict(X)
    [record] = ground.imports()
    assert {name: record[name] for name in ("read", "list", "write", "connect", "run")} == {
        "read": "EACCES",
        "list": "EACCES",
        "write": "EACCES",
        "connect": "EPERM",
        "run": "EPERM",
    }
    assert record["fork"] == "done"  # which is what it is for
    assert not Path(record["home"]).exists()


def test_own_code_is_imported_into_each_copy_as_it_is_by_then(ground: Ground, tmp_path: Path) -> None:
    registry = load_registry()
    adapter = registry.adapters["toy"]
    plugin, log, code = plugin_of(adapter, registry.adapters, "a"), tmp_path / "own", tmp_path / "own.py"
    for version in ("first", "second"):
        code.write_text(f"from pathlib import Path\nwith open({str(log)!r}, 'a') as log: log.write('{version} ')\n")
        with make_scratch() as scratch:
            how = {"gradients": False, "own_code": f"{code}:make"}
            with begun("a", ground.model, adapter, plugin, scratch, Sandbox(timeout=120), **how) as worker:
                assert isolation_of(worker) == (Isolation.FULL, "")
    assert log.read_text() == "first second "
    [record] = ground.imports()
    assert record["read"] == "done"  # by what both are copies of


def test_who_stops_while_a_framework_is_imported_does_not_wait_for_it(ground: Ground, tmp_path: Path) -> None:
    (tmp_path / "site-packages" / "framework.py").write_text(
        f"import time\ntime.sleep(8)\nopen({str(ground.log)!r}, 'w').close()\n"
    )
    adapters = load_registry().adapters
    with begin_isolated(ground.model, adapters), begin_isolated(ground.model, adapters):
        pass
    assert not ground.log.exists()


def test_another_one_is_started_if_what_workers_are_given_changes(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ground.opened() as model:
        model.predict(X)
        monkeypatch.setenv("OMP_NUM_THREADS", "2")
        with ground.opened() as other:
            other.predict(X)
        model.predict(X)
    assert len({record["pid"] for record in ground.imports()}) == 2


def test_one_that_is_gone_takes_its_models_along_and_is_replaced(ground: Ground) -> None:
    with ground.opened() as model:
        model.predict(X)
        worker = model._worker._process.pid
        os.kill(ground.imports()[0]["pid"], signal.SIGKILL)
        with refused(ModelError, "SIGKILL", code="crashed"):
            while True:
                model.predict(X)
    assert gone(worker)
    with ground.opened() as model:
        assert model.predict(X).shape == (5, model.classes)
    assert len(ground.imports()) == 2


def test_none_is_left_when_they_are_ended(ground: Ground) -> None:
    with ground.opened() as model:
        model.predict(X)
    [record] = ground.imports()
    os.kill(record["pid"], 0)
    end_templates()
    assert gone(record["pid"])


def test_there_is_none_on_other_systems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    assert start_copy(Kind("toys", "toy", ()), tmp_path, None) is None  # type: ignore[arg-type]
