"""What adapters do alike: names for messages, missing frameworks, unreadable files, a rehearsal with a tiny model.

Nothing here imports a framework.
"""

import contextlib
import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deepjudge_core.errors import MissingExtraError, ModelError
from deepjudge_core.models.model import Access, Model
from deepjudge_core.types import Array


@dataclass(frozen=True)
class Extra:
    """A framework that may be missing.

    Attributes:
        framework: What messages call it.
        name: The extra of this distribution that installs it.
        modules: Names of its top-level modules.
    """

    framework: str
    name: str
    modules: tuple[str, ...]

    @property
    def missing(self) -> bool:
        """Whether one of its modules is not installed; nothing is imported to find out."""
        return any(importlib.util.find_spec(module) is None for module in self.modules)

    @contextlib.contextmanager
    def needed_by(self, model: str) -> Iterator[None]:
        """Import the framework inside the block, for the model of this name.

        Raises:
            MissingExtraError: If it is not installed.
        """
        try:
            yield
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] not in self.modules:
                raise
            raise MissingExtraError(model, self.framework, self.name) from error


def keep_triton_out() -> None:
    """Let no later import load Triton in this process, unless it is there already.

    TensorFlow shows its LLVM to all libraries that are loaded after it, and Triton's crashes on it
    (https://github.com/tensorflow/tensorflow/issues/124205). PyTorch looks for Triton when it makes an optimizer or
    exports, and does without it where it finds none.
    """
    sys.modules.setdefault("triton", None)  # type: ignore[arg-type]  # so that importing it fails


def name_of(source: object) -> str:
    """What messages call a source that its user gave no name: a file's path, or the class of a live object."""
    return str(source) if isinstance(source, Path) else type(source).__name__


@contextlib.contextmanager
def readable(name: str, expected: str) -> Iterator[None]:
    """Read a model's file inside the block.

    Args:
        name: What messages call it.
        expected: What it should be.

    Raises:
        ModelError: If the system does not let it be read.
    """
    try:
        yield
    except OSError as error:
        raise ModelError(f"{name}: expected {expected}, found none that can be read: {error.strerror}") from error


@contextlib.contextmanager
def prefixed(prefix: str) -> Iterator[None]:
    """Put a prefix, such as the model's name, before what errors of models inside the block say.

    Raises:
        ModelError: As the block does.
    """
    try:
        yield
    except ModelError as error:
        raise ModelError(f"{prefix}: {error}") from error


def rehearse(model: Model, *, gradients: bool) -> None:
    """Ask a model of the adapter's own everything once, so that libraries load what they load late.

    Args:
        model: A tiny one.
        gradients: Whether gradients are asked, too, where it has them.
    """
    x = np.zeros((2, *(axis or 1 for axis in model.input.shape)), np.float32)
    model.predict(x)
    model.activations(x, list(model.layers))
    if gradients and Access.GRADIENTS in model.access:
        model.gradient(x, _ones)


def _ones(scores: Array, rows: slice) -> Array:
    return np.ones_like(scores)
