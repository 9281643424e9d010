"""Progress of long steps: who sees what of it."""

import contextlib
from collections.abc import Iterator

import pytest

from deepjudge_core import progress
from deepjudge_core.auditing.subject import ModelFile, ObservationFile, turns
from deepjudge_core.cli.fleeting import BEFORE, Tally
from deepjudge_core.cli.terminal import Bars
from deepjudge_core.progress import watched


def test_without_a_terminal_a_long_step_is_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("deepjudge_core.cli.terminal.time.monotonic", lambda: now[0])
    with watched(Bars()), progress.task("zoo", 100) as whole:
        for _ in range(5):
            with progress.task("inside", 10) as inside:
                now[0] += 10
                inside(5)
            whole(15)
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["deepjudge: zoo: 45% done, about 37 s left"]


def test_a_line_of_a_long_step_says_where_it_stands(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("deepjudge_core.cli.terminal.time.monotonic", lambda: now[0])
    monkeypatch.setattr("deepjudge_core.cli.fleeting.time.monotonic", lambda: now[0])
    tally = Tally(100)
    with watched(Bars()), progress.task("asking", 100) as advance:
        for word in [BEFORE] * 20 + ["independent"] * 8 + ["copy"] * 4:
            now[0] += 0 if word == BEFORE else 3
            advance(1, tally.add(word))
    [line] = capsys.readouterr().err.splitlines()
    # Ten were asked in thirty seconds; the others took no time.
    for fact in ("30 of 100", f"20 {BEFORE}", "8 independent", "2 copy", "20 a minute"):
        assert fact in line


def test_tasks_inside_a_part_move_the_whole() -> None:
    moved: list[int] = []

    class Watcher:
        @contextlib.contextmanager
        def task(self, description: str, total: int) -> Iterator[progress.Advance]:
            assert description == "whole"
            yield lambda units, note="": moved.append(units)

    with watched(Watcher()), progress.task("whole", 30) as whole:
        with progress.part(whole, 20), progress.task("first", 4) as first:
            first(1)
            first(1)
        with progress.part(whole, 10):
            pass
    assert moved == [5, 5, 10, 10]


def test_answers_that_are_stored_take_no_time() -> None:
    moved: list[tuple[str, int, list[int]]] = []

    class Watcher:
        @contextlib.contextmanager
        def task(self, description: str, total: int) -> Iterator[progress.Advance]:
            moved.append((description, total, []))
            yield lambda units, note="": moved[-1][2].append(units)

    asked, stored = ModelFile("asked"), ObservationFile("stored")
    for subjects in ([stored, asked, stored, asked], [stored, stored], [asked]):
        with watched(Watcher()), turns("asking", subjects, "control") as turn:
            for subject in subjects:
                turn(subject, "answered")
    assert [(total, units) for _, total, units in moved] == [(2, [0, 1, 0, 1]), (2, [1, 1]), (1, [1])]
    assert ["asking" in description for description, *_ in moved] == [True, False, True]
