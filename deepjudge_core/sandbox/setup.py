"""What a worker is told before it is told of a model: what it may read and take, and by which adapter."""

import contextlib
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deepjudge_core.components.kinds import Adapter
from deepjudge_core.components.registry import Adapters
from deepjudge_core.errors import ModelError, UsageError
from deepjudge_core.models.isolation import Isolation
from deepjudge_core.sandbox import confine, landlock
from deepjudge_core.sandbox.intake import Held
from deepjudge_core.sandbox.policy import Sandbox
from deepjudge_core.sandbox.process import Worker
from deepjudge_core.sandbox.scratch import Scratch
from deepjudge_core.sandbox.starting import THREADS, Kind
from deepjudge_core.text import clean

LONGEST_REASON = 1000  # characters
_MOST_NOTES = 10  # lines


def plugin_of(adapter: Adapter, adapters: Adapters, label: str) -> str:
    """The entry point by which another process finds an adapter.

    Raises:
        UsageError: When it has none; ``label`` is what the message calls the model.
    """
    plugin = adapters.plugin(adapter.name).value
    if plugin is None:
        raise UsageError(
            f"{label}: its adapter is not installed as a plugin, so it cannot open the model in another process"
        )
    return plugin


@contextlib.contextmanager
def begun(
    label: str,
    model: Path,
    adapter: Adapter,
    plugin: str,
    scratch: Scratch,
    sandbox: Sandbox,
    *,
    frameworks: bool = True,
    gradients: bool = False,
    own_code: Any = None,
    held: Held | None = None,
) -> Iterator[Worker]:
    """Start the worker of a model, which confines itself, and then says how far: see :func:`isolation_of`.

    Args:
        label: What the model is called in messages.
        model: Its copy.
        adapter: What opens it.
        plugin: The entry point that gives the adapter.
        scratch: Where the copy is, and where the worker may write.
        sandbox: How it is confined.
        frameworks: Whether what the adapter needs to open models is imported.
        gradients: Whether it is going to be asked for gradients.
        own_code: The user's own code, which makes the network, as ``arch`` has it.
        held: Its files that are open and were not copied.
    """
    common = tuple(dict.fromkeys((*confine.system_paths(), *confine.python_paths(), *_packages(plugin))))
    descriptors = held.descriptors if held else ()
    readable = (*common, scratch.model, *(Path(f"/proc/self/fd/{number}") for number in descriptors))
    kind = Kind(plugin, adapter.name, common, frameworks, own_code=own_code is not None)
    with Worker(label, model, scratch, sandbox, readable, kind, descriptors, patient=gradients) as worker:
        worker.send(
            {
                "label": label,
                "plugin": plugin,
                "adapter": adapter.name,
                "own_code": own_code,
                "folder": str(Path.cwd()),
                "model": str(model),
                "readable": [str(path) for path in readable],
                "writable": str(scratch.work),
                "forbidden": str(scratch.forbidden),
                "landlock": landlock.version() > 0,
                "memory": sandbox.memory,
                "gradients": gradients,
                "frameworks": frameworks,
                "threads": os.environ.get(THREADS),
            }
        )
        yield worker


def isolation_of(worker: Worker) -> tuple[Isolation, str]:
    """How far a worker is confined, and what it could do and should not.

    Raises:
        ModelError: When it is gone, or says something else.
    """
    values = worker.receive(failing="cannot-open").values
    try:
        return Isolation(values["isolation"]), clean(", ".join(map(str, values["leaks"])), LONGEST_REASON)
    except (KeyError, ValueError, TypeError):
        raise worker.refuse("no isolation level") from None


def found_level(isolation: Isolation, leaks: str) -> str:
    """A level, and what keeps it from being higher, as a part of a message."""
    return f"{isolation}, in which it can {leaks}" if leaks else str(isolation)


def check_required(label: str, isolation: Isolation, leaks: str, sandbox: Sandbox) -> None:
    """Refuse a level that is not enough, where the full sandbox is required.

    Raises:
        ModelError: Naming the level.
    """
    if sandbox.required and isolation is not Isolation.FULL:
        found = found_level(isolation, leaks)
        raise ModelError(
            f"{label}: expected the full sandbox ({Isolation.FULL}), found {found}; use a system that has it",
            code="no-sandbox",
        )


def clean_notes(notes: Any) -> tuple[str, ...]:
    """What a worker says that a reader should know: a few clean lines."""
    few = notes[:_MOST_NOTES] if isinstance(notes, list) else ()
    return tuple(clean(str(note), LONGEST_REASON) for note in few)


def _packages(plugin: str) -> Iterator[Path]:
    # The code that the worker runs, wherever it is installed; not the folders that it lies in.
    for name in ("deepjudge_core", plugin.partition(":")[0].partition(".")[0]):
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            continue
        yield from map(Path, spec.submodule_search_locations or [spec.origin])
