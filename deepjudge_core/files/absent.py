"""What is said of a path where nothing is."""

import contextlib
import difflib
from pathlib import Path

NO_SUCH = "no such file or folder"
_MISSPELT = 0.8  # from here on, two names are so alike that one is the other with a slip


def instead_of(value: str) -> str:
    """What a person may have meant by a path where nothing is, or where the path starts."""
    if value.startswith("~"):
        return "write the whole path, because ~ does not stand for your home folder here"
    if not value.isprintable():
        return r"it has a character that is not shown, such as the tab that \t stands for: write / in paths"
    path = Path(value)
    with contextlib.suppress(OSError, ValueError):
        near = difflib.get_close_matches(path.name, [other.name for other in path.parent.iterdir()], 1, _MISSPELT)
        if near:
            return f"did you mean {str(path.parent / near[0])!r}?"
    return "check its name" if path.is_absolute() else f"relative paths start in {Path.cwd()}"
