"""Models and inputs from what a user typed: paths, folders, globs, files of arrays."""

import glob
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from deepjudge_core.auditing.folders import SKIPPED, Found, Skipped, by_code, look_at, look_into
from deepjudge_core.auditing.session import Session
from deepjudge_core.cli import terminal
from deepjudge_core.cli.many import FolderSettings
from deepjudge_core.components.registry import Adapters, load_registry
from deepjudge_core.components.strata import WORDS, Stratum, stratum_of
from deepjudge_core.errors import FileFormatError, ModelError, UsageError
from deepjudge_core.files.fetching import is_address, matches
from deepjudge_core.judging.fitting import Offer
from deepjudge_core.judging.judge import Judge
from deepjudge_core.judging.settings import JudgeSettings
from deepjudge_core.naming import option
from deepjudge_core.sandbox.policy import Confinement
from deepjudge_core.sandbox.scratch import sweep
from deepjudge_core.suites.inputs import Inputs, Offered
from deepjudge_core.suites.ranges import hull, is_one
from deepjudge_core.suites.settings import ArraySettings, InputSettings
from deepjudge_core.text import is_url

MODELS = "a model file, or the URL of a model behind an API; a folder or a quoted glob means all models in it"
_OBSERVATION = ".safetensors"


@dataclass(frozen=True)
class StratumControls:
    """Controls of one stratum.

    Attributes:
        stratum: What they have in common with the victim.
        names: Files, folders and globs.
    """

    stratum: Stratum
    names: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> "StratumControls":
        """Read ``STRATUM=CONTROL,...``; a path that there is is taken whole, with its commas.

        Raises:
            UsageError: When it is none.
        """
        name, equals, controls = text.partition("=")
        try:
            stratum = stratum_of(name)
        except UsageError:
            form = f"expected STRATUM=CONTROL,..., where STRATUM is {WORDS}; found {text!r}"
            raise UsageError(form, code="wrong-value") from None
        if not controls:
            form = f"expected {name}=CONTROL,..., the controls of this stratum, found {text!r}"
            raise UsageError(form, code="wrong-value" if equals else "missing-value")
        return cls(stratum, tuple(_listed(controls)))


def _listed(text: str) -> list[str]:
    there = os.path.exists(text)  # noqa: PTH110 - of any text
    return [text] if there else [name for name in text.split(",") if name]


def controls_of(
    controls: Sequence[str],
    strata: Sequence[StratumControls],
    adapters: Adapters,
    folders: FolderSettings | None = None,
) -> tuple[list[tuple[str, Stratum | None]], tuple[Skipped, ...]]:
    """The files of controls, each with its stratum where that was said, and what else was in their folders.

    Raises:
        ModelError: When a folder or glob holds no model.
    """
    given: list[tuple[Sequence[str], Stratum | None]] = [(controls, None)]
    given += [(group.names, group.stratum) for group in strata]
    found = [(expand(names, adapters, folders), stratum) for names, stratum in given]
    files = [(file, stratum) for one, stratum in found for file in one.models]
    return files, tuple(skipped for one, _ in found for skipped in one.skipped)


def expand(names: Iterable[str], adapters: Adapters, folders: FolderSettings | None = None) -> Found:
    """Model files, in the order given; those of a folder or glob sorted; and what else is in folders and globs.

    What is named twice, such as by itself and through its folder, is there once.

    A folder that is itself a model counts as a file.
    Stored observations are taken where they are named, or a glob ends as their names do: beside them may lie other
    files of this tool. A name that does not exist stays as it is, so that opening it says so while the others are still
    judged; so does a folder or glob that holds no model.

    Raises:
        ModelError: When there is no model at all.
    """
    recursive = folders is not None and folders.recursive
    found, empty = Found(), list[tuple[str, str]]()
    for name in names:
        path = Path(name)
        if is_url(name):
            here = Found((name,))
        elif is_address(name):
            here = Found(matches(name))
        elif path.is_dir() and not adapters.reads(path):
            here = look_into(path, adapters, recursive=recursive)
        elif not path.exists() and glob.has_magic(name):
            files = sorted(glob.glob(name))  # noqa: PTH207
            if name.endswith(_OBSERVATION):
                here = Found(tuple(files))
            else:
                here = look_at(map(Path, files), adapters, recursive=recursive)
        else:
            here = Found((name,))
        if not here.models:
            pattern = (path if path.is_dir() else path.parent) / f"*{_OBSERVATION}"
            stored = f"; stored observations are given as '{pattern}', with {option('QuerySettings.stored', True)}"
            hint = stored if glob.glob(str(pattern)) else ""  # noqa: PTH207
            kinds = "; ".join(f"{SKIPPED[code]}: {len(some)}" for code, some in by_code(here.skipped))
            empty.append((name, f" ({kinds}){hint}" if kinds else hint))
        found += here
    if empty and not found.models:
        name, hint = empty[0]
        raise ModelError(
            f"{name}: expected a model, a file that ends in {', '.join(adapters.own_suffixes)}, found none{hint}"
        )
    found += Found(tuple(name for name, _ in empty))
    # What is named twice, by a folder and by a glob, is one model.
    models = {os.path.abspath(name): name for name in reversed(found.models)}  # noqa: PTH100 - links stay
    return Found(tuple(name for name in found.models if models.pop(os.path.abspath(name), None)), found.skipped)  # noqa: PTH100


def load(settings: InputSettings) -> Offered | None:
    """The inputs, after a word about what may be a mistake; None where there are to be none."""
    if settings.path is None:
        return None
    inputs = settings.load()
    if isinstance(inputs, Inputs):
        warn_of_bytes(inputs, settings.path, settings)
    return inputs


def warn_of_bytes(inputs: Inputs, path: Path, arrays: ArraySettings) -> None:
    """A word about inputs that may have to be divided."""
    if (
        is_one(inputs.bounds)
        and hull(inputs.bounds) == (0.0, 255.0)
        and arrays.scale in (None, 1)
        and arrays.bounds is None
    ):
        terminal.warn(f"{path}: used without scaling, as 0..255; if the victim expects 0..1, divide by a scale of 255")


def file_to_write(path: Path) -> Path:
    """Where a file is written to, which is looked at before anything long is done.

    Raises:
        FileFormatError: When a folder is in its place, or nothing can be written there.
    """
    if path.is_dir():
        raise FileFormatError(
            f"{path}: expected a file to write, found a folder; name a file in it, such as {path / 'FILE'}",
            code="cannot-write",
        )
    there = next(parent for parent in path.absolute().parents if os.path.lexists(parent))
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise FileFormatError(
            f"{path}: cannot be written: {there} is not a folder that you may write to; name another place",
            code="cannot-write",
        )
    return path


def folder_to_write(path: Path) -> Path:
    """Where files are written to.

    Raises:
        UsageError: When there is a file in its place.
    """
    if path.exists() and not path.is_dir():
        raise UsageError(f"{path}: expected an output folder, found a file", code="would-overwrite")
    return path


def judge_of(settings: JudgeSettings, session: Session, offer: Offer) -> Judge:
    """By what suspects are judged, after a word where other metrics than the usual ones fit the suite.

    Raises:
        UsageError, PluginError: As :meth:`~deepjudge_core.judging.judge.Judge.of`.
    """
    judge = Judge.of(settings, session.registry, offer)
    if judge.note:
        terminal.warn(judge.note)
    return judge


def begun(confinement: Confinement | None = None) -> Session:
    """What the steps of a command need, after a word about plugins that fail.

    Args:
        confinement: Where models' files are run; None for commands that open none in a session.
    """
    sweep()  # even if all answers are stored, so that no model is opened
    registry = load_registry()
    for line in registry.failures():
        terminal.warn(line)
    if confinement is None:
        return Session(registry)
    return Session(registry, confinement.policy, device=confinement.device)
