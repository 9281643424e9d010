"""Runs commands in a folder with models of the toy framework."""

import math
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import toys

from deepjudge_core.cli import terminal
from deepjudge_core.cli.main import main
from deepjudge_core.sandbox.policy import Confinement

METRICS = ("answers", "surety", "outputs")
HOW = ("--rule", "nearest", "--metric", ",".join(METRICS))
MADE = ("-n", "20", "-g", "shove,poke")
PATH = "toys-1.0.dist-info"
# The same as HOW and MADE.
WHOLE = """output = "out"
metrics = ["answers", "surety", "outputs"]

[victim]
path = "victim.toy"

[inputs]
path = "in.npz"

[suite]
seeds = 20

[generators.shove]
[generators.poke]

[rule]
name = "nearest"

[[controls]]
path = "controls"

[[suspects]]
path = "copy.toy"

[[suspects]]
path = "honest.toy"
"""
# The toys are opened in this process, which is faster: what the sandbox does to commands, test_sandbox.py looks at.
OPENING = ("compare", "key", "embed", "suite", "observe", "calibrate", "judge", "fleet", "audit", "power", "verify")


def install_toys(folder: Path) -> None:
    """What pip writes, for the module beside this file."""
    info = folder / PATH
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toys\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[deepjudge]\ntoys = toys\n")


def write(text: str, *changes: tuple[str, str], path: str = "audit.toml") -> None:
    for old, new in changes:
        assert text.count(old) >= 1, old
        text = text.replace(old, new, 1)
    Path(path).write_text(text)


class Cli:
    """Runs commands in a folder with a victim, suspects, controls and inputs."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.capsys, self.monkeypatch = folder, capsys, monkeypatch
        self.confined = False
        # What a command says of its progress hangs on how busy the machine is.
        monkeypatch.setattr(terminal, "_EVERY", math.inf)

    def __call__(self, *arguments: object) -> tuple[int, str, str]:
        words = [str(argument) for argument in arguments]
        if words and words[0] in OPENING and not self.confined:
            if any(word.endswith(".toml") for word in words):
                self.monkeypatch.setattr(Confinement, "policy", None)
            else:
                words.append("--no-sandbox")
        status = main(words)
        out, err = self.capsys.readouterr()
        assert "Traceback" not in out + err
        return status, out, err

    def refuses(
        self, status: int, code: str, *arguments: object, facts: Sequence[str] = (), leaves: Path | None = None
    ) -> str:
        """Run a command that says one line, which has these facts and ends with this code, and leaves all as it was.

        Args:
            status: The exit status.
            code: One of ``deepjudge_core.errors.CODES``.
            arguments: The command.
            facts: Names and numbers that the line has to hold; not its wording.
            leaves: A suite that the command may have finished before.

        Returns:
            The line.
        """
        before = self.content()
        ended, out, err = self(*arguments)
        [line] = err.splitlines()
        assert line.startswith("deepjudge: ")
        assert line.endswith(f" ({code})"), line
        assert ended == status
        missing = [fact for fact in facts if fact not in line]
        assert not missing, f"{missing} in {line}"
        assert out == "" if leaves is None else out.startswith("victim ")
        if leaves is not None:
            leaves.unlink()
            leaves.with_name("queries.jsonl").unlink(missing_ok=True)  # of an audit
            shutil.rmtree(f"{leaves.parent}-work", ignore_errors=True)
        assert self.content() == before
        return line

    def content(self) -> dict[str, bytes]:
        return {str(p): p.read_bytes() for p in self.folder.rglob("*") if p.is_file() and PATH not in str(p)}


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    install_toys(tmp_path)
    toys.save_model(Path("victim.toy"))
    toys.save_model(Path("copy.toy"), noise=0.05)
    toys.save_model(Path("honest.toy"), seed=9)
    Path("controls").mkdir()
    for seed in (1, 2, 3, 4):
        toys.save_model(Path(f"controls/c{seed}.toy"), seed=seed)
    x, y = toys.make_inputs(toys.make_model())
    np.savez("in.npz", x=x, y=y)
    return Cli(tmp_path, capsys, monkeypatch)
