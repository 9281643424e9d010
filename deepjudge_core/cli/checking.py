"""What can be checked of an audit before its first model is run: all that is wrong is said at once."""

import ast
import contextlib
import importlib.util
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from deepjudge_core.auditing.subject import ModelFile, Subject
from deepjudge_core.bundles.bundle import withheld_folder
from deepjudge_core.bundles.log import read_log
from deepjudge_core.bundles.manifest import QUERIES, SUITE
from deepjudge_core.cli.applying import check_options
from deepjudge_core.components.opening import resolve
from deepjudge_core.components.registry import Adapters
from deepjudge_core.errors import DeepJudgeError, MissingExtraError, ModelError, RefusedError, UsageError
from deepjudge_core.files import storage
from deepjudge_core.models.code import OwnCode
from deepjudge_core.text import is_url

_MOST = 20  # lines


class Problems:
    """Collects what is wrong."""

    def __init__(self) -> None:
        self._errors: list[DeepJudgeError] = []

    def __bool__(self) -> bool:
        return bool(self._errors)

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        """Keep an error that is raised inside the block, and go on behind it."""
        try:
            yield
        except DeepJudgeError as error:
            self.add([error])

    def add(self, errors: Iterable[DeepJudgeError]) -> None:
        """Keep errors."""
        self._errors += errors

    def refuse(self) -> None:
        """End the command if anything is wrong.

        Raises:
            RefusedError: With all of it.
        """
        if self._errors:
            raise RefusedError(list({str(error): error for error in self._errors}.values())[:_MOST])


def check_models(
    victim: Subject,
    controls: Iterable[Subject],
    suspects: Iterable[Subject],
    adapters: Adapters,
    problems: Problems,
    *,
    run: bool,
) -> None:
    """Look at files before they are opened: that they are there, of a known format, and with all that this needs.

    A suspect whose format needs more than there is does not keep the others from being judged, unless all do.

    Args:
        victim: The owner's model.
        controls: Models known to be independent of it.
        suspects: What is judged.
        adapters: The installed ones.
        problems: Hears of all that is wrong.
        run: Whether models are run. If weights alone are read, that needs neither a framework nor the network.
    """
    ours, accused, wrong = [victim, *controls], [*suspects], list[DeepJudgeError]()
    for subject in ours:
        with problems.noted():
            check_format(subject, adapters)
            if run:
                check_needs(subject, adapters)
    for subject in accused:
        with problems.noted():
            check_format(subject, adapters)
            try:
                if run:
                    check_needs(subject, adapters)
            except DeepJudgeError as error:
                wrong.append(error)
    if len(wrong) == len(accused):
        problems.add(wrong)
    with problems.noted():
        check_options([*ours, *accused], adapters)
    for arch in dict.fromkeys(_arch(subject) for subject in [*ours, *accused]):
        if arch:
            with problems.noted():
                check_code(OwnCode.parse(arch))


def check_format(subject: Subject, adapters: Adapters) -> None:
    """Refuse a file of no known format.

    Raises:
        DeepJudgeError: Saying so.
    """
    # A path where nothing is is said of the command line, or of the file that names it.
    if isinstance(subject, ModelFile) and (is_url(subject.name) or os.path.lexists(subject.name)):
        try:
            resolve(str(subject.path), adapters)
        except ModelError as error:
            if error.code != "wrong-format":  # what is in a file is said where it is opened
                raise


def check_needs(subject: Subject, adapters: Adapters) -> None:
    """Refuse a model that could not be run: without its framework, or without what makes its network.

    Raises:
        MissingExtraError, ModelError: Saying what to do.
    """
    path = Path(subject.name)
    if not isinstance(subject, ModelFile) or not path.exists():
        return
    try:
        _, label, adapter = resolve(str(path), adapters)
    except DeepJudgeError:
        return
    if adapter is None:
        return
    if adapter.extra and adapter.extra.missing:
        raise MissingExtraError(label, adapter.extra.framework, adapter.extra.name)
    needs: tuple[str, ...] = ()
    if adapter.examine is not None and (path.is_file() or path.is_dir()):
        with contextlib.suppress(Exception):  # whatever a damaged file makes it stumble over
            needs = adapter.examine(path).needs
    if "arch" in needs and not subject.options.get("arch"):
        raise ModelError(
            f"{label}: expected the network that these weights belong to, found only weights; name "
            "the function or class that builds it, and takes no arguments, with --arch file.py:function",
            code="missing-value",
        )


def check_code(code: OwnCode) -> None:
    """Refuse code that is not there. Nothing of it is run.

    Raises:
        UsageError: Naming it.
    """
    path = code.file or _source(code.module)
    if path is None:
        return
    if not path.is_file():
        raise UsageError(
            f"--arch {code}: expected a Python file or module, found no {code.module} here; give the "
            "path of a file as --arch folder/file.py:function",
            code="cannot-read",
        )
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError) as error:
        raise UsageError(f"--arch {code}: {path} is not readable as Python: {error}", code="cannot-read") from None
    names, star = _names(tree)
    name = code.function.partition(".")[0]
    if name not in names and not star:
        made = ", ".join(sorted(_makers(tree))) or "none"
        raise UsageError(
            f"--arch {code}: expected a function or class {name} in {path}, found none; it has: {made}",
            code="unknown-name",
        )


def _source(module: str) -> Path | None:
    # Of a module where the user is, or where it would be; None of one that is installed, which importing finds.
    base = Path(*module.split("."))
    there = [path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()]
    if there:
        return there[0]
    try:
        installed = importlib.util.find_spec(base.parts[0]) is not None
    except (ImportError, ValueError):
        installed = False
    return None if installed else base.with_suffix(".py")


def _names(tree: ast.Module) -> tuple[set[str], bool]:
    # What may be defined anywhere in it, and whether a star hides more.
    names, star = set[str](), False
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.Name(id=name, ctx=ast.Store()):
                names.add(name)
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                names |= {(alias.asname or alias.name).partition(".")[0] for alias in aliases}
                star = star or any(alias.name == "*" for alias in aliases)
    return names, star or "__getattr__" in names


def _makers(tree: ast.Module) -> Iterator[str]:
    yield from (node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef))


def check_output(folder: Path, victim: str, read: Iterable[Path | None], *, chosen: bool) -> None:
    """Refuse a folder that cannot be written or holds inputs, or by default one that is somebody else's.

    Args:
        folder: Where the outcome goes.
        victim: The victim's name.
        read: Files and folders of inputs; None for none.
        chosen: Whether the user named the folder.

    Raises:
        UsageError: Naming it.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: expected an output folder, found a file", code="would-overwrite")
    for source in read:
        # A folder of pictures would get one more class.
        if source is not None and source.is_dir() and folder.resolve().is_relative_to(source.resolve()):
            raise UsageError(
                f"{folder}: expected an output folder outside of the inputs, found {source}; choose another folder",
                code="would-overwrite",
            )
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise UsageError(f"{folder}: expected a writable folder, found none; name one with -o DIR", code="cannot-write")
    if not chosen and folder.is_dir() and any(folder.iterdir()) and Path(victim).exists():
        _expect_own(folder, victim)


def _expect_own(folder: Path, victim: str) -> None:
    another = "name another folder with -o DIR"
    try:
        first = next((query.model for query in read_log(folder / QUERIES) if query.role == "victim"), None)
    except DeepJudgeError:
        first = None
    if first is None and not storage.is_own(folder / SUITE) and not storage.is_own(withheld_folder(folder) / SUITE):
        raise UsageError(
            f"{folder}: expected a new folder, or one of an earlier audit, found one with other files; {another}",
            code="would-overwrite",
        )
    if first is not None and first != victim:
        raise UsageError(
            f"{folder}: expected a new folder, or an earlier audit of {victim}, found one of {first}; {another}",
            code="would-overwrite",
        )


def _arch(subject: Subject) -> str | None:
    return subject.options.get("arch") if isinstance(subject, ModelFile) else None
