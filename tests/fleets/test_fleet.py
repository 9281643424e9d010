"""Many suspects and many suites: each pair is asked once, whatever happens, and judged as ``judge`` does."""

import contextlib
import json
import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import toys
from commands import HOW, MADE, Cli
from snapshots import Snapshots

from deepjudge_core import load_suite
from deepjudge_core.auditing.session import Session
from deepjudge_core.auditing.subject import ModelFile
from deepjudge_core.errors import FileFormatError
from deepjudge_core.files.storage import kind_of
from deepjudge_core.fleets import asking, settings
from deepjudge_core.fleets.asking import ask
from deepjudge_core.fleets.local import Local
from deepjudge_core.fleets.planning import Fleet
from deepjudge_core.fleets.records import as_csv, records
from deepjudge_core.fleets.store import DATABASE, Store
from deepjudge_core.fleets.work import Result, Task, pack, perform, unpack
from deepjudge_core.sandbox.policy import Sandbox

FLEET = ("fleet", "suites", "up", "-o", "results", "--calibrations", "cal", *HOW)
ANEW = ("fleet", "results", *HOW)
CODE = "import sys; from deepjudge_core.cli.main import main; sys.exit(main())"
LONG = 120.0  # seconds, which nothing here takes


class Here:
    """Does tasks in this process, and says which."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def results(self, tasks: Iterable[Task], suites: Mapping[str, Path]) -> Iterator[Result]:
        for task in tasks:
            self.asked.append(Path(task.name).name)
            yield perform(task, load_suite(suites[task.suite]))


@pytest.fixture
def ready(cli: Cli, snapshots: Snapshots) -> Cli:
    """Two victims' suites and their calibrations; suspects, of which one copies the first victim."""
    snapshots.fill("fleet", Path.cwd(), lambda: make(cli))
    return cli


def make(cli: Cli) -> None:
    for folder in ("suites", "cal", "up"):
        Path(folder).mkdir()
    toys.save_model(Path("other.toy"), seed=8)
    x, y = toys.make_inputs(toys.make_model(8))
    np.savez("in-other.npz", x=x, y=y)
    for name, inputs in (("victim", "in.npz"), ("other", "in-other.npz")):
        suite = f"suites/{name}.safetensors"
        assert cli("suite", f"{name}.toy", "--inputs", inputs, *MADE, "-o", suite)[0] == 0
        assert cli("calibrate", suite, "controls", "-o", f"cal/{name}.safetensors")[0] == 0
    for seed in (11, 12, 13):
        toys.save_model(Path(f"up/u{seed}.toy"), seed=seed)
    shutil.copy("copy.toy", "up/copy.toy")
    Path("up/torn.toy").write_text("{")


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Here:
    engine = Here()
    monkeypatch.setattr(settings, "Local", lambda jobs: engine)
    return engine


def reports() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path("results/reports").glob("*.json")}


def test_each_pair_is_asked_once_and_judged_as_judge_does(ready: Cli, here: Here) -> None:
    shutil.copy("up/u11.toy", "up/u14.toy")  # the same bytes under another name
    status, out, _ = ready(*FLEET)
    assert status == 1
    assert sorted(here.asked) == sorted(2 * ["copy.toy", "torn.toy", "u11.toy", "u12.toy", "u13.toy"])
    for name in ("victim", "other"):
        ready(
            "judge", f"suites/{name}.safetensors", "up", "--calibration", f"cal/{name}.safetensors", *HOW, "--json", "j"
        )
        assert reports()[f"{name}.json"] == Path("j").read_bytes()
    assert all(name in out for name in ("victim.toy", "other.toy"))
    page = Path("results/ranking.html").read_text()
    assert all(name in page for name in ("victim.toy", "other.toy", "copy.toy", "u14.toy"))
    # A second run asks nobody, and says the same.
    here.asked.clear()
    before = reports()
    assert (ready(*FLEET)[0], here.asked, reports() == before) == (1, [], True)


def test_answers_are_judged_anew_without_a_model(ready: Cli, here: Here) -> None:
    ready(*FLEET)
    before = reports()
    shutil.rmtree("up")
    shutil.rmtree("suites")
    shutil.rmtree("cal")
    here.asked.clear()
    assert ready(*ANEW)[0] == 1
    assert (here.asked, reports() == before) == ([], True)
    assert ready("fleet", "results", "--rule", "nearest", "--metric", "answers")[0] in (0, 1, 4)
    assert here.asked == []
    assert set(json.loads(reports()["victim.json"])["metrics"]) == {"answers"}
    ready.refuses(2, "conflict", *ANEW, "-o", "elsewhere")
    ready.refuses(2, "missing-value", "fleet", "in.npz")


def test_changed_settings_are_other_rows(ready: Cli, here: Here) -> None:
    ready(*FLEET)
    here.asked.clear()
    ready(*FLEET, "--no-infer-input")
    assert len(here.asked) == 10
    with Store(Path("results"), make=False) as store:
        assert len(list(store.rows())) == 20
        assert len(store.members(store.suites()[0].digest)) == 5
    # Suspects that failed are asked again if that is wanted, and by other limits.
    here.asked.clear()
    ready(*FLEET, "--no-infer-input", "--retry")
    assert here.asked == 2 * ["torn.toy"]


def test_suspects_of_other_inputs_are_skipped(ready: Cli, here: Here) -> None:
    toys.save_model(Path("up/wide.toy"), shape=[13])
    toys.save_model(Path("wide-victim.toy"), shape=[13])
    Path("up/torn.toy").unlink()
    status, _, _ = ready(*FLEET)
    report = json.loads(reports()["victim.json"])
    assert [(one["name"], one["code"], one["unjudged"]) for one in report["skipped"]] == [
        ("up/wide.toy", "other-inputs", True)
    ]
    assert "wide" not in json.dumps(report["suspects"])
    assert status == 1
    here.asked.clear()
    ready(*FLEET)
    assert here.asked == []
    Path("up/copy.toy").unlink()
    one = ("fleet", "suites/victim.safetensors", *FLEET[2:])
    assert ready(*one)[0] == 3  # who fits no suite was not judged
    assert ready(*one, "--strict")[0] == 4


def test_results_are_filtered_sorted_and_exported(ready: Cli, here: Here) -> None:
    ready(*FLEET)
    status, out, _ = ready("show", "results", "--only", "copy", "--victim", "victim.toy", "--csv", "r.csv")
    assert status == 0
    assert "up/copy.toy" in out
    assert "u12" not in out
    assert "other.toy" not in out
    assert len(Path("r.csv").read_text().splitlines()) == 2
    with Store(Path("results"), make=False) as store:
        found = records(store, sort="similarity", victim="victim.toy")
        assert [one.verdict for one in found][:1] == ["copy"]
        assert found[-1].verdict == "failed"
        assert [one.suspect for one in records(store, sort="name")] == sorted(one.suspect for one in records(store))
        forged = replace(found[0], suspect="=1+1")
        assert as_csv([forged]).decode().splitlines()[1].split(",")[2] == "'=1+1"
    ready.refuses(2, "conflict", "show", "in.npz", "--only", "copy")
    pytest.importorskip("pyarrow", reason="no extra parquet")
    import pyarrow.parquet

    assert ready("show", "results", "--parquet", "r.parquet")[0] == 0
    table = pyarrow.parquet.read_table("r.parquet")
    assert table.num_rows == 10
    assert set(table["verdict"].to_pylist()) == {"copy", "independent", "failed"}


def test_lists_say_how_each_suspect_is_asked(ready: Cli, here: Here) -> None:
    Path("list.txt").write_text("# a comment\n\nup/copy.toy {classes = [0, 1, 2, 3]}\nup/u11.toy\nup/gone.toy\n")
    status, out, _ = ready("fleet", "suites", "list.txt", "-o", "results", "--calibrations", "cal", *HOW)
    assert status == 1
    assert here.asked == 2 * ["copy.toy", "u11.toy"]
    assert "gone.toy" in out
    here.asked.clear()
    # The same again is nobody's work; a file that comes is.
    toys.save_model(Path("up/gone.toy"), seed=31)
    ready("fleet", "suites", "list.txt", "-o", "results", *HOW)
    assert here.asked == 2 * ["gone.toy"]
    Path("list.txt").write_text("up/copy.toy {clases = [0]}\nup/u11.toy {classes = [1,}\nup/u12.toy {path = 'x'}\n")
    status, _, err = ready("fleet", "suites", "list.txt", "-o", "results")
    assert status == 2
    assert [line.split(": ")[1] for line in err.splitlines()] == ["list.txt:1", "list.txt:2", "list.txt:3"]


def test_two_calibrations_of_one_suite_are_refused(ready: Cli, here: Here) -> None:
    shutil.copy("cal/victim.safetensors", "cal/again.safetensors")
    ready.refuses(2, "conflict", "fleet", "suites", "up", "-o", "cal/../r", "--calibrations", "cal", leaves=None)


def test_a_store_that_is_none_of_ours_is_refused(ready: Cli, here: Here) -> None:
    ready(*FLEET)
    for change, code in (
        ("PRAGMA user_version = 7", "wrong-file"),
        ("PRAGMA application_id = 7", "wrong-file"),
    ):
        shutil.copytree("results", "bad")
        with contextlib.closing(sqlite3.connect(Path("bad", DATABASE))) as database:
            database.execute(change)
        ready.refuses(4, code, "fleet", "bad")
        shutil.rmtree("bad")
    shutil.copytree("results", "bad")
    for path in Path("bad").glob(f"{DATABASE}*"):
        path.write_bytes(b"no database" * 100)
    status, _, err = ready("fleet", "bad")
    assert (status, len(err.splitlines())) == (4, 1)
    assert "damaged-file" in err


def test_changed_answers_are_noticed(ready: Cli, here: Here) -> None:
    ready(*FLEET)
    with Store(Path("results"), make=False) as store:
        row = next(one for one in store.rows() if one.status == "answered")
        path, other = (
            store.answers(row),
            next(store.answers(one) for one in store.rows() if one.status == "answered" and one.suspect != row.suspect),
        )
    path.write_bytes(other.read_bytes())
    status, out, _ = ready(*ANEW)
    assert status in (1, 4)
    assert path.name in out
    path.unlink()
    here.asked.clear()
    ready(*FLEET)
    assert here.asked == [Path(row.name).name]


def test_a_full_disk_loses_nothing(ready: Cli, here: Here) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    kept = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    one = ("fleet", "suites/victim.safetensors", *FLEET[2:])
    ready(*one[:2], "up/u11.toy", *one[3:])
    size = max(path.stat().st_size for path in Path("results").rglob("*.safetensors"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 4, hard))
    try:
        status, _, err = ready(*one)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, kept)
    assert (status, len(err.splitlines())) == (4, 1)
    assert "cannot-write" in err
    here.asked.clear()
    assert ready(*one)[0] == 1
    assert "u11.toy" not in here.asked


# Tasks, and who does them.


def tasks_of(folder: Path, sandbox: Sandbox | None = None) -> Callable[[Store], Iterator[Task]]:
    digest = load_suite("suites/victim.safetensors").digest
    subjects = [ModelFile(path) for path in sorted(folder.glob("*.toy"))]
    fleet = Fleet(subjects, Session(sandbox=sandbox))

    def tasks(store: Store) -> Iterator[Task]:
        for _, task in fleet.tasks(digest, store):
            if task:
                yield task

    return tasks


def test_tasks_and_results_are_plain_data(ready: Cli) -> None:
    with Store(Path("results")) as store:
        task = next(tasks_of(Path("up"), Sandbox())(store))
    assert unpack(pack(task), Task) == task
    result = perform(replace(task, sandbox=None), load_suite("suites/victim.safetensors"))
    assert result.status == "answered"
    assert unpack(pack(result), Result) == result
    for other in (replace(task, version="0.0"), replace(task, suite="0" * 64)):
        assert perform(other, load_suite("suites/victim.safetensors")).status == "undone"
    # A file that is not what it was is nobody's failure.
    changed = replace(task, sandbox=None, suspect="0" * 64)
    assert perform(changed, load_suite("suites/victim.safetensors")).status == "undone"


def test_two_processes_share_the_work(ready: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks, paths = tasks_of(Path("up")), {}
    monkeypatch.setattr(asking, "_PAUSE", 0.01)
    suite = load_suite("suites/victim.safetensors")
    paths[suite.digest] = Path("suites/victim.safetensors")
    first, second = Here(), Here()
    heard: list[str] = []

    class Interrupted(Here):
        # While this one is in the middle, another one comes, and does what is left.

        def results(self, tasks: Iterable[Task], suites: Mapping[str, Path]) -> Iterator[Result]:
            held = [task for _, task in zip(range(2), tasks, strict=False)]
            with Store(Path("results")) as other:
                claims = [other.claim(task) for task in held]
                assert claims == ["theirs", "theirs"]
                rest = [task for task in tasks_of(Path("up"))(other) if task.key not in {one.key for one in held}]
                ask(rest, suites, other, second, lambda task, result: heard.append(task.name))
            yield from first.results(held, suites)
            yield from first.results(tasks, suites)

    with Store(Path("results")) as store:
        ask(tasks(store), paths, store, Interrupted(), lambda task, result: heard.append(task.name))
    assert (len(first.asked), len(second.asked)) == (2, 3)
    assert len(heard) == 8  # the second heard of 3, the first of all 5
    # What a process held that is gone is anybody's.
    with Store(Path("results")) as store, contextlib.closing(sqlite3.connect(Path("results", DATABASE))) as database:
        database.execute("DELETE FROM answers")
        database.execute("INSERT INTO claims SELECT ?, suspect, settings, 'gone' FROM members", [suite.digest])
        database.commit()
        assert {store.claim(task) for task in tasks(store)} == {"ours"}


def test_another_process_is_waited_for(ready: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    suite, engine = load_suite("suites/victim.safetensors"), Here()
    paths = {suite.digest: Path("suites/victim.safetensors")}
    tasks = tasks_of(Path("up"))
    with Store(Path("results")) as store, Store(Path("results")) as other:
        [one, two, *_] = tasks(store)
        for task in (one, two):
            assert other.claim(task) == "ours"
        pauses: list[float] = []

        def pause(seconds: float) -> None:
            # It ends the first one, and is killed with the second.
            pauses.append(seconds)
            other.save(perform(one, suite)) if len(pauses) == 1 else other.__exit__()

        monkeypatch.setattr(asking.time, "sleep", pause)
        heard: dict[str, bool] = {}
        ask([one, two], paths, store, engine, lambda task, result: heard.update({task.name: result is None}))
    assert heard == {one.name: True, two.name: False}
    assert engine.asked == [Path(two.name).name]


CRASHING = """
import os, signal
from deepjudge_core import Adapter, hookimpl

def die(source, *, name=None):
    os.kill(os.getpid(), signal.SIGKILL)

@hookimpl
def deepjudge_adapters():
    return [Adapter("crash", suffixes=(".crash",), accepts=lambda source: False, open=die)]
"""


def install_crash(folder: Path) -> None:
    (folder / "crash.py").write_text(CRASHING)
    points = next(folder.glob("toys*")) / "entry_points.txt"
    points.write_text(f"{points.read_text()}crash = crash\n")


def test_one_that_ends_its_process_is_a_row_and_the_others_are_asked(ready: Cli, tmp_path: Path) -> None:
    install_crash(tmp_path)
    Path("up/bad.crash").write_text("crash")
    status, out, _ = ready("fleet", "suites/victim.safetensors", *FLEET[2:], "--jobs", "2")
    assert status == 1
    with Store(Path("results"), make=False) as store:
        rows = {Path(row.name).name: (row.status, row.code) for row in store.rows()}
    assert rows.pop("bad.crash") == ("failed", "crashed")
    assert rows.pop("torn.toy")[0] == "failed"
    assert [status for status, _ in rows.values()] == 4 * ["answered"]
    assert "SIGKILL" in out


@pytest.mark.slow
def test_a_fleet_that_is_killed_at_any_moment_loses_and_repeats_nothing(ready: Cli, tmp_path: Path) -> None:
    for seed in range(20, 28):
        toys.save_model(Path(f"up/v{seed}.toy"), seed=seed)
    words = ("fleet", "suites", "up", "-o", "results", "--calibrations", "cal", "--no-sandbox", "--jobs", "2", *HOW)
    paths = [str(tmp_path), str(Path(toys.__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    rng, known = random.Random(5), dict[tuple[str, str, str], float]()
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", CODE, *words],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        wanted, since = len(known) + rng.randint(1, 4), time.monotonic()
        while process.poll() is None and rows_there() < wanted and time.monotonic() - since < LONG:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        with Store(Path("results")) as store:
            found = {(row.suite, row.suspect, row.settings): row.finished for row in store.rows()}
            for row in store.rows():
                if row.status == "answered":
                    store.read(row)
        assert known.items() <= found.items()  # nothing lost, nothing done again
        known = found
    ended = subprocess.run([sys.executable, "-c", CODE, *words], env=environment, capture_output=True, check=False)
    assert ended.returncode == 1
    with Store(Path("results"), make=False) as store:
        found = {(row.suite, row.suspect, row.settings): row.finished for row in store.rows()}
    assert known.items() <= found.items()
    assert len(found) == 2 * 13


def rows_there() -> int:
    if not Path("results", DATABASE).is_file():
        return 0
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(Path("results", DATABASE))) as database:
        return int(database.execute("SELECT count(*) FROM answers").fetchone()[0])
    return 0


def test_kinds_of_files_are_told(ready: Cli) -> None:
    assert kind_of(Path("suites/victim.safetensors")) == "suite"
    assert kind_of(Path("cal/victim.safetensors")) == "calibration"
    assert [kind_of(Path(name)) for name in ("in.npz", "gone", "up", "victim.toy")] == 4 * [None]


def test_no_processes_is_one_line(ready: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    status, _, err = ready("fleet", "suites/victim.safetensors", "up", "-o", "results", *HOW)
    assert (status, len(err.splitlines())) == (4, 1)
    assert "status 1" in err


def test_a_store_is_opened_where_it_is(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError):
        Store(tmp_path, make=False)
    assert Local().jobs >= 1
