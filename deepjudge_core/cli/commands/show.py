"""``deepjudge show``."""

import json
import sys
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from rich.console import Console

from deepjudge_core.cli import display
from deepjudge_core.cli.command import Command
from deepjudge_core.cli.status import NO_COPY
from deepjudge_core.errors import FileFormatError
from deepjudge_core.files import storage
from deepjudge_core.files.reading import read_json
from deepjudge_core.judging.calibration import load_controls
from deepjudge_core.report.documents import AUDIT, POWER
from deepjudge_core.settings import argument
from deepjudge_core.suites.observation import load_observation
from deepjudge_core.suites.suite import load_suite
from deepjudge_core.zoo import manifest

_LARGEST_COLOURED = 2**18  # bytes of JSON
_SCHEMAS = (AUDIT, manifest.SCHEMA, POWER)


@dataclass(frozen=True, kw_only=True)
class ShowCommand(Command):
    """Print what one of deepjudge's files holds."""

    file: Path = argument(
        "FILE", "a suite, an observation, a calibration, a report, a zoo.json or a power.json", reads=True
    )

    def run(self) -> int:
        """Print it."""
        path, out = self.file, display.console()
        if path.suffix == ".json":
            _show_json(out, path)
            return NO_COPY
        content = storage.read(path, ["suite", "observation", "calibration"])
        if content.kind == "suite":
            suite = load_suite(path)
            display.show_suite(out, suite)
            display.show_cases(out, suite)
        elif content.kind == "observation":
            display.show_observation(out, load_observation(path))
        else:
            _show_controls(out, path)
        return NO_COPY


def _show_controls(out: Console, path: Path) -> None:
    controls = load_controls(path)
    for control, stratum in zip_longest(controls.observations, controls.strata):
        display.show_observation(out, control)
        if stratum:
            display.say(out, f"stratum     {stratum}")
    for note in controls.notes:
        display.say(out, f"note        {note}")
    display.say(out, f"match       {controls.match}")
    display.say(out, f"suite       {controls.suite}")


def _show_json(out: Console, path: Path) -> None:
    report = read_json(path, "a deepjudge report")
    if not isinstance(report, dict) or report.get("schema") not in _SCHEMAS:
        raise FileFormatError(f"{path}: expected one of {', '.join(_SCHEMAS)}, found other JSON")
    # Both escape what controls a terminal. Colours take 400 times as much memory as the text.
    if out.is_terminal and path.stat().st_size <= _LARGEST_COLOURED:
        out.print_json(data=report, ensure_ascii=True)
    else:
        json.dump(report, sys.stdout, indent=2)
        sys.stdout.write("\n")
