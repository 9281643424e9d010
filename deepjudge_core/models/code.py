"""Code of the user's own that makes a network: a function in a module, or in a file."""

import contextlib
import importlib
import importlib.util
import operator
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from deepjudge_core.errors import UsageError

_SUFFIX = ".py"
FORM = 'a function, written "file.py:function" or "module:function"'


@dataclass(frozen=True)
class OwnCode:
    """Where the function is.

    Attributes:
        module: ``package.module``, or the path of a file that ends in ``.py``.
        function: Its name there, dotted if it stands in something else.
    """

    module: str
    function: str

    @classmethod
    def parse(cls, text: str) -> "OwnCode":
        """Read ``module:function`` or ``file.py:function``.

        Raises:
            UsageError: When it is neither.
        """
        module, _, function = text.rpartition(":")
        code = cls(module, function)
        names = function.split(".") if code.file else [*module.split("."), *function.split(".")]
        if not all(name.isidentifier() for name in names):
            raise UsageError(f"expected {FORM}, found {text!r}", code="wrong-value")
        return code

    def __str__(self) -> str:
        return f"{self.module}:{self.function}"

    @property
    def file(self) -> Path | None:
        """The file that is named; None of a module."""
        return Path(self.module) if self.module.endswith(_SUFFIX) else None

    def absolute(self) -> "OwnCode":
        """The same from every folder: the path of a file made whole."""
        return self if self.file is None else replace(self, module=str(self.file.absolute()))

    def load(self) -> ModuleType:
        """The module, imported: what is installed is found as always, a file and what lies beside it by its path.

        Raises:
            Exception: Whatever the code raises; ``ModuleNotFoundError`` and ``FileNotFoundError`` among it.
        """
        if self.file is None:
            return importlib.import_module(self.module)
        name = str(self.file.absolute())  # by which no import finds it, so that it takes no other module's place
        if name in sys.modules:
            return sys.modules[name]
        spec = importlib.util.spec_from_file_location(name, name)
        if spec is None or spec.loader is None:
            raise ImportError(f"{self.module} is no Python file")
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        try:
            with on_path(self.file.absolute().parent):
                spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
        return module

    def make(self) -> Any:
        """What the function gives.

        Raises:
            Exception: Whatever the code raises.
        """
        function: Callable[[], Any] = operator.attrgetter(self.function)(self.load())
        with contextlib.nullcontext() if self.file is None else on_path(self.file.absolute().parent):
            return function()


@contextlib.contextmanager
def on_path(folder: Path) -> Iterator[None]:
    """Find modules in a folder, before all others, as ``python -m`` does where the user is."""
    here = str(folder)
    sys.path.insert(0, here)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        # The user's code may have changed the path itself.
        with contextlib.suppress(ValueError):
            sys.path.remove(here)
