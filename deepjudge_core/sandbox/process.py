"""Starts a worker, talks to it within limits of time, and ends it."""

import contextlib
import logging
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from deepjudge_core.errors import CODES, ModelError, UsageError
from deepjudge_core.naming import option
from deepjudge_core.sandbox import limits
from deepjudge_core.sandbox.channel import ArraySpec, Channel, ChannelError, ClosedError, Expected, LateError, Message
from deepjudge_core.sandbox.policy import Sandbox
from deepjudge_core.sandbox.scratch import Scratch
from deepjudge_core.sandbox.starting import Descriptors, Kind, start_alone, start_copy
from deepjudge_core.text import clean
from deepjudge_core.types import Array

_LOGGER = logging.getLogger(__name__)
USAGE = "usage:"  # before the code of an error that is the user's, and not the model's
_LONGEST_LOG, _LONGEST_FAILURE = 2**14, 1000
_FRAMEWORK = 2**30  # what importing one takes, where it is counted with the model
_MOST_WRITTEN, _MOST_FILES = limits.FILE_SIZE, 10_000  # in the scratch folder
_PAUSE = 0.1
_GRACE = 5.0  # seconds for a process that closed its channel to end


class Worker:
    """A process for one model."""

    def __init__(
        self,
        label: str,
        model: Path,
        scratch: Scratch,
        sandbox: Sandbox,
        readable: Sequence[Path],
        kind: Kind | None = None,
        held: Sequence[int] = (),
        *,
        patient: bool = False,
    ) -> None:
        """Start it; use as a context, which ends it.

        Args:
            label: What its model is called in messages.
            model: The model's copy, which messages call the same.
            scratch: Its folders.
            sandbox: Its limits.
            readable: What it may read; held here on macOS only, elsewhere by the worker itself.
            kind: Of the processes that it can be a copy of one of; None to start it from scratch.
            held: Open files that it reads. With any, it is started from scratch: a copy may open no file again that
                the process does not see that it is a copy of.
            patient: Whether there is no limit to the time of all its answers together.
        """
        self._total: float | None = None if patient else sandbox.total
        self._deadline: float | None = None  # from its first answer on: until then it may wait for another one's end
        self._label, self._model, self._scratch, self._sandbox = label, model, scratch, sandbox
        self._gone: _GoneError | None = None
        self._log = bytearray()
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        log_out, log_in = os.pipe()
        theirs = Descriptors(theirs_in, theirs_out, log_in)
        try:
            copy = start_copy(kind, scratch.work, theirs) if kind and sandbox.template and not held else None
            self._process = copy or start_alone(scratch.work, readable, theirs, held)
        finally:
            theirs.close()
        self._channel = Channel(ours_in, ours_out, self._watch)
        self._reader = threading.Thread(target=self._keep_log, args=(log_out,), daemon=True)
        self._reader.start()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        if self._gone is None:  # else its number may be another's by now
            self._end()
        self._channel.close()

    def send(self, values: Mapping[str, Any], arrays: Sequence[Array] = ()) -> None:
        """Ask something.

        Raises:
            ModelError: When it is gone, or does not listen.
        """
        with self._talking():
            self._channel.send(Message(values, arrays), self._patience())

    def receive(self, expected: Expected = lambda values: (), *, failing: str = "cannot-answer") -> Message:
        """Its answer.

        Args:
            expected: Which arrays it must have, from its values.
            failing: The code of an error where it fails.

        Raises:
            ModelError: When it is gone, takes too long, fails, or answers something else.
            UsageError: When it says that it was asked wrongly.
        """

        def unless_failed(values: Mapping[str, Any]) -> Sequence[ArraySpec]:
            return () if "failed" in values else expected(values)

        with self._talking():
            if self._deadline is None and self._total is not None:
                self._deadline = time.monotonic() + self._total
            message = self._channel.receive(unless_failed, self._patience())
        if "failed" in message.values:
            self._tell_log()
            raise self._failure(message.values, failing)
        return message

    def refuse(self, reason: str) -> ModelError:
        """End it for an answer that cannot be; gives the error."""
        self._bury(_GoneError(f"expected an answer, found {clean(reason)}", "bad-answer"))
        return self._error()

    def _patience(self) -> float:
        # Seconds for the next answer.
        left = math.inf if self._deadline is None else self._deadline - time.monotonic()
        return max(0.0, min(self._sandbox.timeout, left))

    def _late(self) -> "_GoneError":
        if self._deadline is not None and time.monotonic() >= self._deadline:
            within, allowed = f"all answers within {self._total:g} s", option("Sandbox.total")
        else:
            within, allowed = f"an answer within {self._sandbox.timeout:g} s", option("Sandbox.timeout")
        return _GoneError(f"expected {within}, found none; allow more with {allowed}", "timed-out")

    @contextlib.contextmanager
    def _talking(self) -> Iterator[None]:
        if self._gone is None:
            try:
                yield
            except LateError:
                self._bury(self._late())
            except ClosedError:
                self._bury(self._cause_of_death())
            except ChannelError as error:
                self._bury(_GoneError(f"expected an answer, found {clean(str(error))}", "bad-answer"))
            except _GoneError as error:
                self._bury(error)
        # Once it is gone, the reason stays the same.
        if self._gone is not None:
            raise self._error()

    def _bury(self, reason: "_GoneError") -> None:
        self._gone = reason
        self._end()
        self._tell_log()

    def _error(self) -> ModelError:
        if self._gone is None:
            raise RuntimeError("the worker is still there")
        return ModelError(f"{self._label}: {self._gone}", code=self._gone.code)

    def _failure(self, values: Mapping[str, Any], failing: str) -> ModelError | UsageError:
        # Words of a process that a hostile model may have taken over.
        said = str(values["failed"])[:_LONGEST_FAILURE].replace(str(self._model), self._label)
        for folder in (self._scratch.model, self._scratch.work, self._scratch.folder):  # which are gone when it is read
            said = said.replace(f"{folder}/", "").replace(str(folder), "its folder")
        text, code = clean(said, _LONGEST_FAILURE), str(values.get("code"))
        if code.startswith(USAGE):
            finer = code.removeprefix(USAGE)
            return UsageError(text, code=finer if finer in CODES else None)
        if code == "out-of-memory":  # which libraries say in many ways
            return ModelError(f"{self._label}: {self._memory_error()}", code=code)
        if not text.startswith(f"{self._label}: "):
            text = f"{self._label}: {text}"
        return ModelError(text, code=failing)

    def _watch(self) -> None:
        # What the kernel does not count.
        written, files = self._scratch.written(_MOST_FILES)
        if written > _MOST_WRITTEN or files > _MOST_FILES:
            raise _GoneError(f"wrote {written / 2**20:.0f} MiB in {files} files", "too-much-written")
        threads = self._process.threads()
        if threads > limits.THREADS:
            raise _GoneError(f"started {threads} threads, of {limits.THREADS} at most", "too-many-threads")
        if sys.platform == "darwin":  # which does not hold a process to RLIMIT_AS
            pid = str(self._process.pid)
            output = subprocess.run(  # noqa: S603 - nothing of it is the model's
                ["/bin/ps", "-o", "rss=", "-p", pid], capture_output=True, text=True, check=False
            )
            used = output.stdout.strip()
            if used.isdigit() and int(used) * 1024 > self._sandbox.memory + _FRAMEWORK:
                raise self._memory_error()

    def _memory_error(self) -> "_GoneError":
        most = self._sandbox.memory / 2**20
        return _GoneError(
            f"it needs more than {most:.0f} MiB of memory; allow more with {option('Sandbox.memory')}", "out-of-memory"
        )

    def _cause_of_death(self) -> "_GoneError":
        status = self._process.status(_GRACE)
        self._reader.join(_GRACE)
        if any(words in self._log for words in (b"bad_alloc", b"MemoryError", b"annot allocate memory")):
            return self._memory_error()
        with contextlib.suppress(ValueError):
            if status is not None:
                return _GoneError(f"its process was ended by {signal.Signals(-status).name}", "crashed")
        return _GoneError(f"its process ended with status {status}", "crashed")

    def _end(self) -> None:
        self._process.end()
        self._reader.join(_GRACE)

    def _keep_log(self, descriptor: int) -> None:
        # Read to the end, so that who writes much is not kept waiting; only the last of it is of use.
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            while data := file.read(2**16):
                self._log += data
                del self._log[:-_LONGEST_LOG]

    def _tell_log(self) -> None:
        if _LOGGER.isEnabledFor(logging.DEBUG):
            time.sleep(_PAUSE)  # until what was written before has been read
        for line in self._log.decode("utf-8", "replace").splitlines():
            _LOGGER.debug("%s: %s", self._label, clean(line, _LONGEST_FAILURE))
        self._log.clear()


class _GoneError(Exception):
    # Why a worker had to be ended, or ended by itself.

    def __init__(self, text: str, code: str) -> None:
        super().__init__(text)
        self.code = code
