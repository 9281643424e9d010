"""Files whose bits were changed at random: each is read or refused in one line, soon and without much memory.

``python benchmarks/fuzz.py`` damages the same files for an hour.
"""

import contextlib
import itertools
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fuzzing import DefectError, Reader, attempt, attempts, corpus

from deepjudge_core.errors import FileFormatError

ATTEMPTS = 300
CAP = 2**28  # bytes of memory that all of it may take


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Reader]]:
    folder = tmp_path_factory.mktemp("bits")
    with pytest.MonkeyPatch.context() as patch, contextlib.chdir(folder):
        patch.syspath_prepend(folder)
        yield corpus(folder)


def test_whole_files_are_read(readers: dict[str, Reader]) -> None:
    assert {kind for kind, reader in readers.items() if not attempt(reader, reader.whole, Path("read"))} == set()


def test_damaged_files_are_read_or_refused(readers: dict[str, Reader]) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused = 0
    for kind, data in itertools.islice(attempts(readers, 0), ATTEMPTS):
        try:
            refused += not attempt(readers[kind], data, Path("read"))
        except DefectError as error:
            pytest.fail(f"{kind}: {error}: {data[:2000]!r}")
    assert refused > ATTEMPTS / 4  # the damages are such
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown * (1 if sys.platform == "darwin" else 1024) < CAP


def test_what_is_no_line_of_ours_is_a_defect(tmp_path: Path) -> None:
    def raising(path: Path) -> None:
        raise ValueError(path.read_bytes())

    def lines(path: Path) -> None:
        raise LinesError("a\nb")

    class LinesError(FileFormatError):
        def __str__(self) -> str:
            return "a\nb"

    for read in (raising, lines):
        with pytest.raises(DefectError):
            attempt(Reader(b"", read), b"x", tmp_path)


def test_damages_are_the_same_for_a_seed(readers: dict[str, Reader]) -> None:
    one, other = (list(itertools.islice(attempts(readers, 5), 40)) for _ in range(2))
    assert one == other
    assert any(data != readers[kind].whole for kind, data in one)
