"""macOS' own sandbox, as a profile for ``sandbox-exec``: best effort.

Nobody has run it: its rules follow the profiles that the system ships in /System/Library/Sandbox/Profiles. What a
worker reports on macOS is therefore never more than ``process-only``.
"""

import sys
from collections.abc import Iterable
from pathlib import Path

_RULES = """\
(version 1)
(deny default)
(deny network*)
(deny process-fork)
(allow process-exec {python})
(allow process-info* (target self))
(allow signal (target self))
(allow sysctl-read)
(allow file-read-metadata)
(allow file-read* (subpath "/System") (subpath "/usr/lib") (literal "/dev/urandom") (literal "/") {readable})
(allow file-read* file-write* (literal "/dev/null") {writable})
"""


def profile(readable: Iterable[Path], writable: Path) -> str:
    """The text for ``sandbox-exec -p``: everything is denied but reading those and writing this.

    Args:
        readable: Files and folders.
        writable: A folder.
    """
    return _RULES.format(
        python=_paths({Path(sys.executable), Path(sys.executable).resolve()}),
        readable=_paths({*readable}),
        writable=_paths({writable}),
    )


def _paths(paths: Iterable[Path]) -> str:
    quoted = (str(path.resolve()).replace("\\", "\\\\").replace('"', '\\"') for path in paths)
    return " ".join(f'(subpath "{path}")' for path in sorted(quoted))
