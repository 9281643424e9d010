"""The unit of work: one suspect answers one suite. What is asked, and what came of it, are plain data."""

import hashlib
import os
import platform
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from deepjudge_core.auditing.session import Session
from deepjudge_core.auditing.subject import ModelFile, answer_each
from deepjudge_core.components.opening import digested
from deepjudge_core.components.registry import Registry, load_registry
from deepjudge_core.errors import DeepJudgeError, MissingExtraError, UsageError
from deepjudge_core.files.digests import file_key
from deepjudge_core.files.fetching import fetch
from deepjudge_core.models.device import CPU
from deepjudge_core.naming import flagged
from deepjudge_core.observing.settings import QuerySettings
from deepjudge_core.sandbox.policy import Sandbox
from deepjudge_core.suites.observation import Observation, pack_observation
from deepjudge_core.suites.suite import Suite
from deepjudge_core.text import clean
from deepjudge_core.version import VERSION

Status = Literal["answered", "failed", "skipped", "undone"]
"""What came of a task: ``failed`` and ``skipped`` (its inputs do not fit the suite) are the suspect's own and stay so;
``undone`` is a matter of that moment or place, so that the next run tries again."""
Key = tuple[str, str, str]
"""What tells a task from all others: the digests of suite, suspect and settings."""
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
"""Variables by which each worker computes with one thread, since there are as many workers as cores."""
# Of errors that say something of this machine, moment or call, and nothing of the suspect.
_UNDONE = frozenset(
    {"cannot-read", "cannot-write", "missing-extra", "no-device", "no-sandbox", "needs-sandbox", "plugin-failed"}
)
# Of a suspect behind an API, where the next run may find it answering, and with what is kept of its answers goes on.
_UNDONE_ELSEWHERE = frozenset({"cannot-answer", "over-budget", "timed-out"})
_OTHER_INPUTS = "other-inputs"
_T = TypeVar("_T")


@dataclass(frozen=True)
class Task:
    """One suspect that is asked one suite; plain data, which another process or machine can be sent.

    Attributes:
        suite: Digest of the suite.
        suspect: SHA-256, in hex, of the suspect's bytes.
        settings: Digest of how it is opened and asked; see :class:`~deepjudge_core.auditing.identity.Identity`.
        source: Where the suspect is: an absolute path.
        address: Where it was fetched from, for a worker that does not see that path; None if it was here already.
        name: What the user calls it.
        options: Of the adapter that opens it.
        query: How it is asked.
        sandbox: How it is confined; None for not at all.
        device: What it runs on.
        apart: Names of the files beside it that it may not take for its weights.
        version: The deepjudge that asks for it.
    """

    suite: str
    suspect: str
    settings: str
    source: str
    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    query: QuerySettings = field(default_factory=QuerySettings)
    sandbox: Sandbox | None = None
    device: str = CPU
    apart: tuple[str, ...] = ()
    address: str | None = None
    version: str = VERSION

    @property
    def key(self) -> Key:
        """What tells it from all others."""
        return self.suite, self.suspect, self.settings


@dataclass(frozen=True)
class Result:
    """What came of a task; plain data.

    Attributes:
        task: The task.
        status: Whether the suspect answered.
        reason: Why it did not, without its name in front; None where it answered.
        code: What kind of failure that was, as one of :data:`~deepjudge_core.errors.CODES`; None where it answered.
        digest: SHA-256, in hex, of the observation's file; None where there is none.
        observation: The observation's file; None where there is none.
        isolation: The level at which the suspect was kept; None where it did not answer.
        seconds: How long it took.
        worker: Who did it, as host and process.
        warnings: What was said meanwhile.
    """

    task: Task
    status: Status
    reason: str | None = None
    code: str | None = None
    digest: str | None = None
    observation: bytes | None = None
    isolation: str | None = None
    seconds: float = 0.0
    worker: str = ""
    warnings: tuple[str, ...] = ()


def perform(
    task: Task, suite: Suite, *, registry: Registry | None = None, flags: Mapping[str, str] | None = None
) -> Result:
    """Ask a suspect a suite. Whatever is wrong with the suspect is a part of the result, and nothing is raised for it.

    Args:
        task: What is asked for.
        suite: The suite of the task.
        registry: Where the adapters are; by default every installed one.
        flags: What messages call settings; see :func:`~deepjudge_core.naming.flagged`.
    """
    begun, said = time.monotonic(), list[str]()
    with warnings.catch_warnings(record=True) as caught, flagged(flags):
        warnings.simplefilter("default")
        result = _performed(task, suite, registry)
        said += dict.fromkeys(str(one.message).strip().partition("\n")[0] for one in caught)
    return replace(result, seconds=time.monotonic() - begun, worker=this_worker(), warnings=tuple(said))


def _performed(task: Task, suite: Suite, registry: Registry | None) -> Result:
    if task.version != VERSION:
        reason = f"expected a worker with deepjudge {task.version}, found {VERSION}; install the same everywhere"
        return Result(task, "undone", reason, "wrong-usage")
    if suite.digest != task.suite:
        reason = f"expected the suite {task.suite[:12]}, found {suite.digest[:12]}"
        return Result(task, "undone", reason, "wrong-file")
    registry = registry or load_registry()
    undone = _UNDONE | (_UNDONE_ELSEWHERE if registry.adapters.is_remote(task.source) else frozenset())
    try:
        observation = _asked(task, suite, registry)
        file, isolation = pack_observation(observation), str(observation.model.isolation)
        return Result(task, "answered", digest=hashlib.sha256(file).hexdigest(), observation=file, isolation=isolation)
    except (UsageError, MissingExtraError) as error:  # of the call, and of the worker
        return _failure(task, error, "undone")
    except DeepJudgeError as error:
        if error.code in undone or any(isinstance(cause, OSError) for cause in _causes(error)):
            return _failure(task, error, "undone")
        return _failure(task, error, "skipped" if error.code == _OTHER_INPUTS else "failed")
    except OSError as error:
        return Result(task, "undone", error.strerror or str(error), "cannot-read")
    except MemoryError as error:
        return Result(task, "undone", f"not enough memory for this: {error}", "out-of-memory")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _asked(task: Task, suite: Suite, registry: Registry) -> Observation:
    path = Path(task.source)
    if task.address and not path.exists():
        with tempfile.TemporaryDirectory(prefix="deepjudge-") as here:
            return _asked(replace(task, source=str(fetch(task.address, Path(here))), address=None), suite, registry)
    apart = frozenset(filter(None, (file_key(path.with_name(name)) for name in task.apart)))
    session = Session(registry, task.sandbox, models=apart, device=task.device)
    subject = ModelFile(path, task.options, query=task.query)
    subject.check(suite)
    [observation] = [answer() for answer in answer_each([subject], suite, session)]
    if observation.model.digest != task.suspect:  # adapters may have digests of their own
        adapter = registry.adapters.of_file(path, subject.name)
        if digested(path, adapter).digest != task.suspect:
            raise _ChangedError(f"{path}: was changed while it was being asked; the next run asks it again")
    return replace(observation, model=replace(observation.model, name=task.name))


class _ChangedError(UsageError):
    code = "conflict"


def _failure(task: Task, error: DeepJudgeError, status: Status) -> Result:
    reason = str(error).removeprefix(f"{clean(task.source)}: ")
    return Result(task, status, reason.removeprefix(f"{task.source}: "), error.code)


def lost(task: Task, why: str) -> Result:
    """What came of a task whose worker was lost with it, again and again.

    Args:
        task: The task.
        why: What became of the workers.
    """
    return Result(task, "failed", why, "crashed")


def this_worker() -> str:
    """This process, as host and number."""
    return f"{platform.node()}:{os.getpid()}"


def pack(value: Any) -> bytes:
    """Plain data as bytes; :func:`unpack` reads them, and builds nothing but what it was told."""
    return msgspec.msgpack.encode(value)


def unpack(data: bytes, kind: type[_T]) -> _T:
    """The value that :func:`pack` wrote.

    Raises:
        ValueError: When it is none of this kind.
    """
    return msgspec.msgpack.decode(data, type=kind)
