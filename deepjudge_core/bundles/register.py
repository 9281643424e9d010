"""The register of a suite's runs: a line for each time that suspects were judged by it, chained by SHA-256.

Whoever tries many suspects, or many rules, until a verdict pleases leaves a line each time; a commitment holds the
register's head, and a time-stamp of that fixes what had been tried by then.
"""

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from deepjudge_core.errors import FileFormatError
from deepjudge_core.files import storage
from deepjudge_core.files.documents import Count, Document, Sha256, parse, plain
from deepjudge_core.files.reading import LARGEST_JSON, open_regular, parse_json
from deepjudge_core.report.documents import AuditReport

FIRST = "0" * 64
Decided = tuple[str | None, str, str | None]
"""Of a suspect its SHA-256, the decision, and what a copy points to."""
_TIME = "%Y-%m-%dT%H:%M:%SZ"


class RunsHead(Document, frozen=True):
    """How far a register had come.

    Attributes:
        count: Lines.
        head: SHA-256 of the last one; zeros where there is none.
    """

    count: Count
    head: Sha256


class Run(Document, frozen=True, kw_only=True):
    """That suspects were judged by a suite.

    Attributes:
        suite: Digest of the suite.
        suspects: SHA-256 of each model, in the report's order; None of one that could not be opened.
        settings: SHA-256 of how they were judged: the terms.
        verdicts: SHA-256 of what was decided of each.
        time: When, in UTC, by the clock of who judged.
        previous: SHA-256 of the line before; zeros in the first.
    """

    suite: Sha256
    suspects: tuple[Sha256 | None, ...]
    settings: Sha256
    verdicts: Sha256
    time: str
    previous: Sha256


def register_beside(suite: Path) -> Path:
    """The register that belongs to a suite's file."""
    return suite.with_name(f"{suite.name.removesuffix('.safetensors')}.runs.jsonl")


def run_of(suite: str, decided: Sequence[Decided], settings: object, before: bytes) -> bytes:
    """A register with one run more.

    Args:
        suite: Digest of the suite.
        decided: What came of each suspect.
        settings: By what was judged, as JSON values.
        before: The register up to now.

    Raises:
        ValueError: When that is none.
    """
    runs = parse_register(before)
    now = datetime.now(UTC).strftime(_TIME)
    run = Run(
        suite=suite,
        suspects=tuple(digest for digest, _, _ in decided),
        settings=digest_of(settings),
        verdicts=digest_of(decided),
        time=max(now, runs[-1].time) if runs else now,
        previous=head_of(before).head,
    )
    return before + _dump(plain(run)) + b"\n"


def decided_in(report: AuditReport) -> list[Decided]:
    """What a report says of each suspect."""
    return [(suspect.digest, suspect.decision, suspect.points_to) for suspect in report.suspects]


def digest_of(values: object) -> str:
    """SHA-256 of JSON values, whatever the order of their keys."""
    return hashlib.sha256(_dump(values)).hexdigest()


def head_of(register: bytes, count: int | None = None) -> RunsHead:
    """How far a register has come, or had when it had so many lines."""
    lines = register.splitlines()[:count]
    return RunsHead(len(lines), hashlib.sha256(lines[-1]).hexdigest() if lines else FIRST)


@lru_cache(maxsize=1)  # who adds a run looks at those before it three times
def parse_register(register: bytes) -> tuple[Run, ...]:
    """The runs of a register, each of which belongs behind the one before.

    Raises:
        ValueError: Naming the first line that does not, or what is wrong with it.
    """
    *lines, rest = register.split(b"\n")
    if rest:
        raise ValueError(f"line {len(lines) + 1}: is incomplete")
    runs, last = list[Run](), FIRST
    for number, line in enumerate(lines, 1):
        try:
            run = parse(Run, parse_json(line))
            if _dump(plain(run)) != line:
                raise ValueError("deepjudge does not write runs in this form")
            datetime.strptime(run.time, _TIME)
        except ValueError as error:
            raise ValueError(f"line {number}: is not a run: {error}") from None
        if run.previous != last:
            raise ValueError(f"line {number}: does not belong after the line before it")
        if runs and (run.time < runs[-1].time or run.suite != runs[0].suite):
            raise ValueError(f"line {number}: expected the same suite and a later time than on the line before it")
        runs.append(run)
        last = hashlib.sha256(line).hexdigest()
    return tuple(runs)


def read_register(path: Path) -> bytes:
    """A register in a file, after a look at its chain; empty where there is none.

    Raises:
        FileFormatError: When it is damaged.
    """
    if not path.exists():
        return b""
    with open_regular(path, "a register of runs", LARGEST_JSON) as file:
        data = file.read()
    try:
        parse_register(data)
    except ValueError as error:
        raise FileFormatError(f"{path}: expected a register of runs: {error}", code="damaged-file") from None
    return data


def add_run(path: Path, suite: str, decided: Sequence[Decided], settings: object) -> bytes:
    """Register a run of a suite, in a new register where the one that is there is of another suite.

    Args:
        path: Where the register is, or is going to be.
        suite: Digest of the suite.
        decided: What came of each suspect.
        settings: By what was judged, as JSON values.

    Returns:
        The register.

    Raises:
        FileFormatError: When it is damaged, or cannot be written.
    """
    before = read_register(path)
    if before and parse_register(before)[0].suite != suite:
        before = b""
    register = run_of(suite, decided, settings, before)
    storage.write_bytes(path, register)
    return register


def _dump(values: Any) -> bytes:
    return json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode("ascii")
