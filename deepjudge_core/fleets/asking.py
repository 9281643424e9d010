"""Let every task of a fleet be done that is not done yet, and no other."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from deepjudge_core.fleets.engine import Engine
from deepjudge_core.fleets.store import Store
from deepjudge_core.fleets.work import Key, Result, Task

Heard = Callable[[Task, Result | None], None]
"""Hears that a task is done: by this run, with its result, or before, or elsewhere."""
_PAUSE = 1.0  # seconds between two looks at what other processes do


def ask(
    tasks: Iterable[Task],
    suites: Mapping[str, Path],
    store: Store,
    engine: Engine,
    heard: Heard,
    *,
    retry: bool = False,
) -> None:
    """Do tasks, each once, and keep what comes of each as soon as it is there.

    What another process does meanwhile is waited for, and done here if that process ends without it.

    Args:
        tasks: What to do; taken as it can be done.
        suites: Digest to the file of each suite.
        store: What is done, and where results go.
        engine: What does it.
        heard: Hears of each, once for each time that it is among the tasks.
        retry: Whether suspects that failed before are asked again.

    Raises:
        DeepJudgeError: When results cannot be kept, or there is nobody to do tasks.
    """
    seen: dict[Key, list[Task]] = {}  # of those that are not done, all that are the same
    done: dict[Key, Result | None] = {}  # here; with the result where nothing is kept of it
    theirs: list[Task] = []

    def ours(wanted: Iterable[Task]) -> Iterator[Task]:
        for task in wanted:
            if task.key in seen:
                seen[task.key].append(task)
                continue
            if task.key in done:
                heard(task, done[task.key])
                continue
            claim = store.claim(task, again=retry)
            if claim == "finished":
                heard(task, None)
                continue
            seen[task.key] = [task]
            if claim == "ours":
                yield task
            else:
                theirs.append(task)

    def run(wanted: Iterable[Task]) -> None:
        for result in engine.results(wanted, suites):
            done[result.task.key] = None if store.save(result) else result
            for task in seen.pop(result.task.key, ()):
                heard(task, result)

    run(ours(tasks))
    while theirs:
        time.sleep(_PAUSE)
        waiting, theirs = theirs, []
        again = [task for task in waiting if _is_ours(store, task, theirs, heard, seen)]
        if again:
            run(again)


def _is_ours(store: Store, task: Task, theirs: list[Task], heard: Heard, seen: dict[Key, list[Task]]) -> bool:
    claim = store.claim(task)
    if claim == "theirs":
        theirs.append(task)
    elif claim == "finished":
        for one in seen.pop(task.key, ()):
            heard(one, None)
    return claim == "ours"
