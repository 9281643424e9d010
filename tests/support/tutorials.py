"""Tutorials: pages of Markdown whose files are written, whose programs are run, and whose output is compared.

A page is one if it has the line ``<!-- tutorial -->``. In a folder of its own, from top to bottom,

- a block of any language whose first line is a comment with the name of a file, as ``# models/make.py``, is written;
- any other block of ``python`` is a program, and is run;
- in a block of ``console``, each line that begins with ``$ `` is run by bash (``\\`` at its end continues it), and the
  lines below it are what it prints, errors and warnings among them. Directory and exported variables stay.

Blocks in HTML comments are run as well, and readers do not see them: there a page makes what its readers have.
Other blocks (``sh``, ``text``) are not looked at. ``<!-- needs sklearn -->`` skips the page where a module is missing.

If a page shows no output, none is compared. Else ``...`` on its own line stands for any number of lines, and within
a line for anything; decimals, digests and what draws tables are compared loosely, since processors round differently.
A command has to end with the status 0, or 1 or 3 if it is ``deepjudge`` (verdicts), unless the next one is ``echo $?``.
"""

import difflib
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

MARK = "<!-- tutorial -->"
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NAMED = re.compile(r"# ([\w./-]+\.\w+)\n")
_VERDICTS = (0, 1, 3)
_MINUTES = 10


@dataclass(frozen=True)
class File:
    """A file that the reader writes."""

    name: str
    text: str


@dataclass(frozen=True)
class Command:
    """What the reader types, and what it prints; the status is looked at where the reader does not."""

    typed: str
    output: str
    any_status: bool = False


def steps(page: str) -> Iterator[File | Command]:
    """What a page has its reader do, in its order."""
    for language, text in _BLOCK.findall(page):
        if named := _NAMED.match(text):
            yield File(named[1], text)
        elif language == "python":
            yield Command(f"python -c {shlex.quote(text)}", "")
        elif language == "console":
            yield from commands(text)


def commands(block: str) -> Iterator[Command]:
    """The commands of a block of ``console``."""
    first, *parts = re.split(r"^\$ ", block, flags=re.MULTILINE)
    assert not first.strip(), f"expected a command at the beginning of the block, found {first!r}"
    found = []
    for part in parts:
        typed = re.match(r"(?:.*\\\n)*.*\n?", part)[0]  # type: ignore[index]
        found.append((typed.rstrip("\n"), part[len(typed) :].rstrip("\n")))
    for (typed, output), (after, _) in zip(found, [*found[1:], ("", "")], strict=True):
        yield Command(typed, output, any_status=after == "echo $?")


def differences(expected: str, found: str, *, numbers: bool = False) -> str:
    """How what was printed differs from what a page shows; empty if it does not.

    Args:
        expected: What the page shows.
        found: What was printed.
        numbers: Whether whole numbers may differ, too.
    """
    shown, printed = (_loosely(text, numbers) for text in (expected, found))
    if re.fullmatch("".join(_pattern(line) for line in shown), "".join(f"{line}\n" for line in printed)):
        return ""
    return "\n".join(difflib.unified_diff(shown, printed, "the page", "what was printed", lineterm=""))


def without_progress(text: str) -> str:
    """What was printed, without the lines that a slow machine has more of."""
    return re.sub(r"^deepjudge: .*\d% done.*\n", "", text, flags=re.MULTILINE)


def _loosely(text: str, numbers: bool) -> list[str]:
    text = without_progress(text)
    text = re.sub(r"\b[0-9a-f]{64}\b", "DIGEST", text)
    text = re.sub(r"-?\d+\.\d+(e[+-]\d+)?|\d+e[+-]\d+", "0.0", text)
    if numbers:
        text = re.sub(r"(?<![\w.-])(?:0\.0|\d+)(?![\w.-])", "0", text)
    # The width of a column hangs on the numbers in it.
    lines = (re.sub(r"[\s\u2500-\u257f]+", " ", line).strip() for line in text.splitlines())
    return [line for line in lines if line]


def _pattern(line: str) -> str:
    if line == "...":
        return r"(?:.*\n)*?"
    return ".*".join(map(re.escape, line.split("..."))) + r"\n"


def follow(page: str, folder: Path, path: Mapping[str, str]) -> None:
    """Do in a folder what a page has its reader do.

    Args:
        page: The text of the page.
        folder: An empty folder.
        path: More variables of the environment.

    Raises:
        AssertionError: If something prints or ends otherwise than the page says.
    """
    state, status = folder.parent / f"{folder.name}.state", 0
    state.write_text(f"cd {shlex.quote(str(folder))}\n")
    for step in steps(page):
        if isinstance(step, File):
            file = folder / step.name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(step.text, "utf-8")
            continue
        status, printed = _run(step.typed, state, status, _environment(folder, path))
        shown = f"$ {step.typed}\n{printed}"
        passing = _VERDICTS if step.typed.startswith("deepjudge ") else (0,)
        assert step.any_status or status in passing, f"ended with the status {status}:\n{shown}"
        if step.output:
            assert not (wrong := differences(step.output, printed)), f"{wrong}\n\n{shown}"


def _environment(home: Path, more: Mapping[str, str]) -> dict[str, str]:
    where = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "HOME": str(home)}
    return os.environ | where | {"COLUMNS": "100", "NO_COLOR": "1", "LC_ALL": "C.UTF-8"} | more


def _run(typed: str, state: Path, before: int, environment: Mapping[str, str]) -> tuple[int, str]:
    quoted = shlex.quote(str(state))
    keep = f"{{ export -p; printf 'cd %q\\n' \"$PWD\"; }} > {quoted}"
    script = f". {quoted}\n(exit {before})\n{typed}\nstatus=$?\n{keep}\nexit $status\n"
    done = subprocess.run(
        ["bash", "-c", script],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=60 * _MINUTES,
    )
    return done.returncode, done.stdout
