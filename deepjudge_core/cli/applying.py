"""Options of models, given to those files whose format takes them."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from deepjudge_core.auditing.subject import ModelFile, Subject
from deepjudge_core.components.opening import options_taken
from deepjudge_core.components.registry import Adapters
from deepjudge_core.errors import DeepJudgeError, UsageError
from deepjudge_core.files import storage

_NAMED = 3  # files in a message


def options_of_each(files: Sequence[str], options: Mapping[str, Any], adapters: Adapters) -> list[dict[str, Any]]:
    """The options that each file is opened with: of those given, the ones that its format takes.

    An option that no file takes stays with all of them, so that it is refused. So do all options with a file that is
    not there, or of no known format: opening it says what is wrong.

    Args:
        files: Models and stored observations.
        options: Of adapters, by name.
        adapters: The installed ones.
    """
    each = [_taken(Path(file), options, adapters) for file in files]
    for name, value in options.items():
        if not any(name in taken for taken in each):
            each = [taken | {name: value} for taken in each]
    return each


def weight_options_of_each(
    files: Sequence[str], options: Mapping[str, Any], adapters: Adapters
) -> list[dict[str, Any]]:
    """The same of options without which the weights of some formats cannot be read, such as ``base`` of a LoRA.

    Args:
        files: Models and stored observations, of which weights alone are read.
        options: Of adapters, by name.
        adapters: The installed ones.

    Raises:
        UsageError: For an option that no file needs.
    """
    each = [{name: options[name] for name in _needed(Path(file), adapters) if name in options} for file in files]
    for name in options:
        if not any(name in taken for taken in each):
            raise UsageError(
                f"--{name}: expected a model that cannot be read without it, found none; leave --{name} out",
                code="conflict",
            )
    return each


def _needed(path: Path, adapters: Adapters) -> tuple[str, ...]:
    if not path.exists() or storage.is_own(path):
        return ()
    try:
        adapter = adapters.of_file(path, str(path))
        return adapter.examine(path).needs if adapter.examine else ()
    except Exception:  # what is wrong is said when it is opened
        return ()


def check_options(subjects: Iterable[Subject], adapters: Adapters) -> None:
    """Refuse options that a file does not take.

    Raises:
        UsageError: Naming the files.
    """
    files: dict[str, list[str]] = {}
    for subject in subjects:
        if isinstance(subject, ModelFile):
            for name in subject.options.keys() - _taken(Path(subject.path), subject.options, adapters).keys():
                files.setdefault(name, []).append(subject.name)
    for name, named in files.items():
        some = ", ".join(named[:_NAMED]) + (f" and {len(named) - _NAMED} more" if named[_NAMED:] else "")
        kind = "a file of PyTorch weights" if name == "arch" else "a model whose format supports it"
        raise UsageError(f"--{name}: expected {kind}, found {some}; leave --{name} out", code="conflict")


def _taken(path: Path, options: Mapping[str, Any], adapters: Adapters) -> dict[str, Any]:
    if not options or storage.is_own(path):
        return {}
    try:
        adapter = adapters.of_file(path, str(path))
    except DeepJudgeError:
        return dict(options)
    return options_taken(path, adapter, options) if path.exists() else dict(options)
