"""An audit that is killed or interrupted at any moment leaves nothing half done, and nobody behind."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import toys
from commands import HOW, MADE, Cli

from deepjudge_core.files import storage
from deepjudge_core.sandbox import landlock, seccomp

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not landlock.version() or not seccomp.supported(), reason="no Linux with Landlock and seccomp"),
]

KILLS = 5
LONG = 120.0  # seconds, which nothing here takes: they keep a test from hanging
AUDIT = ("audit", "victim.toy", "copy.toy", "--controls", "controls", "--inputs", "in.npz", *MADE, *HOW)
SHOWN = {"suite.safetensors", "calibration.safetensors", "report.json"}
FILES = {*SHOWN, "report.html", "observations", "environment.json", "queries.jsonl", "runs.jsonl", "manifest.json"}

# A model that never finishes opening, and says in its folder that it has begun.
TRAP = """
import time
from pathlib import Path
from deepjudge_core import Adapter, hookimpl

def wait(source, *, name=None):
    Path("waiting").touch()
    while True:
        time.sleep(6000)

@hookimpl
def deepjudge_adapters():
    return [Adapter("trap", suffixes=(".trap",), accepts=lambda source: False, open=wait)]
"""


class Ground:
    """A folder with models, in which audits are started as processes with groups of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.scratch = folder, folder / "scratch"
        self.scratch.mkdir()
        (folder / "trap.py").write_text(TRAP)
        (folder / "suspect.trap").write_text("trap")
        points = next(folder.glob("toys*")) / "entry_points.txt"
        points.write_text(f"{points.read_text()}trap = trap\n")
        paths = [str(folder), str(Path(toys.__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        self.environment = {**os.environ, "TMPDIR": str(self.scratch), "PYTHONPATH": os.pathsep.join(paths)}
        self.started: list[subprocess.Popen[str]] = []

    def start(self, *words: str) -> "subprocess.Popen[str]":
        code = "import sys; from deepjudge_core.cli.main import main; sys.exit(main())"
        process = subprocess.Popen(
            [sys.executable, "-c", code, *words],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def finish(self, *words: str) -> tuple[int, str]:
        process = self.start(*words)
        _, errors = process.communicate(timeout=LONG)
        return process.returncode, errors

    def kill(self, process: "subprocess.Popen[str]", what: signal.Signals = signal.SIGKILL) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, what)
        process.communicate(timeout=LONG)

    def workers(self) -> set[int]:
        """Processes of this folder's audits."""
        return {int(path.parent.name) for path in Path("/proc").glob("[0-9]*/cmdline") if self._is_worker(path)}

    def _is_worker(self, cmdline: Path) -> bool:
        with contextlib.suppress(OSError):
            command = cmdline.read_bytes()
            started = (b"deepjudge_core.sandbox.worker", b"deepjudge_core.sandbox.template")
            return any(module in command for module in started) and str(self.folder).encode() in command
        return False

    def wait(self, until: Callable[[], object], seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while not until():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        return True

    def is_waiting(self) -> bool:
        return bool(list(self.scratch.glob("*/work/waiting")))


@pytest.fixture
def ground(cli: Cli) -> Iterator[Ground]:
    ground_of_test = Ground(cli.folder)
    yield ground_of_test
    for process in ground_of_test.started:
        ground_of_test.kill(process)
    for worker in ground_of_test.workers():
        os.kill(worker, signal.SIGKILL)


def report(folder: str) -> object:
    return json.loads(Path(folder, "report.json").read_text())


def wait_for(process: "subprocess.Popen[str]", seconds: float) -> bool:
    """Whether a process ends by itself within so long."""
    try:
        process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def test_killed_at_any_moment(ground: Ground, cli: Cli) -> None:
    Path("controls/c4.toy").unlink()  # 3 are enough
    start = time.monotonic()
    assert ground.finish(*AUDIT, "-o", "whole") == (1, "")
    whole = time.monotonic() - start
    assert {path.name for path in Path("whole").iterdir()} == FILES
    moments = random.Random(5)
    left = 0
    for part in range(KILLS):
        process = ground.start(*AUDIT, "-o", "out")
        moment = whole * (part + moments.random()) / KILLS
        while part and wait_for(process, moment):  # it was over before: a machine may have less to do than at first
            moment /= 2
            process = ground.start(*AUDIT, "-o", "out")
        if not part:
            assert ground.wait(lambda: list(ground.scratch.iterdir()), LONG), "it made no scratch folder"
        ground.kill(process)
        assert ground.wait(lambda: not ground.workers(), LONG), "a worker lives on"
        left += len(list(ground.scratch.iterdir()))
        for path in Path("out").glob("[!.]*"):
            assert path.name in FILES
            if path.name in SHOWN:
                assert cli("show", path)[0] == 0
            elif path.suffix == ".html":
                assert path.read_text().rstrip().endswith("</html>")
            elif path.is_file():
                for line in path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]:
                    json.loads(line)
        for path in Path("out/observations").glob("[!.]*"):
            assert cli("show", path)[0] == 0
    assert left, "no scratch folder was left to be removed"
    assert ground.finish(*AUDIT, "-o", "out") == (1, "")
    assert report("out") == report("whole")
    assert {path.name for path in Path("out").iterdir()} == FILES
    assert cli("verify", "out")[0] == 0
    assert list(ground.scratch.iterdir()) == []


@pytest.mark.parametrize("what", [signal.SIGKILL, signal.SIGINT])
def test_ended_while_a_worker_hangs(what: signal.Signals, ground: Ground, cli: Cli) -> None:
    assert cli("suite", "victim.toy", "--inputs", "in.npz", *MADE, "-o", "s.safetensors")[0] == 0
    process = ground.start("observe", "s.safetensors", "suspect.trap", "-o", "o.safetensors")
    assert ground.wait(ground.is_waiting, LONG), process.communicate()
    assert ground.workers()
    os.killpg(process.pid, what)
    _, errors = process.communicate(timeout=LONG)
    assert ground.wait(lambda: not ground.workers(), LONG), "the worker lives on"
    if what is signal.SIGINT:
        assert (process.returncode, errors) == (130, "deepjudge: interrupted\n")
    else:
        assert process.returncode == -what
        assert ground.finish("observe", "s.safetensors", "copy.toy", "-o", "o.safetensors") == (0, "")
    assert list(ground.scratch.iterdir()) == []


def test_killed_while_it_writes(tmp_path: Path) -> None:
    target = tmp_path / "report.json"
    target.write_bytes(b"before")
    code = f"""
import os, signal
from pathlib import Path
from deepjudge_core.files import storage
os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
storage.write_bytes(Path({str(target)!r}), b"after")
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    assert target.read_bytes() == b"before"
    [left] = set(tmp_path.iterdir()) - {target}
    # What nobody of ours wrote stays.
    other = tmp_path / f"{left.name[:-8]}original"
    other.touch()
    storage.write_bytes(target, b"after")
    assert target.read_bytes() == b"after"
    assert set(tmp_path.iterdir()) == {target, other}
