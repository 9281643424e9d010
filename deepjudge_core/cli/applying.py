"""Options of models, given to those files whose format takes them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from deepjudge_core.auditing.subject import ModelFile, Subject
from deepjudge_core.components.opening import options_taken
from deepjudge_core.components.registry import Adapters
from deepjudge_core.errors import DeepJudgeError, UsageError
from deepjudge_core.files import storage
from deepjudge_core.suites.settings import SuiteSettings
from deepjudge_core.text import is_url
from deepjudge_core.weights.reading import lora

_NAMED = 3  # files in a message
_KINDS = {"arch": "a file of PyTorch weights", "base": "a LoRA"}


def options_of_each(
    files: Sequence[str], options: Mapping[str, Any], adapters: Adapters, ancestor: Path | None = None
) -> list[dict[str, Any]]:
    """The options that each file is opened with: of those given, the ones that its format takes.

    An option that no file takes stays with all of them, so that it is refused. So do all options with a file that is
    not there, or of no known format: opening it says what is wrong.

    Args:
        files: Models and stored observations.
        options: Of adapters, by name.
        adapters: The installed ones.
        ancestor: What the victim was made from, which may be a LoRA, too.
    """
    each = [_taken(file, options, adapters) for file in files]
    for name, value in options.items():
        of_ancestor = name == "base" and ancestor is not None and lora.is_lora(ancestor)
        if not of_ancestor and not any(name in taken for taken in each):
            each = [taken | {name: value} for taken in each]
    return each


def check_base(files: Iterable[str | Path | None], base: str | None) -> None:
    """Refuse a base that no model has: whoever reads weights would pass over it.

    Args:
        files: All models; None for none.
        base: What the LoRA among them change; None if it was not named.

    Raises:
        UsageError: When there is no LoRA among them.
    """
    if base and not any(lora.is_lora(Path(file)) for file in files if file):
        raise UsageError("--base: expected a LoRA among the models, found none; leave --base out", code="conflict")


def with_base(suite: SuiteSettings, options: Mapping[str, Any]) -> SuiteSettings:
    """The settings of a suite, whose ancestor gets the base that was given for all models."""
    base = options.get("base")
    is_lora = suite.ancestor is not None and lora.is_lora(suite.ancestor)
    return replace(suite, ancestor_base=Path(base)) if base and is_lora else suite


def check_options(subjects: Iterable[Subject], adapters: Adapters) -> None:
    """Refuse options that a file does not take.

    Raises:
        UsageError: Naming the files.
    """
    files: dict[str, list[str]] = {}
    for subject in subjects:
        if isinstance(subject, ModelFile):
            for name in subject.options.keys() - _taken(subject.name, subject.options, adapters).keys():
                files.setdefault(name, []).append(subject.name)
    for name, named in files.items():
        some = ", ".join(named[:_NAMED]) + (f" and {len(named) - _NAMED} more" if named[_NAMED:] else "")
        kind = _KINDS.get(name, "a model whose format supports it")
        raise UsageError(f"--{name}: expected {kind}, found {some}; leave --{name} out", code="conflict")


def takes(file: str, name: str, adapters: Adapters) -> bool:
    """Whether a model is opened with an option of this name."""
    return name in _taken(file, {name: None}, adapters)


def _taken(file: str, options: Mapping[str, Any], adapters: Adapters) -> dict[str, Any]:
    path = Path(file)
    if not options or (not is_url(file) and storage.is_own(path)):
        return {}
    try:
        adapter = adapters.of_url(file) if is_url(file) else adapters.of_file(path, file)
    except DeepJudgeError:
        return dict(options)
    return options_taken(path, adapter, options) if is_url(file) or path.exists() else dict(options)
